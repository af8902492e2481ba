"""Spikes on the numpy target: loops over synapses, deliveries of spikes, and what is recorded of a run.

A delivery is a triple (synapse, member, lane); all deliveries of a tick are evaluated side by side, and ``+=`` into a
pre- or post-synaptic variable uses ``np.add.at``, so that events which hit one target add up. Where a statement reads
what another delivery of the same tick may have written, deliveries to one target are made one after another, as in
Brian2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from mgdcircuits.circuit.event_kernels import (
    Connections,
    Emit,
    Forget,
    Observe,
    Pathway,
    Remember,
    Side,
)
from mgdcircuits.circuit.program import (
    Index,
    Kernel,
    Literal,
    Look,
    Parameter,
    Position,
    Random,
    Read,
    Step,
    Word,
)
from mgdcircuits.circuit.topology import Sparse
from mgdcircuits.codegen.evaluating import draw_at, evaluate
from mgdcircuits.codegen.numpy_target import NumpyTarget
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.expressions import names as names_of

ADDITIONS = {"+=": np.add, "-=": np.subtract, "*=": np.multiply, "/=": np.divide}


@dataclass
class Trace:
    """A variable watched every `every` ticks at the elements `units`."""

    array: str
    every: int
    units: np.ndarray | slice
    ticks: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)


@dataclass
class Recorder:
    """Spikes of the last trial, or of a run without trials since it began, and the traces that were asked for."""

    spikes: dict[str, list[tuple[int, tuple[np.ndarray, ...]]]] = field(default_factory=dict)
    traces: dict[str, Trace] = field(default_factory=dict)

    def forget(self) -> None:
        """Drop what was recorded, keep what is watched."""
        self.spikes.clear()
        for trace in self.traces.values():
            trace.ticks.clear()
            trace.values.clear()


def recorder(target: NumpyTarget) -> Recorder:
    """What a target records."""
    return target.__dict__.setdefault("_recorder", Recorder())


def now(target: NumpyTarget) -> int:
    """The tick since the beginning."""
    return target.iteration * target.clocks.ticks + target.tick


def visit(target: NumpyTarget, node: Look) -> None:
    """A node that only looks."""
    if target._count_offset:  # an evaluation on request leaves no record
        return
    made = recorder(target)
    match node:
        case Emit(population, spikes):
            found = np.nonzero(target.arrays[spikes] > 0.5)
            if len(found[0]):
                made.spikes.setdefault(population, []).append((now(target), found))
        case Observe():
            tick = now(target)
            for trace in made.traces.values():
                if tick % trace.every == 0:
                    trace.ticks.append(tick)
                    trace.values.append(target.arrays[trace.array][trace.units].copy())
        case Forget():
            made.forget()


@lru_cache(maxsize=256)
def _wiring(kernel: Pathway | Connections) -> tuple[np.ndarray, np.ndarray]:
    """Pre and post unit of every synapse, in the order of the parameters."""
    pre, post, synapse = kernel.topology.indices()
    assert np.array_equal(synapse, np.arange(len(synapse))), "a synapse with states shares its parameters"
    return pre, post


@lru_cache(maxsize=256)
def _outgoing(kernel: Pathway) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Synapses ordered by source unit, with the first and the number of synapses of each."""
    pre, post = _wiring(kernel)
    source, n = (pre, kernel.topology.n_pre) if kernel.side is Side.PRE else (post, kernel.topology.n_post)
    number = np.bincount(source, minlength=n)
    return np.argsort(source, kind="stable"), np.cumsum(number) - number, number


