"""Whether another reading of the published network explains its training times: backpropagation, beside figure 4.

python experiments/training_hypotheses.py --quick --workers 1
python experiments/training_hypotheses.py --full --workers 1 --out experiments/results

At d = 1 training_time.py takes longer than arXiv 2501.15403, under every rule. Here backpropagation learns with the other
circuits, initial parameters and pixels of node_hypotheses.py, at the published learning rate. Runs are kept: after Ctrl-C what
is there is drawn, and the same command goes on. Given twice at the same time, two processes share the runs. `--workers`:
threads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import mgdcircuits as mgd
from common import published, study, training_time_run
from common.training_time_figure import bound, points
from common.training_time_plan import Plan, Planned, SharedStudy, gathered, tried
from common.training_time_run import RULES, Place, Point
from mgdcircuits import cli
from mgdcircuits.datasets import Dataset
from node_hypotheses import HYPOTHESES, TEXT, Hypothesis, draw_biases, finish
from training_time import published_times

GOALS = (0.2, 0.4)
AXES = {"hypothesis": "variant", "d": "d", "seed": "seed"}
PLAIN = "as described"
COLORS = {0.2: "#1f5fa8", 0.4: "#c2571a"}


def of_the_circuit() -> dict[str, Hypothesis]:
    """Those that change what is trained: not the reading of perturbation, nor which images are in a batch."""
    plain = Hypothesis()
    same = {
        name: h
        for name, h in HYPOTHESES.items()
        if (h.rule, h.images, h.batch) == (plain.rule, plain.images, plain.batch)
    }
    return {PLAIN: plain} | {name: hypothesis for name, hypothesis in same.items() if hypothesis != plain}


@dataclass(frozen=True)
class Size:
    """A learning rate, hypotheses, the goal at each width, and seeds.

    Runs are cut off after twice the published median, in proportion to 1/eta.
    """

    eta: float
    names: tuple[str, ...]
    goals: dict[int, float]
    seeds: int


SIZES = {
    "quick": Size(0.1, (PLAIN, "biases up to 0.5"), {1: 0.2}, 3),
    "full": Size(published.ETA, tuple(of_the_circuit()), {1: 0.2, 4: 0.4}, 3),
}


class Run(training_time_run.Run):
    """A run of another circuit, from other initial parameters, or on other pixels."""

    @property
    def _hypothesis(self) -> Hypothesis:
        return of_the_circuit()[self.point.variant]

    @property
    def _data(self) -> Dataset:
        return pixels(self.place, self._hypothesis.mean, self._hypothesis.deviation)

    def _new_session(self) -> mgd.Session:
        made = super()._new_session()
        if self._hypothesis.biases:
            draw_biases(made, self._hypothesis.biases, self.point.seed)
        return made

    @property
    def _circuit(self) -> mgd.Circuit:
        return circuit(self.point.variant, self.point.d)


def circuit(hypothesis: str, d: int) -> mgd.Circuit:
    """The network as it would be."""
    text = TEXT.format(
        netlist=(study.NETLISTS / RULES["backprop"]).resolve(), changes=of_the_circuit()[hypothesis].changes
    )
    return mgd.load(text, d=d, target_off=0.01)


@cache
def pixels(place: Place, mean: float, deviation: float) -> Dataset:
    """Fashion-MNIST less a mean, over a deviation."""
    data = place.samples[False]
    if (mean, deviation) == (0, 1):
        return data
    train, test = ((x * np.float32(data.scale) - mean) / deviation for x in (data.x_train, data.x_test))
    return mgd.datasets.from_arrays(
        train.astype(np.float32), data.y_train, test.astype(np.float32), data.y_test, scale=1.0
    )


def planned(options: study.Options, place: Place) -> Iterator[Planned]:
    """What is to be done, in order: a run, its goal, and the iterations after which it is cut off."""
    size, theirs = SIZES[options.size], published_times()
    for d, goal in size.goals.items():
        limit = round(2 * theirs["backprop", d, goal][1] * published.ETA / size.eta)
        for name in size.names:
            for seed in range(options.seed, options.seed + size.seeds):
                yield Run(Point("backprop", d, size.eta, seed, variant=name), place), goal, limit


def collected(plan: Plan, size: Size) -> xr.Dataset:
    """What there is: (hypothesis, d, seed, ...). `iterations` is infinite where a run was cut off before a goal, and missing
    where it did not try."""
    found = gathered([run for run, _, _ in plan], AXES, GOALS, {})
    goals = xr.DataArray([size.goals[d] for d in found["d"].values], dims="d")
    meant = tried(found) & (found["goal"] <= goals + 1e-9)
    found["iterations"] = found["iterations"].where(meant)
    theirs = published_times()
    found["published"] = (
        ("d", "goal", "quartile"),
        np.array([[theirs["backprop", d, goal] for goal in GOALS] for d in found["d"].values]),
    )
    names = [name for name in size.names if name in found["hypothesis"]]
    return found.sel(hypothesis=names).assign_coords(quartile=[0.25, 0.5, 0.75]).assign_attrs(eta=size.eta)


def panels(found: xr.Dataset) -> list[tuple[int, float]]:
    """Widths and goals that any run has tried."""
    every = [(d, goal) for d in found["d"].values for goal in found["goal"].values]
    return [(d, goal) for d, goal in every if found["iterations"].sel(d=d, goal=goal).notnull().any()]


def draw(found: xr.Dataset, path: Path) -> None:
    """Iterations over the published median: a row for each hypothesis, a panel for each width and goal."""
    names, shown = list(found["hypothesis"].values), panels(found)
    figure = Figure(figsize=(2.4 + 3.2 * len(shown), 1.4 + 0.36 * len(names)), layout="constrained")
    for axes, (d, goal) in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        one = found.sel(d=d, goal=goal)
        low, middle, high = one["published"].values * published.ETA / found.attrs["eta"]
        axes.axvspan(low / middle, high / middle, color="#999999", alpha=0.2, lw=0, label="published quartiles")
        for row, name in enumerate(names):
            each = one.sel(hypothesis=name)
            points(axes, row, each["iterations"].values, each["done"].values, COLORS[goal], middle, across=True)
        finish(axes, f"d = {d}, to {goal:.0%}", "iterations / published median")
    first = figure.axes[0]
    first.set_yticks(range(len(names)), names, fontsize=8)
    first.invert_yaxis()
    first.plot([], [], "k.", alpha=0.5, label="a seed")
    first.plot([], [], "ko", ms=7, label="median")
    first.plot([], [], "k>", mfc="none", label="cut off there (small: a seed, large: the median)")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def table(found: xr.Dataset) -> Iterator[str]:
    """Medians, whether they are known, and all seeds."""
    for d, goal in panels(found):
        one = found.sel(d=d, goal=goal)
        middle = float(one["published"].sel(quartile=0.5)) * published.ETA / found.attrs["eta"]
        yield f"d = {d}, to {goal:.0%}; published median {middle:,.0f}"
        for name in found["hypothesis"].values:
            values, done = (one.sel(hypothesis=name)[key].values for key in ("iterations", "done"))
            if np.isnan(values).all():
                continue
            median, known = bound(values, done)
            words = [
                f"{v:,.0f}" if np.isfinite(v) else f"> {n:,.0f}" for v, n in zip(values, done, strict=True) if v == v
            ]
            yield f"  {name}: {'' if known else '> '}{median / middle:.2f} of it; {', '.join(words)}"


@study.command
def main(options: study.Options) -> None:
    """Train with other readings of the published network, and compare with its training times."""
    size = SIZES[options.size]
    SharedStudy(
        name="training_hypotheses",
        spec=circuit(PLAIN, 1).spec,
        circuits=[circuit(name, 1) for name in size.names],
        axes=AXES,
        point=lambda **values: Point("backprop", eta=size.eta, **values),
        planned=lambda place: planned(options, place),
        collect=lambda plan: collected(plan, size),
        draw=draw,
        table=table,
        judged=1000,
        further=[size.eta, *(of_the_circuit()[name].numbers() for name in size.names)],
    ).go_on(options)


if __name__ == "__main__":
    sys.exit(cli.run(main))
