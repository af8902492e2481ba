"""Vanilla updates, momentum and Adam for windows of 1000 perturbations: figure 6 of arXiv 2501.15403, at the size of two cores.

python experiments/optimizers.py --quick
python experiments/optimizers.py --full --out experiments/results

Digits (write_cycles.yaml) at tau_theta = 1000, and at the tau_theta that is as small a part of its parameters as 1000 is of
the largest layer of the published network; Fashion-MNIST (optimizers.yaml) at tau_theta = 1000. Each optimizer is given the
same number of learning rates, a factor of 1.5 apart, on seeds for tuning only; where the best is the smallest or the largest,
one more is tried beyond it. Updates are then counted at the best one, on other seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter
from scipy import stats

import mgdcircuits as mgd
from common import study
from mgdcircuits import cli

MATCHED = 15
"""Of 1,210 parameters the same part as 1000 of 83,040, the largest layer of the published network (d = 24)."""
NORMALISED = "rate/sqrt(1 + (K - 1)/n_G)"
"""A step as long as that of backpropagation. Adam does not care how long its estimates are."""
FACTOR = 1.5
"""Between neighbouring learning rates."""
TUNING = 1000
"""Added to the first seed: the first one for tuning."""


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
    """What is trained to which accuracy, and with how much effort.

    Parameters
    ----------
    middle
        The middle of the grid of learning rates of each optimizer.
    steps, beyond
        Grid points on either side of it, and those that may be added beyond.
    slow
        A small learning rate for vanilla updates.
    trials, seeds
        Seeds for tuning, and for what is reported.
    most, every
        Updates after which runs are cut off, and those between two rows.
    """

    name: str
    netlist: str
    window: int
    goal: float
    middle: Mapping[str, float]
    steps: int
    beyond: int
    slow: float
    trials: int
    seeds: int
    most: int
    every: int

    @property
    def title(self) -> str:
        """Its name in the dataset."""
        return f"{self.name} to {self.goal:.0%}, tau_theta = {self.window}".replace("%", " %")

    def grid(self, optimizer: Optimizer) -> list[float]:
        """The learning rates that an optimizer is given."""
        return [beside(self.middle[optimizer.name], k) for k in range(-self.steps, self.steps + 1)]

    def circuit(self, optimizer: Optimizer) -> mgd.Circuit:
        """With the update of an optimizer."""
        names = ", ".join(f"{name}: {value}" for name, value in optimizer.settings.items())
        text = f"""
include: {study.FOLDER / self.netlist}
circuit: optimizers
parameters: {{rate: {self.middle[optimizer.name]}, {names}, eta: {optimizer.eta}}}
learning: {{wp: {{update: {{request: none, use: {optimizer.use}}}}}}}
"""
        return mgd.load(text, window=self.window)


def beside(rate: float, steps: int) -> float:
    """A learning rate some grid points further, in three digits."""
    return float(f"{rate * FACTOR**steps:.3g}")


def middle(*each: float) -> dict[str, float]:
    """Learning rates by the name of the optimizer."""
    return dict(zip((o.name for o in OPTIMIZERS), each, strict=True))


PROBLEMS = {
    "quick": (
        Problem(
            "digits", "write_cycles.yaml", MATCHED, 0.8, middle(2, 0.2, 0.03, 0.01),
            steps=1, beyond=0, slow=0.2, trials=1, seeds=2, most=500, every=20,
        ),
    ),
    "full": (
        Problem(
            "digits", "write_cycles.yaml", 1000, 0.8, middle(1, 0.4, 0.06, 0.015),
            steps=3, beyond=4, slow=0.1, trials=4, seeds=8, most=200, every=1,
        ),
        Problem(
            "digits", "write_cycles.yaml", MATCHED, 0.8, middle(2, 0.2, 0.03, 0.01),
            steps=3, beyond=4, slow=0.2, trials=4, seeds=8, most=480, every=3,
        ),
        Problem(
            "Fashion-MNIST", "optimizers.yaml", 1000, 0.7, middle(1, 0.2, 0.03, 0.012),
            steps=2, beyond=4, slow=0.2, trials=4, seeds=8, most=200, every=2,
        ),
        Problem(
            "Fashion-MNIST", "optimizers.yaml", 1000, 0.8, middle(0.7, 0.1, 0.015, 0.004),
            steps=1, beyond=4, slow=0.35, trials=4, seeds=8, most=1400, every=8,
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Runs of a problem on the workers of a call."""

    problem: Problem
    options: study.Options
    address: str

    def updates(self, what: str, optimizer: Optimizer, rates: list[float], first: int, seeds: int) -> xr.DataArray:
        """Updates to the goal: (rate, seed); infinite where a run was cut off."""
        p = self.problem
        part = f"optimizers_{self.options.size}_{p.title}_{optimizer.name}_{what}"
        run = study.swept(
            "".join(c if c.isalnum() else "_" for c in part), p.circuit(optimizer),
            {"rate": rates, "seed": range(first, first + seeds)}, self.options, self.address,
            iterations=p.most * p.window, evaluate_every=p.every * p.window, until=f"accuracy_test >= {p.goal}",
        )  # fmt: skip
        return study.iterations_to(run, (p.goal,)).isel(goal=0, drop=True) / p.window

    def tuning(self, optimizer: Optimizer) -> xr.DataArray:
        """Updates of the seeds for tuning: (rate, seed), with the best rate inside the grid if it was found."""
        first, seeds = TUNING + self.options.seed, self.problem.trials
        found = self.updates("tuning", optimizer, self.problem.grid(optimizer), first, seeds)
        for k in range(self.problem.beyond):
            rates = found["rate"].values
            edges = {0: beside(rates[0], -1), len(rates) - 1: beside(rates[-1], 1)}
            if (further := edges.get(best(found))) is None:
                break
            more = self.updates(f"beyond {k}", optimizer, [further], first, seeds)
            found = xr.concat([found, more], "rate").sortby("rate")
        return found

    def solved(self, optimizer: Optimizer) -> xr.Dataset:
        """All of one optimizer: tuning, the learning rate that was chosen, and updates(seed) there."""
        tuning = self.tuning(optimizer)
        chosen = float(tuning["rate"][best(tuning)])
        updates = self.updates("chosen", optimizer, [chosen], self.options.seed, self.problem.seeds)
        rates = tuning["rate"].values
        tried = tuning.rename(rate="trial", seed="tuning_seed").assign_coords(trial=np.arange(len(rates)))
        return xr.Dataset(
            {
                "rate_tried": ("trial", rates),
                "updates_tuning": tried,
                "rate": chosen,
                "updates": updates.isel(rate=0, drop=True),
            }
        )


