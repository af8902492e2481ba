"""What the experiments that sweep share: options, sweeps on one local cluster, times to a goal, exponents, and files."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr

import mgdcircuits as mgd
from mgdcircuits.errors import RunError
from mgdcircuits.record import run_attributes, state_of, write_dataset
from mgdcircuits.storage import fingerprint
from mgdcircuits.sweeps.results import FAILED, MISSING
from mgdcircuits.sweeps.sweeping import local_cluster
from mgdcircuits.training import Interrupted

FOLDER = Path(__file__).resolve().parent.parent
NETLISTS = Path(os.path.relpath(FOLDER.parent / "netlists"))  # relative, for the sake of checkpoints that name it
MEND = "make room and give the same command"
FACTS = ("netlist_sha256", "parameters", "clocks")
FOLDER_TO_WRITE = click.Path(file_okay=False, writable=True, path_type=Path)


@dataclass(frozen=True)
class Options:
    """Of a call: the size, the first seed, worker processes, and the folder of the results."""

    size: str
    seed: int
    workers: int
    out: Path
    begun: float

    @property
    def suffix(self) -> str:
        """What the names of the files of a quick study end in."""
        return "_quick" if self.size == "quick" else ""


def command(function: Callable[[Options], None]) -> click.Command:
    """The command line of an experiment."""

    @click.command(help=function.__doc__, context_settings={"help_option_names": ["-h", "--help"]})
    @click.option("--quick", "size", flag_value="quick", default="quick", help="A few points. [default]")
    @click.option("--full", "size", flag_value="full", help="All points.")
    @click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The first one.")
    @click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes or threads.")
    @click.option("--out", type=FOLDER_TO_WRITE, default=".", help="A folder.  [default: here]")
    def called(size: str, seed: int, workers: int, out: Path) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.BadParameter(f"{out} cannot be made: {error.strerror}", param_hint="'--out'") from None
        function(Options(size, seed, workers, out, time.monotonic()))

    return called


@contextlib.contextmanager
def cluster(options: Options) -> Iterator[str]:
    """The address of workers that several sweeps share."""
    with local_cluster(options.workers) as made:
        yield made.scheduler_address


def swept(
    part: str, circuit: mgd.Circuit, grid: Mapping[str, Any], options: Options, address: str, **further: Any
) -> xr.Dataset:
    """A sweep whose points are kept until the experiment is done: one that was stopped goes on with the same command.

    Raises
    ------
    RunError
        Points that failed.
    """
    out = part_of(part, options)
    found = mgd.sweep(circuit, grid, out=out, scheduler=address, on_nan="continue", record=[], **further)
    states = found["state"].values.ravel()
    if failed := [state for state in states if state == MISSING or state.startswith(FAILED)]:
        raise RunError(
            f"{out}: {len(failed)} of {len(states)} points are not there ({failed[0]}); the same command tries them again"
        )
    return found


def trained(part: str, circuit: mgd.Circuit, options: Options, **further: Any) -> xr.Dataset:
    """A run that is kept until the experiment is done: one that was stopped goes on where it was with the same command.

    One that is complete is read, unless it is of another circuit or was cut off sooner than it would be now.
    """
    out = part_of(part, options)
    if out.exists() and not state_of(out).exists():
        done = mgd.open_run(out)
        ended = done.attrs["state"].startswith("until") or done.attrs["iterations_asked"] >= further["iterations"]
        if ended and is_of(circuit, done):
            return done
        print(f"{out} is of other settings, and is done anew", flush=True)
        out.unlink()
    how = {"threads": options.workers, "record": [], "on_nan": "continue"}
    try:
        return mgd.train(circuit, out=out, resume=True, **how, **further)
    except Interrupted:
        raise KeyboardInterrupt(f"stopped in {part}; the same command goes on from there") from None


def part_of(part: str, options: Options) -> Path:
    """Where a part of an experiment is kept until the whole is there; its name begins with that of the experiment."""
    return options.out / f"{part}_seed{options.seed}.part.nc"


def kept_part(part: str, made_with: Any, options: Options, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """A part of an experiment, read if one is kept that was made with the same (what JSON can say); else made, and kept."""
    path, digest = part_of(part, options), fingerprint(also=json.dumps(made_with))
    if path.exists() and (there := xr.load_dataset(path)).attrs.pop("made_with", None) == digest:
        return there
    found = make()
    write_dataset(found.assign_attrs(made_with=digest), path, MEND)
    return found


def facts_of(circuit: mgd.Circuit) -> list[str]:
    """What its runs are known by: the SHA-256 of its netlist with what that includes, its parameters and its clocks."""
    now = run_attributes(circuit.spec)
    return [now[name] for name in FACTS]


def is_of(circuit: mgd.Circuit, run: xr.Dataset) -> bool:
    """Whether a run is of this circuit, with the same numbers."""
    return [run.attrs.get(name) for name in FACTS] == facts_of(circuit)


def iterations_to(run: xr.Dataset, goals: tuple[float, ...], name: str = "accuracy_test") -> xr.DataArray:
    """Iterations at the first row whose accuracy is at least each goal; infinite where there is none (right-censored)."""
    found = []
    for goal in goals:
        reached = run[name] >= goal
        first = run["iteration"].isel(iteration=reached.argmax("iteration")).drop_vars("iteration")
        found.append(first.where(reached.any("iteration"), np.inf))
    return xr.concat(found, xr.DataArray(list(goals), dims="goal", name="goal"))


def median(values: np.ndarray) -> float:
    """The median where some values may be infinite or missing, as it is then if half of them are; infinite of none."""
    return float(np.median(np.where(np.isnan(values), np.inf, values))) if len(values) else np.inf


def exponent(x: np.ndarray, values: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Slope of log median over log x, with a 95 % interval: seeds are drawn anew at each x, with replacement.

    Parameters
    ----------
    x
        (point,).
    values
        (point, seed); points whose median is infinite are left out.
    """
    good = np.array([np.isfinite(median(row)) for row in values])
    if good.sum() < 2:
        return (np.nan,) * 3
    logs, values = np.log(x[good]), values[good]
    rng = np.random.default_rng(0)

    def slope(rows: np.ndarray) -> float:
        medians = np.array([median(row) for row in rows])
        known = np.isfinite(medians)
        return float(np.polyfit(logs[known], np.log(medians[known]), 1)[0]) if known.sum() > 1 else np.nan

    drawn = [slope(np.array([rng.choice(row, len(row)) for row in values])) for _ in range(draws)]
    return (slope(values), *np.nanpercentile(drawn, [2.5, 97.5]))


