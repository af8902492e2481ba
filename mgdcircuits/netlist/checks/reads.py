"""What expressions read: the target and the label, names of which there are two, neighbours of a device, divisors of 0."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mgdcircuits.netlist.checks.registry import Report, rule
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.evaluation import compute
from mgdcircuits.netlist.expressions import ExpressionError, names, parse, parse_statements, text
from mgdcircuits.netlist.objects import COUPLING_WORDS, Objects
from mgdcircuits.netlist.source import Text, leaves
from mgdcircuits.netlist.spec import CouplingSpec, Position

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
    """Variables of the populations on both sides, in `on_write` and `update` of a coupling."""
    objects = circuit.objects
    for name, drawn in circuit.draft.couplings.items():
        block = drawn.template.texts.get("on_write")
        if name in objects.couplings and isinstance(block, Text):
            _report_neighbours("on_write", objects, objects.couplings[name], block, report)
    for system in circuit.spec.learning:
        doc = circuit.document.learning[system.name]
        update = doc.update if isinstance(doc, LearningDoc) else None
        source = (update.request or update.equations or update.use) if update is not None else None
        if source is None:
            continue
        for site in system.sites:
            name, _, variable = site.parameter.partition(".")
            coupling = objects.couplings.get(name)  # a population of a chain has the same name
            if coupling is not None and variable in {v.name for v in coupling.variables}:
                _report_neighbours("update", objects, coupling, source.same_place(site.update), report)


def _report_neighbours(key: str, objects: Objects, coupling: CouplingSpec, block: Text, report: Report) -> None:
    own = {v.name for v in coupling.variables}
    neighbours = set(objects.coupling_scope(coupling)) - own - set(COUPLING_WORDS)
    try:
        statements = parse_statements(block)
    except ExpressionError:
        return  # reported when the object was built
    neighbours -= {statement.target for statement in statements}
    for statement in statements:
        at = Position(block.at.file, block.at.line + (statement.line_offset if key == "on_write" else 0))
        for name in sorted(names(statement.value) & neighbours):
            report.add(
                "write-reads",
                at,
                f"`{key}` reads `{name}` of a population beside the device, which differs between samples",
                "what is of the device: its variables, `request` and parameters",
                "put it into `estimate`",
            )


@rule("division-by-zero", "nothing is divided by a constant that is zero")
def division_by_zero(circuit: Circuit, report: Report) -> None:
    """Constant divisors in equations, in `learning` and in what is measured; not within `where`, which may leave them out."""
    values = {**circuit.parameters.numbers(), "scale": 1.0, "K": 1.0}  # a natural size and a count, which are not zero
    if circuit.parameters.iteration is not None:
        values["iteration"] = circuit.parameters.iteration.value
    objects = circuit.objects
    local = {word for thing in objects.every() for word in objects.scope(thing)}
    local |= {a.name for system in circuit.spec.learning for a in (*system.signals, *system.baseline)}
    hidden = {
        "learning": local,
        "task": set(),
        "cost": set(),
        "measure": set(),
    }  # names that are not those of parameters
    measures = set(circuit.measured.dimensions)
    written = [(leaf, leaf.at, hidden[path[0]] | measures) for path, leaf in leaves(circuit.tree) if path[0] in DIVIDES]
    equations = [
        (v.expression, v.at, set(objects.scope(thing)))
        for thing in objects.every()
        for v in thing.variables
        if v.expression is not None
    ]
    for expression, at, other in (*written, *equations):
        known = {name: value for name, value in values.items() if name not in other}
        try:
            tree = parse(circuit.parameters.finish(expression, other))
        except ExpressionError:
            continue  # a word, a list of them or a block: no expression of its own
        for divisor in _zero_divisors(tree, known):
            report.add(
                "division-by-zero",
                at,
                f"`{' '.join(expression.split())}` divides by `{divisor}`, which is 0",
                "a divisor other than 0",
                "check the parameters",
            )


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
