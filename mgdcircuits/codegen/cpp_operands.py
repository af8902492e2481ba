"""Operands and statements of a kernel as C++: what every loop needs, whatever it runs through."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mgdcircuits.circuit.program import (
    Index,
    Kernel,
    Literal,
    Operand,
    Parameter,
    Position,
    Precision,
    Program,
    Random,
    Read,
    Scope,
    Word,
)
from mgdcircuits.codegen.cpp_arrays import factor, pointer
from mgdcircuits.codegen.hoist import multiplied, split
from mgdcircuits.codegen.rendering import cpp_expression, names
from mgdcircuits.codegen.target import random_sites
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Sharing

UNIT_OF = {
    Index.ELEMENT: "u",
    Index.PRE: "pre",
    Index.POST: "post",
    Index.SYNAPSE: "syn",
    Index.ZERO: "zero_of(u)",
}
CHANNEL_OF = {Index.CHANNEL: "u", Index.PRE_CHANNEL: "pre", Index.POST_CHANNEL: "post"}
COUNTS = {
    Scope.INITIAL: "0",
    Scope.PERIOD: "s.count_period()",
    Scope.PASS: "s.count_pass()",
    Scope.WRITE: "s.count_write()",
}
LAMBDA = "__attribute__((always_inline))"
Assignment = tuple[str, str]  # a target and an expression


class Operands:
    """Writes the operands and statements of a program's kernels.

    A *kind* of local variables is ``V`` (a vector of lanes), ``D`` (the same in float64) or ``scalar`` (one member).
    """

    def __init__(self, program: Program) -> None:
        self.sites = {site: k for k, site in enumerate(random_sites(program))}
        self.parameters = {name: k for k, name in enumerate(program.parameters)}

    # Numbers that are the same for all elements and replicas

    def parameter(self, name: str) -> str:
        """A netlist parameter."""
        return f"s.p[{self.parameters[name]}]"

    def uniform(self, operand: Operand) -> str | None:
        """A number that is the same for all elements and replicas; None for anything else."""
        match operand:
            case Literal(value):
                return f"{value!r}" if value not in (float("inf"), float("-inf")) else "INFINITY"
            case Parameter(name):
                return self.parameter(name)
            case Word("n_p"):
                return "static_cast<double>(s.n_p)"
            case Word("tick"):
                return "static_cast<double>(s.tick)"
            case Word(word):
                raise BuildError(f"the word {word} is not available in compiled circuits")
        return None

    def is_uniform(self, operand: Operand) -> bool:
        """Whether an operand is the same for all elements and replicas."""
        return self.uniform(operand) is not None

    def uniforms(self, kernel: Kernel, used: set[str]) -> list[str]:
        """Definitions of the used operands that are the same for all elements and replicas."""
        lines = []
        for name, operand in kernel.operands.items():
            value = self.uniform(operand)
            if value is not None and name in used:
                lines.append(f"const double {name} = {value};")
        return lines

    def hoisted(self, kernel: Kernel, reciprocals: bool = False) -> tuple[list[Assignment], list[str]]:
        """Statements with uniform parts taken out, and the lines that evaluate uniforms once."""
        statements, lines, used = [], [], set[str]()
        assigned = {s.target for s in kernel.statements}
        kind = self._kind(kernel)
        for number, statement in enumerate(kernel.statements):
            expression = multiplied(statement.expression, kind) if reciprocals else statement.expression
            text, parts = split(expression, lambda n: None if n in assigned else kind(n), f"hoisted_{number}_")
            for name, (_, part) in parts.items():
                used |= names(part)
                lines.append(f"const double {name} = {cpp_expression(part)};")
            used |= names(text)
            statements.append((statement.target, text))
        return statements, [*self.uniforms(kernel, used | _drawn_with(kernel)), *lines]

    def _kind(self, kernel: Kernel) -> Callable[[str], str | None]:
        def kind(name: str) -> str | None:
            operand = kernel.operands.get(name)
            return "uniform" if operand is not None and self.is_uniform(operand) else None

        return kind

    # Numbers of an element

    def operand(self, name: str, operand: Operand, kind: str) -> str:
        """Definition of a per-element operand inside a loop."""
        match operand:
            case Read(array, _, _, amplitude):
                value = _read(operand, kind)
                if amplitude:
                    type_ = {"V": "V", "D": "D", "scalar": "T"}[kind]
                    value = f"{type_}({factor(array.name)}) * {value}"
                return f"auto {name} = {value};"
            case Position(index, offset):
                return f"const auto {name} = Y::number({UNIT_OF[index]}, {offset});"
            case Random():
                return f"auto {name} = {self._draw(operand, kind)};"
        raise BuildError(f"{name}: unknown operand {operand!r}")

    def count(self, draw: Random) -> str:
        """The count that the numbers of a draw depend on."""
        return f"s.count_held({self.parameter(draw.hold)})" if draw.hold else COUNTS[draw.scope]

    def _draw(self, operand: Random, kind: str) -> str:
        site = self.sites[operand.site]
        unit, count = UNIT_OF[operand.index], self.count(operand)
        keys = f"s.block_keys({site}, block), s.block_replica(block), {unit}, {count}"
        match operand.function:
            case "rand":
                return f"lanes_uniform<{kind}>({keys})"
            case "randn":
                return f"lanes_normal<{kind}>({keys})"
            case "bit":
                return f"0.5 * (lanes_sign<{kind}>({keys}) + 1.0)"
        return f"lanes_poisson<{kind}>({keys}, {cpp_expression(operand.arguments[0])})"

    def named(self, kernel: Kernel, used: set[str], kind: str) -> dict[str, str]:
        """Definitions of the used per-element operands by name, draws last."""
        chosen = [(n, o) for n, o in kernel.operands.items() if n in used and not self.is_uniform(o)]
        chosen.sort(key=lambda item: isinstance(item[1], Random))
        return {n: self.operand(n, o, kind) for n, o in chosen}

    def loads(self, kernel: Kernel, used: set[str], kind: str) -> list[str]:
        """Definitions of the used per-element operands, draws last."""
        return list(self.named(kernel, used, kind).values())

    def varying(self, kernel: Kernel, used: set[str]) -> dict[str, Operand]:
        """The used per-element operands, always in the same order: the cache goes by the text."""
        operands = {n: kernel.operands[n] for n in sorted(used) if n in kernel.operands}
        return {n: o for n, o in operands.items() if not self.is_uniform(o)}


def _read(operand: Read, kind: str) -> str:
    """The numbers of an array at the element where a loop is."""
    array, start = operand.array, pointer(operand.array)
    unit = UNIT_OF.get(operand.index) or f"channel_of({CHANNEL_OF[operand.index]}, {operand.positions})"
    if kind == "scalar":
        type_ = "double" if array.precision is Precision.INTEGER else "T"
        return f"static_cast<{type_}>({start}[{unit} * Y::MP + m])"
    suffix = "_double" if kind == "D" else ""
    if array.sharing is Sharing.REPLICA:
        return f"Y::rep{suffix}({start}, {array.n}, {unit}, block)"
    return f"Y::mem{suffix}({start}, {unit}, block)"


def assignments(kernel: Kernel, statements: Iterable[Assignment], kind: str) -> list[str]:
    """Assignments to locals; an array's local exists already where the kernel reads the array."""
    declared = set(kernel.operands)
    lines = []
    for target, text in statements:
        value = cpp_expression(text)
        if target in declared:
            lines.append(f"{target} = {value};")
        else:
            type_ = "auto" if target not in kernel.writes else {"V": "V", "D": "D", "scalar": "double"}[kind]
            lines.append(f"{type_} {target} = {value};")
            declared.add(target)
    return lines


def needed(kernel: Kernel, statements: Iterable[Assignment]) -> set[str]:
    """Names that statements read, those that they overwrite, and those that draws take."""
    read = {n for _, text in statements for n in names(text)}
    return read | (set(kernel.writes) & set(kernel.operands)) | _drawn_with(kernel)


def _drawn_with(kernel: Kernel) -> set[str]:
    """Names in the arguments of a kernel's draws."""
    return {n for o in kernel.operands.values() if isinstance(o, Random) for a in o.arguments for n in names(a)}