def keep(found: xr.Dataset, name: str, spec: Any, options: Options) -> Path:
    """Write a summary; its path without ending.

    Its attribute `seconds`, if it has one, is the time that several calls took; else it is that of this call.
    """
    seconds = round(found.attrs.get("seconds", time.monotonic() - options.begun), 1)
    facts = {
        "size": options.size,
        "seed": options.seed,
        "workers": options.workers,
        "seconds": seconds,
        "state": found.attrs.get("state", "finished"),
    }
    path = options.out / f"{name}{options.suffix}"
    found = found.assign_attrs(run_attributes(spec, title=name.replace("_", " "), **facts))
    write(found, path.with_suffix(".nc"))
    for part in options.out.glob(part_of(f"{name}_{options.size}_*", options).name):
        part.unlink()
    print(f"{path}.nc, .png; {seconds:.0f} s")
    return path


def kept(name: str, options: Options) -> xr.Dataset | None:
    """The summary of another study in the same folder, if there is one."""
    path = options.out / f"{name}{options.suffix}.nc"
    return xr.load_dataset(path) if path.exists() else None


def write(found: xr.Dataset, path: Path) -> None:
    """Write a dataset, compressed, in single precision; an earlier one stays until it is whole."""
    single = {name: v.astype("float32") for name, v in found.data_vars.items() if v.dtype == np.float64}
    write_dataset(found.assign(single), path, MEND)
