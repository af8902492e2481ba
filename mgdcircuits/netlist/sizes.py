"""How many elements a variable has: parameters N, nodes K, bytes."""

from __future__ import annotations

import math

from mgdcircuits.netlist.spec import (
    Axis,
    CircuitSpec,
    Conv2d,
    CouplingSpec,
    Pool,
    PopulationSpec,
    Role,
    Sharing,
    Sparse,
    Variable,
)
from mgdcircuits.netlist.topologies import product, synapses


def elements(thing: PopulationSpec | CouplingSpec, variable: Variable, populations: dict[str, PopulationSpec]) -> int:
    """Elements of a variable in one replica (the expected number for a random sparse coupling)."""
    if variable.axis is Axis.SCALAR:
        return 1
    if isinstance(thing, PopulationSpec):
        return thing.shape[0] if variable.axis is Axis.CHANNEL else product(thing.shape)
    pre, post = populations[thing.pre], populations[thing.post]
    if variable.role is Role.SUMMED:
        return product(post.shape)
    match thing.topology:
        case Conv2d(kernel=kernel, groups=groups):
            return post.shape[0] * (pre.shape[0] // groups) * kernel[0] * kernel[1]
        case Pool():
            return 0
    return math.ceil(synapses(thing.topology, product(pre.shape), product(post.shape)))


def parameters(spec: CircuitSpec) -> dict[str, int]:
    """Elements of each plastic parameter by its qualified name."""
    populations = {p.name: p for p in spec.populations}
    return {
        f"{thing.name}.{variable.name}": elements(thing, variable, populations)
        for thing in spec.things
        for variable in thing.variables
        if variable.role is Role.PLASTIC
    }


def nodes(spec: CircuitSpec) -> dict[str, int]:
    """Units of each population that a plastic coupling reaches: the K of node perturbation."""
    reached = {c.post for c in spec.couplings if any(v.role is Role.PLASTIC for v in c.variables)}
    return {p.name: product(p.shape) for p in spec.populations if p.name in reached}


def memory(spec: CircuitSpec, members: int = 1, batch: int | None = None) -> int:
    """A lower bound of the bytes that the state of a session takes, in single precision."""
    populations = {p.name: p for p in spec.populations}
    batch = batch or (spec.task.batch if spec.task is not None else 1)
    trained = {site.parameter: 2 + len(site.states) for system in spec.learning for site in system.sites}
    total = 0
    for thing in spec.things:
        for variable in thing.variables:
            if variable.role is Role.SUMMED:
                continue
            copies = members * (batch if variable.sharing is Sharing.REPLICA else 1)
            arrays = 1 + trained.get(f"{thing.name}.{variable.name}", 0)
            total += 4 * copies * arrays * elements(thing, variable, populations)
        if isinstance(thing, CouplingSpec) and isinstance(thing.topology, Sparse):
            count = synapses(
                thing.topology, product(populations[thing.pre].shape), product(populations[thing.post].shape)
            )
            total += 8 * math.ceil(count)
    return total
