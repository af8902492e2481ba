"""What this machine is and can do."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from benchmarks.workers import PEERS_PYTHON, ROOT
from mgdcircuits.codegen import compiler

SOURCE = Path(__file__).with_name("machine.cpp")
PROGRAM = ROOT / "build" / "benchmarks" / "machine"


def _program() -> Path:
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-std=c++17", "-O3", "-march=native", "-fopenmp"]
        subprocess.run([*compiler.compiler(), *flags, str(SOURCE), "-o", str(PROGRAM)], check=True)
    return PROGRAM


def fma_peak() -> dict[str, float]:
    """GFLOP/s of fused multiply-adds in registers, float32: of one thread and of two."""
    return json.loads(subprocess.run([_program()], capture_output=True, text=True, check=True).stdout)


def bandwidth() -> dict[str, float]:
    """GB/s of a triad on two threads, by the level of memory that its arrays fit in."""
    return json.loads(subprocess.run([_program(), "memory"], capture_output=True, text=True, check=True).stdout)


def processor() -> str:
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


@cache
def versions() -> dict[str, str]:
    """Of everything that takes part."""
    ask = "import importlib.metadata as m; print(*(f'{p}={m.version(p)}' for p in ('torch', 'jax', 'numpy')))"
    peers = {}
    if PEERS_PYTHON.exists():
        said = subprocess.run([PEERS_PYTHON, "-c", ask], capture_output=True, text=True, check=True).stdout
        peers = dict(word.split("=") for word in said.split())
    first = subprocess.run([*compiler.compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "python": platform.python_version(),
        "brian2": metadata.version("brian2"),
        "compiler": first.splitlines()[0],
        **peers,
    }


def provenance() -> dict:
    """When, where and of what a result is."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
    }


def commit() -> str:
    """The commit that is measured, with a note if the package differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "mgdcircuits", "netlists", "benchmarks/netlists")
    return git("rev-parse", "HEAD") + (" and changes that are not committed" if changed else "")
