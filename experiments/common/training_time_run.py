"""A training run by a rule, kept in a file from which it goes on; locked while a process is at work on it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

import mgdcircuits as mgd
from common import node_or_weight, study
from common.node_or_weight import NODE_OR_WEIGHT
from mgdcircuits import checkpoint
from mgdcircuits.datasets import Dataset
from mgdcircuits.interrupts import Held

RULES = {
    "backprop": "fashion_mnist_cnn.yaml",  # its own rule is not used: the exact gradient of the same circuit is
    "node": "fashion_mnist_cnn_np.yaml",
    "weight": "fashion_mnist_cnn_paper.yaml",
}
OWN_CODES = "node_own_codes"
"""Another reading of node perturbation: a code for each sample of a batch, where the published one is for all."""
OWN_CODES_TEXT = """
include: {netlist}
circuit: fashion_mnist_cnn_np_own_codes
kinds:
  tanh:
    equations: |
      x = tanh(I + b + theta_b + theta) : 1
      I : 1
      b : 1 (plastic, per channel)
      theta_b : 1 (perturbation of b)
      theta : 1 (perturbation, per sample)
"""
BATCH = 100
KEEP_SECONDS = 60
PIECE = 100
"""Iterations after which a run may be kept."""


@dataclass(frozen=True)
class Point:
    """What distinguishes a run. `tuning`: it is judged on validation samples, which it does not learn from. `variant`: what is
    other than usual in it, in words."""

    rule: str
    d: int
    eta: float
    seed: int
    tuning: bool = False
    variant: str = ""

    def __str__(self) -> str:
        further = ("_tuning" if self.tuning else "") + (f"_{self.variant}" if self.variant else "")
        return f"{self.rule}_d{self.d}_eta{self.eta:g}_seed{self.seed}" + re.sub(r"[^A-Za-z0-9]+", "_", further)


@dataclass(frozen=True)
class Rows:
    """What a run has found: the accuracy after so many iterations, and the processor seconds that it took."""

    each: Sequence[tuple[int, float]] = ()
    seconds: float = 0.0

    @property
    def iteration(self) -> int:
        """Iterations at the last row."""
        return self.each[-1][0] if self.each else 0

    def reached(self, goal: float) -> float:
        """Iterations at the first row whose accuracy is at least the goal; infinite where there is none."""
        return next((float(n) for n, accuracy in self.each if accuracy >= goal), np.inf)

    def complete(self, goal: float, limit: int) -> bool:
        """Whether the goal or the limit of iterations is reached."""
        return self.iteration >= limit or self.reached(goal) < np.inf


@dataclass(frozen=True)
class Place:
    """Where runs compute and are kept, and on how many samples at most they are judged.

    `known`: rows of runs of which nothing else is left (`training_time_plan.Summary`). They need not be done again, but
    begin anew if they are to go further.
    """

    folder: Path
    threads: int
    judged: int | None = None
    known: Mapping[Point, Rows] = field(default_factory=dict, hash=False)

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
    if rule == NODE_OR_WEIGHT:
        netlist = node_or_weight.netlist(d)
    elif rule == OWN_CODES:
        netlist = OWN_CODES_TEXT.format(netlist=(study.NETLISTS / RULES["node"]).resolve())
    else:
        netlist = study.NETLISTS / RULES[rule]
    return mgd.load(netlist, d=d, eta=eta, normalise=1, target_off=0.01)


def next_row(iteration: int) -> int:
    """Where the accuracy is measured next: 5 % later, at least 5 iterations."""
    return iteration + max(5, iteration // 20)


class Run:
    """A run, and how it goes on. `busy`: another process was at work on it when it was to go on."""

    def __init__(self, point: Point, place: Place) -> None:
        self.point, self.place, self.busy = point, place, False
        self.path = place.folder / f"{point}.checkpoint"
        self._own = Rows()
        self._n = 0  # iterations of the session, which may be beyond the last row
        self._saved: checkpoint.Checkpoint | None = None
        self._kept_at = time.monotonic()
        self._load()

    @property
    def found(self) -> Rows:
        """Its own rows, or those that are known, if they are more."""
        return max(self._own, self.place.known.get(self.point, self._own), key=lambda rows: rows.iteration)

    def advance(self, goal: float, limit: int) -> bool:
        """Go on to the goal, or to the limit of iterations; whether there was anything to do."""
        self.busy = False
        if self.found.complete(goal, limit):
            return False
        self.place.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path.with_suffix(".lock"), timeout=0):
                self._load()
                begun = self._n, len(self._own.each)
                try:
                    while not self.found.complete(goal, limit):
                        self._row(self._next_row(limit))
                finally:
                    moved = (self._n, len(self._own.each)) != begun
                    if moved:
                        self._keep()
                return moved
        except Timeout:
            self.busy = True
            return False

    def _load(self) -> None:
        """Take up what is in the file, which another process may have written since."""
        try:
            saved = checkpoint.parse(self.path.read_bytes(), self.path)
        except FileNotFoundError:
            return
        iterations, accuracies = saved.run_arrays["iteration"], saved.run_arrays["accuracy"]
        if (saved.run["iteration"], len(iterations)) == (self._n, len(self._own.each)):
            return
        pairs = zip(iterations, accuracies, strict=True)
        self._own = Rows([(int(n), float(accuracy)) for n, accuracy in pairs], saved.run["seconds"])
        self._saved, self._n = saved, saved.run["iteration"]
        self.__dict__.pop("_session", None)

    def _keep(self) -> None:
        """Write what the run needs to go on."""
        iteration, accuracy = np.array(self._own.each, dtype=float).reshape(-1, 2).T
        rows = {"iteration": iteration, "accuracy": accuracy}
        with Held():
            checkpoint.save(self._session, self.path, {"seconds": self._own.seconds, "iteration": self._n}, rows)
        self._kept_at = time.monotonic()

    @cached_property
    def _session(self) -> mgd.Session:
        made = self._new_session()
        if self._saved:
            self._saved.check_circuit(made.circuit.spec)
            self._saved.restore(made)
        return made

    def _new_session(self) -> mgd.Session:
        data = None if self._exact else self._data
        return mgd.Session(
            self._circuit, batch=BATCH, seed=self.point.seed, threads=self.place.threads, data=data, on_nan="continue"
        )

    @property
    def _exact(self) -> bool:
        """Whether it learns by the exact gradient; else by the rule of the netlist."""
        return self.point.rule == "backprop"

    def _eta(self, parameter: str) -> float:
        """The learning rate along the exact gradient."""
        return self.point.eta

    @property
    def _circuit(self) -> mgd.Circuit:
        return circuit(self.point.rule, self.point.d, self.point.eta)

    @property
    def _data(self) -> Dataset:
        return self.place.samples[self.point.tuning]

    def _next_row(self, limit: int) -> int:
        return min(next_row(self._own.iteration), limit)

    def _row(self, stop: int) -> None:
        """Learn until so many iterations are done, and measure the accuracy."""
        while self._n < stop:
            with self._timed():
                self._learn(min(PIECE, stop - self._n))
            if time.monotonic() > self._kept_at + KEEP_SECONDS:
                self._keep()
        with self._timed():
            data = self._data
            accuracy = float(self._session.evaluate(data.x_test, data.y_test, data.scale).accuracy.mean())
        self._own = replace(self._own, each=[*self._own.each, (stop, accuracy)])

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self._own = replace(self._own, seconds=self._own.seconds + time.process_time() - start)

    def _learn(self, iterations: int) -> None:
        """So many iterations more; Ctrl-C acts between two of them."""
        session = self._session
        if not self._exact:
            try:
                session.step(iterations)
            finally:
                self._n = session.iteration
            return
        with Held() as held:
            for _ in range(iterations):
                self._descend(session)
                self._n += 1
                held.act()

    def _descend(self, session: mgd.Session) -> None:
        """A step along the exact gradient; batches are drawn with replacement, as the other rules do."""
        data = self._data
        chosen = np.random.default_rng((self.point.seed, self._n)).integers(len(data.x_train), size=BATCH)
        session.present(data.x_train[chosen] * np.float32(data.scale), data.y_train[chosen])
        with np.errstate(over="ignore", invalid="ignore"):  # at a learning rate that is too high
            for name, gradient in session.exact_gradient().items():
                session.parameters[name][...] -= np.float32(self._eta(name)) * gradient
