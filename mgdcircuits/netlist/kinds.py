"""What a population or a coupling consists of, before it is placed: equations, events, initial values.

A `Template` is read from an entry of `kinds`, extended by `use`, `kind` or `like`, and varied by `replace`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.document import KindDoc, ObjectDoc
from mgdcircuits.netlist.equations import Equation, EquationError, _logical_lines, parse_equations
from mgdcircuits.netlist.expressions import ExpressionError, nearest, parse
from mgdcircuits.netlist.source import List, Map, Text
from mgdcircuits.netlist.spec import Position, VariableKind
from mgdcircuits.netlist.units import DIMENSIONLESS

EQUATION = reading_rule("equation", "a line of an equation block must be one that Brian2 could read")
UNKNOWN_KIND = reading_rule("unknown-kind", "a kind, population or library snippet that is named must exist")
UNKNOWN_WORD = reading_rule("unknown-word", "a key with a closed choice of words must have one of them")
KIND_CYCLE = reading_rule("kind-cycle", "kinds (`use`) and populations (`like`) must not be made of each other")
REPLACE = reading_rule("replace", "`replace` changes, removes or adds a variable of the kind")
DUPLICATE_NAME = reading_rule("duplicate-name", "two things must not have the same name")

TEXTS = ("threshold", "reset", "refractory", "method", "on_write", "on_pre", "on_post", "delay", "reduce")
TOPOLOGIES = ("dense", "conv2d", "pool", "one_to_one", "sparse")
METHODS = (
    *("euler", "exact", "linear", "independent", "exponential_euler", "rk2", "rk4", "heun", "milstein"),
    *("gsl", "gsl_rk2", "gsl_rk4", "gsl_rkf45", "gsl_rkck", "gsl_rk8pd"),
)
"""Brian2's integrators."""

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")

NO_UNIT = "?"
"""The unit of an added `X_post` that was written without one: it gets that of the variable it drives."""


@dataclass(frozen=True)
class Line:
    """An equation and where it was written."""

    equation: Equation
    at: Position


@dataclass(frozen=True)
class Template:
    """Equations by name, texts (`threshold`, `on_pre`...) by key, initial values and scales by variable."""

    name: str | None = None
    lines: Mapping[str, Line] = field(default_factory=dict)
    texts: Mapping[str, Any] = field(default_factory=dict)
    initial: Mapping[str, Text] = field(default_factory=dict)
    scale: Mapping[str, Text] = field(default_factory=dict)
    topology: tuple[str, Any] | None = None
    broken: frozenset[str] = frozenset()  # variables whose line could not be read; "*": who knows which

    @property
    def is_coupling(self) -> bool:
        """Whether it can only be a coupling."""
        return any(n.endswith("_post") for n in self.lines) or "on_pre" in self.texts or "on_post" in self.texts


class Kinds:
    """All kinds of a netlist and of the library, resolved as they are asked for."""

    def __init__(self, docs: Mapping[Text, KindDoc], report: Report) -> None:
        self.docs = docs
        self.report = report
        self._resolved: dict[str, Template] = {}
        self._active: list[str] = []
        for name, doc in docs.items():
            self.get(Text(str(name), getattr(name, "at", doc.at)))

    def get(self, name: Text) -> Template | None:
        """The kind of this name, or None after reporting that there is none."""
        key = str(name)
        if key in self._resolved:
            return self._resolved[key]
        doc = self.docs.get(name) or library.kinds().get(key)
        if doc is None:
            names = [*map(str, self.docs), *library.kinds()]
            self.report.add(UNKNOWN_KIND, name.at, f"there is no kind `{name}`", *expected_of(key, names))
            return None
        if key in self._active:
            circle = " -> ".join([*self._active[self._active.index(key) :], key])
            self.report.add(KIND_CYCLE, name.at, f"{circle}: kinds use each other", "no circle", "remove one `use`")
            return Template(key, broken=frozenset("*"))
        self._active.append(key)
        base = Template()
        if doc.use is not None:
            base = self.get(doc.use) or Template(broken=frozenset("*"))
        self._active.pop()
        template = extended(replace(base, name=key), doc, self.report)
        self._resolved[key] = template
        return template


def expected_of(name: str, candidates: Any) -> tuple[str, str]:
    """What was expected and how to mend it, for an unknown name."""
    pool = sorted({str(c) for c in candidates})
    close = nearest(name, pool)
    listed = ", ".join(pool[:12]) + (", ..." if len(pool) > 12 else "")
    return (f"one of {listed}" if pool else ""), (f"did you mean `{close}`?" if close else "")


def read_equations(text: Text, report: Report) -> tuple[dict[str, Line], frozenset[str]]:
    """Read a block; a line that cannot be read is reported, and its variable is returned as broken."""
    first = text.at.line
    broken: set[str] = set()
    try:
        equations = parse_equations(text, first)
    except EquationError as error:
        bad = {line for line, *_ in error.problems}
        for line, message, mend in error.problems:
            report.add(EQUATION, Position(text.at.file, line), message, "", mend)
        equations = []
        for line, raw in _logical_lines(text, first):
            name = re.match(r"\s*(?:d\s*(\w+)\s*/\s*dt|(\w+))", raw)
            if line in bad:
                if raw.count(":") > 1:
                    broken.add("*")  # it swallowed the next line
                broken.add((name[1] or name[2]) if name else "*")
                continue
            try:
                equations += parse_equations(raw, line)
            except EquationError:
                broken.add((name[1] or name[2]) if name else "*")
    return {e.name: Line(e, Position(text.at.file, e.line)) for e in equations}, frozenset(broken)


