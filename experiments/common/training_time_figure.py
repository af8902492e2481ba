"""The figures of training_time.py and training_time_tuned.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from common import study
from common.node_or_weight import NODE_OR_WEIGHT

COLORS = {
    "backprop": "#3d8a4d",
    "node": "#1f5fa8",
    "node_own_codes": "#7fb3e6",
    NODE_OR_WEIGHT: "#8b4fb0",
    "weight": "#c2571a",
}
# so that points of one width do not lie on each other
ASIDE = {"backprop": 0.93, "node": 1.0, "node_own_codes": 1.22, NODE_OR_WEIGHT: 1.15, "weight": 1.075}
LABELS = {"node_own_codes": "node, own codes", NODE_OR_WEIGHT: "node or weight"}
PUBLISHED_RULES = ("backprop", "node", "weight")


def bound(iterations: np.ndarray, done: np.ndarray) -> tuple[float, bool]:
    """The median over seeds, and whether it is known: otherwise the median is larger than this, where runs were cut off."""
    tried = ~np.isnan(iterations)
    if not tried.any():
        return np.nan, False
    iterations, done = iterations[tried], done[tried]
    least = float(np.median(np.where(np.isfinite(iterations), iterations, done)))
    return least, bool(np.median(iterations) == least)


def points(
    axes: Axes, x: float, iterations: np.ndarray, done: np.ndarray, color: str, scale: float = 1.0, across: bool = False
) -> None:
    """Seeds as dots, open triangles where they were cut off, and the median; `across`: iterations to the right."""
    triangle = ">" if across else "^"

    def plot(values: np.ndarray, marker: str, **how: Any) -> None:
        places = np.full(len(values), x), values / scale
        axes.plot(*(reversed(places) if across else places), marker, color=color, **how)

    plot(iterations[np.isfinite(iterations)], ".", alpha=0.5)
    plot(done[np.isinf(iterations)], triangle, mfc="none", mew=0.8, ms=4)
    middle, known = bound(iterations, done)
    plot(np.array([middle]), "o" if known else triangle, mfc=color if known else "none", ms=7)


def _finish(axes: Axes, found: xr.Dataset) -> None:
    axes.set_xscale("log")
    n = found["n_parameters"].values
    axes.set_xticks(n, [f"{v:,}\nd = {d}" for v, d in zip(n, found["d"].values, strict=True)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(n[0] / 1.6, n[-1] * 1.6)
    axes.set_xlabel("parameters")
    axes.spines[["top", "right"]].set_visible(False)


def draw_fixed(found: xr.Dataset, path: Path) -> None:
    """Above iterations to each goal that any run has reached, beside the published quartiles; below ours over the published."""
    reached = [goal for goal in found["goal"].values if np.isfinite(found["iterations"].sel(goal=goal)).any()]
    goals = reached or list(found["goal"].values[:1])
    figure = Figure(figsize=(4.6 * len(goals), 7.2), layout="constrained")
    axes = figure.subplots(2, len(goals), squeeze=False, height_ratios=(3, 2))
    for k, goal in enumerate(goals):
        above, below = axes[:, k]
        for rule in found["rule"].values:
            color = COLORS[rule]
            for d, n in zip(found["d"].values, found["n_parameters"].values, strict=True):
                one = found.sel(rule=rule, d=d)
                iterations, done = one["iterations"].sel(goal=goal).values, one["done"].values
                low, middle, high = one["published"].sel(goal=goal).values
                if rule in PUBLISHED_RULES:
                    above.errorbar(
                        n * ASIDE[rule] / 1.2, middle, [[middle - low], [high - middle]],
                        fmt="x", color=color, alpha=0.6, capsize=3,
                    )  # fmt: skip
                if not np.isnan(iterations).all():
                    points(above, n * ASIDE[rule], iterations, done, color)
                    points(below, n * ASIDE[rule], iterations, done, color, middle)
            above.plot([], [], "o", color=color, label=LABELS.get(rule, rule))
        above.plot([], [], "kx", label="published at 1e-3, quartiles")
        above.plot([], [], "k^", mfc="none", label="cut off there")
        below.axhspan(0.75, 1.25, color="#cccccc", alpha=0.5, lw=0, label="published median ± 25 %")
        above.set(
            yscale="log", ylabel="iterations", title=f"{goal:.0%} test accuracy, $\\eta$ = {found.attrs['eta']:g}"
        )
        below.set(yscale="log", ylabel="ours / published median")
        below.set_yticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
        below.yaxis.set_minor_formatter(NullFormatter())
        for one in (above, below):
            _finish(one, found)
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[1, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def at_best(found: xr.Dataset) -> xr.Dataset:
    """Of a study of tuned learning rates the runs that are reported, at the rates that were chosen: (rule, d, seed, ...), and
    `eta` of (rule, d)."""
    found = found.reindex(tuning=[False, True])  # at first none are reported
    times = found["iterations"].sel(tuning=True).isel(goal=-1, drop=True).dropna("seed", how="all")
    first = (times.max("seed") + 1e-6 * times.mean("seed")).where(np.isfinite(times).all("seed"))
    chosen = first.idxmin("eta")
    reported = found.sel(tuning=False).map(
        lambda each: each.where(each["eta"] == chosen).max("eta") if "eta" in each.dims else each
    )
    return reported.assign(eta=chosen).dropna("seed", how="all", subset=["done"])


def draw_tuned(found: xr.Dataset, path: Path) -> None:
    """Against size: iterations at tuned learning rates, their ratios to backpropagation's, and the learning rates."""
    goal, tried = float(found["goal"][0]), found["eta"].values
    found = at_best(found)
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    times, ratios, rates = figure.subplots(1, 3)
    n = found["n_parameters"].values
    theirs = found["published"].sel(goal=goal, quartile=0.5)
    for rule in found["rule"].values:
        color, one = COLORS[rule], found.sel(rule=rule, goal=goal)
        values = one["iterations"].transpose("d", "seed").values
        for k, row in enumerate(values):
            points(times, n[k] * ASIDE[rule], row, one["done"].values[k], color)
        bounds = [bound(row, done) for row, done in zip(values, one["done"].values, strict=True)]
        times.plot(n * ASIDE[rule], [median if known else np.nan for median, known in bounds], color=color, lw=1)
        slope, low, high = study.exponent(n.astype(float), values)
        law = f": $N^{{{slope:.2f}}}$ ({low:.2f} to {high:.2f})" if np.isfinite(slope) else ""
        fitted = [str(d) for d, row in zip(found["d"].values, values, strict=True) if np.isfinite(study.median(row))]
        if law and len(fitted) < len(values):
            law += f", d = {', '.join(fitted)}"
        times.plot([], [], "o-", color=color, label=LABELS.get(rule, rule) + law)
        rates.plot(n * ASIDE[rule], one["eta"], "o-", color=color, label=LABELS.get(rule, rule))
        if rule in PUBLISHED_RULES:
            times.plot(n, theirs.sel(rule=rule), "x:", color=color, alpha=0.6)
        if rule != "backprop" and "backprop" in found["rule"]:
            middle, low, high = np.array([ratio(found, rule, d) for d in found["d"].values]).T
            ratios.errorbar(n * ASIDE[rule], middle, [middle - low, high - middle], fmt="o-", color=color, capsize=3)
            ratios.plot([], [], "o-", color=color, label=f"{LABELS.get(rule, rule)} / backprop, $\\eta$ tuned")
            if rule in PUBLISHED_RULES:
                ratios.plot(n, theirs.sel(rule=rule) / theirs.sel(rule="backprop"), "x:", color=color, alpha=0.6)
    for axes in (times, ratios):
        axes.plot([], [], "kx:", label="published, $\\eta$ = 1e-3")
        axes.set_yscale("log")
    times.plot([], [], "k.", alpha=0.5, label="a seed")
    times.plot([], [], "k^", mfc="none", label="cut off there: small a seed, large the median")
    times.set_ylim(top=times.get_ylim()[1] * 100)  # room for the legend
    times.set(ylabel=f"iterations to {goal:.0%} test accuracy", title="$\\eta$ tuned at each size")
    ratios.set(ylabel=f"ratio of iterations to {goal:.0%}", title="against backpropagation (bars: 95 %)")
    rates.set(yscale="log", ylabel="$\\eta$", title="the tuned $\\eta$ (ticks: what was tried)")
    rates.set_yticks(tried, [f"{rate:g}" for rate in tried])
    rates.set_ylim(tried.min() / 1.5, tried.max() * 1.5)
    rates.yaxis.set_minor_formatter(NullFormatter())
    for axes in (times, ratios, rates):
        _finish(axes, found)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def ratio(found: xr.Dataset, rule: str, d: int, draws: int = 2000) -> tuple[float, float, float]:
    """Median iterations of a rule over those of backpropagation, with a 95 % interval from seeds drawn anew.

    Seeds that were cut off count with the iterations that they had done, so that the upper end is then a lower bound.
    """
    both = [found.sel(rule=r, d=d).isel(goal=0) for r in (rule, "backprop")]
    if not all(bound(one["iterations"].values, one["done"].values)[1] for one in both):
        return (np.nan,) * 3
    known = [one["iterations"].where(~np.isinf(one["iterations"]), one["done"]).dropna("seed").values for one in both]
    rng = np.random.default_rng(0)
    drawn = [np.divide(*(study.median(rng.choice(row, len(row))) for row in known)) for _ in range(draws)]
    return (study.median(known[0]) / study.median(known[1]), *np.percentile(drawn, [2.5, 97.5]))
