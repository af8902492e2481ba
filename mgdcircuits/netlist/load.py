"""The whole way from text to a description. Each stage takes a value and returns one; the report collects problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mgdcircuits.errors import RunError
from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import RULES, Report
from mgdcircuits.netlist.costs import Measured, measured
from mgdcircuits.netlist.document import Document, LearningDoc, read_document
from mgdcircuits.netlist.draft import Draft
from mgdcircuits.netlist.expand import expand
from mgdcircuits.netlist.expressions import ExpressionError, evaluate
from mgdcircuits.netlist.hardware import give_endurance, hardware_spec
from mgdcircuits.netlist.kinds import Kinds
from mgdcircuits.netlist.learning import Learning, evaluations
from mgdcircuits.netlist.objects import Objects
from mgdcircuits.netlist.parameters import Parameters
from mgdcircuits.netlist.source import Map, read
from mgdcircuits.netlist.spec import CircuitSpec, LearningSpec, TrialSpec
from mgdcircuits.netlist.tables import check_ranges, expand_tables
from mgdcircuits.netlist.tasks import set_variables, task_spec, trial_spec
from mgdcircuits.netlist.variables import build


@dataclass
class Circuit:
    """What the checks look at: the specification, and how it came about."""

    spec: CircuitSpec
    document: Document
    draft: Draft
    objects: Objects
    measured: Measured
    parameters: Parameters
    expressions: Expressions
    tree: Map


def load(
    path_or_text: str | Path, overrides: Mapping[str, Any] | None = None, tables: Mapping[str, str] | None = None
) -> CircuitSpec:
    """Read a netlist.

    Parameters
    ----------
    path_or_text
        The path of a YAML file, or the text of a netlist.
    overrides
        Values of parameters and clocks: numbers, or expressions as text (``"10*kohm"``).
    tables
        `CircuitSpec.tables` of a netlist that was read before, instead of files beside this one.

    Returns
    -------
    CircuitSpec
        The description, checked.

    Raises
    ------
    NetlistError
        With all problems that were found; its `rules` names the rule that each breaks.
    RunError
        Neither a path nor text.
    """
    return load_circuit(path_or_text, overrides, tables).spec


def load_circuit(
    path_or_text: str | Path, overrides: Mapping[str, Any] | None = None, tables: Mapping[str, str] | None = None
) -> Circuit:
    """As `load`, with the intermediate results that `show` and the checks use."""
    if not isinstance(path_or_text, str | Path):
        raise RunError(f"{path_or_text!r} is no netlist; expected the path of a YAML file, or the text of a netlist")
    report = Report()
    tree, text, file = read(path_or_text, report)  # text -> Map of Map, List and Text
    uses = expand_tables(tree, report, tables)
    report.stop_if_any()
    document = read_document(tree, report)  # Map -> Document
    if document is None:
        raise report.error()
    if report.has("wrong-form"):
        raise report.error()  # a section is missing: what follows from that is not worth saying
    parameters = Parameters(document.parameters, document.clocks, document.at, report)
    parameters.override(overrides or {})
    check_ranges(uses, parameters, report)
    kinds = Kinds(document.kinds, report)  # KindDoc -> Template
    draft = expand(document, kinds, parameters, report)  # Document -> Draft: names and shapes
    inputs = set_variables(document, draft, report)
    objects = build(draft, inputs, parameters, report)  # Draft -> PopulationSpec, CouplingSpec
    expressions = Expressions(parameters, report)
    give_endurance(document, objects, expressions)
    columns = tuple(map(str, document.task.columns or ())) if document.task is not None else ()
    result = measured(document, objects, expressions, columns)
    trial = trial_spec(document, objects, result, expressions, columns)
    learning = Learning(objects, result, trial, expressions, columns)
    systems = tuple(
        system
        for name, doc in document.learning.items()
        if isinstance(doc, LearningDoc) and (system := learning.system(name, doc)) is not None
    )
    _tell_iteration(parameters, systems, trial)
    spec = CircuitSpec(
        name=str(document.circuit),
        parameters=MappingProxyType({**parameters.numbers(), **parameters.symbolic()}),
        parameter_dimensions=MappingProxyType(
            {n: d for n in parameters.texts if (d := parameters.dimensions(n)) is not None}
        ),
        clocks=MappingProxyType({name: str(parameters.texts[name]) for name in parameters.clock_names}),
        populations=tuple(objects.populations.values()),
        couplings=tuple(objects.couplings.values()),
        task=task_spec(document, objects, result, expressions, columns),
        cost=result.cost,
        trial=trial,
        learning=systems,
        hardware=hardware_spec(document, objects, expressions, result, systems, trial),
        record=_record(document, objects, result, systems, expressions),
        text=text,
        file=file,
        overrides=MappingProxyType(dict(overrides or {})),
        measure=result.measures,
        tables=MappingProxyType({use.file: use.content for use in uses}),
    )
    circuit = Circuit(spec, document, draft, objects, result, parameters, expressions, tree)
    _check(circuit, report)
    report.stop_if_any()
    return circuit


def _check(circuit: Circuit, report: Report) -> None:
    """Run every rule that looks at the whole circuit."""
    import mgdcircuits.netlist.checks.all  # noqa: F401  (registers the rules)

    for rule in list(RULES.values()):
        if rule.check is not None:
            rule.check(circuit, report)


def _tell_iteration(parameters: Parameters, systems: tuple[LearningSpec, ...], trial: TrialSpec | None) -> None:
    """Compute the duration of an iteration, which clocks may name."""
    constants = parameters.constants()
    held = constants.get("tau_p")
    seconds = held.value if held is not None else 1.0
    if trial is not None:
        try:
            seconds = sum(evaluate(phase.duration, constants).value for phase in trial.phases) or seconds
        except ExpressionError:
            pass
    parameters.set_iteration(seconds * evaluations(systems, trial))
    parameters.resolve_again()
    parameters.resolve_all()


def _record(
    document: Document, objects: Objects, result: Measured, systems: tuple[LearningSpec, ...], expressions: Expressions
) -> tuple[Any, ...]:
    from mgdcircuits.netlist.records import records

    return records(document, objects, result, systems, expressions)
