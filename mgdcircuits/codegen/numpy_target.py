"""The numpy target: the readable oracle. It interprets a program, one kernel at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mgdcircuits import randomness
from mgdcircuits.circuit.clocks import Clocks
from mgdcircuits.circuit.program import (
    Array,
    Between,
    Clear,
    Copy,
    Count,
    Couple,
    Elements,
    Every,
    Fold,
    Index,
    Into,
    Kernel,
    Literal,
    Look,
    MemberMean,
    Node,
    Parameter,
    Position,
    Precision,
    Program,
    Random,
    Read,
    Reduction,
    Sample,
    Scope,
    Step,
    Ticks,
    Word,
)
from mgdcircuits.circuit.stimuli import MAX_STIMULI, STIMULUS
from mgdcircuits.circuit.topology import Sparse, Topology
from mgdcircuits.codegen.evaluating import draw, draw_at, evaluate
from mgdcircuits.codegen.presenting import present
from mgdcircuits.codegen.target import EVALUATION_COUNT, ITERATE, Data, Target
from mgdcircuits.errors import RunError
from mgdcircuits.interrupts import Held
from mgdcircuits.netlist.spec import Reduce, Sharing


def total(value: np.ndarray, axes: int | tuple[int, ...]) -> np.ndarray:
    """Sum over axes in front of (member, lane), in an order that does not depend on how many replicas there are."""
    if value.shape[-1] * value.shape[-2] > 1:
        return np.ascontiguousarray(value).sum(axis=axes, keepdims=True)
    return np.repeat(value, 2, axis=-1).sum(axis=axes, keepdims=True)[..., :1]  # a single replica is summed in pairs


REDUCTIONS = {
    "sum": lambda v: total(v, 0),
    "mean": lambda v: total(v, 0) / v.shape[0],
    "max": lambda v: v.max(0, keepdims=True),
    "argmax": lambda v: v.argmax(0, keepdims=True),
    "logsumexp": lambda v: v.max(0, keepdims=True) + np.log(total(np.exp(v - v.max(0, keepdims=True)), 0)),
}


AHEAD = 1 << 16
"""How many numbers of a site are drawn at once, at most."""


class NumpyTarget(Target):
    """See `Target`. Arrays have the shape (elements, member, batch or 1)."""

    def __init__(
        self,
        program: Program,
        clocks: Clocks,
        seeds: Sequence[int],
        batch: int,
        dtype: np.dtype,
        threads: int,
        phases: tuple[str, ...] = ITERATE,
    ) -> None:
        super().__init__(program, clocks, seeds, batch, dtype, threads, phases)
        self.arrays: dict[str, np.ndarray] = {}
        for a in program.arrays:
            lanes = batch if a.sharing is Sharing.REPLICA else 1
            self.arrays[a.name] = np.zeros((a.n, self.members, lanes), self.numpy_dtype(a))
        self._sharing = {a.name: a.sharing for a in program.arrays}
        self._keys: dict[str, np.ndarray] = {}
        self._drawn: dict[str, tuple[int, int, np.ndarray | None]] = {}
        self.evaluation = 0
        self.tick = 0
        self._count_offset = 0

    def array(self, name: str) -> np.ndarray:
        view = self.arrays[name].view()
        view.flags.writeable = self._sharing[name] is Sharing.MEMBER
        return view

    def write(self, name: str, values: np.ndarray | float) -> None:
        self.arrays[name][...] = values

    def set_data(self, data: Data | None) -> None:
        self.data = data

    def run(self, phase: str, count: int = 1) -> bool:
        self._count_offset = 0 if phase == "iteration" else EVALUATION_COUNT
        watched = [self.arrays[name] for name in self.watched]
        with np.errstate(all="ignore"), Held() as interrupt:
            for _ in range(count):
                self.evaluation = 0
                self._nodes(self.program.phases()[phase])
                interrupt.act()
                if not all(np.isfinite(array).all() for array in watched):
                    return False
        return True

    # Control

    def _nodes(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            match node:
                case Step():
                    self._step(node)
                case Every(period, offset, body):
                    if (self.iteration + offset) % int(self.parameters[period]) == 0:
                        self._nodes(body)
                case Ticks(n, body):
                    for self.tick in range(n):
                        self._nodes(body)
                    self.tick = 0
                case Between(first, last, body, every):
                    if first <= self.tick < last and (self.tick - first) % every == 0:
                        self._nodes(body)
                case Clear(target):
                    self.arrays[target][...] = 0
                case Copy(source, target):
                    self.arrays[target][...] = self.arrays[source]
                case Count(counter="n_p"):
                    self.iteration += 1
                case Count(counter="evaluation"):
                    self.evaluation += 1
                case Look():
                    from mgdcircuits.codegen import numpy_events

                    numpy_events.visit(self, node)

    def _step(self, step: Step) -> None:
        match kernel := step.kernel:
            case Elements():
                self._elements(step, kernel)
            case Couple():
                self._couple(step, kernel)
            case Fold():
                self._fold(step, kernel)
            case Reduction():
                self._reduction(step, kernel)
            case MemberMean():
                self._member_mean(step, kernel)
            case Sample():
                self._sample(step, kernel)
            case _:
                from mgdcircuits.codegen import numpy_events

                numpy_events.run(self, step)

    # Operands

    def _written(self, step: Step, array: Array) -> np.ndarray:
        return self.arrays[step.rename.get(array.name, array.name)]

    def _values(self, step: Step, kernel: Kernel, read, n: int, sharing: Sharing, double: bool = False) -> dict:
        """Values of all operands; `read` maps an array and an index to what broadcasts in the kernel's loop."""
        values: dict[str, object] = {}
        for name, operand in kernel.operands.items():
            match operand:
                case Read(array, index, positions, amplitude):
                    if amplitude and array.name not in step.active:
                        values[name] = 0.0
                        continue
                    value = read(self._written(step, array), index, positions)
                    if amplitude and step.factor != 1:
                        value = step.factor * value
                    if double:
                        value = value.astype(np.float64)
                    elif array.precision is Precision.DOUBLE:
                        value = value.astype(self.dtype)
                    values[name] = value
                case Literal(value):
                    values[name] = value
                case Parameter(parameter):
                    values[name] = self.parameters[parameter]
                case Word(word):
                    values[name] = self._word(word)
                case Position(index, offset):
                    values[name] = read(np.arange(n)[:, None, None] + offset, index, 1) if n else 0
        for name, operand in kernel.operands.items():  # last: arguments of a draw may read the others
            if isinstance(operand, Random):
                values[name] = self._draw(operand, n, sharing, values, read)
        return values

    def _word(self, word: str) -> float:
        return {"n_p": self.iteration, "tick": self.tick}[word]

    def _site_keys(self, site: str) -> np.ndarray:
        if site not in self._keys:
            self._keys[site] = np.array(self.keys(site), dtype=np.uint64)
        return self._keys[site]

    def count(self, draw: Random) -> int:
        """The count that the numbers of a draw depend on."""
        ticks = self.clocks.ticks
        if draw.hold:
            return self._count_offset + self.iteration // int(self.parameters[draw.hold]) * ticks + self.tick
        match draw.scope:
            case Scope.INITIAL:
                return 0
            case Scope.PERIOD:
                return self._count_offset + self.iteration * ticks + self.tick
            case Scope.PASS:
                evaluations = self.iteration * self.clocks.evaluations + self.evaluation
                return self._count_offset + evaluations * ticks + self.tick
        return self._count_offset + self.iteration

    def _draw(self, operand: Random, n: int, sharing: Sharing, values, read):
        lanes = self.batch if sharing is Sharing.REPLICA else 1
        arguments = [evaluate(a, values) for a in operand.arguments]
        count = self.count(operand)
        if arguments:
            drawn = draw(operand.function, self._site_keys(operand.site), n, lanes, count, self.dtype, arguments)
        else:
            drawn = self._ahead(operand.function, operand.site, n, lanes, count)
        return read(drawn, operand.index, 1)

    def _ahead(self, function: str, site: str, n: int, lanes: int, count: int) -> np.ndarray:
        """Draws of one count; where counts follow each other evenly, those of many are made at once and kept."""
        first, stride, made = self._drawn.get(site, (count, 0, None))
        place, rest = divmod(count - first, stride) if stride else (0, count - first)
        if made is not None and rest == 0 and 0 <= place < len(made) and made.shape[1:] == (n, self.members, lanes):
            return made[place]
        last = first + stride * (len(made) - 1) if made is not None else count
        even = made is not None and count > last and (stride in (0, count - last))
        number = min(256, max(1, AHEAD // (n * self.members * lanes))) if even else 1
        counts = count + (count - last) * np.arange(number) if even else np.array([count])
        key = self._site_keys(site)[None, None, :, None]
        element, lane = np.arange(n)[None, :, None, None], np.arange(lanes)
        made = draw_at(function, key, element, lane, counts[:, None, None, None], self.dtype)
        self._drawn[site] = (count, count - last if even else 0, made)
        return made[0]

    # Loops

    def _elements(self, step: Step, kernel: Elements) -> None:
        def read(array, index, positions):
            return np.repeat(array, positions, axis=0) if index is Index.CHANNEL else array

        double = kernel.precision is Precision.DOUBLE
        values = self._values(step, kernel, read, kernel.n, kernel.sharing, double)
        for statement in kernel.statements:
            value = evaluate(statement.expression, values)
            values[statement.target] = np.copy(value) if statement.expression.isidentifier() else value
        for name, array in kernel.writes.items():
            self._written(step, array)[...] = values[name]

    def _fold(self, step: Step, kernel: Fold) -> None:
        def read(array, index, positions):
            return np.repeat(array, positions, axis=0) if index is Index.CHANNEL else array

        values = self._values(step, kernel, read, kernel.n, Sharing.REPLICA)
        result = evaluate(kernel.statements[0].expression, values)
        target = self._written(step, kernel.writes["target"])
        result = np.broadcast_to(result, (kernel.n, self.members, self.batch))
        result = total(result.reshape(-1, kernel.positions, self.members, self.batch), 1)[:, 0]
        if target.shape[2] == 1:
            result = result.mean(2, keepdims=True)
        if kernel.add:
            target += result
        else:
            target[...] = result

    def _reduction(self, step: Step, kernel: Reduction) -> None:
        values = self._values(step, kernel, lambda array, *_: array, kernel.n, Sharing.REPLICA, double=True)
        value = evaluate(kernel.statements[0].expression, values)
        value = np.broadcast_to(value, (kernel.n, *np.shape(value)[1:]))
        self._written(step, kernel.writes["result"])[...] = REDUCTIONS[kernel.operation](value)

    def _member_mean(self, step: Step, kernel: MemberMean) -> None:
        (operand,) = kernel.operands.values()
        assert isinstance(operand, Read)
        value = self._written(step, operand.array).mean(2, keepdims=True)
        self._written(step, kernel.writes["result"])[...] = value

    def _couple(self, step: Step, kernel: Couple) -> None:
        topology = kernel.topology
        target = self._written(step, kernel.writes["target"])
        if not kernel.add:
            target[...] = -np.inf if kernel.reduce is Reduce.MAX else 0
        view = _view_of(topology, kernel.into)
        out = target.reshape(*view, *target.shape[1:])
        winners = self._winners(step, kernel) if kernel.winner else None
        for number, piece in enumerate(topology.pieces()):
            value = self._piece(step, kernel, piece, kernel.statements[0].expression)
            if winners is not None:
                value = value * winners[number]
            index = {Into.POST: piece.post, Into.PRE: piece.pre, Into.PARAMETER: piece.parameter}[kernel.into]
            axes = {Into.POST: piece.reduce_axes, Into.PRE: piece.pre_axes, Into.PARAMETER: piece.parameter_axes}
            self._collect(topology, kernel, out, index, value, axes[kernel.into], piece.shape(topology))

    def _collect(self, topology: Topology, kernel: Couple, out, index, value, axes, shape) -> None:
        value = np.asarray(value)
        if kernel.into is Into.PARAMETER and out.shape[-1] == 1 and value.ndim and value.shape[-1] > 1:
            value = value.mean(-1, keepdims=True)
        batch = out.shape[-1] if kernel.into is Into.PARAMETER else self.batch
        value = np.broadcast_to(value, (*shape, self.members, batch))
        maximum = kernel.reduce is Reduce.MAX
        if isinstance(topology, Sparse):
            (np.maximum if maximum else np.add).at(out, index, value)
        elif maximum:
            out[index] = np.maximum(out[index], value.max(axis=axes, keepdims=True) if axes else value)
        else:
            out[index] += total(value, axes) if axes else value

    def _piece(self, step: Step, kernel: Couple, piece, expression: str):
        topology = kernel.topology

        def read(array, index, positions):
            if index in (Index.PRE_CHANNEL, Index.POST_CHANNEL):
                array = np.repeat(array, positions, axis=0)
            match index:
                case Index.PRE | Index.PRE_CHANNEL:
                    return array.reshape(*topology.pre_view, *array.shape[1:])[piece.pre]
                case Index.POST | Index.POST_CHANNEL:
                    return array.reshape(*topology.post_view, *array.shape[1:])[piece.post]
                case Index.SYNAPSE:
                    return array.reshape(*topology.parameter_view, *array.shape[1:])[piece.parameter]
            return array[0]

        n = topology.n_synapses
        return evaluate(expression, self._values(step, kernel, read, n, Sharing.REPLICA))

    def _winners(self, step: Step, kernel: Couple) -> list[np.ndarray]:
        """For each piece: where its synapse is the first of the largest of its window."""
        topology, winner = kernel.topology, kernel.winner
        assert winner is not None
        pieces = list(topology.pieces())
        values = [np.asarray(self._piece(step, kernel, p, winner)) for p in pieces]
        best = np.full((*topology.post_view, self.members, self.batch), -np.inf)
        for piece, value in zip(pieces, values, strict=True):
            best[piece.post] = np.maximum(best[piece.post], value)
        taken = np.zeros(best.shape, bool)
        found = []
        for piece, value in zip(pieces, values, strict=True):
            first = (value == best[piece.post]) & ~taken[piece.post]
            taken[piece.post] |= first
            found.append(first)
        return found

    # Samples

    def _sample(self, step: Step, kernel: Sample) -> None:
        if self.data is None:
            return
        chosen = self.sample_indices(kernel.sampling)
        if STIMULUS in self.arrays:
            if len(self.data.x) > MAX_STIMULI:
                raise RunError(
                    f"a baseline per stimulus needs at most {MAX_STIMULI} samples; there are {len(self.data.x)}"
                )
            self.arrays[STIMULUS][...] = chosen
        present(self, kernel, self.data.x[chosen] * self.dtype.type(self.data.scale), self.data.y[chosen])

    def sample_indices(self, sampling: str) -> np.ndarray:
        """Indices (member, batch) of the samples of the current iteration."""
        assert self.data is not None
        count = self.iteration // int(self.parameters["period_x"])
        keys = self._site_keys("sample")
        return sample_indices(sampling, keys, self.batch, count, len(self.data.x))


def _view_of(topology: Topology, into: Into) -> tuple[int, ...]:
    return {
        Into.POST: topology.post_view,
        Into.PRE: topology.pre_view,
        Into.PARAMETER: topology.parameter_view,
    }[into]


def sample_indices(sampling: str, keys: np.ndarray, batch: int, count: int, n: int) -> np.ndarray:
    """Indices (member, batch) of the samples of presentation `count`: a function of key and count."""
    lanes = np.arange(batch)
    if sampling == "random":
        return np.stack([randomness.integer(int(k), lanes, 0, count, n) for k in keys])
    place = count * batch + lanes
    epoch, index = place // n, place % n
    if sampling == "sequential":
        return np.broadcast_to(index, (len(keys), batch))
    return np.stack([randomness.permutation(int(k), index, n, epoch) for k in keys])
