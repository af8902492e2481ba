"""Library snippets: named expressions with parameters, put in the place of their calls."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field

from mgdcircuits.netlist.syntax import ExpressionError, nearest, parse, substitute, text, text_of_composed


@dataclass(frozen=True)
class Macro:
    """A library snippet that stands for an expression (or, read by others, for a block of statements).

    Parameters
    ----------
    name : str
    parameters : tuple of str
        In order.
    defaults : mapping
        The text of a parameter that a call may leave out.
    body : str
    """

    name: str
    parameters: tuple[str, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True)
class Call:
    """A call taken apart: ``momentum(gamma=0.9)``."""

    name: str
    arguments: tuple[str, ...] = ()
    keywords: Mapping[str, str] = field(default_factory=dict)


def parse_call(call: str) -> Call:
    """Take a single call apart; a bare name is a call without arguments."""
    node = parse(call)
    if isinstance(node, ast.Name):
        return Call(node.id)
    if not isinstance(node, ast.Call):
        raise ExpressionError(f"found {call!r} where a call was expected", "write NAME or NAME(arguments)")
    return _call(node)


def _call(node: ast.Call) -> Call:
    assert isinstance(node.func, ast.Name)
    keywords = {str(word.arg): text(word.value) for word in node.keywords}
    return Call(node.func.id, tuple(text(argument) for argument in node.args), keywords)


def bind(macro: Macro, call: Call) -> dict[str, str]:
    """Return the text of each parameter of a snippet in a call.

    Raises
    ------
    ExpressionError
        If an argument is missing, unknown, given twice, or one too many.
    """
    signature = f"{macro.name}({', '.join(macro.parameters)})"
    if len(call.arguments) > len(macro.parameters):
        raise ExpressionError(
            f"{macro.name} takes at most {len(macro.parameters)} arguments, found {len(call.arguments)}",
            f"write {signature}",
        )
    bound = dict(zip(macro.parameters, call.arguments, strict=False))
    for name, value in call.keywords.items():
        if name not in macro.parameters:
            close = nearest(name, macro.parameters)
            raise ExpressionError(
                f"{macro.name} has no argument {name!r}", f"did you mean {close!r}?" if close else f"write {signature}"
            )
        if name in bound:
            raise ExpressionError(f"the argument {name!r} of {macro.name} is given twice", f"write {signature}")
        bound[name] = value
    for name in macro.parameters:
        if name not in bound:
            if name not in macro.defaults:
                raise ExpressionError(f"{macro.name} needs the argument {name!r}", f"write {signature}")
            bound[name] = str(macro.defaults[name])
    return bound


def expand_calls(text: str, macros: Mapping[str, Macro]) -> str:
    """Replace every call of a snippet by its text, inside out; snippets may call snippets.

    Raises
    ------
    ExpressionError
        If the arguments do not fit, or a snippet calls itself.
    """
    return text_of_composed(_Expansion(macros, ()).visit(parse(text)))


class _Expansion(ast.NodeTransformer):
    def __init__(self, macros: Mapping[str, Macro], active: tuple[str, ...]) -> None:
        self.macros = macros
        self.active = active

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.args = [self.visit(argument) for argument in node.args]
        for word in node.keywords:
            word.value = self.visit(word.value)
        macro = self.macros.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if macro is None:
            return node
        if macro.name in self.active:
            raise ExpressionError(
                f"the snippet {macro.name!r} calls itself ({' -> '.join([*self.active, macro.name])})",
                "write its body without it",
            )
        body = parse(substitute(macro.body, bind(macro, _call(node))))
        return _Expansion(self.macros, (*self.active, macro.name)).visit(body)
