"""Kill runs with SIGKILL at random moments, let them go on, and compare each with a run that was not disturbed.

python tests/kill_and_resume.py FOLDER --kills 200

A run is killed up to several times, also while it goes on or finishes. Its dataset, which holds all parameters at every row,
must equal the undisturbed one in everything but wall-clock times. Prints what was hit; ends with status 1 at a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import mgdcircuits as mgd
from mgdcircuits.errors import RecordError
from mgdcircuits.training import train

NETLISTS = Path(__file__).parent.parent / "netlists"
VARIANTS = {
    "weights": ("xor", 40_000),
    "nodes": ("xor_np", 40_000),
    "analog": ("xor_analog", 40_000),
    "wear": ("crossbar_rram", 600),
}


def start(circuit: mgd.Circuit, iterations: int, out: Path, target: str, resume: bool) -> int:
    """Train in a child process; its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        train(
            circuit,
            iterations=iterations,
            out=out,
            target=target,
            threads=1,
            seed=5,
            evaluate_every=iterations // 20,
            record=list(circuit.plastic),
            progress=False,
            resume=resume,
            checkpoint_every=0.003,
        )
        status = 0
    finally:
        os._exit(status)


def ended(pid: int, after: float | None) -> bool:
    """Whether the child came to its end before it was killed `after` seconds."""
    if after is not None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise SystemExit("a run ended with an error")
    return True


def hit(out: Path) -> str:
    """What the kill found."""
    folder = {p.name for p in out.parent.iterdir()}
    if f"{out.name}.state" not in folder:
        return "no checkpoint yet" if not out.exists() else "complete"
    if any(name.endswith(".part") for name in folder):
        return "writing a checkpoint or a dataset"
    try:
        mgd.open_run(out)
    except RecordError:
        return "dataset lost" if out.exists() else "no dataset yet"
    return "between"


def disturbed(circuit: mgd.Circuit, iterations: int, out: Path, target: str, seconds: float, draw: random.Random):
    """A run that is killed at random moments until it comes to its end; what the kills hit."""
    found = Counter()
    while True:
        after = draw.uniform(0, 1.2 * seconds) if sum(found.values()) < 4 else None
        if ended(start(circuit, iterations, out, target, resume=True), after):
            assert os.listdir(out.parent) == [out.name], "nothing else is left of a complete run"
            return found
        what = hit(out)
        found[what] += 1
        if what == "complete":
            return found


def same(one: Path, other: Path) -> bool:
    a, b = (mgd.open_run(p) for p in (one, other))
    attributes = [{n: str(v) for n, v in r.attrs.items() if n not in ("started", "command")} for r in (a, b)]
    a, b = (r.drop_vars("wall_seconds") for r in (a, b))
    return a.equals(b) and a.sizes["iteration"] == 21 and attributes[0] == attributes[1]


def main() -> int:
    """Kill until there were enough kills."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="cpp")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    draw, found, runs, wrong = random.Random(arguments.seed), Counter(), 0, 0
    variants = {}
    for name, (netlist, iterations) in VARIANTS.items():
        circuit = mgd.load(NETLISTS / f"{netlist}.yaml")
        whole = arguments.folder / f"{name}.nc"
        # Once here: compiles, and imports what the children then have. One thread, so that forks are safe.
        train(circuit, iterations=1, target=arguments.target, threads=1, progress=False)
        begun = time.monotonic()
        ended(start(circuit, iterations, whole, arguments.target, resume=False), None)
        variants[name] = (circuit, iterations, whole, time.monotonic() - begun)
    while sum(found.values()) < arguments.kills:
        circuit, iterations, whole, seconds = variants[list(variants)[runs % len(variants)]]
        folder = arguments.folder / str(runs)
        folder.mkdir()
        found += disturbed(circuit, iterations, folder / "run.nc", arguments.target, seconds, draw)
        runs += 1
        if not same(folder / "run.nc", whole):
            wrong += 1
            print(f"{folder} differs from {whole}")
    print(json.dumps({"kills": sum(found.values()), "runs": runs, "wrong": wrong, "hit": dict(found)}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
