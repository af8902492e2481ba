"""Kernels as functions of the arrays they touch, and how steps call them. Equal kernels are one function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mgdcircuits.circuit.program import (
    Array,
    Couple,
    Elements,
    Fold,
    Kernel,
    MemberMean,
    Read,
    Reduction,
    Sample,
    Step,
    Word,
)
from mgdcircuits.codegen.cpp_arrays import CPP_TYPE, Arrays, factor, pointer
from mgdcircuits.codegen.cpp_couplings import Couplings
from mgdcircuits.codegen.cpp_elements import ElementLoops
from mgdcircuits.codegen.cpp_layout import Layout
from mgdcircuits.codegen.cpp_operands import Operands
from mgdcircuits.codegen.cpp_preparation import Preparation
from mgdcircuits.codegen.cpp_samples import sample
from mgdcircuits.codegen.cpp_sides import Sides
from mgdcircuits.codegen.fuse import Fused, is_local, spreadable
from mgdcircuits.codegen.merge import Merged
from mgdcircuits.errors import BuildError

SLOTS = 8  # scratch buffers a kernel may have


@dataclass(frozen=True)
class Signature:
    """How a kernel is called: its function, arrays and perturbations by position, its first scratch buffer."""

    name: str
    arrays: list[Array]
    amplitudes: list[str]
    slot: int
    prepares: bool
    borrows: tuple[Read, ...]  # what its buffers are without perturbation, where that is an array as it stands


@dataclass(frozen=True)
class Text:
    """A function without its name, so that equal ones are found."""

    template: str
    body: str  # from the parameters on
    prepare: str  # the same, of what is evaluated beforehand


class Functions:
    """Writes the functions of the kernels that steps call."""

    def __init__(self, operands: Operands, sides: Sides, arrays: Arrays, layout: Layout) -> None:
        self.operands = operands
        self.sides = sides
        self.arrays = arrays
        self.layout = layout
        self.elements = ElementLoops(operands, arrays)
        self.couplings = Couplings(operands, sides, arrays, layout)
        self._names: dict[Text, str] = {}
        self._signatures: dict[tuple, Signature] = {}
        self._steps: list[Step] = []  # keeps ids alive

    def definitions(self) -> list[str]:
        """All functions, each as a text that starts with its declaration."""
        written = []
        for text, name in self._names.items():
            blocks = self.layout.blocks if text.template else ()
            parameters = text.body.partition(") {")[0]
            made = [f"template void {name}({parameters.replace('B block', f'{b} block')});\n" for b in blocks]
            written.append(f"{text.template}void {name}({text.body}{''.join(made)}")
            if text.prepare.count("\n") > 3:
                written.append(f"void {name}_prepare({text.prepare}")
        return written

    # Calls

    def call(self, step: Step, part: str = "") -> str:
        """The call of a step's kernel."""
        made = self._signature(step)
        finish = step.finish if isinstance(step, Fused) else step
        rename = {**finish.rename, **step.rename}
        arguments = [f"s.{self.arrays.member(rename.get(a.name, a.name))}" for a in made.arrays]
        written = {a.name for a in step.kernel.writes.values()}
        for k, a in enumerate(made.arrays):
            if a.name in self.arrays.coded:
                arguments[k] = f"s.{self.arrays.code(a.name)}{'' if a.name in written else '.signs()'}"
            if a.name in _inactive(finish, step):
                arguments[k] = "no_signs(s.zeros)" if a.name in self.arrays.coded else "s.zeros"
        if isinstance(step, Fused) and not step.kept:
            arguments[made.arrays.index(step.kernel.writes["target"])] = "nullptr"
        active = {a: s.factor for s in (finish, step) for a in s.active & s.kernel.perturbations()}
        factors = [repr(float(active.get(a, 0.0))) for a in made.amplitudes]
        blocks = [str(made.slot), *(("block",) if not part and is_local(step.kernel) else ())]
        return f"{made.name}{part}({', '.join(['s', *blocks, *arguments, *factors])});  // {step.kernel.name}"

    def prepared(self, step: Step) -> list[str]:
        """What a coupling evaluates once a synapse, beforehand; what did not change since is not evaluated again."""
        made = self._signature(step)
        if not made.prepares:
            return []
        call = self.call(step, "_prepare")
        if any(isinstance(o, Word) for o in step.kernel.operands.values()):
            return [call]
        where = "s.mine()" if self.sides.apart(step.kernel) else "s"
        factors = [repr(float(step.factor)) for a in made.amplitudes if a in step.active & step.kernel.perturbations()]
        if not factors and made.borrows:
            arrays = [read.array for read in made.borrows]
            return [f"{where}.borrow({made.slot}, {k}, s.{self.arrays.member(a.name)});" for k, a in enumerate(arrays)]
        return [f"if ({where}.stale(s.version, {made.slot}, {{{', '.join(factors)}}})) {call}"]

    # Functions

    def _signature(self, step: Step) -> Signature:
        """How the kernel of a step is called; its function is written at the first call."""
        key = _key(step)
        if key not in self._signatures:
            self._signatures[key] = self._written(step)
        return self._signatures[key]

    def _written(self, step: Step) -> Signature:
        self._steps.append(step)
        kernels = [step.kernel, step.finish.kernel] if isinstance(step, Fused) else [step.kernel]
        arrays, written = self._touched(kernels)
        amplitudes = sorted({a for k in kernels for a in k.perturbations()})
        spreads = spreadable(step.kernel)
        fixed = ["Session& s", "int slot"]
        block = ["B block" if spreads else "Index block"] if is_local(step.kernel) else []
        others = [self._parameter(a, a.name in written) for a in arrays] + [f"double {factor(a)}" for a in amplitudes]
        lines, preparation = self._body(step)
        before = preparation.lines if preparation else []
        text = Text(
            "template <class B>\n" if spreads else "",
            _by_position(lines, [*fixed, *block, *others], arrays, amplitudes),
            _by_position(before, [*fixed, *others], arrays, amplitudes),
        )
        name = self._names.setdefault(text, f"k{len(self._names)}")
        slot = SLOTS * (len(self._steps) - 1)
        return Signature(name, arrays, amplitudes, slot, bool(before), preparation.borrows if preparation else ())

    def _touched(self, kernels: Sequence[Kernel]) -> tuple[list[Array], set[str]]:
        """The arrays that a function of kernels is given, and the names of those that it writes."""
        arrays: dict[str, Array] = {}
        for operand in (o for k in kernels for o in k.operands.values()):
            if isinstance(operand, Read):
                arrays[operand.array.name] = operand.array
        made = {a.name: a for k in kernels for a in k.writes.values()}
        for kernel in kernels:
            if isinstance(kernel, Sample):
                made |= kernel.presented
                if kernel.labels.name in self.arrays:
                    made[kernel.labels.name] = kernel.labels
        arrays |= made
        return list(arrays.values()), set(made)

    def _parameter(self, array: Array, written: bool) -> str:
        """The declaration of an array in the parameters of a function."""
        kind = f"{'' if written else 'const '}{CPP_TYPE[array.precision]}* __restrict"
        if array.name in self.arrays.coded:
            kind = "Code<T>" if written else "Signs<T>"
        return f"{kind} {pointer(array)}"

    def _body(self, step: Step) -> tuple[list[str], Preparation | None]:
        """What a function does, and what it needs beforehand."""
        match kernel := step.kernel:
            case Couple():
                return self.couplings.coupling(step)
            case Elements():
                return self.elements.elements(kernel), None
            case Merged():
                return self.elements.merged(kernel), None
            case Fold():
                return self.elements.fold(kernel), None
            case Reduction():
                return self.elements.reduction(kernel), None
            case MemberMean():
                return self.elements.member_mean(kernel), None
            case Sample():
                return sample(kernel, self.operands, self.arrays, self.layout.batch), None
        raise BuildError(
            "spiking circuits run on the numpy target so far: choose target='numpy' (or --target numpy on the command line)"
        )


