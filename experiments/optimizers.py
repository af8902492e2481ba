"""Vanilla updates, momentum and Adam for windows of 1000 perturbations: figure 6 of arXiv 2501.15403, at the size of two cores.

python experiments/optimizers.py --quick
python experiments/optimizers.py --full --out experiments/results

Updates to an accuracy at every learning rate of a grid. Three problems: digits (write_cycles.yaml) at tau_theta = 1000, and at
the tau_theta that is as small a part of its parameters as 1000 is of the largest layer of the published network; Fashion-MNIST
(optimizers.yaml) at tau_theta = 1000. Each half of the seeds is reported at the learning rate that is best on the other half.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import study
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import mgdcircuits as mgd
from mgdcircuits import cli

MATCHED = 15
"""Of 1,210 parameters the same part as 1000 of 83,040, the largest layer of the published network (d = 24)."""
NORMALISED = "rate/sqrt(1 + (K - 1)/n_G)"
"""A step as long as that of backpropagation. Adam does not care how long its estimates are."""


@dataclass(frozen=True)
class Optimizer:
    """A snippet of the library, its learning rate, and the parameters that the snippet takes."""

    name: str
    use: str
    eta: str
    settings: Mapping[str, float]
    color: str


OPTIMIZERS = (
    Optimizer("vanilla", "momentum(gamma=gamma)", NORMALISED, {"gamma": 0}, "#444444"),
    Optimizer("momentum", "momentum(gamma=gamma)", NORMALISED, {"gamma": 0.9}, "#c2571a"),
    Optimizer("Adam", "adam(bias_correction=corrects)", "rate", {"corrects": 1}, "#1f5fa8"),
    Optimizer("Adam, no bias correction", "adam(bias_correction=corrects)", "rate", {"corrects": 0}, "#3d8a4d"),
)


@dataclass(frozen=True)
class Problem:
    """What is trained to which accuracy, learning rates, seeds, after how many updates runs are cut off, and those of a row."""

    name: str
    netlist: str
    window: int
    goal: float
    rates: Mapping[str, tuple[float, ...]]
    seeds: int
    most: int
    every: int

    @property
    def title(self) -> str:
        """Its name in the dataset."""
        return f"{self.name} to {self.goal:.0%}, tau_theta = {self.window}".replace("%", " %")

    def circuit(self, optimizer: Optimizer, rate: float) -> mgd.Circuit:
        """With the update of an optimizer."""
        names = ", ".join(f"{name}: {value}" for name, value in optimizer.settings.items())
        text = f"""
