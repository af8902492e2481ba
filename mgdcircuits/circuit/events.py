"""The steps of one tick of a circuit with spikes, in the order of Brian2's default schedule.

A tick is: ``start`` (what is watched), ``groups`` (summed variables, then states), ``thresholds``, ``synapses``
(pathways of pre-synaptic spikes, then those of post-synaptic ones), ``resets``. The states of synapses are updated
before those of populations, so that both read the values of the beginning of the tick; Brian2 leaves this order to the
names of objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgdcircuits.circuit import integrate
from mgdcircuits.circuit.circuit import Coupling, Population
from mgdcircuits.circuit.event_kernels import Connections, Emit, EventStatement, Pathway, Remember, Side
from mgdcircuits.circuit.event_names import Names, is_state, without_int
from mgdcircuits.circuit.operands import Resolver
from mgdcircuits.circuit.program import Array, Elements, Index, Node, Position, Read, Scope, Statement, Step
from mgdcircuits.circuit.topology import Conv2d, Pool
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Event, Sharing
from mgdcircuits.netlist.statements import parse_statements


@dataclass
class Events(Names):
    """Makes the steps of a tick; see `Names` for its parameters."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
            raise BuildError(f"{spec.at}: {spec.name}: synapses with states or events are dense, sparse or one_to_one")
        if spec.delay is not None and coupling.summed and not (spec.on_pre or spec.on_post):
            raise BuildError(f"{spec.at}: {spec.name}: a delay of a summed equation does not run yet; delay `on_pre`")
        for side, event in ((coupling.pre, spec.on_pre), (coupling.post, spec.on_post)):
            if event is not None and side.spec.threshold is None:
                raise BuildError(f"{spec.at}: {spec.name}: {side.name} has no threshold, so it emits no spikes")

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
            found.append(Step(Elements(name, statements, operands, writes, n=population.n, sharing=Sharing.REPLICA)))
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
            expression = resolver.expression(without_int(text))
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
            found.append((target.strip(), without_int(text)))
    return found


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
