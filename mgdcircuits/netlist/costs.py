"""Cost and measures: one number a replica, from the units of its populations."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.expressions import WITH_REDUCTIONS, Expressions
from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.document import Document
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    calls,
    evaluate,
    expand_calls,
    is_identifier,
    names,
    nearest,
    parse,
)
from mgdcircuits.netlist.objects import Objects
from mgdcircuits.netlist.parameters import SECOND
from mgdcircuits.netlist.source import Text
from mgdcircuits.netlist.spec import (
    Assignment,
    CostSpec,
    Dimensions,
)
from mgdcircuits.netlist.syntax import REDUCTION_NAMES
from mgdcircuits.netlist.topologies import product
from mgdcircuits.netlist.units import DIMENSIONLESS

COST_FORM = reading_rule("cost-form", "`cost` names one cost")
COST_NOT_A_NUMBER = reading_rule("cost-not-a-number", "a cost must be one number a replica: units are reduced")
COST_UNITS = reading_rule("cost-units", "costs, measures and accuracy must not mix units")


@dataclass
class Measured:
    """What the circuit reports about itself: the cost, the measures and their dimensions."""

    cost: CostSpec | None = None
    measures: tuple[Assignment, ...] = ()
    dimensions: dict[str, Dimensions | None] = field(default_factory=dict)
    output: tuple[str, str] | None = None  # the variable that the cost compares with the target
    broken: bool = False


def cost_scope(objects: Objects, columns: Iterable[str] = ()) -> dict[str, Dimensions]:
    """The names of a cost: `VARIABLE_POPULATION`, `target`, `y` and the columns of the data."""
    scope = {word: variable.dimensions for word, variable in objects.words().items()}
    scope |= {"target": DIMENSIONLESS, "y": DIMENSIONLESS, "t": SECOND, **dict.fromkeys(columns, DIMENSIONLESS)}
    for name, population in objects.populations.items():
        if population.threshold is not None:
            scope[name] = DIMENSIONLESS
    return scope


def reduced(
    text: Text,
    what: str,
    objects: Objects,
    expressions: Expressions,
    scope: Mapping[str, Dimensions],
    columns: Iterable[str],
    want: Dimensions | None = None,
) -> str | None:
    """An expression of one number a replica: snippets written out, names and units checked."""
    report = expressions.report
    try:
        expanded = expand_calls(text, library.costs())
    except ExpressionError as problem:
        report.add("expression", text.at, f"{what}: {problem.message}", "", problem.mend)
        return None
    functions = {**WITH_REDUCTIONS, **library.costs()}
    for name in sorted(calls(expanded) - set(functions)):
        close = nearest(name, functions)
        mend = f"did you mean `{close}`?" if close else ""
        message = f"{what}: unknown function `{name}`"
        report.add("unknown-name", text.at, message, "a cost of the library or a function", mend)
    if calls(expanded) - set(functions):
        return None
    full = {**cost_scope(objects, columns), **scope}
    found = expressions.check(
        expanded,
        text.at,
        full,
        what,
        want,
        reductions=True,
        rule="cost-units",
        tolerated=lambda n: objects.may_be_broken(n) or n in objects.lost,
    )
    if found is None:
        return None
    loose = outside_reductions(parse(expanded)) & (set(objects.words()) | {"target"})
    sizes = objects.words()
    found_in = {n: objects.find(n) for n in loose}
    loose = {n for n, at in found_in.items() if at is None or product(objects.populations[at[0]].shape) > 1}
    if "target" in loose and not any(n in sizes for n in loose):
        loose.discard("target")
    if loose:
        names_ = ", ".join(f"`{n}`" for n in sorted(loose))
        report.add(
            COST_NOT_A_NUMBER,
            text.at,
            f"{what} has a value for every unit of {names_}",
            "one number",
            "write `mean(...)` or `sum(...)`",
        )
    _same_sizes(parse(expanded), text, what, objects, report)
    return expressions.parameters.finish(expanded, set(full))


def outside_reductions(node: ast.AST) -> set[str]:
    """Names that an expression reads outside of `sum`, `mean` and the like."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        reduces = node.func.id in REDUCTION_NAMES and not (node.func.id == "max" and len(node.args) > 1)
        return set() if reduces else set().union(*(outside_reductions(a) for a in node.args), set())
    if isinstance(node, ast.Name):
        return {node.id}
    return set().union(*(outside_reductions(child) for child in ast.iter_child_nodes(node)), set())


