"""Train a circuit and write down what happens: slices of work, rows of a dataset, and a way to stop at any moment."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits import resumable
from mgdcircuits.checkpoint import Checkpoint
from mgdcircuits.comparison import compare
from mgdcircuits.datasets import Dataset
from mgdcircuits.datasets.of_task import dataset_of
from mgdcircuits.difficulties import explain
from mgdcircuits.errors import RecordError, RunError
from mgdcircuits.interrupts import Held
from mgdcircuits.progress import Progress
from mgdcircuits.record import ROW, RunWriter, open_run, run_attributes, state_of
from mgdcircuits.recording import Recorder, as_lists, as_specs
from mgdcircuits.resumable import ResumableWriter
from mgdcircuits.rows import Rows
from mgdcircuits.stopping import Condition

if TYPE_CHECKING:
    import xarray as xr

    from mgdcircuits.circuit.circuit import Circuit

ROWS = 100
"""Rows that a run has by default."""
COST_SAMPLES = 50
"""Iterations between two rows whose training cost is averaged; all of them where there are fewer."""
CHECKPOINT_SECONDS = 60.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `train`. `dataset` holds all rows until then; `path` is their file, if one was asked for."""

    def __init__(self, text: str, dataset: xr.Dataset, path: Path | None) -> None:
        super().__init__(text)
        self.dataset = dataset
        self.path = path


def train(
    circuit: Circuit,
    data: Any = None,
    *,
    iterations: int,
    out: str | Path | None = None,
    batch: int | None = None,
    members: int = 1,
    seed: int | Sequence[int] = 0,
    target: str = "cpp",
    dtype: str = "float32",
    threads: int | None = None,
    evaluate_every: int | None = None,
    until: str | None = None,
    record: Iterable[Any] | None = None,
    gradient: bool = False,
    progress: bool | Progress = True,
    data_dir: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    on_nan: str = "stop",
) -> xr.Dataset:
    """Train a circuit by the rule of its netlist.

    Parameters
    ----------
    circuit
        From `mgdcircuits.load`.
    data
        What to learn from: a name, a CSV file, a `Dataset`, or arrays (see `mgdcircuits.datasets.as_dataset`). Default:
        what the netlist's task names.
    iterations
        How many; an iteration is one draw of all codes with every evaluation that belongs to it.
    out
        The netCDF file to write while it runs. Without it the run is kept in memory only.
    batch, members, seed, target, dtype, on_nan
        See `mgdcircuits.Session`.
    threads
        Default: all cores this process may use. Results do not depend on it.
    evaluate_every
        Iterations between two rows of the dataset; a row includes an evaluation of the whole test set. Default: about
        100 rows in all.
    until
        Stop at the first row of which this is true, for example ``"accuracy >= .8"``.
    record
        Instead of the netlist's `record:`, names or mappings (variable, every, passes, units).
    gradient
        Compare the accumulated estimate with the exact gradient at each row.
    progress
        Show a bar (on a terminal) or lines; or a `Progress` that is told how far the run is. If nothing was learned, the
        sentence that says why is shown with them; without them it is a warning of the logger `mgdcircuits.training`,
        which Python prints on standard error. (`mgdcircuits.difficulties.explain` finds it for any run.)
    data_dir
        Where downloaded data lies.
    overwrite
        Whether `out` may replace a file.
    resume
        Go on with the run in `out` where it was stopped or killed; begin it if it has not begun. Everything but
        `threads`, `progress`, `data_dir`, `checkpoint_every` and `on_nan` must be as it was.
    checkpoint_every
        Seconds between two checkpoints beside `out`, from which `resume` goes on; 0: none.

    Returns
    -------
    xarray.Dataset
        See docs/dataset.md.

    Raises
    ------
    BuildError
        The circuit cannot run yet, or not on this target.
    RunError
        A bad argument; a run that cannot go on, or not with these arguments; a cost that is not finite any more.
    DatasetError, RecordError
        Data that cannot be had; a file that cannot be written. Rows written before stay in the file.
    Interrupted
        Ctrl-C; a KeyboardInterrupt that carries the dataset.
    """
    from mgdcircuits.arguments import check_circuit, check_out, counted, whole
    from mgdcircuits.session import Session

    check_circuit(circuit)
    check_out(circuit, out)
    iterations, evaluate_every = whole("iterations", iterations), counted("evaluate_every", evaluate_every)
    batch, members, threads = counted("batch", batch), whole("members", members), counted("threads", threads)
    if not checkpoint_every >= 0:
        raise RunError(f"checkpoint_every={checkpoint_every}: expected seconds, or 0 for no checkpoints")
    specs = as_specs(circuit.spec.record if record is None else record)
    saved = resumable.find(out, overwrite, resume)
    if saved is not None:
        saved.check_circuit(circuit.spec)
    circuit = circuit.recording(specs)
    session = Session(
        circuit,
        batch=batch,
        members=members,
        seed=seed,
        target=target,
        dtype=dtype,
        threads=threads or cores(),
        on_nan=on_nan,
    )
    dataset = dataset_of(circuit, data, data_dir)
    if dataset is not None:
        session.set_data(dataset)
    recorder = Recorder(session, circuit.spec.record)
    rows = Rows(session, dataset, recorder, gradient or recorder.wants_gradient)
    condition = None if until is None else Condition(until, rows.scalars)
    plan = _Plan(int(iterations), int(evaluate_every or max(1, ceil(iterations / ROWS))))
    facts = {
        "seed": session.seeds,
        "members": session.members,
        "batch": session.batch,
        "target": target,
        "dtype": dtype,
        "data": getattr(dataset, "name", ""),
        "iterations_asked": plan.iterations,
        "evaluate_every": plan.every,
        "until": until or "",
    }
    with contextlib.ExitStack() as stack:
        path = Path(out or stack.enter_context(tempfile.TemporaryDirectory(prefix="mgdcircuits-")) + "/run.nc")
        identity = {} if out is None else _identity(facts, rows, dataset)
        done = saved.about["iteration"] if saved else 0
        told = progress if isinstance(progress, Progress) else Progress(plan.iterations, progress, done)
        shown = stack.enter_context(told)
        training = _Training(rows, plan, condition, shown, identity, checkpoint_every)
        attributes = run_attributes(circuit.spec, **facts)
        schema = rows.schema()
        if saved is not None:
            training.restore(saved)
            writer: RunWriter = ResumableWriter.go_on(path, schema, saved)
            shown.say(f"goes on from iteration {session.iteration}")
        elif out is not None and checkpoint_every:
            writer = ResumableWriter.begin(path, schema, attributes, session, training.state(), overwrite)
        else:
            if out is not None:
                resumable.remove(path)
            writer = RunWriter(path, *schema, attributes, overwrite)
        error = training.run(writer)
        if isinstance(error, RecordError):
            raise error
        found = open_run(path)
        if error is None and (reason := explain(found)) is not None:
            if progress:
                shown.say(reason)
            else:
                logging.getLogger(__name__).warning(reason)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(training.stopped(found, out), found, None if out is None else path)
        if error is not None:
            raise error
        return found


