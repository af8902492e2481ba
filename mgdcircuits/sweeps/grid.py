"""What a sweep varies: names with their values, and the points of the grid that they span."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mgdcircuits.errors import RunError
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.expressions import ExpressionError
from mgdcircuits.randomness import SEEDS

SEED, DATA = "seed", "data"
COUNTS = range(1, SEEDS.stop)
OPTIONS: Mapping[str, range | None] = {SEED: SEEDS, "iterations": COUNTS, "batch": COUNTS, DATA: None}
"""Options of a run that may be swept, with the numbers that they may be; `data` has names. Other names are the netlist's."""
MOST = 1_000_000
"""Points of a grid."""
EXPECTED = "expected NAME=VALUES, such as d=1,2,4 or seed=0..9"

Value = int | float | str
Index = tuple[int, ...]
"""A point: the number of its value on each axis."""


@dataclass(frozen=True)
class Axis:
    """A swept name and its values."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Grid:
    """All combinations of the values of some axes.

    Parameters
    ----------
    axes
        In the order of the dimensions of the dataset.
    """

    axes: tuple[Axis, ...]

    def __len__(self) -> int:
        count = 1
        for axis in self.axes:
            count *= len(axis.values)
        return count

    def __iter__(self) -> Iterator[Index]:
        return itertools.product(*(range(len(axis.values)) for axis in self.axes))

    @property
    def names(self) -> tuple[str, ...]:
        """Swept names."""
        return tuple(axis.name for axis in self.axes)

    def at(self, index: Index) -> dict[str, Value]:
        """The values at a point, by name."""
        return {axis.name: axis.values[k] for axis, k in zip(self.axes, index, strict=True)}

    def describe(self, index: Index) -> str:
        """A point in words: ``d=4, seed=3``."""
        return ", ".join(f"{name}={value}" for name, value in self.at(index).items())

    def as_json(self) -> dict[str, list[Value]]:
        """Names and values, for a file."""
        return {axis.name: list(axis.values) for axis in self.axes}


def parse(texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """``["d=1,2,4", "seed=0..9"]`` as names with values: numbers, whole numbers from A to B, or expressions.

    Raises
    ------
    RunError
        Text of another form; a name that comes twice.
    """
    found: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier() or not values.strip():
            raise RunError(f"grid {text!r}: {EXPECTED}")
        if name in found:
            raise RunError(f"grid {text!r}: {name} is swept already; give all its values at once")
        found[name] = tuple(value for part in _split(values) for value in _values(part.strip(), text))
    return found


def _split(text: str) -> Iterator[str]:
    """Parts between commas; those within brackets belong to an expression."""
    depth, part = 0, ""
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            yield part
            part = ""
        else:
            part += letter
    yield part


def _values(part: str, text: str) -> Iterable[Value]:
    if not part:
        raise RunError(f"grid {text!r} has an empty value; {EXPECTED}")
    if ".." not in part:
        return (_number(part),)
    span = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", part)
    if span is None or int(span[1]) > int(span[2]):
        raise RunError(
            f"grid {text!r}: {part} is no range; expected whole numbers from the lower to the higher, as 0..9"
        )
    whole = range(int(span[1]), int(span[2]) + 1)
    if whole.stop - whole.start > MOST:
        raise RunError(f"grid {text!r}: {part} has {whole.stop - whole.start:,} values; at most {MOST:,} are possible")
    return whole


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def as_grid(grid: Mapping[str, Any], fixed: Iterable[str] = ()) -> Grid:
    """The grid of names with their values.

    Parameters
    ----------
    grid
        Values by name; a single value counts as one.
    fixed
        Names that have a value already.

    Raises
    ------
    RunError
        Nothing to sweep; no value, or one that comes twice; a value that an option cannot have; a name that is fixed.
    """
    if not isinstance(grid, Mapping):
        raise RunError(
            f"grid {grid!r}: expected names with their values, such as {{'d': [1, 2, 4], 'seed': range(10)}}"
        )
    axes = tuple(Axis(str(name), _plain(name, values)) for name, values in grid.items())
    if not axes:
        raise RunError(f"a sweep needs something to sweep: {EXPECTED}")
    for axis in axes:
        if axis.name in set(fixed):
            raise RunError(f"{axis.name} is swept and has one value as well; leave out one of the two")
        alike = axis.values if axis.name in OPTIONS else map(_alike, axis.values)
        if len(set(alike)) < len(axis.values) or not axis.values:
            raise RunError(f"grid {axis.name}: expected at least one value, and each of them once")
        if axis.name in OPTIONS:
            _check_option(axis, OPTIONS[axis.name])
    made = Grid(axes)
    if len(made) > MOST:
        raise RunError(f"the grid has {len(made):,} points; at most {MOST:,} are possible")
    return made


def _alike(value: Value) -> Any:
    """What two ways to write a value of a parameter have in common; the text of one that reads names of the netlist."""
    try:
        return expressions.evaluate(str(value), {})
    except ExpressionError:
        return value


def _check_option(axis: Axis, numbers: range | None) -> None:
    for value in axis.values:
        if not (isinstance(value, str) if numbers is None else isinstance(value, int) and value in numbers):
            wanted = "names" if numbers is None else f"whole numbers of at least {numbers.start}, below 2**63"
            raise RunError(f"grid {axis.name}: {value} is not possible; expected {wanted}")


def _plain(name: str, values: Any) -> tuple[Value, ...]:
    single = isinstance(values, str) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0
    several = (values,) if single else tuple(values)
    plain = tuple(v.item() if getattr(v, "ndim", 1) == 0 else v for v in several)
    for value in plain:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise RunError(f"grid {name}: {value!r} is not possible; expected numbers or expressions as text")
    return plain
