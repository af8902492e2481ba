"""The figure and the table of write_cycles_cnn.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from common import published

COLORS = {0.01: "#7a5195", 0.03: "#1f5fa8", 0.1: "#3d8a4d", 0.3: "#d98c1f", 1: "#c2321a"}
RAISED = {1: 0.03, 10: 0.1, 100: 0.3, 1000: 1}
Law = tuple[float, float, float]
Line = tuple[np.ndarray, np.ndarray]


def lines(values: xr.DataArray) -> list[Line]:
    """tau_theta and finite values of each learning rate and seed that has two or more."""
    tau = values["tau_theta"].values.astype(float)
    if not len(tau):
        return []
    rows = values.stack(line=[dim for dim in values.dims if dim != "tau_theta"]).transpose("line", "tau_theta").values
    return [(tau[good], row[good]) for row in rows if (good := np.isfinite(row)).sum() > 1]


def exponent(every: list[Line]) -> Law:
    """Of one power law for all lines, each with its own factor, and a 95 % interval (Student's t)."""
    logs = [(np.log(x), np.log(y)) for x, y in every]
    free = sum(len(x) - 1 for x, _ in logs) - 1
    if free < 1:
        return (np.nan,) * 3
    x, y = (np.concatenate([one[k] - one[k].mean() for one in logs]) for k in (0, 1))
    slope = (x @ y) / (x @ x)
    width = stats.t.ppf(0.975, free) * np.sqrt(((y - slope * x) ** 2).sum() / free / (x @ x))
    return slope, slope - width, slope + width


def over_the_same(every: list[Line], goal: float, column: int) -> float:
    """The published exponent over the same tau_theta, each counted as often as in our lines."""
    theirs = {row[0]: row[column] for row in published.writes(goal)}
    return exponent([(x, np.array([theirs[tau] for tau in x])) for x, _ in every])[0]


def raised(one: xr.Dataset) -> xr.Dataset:
    """The runs whose learning rate rises nearly as the root of tau_theta, from 0.03 on."""
    at = {tau: eta for tau, eta in RAISED.items() if tau in one["tau_theta"] and eta in one["eta"]}
    tau, eta = (xr.DataArray(list(values), dims="tau_theta") for values in (at.keys(), at.values()))
    return one.sel(tau_theta=tau, eta=eta) if at else one.isel(tau_theta=[], eta=0)


def words(law: Law) -> str:
    """An exponent with its interval."""
    slope, low, high = law
    return f"{slope:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(slope) else ""


def draw_line(axes: Axes, one: xr.Dataset, name: str, color: str, label: str) -> None:
    """A learning rate: seeds as dots, open triangles where they were cut off or stopped, a line through geometric means."""
    tau = one["tau_theta"].values.astype(float)
    values, done = one[name].transpose("tau_theta", "seed").values, one["done"].transpose("tau_theta", "seed").values
    done = done / (tau[:, None] if name == "updates" else 1)
    for value, cut in zip(values.T, done.T, strict=True):
        axes.loglog(tau, np.where(np.isfinite(value), value, np.nan), ".", color=color, alpha=0.6)
        axes.loglog(tau, np.where(np.isinf(value), cut, np.nan), "^", mfc="none", ms=5, color=color)
    means = geometric_means(one[name])
    axes.loglog(means["tau_theta"], means, "-", color=color)
    axes.plot([], [], "-" if len(means) > 1 else "." if len(means) else "^", mfc="none", color=color, label=label)


def geometric_means(values: xr.DataArray) -> xr.DataArray:
    """Over the seeds that reached the goal; tau_theta at which none did are left out."""
    return np.exp(np.log(values.where(np.isfinite(values))).mean("seed")).dropna("tau_theta")


def panel(axes: Axes, found: xr.Dataset, goal: float, name: str) -> None:
    """One goal at one width: a line for each learning rate, one for those that rise with tau_theta, and the published one."""
    theirs = published.writes(goal)
    theirs = theirs[theirs[:, 0] <= 2 * found["tau_theta"].values.max()]
    values = theirs[:, 1 if name == "updates" else 2]
    axes.loglog(theirs[:, 0], values, "x:", color="#999999", label="published, d = 24, $\\eta$ = 0.01")
    one = found.sel(goal=goal)
    for eta in found["eta"].values:
        at = one.sel(eta=eta)
        if at[name].notnull().any():
            draw_line(axes, at, name, COLORS.get(eta, "#555555"), with_law(f"$\\eta$ = {eta:g}", at[name]))
    rising = raised(one)
    means = geometric_means(rising[name])
    if len(means) > 1:
        rule = f"$\\eta \\propto \\sqrt{{\\tau_\\theta}}$, {float(means['eta'][0]):g} to {float(means['eta'][-1]):g}"
        axes.loglog(means["tau_theta"], means, "--", color="#222222", label=with_law(rule, rising[name]))
    axes.set_xlabel("$\\tau_\\theta$ (iterations)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(top=axes.get_ylim()[1] * 12)  # room for the legend
    axes.legend(frameon=False, fontsize=8, loc="upper left" if name == "iterations" else "upper right")


def with_law(label: str, values: xr.DataArray) -> str:
    """A label with the exponent of its line, if there is one."""
    law = words(exponent(lines(values)))
    return f"{label}: {law}" if law else label


def shown(found: xr.Dataset) -> list[tuple[int, float]]:
    """Widths and goals that have anything to show, beyond 20 %."""
    pairs = [(d, goal) for d in found["d"].values for goal in found["goal"].values[1:]]
    return [(d, g) for d, g in pairs if np.isfinite(found["iterations"].sel(d=d, goal=g)).any()]


def draw(found: xr.Dataset, path: Path) -> None:
    """Above updates, below iterations against tau_theta; a column for each of the two highest goals of each width."""
    columns = [pair for d in found["d"].values for pair in shown(found.sel(d=[d]))[-2:]]
    columns = columns or [(found["d"].values[0], found["goal"].values[-1])]
    figure = Figure(figsize=(4.8 * len(columns), 9), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for (d, goal), (above, below) in zip(columns, axes.T, strict=True):
        above.set_title(f"d = {d}, to {goal:.0%} test accuracy")
        for each, name in ((above, "updates"), (below, "iterations")):
            panel(each, found.sel(d=d), goal, name)
            each.set_ylabel(f"{name} to {goal:.0%}")
    seed = {"color": "k", "ls": ""}
    cut = "a seed below the goal: cut off or stopped there"
    handles = [
        Line2D([], [], marker=".", label="a seed", **seed),
        Line2D([], [], marker="^", mfc="none", ms=5, label=cut, **seed),
        Line2D([], [], color="k", label="geometric mean of the seeds that reached it"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def table(found: xr.Dataset) -> Iterator[str]:
    """Exponents of updates with intervals, the published ones over the same tau_theta, and all runs."""
    for d, goal in shown(found):
        yield f"d = {d}, {goal:.0%}"
        one = found.sel(d=d, goal=goal)
        for eta in found["eta"].values:
            yield from law(f"eta = {eta:g}", lines(one["updates"].sel(eta=eta)), goal)
        yield from law("one exponent for all eta, each fixed", lines(one["updates"]), goal)
        yield from law("eta from 0.03 as the root of tau_theta", lines(raised(one)["updates"]), goal)
        for tau in found["tau_theta"].values:
            for eta in found["eta"].values:
                each = [outcome(one.sel(tau_theta=tau, eta=eta, seed=seed)) for seed in found["seed"].values]
                if any(each):
                    yield f"  tau_theta {tau}, eta {eta:g}: {', '.join(filter(None, each))}"


def law(name: str, every: list[Line], goal: float) -> Iterator[str]:
    """One line of the table, if there is an exponent."""
    if text := words(exponent(every)):
        yield f"  {name}: exponent of updates {text}; published, eta fixed: {over_the_same(every, goal, 1):.2f}"


def outcome(run: xr.Dataset) -> str:
    """Iterations and updates of a run; how far it came if it was cut off; nothing if there was none."""
    iterations, updates = run["iterations"].item(), run["updates"].item()
    if np.isnan(iterations):
        return ""
    return (
        f"{iterations:,.0f} ({updates:,.0f} updates)"
        if np.isfinite(iterations)
        else f"not in {run['done'].item():,.0f}"
    )
