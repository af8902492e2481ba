"""Start, memory and size: each in a fresh process, a compilation in an empty cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from rich.table import Table

from benchmarks.machine import provenance
from benchmarks.workers import ROOT, WorkerError

WIDTHS = (1, 8, 48)
WARM_REPEATS = 3
COLD, WARM, MEMORY, SIZE = 20.0, 2.0, 1000.0, 5.0  # required: seconds, seconds, MB, seconds


def measure(say: Callable[[str], None] = print) -> dict:
    """Seconds and megabytes of starts, cold and warm."""
    cold, warm = {}, {}
    with tempfile.TemporaryDirectory(prefix="mgdcircuits-bench-") as cache:
        for d in WIDTHS:
            say(f"start: CNN d={d}")
            cold[str(d)] = _fresh("start", d, cache)
            warm[str(d)] = [_fresh("start", d, cache) for _ in range(WARM_REPEATS)]
        say(f"start: memory and size of d={WIDTHS[-1]}")
        memory = _fresh("memory", WIDTHS[-1], cache)
        size = [_fresh("size", WIDTHS[-1], cache) for _ in range(WARM_REPEATS)]
    return {"case": "start", **provenance(), "cold": cold, "warm": warm, "memory": memory, "size": size}


def _fresh(what: str, d: int, cache: str) -> dict:
    """What a fresh process says, with the time of the whole process."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh", what, str(d)],
        cwd=ROOT,
        env={**os.environ, "MGDCIRCUITS_CACHE": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WorkerError(f"the measurement {what} stopped: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return {**json.loads(done.stdout), "process": time.perf_counter() - begun}


def table(result: dict) -> Table:
    """What was measured beside what is required; of repeats, the slowest."""
    made = Table("start, memory, size", "measured", "required", "verdict", box=None)

    def row(title: str, value: float, required: float | None, unit: str) -> None:
        verdict = "" if required is None else "met" if value <= required else "not met"
        made.add_row(title, f"{value:.3g} {unit}", f"≤ {required:g} {unit}" if required else "", verdict)

    first = "netlist_to_first_iteration"
    for d, cold in result["cold"].items():
        row(f"CNN d={d}: netlist to first iteration, empty cache", cold[first], COLD, "s")
    for d, repeats in result["warm"].items():
        row(f"CNN d={d}: netlist to first iteration, compiled before", max(w[first] for w in repeats), WARM, "s")
        row(f"CNN d={d}: the whole process, compiled before", max(w["process"] for w in repeats), None, "s")
    row("CNN d=48, batch 100, Fashion-MNIST: peak resident memory", result["memory"]["peak"], MEMORY, "MB")
    parameters = result["size"][0]["parameters"]
    row(
        f"netlist of {parameters:,} parameters: read, checked, built",
        max(s["total"] for s in result["size"]),
        SIZE,
        "s",
    )
    return made
