"""`table("pulse.csv", g)`: a measured curve in an expression, linear between its points.

The call is replaced by the curve itself, an expression with units like any other. Outside the range of the table its value
is infinite, so that a run stops where a device leaves what was measured. It is written with `min` and `max`, since a `clip`
in `on_write` is a bound of the device, whose cuts are counted (`circuit/outcomes.py`).
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.expressions import ExpressionError, evaluate, parse, text
from mgdcircuits.netlist.parameters import Parameters
from mgdcircuits.netlist.source import Map, Text
from mgdcircuits.netlist.spec import Position
from mgdcircuits.netlist.topologies import beside
from mgdcircuits.netlist.units import DIMENSIONLESS, Quantity, UnitError, describe, parse_unit

TABLE = reading_rule("table", 'table("FILE.csv", x) reads a file of numbers with units in its header')
TABLE_RANGE = reading_rule("table-range", "a table must reach over the range to which a device is clipped")

MOST = 256
"""Points of a table."""
TOLERANCE = 1e-6
"""Part of its range by which a table may be left, for the sake of rounding."""
_CALL = re.compile(r"\btable\s*\(")
_COLUMN = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\((.+)\))?\s*\Z")


@dataclass(frozen=True)
class Use:
    """A table in an expression: its file and the text of it, what it is read at, and its range in SI units."""

    file: str
    content: str
    argument: str
    low: Quantity
    high: Quantity
    block: str
    at: Position


class _Wrong(ValueError):
    """What is wrong with a table: found, expected, mend."""


def expand_tables(tree: Map, report: Report, kept: Mapping[str, str] | None = None) -> list[Use]:
    """Put the curves in the places of all calls of `table` in a netlist; where.

    `kept`: texts of tables by name; then no file is read.
    """
    uses: list[Use] = []

    def expanded(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = expanded(value[key])
        elif isinstance(value, list):
            value[:] = [expanded(item) for item in value]
        elif isinstance(value, Text) and _CALL.search(value):
            return _expand(value, report, uses, kept)
        return value

    expanded(tree)
    return uses


def _expand(block: Text, report: Report, uses: list[Use], kept: Mapping[str, str] | None) -> Text:
    found, position = "", 0
    while match := _CALL.search(block, position):
        at = Position(block.at.file, block.at.line + block.count("\n", 0, match.start()))
        found += block[position : match.start()]
        try:
            end, arguments = _arguments(block, match.end())
            name = block.same_place(arguments[0])
            content = _content(beside(name), name) if kept is None else _kept(kept, name)
            if any(use.file == name and use.content != content for use in uses):
                raise _Wrong(f"another file that is called {name}, too", "names that differ", "rename one of the two")
            curve, use = _curve(str(name), content, arguments[1:], str(block), at)
            uses.append(use)
        except _Wrong as problem:
            report.add(TABLE, at, *problem.args)
            return block.same_place(found + "0")
        found += curve
        position = end
    return block.same_place(found + block[position:])


def _arguments(block: str, start: int) -> tuple[int, list[str]]:
    """Where a call ends, and its arguments; the first and the third are names, in quotes or not."""
    depth, quote, pieces, piece = 1, "", list[str](), ""
    for k in range(start, len(block)):
        c = block[k]
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        else:
            depth += (c in "([") - (c in ")]")
        if depth == 0 or (c == "," and depth == 1 and not quote):
            pieces.append(piece.strip())
            piece = ""
            if depth == 0:
                if len(pieces) not in (2, 3) or not all(pieces):
                    break
                pieces[0], pieces[2:] = pieces[0].strip("\"'"), [p.strip("\"'") for p in pieces[2:]]
                return k + 1, pieces
        else:
            piece += c
    raise _Wrong(f"`table({block[start:].strip()[:40]}`", 'table("FILE.csv", x) or table("FILE.csv", x, column)')


def _curve(name: str, content: str, arguments: list[str], block: str, at: Position) -> tuple[str, Use]:
    """The curve as an expression."""
    try:
        node = parse(arguments[0])
        argument = text(node) if isinstance(node, ast.Name) else f"({text(node)})"
    except ExpressionError as problem:
        raise _Wrong(f"`table`: {problem.message}", "an expression", problem.mend) from None
    columns = _read(content, name)
    (x_unit, x), (y_unit, y) = _chosen(name, columns, arguments[1:])
    steps = [
        f"{b - a!r}{y_unit}*min(max(0, ({argument} - {low!r}{x_unit})/({high - low!r}{x_unit})), 1)"
        for low, high, a, b in zip(x, x[1:], y, y[1:], strict=False)
    ]
    middle, half = (x[0] + x[-1]) / 2, (x[-1] - x[0]) / 2 * (1 + TOLERANCE)
    outside = f"where(abs({argument} - {middle!r}{x_unit}) > {half!r}{x_unit}, inf{y_unit}, 0{y_unit})"
    low, high = (evaluate(f"{end!r}{x_unit}", {}) for end in (x[0], x[-1]))
    return f"({_sum([f'{y[0]!r}{y_unit}', *steps, outside])})", Use(name, content, argument, low, high, block, at)


def _sum(terms: list[str]) -> str:
    """A sum as a tree, which is not nested deeply."""
    if len(terms) <= 2:
        return " + ".join(terms)
    half = len(terms) // 2
    return f"({_sum(terms[:half])}) + ({_sum(terms[half:])})"


def _chosen(name: str, columns: dict[str, tuple[str, list[float]]], wanted: list[str]) -> list[Any]:
    (first, x), *others = columns.items()
    values = dict(others)
    if not wanted and len(values) != 1:
        raise _Wrong(f"{name} has the columns {', '.join(values)} beside `{first}`", 'table("FILE.csv", x, column)')
    column = wanted[0] if wanted else next(iter(values))
    if column not in values:
        raise _Wrong(f"{name} has no column `{column}`", f"one of {', '.join(values)}")
    steps = list(zip(x[1], x[1][1:], strict=False))
    if not steps or any(b <= a for a, b in steps):
        raise _Wrong(f"the column `{first}` of {name} does not increase", "at least two rows in increasing order")
    return [x, values[column]]


def _content(path: Path, name: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError:
        raise _Wrong(f"there is no file {name}", "a CSV file beside the netlist", "check the path") from None
    except UnicodeDecodeError as error:
        raise _Wrong(f"{name} cannot be read ({error})", "a CSV file in UTF-8") from None


def _kept(tables: Mapping[str, str], name: str) -> str:
    try:
        return tables[name]
    except KeyError:
        raise _Wrong(f"there is no text of {name}", "the table beside the netlist") from None


def _read(content: str, name: str) -> dict[str, tuple[str, list[float]]]:
    """Name -> (unit as a factor, values) of each column."""
    try:
        lines = csv.reader(io.StringIO(content, newline=""))
        rows = [row for row in lines if row and not row[0].lstrip().startswith("#")]
    except csv.Error as error:
        raise _Wrong(f"{name} cannot be read ({error})", "a CSV file in UTF-8") from None
    if not 3 <= len(rows) <= MOST + 1 or len(rows[0]) < 2:
        raise _Wrong(
            f"{name} has {len(rows)} lines and {len(rows[0]) if rows else 0} columns",
            f"a header, 2 to {MOST} rows, and two columns or more",
        )
    numbers = [_numbers(row, len(rows[0]), name) for row in rows[1:]]
    found = {}
    for k, (column, unit) in enumerate(_header(rows[0], name)):
        if column in found:
            raise _Wrong(f"{name} has two columns `{column}`", "each name once")
        found[column] = unit, [row[k] for row in numbers]
    return found


def _header(cells: list[str], name: str) -> Iterator[tuple[str, str]]:
    for cell in cells:
        match = _COLUMN.match(cell)
        if match is None:
            raise _Wrong(f"{name}: the column `{cell.strip()}`", "a name with its unit, such as `g (uS)`")
        try:
            parse_unit(match[2] or "1")
        except (UnitError, ExpressionError) as error:
            raise _Wrong(f"{name}: the column `{cell.strip()}`: {error}", "a unit, such as `g (uS)`") from None
        yield match[1], f"*({match[2]})" if match[2] not in (None, "1") else ""


def _numbers(row: list[str], columns: int, name: str) -> list[float]:
    try:
        values = [float(cell) for cell in row]
    except ValueError:
        values = []
    if len(values) != columns or not all(map(isfinite, values)):
        raise _Wrong(f"{name}: `{','.join(row)}` is no row of numbers", "a number for each column of the header")
    return values


def check_ranges(uses: list[Use], parameters: Parameters, report: Report) -> None:
    """Compare each table with the bounds to which its argument is clipped, where the same block says so."""
    values = parameters.constants()
    for use in uses:
        clip = re.search(rf"(?m)^\s*{re.escape(use.argument)}\s*=\s*clip\(.*,([^,]+),([^,]+)\)\s*(?:#.*)?$", use.block)
        if clip is None:
            continue
        try:
            low, high = (evaluate(bound, values) for bound in clip.groups())
        except ExpressionError:
            continue  # the unit check says what is wrong, or a bound is no constant
        room = TOLERANCE * (use.high.value - use.low.value)
        same = low.dimensions == use.low.dimensions
        if same and (low.value < use.low.value - room or high.value > use.high.value + room):
            report.add(
                TABLE_RANGE, use.at,
                f"`{use.argument}` goes from {_said(low)} to {_said(high)}, {use.file} from {_said(use.low)} to "
                f"{_said(use.high)}",
                "a table of the whole range", "measure more, or clip to what was measured",
            )  # fmt: skip


def _said(quantity: Quantity) -> str:
    unit = "" if quantity.dimensions == DIMENSIONLESS else f" {describe(quantity.dimensions)}"
    return f"{quantity.value:g}{unit}"
