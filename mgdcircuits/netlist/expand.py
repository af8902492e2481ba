"""From the document to populations and couplings with shapes: kinds resolved, chain and `for` written out.

The result is a `Draft`: everything has its name, its place and its shape, but no expression has been looked into.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.couplings import CHAIN, UNKNOWN_POPULATION, Couplings
from mgdcircuits.netlist.document import Document, KindDoc, PopulationDoc, validate
from mgdcircuits.netlist.draft import Arrival, Draft, Population
from mgdcircuits.netlist.expressions import is_identifier
from mgdcircuits.netlist.kinds import (
    DUPLICATE_NAME,
    KIND_CYCLE,
    UNKNOWN_KIND,
    Kinds,
    Template,
    expected_of,
    extended,
    substituted,
    topology_of,
)
from mgdcircuits.netlist.parameters import RESERVED_NAME, Parameters, language_of
from mgdcircuits.netlist.source import List, Map, Text
from mgdcircuits.netlist.spec import Conv2d, OneToOne, Pool
from mgdcircuits.netlist.topologies import SHAPE_MISMATCH, Shape, Topologies, spatial, too_large, word

SHAPE = reading_rule("shape", "a population must have a shape, given or inferred")

LOOP_SKIP = frozenset({"kind", "like", "from", "via"})


def expand(document: Document, kinds: Kinds, parameters: Parameters, report: Report) -> Draft:
    """Place everything."""
    return _Expansion(document, kinds, parameters, report).draft()


class _Expansion:
    def __init__(self, document: Document, kinds: Kinds, parameters: Parameters, report: Report) -> None:
        self.document = document
        self.kinds = kinds
        self.parameters = parameters
        self.report = report
        self.result = Draft()
        self.couplings = Couplings(document, kinds, Topologies(parameters, report), self.result, report)
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
            self.couplings.of_chain(self.result.populations[post], arrival)
        for key, synapses in self.document.synapses.items():
            self.couplings.of_synapses(key, synapses)
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
        language = language_of(key)
        if language is not None or not is_identifier(key):
            if language is None:
                self.report.add(RESERVED_NAME, at, f"`{key}` as the name of a population", "letters, digits and `_`")
            else:
                found = f"`{key}`, the name of a population, is a word of {language}"
                self.report.add(RESERVED_NAME, at, found, "another name", f"write for example `{key}_0`")
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
        variable = self.couplings.output(source, arrival)
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
        topology = self.couplings.topology(arrival.topology, arrival.via, f"`{name}`", population.at)
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


_REACH = ("dense", "conv2d", "pool", "one_to_one", "sparse")
reading_rule("missing-equations", "a population or a coupling must have a kind or equations")