@dataclass(frozen=True)
class _Plan:
    """At which iterations something is written or looked at."""

    iterations: int
    every: int

    def next_row(self, now: int) -> int:
        return min((now // self.every + 1) * self.every, self.iterations)

    def next_cost(self, now: int) -> int:
        """The next iteration whose training cost counts: fixed ones, so that timing does not change the dataset."""
        start = now // self.every * self.every
        k = (now - start) * COST_SAMPLES // self.every + 1 if self.every > COST_SAMPLES else now - start + 1
        return min(start + (-(-k * self.every // COST_SAMPLES) if self.every > COST_SAMPLES else k), self.iterations)


class _Training:
    """A run while it goes on.

    While it is *settled*, all that was due is written, or read and pending: then it may be stopped and saved.
    """

    def __init__(
        self,
        rows: Rows,
        plan: _Plan,
        condition: Condition | None,
        shown: Progress,
        identity: Mapping[str, Any],
        checkpoint_every: float,
    ) -> None:
        self._rows = rows
        self._session = rows.session
        self._plan = plan
        self._condition = condition
        self._shown = shown
        self._identity = identity
        self._checkpoint_every = checkpoint_every or inf
        self._saved_at = 0  # iteration of the last checkpoint
        self._row_at: int | None = None  # iteration of the last row
        self._pending: dict[str, dict[str, Any]] = {}  # read for the row of now: by dimension, the values of variables
        self._settled = False
        self._started = time.monotonic()

    # Stopping and going on

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the run, besides arrays and the session."""
        return {"identity": self._identity, "row_at": self._row_at, "seconds": time.monotonic() - self._started}

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        RunError
            One of another run.
        """
        if "identity" not in saved.run:
            raise RunError(f"{saved.path}: the checkpoint of a session, not of a run; go on with Session.resume")
        for name, value in self._identity.items():
            before = saved.run["identity"].get(name)
            if before != value:
                what = "other data" if name == "samples" else f"{name} = {before}, here it is {value}"
                mend = "repeat what it was begun with, or write elsewhere with -o"
                raise RunError(f"{saved.path}: the run was begun with {what}; {mend}")
        saved.restore(self._session)
        self._rows.costs = list(saved.run_arrays.get("costs", ()))
        self._rows.difficulties.noted = list(saved.run_arrays.get("changes", ()))
        for name, values in saved.run_arrays.items():
            if name not in ("costs", "changes"):
                dimension, _, variable = name.partition("/")
                self._pending.setdefault(dimension, {})[variable] = values
        self._row_at = saved.run["row_at"]
        self._saved_at = self._session.iteration
        self._started -= saved.run["seconds"]

    def run(self, writer: RunWriter) -> BaseException | None:
        """Run to the end, whatever the end is, and close the file; what stopped it."""
        error: BaseException | None = None
        with Held() as interrupt:
            try:
                state = self._go(writer, interrupt)
            except KeyboardInterrupt as caught:
                state, error = "interrupted", caught
            except Exception as caught:
                state, error = f"failed: {caught}", caught
            try:
                if isinstance(error, KeyboardInterrupt) and self._settled:
                    self._save(writer)
                writer.close(state, complete=error is None)
            except RecordError as caught:
                error = caught if error is None or isinstance(error, KeyboardInterrupt) else error
            if error is not None:
                interrupt.pending = False  # one Ctrl-C is enough
        return error

    def stopped(self, found: xr.Dataset, out: str | Path | None) -> str:
        """What to say after Ctrl-C."""
        n = found.sizes[ROW]
        rows = f"the {n} rows up to iteration {int(found[ROW][-1])} are kept" if n else "no row"
        kept = f"{rows} in {out}" if out else rows
        more = f"; --resume goes on from iteration {self._saved_at}" if out and state_of(Path(out)).exists() else ""
        return f"stopped at iteration {self._session.iteration}; {kept}{more}"

    def _save(self, writer: RunWriter) -> None:
        if isinstance(writer, ResumableWriter):
            pending = {f"{d}/{n}": np.asarray(v) for d, values in self._pending.items() for n, v in values.items()}
            noted = {"costs": self._rows.costs, "changes": self._rows.difficulties.noted}
            arrays = pending | {name: np.array(values) for name, values in noted.items() if values}
            writer.save(self._session, self.state(), arrays)
            self._saved_at = self._session.iteration

    # How it goes on

    def _go(self, writer: RunWriter, interrupt: Held) -> str:
        """Iterate to the end of the plan; how it ended."""
        self._writer, self._interrupt = writer, interrupt
        self._next_save = time.monotonic() + self._checkpoint_every
        while True:
            self._advance(0 if self._row_at is None else self._plan.next_row(self._row_at))
            row = self._row()
            if self._condition is not None and self._condition.holds(row) and self._row_at:
                self._shown.say(f"{self._condition.text} holds at iteration {self._session.iteration}")
                return f"until {self._condition.text}"
            if self._session.iteration >= self._plan.iterations:
                return "finished"

    def _row(self) -> dict[str, Any]:
        """Write a row: what is read of the session, and an evaluation, which takes long and may be cut off."""
        session, writer = self._session, self._writer
        if not self._pending:
            if session.iteration == 0:
                self._write_due()
            self._pending = self._read()
        self._settled = True
        with self._interrupt.released():
            evaluated = self._rows.evaluate()
        self._settled = False
        row = {**self._pending.pop(ROW), **evaluated, "wall_seconds": time.monotonic() - self._started}
        for dimension, columns in self._pending.items():
            writer.extend(columns, dimension)
        writer.row(row)
        self._pending, self._row_at = {}, session.iteration
        self._shown.row(session.iteration, row)
        session.check_finite(evaluated.get("cost_test"))
        return row

    def _read(self) -> dict[str, dict[str, Any]]:
        row = self._rows.read()
        columns = {events.dimension: events.read(self._session) for events in self._rows.recorder.events}
        counts = {e.count: len(next(iter(columns[e.dimension].values()))) for e in self._rows.recorder.events}
        return {ROW: row | counts, **columns}

    def _write_due(self) -> None:
        for events, columns in self._rows.recorder.events_due():
            self._writer.extend(columns, events.dimension)
        for dimension, values in self._rows.recorder.due().items():
            self._writer.row(values, dimension)

    def _advance(self, stop: int) -> None:
        """Iterate up to `stop`; what is due in between is read on the way."""
        session, rows = self._session, self._rows
        while (now := session.iteration) < stop:
            self._pause()
            due, cost = rows.recorder.next_due(now), self._plan.next_cost(now)
            target = min(stop, cost, due or stop)
            if rows.gradient and target == stop:
                self._iterate(stop - 1)
                rows.angles = compare(session, rows.groups)
            self._iterate(target)
            if session.iteration in (cost, stop):
                rows.note_cost()
            if session.iteration == due:
                self._write_due()

    def _iterate(self, stop: int) -> None:
        for now in self._session.slices(stop - self._session.iteration):
            if now < stop:
                self._pause()

    def _pause(self) -> None:
        self._settled = True
        self._shown.advance(self._session.iteration)
        self._interrupt.act()
        if time.monotonic() >= self._next_save:
            self._save(self._writer)
            self._next_save = time.monotonic() + self._checkpoint_every
        self._settled = False


def _identity(facts: Mapping[str, Any], rows: Rows, dataset: Dataset | None) -> dict[str, Any]:
    """What must be the same for a run to go on, by the names of the options."""
    entries, seeds = rows.session.circuit.spec.record, facts["seed"]
    return {
        "iterations": facts["iterations_asked"],
        "seed": seeds if len(seeds) > 1 else seeds[0],
        **{name: facts[name] for name in ("members", "batch", "target", "dtype", "evaluate_every", "until")},
        "record": as_lists(entries),
        "gradient": rows.gradient,
        "samples": dataset and dataset.digest,
    }


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