def _same_sizes(tree: ast.AST, text: Text, what: str, objects: Objects, report: Report) -> None:
    """Within one reduction all variables must have the same number of units."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REDUCTION_NAMES):
            continue
        inner = set().union(*(outside_reductions(a) for a in node.args), set())
        sizes = {n: product(objects.populations[p[0]].shape) for n in sorted(inner) if (p := objects.find(n))}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"`{n}` has {s}" for n, s in sizes.items())
            report.add(
                "shape-mismatch",
                text.at,
                f"{what} combines variables of different sizes: {listed} units",
                "equal sizes",
            )
            return


def measured(document: Document, objects: Objects, expressions: Expressions, columns: tuple[str, ...]) -> Measured:
    """The cost and the measures."""
    result = Measured()
    report = expressions.report
    if document.cost is not None:
        entries = [(k, v) for k, v in document.cost.extras.items()]
        if len(entries) != 1:
            found = f"`cost` names {len(entries)} costs" if entries else "`cost` names no cost"
            at = getattr(entries[1][0], "at", document.cost.at) if entries else document.cost.at
            report.add(COST_FORM, at, found, "one, `C: expression`", "put further quantities under `measure`")
            result.broken = True
        for name, text in entries[:1]:
            at = getattr(text, "at", document.cost.at)
            if not isinstance(text, Text) or not is_identifier(str(name)):
                report.add(
                    "wrong-form", at, f"the cost `{name}`", "a name and an expression, `C: mean((x - target)**2)`"
                )
                result.broken = True
                continue
            _find_output(text, objects, result)
            expression = reduced(text, f"the cost `{name}`", objects, expressions, {}, columns)
            dims = None
            if expression is not None:
                dims = dimensions_of(expression, objects, expressions, columns)
            result.dimensions[str(name)] = dims
            window = _window(document, expressions)
            result.cost = CostSpec(str(name), expression or "0", window, at, dims or DIMENSIONLESS)
    measures = []
    for name, text in document.measure.items():
        expression = reduced(text, f"`{name}`", objects, expressions, known(result), columns)
        dims = dimensions_of(expression, objects, expressions, columns, known(result)) if expression else None
        result.dimensions[str(name)] = dims
        measures.append(Assignment(str(name), expression or "0", dims or DIMENSIONLESS, text.at))
    result.measures = tuple(measures)
    return result


def known(result: Measured) -> dict[str, Dimensions]:
    return {n: d for n, d in result.dimensions.items() if d is not None}


def dimensions_of(
    expression: str,
    objects: Objects,
    expressions: Expressions,
    columns: Iterable[str],
    more: Mapping[str, Dimensions] = MappingProxyType({}),
) -> Dimensions | None:
    silent = Expressions(expressions.parameters, Report())
    return silent.check(expression, None, {**cost_scope(objects, columns), **more}, "", reductions=True)


def _find_output(text: Text, objects: Objects, result: Measured) -> None:
    """The variable that stands beside `target`: with it in a call, or else the only one of the cost."""
    try:
        tree = parse(text)
    except ExpressionError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            inside = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            words = [w for w in sorted(inside) if objects.find(w)]
            if "target" in inside and len(words) == 1:
                result.output = objects.find(words[0])
    words = [w for w in sorted(names(text)) if objects.find(w)]
    if result.output is None and len(words) == 1:
        result.output = objects.find(words[0])


def _window(document: Document, expressions: Expressions) -> tuple[float, float] | None:
    doc = document.cost
    if doc is None or doc.over is None:
        return None
    report, parameters = expressions.report, expressions.parameters
    if len(doc.over) != 2:
        report.add(COST_FORM, doc.over.at, f"`over` with {len(doc.over)} values", "`[start, end]`")
        return None
    values = []
    for text in doc.over:
        expressions.check(text, text.at, {}, "`over`", SECOND)
        try:
            values.append(evaluate(text, parameters.constants()).value)
        except ExpressionError:
            return None
    if not 0 <= values[0] < values[1]:
        report.add(
            COST_FORM, doc.over.at, f"the window `over` from {values[0]:g} s to {values[1]:g} s", "start before end"
        )
        return None
    return values[0], values[1]
