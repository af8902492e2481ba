"""What became of the requests of a rule: how many a device rounded to nothing, clipped, or was too worn to take."""

from __future__ import annotations

import ast

from mgdcircuits.netlist.expressions import names
from mgdcircuits.netlist.statements import Statement, parse_statements

REQUESTED, ROUNDED, CLIPPED, STUCK = "_requested", "_rounded", "_clipped", "_stuck"
COUNTERS = (REQUESTED, ROUNDED, CLIPPED, STUCK)
"""Arrays of each device: its requests other than zero, and those that came to nothing, each for the first of the reasons
stuck, clipped, rounded."""


def has_outcomes(on_write: str, parameter: str) -> bool:
    """Whether a write may be anything else than the change that was asked for."""
    return not any(s.target == parameter and s.value == f"{parameter} + request" for s in parse_statements(on_write))


def with_outcomes(on_write: str, parameter: str) -> list[Statement]:
    """The statements of a write, and what counts its outcome.

    *Stuck*: the device had used up its endurance. *Clipped*: a `clip` changed what it was given. *Rounded*: else, and the
    device is as it was.
    """
    written = parse_statements(on_write)
    worn = _worn(written)
    clips: list[str] = []
    found = [Statement("_before", "=", parameter)]
    for statement in written:
        taken = _Clips(len(clips))
        value = ast.unparse(taken.visit(ast.parse(statement.value, mode="eval")))
        found += taken.statements
        clips += taken.changed
        found.append(Statement(statement.target, "=", value))
    asked = "int(request != 0)" if worn is None else f"int(request != 0)*(1 - {worn})"
    changed = f"int({' + '.join(clips)} > 0)" if clips else "0"
    found += [
        Statement("_changed", "=", changed),
        Statement("_taken", "=", asked),
        Statement(REQUESTED, "=", f"{REQUESTED} + int(request != 0)"),
        Statement(CLIPPED, "=", f"{CLIPPED} + _taken*_changed"),
        Statement(ROUNDED, "=", f"{ROUNDED} + _taken*(1 - _changed)*int({parameter} == _before)"),
    ]
    if worn is not None:
        found.append(Statement(STUCK, "=", f"{STUCK} + int(request != 0)*{worn}"))
    return found


def _worn(statements: list[Statement]) -> str | None:
    """The local that says whether a device is stuck, where an endurance is declared: see `updates.worn_out`."""
    first = statements[0]
    return first.target if first.target.startswith("worn") and "writes" in names(first.value) else None


class _Clips(ast.NodeTransformer):
    """Gives every `clip` a statement of its own, and one that says whether it changed anything."""

    def __init__(self, first: int) -> None:
        self.number = first
        self.statements: list[Statement] = []
        self.changed: list[str] = []

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802, ast's naming
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id == "clip"):
            return node
        given, made, changed = (f"_{word}_{self.number}" for word in ("given", "clip", "changed"))
        self.number += 1
        bounds = ", ".join(ast.unparse(a) for a in node.args[1:])
        self.statements += [
            Statement(given, "=", ast.unparse(node.args[0])),
            Statement(made, "=", f"clip({given}, {bounds})"),
            Statement(changed, "=", f"int({made} != {given})"),
        ]
        self.changed.append(changed)
        return ast.Name(made)
