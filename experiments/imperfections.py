"""What imperfect devices do to training: accuracy and time against severity, and in which order they break it.

python experiments/imperfections.py --quick
python experiments/imperfections.py --full --out experiments/results

Each imperfection is a parameter of imperfections.yaml, in an equation of the circuit; all others are zero. Seeds run side
by side as members of one session.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import mgdcircuits as mgd
from mgdcircuits import cli
from mgdcircuits.record import run_attributes

FOLDER = Path(__file__).resolve().parent
NETLIST = FOLDER / "imperfections.yaml"
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
CLAIMS = ("cost_noise", "write_noise", "stuck", "step")
"""What --quick looks at, at its smallest and largest severity."""


def run(seeds: int, iterations: int, threads: int, **severity: float) -> xr.Dataset:
    """Train all seeds with one imperfection."""
    circuit = mgd.load(NETLIST, **severity)
    return mgd.train(
        circuit, iterations=iterations, evaluate_every=iterations // 40, members=seeds, seed=1, threads=threads, progress=False,
        on_nan="continue", record=[],
    )  # fmt: skip


def natural(perfect: xr.Dataset, iterations: int) -> dict[str, float]:
    """The units of severities, of a run of perfect devices: rms over its first half, while it learns."""
    spec = mgd.load(NETLIST).spec
    change = float(np.sqrt((perfect["cost_change"].isel(iteration=slice(1, 21)) ** 2).mean()))
    elements = perfect["parameter_size"].values.sum() + 4  # and the common noise of four arrays
    delta = float(spec.parameters["norm"]) / np.sqrt(elements)
    update = float(spec.parameters["eta"]) / elements * change / delta
    return {"signal": change, "update": update, "run": 1 / iterations, "": 1.0}


def until(one: xr.Dataset) -> np.ndarray:
    """Iterations of each seed to the goal; infinite where it is not reached."""
    reached = one["accuracy_test"].values >= GOAL
    first = np.where(reached.any(0), reached.argmax(0), -1)
    return np.where(first >= 0, one["iteration"].values[first].astype(float), np.inf)


def measure(chosen: dict[str, tuple[float, ...]], seeds: int, iterations: int, threads: int) -> xr.Dataset:
    """All runs in one dataset: (imperfection, level, seed)."""
    begun = time.monotonic()
    perfect = run(seeds, iterations, threads)
    units = natural(perfect, iterations)
    levels = max(len(v) for v in chosen.values())
    shape = (len(chosen), levels, seeds)
    severity = np.full(shape[:2], np.nan)
    accuracy, time_, clipped, snr = np.full((4, *shape), np.nan)
    for k, (name, values) in enumerate(chosen.items()):
        for j, value in enumerate(values):
            severity[k, j] = value * units[UNITS[name]]
            one = run(seeds, iterations, threads, **{name: severity[k, j]})
            accuracy[k, j] = one["accuracy_test"].isel(iteration=slice(-5, None)).mean("iteration")
            time_[k, j] = until(one)
            sizes = one["parameter_size"]
            clipped[k, j] = one["requests_rounded"].isel(iteration=-1).weighted(sizes).mean("parameter")
            snr[k, j] = one["cost_change_snr"].isel(iteration=slice(1, None)).mean("iteration")
    two = ("imperfection", "level")
    three = (*two, "seed")
    found = xr.Dataset(
        {
            "severity": (two, severity),
            "severity_in_units": (two, [[*v, *[np.nan] * (levels - len(v))] for v in chosen.values()]),
            "accuracy": (three, accuracy, {"long_name": "test accuracy, mean of the last five rows"}),
            "iterations_to_goal": (three, time_, {"long_name": f"iterations to {GOAL:.0%}; infinite: not reached"}),
            "requests_rounded": (three, clipped),
            "cost_change_snr": (three, snr),
            "perfect_accuracy": ("seed", perfect["accuracy_test"].isel(iteration=slice(-5, None)).mean("iteration").values),
            "perfect_iterations_to_goal": ("seed", until(perfect)),
            "unit": ("imperfection", [units[UNITS[name]] for name in chosen]),
        },
        {
            "imperfection": list(chosen),
            "seed": np.arange(1, seeds + 1),
            "unit_name": ("imperfection", [UNITS[n] for n in chosen]),
        },
    )  # fmt: skip
    about = run_attributes(mgd.load(NETLIST).spec, iterations=iterations, seconds=time.monotonic() - begun)
    return found.assign_attrs(about)


def broken_at(one: xr.Dataset, chance: float = 0.25) -> float:
    """The severity, in units, at which the median accuracy is halfway between that of perfect devices and chance."""
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
    each = [(broken_at(found.isel(imperfection=k)), found.isel(imperfection=k)) for k in range(found.sizes["imperfection"])]
    for limit, one in sorted(each, key=lambda pair: pair[0]):
        known = np.isfinite(one["severity_in_units"].values)
        pairs = zip(one["severity_in_units"].values[known], one["accuracy"].median("seed").values[known], strict=True)
        unit = f"{one['unit_name'].item() or 'absolute'} {float(one['unit']):.2g}"
        text = ", ".join(f"{x:g}: {y:.0%}" for x, y in pairs)
        yield f"{one['imperfection'].item():14}{unit:>18}{limit:11.3g}   {text}"


def draw(found: xr.Dataset, path: Path) -> None:
    """Accuracy (solid, quartiles) and time (dashed) against severity, a panel for each."""
    n = found.sizes["imperfection"]
    columns = min(3, n)
    figure = Figure(figsize=(4.4 * columns, 3.1 * -(-n // columns)), layout="constrained")
    best, quickest = float(found["perfect_accuracy"].median()), float(found["perfect_iterations_to_goal"].median())
    for k in range(n):
        one = found.isel(imperfection=k)
        axes = figure.add_subplot(-(-n // columns), columns, k + 1)
        x, y = one["severity_in_units"].values, one["accuracy"].values
        low, middle, high = np.nanquantile(y, (0.25, 0.5, 0.75), axis=1)
        axes.fill_between(x, 100 * low, 100 * high, color="#1f5fa8", alpha=0.2, lw=0)
        axes.plot(x, 100 * middle, color="#1f5fa8", marker="o", ms=4)
        axes.axhline(100 * best, color="#1f5fa8", ls=":", lw=1)
        axes.set(xscale="log", ylim=(0, 102), ylabel="accuracy (%)")
        unit = {"signal": "cost changes", "update": "updates", "run": "1/updates of the run"}.get(one["unit_name"].item(), "")
        axes.set_xlabel(f"severity{f' ({unit})' if unit else ''}")
        axes.set_title(one["imperfection"].item().replace("_", " "), fontsize=10)
        axes.spines["top"].set_visible(False)
        right = axes.twinx()
        right.spines["top"].set_visible(False)
        needed = np.median(one["iterations_to_goal"].values, axis=1) / quickest
        right.plot(x, np.where(np.isfinite(needed), needed, np.nan), color="#c2571a", ls="--", marker="s", ms=3)
        right.set_ylabel(f"time to {GOAL:.0%} / that of perfect devices", color="#c2571a", fontsize=8)
        right.set_ylim(0, None)
    figure.savefig(path, dpi=110)


@click.command()
@click.option("--quick", "size", flag_value="quick", default=True, help="Four imperfections, two severities, four seeds.")
@click.option("--full", "size", flag_value="full", help="Everything, with twelve seeds.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True)
def main(size: str, threads: int, out: Path) -> None:
    """Train with imperfect devices."""
    if size == "quick":
        found = measure({name: (SEVERITIES[name][0], SEVERITIES[name][-1]) for name in CLAIMS}, 4, 20000, threads)
    else:
        found = measure(SEVERITIES, 12, 40000, threads)
    for line in table(found):
        click.echo(line)
    out.mkdir(parents=True, exist_ok=True)
    found.to_netcdf(out / f"imperfections_{size}.nc")
    draw(found, out / f"imperfections_{size}.png")
    click.echo(f"{found.attrs['seconds']:.0f} s; {out / f'imperfections_{size}.nc'} and .png")


if __name__ == "__main__":
    sys.exit(cli.run(main))
