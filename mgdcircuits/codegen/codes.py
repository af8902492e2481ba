"""Which codes of signs a compiled circuit keeps as bits while a run lasts."""

from __future__ import annotations

from collections.abc import Callable

from mgdcircuits.circuit.carried import exposed, reads, writes
from mgdcircuits.circuit.program import Couple, Elements, Index, Kernel, Program, Read, Step, steps
from mgdcircuits.codegen.merge import in_vectors
from mgdcircuits.netlist.spec import Sharing

OF_A_CALL = 128  # bits of a call of the generator; with fewer there is nothing to gain


def codes_of_bits(program: Program, is_code: Callable[[Kernel], bool], in_place: Callable[[Couple], bool]) -> set[str]:
    """Arrays of signs that are drawn once an iteration and read by sums, or number by number, where they are used.

    Parameters
    ----------
    is_code
        Whether a kernel draws signs of one size.
    in_place
        Whether a coupling evaluates the parts that depend on a synapse in the sum itself.
    """
    nodes = (*program.iteration, *program.evaluate)
    try:
        others = exposed(program.iteration, set()) | exposed(program.evaluate, set())
        inner = [n for n in nodes if not isinstance(n, Step)]
        others |= reads(inner) | writes(inner)
    except NotImplementedError:  # spiking circuits
        return set()
    drawn: set[str] = set()
    summed: set[str] = set()
    for step in steps(nodes):
        kernel = step.kernel
        written = {a.name for a in kernel.writes.values()}
        code = isinstance(kernel, Elements) and is_code(kernel) and kernel.n > OF_A_CALL
        others |= written & drawn if code else written
        drawn |= written if code else set()
        for operand in kernel.operands.values():
            if isinstance(operand, Read):
                name = operand.array.name
                if isinstance(kernel, Couple) and in_place(kernel) and operand.index is Index.SYNAPSE:
                    summed.add(name)
                elif not (isinstance(kernel, Elements) and kernel.sharing is Sharing.MEMBER and in_vectors(kernel)):
                    others.add(name)
                elif operand.index is not Index.ELEMENT:
                    others.add(name)
    return drawn & summed - others
