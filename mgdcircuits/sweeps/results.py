"""What a sweep leaves on disk: a journal of its points while it goes on, and one dataset of all of them.

The journal beside the dataset, NAME.points, grows by a record a point. It is what the same sweep goes on from, and goes when
no point is missing any more.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits import journal
from mgdcircuits.errors import RecordError, RunError
from mgdcircuits.journal import Journal, Record
from mgdcircuits.record import DECLARED, SWEEP, open_run, reason, write_dataset
from mgdcircuits.storage import sync_folder
from mgdcircuits.sweeps.grid import Grid, Index

if TYPE_CHECKING:
    import xarray as xr

STATE = "state"
MISSING, FAILED = "missing", "failed: "
"""States of points without a run: one that never ran, and how that of one which failed begins."""
MEND = "repeat what it was begun with, choose another name, or say --force (in Python overwrite=True)"

OTHER = {
    "netlist": "another netlist",
    "samples": "other samples, by the same name",
    "tables": "other tables, by the same names",
}
"""What is said of long facts that are not the same; `samples` are known only where this process has them."""


def points_of(path: Path) -> Path:
    """Where the journal of a sweep lies."""
    return path.with_name(f"{path.name}.points")


class Results:
    """The points of a sweep that are done; on disk at once.

    Parameters
    ----------
    path
        The dataset to be; None: in memory only.
    grid
        What is swept.
    identity
        What must be the same for a sweep to go on, by the names of the options.
    overwrite
        Whether to begin anew in the place of what is there.

    Raises
    ------
    RecordError
        A file that is there and is no sweep; a folder that does not exist; another process that writes there.
    RunError
        A sweep of something else.
    """

    def __init__(self, path: Path | None, grid: Grid, identity: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self.grid = grid
        self.identity = json.loads(json.dumps(identity))
        self.runs: dict[Index, Record] = {}
        self.failures: dict[Index, str] = {}
        self.complete: xr.Dataset | None = None
        if path is not None and path.is_dir():
            raise RecordError(f"{path} is a folder; expected the name of a file, such as {path / 'sweep.nc'}")
        self._folder = tempfile.TemporaryDirectory(prefix="mgdcircuits-") if path is None else None
        file = path or Path(self._folder.name, "sweep.nc") if self._folder else path
        assert file is not None
        self._points = points_of(file)
        if path is not None:
            self._look(path, overwrite)
        if self.complete is None:
            self._journal = _open(self._points, file)
            self._go_on(overwrite)

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.complete is None:
            self._journal.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _look(self, path: Path, overwrite: bool) -> None:
        """What can be said before anything is begun; a complete sweep is opened."""
        if not path.parent.is_dir():
            raise RecordError(f"{path}: the folder {path.parent} does not exist; make it first")
        if overwrite or not path.exists() or self._points.exists() and journal.whole(self._points)[0]:
            return
        found = open_run(path)
        if SWEEP not in found.attrs:
            raise RecordError(f"{path} exists and is no sweep; choose another name, or say --force (overwrite=True)")
        self._check(json.loads(found.attrs[SWEEP]))
        self.complete = found

    def _go_on(self, overwrite: bool) -> None:
        records, end = ([], 0) if overwrite else journal.whole(self._points)
        if records:
            try:
                self._check(records[0][0].get(SWEEP, {}))
            except RunError:
                self._journal.close()
                raise
            self.runs = {tuple(about["point"]): (about, arrays) for about, arrays in records[1:]}
            self._journal.restart(end)
        else:
            self._journal.restart()
            self._append({SWEEP: self.identity}, {})

    def _check(self, before: Mapping[str, Any]) -> None:
        for name, value in self.identity.items():
            if before.get(name) != value and (name != "samples" or name in before):
                what = OTHER.get(name, f"{name} = {before.get(name)}, here it is {value}")
                raise RunError(f"{self.path} is a sweep of {what}; {MEND}")

    def _append(self, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        try:
            self._journal.append(about, arrays)
            self._journal.sync()
        except OSError as error:
            mend = "make room and run the same sweep again"
            raise RecordError(f"{self._points} cannot be written: {reason(error)}; {mend}") from None

    @property
    def missing(self) -> list[Index]:
        """Points that are not done."""
        return [] if self.complete is not None else [index for index in self.grid if index not in self.runs]

    def add(self, index: Index, run: Record) -> None:
        """A point is done.

        Raises
        ------
        RecordError
            The disk is full.
        """
        about, arrays = run
        self._append({"point": list(index), **about}, arrays)
        self.runs[index] = ({"point": list(index), **about}, arrays)

    def fail(self, index: Index, why: str) -> None:
        """A point cannot be computed; it stays missing."""
        self.failures[index] = why

    def close(self, attributes: Mapping[str, Any]) -> xr.Dataset:
        """Write the dataset, if there is a point; the journal goes if nothing is missing, or everything.

        Raises
        ------
        RecordError
            It cannot be written; the journal stays.
        """
        if self.complete is not None:
            return self.complete
        found = gather(self.grid, self.runs, self.failures)
        found.attrs = {**attributes, SWEEP: json.dumps(self.identity)}
        if self.path is not None and self.runs:
            mend = f"the points are kept in {self._points.name}: make room and run the same sweep again"
            write_dataset(found, self.path, mend)
        if self.path is not None and not (self.runs and self.missing):
            self._points.unlink(missing_ok=True)
            sync_folder(self.path.parent)
        return found


def _open(points: Path, path: Path) -> Journal:
    try:
        return Journal(points)
    except BlockingIOError:
        raise RecordError(f"{path} is being written by another process; wait for its end, or write elsewhere") from None
    except OSError as error:
        raise RecordError(f"{points} cannot be written: {reason(error)}") from None


def pack(run: xr.Dataset) -> Record:
    """A run as a record of a journal."""
    arrays, variables = {}, {}
    for name, variable in run.variables.items():
        about = {"dims": list(variable.dims), "attrs": dict(variable.attrs), "coordinate": name in run.coords}
        if variable.dtype.kind in "OUS":
            about["text"] = np.asarray(variable.values, dtype=str).tolist()
        else:
            arrays[str(name)] = variable.values
        variables[str(name)] = about
    return {"variables": variables, STATE: run.attrs[STATE]}, arrays


def gather(grid: Grid, runs: Mapping[Index, Record], failures: Mapping[Index, str]) -> xr.Dataset:
    """One dataset of all points: what a run has, with a dimension for each swept name in front.

    Where runs have different rows or sizes, the dataset has all of them, and no number where a point has none; so it is where a
    point is missing.
    """
    import xarray as xr

    labels = _labels(runs.values())
    shape = tuple(len(axis.values) for axis in grid.axes)
    coordinates: dict[str, Any] = {a.name: (a.name, _axis(a.values), _about(a.name)) for a in grid.axes}
    found: dict[str, Any] = {}
    for name, about in _variables(runs.values()).items():
        if name in labels:
            coordinates[name] = ((name,), labels[name], about["attrs"])
            continue
        dims = about["dims"]
        values = np.full((*shape, *(len(labels[d]) for d in dims)), *_nothing(name, runs.values()))
        for index, run in runs.items():
            if (one := _value(run, name)) is not None:
                own = run[0]["variables"][name]["dims"]
                places = [np.array([k]) for k in index]
                places += [
                    _places(run, d, one.shape[own.index(d)], labels[d]) if d in own else np.array([0]) for d in dims
                ]
                values[np.ix_(*places)] = one.reshape([len(p) for p in places])
        (coordinates if about["coordinate"] else found)[name] = ((*grid.names, *dims), values, about["attrs"])
    states = np.full(shape, MISSING, dtype=object)
    for index, run in runs.items():
        states[index] = run[0][STATE]
    for index, why in failures.items():
        states[index] = f"{FAILED}{why}"
    found[STATE] = (grid.names, states, {"long_name": "how the run ended", "intent": "result"})
    return xr.Dataset(found, coordinates)


def _axis(values: Sequence[Any]) -> np.ndarray:
    numbers = all(isinstance(v, int | float) for v in values)
    return np.array(values) if numbers else np.array([str(v) for v in values], dtype=object)


def _about(name: str) -> dict[str, str]:
    declared = DECLARED.get(name)
    return {
        "long_name": declared.long_name if declared else f"{name} of the netlist or the run",
        "intent": "coordinate",
    }


def _variables(runs: Iterator[Record] | Any) -> dict[str, dict[str, Any]]:
    """Descriptions of all variables; of those with fewer dimensions in some runs (a batch of one), the longest."""
    found: dict[str, dict[str, Any]] = {}
    for about, _ in runs:
        for name, variable in about["variables"].items():
            if name not in found or len(variable["dims"]) > len(found[name]["dims"]):
                found[name] = variable
    return found


def _value(run: Record, name: str) -> np.ndarray | None:
    about, arrays = run
    if name in arrays:
        return arrays[name]
    text = about["variables"].get(name, {}).get("text")
    return None if text is None else np.array(text, dtype=object)


def _labels(runs: Any) -> dict[str, np.ndarray]:
    """What there is along each dimension of the runs: the union of their coordinates, or numbers where there is none."""
    values: dict[str, list[np.ndarray]] = {}
    for run in runs:
        for name, variable in run[0]["variables"].items():
            array = _value(run, name)
            assert array is not None
            for dim, size in zip(variable["dims"], array.shape, strict=True):
                own = _value(run, dim)
                values.setdefault(dim, []).append(np.arange(size) if own is None else own)
    return {dim: _union(several) for dim, several in values.items()}


def _union(several: list[np.ndarray]) -> np.ndarray:
    if several[0].dtype.kind == "O":
        return np.array(list(dict.fromkeys(label for labels in several for label in labels)), dtype=object)
    return np.unique(np.concatenate(several))


def _places(run: Record, dim: str, size: int, labels: np.ndarray) -> np.ndarray:
    own = _value(run, dim)
    if own is None:
        return np.arange(size)
    if labels.dtype.kind == "O":
        order = {label: k for k, label in enumerate(labels)}
        return np.array([order[label] for label in own], dtype=np.intp)
    return np.searchsorted(labels, own)


def _nothing(name: str, runs: Any) -> tuple[Any, Any]:
    """What stands where a point has no value, and the type of the values: whole numbers become float64 to have one."""
    kinds = [a.dtype for run in runs if (a := _value(run, name)) is not None]
    if kinds[0].kind == "O":
        return "", object
    return np.nan, np.result_type(*kinds) if all(k.kind == "f" for k in kinds) else np.float64
