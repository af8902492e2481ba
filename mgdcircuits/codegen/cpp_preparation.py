"""What a coupling evaluates beforehand: parts of its expression, once a synapse or once a unit of one side."""

from __future__ import annotations

from collections.abc import Hashable

from mgdcircuits.circuit.program import Couple, Index, Precision, Read
from mgdcircuits.codegen.cpp_arrays import Arrays, factor
from mgdcircuits.codegen.cpp_elements import over_units
from mgdcircuits.codegen.cpp_operands import LAMBDA, Operands
from mgdcircuits.codegen.cpp_sides import Parts, Sides
from mgdcircuits.codegen.fuse import is_local, replicas_alike
from mgdcircuits.codegen.hoist import without
from mgdcircuits.codegen.rendering import cpp_expression, names
from mgdcircuits.netlist.spec import Sharing


class Preparation:
    """Writes what comes before the sum of one coupling. The part with a number is in the scratch buffer with that number.

    Attributes
    ----------
    lines
        What is evaluated when a parameter or the factor of the pass changed.
    """

    def __init__(self, kernel: Couple, operands: Operands, sides: Sides, arrays: Arrays) -> None:
        self.kernel = kernel
        self.operands = operands
        self.sides = sides
        self.arrays = arrays
        self.lines: list[str] = []
        self._borrowed: list[Read | None] = []

    @property
    def borrows(self) -> tuple[Read, ...]:
        """What the buffers are without perturbation, if each is an array as it stands; else nothing."""
        found = tuple(read for read in self._borrowed if read is not None)
        return found if len(found) == len(self._borrowed) else ()

    def part(self, name: str, where: Hashable, part: str, number: int) -> tuple[list[str], str]:
        """A part that depends on one side only: lines before the sum, and how the sum loads it."""
        if where == "uniform":
            return [f"const double {name} = {cpp_expression(part)};"], ""
        self._borrowed.append(self._unperturbed(part) if where == "syn" else None)
        if where != "syn":
            return self._of_side(name, str(where), part, number)
        whose = "s.mine()" if self.sides.apart(self.kernel) else "s"
        if self.sides.in_vectors(self.kernel):
            self._in_vectors(name, part, number, whose)
        else:
            self._one_by_one(name, part, number)
        return [
            f"const T* const {name}_of = {whose}.held[slot + {number}];"
        ], f"const V {name} = Y::mem({name}_of, syn, block);"

    def in_place(self, name: str, part: str) -> list[str]:
        """A part evaluated where it is used."""
        self._borrowed.append(None)
        return self.evaluated(name, part)

    def evaluated(self, name: str, part: str) -> list[str]:
        """The evaluation of a part for a synapse."""
        varying = {n for n in names(part) if not self.operands.is_uniform(self.kernel.operands[n])}
        return [*self.operands.loads(self.kernel, varying, "V"), f"const V {name} = {cpp_expression(part)};"]

    def transformed(self, weight: str, parts: Parts) -> None:
        """Weights as the sum with fewer products wants them (`winograd.py`), in the buffer after the parts."""
        whole = f"Winograd<{self.kernel.topology.cpp_type()}>"
        loads = []
        used = names(weight)
        for number, (name, (where, part)) in enumerate(parts.items()):
            if name in used and where == "uniform":
                used |= names(part)
                loads.append(f"const double {name} = {cpp_expression(part)};")
            elif name in used:
                loads.append(f"const T {name} = {name}_of[syn * Y::MP + m];")
                self.lines.append(f"const T* const {name}_of = s.at(slot + {number});")
        reads = self.operands.loads(self.kernel, used, "scalar")
        self._borrowed.append(None)
        self.lines += [
            *self.operands.uniforms(self.kernel, used),
            f"T* const transformed = s.buffer(slot + {len(parts)}, {whole}::n_weights * Y::MP);",
            f"{whole}::transform<T>(s.threads, Y::MP, [=](Index syn, Index m) {LAMBDA} {{",
            f"  {' '.join([*reads, *loads])} return T({cpp_expression(weight)});",
            "}, transformed);",
        ]

    def _of_side(self, name: str, where: str, part: str, number: int) -> tuple[list[str], str]:
        """A part evaluated once a unit of one side, in the lane blocks of the sum."""
        n = self.kernel.topology.n_pre if where == "pre" else self.kernel.topology.n_post
        self.lines.append(f"s.buffer(slot + {number}, {n}LL * Y::R);")
        inside = [
            *self.operands.loads(self.kernel, names(part), "V"),
            f"Y::put({name}_of, {n}, {where}, block, V({cpp_expression(part)}));",
        ]
        loop = over_units(n, self._positions(names(part), n), 8, inside, where)
        if not is_local(self.kernel):
            every = "block += Y::NBM / Y::alike" if replicas_alike(self.kernel) else "++block"
            loop = [f"for (Index block = 0; block < Y::NB; {every}) {{", *(f"  {line}" for line in loop), "}"]
        lines = [f"T* const {name}_of = s.at(slot + {number});", *loop]
        return lines, f"const V {name} = Y::rep({name}_of, {n}, {where}, block);"

    def _positions(self, used: set[str], n: int) -> int:
        """Units of one channel among the operands of a side; all units where none is per channel."""
        found = {o.positions for k, o in self.kernel.operands.items() if k in used and isinstance(o, Read)} - {1}
        return found.pop() if found else n

    def _in_vectors(self, name: str, part: str, number: int, whose: str) -> None:
        """The loop over synapses that evaluates a part, in vectors of neighbours, into a buffer of a session or thread."""
        n = self.kernel.topology.n_synapses
        loads = []
        for operand_name in sorted(names(part)):
            operand = self.kernel.operands[operand_name]
            assert isinstance(operand, Read)  # `Sides.in_vectors` says so
            scale = f"V({factor(operand.array.name)}) * " if operand.amplitude else ""
            loads.append(f"const V {operand_name} = {scale}{self.arrays.lanes(operand)};")
        self.lines += [
            "{",
            f"  T* const {name}_of = {whose}.buffer(slot + {number}, {n}LL * Y::MP);",
            f"  over_numbers<Y>(s.threads, {n}LL * Y::MP, [=](Index k, auto exist) {LAMBDA} {{",
            f"    using V = Lanes<T, 16>; {' '.join(loads)}",
            f"    put_first({name}_of + k, V({cpp_expression(part)}), exist);",
            "  });",
            "}",
        ]

    def _one_by_one(self, name: str, part: str, number: int) -> None:
        """The loop over synapses that evaluates a part, number by number."""
        n = self.kernel.topology.n_synapses
        varying = self.operands.varying(self.kernel, names(part))
        loads = [self.operands.operand(operand_name, o, "scalar") for operand_name, o in varying.items()]
        self.lines += [
            "{",
            *(f"  {line}" for line in self.operands.uniforms(self.kernel, names(part))),
            f"  T* const {name}_of = s.buffer(slot + {number}, {n}LL * Y::MP);",
            f"  over_runs(s.threads, {n}, {n} * double(Y::MP) * 4, [=, &s](Index first, Index end) {{",
            "    (void)s;",
            "    for (Index syn = first; syn < end; ++syn)",
            "      for (Index m = 0; m < Y::MP; ++m) {",
            f"        {' '.join(loads)}",
            f"        {name}_of[syn * Y::MP + m] = static_cast<T>({cpp_expression(part)});",
            "      }",
            "  });",
            "}",
        ]

    def _unperturbed(self, part: str) -> Read | None:
        """The array that a part is where perturbations are zero, if it is one as it stands."""
        zero = {n for n, o in self.kernel.operands.items() if isinstance(o, Read) and o.amplitude}
        operand = self.kernel.operands.get(without(part, zero))
        if not isinstance(operand, Read) or operand.index is not Index.SYNAPSE:
            return None
        as_it_stands = operand.array.sharing is Sharing.MEMBER and operand.array.precision is Precision.REAL
        return operand if as_it_stands else None
