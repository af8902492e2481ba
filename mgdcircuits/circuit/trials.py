"""From a spiking circuit, or a circuit with trials, to its program.

Without a trial an iteration is one tick of time. With one, an iteration is a trial: its phases one after another, what
they set at their beginning and measure at their end; a phase written ``after`` is a pause before an event, so it sets
and measures at its end. Learning happens in the phase that `update: at` names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mgdcircuits.circuit import forward
from mgdcircuits.circuit.builder import Builder, X
from mgdcircuits.circuit.circuit import Population, replica_scalar
from mgdcircuits.circuit.clocks import multiple, runs_freely, value_of
from mgdcircuits.circuit.cost import LABEL, TARGET, cost_steps, task_arrays
from mgdcircuits.circuit.event_kernels import Forget, Observe
from mgdcircuits.circuit.events import Events
from mgdcircuits.circuit.learning import System
from mgdcircuits.circuit.measures import count_word, sample_numbers, without_slices
from mgdcircuits.circuit.operands import Lookup, Resolver
from mgdcircuits.circuit.program import (
    Array,
    Between,
    Clear,
    Count,
    Elements,
    Every,
    Index,
    Node,
    Operand,
    Position,
    Precision,
    Program,
    Read,
    Reduction,
    Sample,
    Scope,
    Statement,
    Step,
    Ticks,
)
from mgdcircuits.circuit.stimuli import MAX_STIMULI, STIMULUS
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.spec import Phase, Role, Sharing

GRADIENT_REFUSAL = "spikes have no gradient; use finite differences of the expected cost, with common random numbers"


@dataclass
class TrialSystem(System):
    """A learning system whose rule reads what the phases measure."""

    measures: frozenset[str] = frozenset()

    def pass_lookup(self, name: str):
        """A measure, or the cost of the trial."""
        if name in self.measures:
            return Read(replica_scalar(name), Index.ZERO)
        return super().pass_lookup(name)


@dataclass
class TrialBuilder(Builder):
    """Makes the program of a circuit with spikes or trials."""

    active: frozenset[str] = frozenset()  # perturbed arrays of the trial that is being made
    factor: float = 0.0

    def __post_init__(self) -> None:
        self.constants = {k: v for k, v in self.clocks.seconds.items() if k != "iteration"}
        assert self.clocks.dt is not None, "a circuit with spikes has a time step"
        self.dt = self.constants["dt"] = self.clocks.dt
        self.forward, extra = forward.evaluation_steps(self.circuit, self.constants)
        self.events = Events(self.circuit, self.constants, self.clocks.ticks)
        self.updates = self.events.states()
        self.arrays: dict[str, Array] = {a.name: a for _, _, a in self.circuit.variables.values()}
        for array in (*extra, *task_arrays(self.circuit).values()):
            self.arrays[array.name] = array
        if self.circuit.spec.task is not None:
            self.arrays[LABEL] = replica_scalar(LABEL)
        trial = self.circuit.spec.trial
        self.phases: tuple[Phase, ...] = trial.phases if trial else ()
        self.measures = frozenset(m.name for p in self.phases for m in p.measure)
        task = self.circuit.spec.task
        # what may read the sample, and the numbers of it that are read: x[0], x[1], ...
        self.texts = [t for p in self.phases for t in (*p.set.values(), *(m.expression for m in p.measure))]
        self.texts += [task.accuracy] if task and task.accuracy else []
        self.numbers = {n for t in self.texts for n in sample_numbers(t)}

    def build(self) -> Program:
        """The program.

        Raises
        ------
        BuildError
            What the circuit asks for and no target can run.
        """
        spec = self.circuit.spec
        parameters: dict[str, float] = {"period_x": float(self.clocks.period_x), "iteration": self.clocks.iteration}
        parameters |= {n: float(v) for n, v in spec.parameters.items() if not isinstance(v, str)}
        parameters |= {f"period_{s.name}": float(self.clocks.periods[s.name]) for s in spec.learning}
        if runs_freely(self.circuit):
            iteration: list[Node] = self.tick()
            evaluate: list[Node] = list(self.forward)
        elif spec.trial is None:
            raise BuildError(
                f"{spec.file}: a spiking circuit learns in trials; write `trial:` with its phases and "
                "`update: {request: ..., at: PHASE}`"
            )
        else:
            systems = [
                TrialSystem(self.circuit, s, self.constants, self.batched, measures=self.measures)
                for s in spec.learning
            ]
            iteration = [Forget(), *self.trial(systems)]
            for system in systems:
                self.arrays |= system.arrays
            evaluate = [*self._sample_numbers(), *self.trial([]), *self._results()]
            if spec.task is not None:
                iteration = [Every("period_x", 0, (*self._sampling(),)), *iteration]
        iteration.append(Count("n_p"))
        phases = (tuple(iteration), tuple(evaluate), (), ())
        for phase in phases:
            self._register(phase)
        constants = {**self.constants, "gradient_refusal": GRADIENT_REFUSAL}
        return Program(tuple(self.arrays.values()), parameters, *phases, constants=constants)

    # One tick

    def tick(self, counted: Iterable[Population] = ()) -> list[Node]:
        """The steps of a tick in Brian2's order."""
        nodes: list[Node] = [
            Observe(),
            *self.forward,
            *self.updates,
            *self.events.thresholds(),
            *self.events.counting(list(counted)),
            *self.events.pathways(),
            *self.events.resets(),
        ]
        return self._perturbed(nodes)

    def _perturbed(self, nodes: Iterable[Node]) -> list[Node]:
        return [replace(n, active=self.active, factor=self.factor) if isinstance(n, Step) else n for n in nodes]

    # One trial

    def trial(self, systems: list[TrialSystem]) -> list[Node]:
        """Reset, phases, learning; without systems nothing is perturbed and nothing learned."""
        before, inside, after = self._resets(), list[Node](), list[Node]()
        active: set[str] = set()
        factor = 0.0
        for system in systems:
            if system.spec.perturb is None:
                continue
            named = {n for block in system.spec.perturb.blocks for n in block}
            active |= {self.circuit.variables[n][2].name for n in named}
            factor = next((f for _, f in system.spec.passes if f), 0.0)
            draws = [s for number in range(len(system.spec.perturb.blocks)) for s in system.draw(number)]
            inside.append(Between(0, self.clocks.ticks, tuple(draws), self._hold(system)))
        self.active, self.factor = frozenset(active), factor
        counted = self._counted()
        tick = 0
        for phase in self.phases:
            length = self._ticks(phase)
            clear: list[Node] = [Clear(self.events.count(p).name) for p in counted]
            first, last = tick, tick + length
            event: list[Node] = [*self._measures(phase), *self._learning(phase, systems)]
            if phase.after:
                event = [*self._set(phase), *event]
                start = clear
            else:
                start = [*clear, *self._set(phase)]
            if length == 0:
                event, start = [*start, *event], []
            if start:
                inside.append(Between(first, first + 1, tuple(start)))
            if last == 0:
                before += event
            elif event:
                after.append(Between(last - 1, last, tuple(event)))
            tick = last
        body = (*inside, *self.tick(counted), *after)
        ending = [n for s in systems if s.spec.update_at is None for n in self._rule(s)]
        return [*before, Ticks(self.clocks.ticks, body), *ending]

    def _ticks(self, phase: Phase) -> int:
        seconds = self._evaluate(phase.duration)
        return multiple(seconds, self.dt, f"the phase {phase.name}", "dt") if seconds > 0 else 0

    def _hold(self, system: TrialSystem) -> int:
        assert system.spec.perturb is not None
        every = self._evaluate(system.spec.perturb.every)
        return multiple(every, self.dt, f"the perturbation of {system.spec.name}", "dt")

    def _evaluate(self, text: str) -> float:
        return value_of(self.circuit, self.clocks, text)

    def _resets(self) -> list[Node]:
        """Back to the initial values; random ones are drawn anew for each trial."""
        found: list[Node] = []
        trial = self.circuit.spec.trial
        for name in trial.reset if trial else ():
            owner, variable, array = self.circuit.variables[name]
            constants = {**self.constants, "N": array.n}
            if hasattr(owner, "topology"):
                constants |= {"fan_in": owner.topology.fan_in, "fan_out": owner.topology.fan_out}
            lookups = [{"i": Position()}.get]
            place = f"{name}/reset"
            resolver = Resolver(self.circuit.spec.parameters, constants, lookups, place, Scope.PERIOD)
            statement = Statement("_value", resolver.expression(variable.initial or "0"))
            kernel = Elements(
                place, (statement,), resolver.operands, {"_value": array}, n=array.n, sharing=variable.sharing
            )
            found.append(Step(kernel))
        return found

    # Samples

    def _sampling(self) -> list[Node]:
        """Show a sample: its inputs, its label, the numbers of it that phases and measures read."""
        step = self.sample()
        sample = self._sample_array()
        if sample is None:
            return [step]
        kernel = step.kernel
        assert isinstance(kernel, Sample)
        resolver = Resolver({}, {}, [{"x": Read(X, Index.ELEMENT)}.get], "task/x")
        inputs = (*kernel.inputs, (sample, resolver.expression("x"), resolver.operands))
        self.arrays[sample.name] = sample
        return [Step(replace(kernel, inputs=inputs)), *self._sample_numbers()]

    def _sample_numbers(self) -> list[Node]:
        """The numbers of the presented sample that phases and measures read: x[0], x[1], ..."""
        found: list[Node] = []
        for number in sorted(self.numbers):
            made = cost_steps(
                self.circuit, f"sum(x*int(i == {number}))", f"x__{number}", self.constants, also=self._word
            )
            found += made.steps
        return found

    def _sample_array(self) -> Array | None:
        """The sample as the phases read it."""
        read = self.numbers or any("x" in expressions.names(t) for t in self.texts)
        if self.circuit.spec.task is None or not read:
            return None
        return Array("x", self.circuit.input_shape, Sharing.REPLICA)

    def _word(self, name: str):
        """Words of a trial: the sample `x` and its numbers, the label, what was measured before."""
        if name.startswith("x__") and name[3:].isdigit():
            return Read(replica_scalar(name), Index.ZERO)
        sample = self._sample_array() if name == "x" else None
        if sample is not None:
            return Read(sample, Index.ELEMENT)
        if name == LABEL and LABEL in self.arrays:
            return Read(self.arrays[LABEL], Index.ZERO)
        if name == TARGET and TARGET in self.arrays:
            return Read(self.arrays[TARGET], Index.ELEMENT)
        if name in self.measures:
            return Read(replica_scalar(name), Index.ZERO)
        for population in self.circuit.populations.values():
            if name == count_word(population):
                return Read(self.events.count(population), Index.ELEMENT)
        return None

    # Phases

    def _set(self, phase: Phase) -> list[Node]:
        found: list[Node] = []
        for name, text in phase.set.items():
            _, variable, array = self.circuit.variables[name]
            words = {"i": Position()}
            place = f"{phase.name}/{name}"
            lookups: list[Lookup] = [words.get, self._word]
            resolver = Resolver(
                self.circuit.spec.parameters, {**self.constants, "N": array.n}, lookups, place, Scope.PERIOD
            )
            statement = Statement("_value", resolver.expression(without_slices(self.circuit, text)))
            kernel = Elements(
                place, (statement,), resolver.operands, {"_value": array}, n=array.n, sharing=variable.sharing
            )
            found.append(Step(kernel))
        return found

    def _counted(self) -> list[Population]:
        """Populations whose spikes some phase counts."""
        texts = [without_slices(self.circuit, m.expression) for p in self.phases for m in p.measure]
        read = {name for text in texts for name in expressions.names(text)}
        return [p for p in self.circuit.populations.values() if count_word(p) in read]

    def _measures(self, phase: Phase) -> list[Node]:
        found: list[Node] = []
        for m in phase.measure:
            found += self._measure(m.expression, m.name)
        return found

    def _measure(self, text: str, result: str) -> list[Node]:
        made = cost_steps(self.circuit, text, result, self.constants, also=self._word)
        reads = {name for s in made.steps for name in s.kernel.reads()}
        stored = {a.name for _, v, a in self.circuit.variables.values() if v.role in (Role.STORED, Role.TARGET)}
        return [*(self._perturbed(self.forward) if reads & stored else ()), *made.steps]

    # Learning

    def _learning(self, phase: Phase, systems: list[TrialSystem]) -> list[Node]:
        return [n for s in systems if s.spec.update_at == phase.name for n in self._rule(s)]

    def _rule(self, system: TrialSystem) -> list[Node]:
        """Cost, signals, estimates, baselines, updates of a system, once a trial."""
        nodes: list[Node] = []
        cost = self.circuit.spec.cost
        if cost is not None:
            for name, _ in system.spec.passes:
                nodes += self._measure(cost.expression, system.scalar(f"{cost.name}.{name}").name)
        blocks = sorted({max(s.block, 0) for s in system.spec.sites} or {0})
        for block in blocks:
            nodes += self._recall(system, block)
            nodes += system.scalars(system.spec.signals, block, "signals")
            for site in system.spec.sites:
                if max(site.block, 0) == block:
                    nodes += system.estimate(site)
            nodes += system.scalars(system.spec.baseline, block, "baseline")
            nodes += self._keep_baselines(system, block)
        nodes.append(system.updates())
        return nodes

    def _baselines(self, system: TrialSystem, block: int) -> list[tuple[Array, Array]]:
        """(value of this stimulus, table of all) of each baseline kept per stimulus."""
        if system.spec.baseline_per is None:
            return []
        if system.spec.baseline_per != STIMULUS:
            per = system.spec.baseline_per
            raise BuildError(f"{system.spec.at}: a baseline is kept `per: {STIMULUS}`, not `per: {per}`")
        self.arrays[STIMULUS] = replica_scalar(STIMULUS)
        found = []
        for a in system.spec.baseline:
            scalar = system.scalar(f"{a.name}@{block}")
            table = Array(f"{scalar.name}@{STIMULUS}", (MAX_STIMULI,), Sharing.REPLICA, Precision.DOUBLE)
            found.append((scalar, system.array(table)))
        return found

    def _recall(self, system: TrialSystem, block: int) -> list[Node]:
        found: list[Node] = []
        for scalar, table in self._baselines(system, block):
            operands: dict[str, Operand] = {
                "table": Read(table, Index.ELEMENT),
                "stimulus": Read(self.arrays[STIMULUS], Index.ZERO),
                "i": Position(),
            }
            statement = Statement("result", "where(i == stimulus, table, 0)")
            name = f"{scalar.name}/recall"
            kernel = Reduction(name, (statement,), operands, {"result": scalar}, n=table.n, operation="sum")
            found.append(Step(kernel))
        return found

    def _keep_baselines(self, system: TrialSystem, block: int) -> list[Node]:
        found: list[Node] = []
        for scalar, table in self._baselines(system, block):
            operands: dict[str, Operand] = {
                "table": Read(table, Index.ELEMENT),
                "value": Read(scalar, Index.ZERO),
                "stimulus": Read(self.arrays[STIMULUS], Index.ZERO),
                "i": Position(),
            }
            statement = Statement("table", "where(i == stimulus, value, table)")
            kernel = Elements(
                f"{scalar.name}/keep",
                (statement,),
                operands,
                {"table": table},
                n=table.n,
                sharing=Sharing.REPLICA,
                precision=Precision.DOUBLE,
            )
            found.append(Step(kernel))
        return found

    # Evaluation on request

    def _results(self) -> list[Node]:
        spec = self.circuit.spec
        found: list[Node] = []
        if spec.cost is not None:
            found += self._measure(spec.cost.expression, "cost")
        if spec.task is not None and spec.task.accuracy:
            found += self._measure(spec.task.accuracy, "accuracy")
        return found
