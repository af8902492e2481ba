"""Couplings: those by which a population of a chain is reached, and those under `synapses`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.document import Document, KindDoc, validate
from mgdcircuits.netlist.draft import Arrival, Coupling, Draft, Population
from mgdcircuits.netlist.expressions import ExpressionError, bind, parse_call
from mgdcircuits.netlist.kinds import (
    DUPLICATE_NAME,
    UNKNOWN_KIND,
    Kinds,
    Line,
    Template,
    expected_of,
    extended,
    substituted,
)
from mgdcircuits.netlist.source import List, Map, Text
from mgdcircuits.netlist.spec import Position, Topology, VariableKind
from mgdcircuits.netlist.topologies import SHAPE_MISMATCH, Topologies, mismatch

CHAIN = reading_rule("chain", "an entry of a chain must say how it is reached")
UNKNOWN_POPULATION = reading_rule("unknown-population", "a coupling must stand between populations that exist")


class Couplings:
    """Places couplings in a draft, one by one."""

    def __init__(self, document: Document, kinds: Kinds, topologies: Topologies, draft: Draft, report: Report) -> None:
        self.document = document
        self.kinds = kinds
        self.topologies = topologies
        self.result = draft
        self.report = report

    def topology(
        self, own: tuple[str, Any] | None, via: Text | None, what: str, at: Position, kind: Template | None = None
    ) -> Topology | None:
        """The topology of a coupling: its own, its kind's, or dense."""
        if own is None and kind is not None:
            own = kind.topology
        if own is None and via is not None:
            template = self.kind(via, None)
            own = template.topology if template is not None else None
            if template is None:
                return None
        key, doc = own or ("dense", None)
        return self.topologies.read(key, doc, what, at)

    def kind(self, via: Text, pre: Population | None) -> Template | None:
        """The kind that `via` or `kind` names: one of the netlist's, or a call of the library."""
        try:
            call = parse_call(via)
        except ExpressionError as problem:
            self.report.add("expression", via.at, f"`{via}`: {problem.message}", "the name of a kind", problem.mend)
            return None
        known = library.couplings()
        if call.name not in known:
            if call.name not in self.kinds.docs:
                names = [*(str(n) for n in self.kinds.docs), *known]
                self.report.add(UNKNOWN_KIND, via.at, f"there is no kind `{call.name}`", *expected_of(call.name, names))
                return None
            if "(" in via:
                found = f"`{via}`: the kind `{call.name}` takes no arguments"
                self.report.add(UNKNOWN_KIND, via.at, found, f"`{call.name}`", "vary it with `use` and `replace`")
            template = self.kinds.get(via.same_place(call.name))
            if template is not None and not template.is_coupling and not template.broken:
                self.report.add(
                    UNKNOWN_KIND,
                    via.at,
                    f"`{call.name}` is the kind of a population, not of a coupling",
                    "a kind with `X_post = ... (summed)` or `on_pre`",
                )
                return None
            return template
        macro, body = known[call.name]
        try:
            bound = bind(macro, call)
        except ExpressionError as problem:
            self.report.add("expression", via.at, f"`{via}`: {problem.message}", "", problem.mend)
            return None
        if bound["stride"] == "kernel":
            bound["stride"] = bound["kernel"]
        variable = self.output(pre, Arrival(pre.name, via, None, None)) if pre is not None else None
        if pre is not None and variable is None:
            return None
        values = dict(bound)
        values["variable"] = variable.equation.name if variable else "x"
        values["unit"] = variable.equation.unit if variable else "1"
        report = Report()
        placed = _moved(substituted(body, values), via.at)
        doc = validate(KindDoc, placed, report)
        assert doc is not None, "a library coupling that is not a kind"
        return replace(extended(Template(str(via)), doc, report), name=call.name)

    def of_chain(self, post: Population, arrival: Arrival) -> None:
        """The coupling by which a population of a chain is reached."""
        pre = self.result.populations[arrival.source]
        assert arrival.via is not None
        template = self.kind(arrival.via, pre)
        if template is None:
            self.result.lost.add(post.name)
            return
        if arrival.delay is not None:
            template = replace(template, texts={**template.texts, "delay": arrival.delay})
        clash = set(template.lines) & set(post.template.lines)
        name = f"{pre.name}_to_{post.name}" if clash or post.name in self.result.couplings else post.name
        topology = self.topology(arrival.topology, None, f"`{post.name}`", post.at, template)
        self._add(Coupling(name, pre.name, post.name, topology, template, post.at, name))

    def of_synapses(self, key: Text, doc: Any) -> None:
        """The couplings of one entry of `synapses`."""
        at = getattr(key, "at", doc.at)
        left, arrow, right = str(key).partition("->")
        pres = [name.strip() for name in left.split(",") if name.strip()]
        posts = [name.strip() for name in right.split(",") if name.strip()]
        if not arrow or not pres or not posts:
            self.report.add(UNKNOWN_POPULATION, at, f"the key `{key}` under `synapses`", "`pre -> post`")
            return
        missing = False
        for name in [*pres, *posts]:
            if name not in self.result.populations:
                missing = True
                if name not in self.result.lost:
                    found = f"`{key}` names the population `{name}`, which is not there"
                    self.report.add(UNKNOWN_POPULATION, at, found, *expected_of(name, self.result.populations))
        doc = self._synapses_like(doc)
        if doc.kind is None:
            base: Template | None = Template()
            if doc.equations is None and doc.on_pre is None and doc.on_post is None:
                self.report.add("missing-equations", at, f"`{key}` has neither `kind` nor equations", "`kind: NAME`")
                return
        else:
            base = None
        if missing:
            if doc.kind is not None:
                self.kind(doc.kind, None)
            return
        if doc.name is not None and len(pres) * len(posts) > 1:
            found = f"one `name` for the {len(pres) * len(posts)} couplings of `{key}`"
            self.report.add(DUPLICATE_NAME, doc.place("name"), found, "one coupling a name", "remove `name`")
            return
        for pre in pres:
            for post in posts:
                kind = base if base is not None else self.kind(doc.kind, self.result.populations[pre])
                if kind is None:
                    self.result.lost.update({f"{pre}_to_{post}", str(key)})
                    return
                template = extended(kind, doc, self.report)
                name = str(doc.name) if doc.name is not None else f"{pre}_to_{post}"
                topology = self.topology(None, None, f"`{key}`", at, template)
                self._add(Coupling(name, pre, post, topology, template, at, str(key)))

    def _synapses_like(self, doc: Any) -> Any:
        if doc.like is None:
            return doc
        for key, other in self.document.synapses.items():
            if " ".join(str(key).split()) == " ".join(str(doc.like).split()) and other is not doc:
                own = {
                    n: getattr(doc, n) for n in type(doc).model_fields if getattr(doc, n) is not None and n != "like"
                }
                return other.model_copy(update=own)
        expected, mend = expected_of(str(doc.like), self.document.synapses)
        self.report.add(UNKNOWN_KIND, doc.like.at, f"`like: {doc.like}` names no entry of `synapses`", expected, mend)
        return doc

    def _add(self, coupling: Coupling) -> None:
        if coupling.name in self.result.couplings:
            found = f"a second coupling `{coupling.name}`"
            self.report.add(DUPLICATE_NAME, coupling.at, found, "each name once", "give one of them `name: ...`")
            return
        taken = self.result.populations.get(coupling.name)
        if taken is not None and taken.name != coupling.post:
            found = f"a coupling with the name of the population `{coupling.name}`"
            self.report.add(DUPLICATE_NAME, coupling.at, found, "a name of its own", "give it another `name`")
            return
        pre, post = self.result.populations[coupling.pre], self.result.populations[coupling.post]
        if coupling.topology is not None and pre.shape is not None and post.shape is not None:
            problem = mismatch(coupling.topology, pre.name, pre.shape, post.name, post.shape)
            if problem is not None:
                self.report.add(SHAPE_MISMATCH, coupling.at, *problem)
                coupling.topology = None
        self.result.couplings[coupling.name] = coupling

    def output(self, population: Population, arrival: Arrival) -> Line | None:
        """The variable that a population hands on: the one named `variable=...`, `x`, or the only candidate."""
        lines = population.template.lines
        if arrival.via is not None:
            try:
                asked = parse_call(arrival.via).keywords.get("variable")
            except ExpressionError:
                asked = None
            if asked is not None:
                if asked not in lines and not population.template.broken:
                    message = f"`{population.name}` has no variable `{asked}`"
                    expected, mend = expected_of(asked, lines)
                    self.report.add("unknown-name", arrival.via.at, message, expected, mend)
                return lines.get(asked)
        if "x" in lines:
            return lines["x"]
        for kind in (VariableKind.SUBEXPRESSION, VariableKind.DIFFERENTIAL, VariableKind.PARAMETER):
            found = [line for line in lines.values() if line.equation.kind is kind]
            if len(found) == 1:
                return found[0]
            if found:
                break
        if not population.template.broken:
            at = arrival.via.at if arrival.via is not None else population.at
            self.report.add(
                CHAIN,
                at,
                f"`{arrival.via}` cannot tell which variable of `{population.name}` to read",
                f"one of {', '.join(lines)}",
                f"write `variable=NAME` into the call of `{arrival.via}`",
            )
        return None


def _moved(tree: Any, at: Position) -> Any:
    """A tree of the library with every position at the line that asked for it."""
    if isinstance(tree, Map):
        return Map({Text(str(k), at): _moved(v, at) for k, v in tree.items()}, at)
    if isinstance(tree, List):
        return List([_moved(v, at) for v in tree], at)
    return Text(str(tree), at, tree.quoted)
