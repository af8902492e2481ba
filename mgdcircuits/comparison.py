"""The accumulated estimate against the exact gradient: the angle between them, and how long one is of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mgdcircuits.session import Session


def compare(session: Session, groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Run an iteration, and compare the estimate that it leaves with the gradient at the parameters that it began with.

    Parameters
    ----------
    session
        Of a circuit that has an exact gradient.
    groups
        Qualified names of plastic parameters, in the order of the result.

    Returns
    -------
    dict
        `cosine`, `norm_ratio`: ([member],); `group_cosine`, `group_norm_ratio`: ([member], groups).
    """
    target = session.target
    before = {a.name: target.array(a.name).copy() for a in session.circuit.plastic.values()}
    session.step(1)
    after = {a.name: target.array(a.name).copy() for a in session.program.arrays}
    estimate = session.gradient_estimate()
    try:
        for name, values in before.items():
            target.write(name, values)
        return _angles(estimate, session.exact_gradient(wrt=list(estimate)), groups, session.members)
    finally:
        for name, values in after.items():
            target.write(name, values)


def _angles(
    estimate: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray], groups: Sequence[str], members: int
) -> dict[str, np.ndarray]:
    """Cosine and norm ratio, whole and per group; not a number where one of the two is zero."""
    sums = np.full((3, len(groups), members), np.nan)
    for k, name in enumerate(groups):
        if name in estimate:
            g, e = (np.asarray(a, np.float64).reshape(members, -1) for a in (estimate[name], exact[name]))
            sums[:, k] = (g * e).sum(1), (g * g).sum(1), (e * e).sum(1)

    def compare(dot: np.ndarray, gg: np.ndarray, ee: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            zero = (gg == 0) | (ee == 0)
            return np.where(zero, np.nan, dot / np.sqrt(gg * ee)), np.where(zero, np.nan, np.sqrt(gg / ee))

    cosine, ratio = compare(*np.nansum(sums, axis=1))
    group_cosine, group_ratio = compare(*sums)
    return {
        "cosine": squeeze(cosine),
        "norm_ratio": squeeze(ratio),
        "group_cosine": squeeze(group_cosine.T),
        "group_norm_ratio": squeeze(group_ratio.T),
    }


def squeeze(values: np.ndarray) -> np.ndarray:
    """Without the leading member axis where there is one member."""
    return values[0] if len(values) == 1 else values
