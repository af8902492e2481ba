"""Which step of node perturbation explains its published training times? Other counts of nodes, and each layer's part.

python experiments/training_readings.py --quick --workers 1
python experiments/training_readings.py --full --workers 1 --out experiments/results

Nodes take longer in training_time.py than in arXiv 2501.15403. At the published learning rate the times are those of steps of
-eta*gradient/sqrt(K), K nodes of a layer. Here the same seeds take such steps with other K, and with steps of one layer that
are twice as long, and are compared with those of training_drift.py, which is run before. Runs are kept, and shared by
processes, as in training_time.py. `--workers`: threads.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import mgdcircuits as mgd
import training_drift
from common import published, study
from common.node_or_weight import NODE_OR_WEIGHT
from common.training_time_plan import Plan, Planned, SharedStudy, gathered, tried
from common.training_time_run import Place, Point, circuit
from mgdcircuits import cli
from mgdcircuits.errors import RunError
from training_time import GOALS, aims, published_times

PLAIN = "as described"
OF_DRIFT = {PLAIN: "node", "nodes or parameters": NODE_OR_WEIGHT}
"""Readings that training_drift.py takes, as rules."""
POOLED = ("conv2", "conv4", "conv6")
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "dense1", "dense2", "logits")
AXES = {"reading": "variant", "d": "d", "seed": "seed"}
Shapes = Mapping[str, tuple[int, ...]]
Reading = Callable[[str, Shapes, Mapping[str, int]], float]


def after_pooling(layer: str, shapes: Shapes, parameters: Mapping[str, int]) -> float:
    """Only the nodes that are left after pooling, where it follows."""
    n_channels, *sides = shapes[layer]
    return n_channels * math.prod(n // 2 if layer in POOLED else n for n in sides)


def channels(layer: str, shapes: Shapes, parameters: Mapping[str, int]) -> float:
    """One node for a channel, as there is one bias."""
    return shapes[layer][0]


def mean_of_layers(layer: str, shapes: Shapes, parameters: Mapping[str, int]) -> float:
    """The nodes of the network over the number of layers."""
    return sum(math.prod(shapes[one]) for one in LAYERS) / len(LAYERS)


def parameters_of_kernels(layer: str, shapes: Shapes, parameters: Mapping[str, int]) -> float:
    """Parameters in convolutions, nodes in dense layers."""
    return parameters[layer] if layer.startswith("conv") else math.prod(shapes[layer])


def twice(longer: str) -> Reading:
    """Steps of one layer are twice as long."""
    return lambda layer, shapes, parameters: math.prod(shapes[layer]) / (4 if layer == longer else 1)


READINGS: dict[str, Reading] = {
    "nodes after pooling": after_pooling,
    "nodes of the network / 9": mean_of_layers,
    "parameters of kernels": parameters_of_kernels,
    "channels": channels,
} | {f"{layer} twice as far": twice(layer) for layer in LAYERS}
SHOWN = ("nodes or parameters", *READINGS)


def counts(reading: str, circuit: mgd.Circuit) -> dict[str, float]:
    """What each layer of a circuit counts as K."""
    shapes = {population.name: population.shape for population in circuit.spec.populations}
    sizes = {one: 0 for one in LAYERS}
    for name, array in circuit.plastic.items():
        sizes[name.split(".")[0]] += array.n
    return {layer: READINGS[reading](layer, shapes, sizes) for layer in LAYERS}


CLOSER = ("nodes after pooling",)  # what the first stage left


@dataclass(frozen=True)
class Size:
    """A learning rate, and in order a goal, widths, readings and how many seeds go on to it.

    Runs are cut off after four times the published median, in proportion to 1/eta.
    """

    eta: float
    stages: tuple[tuple[float, tuple[int, ...], tuple[str, ...], int], ...]


SIZES = {
    "quick": Size(0.5, ((0.4, (1,), ("channels",), 1),)),
    "full": Size(
        0.05,
        (
            (0.6, (2, 1, 4), tuple(READINGS), 3),
            (0.8, (2, 4), CLOSER, 3),
            (0.6, (1, 2, 4), CLOSER, 10),
            (0.8, (1,), CLOSER, 3),
            (0.8, (1, 2, 4), CLOSER, 10),
        ),
    ),
}


class Run(training_drift.Run):
    """A run by the drift of nodes, with other lengths of the steps of layers."""

    @cached_property
    def _elements(self) -> dict[str, float]:
        return counts(self.point.variant, self._circuit)


def planned(size: Size, options: study.Options, place: Place) -> Iterator[Planned]:
    """What is to be done, in order: a run, its goal, and the iterations after which it is cut off."""
    theirs = published_times()
    for goal, widths, names, seeds in size.stages:
        for d in widths:
            limit = round(4 * theirs["node", d, goal][1] * published.ETA / size.eta)
            for name in names:
                for seed in range(options.seed, options.seed + seeds):
                    yield Run(Point("node", d, size.eta, seed, variant=name), place), goal, limit


def collect(plan: Plan, size: Size, drift: xr.Dataset) -> xr.Dataset:
    """`iterations`, with those of `OF_DRIFT`; `relative`: over those of the same seed as described, where that has reached the
    goal, (reading, d, seed, goal). `wanted`: the same as would make our medians the published ones, with a 95 % interval,
    (d, goal, bound)."""
    ends = aims(plan)
    found = gathered({run.point: run for run, _, _ in plan}.values(), AXES, GOALS, {"aim": lambda run: ends[run.point]})
    own = found["iterations"].where(tried(found) & (found["goal"] <= found["aim"] + 1e-9))
    theirs = drift["iterations"].sel(rule=list(OF_DRIFT.values())).reindex(d=found["d"], goal=found["goal"])
    theirs = theirs.rename(rule="reading").assign_coords(reading=list(OF_DRIFT))
    every = xr.concat([theirs, own], "reading", join="outer")
    found = found.drop_vars("iterations").reindex_like(every).assign(iterations=every)
    found = found.sel(reading=[name for name in (PLAIN, *SHOWN) if name in found["reading"]])
    plain = found["iterations"].sel(reading=PLAIN, drop=True)
    found["relative"] = found["iterations"] / plain.where(np.isfinite(plain))
    bounds = [[wanted(drift, d, goal) for goal in found["goal"].values] for d in found["d"].values]
    found["wanted"] = (("d", "goal", "bound"), bounds)
    return found.assign_coords(bound=["low", "middle", "high"]).assign_attrs(eta=size.eta)


def wanted(drift: xr.Dataset, d: int, goal: float, draws: int = 4000) -> tuple[float, float, float]:
    """The published median over ours by the drift, with a 95 % interval: our seeds are drawn anew, the published ones from a
    log-normal with their quartiles. Our seeds that were cut off count with what they had done."""
    if d not in drift["d"]:
        return (np.nan,) * 3
    one, theirs = drift.sel(rule="node", d=d), published_times()["node", d, goal]
    scaled = one["scaled"].sel(goal=goal)
    ours = scaled.where(~np.isinf(scaled), one["done"] * drift.attrs["eta"] / published.ETA).dropna("seed").values
    if not len(ours):
        return (np.nan,) * 3
    rng, sigma = np.random.default_rng(0), np.log(theirs[2] / theirs[0]) / 1.349
    published_medians = theirs[1] * np.exp(sigma * np.median(rng.standard_normal((draws, published.SEEDS)), axis=1))
    drawn = published_medians / np.median(rng.choice(ours, (draws, len(ours))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return low, theirs[1] / np.median(ours), high


def panels(found: xr.Dataset) -> list[tuple[float, int, list[str]]]:
    """Goals and widths, and the readings by which runs have gone on to them, if those as described have reached them, too."""
    each = []
    for goal in found["goal"].values:
        for d in found["d"].values:
            tried_by = found["relative"].sel(d=d, goal=goal).notnull().any("seed") & (found["reading"] != PLAIN)
            if tried_by.any():
                each.append((goal, d, list(found["reading"].values[tried_by.values])))
    return each


def draw(found: xr.Dataset, path: Path) -> None:
    """Iterations over those of the same seed as described: a row for each reading, a panel for each width and goal."""
    each = panels(found)
    goals = sorted({goal for goal, *_ in each})[-2:]
    each = [(goals.index(goal), list(found["d"].values).index(d), names) for goal, d, names in each if goal in goals]
    shown = [[n for n in SHOWN if any(n in names for k, _, names in each if k == row)] for row in range(len(goals))]
    rows = [len(names) for names in shown]
    columns = found.sizes["d"]
    figure = Figure(figsize=(2.4 + 3.2 * columns, 1 + sum(1.2 + 0.24 * n for n in rows)), layout="constrained")
    grid = figure.subplots(
        max(1, len(rows)), columns, sharex=True, squeeze=False, height_ratios=[n + 2 for n in rows] or None
    )
    for axes in grid.flat:
        axes.set_visible(False)
    for row, column, names in each:
        goal, d = goals[row], found["d"].values[column]
        axes = grid[row, column]
        axes.set_visible(True)
        low, middle, high = found["wanted"].sel(d=d, goal=goal).values
        axes.axvspan(low, high, color="#c2571a", alpha=0.15, lw=0, label="published / ours, 95 %")
        axes.axvline(middle, color="#c2571a", lw=1)
        axes.axvline(1, color="#999999", lw=0.8, ls=":")
        for k, name in enumerate(shown[row]):
            if name not in names:
                continue
            values = found["relative"].sel(d=d, goal=goal, reading=name).dropna("seed").values
            finite = values[np.isfinite(values)]
            axes.plot(finite, np.full(len(finite), k), ".", color="#1f5fa8", alpha=0.5)
            if np.isfinite(middle := np.median(values)):
                axes.plot(middle, k, "o", color="#1f5fa8", ms=6)
            if len(finite) < len(values):
                axes.annotate(f"{len(values) - len(finite)} not reached", (11, k), fontsize=7, ha="right", va="center")
        axes.set(xscale="log", xlim=(0.2, 12), ylim=(rows[row] - 0.5, -0.5), title=f"d = {d}, to {goal:.0%}")
        first = column == min(c for k, c, _ in each if k == row)
        axes.set_yticks(range(rows[row]), shown[row] if first else [""] * rows[row], fontsize=8)
        axes.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
        axes.tick_params(labelbottom=True)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("iterations / as described, same seed")
    if each:
        grid[each[0][0], each[0][1]].legend(frameon=False, fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)


def table(found: xr.Dataset) -> Iterator[str]:
    """Medians and ranges of the iterations over those as described, what is wanted, and medians over the published ones."""
    for goal, d, names in panels(found):
        low, middle, high = found["wanted"].sel(d=d, goal=goal).values
        yield f"d = {d}, to {goal:.0%}; published over ours {middle:.2f} ({low:.2f} to {high:.2f})"
        for name in names:
            values = found["relative"].sel(d=d, goal=goal, reading=name).dropna("seed").values
            missing = f", {np.isinf(values).sum()} not reached" if np.isinf(values).any() else ""
            every = found["iterations"].sel(d=d, goal=goal, reading=name).dropna("seed").values
            ratio = np.median(every) * found.attrs["eta"] / published.ETA / published_times()["node", d, goal][1]
            yield (
                f"  {name}: {np.median(values):.2f} ({values.min():.2f} to {values.max():.2f}; {len(values)} seeds{missing}); "
                f"{ratio:.2f} of the published median"
            )


@study.command
def main(options: study.Options) -> None:
    """Train by the drift of node perturbation with other lengths of steps."""
    size, drift = SIZES[options.size], study.kept("training_drift", options)
    if drift is None or drift.attrs["eta"] != size.eta:
        raise RunError(f"there is no such study of the drift in {options.out}: run training_drift.py there before")
    network = circuit("backprop", 1, size.eta)
    SharedStudy(
        name="training_readings",
        spec=network.spec,
        circuits=[network],
        axes=AXES,
        point=lambda **values: Point("node", eta=size.eta, **values),
        planned=lambda place: planned(size, options, place),
        collect=lambda plan: collect(plan, size, drift),
        draw=draw,
        table=table,
        judged=1000 if options.size == "quick" else None,
        further={name: counts(name, network) for name in READINGS},
    ).go_on(options)


if __name__ == "__main__":
    sys.exit(cli.run(main))
