"""The worker's side of a measurement: one process, one framework, told by lines of JSON what to do.

The first line is the work order; `build(work)` returns a function that runs n iterations. Every further line
``{"iterations": n}`` is answered by ``{"seconds": t}``. Only one worker is asked at a time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable


def serve(build: Callable[[dict], Callable[[int], None]]) -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints must not mix with the answers

    def answer(**values) -> None:
        print(json.dumps(values), file=answers, flush=True)

    work = json.loads(sys.stdin.readline())
    start = time.perf_counter()
    run = build(work)
    run(1)
    answer(ready=time.perf_counter() - start)
    for line in sys.stdin:
        iterations = json.loads(line)["iterations"]
        start = time.perf_counter()
        run(iterations)
        answer(seconds=time.perf_counter() - start)
