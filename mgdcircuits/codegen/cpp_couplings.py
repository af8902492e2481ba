"""Couplings: what a synapse gives, and the sums over synapses."""

from __future__ import annotations

from collections.abc import Iterable

from mgdcircuits.circuit.program import Array, Couple, Into, Read, Step
from mgdcircuits.circuit.topology import Sparse
from mgdcircuits.codegen import winograd
from mgdcircuits.codegen.cpp_arrays import Arrays, factor, pointer
from mgdcircuits.codegen.cpp_layout import Layout
from mgdcircuits.codegen.cpp_operands import LAMBDA, Operands, assignments, needed
from mgdcircuits.codegen.cpp_preparation import Preparation
from mgdcircuits.codegen.cpp_sides import Parts, Sides
from mgdcircuits.codegen.fuse import Fused, is_local, replicas_alike
from mgdcircuits.codegen.hoist import is_cheap, without
from mgdcircuits.codegen.rendering import cpp_expression, names
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Reduce, Sharing


class Couplings:
    """Writes couplings, and collects the edge lists that they are given at run time."""

    def __init__(self, operands: Operands, sides: Sides, arrays: Arrays, layout: Layout) -> None:
        self.operands = operands
        self.sides = sides
        self.arrays = arrays
        self.layout = layout
        self.topologies: list[Sparse] = []

    def coupling(self, step: Step) -> tuple[list[str], Preparation]:
        """The sum, and what it needs beforehand."""
        kernel = step.kernel
        assert isinstance(kernel, Couple)
        text, parts = self.sides.parts(kernel)
        preparation = Preparation(kernel, self.operands, self.sides, self.arrays)
        lines = self.operands.uniforms(kernel, _used(kernel, text, parts))
        loads = self.operands.named(kernel, names(text), "V")
        zero = {n for n, o in kernel.operands.items() if isinstance(o, Read) and o.amplitude}
        in_place: list[str] = []  # parts evaluated where they are used, ...
        unperturbed: list[str] = []  # ... and where perturbations are zero
        for number, (name, (where, part)) in enumerate(parts.items()):
            if where == "syn" and self.sides.met_once(kernel) and is_cheap(part):
                in_place += preparation.in_place(name, part)
                unperturbed += preparation.evaluated(name, without(part, zero))
                continue
            lines_of, load = preparation.part(name, where, part, number)
            lines += lines_of
            if load:
                loads[name] = load
        result = f"return V({cpp_expression(text)});"
        if not is_local(kernel):
            lines = [*preparation.lines, *lines]
            preparation.lines = []
        lines += _of_synapse("f", [*loads.values(), *in_place, result])
        clean = in_place != unperturbed
        if clean:
            lines += _of_synapse("clean", [*loads.values(), *unperturbed, result])
        transformed = None
        if product := self._product(kernel, text, parts):
            weight, value = product
            transformed = len(parts)
            preparation.transformed(weight, parts)
            inside = [*(loads[n] for n in loads if n in names(value)), f"return V({cpp_expression(value)});"]
            lines += [f"const auto value = [=, &s](auto pre, auto block) {LAMBDA} {{ {' '.join(inside)} }};"]
        return [*lines, self._topology(kernel), *self._collect(kernel, step, clean, transformed)], preparation

    def _product(self, kernel: Couple, text: str, parts: Parts) -> tuple[str, str] | None:
        """Weight and value of a coupling of which whole blocks of replicas of one member are summed with fewer products."""
        replicas = self.layout.batch > 1 and "Index" in self.layout.blocks
        summed = is_local(kernel) and kernel.into is Into.POST and kernel.reduce is not Reduce.MAX
        if not replicas or not summed or not winograd.pays(kernel.topology):
            return None
        return winograd.factors(text, lambda n: parts[n][0] if n in parts else self.sides.side(kernel, n))

    def _topology(self, kernel: Couple) -> str:
        if not isinstance(kernel.topology, Sparse):
            return f"const {kernel.topology.cpp_type()} topology{{}};"
        known = (k for k, topology in enumerate(self.topologies) if topology is kernel.topology)
        number = next(known, len(self.topologies))
        if number == len(self.topologies):
            self.topologies.append(kernel.topology)
        return f"const Sparse& topology = s.edges[{number}];"

    # What becomes of the numbers of synapses

    def _collect(self, kernel: Couple, step: Step, clean: bool, transformed: int | None) -> list[str]:
        target = kernel.writes["target"]
        if kernel.into is Into.PARAMETER:
            add = "true" if kernel.add else "false"
            if target.sharing is Sharing.REPLICA:
                return [f"into_parameter_per_replica<Y>(topology, s.threads, f, {pointer(target)}, {target.n}, {add});"]
            alike = "true" if replicas_alike(kernel) else "false"
            return [f"into_parameter<Y, {alike}>(topology, s.threads, f, {pointer(target)}, {add});"]
        unit = "post" if kernel.into is Into.POST else "pre"
        value = f"Y::rep({pointer(target)}, {target.n}, {unit}, block) + acc" if kernel.add else "acc"
        if kernel.into is Into.POST:
            return [*self._store(step, target, value), _gather(kernel, clean, transformed)]
        return [self._to_pre(kernel, target, value)]

    def _to_pre(self, kernel: Couple, target: Array, value: str) -> str:
        """The sums of pre units; of a maximum, each window gives to the unit that won."""
        put = f"Y::put({pointer(target)}, {target.n}, pre, block, {value});"
        store = f"[&](Index pre, Index block, V acc) {LAMBDA} {{ {put} }}"
        if not kernel.winner:
            return f"topology.template to_pre<V>(s.threads, Y::NB, f, {store});"
        if "Pool2d" not in kernel.topology.cpp_type():
            raise BuildError(f"{kernel.name}: the gradient of a maximum is available for pooling only")
        loads = " ".join(self.operands.loads(kernel, names(kernel.winner), "V"))
        candidate = f"[&](Index pre, Index block) {LAMBDA} {{ {loads} return V({cpp_expression(kernel.winner)}); }}"
        return f"topology.template to_pre_first_winner<V>(s.threads, Y::NB, {candidate}, f, {store});"

    def _store(self, step: Step, target: Array, value: str) -> list[str]:
        """What becomes of a finished sum: it is stored, and the equation that reads it follows at once where one does."""
        test = f"if ({pointer(target)}) " if isinstance(step, Fused) else ""
        inside = [f"{test}Y::put({pointer(target)}, {target.n}, post, block, {value});"]
        uniforms: list[str] = []
        if isinstance(step, Fused) and step.finish:
            kernel = step.finish.kernel
            statements, uniforms = self.operands.hoisted(kernel)
            used = needed(kernel, statements)
            reads = {n: o.array for n, o in kernel.operands.items() if isinstance(o, Read)}
            sums = {n for n, array in reads.items() if pointer(array) == pointer(target)}
            inside += [f"V {name} = acc;" for name in sorted(sums & used)]
            inside += self.operands.loads(kernel, used - sums, "V") + assignments(kernel, statements, "V")
            inside += [f"Y::put({pointer(a)}, {a.n}, u, block, V({n}));" for n, a in kernel.writes.items()]
        return [
            "const auto store = [&] {",
            *(f"  {line}" for line in uniforms),
            f"  return [=, &s](auto post, auto block, auto acc) {LAMBDA} {{",
            "    using V = decltype(acc); const auto u = post; (void)u; (void)s;",
            *(f"    {line}" for line in inside),
            "  };",
            "}();",
        ]


