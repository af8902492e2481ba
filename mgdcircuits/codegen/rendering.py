"""Rendering of expressions and statements: Brian2's renderers, with our names for functions."""

from __future__ import annotations

import ast
import threading

from mgdcircuits.circuit.brian2_import import import_brian2

import_brian2()
from brian2.codegen.generators.cpp_generator import CPPNodeRenderer  # noqa: E402
from brian2.parsing.rendering import NumpyNodeRenderer  # noqa: E402

CPP_NAMES = {"int": "int_"}
_lock = threading.Lock()


class _Numpy(NumpyNodeRenderer):
    def render_func(self, node):
        return {"int": "int_", "min": "minimum", "max": "maximum"}.get(node.id, node.id)

    def render_BinOp(self, node):  # noqa: N802, Brian2's naming
        if isinstance(node.op, ast.Pow):
            return f"power({self.render_node(node.left)}, {self.render_node(node.right)})"
        return super().render_BinOp(node)


class _Cpp(CPPNodeRenderer):
    def render_func(self, node):
        return CPP_NAMES.get(node.id, node.id)

    def render_BinOp(self, node):  # noqa: N802, Brian2's naming
        if isinstance(node.op, ast.Div):
            # Brian2 writes 1.0f, against the division of whole numbers; then 1/3 would have seven digits in float64 too
            return f"1.0*{self.render_element_parentheses(node.left)}/{self.render_element_parentheses(node.right)}"
        if isinstance(node.op, ast.Add | ast.Sub) and _is_product(node.left) and _is_product(node.right):
            # a*b + c*d may be fused in two ways, and a compiler chooses afresh in every loop: the right product is rounded
            sign = "+" if isinstance(node.op, ast.Add) else "-"
            return f"{self.render_element_parentheses(node.left)} {sign} rounded({self.render_node(node.right)})"
        return super().render_BinOp(node)

    def render_Constant(self, node):  # noqa: N802, Brian2's naming
        if isinstance(node.value, float):
            return repr(node.value) if node.value not in (float("inf"), float("-inf")) else "INFINITY"
        return super().render_Constant(node)


def _is_product(node: ast.AST) -> bool:
    while isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)


def numpy_expression(text: str) -> str:
    """An expression as Python code for numpy arrays."""
    with _lock:
        return _Numpy(auto_vectorise=set()).render_expr(text)


def cpp_expression(text: str) -> str:
    """An expression as C++."""
    with _lock:
        return _Cpp(auto_vectorise=set()).render_expr(text)


def names(text: str) -> set[str]:
    """Variables of an expression (functions left out)."""
    tree = ast.parse(text.strip(), mode="eval")
    functions = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in functions}
