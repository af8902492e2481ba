"""Task, measures and trial: what is asked of a circuit."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.costs import Measured, dimensions_of, known, reduced
from mgdcircuits.netlist.document import Document, PhaseDoc
from mgdcircuits.netlist.draft import Draft
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    evaluate,
    nearest,
    parse,
    parse_call,
)
from mgdcircuits.netlist.kinds import expected_of
from mgdcircuits.netlist.objects import Objects, said
from mgdcircuits.netlist.parameters import SECOND, Parameters
from mgdcircuits.netlist.source import List, Map, Text
from mgdcircuits.netlist.spec import (
    Assignment,
    Dimensions,
    Phase,
    Role,
    Sampling,
    TaskSpec,
    TrialSpec,
    Variable,
)
from mgdcircuits.netlist.topologies import beside
from mgdcircuits.netlist.units import DIMENSIONLESS

UNKNOWN_INPUT = reading_rule("unknown-input", "a key of `task`, `set` or `reset` must name a variable of a population")
NOT_AN_INPUT = reading_rule("not-an-input", "the task can only set a plain parameter of a population")
SAMPLING = reading_rule("sampling", "`sampling` is random, shuffle or sequential")
INPUT_UNITS = reading_rule("input-units", "what the task or a phase sets must have the unit of the variable")
PHASE = reading_rule("phase", "a phase of a trial has a duration, `for` or `after`")

SAMPLE = "x"
NO_DATA = frozenset({"none"})


def find_in_draft(draft: Draft, word: str) -> tuple[str, str] | None:
    """Read `VARIABLE_POPULATION` before roles are known."""
    for cut in range(len(word) - 1, 0, -1):
        if word[cut] == "_":
            variable, population = word[:cut], word[cut + 1 :]
            if population in draft.populations and variable in draft.populations[population].template.lines:
                return population, variable
    return None


def draft_words(draft: Draft) -> list[str]:
    """Every `VARIABLE_POPULATION` of a draft."""
    return [f"{v}_{p.name}" for p in draft.populations.values() for v in p.template.lines]


def draft_is_broken(draft: Draft, word: str) -> bool:
    """Whether `VARIABLE_POPULATION` may name something that could not be read."""
    for cut in range(len(word) - 1, 0, -1):
        if word[cut] == "_":
            variable, population = word[:cut], word[cut + 1 :]
            broken = draft.populations[population].template.broken if population in draft.populations else frozenset()
            if population in draft.lost or variable in broken or "*" in broken:
                return True
    return False


def set_variables(document: Document, draft: Draft, report: Report) -> set[tuple[str, str]]:
    """The variables that the task and the phases of the trial set."""
    found: set[tuple[str, str]] = set()
    words: list[tuple[Text, list[str]]] = []
    if document.task is not None:
        known = ["data", "options", "batch", "validation", "sampling", "target", "accuracy", "columns"]
        words += [(word, known) for word in document.task.extras]
    for phase in (document.trial.extras if document.trial is not None else {}).values():
        words += [(word, []) for word in (phase.set or {} if isinstance(phase, PhaseDoc) else {})]
    for word, known in words:
        pair = find_in_draft(draft, str(word))
        if pair is not None:
            found.add(pair)
        elif not draft_is_broken(draft, str(word)):
            pool = [*known, *draft_words(draft)]
            close = nearest(str(word), pool)
            at = getattr(word, "at", document.at)
            report.add(
                UNKNOWN_INPUT,
                at,
                f"`{word}` names no variable of a population",
                "`VARIABLE_POPULATION: expression`" + (f" or one of {', '.join(known)}" if known else ""),
                f"did you mean `{close}`?" if close else "",
            )
    return found


def task_spec(
    document: Document, objects: Objects, measured: Measured, expressions: Expressions, columns: tuple[str, ...]
) -> TaskSpec | None:
    """The task; `measured` must be known, for the shape of the target and the default accuracy."""
    doc, report, parameters = document.task, expressions.report, expressions.parameters
    if doc is None:
        return None
    sampling = Sampling.RANDOM
    if doc.sampling is not None:
        if str(doc.sampling) in {s.value for s in Sampling}:
            sampling = Sampling(str(doc.sampling))
        else:
            expected, mend = expected_of(str(doc.sampling), [s.value for s in Sampling])
            report.add(SAMPLING, doc.sampling.at, f"`sampling: {doc.sampling}`", expected, mend)
    batch = 1 if doc.batch is None else parameters.integer(doc.batch, "`batch`") or 1
    validation = 0 if doc.validation is None else parameters.integer(doc.validation, "`validation`", 0) or 0
    scope = sample_scope(columns)
    inputs: dict[tuple[str, str], str] = {}
    for word, text in doc.extras.items():
        pair = objects.find(str(word))
        if pair is None:
            continue
        variable = next(v for v in objects.populations[pair[0]].variables if v.name == pair[1])
        at = getattr(text, "at", doc.at)
        if variable.role is not Role.INPUT:
            found = f"`{word}` sets a variable that is {said(variable.role)}"
            report.add(
                NOT_AN_INPUT,
                at,
                found,
                f"a plain parameter `{pair[1]} : {variable.unit}`",
                "add a variable for the input",
            )
            continue
        if not isinstance(text, Text):
            report.add("wrong-form", at, f"the value of `{word}`", "an expression of x")
            continue
        inputs[pair] = _of_sample(text, f"`{word}`", scope, variable, expressions)
    target, shape = _target(doc, objects, measured, expressions, columns)
    accuracy = _accuracy(doc, objects, measured, expressions, target, columns)
    return TaskSpec(
        data=_data(doc.data),
        options=MappingProxyType(_options(doc.options, parameters)),
        batch=batch,
        validation=validation,
        sampling=sampling,
        inputs=MappingProxyType(inputs),
        target=target,
        target_shape=shape,
        accuracy=accuracy,
        at=doc.at,
        columns=columns,
    )


def _of_sample(
    text: Text, what: str, scope: Mapping[str, Dimensions], variable: Variable, expressions: Expressions
) -> str:
    """An expression of a sample. `x[2]`, element 2 of the sample for every unit, becomes the name `x__2`."""
    elements = re.compile(r"\b(" + "|".join(map(re.escape, scope)) + r")\s*\[\s*(\d+)\s*\]")
    plain = text.same_place(elements.sub(lambda found: f"{found[1]}__{int(found[2])}", text))
    inner = {**scope, **{f"{found[1]}__{int(found[2])}": DIMENSIONLESS for found in elements.finditer(text)}}
    found = expressions.check(
        plain, text.at, inner, what, variable.dimensions, other=f", the unit of `{variable.name}`", rule="input-units"
    )
    return str(text) if found is None else expressions.parameters.finish(plain, set(inner))


def sample_scope(columns: Iterable[str]) -> dict[str, Dimensions]:
    """The words of the data: `x`, `y` and further columns; numbers without unit."""
    return {
        "x": DIMENSIONLESS,
        "y": DIMENSIONLESS,
        "i": DIMENSIONLESS,
        "target": DIMENSIONLESS,
        **dict.fromkeys(columns, DIMENSIONLESS),
    }


def _data(text: Text | None) -> str | None:
    """The name of a data set, or the path of a table that lies beside the netlist."""
    if text is None or str(text) in NO_DATA:
        return None
    path = beside(text) if text.endswith(".csv") else None
    return str(path) if path is not None and path.is_file() else str(text)


def _options(options: Map | None, parameters: Parameters) -> dict[str, Any]:
    """Options of a data set: numbers where they are one, else text; lists stay lists."""
    constants = parameters.constants()

    def read(value: Any) -> Any:
        if isinstance(value, List):
            return [read(item) for item in value]
        if isinstance(value, Map):
            return {str(k): read(v) for k, v in value.items()}
        if str(value) in ("true", "false"):
            return str(value) == "true"
        try:
            number = evaluate(value, constants).value
        except ExpressionError:
            return str(value)
        return int(number) if number == int(number) else number

    return {str(key): read(value) for key, value in (options or {}).items()}


def _target(
    doc: Any, objects: Objects, measured: Measured, expressions: Expressions, columns: tuple[str, ...]
) -> tuple[str | None, tuple[int, ...]]:
    if doc.target is None:
        return None, ()
    shape = objects.populations[measured.output[0]].shape if measured.output else ()
    text, report = doc.target, expressions.report
    try:
        node = parse(text)
    except ExpressionError as problem:
        report.add("expression", text.at, f"`target`: {problem.message}", "", problem.mend)
        return None, shape
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "onehot":
        call = parse_call(text)
        if not 1 <= len(call.arguments) <= 3 or call.keywords:
            report.add("expression", text.at, f"`target: {text}`", "`onehot(y)` or `onehot(y, on, off)`")
            return None, shape
        for argument in call.arguments:
            expressions.check(argument, text.at, sample_scope(columns), "`target`", DIMENSIONLESS)
        arguments = [expressions.parameters.finish(a, {"x", "y"}) for a in call.arguments]
        return f"onehot({', '.join(arguments)})", shape
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        from mgdcircuits.netlist.expressions import FUNCTIONS

        if node.func.id not in FUNCTIONS:
            close = nearest(node.func.id, [*FUNCTIONS, "onehot"])
            mend = f"did you mean `{close}`?" if close else ""
            report.add("unknown-name", text.at, f"`target`: unknown function `{node.func.id}`", "`onehot(y)`", mend)
            return None, shape
    expressions.check(text, text.at, sample_scope(columns), "`target`")
    return expressions.parameters.finish(text, {"x", "y"}), shape


def _accuracy(
    doc: Any,
    objects: Objects,
    measured: Measured,
    expressions: Expressions,
    target: str | None,
    columns: tuple[str, ...],
) -> str | None:
    if doc.accuracy is not None:
        if str(doc.accuracy) == "none":
            return None
        text = reduced(doc.accuracy, "`accuracy`", objects, expressions, {}, columns, DIMENSIONLESS)
        return text
    if target is not None and target.startswith("onehot") and measured.output is not None:
        population, variable = measured.output
        return f"argmax({variable}_{population}) == y"
    return None


def trial_spec(
    document: Document, objects: Objects, result: Measured, expressions: Expressions, columns: tuple[str, ...]
) -> TrialSpec | None:
    """The phases of a trial; what they measure is added to `result`."""
    doc, report = document.trial, expressions.report
    if doc is None:
        return None
    phases = []
    for name, phase in doc.extras.items():
        if isinstance(phase, PhaseDoc):
            phases.append(_phase(str(name), phase, objects, result, expressions, columns))
    reset: list[str] = []
    everything = objects.variables()
    for word in doc.reset or ():
        matches = [q for q in everything if q == word or q.partition(".")[2] == word]
        pair = objects.find(str(word))
        if not matches and pair is not None:
            matches = [".".join(pair)]
        if not matches and not objects.any_broken:
            pool = {q.partition(".")[2] for q in everything}
            report.add(
                UNKNOWN_INPUT, word.at, f"`reset` names `{word}`, which no object has", *expected_of(str(word), pool)
            )
        reset += [m for m in matches if m not in reset]
    return TrialSpec(tuple(phases), tuple(reset), doc.at)


def _phase(
    name: str, doc: PhaseDoc, objects: Objects, result: Measured, expressions: Expressions, columns: tuple[str, ...]
) -> Phase:
    report, parameters = expressions.report, expressions.parameters
    durations = [d for d in (doc.for_, doc.after) if d is not None]
    if len(durations) != 1:
        found = f"the phase `{name}` has {'both `for` and `after`' if durations else 'no duration'}"
        report.add(PHASE, doc.at, found, "`for: 100*ms` or `after: 100*ms`")
    duration = durations[0] if durations else Text("0*second", doc.at)
    if durations:
        expressions.check(duration, duration.at, {}, f"the duration of `{name}`", SECOND)
    scope = {**sample_scope(columns), **known(result)}
    settings: dict[str, str] = {}
    for word, text in (doc.set or {}).items():
        pair = objects.find(str(word))
        if pair is None:
            continue
        variable = next(v for v in objects.populations[pair[0]].variables if v.name == pair[1])
        if variable.role is not Role.INPUT:
            found = f"`{word}` sets a variable that is {said(variable.role)}"
            report.add(NOT_AN_INPUT, text.at, found, f"a plain parameter `{pair[1]} : {variable.unit}`")
            continue
        settings[".".join(pair)] = _of_sample(text, f"`{word}`", scope, variable, expressions)
    measures = []
    for word, text in (doc.measure or {}).items():
        more = {**scope, **known(result)}
        expression = reduced(text, f"`{word}`", objects, expressions, more, columns)
        dims = dimensions_of(expression, objects, expressions, columns, more) if expression else None
        result.dimensions[str(word)] = dims
        measures.append(Assignment(str(word), expression or "0", dims or DIMENSIONLESS, text.at))
    return Phase(name, parameters.finish(duration), doc.after is not None, MappingProxyType(settings), tuple(measures))
