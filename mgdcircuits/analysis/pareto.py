"""The figure of a plan: time against writes, and what each tau_theta reaches at which energy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mgdcircuits.analysis.plan import Option, Plan
from mgdcircuits.analysis.report import percent, si
from mgdcircuits.figures import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis

TUNED, OTHER, FRONT, CHOSEN = "#1f5fa8", "#9aa3ad", "#c2571a", "#3d8a4d"
FEW_DECADES = 2
"""Axes of fewer decades have numbers at 2 and 5 times a power of ten, too."""


def plot(found: Plan, out: str | Path | None = None) -> Figure:
    """Draw a plan.

    Raises
    ------
    RecordError
        A format that matplotlib cannot write; a folder, or one that does not exist.
    """
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    goal = "" if found.target is None else f", to {percent(found.target)}"
    figure.suptitle(f"{found.circuit}{goal}", fontsize=10)
    drawn = [o for o in found.options if o.period is not None and np.isfinite(o.accuracy)]
    powered = [o for o in drawn if np.isfinite(o.joules) and o.joules > 0]
    right = ["accuracy", "energy"] if powered else ["accuracy", "accuracy"]
    axes = figure.subplot_mosaic([["trade", right[0]], ["trade", right[1]]])
    for one in axes.values():
        one.spines[["top", "right"]].set_visible(False)
    _trade(axes["trade"], found)
    _accuracy(axes["accuracy"], drawn)
    if powered:
        axes["energy"].sharex(axes["accuracy"])
        _energy(axes["energy"], powered)
        axes["accuracy"].tick_params(labelbottom=False)
        axes["accuracy"].set_xlabel("")
    if out is not None:
        save(figure, out)
    return figure


def _trade(axes: Axes, found: Plan) -> None:
    axes.set_xlabel("time on the hardware")
    axes.set_ylabel("writes of the most written device")
    usable = [o for o in found.options if o.enough]
    positive = [o for o in usable if o.seconds > 0 and o.writes_max > 0]
    if not positive:
        _say(
            axes,
            "the accuracy is there before training" if usable else "at no tau_theta more than half of the runs do it",
        )
        return
    _logarithmic(axes.xaxis, [o.seconds for o in positive], "s")
    _logarithmic(axes.yaxis, [o.writes_max for o in positive])
    for tuned, color, label in ((True, TUNED, "eta tuned"), (False, OTHER, "eta not tuned")):
        for worn, marker, more in ((False, "o", ""), (True, "x", ", wears a device out")):
            own = [o for o in positive if o.tuned is tuned and o.worn is worn]
            if own:
                x, y = [o.seconds for o in own], [o.writes_max for o in own]
                axes.scatter(x, y, color=color, marker=marker, label=label + more, zorder=3)
    front = sorted((o for o in found.front if o in positive), key=lambda o: o.seconds)
    if len(front) > 1:
        axes.plot([o.seconds for o in front], [o.writes_max for o in front], color=FRONT, lw=1, label="Pareto front")
    for o in positive:
        axes.annotate(o.name, (o.seconds, o.writes_max), (5, 4), textcoords="offset points", fontsize=8)
    if found.best in positive:
        at = (found.best.seconds, found.best.writes_max)
        axes.scatter(*at, s=160, facecolors="none", edgecolors=CHOSEN, linewidths=1.8, label="recommended", zorder=4)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("numbers: tau_theta in iterations", fontsize=9)


def _accuracy(axes: Axes, drawn: Sequence[Option]) -> None:
    axes.set_ylabel("test accuracy (%)")
    if not drawn:
        _say(axes, "no run has an accuracy")
        return
    periods, values = [o.period or 1 for o in drawn], [100 * o.accuracy for o in drawn]
    axes.plot(periods, values, color=TUNED, marker="o", clip_on=False, zorder=3)
    worn = [(o.period or 1, 100 * o.accuracy) for o in drawn if o.worn]
    if worn:
        axes.plot(*zip(*worn, strict=True), "x", color=FRONT, ms=10, mew=2, zorder=4, label="a device is worn out")
        axes.legend(frameon=False, fontsize=8)
    axes.set_ylim(max(0, min(values) - 5), min(100, max(values) + 5))
    _logarithmic(axes.xaxis, periods)
    axes.set_xlabel("tau_theta (iterations)")


def _energy(axes: Axes, drawn: Sequence[Option]) -> None:
    periods, joules = [o.period or 1 for o in drawn], [o.joules for o in drawn]
    axes.plot(periods, joules, color=FRONT, marker="s", ls="--")
    _logarithmic(axes.yaxis, joules, "J")
    axes.set_xlabel("tau_theta (iterations)")
    axes.set_ylabel("energy")


def _say(axes: Axes, text: str) -> None:
    """Words in the place of a panel that would be empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=9)
    axes.set(xticks=[], yticks=[])


def _logarithmic(axis: XAxis | YAxis, values: Sequence[float], unit: str = "") -> None:
    """A logarithmic axis around positive values, at least a decade long, with numbers that do not touch each other."""
    low, high = min(values) / 2, max(values) * 2
    if len(set(values)) == 1:
        low, high = values[0] / 10, values[0] * 10
    elif high < 10 * low:
        middle = np.sqrt(low * high)
        low, high = middle / np.sqrt(10), middle * np.sqrt(10)
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    few = high < low * 10**FEW_DECADES
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{si(value)}{unit}" if unit else f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())
