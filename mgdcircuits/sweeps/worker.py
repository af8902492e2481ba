"""What a worker of a cluster does: train the members of a job, and tell how far it is."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker

from mgdcircuits.circuit.circuit import Circuit, load_again
from mgdcircuits.errors import BuildError, MgdError, RunError
from mgdcircuits.journal import Record
from mgdcircuits.progress import Progress
from mgdcircuits.record import MEMBER
from mgdcircuits.sweeps.grid import SEED, Index
from mgdcircuits.sweeps.results import pack

if TYPE_CHECKING:
    import xarray as xr

TELL_SECONDS = 0.5
"""Between two messages about how far a job is."""

_ONE_AT_A_TIME = threading.Lock()  # the netCDF library is not made for several threads


@dataclass(frozen=True)
class Source:
    """A netlist that can be sent to a worker: its text and its tables, and its file in case that other files lie beside it."""

    text: str
    file: str
    overrides: Mapping[str, Any]
    tables: Mapping[str, str] = field(default_factory=dict)

    def circuit(self, overrides: Mapping[str, Any]) -> Circuit:
        """The circuit with further overrides: from its file, so that a problem is told with its line, else from its text."""
        return load_again(self.text, self.file, {**self.overrides, **overrides}, self.tables)

    def from_anywhere(self) -> Source:
        """The same for a process in another folder."""
        return replace(self, file=resolved(self.file)) if self.file else self


@dataclass(frozen=True)
class Job:
    """Points that differ in nothing but the seed, run as members of one session.

    Parameters
    ----------
    overrides
        Of parameters and clocks of the netlist.
    options
        Of `train`.
    seeds
        One a member.
    points
        Of the first members; the others fill up a session of a size that is compiled.
    """

    overrides: Mapping[str, Any]
    options: Mapping[str, Any]
    seeds: tuple[int, ...]
    points: tuple[Index, ...]

    def alone(self) -> list[Job]:
        """Each point by itself, so that what is wrong with it is told of it alone."""
        return [replace(self, seeds=(s,), points=(p,)) for s, p in zip(self.seeds, self.points, strict=False)]


class Deaf(WorkerPlugin):
    """A worker plugin: Ctrl-C on the terminal of a local sweep is the sweep's affair, which stops its workers itself."""

    name = "deaf to Ctrl-C"

    def setup(self, worker: Any) -> None:
        """Called in the main thread of a worker; compilers that it starts inherit it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Teller(Progress):
    """Tells the scheduler how far a job is, and ends it when nobody waits for it any more."""

    def __init__(self, topic: str, key: str) -> None:
        super().__init__(0, mode=False)
        self._worker = get_worker()
        self._topic = topic
        self._key = key
        self._next = 0.0

    def advance(self, iteration: int) -> None:
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + TELL_SECONDS
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state == "cancelled":
            raise RunError("nobody waits for this run any more")
        self._worker.log_event(self._topic, {"key": self._key, "iteration": iteration})

    def report(self, iteration: int, text: str) -> None:
        self.advance(iteration)


@dataclass(frozen=True)
class Call:
    """What a worker is told: what to run, and under which names to tell about it."""

    source: Source
    job: Job
    key: str
    topic: str


def compile_first(call: Call, data: Any) -> str:
    """Compile what a job needs by training it for an iteration; what the compiler says against it, or nothing."""
    job = replace(call.job, options={**call.job.options, "iterations": 1, "until": None})
    try:
        _train(replace(call, job=job), data)
    except BuildError as error:
        return str(error)
    except MgdError:
        pass  # of this job only, which will say so itself
    return ""


def run(call: Call, data: Any, wrong: str = "") -> list[Record] | str:
    """The runs of the points of a job, or what is wrong: with its circuit, as `compile_first` found, or with a run."""
    if wrong:
        return wrong
    try:
        found = _train(call, data)
    except MgdError as error:
        return str(error)
    return [pack(_member(found, k)) for k in range(len(call.job.points))]


def _train(call: Call, data: Any) -> xr.Dataset:
    from mgdcircuits.training import train

    job = call.job
    options = job.options if data is None else {**job.options, "data": data}
    with _ONE_AT_A_TIME:
        circuit = call.source.circuit(job.overrides)
        return train(circuit, seed=job.seeds, progress=Teller(call.topic, call.key), **options)


def _member(run: xr.Dataset, number: int) -> xr.Dataset:
    """The run of a member as it would be alone."""
    return run.isel({MEMBER: number}).drop_vars([MEMBER, SEED]) if MEMBER in run.dims else run


def resolved(path: str | Path) -> str:
    """The path of a file from any folder; a name that is no file stays as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else str(path)
