"""CSV files as data sets: ``x0,x1,...,y`` and tables with columns of any name, such as cues and answers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mgdcircuits.datasets.dataset import Dataset, from_arrays, keyed_permutation
from mgdcircuits.errors import DatasetError, Problem

MAX_PROBLEMS = 20


def read_csv(
    path: str | Path,
    *,
    x: str | Sequence[str] | None = None,
    y: str | None = None,
    kind: Literal["class", "float"] | None = None,
    test: str | Path | int | None = None,
    classes: Sequence[int | str] | None = None,
    validation: int = 0,
) -> Dataset:
    """A CSV file with one header line and one sample a line.

    A column is called ``stem`` or ``stem`` and a number; columns with the same stem form one group, in the order of
    their numbers, which must run from 0 or 1 without a gap. So ``x0,x1,x2,y`` has the groups x (n, 3) and y (n,), and
    ``pattern0,...,pattern39,side`` the groups pattern (n, 40) and side (n,). Empty lines and lines that start with
    ``#`` are skipped. UTF-8, comma-separated.

    Parameters
    ----------
    x
        Group or groups that are the input, side by side; default: the group x, else every group but the target's.
    y
        Group that is the target; default: the group y, else the last one of the header.
    kind
        "class": y becomes an index. Text is numbered in alphabetical order, numbers are the indices themselves.
        "float": y becomes targets (n, k). Default: class for one column of text or of whole numbers from 0 on.
    test
        Another CSV file with the same columns, or the number of rows to hold out (the last ones of
        ``keyed_permutation(n, "mgdcircuits csv")``). Default: the test set is the training set.
    classes, validation
        See `mgdcircuits.datasets.load`.

    Raises
    ------
    DatasetError
        With all problems of the file, each as ``file:line: found; expected; how to mend it``.
    """
    table = _Table(Path(path))
    target = y if y is not None else ("y" if "y" in table.groups else table.names[-1])
    inputs = _input_groups(table, x, target)
    other = _Table(Path(test)) if isinstance(test, (str, Path)) else None
    names = _class_names([table] if other is None else [table, other], target, kind)

    values_x, values_y = _inputs(table, inputs), _targets(table, target, names, kind)
    columns = {name: table.values(name) for name in table.groups}
    test_x = test_y = None
    if other is not None:
        test_x, test_y = _inputs(other, inputs), _targets(other, target, names, kind)
    elif test is not None:
        n = len(values_x)
        if not isinstance(test, int) or isinstance(test, bool) or not 0 < test < n:
            raise DatasetError(f"{path}: test={test}: expected another CSV file or a number of rows from 1 to {n - 1}")
        order = keyed_permutation(n, "mgdcircuits csv")
        kept, held = np.sort(order[:-test]), np.sort(order[-test:])
        test_x, test_y = values_x[held], values_y[held]
        values_x, values_y = values_x[kept], values_y[kept]
        columns = {name: values[kept] for name, values in columns.items()}
    return from_arrays(
        values_x,
        values_y,
        test_x,
        test_y,
        name=Path(path).stem,
        class_names=names,
        classes=classes,
        validation=validation,
        columns=columns,
    )


class _Table:
    """The cells of a file as text, with the line each row came from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[list[str]] = []
        self.lines: list[int] = []
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, strict=True)
                for row in reader:
                    cells = [cell.strip() for cell in row]
                    if any(cells) and not cells[0].startswith("#"):
                        self.rows.append(cells)
                        self.lines.append(reader.line_num)
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror}); expected a CSV file") from None
        except (UnicodeDecodeError, csv.Error) as error:
            line = len(self.lines) + 1
            raise self._error(line, f"not a CSV line ({error})", "UTF-8 text with commas") from None
        if not self.rows:
            raise self._error(1, "no header", "a line of column names such as x0,x1,y")
        self.header, self.header_line = self.rows.pop(0), self.lines.pop(0)
        self.groups = self._groups()
        self.names = list(self.groups)
        if not self.rows:
            raise self._error(self.header_line, "a header and no rows", "one sample a line")
        self._check_lengths()

    def values(self, group: str) -> NDArray[Any]:
        """(n,) or (n, k): float64 where every cell is a number, else text."""
        cells = [[row[column] for column in self.groups[group]] for row in self.rows]
        try:
            array: NDArray[Any] = np.array([[float(cell) for cell in row] for row in cells])
        except ValueError:
            array = np.array(cells)
        return array[:, 0] if self.is_plain(group) else array

    def is_plain(self, group: str) -> bool:
        return [self.header[column] for column in self.groups[group]] == [group]

    def numbers(self, group: str) -> NDArray[np.float64]:
        """(n, k) as numbers; every cell that is none is named."""
        columns, problems = self.groups[group], []
        array = np.zeros((len(self.rows), len(columns)))
        for i, (row, line) in enumerate(zip(self.rows, self.lines, strict=True)):
            for j, column in enumerate(columns):
                value = _number(row[column])
                if value is None:
                    found = (
                        f"{row[column]!r} in column {self.header[column]}"
                        if row[column]
                        else (f"nothing in column {self.header[column]}")
                    )
                    problems.append(Problem(self.path, line, found, "a finite number", "fill in or remove the line"))
                else:
                    array[i, j] = value
        _raise_all(problems)
        return array

    def _groups(self) -> dict[str, list[int]]:
        found: dict[str, dict[int | None, int]] = {}
        for column, name in enumerate(self.header):
            match = re.fullmatch(r"([A-Za-z_]\w*?)(\d+)?", name, re.ASCII)
            if match is None:
                where = f"{name!r} in column {column + 1}" if name else f"no name in column {column + 1}"
                mend = "add a header line" if _number(name) is not None else "rename it"
                raise self._error(self.header_line, where, "a name of letters, digits and _", mend)
            number = None if match[2] is None else int(match[2])
            members = found.setdefault(match[1], {})
            if number in members:
                raise self._error(self.header_line, f"the column {name} twice", "different names")
            members[number] = column
        groups = {}
        for stem, members in found.items():
            numbers = sorted(number for number in members if number is not None)
            if None in members and numbers:
                raise self._error(self.header_line, f"both {stem} and {stem}{numbers[0]}", "one or the other")
            if numbers and numbers not in (list(range(len(numbers))), list(range(1, len(numbers) + 1))):
                raise self._error(self.header_line, f"columns {stem}{numbers[0]} .. {stem}{numbers[-1]} with a gap",
                                  f"{stem}0, {stem}1, ... in full")  # fmt: skip
            groups[stem] = [members[number] for number in numbers] if numbers else [members[None]]
        return groups

    def _check_lengths(self) -> None:
        width = len(self.header)
        _raise_all(
            Problem(self.path, line, f"{len(row)} values", f"{width}, as in the header", "look for a missing comma")
            for row, line in zip(self.rows, self.lines, strict=True)
            if len(row) != width
        )

    def _error(self, line: int, found: str, expected: str, mend: str = "") -> DatasetError:
        return DatasetError(str(Problem(self.path, line, found, expected, mend)))