def connections(target: NumpyTarget, step: Step, kernel: Connections) -> None:
    """Run the statements at every synapse; only an edge list needs gathering, the others broadcast."""
    topology = kernel.topology
    n = topology.n_synapses
    shape: tuple[int, ...]
    if isinstance(topology, Sparse):
        shape, units = (n,), {Index.PRE: topology.pre, Index.POST: topology.post}

        def side(array: np.ndarray, index: Index) -> np.ndarray:
            return array[units[index]]
    else:
        shape = topology.parameter_view
        views = {Index.PRE: topology.pre_view, Index.POST: topology.post_view}

        def side(array: np.ndarray, index: Index) -> np.ndarray:
            return array.reshape(*views[index], *array.shape[1:])

    def read(array: np.ndarray, index: Index, positions: int) -> np.ndarray:
        match index:
            case Index.ZERO:
                return array[0]
            case Index.PRE_CHANNEL:
                return side(np.repeat(array, positions, axis=0), Index.PRE)
            case Index.POST_CHANNEL:
                return side(np.repeat(array, positions, axis=0), Index.POST)
            case Index.SYNAPSE | Index.ELEMENT:
                return array.reshape(*shape, *array.shape[1:])
        return side(array, index)

    def position(index: Index) -> np.ndarray:
        number = {Index.PRE: topology.n_pre, Index.POST: topology.n_post}.get(index, n)
        return read(np.arange(number)[:, None, None], index, 1)

    def draw(operand: Random, arguments) -> np.ndarray:
        synapse, member, lane = np.ogrid[0:n, 0 : target.members, 0 : target.batch]
        return _draw(target, operand, synapse, member, lane, arguments).reshape(*shape, target.members, target.batch)

    values = _values(target, step, kernel, read, position, draw)
    for statement in kernel.statements:
        values[statement.target] = evaluate(statement.expression, values)
    for name, array in kernel.writes.items():
        out = target._written(step, array)
        value = np.broadcast_to(np.asarray(values[name]), (*shape, target.members, target.batch))
        value = value.reshape(n, target.members, target.batch)
        if out.shape[2] == 1 < target.batch:
            value = value.mean(2, keepdims=True)  # a parameter that the batch shares moves by the mean change
        out[...] = value


def remember(target: NumpyTarget, step: Step, kernel: Remember) -> None:
    """Copy the spikes into the row of this tick."""
    n = kernel.spikes.n
    row = now(target) % kernel.rows
    target.arrays[kernel.history.name][row * n : (row + 1) * n] = target.arrays[kernel.spikes.name]


def pathway(target: NumpyTarget, step: Step, kernel: Pathway) -> None:
    """Deliver the spikes that arrive in this tick."""
    synapse, member, lane = _arrivals(target, kernel)
    if not len(synapse):
        return
    if _is_parallel(kernel):
        _deliver(target, step, kernel, synapse, member, lane)
        return
    for chosen in _turns(kernel, synapse, member, lane):
        _deliver(target, step, kernel, synapse[chosen], member[chosen], lane[chosen])


def _arrivals(target: NumpyTarget, kernel: Pathway) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    history = target.arrays[kernel.spikes.name]
    history = history.reshape(kernel.rows, -1, *history.shape[1:])
    tick = now(target)
    pre, post = _wiring(kernel)
    source = pre if kernel.side is Side.PRE else post
    if len(kernel.delays) != 1:
        synapse, member, lane = np.nonzero(history[(tick - kernel.delays) % kernel.rows, source] > 0.5)
        return synapse, member, lane
    unit, member, lane = np.nonzero(history[(tick - int(kernel.delays[0])) % kernel.rows] > 0.5)
    order, first, number = _outgoing(kernel)
    each = number[unit]
    offset = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    return order[np.repeat(first[unit], each) + offset], np.repeat(member, each), np.repeat(lane, each)


@lru_cache(maxsize=256)
def _is_parallel(kernel: Pathway) -> bool:
    """Whether no delivery can read what another one of the same tick wrote (Brian2's criterion)."""
    read: set[str] = set()
    for statement in kernel.statements:
        read |= names_of(statement.expression)
        if statement.target in kernel.writes and _place(kernel, statement.target).index is not Index.SYNAPSE:
            if statement.operator not in ADDITIONS or statement.target in read:
                return False
    return True


def _place(kernel: Pathway, name: str) -> Read:
    """Which element of its array a target is."""
    operand = kernel.operands[name]
    assert isinstance(operand, Read), f"{kernel.name} writes {name}"
    return operand


def _turns(kernel: Pathway, synapse, member, lane) -> list[np.ndarray]:
    """Deliveries in turns: within one turn no two share a target."""
    pre, post = _wiring(kernel)
    sides = {_place(kernel, name).index for name in kernel.writes}
    if {Index.PRE, Index.POST} <= sides or sides & {Index.ZERO, Index.PRE_CHANNEL, Index.POST_CHANNEL}:
        return [np.array([k]) for k in range(len(synapse))]
    unit = (pre if Index.PRE in sides else post)[synapse]
    key = (unit * (member.max() + 1) + member) * (lane.max() + 1) + lane
    order = np.argsort(key, kind="stable")
    starts = np.r_[True, np.diff(key[order]) != 0]
    rank = np.arange(len(key)) - np.maximum.accumulate(np.where(starts, np.arange(len(key)), 0))
    turn = np.empty(len(key), int)
    turn[order] = rank
    return [np.nonzero(turn == k)[0] for k in range(turn.max() + 1)]


