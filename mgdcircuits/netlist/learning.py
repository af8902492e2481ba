"""Learning systems: which perturbations are driven, in which blocks, and what each plastic parameter is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import reading_rule
from mgdcircuits.netlist.costs import Measured
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    bind,
    is_identifier,
    names,
    parse,
    parse_call,
    parse_statements,
    substitute_statements,
)
from mgdcircuits.netlist.inference import infer_states, with_unit
from mgdcircuits.netlist.kinds import UNKNOWN_KIND, expected_of, truth
from mgdcircuits.netlist.objects import Objects, statements_of
from mgdcircuits.netlist.parameters import SECOND, Parameters
from mgdcircuits.netlist.perturbations import Perturbations
from mgdcircuits.netlist.source import Map, Text
from mgdcircuits.netlist.spec import (
    Assignment,
    CouplingSpec,
    Dimensions,
    LearningSpec,
    Perturb,
    PopulationSpec,
    Position,
    Role,
    Site,
    TrialSpec,
    Variable,
)
from mgdcircuits.netlist.units import DIMENSIONLESS, divide

NOT_PLASTIC = reading_rule("not-plastic", "a rule can only name plastic parameters")
UNDRIVEN_PERTURBATION = reading_rule("undriven-perturbation", "a rule must read a perturbation that something drives")
UPDATE = reading_rule("update", "a learning system must say what is requested, and when")
ESTIMATE = reading_rule("estimate", "an entry of `estimate` must fit a plastic parameter")

SIGNAL_UNITS = reading_rule("signal-units", "signals and baselines must not mix units")
ESTIMATE_UNITS = reading_rule("estimate-units", "an estimate has the unit of the cost divided by that of the parameter")
REQUEST_UNITS = reading_rule("request-units", "a request has the unit of the parameter")

RULE_WORDS: dict[str, Dimensions] = {"new_x": DIMENSIONLESS}
"""`new_x` is 1 in an iteration that presents a new sample, else 0."""


@dataclass
class _Place:
    """A plastic parameter and the object that it stands in."""

    name: str
    thing: PopulationSpec | CouplingSpec
    variable: Variable


class Learning:
    """Expands the learning systems of a netlist one by one."""

    def __init__(
        self,
        objects: Objects,
        measured: Measured,
        trial: TrialSpec | None,
        expressions: Expressions,
        columns: Iterable[str],
    ) -> None:
        self.objects = objects
        self.perturbations = Perturbations(objects, expressions)
        self.measured = measured
        self.trial = trial
        self.expressions = expressions
        self.report = expressions.report
        self.parameters: Parameters = expressions.parameters
        self.columns = tuple(columns)
        self.places = [
            _Place(f"{thing.name}.{v.name}", thing, v)
            for thing in objects.every()
            for v in thing.variables
            if v.role is Role.PLASTIC
        ]

    def system(self, name: str, doc: LearningDoc) -> LearningSpec | None:
        """One learning system."""
        passes = self.perturbations.passes(doc)
        perturb = self.perturbations.perturb(doc, passes)
        scope = self._signal_scope(passes)
        signals = self._assignments(doc.signals, scope, "signals")
        baseline_texts = {k: v for k, v in (doc.baseline or {}).items() if k != "per"}
        scope_after = {**scope, **{a.name: a.dimensions for a in signals}}
        base_guess = self._guess(baseline_texts, scope_after)
        baseline = self._assignments(baseline_texts, {**scope_after, **base_guess}, "baseline")
        rule_scope: dict[str, Dimensions] = {**scope_after, **{a.name: a.dimensions for a in baseline}}
        per = (doc.baseline or {}).get("per")
        if doc.update is None:
            self.report.add(
                UPDATE, doc.at, f"`{name}` never updates anything", "`update: {request: ..., every: tau_theta}`"
            )
            return None
        every, at = self._when(doc)
        sites = self._sites(name, doc, perturb, passes, rule_scope)
        if per is not None and str(per) not in (*self.columns, "stimulus", "sample"):
            pool = (*self.columns, "stimulus", "sample")
            self.report.add(
                "unknown-name", per.at, f"`per: {per}` names no column of the data", *expected_of(str(per), pool)
            )
        return LearningSpec(
            name=name,
            perturb=perturb,
            passes=passes,
            signals=signals,
            baseline=baseline,
            sites=tuple(sites),
            update_every=every,
            update_at=at,
            clear=truth(doc.update.clear, "clear", self.report),
            at=doc.at,
            baseline_per=None if per is None else str(per),
        )

    # signals

    def _signal_scope(self, passes: tuple[tuple[str, float], ...]) -> dict[str, Dimensions]:
        """The names of signals: costs and measures of each pass, and words of the run."""
        scope: dict[str, Dimensions] = {**RULE_WORDS, **dict.fromkeys(self.columns, DIMENSIONLESS), "y": DIMENSIONLESS}
        known = {n: d for n, d in self.measured.dimensions.items() if d is not None}
        for name, dims in known.items():
            for pass_name, _ in passes:
                scope[f"{name}.{pass_name}"] = dims
            if len(passes) == 1 or self.trial is not None:
                scope[name] = dims
        return scope

    def _tolerated(self, name: str) -> bool:
        base = name.partition(".")[0]
        return (
            (base in self.measured.dimensions and self.measured.dimensions[base] is None)
            or self.measured.broken
            or self.objects.may_be_broken(base)
        )

    def _guess(self, texts: Mapping[Any, Text], scope: Mapping[str, Dimensions]) -> dict[str, Dimensions]:
        return infer_states(
            [(str(k), str(v)) for k, v in texts.items()], self.expressions.known(scope), self.parameters
        )

    def _assignments(
        self, texts: Mapping[Text, Text] | None, scope: Mapping[str, Dimensions], what: str
    ) -> tuple[Assignment, ...]:
        if not texts:
            return ()
        usable: dict[Text, Text] = {}
        for name, expression in texts.items():
            if not is_identifier(str(name)):
                self.report.add("wrong-form", getattr(name, "at", expression.at), f"`{name}` in `{what}`", "a name")
                continue
            usable[name] = expression
        guess = self._guess(usable, scope)
        full = {**scope, **guess}
        result = []
        for name, expression in usable.items():
            try:
                unknown = str(name) not in full
                found = self.expressions.check(
                    expression,
                    expression.at,
                    {**full, str(name): full.get(str(name), DIMENSIONLESS)} if unknown else full,
                    f"`{what}`: `{name}`",
                    None if unknown else full[str(name)],
                    tolerated=self._tolerated,
                    other=f", as `{name}` elsewhere",
                    rule="signal-units",
                )
                finished = self.parameters.finish(expression, set(full))
            except ExpressionError:
                continue
            result.append(Assignment(str(name), finished, found or full.get(str(name), DIMENSIONLESS), expression.at))
        return tuple(result)

    # when

    def _when(self, doc: LearningDoc) -> tuple[str, str | None]:
        assert doc.update is not None
        update = doc.update
        at = None
        if update.at_ is not None:
            at = str(update.at_)
            phases = [p.name for p in self.trial.phases] if self.trial else []
            if at not in phases and (self.trial is not None or at != "reward"):
                found = f"`at: {at}` names no phase of the trial" if phases else f"`at: {at}`, but there is no trial"
                self.report.add(UPDATE, update.at_.at, found, *expected_of(at, phases))
        if update.every is not None:
            self.expressions.check(update.every, update.every.at, {"iteration": SECOND}, "`update: every`", SECOND)
            if update.at_ is not None:
                self.report.add(UPDATE, update.at_.at, "an update with `at` and with `every`", "one of them")
            return str(update.every), at
        return "tau_theta", at

    # sites

    def _sites(
        self, name: str, doc: LearningDoc, perturb: Perturb | None, passes: tuple[tuple[str, float], ...],
        rule_scope: Mapping[str, Dimensions],
    ) -> list[Site]:  # fmt: skip
        chosen, named = self._chosen(doc)
        entries = self._estimates(doc)
        made: list[Site] = []
        for place in chosen:
            estimate = self._estimate_for(place, doc, entries)
            if estimate is None and doc.estimate is not None:
                if place.name in named:
                    self.report.add(
                        ESTIMATE, doc.place("estimate"), f"`estimate` has no entry for `{place.name}`", "an entry"
                    )
                continue
            site = self._site(place, doc, estimate, perturb, passes, rule_scope, place.name in named)
            if site is not None:
                made.append(site)
        if not made and not len(self.report):
            found = f"`{name}` trains nothing"
            plastic = ", ".join(p.name for p in self.places)
            expected = f"a rule that reaches one of {plastic}" if plastic else "a parameter with the flag (plastic)"
            self.report.add(NOT_PLASTIC, doc.at, found, expected, "drive a perturbation that the estimate reads")
        return made

    def _chosen(self, doc: LearningDoc) -> tuple[list[_Place], set[str]]:
        if doc.plastic is None or (len(doc.plastic) == 1 and str(doc.plastic[0]) == "all"):
            return self.places, set()
        found: list[_Place] = []
        for word in doc.plastic:
            by_name = [p for p in self.places if p.variable.name == word]
            things = [] if by_name else self.perturbations.named(word)
            matches = by_name or [p for p in self.places if p.name in things or p.thing.name in things]
            if things and not matches:
                if any(b for b in self.objects.broken.values()):
                    continue
                pool = ", ".join(p.name for p in self.places)
                self.report.add(
                    NOT_PLASTIC,
                    word.at,
                    f"`{word}` is not plastic",
                    f"one of {pool}" if pool else "a plastic parameter",
                    "give the parameter the flag (plastic)",
                )
            found += [p for p in matches if p not in found]
        return found, {p.name for p in found}

    def _estimates(self, doc: LearningDoc) -> dict[str, Text]:
        """The entries of `estimate` by variable, object or qualified name; a single one under ''."""
        if doc.estimate is None:
            return {}
        if isinstance(doc.estimate, Text):
            return {"": doc.estimate}
        entries = {}
        for key, value in doc.estimate.items():
            fits = [p for p in self.places if str(key) in (p.name, p.variable.name, p.thing.name)]
            if not fits:
                variables = self.objects.variables()
                at = getattr(key, "at", value.at)
                if (
                    any("*" in b or str(key).rpartition(".")[2] in b for b in self.objects.broken.values())
                    or self.objects.lost
                ):
                    continue
                pool = {p.variable.name for p in self.places} | {p.name for p in self.places}
                if any(str(key) in (q, q.partition(".")[2]) for q in variables):
                    self.report.add(
                        NOT_PLASTIC, at, f"`estimate` names `{key}`, which is not plastic", *expected_of(str(key), pool)
                    )
                else:
                    self.report.add(
                        ESTIMATE, at, f"`estimate` names `{key}`, which no object has", *expected_of(str(key), pool)
                    )
                continue
            entries[str(key)] = value
        return entries

    def _estimate_for(self, place: _Place, doc: LearningDoc, entries: Mapping[str, Text]) -> Text | None:
        for key in (place.name, place.variable.name, place.thing.name, ""):
            if key in entries:
                return entries[key]
        return None

    def _site_scope(
        self,
        place: _Place,
        passes: tuple[tuple[str, float], ...],
        rule_scope: Mapping[str, Dimensions],
        paired: str | None,
    ) -> dict[str, Dimensions]:
        local = self.objects.scope(place.thing)
        scope = {**local, **rule_scope}
        for name, dims in local.items():
            for pass_name, _ in passes:
                scope[f"{name}.{pass_name}"] = dims
        scope["scale"] = place.variable.dimensions
        if paired is not None:
            scope["theta"] = place.variable.dimensions
        return scope

    def _site(
        self, place: _Place, doc: LearningDoc, estimate: Text | None, perturb: Perturb | None,
        passes: tuple[tuple[str, float], ...], rule_scope: Mapping[str, Dimensions], named: bool,
    ) -> Site | None:  # fmt: skip
        own = [v for v in place.thing.variables if v.perturbs == place.variable.name]
        driven = perturb.codes if perturb is not None else {}
        paired = next((f"{place.thing.name}.{v.name}" for v in own if f"{place.thing.name}.{v.name}" in driven), None)
        if paired is None and own and perturb is None:
            paired = None
        assert doc.update is not None
        source = estimate if estimate is not None else doc.update.request or doc.update.equations
        read = self._read_perturbations(place, source, paired)
        if perturb is not None and not read & set(driven):
            # An eligibility may know of the perturbation only through the state of a neuron.
            read |= self._read_perturbations(place, source, paired, far=True)
        blocks = (
            [i for i, block in enumerate(perturb.blocks) for q in block if q in read] if perturb is not None else []
        )
        if perturb is not None and not blocks:
            if named or estimate is None or isinstance(doc.estimate, Map):
                self._report_undriven(place, source, read, doc)
            return None
        scope = self._site_scope(place, passes, rule_scope, paired)
        cost_dims = next((d for n, d in self.measured.dimensions.items() if d is not None), None)
        gradient = None
        finished = ""
        if estimate is not None:
            broken = any(d is None for d in self.measured.dimensions.values()) or self.measured.broken
            want = None
            if self.measured.cost is not None and cost_dims is not None and not broken:
                cost_dims = self.measured.dimensions[self.measured.cost.name]
                want = divide(cost_dims or DIMENSIONLESS, place.variable.dimensions)
            gradient = self.expressions.check(
                estimate,
                estimate.at,
                scope,
                f"`estimate` for `{place.name}`",
                want,
                tolerated=self._tolerated,
                other=f": the unit of the cost divided by that of `{place.name}`",
                rule="estimate-units",
            )
            finished = self._finish(estimate, scope)
            gradient = want if want is not None else gradient
        accumulate = self._accumulate(place, doc, scope, gradient, estimate)
        update, states = self._update(place, doc, scope, gradient)
        on_write = self._on_write(place, scope)
        return Site(
            parameter=place.name,
            theta=paired,
            block=min(blocks) if blocks else -1,
            estimate=finished,
            accumulate=accumulate,
            update=update,
            on_write=on_write,
            states=states,
        )

    def _finish(self, expression: Text, scope: Mapping[str, Any]) -> str:
        try:
            return self.parameters.finish(" ".join(str(expression).split()), set(scope) - {"K", "t"})
        except ExpressionError:
            return str(expression)

    def _read_perturbations(
        self, place: _Place, source: Text | None, paired: str | None, far: bool = False
    ) -> set[str]:
        """The perturbation variables that an expression reads, directly or through the equations of the object.

        `far`: also through the equations of the populations on both sides.
        """
        if source is None:
            return set()
        try:
            todo = {n.partition(".")[0] for n in self._names_in(source)}
        except ExpressionError:
            return set()
        thing = place.thing
        found: set[str] = set()
        if "theta" in todo and paired is not None:
            found.add(paired)
            todo.discard("theta")
        seen: set[str] = set()
        while todo:
            word = todo.pop()
            if word in seen:
                continue
            seen.add(word)
            for owner, variable in self._resolve(thing, word):
                if variable.role is Role.PERTURBATION:
                    found.add(f"{owner.name}.{variable.name}")
                elif variable.expression is not None and (owner is thing or far):
                    suffix = "" if owner is thing else "_post" if owner.name == getattr(thing, "post", "") else "_pre"
                    own = {v.name for v in owner.variables}
                    inner = {f"{n}{suffix}" if n in own else n for n in names(variable.expression)}
                    todo |= inner - seen
            for event in (thing.on_pre, thing.on_post) if isinstance(thing, CouplingSpec) else ():
                for statement in parse_statements(event.statements) if event else ():
                    if statement.target == word:
                        todo |= names(statement.expression) - seen
        return found

    def _names_in(self, source: Text) -> set[str]:
        try:
            return names(source)
        except ExpressionError:
            return set().union(*(names(s.expression) for s in parse_statements(source)), set())

    def _resolve(self, thing: Any, word: str) -> list[tuple[Any, Variable]]:
        own = [(thing, v) for v in thing.variables if v.name == word]
        if own or not isinstance(thing, CouplingSpec):
            return own
        post, pre = self.objects.populations[thing.post], self.objects.populations[thing.pre]
        found = [(post, v) for v in post.variables if word in (v.name, f"{v.name}_post")]
        return found or [(pre, v) for v in pre.variables if word == f"{v.name}_pre"]

    def _report_undriven(self, place: _Place, source: Text | None, read: set[str], doc: LearningDoc) -> None:
        if self.objects.any_broken or len(self.report):
            return
        at = getattr(source, "at", doc.at)
        if read:
            listed = ", ".join(f"`{q}`" for q in sorted(read))
            self.report.add(
                UNDRIVEN_PERTURBATION,
                at,
                f"the rule for `{place.name}` reads {listed}, which nothing drives",
                "a perturbation under `perturb`",
                "drive it, or read another one",
            )
        else:
            self.report.add(
                UNDRIVEN_PERTURBATION,
                at,
                f"the rule for `{place.name}` reads no perturbation",
                "one that `perturb` drives",
                f"let a perturbation of `{place.variable.name}` be driven, or name its variable in the estimate",
            )

    def _accumulate(
        self,
        place: _Place,
        doc: LearningDoc,
        scope: Mapping[str, Dimensions],
        gradient: Dimensions | None,
        estimate: Text | None,
    ) -> str:
        if estimate is None:
            if doc.accumulate is not None:
                self.report.add(ESTIMATE, doc.accumulate.at, "`accumulate` without `estimate`", "an `estimate`")
            return ""
        if doc.accumulate is None:
            return "G + (estimate - G)/n_G"
        if gradient is not None:
            inner = {**scope, "G": gradient, "estimate": gradient}
            self.expressions.check(
                doc.accumulate,
                doc.accumulate.at,
                inner,
                "`accumulate`",
                gradient,
                tolerated=self._tolerated,
                other=", the unit of the estimate",
                rule="estimate-units",
            )
        return self._finish(doc.accumulate, {**scope, "G": None, "estimate": None})

    def _update(
        self, place: _Place, doc: LearningDoc, scope: Mapping[str, Dimensions], gradient: Dimensions | None
    ) -> tuple[str, tuple[tuple[str, Dimensions], ...]]:
        update = doc.update
        assert update is not None
        given = [
            (k, t) for k, t in (("request", update.request), ("equations", update.equations), ("use", update.use)) if t
        ]
        if len(given) != 1:
            found = (
                f"an update with {' and '.join(f'`{k}`' for k, _ in given)}"
                if given
                else "an update that requests nothing"
            )
            self.report.add(UPDATE, update.at, found, "one of request, equations, use")
            if not given:
                return "", ()
        key, source = given[0]
        block = self._block(key, source)
        if block is None:
            return "", ()
        inner = {**scope, "writes": DIMENSIONLESS}
        if gradient is not None:
            inner["G"] = gradient
        dims = place.variable.dimensions
        statements = statements_of(block, self.report)
        pairs = [(s.target, s.value) for s in statements]
        known = {**self.expressions.known(inner), "request": dims}
        guess = infer_states(pairs, known, self.parameters)
        full = {**inner, **guess, "request": dims}
        states: list[tuple[str, Dimensions]] = []
        written: set[str] = set()
        targets = {s.target for s in statements}
        for statement in statements:
            at = Position(block.at.file, block.at.line + (statement.line_offset if key == "equations" else 0))
            for read in sorted(names(statement.value)):
                if read in targets and read not in written and read != "request" and read not in dict(states):
                    states.append((read, full.get(read, DIMENSIONLESS)))
            want = full.get(statement.target)
            other = f", the unit of `{place.name}`" if statement.target == "request" else f", as `{statement.target}`"
            tolerant = gradient is None and doc.estimate is not None
            self.expressions.check(
                statement.value,
                at,
                full,
                f"`{statement.target}` in `update` for `{place.name}`",
                want,
                other=other,
                tolerated=lambda n, t=tolerant: (t and n == "G") or self._tolerated(n),
                rule="request-units",  # type: ignore[misc]
            )
            written.add(statement.target)
        if "request" not in targets and statements:
            self.report.add(
                UPDATE, source.at, "an update that never sets `request`", "`request = ...` as its last line"
            )
        if doc.estimate is None and any("G" in names(s.value) for s in statements) and "G" not in inner:
            self.report.add(UPDATE, source.at, "an update that reads `G`, but there is no `estimate`", "an `estimate`")
        text_block = "\n".join(
            f"{s.target} = {self.parameters.finish(s.value, set(full) - {'K', 't'})}" for s in statements
        )
        return text_block, tuple(states)

    def _block(self, key: str, source: Text) -> Text | None:
        """The statements of an update."""
        if key == "request":
            try:
                parse(source)
            except ExpressionError as problem:
                self.report.add("expression", source.at, f"`request`: {problem.message}", "", problem.mend)
                return None
            return source.same_place(f"request = {' '.join(str(source).split())}")
        if key == "equations":
            return source
        try:
            call = parse_call(source)
            macro = library.optimizers().get(call.name)
            if macro is None:
                expected, mend = expected_of(call.name, library.optimizers())
                self.report.add(UNKNOWN_KIND, source.at, f"there is no optimizer `{call.name}`", expected, mend)
                return None
            bound = bind(macro, call)
            if "eta" not in self.parameters.texts:
                self.report.add(
                    "unknown-name",
                    source.at,
                    f"`{source}` reads the learning rate `eta`, which is no parameter",
                    "a parameter `eta`",
                    "add `eta: 0.01` to `parameters`",
                )
                return None
            return source.same_place(substitute_statements(macro.body, bound))
        except ExpressionError as problem:
            self.report.add("expression", source.at, f"`use: {source}`: {problem.message}", "", problem.mend)
            return None

    def _on_write(self, place: _Place, scope: Mapping[str, Dimensions]) -> str:
        name, thing = place.variable.name, place.thing
        block = thing.on_write
        targets = {s.target for s in parse_statements(block)} if block else set()
        if block is None or name not in targets:
            block = (
                f"{block}\n"
                if block and not targets & {p.variable.name for p in self.places if p.thing is thing}
                else ""
            )
            block += f"{name} = {name} + request"
            targets = {s.target for s in parse_statements(block)}
        if "writes" not in targets:
            block += (
                "\nwrites += int(request != 0)"
                if place.variable.dimensions == DIMENSIONLESS
                else (f"\nwrites += int(request != {with_unit(0, place.variable.dimensions)})")
            )
        return block


def evaluations(systems: Iterable[LearningSpec], trial: TrialSpec | None = None) -> int:
    """Evaluations in one iteration: of each system a pass with factor 0 once, every other one once a block.

    At least one; a trial is one, for all systems.
    """
    if trial is not None:
        return 1
    count = 0
    for system in systems:
        blocks = len(system.perturb.blocks) if system.perturb is not None else 1
        count += sum(1 if factor == 0 else max(1, blocks) for _, factor in system.passes)
    return max(1, count)
