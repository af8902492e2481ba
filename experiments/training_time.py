"""Iterations to an accuracy on Fashion-MNIST: backpropagation, node and weight perturbation; figure 4 of arXiv 2501.15403.

python experiments/training_time.py --quick --workers 1
python experiments/training_time.py --full --workers 1 --out experiments/results

At learning rates that are tuned with equal effort for all three rules; and at the published one, beside the published medians.
Runs are kept: after Ctrl-C what is there is drawn, and the same command goes on. `--workers`: threads; seeds run one after
another, because with a batch of 100 they are slower as members of one session (docs/sweeps.md).
"""

from __future__ import annotations

import csv
import itertools
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import study
import xarray as xr
from training_time_figure import bound, draw_fixed, draw_tuned, ratio
from training_time_run import RULES, Place, Point, Run, circuit, gathered, next_row, state_after, tell, tried

from mgdcircuits import cli

PUBLISHED_ETA = 1e-3
GOALS = (0.2, 0.4, 0.6, 0.8)
TUNING_SEED = 1000  # the first seed of tuning is so many beyond the first of the runs that are reported


@dataclass(frozen=True)
class Stage:
    """Runs of some rules and widths, with some seeds, go on to a goal."""

    goal: float
    rules: tuple[str, ...]
    widths: tuple[int, ...]
    seeds: int = 3


@dataclass(frozen=True)
class Fixed:
    """Runs at one learning rate; they are cut off at twice the published median, in proportion to 1/eta."""

    eta: float
    stages: tuple[Stage, ...]


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


FIXED = {
    "quick": Fixed(0.1, (Stage(0.2, tuple(RULES), (1,), 1),)),
    "full": Fixed(
        PUBLISHED_ETA,
        (
            Stage(0.2, tuple(RULES), (1, 2, 4)),
            Stage(0.2, ("backprop",), (1, 2, 4), 10),
            Stage(0.4, ("backprop",), (1, 2, 4)),
            Stage(0.4, ("node", "weight"), (1, 2, 4)),
            Stage(0.6, ("backprop",), (1, 2, 4)),
            Stage(0.6, ("node", "weight"), (2, 4)),
            Stage(0.8, ("backprop",), (4, 2)),
            Stage(0.6, ("node", "weight"), (1,)),
            Stage(0.8, ("node",), (4, 2)),
            Stage(0.8, ("weight",), (2,)),
            Stage(0.8, ("backprop",), (1,)),
            Stage(0.8, ("weight",), (4,)),
            Stage(0.8, ("node", "weight"), (1,)),
        ),
    ),
}
TUNED = {
    "quick": Tuned(0.2, (0.05, 0.2), 1, 2, {1: 1_000}),
    "full": Tuned(0.6, (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2), 2, 5, {1: 20_000, 2: 10_000, 4: 5_000, 8: 3_000}),
}


def fixed_runs(fixed: Fixed, options: study.Options, place: Place) -> Iterator[tuple[Run, float, int]]:
    """What is to be done, in order: a run, its goal, and the iterations after which it is cut off."""
    medians = {key: quartiles[1] for key, quartiles in published().items()}
    for stage in fixed.stages:
        for d in stage.widths:
            for rule in stage.rules:
                limit = round(2 * medians[rule, d, stage.goal] * PUBLISHED_ETA / fixed.eta)
                for seed in range(options.seed, options.seed + stage.seeds):
                    yield Run(Point(rule, d, fixed.eta, seed), place), stage.goal, limit


def candidates(tuned: Tuned, rule: str, d: int, options: study.Options, place: Place) -> dict[float, list[Run]]:
    """The runs of tuning at each learning rate."""
    first = options.seed + TUNING_SEED
    seeds = range(first, first + tuned.tuning_seeds)
    return {eta: [Run(Point(rule, d, eta, seed, tuning=True), place) for seed in seeds] for eta in tuned.rates}


def best(tuned: Tuned, runs: dict[float, list[Run]], limit: int) -> tuple[float, float] | None:
    """The learning rate at which the last of the seeds reaches the goal first, and when; None where none does in time."""
    last = {eta: max(run.reached(tuned.goal) for run in each) for eta, each in runs.items()}
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
        accuracies = {eta: [run.accuracy(n) for run in each] for eta, each in left.items()}
        if any(min(row) >= tuned.goal * 2 / 3 for row in accuracies.values()):
            left = {eta: left[eta] for eta, row in accuracies.items() if max(row) >= tuned.goal / 3}
    return best(tuned, runs, n)


