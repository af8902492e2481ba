"""Names in an expression to operands of a kernel: arrays, words, parameters, units, keyed draws.

The same resolver serves every kernel; what a name may mean at a place (a population's equation, a synapse, a learning
site) is given as a list of lookups, tried in order.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from mgdcircuits.circuit.program import Array, Index, Literal, Operand, Parameter, Random, Read, Scope, Word
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist import units

Lookup = Callable[[str], Operand | None]

WORDS = frozenset({"n_p", "tick"})
DRAWS = frozenset({"rand", "randn", "bit", "poisson"})
CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf}


def time_words(constants: Mapping[str, float]) -> dict[str, float | str]:
    """`t` in equations and costs: the same in all passes of an iteration."""
    return {"iteration": 0.0, "t": "(n_p*iteration + tick*dt)" if "dt" in constants else "(n_p*iteration)"}


def identifier(name: str) -> str:
    """A qualified or dotted name as one identifier."""
    return name.replace(".", "__").replace("@", "_at_").replace("->", "_to_")


@dataclass
class Resolver:
    """Rewrites expressions and gathers the operands that they need.

    Parameters
    ----------
    parameters
        Netlist parameters: a number, or an expression that stands for the name.
    constants
        Literals by name (`dt`, `N`, `K`, clocks).
    lookups
        What else a name may mean, tried in order before parameters and units.
    place
        Qualified name of the place; the keyed draws of an expression are named after it.
    scope
        When draws without a suffix are renewed.
    index
        Element index of draws.
    hold
        The runtime parameter that says how many iterations draws of a period are held; None: one.
    """

    parameters: Mapping[str, float | str]
    constants: Mapping[str, float]
    lookups: Sequence[Lookup]
    place: str
    scope: Scope = Scope.PERIOD
    index: Index = Index.ELEMENT
    hold: str | None = None
    operands: dict[str, Operand] = field(default_factory=dict)
    local: set[str] = field(default_factory=set)

    def expression(self, text: str) -> str:
        """The expression with every name an identifier that `operands` explains."""
        tree = ast.parse(text.strip(), mode="eval").body
        return ast.unparse(self._visit(tree))

    def name(self, name: str) -> str:
        """One name; returns its identifier or the text that stands for it."""
        if name in self.local:
            return name
        known = identifier(name)
        if known in self.operands:
            return known
        operand = self._find(name)
        if isinstance(operand, str):
            return f"({self.expression(operand)})"
        self.operands[known] = operand
        return known

    def array(self, name: str) -> Array:
        """The array that an operand reads."""
        operand = self.operands[name]
        assert isinstance(operand, Read), name
        return operand.array

    def _find(self, name: str) -> Operand | str:
        for lookup in self.lookups:
            operand = lookup(name)
            if operand is not None:
                return operand
        if name in self.constants:
            return Literal(float(self.constants[name]))
        if name in self.parameters:
            value = self.parameters[name]
            return value if isinstance(value, str) else Parameter(name)
        if name in WORDS:
            return Word(name)
        unit = units.lookup(name)
        if unit is not None:
            return Literal(unit.value)
        if name in CONSTANTS:
            return Literal(CONSTANTS[name])
        raise BuildError(f"{self.place}: nothing here is called {name!r}")

    def _visit(self, node: ast.expr) -> ast.expr:
        match node:
            case ast.Name(id=name):
                return ast.parse(self.name(name), mode="eval").body
            case ast.Attribute():
                return ast.Name(self.name(ast.unparse(node)))
            case ast.Call(func=ast.Name(id=function), args=arguments):
                return self._call(function, arguments)
            case ast.Constant(value=bool(value)):
                return ast.Constant(int(value))
            case ast.Constant():
                return node
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                setattr(node, name, self._visit(value))
            elif isinstance(value, list):
                setattr(node, name, [self._visit(v) if isinstance(v, ast.expr) else v for v in value])
        return node

    def _call(self, function: str, arguments: list[ast.expr]) -> ast.expr:
        visited = [self._visit(a) for a in arguments]
        if function in ("min", "max") and len(visited) > 2:  # both targets know them of two
            return reduce(lambda a, b: ast.Call(ast.Name(function), [a, b], []), visited)
        base, _, suffix = function.partition("_")
        if base not in DRAWS or suffix not in ("", "period", "pass", "write"):
            return ast.Call(ast.Name(function), visited, [])
        scope = Scope[suffix.upper()] if suffix else self.scope
        number = sum(isinstance(o, Random) for o in self.operands.values())
        name = f"draw_{number}"
        site = f"{self.place}#{number}"
        hold = self.hold if scope is Scope.PERIOD else None
        self.operands[name] = Random(base, site, scope, self.index, tuple(ast.unparse(a) for a in visited), hold)
        return ast.Name(name)
