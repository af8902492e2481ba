"""Units: which names there are, what they are worth in SI, and how dimensions are said in words.

The names are those that Brian2 knows in equations (`brian2.core.namespace.DEFAULT_UNITS`), and a few that it exports
for scripts only (``mS``, ``cmetre``). Nothing here imports Brian2; a test compares every name with it.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from mgdcircuits.netlist.spec import Dimensions
from mgdcircuits.netlist.syntax import ExpressionError, nearest, parse, text

DIMENSIONLESS: Dimensions = (0, 0, 0, 0, 0, 0, 0)


class UnitError(ExpressionError):
    """A unit that is not one, or dimensions that do not fit."""


@dataclass(frozen=True)
class Quantity:
    """A number in SI units together with its dimensions."""

    value: float
    dimensions: Dimensions = DIMENSIONLESS


_BASES: dict[str, tuple[float, Dimensions]] = {
    "metre": (1.0, (1, 0, 0, 0, 0, 0, 0)),
    "gram": (1e-3, (0, 1, 0, 0, 0, 0, 0)),
    "second": (1.0, (0, 0, 1, 0, 0, 0, 0)),
    "amp": (1.0, (0, 0, 0, 1, 0, 0, 0)),
    "kelvin": (1.0, (0, 0, 0, 0, 1, 0, 0)),
    "mole": (1.0, (0, 0, 0, 0, 0, 1, 0)),
    "candle": (1.0, (0, 0, 0, 0, 0, 0, 1)),
    "kilogram": (1.0, (0, 1, 0, 0, 0, 0, 0)),
    "radian": (1.0, DIMENSIONLESS),
    "steradian": (1.0, DIMENSIONLESS),
    "hertz": (1.0, (0, 0, -1, 0, 0, 0, 0)),
    "newton": (1.0, (1, 1, -2, 0, 0, 0, 0)),
    "pascal": (1.0, (-1, 1, -2, 0, 0, 0, 0)),
    "joule": (1.0, (2, 1, -2, 0, 0, 0, 0)),
    "watt": (1.0, (2, 1, -3, 0, 0, 0, 0)),
    "coulomb": (1.0, (0, 0, 1, 1, 0, 0, 0)),
    "volt": (1.0, (2, 1, -3, -1, 0, 0, 0)),
    "farad": (1.0, (-2, -1, 4, 2, 0, 0, 0)),
    "ohm": (1.0, (2, 1, -3, -2, 0, 0, 0)),
    "siemens": (1.0, (-2, -1, 3, 2, 0, 0, 0)),
    "weber": (1.0, (2, 1, -2, -1, 0, 0, 0)),
    "tesla": (1.0, (0, 1, -2, -1, 0, 0, 0)),
    "henry": (1.0, (2, 1, -2, -2, 0, 0, 0)),
    "lumen": (1.0, (0, 0, 0, 0, 0, 0, 1)),
    "lux": (1.0, (-2, 0, 0, 0, 0, 0, 1)),
    "becquerel": (1.0, (0, 0, -1, 0, 0, 0, 0)),
    "gray": (1.0, (2, 0, -2, 0, 0, 0, 0)),
    "sievert": (1.0, (2, 0, -2, 0, 0, 0, 0)),
    "katal": (1.0, (0, 0, -1, 0, 0, 1, 0)),
    "molar": (1e3, (-3, 0, 0, 0, 0, 1, 0)),
    "liter": (1e-3, (3, 0, 0, 0, 0, 0, 0)),
}
_SPELLINGS = {
    "metre": ("meter",),
    "gram": ("gramme",),
    "kilogram": ("kilogramme",),
    "amp": ("ampere",),
    "mole": ("mol",),
    "liter": ("litre",),
}
_PREFIXES = {
    **{"": 0, "y": -24, "z": -21, "a": -18, "f": -15, "p": -12, "n": -9, "u": -6, "m": -3},
    **{"k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "Z": 21, "Y": 24},
}
_SMALL_PREFIXES = {"c": -2, "d": -1, "da": 1, "h": 2}  # only metre and litre take them
_SHORT = {
    **{"mV": "mvolt", "mA": "mamp", "uA": "uamp", "nA": "namp", "pA": "pamp"},
    **{"pF": "pfarad", "uF": "ufarad", "nF": "nfarad", "nS": "nsiemens", "uS": "usiemens", "mS": "msiemens"},
    **{"ns": "nsecond", "ps": "psecond"},  # Brian2 has no short name for them, circuits need one
    **{"ms": "msecond", "us": "usecond", "Hz": "hertz", "kHz": "khertz", "MHz": "Mhertz"},
    **{"cm": "cmetre", "mm": "mmetre", "um": "umetre", "mM": "mmolar", "uM": "umolar", "nM": "nmolar"},
    **{f"{short}{power}": f"{short[0]}metre{power}" for short in ("cm", "mm", "um") for power in (2, 3)},
}
_NAMED = (
    *("volt", "amp", "siemens", "ohm", "second", "hertz", "farad", "coulomb", "joule", "watt", "metre", "kilogram"),
    *("kelvin", "mole", "candle", "newton", "pascal", "henry", "weber", "tesla", "lux", "gray", "katal"),
)
"""Names for saying dimensions, the first one that fits is taken."""


@cache
def unit_table() -> dict[str, Quantity]:
    """Return every unit name with its value; see `lookup` for a single one."""
    table: dict[str, Quantity] = {}
    for base, (scale, dimensions) in _BASES.items():
        prefixes = {"": 0} if base in ("kelvin", "kilogram") else dict(_PREFIXES)
        if base in ("metre", "liter"):
            prefixes |= _SMALL_PREFIXES
        for prefix, exponent in prefixes.items():
            for number in (1,) if base == "liter" else (1, 2, 3):
                value = (
                    float(f"{scale:g}e{exponent}")
                    if number == 1
                    else float(f"1e{(exponent + round(math.log10(scale))) * number}")
                )
                unit = Quantity(value, power(dimensions, number))
                for spelling in (base, *_SPELLINGS.get(base, ())):
                    table[f"{prefix}{spelling}{number if number > 1 else ''}"] = unit
    return table | {short: table[full] for short, full in _SHORT.items()}


def lookup(name: str) -> Quantity | None:
    """Return the value of a unit, or None if there is no unit of this name."""
    return unit_table().get(name)


def is_base_unit(name: str) -> bool:
    """Whether Brian2 lets the unit stand in the line of an equation: one without prefix or power."""
    unit = lookup(name)
    return unit is not None and unit.value == 1.0 and name[-1] not in "23"


def multiply(a: Dimensions, b: Dimensions) -> Dimensions:
    """Return the dimensions of a product."""
    return _tidy(x + y for x, y in zip(a, b, strict=True))


def divide(a: Dimensions, b: Dimensions) -> Dimensions:
    """Return the dimensions of a quotient."""
    return _tidy(x - y for x, y in zip(a, b, strict=True))


def power(a: Dimensions, exponent: float) -> Dimensions:
    """Return the dimensions of a power; exponents need not be whole."""
    return _tidy(x * exponent if x else 0 for x in a)


def _tidy(exponents: Iterable[float]) -> Dimensions:
    tidy: list[int | float] = []
    for exponent in exponents:
        if not abs(exponent) < 1e6:
            raise UnitError(f"the dimension has the exponent {exponent:g}", "take smaller powers")
        simple = Fraction(exponent).limit_denominator(1000)  # so that (x**(1/3))**3 is x
        if abs(float(simple) - exponent) > 1e-9:
            simple = Fraction(exponent)
        tidy.append(int(simple) if simple.denominator == 1 else float(simple))
    return tuple(tidy)


def parse_unit(unit: str, base_only: bool = False) -> Dimensions:
    """Return the dimensions of a unit such as ``siemens/cm**2``, ``Hz``, ``nS*mV`` or ``1``.

    Parameters
    ----------
    unit : str
    base_only : bool
        Refuse scaled units (``mV``), as Brian2 does at the end of an equation: there the unit only says what kind of
        quantity the line is.

    Raises
    ------
    UnitError
        If the text is not a unit.
    """
    return _dimensions(parse(unit), base_only, str(unit).strip())


def _dimensions(node: ast.expr, base_only: bool, whole: str) -> Dimensions:
    match node:
        case ast.Constant(value=1):
            return DIMENSIONLESS
        case ast.Name(id=name):
            found = lookup(name)
            if found is None:
                close = nearest(name, unit_table())
                raise UnitError(
                    f"{name!r} is not a unit",
                    f"did you mean {close!r}?" if close else "write for example volt, siemens/metre**2, or 1",
                )
            if base_only and not is_base_unit(name):
                raise UnitError(
                    f"found the scaled unit {name!r} where the kind of quantity is expected",
                    f"write {describe(found.dimensions)}",
                )
            return found.dimensions
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return multiply(_dimensions(left, base_only, whole), _dimensions(right, base_only, whole))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return divide(_dimensions(left, base_only, whole), _dimensions(right, base_only, whole))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return power(_dimensions(left, base_only, whole), _exponent(right))
    raise UnitError(
        f"found {text(node)!r} in the unit {whole!r}", "write units with * / and **, for example siemens/metre**2"
    )


def _exponent(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=value) if isinstance(value, int | float):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_exponent(operand)
        case ast.BinOp(left=left, op=ast.Div(), right=right) if _exponent(right):
            return _exponent(left) / _exponent(right)
    raise UnitError(f"found {text(node)!r} as the exponent of a unit", "write a number, for example metre**2")


def describe(dimensions: Dimensions) -> str:
    """Say dimensions in words that `parse_unit` reads back: ``volt``, ``siemens / metre ** 2``, ``1``."""
    if dimensions == DIMENSIONLESS:
        return "1"
    named = {_BASES[name][1]: name for name in reversed(_NAMED)}
    if dimensions in named:
        return named[dimensions]
    for exponent in (2, 3, 0.5, -1, -2):
        root = power(dimensions, 1 / exponent)
        if root in named:
            return f"{named[root]} ** {exponent}"
    for below, word in (
        ((0, 0, 1, 0, 0, 0, 0), "second"),
        ((2, 0, 0, 0, 0, 0, 0), "metre ** 2"),
        ((1, 0, 0, 0, 0, 0, 0), "metre"),
    ):
        above = multiply(dimensions, below)
        if above in named:
            return f"{named[above]} / {word}"
    for name in _NAMED:
        rest = divide(dimensions, _BASES[name][1])
        if rest in named:
            return f"{name} * {named[rest]}"
    for name in _NAMED:
        above = multiply(dimensions, _BASES[name][1])
        if above in named:
            return f"{named[above]} / {name}"
    words = ("metre", "kilogram", "second", "amp", "kelvin", "mole", "candle")
    return " * ".join(word if n == 1 else f"{word} ** {n}" for word, n in zip(words, dimensions, strict=True) if n)
