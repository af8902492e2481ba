"""Split an expression by what its parts depend on, so that a loop evaluates each part once.

In ``(w + theta)*sinh(x_pre/a)*a`` the first factor depends on the synapse alone and the second on the pre-synaptic side
alone; evaluated beforehand, what is left for the innermost loop is a multiply-add.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable


def split(
    text: str, kind_of: Callable[[str], Hashable | None], prefix: str
) -> tuple[str, dict[str, tuple[Hashable, str]]]:
    """Take out the largest non-trivial parts whose names are all of one kind.

    Parameters
    ----------
    text
        An expression.
    kind_of
        The kind of a name; names of kind ``"uniform"`` (and numbers) go with any other; None is never taken out.
    prefix
        Parts are called ``prefix0``, ``prefix1``, ...

    Returns
    -------
    text, parts
        The expression with parts replaced, and (kind, expression) of each.
    """
    parts: dict[str, tuple[Hashable, str]] = {}

    def kinds(node: ast.AST) -> set:
        if isinstance(node, ast.Constant):
            return {"uniform"}
        if isinstance(node, ast.Name):
            return {kind_of(node.id)}
        children = [c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr)]
        if isinstance(node, ast.Call):
            children = node.args
        return set().union(*(kinds(c) for c in children)) if children else set()

    def visit(node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Name | ast.Constant):
            return node
        found = kinds(node) - {"uniform"}
        if not found or (len(found) == 1 and None not in found):
            kind = next(iter(found), "uniform")
            written = ast.unparse(node)
            if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
                return node
            name = next((k for k, v in parts.items() if v == (kind, written)), f"{prefix}{len(parts)}")
            parts[name] = (kind, written)
            return ast.Name(name)
        for field, value in ast.iter_fields(node):
            if field == "func":
                continue
            if isinstance(value, ast.expr):
                setattr(node, field, visit(value))
            elif isinstance(value, list):
                setattr(node, field, [visit(v) if isinstance(v, ast.expr) else v for v in value])
        return node

    tree = visit(ast.parse(text.strip(), mode="eval").body)
    return ast.unparse(tree), parts
