"""The steps of learning: draw codes, evaluate passes, signals, estimate, accumulate, update, write.

Everything that depends on when an update falls or how long a code is held is a runtime number, so a new clock needs no
compilation: the words `n_x`, `n_theta`, `n_G` and `new_x` are expressions of the iteration count `n_p` and of the periods,
which are parameters. A code that is held is drawn again in every iteration, with the count of its draw, so nothing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mgdcircuits.circuit.batch_means import BatchMeans
from mgdcircuits.circuit.circuit import Circuit, Coupling, Population, replica_scalar
from mgdcircuits.circuit.hardware import perturbed_parameter, switches
from mgdcircuits.circuit.operands import Resolver
from mgdcircuits.circuit.outcomes import COUNTERS, has_outcomes, with_outcomes
from mgdcircuits.circuit.program import (
    Array,
    Couple,
    Elements,
    Every,
    Fold,
    Index,
    Into,
    Literal,
    Node,
    Position,
    Precision,
    Random,
    Read,
    Scope,
    Statement,
    Step,
)
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.expressions import names
from mgdcircuits.netlist.spec import Assignment, LearningSpec, Sharing, Site, Variable
from mgdcircuits.netlist.statements import parse_statements

PER_UNIT = {Index.PRE, Index.POST, Index.PRE_CHANNEL, Index.POST_CHANNEL}


@dataclass
class System:
    """A learning system while its steps are made.

    `batched`: see `builder.build`; `passes` maps a pass to the arrays it renamed in the current block.
    """

    circuit: Circuit
    spec: LearningSpec
    constants: Mapping[str, float]
    batched: bool = True
    arrays: dict[str, Array] = field(default_factory=dict)
    passes: dict[str, dict[str, str]] = field(default_factory=dict)

    # Runtime numbers

    @property
    def period(self) -> str:
        """The parameter that holds the iterations between updates."""
        return f"period_{self.spec.name}"

    @property
    def hold(self) -> str | None:
        """The parameter that holds the iterations between draws of the codes; None in a trial, whose ticks say when."""
        return None if self.circuit.spec.trial is not None else f"hold.{self.spec.name}"

    def parameters(self) -> dict[str, float | str]:
        """Netlist parameters and the words of time as expressions."""
        words = {
            "n_theta": f"(n_p // {self.period})",
            "n_G": f"(n_p % {self.period} + 1)" if self.spec.clear else "(n_p + 1)",
            "n_x": "(n_p // period_x)",
            "new_x": "int(n_p % period_x == 0)",
            "t": "(n_p*iteration)",
        }
        numbers = dict.fromkeys(("period_x", "iteration", self.period, *([self.hold] if self.hold else [])), 0.0)
        return {**self.circuit.spec.parameters, **numbers, **words}

    def resolver(self, place: str, lookups, scope: Scope, constants: Mapping[str, float] | None = None) -> Resolver:
        """A resolver for words of the system."""
        place = f"{self.spec.name}/{place}"
        return Resolver(self.parameters(), {**self.constants, **(constants or {})}, lookups, place, scope)

    def array(self, array: Array) -> Array:
        """Register an array."""
        return self.arrays.setdefault(array.name, array)

    def scalar(self, name: str) -> Array:
        """A per-replica scalar of the system."""
        return self.array(replica_scalar(f"{self.spec.name}.{name}"))

    def block_size(self, block: int) -> int:
        """K: perturbed elements of a block."""
        assert self.spec.perturb is not None
        return sum(self.circuit.variables[name][2].n for name in self.spec.perturb.blocks[block])

    # Codes

    def draw(self, block: int) -> list[Node]:
        """New codes for a block."""
        steps: list[Node] = []
        if self.spec.perturb is None:
            return steps
        offset, size = 0, self.block_size(block)
        for name in self.spec.perturb.blocks[block]:
            owner, variable, array = self.circuit.variables[name]
            words = {"element": Position(offset=offset), "i": Position(), **self._words_of_a_draw()}
            lookups = [words.get, self._evaluated(owner, array)]
            resolver = self.resolver(name, lookups, Scope.PERIOD, {"K": size, **self._scale(variable)})
            resolver.hold = self.hold
            text = resolver.expression(self.spec.perturb.codes[name])
            steps.append(Step(self._code(owner, variable, array, resolver, text)))
            steps += self._set_by_writing(name)
            offset += array.n
        return steps

    def _words_of_a_draw(self) -> dict[str, str]:
        """How many draws there were before the present one, and when it began."""
        if self.hold is None:
            return {"n_p.draw": "n_p", "t.draw": "t"}
        return {"n_p.draw": f"(n_p // {self.hold})", "t.draw": f"(n_p // {self.hold}*{self.hold}*iteration)"}

    def _set_by_writing(self, perturbation: str) -> list[Node]:
        """Where a perturbation is set by writing the device: count those writes, and let worn devices be."""
        if self.circuit.spec.hardware.perturbation.get("through") != "write":
            return []
        parameter = perturbed_parameter(self.circuit, perturbation)
        site = next((s for s in self.spec.sites if s.parameter == parameter), None)
        if site is None:
            raise BuildError(f"{perturbation} is set by writing {parameter}, which {self.spec.name} does not train")
        resolver = self.resolver(
            f"{perturbation}/set", [self.site_lookup(replace(site, theta=perturbation))], Scope.WRITE
        )
        theta, writes = resolver.name("theta"), resolver.name("writes")
        endurance = self.circuit.spec.hardware.endurance.get(parameter)
        statements = []
        if endurance is not None:
            worn = resolver.expression(f"where(writes < {endurance}, theta, 0)")
            statements.append(Statement(theta, worn))
        times = switches(self.spec.passes)
        statements.append(Statement(writes, f"{writes} + {times}*int({theta} != 0)"))
        targets = {name: resolver.array(name) for name in (theta, writes)}
        n = targets[theta].n
        kernel = Elements(resolver.place, tuple(statements), resolver.operands, targets, n=n, sharing=Sharing.MEMBER)
        return [Step(kernel)]

    def _code(self, owner: Population | Coupling, variable: Variable, array: Array, resolver: Resolver, text: str):
        """The loop that draws a code, or makes it of what the unperturbed pass left in the units, as an estimate is made."""
        reads = [o for o in resolver.operands.values() if isinstance(o, Read)]
        drawn = [o for o in resolver.operands.values() if isinstance(o, Random)]
        if not self._reads_units(resolver.operands, array) and all(o.array.sharing is Sharing.MEMBER for o in reads):
            statement, writes = Statement("code", text), {"code": array}
            return Elements(
                resolver.place, (statement,), resolver.operands, writes, n=array.n, sharing=variable.sharing
            )
        if drawn:
            raise BuildError(f"{resolver.place}: a code that reads units of the circuit cannot draw numbers")
        return self._fold(owner, resolver, text, array)

    def _evaluated(self, owner: Population | Coupling, array: Array):
        """What a code may read of the circuit: parameters, and what an unperturbed pass evaluated."""
        clean = [name for name, factor in self.spec.passes if factor == 0]

        def lookup(name: str):
            base, _, pass_name = name.partition(".")
            read = self._of_owner(owner, base, array)
            if read is None:
                return None
            if pass_name not in ["", *clean] or read.array.sharing is Sharing.REPLICA and not clean:
                raise BuildError(
                    f"{self.spec.name}: a code reads {name}, but codes are drawn after the passes with factor 0 "
                    f"({', '.join(clean) or 'there is none'}) and before all others"
                )
            return self._of_owner(owner, name, array)

        return lookup

    def _scale(self, perturbation) -> dict[str, float]:
        owner = self.circuit.variables[self._qualified(perturbation)][0]
        if perturbation.perturbs is None:
            return {"scale": perturbation.scale if perturbation.scale is not None else 1.0}
        plastic = owner.variable(perturbation.perturbs)
        assert plastic is not None
        return {"scale": plastic.scale if plastic.scale is not None else 1.0}

    def _qualified(self, variable) -> str:
        return next(n for n, (_, v, _) in self.circuit.variables.items() if v is variable)

    # Signals and baselines: per-replica scalars

    def pass_lookup(self, name: str):
        """`C.plus`, or a measure of a pass; `C` where there is one pass."""
        spec = self.circuit.spec
        known = {m.name for m in spec.measure} | ({spec.cost.name} if spec.cost else set())
        if name in known and len(self.spec.passes) == 1:
            name = f"{name}.{self.spec.passes[0][0]}"
        base, _, pass_name = name.partition(".")
        if base in known and pass_name in dict(self.spec.passes):
            return Read(self.scalar(name), Index.ZERO)
        return None

    def signal_lookup(self, block: int):
        """Signals and baselines of a block."""
        names = {a.name for a in (*self.spec.signals, *self.spec.baseline)}

        def lookup(name: str):
            return Read(self.scalar(f"{name}@{block}"), Index.ZERO) if name in names else None

        return lookup

    def scalars(self, assignments: tuple[Assignment, ...], block: int, place: str) -> list[Node]:
        """A step that runs signals or baselines in order."""
        if not assignments:
            return []
        resolver = self.resolver(f"{place}@{block}", [self.signal_lookup(block), self.pass_lookup], Scope.PASS)
        statements, writes = [], {}
        for a in assignments:
            text = resolver.expression(a.expression)
            target = resolver.name(a.name)
            statements.append(Statement(target, text))
            writes[target] = self.scalar(f"{a.name}@{block}")
        kernel = Elements(
            resolver.place,
            tuple(statements),
            resolver.operands,
            writes,
            n=1,
            sharing=Sharing.REPLICA,
            precision=Precision.DOUBLE,
        )
        return [Step(kernel)]

    # Estimate and accumulation

    def site_lookup(self, site: Site):
        """Words of a rule, local to the site."""
        owner, variable, array = self.circuit.variables[site.parameter]
        gradient = self.array(Array(f"{site.parameter}:G", array.shape, Sharing.MEMBER))
        states = {n: self.array(Array(f"{site.parameter}:{n}", array.shape, Sharing.MEMBER)) for n, _ in site.states}
        constants = {"scale": 1.0 if variable.scale is None else variable.scale}
        if site.block >= 0:
            constants["K"] = self.block_size(site.block)

        def lookup(name: str):
            if name == "G":
                return Read(gradient, Index.ELEMENT)
            if name in states:
                return Read(states[name], Index.ELEMENT)
            if name == "writes":
                return Read(self.writes(site.parameter), Index.ELEMENT)
            if name in COUNTERS:
                return Read(self._counter(site.parameter, name), Index.ELEMENT)
            if name in constants:
                return Literal(constants[name])
            if name == "theta" and site.theta is not None:
                return Read(self.circuit.variables[site.theta][2], Index.ELEMENT)
            return self._of_owner(owner, name, array)

        return lookup

    def _of_owner(self, owner: Population | Coupling, name: str, array: Array):
        base, _, pass_name = name.partition(".")
        if isinstance(owner, Coupling):
            read = owner.read_own(base, Index.ELEMENT) or owner.read(base)
        else:
            read = owner.read(base)
            if isinstance(read, Read) and read.index is Index.CHANNEL and read.array.n == array.n:
                read = replace(read, index=Index.ELEMENT)
        if read is None:
            return None
        if pass_name:
            if pass_name not in self.passes:
                raise BuildError(f"{name}: no pass is called {pass_name}; passes: {', '.join(self.passes)}")
            renamed = self.passes[pass_name].get(read.array.name, read.array.name)
            read = replace(read, array=replace(read.array, name=renamed))
        return replace(read, amplitude=False)

    def writes(self, parameter: str) -> Array:
        """The write counter of a parameter."""
        return self._counter(parameter, "writes")

    def _counter(self, parameter: str, name: str) -> Array:
        array = self.circuit.variables[parameter][2]
        return self.array(Array(f"{parameter}:{name}", array.shape, Sharing.MEMBER, Precision.INTEGER))

    def estimate(self, site: Site) -> list[Node]:
        """Steps that add the current estimate of a site to its G."""
        owner, _, array = self.circuit.variables[site.parameter]
        block = max(site.block, 0)
        lookups = [self.signal_lookup(block), self.pass_lookup, self.site_lookup(site)]
        resolver = self.resolver(f"{site.parameter}/estimate", lookups, Scope.PERIOD)
        text = resolver.expression(site.estimate)
        reads_units = self._reads_units(resolver.operands, array)
        steps: list[Node] = []
        means = BatchMeans(f"{self.spec.name}.{site.parameter}", owner, text, resolver.operands)
        drawn = any(isinstance(o, Random) for o in resolver.operands.values())
        if means.text is not None and (not reads_units or (self.batched and not drawn)):
            for made in means.arrays:
                self.array(made)
            steps, text, resolver.operands = [*means.steps], means.text, means.operands
        elif not reads_units:
            raise BuildError(
                f"{site.parameter}: the estimate {site.estimate!r} is not linear in what differs between the samples of a "
                "batch; make it a product of a cost change and of terms of the parameter"
            )
        if not reads_units:
            used = {k: o for k, o in resolver.operands.items() if k in names(text)}
            return [*steps, self._accumulate(site, None, text, used)]
        folded = self.array(Array(f"{site.parameter}:estimate", array.shape, Sharing.MEMBER))
        steps.append(Step(self._fold(owner, resolver, text, folded)))
        return [*steps, self._accumulate(site, Read(folded, Index.ELEMENT))]

    def _reads_units(self, operands, array: Array) -> bool:
        for operand in operands.values():
            if isinstance(operand, Read) and (operand.index in PER_UNIT or operand.array.n not in (1, array.n)):
                return True
            if isinstance(operand, Read) and operand.array.n > 1 and operand.array.sharing is Sharing.REPLICA:
                return True
        return False

    def _fold(self, owner: Population | Coupling, resolver: Resolver, text: str, into: Array):
        statement = (Statement("target", text),)
        if isinstance(owner, Coupling):
            operands = {
                k: replace(o, index=Index.SYNAPSE) if isinstance(o, Read | Position) and o.index is Index.ELEMENT else o
                for k, o in resolver.operands.items()
            }
            return Couple(
                resolver.place, statement, operands, {"target": into}, topology=owner.topology, into=Into.PARAMETER
            )
        channel = {
            k: replace(o, index=Index.CHANNEL, positions=owner.n // into.n)
            if isinstance(o, Read) and o.array.n == into.n and into.n not in (1, owner.n)
            else o
            for k, o in resolver.operands.items()
        }
        return Fold(resolver.place, statement, channel, {"target": into}, n=owner.n, positions=owner.n // into.n)

    def _accumulate(self, site: Site, folded: Read | None, text: str = "", operands=None) -> Step:
        resolver = self.resolver(f"{site.parameter}/accumulate", [self.site_lookup(site)], Scope.PERIOD)
        resolver.operands.update(operands or {})
        if folded is not None:
            text = "folded"
            resolver.operands["folded"] = folded
        resolver.local.add("estimate")
        gradient = resolver.name("G")
        # after an update G stays to be looked at; the next window begins without it
        anew = [Statement(gradient, resolver.expression("where(n_G > 1, G, 0)"))] if self.spec.clear else []
        statements = (
            *anew,
            Statement("estimate", text),
            Statement(gradient, resolver.expression(site.accumulate)),
        )
        array = self.arrays[f"{site.parameter}:G"]
        kernel = Elements(
            resolver.place, statements, resolver.operands, {gradient: array}, n=array.n, sharing=Sharing.MEMBER
        )
        return Step(kernel)

    # Update

    def update(self, site: Site) -> Step:
        """The step that turns G into a request and the request into a new parameter."""
        _, variable, array = self.circuit.variables[site.parameter]
        lookup = self.site_lookup(site)
        resolver = self.resolver(f"{site.parameter}/update", [self._update_signals(site), lookup], Scope.WRITE)
        writable = {"G", "writes", variable.name, *(n for n, _ in site.states), *COUNTERS}
        statements, writes = [], {}
        written = parse_statements(site.on_write)
        if has_outcomes(site.on_write, variable.name):
            written = with_outcomes(site.on_write, variable.name)
        for statement in (*parse_statements(site.update), *written):
            text = resolver.expression(statement.value)
            target = statement.target
            if target in writable:
                name = resolver.name(target)
                writes[name] = resolver.array(name)
            else:
                name = target
                resolver.local.add(target)
            statements.append(Statement(name, text))
        for key, operand in resolver.operands.items():
            if isinstance(operand, Read) and operand.index not in (Index.ELEMENT, Index.ZERO):
                raise BuildError(
                    f"{site.parameter}: the update reads {key}, which differs between units; put it in `estimate`"
                )
        kernel = Elements(
            resolver.place, tuple(statements), resolver.operands, writes, n=array.n, sharing=Sharing.MEMBER
        )
        return Step(kernel)

    def _update_signals(self, site: Site):
        """Signals in an update are means over the batch; none are offered yet beyond words of the site."""
        names = {a.name for a in (*self.spec.signals, *self.spec.baseline)}

        def lookup(name: str):
            if name in names:
                raise BuildError(f"{site.parameter}: the update reads the signal {name}; use it in `estimate`")
            return None

        return lookup

    def updates(self) -> Every:
        """All updates, at the end of the iterations in which one is due."""
        return Every(self.period, 1, tuple(self.update(site) for site in self.spec.sites))
