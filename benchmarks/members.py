"""How much faster seeds are as members of one session than one after another: iterations of all members in a second.

python benchmarks/members.py

One thread, float32. docs/sweeps.md has the table, from which the rule of sweeps follows.
"""

from __future__ import annotations

import time
from pathlib import Path

import mgdcircuits as mgd

NETLISTS = Path(__file__).resolve().parent.parent / "netlists"
CASES = {"xor": {}, "letters": {}, "digits_mlp": {}, "fashion_mnist_cnn": {"d": 1}}
MEMBERS = (1, 8, 16, 32)
SECONDS = 0.7
REPEATS = 3


def rate(session: mgd.Session) -> float:
    """Iterations of all members in a second, the best of some repeats."""
    found = []
    for _ in range(REPEATS):
        done, start = session.iteration, time.perf_counter()
        while (passed := time.perf_counter() - start) < SECONDS:
            session.step(max(1, session.iteration // 50))
        found.append(session.members * (session.iteration - done) / passed)
    return max(found)


def main() -> None:
    """Print a table in Markdown."""
    print("| netlist | batch |", " | ".join(f"{m} member" + "s" * (m > 1) for m in MEMBERS), "|")
    print("|---|---|" + "---|" * len(MEMBERS))
    for name, settings in CASES.items():
        circuit = mgd.load(NETLISTS / f"{name}.yaml", **settings)
        rates = []
        for members in MEMBERS:
            session = mgd.Session(circuit, members=members, data=circuit.spec.task.data, on_nan="continue")
            session.step(10)
            rates.append(rate(session))
        print(f"| {name} | {session.batch} |", " | ".join(f"{r:,.0f}" for r in rates), "|", flush=True)


if __name__ == "__main__":
    main()
