"""Clocks and codes: what must fit into what."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.registry import Report, rule
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    bind,
    calls,
    evaluate,
    names,
    nearest,
    parse,
    parse_call,
    text,
)
from mgdcircuits.netlist.learning import evaluations
from mgdcircuits.netlist.parameters import CLOCKS, CLOSE, SECOND
from mgdcircuits.netlist.sizes import elements
from mgdcircuits.netlist.source import Text, leaves

if TYPE_CHECKING:
    from mgdcircuits.netlist.load import Circuit
    from mgdcircuits.netlist.spec import CouplingSpec, PopulationSpec
    from mgdcircuits.netlist.units import Quantity

WORD = re.compile(r"[A-Za-z_]\w*")
MAY_BE_HELD = {"i", "j", "N", "N_pre", "N_post", "N_incoming", "N_outgoing", "i_pre", "i_post", "dt", "t"}
"""Words of an object that a held code may read; `t` is of a parameter that goes on changing, in code and estimate alike."""


def _multiple(long: float, short: float) -> bool:
    """Whether `long` is one or more times `short`."""
    ratio = long / short
    return 0.5 < ratio < inf and abs(ratio - round(ratio)) < CLOSE * max(1.0, ratio)


def duration(seconds: float) -> str:
    """A time in the unit that a person would use."""
    for unit, size in (("second", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("ps", 1e-12)):
        if seconds >= size * (1 - 1e-9):
            return f"{seconds / size:.6g} {unit}"
    return f"{seconds:.6g} second"


@rule(
    "passes-fit",
    "tau_x, tau_theta and `update: every` must be whole numbers of iterations: the passes must fit into them",
)
def passes_fit(circuit: Circuit, report: Report) -> None:
    """`tau_x`, `tau_theta` and `update: every` against the duration of an iteration."""
    iteration, constants = circuit.parameters.iteration, circuit.parameters.constants()
    if iteration is None or not circuit.spec.learning or not _usable(circuit):
        return
    count = evaluations(circuit.spec.learning, circuit.spec.trial)
    each = "a trial" if circuit.spec.trial is not None else f"tau_p = {duration(constants['tau_p'].value)}"
    for clock in ("tau_x", "tau_theta"):
        value = constants.get(clock)
        if value is None or _multiple(value.value, iteration.value):
            continue
        what = "do not fit into" if value.value < iteration.value else "do not divide"
        plural = "evaluation" if count == 1 else "evaluations"
        report.add(
            "passes-fit",
            circuit.parameters.texts[clock].at,
            f"the passes {what} `{clock}`: {count} {plural} of {each} take {duration(iteration.value)}, "
            f"`{clock}` is {duration(value.value)}",
            f"a whole multiple of {duration(iteration.value)}",
            f"write `{clock}: iteration` or `{clock}: 10*iteration`",
        )
    if report.has("passes-fit"):
        return  # `every` may name those clocks
    for name, doc in circuit.document.learning.items():
        if not isinstance(doc, LearningDoc) or doc.update is None or doc.update.every is None:
            continue
        try:
            every = evaluate(doc.update.every, constants | {"iteration": iteration}).value
        except ExpressionError:
            continue  # reported by another rule
        if not _multiple(every, iteration.value):
            report.add(
                "passes-fit",
                doc.update.every.at,
                f"`{name}` updates every {duration(every)}, but an iteration takes {duration(iteration.value)}",
                f"a whole multiple of {duration(iteration.value)}",
                "write `every: tau_theta` or `every: 10*iteration`",
            )


def _usable(circuit: Circuit) -> bool:
    constants = circuit.parameters.constants()
    return "tau_p" in constants and constants["tau_p"].value > 0


@rule("unused-clock", "a clock must be one that the language has, or be read somewhere")
def unused_clock(circuit: Circuit, report: Report) -> None:
    """A misspelt clock would silently leave the default in its place."""
    parameters = circuit.parameters
    words = {w for path, leaf in leaves(circuit.tree) if path[:1] != ("record",) for w in WORD.findall(leaf)}
    for name in parameters.clock_names:
        if name in CLOCKS or name in words:
            continue
        close = nearest(name, [c for c in CLOCKS if c != "tau_hp" and c not in circuit.document.clocks])
        report.add(
            "unused-clock",
            parameters.texts[name].at,
            f"nothing reads the clock `{name}`",
            f"one of {', '.join(CLOCKS)}, or a name that an expression reads",
            f"did you mean `{close}`?" if close else "remove it",
        )


@rule("unused-parameter", "a parameter that is set over an included netlist must be one that something reads")
def unused_parameter(circuit: Circuit, report: Report) -> None:
    """A misspelt parameter in a netlist with `include` would silently change nothing."""
    parameters = circuit.parameters
    main = circuit.spec.file
    if all(text.at.file == main or text.at.file.startswith("override") for text in parameters.texts.values()):
        return
    texts = [str(leaf) for _, leaf in leaves(circuit.tree)]
    texts += [site.update for system in circuit.spec.learning for site in system.sites]  # library snippets written out
    words = {w for text in texts for w in WORD.findall(text)} | parameters.put_in
    for name, value in parameters.texts.items():
        if value.at.file != main or name in words or name in parameters.clock_names:
            continue
        close = nearest(name, [n for n in parameters.texts if n != name])
        report.add(
            "unused-parameter",
            value.at,
            f"nothing reads the parameter `{name}`",
            "a parameter of the included netlist",
            f"did you mean `{close}`?" if close else "remove it",
        )


@rule(
    "clock-multiples",
    "clocks must be whole multiples of the integration step, and windows must lie inside an evaluation",
)
def clock_multiples(circuit: Circuit, report: Report) -> None:
    """`tau_p` and the phases of a trial against `dt`, the window of the cost against `tau_p`."""
    constants, parameters = circuit.parameters.constants(), circuit.parameters
    dt, held = constants.get("dt"), constants.get("tau_p")
    learns = bool(circuit.spec.learning)
    if dt is not None and held is not None and learns and not _multiple(held.value, dt.value):
        report.add(
            "clock-multiples",
            parameters.texts["tau_p"].at,
            f"`tau_p` is {duration(held.value)}, `dt` is {duration(dt.value)}",
            "tau_p a whole multiple of dt",
            f"write for example `tau_p: {max(1, round(held.value / dt.value))}*dt`",
        )
    trial = circuit.spec.trial
    if trial is not None and dt is not None:
        for phase in trial.phases:
            try:
                length = evaluate(phase.duration, constants)
            except ExpressionError:
                continue
            if length.dimensions == SECOND and length.value > 0 and not _multiple(length.value, dt.value):
                doc = circuit.document.trial.extras.get(phase.name) if circuit.document.trial is not None else None
                report.add(
                    "clock-multiples",
                    getattr(doc, "at", trial.at),
                    f"the phase `{phase.name}` lasts {duration(length.value)}, `dt` is {duration(dt.value)}",
                    "a whole multiple of dt",
                )
    cost = circuit.spec.cost
    if cost is not None and cost.over is not None and held is not None and circuit.spec.trial is None:
        if cost.over[1] > held.value * (1 + CLOSE):
            assert circuit.document.cost is not None and circuit.document.cost.over is not None
            at = circuit.document.cost.over.at
            report.add(
                "clock-multiples",
                at,
                f"the window `over` ends at {duration(cost.over[1])}, an evaluation (tau_p) at {duration(held.value)}",
                "a window inside an evaluation",
                "make `tau_p` longer or the window earlier",
            )


@rule("hold", "outside trials a code is held for one iteration, which is `every: tau_p`, or for a whole number of them")
def hold(circuit: Circuit, report: Report) -> None:
    """`perturb: every` against `tau_p` and `iteration`."""
    constants, iteration = circuit.parameters.constants(), circuit.parameters.iteration
    if circuit.spec.trial is not None or "tau_p" not in constants or iteration is None:
        return
    constants["iteration"] = iteration
    for name, doc in circuit.document.learning.items():
        if not isinstance(doc, LearningDoc) or doc.perturb is None or doc.perturb.every is None:
            continue
        try:
            every = evaluate(doc.perturb.every, constants).value
        except ExpressionError:
            continue
        held = constants["tau_p"].value
        if abs(every - held) > CLOSE * held and not _multiple(every, iteration.value):
            report.add(
                "hold",
                doc.perturb.every.at,
                f"`{name}` holds a code for {duration(every)}, but an iteration takes {duration(iteration.value)}",
                f"tau_p, or a whole multiple of {duration(iteration.value)}",
                "write `every: tau_p` for a new code in every iteration, or `every: 10*iteration`",
            )


@rule("held-code", "a code that is held for several iterations is one of numbers that are drawn")
def held_code(circuit: Circuit, report: Report) -> None:
    """Codes that read what may change while `perturb: every` holds them."""
    iteration = circuit.parameters.iteration
    things = {f"{t.name}.{v.name}": (t, v) for t in circuit.objects.every() for v in t.variables}
    docs = circuit.document.learning
    if circuit.spec.trial is not None or iteration is None:
        return
    for system in circuit.spec.learning:
        doc = docs.get(system.name)
        if system.perturb is None or not isinstance(doc, LearningDoc) or doc.perturb is None:
            continue
        drawn = _between_draws(circuit, doc.perturb.every)
        if drawn is None or drawn < iteration.value * (1 + CLOSE):
            continue
        for key, written in doc.perturb.extras.items():
            codes = {q: c for q, c in system.perturb.codes.items() if str(key) in (q, things[q][1].name)}
            changing = [name for q, code in codes.items() for name in _changing(circuit, things[q][0], code)]
            if changing:
                report.add(
                    "held-code",
                    getattr(written, "at", doc.perturb.at),
                    f"the code of `{key}` reads `{changing[0]}`, which may change while `every` holds the code for "
                    f"{round(drawn / iteration.value)} iterations",
                    "a code of numbers that are drawn",
                    "write `every: tau_p` for a new code in every iteration",
                )


def _changing(circuit: Circuit, owner: PopulationSpec | CouplingSpec, code: str) -> list[str]:
    """What a code reads that may change before the next draw: variables, and draws of a pass."""
    variables = set(circuit.objects.scope(owner)) - MAY_BE_HELD
    found = [name for name in names(code) if name.partition(".")[0] in variables and not name.endswith(".draw")]
    return sorted(found) + sorted(f"{name}()" for name in calls(code) if name.endswith("_pass"))


@rule("changing-time", "the time between draws and that between updates are constant")
def changing_time(circuit: Circuit, report: Report) -> None:
    """`perturb: every` and `update: every` of a parameter that changes while the circuit runs."""
    formulas = circuit.parameters.symbolic()
    for doc in circuit.document.learning.values():
        if not isinstance(doc, LearningDoc):
            continue
        for key, part in (("perturb", doc.perturb), ("update", doc.update)):
            every = None if part is None else part.every
            if every is None:
                continue
            for name in sorted(names(every) & set(formulas)):
                found = f"`{key}: every: {every}`, but `{name}: {formulas[name]}` changes while the circuit runs"
                report.add("changing-time", every.at, found, "a constant time")


@rule(
    "sinusoid",
    "frequencies must be resolved: below half of that of the draws, and apart by at least one over the window",
)
def sinusoid(circuit: Circuit, report: Report) -> None:
    """The code `sinusoid(spacing)` in `perturb`."""
    constants = circuit.parameters.constants()
    window = constants.get("tau_theta")
    populations = circuit.objects.populations
    things = {f"{t.name}.{v.name}": (t, v) for t in circuit.objects.every() for v in t.variables}
    by_name = {system.name: system for system in circuit.spec.learning}
    for name, doc in circuit.document.learning.items():
        system = by_name.get(str(name))
        if system is None or system.perturb is None or doc.perturb is None or window is None:
            continue
        drawn = _between_draws(circuit, doc.perturb.every)
        if drawn is None:
            continue
        largest = max(
            (sum(elements(*things[q], populations) for q in block) for block in system.perturb.blocks), default=0
        )
        for key, code in doc.perturb.extras.items():
            spacing = _spacing(code, constants)
            if spacing is None or not isinstance(code, Text):
                continue
            highest, limit = largest * spacing, 1 / (2 * drawn)
            if highest >= limit:
                report.add(
                    "sinusoid",
                    code.at,
                    f"`{key}`: {largest} frequencies {spacing:g} Hz apart reach {highest:g} Hz",
                    f"less than {limit:g} Hz: a code is drawn every {duration(drawn)}",
                    "make `spacing`, `tau_p` or `every` smaller, or perturb in blocks",
                )
            if system.clear and spacing < (1 - CLOSE) / window.value:
                report.add(
                    "sinusoid",
                    code.at,
                    f"`{key}`: frequencies {spacing:g} Hz apart cannot be told apart "
                    f"in tau_theta = {duration(window.value)}",
                    f"a spacing of at least 1/tau_theta = {1 / window.value:g} Hz",
                    "make `spacing` or `tau_theta` larger",
                )


def _between_draws(circuit: Circuit, every: Text | None) -> float | None:
    """Seconds between two draws of a code; None where they are not known."""
    constants, iteration = circuit.parameters.constants(), circuit.parameters.iteration
    if "tau_p" not in constants or iteration is None:
        return None
    held = constants["tau_p"].value
    try:
        drawn = held if every is None else evaluate(every, constants | {"iteration": iteration}).value
    except ExpressionError:
        return None
    if drawn <= 0:
        return None
    once_an_iteration = circuit.spec.trial is None and abs(drawn - held) <= CLOSE * held
    return iteration.value if once_an_iteration else drawn


def _spacing(code: Text, constants: Mapping[str, Quantity]) -> float | None:
    try:
        for node in ast.walk(parse(code)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "sinusoid":
                bound = bind(library.codes()["sinusoid"], parse_call(text(node)))
                return evaluate(bound["spacing"], constants).value
    except ExpressionError:
        return None
    return None
