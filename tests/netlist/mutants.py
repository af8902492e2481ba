"""Single-token mutants of a netlist: one identifier is misspelt, and the message must find it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mgdcircuits.errors import NetlistError, Problem

FREE = ("circuit", "include")
"""Keys whose values are names that nothing else uses."""


@dataclass(frozen=True)
class Mutant:
    """A netlist in which the token at `line` was changed."""

    text: str
    line: int
    token: str

    def __str__(self) -> str:
        return f"{self.line}:{self.token}"


def mutants(text: str) -> Iterator[Mutant]:
    """Misspell each identifier of two or more letters that stands in no comment."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        code = line.split(" #")[0] if not line.lstrip().startswith("#") else ""
        if code.split(":")[0].strip() in FREE:
            continue
        for found in re.finditer(r"(?<![\w.$])[A-Za-z_]\w+", code):
            token = found[0]
            wrong = f"{token[:-1]}{'q' if token[-1] != 'q' else 'z'}{token[-1]}"
            changed = [*lines]
            changed[number] = line[: found.start()] + wrong + line[found.end() :]
            yield Mutant("\n".join(changed), number + 1, token)


def points_at(problem: Problem, mutant: Mutant) -> bool:
    """Whether a message leads to the mutated token.

    Either it names the line of the token (or the first line of its equation, or of the block it stands in), or, where
    the definition of a name was changed, a line that uses the name or a message that says it.
    """
    lines = mutant.text.split("\n")
    if problem.line == mutant.line or not 0 < problem.line <= len(lines):
        return True
    if problem.line < mutant.line and _is_continued(lines, problem.line, mutant.line):
        return True
    words = set(re.findall(r"[A-Za-z_]\w*", lines[problem.line - 1])) | set(re.findall(r"[A-Za-z_]\w*", str(problem)))
    parts = {part for word in words for part in (word, *word.split("_"))}
    if mutant.token.startswith("d") and mutant.token[1:] in parts:
        return True  # dv/dt defines v
    return mutant.token in parts or any(
        w.startswith(f"{mutant.token}_") or w.endswith(f"_{mutant.token}") for w in words
    )


def _is_continued(lines: list[str], first: int, last: int) -> bool:
    """Whether the lines from `first` to `last` are one equation or one value."""
    between = "\n".join(lines[first - 1 : last])
    return between.count("(") > between.count(")") - 1 and between.count(" : ") <= 1


def lead_to(error: NetlistError, mutant: Mutant) -> bool:
    """Whether one of the messages points at the mutated token."""
    return any(points_at(problem, mutant) for problem in error.problems)
