"""Iterations to an accuracy on Fashion-MNIST: backpropagation, node and weight perturbation; figure 4 of arXiv 2501.15403.

python experiments/training_time.py --quick --workers 1
python experiments/training_time.py --full --workers 1 --out experiments/results

At the published learning rate, beside the published medians. Runs are kept: after Ctrl-C what is there is drawn, and the same
command goes on. Given twice at the same time, two processes share the runs. `--workers`: threads; seeds run one after another,
because with a batch of 100 they are slower as members of one session (docs/sweeps.md).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from common import published, study
from common.node_or_weight import NODE_OR_WEIGHT
from common.training_time_figure import bound, draw_fixed
from common.training_time_plan import Plan, Planned, SharedStudy, gathered, tried
from common.training_time_run import OWN_CODES, RULES, Place, Point, Run, circuit
from mgdcircuits import cli

GOALS = (0.2, 0.4, 0.6, 0.8)
AXES = {"rule": "rule", "d": "d", "seed": "seed"}
AS_NODES = (OWN_CODES, NODE_OR_WEIGHT)  # stand beside the published node perturbation, too


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


FIXED = {
    "quick": Fixed(0.1, (Stage(0.2, tuple(RULES), (1,), 1),)),
    "full": Fixed(
        published.ETA,
        (
            Stage(0.2, tuple(RULES), (1, 2, 4)),
            Stage(0.2, ("backprop",), (1, 2, 4), 10),
            Stage(0.4, ("backprop",), (1, 2, 4)),
            Stage(0.4, ("node", "weight"), (1, 2, 4)),
            Stage(0.6, ("backprop",), (1, 2, 4)),
            Stage(0.6, ("node", "weight"), (2, 4)),
            Stage(0.8, ("backprop",), (4, 2)),
            Stage(0.6, ("node", "weight"), (1,)),
            Stage(0.4, ("backprop",), (1, 2, 4), 10),
            Stage(0.6, ("backprop",), (4, 2, 1), 10),
            Stage(0.6, (OWN_CODES,), (2,), 2),
            Stage(0.6, (NODE_OR_WEIGHT,), (2, 1, 4)),
            Stage(0.8, ("backprop",), (1,), 1),
            Stage(0.8, ("weight",), (4, 1, 2), 1),
            Stage(0.8, ("node",), (4, 2)),
            Stage(0.8, (NODE_OR_WEIGHT,), (2, 4, 1)),
            Stage(0.8, ("backprop",), (1,)),
            Stage(0.8, ("weight",), (2, 1)),
            Stage(0.8, ("node",), (1,)),
            Stage(0.8, ("weight",), (4,)),
            Stage(0.8, ("backprop",), (1,), 10),
            Stage(0.6, ("node",), (2,), 10),
            Stage(0.4, ("node", "weight"), (2, 1, 4), 10),
        ),
    ),
}


def planned(fixed: Fixed, options: study.Options, place: Place) -> Iterator[Planned]:
    """What is to be done, in order: a run, its goal, and the iterations after which it is cut off."""
    medians = {key: quartiles[1] for key, quartiles in published_times().items()}
    for stage in fixed.stages:
        for d in stage.widths:
            for rule in stage.rules:
                limit = round(2 * medians[rule, d, stage.goal] * published.ETA / fixed.eta)
                for seed in range(options.seed, options.seed + stage.seeds):
                    yield Run(Point(rule, d, fixed.eta, seed), place), stage.goal, limit


def collected(runs: list[Run], aims: dict[Point, float], goals: tuple[float, ...]) -> xr.Dataset:
    """What there is of some runs: (rule, d, seed, ...).

    `iterations` is infinite where a run has not reached a goal in the iterations that it has `done`, and missing where it was
    not meant to, or has not tried yet. A run that was cut off before one goal is cut off before the next where others try it.
    """
    facts = {"eta": lambda run: run.point.eta, "aim": lambda run: aims[run.point]}
    dataset = gathered(runs, AXES, goals, facts)
    dataset["n_parameters"] = ("d", [circuit("weight", d, published.ETA).n_parameters for d in dataset["d"].values])
    iterations, meant = dataset["iterations"], tried(dataset)
    for before, goal in itertools.pairwise(range(len(goals))):
        cut_off = meant.isel(goal=before) & np.isinf(iterations.isel(goal=before))
        meant[{"goal": goal}] = meant.isel(goal=goal) | cut_off & meant.isel(goal=goal).any("seed")
    dataset["iterations"] = iterations.where(meant & (dataset["goal"] <= dataset["aim"] + 1e-9))
    return dataset


def collect(plan: Plan, eta: float) -> xr.Dataset:
    """Runs at the published learning rate, and the published quartiles."""
    runs = {run.point: run for run, _, _ in plan}
    return with_published(collected(list(runs.values()), aims(plan), GOALS)).assign_attrs(eta=eta)


def aims(plan: Plan) -> dict[Point, float]:
    """The last goals that runs have reached, or tried until they were cut off; not those that they were stopped before."""
    found: dict[Point, float] = {}
    for run, goal, limit in plan:
        ended = [each for each in GOALS if run.found.reached(each) < np.inf]
        ended += [goal] if run.found.complete(goal, limit) else []
        found[run.point] = max([found.get(run.point, 0.0), *ended])
    return found


def with_published(found: xr.Dataset) -> xr.Dataset:
    """Beside ours, the quartiles of the published runs, where there are any."""
    theirs, none = published_times(), (np.nan,) * 3
    quartiles = [
        [[theirs.get((rule, d, goal), none) for goal in found["goal"].values] for d in found["d"].values]
        for rule in found["rule"].values
    ]
    found["published"] = (("rule", "d", "goal", "quartile"), quartiles)
    return found.assign_coords(quartile=[0.25, 0.5, 0.75])


def published_times() -> dict[tuple[str, int, float], published.Quartiles]:
    """Quartiles of iterations by rule, d and goal; other readings of node perturbation stand beside the published one."""
    return {
        (reading, d, goal): quartiles
        for (rule, d, goal), quartiles in published.until_accuracy().items()
        for reading in ((rule, *AS_NODES) if rule == "node" else (rule,))
    }


def compared(found: xr.Dataset) -> Iterator[str]:
    """Our medians beside the published ones, and how often chance alone would take them out of 25 %."""
    if found.attrs["eta"] != published.ETA:
        yield f"eta = {found.attrs['eta']:g}; the published runs have {published.ETA:g}"
    counted: dict[str, list[tuple[bool, float]]] = {}
    yield f"{'':22}{'goal':>5}{'seeds':>7}{'ours':>10}{'published quartiles':>32}{'ours/published':>16}  chance to be outside"
    for rule, d, goal in np.ndindex(found["iterations"].transpose("rule", "d", "goal", "seed").shape[:3]):
        one = found.isel(rule=rule, d=d, goal=goal)
        values = one["iterations"].values
        if np.isnan(values).all():
            continue
        quartiles = one["published"].values
        middle, known = bound(values, one["done"].values)
        ratio, seeds = middle / quartiles[1], int((~np.isnan(values)).sum())
        within = known and abs(ratio - 1) <= 0.25
        beyond = ratio > 1.25 or (known and not within)  # a median that was cut off is more than it says
        inside = "within 25 %" if within else "OUTSIDE" if beyond else ""
        more, outside = "" if known else ">", chance(quartiles, seeds)
        if inside:
            counted.setdefault(one["rule"].item(), []).append((within, outside))
        name = f"{one['rule'].item()}, d = {one['d'].item()}"
        yield (
            f"{name:22}{one['goal'].item():5.0%}{seeds:7}{f'{more}{middle:,.0f}':>10}"
            f"{' '.join(f'{q:,.0f}' for q in quartiles):>32}{f'{more}{ratio:.2f}':>16}  {outside:.0%} {inside}"
        )
    for rule_name, each in counted.items():
        within, outside_by_chance = (sum(column) for column in zip(*each, strict=True))
        yield f"{rule_name}: {within} of {len(each)} medians within 25 %; by chance {outside_by_chance:.1f} would be outside"


def paired(found: xr.Dataset) -> Iterator[str]:
    """How many times as long as backpropagation from the same initial parameters, beside the ratio of published medians."""
    rules = [rule for rule in found["rule"].values if rule != "backprop" and "backprop" in found["rule"]]
    for rule, d, goal in itertools.product(rules, found["d"].values, found["goal"].values):
        ours, theirs = found["iterations"].sel(d=d, goal=goal), found["published"].sel(d=d, goal=goal, quartile=0.5)
        each = (ours.sel(rule=rule) / ours.sel(rule="backprop")).values
        each = np.sort(each[np.isfinite(each) & (each > 0)])  # both have reached the goal
        if len(each):
            published_ratio = float(theirs.sel(rule=rule) / theirs.sel(rule="backprop"))
            words = " ".join(f"{value:.1f}" for value in each)
            yield f"{rule} / backprop, d = {d}, {goal:.0%}: {words}; published {published_ratio:.1f}"


def chance(quartiles: np.ndarray, seeds: int, draws: int = 4000) -> float:
    """How often the medians of so many and of ten log-normal numbers with these quartiles differ by more than 25 %."""
    sigma, rng = np.log(quartiles[2] / quartiles[0]) / 1.349, np.random.default_rng(0)
    ours, theirs = (np.median(rng.standard_normal((draws, n)), axis=1) for n in (seeds, published.SEEDS))
    return float((np.abs(np.exp(sigma * (ours - theirs)) - 1) > 0.25).mean())


@study.command
def main(options: study.Options) -> None:
    """Measure iterations to an accuracy at the published learning rate."""
    fixed = FIXED[options.size]
    SharedStudy(
        name="training_time",
        spec=circuit("weight", 1, fixed.eta).spec,
        circuits=[circuit(rule, 1, fixed.eta) for rule in (*RULES, *AS_NODES)],
        axes=AXES,
        point=lambda **values: Point(eta=fixed.eta, **values),
        planned=lambda place: planned(fixed, options, place),
        collect=lambda plan: collect(plan, fixed.eta),
        draw=draw_fixed,
        table=lambda found: itertools.chain(compared(found), paired(found)),
        judged=1000 if options.size == "quick" else None,
    ).go_on(options)


if __name__ == "__main__":
    sys.exit(cli.run(main))
