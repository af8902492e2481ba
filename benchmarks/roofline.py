"""Where the time of an iteration goes: each kernel alone, beside what the machine can do.

A part of an iteration (all passes of one layer, the codes, ...) is a program of its own that is compiled and timed by
itself. Their sum differs from the time of the whole iteration, since a part that runs alone finds its data in the cache;
the results have both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

import mgdcircuits as mgd
from benchmarks import machine
from benchmarks.cases import CNN
from benchmarks.macs import products
from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.program import Array, Couple, Elements, Into, Node, Precision, Random, Read, Step, steps
from mgdcircuits.codegen import winograd
from mgdcircuits.codegen.cpp_target import CppTarget
from mgdcircuits.netlist.spec import Reduce, Sharing

REPEATS, TURN_SECONDS = 7, 0.1
THREADS = 2
SIZES = ((8, 100), (48, 100))  # width of the network, batch
CODES, COST, LEARNING = "codes", "cost", "estimate, update"


def measure(d: int, batch: int) -> dict:
    """Seconds, multiply-accumulates (without padding) and bytes of every part of an iteration of the CNN."""
    session = mgd.Session(mgd.load(CNN, d=d), batch=batch, threads=THREADS, seed=1)
    rng = np.random.default_rng(0)
    session.present(rng.random((batch, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, batch))
    session.step(1)
    whole = _seconds(session.target)
    parts = {}
    for name, nodes in _parts(session.circuit, session.program.iteration).items():
        target = _alone(session, nodes)
        parts[name] = {"seconds": _seconds(target), **_work(nodes, batch)}
    return {"d": d, "batch": batch, "threads": THREADS, "whole": whole, "parts": parts}


def measure_all(say: Callable[[str], None] = print) -> dict:
    """Two sizes of the network, and what the machine can do."""
    found, peaks = [], []
    for d, batch in SIZES:
        say(f"roofline: CNN d={d}, batch {batch}")
        peaks += [machine.fma_peak() for _ in range(5)]  # the clock moves: as long ago as the kernels, and as often
        found.append(measure(d, batch))
        peaks += [machine.fma_peak() for _ in range(5)]
    bands = [machine.bandwidth() for _ in range(3)]
    best = {level: max(b[level] for b in bands) for level in bands[0]}
    peak = max(p[f"threads_{THREADS}"] for p in peaks)
    return {"case": "roofline", **machine.provenance(), "fma_peak": peak, "bandwidth": best, "iterations": found}


def _parts(circuit: Circuit, nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """The steps of an iteration by what they are for, in order of appearance."""
    found: dict[str, list[Node]] = {}
    for step in steps(nodes):
        found.setdefault(_part(circuit, step), []).append(step)
    found.pop("sample", None)
    return found


def _part(circuit: Circuit, step: Step) -> str:
    owner = step.kernel.name.partition(".")[0]
    if owner in circuit.populations:
        return owner
    if any(isinstance(o, Random) for o in step.kernel.operands.values()):
        return CODES
    cost = f".{circuit.spec.cost.name}."
    if step.kernel.name == "sample":
        return "sample"
    return COST if cost in step.kernel.name else LEARNING


def _alone(session: mgd.Session, nodes: list[Node]) -> CppTarget:
    """A target that runs only these steps, on the arrays of the session as they are."""
    program = replace(session.program, iteration=tuple(nodes))
    target = CppTarget(
        program, session.clocks, session.seeds, session.batch, session.target.dtype, THREADS, ("iteration",)
    )
    for array in program.arrays:
        target.write(array.name, session.target.array(array.name))
    return target


def _seconds(target: CppTarget) -> float:
    """Seconds of a run: the best of some, each long enough to be timed."""

    def run(n: int) -> float:
        start = time.perf_counter()
        target.run("iteration", n)
        return time.perf_counter() - start

    count = 1
    while run(count) < TURN_SECONDS:
        count *= 2
    return min(run(count) for _ in range(REPEATS)) / count


def _work(nodes: list[Node], batch: int) -> dict[str, int]:
    """Multiply-accumulates that are made, and the bytes that each step has to read and write at least once."""
    macs = moved = 0
    for step in steps(nodes):
        kernel = step.kernel
        if isinstance(kernel, Couple) and kernel.into is Into.POST and kernel.reduce is Reduce.SUM:
            whole = batch // 16 * 16 if winograd.pays(kernel.topology) else 0
            fewer = winograd.products(kernel.topology) if whole else 0
            macs += fewer * whole + products(kernel.topology) * (batch - whole)
        arrays = {o.array.name: o.array for o in kernel.operands.values() if _is_read(step, o)}
        arrays |= {a.name: a for a in kernel.writes.values()}
        if isinstance(kernel, Couple | Elements):
            moved += sum(_bytes(a, batch) for a in arrays.values())
    return {"macs": macs, "bytes": moved}


def _is_read(step: Step, operand) -> bool:
    """Whether an operand is an array that the step reads; a perturbation that is not active counts as zero."""
    if not isinstance(operand, Read):
        return False
    return not operand.amplitude or operand.array.name in step.active


def _bytes(array: Array, batch: int) -> int:
    size = 4 if array.precision is Precision.REAL else 8
    return size * array.n * (batch if array.sharing is Sharing.REPLICA else 1)
