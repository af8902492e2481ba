"""Train a circuit and write down what happens: slices of work, rows of a dataset, and a way to stop at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits import datasets, record
from mgdcircuits.comparison import compare, squeeze
from mgdcircuits.errors import RecordError, RunError
from mgdcircuits.progress import Progress
from mgdcircuits.record import DECLARED, GROUP, MEMBER, ROW, Declaration, RunWriter
from mgdcircuits.recording import Recorder, as_specs
from mgdcircuits.stopping import Condition

if TYPE_CHECKING:
    import xarray as xr

    from mgdcircuits.circuit.circuit import Circuit
    from mgdcircuits.session import Session

ROWS = 100
"""Rows that a run has by default."""
COST_SAMPLES = 50
"""Iterations between two rows whose training cost is averaged; all of them where there are fewer."""
TRAIN_SAMPLES = 2000
"""Training samples that `accuracy_train` looks at, at most; and no more than this many batches of them:"""
TRAIN_BATCHES = 100
SLICE_SECONDS = 0.05
"""What one call of `Session.step` is to last: Ctrl-C acts between calls."""


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
    progress: bool = True,
    data_dir: str | Path | None = None,
    overwrite: bool = False,
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
    batch, members, seed, target, dtype
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
        Show a bar (on a terminal) or lines.
    data_dir
        Where downloaded data lies.
    overwrite
        Whether `out` may replace a file.

    Returns
    -------
    xarray.Dataset
        See docs/dataset.md.

    Raises
    ------
    BuildError
        The circuit cannot run yet, or not on this target.
    RunError
        A bad argument, or a cost that is not finite any more.
    DatasetError, RecordError
        Data that cannot be had; a file that cannot be written. Rows written before stay in the file.
    Interrupted
        Ctrl-C; a KeyboardInterrupt that carries the dataset.
    """
    from mgdcircuits.session import Session

    if isinstance(iterations, bool) or int(iterations) != iterations or iterations < 1:
        raise RunError(f"iterations={iterations}: expected a whole number of at least 1")
    if evaluate_every is not None and (int(evaluate_every) != evaluate_every or evaluate_every < 1):
        raise RunError(f"evaluate_every={evaluate_every}: expected a whole number of at least 1")
    for name, value in (("batch", batch), ("members", members), ("threads", threads)):
        if value is not None and value < 1:
            raise RunError(f"{name}={value}: expected at least 1")
    specs = as_specs(circuit.spec.record if record is None else record)
    _check_out(out, overwrite)
    circuit = circuit.recording(specs)
    session = Session(
        circuit,
        batch=batch,
        members=members,
        seed=seed,
        target=target,
        dtype=dtype,
        threads=threads or _cores(),
    )
    dataset = _dataset(circuit, data, data_dir)
    if dataset is not None:
        session.set_data(dataset)
    recorder = Recorder(session, circuit.spec.record)
    run = _Run(session, dataset, recorder, gradient or recorder.wants_gradient)
    condition = None if until is None else Condition(until, run.scalars)
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
        if out is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mgdcircuits-"))) / "run.nc"
        else:
            path = Path(out)
        writer = run.writer(path, facts, overwrite)
        with Progress(plan.iterations, progress) as shown:
            state, error = _supervise(run, plan, condition, writer, shown)
        if isinstance(error, RecordError):
            raise error
        found = _read(path)
        if isinstance(error, KeyboardInterrupt):
            rows = (
                f"the {found.sizes[ROW]} rows up to iteration {int(found[ROW][-1])} are kept"
                if found.sizes[ROW]
                else "no row"
            )
            kept = rows + (f" in {out}" if out else "")
            raise Interrupted(f"stopped at iteration {session.iteration}; {kept}", found, None if out is None else path)
        if error is not None:
            raise error
        return found


