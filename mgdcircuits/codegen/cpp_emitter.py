"""A program as C++.

Each kernel becomes a function of the arrays it touches, each phase a function that calls kernels in order. Loops, lanes
and draws are plain C++ in ``include/mgd``; here only names, expressions and calls are written.

This file says which functions are called in which order; docs/development.md says what the other ``cpp_*.py`` are for.
"""

from __future__ import annotations

from collections.abc import Iterable

from mgdcircuits.circuit.program import (
    Between,
    Clear,
    Copy,
    Count,
    Couple,
    Elements,
    Every,
    Kernel,
    Node,
    Program,
    Reduction,
    Step,
    Ticks,
    steps,
)
from mgdcircuits.circuit.topology import Sparse
from mgdcircuits.codegen import cpp_frame
from mgdcircuits.codegen.codes import codes_of_bits
from mgdcircuits.codegen.concurrent import Together, together
from mgdcircuits.codegen.cpp_arrays import CPP_TYPE, Arrays, numbers
from mgdcircuits.codegen.cpp_elements import is_code_of_signs
from mgdcircuits.codegen.cpp_functions import Functions
from mgdcircuits.codegen.cpp_layout import Layout
from mgdcircuits.codegen.cpp_operands import Operands
from mgdcircuits.codegen.cpp_sides import Sides
from mgdcircuits.codegen.fuse import Fusion, is_local, runs
from mgdcircuits.codegen.hoist import counted
from mgdcircuits.codegen.merge import Due, merge