def tuned_runs(tuned: Tuned, rule: str, d: int, eta: float, options: study.Options, place: Place) -> list[Run]:
    """The runs that are reported."""
    seeds = range(options.seed, options.seed + tuned.seeds)
    return [Run(Point(rule, d, eta, seed), place) for seed in seeds]


def work(options: study.Options, place: Place) -> None:
    """Do what has not been done yet."""
    tuned = TUNED[options.size]
    for d in tuned.most:
        for rule in RULES:
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
                tell(run, tuned.goal, run.advance(tuned.goal, 10 * round(n)))
    for run, goal, limit in fixed_runs(FIXED[options.size], options, place):
        tell(run, goal, run.advance(goal, limit))


def collected(runs: list[Run], aims: dict[Point, float], goals: tuple[float, ...]) -> xr.Dataset:
    """What there is of some runs: (rule, d, seed, ...).

    `iterations` is infinite where a run has not reached a goal in the iterations that it has `done`, and missing where it was
    not meant to, or has not tried yet. A run that was cut off before one goal is cut off before the next where others try it.
    """
    facts = {"eta": lambda run: run.point.eta, "aim": lambda run: aims[run.point]}
    dataset = gathered(runs, {"rule": "rule", "d": "d", "seed": "seed"}, goals, facts)
    dataset["n_parameters"] = ("d", [circuit("weight", d, PUBLISHED_ETA).n_parameters for d in dataset["d"].values])
    iterations, meant = dataset["iterations"], tried(dataset)
    meant |= np.isinf(iterations.shift(goal=1, fill_value=0)) & meant.any("seed")
    dataset["iterations"] = iterations.where(meant & (dataset["goal"] <= dataset["aim"] + 1e-9))
    return dataset


def collect_fixed(options: study.Options, place: Place) -> xr.Dataset:
    """Runs at the published learning rate, and the published quartiles."""
    runs: dict[Point, Run] = {}
    aims: dict[Point, float] = {}
    for run, goal, _ in fixed_runs(FIXED[options.size], options, place):
        runs[run.point], aims[run.point] = run, max(goal, aims.get(run.point, 0))
    found, theirs = collected(list(runs.values()), aims, GOALS), published()
    quartiles = [
        [[theirs[rule, d, goal] for goal in GOALS] for d in found["d"].values] for rule in found["rule"].values
    ]
    found["published"] = (("rule", "d", "goal", "quartile"), quartiles)
    return found.assign_coords(quartile=[0.25, 0.5, 0.75]).assign_attrs(eta=FIXED[options.size].eta)


def collect_tuned(options: study.Options, place: Place) -> xr.Dataset:
    """Runs at the tuned learning rates, and how far those of tuning came: (rule, d, rate, tuning_seed)."""
    tuned, runs, tuning = TUNED[options.size], [], {}
    for d in tuned.most:
        for rule in RULES:
            tried = candidates(tuned, rule, d, options, place)
            if result := best(tuned, tried, tuned.most[d]):
                runs += tuned_runs(tuned, rule, d, result[0], options, place)
                tuning[rule, d] = [
                    [(run.iteration, run.rows[-1][1], run.seconds) for run in each] for each in tried.values()
                ]
    found = collected(runs, {run.point: tuned.goal for run in runs}, (tuned.goal,))
    missing = np.full((len(tuned.rates), tuned.tuning_seeds, 3), np.nan)
    each = [[tuning.get((rule, d), missing) for d in found["d"].values] for rule in found["rule"].values]
    for k, name in enumerate(("done", "accuracy", "seconds")):
        found[f"tuning_{name}"] = (("rule", "d", "rate", "tuning_seed"), np.array(each)[..., k])
    return found.assign_coords(rate=list(tuned.rates))


