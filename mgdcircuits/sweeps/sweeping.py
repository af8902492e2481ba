"""Run the points of a grid on a Dask cluster: all cores of this machine, or whatever waits at an address."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgdcircuits.arguments import check_circuit, check_out, counted, number_type
from mgdcircuits.datasets import as_dataset
from mgdcircuits.errors import RunError
from mgdcircuits.interrupts import Held
from mgdcircuits.journal import Record
from mgdcircuits.progress import Progress
from mgdcircuits.randomness import as_seed
from mgdcircuits.record import run_attributes
from mgdcircuits.recording import as_lists, as_specs
from mgdcircuits.storage import fingerprint
from mgdcircuits.sweeps import worker
from mgdcircuits.sweeps.checking import check
from mgdcircuits.sweeps.grid import as_grid
from mgdcircuits.sweeps.plan import Plan
from mgdcircuits.sweeps.results import Results
from mgdcircuits.sweeps.worker import Job, Source, resolved
from mgdcircuits.training import Interrupted, cores

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client, Future, LocalCluster

    from mgdcircuits.circuit.circuit import Circuit

LOCAL = "local"
LOOK_SECONDS = 0.2
CONNECT_SECONDS = 10
FACTS = ("seed", "batch", "target", "dtype", "data", "evaluate_every", "until")
AGAIN = "the same sweep goes on with what is missing"


def sweep(
    circuit: Circuit,
    grid: Mapping[str, Any],
    data: Any = None,
    *,
    iterations: int | None = None,
    out: str | Path | None = None,
    scheduler: str = LOCAL,
    workers: int | None = None,
    members: int | None = None,
    threads: int | None = None,
    seed: int | None = None,
    batch: int | None = None,
    target: str = "cpp",
    dtype: str = "float32",
    evaluate_every: int | None = None,
    until: str | None = None,
    record: Iterable[Any] | None = None,
    gradient: bool = False,
    progress: bool = True,
    data_dir: str | Path | None = None,
    overwrite: bool = False,
    on_nan: str = "stop",
) -> xr.Dataset:
    """Train a circuit at every point of a grid.

    A script that calls it with ``scheduler="local"`` does so under ``if __name__ == "__main__":``, because every worker
    imports the script.

    Parameters
    ----------
    circuit
        From `mgdcircuits.load`.
    grid
        Values by name: of parameters and clocks of the netlist, or of `seed`, `iterations`, `batch` and `data`.
    out
        The netCDF file. If it holds the same sweep already, that goes on with what is missing.
    scheduler
        ``"local"``: worker processes on this machine; else the address of a Dask scheduler, ``"tcp://node7:8786"``.
    workers
        Of a local sweep. Default: one for each core.
    members
        Seeds that run side by side in one session. Default: the rule of docs/sweeps.md. A run's numbers do not depend on it.
    threads
        Of one session. Default: one; in a local sweep with fewer runs than cores, what is left over.
    overwrite
        Whether to begin anew where there is something in `out`.
    data, iterations, seed, batch, target, dtype, evaluate_every, until, record, gradient, progress, data_dir, on_nan
        See `mgdcircuits.train`.

    Returns
    -------
    xarray.Dataset
        What a run has, with a dimension for each swept name in front; `state` says how each run ended. See docs/sweeps.md.

    Raises
    ------
    NetlistError
        A swept name or value that the netlist cannot have.
    BuildError
        The circuit cannot run on this target.
    DatasetError
        An unknown data set; in a local sweep, data that cannot be had.
    RunError
        A bad argument; a file with another sweep; a scheduler that does not answer, or is gone.
    RecordError
        Something to record that the circuit does not have; a file that cannot be written.
    Interrupted
        Ctrl-C; a KeyboardInterrupt that carries the dataset of the points that are done.
    """
    check_circuit(circuit)
    check_out(circuit, out)
    spec = circuit.spec
    points = as_grid(grid, fixed=_fixed(spec.overrides, iterations=iterations, seed=seed, batch=batch, data=data))
    seed = as_seed(0 if seed is None else seed)
    if iterations is None and "iterations" not in points.names:
        raise RunError("a sweep needs a number of iterations: --iterations N (in Python iterations=N), or sweep it")
    workers, members, threads = counted("workers", workers), counted("members", members), counted("threads", threads)
    options: dict[str, Any] = {
        "iterations": counted("iterations", iterations),
        "batch": counted("batch", batch),
        "target": target,
        "dtype": number_type(dtype).name,
        "evaluate_every": counted("evaluate_every", evaluate_every),
        "until": until,
        "record": None if record is None else as_specs(record),
        "gradient": gradient,
        "on_nan": on_nan,
    }
    plan = Plan.of(Source(spec.text, spec.file, dict(spec.overrides), dict(spec.tables)), points, options, seed)
    named = data is None or isinstance(data, str | Path)
    sent = None if named else as_dataset(data)
    samples = check(plan, data if named else sent, data_dir, scheduler == LOCAL)
    identity = {
        "netlist": fingerprint(also=spec.text),
        **({"tables": {name: fingerprint(also=text) for name, text in spec.tables.items()}} if spec.tables else {}),
        "overrides": {name: str(value) for name, value in spec.overrides.items()},
        "grid": points.as_json(),
        "seed": seed,
        **options,
        "record": as_lists(plan.circuit.spec.record if record is None else options["record"]),
        "data": _data_name(data),
    }
    if scheduler == LOCAL or sent is not None:
        identity["samples"] = [dataset and dataset.digest for dataset in samples]
    facts = {name: identity[name] for name in FACTS} | {"iterations_asked": iterations}
    options |= {"data": resolved(data) if named and data else None, "data_dir": data_dir and resolved(data_dir)}
    options |= {} if threads is None else {"threads": threads}
    with Results(None if out is None else Path(out), points, identity, overwrite) as results:
        error: BaseException | None = None
        if missing := results.missing:
            try:
                count = min(workers or cores(), len(missing))
                with _shown(plan, results, progress) as shown, _connected(scheduler, count) as client:
                    with _losing_the_scheduler():
                        _Sweep(client, plan, results, shown, sent).run(members, scheduler == LOCAL)
            except (KeyboardInterrupt, RunError) as caught:
                error = caught
        stopped = isinstance(error, KeyboardInterrupt)
        state = "interrupted" if stopped else "failed" if results.missing else "finished"
        title = f"mgdcircuits sweep of {spec.name} over {', '.join(points.names)}"
        found = results.close(run_attributes(spec, **facts, title=title, state=state))
        if stopped:
            done = "stopped before the first point was done"
            if results.runs:
                done = f"stopped; {len(results.runs)} of {len(points)} points are kept" + (f" in {out}" if out else "")
            raise Interrupted(f"{done}; {AGAIN}" if out else done, found, None if out is None else Path(out))
        if error is not None:
            raise error
        return found


def _fixed(overrides: Mapping[str, Any], **given: Any) -> list[str]:
    return [*overrides, *(name for name, value in given.items() if value is not None)]


def _data_name(data: Any) -> str:
    """By which a sweep knows its data."""
    if data is None or isinstance(data, str | Path):
        return str(data or "")
    dataset = as_dataset(data)
    return fingerprint(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)


def _shown(plan: Plan, results: Results, progress: bool) -> Progress:
    done = sum(plan.iterations(index) for index in results.runs)
    shown = Progress(sum(plan.iterations(index) for index in plan.grid), progress, done)
    if done:
        shown.say(f"goes on: {len(results.runs)} of {len(plan.grid)} points are there")
    return shown


@contextlib.contextmanager
def _losing_the_scheduler() -> Iterator[None]:
    """Whichever call notices first that the scheduler is gone, it is said in one way."""
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    try:
        yield
    except (CommClosedError, CancelledError):
        raise RunError(f"the scheduler is gone; {AGAIN}") from None


@contextlib.contextmanager
def _connected(scheduler: str, workers: int) -> Iterator[Client]:
    """A client of the scheduler at an address, or of one that is started here and ends with the sweep."""
    import dask
    from distributed import Client
    from distributed.comm.addressing import get_address_host_port

    with contextlib.ExitStack() as stack:
        stack.enter_context(_silent())
        cluster = stack.enter_context(local_cluster(workers)) if scheduler == LOCAL else None
        address = scheduler if cluster is None else cluster.scheduler_address
        try:
            get_address_host_port(address)  # a client that is made for what is no address cannot be closed again
            with dask.config.set({"distributed.comm.timeouts.connect": CONNECT_SECONDS}):
                client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(
                f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, or say --scheduler local"
            ) from None
        yield client


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the log messages of Dask: what matters the sweep says itself."""
    loggers = [logging.getLogger(n) for n in logging.root.manager.loggerDict if n.split(".")[0] == "distributed"]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def local_cluster(workers: int) -> LocalCluster:
    """A cluster of processes on this machine; its `scheduler_address` may be given to several sweeps."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address="localhost:0",
        silence_logs=logging.CRITICAL,
        plugins=[worker.Deaf()],
    )


class _Sweep:
    """A sweep while it goes on."""

    def __init__(self, client: Client, plan: Plan, results: Results, shown: Progress, data: Any) -> None:
        self._client = client
        self._plan = plan
        self._results = results
        self._shown = shown
        self._data = data
        self._topic = f"mgdcircuits-{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._futures: dict[str, Future] = {}
        self._iterations: dict[str, int] = {}  # of the jobs that run

    def run(self, members: int | None, local: bool) -> None:
        """Run what is missing; what fails is told.

        Raises
        ------
        RunError
            The scheduler is gone.
        """
        self._client.subscribe_topic(self._topic, self._heard)
        slots = self._slots()
        jobs = self._plan.jobs(self._results.missing, slots, members)
        threads = max(1, cores() // min(slots, len(jobs))) if local else 1
        self._data = self._data if self._data is None else self._client.scatter(self._data, broadcast=True)
        for alike in _by_structure(self._plan, jobs):
            first = [alike[0]] if len(alike) > 1 and alike[0].options["target"] == "cpp" else []
            compiled = [self._start(worker.compile_first, job, threads) for job in first]
            for job in alike:
                self._submit(job, threads, *compiled)
        self._collect(threads)

    def _slots(self) -> int:
        """Runs that the workers can have at a time; waits for a worker."""
        told = False
        while not (threads := self._client.nthreads()):
            if not told:
                self._shown.say("no worker is there; waits for one")
            told = True
            time.sleep(LOOK_SECONDS)
        return len(threads)

    def _start(self, function: Callable[..., Any], job: Job, threads: int, *before: Future) -> Future:
        key = f"{self._topic}-{next(self._numbers)}"
        call = worker.Call(
            self._plan.source.from_anywhere(),
            replace(job, options={"threads": threads, **job.options}),
            key,
            self._topic,
        )
        future = self._client.submit(function, call, self._data, *before, key=key, pure=False)
        self._futures[key] = future
        return future

    def _submit(self, job: Job, threads: int, *before: Future) -> None:
        future = self._start(worker.run, job, threads, *before)
        self._jobs[str(future.key)] = job
        future.add_done_callback(self._ended.put)

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        self._iterations[event[1]["key"]] = event[1]["iteration"]

    def _collect(self, threads: int) -> None:
        with Held() as held:
            while self._jobs:
                with held.released():
                    ended = self._wait()
                if ended is not None:
                    key, outcome = ended
                    job = self._jobs.pop(key)
                    self._iterations.pop(key, None)
                    self._take(job, outcome, threads)
                self._tell()

    def _wait(self) -> tuple[str, list[Record] | str] | None:
        """A job that has ended, and how; nothing if none does for a while."""
        try:
            future = self._ended.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            if self._client.status != "running":
                raise RunError(f"the scheduler is gone; {AGAIN}") from None
            return None
        key = str(future.key)
        self._futures.pop(key)
        if future.status == "error":
            return key, _words(future.exception())
        if future.status != "finished":
            raise RunError(f"the scheduler is gone; {AGAIN}")
        return key, future.result()

    def _take(self, job: Job, outcome: list[Record] | str, threads: int) -> None:
        if not isinstance(outcome, str):
            for index, record in zip(job.points, outcome, strict=True):
                self._results.add(index, record)
        elif len(job.seeds) > 1:  # one member of a session stops all of them
            for alone in job.alone():
                self._submit(alone, threads)
        else:
            self._results.fail(job.points[0], outcome)
            self._shown.say(f"{self._plan.grid.describe(job.points[0])} failed: {outcome}")

    def _tell(self) -> None:
        """How far everything is."""
        done = sum(self._plan.iterations(index) for index in (*self._results.runs, *self._results.failures))
        for key, iteration in list(self._iterations.items()):
            done += iteration * len(self._jobs[key].points) if key in self._jobs else 0
        failed = f", {len(self._results.failures)} failed" if self._results.failures else ""
        self._shown.report(done, f"{len(self._results.runs)}/{len(self._plan.grid)} points{failed}")


def _by_structure(plan: Plan, jobs: Iterable[Job]) -> list[list[Job]]:
    alike: dict[Hashable, list[Job]] = {}
    for job in jobs:
        alike.setdefault(plan.structure(job), []).append(job)
    return list(alike.values())


def _words(error: BaseException | None) -> str:
    """What went wrong in a job, in a sentence."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return "the workers that ran it died, several times in a row; they may need more memory"
    return f"{type(error).__name__}: {error}"