class Emitter:
    """Writes the C++ of a program.

    Parameters
    ----------
    ticks
        Of an evaluation.
    evaluations
        Of an iteration.
    phases
        Names of those that the library runs.
    """

    def __init__(self, program: Program, layout: Layout, ticks: int, evaluations: int, phases: tuple[str, ...]) -> None:
        self.program = program
        self.layout = layout
        self.ticks = ticks
        self.evaluations = evaluations
        self.phases = {name: program.phases()[name] for name in phases}
        self.fusion = Fusion(program)
        self.operands = Operands(program)
        self.sides = Sides(self.operands, layout)
        self.arrays = Arrays(program.arrays, self._kept_as_bits(), counted(program))
        self.functions = Functions(self.operands, self.sides, self.arrays, layout)

    @property
    def topologies(self) -> list[Sparse]:
        """The edge lists that the library is given at run time, in order."""
        return self.functions.couplings.topologies

    def sources(self, parts: int) -> list[str]:
        """Translation units: kernels shared out over `parts`, phases and entry points in the first."""
        phases = "".join(self._phase(name, nodes) for name, nodes in self.phases.items())
        head = cpp_frame.head(self.layout, self.arrays, len(self.operands.parameters), self.ticks, self.evaluations)
        written = self.functions.definitions()
        declarations = "".join(f"{text.partition(') {')[0]});\n" for text in written)
        definitions = sorted(written, key=len, reverse=True)
        shared = [definitions[k::parts] for k in range(parts)]
        first = "\n".join([head, declarations, *shared[0], phases, self._tail()])
        return [first, *("\n".join([head, *part, "}  // namespace mgd_generated"]) for part in shared[1:] if part)]

    def _tail(self) -> str:
        kernels = [s.kernel for nodes in self.phases.values() for s in steps(nodes)]
        work = max((_work(k) for k in kernels if isinstance(k, Couple | Elements)), default=0)
        perturbations = {name for k in kernels for name in k.perturbations()}
        n_sites, n_topologies = len(self.operands.sites), len(self.topologies)
        return cpp_frame.tail(self.arrays, list(self.phases), n_sites, n_topologies, work, perturbations)

    def _kept_as_bits(self) -> set[str]:
        """Codes of signs of which memory has bits while a run lasts."""
        if self.layout.members > 1 or "iteration" not in self.phases:
            return set()
        found = codes_of_bits(
            self.program,
            lambda kernel: is_code_of_signs(kernel, self.operands),
            lambda coupling: self.sides.met_once(coupling) or self.sides.in_vectors(coupling),
        )
        return found - {n for node in together(self.program) if isinstance(node, Together) for n in node.private}

    # Phases

    def _phase(self, name: str, nodes: Iterable[Node]) -> str:
        written: list[str] = []
        lines: list[str] = []
        serial: list[Node] = []
        for node in together(self.program) if name == "iteration" else nodes:
            if not isinstance(node, Together):
                serial.append(node)
            elif _shares(node):
                lines += [*self._nodes(serial), *self._together(node, written)]
                serial = []
            else:
                serial += node.nodes
        lines += self._nodes(serial)
        return "".join([*written, _void(f"phase_{name}", lines)])

    def _together(self, node: Together, written: list[str]) -> list[str]:
        """The call of parts that may run at the same time; their functions are added to what is written."""
        after = []
        for k, part in enumerate(node.parts):
            waiting = ["s.wait_for_first();", *self._nodes(part.waiting)] if part.waiting else []
            written.append(_void(f"part_{k}", [*self._nodes(part.nodes), *waiting]))
            if part.after:
                after.append(f"{{{k}, after_{k}}}")
                written.append(_void(f"after_{k}", self._nodes(part.after)))
        arrays = [self.arrays[name] for name in node.private]
        own = [f"o.{self.arrays.member(a.name)} = o.own<{CPP_TYPE[a.precision]}>({numbers(a)});" for a in arrays]
        left = [(self.arrays.member(name), self.arrays.bytes(name)) for name in node.left]
        leave = [f"std::memcpy(to.{name}, from.{name}, {size});" for name, size in left]
        work = [f"{{{_load(p.nodes)} * double(Y::R), {_load(p.waiting)} * double(Y::R)}}" for p in node.parts]
        return [
            f"together(s, Y::NB, {{{', '.join(work)}}},",
            f"         {{{', '.join(f'part_{k}' for k in range(len(node.parts)))}}},",
            f"         {{{', '.join(map(str, node.evaluations))}}},",
            f"         {{{', '.join(after)}}},",
            "         [](Session& o) {",
            *(f"  {line}" for line in own),
            "}, [](Session& to, const Session& from) {",
            *(f"  {line}" for line in leave),
            "});",
        ]

    def _nodes(self, nodes: Iterable[Node]) -> list[str]:
        lines: list[str] = []
        for group in runs(merge(nodes)):
            local = [node for node in group if isinstance(node, Step) and is_local(node.kernel)]
            lines += self._calls(local) if local else self._node(group[0])
        return lines

    def _node(self, node: Node) -> list[str]:
        name, size = self.arrays.member, self.arrays.bytes
        match node:
            case Step():
                return [self.functions.call(node)]
            case Every(period, offset, body):
                count = f"static_cast<std::int64_t>({self.operands.parameter(period)})"
                lines = self._block(f"if ((s.n_p + {offset}) % {count} == 0)", body)
                if isinstance(node, Due):
                    opening, *rest = self._block("else", node.otherwise)
                    lines[-1:] = [f"}} {opening}", *rest]
                return lines
            case Ticks(n, body):
                return [*self._block(f"for (s.tick = 0; s.tick < {n}; ++s.tick)", body), "s.tick = 0;"]
            case Between(first, last, body):
                return self._block(f"if (s.tick >= {first} && s.tick < {last})", body)
            case Clear(target):
                return [f"std::memset(s.{name(target)}, 0, {size(target)});"]
            case Copy(source, target):
                return [f"std::memcpy(s.{name(target)}, s.{name(source)}, {size(target)});"]
            case Count(counter="n_p"):
                return ["++s.n_p; ++s.version;"]
            case Count(counter="evaluation"):
                return ["++s.evaluation;"]
        return []

    def _block(self, opening: str, nodes: Iterable[Node]) -> list[str]:
        return [f"{opening} {{", *(f"  {line}" for line in self._nodes(nodes)), "}"]

    def _calls(self, group: list[Step]) -> list[str]:
        """Steps in which replicas do not meet: all of them for one lane block after another."""
        fused = self.fusion.fused(group)
        calls = [self.functions.call(step) for step in fused]
        first: list[str] = []
        apart: list[str] = []
        for step in fused:
            (apart if self.sides.apart(step.kernel) else first).extend(self.functions.prepared(step))
        work = sum(_work(step.kernel) for step in group)
        opening = f"over_blocks<Y>(s.threads, {work} * double(Y::R), [&](auto block) {{"
        return [*first, opening, *(f"  {line}" for line in (*apart, *calls)), "});"]


def _void(name: str, lines: Iterable[str]) -> str:
    """A function of a session."""
    return "".join([f"static void {name}(Session& s) {{\n  (void)s;\n", *(f"  {line}\n" for line in lines), "}\n\n"])


def _shares(node: Together) -> bool:
    """Whether two threads have about the same to do with some of the parts each."""
    loads = [_load(part.own) for part in node.parts]
    return 2 * max(loads) <= 1.25 * sum(loads)


def _load(nodes: Iterable[Node]) -> int:
    """Operations of the large loops of some nodes, for one replica."""
    return sum(_work(s.kernel) for s in steps(nodes) if isinstance(s.kernel, Couple | Elements))


def _work(kernel: Kernel) -> int:
    """Operations of one replica, roughly."""
    if isinstance(kernel, Couple):
        return kernel.topology.n_connections or kernel.topology.n_post
    assert isinstance(kernel, Elements | Reduction)
    return 8 * kernel.n
