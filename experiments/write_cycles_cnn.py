"""Updates and iterations against tau_theta for the convolutional network of figure 5 of arXiv 2501.15403, at smaller widths.

python experiments/write_cycles_cnn.py --quick --workers 1
python experiments/write_cycles_cnn.py --full --workers 1 --out experiments/results

The published settings: weight perturbation layer by layer, batches of 100, tau_x = tau_theta, steps of normalised length. The
published eta is 0.01; here there are larger ones, fixed or raised with tau_theta, because times go nearly as 1/eta. Runs are
kept: after Ctrl-C what is there is drawn, and the same command goes on. Given twice at the same time, two processes share the
runs. `--workers`: threads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import xarray as xr

import mgdcircuits as mgd
from common import published, study, training_time_run
from common.training_time_plan import Plan, Planned, SharedStudy, furthest, gathered, tried
from common.training_time_run import RULES, Place
from common.write_cycles_cnn_figure import draw, table
from mgdcircuits import cli

GOALS = (0.2, 0.4, 0.6, 0.8)
AXES = {"d": "d", "eta": "eta", "tau_theta": "window", "seed": "seed"}


@dataclass(frozen=True)
class Stage:
    """Runs of one width at one learning rate, at some tau_theta with one seed (so many after the first), go on to a goal."""

    d: int
    eta: float
    windows: tuple[int, ...]
    goal: float = 0.8
    seed: int = 0


@dataclass(frozen=True)
class Size:
    """What is run, in order. Runs are cut off after `most` times the published iterations to 80 %, in proportion to 1/eta."""

    stages: tuple[Stage, ...]
    most: float


SIZES = {
    "quick": Size((Stage(1, 0.2, (1,), 0.4), Stage(1, 0.4, (1, 10), 0.4)), most=1),
    "full": Size(
        (
            Stage(4, 0.1, (10,)), Stage(4, 0.03, (1,)), Stage(4, 0.3, (100,)),
            Stage(4, 0.1, (1, 3, 30, 100, 300), 0.6), Stage(8, 0.1, (1, 3, 10), 0.6),
            Stage(4, 0.1, (1, 3, 10), 0.6, seed=1), Stage(8, 0.1, (30,), 0.6), Stage(4, 1, (1000,), 0.6), Stage(4, 0.1, (1,)),
            Stage(8, 0.1, (100,), 0.6), Stage(4, 0.1, (30, 100), 0.6, seed=1), Stage(4, 0.3, (10,)), Stage(4, 1, (100,)),
            Stage(4, 0.3, (30,)), Stage(4, 0.1, (300,), 0.6, seed=1),
            Stage(4, 0.03, (3, 10, 30)), Stage(8, 0.03, (1,)),
            Stage(4, 0.3, (300,)), Stage(4, 0.1, (30,)), Stage(4, 0.3, (1000, 2000)), Stage(8, 0.1, (10, 30)),
            Stage(8, 0.1, (100,)), Stage(4, 0.03, (1, 3, 10), seed=1), Stage(8, 0.03, (3, 10)),
            Stage(4, 0.3, (100, 300), seed=1), Stage(4, 0.1, (10, 30), seed=1), Stage(8, 0.03, (1,), seed=1),
            Stage(8, 0.1, (10, 30), seed=1), Stage(8, 0.3, (300,)), Stage(8, 0.03, (3, 10), seed=1),
            Stage(8, 0.1, (100,), seed=1), Stage(4, 0.1, (100,), seed=1), Stage(4, 0.1, (100, 300)),
            Stage(4, 1, (1000, 2000)), Stage(4, 0.1, (1000,), 0.6), Stage(4, 0.3, (1000, 2000), seed=1),
            Stage(4, 0.03, (100,)), Stage(4, 0.03, (30, 100), seed=1), Stage(8, 0.03, (30, 100)),
        ),
        most=3,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Point(training_time_run.Point):
    """What distinguishes a run. `window`: tau_theta and tau_x, in iterations."""

    window: int = 1

    def __str__(self) -> str:
        return f"{super().__str__()}_tau{self.window}"


class Run(training_time_run.Run):
    """A run whose rows are whole windows; so it may go one row beyond its limit."""

    point: Point

    def _next_row(self, limit: int) -> int:
        return next_row(self._own.iteration, self.point.window)

    @property
    def _circuit(self) -> mgd.Circuit:
        return circuit(self.point)


def circuit(point: Point) -> mgd.Circuit:
    """The published network and settings, but for eta."""
    clock = f"{point.window}*iteration"
    return mgd.load(study.NETLISTS / RULES["weight"], d=point.d, eta=point.eta, tau_x=clock, tau_theta=clock)


def next_row(iteration: int, window: int) -> int:
    """Where the accuracy is measured next: a tenth later, at least 20 and at most 1,000 iterations, in whole windows."""
    return iteration + window * max(1, round(min(max(20, iteration / 10), 1000) / window))


def planned(options: study.Options, place: Place) -> Iterator[Planned]:
    """What is to be done, in order: a run, its goal, and the iterations after which it is cut off."""
    size = SIZES[options.size]
    theirs = {tau: iterations for tau, _, iterations in published.writes(0.8)}
    for stage in size.stages:
        for window in stage.windows:
            point = Point("weight", stage.d, stage.eta, options.seed + stage.seed, window=window)
            yield Run(point, place), stage.goal, round(size.most * theirs[window] * 0.01 / stage.eta)


def collected(plan: Plan) -> xr.Dataset:
    """What there is: (d, eta, tau_theta, seed, goal).

    `iterations` is infinite where a run has not reached a goal in the iterations that it has `done`, and missing where it has
    not tried. A run is cut off at its `limit`; where it has not `done` so many, it was stopped before.
    """
    limits = {run.point: limit for run, _, limit in plan}
    dataset = gathered([run for run, _, _ in plan], AXES, GOALS, {"limit": lambda run: limits[run.point]})
    dataset["iterations"] = dataset["iterations"].where(tried(dataset))
    dataset["updates"] = dataset["iterations"] / dataset["tau_theta"]
    return dataset


@study.command
def main(options: study.Options) -> None:
    """Measure updates and iterations to an accuracy against tau_theta, and draw them beside the published ones."""
    network = circuit(Point("weight", 4, 0.01, 1))
    SharedStudy(
        name="write_cycles_cnn",
        spec=network.spec,
        circuits=[network],
        axes=AXES,
        point=lambda **values: Point("weight", **values),
        planned=lambda place: planned(options, place),
        collect=lambda plan: collected(furthest(plan)),
        draw=draw,
        table=table,
        judged=500 if options.size == "quick" else None,
    ).go_on(options)


if __name__ == "__main__":
    sys.exit(cli.run(main))
