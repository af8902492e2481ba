"""Circuits with spikes: kernels of events and the steps of one tick, in the order of Brian2's default schedule.

A tick is: ``start`` (what is watched), ``groups`` (summed variables, then states), ``thresholds``, ``synapses`` (pathways of
pre-synaptic spikes, then those of post-synaptic ones), ``resets``. The states of synapses are updated before those of
populations, so that both read the values of the beginning of the tick; Brian2 leaves this order to the names of objects.

Subexpressions are re-evaluated wherever they are read, as in Brian2 (unless they draw random numbers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from mgdcircuits.circuit import integrate
from mgdcircuits.circuit.circuit import Circuit, Coupling, Population
from mgdcircuits.circuit.operands import DRAWS, Resolver
from mgdcircuits.circuit.program import (
    Array,
    Elements,
    Index,
    Kernel,
    Node,
    Position,
    Precision,
    Read,
    Scope,
    Statement,
    Step,
)
from mgdcircuits.circuit.topology import Conv2d, Pool, Topology
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.expressions import substitute
from mgdcircuits.netlist.spec import Event, Role, Sharing, Variable, VariableKind
from mgdcircuits.netlist.statements import parse_statements

NEVER = 1e4
"""Seconds before the beginning at which a neuron that never fired is said to have fired (as in Brian2)."""


class Side(Enum):
    """Whose spikes drive a pathway."""

    PRE = "pre"
    POST = "post"


@dataclass(frozen=True)
class EventStatement(Statement):
    """``target operator expression``; several events that hit one target with ``+=`` add up."""

    operator: str = "="


@dataclass(frozen=True, eq=False)
class Connections(Kernel):
    """For every synapse and every replica: run the statements, which may read the pre- and post-synaptic side."""

    topology: Topology


@dataclass(frozen=True, eq=False)
class Pathway(Kernel):
    """For every synapse at which a spike arrives in this tick: run the statements (`EventStatement`).

    `spikes` holds the spikes of the last `rows` ticks, the row of tick n being ``n % rows``. `delays` are ticks: one for
    all synapses, or one for each. `guards` names the operand that is 1 where a target must not be written (refractory).
    """

    topology: Topology
    side: Side
    spikes: Array
    rows: int
    delays: np.ndarray
    guards: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Remember(Kernel):
    """Copy the spikes of this tick into their row of the history."""

    spikes: Array
    history: Array
    rows: int


@dataclass(frozen=True)
class Emit:
    """The spikes of a population in this tick are known: whoever records them may read them now."""

    population: str
    spikes: str


@dataclass(frozen=True)
class Observe:
    """The beginning of a tick: whoever records variables may read them now."""


@dataclass(frozen=True)
class Forget:
    """A new trial begins: what was recorded of the last one may go."""


def is_state(variable: Variable) -> bool:
    """Whether a variable has a differential equation (a plastic one may)."""
    return variable.kind is VariableKind.DIFFERENTIAL


def draws(expression: str) -> bool:
    """Whether an expression draws random numbers."""
    return any(re.search(rf"\b{name}(_\w+)?\s*\(", expression) for name in DRAWS)


@dataclass
class Events:
    """Makes the steps of a tick.

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
        self.delays = {
            (name, side): self._delays(coupling, event)
            for name, coupling in self.circuit.couplings.items()
            for side, event in ((Side.PRE, coupling.spec.on_pre), (Side.POST, coupling.spec.on_post))
            if event is not None
        }
        for coupling in self.circuit.couplings.values():
            self._check(coupling)

    def _check(self, coupling: Coupling) -> None:
        spec = coupling.spec
        dynamic = spec.on_pre or spec.on_post or any(is_state(v) for v in spec.variables)
        if dynamic and isinstance(coupling.topology, Conv2d | Pool):
            raise BuildError(f"{spec.at}: {spec.name}: synapses with states or events may be dense, sparse or one_to_one")
        if spec.delay is not None and coupling.summed and not (spec.on_pre or spec.on_post):
            raise BuildError(f"{spec.at}: {spec.name}: a delay of a summed equation does not run yet; delay `on_pre`")
        for side, event in ((coupling.pre, spec.on_pre), (coupling.post, spec.on_post)):
            if event is not None and side.spec.threshold is None:
                raise BuildError(f"{spec.at}: {spec.name}: {side.name} has no threshold, so it emits no spikes")

    # Arrays

    def spikes(self, population: Population) -> Array:
        """1 where a unit spikes in this tick."""
        return Array(f"{population.name}.spike", population.spec.shape, Sharing.REPLICA)

    def history(self, population: Population) -> tuple[Array, int]:
        """The spikes of the last ticks, and how many ticks."""
        longest = [0]
        for (name, side), delays in self.delays.items():
            coupling = self.circuit.couplings[name]
            if population is (coupling.pre if side is Side.PRE else coupling.post):
                longest.append(int(delays.max(initial=0)))
        rows = 1 + max(longest)
        if rows == 1:
            return self.spikes(population), 1
        return Array(f"{population.name}.spike_history", (rows, *population.spec.shape), Sharing.REPLICA), rows

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
            if variable is not None and variable.role is Role.STORED and not draws(variable.expression):
                mapping = {n: n + suffix for n in own | words} if suffix else {}
                return substitute(_without_int(variable.expression), mapping)
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
            if own is not None and own.role is Role.STORED and not draws(own.expression):
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
        return Resolver(
            self.circuit.spec.parameters, {**self.constants, **sizes}, lookups, place, index=Index.SYNAPSE
        )

    # Groups

    def states(self) -> list[Step]:
        """State updates: of synapses, then of populations."""
        found = []
        for coupling in self.circuit.couplings.values():
            if any(is_state(v) and "event-driven" not in v.flags for v in coupling.spec.variables):
                found.append(self._synaptic_states(coupling))
        for population in self.circuit.populations.values():
            if population.spec.refractory is not None or any(is_state(v) for v in population.spec.variables):
                found.append(self._states(population))
        return found

    def _synaptic_states(self, coupling: Coupling) -> Step:
        resolver = self.coupling_resolver(coupling, "update")
        statements, writes = _run(
            _lines(integrate.coupling_code(self.circuit, coupling)), resolver, coupling.arrays, lambda name, text: text
        )
        kernel = Connections(resolver.place, statements, resolver.operands, writes, topology=coupling.topology)
        return Step(kernel)

    def _states(self, population: Population) -> Step:
        resolver = self.population_resolver(population, "update")
        lines = []
        arrays = {**population.arrays, "_refractory": self.refractory(population)}
        spec = population.spec
        if spec.refractory is not None:
            lines.append(("_refractory", self._refractoriness(spec.refractory)))
        if any(is_state(v) for v in spec.variables):
            lines += _lines(integrate.population_code(self.circuit, population))
        guarded = {v.name for v in spec.variables if "unless refractory" in v.flags and spec.refractory is not None}

        def guard(name: str, text: str) -> str:
            return f"where(_refractory < 0.5, {text}, {name})" if name in guarded else text

        statements, writes = _run(lines, resolver, arrays, guard)
        return Step(_elements(resolver, statements, writes, population.n))

    def _refractoriness(self, text: str) -> str:
        """Brian2's rule: a duration is counted in ticks; a condition can only prolong what a spike began."""
        if re.search(r"[<>=]|\b(and|or|not)\b", text):
            return f"_refractory*int({text})"
        return f"int({self.now} + {self.never} - _last_spike < timestep({text}, dt))"

    # Thresholds, resets

    def thresholds(self) -> list[Node]:
        """Who spikes."""
        found: list[Node] = []
        for population in self.circuit.populations.values():
            if population.spec.threshold is None:
                continue
            resolver = self.population_resolver(population, "threshold")
            condition = population.spec.threshold
            arrays = {"_spike": self.spikes(population)}
            lines = [("_spike", f"int({condition})")]
            if population.spec.refractory is not None:
                arrays |= {"_last_spike": self.last_spike(population), "_refractory": self.refractory(population)}
                lines = [
                    ("_spike", f"int(({condition}) and _refractory < 0.5)"),
                    ("_last_spike", f"where(_spike > 0.5, {self.now} + {self.never}, _last_spike)"),
                    ("_refractory", "where(_spike > 0.5, 1, _refractory)"),
                ]
            statements, writes = _run(lines, resolver, arrays, lambda name, text: text)
            found.append(Step(_elements(resolver, statements, writes, population.n)))
            found.append(Emit(population.name, arrays["_spike"].name))
            history, rows = self.history(population)
            if rows > 1:
                operands = {"_spike": Read(self.spikes(population), Index.ELEMENT)}
                name = f"{population.name}.remember"
                kernel = Remember(name, (), operands, {"history": history}, self.spikes(population), history, rows)
                found.append(Step(kernel))
        return found

    def counting(self, populations: Sequence[Population]) -> list[Step]:
        """Steps that count spikes."""
        found = []
        for population in populations:
            operands = {
                "count": Read(self.count(population), Index.ELEMENT),
                "spike": Read(self.spikes(population), Index.ELEMENT),
            }
            statements = (Statement("count", "count + spike"),)
            writes = {"count": self.count(population)}
            name = f"{population.name}.counting"
            found.append(
                Step(Elements(name, statements, operands, writes, n=population.n, sharing=Sharing.REPLICA))
            )
        return found

    def resets(self) -> list[Step]:
        """What a spike does to its own unit."""
        found = []
        for population in self.circuit.populations.values():
            if population.spec.threshold is None or not population.spec.reset:
                continue
            resolver = self.population_resolver(population, "reset")
            lines = [(s.target, s.value) for s in parse_statements(population.spec.reset)]

            def only_spiking(name: str, text: str, population=population) -> str:
                return f"where(_spike > 0.5, {text}, {name})" if name in population.arrays else text

            statements, writes = _run(lines, resolver, population.arrays, only_spiking)
            found.append(Step(_elements(resolver, statements, writes, population.n)))
        return found

    # Pathways

    def pathways(self) -> list[Step]:
        """What arriving spikes do: all `on_pre`, then all `on_post`."""
        found = []
        for side in Side:
            for coupling in self.circuit.couplings.values():
                event = coupling.spec.on_pre if side is Side.PRE else coupling.spec.on_post
                if event is not None:
                    found.append(self._pathway(coupling, event, side))
        return found

    def _pathway(self, coupling: Coupling, event: Event, side: Side) -> Step:
        resolver = self.coupling_resolver(coupling, f"on_{side.value}")
        lines: list[tuple[str, str, str]] = []
        event_driven = any("event-driven" in v.flags for v in coupling.spec.variables)
        if event_driven:
            code = integrate.coupling_code(self.circuit, coupling, event_driven=True)
            lines += [(target, "=", re.sub(r"\bdt\b", "_elapsed", text)) for target, text in _lines(code)]
        lines += [(s.target, s.operator, s.expression) for s in parse_statements(event.statements)]
        if event_driven:
            lines.append(("_last_update", "=", self.now))
        statements: list[EventStatement] = []
        writes: dict[str, Array] = {}
        guards: dict[str, str] = {}
        for target, operator, text in lines:
            expression = resolver.expression(_without_int(text))
            found = self.of_coupling(coupling)(target)
            if isinstance(found, Read):
                name = resolver.name(target)
                writes[name] = found.array
                guard = self._guard(coupling, target)
                if guard is not None:
                    guards[name] = resolver.name(guard)
            else:
                name = target
                if operator != "=":
                    expression, operator = f"{name} {operator[:-1]} ({expression})", "="
                resolver.local.add(target)
            statements.append(EventStatement(name, expression, operator))
        source = coupling.pre if side is Side.PRE else coupling.post
        history, rows = self.history(source)
        kernel = Pathway(
            resolver.place,
            tuple(statements),
            resolver.operands,
            writes,
            topology=coupling.topology,
            side=side,
            spikes=history,
            rows=rows,
            delays=self.delays[coupling.name, side],
            guards=guards,
        )
        return Step(kernel)

    @staticmethod
    def _guard(coupling: Coupling, target: str) -> str | None:
        if coupling.variable(target) is not None:
            return None
        for suffix, population in (("_pre", coupling.pre), ("_post", coupling.post), ("", coupling.post)):
            if target.endswith(suffix):
                variable = population.variable(target.removesuffix(suffix))
                if variable is not None:
                    guarded = "unless refractory" in variable.flags and population.spec.refractory is not None
                    return f"_refractory{suffix or '_post'}" if guarded else None
        return None

    def _delays(self, coupling: Coupling, event: Event) -> np.ndarray:
        """Delays in ticks, one for all synapses or one for each; random ones belong to the wiring, not to the seed."""
        if event.delay is None:
            return np.zeros(1, np.int64)
        from mgdcircuits.codegen.wiring import synaptic_values

        positions = {"i": Position(Index.PRE), "j": Position(Index.POST)}
        place = f"{coupling.name}/delay"
        resolver = Resolver(self.circuit.spec.parameters, self.constants, [positions.get], place, Scope.INITIAL)
        seconds = synaptic_values(resolver, event.delay, coupling.topology, self.circuit.spec.parameters)
        ticks = np.round(seconds / self.dt).astype(np.int64)
        if ticks.min(initial=0) < 0:
            raise BuildError(f"{coupling.spec.at}: {coupling.name}: a delay is negative")
        return ticks


def _lines(code: str) -> list[tuple[str, str]]:
    """Abstract code as (target, expression)."""
    found = []
    for line in code.splitlines():
        target, separator, text = line.partition(" = ")
        if separator:
            found.append((target.strip(), _without_int(text)))
    return found


def _without_int(text: str) -> str:
    """``int(not_refractory)`` as a number, which it is already."""
    return re.sub(r"\bint\(not_refractory(\w*)\)", r"(1 - _refractory\1)", text)


def _run(lines, resolver: Resolver, arrays: Mapping[str, Array], wrap):
    """Statements and written arrays of (target, expression) pairs; targets that are no array are local."""
    statements, writes = [], {}
    for target, text in lines:
        if target in arrays:
            expression = resolver.expression(wrap(target, text))
            name = resolver.name(target)
            writes[name] = arrays[target]
            statements.append(Statement(name, expression))
        else:
            statements.append(Statement(target, resolver.expression(text)))
            resolver.local.add(target)
    return tuple(statements), writes


def _elements(resolver: Resolver, statements, writes, n: int) -> Elements:
    return Elements(resolver.place, statements, resolver.operands, writes, n=n, sharing=Sharing.REPLICA)
