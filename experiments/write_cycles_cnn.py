"""Updates and iterations against tau_theta for the convolutional network of figure 5 of arXiv 2501.15403, at smaller widths.

python experiments/write_cycles_cnn.py --quick
python experiments/write_cycles_cnn.py --full --out experiments/results

The published settings: weight perturbation layer by layer, batches of 100, tau_x = tau_theta, steps of normalised length, eta =
0.01. And with eta tuned at each tau_theta: candidates race on the first seed, each cut off when it is slower than the best so
far; the winner is reported on other seeds, and on a wider network. Stopped with Ctrl-C, the same command goes on where it was.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import study
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import mgdcircuits as mgd
from mgdcircuits import cli

NETLIST = study.FOLDER.parent / "netlists" / "fashion_mnist_cnn_paper.yaml"
GOALS = (0.2, 0.4, 0.6)


@dataclass(frozen=True)
class Size:
    """What is run. Runs end at a goal, or are cut off after `most` iterations times root tau_theta; `row` is between rows, at
    tau_theta = 1."""

    width: int
    windows: tuple[int, ...]
    fixed: float
    fixed_seeds: dict[int, int]
    fixed_goal: float
    fixed_most: int
    fixed_row: int
    candidates: tuple[float, ...]
    start: float
    tuned_seeds: int
    tuned_goal: float
    tuned_most: int
    tuned_row: int
    wider: dict[int, tuple[int, ...]]


SIZES = {
    "quick": Size(
        width=1, windows=(1, 10),
        fixed=0.15, fixed_seeds={1: 1, 10: 1}, fixed_goal=0.4, fixed_most=1_500, fixed_row=150,
        candidates=(0.3, 0.6), start=0.3, tuned_seeds=1, tuned_goal=0.4, tuned_most=500, tuned_row=60, wider={},
    ),
    "full": Size(
        width=4, windows=(1, 3, 10, 30, 100),
        fixed=0.01, fixed_seeds={1: 2, 10: 2, 100: 1}, fixed_goal=0.4, fixed_most=5_000, fixed_row=100,
        candidates=(0.1, 0.3, 1, 3), start=0.3, tuned_seeds=2, tuned_goal=0.6, tuned_most=1_500, tuned_row=10,
        wider={},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One line of the figure: a width, how eta was chosen, and for every tau_theta eta and a row of iterations to each goal."""

    width: int
    how: str
    etas: dict[int, float]
    limits: dict[int, int]
    iterations: dict[int, list[np.ndarray]]


class Runs:
    """Trains, or reads what was trained before."""

    def __init__(self, options: study.Options) -> None:
        self.options = options
        self.data = mgd.datasets.load("fashion_mnist")

    def to(self, goal: float, width: int, window: int, eta: float, seed: int, most: int, row: int) -> np.ndarray:
        """Iterations to each of GOALS: infinite if it was cut off before, no number beyond the goal that ended it."""
        circuit = mgd.load(NETLIST, d=width, eta=eta, tau_x=f"{window}*iteration", tau_theta=f"{window}*iteration")
        run = study.trained(
            f"write_cycles_cnn_{self.options.size}_{width}_{window}_{eta:g}_{seed}", circuit, self.options,
            data=self.data, seed=seed, iterations=most, evaluate_every=rows(row, window),
            until=f"accuracy_test >= {goal}",
        )  # fmt: skip
        return np.where(np.array(GOALS) <= goal, study.iterations_to(run, GOALS).values, np.nan)


def rows(at_one: float, window: int) -> int:
    """Iterations between rows, in whole windows: so many at tau_theta = 1, more as the root of tau_theta."""
    return window * max(1, round(at_one / window**0.5))


