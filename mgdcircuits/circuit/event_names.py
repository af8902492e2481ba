"""What the names in an equation of a circuit with spikes stand for, and the arrays that spikes need.

Subexpressions are re-evaluated wherever they are read, as in Brian2 (unless they draw random numbers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mgdcircuits.circuit.circuit import Circuit, Coupling, Population
from mgdcircuits.circuit.operands import DRAWS, Resolver
from mgdcircuits.circuit.program import Array, Index, Position, Precision, Read, Scope
from mgdcircuits.netlist.expressions import substitute
from mgdcircuits.netlist.spec import Role, Sharing, Variable, VariableKind

NEVER = 1e4
"""Seconds before the beginning at which a neuron that never fired is said to have fired (as in Brian2)."""


def is_state(variable: Variable) -> bool:
    """Whether a variable has a differential equation (a plastic one may)."""
    return variable.kind is VariableKind.DIFFERENTIAL


def draws(expression: str) -> bool:
    """Whether an expression draws random numbers."""
    return any(re.search(rf"\b{name}(_\w+)?\s*\(", expression) for name in DRAWS)


def without_int(text: str) -> str:
    """``int(not_refractory)`` as a number, which it is already."""
    return re.sub(r"\bint\(not_refractory(\w*)\)", r"(1 - _refractory\1)", text)


@dataclass
class Names:
    """Arrays and names of a circuit with spikes.

    Parameters
    ----------
    circuit
        The circuit.
    constants
        Literals by name; ``dt`` among them.
    ticks
        Ticks in one iteration.
    """

    circuit: Circuit
    constants: Mapping[str, float]
    ticks: int

    def __post_init__(self) -> None:
        self.dt = self.constants["dt"]
        self.never = round(NEVER / self.dt)
        self.now = f"(n_p*{self.ticks} + tick)"

    def spikes(self, population: Population) -> Array:
        """1 where a unit spikes in this tick."""
        return Array(f"{population.name}.spike", population.spec.shape, Sharing.REPLICA)

    def count(self, population: Population) -> Array:
        """Spikes since the count was cleared."""
        return Array(f"{population.name}.spike_count", population.spec.shape, Sharing.REPLICA)

    @staticmethod
    def refractory(population: Population) -> Array:
        """1 while a unit is refractory."""
        return Array(f"{population.name}.refractory", population.spec.shape, Sharing.REPLICA)

    @staticmethod
    def last_spike(population: Population) -> Array:
        """The tick of the last spike, counted from `NEVER` before the beginning (so that 0 means never)."""
        return Array(f"{population.name}.last_spike", population.spec.shape, Sharing.REPLICA, Precision.INTEGER)

    @staticmethod
    def last_update(coupling: Coupling) -> Array:
        """The tick at which event-driven states were last brought up to date."""
        shape = coupling.topology.parameter_shape
        return Array(f"{coupling.name}.last_update", shape, Sharing.REPLICA, Precision.INTEGER)

    # Names

    def of_population(self, population: Population, unit: Index = Index.ELEMENT, suffix: str = ""):
        """Names of a population, in its own equations or (with a suffix) in those of a synapse."""
        own = {v.name for v in population.spec.variables}
        words = {"not_refractory", "lastspike", "_refractory", "_last_spike", "_spike", "i"} - own

        def lookup(name: str):
            if suffix and not name.endswith(suffix):
                return None
            base = name.removesuffix(suffix)
            if population.spec.refractory is not None:
                if base == "not_refractory":
                    return f"_refractory{suffix} < 0.5"
                if base == "lastspike":
                    return f"(_last_spike{suffix} - {self.never})*dt"
                if base == "_refractory":
                    return Read(self.refractory(population), unit)
                if base == "_last_spike":
                    return Read(self.last_spike(population), unit)
            if base == "_spike":
                return Read(self.spikes(population), unit)
            if base == "i" and "i" not in own:
                return Position(unit)
            variable = population.variable(base)
            if variable is not None and variable.role is Role.STORED and not draws(variable.expression or ""):
                mapping = {n: n + suffix for n in own | words} if suffix else {}
                return substitute(without_int(variable.expression or "0"), mapping)
            return population.read(base, unit)

        return lookup

    def of_time(self, name: str):
        """`t`."""
        return f"{self.now}*dt" if name == "t" else None

    def of_coupling(self, coupling: Coupling):
        """Names of a synapse: its own first, then `_pre` and `_post`, then those of the post-synaptic side."""
        pre = self.of_population(coupling.pre, Index.PRE, "_pre")
        post = self.of_population(coupling.post, Index.POST, "_post")

        def lookup(name: str):
            own = coupling.variable(name)
            if own is not None and own.role is Role.STORED and not draws(own.expression or ""):
                return own.expression
            if own is not None and own.role is not Role.SUMMED:
                return coupling.read_own(name)
            match name:
                case "_last_update":
                    return Read(self.last_update(coupling), Index.SYNAPSE)
                case "lastupdate":
                    return "_last_update*dt"
                case "_elapsed":
                    return f"({self.now} - _last_update)*dt"
                case "i":
                    return Position(Index.PRE)
                case "j":
                    return Position(Index.POST)
            return pre(name) or post(name) or post(f"{name}_post")

        return lookup

    def population_resolver(self, population: Population, what: str, scope: Scope = Scope.PERIOD) -> Resolver:
        """Names in the equations, threshold and reset of a population."""
        lookups = [self.of_population(population), self.of_time]
        place = f"{population.name}.{what}"
        return Resolver(self.circuit.spec.parameters, {**self.constants, "N": population.n}, lookups, place, scope)

    def coupling_resolver(self, coupling: Coupling, what: str) -> Resolver:
        """Names in the states and events of a synapse."""
        sizes = {"N_pre": coupling.pre.n, "N_post": coupling.post.n, "N": coupling.topology.n_synapses}
        lookups = [self.of_coupling(coupling), self.of_time]
        place = f"{coupling.name}.{what}"
        return Resolver(self.circuit.spec.parameters, {**self.constants, **sizes}, lookups, place, index=Index.SYNAPSE)
