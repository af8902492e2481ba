"""Is an expression linear in some names? Then its mean over the batch is the expression of their means."""

from __future__ import annotations

import ast
from collections.abc import Callable


def split(text: str, is_replica: Callable[[str], bool], prefix: str) -> tuple[str, dict[str, str]]:
    """Replace the largest subexpressions that read per-replica names only (and numbers).

    Returns
    -------
    text, parts
        The expression with parts replaced by ``prefix0``, ``prefix1``..., and what each stands for.
    """
    parts: dict[str, str] = {}

    def kind(node: ast.AST) -> set[bool]:
        return {is_replica(n.id) for n in ast.walk(node) if isinstance(n, ast.Name) and not _is_function(n, node)}

    def visit(node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant):
            return node
        if kind(node) == {True}:
            name = next((k for k, v in parts.items() if v == ast.unparse(node)), f"{prefix}{len(parts)}")
            parts[name] = ast.unparse(node)
            return ast.Name(name)
        for field, value in ast.iter_fields(node):
            if field == "func":
                continue
            if isinstance(value, ast.expr):
                setattr(node, field, visit(value))
            elif isinstance(value, list):
                setattr(node, field, [visit(v) if isinstance(v, ast.expr) else v for v in value])
        return node

    tree = ast.parse(text, mode="eval").body
    return ast.unparse(visit(tree)), parts


def _is_function(name: ast.Name, root: ast.AST) -> bool:
    return any(isinstance(n, ast.Call) and n.func is name for n in ast.walk(root))


def degree(text: str, names: set[str]) -> float:
    """Polynomial degree in `names` together; infinite where the expression is no polynomial in them."""

    def of(node: ast.AST) -> float:
        match node:
            case ast.Name(id=name):
                return 1 if name in names else 0
            case ast.Constant():
                return 0
            case ast.UnaryOp(operand=operand, op=ast.USub() | ast.UAdd()):
                return of(operand)
            case ast.BinOp(left=left, right=right, op=op):
                a, b = of(left), of(right)
                if isinstance(op, ast.Add | ast.Sub):
                    return max(a, b)
                if isinstance(op, ast.Mult):
                    return a + b
                if isinstance(op, ast.Div) and b == 0:
                    return a
                return 0 if a == b == 0 else float("inf")
        children = [of(c) for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr)]
        return 0 if not any(children) else float("inf")

    return of(ast.parse(text, mode="eval").body)
