"""Which step of node perturbation explains its published training times? Other counts of nodes, and each layer's part.

python experiments/training_readings.py --quick --workers 1
python experiments/training_readings.py --full --workers 1 --out experiments/results

Nodes take longer in training_time.py than in arXiv 2501.15403. At the published learning rate the times are those of steps of
-eta*gradient/sqrt(K), K nodes of a layer (training_drift.py). Here the same seeds take such steps with other K, and with steps
of one layer that are twice as long. Runs are kept, and shared by processes, as in training_time.py. `--workers`: threads.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import study
import training_drift
import training_time_run
import xarray as xr
from matplotlib.figure import Figure
from training_time import GOALS, PUBLISHED_ETA, PUBLISHED_SEEDS, published
from training_time_plan import Plan, SharedStudy, gathered, tried
from training_time_run import Place, circuit

from mgdcircuits import cli

PLAIN = "as described"
POOLED = ("conv2", "conv4", "conv6")
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "dense1", "dense2", "logits")
AXES = {"reading": "reading", "d": "d", "seed": "seed"}
Shapes = Mapping[str, tuple[int, ...]]
Reading = Callable[[str, Shapes, Mapping[str, int]], float]


def nodes(layer: str, shapes: Shapes, weights: Mapping[str, int]) -> float:
    """The inputs of its neurons."""
    return math.prod(shapes[layer])


def after_pooling(layer: str, shapes: Shapes, weights: Mapping[str, int]) -> float:
    """Only the nodes of maps that are left after pooling, where it follows."""
    if layer not in POOLED:
        return nodes(layer, shapes, weights)
    channels, *map_shape = shapes[layer]
    return channels * math.prod(n // 2 for n in map_shape)


def channels(layer: str, shapes: Shapes, weights: Mapping[str, int]) -> float:
    """One node for a channel, as there is one bias."""
    return shapes[layer][0]


def mean_of_layers(layer: str, shapes: Shapes, weights: Mapping[str, int]) -> float:
    """The nodes of the network over the number of layers."""
    return sum(nodes(one, shapes, weights) for one in LAYERS) / len(LAYERS)


def fewer(layer: str, shapes: Shapes, weights: Mapping[str, int]) -> float:
    """Nodes or parameters, whichever are fewer."""
    return min(nodes(layer, shapes, weights), weights[layer])


def twice(longer: str) -> Reading:
    """Steps of one layer are twice as long."""
    return lambda layer, shapes, weights: nodes(layer, shapes, weights) / (4 if layer == longer else 1)


READINGS: dict[str, Reading] = {
    PLAIN: nodes,
    "nodes after pooling": after_pooling,
    "nodes of the network / 9": mean_of_layers,
    "nodes or parameters": fewer,
    "channels": channels,
} | {f"{layer} twice as far": twice(layer) for layer in LAYERS}


@dataclass(frozen=True)
class Size:
    """A learning rate, and in order a goal, widths, readings and how many seeds go on to it."""

    eta: float
    stages: tuple[tuple[float, tuple[int, ...], tuple[str, ...], int], ...]


SIZES = {
    "quick": Size(0.5, ((0.4, (1,), (PLAIN, "channels"), 1),)),
    "full": Size(
        0.05,
        ((0.6, (2, 1, 4), tuple(READINGS), 3),),
    ),
}


@dataclass(frozen=True)
class Point(training_time_run.Point):
    """What distinguishes a run."""

    reading: str = PLAIN

    def __str__(self) -> str:
        return f"{super().__str__()}_{re.sub(r'[^A-Za-z0-9]+', '_', self.reading)}"


class Run(training_drift.Run):
    """A run by the drift of nodes, with other lengths of the steps of layers."""

    point: Point

    @cached_property
    def _elements(self) -> dict[str, float]:
        """What a layer counts as K."""
        shapes = {population.name: population.shape for population in self._circuit.spec.populations}
        parameters = self._session.parameters
        weights = {one: sum(p.size for name, p in parameters.items() if name.startswith(f"{one}.")) for one in LAYERS}
        return {layer: READINGS[self.point.reading](layer, shapes, weights) for layer in LAYERS}


def planned(size: Size, options: study.Options, place: Place) -> Iterator[tuple[Run, float, int]]:
    """What is to be done, in order: a run, its goal, and the iterations after which it is cut off."""
    theirs = published()
    for goal, widths, names, seeds in size.stages:
        for d in widths:
            limit = round(4 * theirs["node", d, goal][1] * PUBLISHED_ETA / size.eta)
            for name in names:
                for seed in range(options.seed, options.seed + seeds):
                    yield Run(Point("node", d, size.eta, seed, reading=name), place), goal, limit


def collect(plan: Plan, size: Size, drift: xr.Dataset | None) -> xr.Dataset:
    """`relative`: iterations over those of the same seed as described, (reading, d, seed, goal). `wanted`: the same as would
    make our medians the published ones, with a 95 % interval, (d, goal, bound)."""
    found = gathered({run.point: run for run, _, _ in plan}.values(), AXES, GOALS, {})
    found = found.sel(reading=[name for name in READINGS if name in found["reading"]])
    found["iterations"] = found["iterations"].where(tried(found))
    found["relative"] = found["iterations"] / found["iterations"].sel(reading=PLAIN)
    bounds = [[wanted(drift, d, goal) for goal in found["goal"].values] for d in found["d"].values]
    found["wanted"] = (("d", "goal", "bound"), bounds)
    return found.assign_coords(bound=["low", "middle", "high"]).assign_attrs(eta=size.eta)


def wanted(drift: xr.Dataset | None, d: int, goal: float, draws: int = 4000) -> tuple[float, float, float]:
    """The published median over ours by the drift, with a 95 % interval: our seeds are drawn anew, the published ones from a
    log-normal with their quartiles."""
    if drift is None or d not in drift["d"]:
        return (np.nan,) * 3
    ours = drift["scaled"].sel(rule="node", d=d, goal=goal).values
    ours, theirs = ours[np.isfinite(ours)], published()["node", d, goal]
    if not len(ours):
        return (np.nan,) * 3
    rng, sigma = np.random.default_rng(0), np.log(theirs[2] / theirs[0]) / 1.349
    published_medians = theirs[1] * np.exp(sigma * np.median(rng.standard_normal((draws, PUBLISHED_SEEDS)), axis=1))
    drawn = published_medians / np.median(rng.choice(ours, (draws, len(ours))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return low, theirs[1] / np.median(ours), high


def panels(found: xr.Dataset) -> list[tuple[int, float]]:
    """Widths and goals that a run as described and others have reached."""
    reached = np.isfinite(found["relative"]).any("seed").sum("reading") > 1
    return [(d, goal) for goal in found["goal"].values[1:] for d in found["d"].values if reached.sel(d=d, goal=goal)]


def draw(found: xr.Dataset, path: Path) -> None:
    """Iterations over those of the same seed as described: a row for each reading, a panel for each width and goal."""
    names, each = list(found["reading"].values), panels(found)
    each = [one for one in each if one[1] >= 0.6] or each
    goals = sorted({goal for _, goal in each})
    columns = max(sum(goal == other for _, other in each) for goal in goals)
    figure = Figure(figsize=(2.6 + 3.2 * columns, (1 + 0.27 * len(names)) * len(goals)), layout="constrained")
    axes = figure.subplots(len(goals), columns, sharex=True, sharey=True, squeeze=False)
    for one in axes.flat:
        one.set_visible(False)
    for row, goal in zip(axes, goals, strict=True):
        for one, d in zip(row, [d for d, other in each if other == goal], strict=False):
            one.set_visible(True)
            low, middle, high = found["wanted"].sel(d=d, goal=goal).values
            one.axvspan(low, high, color="#c2571a", alpha=0.15, lw=0, label="wanted: published / as described, 95 %")
            one.axvline(middle, color="#c2571a", lw=1)
            one.axvline(1, color="#999999", lw=0.8, ls=":")
            for k, name in enumerate(names):
                values = found["relative"].sel(d=d, goal=goal, reading=name).values
                values = values[np.isfinite(values)]
                one.plot(values, np.full(len(values), k), ".", color="#1f5fa8", alpha=0.5)
                if len(values):
                    one.plot(np.median(values), k, "o", color="#1f5fa8", ms=6)
            one.set(xscale="log", title=f"d = {d}, to {goal:.0%}", xlabel="iterations / as described, same seed")
            one.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
            one.minorticks_off()
            one.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0, 0].invert_yaxis()
    axes[0, 0].legend(frameon=False, fontsize=7, loc="lower left")
    figure.savefig(path, dpi=110)


def table(found: xr.Dataset) -> Iterator[str]:
    """Medians and ranges of the iterations over those as described, and what is wanted."""
    for d, goal in panels(found):
        low, middle, high = found["wanted"].sel(d=d, goal=goal).values
        yield f"d = {d}, to {goal:.0%}; wanted {middle:.2f} ({low:.2f} to {high:.2f})"
        for name in found["reading"].values:
            values = found["relative"].sel(d=d, goal=goal, reading=name).values
            if len(values := values[np.isfinite(values)]):
                yield f"  {name}: {np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


@study.command
def main(options: study.Options) -> None:
    """Train by the drift of node perturbation with other lengths of steps."""
    size, quick = SIZES[options.size], options.size == "quick"
    kept = options.out / f"training_drift{'_quick' if quick else ''}.nc"
    drift = xr.load_dataset(kept) if kept.exists() else None
    SharedStudy(
        "training_readings",
        [circuit("backprop", 1, size.eta)],
        AXES,
        lambda **values: Point("node", eta=size.eta, **values),
        planned=lambda place: planned(size, options, place),
        collect=lambda plan: collect(plan, size, drift),
        draw=draw,
        table=table,
        judged=1000 if quick else None,
    ).go_on(options)


if __name__ == "__main__":
    sys.exit(cli.run(main))
