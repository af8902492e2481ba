"""Figures of the results: ratios to the best peer, and the roofline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.cases import Measure
from benchmarks.results import summary


def ratios(results: Iterable[dict], path: Path) -> None:
    """Bars of the ratio to the best peer, quartiles, and what is required."""
    shown = [(r["title"], summary(r)) for r in results if r["measure"] == Measure.RATIO.value]
    if not shown:
        return
    figure = Figure(figsize=(7, 0.34 * len(shown) + 1.1), layout="constrained")
    axes = figure.subplots()
    rows = range(len(shown))
    value, plain = [s.value for _, s in shown], [(k, s.plain.median) for k, (_, s) in enumerate(shown) if s.plain]
    required = [(k, s.required) for k, (_, s) in enumerate(shown) if s.required is not None]
    medians = [v.median for v in value]
    errors = [[v.median - v.low for v in value], [v.high - v.median for v in value]]
    widths = [m - 1 for m in medians]
    axes.barh(rows, widths, left=1, height=0.6, color="#4c78a8", xerr=errors, error_kw={"lw": 1}, label="best peer")
    axes.plot(
        [x for _, x in plain], [k for k, _ in plain], "o", color="#9ecae9", mec="#333333", ms=5, label="plain peer"
    )
    lows, highs = ([k + side for k, _ in required] for side in (-0.4, 0.4))
    axes.vlines([x for _, x in required], lows, highs, color="#e45756", lw=2, label="required")
    axes.set_yticks(rows, [title for title, _ in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvline(1, color="#333333", lw=0.8)
    axes.set_xlabel("time of a peer / ours")
    axes.legend(fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def roofline(result: dict, path: Path) -> None:
    """Performance of every part against its arithmetic intensity, and where the time of an iteration goes."""
    iterations = result["iterations"]
    figure = Figure(figsize=(9, 3.6 * len(iterations)), layout="constrained")
    for (left, right), iteration in zip(figure.subplots(len(iterations), 2, squeeze=False), iterations, strict=True):
        _roof(left, result, iteration)
        _shares(right, result, iteration)
    figure.savefig(path, metadata={"Date": None})


def _roof(axes, result: dict, iteration: dict) -> None:
    peak, intensity = result["fma_peak"], np.logspace(-1, 3, 200)
    for (level, gigabytes), style in zip(result["bandwidth"].items(), (":", "-.", "--", "-"), strict=True):
        axes.plot(intensity, np.minimum(peak, gigabytes * intensity), style, color="#888888", lw=1, label=level)
    for name, part in iteration["parts"].items():
        if part["macs"]:
            x, y = 2 * part["macs"] / part["bytes"], 2e-9 * part["macs"] / part["seconds"]
            axes.plot(x, y, "o", color="#4c78a8", ms=3 + 20 * (part["seconds"] / iteration["whole"]) ** 0.5, alpha=0.7)
            axes.annotate(name, (x, y), fontsize=7, xytext=(5, -11), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte that has to move", ylabel="GFLOP/s")
    axes.set(xlim=(0.5, 500), ylim=(peak / 10, peak * 1.4))
    axes.set_title(f"CNN d={iteration['d']}, batch {iteration['batch']}: area is time", fontsize=9)
    axes.legend(fontsize=7, title=f"peak {peak:.0f} GFLOP/s; triad from", title_fontsize=7)


def _shares(axes, result: dict, iteration: dict) -> None:
    names = list(iteration["parts"])
    times = 1e3 * np.array([iteration["parts"][n]["seconds"] for n in names])
    least = 2e-6 * np.array([iteration["parts"][n]["macs"] for n in names]) / result["fma_peak"]
    axes.barh(names, times, color="#9ecae9", label="measured alone")
    axes.barh(names, least, color="#4c78a8", label="at the FMA peak")
    axes.invert_yaxis()
    axes.set_xlabel("ms of an iteration")
    axes.set_title(f"sum {times.sum():.3g} ms, whole iteration {1e3 * iteration['whole']:.3g} ms", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)
