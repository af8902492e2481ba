"""Learning systems: which perturbations are driven, in which blocks, and what each plastic parameter is told."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    Statement,
    bind,
    dimensions,
    evaluate,
    expand_calls,
    is_identifier,
    names,
    nearest,
    parse,
    parse_call,
    parse_statements,
    substitute,
    substitute_statements,
    text,
)
from mgdcircuits.netlist.kinds import UNKNOWN_KIND, expected_of
from mgdcircuits.netlist.parameters import SECOND, Parameters
from mgdcircuits.netlist.source import List, Map, Text
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
from mgdcircuits.netlist.tasks import Measured
from mgdcircuits.netlist.units import DIMENSIONLESS, describe, divide
from mgdcircuits.netlist.variables import Objects, statements_of

NOT_PLASTIC = reading_rule("not-plastic", "a rule can only name plastic parameters")
NOT_A_PERTURBATION = reading_rule("not-a-perturbation", "`perturb` drives variables with the flag (perturbation)")
UNKNOWN_OBJECT = reading_rule("unknown-object", "`of`, `blocks` and `plastic` must name populations or couplings")
BLOCKS = reading_rule("blocks", "every driven perturbation belongs to one block")
UNDRIVEN_PERTURBATION = reading_rule("undriven-perturbation", "a rule must read a perturbation that something drives")
PASSES = reading_rule("passes", "a pass has a constant factor on the perturbation, and a name")
UPDATE = reading_rule("update", "a learning system must say what is requested, and when")
ESTIMATE = reading_rule("estimate", "an entry of `estimate` must fit a plastic parameter")

CODE_UNITS = reading_rule("code-units", "a code must have the unit of the perturbation that it drives")
SIGNAL_UNITS = reading_rule("signal-units", "signals and baselines must not mix units")
ESTIMATE_UNITS = reading_rule("estimate-units", "an estimate has the unit of the cost divided by that of the parameter")
REQUEST_UNITS = reading_rule("request-units", "a request has the unit of the parameter")

CODE_WORDS: dict[str, Dimensions] = {"element": DIMENSIONLESS}
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
        self, objects: Objects, measured: Measured, trial: TrialSpec | None, expressions: Expressions, columns: Iterable[str]
    ) -> None:
        self.objects = objects
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
        passes = self._passes(doc)
        perturb = self._perturb(doc, passes)
        scope = self._signal_scope(passes)
        signals = self._assignments(doc.signals, scope, "signals")
        baseline_texts = {k: v for k, v in (doc.baseline or {}).items() if k != "per"}
        scope_after = {**scope, **{a.name: a.dimensions for a in signals}}
        base_guess = self._guess(baseline_texts, scope_after)
        baseline = self._assignments(baseline_texts, {**scope_after, **base_guess}, "baseline")
        rule_scope: dict[str, Dimensions] = {**scope_after, **{a.name: a.dimensions for a in baseline}}
        per = (doc.baseline or {}).get("per")
        if doc.update is None:
            self.report.add(UPDATE, doc.at, f"`{name}` never updates anything", "`update: {request: ..., every: tau_theta}`")
            return None
        every, at = self._when(doc)
        sites = self._sites(name, doc, perturb, passes, rule_scope)
        if per is not None and str(per) not in (*self.columns, "stimulus", "sample"):
            pool = (*self.columns, "stimulus", "sample")
            self.report.add("unknown-name", per.at, f"`per: {per}` names no column of the data", *expected_of(str(per), pool))
        return LearningSpec(
            name=name,
            perturb=perturb,
            passes=passes,
            signals=signals,
            baseline=baseline,
            sites=tuple(sites),
            update_every=every,
            update_at=at,
            clear=doc.update.clear is None or str(doc.update.clear).lower() not in ("false", "no", "off", "0"),
            at=doc.at,
            baseline_per=None if per is None else str(per),
        )

    # passes, perturbations, blocks

    def _passes(self, doc: LearningDoc) -> tuple[tuple[str, float], ...]:
        if doc.passes is None:
            return (("only", 1.0),)
        found = []
        for name, factor in doc.passes.items():
            self.expressions.check(factor, factor.at, {}, f"the pass `{name}`", DIMENSIONLESS)
            if not is_identifier(str(name)):
                self.report.add(PASSES, factor.at, f"`{name}` as the name of a pass", "letters, digits and `_`")
                continue
            try:
                found.append((str(name), evaluate(factor, self.parameters.constants()).value))
            except ExpressionError:
                if not names(factor) & self.parameters.broken and names(factor) <= set(self.parameters.known()):
                    self.report.add(PASSES, factor.at, f"the factor `{factor}` of `{name}`", "a constant number")
        if not doc.passes:
            self.report.add(PASSES, doc.place("passes"), "`passes` is empty", "`{clean: 0, plus: 1}`")
        elif found and not any(factor for _, factor in found) and len(found) == len(doc.passes) and doc.perturb is not None:
            self.report.add(
                PASSES, doc.place("passes"), "no pass applies the perturbation: every factor is 0", "a factor that is not 0",
                "write for example `passes: {clean: 0, plus: 1}`",
            )  # fmt: skip
        return tuple(found)

    def _perturb(self, doc: LearningDoc, passes: tuple[tuple[str, float], ...]) -> Perturb | None:
        if doc.perturb is None:
            return None
        inside = self._objects_named(doc.perturb.of)
        codes: dict[str, str] = {}
        words = {v.name for t in self.objects.every() for v in t.variables if v.role is Role.PERTURBATION}
        for key, code in doc.perturb.extras.items():
            matches = [
                (f"{t.name}.{v.name}", t, v)
                for t in self.objects.every()
                for v in t.variables
                if str(key) in (v.name, f"{t.name}.{v.name}") and (inside is None or t.name in inside or f"{t.name}.{v.name}" in inside)
            ]
            driven = [m for m in matches if m[2].role is Role.PERTURBATION]
            at = getattr(key, "at", doc.perturb.place(str(key)))
            if not driven:
                self._nothing_to_drive(str(key), at, matches, words, inside is not None)
                self._code(str(key), code, None, None, passes)
                continue
            for qualified, thing, variable in driven:
                made = self._code(str(key), code, thing, variable, passes)
                if made is not None:
                    codes[qualified] = made
        order = list(self.objects.variables())
        codes = {name: codes[name] for name in sorted(codes, key=order.index)}
        every = doc.perturb.every
        if every is not None:
            self.expressions.check(every, every.at, {"iteration": SECOND}, "`perturb: every`", SECOND)
        blocks = self._blocks(doc, list(codes))
        text_every = "tau_p" if every is None else self.parameters.finish(every)
        return Perturb(MappingProxyType(codes), text_every, blocks, doc.perturb.at)

    def _nothing_to_drive(self, key: str, at: Position, matches: list[Any], words: set[str], limited: bool) -> None:
        if matches:
            role = matches[0][2].role.value
            found = f"`perturb` drives `{key}`, which is a {role} of `{matches[0][1].name}`"
            self.report.add(
                NOT_A_PERTURBATION, at, found, "a variable with the flag (perturbation)",
                f"write `{key} : {matches[0][2].unit} (perturbation)`",
            )  # fmt: skip
        elif not any("*" in b or key in b for b in self.objects.broken.values()) and not self.objects.lost:
            close = nearest(key, words | {"every", "of", "blocks"})
            found = f"`perturb` drives `{key}`, which no object has" + (" among those in `of`" if limited else "")
            expected = f"one of {', '.join(sorted(words))}" if words else "a variable with the flag (perturbation)"
            self.report.add(NOT_A_PERTURBATION, at, found, expected, f"did you mean `{close}`?" if close else "")

    def _code(
        self, key: str, code: Text, thing: Any, variable: Variable | None, passes: tuple[tuple[str, float], ...]
    ) -> str | None:
        """The code with snippets and `scale` written out; its unit is that of the variable."""
        try:
            expanded = expand_calls(library.plain_codes(code), library.codes())
        except ExpressionError as problem:
            self.report.add("expression", code.at, f"the code of `{key}`: {problem.message}", "", problem.mend)
            return None
        if thing is None or variable is None:
            return None
        local = self.objects.scope(thing)
        scope = {**local, **{f"{n}.{p}": d for n, d in local.items() for p, _ in passes}, **CODE_WORDS}
        scale: float | None = None
        dims = variable.dimensions
        if "scale" in names(expanded):
            owner = next((v for v in thing.variables if v.name == variable.perturbs), None)
            scale = variable.scale if variable.scale is not None else owner.scale if owner is not None else None
            scope["scale"] = dims
            if scale is None:
                self.report.add(
                    "unknown-name", code.at, f"the code of `{key}` names `scale`, but `{thing.name}.{variable.name}` belongs "
                    "to no plastic parameter", "a size with a unit", f"write the size itself, or `scale: {{{key}: ...}}` in the kind",
                )  # fmt: skip
                return None
        known_functions = set(library.codes())
        self.expressions.check(
            expanded, code.at, scope, f"the code of `{key}`", dims, other=f", the unit of `{thing.name}.{variable.name}`",
            tolerated=lambda n: n in known_functions, rule="code-units",
        )  # fmt: skip
        if scale is not None:
            expanded = substitute(expanded, {"scale": with_unit(scale, dims)})
        return self.parameters.finish(expanded, set(scope) - {"t"})

    def _objects_named(self, given: Any) -> set[str] | None:
        """The objects (or qualified names) that a list of names stands for; None for all."""
        if given is None or (len(given) == 1 and str(given[0]) == "all"):
            return None
        found: set[str] = set()
        for word in given:
            found |= set(self._named(word))
        return found

    def _named(self, word: Text) -> list[str]:
        """Objects with this name, under this key of `synapses`, or the variable of this qualified name."""
        key = " ".join(str(word).split())
        things = [t.name for t in self.objects.every() if t.name == key]
        things += [c.name for c in self.objects.couplings.values() if c.key and " ".join(c.key.split()) == key]
        if not things and "->" in key:
            pre, _, post = (part.strip() for part in key.partition("->"))
            things = [c.name for c in self.objects.couplings.values() if (c.pre, c.post) == (pre, post)]
        if not things and key in self.objects.variables():
            things = [key]
        if not things and key not in self.objects.lost and not self.objects.lost:
            head = key.partition(".")[0]
            if not ("." in key and self.objects.is_broken(head, key.partition(".")[2])):
                pool = [t.name for t in self.objects.every()] + [c.key for c in self.objects.couplings.values() if c.key]
                if "." in key:
                    pool = list(self.objects.variables())
                expected, mend = expected_of(key, pool)
                self.report.add(UNKNOWN_OBJECT, word.at, f"`{word}` names no population, coupling or variable", expected, mend)
        return list(dict.fromkeys(things))

    def _blocks(self, doc: LearningDoc, driven: list[str]) -> tuple[tuple[str, ...], ...]:
        assert doc.perturb is not None
        given = doc.perturb.blocks
        if given is None or isinstance(given, Text) and str(given) == "all":
            return (tuple(driven),) if driven else ()
        if isinstance(given, Text):
            if str(given) != "layer":
                expected, mend = expected_of(str(given), ("all", "layer"))
                self.report.add(BLOCKS, given.at, f"`blocks: {given}`", expected + ", or a list of lists of names", mend)
                return (tuple(driven),) if driven else ()
            layers: dict[str, list[str]] = {name: [] for name in self.objects.populations}
            for qualified in driven:
                layers[self._layer(qualified)].append(qualified)
            return tuple(tuple(layer) for layer in layers.values() if layer)
        blocks: list[tuple[str, ...]] = []
        taken: set[str] = set()
        for group in given:
            block: list[str] = []
            for word in group:
                things = set(self._named(word))
                incoming = {c.name for c in self.objects.couplings.values() if c.post in things}
                listed = {str(w) for g in given for w in g}
                wanted = things | {c for c in incoming if c not in listed}
                chosen = [q for q in driven if (q.partition(".")[0] in wanted or q in things) and q not in taken]
                block += chosen
                taken.update(chosen)
                if things and not chosen and driven:
                    self.report.add(BLOCKS, word.at, f"nothing of `{word}` is left to perturb in this block", "each name once")
            if block:
                blocks.append(tuple(block))
        missing = [q for q in driven if q not in taken]
        if missing and not len(self.report):
            listed_ = ", ".join(f"`{q}`" for q in missing)
            self.report.add(BLOCKS, given.at, f"{listed_} in no block", "all that `perturb` drives", "add a block, or limit `of`")
        return tuple(blocks)

    def _layer(self, qualified: str) -> str:
        name = qualified.partition(".")[0]
        if name in self.objects.populations:
            return name
        return self.objects.couplings[name].post

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
        return (base in self.measured.dimensions and self.measured.dimensions[base] is None) or self.measured.broken or self.objects.may_be_broken(base)

    def _guess(self, texts: Mapping[Any, Text], scope: Mapping[str, Dimensions]) -> dict[str, Dimensions]:
        return infer_states([(str(k), str(v)) for k, v in texts.items()], self.expressions.known(scope), self.parameters)

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
                    expression, expression.at, {**full, str(name): full.get(str(name), DIMENSIONLESS)} if unknown else full,
                    f"`{what}`: `{name}`", None if unknown else full[str(name)], tolerated=self._tolerated,
                    other=f", as `{name}` elsewhere", rule="signal-units",
                )  # fmt: skip
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
                    self.report.add(ESTIMATE, doc.place("estimate"), f"`estimate` has no entry for `{place.name}`", "an entry")
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
            things = [] if by_name else self._named(word)
            matches = by_name or [p for p in self.places if p.name in things or p.thing.name in things]
            if things and not matches:
                if any(b for b in self.objects.broken.values()):
                    continue
                pool = ", ".join(p.name for p in self.places)
                self.report.add(
                    NOT_PLASTIC, word.at, f"`{word}` is not plastic", f"one of {pool}" if pool else "a plastic parameter",
                    "give the parameter the flag (plastic)",
                )  # fmt: skip
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
                if any("*" in b or str(key).rpartition(".")[2] in b for b in self.objects.broken.values()) or self.objects.lost:
                    continue
                pool = {p.variable.name for p in self.places} | {p.name for p in self.places}
                if any(str(key) in (q, q.partition(".")[2]) for q in variables):
                    self.report.add(NOT_PLASTIC, at, f"`estimate` names `{key}`, which is not plastic", *expected_of(str(key), pool))
                else:
                    self.report.add(ESTIMATE, at, f"`estimate` names `{key}`, which no object has", *expected_of(str(key), pool))
                continue
            entries[str(key)] = value
        return entries

    def _estimate_for(self, place: _Place, doc: LearningDoc, entries: Mapping[str, Text]) -> Text | None:
        for key in (place.name, place.variable.name, place.thing.name, ""):
            if key in entries:
                return entries[key]
        return None

    def _site_scope(
        self, place: _Place, passes: tuple[tuple[str, float], ...], rule_scope: Mapping[str, Dimensions], paired: str | None
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
        blocks = [i for i, block in enumerate(perturb.blocks) for q in block if q in read] if perturb is not None else []
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
                estimate, estimate.at, scope, f"`estimate` for `{place.name}`", want, tolerated=self._tolerated,
                other=f": the unit of the cost divided by that of `{place.name}`", rule="estimate-units",
            )  # fmt: skip
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
                UNDRIVEN_PERTURBATION, at, f"the rule for `{place.name}` reads {listed}, which nothing drives",
                "a perturbation under `perturb`", "drive it, or read another one",
            )  # fmt: skip
        else:
            self.report.add(
                UNDRIVEN_PERTURBATION, at, f"the rule for `{place.name}` reads no perturbation", "one that `perturb` drives",
                f"let a perturbation of `{place.variable.name}` be driven, or name its variable in the estimate",
            )  # fmt: skip

    def _accumulate(
        self, place: _Place, doc: LearningDoc, scope: Mapping[str, Dimensions], gradient: Dimensions | None, estimate: Text | None
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
                doc.accumulate, doc.accumulate.at, inner, "`accumulate`", gradient, tolerated=self._tolerated,
                other=", the unit of the estimate", rule="estimate-units",
            )  # fmt: skip
        return self._finish(doc.accumulate, {**scope, "G": None, "estimate": None})

    def _update(
        self, place: _Place, doc: LearningDoc, scope: Mapping[str, Dimensions], gradient: Dimensions | None
    ) -> tuple[str, tuple[tuple[str, Dimensions], ...]]:
        update = doc.update
        assert update is not None
        given = [(k, t) for k, t in (("request", update.request), ("equations", update.equations), ("use", update.use)) if t]
        if len(given) != 1:
            found = f"an update with {' and '.join(f'`{k}`' for k, _ in given)}" if given else "an update that requests nothing"
            self.report.add(UPDATE, update.at, found, "one of request, equations, use")
            if not given:
                return "", ()
        key, source = given[0]
        block = self._block(key, source)
        if block is None:
            return "", ()
        inner = dict(scope)
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
                statement.value, at, full, f"`{statement.target}` in `update` for `{place.name}`", want, other=other,
                tolerated=lambda n, t=tolerant: (t and n == "G") or self._tolerated(n), rule="request-units",  # type: ignore[misc]
            )  # fmt: skip
            written.add(statement.target)
        if "request" not in targets and statements:
            self.report.add(UPDATE, source.at, "an update that never sets `request`", "`request = ...` as its last line")
        if doc.estimate is None and any("G" in names(s.value) for s in statements) and "G" not in inner:
            self.report.add(UPDATE, source.at, "an update that reads `G`, but there is no `estimate`", "an `estimate`")
        text_block = "\n".join(f"{s.target} = {self.parameters.finish(s.value, set(full) - {'K', 't'})}" for s in statements)
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
                    "unknown-name", source.at, f"`{source}` reads the learning rate `eta`, which is no parameter",
                    "a parameter `eta`", "add `eta: 0.01` to `parameters`",
                )  # fmt: skip
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
            block = (f"{block}\n" if block and not targets & {p.variable.name for p in self.places if p.thing is thing} else "")
            block += f"{name} = {name} + request"
            targets = {s.target for s in parse_statements(block)}
        if "writes" not in targets:
            block += "\nwrites += int(request != 0)" if place.variable.dimensions == DIMENSIONLESS else (
                f"\nwrites += int(request != {with_unit(0, place.variable.dimensions)})"
            )
        return block


def with_unit(value: float, dims: Dimensions) -> str:
    """A number in SI units as an expression with its unit."""
    return f"{value:.17g}" if dims == DIMENSIONLESS else f"{value:.17g}*{describe(dims).replace(' ', '')}"


def infer_states(
    pairs: list[tuple[str, str]], known: Mapping[str, Dimensions], parameters: Parameters
) -> dict[str, Dimensions]:
    """The dimensions of names that are assigned from each other and from themselves.

    A term that reads a name of unknown dimensions says nothing; the first term of a sum that says something counts. What
    remains open (``m = 0.9*m``) is a number without unit.
    """
    found: dict[str, Dimensions] = {}
    targets = {name for name, _ in pairs}
    values = parameters.numbers()
    for _ in range(len(pairs) + 1):
        for name, expression in pairs:
            if name in found or name in known:
                continue
            try:
                guess = _guess(parse(expression), {**{n: d for n, d in known.items() if n not in targets}, **found}, values)
            except ExpressionError:
                guess = None
            if guess is not None:
                found[name] = guess
    return {name: found.get(name, DIMENSIONLESS) for name in targets if name not in known}


def _guess(node: ast.expr, known: Mapping[str, Dimensions], values: Mapping[str, float]) -> Dimensions | None:
    try:
        return dimensions(text(node), known, values=values)
    except ExpressionError:
        pass
    parts: list[ast.expr] = []
    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            parts = [left, right]
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as operator, right=right):
            a, b = _guess(left, known, values), _guess(right, known, values)
            if a is None or b is None:
                return None
            return divide(a, b) if isinstance(operator, ast.Div) else divide(a, divide(DIMENSIONLESS, b))
        case ast.UnaryOp(operand=operand):
            parts = [operand]
        case ast.Call(func=ast.Name(id=name), args=arguments):
            parts = arguments[1:] if name == "where" else arguments if name in ("clip", "min", "max", "abs") else []
    for part in parts:
        guess = _guess(part, known, values)
        if guess is not None:
            return guess
    return None


def evaluations(systems: Iterable[LearningSpec]) -> int:
    """Evaluations in one iteration: a clean pass counts once, every other one once a block (at least one in all)."""
    clean = False
    others = 0
    for system in systems:
        blocks = len(system.perturb.blocks) if system.perturb is not None else 1
        clean = clean or any(factor == 0 for _, factor in system.passes)
        others += sum(1 for _, factor in system.passes if factor != 0) * max(1, blocks)
    return max(1, others + clean)


__all__ = ["Learning", "Report", "Statement", "evaluations", "infer_states", "with_unit", "List"]