def _by_position(
    lines: Iterable[str], parameters: Iterable[str], arrays: Sequence[Array], amplitudes: Sequence[str]
) -> str:
    """A function from its parameters on; these are called by position, so that kernels of one form are one function."""
    made = f"{', '.join(parameters)}) {{\n  (void)s; (void)slot;\n" + "".join(f"  {x}\n" for x in lines) + "}\n"
    for k, array in enumerate(arrays):
        made = re.sub(rf"\b{pointer(array)}\b", f"a{k}", made)
    for k, name in enumerate(amplitudes):
        made = re.sub(rf"\b{factor(name)}\b", f"factor{k}", made)
    return made


def _key(step: Step) -> tuple:
    """Steps with the same key are calls of one function."""
    return (id(step.kernel), id(step.finish.kernel)) if isinstance(step, Fused) else (id(step.kernel),)


def _inactive(*together: Step) -> set[str]:
    """Perturbations that steps read as such alone and with the factor zero."""
    plain: set[str] = set()
    for step in together:
        reads = [o for o in step.kernel.operands.values() if isinstance(o, Read)]
        plain |= {o.array.name for o in reads if not o.amplitude or o.array.name in step.active}
        plain |= {a.name for a in step.kernel.writes.values()}
    return {name for step in together for name in step.kernel.perturbations()} - plain
