"""Are the published training times those of the drift alone? The rules of training_time.py, without their noise.

python experiments/training_drift.py --quick --workers 1
python experiments/training_drift.py --full --workers 1 --out experiments/results

A step of normalised length is -eta*G/sqrt(K) for tau_theta = 1 and K perturbed elements of a layer. The mean of G is the
gradient, and over many more than K iterations its noise averages out. Here each layer takes steps of -eta*gradient/sqrt(K) by
the exact gradient, with a larger eta; backpropagation, which has no noise, is there to compare with. Runs are kept, and
shared by processes, as in training_time.py. `--workers`: threads.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import mgdcircuits as mgd
from common import node_or_weight, published, study, training_time_run
from common.node_or_weight import NODE_OR_WEIGHT
from common.training_time_figure import COLORS, LABELS, bound
from common.training_time_plan import Plan, Planned, SharedStudy
from common.training_time_run import Place, Point, circuit
from mgdcircuits import cli
from training_time import AXES, GOALS, aims, collected, published_times, with_published

PERTURBED = {
    "backprop": lambda n_nodes, n_parameters: 1,
    "node": lambda n_nodes, n_parameters: n_nodes,
    NODE_OR_WEIGHT: min,
    "weight": lambda n_nodes, n_parameters: n_parameters,
}
"""How many elements of a layer each rule perturbs; steps of backpropagation are not shortened."""
MARKERS = {1: "o", 2: "s", 4: "^"}


@dataclass(frozen=True)
class Size:
    """A learning rate, and in order a goal, widths and how many seeds go on to it. Runs are cut off as in training_time.py."""

    eta: float
    stages: tuple[tuple[float, tuple[int, ...], int], ...]


SIZES = {
    "quick": Size(0.5, ((0.4, (1,), 1),)),
    "full": Size(0.05, ((0.8, (1, 2, 4), 10),)),
}


class Run(training_time_run.Run):
    """A run of a rule whose estimate is exact."""

    _exact = True

    @property
    def _circuit(self) -> mgd.Circuit:
        return circuit("backprop", self.point.d, self.point.eta)

    @cached_property
    def _elements(self) -> dict[str, int]:
        """How many elements of each layer are perturbed."""
        perturbed = PERTURBED[self.point.rule]
        return {layer: perturbed(*numbers) for layer, numbers in node_or_weight.counts(self.point.d).items()}

    def _eta(self, parameter: str) -> float:
        return self.point.eta / math.sqrt(self._elements[parameter.split(".")[0]])


def planned(size: Size, options: study.Options, place: Place) -> Iterator[Planned]:
    """What is to be done, in order: a run, its goal, and the iterations after which it is cut off."""
    theirs = published_times()
    for goal, widths, seeds in size.stages:
        for rule, d, seed in itertools.product(PERTURBED, widths, range(options.seed, options.seed + seeds)):
            limit = round(2 * theirs[rule, d, goal][1] * published.ETA / size.eta)
            yield Run(Point(rule, d, size.eta, seed), place), goal, limit


def collect(plan: Plan, eta: float) -> xr.Dataset:
    """Iterations times eta over the published eta: (rule, d, seed, goal)."""
    runs = {run.point: run for run, _, _ in plan}
    found = with_published(collected(list(runs.values()), aims(plan), GOALS))
    found["scaled"] = found["iterations"] * eta / published.ETA
    return found.assign_attrs(eta=eta)


def pairs(found: xr.Dataset, measured: xr.Dataset | None, rule: str, d: int) -> np.ndarray:
    """Iterations by the drift and measured, for runs that reached a goal both ways: (pair, 2)."""
    if measured is None or rule not in measured["rule"] or d not in measured["d"]:
        return np.empty((0, 2))
    both = xr.align(found["scaled"].sel(rule=rule, d=d), measured["iterations"].sel(rule=rule, d=d))
    each = np.stack([one.transpose("seed", "goal").values.ravel() for one in both], axis=1)
    return each[np.isfinite(each).all(1)]


def compared(found: xr.Dataset, measured: xr.Dataset | None) -> Iterator[str]:
    """Medians beside the published ones, and measured iterations of the same seeds over those of the drift."""
    for rule in found["rule"].values:
        for d in found["d"].values:
            for goal in found["goal"].values:
                one = found.sel(rule=rule, d=d, goal=goal)
                if one["scaled"].isnull().all():
                    continue
                middle, known = bound(one["scaled"].values, one["done"].values * found.attrs["eta"] / published.ETA)
                quartiles, more = one["published"].values, "" if known else "> "
                yield (
                    f"{rule}, d = {d}, {goal:.0%}: {more}{middle:,.0f} by the drift ({one['scaled'].count().item()} seeds); "
                    f"published {' '.join(f'{q:,.0f}' for q in quartiles)}: {more}{middle / quartiles[1]:.2f} of it"
                )
            each = pairs(found, measured, rule, d)
            if len(each):
                logs = np.log(each[:, 1] / each[:, 0])
                yield (
                    f"{rule}, d = {d}: measured over drift {np.exp(np.median(logs)):.2f} (median of {len(each)}, half of them "
                    f"{np.exp(np.percentile(logs, 25)):.2f} to {np.exp(np.percentile(logs, 75)):.2f})"
                )


def draw(found: xr.Dataset, measured: xr.Dataset | None, path: Path) -> None:
    """Measured iterations against those of the drift, seed by seed; and medians of the drift over the published ones."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for rule in found["rule"].values:
        for d in found["d"].values:
            each, label = pairs(found, measured, rule, d), f"{LABELS.get(rule, rule)}, d = {d}"
            left.loglog(*each.T, MARKERS.get(d, "x"), color=COLORS[rule], ms=5, alpha=0.7, label=label)
            one = found.sel(rule=rule, d=d)
            done = one["done"].values * found.attrs["eta"] / published.ETA
            medians = [bound(one["scaled"].sel(goal=goal).values, done)[0] for goal in found["goal"].values]
            right.plot(
                found["goal"],
                medians / one["published"].sel(quartile=0.5),
                MARKERS.get(d, "x") + "-",
                color=COLORS[rule],
            )
    limits = [1e3, 4e6]
    left.loglog(limits, limits, ":", color="#999999")
    left.set(
        xlabel=r"iterations by the drift, times $\eta$/0.001", ylabel="measured iterations", title="the same seeds"
    )
    right.axhspan(0.75, 1.25, color="#cccccc", alpha=0.5, lw=0, label="published median ± 25 %")
    right.set(xlabel="test accuracy", ylabel="median by the drift / published median", yscale="log")
    right.set_xticks(found["goal"].values, [f"{goal:.0%}" for goal in found["goal"].values])
    right.set_yticks([0.5, 0.75, 1, 1.5, 2, 3], ["0.5", "0.75", "1", "1.5", "2", "3"])
    right.minorticks_off()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


@study.command
def main(options: study.Options) -> None:
    """Train with the mean of the estimates of nodes and weights, and by backpropagation."""
    size = SIZES[options.size]
    SharedStudy(
        name="training_drift",
        spec=circuit("backprop", 1, size.eta).spec,
        circuits=[circuit("backprop", 1, size.eta)],
        axes=AXES,
        point=lambda **values: Point(eta=size.eta, **values),
        planned=lambda place: planned(size, options, place),
        collect=lambda plan: collect(plan, size.eta),
        draw=lambda found, path: draw(found, study.kept("training_time", options), path),
        table=lambda found: compared(found, study.kept("training_time", options)),
        judged=1000 if options.size == "quick" else None,
    ).go_on(options)


if __name__ == "__main__":
    sys.exit(cli.run(main))
