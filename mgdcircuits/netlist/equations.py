"""Equation blocks: Brian2's three kinds of line, and the flags that this package adds.

A block may be pasted from a Brian2 script. All problems of a block are gathered and raised together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mgdcircuits.netlist.functions import CONSTANTS, FUNCTIONS
from mgdcircuits.netlist.spec import Dimensions, VariableKind
from mgdcircuits.netlist.syntax import ExpressionError, is_identifier, names, nearest, parse, without_comments
from mgdcircuits.netlist.units import DIMENSIONLESS, lookup, parse_unit

DIFFERENTIAL, SUBEXPRESSION, PARAMETER = VariableKind.DIFFERENTIAL, VariableKind.SUBEXPRESSION, VariableKind.PARAMETER

FLAGS: dict[str, frozenset[VariableKind]] = {
    "unless refractory": frozenset({DIFFERENTIAL}),
    "event-driven": frozenset({DIFFERENTIAL}),
    "clock-driven": frozenset({DIFFERENTIAL}),
    "summed": frozenset({SUBEXPRESSION}),
    "constant over dt": frozenset({SUBEXPRESSION}),
    "constant": frozenset({PARAMETER}),
    "shared": frozenset({SUBEXPRESSION, PARAMETER}),
    "plastic": frozenset({PARAMETER}),
    "perturbation": frozenset({PARAMETER}),
    "per device": frozenset({SUBEXPRESSION, PARAMETER}),
    "per channel": frozenset(VariableKind),
    "per unit": frozenset(VariableKind),
    "per sample": frozenset(VariableKind),
    "per member": frozenset(VariableKind),
}
"""Each flag and the kinds of line that it may stand at. ``perturbation of NAME`` follows ``perturbation``."""

EXCLUSIVE = (
    ("plastic", "perturbation", "per device", "summed", "constant over dt"),
    ("plastic", "constant"),
    ("per unit", "per channel", "shared"),
    ("per sample", "per member"),
    ("event-driven", "clock-driven"),
    ("event-driven", "unless refractory"),
)
"""Groups of flags of which a line may have one."""

REFUSED = {
    "linked": (
        "the flag 'linked' is not available: replicas have no shared arrays to link to",
        "couple the two populations with one_to_one: true",
    )
}
TYPES = ("boolean", "integer")
"""What may stand in the place of a unit, as in Brian2; both are dimensionless."""

_RESERVED = frozenset({"t", "dt", "t_in_timesteps", "xi", "i", "j", "N"})
_DIFFERENTIAL = re.compile(r"\s*d\s*([A-Za-z_]\w*)\s*/\s*dt\s*\Z", re.ASCII)
_NEW_LINE = re.compile(r"\s*(d\s*[A-Za-z_]\w*\s*/\s*dt|[^\s=:()<>!+*/%-]+)\s*(=(?!=)|:)", re.ASCII)


@dataclass(frozen=True)
class Equation:
    """One line of an equation block.

    Parameters
    ----------
    name : str
    kind : VariableKind
    expression : str or None
        On one line and without comments; None for a parameter.
    unit : str
        As written, or ``"boolean"``, ``"integer"``.
    dimensions : Dimensions
    flags : tuple of str
        In order; ``"perturbation of b"`` is one flag.
    line : int
        Where the equation begins.
    """

    name: str
    kind: VariableKind
    expression: str | None
    unit: str
    dimensions: Dimensions
    flags: tuple[str, ...] = ()
    line: int = 1


class EquationError(ValueError):
    """Everything that is wrong in a block: `problems` holds (line, message, mend), in the order of the lines."""

    def __init__(self, problems: list[tuple[int, str, str]]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem[0])
        super().__init__("\n".join(f"{line}: {'; '.join(filter(None, rest))}" for line, *rest in self.problems))


def parse_equations(text: str, first_line: int = 1) -> list[Equation]:
    """Read an equation block.

    Parameters
    ----------
    text : str
        Lines ``dv/dt = expression : unit (flags)``, ``x = expression : unit (flags)``, ``w : unit (flags)``. An
        expression may go over several lines; ``#`` begins a comment.
    first_line : int
        The line of the file on which the block begins.

    Raises
    ------
    EquationError
        With all problems of the block.
    """
    equations: list[Equation] = []
    problems: list[tuple[int, str, str]] = []
    for line, raw in _logical_lines(text, first_line):
        try:
            equations.append(_equation(raw, line, problems))
        except ExpressionError as problem:
            problems.append((line, problem.message, problem.mend))
    problems += _joint_problems(equations)
    if problems:
        raise EquationError(problems)
    return equations


def _logical_lines(text: str, first_line: int) -> Iterator[tuple[int, str]]:
    """Yield each equation as one line of text, with the number of the line on which it begins."""
    pending, start = "", first_line
    for number, line in enumerate(without_comments(str(text)).split("\n"), first_line):
        stripped = line.strip()
        if not stripped:
            continue
        if pending and not _continues(pending, stripped):
            yield start, pending
            pending = ""
        if not pending:
            start = number
        pending = f"{pending} {stripped}".strip()
    if pending:
        yield start, pending


def _continues(pending: str, line: str) -> bool:
    """Whether `line` belongs to the equation that `pending` begins."""
    if ":" in pending:
        unit = pending.split(":", 1)[1].strip()
        return not unit or unit.count("(") > unit.count(")") or (line.startswith("(") and not unit.endswith(")"))
    new = _NEW_LINE.match(line)
    if new is None:
        return True
    if new[2] == "=":
        return False
    # `x = a +` followed by `b : 1` is one equation, `x = a` followed by `b : 1` is one without a unit and a parameter
    if "=" not in pending:
        return False
    try:
        parse(f"{pending.split('=', 1)[1]} {line.split(':', 1)[0]}")
    except ExpressionError:
        return False
    return True


def _equation(raw: str, line: int, problems: list[tuple[int, str, str]]) -> Equation:
    left, colon, right = raw.partition(":")
    if not colon:
        raise ExpressionError(f"{raw!r} has no unit", "end the line with ': volt' or another unit, ': 1' for a number")
    side = re.match(r"([^=<>!]*)(=)(?!=)(.*)\Z", left, re.DOTALL)
    name = (side[1] if side else left).strip()
    expression = " ".join(side[3].split()) if side else None
    derivative = _DIFFERENTIAL.match(name)
    kind = DIFFERENTIAL if derivative else SUBEXPRESSION if side else PARAMETER
    if derivative:
        name = derivative[1]
    _check_name(name, raw)
    if derivative and not side:
        raise ExpressionError(f"d{name}/dt has no right side", f"write d{name}/dt = expression : unit")
    if expression is not None:
        parse(expression)
    unit, flags = _unit_and_flags(right, name)
    dimensions = DIMENSIONLESS
    if unit not in TYPES:
        if unit in ("bool", "int", "float"):
            raise ExpressionError(f"{unit!r} is not a unit", "write boolean, integer, or 1 for a number")
        dimensions = parse_unit(unit, base_only=True)
    elif kind is DIFFERENTIAL:
        raise ExpressionError(f"{name} has a derivative and cannot be {unit}", f"write d{name}/dt = ... : 1")
    found = Equation(name, kind, expression, unit, dimensions, flags, line)
    problems.extend((line, *problem) for problem in _flag_problems(found))
    return found


def _check_name(name: str, raw: str) -> None:
    mend = f"choose another name, for example {'noise' if name.startswith('xi') else name}_"
    if "," in name and all(is_identifier(part.strip()) for part in name.split(",")):
        raise ExpressionError(f"{name!r} names several variables in one line", "write one line for each, as in Brian2")
    if not is_identifier(name):
        if re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ExpressionError(f"{name!r} is not available as a name, being a Python keyword or not ASCII", mend)
        what = f"{name!r} is not the name of a variable" if name else f"{raw!r} names no variable"
        raise ExpressionError(what, "write dNAME/dt = ... : unit, NAME = ... : unit, or NAME : unit")
    if name.startswith("_"):
        raise ExpressionError(
            f"{name!r} starts with an underscore, which is kept for internal names", f"write {name.lstrip('_') or 'x'}"
        )
    reason = None
    if name in _RESERVED or name.startswith("xi_"):
        reason = "has a meaning of its own in equations"
    elif name in CONSTANTS:
        reason = "is the name of a constant"
    elif name in FUNCTIONS:
        reason = "is the name of a function"
    elif lookup(name) is not None:
        reason = "is the name of a unit"
    if reason:
        raise ExpressionError(f"{name!r} {reason} and cannot name a variable", mend)


def _unit_and_flags(right: str, name: str) -> tuple[str, tuple[str, ...]]:
    """Split ``siemens/(metre**2) (constant)`` into unit and flags, a last bracket not after ``*`` or ``/``."""
    text = " ".join(right.split())
    if ":" in text:
        raise ExpressionError(
            f"{name} has a second ':' in {text!r}", "write one equation a line: NAME = expression : unit (flags)"
        )
    if text.count("(") != text.count(")"):
        raise ExpressionError(f"{name} ends in {text!r}, with a bracket that is open", "write NAME : unit (flag, flag)")
    match = re.fullmatch(r"(.*?)\s*\(([^()]*)\)", text)
    if not text:
        raise ExpressionError(f"{name} has no unit after ':'", "write ': volt' or another unit, ': 1' for a number")
    if match is None or (match[1] and match[1][-1] in "*/"):
        return text, ()
    unit, flags = match[1], tuple(" ".join(flag.split()) for flag in match[2].split(","))
    if not unit:
        raise ExpressionError(f"{name} has no unit after ':'", "write ': volt' or another unit, ': 1' for a number")
    if any(not flag for flag in flags):
        raise ExpressionError(f"{name} has an empty flag in {text!r}", "write NAME : unit (flag, flag)")
    return unit, flags


def _flag_problems(equation: Equation) -> Iterator[tuple[str, str]]:
    words = [_flag_word(flag) for flag in equation.flags]
    for flag, word in zip(equation.flags, words, strict=True):
        if word in REFUSED:
            yield REFUSED[word]
        elif word not in FLAGS:
            close = nearest(flag, FLAGS)
            yield f"unknown flag {flag!r}", f"did you mean {close!r}?" if close else f"known flags: {', '.join(FLAGS)}"
        elif equation.kind not in FLAGS[word]:
            fitting = " or ".join(sorted(f"a {kind.value}" for kind in FLAGS[word]))
            yield (
                f"the flag {flag!r} stands at a {equation.kind.value}; it belongs to {fitting}",
                f"remove it or make {equation.name} {fitting}",
            )
    for word in sorted({word for word in words if words.count(word) > 1}):
        yield f"the flag {word!r} stands twice at {equation.name}", "write it once"
    if "plastic" in words and "per sample" in words:
        yield "a plastic parameter per sample: the samples of a batch share what is learned", "remove `per sample`"
    for group in EXCLUSIVE:
        both = [word for word in group if word in words]
        if len(both) > 1:
            yield f"the flags {both[0]!r} and {both[1]!r} exclude each other", "keep one of them"
    paired = equation.name.endswith(("_pre", "_post"))
    if "summed" in words and not paired:
        yield (
            f"{equation.name} is summed, but its name does not say into what",
            f"write {equation.name}_post = ... (summed) to drive {equation.name} of the post-synaptic population",
        )
    elif paired and "summed" not in words:
        yield (
            f"the name {equation.name!r} ends as the name of another population's variable does",
            "add the flag (summed), or choose another name",
        )
    target = _perturbed(equation.flags)
    if target is not None and (not is_identifier(target) or target == equation.name):
        yield (
            f"{target!r} is not the name of another variable",
            "write (perturbation of NAME) with the name of a plastic one",
        )


def _flag_word(flag: str) -> str:
    return "perturbation" if flag.startswith("perturbation of ") else flag


def _perturbed(flags: tuple[str, ...]) -> str | None:
    for flag in flags:
        if flag.startswith("perturbation of "):
            return flag.removeprefix("perturbation of ").strip()
    return None


def _joint_problems(equations: list[Equation]) -> Iterator[tuple[int, str, str]]:
    """Yield what concerns several lines: names defined twice, and Brian2's rules for the noise `xi`."""
    first: dict[str, int] = {}
    noisy: dict[str, str] = {}
    for equation in equations:
        if equation.name in first:
            mend = "remove one or rename it"
            yield equation.line, f"{equation.name} is defined a second time, first in line {first[equation.name]}", mend
        first.setdefault(equation.name, equation.line)
        for name in sorted(names(equation.expression)) if equation.expression else ():
            if name != "xi" and not name.startswith("xi_"):
                continue
            if equation.kind is not DIFFERENTIAL:
                what = f"{equation.name} uses the noise {name}, but is not a differential equation"
                yield equation.line, what, f"write randn() here, or put {name} into a differential equation"
            elif name == "xi" and name in noisy:
                what = f"{equation.name} uses the noise xi, which {noisy[name]} uses as well"
                yield (
                    equation.line,
                    what,
                    f"write xi_{equation.name}: another name is independent noise, the same name the same",
                )
            noisy.setdefault(name, equation.name)
