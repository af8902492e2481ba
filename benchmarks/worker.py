"""The worker's side of a measurement: one process, one framework, told by lines of JSON what to do.

The first line is the work order. Each further line ``{"iterations": n}`` is answered by the seconds that they took and by
the cost after them. Only one worker is asked at a time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import NamedTuple


class Iteration(NamedTuple):
    """What a framework offers.

    `run(n)` does n iterations and returns their seconds if it knows better than a clock around the call. `cost()` is the
    mean cost of an unperturbed evaluation: it shows that the iterations learn.
    """

    run: Callable[[int], float | None]
    cost: Callable[[], float]


def serve(build: Callable[[dict], Iteration]) -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints must not mix with the answers

    def answer(seconds: float) -> None:
        print(json.dumps({"seconds": seconds, "cost": float(worker.cost())}), file=answers, flush=True)

    work = json.loads(sys.stdin.readline())
    start = time.perf_counter()
    worker = build(work)
    worker.run(1)
    answer(time.perf_counter() - start)
    for line in sys.stdin:
        n = json.loads(line)["iterations"]
        start = time.perf_counter()
        own = worker.run(n)
        answer(time.perf_counter() - start if own is None else own)
