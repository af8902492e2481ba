"""What becomes of the estimate of a plastic parameter: accumulated, requested, written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import reading_rule
from mgdcircuits.netlist.costs import Measured
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    bind,
    names,
    parse,
    parse_call,
    parse_statements,
    substitute_statements,
)
from mgdcircuits.netlist.inference import infer_states, with_unit
from mgdcircuits.netlist.kinds import UNKNOWN_KIND, expected_of
from mgdcircuits.netlist.objects import Objects, statements_of
from mgdcircuits.netlist.parameters import RESERVED, Parameters
from mgdcircuits.netlist.source import Text
from mgdcircuits.netlist.spec import CouplingSpec, Dimensions, PopulationSpec, Position, Variable
from mgdcircuits.netlist.units import DIMENSIONLESS

UPDATE = reading_rule("update", "a learning system must say what is requested, and when")
ESTIMATE = reading_rule("estimate", "an entry of `estimate` must fit a plastic parameter")
ESTIMATE_UNITS = reading_rule("estimate-units", "an estimate has the unit of the cost divided by that of the parameter")
REQUEST_UNITS = reading_rule("request-units", "a request has the unit of the parameter")
SHADOWED_NAME = reading_rule(
    "shadowed-name", "what a rule computes must not take a name that stands for something else"
)

WORDS = RESERVED | {"theta", "writes"}
"""What expressions of a rule can name besides what the netlist names."""


@dataclass
class Place:
    """A plastic parameter and the object that it stands in."""

    name: str
    thing: PopulationSpec | CouplingSpec
    variable: Variable


class Updates:
    """Expands `accumulate`, `update` and `on_write` of plastic parameters one by one."""

    def __init__(self, objects: Objects, measured: Measured, places: list[Place], expressions: Expressions) -> None:
        self.objects = objects
        self.measured = measured
        self.places = places
        self.expressions = expressions
        self.report = expressions.report
        self.parameters: Parameters = expressions.parameters

    def own_name(
        self, name: Text | str, at: Position, what: str, scope: Container[str], on_write: Container[str] = ()
    ) -> None:
        """Report a name that `what` gives to what it computes, if expressions could mean something else by it."""
        kind = self._stands_for(name, scope, on_write)
        if kind is not None:
            self.report.add(
                SHADOWED_NAME,
                at,
                f"{what} computes `{name}`, which is {kind}",
                "a name of its own",
                f"write `{name}_0`",
            )

    def _stands_for(self, name: str, scope: Container[str], on_write: Container[str]) -> str | None:
        """What a name stands for already."""
        kinds = {
            "a word of the language": WORDS,
            "a parameter": self.parameters.texts,
            "a cost or a measure": self.measured.dimensions,
            "a variable or a signal there": scope,
            "computed by `on_write`, too": on_write,
        }
        return next((kind for kind, taken in kinds.items() if name in taken), None)

    def tolerated(self, name: str) -> bool:
        """Whether a name is unknown only because what it stands for was found broken."""
        base = name.partition(".")[0]
        return (
            (base in self.measured.dimensions and self.measured.dimensions[base] is None)
            or self.measured.broken
            or self.objects.may_be_broken(base)
        )

    def finish(self, expression: Text, scope: Mapping[str, Any]) -> str:
        """An expression with what only the netlist knows put in."""
        try:
            return self.parameters.finish(" ".join(str(expression).split()), set(scope) - {"K", "t"})
        except ExpressionError:
            return str(expression)

    def accumulate(
        self,
        place: Place,
        doc: LearningDoc,
        scope: Mapping[str, Dimensions],
        gradient: Dimensions | None,
        estimate: Text | None,
    ) -> str:
        if estimate is None:
            if doc.accumulate is not None:
                self.report.add(ESTIMATE, doc.accumulate.at, "`accumulate` without `estimate`", "an `estimate`")
            return ""
        if doc.accumulate is None:
            return "G + (estimate - G)/n_G"
        if gradient is not None:
            inner = {**scope, "G": gradient, "estimate": gradient}
            self.expressions.check(
                doc.accumulate,
                doc.accumulate.at,
                inner,
                "`accumulate`",
                gradient,
                tolerated=self.tolerated,
                other=", the unit of the estimate",
                rule="estimate-units",
            )
        return self.finish(doc.accumulate, {**scope, "G": None, "estimate": None})

    def update(
        self, place: Place, doc: LearningDoc, scope: Mapping[str, Dimensions], gradient: Dimensions | None
    ) -> tuple[str, tuple[tuple[str, Dimensions], ...]]:
        update = doc.update
        assert update is not None
        given = [
            (k, t) for k, t in (("request", update.request), ("equations", update.equations), ("use", update.use)) if t
        ]
        if len(given) != 1:
            found = (
                f"an update with {' and '.join(f'`{k}`' for k, _ in given)}"
                if given
                else "an update that requests nothing"
            )
            self.report.add(UPDATE, update.at, found, "one of request, equations, use")
            if not given:
                return "", ()
        key, source = given[0]
        on_write = {s.target for s in parse_statements(place.thing.on_write or "")}
        block = self._block(key, source, lambda name: self._stands_for(name, scope, on_write) is not None)
        if block is None:
            return "", ()
        inner = {**scope, "writes": DIMENSIONLESS}
        if gradient is not None:
            inner["G"] = gradient
        dims = place.variable.dimensions
        statements = statements_of(block, self.report)
        pairs = [(s.target, s.value) for s in statements]
        known = {**self.expressions.known(inner), "request": dims}
        guess = infer_states(pairs, known, self.parameters)
        full = {**inner, **guess, "request": dims}
        states: list[tuple[str, Dimensions]] = []
        written: set[str] = set()
        targets = {s.target for s in statements}
        tolerant = gradient is None and doc.estimate is not None

        def tolerated(name: str) -> bool:
            return (tolerant and name == "G") or self.tolerated(name)

        for statement in statements:
            at = Position(block.at.file, block.at.line + (statement.line_offset if key == "equations" else 0))
            if statement.target != "request":
                self.own_name(statement.target, at, "`update`", scope, on_write)
            for read in sorted(names(statement.value)):
                if read in targets and read not in written and read != "request" and read not in dict(states):
                    states.append((read, full.get(read, DIMENSIONLESS)))
            want = full.get(statement.target)
            other = f", the unit of `{place.name}`" if statement.target == "request" else f", as `{statement.target}`"
            self.expressions.check(
                statement.value,
                at,
                full,
                f"`{statement.target}` in `update` for `{place.name}`",
                want,
                other=other,
                tolerated=tolerated,
                rule="request-units",
            )
            written.add(statement.target)
        if "request" not in targets and statements:
            self.report.add(
                UPDATE, source.at, "an update that never sets `request`", "`request = ...` as its last line"
            )
        if doc.estimate is None and any("G" in names(s.value) for s in statements) and "G" not in inner:
            self.report.add(UPDATE, source.at, "an update that reads `G`, but there is no `estimate`", "an `estimate`")
        text_block = "\n".join(
            f"{s.target} = {self.parameters.finish(s.value, set(full) - {'K', 't'})}" for s in statements
        )
        return text_block, tuple(states)

    def _block(self, key: str, source: Text, taken: Callable[[str], bool]) -> Text | None:
        """The statements of an update; what an optimizer of the library computes gets names that are not `taken`."""
        if key == "request":
            try:
                parse(source)
            except ExpressionError as problem:
                self.report.add("expression", source.at, f"`request`: {problem.message}", "", problem.mend)
                return None
            return source.same_place(f"request = {' '.join(str(source).split())}")
        if key == "equations":
            return source
        try:
            call = parse_call(source)
            macro = library.optimizers().get(call.name)
            if macro is None:
                expected, mend = expected_of(call.name, library.optimizers())
                self.report.add(UNKNOWN_KIND, source.at, f"there is no optimizer `{call.name}`", expected, mend)
                return None
            bound = bind(macro, call)
            if "eta" not in self.parameters.texts:
                self.report.add(
                    "unknown-name",
                    source.at,
                    f"`{source}` reads the learning rate `eta`, which is no parameter",
                    "a parameter `eta`",
                    "add `eta: 0.01` to `parameters`",
                )
                return None
            own = {s.target for s in parse_statements(macro.body)} - {"request"}
            renamed = {
                name: next(n for n in free_names(name) if not taken(n) and n not in own) for name in own if taken(name)
            }
            return source.same_place(substitute_statements(macro.body, bound | renamed))
        except ExpressionError as problem:
            self.report.add("expression", source.at, f"`use: {source}`: {problem.message}", "", problem.mend)
            return None

    def on_write(self, place: Place, scope: Mapping[str, Dimensions]) -> str:
        name, thing = place.variable.name, place.thing
        block = thing.on_write
        targets = {s.target for s in parse_statements(block)} if block else set()
        if block is None or name not in targets:
            block = (
                f"{block}\n"
                if block and not targets & {p.variable.name for p in self.places if p.thing is thing}
                else ""
            )
            block += f"{name} = {name} + request"
            targets = {s.target for s in parse_statements(block)}
        if "writes" not in targets:
            block += (
                "\nwrites += int(request != 0)"
                if place.variable.dimensions == DIMENSIONLESS
                else (f"\nwrites += int(request != {with_unit(0, place.variable.dimensions)})")
            )
        endurance = self.objects.endurance.get(place.name)
        return block if endurance is None else worn_out(block, name, endurance)


def free_names(name: str) -> Iterator[str]:
    """Other names for a name: NAME_0, NAME_1, ..."""
    return (f"{name}_{k}" for k in itertools.count())


def worn_out(block: str, parameter: str, endurance: str) -> str:
    """The statements of a write, of a device that sticks once it has seen `endurance` writes."""
    statements = parse_statements(block)
    used = {s.target for s in statements} | {n for s in statements for n in names(s.value)}
    worn = next(word for word in ("worn", *(f"worn_{k}" for k in range(len(used)))) if word not in used)
    lines = [f"{worn} = int(writes >= {endurance})"]
    for s in statements:
        kept = s.target in (parameter, "writes")
        lines.append(f"{s.target} = where({worn} > 0, {s.target}, {s.value})" if kept else str(s))
    return "\n".join(lines)
