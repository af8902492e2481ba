"""From the document to populations and couplings with shapes: kinds resolved, chain and `for` written out.

The result is a `Draft`: everything has its name, its place and its shape, but no expression has been looked into.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.document import Document, KindDoc, PopulationDoc, validate
from mgdcircuits.netlist.expressions import ExpressionError, bind, is_identifier, parse_call
from mgdcircuits.netlist.kinds import (
    DUPLICATE_NAME,
    KIND_CYCLE,
    UNKNOWN_KIND,
    Kinds,
    Line,
    Template,
    expected_of,
    extended,
    substituted,
    topology_of,
)
from mgdcircuits.netlist.parameters import RESERVED, RESERVED_NAME, Parameters
from mgdcircuits.netlist.source import List, Map, Text
from mgdcircuits.netlist.spec import Conv2d, OneToOne, Pool, Position, Topology, VariableKind
from mgdcircuits.netlist.topologies import SHAPE_MISMATCH, Shape, Topologies, mismatch, spatial, too_large, word

SHAPE = reading_rule("shape", "a population must have a shape, given or inferred")
CHAIN = reading_rule("chain", "an entry of a chain must say how it is reached")
UNKNOWN_POPULATION = reading_rule("unknown-population", "a coupling must stand between populations that exist")

LOOP_SKIP = frozenset({"kind", "like", "from", "via"})


@dataclass
class Population:
    """A population that has its place."""

    name: str
    template: Template
    shape: Shape | None  # None: a problem was reported
    at: Position
    doc: PopulationDoc
    arrives: Arrival | None = None


@dataclass(frozen=True)
class Arrival:
    """How a population of a chain is reached."""

    source: str
    via: Text | None
    topology: tuple[str, Any] | None
    delay: Any


@dataclass
class Coupling:
    """A coupling that has its place."""

    name: str
    pre: str
    post: str
    topology: Topology | None
    template: Template
    at: Position
    key: str  # the key under `synapses`, or the name


@dataclass
class Draft:
    """Populations and couplings in netlist order."""

    populations: dict[str, Population] = field(default_factory=dict)
    couplings: dict[str, Coupling] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # names of what could not be placed


def expand(document: Document, kinds: Kinds, parameters: Parameters, report: Report) -> Draft:
    """Place everything."""
    return _Expansion(document, kinds, parameters, report).draft()


class _Expansion:
    def __init__(self, document: Document, kinds: Kinds, parameters: Parameters, report: Report) -> None:
        self.document = document
        self.kinds = kinds
        self.parameters = parameters
        self.report = report
        self.topologies = Topologies(parameters, report)
        self.result = Draft()
        self.entries: dict[str, PopulationDoc] = {}  # by name, `like` resolved
        self.pending_couplings: list[tuple[str, Arrival]] = []

    def draft(self) -> Draft:
        last: str | None = None
        for name, raw in self._unrolled(self.document.chain, ()):
            doc = validate(PopulationDoc, raw, self.report)
            if doc is None:
                self.result.lost.add(str(name))
                last = None
                continue
            self._population(name, doc, last, in_chain=True)
            last = str(name)
        for name, doc in self.document.populations.items():
            self._population(name, doc, None, in_chain=False)
        for post, arrival in self.pending_couplings:
            self._chain_coupling(self.result.populations[post], arrival)
        for key, doc in self.document.synapses.items():
            self._synapses(key, doc)
        return self.result

    # chain and for

    def _unrolled(self, entries: Any, loops: tuple[str, ...]) -> list[tuple[Text, Map]]:
        found: list[tuple[Text, Map]] = []
        for entry in entries:
            if not isinstance(entry, Map):
                self.report.add("wrong-form", getattr(entry, "at", None), f"`{entry}` in a chain", "`- name: {...}`")
            elif "for" in entry:
                found += self._repeated(entry, loops)
            else:
                for name, value in entry.items():
                    if not isinstance(value, Map):
                        value = Map({}, name.at)
                    value = Map(value, name.at)
                    found.append((name, value))
        return found

    def _repeated(self, entry: Map, loops: tuple[str, ...]) -> list[tuple[Text, Map]]:
        variables, body = entry.get("for"), entry.get("chain")
        extra = [key for key in entry if key not in ("for", "chain")]
        if extra:
            self.report.add("unknown-key", extra[0].at, f"unknown key `{extra[0]}` beside `for`", "one of for, chain")
        well_formed = isinstance(variables, Map) and all(isinstance(v, List) for v in variables.values())
        if not well_formed or not isinstance(body, List) or not variables:
            self.report.add("wrong-form", entry.at, "a `for` block", "`for: {m: [1, 2, 4]}` and `chain: [...]`")
            return []
        lengths = {len(values) for values in variables.values()}
        if len(lengths) != 1:
            self.report.add(CHAIN, variables.at, "lists of different length in `for`", "lists of one length")
            return []
        found: list[tuple[Text, Map]] = []
        for index in range(lengths.pop()):
            values: dict[str, str] = {}
            for variable, options in variables.items():
                option = options[index]
                number = self.parameters.integer(option, f"`{variable}`", 0) if isinstance(option, Text) else None
                values[str(variable)] = str(number if number is not None else 1)
            found += self._unrolled(substituted(body, values, LOOP_SKIP), (*loops, *values))
        return found

    # populations

    def _population(self, name: Text, doc: PopulationDoc, last: str | None, in_chain: bool) -> None:
        key = str(name)
        if not self._new_name(name):
            return
        doc = self._like(key, doc)
        self.entries[key] = doc
        if not in_chain and doc.via is not None:
            last = None
        arrival = None
        if in_chain and (last is not None or doc.from_ is not None or doc.via is not None):
            arrival = self._arrival(name, doc, last)
        elif not in_chain and doc.via is not None:
            if doc.from_ is None:
                self.report.add(CHAIN, doc.place("via"), f"`{key}` has `via` but stands in no chain", "`from: NAME`")
            else:
                arrival = self._arrival(name, doc, None)
        template = self._template(name, doc, arrival)
        population = Population(key, template, None, getattr(name, "at", doc.at), doc, arrival)
        self.result.populations[key] = population
        population.shape = self._shape(population)
        if arrival is not None:
            self.pending_couplings.append((key, arrival))

    def _new_name(self, name: Text) -> bool:
        key, at = str(name), getattr(name, "at", None)
        if not is_identifier(key) or key in RESERVED:
            self.report.add(RESERVED_NAME, at, f"`{key}` as the name of a population", "letters, digits and `_`")
            self.result.lost.add(key)
            return False
        if key in self.result.populations:
            first = self.result.populations[key].at
            found = f"a second population `{key}`"
            self.report.add(
                DUPLICATE_NAME, at, found, "each name once", f"the first is in line {first.line}; rename one"
            )
            return False
        return True

    def _like(self, key: str, doc: PopulationDoc) -> PopulationDoc:
        if doc.like is None:
            return doc
        base = self.entries.get(str(doc.like))
        if base is None:
            if str(doc.like) not in self.result.lost:
                expected, mend = expected_of(str(doc.like), self.entries)
                rule = KIND_CYCLE if doc.like == key else UNKNOWN_KIND
                self.report.add(rule, doc.like.at, f"`like: {doc.like}` names no population above", expected, mend)
                self.result.lost.add(key)
            return doc
        update: dict[str, Any] = {}
        topologies = ("dense", "conv2d", "pool", "one_to_one", "sparse")
        own_topology = any(getattr(doc, t) is not None for t in topologies)
        own_shape = doc.shape is not None or doc.channels is not None
        for field_name in type(doc).model_fields:
            own = getattr(doc, field_name)
            old = getattr(base, field_name)
            if field_name in ("at", "keys_at", "like", "from_"):
                continue
            if own is None and old is not None:
                if (field_name in topologies and own_topology) or (field_name in ("shape", "channels") and own_shape):
                    continue
                update[field_name] = old
            elif isinstance(own, dict) and isinstance(old, dict) and field_name in ("replace", "initial", "scale"):
                update[field_name] = Map({**old, **own}, getattr(own, "at", doc.at))
        return doc.model_copy(update=update)

    def _arrival(self, name: Text, doc: PopulationDoc, last: str | None) -> Arrival | None:
        source = str(doc.from_) if doc.from_ is not None else last
        if source is None or source not in self.result.populations:
            if source is not None and source not in self.result.lost:
                expected, mend = expected_of(source, self.result.populations)
                at = getattr(doc.from_, "at", doc.at)
                self.report.add(UNKNOWN_POPULATION, at, f"`from: {source}` names no population above", expected, mend)
            return None
        if doc.via is None:
            if doc.from_ is None and topology_of(doc, self.report) is None and str(name) not in self.result.lost:
                self.report.add(
                    CHAIN,
                    doc.at,
                    f"`{name}` does not say how it is reached from `{source}`",
                    "`via: KIND`",
                    f"add `via`, or move `{name}` to `populations`",
                )
                self.result.lost.add(str(name))
            elif str(name) not in self.result.lost:
                self.report.add(CHAIN, doc.at, f"`{name}` has a topology or `from` but no `via`", "`via: KIND`")
            return None
        return Arrival(source, doc.via, topology_of(doc, self.report), doc.delay)

    def _template(self, name: Text, doc: PopulationDoc, arrival: Arrival | None) -> Template:
        broken = Template(broken=frozenset("*"))
        if str(name) in self.result.lost:
            return broken
        if doc.kind is not None:
            base = self.kinds.get(doc.kind)
            if base is None:
                base = broken
            elif base.is_coupling:
                self.report.add(
                    UNKNOWN_KIND,
                    doc.kind.at,
                    f"`{doc.kind}` is the kind of a coupling, not of a population",
                    "a kind without `_post` equations",
                    "write it behind `via` or under `synapses`",
                )
                base = broken
        elif doc.equations is not None:
            base = Template()
        elif arrival is not None and arrival.via is not None:
            base = self._relay(arrival)
        elif doc.threshold is not None:
            base = Template()
        else:
            if arrival is None and str(name) not in self.result.lost:
                self.report.add(
                    "missing-equations", doc.at, f"`{name}` has neither `kind` nor `equations`", "one of them"
                )
            base = broken
        own = doc.model_copy(update=dict.fromkeys((*_REACH, "delay", "reduce")))
        return extended(base, own, self.report)

    def _relay(self, arrival: Arrival) -> Template:
        """The kind of a population that a library coupling feeds and that has none of its own."""
        source = self.result.populations[arrival.source]
        variable = self._output(source, arrival)
        if variable is None:
            return Template(broken=frozenset("*"))
        relay = library.kinds()["relay"]
        assert relay.equations is not None
        values = {"variable": variable.equation.name, "unit": variable.equation.unit}
        text = substituted(relay.equations, values).same_place(str(substituted(relay.equations, values)))
        line = arrival.via.at if arrival.via is not None else source.at
        # A problem in the relay is the netlist's: it is shown at the line that asked for it.
        report = Report()
        lines = extended(Template("relay"), KindDoc.model_validate(Map({Text("equations", line): text}, line)), report)
        moved = {n: replace(ln, at=line) for n, ln in lines.lines.items()}
        return replace(lines, lines=moved)

    def _output(self, population: Population, arrival: Arrival) -> Line | None:
        """The variable that a population hands on: the one named `variable=...`, `x`, or the only candidate."""
        lines = population.template.lines
        asked = None
        if arrival.via is not None:
            try:
                asked = parse_call(arrival.via).keywords.get("variable")
            except ExpressionError:
                asked = None
        if asked is not None:
            if asked not in lines and not population.template.broken:
                expected, mend = expected_of(asked, lines)
                self.report.add(
                    "unknown-name", arrival.via.at, f"`{population.name}` has no variable `{asked}`", expected, mend
                )  # type: ignore[union-attr]
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

    # shapes

    def _shape(self, population: Population) -> Shape | None:
        doc = population.doc
        given: Shape | None = None
        if doc.shape is not None:
            sizes = [self.parameters.integer(size, f"the shape of `{population.name}`") for size in doc.shape]
            if None in sizes:
                return None
            given = tuple(s for s in sizes if s is not None)
            if len(given) not in (1, 3):
                self.report.add(
                    SHAPE,
                    doc.place("shape"),
                    f"the shape of `{population.name}` has {len(given)} numbers",
                    "one number (units) or three (channels, height, width)",
                )
                return None
        channels = None
        if doc.channels is not None:
            channels = self.parameters.integer(doc.channels, f"`channels` of `{population.name}`")
            if channels is None:
                return None
        if given is not None and channels is not None:
            self.report.add(
                SHAPE, doc.place("channels"), f"`{population.name}` has `shape` and `channels`", "one of them"
            )
            return given
        if given is not None:
            return given
        return self._inferred(population, channels)

    def _inferred(self, population: Population, channels: int | None) -> Shape | None:
        arrival, name = population.arrives, population.name
        if arrival is None:
            if (
                name not in self.result.lost
                and "*" not in population.template.broken
                or population.doc.kind is not None
            ):
                if population.doc.via is None:
                    self.report.add(SHAPE, population.at, f"`{name}` has no shape", "`shape: n` or `shape: [c, h, w]`")
            return None
        source = self.result.populations[arrival.source].shape
        topology = self._topology(arrival.topology, arrival.via, f"`{name}`", population.at)
        if source is None or topology is None:
            return None
        if isinstance(topology, Conv2d | Pool):
            if len(source) != 3:
                self.report.add(
                    SHAPE_MISMATCH,
                    population.at,
                    f"{word(topology)} from `{arrival.source}`, whose shape is {list(source)}",
                    "a shape [channels, height, width]",
                    f"give `{arrival.source}` such a shape, or use `dense`",
                )
                return None
            out = spatial(topology, source)
            if min(out) < 1:
                self.report.add(SHAPE_MISMATCH, population.at, *too_large(topology, arrival.source, source))
                return None
            if isinstance(topology, Conv2d) and channels is None:
                self.report.add(SHAPE, population.at, f"`{name}` has no `channels`", "`channels: n` behind a `conv2d`")
                return None
            return (channels or source[0], *out)
        if isinstance(topology, OneToOne):
            if channels is not None:
                return (channels, *source[1:]) if len(source) == 3 else (channels,)
            return source
        if channels is not None:
            found = f"`{name}` has `channels` behind a {word(topology)} coupling"
            self.report.add(
                SHAPE, population.doc.place("channels"), found, "`shape`", "write `shape: n`, or use `conv2d`"
            )
            return None
        self.report.add(SHAPE, population.at, f"`{name}` has no shape", "`shape: n` or `shape: [c, h, w]`")
        return None

    def _topology(
        self, own: tuple[str, Any] | None, via: Text | None, what: str, at: Position, kind: Template | None = None
    ) -> Topology | None:
        """The topology of a coupling: its own, its kind's, or dense."""
        if own is None and kind is not None:
            own = kind.topology
        if own is None and via is not None:
            template = self._coupling_kind(via, None)
            own = template.topology if template is not None else None
            if template is None:
                return None
        key, doc = own or ("dense", None)
        return self.topologies.read(key, doc, what, at)

    # couplings

    def _coupling_kind(self, via: Text, pre: Population | None) -> Template | None:
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
        variable = self._output(pre, Arrival(pre.name, via, None, None)) if pre is not None else None
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

    def _chain_coupling(self, post: Population, arrival: Arrival) -> None:
        pre = self.result.populations[arrival.source]
        assert arrival.via is not None
        template = self._coupling_kind(arrival.via, pre)
        if template is None:
            self.result.lost.add(post.name)
            return
        if arrival.delay is not None:
            template = replace(template, texts={**template.texts, "delay": arrival.delay})
        clash = set(template.lines) & set(post.template.lines)
        name = f"{pre.name}_to_{post.name}" if clash or post.name in self.result.couplings else post.name
        topology = self._topology(arrival.topology, None, f"`{post.name}`", post.at, template)
        self._add(Coupling(name, pre.name, post.name, topology, template, post.at, name))

    def _synapses(self, key: Text, doc: Any) -> None:
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
                self._coupling_kind(doc.kind, None)
            return
        if doc.name is not None and len(pres) * len(posts) > 1:
            found = f"one `name` for the {len(pres) * len(posts)} couplings of `{key}`"
            self.report.add(DUPLICATE_NAME, doc.place("name"), found, "one coupling a name", "remove `name`")
            return
        for pre in pres:
            for post in posts:
                kind = base if base is not None else self._coupling_kind(doc.kind, self.result.populations[pre])
                if kind is None:
                    self.result.lost.update({f"{pre}_to_{post}", str(key)})
                    return
                template = extended(kind, doc, self.report)
                name = str(doc.name) if doc.name is not None else f"{pre}_to_{post}"
                topology = self._topology(None, None, f"`{key}`", at, template)
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


_REACH = ("dense", "conv2d", "pool", "one_to_one", "sparse")
reading_rule("missing-equations", "a population or a coupling must have a kind or equations")


def _moved(tree: Any, at: Position) -> Any:
    """A tree of the library with every position at the line that asked for it."""
    if isinstance(tree, Map):
        return Map({Text(str(k), at): _moved(v, at) for k, v in tree.items()}, at)
    if isinstance(tree, List):
        return List([_moved(v, at) for v in tree], at)
    return Text(str(tree), at, tree.quoted)
