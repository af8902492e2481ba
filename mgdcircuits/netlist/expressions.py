"""What an expression is worth: its value, its dimensions, and the units in it.

The syntax is in `mgdcircuits.netlist.syntax`; this module gathers everything that others need to work with expressions.
Rules of dimensions are those of Brian2: there is no exception for zero, ``v > 0`` must be written ``v > 0*mV``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Set
from itertools import pairwise

from mgdcircuits.netlist import units
from mgdcircuits.netlist.evaluation import compute
from mgdcircuits.netlist.functions import CONSTANTS, FUNCTIONS, REDUCTIONS, Argument, Function, Result
from mgdcircuits.netlist.snippets import Call, Macro, bind, expand_calls, parse_call
from mgdcircuits.netlist.spec import Dimensions
from mgdcircuits.netlist.statements import Statement, parse_statements, substitute_statements
from mgdcircuits.netlist.syntax import (
    ExpressionError,
    UnknownName,
    calls,
    dotted,
    is_identifier,
    names,
    nearest,
    parse,
    substitute,
    text,
)
from mgdcircuits.netlist.units import DIMENSIONLESS, Quantity, UnitError, describe

__all__ = [
    "CONSTANTS",
    "FUNCTIONS",
    "REDUCTIONS",
    "Argument",
    "Call",
    "ExpressionError",
    "Function",
    "Macro",
    "Quantity",
    "Result",
    "Statement",
    "UnitError",
    "UnknownName",
    "bind",
    "calls",
    "dimensions",
    "evaluate",
    "expand_calls",
    "is_condition",
    "is_identifier",
    "names",
    "nearest",
    "parse",
    "parse_call",
    "parse_statements",
    "substitute",
    "substitute_statements",
    "text",
    "unit_values",
]

SECOND: Dimensions = (0, 0, 1, 0, 0, 0, 0)


def dimensions(
    text: str,
    known: Mapping[str, Dimensions],
    functions: Mapping[str, Function] = FUNCTIONS,
    values: Mapping[str, float] | None = None,
) -> Dimensions:
    """Infer the dimensions of an expression and check every part of it.

    Parameters
    ----------
    text : str
    known : mapping
        The dimensions of each name, dotted ones under their full name (``"C.plus"``). Constants (``pi``) and units are
        known without.
    functions : mapping
        `FUNCTIONS`, or `FUNCTIONS | REDUCTIONS` where reductions are allowed.
    values : mapping, optional
        Numbers that may be the exponent of a quantity with a unit, beside literal ones.

    Raises
    ------
    ExpressionError
        If units do not agree (both sides are named), or arguments do not fit.
    UnknownName
        If a name or function is unknown.
    """
    return _Inference(known, functions, values or {}).of(parse(text))


def evaluate(text: str, values: Mapping[str, Quantity]) -> Quantity:
    """Return the value of an expression in SI units, with its dimensions; comparisons are 1 or 0.

    Raises
    ------
    ExpressionError
        If units do not agree, a function is random or a reduction, or the value is not a real number.
    UnknownName
        If a name is neither in `values` nor a constant nor a unit.
    """
    node = parse(text)
    known = {name: quantity.dimensions for name, quantity in values.items()}
    numbers = {name: quantity.value for name, quantity in values.items()}
    found = _Inference(known, FUNCTIONS, numbers).of(node)
    return Quantity(compute(node, numbers), found)


def unit_values(text: str, known_names: Set[str] | Mapping[str, object] = frozenset()) -> dict[str, float]:
    """Return the units that an expression names, with their SI values; a name in `known_names` is not a unit."""
    found = {name: units.lookup(name) for name in sorted(names(text)) if name not in known_names}
    return {name: unit.value for name, unit in found.items() if unit is not None}


def is_condition(text: str) -> bool:
    """Whether an expression is true or false by its form: a comparison, ``and``, ``or``, ``not``, True or False."""
    node = parse(text)
    return (
        isinstance(node, ast.Compare | ast.BoolOp)
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
        or (isinstance(node, ast.Constant) and isinstance(node.value, bool))
    )


class _Inference:
    """Dimensions of a tree, from the leaves up."""

    def __init__(
        self, known: Mapping[str, Dimensions], functions: Mapping[str, Function], values: Mapping[str, float]
    ) -> None:
        self.known = known
        self.functions = functions
        self.values = values
        self.inferred: dict[ast.expr, Dimensions] = {}

    def of(self, node: ast.expr) -> Dimensions:
        if node not in self.inferred:  # nodes compare by identity
            self.inferred[node] = self.infer(node)
        return self.inferred[node]

    def infer(self, node: ast.expr) -> Dimensions:
        match node:
            case ast.Constant():
                return DIMENSIONLESS
            case ast.Name() | ast.Attribute():
                return self.of_name(dotted(node) or "")
            case ast.Subscript(value=value):
                return self.of(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.of(operand)
                return DIMENSIONLESS
            case ast.UnaryOp(operand=operand):
                return self.of(operand)
            case ast.BoolOp(values=parts):
                for part in parts:
                    self.of(part)
                return DIMENSIONLESS
            case ast.Compare(left=left, comparators=others):
                for a, b in pairwise([left, *others]):
                    self.same(a, b, "compares", "with")
                return DIMENSIONLESS
            case ast.Call(func=ast.Name(id=name)):
                return self.of_call(name, node)
            case ast.BinOp(left=left, op=op, right=right):
                return self.of_operation(left, op, right)
        raise AssertionError(f"parse lets no {type(node).__name__} through")

    def of_name(self, name: str) -> Dimensions:
        if name in self.known:
            return self.known[name]
        if name in CONSTANTS:
            return DIMENSIONLESS
        unit = units.lookup(name)
        if unit is not None:
            return unit.dimensions
        if name in self.functions:
            raise ExpressionError(f"{name!r} is a function and stands without its arguments", f"write {name}(...)")
        raise UnknownName(name, [*self.known, *CONSTANTS])

    def same(self, a: ast.expr, b: ast.expr, verb: str, link: str) -> Dimensions:
        left, right = self.of(a), self.of(b)
        if left != right:
            what = f"{verb} {describe(left)} {link} {describe(right)}: {_said(a, left)}, {_said(b, right)}"
            raise ExpressionError(what, _same_mend(a, left, b, right))
        return left

    def of_operation(self, left: ast.expr, op: ast.operator, right: ast.expr) -> Dimensions:
        match op:
            case ast.Add():
                return self.same(left, right, "adds", "+")
            case ast.Sub():
                return self.same(left, right, "subtracts", "-")
            case ast.Mod():
                return self.same(left, right, "takes the remainder of", "%")
            case ast.Mult():
                return units.multiply(self.of(left), self.of(right))
            case ast.Div():
                return units.divide(self.of(left), self.of(right))
            case ast.FloorDiv():
                for part in (left, right):
                    self.number(part, "'//'")
                return DIMENSIONLESS
            case ast.Pow():
                return self.of_power(left, right)
        raise AssertionError(f"parse lets no {type(op).__name__} through")

    def number(self, node: ast.expr, where: str) -> None:
        found = self.of(node)
        if found != DIMENSIONLESS:
            raise ExpressionError(
                f"{where} needs a number without unit, but {_said(node, found)}",
                f"divide by a quantity of the same kind, for example {_without_unit(node, found)}",
            )

    def of_power(self, base: ast.expr, exponent: ast.expr) -> Dimensions:
        found = self.of(base)
        self.number(exponent, "an exponent")
        if found == DIMENSIONLESS:
            return DIMENSIONLESS
        try:
            number = compute(exponent, self.values)
        except ExpressionError:
            raise ExpressionError(
                f"the exponent {text(exponent)!r} is not a constant number, but {_said(base, found)}",
                f"make the base a number without unit, for example ({_without_unit(base, found)})**...",
            ) from None
        return units.power(found, number)

    def of_call(self, name: str, node: ast.Call) -> Dimensions:
        function = self.functions.get(name)
        if function is None:
            if name in REDUCTIONS:
                raise ExpressionError(
                    f"{name} combines the units of a population and cannot stand here",
                    "use it in cost, measure or signals",
                )
            raise UnknownName(name, self.functions, what="function")
        if node.keywords:
            raise ExpressionError(
                f"{name} takes no argument by name", f"write {name}(...) without {node.keywords[0].arg}="
            )
        kinds = list(function.arguments)
        if function.more and len(node.args) > len(kinds):
            kinds += [kinds[-1]] * (len(node.args) - len(kinds))
        if len(node.args) != len(kinds):
            wanted = f"{len(kinds)}{' or more' if function.more else ''} argument{'s' if len(kinds) != 1 else ''}"
            raise ExpressionError(f"{name} takes {wanted}, found {len(node.args)}", f"write {name} with {wanted}")
        first: ast.expr | None = None
        for argument, kind in zip(node.args, kinds, strict=True):
            if kind is Argument.NUMBER:
                self.number(argument, name)
            elif kind is Argument.SECOND and self.of(argument) != SECOND:
                raise ExpressionError(
                    f"{name} needs a time, but {text(argument)!r} is {describe(self.of(argument))}", "give it seconds"
                )
            elif kind is Argument.SAME:
                if first is None:
                    first = argument
                    self.of(first)
                else:
                    self.same(first, argument, f"gives {name}", "and")
        if function.result is Result.NUMBER or first is None:
            return DIMENSIONLESS
        return self.of(first) if function.result is Result.SAME else units.power(self.of(first), 0.5)


def _said(node: ast.expr, found: Dimensions) -> str:
    return f"{text(node)!r} {f'is {describe(found)}' if found != DIMENSIONLESS else 'has no unit'}"


def _without_unit(node: ast.expr, found: Dimensions) -> str:
    parts = (text(node), describe(found))
    return "/".join(part if is_identifier(part) else f"({part})" for part in parts)


def _same_mend(a: ast.expr, left: Dimensions, b: ast.expr, right: Dimensions) -> str:
    for node, own, other in ((a, left, right), (b, right, left)):
        if own == DIMENSIONLESS and isinstance(node, ast.Constant):
            return f"give the number a unit: {text(node)}*{describe(other)}"
    return "make both sides the same kind of quantity"
