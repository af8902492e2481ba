"""Iterations to an accuracy on Fashion-MNIST at tuned learning rates, by backpropagation and by perturbation.

python experiments/training_time_tuned.py --quick --workers 1
python experiments/training_time_tuned.py --full --workers 1 --out experiments/results

The learning rate is tuned with equal effort for all rules at each width. Runs are kept: after Ctrl-C what is there
is drawn, and the same command goes on. `--workers`: threads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import xarray as xr
from filelock import FileLock, Timeout

from common import study
from common.node_or_weight import NODE_OR_WEIGHT
from common.training_time_figure import bound, draw_tuned, ratio
from common.training_time_plan import tidy, work_through
from common.training_time_run import RULES, Place, Point, Run, circuit, next_row
from mgdcircuits import cli
from mgdcircuits.errors import RunError
from training_time import PUBLISHED_ETA, collected, with_published

TUNING_SEED = 1000  # the first seed of tuning is so many beyond the first of the runs that are reported


@dataclass(frozen=True)
class Tuned:
    """Runs to a goal at the best of some learning rates; for each width the iterations after which tuning is given up.

    All rates run side by side on the tuning seeds, until for one of them all seeds have reached the goal on validation samples:
    it is the best. Once all seeds of a rate are two thirds there, rates at which no seed is a third there are given up. Other
    seeds then run at the best rate, judged on the test samples, and are cut off after ten times the iterations of tuning.
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
        (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2),
        2,
        5,
        {1: 20_000, 2: 10_000, 4: 5_000, 8: 3_000},
        (*RULES, NODE_OR_WEIGHT),
    ),
}


def candidates(tuned: Tuned, rule: str, d: int, options: study.Options, place: Place) -> dict[float, list[Run]]:
    """The runs of tuning at each learning rate."""
    first = options.seed + TUNING_SEED
    seeds = range(first, first + tuned.tuning_seeds)
    return {eta: [Run(Point(rule, d, eta, seed, tuning=True), place) for seed in seeds] for eta in tuned.rates}


def best(tuned: Tuned, runs: dict[float, list[Run]], limit: int) -> tuple[float, float] | None:
    """The learning rate at which the last of the seeds reaches the goal first, and when; None where none does in time."""
    last = {eta: max(run.found.reached(tuned.goal) for run in each) for eta, each in runs.items()}
    eta = min(last, key=last.get)
    return (eta, last[eta]) if last[eta] <= limit else None


def tune(tuned: Tuned, d: int, runs: dict[float, list[Run]]) -> tuple[float, float] | None:
    """Let the candidates run side by side until one of them is the best, or time is up."""
    n, left = 0, runs
    while n < tuned.most[d] and best(tuned, runs, n) is None:
        n = min(next_row(n), tuned.most[d])
        for each in left.values():
            for run in each:
                run.advance(tuned.goal, n)
        accuracies = {eta: [run.found.accuracy(n) for run in each] for eta, each in left.items()}
        if any(min(row) >= tuned.goal * 2 / 3 for row in accuracies.values()):
            left = {eta: left[eta] for eta, row in accuracies.items() if max(row) >= tuned.goal / 3}
    return best(tuned, runs, n)


def tuned_runs(tuned: Tuned, rule: str, d: int, eta: float, options: study.Options, place: Place) -> list[Run]:
    """The runs that are reported."""
    seeds = range(options.seed, options.seed + tuned.seeds)
    return [Run(Point(rule, d, eta, seed), place) for seed in seeds]


def planned(options: study.Options, place: Place) -> Iterator[tuple[Run, float, int]]:
    """What is to be done once a learning rate is tuned: a run, its goal, and the iterations after which it is cut off."""
    tuned = TUNED[options.size]
    for d in tuned.most:
        for rule in tuned.rules:
            found = tune(tuned, d, candidates(tuned, rule, d, options, place))
            if found is None:
                print(
                    f"{rule}, d = {d}: no learning rate reaches {tuned.goal:.0%} in {tuned.most[d]:,} iterations",
                    flush=True,
                )
                continue
            eta, n = found
            print(f"{rule}, d = {d}: tuned eta = {eta}, {n:,.0f} iterations", flush=True)
            for run in tuned_runs(tuned, rule, d, eta, options, place):
                yield run, tuned.goal, 10 * round(n)


