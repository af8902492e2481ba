"""When to stop early: `until="accuracy >= .8"`, an expression of recorded numbers."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from mgdcircuits.errors import RunError

SYNONYMS = {"accuracy": "accuracy_test", "seconds": "hardware_seconds"}
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.Pow: operator.pow,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: np.logical_not,
}


def _compares(node: ast.AST) -> bool:
    """Whether it is comparisons, joined by `and`, `or`, `not`."""
    match node:
        case ast.BoolOp(_, parts):
            return all(map(_compares, parts))
        case ast.UnaryOp(ast.Not(), operand):
            return _compares(operand)
    return isinstance(node, ast.Compare)


class Condition:
    """An expression of the numbers of a row that is true or false.

    Parameters
    ----------
    text
        Comparisons of names and numbers, joined by `and`, `or`, `not`.
    names
        The names that rows of this run have; `accuracy` means `accuracy_test`.

    Raises
    ------
    RunError
        Text that is no comparison, or a name that the run does not record.
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text = text
        known = {*names, *(short for short, name in SYNONYMS.items() if name in names)}
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            raise RunError(f'until "{text}" is no condition; expected something like "accuracy >= .8"') from None
        if not _compares(self._tree):
            raise RunError(f'until "{text}" compares nothing; expected something like "accuracy >= .8"')
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id not in known:
                near = get_close_matches(node.id, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise RunError(f'until "{text}" names {node.id}; this run records {", ".join(sorted(known))}{hint}')
        self._evaluate(dict.fromkeys(known, 1.0), self._tree)

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether it is true of a row; where there are several members, of each of them."""
        values = {**row, **{short: row[name] for short, name in SYNONYMS.items() if name in row}}
        return bool(np.all(self._evaluate(values, self._tree)))

    def _evaluate(self, values: Mapping[str, Any], node: ast.AST) -> Any:
        match node:
            case ast.Constant(value) if isinstance(value, int | float) and not isinstance(value, bool):
                return value
            case ast.Name(name):
                return np.asarray(values[name], dtype=np.float64)
            case ast.BinOp(left, op, right) if type(op) in _BINARY:
                with np.errstate(all="ignore"):
                    return _BINARY[type(op)](self._evaluate(values, left), self._evaluate(values, right))
            case ast.UnaryOp(op, operand) if type(op) in _UNARY:
                return _UNARY[type(op)](self._evaluate(values, operand))
            case ast.BoolOp(op, parts):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return join.reduce(np.broadcast_arrays(*(self._evaluate(values, part) for part in parts)))
            case ast.Compare(left, ops, rights) if all(type(op) in _BINARY for op in ops):
                result: Any = True
                for comparison, right in zip(ops, rights, strict=True):
                    result = np.logical_and(
                        result, _BINARY[type(comparison)](self._evaluate(values, left), self._evaluate(values, right))
                    )
                    left = right
                return result
        raise RunError(
            f'until "{self.text}": {ast.unparse(node)} is not understood; expected names, numbers, comparisons, '
            "and, or, not"
        )