def extended(base: Template, doc: ObjectDoc, report: Report) -> Template:
    """A template with what a document adds to it or changes in it."""
    lines = dict(base.lines)
    broken = set(base.broken)
    if doc.equations is not None:
        own, unreadable = read_equations(doc.equations, report)
        lines.update(own)
        broken |= unreadable
    for name, text in (doc.replace or {}).items():
        _replace(lines, broken, name, text, report)
    if doc.method is not None and str(doc.method) not in METHODS and doc.method != "none":
        expected, mend = expected_of(str(doc.method), METHODS)
        report.add("unknown-word", doc.method.at, f"`method: {doc.method}`", expected, mend)
    texts = dict(base.texts)
    for key in TEXTS:
        value = getattr(doc, key)
        if value is not None:
            texts.pop(key, None) if value == "none" else texts.__setitem__(key, value)
    initial, scale = dict(base.initial), dict(base.scale)
    initial.update({str(k): v for k, v in (doc.initial or {}).items()})
    scale.update({str(k): v for k, v in (doc.scale or {}).items()})
    for name in (n for n in [*initial] if n not in lines and n in base.lines):
        del initial[name]  # the variable was removed by `replace`
    for name in (n for n in [*scale] if n not in lines and n in base.lines):
        del scale[name]
    topology = topology_of(doc, report) or base.topology
    return Template(base.name, lines, texts, initial, scale, topology, frozenset(broken))


def _replace(lines: dict[str, Line], broken: set[str], name: Text, text: Text, report: Report) -> None:
    """Apply `replace: {name: text}`: `none` removes, a text with `: unit` defines, one without keeps unit and flags."""
    derivative = re.fullmatch(r"d(\w+)/dt", str(name))
    key = derivative[1] if derivative else str(name)
    old = lines.get(key)
    if text.strip() == "none":
        if old is None and key not in broken and "*" not in broken:
            expected, mend = expected_of(key, lines)
            report.add(REPLACE, name.at, f"`{key}: none` removes a variable that is not there", expected, mend)
        lines.pop(key, None)
        return
    if ":" in text:
        left = f"d{key}/dt" if derivative or (old and old.equation.kind is VariableKind.DIFFERENTIAL) else key
        is_parameter = re.match(r"\s*:", text) is not None
        own, unreadable = read_equations(text.same_place(f"{left} {'' if is_parameter else '='} {text}"), report)
        lines.update(own)
        broken |= unreadable
        return
    if old is None and key.endswith("_post"):
        try:
            parse(text)
        except ExpressionError as problem:
            report.add(EQUATION, text.at, problem.message, "", problem.mend)
            broken.add(key)
            return
        equation = Equation(
            key, VariableKind.SUBEXPRESSION, " ".join(text.split()), NO_UNIT, DIMENSIONLESS, ("summed",), text.at.line
        )
        lines[key] = Line(equation, text.at)
        return
    if old is None:
        if key not in broken and "*" not in broken:
            close = nearest(key, lines)
            mend = f"did you mean `{close}`?" if close else f'to add a variable, write `{key}: "{text} : unit"`'
            known = ", ".join(lines)
            report.add(REPLACE, name.at, f"`replace` names `{key}`, which is not there", f"one of {known}", mend)
        return
    kind = old.equation.kind
    left = f"d{key}/dt" if kind is VariableKind.DIFFERENTIAL else key
    flags = f" ({', '.join(old.equation.flags)})" if old.equation.flags else ""
    own, unreadable = read_equations(text.same_place(f"{left} = {text} : {old.equation.unit}{flags}"), report)
    lines.update(own)
    broken |= unreadable
    if unreadable:
        lines.pop(key, None)


def topology_of(doc: ObjectDoc, report: Report) -> tuple[str, Any] | None:
    """The topology that a document names, if any."""
    given = [key for key in TOPOLOGIES if getattr(doc, key) is not None]
    for key in ("dense", "one_to_one"):
        if key in given and not truth(getattr(doc, key), key, report):
            given.remove(key)
    if len(given) > 1:
        report.add(
            "topology",
            doc.place(given[1]),
            f"two topologies, `{given[0]}` and `{given[1]}`",
            "one",
            "remove one of them",
        )
    return (given[0], getattr(doc, given[0])) if given else None


def truth(text: Text | None, key: str, report: Report, default: bool = True) -> bool:
    """A switch: true or false."""
    if text is None:
        return default
    word = str(text).strip().lower()
    if word not in (*TRUE, *FALSE):
        report.add("unknown-word", text.at, f"`{key}: {text}`", *expected_of(word, ("true", "false")))
        return default
    return word in TRUE


def substituted(tree: Any, values: Mapping[str, str], skip: frozenset[str] = frozenset()) -> Any:
    """Put the values of loop variables (or of a snippet's arguments) into a raw tree.

    `$m` is replaced everywhere, `m` as a word of an expression in every value but those under the keys in `skip`.
    """
    dollar = re.compile(r"\$\{?(" + "|".join(map(re.escape, values)) + r")\}?(?![A-Za-z0-9])") if values else None
    word = re.compile(r"(?<![\w.$])(" + "|".join(map(re.escape, values)) + r")(?!\w)(?!\s*\()") if values else None

    def put(node: Any, words: bool) -> Any:
        if dollar is None or word is None:
            return node
        if isinstance(node, Map):
            return Map(
                {
                    key.same_place(dollar.sub(lambda m: values[m[1]], key)): put(value, words and str(key) not in skip)
                    for key, value in node.items()
                },
                node.at,
            )
        if isinstance(node, List):
            return List([put(item, words) for item in node], node.at)
        text = dollar.sub(lambda m: values[m[1]], node)
        return node.same_place(word.sub(lambda m: values[m[1]], text) if words else text)

    return put(tree, True)
