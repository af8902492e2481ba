"""Moments of a perturbation law, and expectations of sums over independent perturbations, in sympy.

A law is its first four moments; they are sums over its values or integrals over its density, never typed in. Expectations
are exact for any number K of perturbed elements, which stays a symbol: a sum over several indices is split by which of
them coincide (where they do, the powers of a perturbation add up to a higher moment), and a sum over indices that differ
is written in power sums of the slopes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import factorial

import sympy

ORDER = 4
"""The highest moment that the mean square of an estimate needs."""

K = sympy.Symbol("K", positive=True, integer=True)


@dataclass(frozen=True)
class Law:
    """How one perturbation is distributed: E(theta**k) for k = 0 ... 4. Perturbations are independent, all of one law.

    Raises
    ------
    ValueError
        Moments that no law has: too few, probabilities that do not add up to 1 or are negative, no mean square.
    """

    name: str
    moments: tuple[sympy.Expr, ...]

    def __post_init__(self) -> None:
        if len(self.moments) != ORDER + 1:
            raise ValueError(
                f"{self.name}: expected E(theta**k) for k = 0 ... {ORDER}, found {len(self.moments)} moments"
            )
        total, _, power, _, fourth = map(sympy.sympify, self.moments)
        if sympy.simplify(total - 1) != 0:
            raise ValueError(f"{self.name}: the probabilities add up to {total}; expected 1")
        if power.is_zero or not all(m.is_finite is not False and m is not sympy.nan for m in (power, fourth)):
            raise ValueError(
                f"{self.name}: the mean square is {power} and the mean fourth power {fourth}; expected numbers above 0"
            )

    @classmethod
    def discrete(cls, name: str, probabilities: Mapping[sympy.Expr, sympy.Expr]) -> Law:
        """A law of some values with their probabilities; decimal fractions are taken as such (0.1 as 1/10)."""
        pairs = [(_exact(v), _exact(p)) for v, p in probabilities.items()]
        if negative := [(v, p) for v, p in pairs if p.is_negative or p.is_finite is False]:
            raise ValueError(f"{name}: the value {negative[0][0]} has the probability {negative[0][1]}")
        return cls(name, tuple(sympy.simplify(sum(p * v**k for v, p in pairs)) for k in range(ORDER + 1)))

    @classmethod
    def continuous(cls, name: str, density: sympy.Expr, x: sympy.Symbol, low: sympy.Expr, high: sympy.Expr) -> Law:
        """A law with a density between two limits."""
        found = (sympy.integrate(x**k * density, (x, low, high)) for k in range(ORDER + 1))
        return cls(name, tuple(map(sympy.simplify, found)))

    @cached_property
    def power(self) -> sympy.Expr:
        """E(theta**2), by which an estimate is divided."""
        return self.moments[2]

    @cached_property
    def has_no_mean(self) -> bool:
        """Whether E(theta) is 0, without which an estimate is biased."""
        return bool(self.moments[1] == 0)

    @cached_property
    def kurtosis(self) -> sympy.Expr:
        """E(theta**4)/E(theta**2)**2: 1 for signs, 3 for normal perturbations."""
        return sympy.simplify(self.moments[4] / self.moments[2] ** 2)


def _exact(number: sympy.Expr | float) -> sympy.Expr:
    """Decimal fractions as quotients of integers, so that sums cancel as they do on paper."""
    found = sympy.sympify(number)
    return sympy.nsimplify(found, rational=True) if found.has(sympy.Float) else found


def _uniform() -> Law:
    x, edge = sympy.Symbol("x", real=True), sympy.sqrt(3)
    return Law.continuous("uniform", 1 / (2 * edge), x, -edge, edge)


def _gaussian() -> Law:
    x = sympy.Symbol("x", real=True)
    return Law.continuous("gaussian", sympy.exp(-(x**2) / 2) / sympy.sqrt(2 * sympy.pi), x, -sympy.oo, sympy.oo)


def sparse_bernoulli(s: sympy.Expr | int) -> Law:
    """The code ``bernoulli(s)``: +s or -s, each with probability 1/(2*s), else 0."""
    s = sympy.sympify(s)
    return Law.discrete(f"bernoulli({s})", {s: 1 / (2 * s), -s: 1 / (2 * s), 0: 1 - 1 / s})


BERNOULLI = Law.discrete("bernoulli", {1: sympy.Rational(1, 2), -1: sympy.Rational(1, 2)})
GAUSSIAN = _gaussian()
UNIFORM = _uniform()


@dataclass(frozen=True)
class Factor:
    """What one index of a sum contributes: slope**slope * direction**direction * theta**theta of the element it names."""

    theta: int = 0
    slope: int = 0
    direction: int = 0

    def __add__(self, other: Factor) -> Factor:
        return Factor(self.theta + other.theta, self.slope + other.slope, self.direction + other.direction)


def power_sum(slope: int, direction: int) -> sympy.Expr:
    """The sum over all K elements of slope**slope * direction**direction."""
    return K if slope == direction == 0 else sympy.Symbol(f"S_{slope}_{direction}", real=True)


def expectation(factors: Sequence[Factor], law: Law) -> sympy.Expr:
    """The expectation of a sum over indices that run over all elements, one index a factor.

    E(sum_ij g_i g_j theta_i theta_j) is ``expectation([Factor(1, 1), Factor(1, 1)], law)``.
    """
    total = sympy.Integer(0)
    for coincidence in partitions(list(factors)):
        groups = [_merged(group) for group in coincidence]
        moment = sympy.prod([law.moments[group.theta] for group in groups])
        if moment != 0:
            total += moment * _distinct(groups)
    return sympy.expand(total)


def _distinct(groups: Sequence[Factor]) -> sympy.Expr:
    """The sum over indices that all differ, by Moebius inversion on the lattice of partitions."""
    total = sympy.Integer(0)
    for partition in partitions(list(groups)):
        term = sympy.Integer(1)
        for block in partition:
            merged = _merged(block)
            term *= (-1) ** (len(block) - 1) * factorial(len(block) - 1) * power_sum(merged.slope, merged.direction)
        total += term
    return total


def _merged(group: Sequence[Factor]) -> Factor:
    return sum(group[1:], start=group[0])


def partitions(items: list) -> Iterator[list[list]]:
    """All ways to put items into groups."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for smaller in partitions(rest):
        for k in range(len(smaller)):
            yield [*smaller[:k], [first, *smaller[k]], *smaller[k + 1 :]]
        yield [[first], *smaller]