def _input_groups(table: _Table, x: str | Sequence[str] | None, target: str) -> list[str]:
    if x is not None:
        wanted = [x] if isinstance(x, str) else list(x)
    elif "x" in table.groups and target != "x":
        wanted = ["x"]
    else:
        wanted = [name for name in table.names if name != target]
    for name in [*wanted, target]:
        if name not in table.groups:
            known = ", ".join(table.names)
            raise DatasetError(str(Problem(table.path, table.header_line, f"no column {name}", f"one of {known}")))
    if not wanted:
        raise DatasetError(str(Problem(table.path, table.header_line, f"only the column {target}", "inputs as well")))
    return wanted


def _class_names(tables: list[_Table], target: str, kind: str | None) -> tuple[str, ...] | None:
    """Names of the classes, None for float targets."""
    for table in tables:
        if target not in table.groups:
            raise DatasetError(str(Problem(table.path, table.header_line, f"no column {target}", "the same columns")))
    if kind not in (None, "class", "float"):
        raise DatasetError(f"kind={kind!r}: expected 'class' or 'float'")
    if kind == "float" or len(tables[0].groups[target]) > 1:
        if kind == "class":
            raise DatasetError(f"{tables[0].path}: {target} has several columns; expected one to take as a class")
        return None
    cells = [row[table.groups[target][0]] for table in tables for row in table.rows]
    values = [_number(cell) for cell in cells]
    if all(value is not None for value in values):
        numbers = [value for value in values if value is not None]
        if all(number >= 0 and number == int(number) and number < 1_000_000 for number in numbers):
            return tuple(str(index) for index in range(int(max(numbers)) + 1))
        if kind == "class":
            raise DatasetError(f"{tables[0].path}: {target} is not 0, 1, ...; expected class indices or text")
        return None
    if kind is None and any(value is not None for value in values):
        return None  # mostly numbers: reading them as numbers names the cells that are none
    return tuple(sorted({cell for cell in cells if cell}))


def _inputs(table: _Table, groups: list[str]) -> NDArray[np.float32]:
    for name in groups:
        if name not in table.groups:
            raise DatasetError(str(Problem(table.path, table.header_line, f"no column {name}", "the same columns")))
    return np.concatenate([table.numbers(name) for name in groups], axis=1).astype(np.float32)


def _targets(table: _Table, target: str, names: tuple[str, ...] | None, kind: str | None) -> NDArray[Any]:
    if names is None:
        return table.numbers(target).astype(np.float32)
    column = table.groups[target][0]
    index = {name: i for i, name in enumerate(names)}
    labels, problems = [], []
    for row, line in zip(table.rows, table.lines, strict=True):
        number = _number(row[column])
        key = row[column] if row[column] in index or number is None else str(int(number))
        if key in index:
            labels.append(index[key])
        else:
            problems.append(Problem(table.path, line, f"nothing in column {target}", "a class", "fill it in"))
    _raise_all(problems)
    return np.array(labels, np.int64)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _raise_all(problems: Any) -> None:
    found = [str(problem) for problem in problems]
    if found:
        more = [f"... and {len(found) - MAX_PROBLEMS} more"] if len(found) > MAX_PROBLEMS else []
        raise DatasetError("\n".join(found[:MAX_PROBLEMS] + more))
