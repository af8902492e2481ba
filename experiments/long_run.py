"""A long run that is killed in its middle and goes on: does memory stay flat, and is the result the same?

python experiments/long_run.py --iterations 300
python experiments/long_run.py                       # 200,000 iterations, twice: some minutes

The circuit is trained twice, in processes of their own: in one piece, and killed by SIGKILL half way and resumed. The two
datasets, with all parameters at every row, must be equal in everything but wall-clock times, and no process may need more
memory the longer it runs. Ends with status 2 if not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

import mgdcircuits as mgd
from mgdcircuits import checkpoint, cli
from mgdcircuits.errors import RunError
from mgdcircuits.record import state_of

NETLIST = Path(__file__).resolve().parent.parent / "netlists" / "fashion_mnist_cnn.yaml"
GROWTH = 8.0  # MB that a process may need more in the last half of its iterations
ROWS = 20


@dataclass(frozen=True)
class Sample:
    """What a process needs at some moment."""

    iteration: int  # of its last checkpoint
    megabytes: float  # resident


def resident(process: subprocess.Popen) -> float:
    """Resident memory of a process in MB; nothing if it has ended."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(command: list[str], out: Path, stop: int | None = None) -> list[Sample]:
    """Begin a run, or go on with it; kill it after iteration `stop`. Its memory on the way."""
    process = subprocess.Popen(command)
    samples = []
    while process.poll() is None:
        time.sleep(0.5)
        state = state_of(out)
        iteration = checkpoint.read(state).about["iteration"] if state.exists() else 0
        if megabytes := resident(process):
            samples.append(Sample(iteration, megabytes))
        if stop is not None and iteration >= stop:
            process.kill()
            process.wait()
            return samples
    if process.returncode:
        raise RunError(f"{out}: the run ended with status {process.returncode}")
    if stop is not None:
        raise RunError(f"{out}: the run came to its end before it could be killed; take more iterations")
    return samples


def growth(samples: list[Sample]) -> float | None:
    """How much more memory a process needs towards the end of its iterations than before, in MB; None: too short to say.

    The first fifth is left out: there the circuit is compiled, data are loaded, and the first evaluations make room.
    """
    first, last = samples[0].iteration, samples[-1].iteration
    steady = [s.megabytes for s in samples if s.iteration > first + (last - first) / 5]
    half = len(steady) // 2
    return round(max(steady[half:]) - max(steady[:half]), 2) if half > 1 else None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--netlist", type=click.Path(path_type=Path), default=NETLIST, help="[default: fashion_mnist_cnn.yaml]")
@cli.SET
@click.option("--iterations", type=click.IntRange(min=10), default=200_000, show_default=True)
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="1: online, as hardware learns."
)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="long_run", show_default=True, help="A folder.")
def main(
    netlist: Path, overrides: dict[str, str], iterations: int, batch: int, threads: int, seed: int, out: Path
) -> None:
    """Train twice, once disturbed, and compare."""
    settings = overrides or ({"d": "8"} if netlist == NETLIST else {})
    circuit = mgd.load(netlist, **settings)
    out.mkdir(parents=True, exist_ok=True)
    options = ["--iterations", iterations, "--batch", batch, "--seed", seed, "--threads", threads]
    options += ["--evaluate-every", max(1, iterations // ROWS), "--checkpoint-every", 2 if iterations < 10_000 else 30]
    options += [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    options += [part for name in circuit.plastic for part in ("--record", name)]
    call = [sys.executable, "-m", "mgdcircuits", "train", str(netlist), *map(str, options), "--quiet", "--resume", "-o"]
    whole, killed = out / "whole.nc", out / "killed.nc"
    begun = time.monotonic()
    memory = [run([*call, str(whole)], whole)]
    seconds = time.monotonic() - begun
    memory += [run([*call, str(killed)], killed, iterations // 2), run([*call, str(killed)], killed)]
    one, other = (mgd.open_run(path).drop_vars("wall_seconds") for path in (whole, killed))
    found = {
        "circuit": circuit.name,
        "parameters": circuit.n_parameters,
        "iterations": iterations,
        "seconds_in_one_piece": round(seconds, 1),
        "killed_after_iteration": memory[1][-1].iteration,
        "megabytes_at_most": [round(max(s.megabytes for s in samples), 1) for samples in memory],
        "growth_in_megabytes": [growth(samples) for samples in memory],
        "equal": one.equals(other),
    }
    text = json.dumps(found, indent=2)
    (out / "long_run.json").write_text(text + "\n")
    print(text)
    if not found["equal"]:
        raise RunError("the resumed run differs from the one in one piece")
    grown = found["growth_in_megabytes"]
    if grown[0] is None:
        raise RunError("the run was too short to say whether its memory grows; take more --iterations")
    if max(each for each in grown if each is not None) > GROWTH:
        raise RunError(f"a process grew by more than {GROWTH} MB")


if __name__ == "__main__":
    sys.exit(cli.run(main))