def best(tuning: xr.DataArray) -> int:
    """Which learning rate takes the fewest updates in the mean of the seeds; a run that was cut off counts as infinite."""
    return int(np.argmin(tuning.transpose("rate", "seed").values.mean(1)))


def solved(problem: Problem, options: study.Options, address: str) -> xr.Dataset:
    """A problem with every optimizer, and with vanilla updates at a small learning rate."""
    bench = Bench(problem, options, address)
    names = xr.DataArray([o.name for o in OPTIMIZERS], dims="optimizer", name="optimizer")
    found = xr.concat([bench.solved(o) for o in OPTIMIZERS], names, join="outer")
    slow = bench.updates("slow", OPTIMIZERS[0], [problem.slow], options.seed, problem.seeds)
    found = found.assign(rate_slow=problem.slow, updates_slow=slow.isel(rate=0, drop=True))
    return found.assign(limit=problem.most, tau_theta=problem.window, goal=problem.goal, updates_of_a_row=problem.every)


def measure(options: study.Options, address: str) -> xr.Dataset:
    """All problems: updates(problem, optimizer, seed) at rate(problem, optimizer), and how that was chosen."""
    problems = PROBLEMS[options.size]
    names = xr.DataArray([p.title for p in problems], dims="problem", name="problem")
    found = xr.concat([solved(p, options, address) for p in problems], names, join="outer")
    found["updates"].attrs["long_name"] = "updates to the goal in test accuracy; infinite: cut off after `limit`"
    found["updates_tuning"].attrs["long_name"] = "the same of the seeds for tuning, at `rate_tried`"
    found["updates_slow"].attrs["long_name"] = "the same of vanilla updates at `rate_slow`"
    return found


