"""How much an iteration has to multiply and add."""

from __future__ import annotations

from mgdcircuits.circuit import builder
from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.program import Couple, Into, steps
from mgdcircuits.circuit.topology import Conv2d, Topology
from mgdcircuits.netlist.spec import Reduce


def iteration_macs(circuit: Circuit) -> int:
    """Multiply-accumulates of all evaluations of one iteration for one sample, counted from the program's steps.

    What a step of the program does not repeat (unperturbed layers) does not count, nor does the padding of convolutions.
    Codes, estimates and updates are not counted.
    """
    program, _ = builder.build(circuit)
    kernels = [step.kernel for step in steps(program.iteration)]
    return sum(
        products(kernel.topology)
        for kernel in kernels
        if isinstance(kernel, Couple) and kernel.into is Into.POST and kernel.reduce is Reduce.SUM
    )


def products(topology: Topology) -> int:
    """Multiply-accumulates of one evaluation of one sample without those of padding, which compiled circuits skip."""
    if not isinstance(topology, Conv2d):
        return topology.n_connections
    g = topology.geometry
    found = topology.parameter_shape[0] * topology.parameter_shape[1]
    for axis in (0, 1):
        outputs, inputs = topology.post_shape[1 + axis], topology.pre_shape[1 + axis]
        taps = (
            o * g.stride[axis] - g.padding[axis] + k * g.dilation[axis]
            for o in range(outputs)
            for k in range(g.kernel[axis])
        )
        found *= sum(0 <= tap < inputs for tap in taps)
    return found
