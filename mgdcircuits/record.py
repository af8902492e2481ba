"""What a run leaves on disk: one documented dataset, written while the run goes on.

The schema is `SCHEMA` below, one declaration a variable; docs/dataset.md explains it. A row is on disk before the next
one is computed, so that a run that was stopped, killed or ran out of disk leaves a file with all rows up to then.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from importlib import metadata
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits.errors import RecordError
from mgdcircuits.storage import sync_file, sync_folder

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import xarray as xr

    from mgdcircuits.netlist.spec import CircuitSpec

ROW, MEMBER, GROUP = "iteration", "member", "parameter"
SCHEMA_VERSION = 1
RUNNING = "running"
SWEEP = "sweep"
"""The attribute of a sweep that says what it is of."""


class Intent(Enum):
    """What a variable of a run is for."""

    COORDINATE = "coordinate"
    RESULT = "result"
    GRADIENT = "gradient"  # only if the run was asked to compare with the exact gradient
    RECORDED = "recorded"  # an entry of `record:`


@dataclass(frozen=True)
class Declaration:
    """One variable of a run. Where a run has several members, `member` comes after the row dimension."""

    name: str
    dims: tuple[str, ...]
    long_name: str
    units: str = "1"
    intent: Intent = Intent.RESULT
    dtype: str = "f8"
    per_member: bool = True

    def with_members(self, members: int) -> Declaration:
        """The declaration of a run with that many members."""
        if members == 1 or not self.per_member:
            return self
        return replace(self, dims=(self.dims[0], MEMBER, *self.dims[1:]))


def _coordinate(name: str, dims: tuple[str, ...], long_name: str, units: str = "1", dtype: str = "f8") -> Declaration:
    return Declaration(name, dims, long_name, units, Intent.COORDINATE, dtype, per_member=False)


SCHEMA: tuple[Declaration, ...] = (
    _coordinate("iteration", (ROW,), "iterations done", dtype="i8"),
    _coordinate("evaluations", (ROW,), "evaluations of one sample on the hardware, of one member", dtype="i8"),
    _coordinate("hardware_seconds", (ROW,), "simulated time on the hardware, of one member", "s"),
    _coordinate("wall_seconds", (ROW,), "time since the run was started on this machine", "s"),
    _coordinate("member", (MEMBER,), "member: an independent experiment", dtype="i8"),
    _coordinate("seed", (MEMBER,), "seed of the member", dtype="i8"),
    _coordinate("parameter", (GROUP,), "group of plastic parameters, by its qualified name", dtype="str"),
    _coordinate("parameter_size", (GROUP,), "number of parameters in the group, of one member", dtype="i8"),
    _coordinate("update_period", (), "iterations between two updates of the first learning system", dtype="i8"),
    Declaration("cost", (ROW,), "cost of the training samples shown since the previous row, mean"),
    Declaration("reward", (ROW,), "reward since the previous row, mean: minus the cost"),
    Declaration("cost_test", (ROW,), "cost of the whole test set, mean"),
    Declaration("accuracy_test", (ROW,), "fraction of the test set that is answered right"),
    Declaration("accuracy_train", (ROW,), "fraction of (at most 2000) training samples that is answered right"),
    Declaration("writes_mean", (ROW, GROUP), "writes so far of a device of the group, mean"),
    Declaration("writes_max", (ROW, GROUP), "writes so far of the most written device of the group", dtype="i8"),
    Declaration("wear", (ROW, GROUP), "largest part of its endurance that a device of the group has used"),
    Declaration("worn", (ROW, GROUP), "fraction of the devices of the group that have used up their endurance"),
    Declaration("requests_rounded", (ROW, GROUP), "fraction of the requests for writes so far that moved nothing"),
    Declaration("requests_clipped", (ROW, GROUP), "fraction of the requests for writes so far that a bound cut"),
    Declaration("requests_stuck", (ROW, GROUP), "fraction of the requests for writes so far to worn devices"),
    Declaration("cost_change", (ROW,), "change of the cost under perturbation since the previous row, rms"),
    Declaration("cost_change_snr", (ROW,), "the same without measurement noise, over the noise, rms"),
    Declaration("settling_residual", (ROW,), "change of the cost in a second evaluation from rest, rms"),
    Declaration(
        "cosine",
        (ROW,),
        "cosine of the angle between the accumulated estimate and the exact gradient, whole network",
        intent=Intent.GRADIENT,
    ),
    Declaration(
        "norm_ratio",
        (ROW,),
        "norm of the accumulated estimate over the norm of the exact gradient, whole network",
        intent=Intent.GRADIENT,
    ),
    Declaration(
        "group_cosine",
        (ROW, GROUP),
        "cosine of the angle between estimate and exact gradient, within the group",
        intent=Intent.GRADIENT,
    ),
    Declaration(
        "group_norm_ratio",
        (ROW, GROUP),
        "norm of the estimate over the norm of the exact gradient, within the group",
        intent=Intent.GRADIENT,
    ),
)
DECLARED: Mapping[str, Declaration] = {d.name: d for d in SCHEMA}


def run_attributes(spec: CircuitSpec, **further: Any) -> dict[str, Any]:
    """Global attributes of a run: where it comes from, and with what it was computed. No host or user names.

    Parameters
    ----------
    spec
        The circuit that runs; its text, parameters and overrides are kept.
    **further
        What else is known of the run (seeds, batch, ...); what netCDF has no type for becomes JSON.
    """
    attributes = {
        "Conventions": "CF-1.11",
        "title": f"mgdcircuits run of {spec.name}",
        "schema": SCHEMA_VERSION,
        "circuit": spec.name,
        "netlist_file": Path(spec.file).name,
        "netlist": spec.text,
        "netlist_sha256": hashlib.sha256(spec.text.encode()).hexdigest(),
        "netlist_tables": dict(spec.tables),
        "parameters": dict(spec.parameters),
        "overrides": dict(spec.overrides),
        "clocks": dict(spec.clocks),
        "versions": _versions(),
        "machine": _machine(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv and sys.argv[0] else "python",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "state": RUNNING,
    }
    return {name: _attribute(value) for name, value in (attributes | further).items()}


def _attribute(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(v, int) for v in value):
        return np.array(value, np.int64)
    return json.dumps(value, default=str)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("mgdcircuits", "brian2", "numpy", "sympy", "xarray", "netCDF4"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {"cores": os.cpu_count(), "cpu": model, "system": platform.system()}


class RunWriter:
    """Writes a run row by row.

    Parameters
    ----------
    path
        The file to make.
    declarations
        The variables; those with the same first dimension are written together by `row` or `extend`.
    sizes
        Lengths of the fixed dimensions; every other dimension is unlimited.
    constants
        Values of the variables that have no row dimension.
    attributes
        Global attributes, see `run_attributes`.
    overwrite
        Whether a file that exists may be replaced.

    Raises
    ------
    RecordError
        A folder that does not exist or is not writable, a file that exists, a full disk.
    """

    mend = "make room and start again, or write elsewhere with -o"

    def __init__(
        self,
        path: str | Path,
        declarations: Iterable[Declaration],
        sizes: Mapping[str, int],
        constants: Mapping[str, Any],
        attributes: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        import netCDF4

        self.path = Path(path)
        self._rows: dict[str, int] = {}
        self._declarations = {d.name: d for d in declarations}
        if self.path.exists() and not overwrite:
            raise RecordError(
                f"{self.path} exists; expected a new file; choose another name or say --force (overwrite=True)"
            )
        if not self.path.parent.is_dir():
            raise RecordError(f"{self.path}: the folder {self.path.parent} does not exist; make it first")
        try:
            if self.path.is_file():
                # A new file in its place, so that a reader of the old one is not disturbed.
                self.path.unlink()
            self._file = netCDF4.Dataset(str(self.path), "w", format="NETCDF4")
        except (OSError, RuntimeError) as error:
            raise self._not_begun(error) from error
        try:
            self._define(sizes, constants, attributes)
            self._file.sync()
        except (OSError, RuntimeError) as error:
            self._abandon()
            raise self._not_begun(error) from error

    def _not_begun(self, error: Exception) -> RecordError:
        """What to say of a file that could not be begun; HDF5 calls a full disk by other names."""
        why = _lacking(self.path.parent, 65536) or reason(error)
        if self.path.is_file():
            with contextlib.suppress(OSError):
                self.path.unlink()
        return RecordError(f"{self.path} cannot be written: {why}")

    def _define(self, sizes: Mapping[str, int], constants: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            # Variable-length text has no limit of 64 KiB, which a fixed-length attribute of HDF5 has.
            (self._file.setncattr_string if isinstance(value, str) else self._file.setncattr)(name, value)
        for d in self._declarations.values():
            for dim in d.dims:
                if dim not in self._file.dimensions:
                    self._file.createDimension(dim, sizes.get(dim))
                    if dim not in sizes:
                        self._rows[dim] = 0
            kind = str if d.dtype == "str" else d.dtype
            options: dict[str, Any] = {}
            if d.dims and d.dims[0] not in sizes:
                width = int(np.prod([sizes[dim] for dim in d.dims[1:]], dtype=np.int64))
                options["chunksizes"] = (max(1, min(256, 8192 // max(1, width))), *(sizes[dim] for dim in d.dims[1:]))
            if kind == "f8" or kind == "f4":
                options["fill_value"] = np.nan
            variable = self._file.createVariable(d.name, kind, d.dims, **options)
            variable.long_name = d.long_name
            variable.intent = d.intent.value
            if d.dtype != "str":
                variable.units = d.units
            coordinates = [c for c in COORDINATES_OF.get(d.dims[:1], ()) if c in self._declarations]
            if d.intent is not Intent.COORDINATE and coordinates:
                variable.coordinates = " ".join(coordinates)
        self._growing = [v for v in self._file.variables.values() if v.dimensions[:1] and v.dimensions[0] in self._rows]
        for name, value in constants.items():
            variable = self._file.variables[name]
            variable[...] = np.array(value, dtype=object) if variable.dtype is str else np.asarray(value)

    def row(self, values: Mapping[str, Any], dimension: str = ROW) -> None:
        """Append one row and put it on disk.

        Raises
        ------
        RecordError
            The disk is full. The rows written before stay readable.
        """
        self._append(dimension, {name: np.asarray(value)[None] for name, value in values.items()}, 1)

    def extend(self, values: Mapping[str, np.ndarray], dimension: str) -> None:
        """Append any number of rows of another unlimited dimension; they are on disk with the next `row`."""
        count = len(next(iter(values.values())))
        if count:
            self._append(dimension, values, count, flush=False)

    def _append(self, dimension: str, values: Mapping[str, Any], count: int, flush: bool = True) -> None:
        self._check_space(sum(np.asarray(v).nbytes for v in values.values()))
        first = self._rows[dimension]
        try:
            # The dimension's own coordinate last: a row without it was not finished.
            for name in sorted(values, key=lambda n: n == dimension):
                self._file.variables[name][first : first + count] = values[name]
            self._rows[dimension] += count
            if flush:
                self._file.sync()
        except (OSError, RuntimeError) as error:
            self._abandon()
            raise RecordError(self._lost(reason(error))) from error

    def _check_space(self, needed: int) -> None:
        """Refuse a row that does not fit before HDF5 begins to write it: half a row destroys the whole file.

        What a row may allocate, besides itself, is a new chunk and an index node for every variable.
        """
        chunks = sum(8 * prod(map(int, v.chunking())) for v in self._growing)
        margin = int(needed + chunks + 8192 * (len(self._growing) + 1))
        problem = _reserve(self.path, margin)
        if problem:
            self._abandon()
            raise RecordError(self._lost(problem))

    def _lost(self, reason: str) -> str:
        rows = self._rows.get(ROW, 0)
        return (
            f"{self.path} cannot be written any further: {reason}; the {rows} rows written before are kept and "
            f"readable; {self.mend}"
        )

    def close(self, state: str, complete: bool = True) -> None:
        """Close the file and note how the run ended, and whether nothing remains to be done."""
        if not self._file.isopen():
            return
        try:
            if not _reserve(self.path, 65536):
                self._file.setncattr_string("state", state)
            self._file.close()
        except (OSError, RuntimeError) as error:
            raise RecordError(self._lost(reason(error))) from error

    def _abandon(self) -> None:
        try:
            self._file.close()
        except (OSError, RuntimeError):
            pass


# Coordinates that are no dimension's own: xarray finds them through the CF attribute `coordinates`.
COORDINATES_OF: Mapping[tuple[str, ...], Sequence[str]] = {
    (ROW,): ("evaluations", "hardware_seconds", "wall_seconds", "seed", "parameter_size"),
}


def reason(error: Exception) -> str:
    """What an error of the system says, in few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _reserve(path: Path, size: int) -> str:
    """Make sure that a file can grow by `size` bytes; what is in the way, or nothing.

    Linux gives out blocks beyond the end of a file without making it longer, so that nobody else can take them;
    elsewhere the free space is looked at, which another process may use up in between.
    """
    try:
        now = path.stat().st_size
        if resource is not None:
            limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
            if limit != resource.RLIM_INFINITY and now + size > limit:
                return f"a file may not grow beyond {limit} bytes here (ulimit -f)"
        error = _fallocate(path, now, size)
        if error in (errno.ENOSPC, errno.EDQUOT):
            return os.strerror(error)
        if error:
            return _lacking(path.parent, size)
    except OSError:
        pass  # HDF5 will find out
    return ""