def ratio(ours: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """Updates over others, seed by seed: geometric mean, and its 95 % interval by Student's t; none if a run was cut off."""
    if not np.isfinite([ours, others]).all():
        return (np.nan,) * 3
    logs = np.log(ours / others)
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    return tuple(float(np.exp(v)) for v in (logs.mean(), logs.mean() - half, logs.mean() + half))


@dataclass(frozen=True)
class Comparison:
    """One optimizer on one problem: its learning rate, updates, and ratios to vanilla, tuned and slow, with intervals."""

    optimizer: str
    rate: float
    updates: np.ndarray
    tuned: tuple[float, float, float]
    slow: tuple[float, float, float]


def compare(found: xr.Dataset, problem: str) -> list[Comparison]:
    """Each optimizer at its best rate over vanilla at its best rate, and over vanilla at a small one."""
    one = found.sel(problem=problem)
    vanilla, slow = one["updates"].sel(optimizer="vanilla").values, one["updates_slow"].values
    compared = []
    for optimizer in one["optimizer"].values:
        ours = one["updates"].sel(optimizer=optimizer).values
        rate = float(one["rate"].sel(optimizer=optimizer))
        compared.append(Comparison(optimizer, rate, ours, ratio(ours, vanilla), ratio(ours, slow)))
    return compared


def tried(found: xr.Dataset, problem: str, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates of the tuning of an optimizer, and updates (rate, seed)."""
    one = found.sel(problem=problem, optimizer=optimizer).transpose("trial", "tuning_seed", ...)
    known = np.isfinite(one["rate_tried"].values)
    return one["rate_tried"].values[known], one["updates_tuning"].values[known]


def draw(found: xr.Dataset, path: Path) -> None:
    """Updates against the learning rate, a panel for each problem; then the ratios to vanilla."""
    problems = list(found["problem"].values)
    columns = max(2, (len(problems) + 2) // 2)
    figure = Figure(figsize=(4.8 * columns, 7.6), layout="constrained")
    grid = figure.add_gridspec(2, columns)
    for k, problem in enumerate(problems):
        draw_tuning(found, problem, figure.add_subplot(grid[divmod(k, columns)]))
    draw_ratios(found, figure.add_subplot(grid[1, max(0, len(problems) - columns) :]))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(OPTIMIZERS), frameon=False)
    figure.savefig(path, dpi=130)


def draw_tuning(found: xr.Dataset, problem: str, axes: Axes) -> None:
    """Means of the seeds for tuning, and the seeds; the best is filled."""
    axes.spines[["top", "right"]].set_visible(False)
    limit = float(found["limit"].sel(problem=problem))
    for optimizer in OPTIMIZERS:
        x, values = tried(found, problem, optimizer.name)
        means = values.mean(1)
        good = np.isfinite(means)
        for seed in values.T:
            axes.loglog(x, np.where(np.isfinite(seed), seed, np.nan), ".", color=optimizer.color, alpha=0.35)
        axes.loglog(x, np.where(good, means, np.nan), "o-", color=optimizer.color, mfc="white", ms=5)
        axes.loglog(x[~good], np.full((~good).sum(), limit), "^", mfc="none", color=optimizer.color)
        chosen = x == x[np.argmin(means)]
        axes.loglog(x[chosen], means[chosen], "o", color=optimizer.color, ms=7, label=optimizer.name)
    axes.axhline(limit, color="#999999", lw=0.8, ls=":")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.set_xlabel(r"learning rate $\eta$")
    axes.set_ylabel("updates")
    axes.set_title(problem.replace("tau_theta", r"$\tau_\theta$"), fontsize=10)


def draw_ratios(found: xr.Dataset, axes: Axes) -> None:
    """With their intervals: full over vanilla at its best learning rate, open over vanilla at a small one."""
    axes.spines[["top", "right"]].set_visible(False)
    problems = list(found["problem"].values)
    others = {o.name: (0.24 * (j - 1), o.color) for j, o in enumerate(OPTIMIZERS[1:])}
    for k, problem in enumerate(problems):
        for one in compare(found, problem)[1:]:
            place, color = others[one.optimizer]
            for (mean, low, high), face, aside in ((one.tuned, color, -0.05), (one.slow, "none", 0.05)):
                if np.isfinite(high):
                    errors = [[mean - low], [high - mean]]
                    axes.errorbar(k + place + aside, mean, errors, fmt="o", ms=5, mfc=face, color=color, capsize=2)
    axes.axhline(1, color="#999999", lw=0.8, ls=":")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(range(len(problems)), [p.replace(", tau_theta", "\n$\\tau_\\theta$") for p in problems], fontsize=8)
    axes.set_xlim(-0.5, len(problems) - 0.5)
    axes.set_ylabel("updates / those of vanilla")
    axes.set_title(r"full: over vanilla at its best $\eta$, open: over vanilla at a small $\eta$", fontsize=9)


def table(found: xr.Dataset) -> list[str]:
    """What was chosen and found, a line for each problem and optimizer."""
    lines = []
    for problem in found["problem"].values:
        for one in compare(found, problem):
            tuned, slow = (f"{m:.2f} ({low:.2f} to {high:.2f})" for m, low, high in (one.tuned, one.slow))
            lines.append(
                f"{problem}: {one.optimizer}, eta {one.rate:g}: median {np.median(one.updates):,.4g} updates "
                f"({np.isinf(one.updates).sum()} cut off); over tuned vanilla {tuned}, over slow vanilla {slow}"
            )
        for one in compare(found, problem):
            x, values = tried(found, problem, one.optimizer)
            cells = [f"{r:g}: {v.mean():,.4g}" for r, v in zip(x, values, strict=True)]
            edge = ", the best at an edge" if values.mean(1).argmin() in (0, len(x) - 1) else ""
            lines.append(f"  {one.optimizer}, means of the seeds for tuning: {', '.join(cells)}{edge}")
    return lines


@study.command
def main(options: study.Options) -> None:
    """Measure updates to an accuracy with each optimizer at its best learning rate, and their ratios to vanilla."""
    with study.cluster(options) as address:
        found = measure(options, address)
    path = study.keep(found, "optimizers", PROBLEMS[options.size][0].circuit(OPTIMIZERS[0]).spec, options)
    draw(found, path.with_suffix(".png"))
    for line in table(found):
        print(line)


if __name__ == "__main__":
    sys.exit(cli.run(main))
