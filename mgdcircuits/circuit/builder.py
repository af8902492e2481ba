"""From a circuit to its program: the phases of an iteration, an evaluation, a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mgdcircuits.circuit import forward, gradient
from mgdcircuits.circuit.circuit import Circuit, replica_scalar
from mgdcircuits.circuit.clocks import Clocks, resolve
from mgdcircuits.circuit.cost import LABEL, TARGET, CostSteps, cost_steps, task_arrays
from mgdcircuits.circuit.energy import energy_steps, is_counted
from mgdcircuits.circuit.kept import keep, measures
from mgdcircuits.circuit.learning import System
from mgdcircuits.circuit.measuring import noise_steps, quiet_cost
from mgdcircuits.circuit.operands import Lookup, Resolver
from mgdcircuits.circuit.program import (
    Array,
    Between,
    Clear,
    Copy,
    Count,
    Every,
    Index,
    Node,
    Operand,
    Position,
    Program,
    Read,
    Sample,
    Scope,
    Step,
    Ticks,
    draws_in,
    steps,
)
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.snippets import parse_call
from mgdcircuits.netlist.spec import Role

X = Array("x", (1,), sharing=replica_scalar("x").sharing)


@dataclass
class Builder:
    """Holds what the phases share while they are made."""

    circuit: Circuit
    clocks: Clocks
    batched: bool = True

    def __post_init__(self) -> None:
        self.constants = {k: v for k, v in self.clocks.seconds.items() if k != "iteration"}
        if self.clocks.dt is not None:
            self.constants["dt"] = self.clocks.dt
        forward.refuse_dynamic_synapses(self.circuit)
        self.forward, extra = forward.evaluation_steps(self.circuit, self.constants)
        self.energy: list[Step] = []  # of a tick of an evaluation; of a memoryless circuit, of all of it
        if is_counted(self.circuit, self.clocks):
            self.energy = energy_steps(self.circuit, self.constants, 1.0 / self.clocks.ticks)
        self.updates = forward.update_steps(self.circuit, self.constants)
        self.arrays: dict[str, Array] = {a.name: a for _, _, a in self.circuit.variables.values()}
        for array in (*extra, *task_arrays(self.circuit).values()):
            self.arrays[array.name] = array

    def build(self) -> Program:
        """The program.

        Raises
        ------
        BuildError
            What the circuit asks for and no target can run.
        """
        iteration: list[Node] = []
        parameters: dict[str, float] = {"period_x": float(self.clocks.period_x), "iteration": self.clocks.iteration}
        for name, value in self.circuit.spec.parameters.items():
            if not isinstance(value, str):
                parameters[name] = float(value)
        if self.circuit.spec.task is not None:
            iteration.append(Every("period_x", 0, (self.sample(),)))
        trained: dict[str, str] = {}
        for spec in self.circuit.spec.learning:
            for site in spec.sites:
                if trained.setdefault(site.parameter, spec.name) != spec.name:
                    raise BuildError(
                        f"{spec.at}: {site.parameter} is trained by {trained[site.parameter]} and by {spec.name}; "
                        "one learning system a parameter: name what each trains under `plastic`"
                    )
            parameters[f"period_{spec.name}"] = float(self.clocks.periods[spec.name])
            if spec.name in self.clocks.holds:
                parameters[f"hold.{spec.name}"] = float(self.clocks.holds[spec.name])
            system = System(self.circuit, spec, self.constants, self.batched)
            iteration += self.learn(system)
            self.arrays |= system.arrays
        iteration.append(Count("n_p"))
        evaluate, cost = self.evaluate()
        back: list[Node] = []
        per_sample: list[Node] = []
        constants: dict[str, Any] = dict(self.constants)
        if cost is not None and not self.updates and gradient.is_possible(self.circuit):
            try:
                back = gradient.steps(self.circuit, self.forward, cost, self.constants, per_sample=False)
                per_sample = gradient.steps(self.circuit, self.forward, cost, self.constants, per_sample=True)
            except BuildError as refusal:  # learning needs no gradient: whoever asks for it is told why there is none
                back, per_sample, constants["gradient_refusal"] = [], [], str(refusal)
        phases = (tuple(iteration), tuple(evaluate), tuple(back), tuple(per_sample))
        for phase in phases:
            self._register(phase)
        return Program(tuple(self.arrays.values()), parameters, *phases, constants=constants)

    def _register(self, nodes: Iterable[Node]) -> None:
        """Add the arrays that only steps mention."""
        for step in steps(nodes):
            read = [o.array for o in step.kernel.operands.values() if isinstance(o, Read)]
            for array in (*step.kernel.writes.values(), *read):
                name = step.rename.get(array.name, array.name)
                self.arrays.setdefault(name, replace(array, name=name))

    # Presenting samples

    def sample(self) -> Step:
        """The step that draws samples and presents them."""
        task = self.circuit.spec.task
        assert task is not None
        arrays = task_arrays(self.circuit)
        text, is_label = "", False
        if task.target is not None:
            levels = onehot_levels(task.target)
            is_label = levels is not None
            text = "{1} + ({0} - ({1}))*int(y == i)".format(*levels) if levels else task.target
        inputs, shown = [], []
        for (population, variable), expression in self.circuit.inputs.items():
            array, place = self.circuit.populations[population].arrays[variable], f"{population}.{variable}"
            read = expressions.names(expression)
            if TARGET not in read:
                inputs.append((array, *self._presented(expression, place)))
                continue
            if "x" in read or array.n != arrays[TARGET].n:
                raise BuildError(
                    f"{self.circuit.spec.file}: `{variable}_{population}: {expression}` shows the target to {array.n} units; "
                    f"expected an expression of the target alone, for a population of {arrays[TARGET].n}"
                )
            shown.append((array, *self._presented(expressions.substitute(expression, {TARGET: text}), place), is_label))
        target = (arrays[TARGET], *self._presented(text, TARGET), is_label) if TARGET in arrays else None
        label = arrays.get(LABEL, replica_scalar(LABEL))
        kernel = Sample("sample", (), {}, {}, tuple(inputs), target, label, task.sampling.value, tuple(shown))
        return Step(kernel)

    def _presented(self, expression: str, place: str):
        x: dict[str, Operand] = {"x": Read(X, Index.ELEMENT), "y": Read(X, Index.ELEMENT), "i": Position()}
        resolver = Resolver(self.circuit.spec.parameters, self.constants, [x.get], f"task/{place}", Scope.PERIOD)
        return resolver.expression(expression), resolver.operands

    # One evaluation

    def perturbed(self, active: frozenset[str], factor: float, suffix: str) -> list[Step]:
        """The steps that a perturbation changes, writing into arrays of their own."""
        affected: set[str] = set()
        chosen = []
        for step in self.forward:
            kernel = step.kernel
            if kernel.perturbations() & active or kernel.reads() & affected or draws_in(kernel, Scope.PASS):
                written = {a.name for a in step.kernel.writes.values()}
                rename = {n: f"{n}@{suffix}" for n in (step.kernel.reads() & affected) | written}
                affected |= written
                chosen.append(Step(step.kernel, rename, active, factor))
        return chosen

    def results(self, system: System, name: str) -> list[Node]:
        """The cost of a pass, and its measures, into per-replica scalars."""
        renamed, nodes = system.passes[name], list[Node]()
        for word, expression in self._quantities(system, name):
            result = system.scalar(f"{word}.{name}").name
            also = self._results_of(system, name)
            made = cost_steps(self.circuit, expression, result, self.constants, also=also, site=word)
            nodes += [replace(s, rename={n: renamed[n] for n in s.kernel.reads() if n in renamed}) for s in made.steps]
        return nodes + noise_steps(system, name)

    def _quantities(self, system: System, name: str) -> list[tuple[str, str]]:
        """What is evaluated of a pass: the cost, and the measures that somebody reads."""
        cost = self.circuit.spec.cost
        if cost is None:
            raise BuildError(f"{self.circuit.spec.file}: learning needs a cost: `cost: {{C: ...}}`")
        wanted = measures(self.circuit, self.clocks, system.spec, name)
        quiet = quiet_cost(self.circuit)
        return [(cost.name, cost.expression), *([quiet] if quiet else []), *((m.name, m.expression) for m in wanted)]

    def _results_of(self, system: System, name: str) -> Lookup:
        """The cost and the measures of a pass by their own names, which a later measure may read."""
        words = {word for word, _ in self._quantities(system, name)}
        return lambda word: Read(system.scalar(f"{word}.{name}"), Index.ZERO) if word in words else None

    def _evaluated(
        self, system: System, name: str, block: int = 0, active: frozenset[str] = frozenset(), factor: float = 0.0
    ) -> list[Node]:
        """What follows an evaluation: its values are kept where `record` asks for them, and it is counted."""
        renamed = system.passes[name]
        kept = keep(self.circuit, self.clocks, system.spec, name, block, renamed, active, factor)
        energy: list[Step] = []
        if not self.updates:
            for s in self.energy:
                rename = {n: renamed[n] for n in s.kernel.reads() if n in renamed}
                energy.append(replace(s, rename=rename, active=active, factor=factor))
        return [*kept, *energy, Count("evaluation")]

    def _blocks(self, system: System) -> list[frozenset[str]]:
        """The perturbations of each block; one block of none where nothing is perturbed."""
        spec = system.spec
        if spec.baseline_per is not None:
            raise BuildError(
                f"{spec.at}: a baseline `per: {spec.baseline_per}` runs in circuits with trials so far; leave `per` out"
            )
        blocks = spec.perturb.blocks if spec.perturb else ((),)
        return [frozenset(self.circuit.variables[n][2].name for n in b) for b in blocks]

    def learn(self, system: System) -> list[Node]:
        """One iteration of a learning system."""
        if self.updates:
            return self._learn_continuous(system)
        nodes: list[Node] = []
        spec, blocks = system.spec, self._blocks(system)
        unperturbed = [name for name, factor in spec.passes if factor == 0]
        if unperturbed:
            nodes += self.forward
            for name in unperturbed:
                system.passes[name] = {}
                nodes += self.results(system, name)
                nodes += self._evaluated(system, name)
        else:
            nodes += self._needed_unperturbed(blocks)
        for number, active in enumerate(blocks):
            nodes += system.draw(number)
            for name, factor in spec.passes:
                if factor == 0:
                    continue
                suffix = name if self._reads_pass(system, name) else "perturbed"
                perturbed = self.perturbed(active, factor, suffix)
                system.passes[name] = {k: v for s in perturbed for k, v in s.rename.items()}
                nodes += perturbed
                nodes += self.results(system, name)
                nodes += self._evaluated(system, name, number, active, factor)
            nodes += self._after_passes(system, number)
        nodes.append(system.updates())
        return nodes

    def _after_passes(self, system: System, block: int) -> list[Node]:
        nodes = system.scalars(system.spec.signals, block, "signals")
        for site in system.spec.sites:
            if max(site.block, 0) == block:
                nodes += system.estimate(site)
        return nodes + system.scalars(system.spec.baseline, block, "baseline")

    def _needed_unperturbed(self, blocks: Sequence[frozenset[str]]) -> list[Step]:
        """Steps that some block leaves unchanged, where no pass is without perturbation."""
        always = None
        for active in blocks:
            changed = {s.kernel.name for s in self.perturbed(active, 1.0, "perturbed")}
            always = changed if always is None else always & changed
        return [s for s in self.forward if s.kernel.name not in (always or set())]

    @staticmethod
    def _reads_pass(system: System, name: str) -> bool:
        """Whether an estimate reads a variable (not the cost) of the pass; then the pass keeps arrays of its own."""
        return any(f"_pre.{name}" in s.estimate or f"_post.{name}" in s.estimate for s in system.spec.sites)

    def _learn_continuous(self, system: System) -> list[Node]:
        nodes: list[Node] = []
        spec, active = system.spec, self._blocks(system)
        for name, factor in spec.passes:
            if factor == 0:
                nodes += self._dynamic_pass(system, name)
                nodes += self._evaluated(system, name)
        for number, names in enumerate(active):
            nodes += system.draw(number)
            for name, factor in spec.passes:
                if factor:
                    nodes += self._dynamic_pass(system, name, names, factor)
                    nodes += self._evaluated(system, name, number, names, factor)
            nodes += self._after_passes(system, number)
        nodes.append(system.updates())
        return nodes

    def _dynamic_pass(
        self, system: System, name: str, active: frozenset[str] = frozenset(), factor: float = 0.0
    ) -> list[Node]:
        """One evaluation of a learning system, with its cost, its measures and the states that its estimate reads."""
        system.passes[name] = {}
        words = [(system.scalar(f"{w}.{name}").name, w, text) for w, text in self._quantities(system, name)]
        energy = [replace(s, active=active, factor=factor) for s in self.energy]
        nodes = self.dynamic_pass(active, factor, words, self._results_of(system, name), energy)
        nodes += noise_steps(system, name)
        if self._reads_pass(system, name):
            for population in self.circuit.populations.values():
                for variable in population.spec.variables:
                    if variable.role in (Role.STORED, Role.STATE):
                        source = population.arrays[variable.name]
                        kept = replace(source, name=f"{source.name}@{name}")
                        self.arrays[kept.name] = kept
                        system.passes[name][source.name] = kept.name
                        nodes.append(Copy(source.name, kept.name))
        return nodes

    def dynamic_pass(
        self,
        active: frozenset[str],
        factor: float,
        quantities: Sequence[tuple[str, str, str]],
        also: Lookup | None = None,
        energy: Sequence[Step] = (),
    ) -> list[Node]:
        """One evaluation of a circuit with dynamics: `ticks` integration steps; states carry over.

        `quantities` are (array of the result, name, expression): averaged over the window of the cost, but those that
        read another quantity, which are evaluated from it afterwards.
        """
        evaluate: list[Node] = [replace(s, active=active, factor=factor) for s in self.forward]
        update: list[Node] = [replace(s, active=active, factor=factor) for s in self.updates]
        first, last = self.window() if quantities else (0, 1)
        words = {word for _, word, _ in quantities}
        before, inside, after = list[Node](), list[Node](), list[Node]()
        for result, word, expression in quantities:
            late = bool(expressions.names(expression) & words)
            weight = None if late else 1.0 / (last - first)
            steps = cost_steps(self.circuit, expression, result, self.constants, weight, also, site=word).steps
            (after if late else inside).extend(steps)
            before += [] if late else [Clear(result)]
            self.arrays[result] = replica_scalar(result)
        measure = [Between(first, last, tuple(inside))] if inside else []
        return [*before, Ticks(self.clocks.ticks, (*evaluate, *measure, *energy, *update)), *after]

    def window(self) -> tuple[int, int]:
        """Ticks of an evaluation over which the cost is averaged."""
        cost = self.circuit.spec.cost
        assert cost is not None
        if cost.over is None:
            return self.clocks.ticks - 1, self.clocks.ticks
        assert self.clocks.dt is not None
        first, last = (round(t / self.clocks.dt) for t in cost.over)
        if not 0 <= first < last <= self.clocks.ticks:
            raise BuildError(
                f"{cost.at}: the cost is averaged over ticks {first} to {last}, but an evaluation (tau_p = "
                f"{self.clocks.tau_p:g} s) has {self.clocks.ticks} of dt = {self.clocks.dt:g} s"
            )
        return first, last

    # Evaluation of pinned data

    def evaluate(self) -> tuple[list[Node], CostSteps | None]:
        """An unperturbed evaluation with cost and accuracy."""
        spec = self.circuit.spec
        cost, made = spec.cost, None
        if cost is not None:
            made = cost_steps(self.circuit, cost.expression, "cost", self.constants)
        nodes: list[Node] = []
        if self.updates:
            nodes += self.dynamic_pass(frozenset(), 0.0, [("cost", cost.name, cost.expression)] if cost else [])
            nodes += self.forward
        else:
            nodes += self.forward
            nodes += made.steps if made else ()
        if spec.task is not None and spec.task.accuracy:
            nodes += cost_steps(self.circuit, spec.task.accuracy, "accuracy", self.constants).steps
        return nodes, made


def onehot_levels(text: str) -> tuple[str, str] | None:
    """The levels (on, off) of a target ``onehot(y, on, off)``, or None for another expression."""
    if not text.startswith("onehot("):
        return None
    call = parse_call(text)
    given = dict(zip(("y", "on", "off"), call.arguments, strict=False)) | dict(call.keywords)
    return f"({given.get('on', '1')})", f"({given.get('off', '0')})"


def build(circuit: Circuit, batched: bool = True) -> tuple[Program, Clocks]:
    """The program of a circuit and its clocks.

    With `batched` what samples differ in is averaged before an estimate is formed for every synapse, where that can be. Without
    it the program is the rule as a chip follows it, one sample after another.
    """
    clocks = resolve(circuit)
    if circuit.is_spiking or circuit.spec.trial is not None:
        from mgdcircuits.circuit.trials import TrialBuilder

        return TrialBuilder(circuit, clocks, batched).build(), clocks
    return Builder(circuit, clocks, batched).build(), clocks
