"""How much an iteration has to multiply and add."""

from __future__ import annotations

from mgdcircuits.circuit import builder
from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.program import Couple, Into, steps
from mgdcircuits.netlist.spec import Reduce


def iteration_macs(circuit: Circuit) -> int:
    """Multiply-accumulates of all evaluations of one iteration for one sample, counted from the program's steps.

    What a step of the program does not repeat (unperturbed layers) does not count. Convolutions count padding, as they
    do in the literature. Codes, estimates and updates are not counted.
    """
    program, _ = builder.build(circuit)
    kernels = [step.kernel for step in steps(program.iteration)]
    return sum(
        kernel.topology.n_connections
        for kernel in kernels
        if isinstance(kernel, Couple) and kernel.into is Into.POST and kernel.reduce is Reduce.SUM
    )
