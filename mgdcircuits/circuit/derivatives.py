"""Derivatives almost everywhere, by sympy with a table of its own.

sympy's derivatives of clip, sign, floor, int(...) and % are no numbers, and some of its forms overflow in float32; here
each function that an equation may use has a rule, and the logistic function is recognised so that its derivative is
y*(1 - y). Comparisons have the derivative zero. Expressions go in and come out in Brian2's syntax.
"""

from __future__ import annotations

import ast
from functools import lru_cache

import sympy
from sympy.printing.str import StrPrinter

from mgdcircuits.errors import BuildError


class _Opaque(sympy.Function):
    """A function that sympy may not rewrite."""

    @classmethod
    def eval(cls, *args):
        return None

    def fdiff(self, argindex=1):
        return sympy.Integer(0)


def _rule(name: str, *rules):
    """A function with one derivative rule an argument; a rule takes the function's arguments."""

    def fdiff(self, argindex=1):
        return rules[argindex - 1](*self.args)

    return type(f"of_{name}", (_Opaque,), {"fdiff": fdiff})  # sympy prints classes called int, floor, ... its own way


def _zero(*_):
    return sympy.Integer(0)


def _one(*_):
    return sympy.Integer(1)


class Comparison(_Opaque):
    """``a OPERATOR b`` as a number that is 0 or 1; the operator is kept as a symbol."""


class Boolean(_Opaque):
    """and, or, not."""


def _less(a, b):
    return Comparison(sympy.Symbol("<"), a, b)


def _number(condition):
    return FUNCTIONS["int"](condition)


def _both(a, b):
    return Boolean(sympy.Symbol("and"), a, b)


class logistic(_Opaque):  # noqa: N801, sympy's functions are lower case
    """1/(1 + exp(-z))."""

    def fdiff(self, argindex=1):
        return self * (1 - self)


FUNCTIONS: dict[str, type[sympy.Function]] = {
    "int": _rule("int", _zero),
    "floor": _rule("floor", _zero),
    "ceil": _rule("ceil", _zero),
    "sign": _rule("sign", _zero),
    "abs": _rule("abs", lambda x: FUNCTIONS["sign"](x)),
    "mod": _rule("mod", _one, _zero),
    "floordiv": _rule("floordiv", _zero, _zero),
    "clip": _rule(
        "clip",
        lambda x, low, high: _number(_both(_less(low, x), _less(x, high))),
        lambda x, low, high: _number(_less(x, low)),
        lambda x, low, high: _number(_less(high, x)),
    ),
    "min": _rule("min", lambda a, b: 1 - _number(_less(b, a)), lambda a, b: _number(_less(b, a))),
    "max": _rule("max", lambda a, b: 1 - _number(_less(a, b)), lambda a, b: _number(_less(a, b))),
    "where": _rule(
        "where",
        _zero,
        lambda c, a, b: FUNCTIONS["where"](c, sympy.Integer(1), sympy.Integer(0)),
        lambda c, a, b: FUNCTIONS["where"](c, sympy.Integer(0), sympy.Integer(1)),
    ),
    "log1p": _rule("log1p", lambda x: 1 / (1 + x)),
    "expm1": _rule("expm1", lambda x: sympy.exp(x)),
    "log10": _rule("log10", lambda x: 1 / (x * sympy.log(10))),
    "exprel": _rule("exprel", lambda x: (x * sympy.exp(x) - FUNCTIONS["expm1"](x)) / x**2),
    "logistic": logistic,
    **{n: getattr(sympy, n) for n in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
}
SYMPY_NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
ARITHMETIC = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
    ast.Mod: lambda a, b: FUNCTIONS["mod"](a, b),
    ast.FloorDiv: lambda a, b: FUNCTIONS["floordiv"](a, b),
}


class _Printer(StrPrinter):
    def _print_Comparison(self, expr):  # noqa: N802, sympy's naming
        operator, a, b = expr.args
        return f"({self._print(a)} {operator.name} {self._print(b)})"

    def _print_Boolean(self, expr):  # noqa: N802
        operator, *rest = expr.args
        if operator.name == "not":
            return f"(not {self._print(rest[0])})"
        return "(" + f" {operator.name} ".join(self._print(r) for r in rest) + ")"

    def _print_logistic(self, expr):
        return f"(1/(1 + exp(-({self._print(expr.args[0])}))))"

    def _print_Function(self, expr):  # noqa: N802
        name = expr.func.__name__.removeprefix("of_")
        return f"{SYMPY_NAMES.get(name, name)}({', '.join(self._print(a) for a in expr.args)})"

    def _print_of_mod(self, expr):
        return "(({}) % ({}))".format(*map(self._print, expr.args))

    def _print_of_floordiv(self, expr):
        return "(({}) // ({}))".format(*map(self._print, expr.args))

    def _print_Rational(self, expr):  # noqa: N802
        return f"({expr.p}/{expr.q})"

    def _print_Exp1(self, expr):  # noqa: N802
        return "2.718281828459045"


def to_sympy(text: str) -> sympy.Expr:
    """An expression in Brian2's syntax as a sympy expression.

    Raises
    ------
    BuildError
        A function without a rule.
    """

    def visit(node: ast.AST) -> sympy.Expr:
        match node:
            case ast.Name(id=name):
                return sympy.Symbol(name, real=True)
            case ast.Constant(value=int(value)):
                return sympy.Integer(value)
            case ast.Constant(value=float(value)):
                return sympy.Float(value, 17)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -visit(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return visit(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Boolean(sympy.Symbol("not"), visit(operand))
            case ast.BinOp(left=left, right=right, op=op):
                return ARITHMETIC[type(op)](visit(left), visit(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return Comparison(sympy.Symbol(COMPARE[type(op)]), visit(left), visit(right))
            case ast.BoolOp(op=op, values=values):
                name = "and" if isinstance(op, ast.And) else "or"
                return Boolean(sympy.Symbol(name), *map(visit, values))
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in FUNCTIONS:
                return FUNCTIONS[name](*map(visit, arguments))
        raise BuildError(
            f"no derivative is known of {ast.unparse(node)!r}; use functions of the table in docs/netlist.md"
        )

    return _recognise_logistic(visit(ast.parse(text.strip(), mode="eval").body))


def _recognise_logistic(expression: sympy.Expr) -> sympy.Expr:
    def is_logistic(e):
        if not (e.is_Pow and e.exp == -1 and e.base.is_Add and len(e.base.args) == 2):
            return False
        return any(a == 1 for a in e.base.args) and any(isinstance(a, sympy.exp) for a in e.base.args)

    def rewrite(e):
        exponent = next(a for a in e.base.args if isinstance(a, sympy.exp)).args[0]
        return logistic(-exponent)

    return expression.replace(is_logistic, rewrite)


@lru_cache(maxsize=4096)
def derivative(text: str, name: str) -> str | None:
    """The derivative of an expression by a name, or None where it is zero.

    Raises
    ------
    BuildError
        A function without a rule.
    """
    result = sympy.diff(to_sympy(text), sympy.Symbol(name, real=True))
    if result.has(sympy.Derivative, sympy.Subs):
        raise BuildError(f"no derivative is known of {text!r} by {name}")
    return None if result == 0 else _Printer({"full_prec": True}).doprint(result)
