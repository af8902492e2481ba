"""Which plastic parameters a learning system trains, and the estimate of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import reading_rule
from mgdcircuits.netlist.costs import Measured
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.expressions import ExpressionError, names, parse_statements
from mgdcircuits.netlist.kinds import expected_of
from mgdcircuits.netlist.objects import Objects
from mgdcircuits.netlist.perturbations import Perturbations
from mgdcircuits.netlist.source import Map, Text
from mgdcircuits.netlist.spec import CouplingSpec, Dimensions, Perturb, Position, Role, Site, Variable
from mgdcircuits.netlist.units import DIMENSIONLESS, divide
from mgdcircuits.netlist.updates import ESTIMATE, Place, Updates

NOT_PLASTIC = reading_rule("not-plastic", "a rule can only name plastic parameters")
UNDRIVEN_PERTURBATION = reading_rule("undriven-perturbation", "a rule must read a perturbation that something drives")


class Sites:
    """Expands the rule of every plastic parameter."""

    def __init__(
        self, objects: Objects, perturbations: Perturbations, measured: Measured, expressions: Expressions
    ) -> None:
        self.objects = objects
        self.perturbations = perturbations
        self.measured = measured
        self.expressions = expressions
        self.report = expressions.report
        self.places = [
            Place(f"{thing.name}.{v.name}", thing, v)
            for thing in objects.every()
            for v in thing.variables
            if v.role is Role.PLASTIC
        ]
        self.updates = Updates(objects, measured, self.places, expressions)

    def own_name(self, name: Text, at: Position, what: str, scope: Mapping[str, Dimensions]) -> None:
        """Report a name of a signal or a baseline that stands for something else in a rule, too."""
        local = {word: None for place in self.places for word in self.objects.scope(place.thing)}
        self.updates.own_name(name, at, what, {**local, **scope})

    def of(
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

    def _chosen(self, doc: LearningDoc) -> tuple[list[Place], set[str]]:
        if doc.plastic is None or (len(doc.plastic) == 1 and str(doc.plastic[0]) == "all"):
            return self.places, set()
        found: list[Place] = []
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

    def _estimate_for(self, place: Place, doc: LearningDoc, entries: Mapping[str, Text]) -> Text | None:
        for key in (place.name, place.variable.name, place.thing.name, ""):
            if key in entries:
                return entries[key]
        return None

    def _site_scope(
        self,
        place: Place,
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
        self, place: Place, doc: LearningDoc, estimate: Text | None, perturb: Perturb | None,
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
                tolerated=self.updates.tolerated,
                other=f": the unit of the cost divided by that of `{place.name}`",
                rule="estimate-units",
            )
            finished = self.updates.finish(estimate, scope)
            gradient = want if want is not None else gradient
        accumulate = self.updates.accumulate(place, doc, scope, gradient, estimate)
        update, states = self.updates.update(place, doc, scope, gradient)
        on_write = self.updates.on_write(place, scope)
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

    def _read_perturbations(self, place: Place, source: Text | None, paired: str | None, far: bool = False) -> set[str]:
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

    def _report_undriven(self, place: Place, source: Text | None, read: set[str], doc: LearningDoc) -> None:
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
