"""One case: choose each framework's best form, then let all take turns."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import mgdcircuits as mgd
from benchmarks import machine
from benchmarks.cases import Case
from benchmarks.macs import iteration_macs
from benchmarks.workers import Worker, WorkerError, alternate

TRIAL_SECONDS = 0.2
DISTURBED = 0.1  # cores


def measure(case: Case, rounds: int, seconds: float, say: Callable[[str], None] = print) -> dict:
    """Raw times of a case.

    Parameters
    ----------
    rounds
        In each round every worker has a turn.
    seconds
        Length of a turn.
    say
        Where progress goes.
    """
    say(f"{case.name}: {case.title}")
    tried: dict[str, float | str] = {}
    workers = [Worker("ours", {"variant": ""} | case.work)]
    peaks = [machine.fma_peak()]
    try:
        for peers in case.tried.values():
            best = _best(peers, case, tried, say)
            if best is not None:
                workers.append(best)
        for worker in workers:
            worker.calibrate(seconds * case.longer)
        times = alternate(workers, rounds)
        peaks.append(machine.fma_peak())
        _warn(workers, say)
    finally:
        for worker in workers:
            worker.close()
    return {
        "case": case.name,
        "title": case.title,
        **machine.provenance(),
        "work": case.work,
        "required": case.required,
        "measure": case.measure.value,
        "macs": _macs(case),
        "fma_peak": peaks,
        "rounds": rounds,
        "iterations": {worker.name: worker.iterations for worker in workers},
        "setup_seconds": {worker.name: worker.setup_seconds for worker in workers},
        "others": {worker.name: worker.others[-rounds:] for worker in workers},
        "cost": {worker.name: [worker.costs[0], worker.costs[-1]] for worker in workers},
        "tried": tried,
        "seconds": times,
    }


def _warn(workers: list[Worker], say: Callable[[str], None]) -> None:
    """Say so if the machine was not ours alone."""
    seen = [cores for worker in workers for cores in worker.others if cores is not None]
    if seen and median(seen) > DISTURBED:
        say(f"  others kept {median(seen):.1f} cores busy: these times are not worth keeping")


def _best(peers: tuple[str, ...], case: Case, tried: dict, say) -> Worker | None:
    """The fastest of some forms in a short trial, still running; None if none of them runs."""
    best, shortest = None, float("inf")
    for peer in peers:
        try:
            worker = Worker(peer, case.work | {"variant": peer.partition("-")[2]})
            worker.calibrate(TRIAL_SECONDS)
            time = min(worker.turn() for _ in range(3))
        except WorkerError as error:
            say(f"  {error}")
            tried[peer] = str(error)
            continue
        say(f"  {peer}: {time * 1e3:.3f} ms")
        tried[peer] = time
        if time < shortest:
            worker, best, shortest = best, worker, time
        if worker is not None:
            worker.close()
    return best


def _macs(case: Case) -> int | None:
    circuit = mgd.load(case.work["netlist"], **case.work["overrides"])
    return iteration_macs(circuit) * case.work["batch"]
