"""Worker processes, and how they are measured: one after another, round after round."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS_PYTHON = ROOT / ".bench-venv" / "bin" / "python"
MODULES = {
    "ours": (sys.executable, "benchmarks.ours"),
    "torch": (PEERS_PYTHON, "benchmarks.peers.torch_iteration"),
    "jax": (PEERS_PYTHON, "benchmarks.peers.jax_iteration"),
    "brian2": (sys.executable, "benchmarks.peers.brian2_mlp"),
}
CALIBRATION_SECONDS = 0.1


class WorkerError(Exception):
    """A worker that stopped; the message has the last line it wrote."""


class Worker:
    """A process that runs iterations when told to.

    Parameters
    ----------
    framework
        A key of `MODULES`.
    work
        The work order, sent as JSON.
    """

    def __init__(self, framework: str, work: dict) -> None:
        self.framework, self.work = framework, work
        self.name = "-".join(filter(None, (framework, work.get("variant"))))
        python, module = MODULES[framework]
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(python), "-m", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.setup_seconds = self._ask(work)["ready"]
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
        return json.loads(line)

    def measure(self, iterations: int) -> float:
        """Seconds an iteration."""
        return self._ask({"iterations": iterations})["seconds"] / iterations

    def calibrate(self, seconds: float) -> None:
        """Choose how many iterations take about that long."""
        count = 1
        while (each := self.measure(count)) * count < CALIBRATION_SECONDS:
            count *= 2
        self.iterations = max(1, round(seconds / each))

    def turn(self) -> float:
        """One turn: an iteration that fills the caches, then those that count."""
        self.measure(1)
        return self.measure(self.iterations)

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
