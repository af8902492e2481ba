"""One place where an expression is compared with what is known about its names and with the unit it should have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mgdcircuits.netlist.checks.registry import Report
from mgdcircuits.netlist.expressions import (
    CONSTANTS,
    FUNCTIONS,
    REDUCTIONS,
    ExpressionError,
    Function,
    UnknownName,
    calls,
    dimensions,
    is_condition,
    names,
    nearest,
)
from mgdcircuits.netlist.parameters import Parameters, is_about_units
from mgdcircuits.netlist.spec import Dimensions, Position
from mgdcircuits.netlist.units import DIMENSIONLESS, describe, lookup, power

WITH_REDUCTIONS: Mapping[str, Function] = {**FUNCTIONS, **REDUCTIONS}


@dataclass
class Expressions:
    """Checks expressions against the parameters of a netlist and a scope of further names.

    `tolerated` says of an unknown name whether it may be defined by something that was reported already.
    """

    parameters: Parameters
    report: Report
    _said: set[object] = field(default_factory=set)  # one slip in a rule is said once, not for each parameter

    def known(self, scope: Mapping[str, Dimensions]) -> dict[str, Dimensions]:
        """Parameters, hidden by the names of the scope."""
        return {**self.parameters.known(), **scope}

    def check(
        self,
        expression: str,
        at: Position | None,
        scope: Mapping[str, Dimensions],
        what: str,
        want: Dimensions | None = None,
        reductions: bool = False,
        tolerated: Callable[[str], bool] = lambda name: False,
        condition: bool = False,
        other: str = "",
        rule: str = "unit-mismatch",
    ) -> Dimensions | None:
        """Report what is wrong with an expression; return its dimensions where they are known.

        Parameters
        ----------
        want
            The dimensions that it should have; `other` says why.
        reductions
            Whether `sum`, `mean`... may stand in it.
        tolerated
            Whether an unknown name may belong to something that was reported already.
        condition
            It must be true or false.
        rule
            The rule that a wrong unit breaks.
        """
        known = self.known(scope)
        try:
            used = names(expression)
        except ExpressionError as problem:
            self.report.add("expression", at, f"{what}: {problem.message}", "", problem.mend)
            return None
        for name in used:
            if name in self.parameters.broken or (name not in known and tolerated(name)):
                return None
            if name == "xi" or name.startswith("xi_"):
                known[name] = power((0, 0, 1, 0, 0, 0, 0), -0.5)
        functions = WITH_REDUCTIONS if reductions else FUNCTIONS
        unknown = [UnknownName(n, what="function") for n in sorted(calls(expression) - set(WITH_REDUCTIONS))]
        unknown += [UnknownName(n) for n in sorted(used) if n not in known and n not in CONSTANTS and lookup(n) is None]
        for missing in unknown:
            self.unknown(missing, at, known, what, functions)
        if unknown:
            return None
        try:
            found = dimensions(expression, known, functions, self.parameters.numbers())
        except UnknownName as problem:
            self.unknown(problem, at, known, what, functions)
            return None
        except ExpressionError as problem:
            if self._once(at, problem.message):
                self.report.add(
                    rule if is_about_units(problem.message) else "expression",
                    at,
                    f"{what}: {problem.message}",
                    "",
                    problem.mend,
                )
            return None
        if condition and not is_condition(expression) and found != DIMENSIONLESS:
            self.report.add(
                rule, at, f"{what} is {describe(found)}", "a condition, which is true or false", "write `... > ...`"
            )
        elif want is not None and found != want:
            if self._once(at, found, want):
                self.report.add(rule, at, f"{what} is {_said(found)}", f"{_said(want)}{other}", _mend(found, want))
        return found

    def _once(self, at: Position | None, *what: object) -> bool:
        new = (at, *what) not in self._said
        self._said.add((at, *what))
        return new

    def unknown(
        self, problem: UnknownName, at: Position | None, known: Mapping[str, Dimensions], what: str,
        functions: Mapping[str, Function] = FUNCTIONS,
    ) -> None:  # fmt: skip
        """Report a name or a function that stands for nothing."""
        if not self._once(at, problem.name):
            return
        is_function = "function" in problem.message
        pool = list(functions) if is_function else [*known, *CONSTANTS]
        close = nearest(problem.name, pool)
        kind = "function" if is_function else "name"
        expected = "a function of the language" if is_function else "a variable, a parameter or a unit"
        mend = f"did you mean `{close}`?" if close else ("" if is_function else "define it, or correct its spelling")
        self.report.add("unknown-name", at, f"{what}: unknown {kind} `{problem.name}`", expected, mend)


def _said(found: Dimensions) -> str:
    return "a number without unit" if found == DIMENSIONLESS else f"in {describe(found)}"


def _mend(found: Dimensions, want: Dimensions) -> str:
    if found == DIMENSIONLESS:
        return f"multiply by a quantity in {describe(want)}, or correct the unit"
    if want == DIMENSIONLESS:
        return f"divide by a quantity in {describe(found)}, or correct the unit"
    return "correct the expression or the unit"
