"""Costs, parameters and states that are not finite any more: noticed at once, and said where and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.expressions import ExpressionError, names
from mgdcircuits.netlist.spec import Role
from mgdcircuits.pace import SLICE_SECONDS

if TYPE_CHECKING:
    from mgdcircuits.session import Session

ON_NAN = ("stop", "continue")
NAMED = 4
"""Variables that a message names, at most."""


class Watch:
    """Looks after a session that runs.

    The target itself looks at the costs after every iteration and stops at the first that is not finite. Parameters and
    states, which may overflow while the cost does not show it, are looked at every 0.05 s of running.
    """

    def __init__(self, session: Session) -> None:
        session.target.watch(costs(session))
        self._unchecked = 0.0
        self._since = 0

    def look(self, session: Session, before: int, finite: bool, seconds: float) -> None:
        """After a slice of iterations.

        Parameters
        ----------
        before
            Iterations done before it.
        finite
            What the target found.
        seconds
            How long it took.

        Raises
        ------
        RunError
            Something is not finite any more.
        """
        if not finite:
            raise _diverged(session, _quantity(session) + _members(session, costs(session)))
        if not self._unchecked:
            self._since = before
        self._unchecked += seconds
        if self._unchecked >= SLICE_SECONDS:
            self.check(session)

    def check(self, session: Session, cost: np.ndarray | None = None) -> None:
        """Look at parameters and states now, and at the cost of the test set.

        Raises
        ------
        RunError
            Some are not finite any more.
        """
        sick = _sick(session, (Role.PLASTIC, Role.STATE))
        if sick:
            now = session.iteration
            when = f"at iteration {now}" if now - self._since <= 1 else f"between iterations {self._since} and {now}"
            text = f"{session.circuit.name}: {when} {_named(sick)} became infinite or not a number"
            raise RunError(text + _advice(session.circuit))
        self._unchecked = 0.0
        if cost is not None and not np.isfinite(cost).all():
            raise _diverged(session, "cost of the test set")


def _diverged(session: Session, what: str) -> RunError:
    sick = _sick(session)
    also = f"; infinite or not a number: {_named(sick)}" if sick else ""
    return RunError(
        f"{session.circuit.name}: at iteration {session.iteration} the {what} is not finite any more{also}"
        f"{_advice(session.circuit)}"
    )


def costs(session: Session) -> list[str]:
    """Arrays that hold the costs of all passes; where a trial has no cost, its reward."""
    spec = session.circuit.spec
    kept = {a.name for a in session.program.arrays}
    if spec.cost is not None:
        found = [f"{s.name}.{spec.cost.name}.{name}" for s in spec.learning for name, _ in s.passes]
    else:
        found = ["R", *(f"{s.name}.R{block}" for s in spec.learning for block in ("", "@0"))]
    return [name for name in found if name in kept]


def _quantity(session: Session) -> str:
    return "cost" if session.circuit.spec.cost is not None else "reward"


def _members(session: Session, arrays: Iterable[str]) -> str:
    """Which of several members are affected."""
    if session.members == 1:
        return ""
    sick = [m for m in range(session.members) for a in arrays if not np.isfinite(session.target.array(a)[:, m]).all()]
    listed = list(dict.fromkeys(map(str, sick)))
    return f" in member{'s' if len(listed) > 1 else ''} {_named(listed)}"


def _sick(session: Session, roles: tuple[Role, ...] = (Role.PLASTIC, Role.STATE, Role.STORED)) -> list[str]:
    """Variables with values that are not finite, plastic parameters first."""
    found: dict[str, None] = {}
    for role in roles:
        for name, (_, variable, array) in session.circuit.variables.items():
            if variable.role is role and not np.isfinite(session.target.array(array.name)).all():
                found[name] = None
    return list(found)


def _named(sick: list[str]) -> str:
    more = f" and {len(sick) - NAMED} more" if len(sick) > NAMED else ""
    return ", ".join(sick[:NAMED]) + more


def _advice(circuit: Circuit) -> str:
    causes = _steering(circuit)
    smaller = " or ".join(causes) if causes else "learning rate or perturbation"
    left = f"; a value may lie outside {', '.join(circuit.spec.tables)}" if circuit.spec.tables else ""
    return f"{left}; try a smaller {smaller}, or go on all the same with --on-nan continue (on_nan='continue')"


def _steering(circuit: Circuit) -> list[str]:
    """Netlist parameters that set the size of updates and perturbations: `eta = 0.1`."""
    spec = circuit.spec
    updates = [line.partition("=")[2] for s in spec.learning for site in s.sites for line in site.update.splitlines()]
    codes = [text for s in spec.learning for text in (s.perturb.codes.values() if s.perturb else ())]
    found: dict[str, None] = {}
    waiting = list(dict.fromkeys(updates + codes))
    while waiting:
        try:
            used = names(waiting.pop(0))
        except ExpressionError:
            continue
        for name in sorted(used & set(spec.parameters)):
            value = spec.parameters[name]
            if isinstance(value, str):
                waiting.append(value)
            if value:
                found[f"{name} = {value}" if isinstance(value, str) else f"{name} = {value:g}"] = None
    ranked = sorted(found, key=lambda label: not label.startswith(("eta", "delta", "norm", "amplitude", "sig")))
    return ranked[:3]