def collect(options: study.Options, place: Place) -> xr.Dataset | None:
    """Runs at the tuned learning rates, if there are any, and how far those of tuning came: (rule, d, rate, tuning_seed)."""
    tuned, runs, tuning = TUNED[options.size], [], {}
    for d in tuned.most:
        for rule in tuned.rules:
            tried = candidates(tuned, rule, d, options, place)
            if result := best(tuned, tried, tuned.most[d]):
                runs += tuned_runs(tuned, rule, d, result[0], options, place)
                tuning[rule, d] = [
                    [(rows.iteration, rows.each[-1][1], rows.seconds) for rows in (run.found for run in each)]
                    for each in tried.values()
                ]
    runs = [run for run in runs if run.found.each]
    if not runs:
        return None
    found = with_published(collected(runs, {run.point: tuned.goal for run in runs}, (tuned.goal,)))
    missing = np.full((len(tuned.rates), tuned.tuning_seeds, 3), np.nan)
    each = [[tuning.get((rule, d), missing) for d in found["d"].values] for rule in found["rule"].values]
    for k, name in enumerate(("done", "accuracy", "seconds")):
        found[f"tuning_{name}"] = (("rule", "d", "rate", "tuning_seed"), np.array(each)[..., k])
    return found.assign_coords(rate=list(tuned.rates))


def scaling(found: xr.Dataset) -> Iterator[str]:
    """Iterations at tuned learning rates, their exponents over N, and their ratios to those of backpropagation."""
    goal = found["goal"].item()
    for rule in found["rule"].values:
        one = found.sel(rule=rule, goal=goal)
        values = one["iterations"].transpose("d", "seed").values
        for k, d in enumerate(found["d"].values):
            if np.isnan(values[k]).all():
                continue
            (middle, known), (times, low, high) = bound(values[k], one["done"].values[k]), ratio(found, rule, d)
            more = "" if known else "> "
            against = f"; {times:.1f} ({low:.1f} to {high:.1f}) times backprop" if rule != "backprop" else ""
            eta = np.nanmax(one["eta"].values[k])
            yield f"{rule}, d = {d}, eta = {eta:g}: {more}{middle:,.0f} iterations to {goal:.0%}{against}"
        slope, low, high = study.exponent(found["n_parameters"].values.astype(float), values)
        if np.isfinite(slope):
            yield f"{rule}: exponent of N {slope:.2f} ({low:.2f} to {high:.2f})"


@contextmanager
def alone(place: Place) -> Iterator[None]:
    """For a study whose runs are not shared.

    Raises
    ------
    RunError
        Another process is at work on it.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place.folder / "study.lock", timeout=0):
            yield
    except Timeout:
        raise RunError(
            f"{place.folder}: another process is at work on this study; wait, or give another --out"
        ) from None


@study.command
def main(options: study.Options) -> None:
    """Measure iterations to an accuracy at tuned learning rates."""
    folder = options.out / f"training_time_tuned{options.suffix}.parts"
    place = Place(folder, options.workers, 1000 if options.size == "quick" else None)
    with alone(place):
        state = work_through(planned(options, place))
        if (found := collect(options, place)) is not None:
            facts = {"processor_seconds": float(found["processor_seconds"].sum()), "state": state}
            spec = circuit("weight", 1, PUBLISHED_ETA).spec
            path = study.keep(found.assign_attrs(facts), "training_time_tuned", spec, options)
            draw_tuned(found, path.with_suffix(".png"))
            print("\n".join(scaling(found)))
        tidy(place, state)


if __name__ == "__main__":
    sys.exit(cli.run(main))
