"""Blocks of statements: `reset`, `on_pre`, `on_post`, `on_write`, `update` and optimizer snippets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mgdcircuits.netlist import units
from mgdcircuits.netlist.functions import CONSTANTS, FUNCTIONS
from mgdcircuits.netlist.syntax import ExpressionError, is_identifier, parse, substitute, without_comments

_STATEMENT = re.compile(r"\s*([^\s=+\-*/%<>&|^!@]+)\s*(\*\*|//|<<|>>|[-+*/%&|^@])?=(?!=)(.*)\Z", re.DOTALL)
OPERATORS = ("=", "+=", "-=", "*=", "/=", "//=", "%=", "**=")


@dataclass(frozen=True)
class Statement:
    """``target operator expression``, for example ``s += 1``.

    Parameters
    ----------
    target : str
    operator : str
        One of `OPERATORS`.
    expression : str
        The right side, as written (on one line, without comments).
    line_offset : int
        The line in the block, counted from zero.
    """

    target: str
    operator: str
    expression: str
    line_offset: int = 0

    @property
    def value(self) -> str:
        """The new value of the target as an expression: ``s + 1`` for ``s += 1``."""
        if self.operator == "=":
            return self.expression
        return substitute(f"{self.target} {self.operator[:-1]} _right", {"_right": self.expression})

    def __str__(self) -> str:
        return f"{self.target} {self.operator} {self.expression}"


def parse_statements(text: str) -> list[Statement]:
    """Take a block apart: one statement a line, or several with ``;``; an open bracket continues on the next line.

    Raises
    ------
    ExpressionError
        With `line_offset` set to the line of the statement that cannot be read.
    """
    statements = []
    for offset, code in _split(str(text)):
        try:
            statements.append(_statement(code, offset))
        except ExpressionError as problem:
            problem.line_offset = offset
            raise
    return statements


def _split(text: str) -> list[tuple[int, str]]:
    pieces: list[tuple[int, str]] = []
    pending = ""
    start = 0
    for offset, line in enumerate(without_comments(text).split("\n")):
        for piece in line.split(";"):
            if not pending:
                start = offset
            pending = f"{pending} {piece.strip()}".strip()
            if pending and pending.count("(") <= pending.count(")"):
                pieces.append((start, pending))
                pending = ""
    return pieces + ([(start, pending)] if pending else [])


def _statement(code: str, offset: int) -> Statement:
    match = _STATEMENT.match(code)
    if match is None:
        raise ExpressionError(
            f"found {code!r} where a statement was expected", "write NAME = expression or NAME += expression"
        )
    target, operator, expression = match[1], (match[2] or "") + "=", " ".join(match[3].split())
    if operator not in OPERATORS:
        raise ExpressionError(
            f"the operator {operator!r} is not part of the language", f"use one of {' '.join(OPERATORS)}"
        )
    if not is_identifier(target):
        raise ExpressionError(f"cannot assign to {target!r}", "the left side must be the name of a variable")
    what = (
        "function"
        if target in FUNCTIONS
        else "constant"
        if target in CONSTANTS
        else "unit"
        if units.lookup(target)
        else None
    )
    if what is not None:
        raise ExpressionError(
            f"cannot assign to {target!r}, the name of a {what}", f"choose another name, for example {target}_"
        )
    parse(expression)
    return Statement(target, operator, expression, offset)


def substitute_statements(text: str, mapping: Mapping[str, str]) -> str:
    """Put expressions in the place of names on the right sides, one statement a line.

    A target is renamed where its replacement is a name.

    Raises
    ------
    ExpressionError
        If a target would be replaced by something that is not a name.
    """
    lines = []
    for statement in parse_statements(text):
        target = mapping.get(statement.target, statement.target)
        if not is_identifier(target):
            raise ExpressionError(
                f"cannot assign to {statement.target!r}, which stands for {target!r}",
                "assign to a variable",
                statement.line_offset,
            )
        lines.append(f"{target} {statement.operator} {substitute(statement.expression, mapping)}")
    return "\n".join(lines)
