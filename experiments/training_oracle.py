"""Backpropagation of training_time.py in a program that shares no code with mgdcircuits: does it take as many iterations?

python experiments/training_oracle.py --quick
python experiments/training_oracle.py --full --out experiments/results

training_oracle.cpp is written from the description of arXiv 2501.15403 and has random numbers of its own, so that only
distributions over seeds can be compared. Nothing is kept before the end. `--workers` is not used: one seed after another.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

import mgdcircuits as mgd
from common import published, study
from common.training_time_figure import COLORS, bound, points
from common.training_time_run import RULES
from mgdcircuits import cli
from mgdcircuits.codegen.compiler import compiler
from mgdcircuits.errors import BuildError
from training_time import published_times

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffast-math",
)  # of a program of its own, whose rounding nobody relies on


@dataclass(frozen=True)
class Size:
    """A learning rate, goals, the iterations after which seeds are cut off at each width, and how many seeds there are."""

    eta: float
    goals: tuple[float, ...]
    limits: dict[int, int]
    seeds: int


SIZES = {
    "quick": Size(0.1, (0.2,), {1: 500}, 3),
    "full": Size(published.ETA, (0.2, 0.4), {1: 23_100}, 20),  # twice the published median to 40 %
}


def built(folder: Path) -> Path:
    """The program, and beside it the images as it reads them."""
    program = folder / "training_oracle"
    done = subprocess.run([*compiler(), *FLAGS, str(SOURCE), "-o", str(program)], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{SOURCE.name} was not compiled: {done.stderr.strip()[:500]}")
    data = mgd.datasets.load("fashion_mnist")
    for name in ("train", "test"):
        x, y = getattr(data, f"x_{name}"), getattr(data, f"y_{name}")
        np.round(x * (255 * data.scale)).astype(np.uint8).tofile(folder / f"{name}_x")
        y.astype(np.uint8).tofile(folder / f"{name}_y")
    return program


def rows(program: Path, d: int, seed: int, size: Size) -> np.ndarray:
    """Iterations and the accuracy after them, until the last goal or the limit: (row, 2)."""
    right = round(10_000 * size.goals[-1])
    command = [str(program), *map(str, (d, seed, size.eta, right, size.limits[d], program.parent))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return np.array([line.split() for line in printed.splitlines()], dtype=float) / (1, 10_000)


def measured(program: Path, size: Size, first: int) -> xr.Dataset:
    """`iterations` to each goal (d, goal, seed), infinite where it was not reached in those that are `done` (d, seed)."""
    widths, seeds = list(size.limits), range(first, first + size.seeds)
    found = xr.Dataset(coords={"d": widths, "goal": list(size.goals), "seed": list(seeds)})
    found["iterations"] = (("d", "goal", "seed"), np.full((len(widths), len(size.goals), size.seeds), np.nan))
    found["done"] = (("d", "seed"), np.zeros((len(widths), size.seeds)))
    theirs = published_times()
    quartiles = [[theirs["backprop", d, goal] for goal in size.goals] for d in widths]
    found = found.assign(published=(("d", "goal", "quartile"), quartiles)).assign_coords(quartile=[0.25, 0.5, 0.75])
    for d in widths:
        for seed in seeds:
            each = rows(program, d, seed, size)
            found["done"].loc[d, seed] = each[-1, 0]
            reached = [each[each[:, 1] >= goal, 0] for goal in size.goals]
            found["iterations"].loc[d, :, seed] = [r[0] if len(r) else np.inf for r in reached]
            times = found["iterations"].loc[d, :, seed].values
            words = (f"{goal:.0%} {n:,.0f}" for goal, n in zip(size.goals, times, strict=True))
            print(f"d = {d}, seed {seed}: {', '.join(words)}", flush=True)
    return found.assign_attrs(eta=size.eta)


def compared(found: xr.Dataset) -> Iterator[str]:
    """Medians beside the published ones."""
    for d in found["d"].values:
        for goal in found["goal"].values:
            one = found.sel(d=d, goal=goal)
            (middle, known), theirs = bound(one["iterations"].values, one["done"].values), one["published"].values
            ours = f"{'' if known else '> '}{middle:,.0f} (median of {one['iterations'].count().item()} seeds)"
            yield (
                f"d = {d}, {goal:.0%}: {ours} at eta = {found.attrs['eta']:g}; "
                f"published, at {published.ETA:g}: {theirs[1]:,.0f} ({theirs[0]:,.0f} to {theirs[2]:,.0f})"
            )


def draw(found: xr.Dataset, toolkit: xr.Dataset | None, path: Path) -> None:
    """Iterations of each seed: of this program, of the toolkit if its runs are kept beside, and published quartiles."""
    panels = [(d, goal) for d in found["d"].values for goal in found["goal"].values]
    figure = Figure(figsize=(4.6 * len(panels), 2.4), layout="constrained")
    for axes, (d, goal) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        one = found.sel(d=d, goal=goal)
        low, _, high = one["published"].values * published.ETA / found.attrs["eta"]
        axes.axvspan(low, high, color="#999999", alpha=0.25, lw=0, label="published quartiles, 10 seeds")
        points(axes, 0, one["iterations"].values, one["done"].values, "#7a5195", across=True)
        if toolkit is not None:
            ours = toolkit.sel(rule="backprop", d=d, goal=goal)
            points(axes, 1, ours["iterations"].values, ours["done"].values, COLORS["backprop"], across=True)
        names = ["independent program"] + ["mgdcircuits"] * (toolkit is not None)
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(-0.6, len(names)), xscale="log", title=f"d = {d}, to {goal:.0%}", xlabel="iterations")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=120)


@study.command
def main(options: study.Options) -> None:
    """Train by backpropagation in an independent program."""
    with tempfile.TemporaryDirectory() as folder:
        found = measured(built(Path(folder)), SIZES[options.size], options.seed)
    spec = mgd.load(study.NETLISTS / RULES["backprop"], target_off=0.01).spec
    path = study.keep(found, "training_oracle", spec, options)
    toolkit = study.kept("training_time", options) if options.size == "full" else None
    draw(found, toolkit, path.with_suffix(".png"))
    print("\n".join(compared(found)))


if __name__ == "__main__":
    sys.exit(cli.run(main))
