"""Split an expression by what its parts depend on, so that a loop evaluates each part once.

In ``(w + theta)*sinh(x_pre/a)*a`` the first factor depends on the synapse alone and the second on the pre-synaptic side
alone; evaluated beforehand, what is left for the innermost loop is a multiply-add.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable, Iterable, Sequence

from mgdcircuits.circuit.program import (
    Between,
    Copy,
    Elements,
    Every,
    Node,
    Precision,
    Program,
    Read,
    Ticks,
    steps,
)
from mgdcircuits.netlist.spec import Sharing


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


def multiplied(text: str, kind_of: Callable[[str], Hashable | None]) -> str:
    """Divisions by numbers that are the same everywhere as multiplications, in an expression without jumps.

    Where what varies goes through steps (``floor``, comparisons), the last digit may decide, and the expression stays.
    """
    tree = ast.parse(text.strip(), mode="eval").body

    def varies(node: ast.AST) -> bool:
        functions = {n.func for n in ast.walk(node) if isinstance(n, ast.Call)}
        variables = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n not in functions}
        return any(kind_of(n) != "uniform" for n in variables)

    steps = ast.Call | ast.Compare | ast.Mod | ast.FloorDiv | ast.BoolOp
    if any(isinstance(n, steps) and varies(n) for n in ast.walk(tree)):
        return text

    class Multiply(ast.NodeTransformer):
        def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
            self.generic_visit(node)
            if isinstance(node.op, ast.Div) and not varies(node.right):
                return ast.BinOp(node.left, ast.Mult(), ast.BinOp(ast.Constant(1.0), ast.Div(), node.right))
            return node

    return ast.unparse(ast.fix_missing_locations(Multiply().visit(tree)))


def is_cheap(text: str) -> bool:
    """Whether an expression has sums, differences and products only, and at most two names."""
    nodes = list(ast.walk(ast.parse(text.strip(), mode="eval").body))
    allowed = ast.BinOp | ast.Name | ast.Constant | ast.Add | ast.Sub | ast.Mult | ast.Load
    return all(isinstance(n, allowed) for n in nodes) and len({n.id for n in nodes if isinstance(n, ast.Name)}) <= 2


def increments(kernel: Elements, statements: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Integer arrays that a kernel only adds to, and what it adds."""
    found = {}
    for name, array in kernel.writes.items():
        if array.precision is not Precision.INTEGER:
            continue
        (text, *others) = [e for t, e in statements if t == name]
        tree = ast.parse(text, mode="eval").body
        read = sum(n.id == name for _, e in statements for n in ast.walk(ast.parse(e)) if isinstance(n, ast.Name))
        if others or read != 1 or not isinstance(tree, ast.BinOp) or not isinstance(tree.op, ast.Add):
            continue
        if ast.unparse(tree.left) == name:
            found[name] = ast.unparse(tree.right)
    return found


def size_of_sign(text: str, draw: str) -> str | None:
    """The name ``a`` where an expression is ``a*(2*draw - 1)``."""
    match ast.parse(text.strip(), mode="eval").body:
        case ast.BinOp(
            ast.Name(size),
            ast.Mult(),
            ast.BinOp(ast.BinOp(ast.Constant(2), ast.Mult(), ast.Name(name)), ast.Sub(), ast.Constant(1)),
        ) if name == draw != size:
            return size
    return None


def counted(program: Program) -> set[str]:
    """Integer arrays that are read by nobody and to which an update adds one or nothing."""
    found: set[str] = set()
    read = {source for nodes in program.phases().values() for source in _copied(nodes)}
    for step in (s for nodes in program.phases().values() for s in steps(nodes)):
        added: dict[str, str] = {}
        if isinstance(step.kernel, Elements) and step.kernel.sharing is Sharing.MEMBER:
            added = increments(step.kernel, [(s.target, s.expression) for s in step.kernel.statements])
        for name, operand in step.kernel.operands.items():
            if isinstance(operand, Read) and name not in added:
                read.add(operand.array.name)
        for name, text in added.items():
            tree = ast.parse(text, mode="eval").body
            whole = (
                isinstance(tree, ast.Call) and ast.unparse(tree.func) == "int" and isinstance(tree.args[0], ast.Compare)
            )
            (found if whole else read).add(step.kernel.writes[name].name)
    return found - read


def _copied(nodes: Iterable[Node]) -> Iterable[str]:
    for node in nodes:
        if isinstance(node, Copy):
            yield node.source
        elif isinstance(node, Every | Ticks | Between):
            yield from _copied(node.body)


def without(text: str, zero: set[str]) -> str:
    """An expression in which some names are zero, as far as sums and differences tell."""

    class Drop(ast.NodeTransformer):
        def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
            self.generic_visit(node)
            if isinstance(node.op, ast.Add | ast.Sub) and isinstance(node.right, ast.Name) and node.right.id in zero:
                return node.left
            if isinstance(node.op, ast.Add) and isinstance(node.left, ast.Name) and node.left.id in zero:
                return node.right
            return node

    return ast.unparse(Drop().visit(ast.parse(text.strip(), mode="eval").body))
