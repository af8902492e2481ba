"""What imperfect devices do to training: accuracy and time against severity, and in which order they break it.

python experiments/imperfections.py --quick
python experiments/imperfections.py --full --out experiments/results

Each imperfection is a parameter of imperfections.yaml, in an equation of the circuit; all others are zero. Seeds run side
by side as members of one session. Stopped with Ctrl-C, the same command goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import mgdcircuits as mgd
from common import study
from common.training_time_figure import bound
from mgdcircuits import cli

NETLIST = study.FOLDER / "imperfections.yaml"
GOAL = 0.8
"""Accuracy whose iterations are counted."""
UNITS = {
    "cost_noise": "signal",
    "write_noise": "update",
    "common_noise": "update",
    "step": "update",
    "drift": "run",
    "spread": "",
    "stuck": "",
    "dead": "",
    "asymmetry": "",
}
"""The natural unit of each severity: the change of the cost under perturbation, an update, or one over the updates of a run."""
LABELS = {
    "cost_noise": "standard deviation / rms change of the cost",
    "write_noise": "standard deviation / rms update",
    "common_noise": "standard deviation / rms update",
    "step": "distance of levels / rms update",
    "drift": "part lost at a write × updates of the run",
    "spread": "standard deviation (perfect height, slope: 1)",
    "stuck": "fraction of devices that never move",
    "dead": "fraction of weights that are zero",
    "asymmetry": "fraction missing of a change down",
}
"""What each severity is, in its unit."""
SEVERITIES = {
    "cost_noise": (0.3, 1, 2, 4, 10, 100),
    "write_noise": (1, 3, 6, 10, 30, 100),
    "common_noise": (0.3, 1, 2, 4, 10, 100),
    "step": (1, 2, 3, 5, 10, 30),
    "drift": (0.3, 1, 3, 10, 30, 100),
    "spread": (0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
    "stuck": (0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
    "dead": (0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
    "asymmetry": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
}


@dataclass(frozen=True)
class Size:
    """Imperfections with their severities, seeds, and iterations of a run."""

    severities: Mapping[str, tuple[float, ...]]
    seeds: int
    iterations: int


QUICK = ("cost_noise", "write_noise", "stuck", "step")
EXTREMES = {name: (SEVERITIES[name][0], SEVERITIES[name][-1]) for name in QUICK}
SIZES = {"quick": Size(EXTREMES, 4, 20_000), "full": Size(SEVERITIES, 12, 40_000)}


def run(part: str, options: study.Options, **severity: float) -> xr.Dataset:
    """All seeds with one imperfection, or with none."""
    size = SIZES[options.size]
    return study.trained(
        f"imperfections_{options.size}_{part}", mgd.load(NETLIST, **severity), options,
        iterations=size.iterations, evaluate_every=size.iterations // 40, members=size.seeds, seed=options.seed, progress=False,
    )  # fmt: skip


def natural(perfect: xr.Dataset) -> dict[str, float]:
    """The units of severities, of a run of perfect devices: rms over its first half, while it learns."""
    spec = mgd.load(NETLIST).spec
    change = float(np.sqrt((perfect["cost_change"].isel(iteration=slice(1, 21)) ** 2).mean()))
    elements = perfect["parameter_size"].values.sum() + 4  # and the common noise of four arrays
    delta = float(spec.parameters["norm"]) / np.sqrt(elements)
    update = float(spec.parameters["eta"]) / elements * change / delta
    return {"signal": change, "update": update, "run": 1 / perfect.attrs["iterations_asked"], "": 1.0}


def ended(one: xr.Dataset) -> xr.Dataset:
    """What is kept of a run: (seed)."""
    one = one.swap_dims(member="seed").reset_coords()
    last = one.isel(iteration=-1, drop=True)
    found = xr.Dataset(
        {
            "accuracy": one["accuracy_test"].isel(iteration=slice(-5, None)).mean("iteration"),
            "iterations_to_goal": study.iterations_to(one, (GOAL,)).isel(goal=0, drop=True),
            "requests_rounded": last["requests_rounded"].weighted(last["parameter_size"]).mean("parameter"),
            "cost_change_snr": one["cost_change_snr"].isel(iteration=slice(1, None)).mean("iteration"),
            "seconds": last["wall_seconds"],
        }
    )
    found["accuracy"].attrs["long_name"] = "test accuracy, mean of the last five rows"
    found["iterations_to_goal"].attrs["long_name"] = f"iterations to {GOAL:.0%}; infinite: not reached"
    return found


def levels(name: str, unit: float, options: study.Options) -> xr.Dataset:
    """All severities of an imperfection: (level, seed)."""
    found, values = [], SIZES[options.size].severities[name]
    for value in values:
        one = ended(run(f"{name}_{value:g}", options, **{name: value * unit}))
        found.append(one.assign(severity=value * unit))
        at_end, seconds = float(one["accuracy"].median()), float(one["seconds"])
        print(f"{name} {value:g}: {at_end:.0%}, {seconds:.0f} s", flush=True)
    return xr.concat(found, "level").assign(severity_in_units=("level", list(values)), unit=unit)


def measure(options: study.Options) -> xr.Dataset:
    """All runs in one dataset: (imperfection, level, seed)."""
    size = SIZES[options.size]
    first = run("perfect", options)
    perfect, units = ended(first), natural(first)
    names = xr.DataArray(list(size.severities), dims="imperfection", name="imperfection")
    found = xr.concat([levels(name, units[UNITS[name]], options) for name in size.severities], names)
    seconds = float(perfect["seconds"] + found["seconds"].sum())
    found = found.drop_vars("seconds").assign(
        perfect_accuracy=perfect["accuracy"], perfect_iterations_to_goal=perfect["iterations_to_goal"]
    )
    found = found.assign_coords(unit_name=("imperfection", [UNITS[name] for name in size.severities]))
    return found.assign_attrs(iterations=size.iterations, seconds=seconds)


def broken_at(one: xr.Dataset, chance: float = 0.25) -> float:
    """The severity, in units, at which the median accuracy is halfway between that of perfect devices and chance; the smallest,
    if it is there already."""
    half = (float(one["perfect_accuracy"].median()) + chance) / 2
    x, y = one["severity_in_units"].values, one["accuracy"].median("seed").values
    for k in range(len(y)):
        if y[k] < half:
            if k == 0:
                return float(x[0])
            part = (y[k - 1] - half) / (y[k - 1] - y[k])
            return float(np.exp(np.log(x[k - 1]) + part * np.log(x[k] / x[k - 1])))
    return float("inf")


def table(found: xr.Dataset) -> Iterator[str]:
    """Where each imperfection breaks training, in the order of severity in its unit."""
    yield f"perfect devices: {float(found['perfect_accuracy'].median()):.1%}"
    yield f"{'':14}{'unit':>18}{'broken at':>11}   accuracy at each severity"
    for one in sorted((found.isel(imperfection=k) for k in range(found.sizes["imperfection"])), key=broken_at):
        known = np.isfinite(one["severity_in_units"].values)
        pairs = zip(one["severity_in_units"].values[known], one["accuracy"].median("seed").values[known], strict=True)
        unit = f"{one['unit_name'].item() or 'absolute'} {float(one['unit']):.2g}"
        text = ", ".join(f"{x:g}: {y:.0%}" for x, y in pairs)
        broken = broken_at(one)
        at = f"{'<= ' if broken == one['severity_in_units'].values[0] else ''}{broken:.3g}"
        yield f"{one['imperfection'].item():14}{unit:>18}{at:>11}   {text}"


def draw(found: xr.Dataset, path: Path) -> None:
    """Accuracy (solid, quartiles) and time (dashed) against severity, a panel for each; triangles: runs were cut off there."""
    n = found.sizes["imperfection"]
    columns = min(3, n)
    figure = Figure(figsize=(4.4 * columns, 3.1 * -(-n // columns)), layout="constrained")
    best, quickest = float(found["perfect_accuracy"].median()), float(found["perfect_iterations_to_goal"].median())
    end = found.attrs["iterations"]
    for k in range(n):
        one = found.isel(imperfection=k)
        axes = figure.add_subplot(-(-n // columns), columns, k + 1)
        x, y = one["severity_in_units"].values, one["accuracy"].values
        low, middle, high = np.nanquantile(y, (0.25, 0.5, 0.75), axis=1)
        axes.fill_between(x, 100 * low, 100 * high, color="#1f5fa8", alpha=0.2, lw=0, label="quartiles of seeds")
        axes.plot(x, 100 * middle, color="#1f5fa8", marker="o", ms=4, label="median accuracy")
        axes.axhline(100 * best, color="#1f5fa8", ls=":", lw=1, label="accuracy of perfect devices")
        axes.set(xscale="log", ylim=(0, 102), ylabel="accuracy (%)")
        name = one["imperfection"].item()
        axes.set_xlabel(LABELS[name])
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.spines["top"].set_visible(False)
        right = axes.twinx()
        right.spines["top"].set_visible(False)
        medians = [bound(row, np.full(len(row), end)) for row in one["iterations_to_goal"].values]
        needed, known = (np.array(each) for each in zip(*medians, strict=True))
        needed = needed / quickest
        reached, cut = np.where(known, needed, np.nan), np.where(known, np.nan, needed)
        right.plot(x, reached, "s--", ms=3, color="#c2571a", label="median time")
        right.plot(x, cut, "^", mfc="none", color="#c2571a", label="median time longer: cut off there")
        right.set_ylabel(f"time to {GOAL:.0%} / that of perfect devices", color="#c2571a", fontsize=8)
        right.set_ylim(0, 1.08 * end / quickest)
    handles = [handle for one in (axes, right) for handle in one.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


@study.command
def main(options: study.Options) -> None:
    """Train with imperfect devices: four imperfections at two severities, or everything."""
    found = measure(options)
    path = study.keep(found, "imperfections", mgd.load(NETLIST).spec, options)
    draw(found, path.with_suffix(".png"))
    print("\n".join(table(found)))


if __name__ == "__main__":
    sys.exit(cli.run(main))
