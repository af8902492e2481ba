"""Learning systems: passes, perturbations, signals and baselines, when something is updated, and the rule of each parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import reading_rule
from mgdcircuits.netlist.costs import Measured
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    is_identifier,
)
from mgdcircuits.netlist.inference import infer_states
from mgdcircuits.netlist.kinds import expected_of, truth
from mgdcircuits.netlist.objects import Objects
from mgdcircuits.netlist.parameters import RESERVED_NAME, SECOND, Parameters
from mgdcircuits.netlist.perturbations import Perturbations
from mgdcircuits.netlist.sites import Sites
from mgdcircuits.netlist.source import Text
from mgdcircuits.netlist.spec import (
    Assignment,
    Dimensions,
    LearningSpec,
    TrialSpec,
)
from mgdcircuits.netlist.units import DIMENSIONLESS
from mgdcircuits.netlist.updates import UPDATE

SIGNAL_UNITS = reading_rule("signal-units", "signals and baselines must not mix units")

RULE_WORDS: dict[str, Dimensions] = {"new_x": DIMENSIONLESS}
"""`new_x` is 1 in an iteration that presents a new sample, else 0."""


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
        self.sites = Sites(objects, self.perturbations, measured, expressions)

    def system(self, name: str, doc: LearningDoc) -> LearningSpec | None:
        """One learning system."""
        if not is_identifier(name):
            self.report.add(
                RESERVED_NAME,
                getattr(name, "at", doc.at),
                f"`{name}` as the name of a learning system",
                "letters, digits and `_`",
            )
            return None
        name = str(name)
        passes = self.perturbations.passes(doc)
        perturb = self.perturbations.perturb(doc, passes)
        scope = self._signal_scope(passes)
        signals = self._assignments(doc.signals, scope, "signals")
        baseline_texts = {k: v for k, v in (doc.baseline or {}).items() if k != "per"}
        scope_after = {**scope, **{a.name: a.dimensions for a in signals}}
        for what, texts, taken in (("signals", doc.signals or {}, scope), ("baseline", baseline_texts, scope_after)):
            for word, text in texts.items():
                self.sites.own_name(word, getattr(word, "at", text.at), f"`{what}`", taken)
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
        sites = self.sites.of(name, doc, perturb, passes, rule_scope)
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
                    tolerated=self.sites.updates.tolerated,
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