def whole(most: float, window: int) -> int:
    """Iterations, in whole windows."""
    return max(1, int(most // window)) * window


def fixed(size: Size, runs: Runs) -> Series:
    """The first seeds at the fixed learning rate, as many as each tau_theta has."""
    limits = {w: whole(size.fixed_most * w**0.5, w) for w in size.fixed_seeds}
    found = {
        w: [
            runs.to(size.fixed_goal, size.width, w, size.fixed, runs.options.seed + s, limits[w], size.fixed_row)
            for s in range(seeds)
        ]
        for w, seeds in size.fixed_seeds.items()
    }
    return Series(size.width, "fixed", dict.fromkeys(found, size.fixed), limits, found)


def race(size: Size, runs: Runs, window: int, eta: float) -> float:
    """The best candidate on the first seed: from `eta` upwards while it gets faster, else downwards."""
    tried, seed = size.candidates, runs.options.seed
    left = whole(size.tuned_most * window**0.5, window)

    def needed(k: int) -> float:
        found = runs.to(size.tuned_goal, size.width, window, tried[k], seed, left, size.tuned_row)
        return found[GOALS.index(size.tuned_goal)]

    k = tried.index(eta)
    left = whole(min(needed(k), left), window)
    for way in (1, -1):
        while 0 <= k + way < len(tried) and (found := needed(k + way)) < left:
            k, left = k + way, whole(found, window)
        if tried[k] != eta:
            break
    return tried[k]


def tuned(size: Size, runs: Runs) -> list[Series]:
    """The winner of each race on seeds that it has not seen; then the same learning rates in wider networks."""
    etas: dict[int, float] = {}
    for window in size.windows:
        etas[window] = race(size, runs, window, next(reversed(etas.values()), size.start))
    limits = {w: whole(2 * size.tuned_most * w**0.5, w) for w in size.windows}
    found = []
    for width, windows in {size.width: size.windows, **size.wider}.items():
        first = runs.options.seed + 1
        seeds = range(first, first + (size.tuned_seeds if width == size.width else 1))
        reached = {
            w: [runs.to(size.tuned_goal, width, w, etas[w], s, limits[w], size.tuned_row) for s in seeds]
            for w in windows
        }
        found.append(Series(width, "tuned", {w: etas[w] for w in windows}, {w: limits[w] for w in windows}, reached))
    return found


def dataset(every_series: list[Series]) -> xr.Dataset:
    """(series, tau_theta, seed, goal); where nothing was run there is no number."""
    windows = sorted({w for one in every_series for w in one.iterations})
    seeds = max(len(rows) for one in every_series for rows in one.iterations.values())
    shape = (len(every_series), len(windows))
    eta, limit = np.full((2, *shape), np.nan)
    iterations = np.full((*shape, seeds, len(GOALS)), np.nan)
    for k, one in enumerate(every_series):
        for window, rows in one.iterations.items():
            j = windows.index(window)
            eta[k, j], limit[k, j] = one.etas[window], one.limits[window]
            iterations[k, j, : len(rows)] = rows
    dims = ("series", "tau_theta")
    found = xr.Dataset(
        {"iterations": ((*dims, "seed", "goal"), iterations), "eta": (dims, eta), "limit": (dims, limit)},
        {
            "series": [f"d = {one.width}, eta {one.how}" for one in every_series],
            "d": ("series", [one.width for one in every_series]),
            "tau_theta": windows,
            "goal": list(GOALS),
        },
    )
    found["updates"] = found["iterations"] / found["tau_theta"]
    return found


def published(goal: float, most: float = np.inf) -> np.ndarray:
    """tau_theta, updates and iterations to a goal in figure 5, up to a tau_theta."""
    names = ("tau_theta", f"updates_to_{goal:.0%}_test".replace("%", ""), f"iters_to_{goal:.0%}_test".replace("%", ""))
    with (study.PUBLISHED / "fig5.csv").open() as file:
        rows = [[float(row[n]) for n in names] for row in csv.DictReader(file) if row[names[1]]]
    return np.array([row for row in rows if row[0] <= most])


def points(one: xr.Dataset, name: str, goal: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tau_theta, values (tau_theta, seed) and where runs were cut off, of one series; nothing where nothing was run."""
    values = one[name].sel(goal=goal).dropna("tau_theta", how="all").dropna("seed", how="all")
    tau = values["tau_theta"].values.astype(float)
    cut = one["limit"].sel(tau_theta=values["tau_theta"]).values / (tau if name == "updates" else 1)
    return tau, values.transpose("tau_theta", "seed").values, cut


def exponent(tau: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Of one power law for all seeds, each with its own factor, and a 95 % interval (Student's t).

    There are too few seeds to draw them anew. A tau_theta where a run was cut off is left out.
    """
    good = ~np.isinf(values).any(1)
    xs, ys = [], []
    for column in values[good].T:
        known = np.isfinite(column)
        x, y = np.log(tau[good][known]), np.log(column[known])
        xs.append(x - x.mean())
        ys.append(y - y.mean())
    x, y = np.concatenate(xs), np.concatenate(ys)
    free = len(x) - len(xs) - 1
    if free < 1:
        return (np.nan,) * 3
    slope = (x @ y) / (x @ x)
    width = stats.t.ppf(0.975, free) * np.sqrt(((y - slope * x) ** 2).sum() / free / (x @ x))
    return slope, slope - width, slope + width


def draw(found: xr.Dataset, path: Path) -> None:
    """Updates and iterations against tau_theta, a row for each goal: seeds and geometric means; open triangles: cut off."""
    goals = [g for g in GOALS[1:] if found["iterations"].sel(goal=g).notnull().any()]
    figure = Figure(figsize=(10.4, 4 * len(goals)), layout="constrained")
    colors = ("#c2571a", "#1f5fa8", "#3d8a4d")
    for row, goal in enumerate(goals):
        theirs = published(goal, 30 * found["tau_theta"].values.max())
        for k, name in enumerate(("updates", "iterations")):
            axes = figure.add_subplot(len(goals), 2, 2 * row + k + 1)
            axes.spines[["top", "right"]].set_visible(False)
            axes.loglog(
                theirs[:, 0], theirs[:, 1 + k], "x:", color="#999999", label="published, d = 24, $\\eta$ = 0.01"
            )
            for label, color in zip(found["series"].values, colors, strict=False):
                tau, values, cut = points(found.sel(series=label), name, goal)
                if not len(tau):
                    continue
                means = np.exp(np.nanmean(np.log(values), 1))
                good = np.isfinite(means)
                slope, low, high = exponent(tau, values)
                for seed in values.T:
                    axes.loglog(tau, np.where(np.isfinite(seed), seed, np.nan), ".", color=color, alpha=0.4)
                text = label.replace("eta", "$\\eta$") + (
                    f": {slope:.2f} ({low:.2f}, {high:.2f})" if low < high else ""
                )
                axes.loglog(tau[good], means[good], "o-", color=color, label=text)
                axes.loglog(tau[~good], cut[~good], "^", mfc="none", color=color)
            axes.set_xlabel("$\\tau_\\theta$ (iterations)")
            axes.set_ylabel(f"{name} to {goal:.0%} test accuracy")
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def table(found: xr.Dataset) -> list[str]:
    """Exponents with intervals, the published ones over the same tau_theta, and all runs."""
    lines = []
    for label in found["series"].values:
        for goal in GOALS:
            one = found.sel(series=label)
            tau, values, _ = points(one, "updates", goal)
            if len(tau) < 2:
                continue
            slope, low, high = exponent(tau, values)
            known = np.polyfit(*np.log(published(goal, tau.max())[:, :2].T), 1)[0]
            law = (
                f"exponent of updates {slope:.2f} ({low:.2f} to {high:.2f}); published {known:.2f}"
                if low < high
                else ""
            )
            lines.append(f"{label}, {goal:.0%}: {law}")
            for t, row, eta in zip(tau, values, one["eta"].sel(tau_theta=tau).values, strict=True):
                row = row[~np.isnan(row)]
                updates, iterations = (", ".join(f"{v:,.0f}" for v in each) for each in (row, row * t))
                lines.append(f"  tau_theta {t:g}, eta {eta:g}: {updates} updates; {iterations} iterations")
    return lines


@study.command
def main(options: study.Options) -> None:
    """Measure updates and iterations to an accuracy against tau_theta, and draw them beside the published ones."""
    size, runs = SIZES[options.size], Runs(options)
    found = dataset([fixed(size, runs), *tuned(size, runs)])
    path = study.keep(found, "write_cycles_cnn", mgd.load(NETLIST, d=size.width).spec, options)
    draw(found, path.with_suffix(".png"))
    for line in table(found):
        print(line)


if __name__ == "__main__":
    sys.exit(cli.run(main))
