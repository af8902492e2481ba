"""Units of names that are assigned from each other: optimizer states, signals with memory."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from mgdcircuits.netlist.expressions import (
    ExpressionError,
    dimensions,
    parse,
    text,
)
from mgdcircuits.netlist.parameters import Parameters
from mgdcircuits.netlist.spec import (
    Dimensions,
)
from mgdcircuits.netlist.units import DIMENSIONLESS, describe, divide


def with_unit(value: float, dims: Dimensions) -> str:
    """A number in SI units as an expression with its unit."""
    return f"{value:.17g}" if dims == DIMENSIONLESS else f"{value:.17g}*{describe(dims).replace(' ', '')}"


def infer_states(
    pairs: list[tuple[str, str]], known: Mapping[str, Dimensions], parameters: Parameters
) -> dict[str, Dimensions]:
    """The dimensions of names that are assigned from each other and from themselves.

    A term that reads a name of unknown dimensions says nothing; the first term of a sum that says something counts.
    What remains open (``m = 0.9*m``) is a number without unit.
    """
    found: dict[str, Dimensions] = {}
    targets = {name for name, _ in pairs}
    values = parameters.numbers()
    for _ in range(len(pairs) + 1):
        for name, expression in pairs:
            if name in found or name in known:
                continue
            try:
                guess = _guess(
                    parse(expression), {**{n: d for n, d in known.items() if n not in targets}, **found}, values
                )
            except ExpressionError:
                guess = None
            if guess is not None:
                found[name] = guess
    return {name: found.get(name, DIMENSIONLESS) for name in targets if name not in known}


def _guess(node: ast.expr, known: Mapping[str, Dimensions], values: Mapping[str, float]) -> Dimensions | None:
    try:
        return dimensions(text(node), known, values=values)
    except ExpressionError:
        pass
    parts: list[ast.expr] = []
    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            parts = [left, right]
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as operator, right=right):
            a, b = _guess(left, known, values), _guess(right, known, values)
            if a is None or b is None:
                return None
            return divide(a, b) if isinstance(operator, ast.Div) else divide(a, divide(DIMENSIONLESS, b))
        case ast.UnaryOp(operand=operand):
            parts = [operand]
        case ast.Call(func=ast.Name(id=name), args=arguments):
            parts = arguments[1:] if name == "where" else arguments if name in ("clip", "min", "max", "abs") else []
    for part in parts:
        guess = _guess(part, known, values)
        if guess is not None:
            return guess
    return None