def _lacking(folder: Path, size: int) -> str:
    """Whether a disk has fewer than `size` bytes left, in the system's words."""
    try:
        state = os.statvfs(folder)
    except (OSError, AttributeError):
        return ""  # this system says nothing about its space
    return os.strerror(errno.ENOSPC) if state.f_bavail * state.f_frsize < size else ""


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _fallocate(path: Path, start: int, size: int) -> int:
    keep_size = 1  # FALLOC_FL_KEEP_SIZE
    if not sys.platform.startswith("linux"):
        return errno.EOPNOTSUPP
    fallocate = _libc().fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return ctypes.get_errno() if fallocate(descriptor, keep_size, start, size) else 0
    finally:
        os.close(descriptor)


def state_of(path: Path) -> Path:
    """Where the checkpoint of a run that has not come to its end lies."""
    return path.with_name(f"{path.name}.state")


def open_run(path: str | Path, *, lazy: bool = False) -> xr.Dataset:
    """A run from its file, and nothing but its file.

    Parameters
    ----------
    path
        A file that `train` wrote, finished or not.
    lazy
        Leave large recorded arrays on disk until they are used; the file then stays open.

    Returns
    -------
    xarray.Dataset
        See docs/dataset.md. ``ds.attrs["state"]`` is "running" where the run was killed (or is still going on).

    Raises
    ------
    RecordError
        No such file, a damaged file, or one that mgdcircuits did not write.
    """
    import xarray as xr

    path = Path(path)
    if not path.exists():
        raise RecordError(f"{path} does not exist; expected a file that `mgdcircuits train -o` wrote")
    if path.is_dir():
        raise RecordError(f"{path} is a folder; expected a file that `mgdcircuits train -o` wrote")
    mend = "; --resume goes on with the run and puts it together again" if state_of(path).exists() else ""
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # a run that is still going on may be looked at
    try:
        dataset = xr.open_dataset(path, engine="netcdf4", mask_and_scale=True)
    except Exception as error:  # whatever a backend says about a file that is none
        raise RecordError(f"{path} is no run of mgdcircuits, or it is damaged: {reason(error)}{mend}") from error
    if "schema" not in dataset.attrs or "netlist_sha256" not in dataset.attrs:
        dataset.close()
        raise RecordError(f"{path} was not written by mgdcircuits: it lacks the attributes schema and netlist_sha256")
    try:
        whole = _whole_rows(dataset)
        if not lazy:
            whole = whole.load()
            dataset.close()
    except Exception as error:
        dataset.close()
        raise RecordError(f"{path} is damaged: {reason(error)}{mend}") from error
    return whole