def _supervise(
    run: _Run, plan: _Plan, condition: Condition | None, writer: RunWriter, shown: Progress
) -> tuple[str, BaseException | None]:
    """Run to the end, whatever the end is, and close the file."""
    error: BaseException | None = None
    try:
        state = run.go(plan, condition, writer, shown)
    except KeyboardInterrupt as caught:
        state, error = "interrupted", caught
    except Exception as caught:
        state, error = f"failed: {caught}", caught
    with _undisturbed():
        try:
            writer.close(state)
        except RecordError as caught:
            error = error or caught
    return state, error


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


class _Run:
    """A session, its data and what is read of them."""

    def __init__(self, session: Session, dataset: datasets.Dataset | None, recorder: Recorder, gradient: bool) -> None:
        self.session = session
        self.dataset = dataset
        self.recorder = recorder
        self.gradient = gradient
        self.groups = list(session.circuit.plastic)
        self._costs: list[np.ndarray] = []
        self._cost_arrays, self._cost_sign = _training_cost(session)
        self._angles: dict[str, np.ndarray] = {}
        self._started = time.perf_counter()
        self._pace = 1.0  # iterations in a slice
        if gradient:
            if dataset is None:
                raise RunError("a comparison with the exact gradient needs a task and data")
            if not session.program.gradient:
                session.exact_gradient()  # says why there is none
        self._train_part = None
        if dataset is not None and session.has_accuracy:
            n = len(dataset.x_train)
            self._train_part = np.linspace(0, n - 1, min(n, TRAIN_SAMPLES, TRAIN_BATCHES * session.batch)).astype(
                np.int64
            )

    # What is written

    @property
    def names(self) -> list[str]:
        """Declared variables that this run has."""
        session = self.session
        names = ["iteration", "evaluations", "hardware_seconds", "wall_seconds", "seed", "parameter", "parameter_size"]
        names += ["member"] if session.members > 1 else []
        if self._cost_arrays:
            names += ["cost", "reward"]
        if self.dataset is not None and session.circuit.spec.cost is not None:
            names.append("cost_test")
        if self.dataset is not None and session.has_accuracy:
            names += ["accuracy_test", "accuracy_train"]
        names += ["writes_mean", "writes_max"]
        if self.gradient:
            names += ["cosine", "norm_ratio", "group_cosine", "group_norm_ratio"]
        return names

    @property
    def scalars(self) -> list[str]:
        """Numbers of a row, which `until` may use."""
        fixed = ("iteration", "evaluations", "hardware_seconds", "wall_seconds")
        return [n for n in self.names if n in fixed or DECLARED[n].dims == (ROW,)]

    def writer(self, path: Path, facts: Mapping[str, Any], overwrite: bool) -> RunWriter:
        """A writer for this run, with everything that does not change written."""
        session, members = self.session, self.session.members
        names = [n for n in self.names if n != "seed" or members > 1]
        declared: list[Declaration] = [DECLARED[n].with_members(members) for n in names]
        constants = {
            "parameter": self.groups,
            "parameter_size": [session.circuit.plastic[n].n for n in self.groups],
            "member": list(range(members)),
            "seed": session.seeds,
        }
        written = {n: v for n, v in constants.items() if n in names} | self.recorder.constants
        return RunWriter(
            path,
            [*declared, *self.recorder.declarations],
            {GROUP: len(self.groups), MEMBER: members, **self.recorder.sizes},
            written,
            record.run_attributes(session.circuit.spec, **facts),
            overwrite,
        )

    def row(self) -> dict[str, Any]:
        """Everything of the row at this iteration."""
        session = self.session
        values: dict[str, Any] = {
            "iteration": session.iteration,
            "evaluations": session.evaluations,
            "hardware_seconds": session.hardware_seconds,
            **self.recorder.read_row(),
        }
        if self._cost_arrays:
            nothing = np.full(session.members, np.nan)
            mean = squeeze(np.mean(self._costs, axis=0) if self._costs else nothing)
            values |= {"cost": mean, "reward": -mean}
            self._costs.clear()
        values |= self._writes()
        values |= self._angles
        if self.dataset is not None and session.circuit.spec.cost is not None:
            values |= self._evaluations(self.dataset)
        values["wall_seconds"] = time.perf_counter() - self._started
        return values

    def _writes(self) -> dict[str, np.ndarray]:
        """Mean and maximum of the write counts of each group."""
        session, written = self.session, {a.name for a in self.session.program.arrays}
        mean, most = np.zeros((2, session.members, len(self.groups)))
        for k, name in enumerate(self.groups):
            if f"{name}:writes" in written:
                counts = np.asarray(session.writes(name)).reshape(session.members, -1)
                mean[:, k], most[:, k] = counts.mean(1), counts.max(1)
        return {"writes_mean": squeeze(mean), "writes_max": squeeze(most)}

    def _evaluations(self, data: datasets.Dataset) -> dict[str, Any]:
        test = self.session.evaluate(data.x_test, data.y_test, data.scale)
        values = {"cost_test": test.cost.mean(-1)}
        if test.accuracy is not None and self._train_part is not None:
            part = self.session.evaluate(data.x_train[self._train_part], data.y_train[self._train_part], data.scale)
            assert part.accuracy is not None
            values |= {"accuracy_test": test.accuracy.mean(-1), "accuracy_train": part.accuracy.mean(-1)}
        return values

    # How it goes on

    def go(self, plan: _Plan, condition: Condition | None, writer: RunWriter, shown: Progress) -> str:
        """Iterate to the end of the plan; how it ended."""
        self._started = time.perf_counter()
        self._write(writer, shown)
        while self.session.iteration < plan.iterations:
            stop = plan.next_row(self.session.iteration)
            self._advance(stop, plan, writer, shown)
            row = self._write(writer, shown)
            if condition is not None and condition.holds(row):
                shown.say(f"{condition.text} holds at iteration {self.session.iteration}")
                return f"until {condition.text}"
        return "finished"

    def _write(self, writer: RunWriter, shown: Progress) -> dict[str, Any]:
        row = self.row()
        with _undisturbed():
            for events in self.recorder.events:
                columns = events.read(self.session)
                row[events.count] = len(columns[next(iter(columns))])
                writer.extend(columns, events.dimension)
            if self.session.iteration == 0:
                self._write_due(writer)
            writer.row(row)
        shown.row(self.session.iteration, row)
        self._check_finite(row)
        return row

    def _write_due(self, writer: RunWriter) -> None:
        for dimension, values in self.recorder.due().items():
            writer.row(values, dimension)

    def _advance(self, stop: int, plan: _Plan, writer: RunWriter, shown: Progress) -> None:
        """Iterate up to `stop`; what is due in between is read on the way."""
        session = self.session
        while (now := session.iteration) < stop:
            due = self.recorder.next_due(now)
            cost = plan.next_cost(now)
            target = min(stop, cost, due or stop)
            if self.gradient and target == stop:
                self._slices(stop - 1, shown)
                self._angles = compare(self.session, self.groups)
            self._slices(target, shown)
            if session.iteration in (cost, stop):
                self._note_cost()
            if session.iteration == due:
                with _undisturbed():
                    self._write_due(writer)

    def _slices(self, stop: int, shown: Progress) -> None:
        while (now := self.session.iteration) < stop:
            n = int(min(self._pace, stop - now))
            start = time.perf_counter()
            self.session.step(n)
            passed = time.perf_counter() - start
            if n >= int(self._pace) or passed > SLICE_SECONDS:
                self._pace = max(1.0, n * min(4.0, SLICE_SECONDS / max(passed, 1e-9)))
            shown.advance(self.session.iteration)

    def _note_cost(self) -> None:
        if not self._cost_arrays:
            return
        session = self.session
        values = [np.asarray(session.view(n)).reshape(session.members, -1).mean(1) for n in self._cost_arrays]
        cost = self._cost_sign * np.mean(values, axis=0)
        self._costs.append(cost)
        if not np.isfinite(cost).any():
            self._diverged()

    def _check_finite(self, row: Mapping[str, Any]) -> None:
        if self.session.iteration and "cost_test" in row and not np.isfinite(row["cost_test"]).any():
            self._diverged()

    def _diverged(self) -> None:
        session = self.session
        sick = [n for n, p in session.parameters.items() if not np.isfinite(p).all()]
        which = f"; {', '.join(sick)} hold values that are infinite or not a number" if sick else ""
        causes = _steering(session.circuit)
        advice = f"; try a smaller {' or '.join(causes)}" if causes else "; try a smaller learning rate or perturbation"
        raise RunError(
            f"{session.circuit.name}: at iteration {session.iteration} the cost is not finite any more{which}{advice}"
        )


