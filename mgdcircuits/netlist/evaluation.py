"""The number that a constant expression stands for."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping

from mgdcircuits.netlist import units
from mgdcircuits.netlist.functions import CONSTANTS, FUNCTIONS
from mgdcircuits.netlist.syntax import ExpressionError, UnknownName, dotted, text


def compute(node: ast.expr, values: Mapping[str, float]) -> float:
    """Return the value of a tree whose dimensions are known to agree; every number is a float in SI units.

    Raises
    ------
    ExpressionError
        If the value is not a real number, or depends on randomness or on a population.
    UnknownName
        If a name is neither in `values` nor a constant nor a unit.
    """
    try:
        return float(_compute(node, values))
    except (ArithmeticError, ValueError, TypeError) as problem:
        if isinstance(problem, ExpressionError):
            raise
        raise ExpressionError(f"{text(node)!r} has no real value ({problem})", "check its numbers") from None


def _compute(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=value):
            return float(value)  # type: ignore[arg-type]
        case ast.Name() | ast.Attribute():
            name = dotted(node) or ""
            if name in values:
                return values[name]
            unit = units.lookup(name)
            if name not in CONSTANTS and unit is None:
                raise UnknownName(name, [*values, *CONSTANTS])
            return CONSTANTS[name] if unit is None else unit.value
        case ast.UnaryOp(op=op, operand=operand):
            value = _compute(operand, values)
            return float(not value) if isinstance(op, ast.Not) else -value if isinstance(op, ast.USub) else value
        case ast.BoolOp(op=op, values=parts):
            truths = [bool(_compute(part, values)) for part in parts]
            return float(all(truths) if isinstance(op, ast.And) else any(truths))
        case ast.Compare(left=left, ops=[comparison], comparators=[right]):
            a, b = _compute(left, values), _compute(right, values)
            return float(_COMPARE[type(comparison)](a, b))
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _compute(left, values), _compute(right, values)
            return _OPERATE[type(operator)](a, b)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            function = FUNCTIONS.get(name)
            if function is None or function.compute is None:
                raise ExpressionError(f"{name} has no value before the circuit runs", "write a constant expression")
            return float(function.compute(*(_compute(argument, values) for argument in arguments)))
    raise ExpressionError(f"{text(node)!r} has no value before the circuit runs", "write a constant expression")


_COMPARE: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_OPERATE: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.Pow: math.pow,
}
