"""The figure of a plan: time against writes, and accuracy against tau_theta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mgdcircuits.analysis.plan import Plan
from mgdcircuits.errors import RecordError

TUNED, OTHER, FRONT, CHOSEN = "#1f5fa8", "#9aa3ad", "#c2571a", "#3d8a4d"


def plot(found: Plan, out: str | Path | None = None) -> Figure:
    """Draw a plan.

    Raises
    ------
    RecordError
        A format that matplotlib cannot write; a folder that does not exist.
    """
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    goal = "" if found.target is None else f", to {found.target:.0%}"
    figure.suptitle(f"{found.circuit}{goal}", fontsize=10)
    trade, reached = figure.subplots(1, 2)
    for axes in (trade, reached):
        axes.spines[["top", "right"]].set_visible(False)
    _trade(trade, found)
    _reached(reached, found)
    if out is not None:
        try:
            figure.savefig(out, dpi=150)
        except (OSError, ValueError) as error:
            raise RecordError(f"{out}: the figure cannot be written: {error}") from error
    return figure


def _trade(axes, found: Plan) -> None:
    usable = [o for o in found.options if o.enough]
    if usable:
        axes.set(xscale="log", yscale="log")
        _limit(axes.set_xlim, [o.seconds for o in usable])
        _limit(axes.set_ylim, [o.writes_max for o in usable])
    for tuned, color, label in ((True, TUNED, "eta tuned"), (False, OTHER, "eta not tuned")):
        own = [o for o in usable if o.tuned is tuned]
        if own:
            axes.scatter([o.seconds for o in own], [o.writes_max for o in own], color=color, label=label, zorder=3)
    front = sorted(found.front, key=lambda o: o.seconds)
    if len(front) > 1:
        axes.plot([o.seconds for o in front], [o.writes_max for o in front], color=FRONT, lw=1, label="Pareto front")
    for o in usable:
        axes.annotate(f"{o.period}", (o.seconds, o.writes_max), (5, 4), textcoords="offset points", fontsize=8)
    lives = [o.endurance for o in usable if np.isfinite(o.endurance)]
    most = max((o.writes_max for o in usable), default=1)
    if lives and min(lives) < 100 * most:  # a line far above the points says less than the table
        axes.axhline(min(lives), color="black", ls=":", lw=1, label="a device's endurance")
    if found.best is not None:
        at = (found.best.seconds, found.best.writes_max)
        axes.scatter(*at, s=160, facecolors="none", edgecolors=CHOSEN, linewidths=1.8, label="recommended", zorder=4)
    if usable:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("time on the hardware (s)")
    axes.set_ylabel("writes of the most written device")
    axes.set_title("numbers: tau_theta in iterations", fontsize=9)


def _limit(set_limits: Callable[..., object], values: Sequence[float]) -> None:
    """Limits of a logarithmic axis with a single value: a decade to either side; others are matplotlib's."""
    if len(set(values)) == 1 and values[0] > 0:
        set_limits(values[0] / 10, values[0] * 10)


def _reached(axes, found: Plan) -> None:
    periods = [o.period for o in found.options]
    axes.plot(periods, [100 * o.accuracy for o in found.options], color=TUNED, marker="o", label="accuracy (%)")
    known = [100 * o.accuracy for o in found.options if np.isfinite(o.accuracy)] or [0, 100]
    axes.set_ylim(max(0, min(known) - 5), min(100, max(known) + 5))
    _limit(axes.set_xlim, periods)
    axes.set(xscale="log", xlabel="tau_theta (iterations)", ylabel="accuracy on the test set (%)")
    joules = [o.joules for o in found.options]
    if np.isfinite(joules).any():
        right = axes.twinx()
        right.spines["top"].set_visible(False)
        right.plot(periods, joules, color=FRONT, marker="s", ls="--")
        right.set(yscale="log")
        _limit(right.set_ylim, joules)
        right.set_ylabel("energy (J)", color=FRONT)
