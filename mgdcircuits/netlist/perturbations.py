"""Which perturbations a learning system drives, with what, and in which blocks."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from mgdcircuits.netlist import library
from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import reading_rule
from mgdcircuits.netlist.document import LearningDoc
from mgdcircuits.netlist.expressions import (
    FUNCTIONS,
    ExpressionError,
    calls,
    evaluate,
    expand_calls,
    is_identifier,
    names,
    nearest,
    substitute,
)
from mgdcircuits.netlist.inference import with_unit
from mgdcircuits.netlist.kinds import expected_of
from mgdcircuits.netlist.objects import Objects, said
from mgdcircuits.netlist.parameters import SECOND, Parameters
from mgdcircuits.netlist.source import Text
from mgdcircuits.netlist.spec import (
    Dimensions,
    Perturb,
    Position,
    Role,
    Variable,
)
from mgdcircuits.netlist.units import DIMENSIONLESS

NOT_A_PERTURBATION = reading_rule("not-a-perturbation", "`perturb` drives variables with the flag (perturbation)")
UNKNOWN_OBJECT = reading_rule("unknown-object", "`of`, `blocks` and `plastic` must name populations or couplings")
BLOCKS = reading_rule("blocks", "every driven perturbation belongs to one block")
PASSES = reading_rule("passes", "a pass has a constant factor on the perturbation, and a name")
CODE_UNITS = reading_rule("code-units", "a code must have the unit of the perturbation that it drives")
CODE_WORDS: dict[str, Dimensions] = {"element": DIMENSIONLESS}
WORDS_OF_A_DRAW = ("n_p", "t")


class Perturbations:
    """Reads `passes` and `perturb` of a learning system."""

    def __init__(self, objects: Objects, expressions: Expressions) -> None:
        self.objects = objects
        self.expressions = expressions
        self.report = expressions.report
        self.parameters: Parameters = expressions.parameters

    def passes(self, doc: LearningDoc) -> tuple[tuple[str, float], ...]:
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
        elif (
            found
            and not any(factor for _, factor in found)
            and len(found) == len(doc.passes)
            and doc.perturb is not None
        ):
            self.report.add(
                PASSES,
                doc.place("passes"),
                "no pass applies the perturbation: every factor is 0",
                "a factor that is not 0",
                "write for example `passes: {clean: 0, plus: 1}`",
            )
        return tuple(found)

    def perturb(self, doc: LearningDoc, passes: tuple[tuple[str, float], ...]) -> Perturb | None:
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
                if str(key) in (v.name, f"{t.name}.{v.name}")
                and (inside is None or t.name in inside or f"{t.name}.{v.name}" in inside)
            ]
            driven = [m for m in matches if m[2].role is Role.PERTURBATION]
            at = getattr(key, "at", doc.perturb.place(str(key)))
            if not driven and inside == set():
                continue  # `of` names nothing that is there
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
            role = said(matches[0][2].role)
            found = f"`perturb` drives `{key}`, which is {role} of `{matches[0][1].name}`"
            self.report.add(
                NOT_A_PERTURBATION,
                at,
                found,
                "a variable with the flag (perturbation)",
                f"write `{key} : {matches[0][2].unit} (perturbation)`",
            )
        elif not any("*" in b or key in b for b in self.objects.broken.values()) and not self.objects.lost:
            close = nearest(key, words | {"every", "of", "blocks"})
            found = f"`perturb` drives `{key}`, which no object has" + (" among those in `of`" if limited else "")
            expected = f"one of {', '.join(sorted(words))}" if words else "a variable with the flag (perturbation)"
            self.report.add(NOT_A_PERTURBATION, at, found, expected, f"did you mean `{close}`?" if close else "")

    def _code(
        self, key: str, code: Text, thing: Any, variable: Variable | None, passes: tuple[tuple[str, float], ...]
    ) -> str | None:
        """The code with snippets and `scale` written out; its unit is that of the variable.

        `n_p` and `t` in the code itself are those of its draw. In the formula of a parameter they are those of the present
        iteration, as they are in an estimate, which divides by the same parameter.
        """
        try:
            expanded = expand_calls(library.plain_codes(code), library.codes())
        except ExpressionError as problem:
            self.report.add("expression", code.at, f"the code of `{key}`: {problem.message}", "", problem.mend)
            return None
        unknown = sorted(calls(expanded) - set(FUNCTIONS) - set(library.codes()))
        for name in unknown:
            pool = [*library.codes(), *FUNCTIONS]
            close = nearest(name, pool)
            mend = f"did you mean `{close}`?" if close else f"one of {', '.join(library.codes())}"
            found = f"the code of `{key}`: unknown function `{name}`"
            self.report.add("unknown-name", code.at, found, "a code of the library or a function", mend)
        if thing is None or variable is None or unknown:
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
                    "unknown-name",
                    code.at,
                    f"the code of `{key}` names `scale`, but `{thing.name}.{variable.name}` belongs "
                    "to no plastic parameter",
                    "a size with a unit",
                    f"write the size itself, or `scale: {{{key}: ...}}` in the kind",
                )
                return None
        self.expressions.check(
            expanded,
            code.at,
            scope,
            f"the code of `{key}`",
            dims,
            other=f", the unit of `{thing.name}.{variable.name}`",
            rule="code-units",
        )
        if scale is not None:
            expanded = substitute(expanded, {"scale": with_unit(scale, dims)})
        own = {variable.name for variable in thing.variables}
        words = {word: f"{word}.draw" for word in WORDS_OF_A_DRAW if word not in own}
        return self.parameters.finish(substitute(expanded, words), set(scope) - {"t"})

    def _objects_named(self, given: Any) -> set[str] | None:
        """The objects (or qualified names) that a list of names stands for; None for all."""
        if given is None or (len(given) == 1 and str(given[0]) == "all"):
            return None
        found: set[str] = set()
        for word in given:
            found |= set(self.named(word))
        return found

    def named(self, word: Text) -> list[str]:
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
                pool = [t.name for t in self.objects.every()] + [
                    c.key for c in self.objects.couplings.values() if c.key
                ]
                if "." in key:
                    pool = list(self.objects.variables())
                expected, mend = expected_of(key, pool)
                self.report.add(
                    UNKNOWN_OBJECT, word.at, f"`{word}` names no population, coupling or variable", expected, mend
                )
        return list(dict.fromkeys(things))

    def _blocks(self, doc: LearningDoc, driven: list[str]) -> tuple[tuple[str, ...], ...]:
        assert doc.perturb is not None
        given = doc.perturb.blocks
        if given is None or isinstance(given, Text) and str(given) == "all":
            return (tuple(driven),) if driven else ()
        if isinstance(given, Text):
            if str(given) != "layer":
                expected, mend = expected_of(str(given), ("all", "layer"))
                self.report.add(
                    BLOCKS, given.at, f"`blocks: {given}`", expected + ", or a list of lists of names", mend
                )
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
                things = set(self.named(word))
                incoming = {c.name for c in self.objects.couplings.values() if c.post in things}
                listed = {str(w) for g in given for w in g}
                wanted = things | {c for c in incoming if c not in listed}
                chosen = [q for q in driven if (q.partition(".")[0] in wanted or q in things) and q not in taken]
                block += chosen
                taken.update(chosen)
                if things and not chosen and driven:
                    self.report.add(
                        BLOCKS, word.at, f"nothing of `{word}` is left to perturb in this block", "each name once"
                    )
            if block:
                blocks.append(tuple(block))
        missing = [q for q in driven if q not in taken]
        if missing and not len(self.report):
            listed_ = ", ".join(f"`{q}`" for q in missing)
            self.report.add(
                BLOCKS, given.at, f"{listed_} in no block", "all that `perturb` drives", "add a block, or limit `of`"
            )
        return tuple(blocks)

    def _layer(self, qualified: str) -> str:
        name = qualified.partition(".")[0]
        if name in self.objects.populations:
            return name
        return self.objects.couplings[name].post