def write_dataset(dataset: xr.Dataset, path: Path, mend: str) -> None:
    """Write a dataset that is put together; it is found either whole or not at all, and what was there stays until then.

    Parameters
    ----------
    mend
        What to do where it cannot be written.

    Raises
    ------
    RecordError
        No room.
    """
    part = path.with_name(f"{path.name}.part")
    dataset = dataset.drop_encoding()  # of a file that it was read from, which would cut longer words off
    compressed = {name: {"zlib": True} for name, v in dataset.variables.items() if v.ndim and v.dtype.kind in "fi"}
    try:
        dataset.to_netcdf(part, engine="netcdf4", encoding=compressed)
        sync_file(part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        why = _lacking(path.parent, dataset.nbytes) or reason(error)
        raise RecordError(f"{path} cannot be written: {why}; {mend}") from None
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def _whole_rows(dataset: xr.Dataset) -> xr.Dataset:
    """Without rows that a kill cut off: their dimension's own coordinate is missing."""
    rows = [d for d in dataset.encoding.get("unlimited_dims", ()) if str(d).endswith(ROW)]  # not what a sweep varies
    for dim in [d for d in rows if d in dataset.variables]:
        values = np.asarray(dataset[dim].values, dtype=np.float64)
        good = int(np.argmin(np.append(np.isfinite(values) & (values >= 0), False)))
        if good < len(values):
            dataset = dataset.isel({dim: slice(0, good)})
        dataset = dataset.assign_coords({dim: dataset[dim].astype(np.int64).assign_attrs(dataset[dim].attrs)})
    return dataset