def _training_cost(session: Session) -> tuple[list[str], float]:
    """Arrays whose mean is the cost of the training samples (times the sign: a reward is minus a cost).

    The cost of the unperturbed pass, where there is one; else the mean of all passes; of a trial without a cost: R.
    """
    spec = session.circuit.spec
    arrays = {a.name for a in session.program.arrays}
    if spec.cost is not None:
        for wanted in (True, False):
            names = [
                f"{s.name}.{spec.cost.name}.{name}"
                for s in spec.learning
                for name, factor in s.passes
                if not wanted or factor == 0
            ]
            if names and all(n in arrays for n in names):
                return names, 1.0
    for name in ("R", *(f"{s.name}.R" for s in spec.learning), *(f"{s.name}.R@0" for s in spec.learning)):
        if name in arrays:
            return [name], -1.0
    return [], 1.0


def _steering(circuit: Circuit) -> list[str]:
    """Netlist parameters that set the size of updates and perturbations, for an error message: `eta = 0.1`."""
    from mgdcircuits.netlist.expressions import names

    spec = circuit.spec
    texts = [t for s in spec.learning for t in (s.perturb.codes.values() if s.perturb else ())]
    texts = [
        line.partition("=")[2] for s in spec.learning for site in s.sites for line in site.update.splitlines()
    ] + texts
    found: dict[str, None] = {}
    waiting = list(dict.fromkeys(texts))
    while waiting:
        try:
            used = names(waiting.pop(0))
        except Exception:
            continue
        for name in sorted(used & set(spec.parameters)):
            value = spec.parameters[name]
            if isinstance(value, str):
                waiting.append(value)
            label = f"{name} = {value}" if isinstance(value, str) else f"{name} = {value:g}"
            if value:
                found[label] = None
    ranked = sorted(found, key=lambda label: not label.startswith(("eta", "delta", "norm", "amplitude", "sig")))
    return ranked[:3]