def _used(kernel: Couple, text: str, parts: Parts) -> set[str]:
    """Names that a coupling reads."""
    used = names(text) | {n for _, part in parts.values() for n in names(part)}
    return used | names(kernel.winner) if kernel.winner else used


def _of_synapse(name: str, inside: Iterable[str]) -> list[str]:
    """What a synapse gives, as a function."""
    return [
        f"const auto {name} = [=, &s](auto syn, auto pre, auto post, auto block) {LAMBDA} {{",
        "  using V = Y::At<decltype(block), decltype(post)>; (void)s; const auto u = post; (void)u;",
        f"  (void)syn; (void)pre; (void)post; (void)block; {' '.join(inside)}",
        "};",
    ]


def _gather(kernel: Couple, clean: bool, transformed: int | None) -> str:
    """The sums of post units.

    Parameters
    ----------
    clean
        Whether a synapse gives something simpler where perturbations are zero.
    transformed
        The buffer with weights for the sum with fewer products, where there is one.
    """
    maximum = "true" if kernel.reduce is Reduce.MAX else "false"

    def gather(of_synapse: str) -> str:
        return f"gather<Y, {maximum}>(topology, s.threads, block, {of_synapse}, store);"

    collect = gather("f")
    if clean:
        idle = " && ".join(f"{factor(a)} == 0" for a in sorted(kernel.perturbations()))
        collect = f"if ({idle}) {gather('clean')} else {collect}"
    if transformed is None:
        return collect
    whole = f"Winograd<{kernel.topology.cpp_type()}>"
    weights = f"s.held[slot + {transformed}] + Y::member(block) * {whole}::n_weights"
    fewer = f"{whole}::gather<V>(s.threads, Index(block), {weights}, value, store);"
    return f"if constexpr (!std::is_same<std::decay_t<decltype(block)>, Few>::value) {fewer} else {collect}"
