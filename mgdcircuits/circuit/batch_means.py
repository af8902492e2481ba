"""Estimates of a batch: what samples differ in is averaged beforehand, where an estimate is linear in it.

In ``(C.plus - C.clean)*theta_post*x_pre.clean`` the perturbation is the same for all samples. So the mean of
``(C.plus - C.clean)*x_pre.clean`` over them is formed once for every pre-synaptic unit, and what remains to be done for every
synapse is the work of a single sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mgdcircuits.circuit.circuit import Coupling, Population
from mgdcircuits.circuit.linear import degree, split
from mgdcircuits.circuit.program import (
    Array,
    Elements,
    Fold,
    Index,
    Kernel,
    MemberMean,
    Operand,
    Precision,
    Read,
    Statement,
    Step,
)
from mgdcircuits.netlist.expressions import names
from mgdcircuits.netlist.spec import Sharing

SIDES = {Index.PRE: Index.PRE, Index.PRE_CHANNEL: Index.PRE, Index.POST: Index.POST, Index.POST_CHANNEL: Index.POST}


class BatchMeans:
    """An estimate without what samples differ in.

    Parameters
    ----------
    name
        With which names of arrays begin.
    owner
        Of the parameter whose estimate it is.

    Attributes
    ----------
    text, operands
        The estimate, which reads means over the batch instead. `text` is None if that cannot be: the estimate is not linear
        in what samples differ in, or a product of it reads units of both sides of a coupling.
    steps
        They form the means.
    """

    def __init__(self, name: str, owner: Population | Coupling, text: str, operands: Mapping[str, Operand]) -> None:
        self.name = name
        self.owner = owner
        self.text: str | None = None
        self.steps: list[Step] = []
        linear, parts = split(text, lambda k: _of_samples(operands.get(k)), "replica_")
        used = {part: _used(operands, expression) for part, expression in parts.items()}
        sides = {part: side for part, reads in used.items() if (side := _side(reads))}
        if degree(linear, set(parts)) > 1 or len(sides) < len(parts):
            return
        self.text = linear
        self.operands = {k: o for k, o in operands.items() if not _of_samples(o)}
        for part, side in sides.items():
            make = self._of_scalars if side is Index.ZERO else self._of_units
            self.operands[part] = make(part, parts[part], used[part], side)

    @property
    def arrays(self) -> list[Array]:
        """What the steps write."""
        return [array for step in self.steps for array in step.kernel.writes.values()]

    def _add(self, kernel: Kernel) -> None:
        self.steps.append(Step(kernel))

    def _scalar(self, name: str, expression: str, operands: Mapping[str, Operand]) -> Read:
        """A number of each sample, in double precision: it may be a small difference of costs."""
        array = Array(f"{self.name}:{name}", (1,), Sharing.REPLICA, Precision.DOUBLE)
        used = {k: _at_unit(o) for k, o in _used(operands, expression).items()}
        statements = (Statement("result", expression),)
        self._add(
            Elements(
                array.name,
                statements,
                used,
                {"result": array},
                n=1,
                sharing=Sharing.REPLICA,
                precision=Precision.DOUBLE,
            )
        )
        return Read(array, Index.ZERO)

    def _of_scalars(self, name: str, expression: str, operands: Mapping[str, Operand], _: Index) -> Read:
        """The mean of a number of each sample."""
        value = self._scalar(name, expression, operands)
        mean = Array(f"{value.array.name}:mean", (1,), Sharing.MEMBER, Precision.DOUBLE)
        self._add(MemberMean(mean.name, (Statement("result", "value"),), {"value": value}, {"result": mean}))
        return Read(mean, Index.ZERO)

    def _of_units(self, name: str, expression: str, operands: Mapping[str, Operand], side: Index) -> Read:
        """The mean of a number of each sample and unit of a side, for every unit."""
        assert isinstance(self.owner, Coupling)
        topology = self.owner.topology
        n = topology.n_pre if side is Index.PRE else topology.n_post
        scalars = {k for k, o in operands.items() if isinstance(o, Read) and o.array.n == 1}
        text, inside = split(expression, scalars.__contains__, f"{name}_")
        reads = {k: _at_unit(o) for k, o in _used(operands, text).items()}
        reads |= {k: self._scalar(k, scalar, operands) for k, scalar in inside.items()}
        mean = Array(f"{self.name}:{name}:mean", (n,), Sharing.MEMBER)
        self._add(Fold(mean.name, (Statement("target", text),), reads, {"target": mean}, n=n, positions=1))
        return Read(mean, side)


def _used(operands: Mapping[str, Operand], text: str) -> dict[str, Operand]:
    """The operands that an expression reads, always in the same order: what is written of them is what is compiled."""
    read = names(text)
    return {k: o for k, o in operands.items() if k in read}


def _of_samples(operand: Operand | None) -> bool:
    """Whether samples of a batch differ in an operand."""
    return isinstance(operand, Read) and operand.array.sharing is Sharing.REPLICA


def _side(operands: Mapping[str, Operand]) -> Index | None:
    """The side of a coupling whose units are read: ZERO if no units are, None if it is not one side alone."""
    sides = {SIDES.get(o.index) for o in operands.values() if isinstance(o, Read) and o.array.n > 1}
    if not sides:
        return Index.ZERO
    return sides.pop() if len(sides) == 1 else None


def _at_unit(operand: Operand) -> Operand:
    """An operand of a synapse in a loop over the units of its side."""
    assert isinstance(operand, Read)
    if operand.array.n == 1:
        return replace(operand, index=Index.ZERO)
    per_channel = operand.index in (Index.PRE_CHANNEL, Index.POST_CHANNEL)
    return replace(operand, index=Index.CHANNEL if per_channel else Index.ELEMENT)
