"""A training run by one of three rules, kept in a file from which it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import study
import xarray as xr

import mgdcircuits as mgd
from mgdcircuits import checkpoint
from mgdcircuits.datasets import Dataset

NETLISTS = study.FOLDER.parent / "netlists"
RULES = {
    "backprop": "fashion_mnist_cnn.yaml",  # its own rule is not used: the exact gradient of the same circuit is
    "node": "fashion_mnist_cnn_np.yaml",
    "weight": "fashion_mnist_cnn_paper.yaml",
}
BATCH = 100
KEEP_SECONDS = 60


@dataclass(frozen=True)
class Point:
    """What distinguishes a run. `tuning`: it is judged on validation samples, which it does not learn from."""

    rule: str
    d: int
    eta: float
    seed: int
    tuning: bool = False

    def __str__(self) -> str:
        tuning = "_tuning" if self.tuning else ""
        return f"{self.rule}_d{self.d}_eta{self.eta:g}_seed{self.seed}{tuning}"


@dataclass(frozen=True)
class Place:
    """Where runs compute and are kept, and on how many samples at most they are judged."""

    folder: Path
    threads: int
    judged: int | None = None

    @cached_property
    def samples(self) -> dict[bool, Dataset]:
        """Fashion-MNIST; for tuning with validation samples instead of test samples, which it never sees."""
        whole, split = (mgd.datasets.load("fashion_mnist", validation=n) for n in (0, 2000))
        return {
            tuning: mgd.datasets.from_arrays(one.x_train, one.y_train, x[: self.judged], y[: self.judged])
            for tuning, one, x, y in (
                (False, whole, whole.x_test, whole.y_test),
                (True, split, split.x_validation, split.y_validation),
            )
        }


@cache
def circuit(rule: str, d: int, eta: float) -> mgd.Circuit:
    """The published network and settings: steps of normalised length, smoothed targets."""
    return mgd.load(NETLISTS / RULES[rule], d=d, eta=eta, normalise=1, target_off=0.01)


def next_row(iteration: int) -> int:
    """Where the accuracy is measured next: 5 % later, at least 5 iterations."""
    return iteration + max(5, iteration // 20)


class Run:
    """A run: the accuracy at its rows, the processor time that it took, and how it goes on."""

    def __init__(self, point: Point, place: Place) -> None:
        self.point, self.place = point, place
        self.path = place.folder / f"{point}.checkpoint"
        self._saved = checkpoint.read(self.path) if self.path.exists() else None
        self.seconds = self._saved.run["seconds"] if self._saved else 0.0
        arrays = self._saved.run_arrays if self._saved else {"iteration": [], "accuracy": []}
        self.rows = [(int(n), float(a)) for n, a in zip(arrays["iteration"], arrays["accuracy"], strict=True)]
        self._kept_at = time.monotonic()

    @property
    def iteration(self) -> int:
        """Iterations at the last row."""
        return self.rows[-1][0] if self.rows else 0

    def reached(self, goal: float) -> float:
        """Iterations at the first row whose accuracy is at least the goal; infinite where there is none."""
        return next((float(n) for n, accuracy in self.rows if accuracy >= goal), np.inf)

    def accuracy(self, iteration: int) -> float:
        """At the last row until then."""
        return [accuracy for n, accuracy in self.rows if n <= iteration][-1]

    def advance(self, goal: float, limit: int) -> bool:
        """Go on to the goal, or to the limit of iterations; whether there was anything to do."""
        begun = self.iteration
        while self.iteration < limit and self.reached(goal) == np.inf:
            start = time.process_time()
            self._row(min(next_row(self.iteration), limit))
            self.seconds += time.process_time() - start
            if time.monotonic() > self._kept_at + KEEP_SECONDS:
                self.keep()
        if self.iteration > begun:
            self.keep()
        return self.iteration > begun

    def keep(self) -> None:
        """Write what the run needs to go on."""
        iteration, accuracy = np.array(self.rows).T
        rows = {"iteration": iteration, "accuracy": accuracy}
        self.place.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save(self._session, self.path, {"seconds": self.seconds}, rows)
        self._kept_at = time.monotonic()

    @cached_property
    def _session(self) -> mgd.Session:
        point, data = self.point, None if self.point.rule == "backprop" else self._data
        made = mgd.Session(
            circuit(point.rule, point.d, point.eta),
            batch=BATCH, seed=point.seed, threads=self.place.threads, data=data, on_nan="continue",
        )  # fmt: skip
        if self._saved:
            self._saved.check_circuit(made.circuit.spec)
            self._saved.restore(made)
        return made

    @property
    def _data(self) -> Dataset:
        return self.place.samples[self.point.tuning]

    def _row(self, stop: int) -> None:
        session, data = self._session, self._data
        if self.point.rule == "backprop":
            for n in range(self.iteration, stop):
                self._descend(n)
        else:
            session.step(stop - self.iteration)
        found = session.evaluate(data.x_test, data.y_test, data.scale).accuracy
        self.rows.append((stop, float(found.mean())))

    def _descend(self, n: int) -> None:
        """A step along the exact gradient; batches are drawn with replacement, as the other rules do."""
        session, data = self._session, self._data
        chosen = np.random.default_rng((self.point.seed, n)).integers(len(data.x_train), size=BATCH)
        session.present(data.x_train[chosen] * np.float32(data.scale), data.y_train[chosen])
        with np.errstate(over="ignore", invalid="ignore"):  # at a learning rate that is too high
            for name, gradient in session.exact_gradient().items():
                session.parameters[name][...] -= np.float32(self.point.eta) * gradient


def tell(run: Run, goal: float, moved: bool) -> None:
    """Say how far a run is, if it has gone on."""
    if moved:
        n = run.reached(goal)
        found = f"{goal:.0%} after {n:,.0f}" if np.isfinite(n) else f"{goal:.0%} not reached in {run.iteration:,}"
        print(f"{run.point}: {found} iterations, {run.seconds:.0f} s", flush=True)


def state_after(work: Callable[[], None]) -> str:
    """What is to be done is done, or until Ctrl-C: the state of a study."""
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", flush=True)
        return "interrupted"
    return "finished"


def gathered(
    runs: Iterable[Run], axes: Mapping[str, str], goals: Sequence[float], facts: Mapping[str, Callable[[Run], float]]
) -> xr.Dataset:
    """What there is of some runs, over `axes` (name to attribute of a point): `iterations` to each goal (infinite if it was not
    reached), rows, how many iterations are `done`, `processor_seconds`, and further `facts`."""
    runs = [run for run in runs if run.rows]
    values = {axis: sorted({getattr(run.point, name) for run in runs}) for axis, name in axes.items()}
    shape = [len(each) for each in values.values()]
    longest = max((len(run.rows) for run in runs), default=0)
    further = {"iterations": ("goal", len(goals)), "row_iteration": ("row", longest), "row_accuracy": ("row", longest)}
    facts = {"done": lambda run: run.iteration, "processor_seconds": lambda run: run.seconds, **facts}
    found = {name: np.full(shape, np.nan) for name in facts}
    found |= {name: np.full((*shape, length), np.nan) for name, (_, length) in further.items()}
    for run in runs:
        at = tuple(values[axis].index(getattr(run.point, name)) for axis, name in axes.items())
        for name, fact in facts.items():
            found[name][at] = fact(run)
        found["iterations"][at] = [run.reached(goal) for goal in goals]
        found["row_iteration"][at][: len(run.rows)], found["row_accuracy"][at][: len(run.rows)] = np.array(run.rows).T
    dims = {name: (*axes, further[name][0]) if name in further else tuple(axes) for name in found}
    return xr.Dataset({name: (dims[name], each) for name, each in found.items()}, {**values, "goal": list(goals)})


def tried(found: xr.Dataset) -> xr.DataArray:
    """Which goals a run has reached, or has gone on to from the goal before: (..., goal)."""
    before = found["iterations"].shift(goal=1, fill_value=0)
    return np.isfinite(found["iterations"]) | (np.isfinite(before) & (found["done"] > before))