def _deliver(target: NumpyTarget, step: Step, kernel: Pathway, synapse, member, lane) -> None:
    pre, post = _wiring(kernel)
    place = {Index.PRE: pre[synapse], Index.POST: post[synapse], Index.SYNAPSE: synapse, Index.ELEMENT: synapse}

    def where(array: np.ndarray, index: Index, positions: int = 1) -> tuple[np.ndarray, ...]:
        match index:
            case Index.ZERO:
                element = np.zeros_like(synapse)
            case Index.PRE_CHANNEL | Index.POST_CHANNEL:
                element = (pre if index is Index.PRE_CHANNEL else post)[synapse] // positions
            case _:
                element = place[index]
        return element, member, (lane if array.shape[2] > 1 else np.zeros_like(lane))

    def read(array: np.ndarray, index: Index, positions: int) -> np.ndarray:
        return array[where(array, index, positions)]

    def draw(operand: Random, arguments) -> np.ndarray:
        return _draw(target, operand, synapse, member, lane, arguments)

    values = _values(target, step, kernel, read, lambda index: place[index], draw)
    for statement in kernel.statements:
        value = evaluate(statement.expression, values)
        array = kernel.writes.get(statement.target)
        if array is None:
            values[statement.target] = value
            continue
        operand = _place(kernel, statement.target)
        out = target._written(step, array)
        at = where(out, operand.index, operand.positions)
        value = np.broadcast_to(value, synapse.shape)
        if statement.target in kernel.guards:
            free = np.asarray(values[kernel.guards[statement.target]]) < 0.5
            at, value = tuple(a[free] for a in at), value[free]
        shared = out.shape[2] == 1 < target.batch
        if shared and statement.operator in ("+=", "-="):  # a parameter that the batch shares moves by the mean change
            value = value / target.batch
        if statement.operator in ADDITIONS and (not shared or statement.operator in ("+=", "-=")):
            ADDITIONS[statement.operator].at(out, at, value)
        elif shared:
            raise RunError(
                f"{kernel.name}: `{statement.target} {statement.operator}` writes a value that {target.batch} entries "
                "of a batch share; flag the variable (per sample), or use members instead of a batch"
            )
        else:
            out[at] = _combined(statement.operator, out[at], value)
        values[statement.target] = out[where(out, operand.index, operand.positions)]


def _combined(operator: str, old: np.ndarray, value: np.ndarray) -> np.ndarray:
    return {"=": lambda: value, "//=": lambda: old // value, "%=": lambda: old % value, "**=": lambda: old**value}[
        operator
    ]()


def _values(
    target: NumpyTarget,
    step: Step,
    kernel: Kernel,
    read: Callable,
    position: Callable,
    draw: Callable,
) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, operand in kernel.operands.items():
        match operand:
            case Read(array, index, positions, amplitude):
                if amplitude and array.name not in step.active:
                    values[name] = 0.0
                    continue
                value = read(target._written(step, array), index, positions)
                values[name] = step.factor * value if amplitude and step.factor != 1 else value
            case Literal(value):
                values[name] = value
            case Parameter(parameter):
                values[name] = target.parameters[parameter]
            case Word(word):
                values[name] = target._word(word)
            case Position(index, offset):
                values[name] = position(index) + offset
    for name, operand in kernel.operands.items():
        if isinstance(operand, Random):
            values[name] = draw(operand, [evaluate(a, values) for a in operand.arguments])
    return values


def _draw(target: NumpyTarget, operand: Random, element, member, lane, arguments) -> np.ndarray:
    """Keyed draws at any elements: the same numbers as those of a loop over all."""
    key = target._site_keys(operand.site)[member]
    count = target.count(operand)
    return draw_at(operand.function, key, element, lane, count, target.dtype, arguments)


def run(target: NumpyTarget, step: Step) -> None:
    """Run a loop of a circuit with spikes."""
    match kernel := step.kernel:
        case Connections():
            connections(target, step, kernel)
        case Remember():
            remember(target, step, kernel)
        case Pathway():
            pathway(target, step, kernel)
        case _:
            raise NotImplementedError(type(kernel).__name__)
