"""Is an expression linear in some names? Then its mean over the batch is the expression of their means."""

from __future__ import annotations

import ast
from collections.abc import Callable


def split(text: str, is_replica: Callable[[str], bool], prefix: str) -> tuple[str, dict[str, str]]:
    """Replace the largest subexpressions that read per-replica names only (and numbers); factors of a product are one.

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
        factors = _factors(node)
        mine = [f for f in factors if kind(f[0]) == {True}]
        if 1 < len(mine) < len(factors):
            return ast.BinOp(visit(_product([f for f in factors if f not in mine])), ast.Mult(), visit(_product(mine)))
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


def _factors(node: ast.expr, inverse: bool = False) -> list[tuple[ast.expr, bool]]:
    """The factors of a product, each with whether it divides."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        return _factors(node.left, inverse) + _factors(node.right, inverse != isinstance(node.op, ast.Div))
    return [(node, inverse)]


def _product(factors: list[tuple[ast.expr, bool]]) -> ast.expr:
    made: ast.expr | None = None
    for factor, inverse in sorted(factors, key=lambda f: f[1]):  # what divides comes last
        if made is None:
            made = ast.BinOp(ast.Constant(1), ast.Div(), factor) if inverse else factor
        else:
            made = ast.BinOp(made, ast.Div() if inverse else ast.Mult(), factor)
    assert made is not None
    return made


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
