"""The figure of architectures.py: noise measured and predicted, its ratio, training times, and circuits without a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import study
from common.architectures_cases import RULES
from common.architectures_times import ratio_interval, trained, tuned

COLORS = {
    "dense": "#c2571a",
    "sparse": "#1f5fa8",
    "convolution": "#3a7d44",
    "sequence": "#7a4fa3",
    "settled": "#c2a01a",
}
RULE_COLORS = {"weight": "#c2571a", "node": "#1f5fa8"}


def draw(found: xr.Dataset, path: Path) -> None:
    """Four panels."""
    iterations = {c: {r: tuned(found.sel(case=c, rule=r))[1] for r in RULES} for c in trained(found)}
    figure = Figure(figsize=(13, 9.6), layout="constrained")
    axes = figure.subplots(2, 2)
    known = [found.sel(case=c) for c in found["case"].values if bool(found["k_eff"].sel(case=c).notnull().any())]
    laws(axes[0, 0], known)
    ratios(axes[0, 1], known)
    times(axes[1, 0], known, iterations)
    names = [str(one["case"].values) for one in known]
    blind(axes[1, 1], {c: each for c, each in iterations.items() if c not in names}, found)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _family(one: xr.Dataset) -> str:
    return str(one["family"].values)


def laws(axes: Axes, cases: list[xr.Dataset]) -> None:
    """Measured against predicted K_eff, a dot a seed."""
    seen: set[str] = set()
    for one in cases:
        color = COLORS[_family(one)]
        for rule, fill in (("weight", color), ("node", "none")):
            pair = one.sel(rule=rule)
            label = f"{_family(one)}, {rule}" if f"{_family(one)}{rule}" not in seen else None
            seen.add(f"{_family(one)}{rule}")
            axes.plot(
                pair["predicted_k_eff"],
                pair["k_eff"],
                "o",
                markersize=4,
                color=color,
                markerfacecolor=fill,
                label=label,
            )
    limits = np.array(axes.get_xlim())
    limits = np.array([max(limits[0], 3), limits[1] * 2])
    axes.plot(limits, limits, color="k", linewidth=0.6, zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="K_eff predicted from gradients", ylabel="K_eff measured")
    axes.set_title("noise of the estimate, a dot a seed", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=2)


def ratios(axes: Axes, cases: list[xr.Dataset]) -> None:
    """K_eff of weights over that of nodes, against parameters over nodes."""
    limits = np.array([0.3, 100])
    axes.plot(limits, limits, color="k", linewidth=0.6, linestyle=":", label="as parameters to nodes")
    axes.axhline(1, color="k", linewidth=0.6)
    for one in cases:
        color = COLORS[_family(one)]
        x = float(one["n_parameters"].sel(rule="node") / one["n_nodes"].sel(rule="node"))
        measured = (one["k_eff"].sel(rule="weight") / one["k_eff"].sel(rule="node")).values
        law = float((one["predicted_k_eff"].sel(rule="weight") / one["predicted_k_eff"].sel(rule="node")).median())
        axes.plot(np.full(measured.shape, x), measured, ".", color=color, alpha=0.5)
        axes.plot(x, law, "x", color=color, markersize=8)
    for family, color in COLORS.items():
        axes.plot([], [], ".", color=color, label=family)
    axes.plot([], [], "x", color="k", label="predicted, median")
    axes.set(
        xscale="log", yscale="log", xlabel="parameters N / nodes perturbed", ylabel="K_eff of weights / K_eff of nodes"
    )
    axes.set_title("above 1 node perturbation needs fewer draws", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def times(axes: Axes, cases: list[xr.Dataset], iterations: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Ratio of training times, weights over nodes, against the ratio of K_eff."""
    axes.plot([0.3, 30], [0.3, 30], color="k", linewidth=0.6, linestyle=":", label="as K_eff")
    axes.axhline(1, color="k", linewidth=0.6)
    families, labels, bars = set(), list[tuple[float, float, str]](), list[tuple[float, float, float]]()
    for one in cases:
        name = str(one["case"].values)
        if name not in iterations:
            continue
        x = float((one["predicted_k_eff"].sel(rule="weight") / one["predicted_k_eff"].sel(rule="node")).median())
        color, limit = COLORS[_family(one)], float(one["limit"].max())
        weights, nodes = (iterations[name][rule] for rule in ("weight", "node"))
        y, low, high = ratio_interval(weights, nodes)
        marker = "o"
        if np.isfinite(y) and y > 0:
            shown = np.clip([low, high], 0.1, 50)  # beyond: a median that is not reached
            axes.plot([x, x], shown, color=color, linewidth=1)
            bars.append((x, *shown))
        elif np.isfinite(study.median(weights)) or np.isfinite(study.median(nodes)):
            marker = "^" if y > 0 else "v"
            y = min(study.median(weights), limit) / min(study.median(nodes), limit)
        else:
            continue
        families.add(_family(one))
        axes.plot(x, y, marker, color=color, markerfacecolor=color if marker == "o" else "none")
        labels.append((y, x, name.partition(", ")[2]))
    written: list[tuple[float, float]] = []
    on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for y, x, text in sorted(labels):
        struck = any(x < left < 1.9 * x and low < 1.1 * y and high > y / 1.1 for left, low, high in bars)
        if struck and x <= 30:
            axes.text(x / 1.12, y, text, fontsize=7, va="center", ha="right", bbox=on_white)
            continue
        at = 78 if x > 30 else x * 1.12  # many stand in a column on the right
        beside = [top for left, top in written if max(left, at) < 1.8 * min(left, at)]
        place = at, max([y, *(1.2 * top for top in beside if 1.2 * top < 2 * y)])
        line = {"arrowstyle": "-", "linewidth": 0.3}
        axes.annotate(text, (x, y), place, fontsize=7, va="center", arrowprops=line, bbox=on_white)
        written.append(place)
    for family in sorted(families):
        axes.plot([], [], "o", color=COLORS[family], label=family)
    axes.plot([], [], "^", mfc="none", color="grey", label="at least: weights cut off")
    axes.plot([], [], "v", mfc="none", color="grey", label="at most: nodes cut off")
    axes.set(xscale="log", yscale="log", xlim=(0.3, 300), ylim=(0.1, 50), xlabel="K_eff of weights / K_eff of nodes, predicted",
             ylabel="iterations to the goal, weights / nodes")  # fmt: skip
    axes.set_title("training, learning rates tuned; bars: 95 % of seeds drawn anew", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def blind(axes: Axes, iterations: Mapping[str, Mapping[str, np.ndarray]], found: xr.Dataset) -> None:
    """Iterations of circuits without a gradient; triangles are cut off."""
    for k, (name, each) in enumerate(iterations.items()):
        for rule, shift in (("weight", -0.12), ("node", 0.12)):
            values = each[rule]
            limit = float(found["limit"].sel(case=name, rule=rule))
            good, color = np.isfinite(values), RULE_COLORS[rule]
            axes.plot(np.full(good.sum(), k + shift), values[good], "o", color=color, alpha=0.6)
            axes.plot(np.full((~good).sum(), k + shift), np.full((~good).sum(), limit), "^", mfc="none", color=color)
            if np.isfinite(study.median(values)):
                axes.plot(k + shift, study.median(values), "_", color=color, markersize=18)
    for rule, color in RULE_COLORS.items():
        axes.plot([], [], "o", color=color, label=f"{rule} perturbation")
    axes.plot([], [], "^", mfc="none", color="grey", label="not reached: cut off here")
    axes.set_xticks(range(len(iterations)), list(iterations), fontsize=8)
    axes.set(yscale="log", ylabel="iterations to the goal", xlim=(-0.6, max(len(iterations), 1) - 0.4))
    axes.set_title("no gradient: steps and spikes, a dot a seed", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
