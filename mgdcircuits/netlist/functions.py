"""The functions of the language: how many arguments each takes, of which dimensions, and its value for numbers.

`FUNCTIONS` may stand in every expression; `REDUCTIONS` combine all units of a population and stand in costs, measures
and signals only. Both backends implement exactly these names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Argument(Enum):
    """What an argument must be."""

    NUMBER = "dimensionless"
    SAME = "of the same dimensions as the others"
    SECOND = "a time"
    POPULATION = "the name of a population"


class Result(Enum):
    """What a function returns."""

    NUMBER = "dimensionless"
    SAME = "of the dimensions of its arguments"
    ROOT = "of the square root of the dimensions of its argument"


@dataclass(frozen=True)
class Function:
    """A function of the language.

    Parameters
    ----------
    arguments : tuple of Argument
    result : Result
    more : bool
        The last argument may be repeated.
    compute : callable, optional
        Its value for floats in SI units; None where the value is random or needs a population.
    """

    arguments: tuple[Argument, ...]
    result: Result = Result.NUMBER
    more: bool = False
    compute: Callable[..., float] | None = None

    @property
    def is_random(self) -> bool:
        """Whether each evaluation draws (the keyed functions)."""
        return self.compute is None and Argument.POPULATION not in self.arguments


NUMBER, SAME, SECOND = Argument.NUMBER, Argument.SAME, Argument.SECOND


def _exprel(x: float) -> float:
    return math.expm1(x) / x if x else 1.0


def _walsh_sign(row: float, number: float) -> float:
    """Entry of the Hadamard matrix in natural order: (-1)**(number of common bits)."""
    return -1.0 if (int(row) & int(number)).bit_count() % 2 else 1.0


def _number(compute: Callable[..., float]) -> Function:
    return Function((NUMBER,), compute=compute)


FUNCTIONS: dict[str, Function] = {
    **{name: _number(getattr(math, name)) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "log")},
    **{name: _number(getattr(math, name)) for name in ("log10", "log1p", "expm1")},
    "arcsin": _number(math.asin),
    "arccos": _number(math.acos),
    "arctan": _number(math.atan),
    "exprel": _number(_exprel),
    "int": _number(lambda x: float(math.trunc(x))),
    "sqrt": Function((SAME,), Result.ROOT, compute=math.sqrt),
    "abs": Function((SAME,), Result.SAME, compute=abs),
    "floor": Function((SAME,), Result.SAME, compute=lambda x: float(math.floor(x))),
    "ceil": Function((SAME,), Result.SAME, compute=lambda x: float(math.ceil(x))),
    "sign": Function((SAME,), compute=lambda x: float((x > 0) - (x < 0))),
    "clip": Function((SAME, SAME, SAME), Result.SAME, compute=lambda x, low, high: min(max(x, low), high)),
    "min": Function((SAME, SAME), Result.SAME, more=True, compute=min),
    "max": Function((SAME, SAME), Result.SAME, more=True, compute=max),
    "where": Function((NUMBER, SAME, SAME), Result.SAME, compute=lambda condition, a, b: a if condition else b),
    "timestep": Function((SECOND, SECOND), compute=lambda t, dt: float(math.trunc((t + 1e-3 * dt) / dt))),
    "walsh_sign": Function((NUMBER, NUMBER), compute=_walsh_sign),
    "bit": Function(()),
    **{f"rand{clock}": Function(()) for clock in ("", "_period", "_pass")},
    **{f"randn{clock}": Function(()) for clock in ("", "_period", "_pass")},
    **{f"poisson{clock}": Function((NUMBER,)) for clock in ("", "_period", "_pass")},
}

REDUCTIONS: dict[str, Function] = {
    "sum": Function((SAME,), Result.SAME),
    "mean": Function((SAME,), Result.SAME),
    "max": Function((SAME,), Result.SAME, more=True),  # of one argument over units, of several element by element
    "logsumexp": Function((NUMBER,)),
    "argmax": Function((SAME,)),
    "count": Function((Argument.POPULATION,)),
}

CONSTANTS: dict[str, float] = {"pi": math.pi, "e": math.e, "inf": math.inf}
