"""How many writes each device has seen when training is done, where devices are written in pulses of one size.

python experiments/write_histograms.py --quick
python experiments/write_histograms.py --full --out experiments/results

Devices whose value is free are all written at every update; those of write_histograms.yaml only if the request is worth a
pulse, rounded to the nearest whole number of pulses or at random. Digits until 80 % of the test set are right.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import mgdcircuits as mgd
from common import study
from mgdcircuits import cli

NETLIST = study.FOLDER / "write_histograms.yaml"
GOAL = 0.8
ROUNDING = {"nearest": 0, "random": 1}
ETA = {1: 0.3, 10: 1, 100: 1, 1000: 1}
"""The best of write_cycles.py for devices without pulses."""
EDGES = np.array([-0.5, 0.5, *(2.0 ** np.arange(1, 15) - 0.5)])
"""Of the bins: none, 1, 2 to 3, 4 to 7, ..."""

COLORS = ("#c2571a", "#d9a21b", "#3d8a4d", "#1f5fa8")


@dataclass(frozen=True)
class Size:
    """tau_theta, seeds, and when runs end that have not reached the goal: after this many iterations, times root tau_theta."""

    windows: tuple[int, ...]
    seeds: int
    most: int


SIZES = {"quick": Size((1, 100), 2, 5_000), "full": Size((1, 10, 100, 1000), 4, 5_000)}


def run(rounding: str, window: int, size: Size, seed: int, threads: int) -> xr.Dataset:
    """Pulses of all devices at the goal, or where the run was cut off."""
    circuit = mgd.load(NETLIST, window=window, eta=ETA[window], dither=ROUNDING[rounding])
    data = mgd.datasets.load("digits")
    session = mgd.Session(circuit, batch=50, seed=seed, data=data, threads=threads)
    step, accuracy = window * max(1, round(20 / window**0.5)), 0.0
    while accuracy < GOAL and session.iteration + step <= size.most * window**0.5:
        session.step(step)
        accuracy = float(session.evaluate(data.x_test, data.y_test, data.scale).accuracy.mean())
    pulses = np.concatenate([session.writes(name).ravel() for name in session.parameters])
    return xr.Dataset({"pulses": ("device", pulses), "accuracy": accuracy, "iterations": session.iteration})


def measure(size: Size, options: study.Options) -> xr.Dataset:
    """pulses(rounding, tau_theta, seed, device), with the accuracy and the iterations of each run."""
    seeds = range(options.seed, options.seed + size.seeds)
    rows = [
        xr.concat(
            [xr.concat([run(how, w, size, s, options.workers) for s in seeds], "seed") for w in size.windows],
            "tau_theta",
        )
        for how in ROUNDING
    ]
    found = xr.concat(rows, "rounding").assign_coords(
        rounding=list(ROUNDING), tau_theta=list(size.windows), seed=list(seeds)
    )
    found["pulses"].attrs = {"long_name": "pulses that a device has seen", "units": "1"}
    return found


def draw(found: xr.Dataset, path: Path) -> None:
    """Histograms over the devices of the first seed, a panel for each way of rounding; dots at the number of updates."""
    figure = Figure(figsize=(10.4, 4.6), layout="constrained")
    found = found.isel(seed=0)
    found["updates"] = found["iterations"] / found["tau_theta"]
    bins = int(np.searchsorted(EDGES, max(found["pulses"].max(), found["updates"].max()))) + 1
    places = np.arange(bins)
    for k, how in enumerate(found["rounding"].values):
        axes = figure.add_subplot(1, 2, k + 1)
        axes.spines[["top", "right"]].set_visible(False)
        for window, color in zip(found["tau_theta"].values, COLORS, strict=False):
            one = found.sel(rounding=how, tau_theta=window)
            pulses, updates = one["pulses"].values, float(one["updates"])
            parts = 100 * np.histogram(pulses, EDGES[:bins])[0] / len(pulses)
            label = f"$\\tau_\\theta$ = {window}: {float(one['accuracy']):.0%} after {updates:,.0f} updates; "
            label += f"mean {pulses.mean():.1f}, most {pulses.max()}"
            axes.stairs(parts, places, color=color, lw=1.6, label=label)
            axes.plot(np.interp(np.log2(updates), np.log2(EDGES[2:bins]), places[2:]), 1.5, "o", color=color, ms=6)
        names = ["0", "1", *(f"{2**n}–{2 ** (n + 1) - 1}" for n in range(1, bins - 2))]
        axes.set_xticks(places[:-1] + 0.5, names, rotation=60, fontsize=8)
        axes.set_ylim(0, 150)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel("pulses that a device has seen")
        axes.set_ylabel("devices (%)")
        axes.set_title("requests rounded " + ("to the nearest pulse" if how == "nearest" else "at random"), fontsize=10)
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(path, dpi=130)


def table(found: xr.Dataset) -> list[str]:
    """What each way of rounding and tau_theta came to: medians of the seeds."""
    lines = []
    for how in found["rounding"].values:
        for window in found["tau_theta"].values:
            one = found.sel(rounding=how, tau_theta=window)
            pulses = one["pulses"].transpose("seed", "device").values
            mean, most = np.median(pulses.mean(1)), np.median(pulses.max(1))
            lines.append(
                f"{how}, tau_theta {window}: accuracy {float(one['accuracy'].median()):.1%} after "
                f"{float(one['iterations'].median()) / window:,.0f} updates; pulses of a device: mean {mean:,.1f}, most "
                f"{most:,.0f}, never written {(pulses == 0).mean():.0%}"
            )
    return lines


@study.command
def main(options: study.Options) -> None:
    """Count the pulses of every device, and draw their histograms."""
    found = measure(SIZES[options.size], options)
    path = study.keep(found, "write_histograms", mgd.load(NETLIST).spec, options)
    draw(found, path.with_suffix(".png"))
    for line in table(found):
        print(line)


if __name__ == "__main__":
    sys.exit(cli.run(main))
