"""Loops over elements: equations, updates of parameters, draws, sums over units and over replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mgdcircuits.circuit.program import (
    Elements,
    Fold,
    Index,
    Kernel,
    MemberMean,
    Operand,
    Precision,
    Random,
    Read,
    Reduction,
)
from mgdcircuits.codegen.cpp_arrays import CPP_TYPE, Arrays, pointer
from mgdcircuits.codegen.cpp_operands import LAMBDA, Assignment, Operands, assignments, needed
from mgdcircuits.codegen.fuse import positions_of, replicas_alike
from mgdcircuits.codegen.hoist import increments, size_of_sign
from mgdcircuits.codegen.merge import Merged, in_vectors
from mgdcircuits.codegen.rendering import cpp_expression
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Sharing


def over_units(n: int, positions: int, work: int, inside: Iterable[str], unit: str = "u") -> list[str]:
    """A loop over the units of a lane block. Pointers and numbers are captured by value: they stay in registers."""
    return [
        f"over_units<Y, {n}, {positions}>(s.threads, {n} * double(Y::W) * {work}, block, [=, &s](auto {unit}) {LAMBDA} {{",
        f"  using V = Y::At<std::decay_t<decltype(block)>, decltype({unit})>; (void)s;",
        *(f"  {line}" for line in inside),
        "});",
    ]


def is_code_of_signs(kernel: Kernel, operands: Operands) -> bool:
    """Whether a kernel draws signs of one size for an array per member, and does nothing else."""
    if not isinstance(kernel, Elements) or kernel.sharing is not Sharing.MEMBER or not in_vectors(kernel):
        return False
    return _size_of_code(kernel, operands, operands.hoisted(kernel, reciprocals=True)[0]) is not None


def _size_of_code(kernel: Elements, operands: Operands, statements: Sequence[Assignment]) -> str | None:
    """The size of the signs that a kernel draws, if it does nothing else."""
    draws = {name for name, o in kernel.operands.items() if isinstance(o, Random) and o.function == "bit"}
    if set(_varying(kernel, operands, statements)) != draws or len(draws) != 1 or len(statements) != 1:
        return None
    return size_of_sign(statements[0][1], *draws)


def _varying(kernel: Elements, operands: Operands, statements: Sequence[Assignment]) -> dict[str, Operand]:
    """Operands that a loop over an array per member loads; what it only adds to is not among them."""
    return operands.varying(kernel, needed(kernel, statements) - set(increments(kernel, statements)))


class ElementLoops:
    """Writes loops over elements."""

    def __init__(self, operands: Operands, arrays: Arrays) -> None:
        self.operands = operands
        self.arrays = arrays

    # Arrays per replica

    def elements(self, kernel: Elements) -> list[str]:
        """Statements for every element, of arrays per replica or per member."""
        if kernel.sharing is Sharing.MEMBER:
            return self._of_members(kernel)
        statements, lines = self.operands.hoisted(kernel)
        kind = "D" if kernel.precision is Precision.DOUBLE else "V"
        inside = self.operands.loads(kernel, needed(kernel, statements), kind)
        inside += assignments(kernel, statements, kind)
        inside += [f"Y::put({pointer(a)}, {a.n}, u, block, {kind}({n}));" for n, a in kernel.writes.items()]
        return [*lines, *over_units(kernel.n, positions_of(kernel), 4 * len(statements), inside)]

    def fold(self, kernel: Fold) -> list[str]:
        """A sum over the units of each channel."""
        statements, lines = self.operands.hoisted(kernel)
        loads = " ".join(self.operands.loads(kernel, needed(kernel, statements), "V"))
        target = kernel.writes["target"]
        per_replica = "true" if target.sharing is Sharing.REPLICA else "false"
        alike = "true" if replicas_alike(kernel) else "false"
        channels = kernel.n // kernel.positions
        return [
            *lines,
            f"fold<Y, {alike}>({channels}, {kernel.positions}, s.threads, [&](Index u, Index block) {{",
            f"  {loads} return V({cpp_expression(statements[0][1])});",
            f"}}, {pointer(target)}, {'true' if kernel.add else 'false'}, {per_replica});",
        ]

    def reduction(self, kernel: Reduction) -> list[str]:
        """One number of each replica."""
        statements, lines = self.operands.hoisted(kernel)
        loads = " ".join(self.operands.loads(kernel, needed(kernel, statements), "D"))
        return [
            *lines,
            f"reduce<Y, mgd::Reduce::{kernel.operation}>({kernel.n}, block, [&](Index u, Index block) {{",
            f"  (void)u; {loads} return D({cpp_expression(statements[0][1])});",
            f"}}, {pointer(kernel.writes['result'])});",
        ]

    @staticmethod
    def member_mean(kernel: MemberMean) -> list[str]:
        """The mean over the replicas of a member."""
        (operand,) = kernel.operands.values()
        assert isinstance(operand, Read)
        return [f"member_mean<Y>({pointer(operand.array)}, {pointer(kernel.writes['result'])});"]

    # Arrays per member

    def _of_members(self, kernel: Elements) -> list[str]:
        """A loop over an array per member, in vectors of neighbouring numbers where every operand allows it."""
        draws = {name: o for name, o in kernel.operands.items() if isinstance(o, Random)}
        if not in_vectors(kernel):
            return self._one_by_one(kernel, draws)
        statements, lines = self.operands.hoisted(kernel, reciprocals=True)
        if size := _size_of_code(kernel, self.operands, statements):
            return [*lines, *self._signs(kernel, next(iter(draws.values())), size)]
        lines, inside = self._of_numbers(kernel, draws)
        if draws:
            fills = [
                f"{_fill_function(o)}(to + {j} * drawn_room<Y>, elements, Y::MP, Y::MP, {self._keys(o)});"
                for j, o in enumerate(draws.values())
            ]
            opening = [
                f"over_drawn<Y, {len(draws)}>(s.threads, {kernel.n}, [&](T* to, Index elements, Index first) {{",
                *(f"  {line}" for line in fills),
                f"}}, [=](Index k, auto exist, const T* drawn) {LAMBDA} {{",
            ]
        else:
            opening = [f"over_numbers<Y>(s.threads, {kernel.n}LL * Y::MP, [=](Index k, auto exist) {LAMBDA} {{"]
        return [*lines, *opening, *(f"  {line}" for line in inside), "});"]

    def merged(self, kernel: Merged) -> list[str]:
        """Loops over arrays per member, in turns for a piece of the arrays at a time."""
        made = []
        for number, part in enumerate(kernel.parts):
            lines, inside = self._of_numbers(part, {})
            made += [f"const auto part{number} = [&] {{", *(f"  {line}" for line in lines)]
            made += [
                f"  return [=](Index k, auto exist) {LAMBDA} {{",
                *(f"    {line}" for line in inside),
                "  };",
                "}();",
            ]
        parts = ", ".join(f"part{number}" for number in range(len(kernel.parts)))
        return [*made, f"over_numbers<Y>(s.threads, {kernel.parts[0].n}LL * Y::MP, {parts});"]

    def _of_numbers(self, kernel: Elements, draws: Mapping[str, Random]) -> tuple[list[str], list[str]]:
        """What is evaluated once, and what for the numbers k, k + 1, ... of which `exist` do."""
        statements, lines = self.operands.hoisted(kernel, reciprocals=True)
        counts = increments(kernel, statements)
        inside = ["using V = Lanes<T, 16>;"]
        for name, operand in _varying(kernel, self.operands, statements).items():
            assert isinstance(operand, Random | Read)  # `in_vectors` says so
            if isinstance(operand, Random):
                value = f"V::load(drawn + {list(draws).index(name)} * drawn_room<Y>)"
                inside.append(
                    f"const V {name} = {f'V(0.5) * ({value} + V(1))' if operand.function == 'bit' else value};"
                )
            elif operand.index is Index.ZERO:
                inside.append(f"auto {name} = of_members<Y>({pointer(operand.array)}, k);")
            else:
                inside.append(f"auto {name} = {self.arrays.lanes(operand)};")
        inside += assignments(kernel, [s for s in statements if s[0] not in counts], "V")
        inside += [f"put_first({pointer(a)} + k, {n}, exist);" for n, a in kernel.writes.items() if n not in counts]
        for name, text in counts.items():
            array = kernel.writes[name]
            if array.name in self.arrays.counters:
                counter = self.arrays.counters[array.name]
                lines.append(f"std::uint8_t* const recent_{name} = s.counters->update({counter});")
                inside.append(f"count_whole(recent_{name} + k, V({cpp_expression(text)}), exist);")
            else:
                inside.append(f"add_whole({pointer(array)} + k, V({cpp_expression(text)}), exist);")
        return lines, inside

    def _signs(self, kernel: Elements, draw: Random, size: str) -> list[str]:
        """A code of signs, drawn where it is kept."""
        (array,) = kernel.writes.values()
        if array.name in self.arrays.coded:
            site, count = self.operands.sites[draw.site], self.operands.count(draw)
            keys = f"s.site_keys({site})[0], {count}, s.no_replica[0], first"
            return [
                f"*{pointer(array)}.size = static_cast<T>({size});",
                f"over_elements<Y, 2048>(s.threads, {kernel.n}, [&](Index elements, Index first) {{",
                f"  fill_bits({pointer(array)}.words + first / 32, elements, {keys});",
                "});",
            ]
        to = f"{pointer(array)} + first * Y::MP"
        return [
            f"over_elements<Y>(s.threads, {kernel.n}, [&](Index elements, Index first) {{",
            f"  fill_signs_lanes({to}, elements, Y::MP, Y::MP, {self._keys(draw)}, static_cast<T>({size}));",
            "});",
        ]

    def _one_by_one(self, kernel: Elements, draws: Mapping[str, Random]) -> list[str]:
        """A loop over an array per member, number by number in float64."""
        statements, lines = self.operands.hoisted(kernel)
        for number, (name, draw) in enumerate(draws.items()):
            lines += self._fill(name, draw, kernel.n, number)
        inside = []
        for name, operand in self.operands.varying(kernel, needed(kernel, statements)).items():
            if isinstance(operand, Random):
                drawn = f"fill_{name}[u * Y::MP + m]"
                drawn = f"T(0.5) * ({drawn} + T(1))" if operand.function == "bit" else drawn
                inside.append(f"const T {name} = {drawn};")
            else:
                inside.append(self.operands.operand(name, operand, "scalar"))
        inside += assignments(kernel, statements, "scalar")
        for name, array in kernel.writes.items():
            inside.append(f"{pointer(array)}[u * Y::MP + m] = static_cast<{CPP_TYPE[array.precision]}>({name});")
        return [
            "{",
            *(f"  {line}" for line in lines),
            f"  constexpr Index chunk = 4096, n = {kernel.n};",
            "  parallel_for(s.threads, (n + chunk - 1) / chunk, double(n) * Y::MP * 4, [&](Index task) {",
            "    const Index end = (task + 1) * chunk < n ? (task + 1) * chunk : n;",
            "    for (Index u = task * chunk; u < end; ++u)",
            "      for (Index m = 0; m < Y::MP; ++m) {",
            *(f"        {line}" for line in inside),
            "      }",
            "  });",
            "}",
        ]

    def _fill(self, name: str, operand: Random, n: int, number: int) -> list[str]:
        """Draws of all elements of an array per member, beforehand."""
        fill, keys = _fill_function(operand), self._keys(operand)
        # a power of two elements a task, so that no call of the generator is shared between tasks
        return [
            f"T* const fill_{name} = s.buffer(slot + {number}, {n}LL * Y::MP);",
            f"parallel_for(s.threads, ({n} + 8191) / 8192, {n} * double(Y::MP) * 8, [&](Index task) {{",
            f"  const Index first = task * 8192, count_n = first + 8192 < {n} ? 8192 : {n} - first;",
            f"  {fill}(fill_{name} + first * Y::MP, count_n, Y::MP, Y::MP, {keys});",
            "});",
        ]

    def _keys(self, draw: Random) -> str:
        """What the numbers of a draw for an array per member depend on, from the element `first`."""
        return f"s.site_keys({self.operands.sites[draw.site]}), s.no_replica.data(), {self.operands.count(draw)}, first"


def _fill_function(draw: Random) -> str:
    """The function that draws numbers of an array per member."""
    fills = {"rand": "fill_uniform_lanes", "randn": "fill_normal_lanes", "bit": "fill_signs_lanes"}
    if draw.function not in fills:
        raise BuildError(f"{draw.site}: {draw.function}() of a parameter runs on the numpy target only")
    return fills[draw.function]
