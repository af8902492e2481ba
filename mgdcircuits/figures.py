"""From a dataset to axes. Reads datasets only: neither Brian2 nor a session is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mgdcircuits.errors import RecordError
from mgdcircuits.record import ROW, SWEEP, open_run
from mgdcircuits.sweeps.results import FAILED, MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, TEST, THIRD = "#c2571a", "#1f5fa8", "#3d8a4d"
SIDES = ("top", "right")
MAX_TRACES = 8
"""Lines of one recorded variable that are drawn."""


def plot(run: xr.Dataset | str | Path, out: str | Path | None = None) -> Figure:
    """A figure of a run: cost, accuracy, and what else it recorded (gradient angle, spikes, traces). Of a sweep: both over all.

    Parameters
    ----------
    run
        A dataset of `train` or `sweep`, or its file.
    out
        Where to write the figure; the ending chooses the format (.png, .svg, .pdf).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    RecordError
        A file that is no run, or one that was stopped before its first row; a format that matplotlib cannot write; a
        folder that does not exist.
    """
    dataset = run if isinstance(run, xr.Dataset) else open_run(run)
    if not dataset.sizes.get(ROW, 0):
        raise RecordError(
            f"{'the dataset' if isinstance(run, xr.Dataset) else run} has no rows, so that there is nothing to draw"
        )
    panels = _panels(dataset)
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.1 * rows + 0.6), layout="constrained")
    figure.suptitle(_title(dataset), fontsize=10)
    for k, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, k + 1)
        axes.spines[list(SIDES)].set_visible(False)
        panel(axes, dataset)
    if out is not None:
        save(figure, out)
    return figure


def file_of(out: str | Path) -> Path:
    """Where a figure is written: a PNG file where its name does not say otherwise."""
    path = Path(out)
    return path if path.suffix or not path.name else path.with_suffix(".png")


def save(figure: Figure, out: str | Path) -> None:
    """Write a figure.

    Raises
    ------
    RecordError
        A format that matplotlib cannot write; a folder, or one that does not exist.
    """
    path = file_of(out)
    if path.is_dir():
        raise RecordError(f"{path} is a folder; expected the name of a file, such as {path / 'figure.png'}")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: the figure cannot be written: {error}") from error


def _panels(run: xr.Dataset) -> list[Callable[[Axes, xr.Dataset], None]]:
    if SWEEP in run.attrs:
        names = [
            n
            for n in ("cost_test", "reward", "accuracy_test")
            if n in run and not (n == "reward" and "cost_test" in run)
        ]
        return [_bound(compared, name) for name in names]
    panels: list[Callable[[Axes, xr.Dataset], None]] = []
    if "cost" in run or "cost_test" in run:
        panels.append(reward if _is_reward(run) else cost)
    if "accuracy_test" in run:
        panels.append(accuracy)
    if "cosine" in run:
        panels += [angle, norm_ratio]
    panels += [
        _bound(raster, name.removeprefix("spike_time_")) for name in map(str, run) if name.startswith("spike_time_")
    ]
    panels += [_bound(traces, name) for name in recorded(run) if not (name == "R" and _is_reward(run))]
    return panels or [writes]


def compared(axes: Axes, run: xr.Dataset, name: str) -> None:
    """A variable of a sweep over iterations: a line for each value of the first swept name that is no seed, the median of all
    its points, with all of them in the background."""
    swept = [str(n) for n in run["state"].dims]
    first = next((n for n in swept if n != "seed"), None)
    others = [n for n in swept if n != first]
    folded = run[name].stack(member=others, create_index=False) if others else run[name]
    values = [None] if first is None else list(run[first].values)
    labelled = first is not None and len(values) <= MAX_TRACES
    for k, color in enumerate(colormaps["viridis"](np.linspace(0, 0.9, len(values)))):
        line = folded if first is None else folded.isel({first: k})
        if np.isfinite(line).any():  # else none of its points ran
            _line(axes, line, color, f"{first} = {values[k]}" if labelled else "")
    if labelled and axes.lines:
        axes.legend(frameon=False, fontsize=8)
    axes.set_ylabel({"cost_test": "test cost", "accuracy_test": "test accuracy"}.get(name, name))
    _iterations(axes, run)


def _is_reward(run: xr.Dataset) -> bool:
    """A circuit of trials: there is nothing to test on, and the cost is minus the reward."""
    return "cost_test" not in run and "reward" in run


def recorded(run: xr.Dataset) -> list[str]:
    """Names of the variables that `record:` asked for, without spikes."""
    return [
        str(n)
        for n, v in run.data_vars.items()
        if v.attrs.get("intent") == "recorded" and not str(n).startswith("spike_") and not str(n).endswith("_count")
    ]


def _bound(function: Callable[[Axes, xr.Dataset, str], None], name: str) -> Callable[[Axes, xr.Dataset], None]:
    return lambda axes, run: function(axes, run, name)


def cost(axes: Axes, run: xr.Dataset) -> None:
    """Training and test cost over iterations; logarithmic where the cost falls by more than tenfold."""
    for name, color, label in (("cost", TRAIN, "training"), ("cost_test", TEST, "test")):
        if name in run:
            _line(axes, run[name], color, label)
    values = np.concatenate([np.ravel(run[n]) for n in ("cost", "cost_test") if n in run])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    axes.set_ylabel("cost")
    _iterations(axes, run)
    axes.legend(frameon=False, fontsize=8)


def reward(axes: Axes, run: xr.Dataset) -> None:
    """Reward over iterations."""
    _line(axes, run["reward"], TEST, "")
    axes.set_ylabel("reward")
    _iterations(axes, run)


def accuracy(axes: Axes, run: xr.Dataset) -> None:
    """Accuracy on training and test samples, with the last value written beside the line."""
    for name, color, label in (("accuracy_train", TRAIN, "training"), ("accuracy_test", TEST, "test")):
        if name in run:
            _line(axes, 100 * run[name], color, label)
    last = float(np.mean(run["accuracy_test"].isel({ROW: -1}))) if run.sizes.get(ROW) else float("nan")
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 102)
    axes.set_title(f"test accuracy at the end: {last:.1%}", fontsize=9)
    _iterations(axes, run)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def angle(axes: Axes, run: xr.Dataset) -> None:
    """Angle between the accumulated estimate and the exact gradient: the whole network, and each group thinly."""
    if "group_cosine" in run:
        for k in range(run.sizes["parameter"]):
            values = _degrees(run["group_cosine"].isel(parameter=k))
            _line(axes, values, "#999999", "each group" if k == 0 else "", width=0.7)
    _line(axes, _degrees(run["cosine"]), TEST, "whole network")
    axes.axhline(90, color="k", linewidth=0.6, linestyle=":")
    axes.set_ylabel("angle to the exact gradient (°)")
    axes.set_ylim(0, 180 if float(run["cosine"].min()) < -0.1 else 95)
    _iterations(axes, run)
    axes.legend(frameon=False, fontsize=8)


def norm_ratio(axes: Axes, run: xr.Dataset) -> None:
    """Norm of the estimate over the norm of the exact gradient."""
    _line(axes, run["norm_ratio"], TEST, "")
    axes.axhline(1, color="k", linewidth=0.6, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylabel("|estimate| / |gradient|")
    _iterations(axes, run)


def raster(axes: Axes, run: xr.Dataset, population: str) -> None:
    """Spikes of a population: time and unit; of the last recorded trial, first replica."""
    time, unit = run[f"spike_time_{population}"].values, run[f"spike_unit_{population}"].values
    chosen = np.ones(len(time), bool)
    counts = run.get(f"spike_count_{population}")
    if counts is not None and (counts > 0).any():
        chosen[: len(time) - int(counts[np.flatnonzero(counts.values)[-1]])] = False
    if f"spike_replica_{population}" in run:
        chosen &= run[f"spike_replica_{population}"].values == 0
    axes.plot(time[chosen], unit[chosen], "|", color="k", markersize=3)
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel("unit")
    axes.set_title(f"spikes of {population}" + ("" if chosen.any() else ": none"), fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def traces(axes: Axes, run: xr.Dataset, name: str) -> None:
    """A recorded variable over iterations: the first units, of the first member and the mean sample."""
    values = run[name]
    rows = str(values.dims[0])
    for axis in ("member", f"{name}_replica"):
        values = values.isel({axis: 0}) if axis in values.dims else values
    within = rows == f"{name}_time"
    counts = run[f"{name}_count"].values if within and f"{name}_count" in run else np.zeros(0)
    if counts.any():  # of a trace within trials, the last trial
        values = values.isel({rows: slice(len(values) - int(counts[np.flatnonzero(counts)[-1]]), None)})
    if f"{name}_sample" in values.dims:
        values = values.mean(f"{name}_sample")
    flat = values.values.reshape(len(values), -1)
    for k in range(min(flat.shape[1], MAX_TRACES)):
        axes.plot(values[rows], flat[:, k], linewidth=1)
    more = f" ({MAX_TRACES} of {flat.shape[1]})" if flat.shape[1] > MAX_TRACES else ""
    units = values.attrs.get("units", "1")
    axes.set_ylabel(f"{name}" + (f" ({units})" if units not in ("1", "") else ""))
    axes.set_title(f"{name}{more}", fontsize=9)
    if within:
        axes.set_xlabel("simulated time (s)")
    else:
        _iterations(axes, run)


def writes(axes: Axes, run: xr.Dataset) -> None:
    """Mean writes per device of each group."""
    for k in range(run.sizes["parameter"]):
        _line(axes, run["writes_mean"].isel(parameter=k), f"C{k}", str(run["parameter"].values[k]))
    axes.set_ylabel("writes per device")
    _iterations(axes, run)
    axes.legend(frameon=False, fontsize=8)


def _degrees(cosine: xr.DataArray) -> xr.DataArray:
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


def _line(axes: Axes, values: xr.DataArray, color: str, label: str, width: float = 1.6) -> None:
    """A line over iterations; of several members the median, and all of them in the background."""
    x = values[ROW].values
    if "member" in values.dims:
        band = values.transpose(ROW, "member").values
        some = np.isfinite(band).any(axis=1)
        low, high = np.nanmin(band[some], axis=1), np.nanmax(band[some], axis=1)
        axes.fill_between(x[some], low, high, color=color, alpha=0.15, linewidth=0)
        values = values.median("member")
    data = np.asarray(values.values, float)
    good = np.isfinite(data)
    axes.plot(x[good], data[good], color=color, label=label or None, linewidth=width)


def _iterations(axes: Axes, run: xr.Dataset) -> None:
    axes.set_xlabel("iteration")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _title(run: xr.Dataset) -> str:
    parts = [str(run.attrs.get("circuit", "run"))]
    if SWEEP in run.attrs:
        states = run["state"].values.ravel()
        ran = sum(state != MISSING and not state.startswith(FAILED) for state in states)
        count = f"{ran} points" if ran == len(states) else f"{ran} of {len(states)} points"
        return f"{parts[0]} over {', '.join(map(str, run['state'].dims))},  {count}"
    if run.sizes.get(ROW):
        last = run.isel({ROW: -1})
        parts.append(f"{int(last[ROW]):,} iterations")
        if "evaluations" in run.coords:
            parts.append(f"{int(last['evaluations']):,} evaluations")
        if "hardware_seconds" in run.coords:
            parts.append(f"{float(last['hardware_seconds']):.3g} s on the hardware")
    return ",  ".join(parts)