include: {study.FOLDER / self.netlist}
circuit: optimizers
parameters: {{rate: {rate}, {names}, eta: {optimizer.eta}}}
learning: {{wp: {{update: {{request: none, use: {optimizer.use}}}}}}}
"""
        return mgd.load(text, window=self.window)


def rates(*each: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    """Learning rates by the name of the optimizer."""
    return dict(zip((o.name for o in OPTIMIZERS), each, strict=True))


PROBLEMS = {
    "quick": (
        Problem(
            "digits", "write_cycles.yaml", MATCHED, 0.8,
            rates((0.2, 1), (0.03, 0.1), (0.01, 0.03), (0.003, 0.01)), seeds=2, most=600, every=12,
        ),
    ),
    "full": (
        Problem(
            "digits", "write_cycles.yaml", 1000, 0.8,
            rates((0.1, 0.3, 1, 2), (0.01, 0.03, 0.1, 0.3, 1, 2), (0.01, 0.03, 0.1, 0.3), (0.003, 0.01, 0.03, 0.1)),
            seeds=8, most=150, every=1,
        ),
        Problem(
            "digits", "write_cycles.yaml", MATCHED, 0.8,
            rates(
                (0.1, 0.3, 1, 2, 4), (0.01, 0.03, 0.1, 0.2, 0.4), (0.003, 0.01, 0.03, 0.1), (0.001, 0.003, 0.01, 0.03)
            ),
            seeds=8, most=1200, every=4,
        ),
        Problem(
            "Fashion-MNIST", "optimizers.yaml", 1000, 0.7,
            rates((0.2, 0.5, 1, 2), (0.03, 0.06, 0.1, 0.2), (0.01, 0.03), (0.01, 0.02)),
            seeds=4, most=200, every=2,
        ),
    ),
}  # fmt: skip


def swept(problem: Problem, optimizer: Optimizer, options: study.Options, address: str) -> xr.DataArray:
    """Updates to the goal: (rate, seed); infinite where a run was cut off. A sweep for each learning rate."""
    part = f"optimizers_{options.size}_{problem.name}_{problem.window}_{optimizer.name}".replace(",", "").replace(
        " ", "_"
    )
    found = []
    for rate in problem.rates[optimizer.name]:
        run = study.swept(
            f"{part}_{rate:g}", problem.circuit(optimizer, rate),
            {"seed": range(options.seed, options.seed + problem.seeds)}, options, address,
            iterations=problem.most * problem.window, evaluate_every=problem.every * problem.window,
            until=f"accuracy_test >= {problem.goal}",
        )  # fmt: skip
        found.append(study.iterations_to(run, (problem.goal,)).isel(goal=0, drop=True) / problem.window)
    return xr.concat(found, xr.DataArray(list(problem.rates[optimizer.name]), dims="rate", name="rate"))


def solved(problem: Problem, options: study.Options, address: str) -> xr.Dataset:
    """updates(optimizer, rate, seed) with no number where an optimizer was not tried at a learning rate."""
    found = [swept(problem, optimizer, options, address) for optimizer in OPTIMIZERS]
    names = xr.DataArray([o.name for o in OPTIMIZERS], dims="optimizer", name="optimizer")
    updates = xr.concat(found, names, join="outer").transpose("optimizer", "rate", "seed")
    return xr.Dataset({"updates": updates}).assign(
        limit=problem.most, tau_theta=problem.window, goal=problem.goal, updates_of_a_row=problem.every
    )


def measure(options: study.Options, address: str) -> xr.Dataset:
    """All problems: updates(problem, optimizer, rate, seed)."""
    problems = PROBLEMS[options.size]
    names = [p.title for p in problems]
    found = xr.concat(
        [solved(p, options, address) for p in problems],
        xr.DataArray(names, dims="problem", name="problem"),
        join="outer",
    )
    found["updates"].attrs["long_name"] = "updates to the goal in test accuracy; infinite: cut off after `limit`"
    return found


def runs(found: xr.Dataset, problem: str, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates, and updates (rate, seed), of one optimizer."""
    one = found["updates"].sel(problem=problem, optimizer=optimizer).dropna("rate", how="all").dropna("seed", how="all")
    return one["rate"].values, one.values


def tuned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Updates of each seed at the rate with the least mean over the other half of the seeds, and which rate that is.

    A run that was cut off counts as infinite.
    """
    seeds = np.arange(values.shape[1])
    later = seeds >= len(seeds) // 2
    best = np.where(later, np.argmin(values[:, ~later].mean(1)), np.argmin(values[:, later].mean(1)))
    return values[best, seeds], best


def ratio(ours: np.ndarray, vanilla: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Median updates over those of vanilla, with a 95 % interval: seeds, the same for both, are drawn anew."""
    drawn = np.random.default_rng(0).integers(len(ours), size=(draws, len(ours)))
    ratios = [study.median(ours[d]) / study.median(vanilla[d]) for d in drawn]
    return (study.median(ours) / study.median(vanilla), *np.percentile(ratios, [2.5, 97.5]))


@dataclass(frozen=True)
class Comparison:
    """One optimizer on one problem: learning rates that were chosen, updates, and ratios to vanilla with intervals."""

    optimizer: str
    rates: tuple[float, ...]
    updates: float
    tuned: tuple[float, float, float]
    slow: tuple[float, float, float]


def compare(found: xr.Dataset, problem: str) -> list[Comparison]:
    """Each optimizer at its best rate over vanilla at its best rate, and over vanilla at its smallest."""
    _, values = runs(found, problem, "vanilla")
    vanilla, slow = tuned(values)[0], values[0]
    compared = []
    for optimizer in found["optimizer"].values:
        x, values = runs(found, problem, optimizer)
        ours, best = tuned(values)
        chosen = tuple(np.unique(x[best]))
        compared.append(Comparison(optimizer, chosen, study.median(ours), ratio(ours, vanilla), ratio(ours, slow)))
    return compared


