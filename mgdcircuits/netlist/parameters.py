"""Parameters and clocks: expressions that use each other, worth a number or (with a word of the run) a formula."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from keyword import iskeyword
from typing import Any

from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.expressions import (
    CONSTANTS,
    FUNCTIONS,
    REDUCTIONS,
    ExpressionError,
    Quantity,
    UnknownName,
    dimensions,
    evaluate,
    is_identifier,
    names,
    nearest,
    substitute,
)
from mgdcircuits.netlist.source import Text
from mgdcircuits.netlist.spec import Dimensions, Position
from mgdcircuits.netlist.units import DIMENSIONLESS, describe, lookup

SECOND: Dimensions = (0, 0, 1, 0, 0, 0, 0)
CLOSE = 1e-6
"""Two times are the same if they differ by less than this part of the smaller one."""
RUNTIME: dict[str, Dimensions] = {
    "n_x": DIMENSIONLESS,  # samples shown so far
    "n_p": DIMENSIONLESS,  # iterations so far
    "n_theta": DIMENSIONLESS,  # updates completed; 0 during the first one
    "n_G": DIMENSIONLESS,  # iterations accumulated in G
    "K": DIMENSIONLESS,  # perturbed elements of the block
    "t": SECOND,
}
"""Words whose value changes while the circuit runs. A parameter that uses one stays a formula."""

RESERVED = frozenset(RUNTIME) | {"iteration", "element", "target", "estimate", "request", "G", "scale"}
GROUP_WORDS = frozenset({
    "i", "j", "N", "N_pre", "N_post", "N_incoming", "N_outgoing", "i_pre", "i_post", "lastspike", "lastupdate",
    "not_refractory", "t_in_timesteps", "writes", "new_x",
})  # fmt: skip
"""What each population, coupling or rule calls something of its own, which would hide a parameter of this name there."""
CLOCKS = ("dt", "tau_p", "tau_x", "tau_theta", "tau_hp")
DEFAULT_CLOCKS = {"tau_p": "1*second", "tau_x": "iteration", "tau_theta": "iteration"}

PARAMETER_CYCLE = reading_rule("parameter-cycle", "parameters must not be defined by each other in a circle")
RESERVED_NAME = reading_rule("reserved-name", "names that the language uses cannot be given to something else")
UNKNOWN_NAME = reading_rule("unknown-name", "an identifier in an expression must stand for something")
EXPRESSION = reading_rule("expression", "an expression must be one that Brian2 could read")
UNIT_MISMATCH = reading_rule("unit-mismatch", "the units on both sides must agree")
OVERRIDE = reading_rule("override", "an override must name a parameter or a clock and keep its unit")
CLOCK_UNIT = reading_rule("clock-unit", "a clock must be a positive time")
NOT_AN_INTEGER = reading_rule("not-an-integer", "shapes, kernels and counts must be whole numbers")


class Parameters:
    """All parameters and clocks of a netlist, evaluated as they are asked for.

    `iteration` (the duration of one iteration) is known only after learning has been expanded: what depends on it is
    left out by `constants` until `set_iteration` was called.
    """

    def __init__(self, parameters: Mapping[Text, Text], clocks: Mapping[Text, Text], at: Position, report: Report):
        self.report = report
        self.texts: dict[str, Text] = {}
        self.clock_names: list[str] = []
        for name, text in parameters.items():
            if self._allowed(name) or name in GROUP_WORDS:  # so that it is not unknown, too
                self.texts[str(name)] = text
        for name, text in clocks.items():
            if str(name) in self.texts:
                report.add(
                    "duplicate-name", name.at, f"`{name}` is a parameter and a clock", "one of them", "rename one"
                )
            elif self._allowed(name):
                self.texts[str(name)] = text
                self.clock_names.append(str(name))
        for clock, default in DEFAULT_CLOCKS.items():
            if clock not in self.texts:
                self.texts[clock] = Text(default, at)
                self.clock_names.append(clock)
        self.iteration: Quantity | None = None
        self.broken: set[str] = set()
        self._values: dict[str, Quantity | None] = {}  # None: a formula
        self._dimensions: dict[str, Dimensions] = {}
        self._active: list[str] = []
        self.applied: dict[str, Any] = {}
        self.put_in: set[str] = set()  # formulas that some expression has taken up

    def _allowed(self, name: Text) -> bool:
        kind = language_of(name)
        if kind:
            kind = f"a word of {kind}"
        elif name in GROUP_WORDS:
            kind = "a word of equations and rules"
        elif not is_identifier(str(name)):
            kind = "not a name"
        elif name in FUNCTIONS or name in REDUCTIONS:
            kind = "the name of a function"
        elif name in CONSTANTS:
            kind = "the name of a constant"
        elif lookup(str(name)) is not None:
            kind = "the name of a unit"
        if kind:
            self.report.add(
                RESERVED_NAME, name.at, f"`{name}` is {kind}", "another name", f"write for example `{name}_0`"
            )
        return kind is None

    def override(self, overrides: Mapping[str, Any]) -> None:
        """Replace values; each must keep the unit of what it replaces."""
        for name, value in overrides.items():
            text = override_text(name, value)
            if name not in self.texts:
                close = nearest(name, self.texts)
                self.report.add(
                    OVERRIDE,
                    text.at,
                    f"there is no parameter or clock `{name}` to override",
                    f"one of {', '.join(sorted(self.texts))}",
                    f"did you mean `{close}`?" if close else "",
                )
                continue
            old, before_text = self.dimensions(name), self.texts[name]
            self.texts[name] = text
            self.applied[name] = value
            self._forget()
            before = len(self.report)
            new = self.dimensions(name)
            if old is not None and new is not None and old != new:
                self.report.add(
                    OVERRIDE,
                    text.at,
                    f"`{name} = {text}` is {_kind(new)}",
                    f"{_kind(old)}, as in the netlist",
                    f"write `{name}={text}*{describe(old)}`" if new == DIMENSIONLESS else "give it that unit",
                )
                self.texts[name] = before_text
                self._forget()
            elif new is None and len(self.report) == before:
                self.report.add(OVERRIDE, text.at, f"`{name} = {text}` cannot be read", "an expression")

    def _forget(self) -> None:
        self._values.clear()
        self._dimensions.clear()
        self.broken.clear()

    def set_iteration(self, seconds: float) -> None:
        """Tell the duration of one iteration."""
        self.iteration = Quantity(seconds, SECOND)

    def resolve_again(self) -> None:
        """Forget values that may depend on `iteration`; problems are not reported twice."""
        self._values.clear()
        self._dimensions.clear()

    def resolve_all(self) -> None:
        """Evaluate everything, so that every problem is found."""
        for name in self.texts:
            self._resolve(name)

    def dimensions(self, name: str) -> Dimensions | None:
        """The dimensions of a parameter or clock, None if it is broken."""
        self._resolve(name)
        return self._dimensions.get(name)

    def known(self) -> dict[str, Dimensions]:
        """The dimensions of all names that may stand in any expression."""
        for name in self.texts:
            self._resolve(name)
        return {**RUNTIME, **self._dimensions}

    def constants(self) -> dict[str, Quantity]:
        """Parameters and clocks that are worth a number."""
        for name in self.texts:
            self._resolve(name)
        return {name: value for name, value in self._values.items() if value is not None}

    def numbers(self) -> dict[str, float]:
        """As `constants`, values only."""
        return {name: quantity.value for name, quantity in self.constants().items()}

    def symbolic(self) -> dict[str, str]:
        """Parameters that are formulas, each written out in words of the run and constant parameters."""
        self.constants()
        return {n: self._written_out(n) for n, v in self._values.items() if v is None and not self._waits(n)}

    def _waits(self, name: str) -> bool:
        return self.iteration is None and "iteration" in self._all_names(name)

    def _all_names(self, name: str) -> set[str]:
        found: set[str] = set()
        todo = [name]
        while todo:
            current = todo.pop()
            for inner in names(self.texts[current]):
                if inner not in found:
                    found.add(inner)
                    if inner in self.texts:
                        todo.append(inner)
        return found

    def _written_out(self, name: str) -> str:
        inner = {n for n in names(self.texts[name]) if n in self.texts and self._values.get(n) is None}
        return substitute(self.texts[name], {n: self._written_out(n) for n in inner})

    def _resolve(self, name: str) -> None:
        if name in self._dimensions or name in self.broken:
            return
        text = self.texts[name]
        if name in self._active:
            circle = " -> ".join([*self._active[self._active.index(name) :], name])
            self.report.add(
                PARAMETER_CYCLE,
                text.at,
                f"{circle}: parameters are defined by each other",
                "no circle",
                "give one a number",
            )
            self.broken.update(self._active[self._active.index(name) :])
            return
        self._active.append(name)
        try:
            self._evaluate(name, text)
        except UnknownName as problem:
            self._unknown(problem, text)
            self.broken.add(name)
        except ExpressionError as problem:
            rule = UNIT_MISMATCH if is_about_units(problem.message) else EXPRESSION
            self.report.add(rule, text.at, f"`{name}`: {problem.message}", "", problem.mend)
            self.broken.add(name)
        finally:
            self._active.pop()

    def _unknown(self, problem: UnknownName, text: Text) -> None:
        candidates = [*self.texts, *RUNTIME, *FUNCTIONS, *CONSTANTS]
        close = nearest(problem.name, candidates)
        mend = f"did you mean `{close}`?" if close else "define it under `parameters`"
        self.report.add(
            UNKNOWN_NAME, text.at, f"unknown name `{problem.name}` in `{text}`", "a parameter or a unit", mend
        )

    def _evaluate(self, name: str, text: Text) -> None:
        used = names(text)
        for other in sorted(used & set(self.texts)):
            self._resolve(other)
        if used & self.broken or name in self.broken:
            self.broken.add(name)
            return
        values = {n: v for n in used if (v := self._values.get(n)) is not None}
        known: dict[str, Dimensions] = {**RUNTIME, "iteration": SECOND}
        known |= {n: self._dimensions[n] for n in used if n in self._dimensions}
        if self.iteration is not None:
            values["iteration"] = self.iteration
        found = dimensions(text, known, values={n: q.value for n, q in values.items()})
        formula = any(n in RUNTIME or n == "iteration" or n in self._dimensions for n in used - set(values))
        self._values[name] = None if formula else evaluate(text, values)
        if formula and self._waits(name):
            self._values.pop(name)
            self._values[name] = None
        self._dimensions[name] = found
        if name in self.clock_names:
            self._check_clock(name, text, found)

    def _check_clock(self, name: str, text: Text, found: Dimensions) -> None:
        value = self._values[name]
        if found != SECOND:
            self.report.add(
                CLOCK_UNIT,
                text.at,
                f"the clock `{name}: {text}` is {_kind(found)}",
                "a time",
                f"write for example `{name}: {text}*ms`" if found == DIMENSIONLESS else "give it in seconds",
            )
            self.broken.add(name)
            self._dimensions[name] = SECOND
        elif value is not None and not 0 < value.value < float("inf"):
            self.report.add(CLOCK_UNIT, text.at, f"the clock `{name}` is {value.value:g} s", "a positive time")
            self.broken.add(name)
        elif value is None and not self._waits(name):
            self.report.add(
                CLOCK_UNIT, text.at, f"the clock `{name}: {text}` changes while the circuit runs", "a constant time"
            )
            self.broken.add(name)

    def integer(self, text: Text, what: str, least: int = 1) -> int | None:
        """The value of an expression that must be a whole number; None (and a problem) if it is not."""
        try:
            value = evaluate(text, self.constants())
        except UnknownName as problem:
            if problem.name not in self.broken:
                if problem.name in self._dimensions or problem.name in RUNTIME:
                    found = f"{what} `{text}` changes while the circuit runs"
                    self.report.add(NOT_AN_INTEGER, text.at, found, "a constant whole number")
                else:
                    self._unknown(problem, text)
            return None
        except ExpressionError as problem:
            self.report.add(EXPRESSION, text.at, f"{what} `{text}`: {problem.message}", "", problem.mend)
            return None
        number = round(value.value) if abs(value.value) < 1e15 else None
        if number is None or value.dimensions != DIMENSIONLESS or abs(value.value - number) > 1e-9 or number < least:
            shown = f" (= {value.value:g})" if str(text) != f"{value.value:g}" else ""
            unit = f", {_kind(value.dimensions)}" if value.dimensions != DIMENSIONLESS else ""
            self.report.add(
                NOT_AN_INTEGER, text.at, f"{what} is `{text}`{shown}{unit}", f"a whole number, at least {least}"
            )
            return None
        return number

    def finish(self, text: str, local: Collection[str] = frozenset()) -> str:
        """Put the formulas of parameters into an expression; names in `local` hide parameters."""
        formulas = {n: f for n, f in self.symbolic().items() if n not in local}
        found = names(text) & set(formulas) if formulas else set()
        self.put_in |= found
        return substitute(text, formulas) if found else str(text)


def language_of(word: str) -> str | None:
    """Whose word it is, which therefore can name nothing else: that of the netlist language or of Python."""
    return "the language" if word in RESERVED else "Python" if iskeyword(word) else None


def is_about_units(message: str) -> bool:
    """Whether an `ExpressionError` complains of units."""
    words = ("adds ", "subtracts ", "compares ", "takes the remainder", "gives ", "the exponent ", "an exponent ")
    return message.startswith(words) or " needs a number without unit" in message or " needs a time" in message


def _kind(found: Dimensions) -> str:
    return "a number without unit" if found == DIMENSIONLESS else f"in {describe(found)}"


def override_text(name: str, value: Any) -> Text:
    """An override as text: numbers, texts, and quantities of Brian2 (anything that has `dim`) are understood."""
    at = Position(f"override {name}", 1)
    if isinstance(value, str):
        return Text(value, at)
    dim = getattr(value, "dim", None)
    if dim is not None and hasattr(dim, "_dims"):
        exponents = tuple(int(n) if n == int(n) else float(n) for n in dim._dims)
        return Text(f"{float(value)!r}*{describe(exponents).replace(' ', '')}", at)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return Text(str(value), at)
    return Text(str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number), at)
