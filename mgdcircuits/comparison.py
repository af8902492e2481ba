"""The accumulated estimate against the exact gradient: the angle between them, and how long one is of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mgdcircuits.session import Session


def compare(session: Session, groups: Sequence[str]) -> dict[str, np.ndarray]:
    """The estimate as it will be after the next iteration, before an update clears it, against the gradient.

    That iteration is run with its update put off, looked at, and taken back: draws are functions of the iteration, so
    that looking changes nothing.

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
    target, now = session.target, session.iteration
    kept = {a.name: target.array(a.name).copy() for a in session.program.arrays}
    numbers = dict(target.parameters)
    found: dict[str, np.ndarray] = {}
    for system in session.circuit.spec.learning:
        key = f"period_{system.name}"
        postponed = _without_update(now, int(numbers.get(key, 1)))
        if postponed is None:  # in the first windows the word n_G cannot be kept and the update put off
            found = _angles({}, {}, groups, session.members)
            break
        target.parameters[key] = float(postponed)
    else:
        session.step(1)
        estimate = session.gradient_estimate()
        found = _angles(estimate, session.exact_gradient(wrt=list(estimate)), groups, session.members)
    target.parameters.update(numbers)
    for name, values in kept.items():
        target.array(name)[...] = values
    target.iteration = now
    return found


def _without_update(now: int, period: int) -> int | None:
    """A period by which no update is due after iteration `now`, and as many iterations have been accumulated."""
    if (now + 1) % period:
        return period
    windows = now // period
    if windows == 1:
        return None
    return period * (windows or 2)


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
