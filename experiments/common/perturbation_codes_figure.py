"""The figure of perturbation_codes.py: angles, errors against the amplitude, and the best amplitude."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullFormatter

COLORS = ("#1f5fa8", "#c2571a", "#3c8d40", "#7b4ea3", "#555555", "#b8860b", "#d1478b")
MARKERS = ("o", "s", "D", "^", "v")
STYLES = ("-", "--", ":")
FLOOR = 1e-2
"""Angles are drawn from here on, in degrees."""


def best_norm(one: xr.Dataset) -> float:
    """The norm with the least measured error, by a parabola of logarithms; not a number where it is the first or the last."""
    x, y = np.log(one["norm"].values), np.log(one["error"].mean("member").values)
    k = int(np.argmin(y))
    if k in (0, len(x) - 1):
        return float("nan")
    square, slope, _ = np.polyfit(x[k - 1 : k + 2], y[k - 1 : k + 2], 2)
    return float(np.exp(-slope / (2 * square)))


def degrees(cosine: xr.DataArray) -> xr.DataArray:
    """Angles of cosines."""
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


def least_error(one: xr.Dataset) -> float:
    """The least measured squared error, relative to |gradient|**2."""
    return float(one["error"].mean("member").min())


def draw(found: xr.Dataset, path: Path) -> None:
    """Angles of each circuit and the best amplitudes; below them a row of errors for each point."""
    codes = [str(c) for c in found["code"].values if bool(found["draws"].sel(code=c).notnull().any())]
    circuits, points = list(found["circuit"].values), list(found["trained"].values)
    width = 4.6 * max(len(codes), len(circuits) + 2)
    figure = Figure(figsize=(width, 4.8 + 3.6 * len(points)), layout="constrained")
    top, below = figure.subfigures(2, 1, height_ratios=[4.8, 3.6 * len(points)])
    left, right = top.subfigures(1, 2, width_ratios=[len(circuits), 2.5])
    for axes, name in zip(left.subplots(1, len(circuits), squeeze=False)[0], circuits, strict=True):
        _angles(axes, found.sel(circuit=name))
    _best(right, found.isel(trained=-1), codes)
    rows = below.subplots(len(points), len(codes), squeeze=False)
    for row, trained in enumerate(points):
        for k, code in enumerate(codes):
            _errors(rows[row, k], found.sel(trained=trained, code=code), first=k == 0 and row == 0)
    figure.savefig(path, dpi=110)


def _angles(axes: Axes, one: xr.Dataset) -> None:
    for code, color, marker in zip(one["code"].values, COLORS, "osD^vx*", strict=True):
        each = one.sel(code=code)
        n = each["n"].values
        for name, style, label in (("predicted_cosine", "-", None), ("cosine", marker, code)):
            angles = np.maximum(degrees(each[name].median("seed")).values, FLOOR)
            axes.plot(n, angles, style, color=color, lw=1, ms=3, mfc="none", label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="perturbations", ylabel=f"angle to the gradient (degrees; {FLOOR:g} or less)"
    )
    axes.set_title(
        f"{one['circuit'].item()}, {int(one['parameters'])} parameters (markers measured, lines predicted)", fontsize=9
    )
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)


def _errors(axes: Axes, one: xr.Dataset, first: bool) -> None:
    drawn = (0, len(one["sigma"]) - 2) if len(one["sigma"]) > 2 else range(len(one["sigma"]))
    for scheme, color, marker in zip(one["scheme"].values, COLORS, MARKERS, strict=False):
        for k in drawn:
            each = one.sel(scheme=scheme).isel(sigma=k)
            sigma = float(each["sigma"])
            fill = color if sigma else "none"
            label = f"{scheme}, noise {sigma:g}" if first else None
            axes.plot(each["norm"], 100 * each["predicted_error"] ** 0.5, "--" if sigma else "-", color=color, lw=1)
            values = 100 * each["error"].mean("member") ** 0.5
            axes.plot(each["norm"], values, marker, color=color, mfc=fill, ms=4, label=label)
    axes.set(xscale="log", yscale="log", xlabel="length of the perturbation, norm", ylabel="error (% of the gradient)")
    where = f"after {int(one['trained']):,} iterations" if int(one["trained"]) else "at the start"
    axes.set_title(f"{one['code'].item()}, {where}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if first:
        axes.legend(frameon=False, fontsize=7)


def _best(figure: SubFigure, found: xr.Dataset, codes: list[str]) -> None:
    """Against the noise, a column for each code: above the best norm, below the error there."""
    noisy = found.sel(sigma=found["sigma"] > 0)
    axes = figure.subplots(2, len(codes), squeeze=False, sharex=True, sharey="row")
    for column, code in enumerate(codes):
        norms, errors = axes[:, column]
        for k, scheme in enumerate(found["scheme"].values):
            one = noisy.sel(code=code, scheme=scheme)
            each = [one.isel(sigma=i) for i in range(one.sizes["sigma"])]
            line = {"color": COLORS[k], "ls": STYLES[k], "lw": 1.6}
            norms.plot(one["sigma"], one["predicted_best"], **line)
            errors.plot(one["sigma"], 100 * one["predicted_least"] ** 0.5, **line)
            dots = {"marker": MARKERS[k], "ms": 9 - 2 * k, "mfc": "none"}  # smaller ones stand inside
            norms.plot(one["sigma"], [best_norm(sigma) for sigma in each], **dots, ls="", color=COLORS[k])
            errors.plot(
                one["sigma"], [100 * least_error(sigma) ** 0.5 for sigma in each], **dots, ls="", color=COLORS[k]
            )
            norms.plot([], [], **dots, **line, label=scheme)
        norms.set(xscale="log", yscale="log")
        norms.set_title(code, fontsize=9)
        errors.set(yscale="log", xlabel="noise of a cost")
        for panel in (norms, errors):
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("best norm")
    axes[1, 0].set_ylabel("least error (%)")
    where = f"after {int(found['trained']):,} iterations" if int(found["trained"]) else "at the start"
    figure.suptitle(f"{found['circuit'].values[0]} {where} (markers measured, lines predicted)", fontsize=9)
    handles, labels = norms.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8, handlelength=4)
