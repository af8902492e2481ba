"""What the parts of a synaptic expression depend on, and where they are evaluated."""

from __future__ import annotations

from collections.abc import Hashable

from mgdcircuits.circuit.program import Couple, Index, Into, Kernel, Position, Precision, Random, Read, Word
from mgdcircuits.circuit.topology import Dense
from mgdcircuits.codegen.cpp_layout import Layout
from mgdcircuits.codegen.cpp_operands import Operands
from mgdcircuits.codegen.fuse import is_local
from mgdcircuits.codegen.hoist import is_cheap, split
from mgdcircuits.codegen.rendering import names
from mgdcircuits.netlist.spec import Sharing

Parts = dict[str, tuple[Hashable, str]]  # name -> what it depends on (uniform, pre, post, syn), expression

SIDE_OF = {Index.PRE: "pre", Index.PRE_CHANNEL: "pre", Index.POST: "post", Index.POST_CHANNEL: "post"}


class Sides:
    """Says of couplings what could be evaluated beforehand, and whether it pays."""

    def __init__(self, operands: Operands, layout: Layout) -> None:
        self.operands = operands
        self.layout = layout

    def side(self, kernel: Couple, name: str) -> str | None:
        """What a name depends on: the pre or post side, the synapse, nothing; None for what no part of an expression has."""
        operand = kernel.operands.get(name)
        if operand is None or isinstance(operand, Random | Position):
            return None
        if self.operands.is_uniform(operand):
            return "uniform"
        assert isinstance(operand, Read)
        if operand.index is Index.SYNAPSE:
            return "syn" if operand.array.sharing is Sharing.MEMBER else None
        return SIDE_OF.get(operand.index)

    def parts(self, kernel: Couple) -> tuple[str, Parts]:
        """The expression of a coupling, and its parts that depend on one side."""
        return split(kernel.statements[0].expression, lambda n: self.side(kernel, n), "hoisted_")

    def met_once(self, kernel: Couple) -> bool:
        """Whether a sum meets each synapse once: then evaluating its parts beforehand would only cost memory traffic."""
        few = self.layout.members == 1 and self.layout.batch <= 4
        return few and isinstance(kernel.topology, Dense) and kernel.into is Into.POST

    def in_vectors(self, kernel: Kernel) -> bool:
        """Whether all that depends on a synapse is evaluated beforehand, in vectors of neighbouring synapses."""
        if self.layout.members > 1 or not isinstance(kernel, Couple) or not is_local(kernel) or self.met_once(kernel):
            return False
        text, parts = self.parts(kernel)
        inside = [part for where, part in parts.values() if where == "syn"]
        operands = [kernel.operands[n] for part in inside for n in names(part)]
        real = all(isinstance(o, Read) and o.array.precision is Precision.REAL for o in operands)
        alone = any(self.side(kernel, n) == "syn" for n in names(text) - set(parts))
        return bool(inside) and real and not alone and all(is_cheap(part) for part in inside)

    def apart(self, kernel: Kernel) -> bool:
        """Whether every thread evaluates for itself what depends on a synapse.

        Synapses of a dense coupling are as many as places where they are used: one thread would wait for what the other wrote.
        """
        if not isinstance(kernel, Couple) or not self.in_vectors(kernel) or not isinstance(kernel.topology, Dense):
            return False
        fixed = not any(isinstance(o, Word) for o in kernel.operands.values())
        return fixed and all(where == "syn" for where, _ in self.parts(kernel)[1].values())
