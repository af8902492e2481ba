"""Worker processes, and how they are measured: one after another, round after round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import Load

ROOT = Path(__file__).resolve().parent.parent
PEERS_PYTHON = ROOT / ".bench-venv" / "bin" / "python"
MODULES = {
    "ours": (sys.executable, "benchmarks.ours"),
    "torch": (PEERS_PYTHON, "benchmarks.peers.torch_iteration"),
    "jax": (PEERS_PYTHON, "benchmarks.peers.jax_iteration"),
    "brian2": (sys.executable, "benchmarks.peers.brian2_mlp"),
}
# Without these, glibc returns the maps of a large batch to the system and faults them in again at every call.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "100000000",
}


class WorkerError(Exception):
    """A worker that stopped; the message has the last line it wrote."""


class Worker:
    """A process that runs iterations when told to.

    Parameters
    ----------
    name
        A key of `MODULES`, with words behind it that say which form of the iteration it runs.
    work
        The work order, sent as JSON; its `variant` has the words.
    """

    def __init__(self, name: str, work: dict) -> None:
        self.name = name
        framework, *words = name.split("-")
        python, module = MODULES[framework]
        tuned = KEEP_MEMORY if framework == "torch" and "plain" not in words else {}
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(python), "-m", module],
            cwd=ROOT,
            env=os.environ | tuned,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.costs: list[float] = []  # after the first iteration, and after every turn
        self.others: list[float | None] = []  # cores that others used in every turn
        self.setup_seconds = self._ask(work)["seconds"]
        self.iterations = 1

    def _ask(self, request: dict) -> dict:
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the answer is missing then, too
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            said = self._log.read().strip().splitlines() or ["no message"]
            raise WorkerError(f"the worker {self.name} stopped: {said[-1]}")
        answer = json.loads(line)
        self.costs.append(answer["cost"])
        return answer

    def measure(self, iterations: int) -> float:
        """Seconds an iteration."""
        return self._ask({"iterations": iterations})["seconds"] / iterations

    def calibrate(self, seconds: float) -> None:
        """Choose how many iterations take about that long; what a call costs besides may be large."""
        self.iterations = 1
        while (passed := self.measure(self.iterations) * self.iterations) < seconds:
            self.iterations = round(self.iterations * min(8, max(1.5, seconds / max(passed, 1e-9)))) + 1

    def turn(self) -> float:
        """One turn: an iteration that fills the caches, then those that count."""
        self.measure(1)
        load = Load(self._process.pid)
        seconds = self.measure(self.iterations)
        self.others.append(load.others())
        return seconds

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


def alternate(workers: Sequence[Worker], rounds: int) -> dict[str, list[float]]:
    """Seconds an iteration of each worker in each round; within a round each has one turn."""
    times: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            times[worker.name].append(worker.turn())
    return times
