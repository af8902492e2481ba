"""What is kept of each pass: the quantities under `measure`, and the values that `record` asks for.

The next pass overwrites the arrays of the one before, and the next block those of the last. So a value that is to be
recorded is copied, pass by pass and block by block, into an array of its own, whose name `kept_name` tells.
"""

from __future__ import annotations

from collections.abc import Mapping

from mgdcircuits.circuit.circuit import Circuit, replica_scalar
from mgdcircuits.circuit.clocks import Clocks, value_of
from mgdcircuits.circuit.program import Array, Elements, Index, Read, Statement, Step
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.spec import Assignment, LearningSpec, RecordSpec, Role


def kept_name(system: str, word: str, pass_name: str, block: int) -> str:
    """The array that keeps `word` of a pass in a block of a learning system."""
    return f"{system}.{word}.{pass_name}@{block}"


def every_evaluation(circuit: Circuit, clocks: Clocks, entry: RecordSpec) -> bool:
    """Whether `every` of an entry is the duration of one evaluation, of which an iteration has several."""
    if entry.every is None or circuit.is_spiking or circuit.spec.trial is not None or clocks.evaluations < 2:
        return False
    return abs(value_of(circuit, clocks, entry.every) / clocks.tau_p - 1) < 1e-6


def asked(circuit: Circuit, clocks: Clocks, entry: RecordSpec, system: LearningSpec) -> tuple[str, ...]:
    """The passes of a system in which the word of an entry is kept.

    Without `passes` it is none: the variable's own array holds what the unperturbed pass left in it. But where there is
    no such pass, an evaluated variable has the value of the last one; and a measure has an array for each pass only.
    """
    spec = circuit.spec
    measures = {m.name for m in spec.measure}
    known = entry.variable in circuit.variables or entry.variable in measures
    if spec.trial is not None or circuit.is_spiking or not (known or (spec.cost and entry.variable == spec.cost.name)):
        return ()
    names = [name for name, _ in system.passes]
    if entry.passes or every_evaluation(circuit, clocks, entry):
        return tuple(n for n in names if n in (entry.passes or names))
    clean = [(s, n) for s in spec.learning for n, factor in s.passes if factor == 0]
    _, variable, _ = circuit.variables.get(entry.variable, (None, None, None))
    evaluated = variable is not None and variable.role in (Role.STORED, Role.TARGET) and not circuit.is_continuous
    if entry.variable not in measures and (clean or not evaluated):
        return ()
    chosen, name = clean[0] if clean else (spec.learning[-1], spec.learning[-1].passes[-1][0])
    return (name,) if chosen is system else ()


def measures(circuit: Circuit, clocks: Clocks, system: LearningSpec, pass_name: str) -> list[Assignment]:
    """The measures that are recorded of a pass, or read by the rule, with those that they read themselves."""
    wanted = {e.variable for e in circuit.spec.record if pass_name in asked(circuit, clocks, e, system)}
    rules = [a.expression for a in (*system.signals, *system.baseline)] + [s.estimate for s in system.sites]
    wanted |= {n.partition(".")[0] for text in rules if text for n in expressions.names(text)}
    found: list[Assignment] = []
    for measure in reversed(circuit.spec.measure):
        if measure.name in wanted:
            wanted |= expressions.names(measure.expression)
            found.insert(0, measure)
    return found


def keep(
    circuit: Circuit,
    clocks: Clocks,
    system: LearningSpec,
    pass_name: str,
    block: int,
    renamed: Mapping[str, str],
    active: frozenset[str],
    factor: float,
) -> list[Step]:
    """Steps that copy what `record` asks of a pass; of a perturbation, what the pass applied of it."""
    words = [e.variable for e in circuit.spec.record if pass_name in asked(circuit, clocks, e, system)]
    found = []
    for word in dict.fromkeys(words):
        array, amplitude = _source(circuit, system, word, pass_name)
        kept = Array(kept_name(system.name, word, pass_name, block), array.shape, array.sharing, array.precision)
        kernel = Elements(
            kept.name,
            (Statement("kept", "value"),),
            {"value": Read(array, Index.ELEMENT, amplitude=amplitude)},
            {"kept": kept},
            n=array.n,
            sharing=array.sharing,
            precision=array.precision,
        )
        rename = {array.name: renamed[array.name]} if array.name in renamed else {}
        found.append(Step(kernel, rename, active, factor))
    return found


def _source(circuit: Circuit, system: LearningSpec, word: str, pass_name: str) -> tuple[Array, bool]:
    if word in circuit.variables:
        _, variable, array = circuit.variables[word]
        return array, variable.role is Role.PERTURBATION
    return replica_scalar(f"{system.name}.{word}.{pass_name}"), False
