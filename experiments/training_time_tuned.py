"""Iterations to an accuracy on Fashion-MNIST at tuned learning rates, by backpropagation and by perturbation.

python experiments/training_time_tuned.py --quick --workers 1
python experiments/training_time_tuned.py --full --workers 1 --out experiments/results

The learning rate is tuned with equal effort for all rules at each width. Runs are kept, and shared by processes, as in
training_time.py. `--workers`: threads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from common import study
from common.node_or_weight import NODE_OR_WEIGHT
from common.training_time_figure import at_best, bound, draw_tuned, ratio
from common.training_time_plan import Plan, Planned, SharedStudy, furthest, gathered
from common.training_time_run import RULES, Place, Point, Run, circuit, next_row
from mgdcircuits import cli
from training_time import with_published

TUNING_SEED = 1000  # the first seed of tuning is so many beyond the first of the runs that are reported
WAIT = 0.1
"""Seconds, for another process."""
AXES = {"rule": "rule", "d": "d", "eta": "eta", "seed": "seed", "tuning": "tuning"}


@dataclass(frozen=True)
class Tuned:
    """Runs to a goal at the best of some learning rates; for each width the iterations after which tuning is given up.

    All rates run side by side on the tuning seeds, row by row, until for one of them all seeds have reached the goal on
    validation samples: it is the best; of several that which its seeds reach it with sooner on average. (If half of the
    seeds were enough, rates would be chosen at which the other half is lost.) Other seeds then run at the best rate, judged
    on the test samples, and are cut off after ten times the iterations of tuning.
    """

    goal: float
    rates: tuple[float, ...]
    tuning_seeds: int
    seeds: int
    most: dict[int, int]
    rules: tuple[str, ...] = tuple(RULES)


TUNED = {
    "quick": Tuned(0.2, (0.05, 0.2), 1, 2, {1: 1_000}),
    "full": Tuned(
        0.6,
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2),
        5,
        5,
        {1: 40_000, 2: 10_000, 4: 5_000, 8: 3_000},
        (*RULES, NODE_OR_WEIGHT),
    ),
}


def tuning(tuned: Tuned, rule: str, d: int, options: study.Options, place: Place) -> Iterator[Planned]:
    """What is to be done to tune a learning rate: a row of all rates after another. Its value is `best` of them.

    It waits for runs that another process is at work on, and ends with None where none goes on.
    """
    first = options.seed + TUNING_SEED
    seeds = range(first, first + tuned.tuning_seeds)
    runs = {eta: [Run(Point(rule, d, eta, seed, tuning=True), place) for seed in seeds] for eta in tuned.rates}
    row, n = [run for each in runs.values() for run in each], 0
    while n < tuned.most[d] and best(tuned, runs, n) is None:
        n = min(next_row(n), tuned.most[d])
        for run in row:
            yield run, tuned.goal, n
        while waiting := [run for run in row if run.busy]:
            time.sleep(WAIT)
            for run in waiting:
                yield run, tuned.goal, n
        if not all(run.found.complete(tuned.goal, n) for run in row):
            return None
    return best(tuned, runs, n)


def best(tuned: Tuned, runs: dict[float, list[Run]], n: int) -> tuple[float, int] | None:
    """The learning rate whose last seed is the first at the goal, within n iterations, and when; None: there is none."""
    there = {eta: [run.found.reached(tuned.goal) for run in each] for eta, each in runs.items()}
    eta = min(there, key=lambda eta: (max(there[eta]), np.mean(there[eta])))
    return (eta, round(max(there[eta]))) if max(there[eta]) <= n else None


def planned(options: study.Options, place: Place) -> Iterator[Planned]:
    """What is to be done, in order: a run, its goal, and the iterations after which it is cut off."""
    tuned = TUNED[options.size]
    for d in tuned.most:
        for rule in tuned.rules:
            found = yield from tuning(tuned, rule, d, options, place)
            if found is not None:
                eta, n = found
                for seed in range(options.seed, options.seed + tuned.seeds):
                    yield Run(Point(rule, d, eta, seed), place), tuned.goal, 10 * n


def collect(plan: Plan, tuned: Tuned) -> xr.Dataset:
    """What there is: (rule, d, eta, seed, tuning, goal), and the published quartiles.

    `iterations` is infinite where a run was cut off, and missing where it has not come so far yet.
    """
    limits = {run.point: limit for run, _, limit in plan}
    found = gathered([run for run, _, _ in plan], AXES, (tuned.goal,), {"limit": lambda run: limits[run.point]})
    found["iterations"] = found["iterations"].where(
        np.isfinite(found["iterations"]) | (found["done"] >= found["limit"])
    )
    found = found.drop_vars("limit")
    found["n_parameters"] = ("d", [circuit("weight", d, 1.0).n_parameters for d in found["d"].values])
    return with_published(found)


def scaling(found: xr.Dataset) -> Iterator[str]:
    """Iterations at tuned learning rates, their exponents over N, and their ratios to those of backpropagation."""
    tried, found, goal = found["eta"].values, at_best(found), found["goal"].item()
    for rule in found["rule"].values:
        one = found.sel(rule=rule, goal=goal)
        values = one["iterations"].transpose("d", "seed").values
        for k, d in enumerate(found["d"].values):
            if np.isnan(values[k]).all():
                yield f"{rule}, d = {d}: nothing at a best learning rate"
                continue
            (middle, known), (times, low, high) = bound(values[k], one["done"].values[k]), ratio(found, rule, d)
            more = "" if known else "> "
            against = f"; {times:.1f} ({low:.1f} to {high:.1f}) times backprop" if rule != "backprop" else ""
            eta, seeds, cut = one["eta"].values[k], np.isfinite(values[k]), np.isinf(values[k]).sum()
            spread = f"{values[k][seeds].min():,.0f} to {values[k][seeds].max():,.0f}" if seeds.any() else "none there"
            edge = " (an end of the list)" if eta in (tried[0], tried[-1]) else ""
            yield (
                f"{rule}, d = {d}, eta = {eta:g}{edge}: {more}{middle:,.0f} iterations to {goal:.0%} "
                f"({seeds.sum()} seeds: {spread}; {cut} cut off){against}"
            )
        slope, low, high = study.exponent(found["n_parameters"].values.astype(float), values)
        if np.isfinite(slope):
            yield f"{rule}: exponent of N {slope:.2f} ({low:.2f} to {high:.2f})"


@study.command
def main(options: study.Options) -> None:
    """Measure iterations to an accuracy at tuned learning rates."""
    tuned = TUNED[options.size]
    SharedStudy(
        name="training_time_tuned",
        spec=circuit("weight", 1, 1.0).spec,
        circuits=[circuit(rule, 1, 1.0) for rule in tuned.rules],
        axes=AXES,
        point=Point,
        planned=lambda place: planned(options, place),
        collect=lambda plan: collect(furthest(plan), tuned),
        draw=draw_tuned,
        table=scaling,
        judged=1000 if options.size == "quick" else None,
    ).go_on(options)


if __name__ == "__main__":
    sys.exit(cli.run(main))
