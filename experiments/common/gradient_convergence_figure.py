"""The figure of gradient_convergence.py: in every panel the measurement (median, band of all seeds) and the law (dashed)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from common.node_or_weight import NODE_OR_WEIGHT
from common.published import until_15_degrees
from mgdcircuits.analysis.theory import Convergence

COLORS = {"weight": "#c2571a", "node": "#1f5fa8", NODE_OR_WEIGHT: "#8b4fb0"}
NAMES = {"weight": "weights", "node": "nodes", NODE_OR_WEIGHT: "nodes or weights"}
TITLES = {
    "weight": "weight perturbation, layer by layer",
    "node": "node perturbation, layer by layer",
    NODE_OR_WEIGHT: "nodes or weights of a layer, whichever are fewer",
}
SHADES = {
    "weight": {1: "#f2a65a", 2: "#d9722b", 4: "#a8431a", 8: "#5f1f0d", 16: "#2b0d05", 32: "#000000"},
    "node": {1: "#7fb2e5", 2: "#3f83c7", 4: "#1f5fa8", 8: "#12375f", 16: "#081a30", 32: "#000000"},
    NODE_OR_WEIGHT: {1: "#c9a3e0", 2: "#8b4fb0", 4: "#4d2466", 8: "#2f1540", 16: "#180a20", 32: "#000000"},
}


def draw(found: xr.Dataset, path: Path) -> None:
    """Eight panels into a file."""
    figure = Figure(figsize=(19.5, 8.4), layout="constrained")
    axes = figure.subplots(2, 4)
    cases = [found.isel(case=k) for k in range(found.sizes["case"])]
    plain = [one for one in cases if is_plain(one)]
    for column, rule in enumerate(COLORS):
        angles(axes[0, column], [one for one in plain if one["rule"] == rule], rule)
    lengths(axes[0, 3], plain)
    for column, rule in enumerate(("weight", NODE_OR_WEIGHT)):
        measured = [one for one in plain if one["rule"] == rule and _measured(one) > 1]
        layers(axes[1, column], max(measured, key=lambda one: float(one["iteration"].max()), default=None))
    sizes(axes[1, 2], plain)
    classes(axes[1, 3], cases)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.set_visible(one.has_data())  # --quick measures few rules
    figure.suptitle("Gradient convergence of multiplexed gradient descent: solid, points: measured; dashed: predicted")
    figure.savefig(path, dpi=110)


def is_plain(one: xr.Dataset) -> bool:
    """Whether a case has all classes, and pixels as they are, so that it can be compared with the published ones."""
    return int(one["classes"]) == 10 and not float(one["dither"])


def _measured(one: xr.Dataset) -> int:
    return int(np.isfinite(one["k_eff"]).sum())


def _shade(one: xr.Dataset) -> str:
    return SHADES[str(one["rule"].values)][int(one["d"])]


def _name(one: xr.Dataset) -> str:
    return f"{NAMES[str(one['rule'].values)]}, d = {int(one['d'])}"


def _law(one: xr.Dataset, seed: int) -> Convergence:
    across, along = (float(one[f"predicted_{name}"][seed]) for name in ("k_eff", "along"))
    return Convergence(across, along, 1.0)


def _rows(one: xr.Dataset) -> np.ndarray:
    return np.flatnonzero(np.isfinite(one["iteration"].values))


def _band(axes: Axes, n: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    axes.fill_between(n, values.min(1), values.max(1), color=color, alpha=0.15, linewidth=0)
    axes.plot(n, np.median(values, axis=1), color=color, label=label)


def _degrees(cosine: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def angles(axes: Axes, cases: list[xr.Dataset], rule: str) -> None:
    """Angle of the whole network over iterations, with the law of the same seeds."""
    for one in cases:
        count = _measured(one)
        if not count:
            continue
        rows = _rows(one)
        n = one["iteration"].values[rows]
        label = f"d = {int(one['d'])}, {count} seed" + ("s" if count > 1 else "")
        _band(axes, n, _degrees(one["cosine"].values[rows, :count]), _shade(one), label)
        law = np.median([_law(one, k).degrees(n) for k in range(count)], axis=0)
        axes.plot(n, law, color=_shade(one), linestyle="--")
    if not axes.has_data():
        return
    axes.axhline(15, color="k", linewidth=0.6, linestyle=":")
    axes.set(xscale="log", ylim=(0, 92), xlabel="iterations", ylabel="angle to the exact gradient (°)")
    axes.set_title(TITLES[rule], fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def lengths(axes: Axes, cases: list[xr.Dataset]) -> None:
    """Length of the estimate over that of the gradient."""
    for one in cases:
        count = _measured(one)
        if not count or int(one["d"]) > 2:
            continue
        rows = _rows(one)
        n = one["iteration"].values[rows]
        _band(axes, n, one["norm_ratio"].values[rows, :count], _shade(one), _name(one))
        axes.plot(
            n, np.median([_law(one, k).norm_ratio(n) for k in range(count)], 0), color=_shade(one), linestyle="--"
        )
    axes.axhline(1, color="k", linewidth=0.6, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="iterations", ylabel="|estimate| / |gradient|")
    axes.legend(frameon=False, fontsize=8)


def layers(axes: Axes, one: xr.Dataset | None) -> None:
    """Angle within each layer."""
    if one is None:
        return
    rows, count = _rows(one), _measured(one)
    n = one["iteration"].values[rows]
    names = one["block"].values
    for k, name in enumerate(names):
        color = f"C{k}"
        measured = _degrees(one["block_cosine"].values[rows, :count, k])
        axes.plot(n, np.median(measured, axis=1), color=color, label=str(name))
        law = [Convergence(float(v), 0, 1).degrees(n) for v in one["predicted_block_k_eff"].values[:count, k]]
        axes.plot(n, np.median(law, axis=0), color=color, linestyle="--", linewidth=1)
    axes.set(xscale="log", ylim=(0, 92), xlabel="iterations", ylabel="angle within the layer (°)")
    axes.set_title(f"each layer, {_name(one)}", fontsize=10)
    axes.legend(frameon=False, fontsize=7, ncols=2)


def _seeds(axes: Axes, one: xr.Dataset, x: float, color: str) -> None:
    """Iterations to 15 degrees of each measured seed, open where they follow from its measured noise."""
    reached = one["degrees_15_reached"].values > 0
    until = one["degrees_15"].values
    for mask, fill in ((reached, color), (~reached & np.isfinite(until), "none")):
        axes.plot(
            np.full(mask.sum(), x), until[mask], "o", color=color, markersize=4, markerfacecolor=fill, linewidth=0
        )


def _to_15(axes: Axes, cases: list[xr.Dataset], over: str, rule: str) -> None:
    """Iterations to 15 degrees by the law, with quartiles of seeds, and those of each measured seed."""
    x, color = [float(one[over]) for one in cases], COLORS[rule]
    law = np.array([one["predicted_degrees_15"].quantile([0.25, 0.5, 0.75]).values for one in cases])
    axes.fill_between(x, law[:, 0], law[:, 2], color=color, alpha=0.12, linewidth=0)
    axes.plot(x, law[:, 1], "x--", color=color, label=f"{NAMES[rule]}: law, quartiles of seeds")
    for place, one in zip(x, cases, strict=True):
        _seeds(axes, one, place, color)


def sizes(axes: Axes, cases: list[xr.Dataset]) -> None:
    """Iterations to 15 degrees over N, with the published quartiles."""
    parameters = {int(one["d"]): float(one["n_parameters"]) for one in cases}
    for rule in COLORS:
        chosen = [one for one in cases if one["rule"] == rule]
        if not chosen:
            continue
        _to_15(axes, chosen, "n_parameters", rule)
        theirs = {d: quartiles for (of, d), quartiles in until_15_degrees().items() if of == rule and d in parameters}
        if theirs:
            x = np.array([parameters[d] for d in theirs]) * 1.25
            low, middle, high = np.array(list(theirs.values())).T
            bars = [middle - low, high - middle]
            axes.errorbar(x, middle, bars, color="k", marker="s" if rule == "weight" else "^", markersize=8, linewidth=0,
                          markerfacecolor="none", elinewidth=1, zorder=5,
                          label=f"{NAMES[rule]}: published quartiles")  # fmt: skip
    axes.plot([], [], "o", color="grey", markersize=4, label="seed, reached")
    axes.plot([], [], "o", color="grey", markersize=4, markerfacecolor="none", label="seed, from its measured noise")
    axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel="iterations to 15°")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, fontsize=7)


def classes(axes: Axes, cases: list[xr.Dataset]) -> None:
    """Iterations to 15 degrees over the number of classes, at d = 1."""
    for rule in COLORS:
        chosen = [one for one in cases if one["rule"] == rule and int(one["d"]) == 1 and not float(one["dither"])]
        chosen.sort(key=lambda one: int(one["classes"]))
        if not chosen:
            continue
        _to_15(axes, chosen, "classes", rule)
    axes.set(yscale="log", xlabel="classes", ylabel="iterations to 15°")
    axes.set_xticks(sorted({int(one["classes"]) for one in cases}))
    axes.set_title("d = 1", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
