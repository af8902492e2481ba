"""What expressions read: the target and the label, names of which there are two, neighbours of a device, divisors of 0."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mgdcircuits.netlist.checks.equations import templates
from mgdcircuits.netlist.checks.registry import Report, rule
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.evaluation import compute
from mgdcircuits.netlist.expressions import ExpressionError, names, parse, parse_statements, text
from mgdcircuits.netlist.objects import COUPLING_WORDS, Objects
from mgdcircuits.netlist.source import Text, leaves
from mgdcircuits.netlist.spec import CouplingSpec, PopulationSpec, Position, Sharing

if TYPE_CHECKING:
    from mgdcircuits.netlist.load import Circuit

WORD = re.compile(r"[A-Za-z_]\w*")
OF_UNITS = ("task", "cost", "measure", "trial", "hardware", "record")
"""Sections in which `VARIABLE_POPULATION` names a variable."""
NO_EXPRESSIONS = ("data", "options", "batch", "validation", "sampling")
"""Keys of `task` that hold words, not expressions."""
DIVIDES = ("learning", "task", "cost", "measure")
"""Sections whose expressions are looked at for divisors; equations are, too."""


@rule("missing-target", "an expression that reads `target` or `y` needs a `target` of the task")
def missing_target(circuit: Circuit, report: Report) -> None:
    """`target` in costs, measures and what the task shows; outside trials also `y` in costs and measures."""
    task = circuit.document.task
    if task is not None and task.target is not None:
        return
    own = {*circuit.parameters.texts, *circuit.measured.dimensions}
    for path, leaf in leaves(circuit.tree):
        measures = path[0] in ("cost", "measure") or path[:2] == ("task", "accuracy")
        if not measures and (path[0] not in ("task", "trial") or path[1:2] and path[1] in NO_EXPRESSIONS):
            continue
        words = {"target", "y"} if measures and circuit.spec.trial is None else {"target"}
        try:
            read = names(leaf)
        except ExpressionError:
            continue  # reported by another rule
        for word in sorted((words - own) & read):
            report.add(
                "missing-target",
                leaf.at,
                f"`{path[-1]}: {leaf}` reads `{word}`, but {'the task has no `target`' if task else 'there is no `task`'}",
                "a `target` of the task",
                "add for example `target: y` or `target: onehot(y)` to `task`",
            )


@rule("ambiguous-name", "`VARIABLE_POPULATION` must name one variable")
def ambiguous_name(circuit: Circuit, report: Report) -> None:
    """`x_a_hid`: `x` of `a_hid`, or `x_a` of `hid`."""
    meanings: dict[str, list[str]] = {}
    for population in circuit.spec.populations:
        for variable in population.variables:
            meanings.setdefault(f"{variable.name}_{population.name}", []).append(f"{population.name}.{variable.name}")
    for path, leaf in leaves(circuit.tree):
        if path[0] not in OF_UNITS:
            continue
        for word in dict.fromkeys((*path[1:], *WORD.findall(leaf))):
            if len(meant := meanings.get(word, ())) > 1:
                found = f"`{word}` may be {' or '.join(f'`{name}`' for name in meant)}"
                report.add(
                    "ambiguous-name", leaf.at, found, "a name of one variable", "rename a population or a variable"
                )


@rule("write-reads", "a write, and the update that requests it, read what is of the device, not of its neighbours")
def write_reads(circuit: Circuit, report: Report) -> None:
    """The populations on both sides of a coupling, and what is computed for each sample of a batch, in `on_write`, `update`."""
    objects = circuit.objects
    several = circuit.spec.task is not None and circuit.spec.task.batch > 1
    for thing, template in templates(circuit):
        if isinstance(block := template.texts.get("on_write"), Text):
            _report_reads("on_write", objects, thing, block, several, report)
    for system in circuit.spec.learning:
        doc = circuit.document.learning[system.name]
        update = doc.update if isinstance(doc, LearningDoc) else None
        source = (update.request or update.equations or update.use) if update is not None else None
        if source is None:
            continue
        for site in system.sites:
            name, _, variable = site.parameter.partition(".")
            for thing in objects.every():  # a population of a chain has the name of its coupling
                if thing.name == name and variable in {v.name for v in thing.variables}:
                    _report_reads("update", objects, thing, source.same_place(site.update), several, report)


def per_sample(thing: PopulationSpec | CouplingSpec) -> set[str]:
    """Variables of an object that are computed for each sample, which neither a write nor its request may read in a batch."""
    return {v.name for v in thing.variables if v.sharing is Sharing.REPLICA}


def _report_reads(
    key: str, objects: Objects, thing: PopulationSpec | CouplingSpec, block: Text, several: bool, report: Report
) -> None:
    differ = per_sample(thing) if several else set()
    neighbours = set[str]()
    if isinstance(thing, CouplingSpec):
        own = {v.name for v in thing.variables}
        neighbours = set(objects.coupling_scope(thing)) - own - set(COUPLING_WORDS)
    try:
        statements = parse_statements(block)
    except ExpressionError:
        return  # reported when the object was built
    refused = (differ | neighbours) - {statement.target for statement in statements}
    for statement in statements:
        at = Position(block.at.file, block.at.line + (statement.line_offset if key == "on_write" else 0))
        for name in sorted(names(statement.value) & refused):
            where = " of a population beside the device" if name in neighbours else ""
            report.add(
                "write-reads",
                at,
                f"`{key}` reads `{name}`{where}, which is computed for each sample",
                "what is of the device: its variables, `request` and parameters",
                "put it into `estimate`",
            )


@rule("division-by-zero", "nothing is divided by a constant that is zero")
def division_by_zero(circuit: Circuit, report: Report) -> None:
    """Constant divisors in equations, events and writes, in `learning` and in what is measured; not within `where`, which may
    leave them out."""
    values = {**circuit.parameters.numbers(), "scale": 1.0, "K": 1.0}  # a natural size and a count, which are not zero
    if circuit.parameters.iteration is not None:
        values["iteration"] = circuit.parameters.iteration.value
    for expression, at, other in _expressions(circuit):
        known = {name: value for name, value in values.items() if name not in other}
        try:
            tree = parse(circuit.parameters.finish(expression, other))
        except ExpressionError:
            continue  # a word or a list of them: no expression of its own
        for divisor in _zero_divisors(tree, known):
            report.add(
                "division-by-zero",
                at,
                f"`{' '.join(expression.split())}` divides by `{divisor}`, which is 0",
                "a divisor other than 0",
                "check the parameters",
            )


def _expressions(circuit: Circuit) -> Iterator[tuple[str, Position | None, set[str]]]:
    """What may divide, where it stands, and the names in it that are not those of parameters."""
    objects, measures = circuit.objects, set(circuit.measured.dimensions)
    local = {word for thing in objects.every() for word in objects.scope(thing)} | measures
    local |= {a.name for system in circuit.spec.learning for a in (*system.signals, *system.baseline)}
    for path, leaf in leaves(circuit.tree):
        if path[0] in DIVIDES:
            yield from _parts(leaf, local if path[0] == "learning" else measures)
    for thing, template in templates(circuit):
        scope = set(objects.scope(thing))
        for variable in thing.variables:
            if variable.expression is not None:
                yield variable.expression, variable.at, scope
        for key in ("reset", "on_pre", "on_post", "on_write"):
            if isinstance(block := template.texts.get(key), Text):
                yield from _parts(block, scope | {"request", "writes"})


def _parts(written: Text, other: set[str]) -> Iterator[tuple[str, Position | None, set[str]]]:
    """An expression, or those of a block of statements."""
    try:
        statements = parse_statements(written)
    except ExpressionError:
        yield written, written.at, other
        return
    assigned = {statement.target for statement in statements}
    for statement in statements:
        yield statement.value, Position(written.at.file, written.at.line + statement.line_offset), other | assigned


def _zero_divisors(tree: ast.expr, values: Mapping[str, float]) -> Iterator[str]:
    trees = [tree]
    while trees:
        node = trees.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod):
            try:
                if compute(node.right, values) == 0:
                    yield text(node.right)
            except ExpressionError:
                pass  # not a constant
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "where"):
            trees += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
