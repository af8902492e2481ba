"""Units and names on both sides of everything that a kind may hold: equations, events, thresholds, initial values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mgdcircuits.netlist.checks.registry import Report, rule
from mgdcircuits.netlist.expressions import ExpressionError, names, parse_statements
from mgdcircuits.netlist.parameters import SECOND
from mgdcircuits.netlist.source import Text
from mgdcircuits.netlist.spec import CouplingSpec, Dimensions, PopulationSpec, Position, Role, VariableKind
from mgdcircuits.netlist.units import DIMENSIONLESS, describe, divide

if TYPE_CHECKING:
    from mgdcircuits.netlist.kinds import Template
    from mgdcircuits.netlist.load import Circuit

Thing = PopulationSpec | CouplingSpec


def _tolerated(circuit: Circuit, thing: Thing):  # noqa: ANN202
    """Whether a name may belong to a line that was reported already."""
    objects = circuit.objects
    sides = [thing.name]
    if isinstance(thing, CouplingSpec):
        sides += [thing.pre, thing.post]

    def may_be(name: str) -> bool:
        base = name.removesuffix("_pre").removesuffix("_post")
        return any(objects.is_broken(side, base) or side in objects.lost for side in sides)

    return may_be


@rule(
    "equation-units", "both sides of an equation must have the same unit, and every name in it must stand for something"
)
def equation_units(circuit: Circuit, report: Report) -> None:
    """Differential equations and subexpressions of populations and couplings."""
    for thing in circuit.objects.every():
        scope = circuit.objects.scope(thing)
        if isinstance(thing, PopulationSpec) and thing.name in circuit.objects.lost:
            continue
        for variable in thing.variables:
            if variable.expression is None:
                continue
            is_rate = variable.kind is VariableKind.DIFFERENTIAL
            want = divide(variable.dimensions, SECOND) if is_rate else variable.dimensions
            what = f"`d{variable.name}/dt`" if is_rate else f"`{variable.name}`"
            other = (
                f", because `{variable.name}` is {describe(variable.dimensions)}" if is_rate else ", as its line says"
            )
            if variable.unit in ("boolean", "integer"):
                other = ""
            circuit.expressions.check(
                variable.expression,
                variable.at,
                scope,
                f"{what} of `{thing.name}`",
                want,
                tolerated=_tolerated(circuit, thing),
                other=other,
                rule="equation-units",
            )


@rule("initial-units", "an initial value must have the unit of its variable")
def initial_units(circuit: Circuit, report: Report) -> None:
    """Entries of `initial`, and what is drawn per device."""
    for thing, texts in templates(circuit):
        scope = circuit.objects.scope(thing)
        for variable in thing.variables:
            if variable.initial is None:
                continue
            written = texts.initial.get(variable.name)
            at = written.at if isinstance(written, Text) else variable.at
            circuit.expressions.check(
                variable.initial,
                at,
                scope,
                f"the initial value of `{variable.name}`",
                variable.dimensions,
                tolerated=_tolerated(circuit, thing),
                other=f", the unit of `{variable.name}`",
                rule="initial-units",
            )


@rule("threshold", "a threshold is a condition; a refractory period is a time or a condition")
def threshold(circuit: Circuit, report: Report) -> None:
    """Thresholds and refractory periods."""
    for thing, template in templates(circuit):
        if not isinstance(thing, PopulationSpec):
            continue
        scope = circuit.objects.scope(thing)
        tolerated = _tolerated(circuit, thing)
        for key, expression in (("threshold", thing.threshold), ("refractory", thing.refractory)):
            if expression is None:
                continue
            at = template.texts[key].at
            what = f"`{key}` of `{thing.name}`"
            if key == "threshold":
                circuit.expressions.check(
                    expression, at, scope, what, tolerated=tolerated, condition=True, rule="threshold"
                )
                continue
            found = circuit.expressions.check(expression, at, scope, what, tolerated=tolerated, rule="threshold")
            if found not in (None, SECOND, DIMENSIONLESS):
                report.add("threshold", at, f"{what} is {describe(found)}", "a time or a condition")
        for key in ("reset", "refractory"):
            if key in template.texts and thing.threshold is None:
                found_ = f"`{key}` of `{thing.name}`, which has no threshold"
                report.add("threshold", template.texts[key].at, found_, "`threshold: condition`")


@rule("event-units", "what an event or a write assigns must have the unit of its target")
def event_units(circuit: Circuit, report: Report) -> None:
    """`reset`, `on_pre`, `on_post` and `on_write`."""
    for thing, template in templates(circuit):
        scope = circuit.objects.scope(thing)
        for key in ("reset", "on_pre", "on_post", "on_write"):
            text = template.texts.get(key)
            if not isinstance(text, Text):
                continue
            inner = dict(scope)
            if key == "on_write":
                plastic = [v for v in thing.variables if v.role is Role.PLASTIC]
                if not plastic:
                    found = f"`on_write` of `{thing.name}`, which has no plastic parameter"
                    report.add("event-units", text.at, found, "a parameter with the flag (plastic)")
                    continue
                targets = {s.target for s in _statements(text)}
                written = next((v for v in plastic if v.name in targets), plastic[0])
                inner |= {"request": written.dimensions, "writes": DIMENSIONLESS, "scale": written.dimensions}
            _block(circuit, thing, key, text, inner, report)


def _statements(text: Text):  # noqa: ANN202
    try:
        return parse_statements(text)
    except ExpressionError:
        return []  # reported when the object was built


def _block(circuit: Circuit, thing: Thing, key: str, text: Text, scope: dict[str, Dimensions], report: Report) -> None:
    tolerated = _tolerated(circuit, thing)
    given = {v.name: v for v in thing.variables if v.expression is not None and v.kind is VariableKind.SUBEXPRESSION}
    local: set[str] = set()
    for statement in _statements(text):
        at = Position(text.at.file, text.at.line + statement.line_offset)
        what = f"`{statement.target}` in `{key}` of `{thing.name}`"
        if statement.target in given:
            report.add("event-units", at, f"{what} is given by an equation", "a parameter or a state on the left")
            continue
        if statement.target in circuit.parameters.texts and statement.target not in scope:
            report.add(
                "event-units", at, f"{what} is a parameter of the netlist", "a variable", "declare it in the equations"
            )
            continue
        if statement.target not in scope and tolerated(statement.target):
            continue
        if statement.target not in scope:
            if statement.operator != "=":
                problem = f"{what}: unknown name `{statement.target}`"
                from mgdcircuits.netlist.expressions import nearest

                close = nearest(statement.target, scope)
                mend = f"did you mean `{close}`?" if close else "declare it in the equations"
                report.add("unknown-name", at, problem, "a variable of the object", mend)
                continue
            found = circuit.expressions.check(
                statement.expression, at, scope, what, tolerated=tolerated, rule="event-units"
            )
            scope[statement.target] = found if found is not None else DIMENSIONLESS
            local.add(statement.target)
            if key == "reset" or key == "on_write":
                local.add(statement.target)
            continue
        circuit.expressions.check(
            statement.value,
            at,
            scope,
            what,
            scope[statement.target],
            tolerated=tolerated,
            other=f", the unit of `{statement.target}`",
            rule="event-units",
        )
    used = {n for s in _statements(text) for n in names(s.expression)}
    for statement in _statements(text):
        if statement.target in local and statement.target not in used:
            at = Position(text.at.file, text.at.line + statement.line_offset)
            from mgdcircuits.netlist.expressions import nearest

            close = nearest(statement.target, [n for n in scope if n not in local])
            report.add(
                "unknown-name",
                at,
                f"`{statement.target}` in `{key}` of `{thing.name}` is assigned and never read",
                "a variable of the object",
                f"did you mean `{close}`?" if close else "remove the line",
            )


@rule("delay-units", "a delay is a time")
def delay_units(circuit: Circuit, report: Report) -> None:
    """Delays of couplings."""
    for thing, template in templates(circuit):
        delay = template.texts.get("delay")
        if not isinstance(thing, CouplingSpec):
            continue
        for text in delay.values() if isinstance(delay, dict) else [delay] if delay is not None else []:
            circuit.expressions.check(
                text,
                text.at,
                circuit.objects.scope(thing),
                f"the delay of `{thing.name}`",
                SECOND,
                tolerated=_tolerated(circuit, thing),
                rule="delay-units",
            )


def templates(circuit: Circuit) -> Iterator[tuple[Thing, Template]]:
    """Every object with the template that it was made of."""
    for population in circuit.objects.populations.values():
        if population.name not in circuit.objects.lost:
            yield population, circuit.draft.populations[population.name].template
    for coupling in circuit.objects.couplings.values():
        yield coupling, circuit.draft.couplings[coupling.name].template