def _dataset(circuit: Circuit, data: Any, data_dir: str | Path | None) -> datasets.Dataset | None:
    """The samples to learn from; none for a circuit without a task."""
    task = circuit.spec.task
    options: dict[str, Any] = {}
    if data is None:
        if task is None or task.data is None:
            if task is not None and task.inputs:
                raise RunError(f"{circuit.name}: the task names no data; expected --data NAME, or arrays in Python")
            return None
        data = task.data
    elif task is None:
        raise RunError(f"{circuit.name}: the netlist has no task, so no data can be shown to it")
    if task is not None:
        if task.data is not None and str(data) == task.data:
            options |= dict(task.options)
            if str(data).endswith(".csv") and not Path(str(data)).exists():
                data = Path(circuit.spec.file).parent / str(data)
        if task.validation and "validation" not in options:
            options["validation"] = task.validation
    if isinstance(data, str | Path):
        options["data_dir"] = data_dir
    return datasets.as_dataset(data, **options)


def _check_out(out: str | Path | None, overwrite: bool) -> None:
    """What can be said about the file before minutes of compilation."""
    if out is None:
        return
    path = Path(out)
    if path.is_dir():
        raise RecordError(f"{path} is a folder; expected the name of a file, such as {path / 'run.nc'}")
    if not path.parent.is_dir():
        raise RecordError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.exists() and not overwrite:
        raise RecordError(
            f"{path} exists; expected a new file; choose another name, or say --force (in Python overwrite=True)"
        )


def _read(path: Path) -> xr.Dataset:
    return record.open_run(path)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put Ctrl-C off until a row is written."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    pending: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if pending:
            raise KeyboardInterrupt
