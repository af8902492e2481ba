"""A circuit as plain Brian2 objects, for a Brian2 `Network`: NeuronGroups and Synapses, without the netlist's flags.

The order within a time step is that of the numpy target, by the `order` of the objects: summed variables along the
graph of the circuit, then states of synapses, then states of populations. What the netlist adds to Brian2
(perturbation, reward, learning, trials) stays behind: perturbations are parameters at zero, inputs parameters to set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mgdcircuits.circuit import forward, integrate
from mgdcircuits.circuit.brian2_import import import_brian2
from mgdcircuits.circuit.circuit import Circuit, Coupling, Population
from mgdcircuits.circuit.clocks import resolve
from mgdcircuits.circuit.event_kernels import Side
from mgdcircuits.circuit.events import Events
from mgdcircuits.circuit.operands import identifier
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Axis, Reduce, Role, Variable, VariableKind

if TYPE_CHECKING:
    from brian2 import Clock, NeuronGroup, Synapses

SUMMED, SYNAPSES, POPULATIONS = -1000, -1, 0  # the order of Brian2 objects within the slot "groups"


@dataclass(frozen=True)
class Brian2Objects:
    """Brian2 objects of a circuit, by name; ``Network(*objects)`` runs them."""

    populations: Mapping[str, NeuronGroup]
    couplings: Mapping[str, Synapses]
    clock: Clock

    def __iter__(self) -> Iterator[NeuronGroup | Synapses]:
        yield from self.populations.values()
        yield from self.couplings.values()

    def __getitem__(self, name: str) -> NeuronGroup | Synapses:
        """A population or a coupling; where both have one name, the population."""
        return self.populations[name] if name in self.populations else self.couplings[name]


def build(circuit: Circuit, seed: int = 0, values: Mapping[str, np.ndarray] | None = None) -> Brian2Objects:
    """Brian2 objects of a circuit, with the initial values of ``Session(circuit, seed=seed)``.

    Parameters
    ----------
    circuit
        The circuit.
    seed
        Of the keyed draws of initial values. What Brian2 draws while it runs comes from its own generator.
    values
        Values instead of the initial ones, in SI units, by qualified name (``{"exc.v": array}``).

    Raises
    ------
    BuildError
        What Brian2 has no counterpart for: a maximum over synapses, a delay of a summed equation.
    """
    import_brian2()
    from brian2 import Clock, second

    clocks = resolve(circuit)
    constants = {k: v for k, v in clocks.seconds.items() if k != "iteration"}
    clock = Clock((clocks.dt or clocks.tau_p) * second)
    setter = _Values(circuit, seed, constants, dict(values or {}))
    steps, _ = forward.evaluation_steps(circuit, constants)
    order = {step.kernel.name: SUMMED + k for k, step in enumerate(steps)}
    drivers = _drivers(circuit)
    populations = {p.name: _group(circuit, p, drivers, clock, setter) for p in circuit.populations.values()}
    events = Events(circuit, {**constants, "dt": clocks.dt or 0.0}, clocks.ticks) if circuit.is_spiking else None
    couplings = {
        c.name: _synapses(circuit, c, populations, drivers, clock, setter, order, events)
        for c in circuit.couplings.values()
        if c.spec.variables or c.spec.on_pre or c.spec.on_post
    }
    return Brian2Objects(populations, couplings, clock)


class _Values:
    """Initial values of variables as flat arrays of one replica."""

    def __init__(
        self, circuit: Circuit, seed: int, constants: Mapping[str, float], given: dict[str, np.ndarray]
    ) -> None:
        unknown = set(given) - set(circuit.variables)
        if unknown:
            raise BuildError(f"{circuit.name}: no variable is called {', '.join(sorted(unknown))}")
        self.circuit, self.seed, self.constants, self.given = circuit, seed, constants, given

    def __call__(self, name: str) -> np.ndarray:
        from mgdcircuits.codegen.initial import initial_values

        array = self.circuit.variables[name][2]
        if name in self.given:
            return np.broadcast_to(np.ravel(self.given[name]), array.n)
        parameters = {k: v for k, v in self.circuit.spec.parameters.items() if not isinstance(v, str)}
        made = initial_values(self.circuit, name, [self.seed], 1, self.constants, parameters)
        return np.broadcast_to(made, (array.n, 1, 1))[:, 0, 0].astype(float)


def _drivers(circuit: Circuit) -> dict[tuple[str, str], list[str]]:
    """(population, variable) to the couplings that drive it by a summed equation."""
    found: dict[tuple[str, str], list[str]] = {}
    for coupling in circuit.couplings.values():
        for summed in coupling.summed:
            key = (coupling.post.name, summed.name.removesuffix("_post"))
            found.setdefault(key, []).append(coupling.name)
    return found


def _part(variable: str, coupling: str) -> str:
    """The share of one of several couplings in a summed variable."""
    return f"{variable}_from_{identifier(coupling)}"


def _group(circuit: Circuit, population: Population, drivers, clock: Clock, values: _Values) -> NeuronGroup:
    from brian2 import NeuronGroup

    spec = population.spec
    lines: list[Variable] = []
    for variable in spec.variables:
        couplings = drivers.get((population.name, variable.name), [])
        if len(couplings) > 1:
            parts = [_part(variable.name, c) for c in couplings]
            lines += [replace(variable, name=part) for part in parts]
            variable = replace(variable, kind=VariableKind.SUBEXPRESSION, expression=" + ".join(parts))
        lines.append(variable)
    group = NeuronGroup(
        population.n,
        integrate.brian2_equations(lines),
        threshold=spec.threshold,
        reset=spec.reset,
        refractory=spec.refractory or False,
        method=spec.method or ("exact", "euler", "heun"),
        namespace=integrate.brian2_namespace(circuit),
        clock=clock,
        order=POPULATIONS,
        name=f"{identifier(population.name)}*",
    )
    for variable in spec.variables:
        if variable.kind is VariableKind.SUBEXPRESSION or (population.name, variable.name) in drivers:
            continue
        start = values(f"{population.name}.{variable.name}")
        if variable.axis is Axis.CHANNEL:
            start = np.repeat(start, population.positions)
        setattr(group, f"{variable.name}_", start[0] if variable.axis is Axis.SCALAR else start)
    return group


def _synapses(
    circuit: Circuit,
    coupling: Coupling,
    populations: Mapping[str, NeuronGroup],
    drivers: Mapping[tuple[str, str], list[str]],
    clock: Clock,
    values: _Values,
    order: Mapping[str, int],
    events: Events | None,
) -> Synapses:
    from brian2 import Synapses, second

    spec = coupling.spec
    if spec.delay is not None and coupling.summed and not (spec.on_pre or spec.on_post):
        raise BuildError(f"{spec.at}: {spec.name}: Brian2 has no delay of a summed equation")
    lines = [_summed(coupling, v, drivers) if v.role is Role.SUMMED else v for v in spec.variables]
    fixed, varying = {}, {}
    for side, event in ((Side.PRE, spec.on_pre), (Side.POST, spec.on_post)):
        if event is not None and events is not None:
            ticks = events.delays[coupling.name, side]
            if len(ticks) == 1:
                fixed[side.value] = ticks[0] * clock.dt_ * second
            else:
                varying[side.value] = ticks * clock.dt_
    synapses = Synapses(
        populations[coupling.pre.name],
        populations[coupling.post.name],
        integrate.brian2_equations(lines),
        on_pre=spec.on_pre.statements if spec.on_pre else None,
        on_post=spec.on_post.statements if spec.on_post else None,
        delay=fixed or None,
        method=spec.method or ("exact", "euler", "heun"),
        namespace=integrate.brian2_namespace(circuit),
        clock=clock,
        order=SYNAPSES,
        name=f"{identifier(coupling.name)}*",
    )
    pre, post, synapse = coupling.topology.indices()
    synapses.connect(i=pre, j=post)
    for summed, updater in zip(coupling.summed, synapses.summed_updaters.values(), strict=True):
        updater.order = order[f"{coupling.name}.{summed.name}"]
    for pathway, delays in varying.items():
        getattr(synapses, pathway).delay_ = delays
    for variable in spec.variables:
        if variable.kind is VariableKind.SUBEXPRESSION or variable.role is Role.SUMMED:
            continue
        start = values(f"{coupling.name}.{variable.name}")
        if variable.axis is Axis.SCALAR:
            setattr(synapses, f"{variable.name}_", start[0])
        elif len(pre):
            setattr(synapses, f"{variable.name}_", start[synapse])
    return synapses


def _summed(coupling: Coupling, variable: Variable, drivers) -> Variable:
    """The summed equation in Brian2's words."""
    target = variable.name.removesuffix("_post")
    expression = variable.expression
    match coupling.spec.reduce:
        case Reduce.MEAN:
            expression = f"({expression})/N_incoming"
        case Reduce.MAX:
            raise BuildError(f"{coupling.spec.at}: {coupling.name}: Brian2 has no maximum over synapses")
    several = len(drivers[coupling.post.name, target]) > 1
    name = f"{_part(target, coupling.name)}_post" if several else variable.name
    flags = frozenset({*variable.flags, "summed"})
    return replace(variable, name=name, expression=expression, flags=flags, kind=VariableKind.SUBEXPRESSION)