def draw(found: xr.Dataset, path: Path) -> None:
    """Updates against the learning rate, a panel for each problem; then the ratios to vanilla."""
    problems = list(found["problem"].values)
    figure = Figure(figsize=(3.9 * (len(problems) + 1), 4.6), layout="constrained")
    for k, problem in enumerate(problems):
        axes = figure.add_subplot(1, len(problems) + 1, k + 1)
        axes.spines[["top", "right"]].set_visible(False)
        limit = float(found["limit"].sel(problem=problem))
        for optimizer in OPTIMIZERS:
            x, values = runs(found, problem, optimizer.name)
            medians = np.array([study.median(row) for row in values])
            good = np.isfinite(medians)
            for seed in values.T:
                axes.loglog(x, np.where(np.isfinite(seed), seed, np.nan), ".", color=optimizer.color, alpha=0.35)
            label = optimizer.name if k == 0 else None
            axes.loglog(x, np.where(good, medians, np.nan), "o-", color=optimizer.color, ms=5, label=label)
            axes.loglog(x[~good], np.full((~good).sum(), limit), "^", mfc="none", color=optimizer.color)
        axes.axhline(limit, color="#999999", lw=0.8, ls=":")
        axes.set_xlabel("learning rate $\\eta$")
        axes.set_ylabel("updates")
        axes.set_title(problem.replace("tau_theta", "$\\tau_\\theta$"), fontsize=10)
    draw_ratios(found, figure.add_subplot(1, len(problems) + 1, len(problems) + 1))
    figure.legend(loc="outside lower center", ncols=len(OPTIMIZERS), frameon=False)
    figure.savefig(path, dpi=130)


def draw_ratios(found: xr.Dataset, axes: Axes) -> None:
    """With their intervals: full over vanilla at its best learning rate, open over vanilla at its smallest."""
    axes.spines[["top", "right"]].set_visible(False)
    problems = list(found["problem"].values)
    others = {o.name: (0.24 * (j - 1), o.color) for j, o in enumerate(OPTIMIZERS[1:])}
    for k, problem in enumerate(problems):
        for one in compare(found, problem)[1:]:
            place, color = others[one.optimizer]
            for (middle, low, high), face, aside in ((one.tuned, color, -0.05), (one.slow, "none", 0.05)):
                if np.isfinite(high):
                    errors = [[middle - low], [high - middle]]
                    axes.errorbar(k + place + aside, middle, errors, fmt="o", ms=5, mfc=face, color=color, capsize=2)
    axes.axhline(1, color="#999999", lw=0.8, ls=":")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(range(len(problems)), [p.replace(", tau_theta", "\n$\\tau_\\theta$") for p in problems], fontsize=8)
    axes.set_xlim(-0.5, len(problems) - 0.5)
    axes.set_ylabel("updates / those of vanilla")
    axes.set_title("full: over vanilla at its best $\\eta$,\nopen: over vanilla at its smallest $\\eta$", fontsize=9)


def table(found: xr.Dataset) -> list[str]:
    """What was chosen and found, a line for each problem and optimizer."""
    lines = []
    for problem in found["problem"].values:
        for one in compare(found, problem):
            best, slow = (f"{m:.2f} ({low:.2f} to {high:.2f})" for m, low, high in (one.tuned, one.slow))
            chosen = " or ".join(f"{r:g}" for r in one.rates)
            lines.append(
                f"{problem}: {one.optimizer}, eta {chosen}: {one.updates:,.0f} updates; over tuned vanilla {best}, "
                f"over vanilla at its smallest eta {slow}"
            )
        for name in found["optimizer"].values:
            x, values = runs(found, problem, name)
            cells = [
                f"{r:g}: {study.median(v):,.0f} ({np.isinf(v).sum()} cut off)" for r, v in zip(x, values, strict=True)
            ]
            lines.append(f"  {name}, medians of all seeds: {', '.join(cells)}")
    return lines


@study.command
def main(options: study.Options) -> None:
    """Measure updates to an accuracy with each optimizer at every learning rate, and their ratios to vanilla."""
    with study.cluster(options) as address:
        found = measure(options, address)
    path = study.keep(found, "optimizers", PROBLEMS[options.size][0].circuit(OPTIMIZERS[0], 1).spec, options)
    draw(found, path.with_suffix(".png"))
    for line in table(found):
        print(line)


if __name__ == "__main__":
    sys.exit(cli.run(main))