def published() -> dict[tuple[str, int, float], tuple[float, float, float]]:
    """Quartiles of 10 published runs: (rule, d, goal) to iterations."""
    with (study.PUBLISHED / "fig4.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["panel"] == "4b"]
    return {
        (row["train_method"], int(row["d"]), goal): tuple(
            float(row[f"it{round(100 * goal)}_test_{q}"]) for q in ("q25", "median", "q75")
        )
        for row in rows
        for goal in GOALS
    }


def compared(found: xr.Dataset) -> Iterator[str]:
    """Our medians beside the published ones, and how often chance alone would take so few seeds out of 25 %."""
    if found.attrs["eta"] != PUBLISHED_ETA:
        yield f"eta = {found.attrs['eta']:g}; the published runs have {PUBLISHED_ETA:g}"
    yield f"{'':19}{'goal':>5}{'seeds':>7}{'ours':>10}{'published quartiles':>28}{'ours/published':>16}  chance to be outside"
    for rule, d, goal in np.ndindex(found["iterations"].transpose("rule", "d", "goal", "seed").shape[:3]):
        one = found.isel(rule=rule, d=d, goal=goal)
        values = one["iterations"].values
        if np.isnan(values).all():
            continue
        quartiles = one["published"].values
        middle, known = bound(values, one["done"].values)
        ratio, seeds = middle / quartiles[1], int((~np.isnan(values)).sum())
        inside = "" if not known else "within 25 %" if abs(ratio - 1) <= 0.25 else "OUTSIDE"
        more = "" if known else ">"
        name = f"{one['rule'].item()}, d = {one['d'].item()}"
        yield (
            f"{name:19}{one['goal'].item():5.0%}{seeds:7}{f'{more}{middle:,.0f}':>10}"
            f"{' '.join(f'{q:,.0f}' for q in quartiles):>28}{f'{more}{ratio:.2f}':>16}  {chance(quartiles, seeds):.0%} {inside}"
        )


def paired(found: xr.Dataset) -> Iterator[str]:
    """How many times as long as backpropagation from the same initial parameters, beside the ratio of published medians."""
    for rule, d, goal in itertools.product(("node", "weight"), found["d"].values, found["goal"].values):
        ours, theirs = found["iterations"].sel(d=d, goal=goal), found["published"].sel(d=d, goal=goal, quartile=0.5)
        each = (ours.sel(rule=rule) / ours.sel(rule="backprop")).values
        each = np.sort(each[np.isfinite(each) & (each > 0)])  # both have reached the goal
        if len(each):
            published_ratio = float(theirs.sel(rule=rule) / theirs.sel(rule="backprop"))
            words = " ".join(f"{value:.1f}" for value in each)
            yield f"{rule} / backprop, d = {d}, {goal:.0%}: {words}; published {published_ratio:.1f}"


def chance(quartiles: np.ndarray, seeds: int, draws: int = 4000) -> float:
    """How often the median of so many log-normal numbers with these quartiles is more than 25 % off theirs."""
    sigma = np.log(quartiles[2] / quartiles[0]) / 1.349
    drawn = np.exp(sigma * np.sort(np.random.default_rng(0).standard_normal((draws, seeds)), axis=1)[:, seeds // 2])
    return float((np.abs(drawn - 1) > 0.25).mean())


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


@study.command
def main(options: study.Options) -> None:
    """Measure iterations to an accuracy, at the published learning rate and at tuned ones."""
    suffix = "_quick" if options.size == "quick" else ""
    place = Place(options.out / f"training_time{suffix}.parts", options.workers, 1000 if suffix else None)
    state = state_after(lambda: work(options, place))
    spec = circuit("weight", 1, PUBLISHED_ETA).spec
    fixed, tuned = collect_fixed(options, place), collect_tuned(options, place)
    for found, name, draw, lines in (
        (fixed, "training_time", draw_fixed, lambda found: itertools.chain(compared(found), paired(found))),
        (tuned, "training_time_tuned", lambda found, path: draw_tuned(found, fixed, path), scaling),
    ):
        if found.sizes["rule"]:
            seconds = float(found["processor_seconds"].sum())
            path = study.keep(found.assign_attrs(processor_seconds=seconds, state=state), name, spec, options)
            draw(found, path.with_suffix(".png"))
            print("\n".join(lines(found)))
    if state == "finished":
        shutil.rmtree(place.folder)


if __name__ == "__main__":
    sys.exit(cli.run(main))
