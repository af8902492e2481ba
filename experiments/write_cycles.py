"""How many updates and iterations it takes against tau_theta: figure 5 of arXiv 2501.15403, at the size of two cores.

python experiments/write_cycles.py --quick
python experiments/write_cycles.py --full --out experiments/results

A 64-16-10 network on digits (write_cycles.yaml), trained by weight perturbation until 80 % of the test set are right. The
learning rate is fixed, or tuned at each tau_theta: the best on half of the seeds is reported on the other half.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import mgdcircuits as mgd
from common import published, study
from mgdcircuits import cli

GOALS = (0.2, 0.4, 0.6, 0.8)
NETLIST = study.FOLDER / "write_cycles.yaml"


@dataclass(frozen=True)
class Size:
    """What is swept, and when runs end that have not reached the goal: after this many iterations, times root tau_theta."""

    windows: tuple[int, ...]
    etas: tuple[float, ...]
    fixed: float
    seeds: int
    most: int


SIZES = {
    "quick": Size((1, 10, 100), (0.3, 1), 0.3, 2, 3_000),
    "full": Size((1, 3, 10, 30, 100, 300, 1000, 2000), (0.1, 0.2, 0.3, 0.6, 1, 2, 4), 0.3, 10, 4_000),
}


def limit(size: Size, window: int) -> int:
    """Iterations after which a run is cut off: whole windows."""
    return int(size.most * window**0.5) // window * window


def measure(size: Size, options: study.Options, address: str) -> xr.Dataset:
    """Iterations and writes to each goal: (tau_theta, eta, seed)."""
    found = []
    for window in size.windows:
        grid = {"eta": size.etas, "seed": range(options.seed, options.seed + size.seeds)}
        run = study.swept(
            f"write_cycles_{options.size}_{window}", mgd.load(NETLIST, window=window), grid, options, address,
            iterations=limit(size, window), evaluate_every=window * max(1, round(20 / window**0.5)),
            until=f"accuracy_test >= {GOALS[-1]}",
        )  # fmt: skip
        iterations = study.iterations_to(run, GOALS).transpose("eta", "seed", "goal")
        last = run[["writes_mean", "writes_max"]].max(["iteration", "parameter"])
        found.append(last.assign(iterations=iterations, limit=limit(size, window)).drop_vars("goal"))
    points = xr.concat(found, xr.DataArray(list(size.windows), dims="tau_theta", name="tau_theta"))
    points["updates"] = points["iterations"] / points["tau_theta"]
    return points.assign_coords(goal=list(GOALS)).assign_attrs(fixed=size.fixed)


def chosen(found: xr.Dataset) -> dict[str, xr.Dataset]:
    """At the fixed learning rate all seeds; at the best one of each tau_theta on the first half the second half."""
    half = found.sizes["seed"] // 2
    tuning, rest = found.isel(seed=slice(0, half)), found.isel(seed=slice(half, None))
    iterations = tuning["iterations"].sel(goal=GOALS[-1]).transpose("tau_theta", "eta", "seed").values
    best = np.array([np.argmin([study.median(row) for row in each]) for each in iterations])
    return {
        "fixed": found.sel(eta=found.attrs["fixed"]),
        "tuned": rest.isel(eta=xr.DataArray(best, dims="tau_theta")),
    }


def exponents(found: xr.Dataset) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Of updates and iterations over tau_theta, at the fixed and at the tuned learning rate, with intervals."""
    tau = found["tau_theta"].values.astype(float)
    return {
        (how, name): study.exponent(tau, one[name].sel(goal=GOALS[-1]).transpose("tau_theta", "seed").values)
        for how, one in chosen(found).items()
        for name in ("updates", "iterations")
    }


def draw(found: xr.Dataset, path: Path) -> None:
    """Updates and iterations against tau_theta; right-censored medians as open triangles where they were cut off."""
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    theirs, slopes = published.writes(GOALS[-1]), exponents(found)
    for k, name in enumerate(("updates", "iterations")):
        axes = figure.add_subplot(1, 2, k + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.loglog(theirs[:, 0], theirs[:, 1 + k], "x:", color="#999999", label="published, CNN d = 24, $\\eta$ fixed")
        for (how, one), color in zip(chosen(found).items(), ("#c2571a", "#1f5fa8"), strict=True):
            values = one[name].sel(goal=GOALS[-1]).transpose("tau_theta", "seed").values
            tau = one["tau_theta"].values
            medians = np.array([study.median(row) for row in values])
            good = np.isfinite(medians)
            slope, low, high = slopes[how, name]
            for seed in values.T:
                axes.loglog(tau, seed, ".", color=color, alpha=0.35)
            axes.loglog(
                tau[good], medians[good], "o-", color=color, label=f"$\\eta$ {how}: {slope:.2f} ({low:.2f}, {high:.2f})"
            )
            cut = one["limit"].values / (tau if name == "updates" else 1)
            axes.loglog(tau[~good], cut[~good], "^", mfc="none", color=color)
        axes.set_xlabel("$\\tau_\\theta$ (iterations)")
        axes.set_ylabel(f"{name} to 80 % test accuracy")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


@study.command
def main(options: study.Options) -> None:
    """Measure updates and iterations to 80 % against tau_theta, and draw them beside the published ones."""
    size = SIZES[options.size]
    with study.cluster(options) as address:
        found = measure(size, options, address)
    path = study.keep(found, "write_cycles", mgd.load(NETLIST).spec, options)
    draw(found, path.with_suffix(".png"))
    for (how, name), (slope, low, high) in exponents(found).items():
        print(f"{name} at {how} eta: exponent of tau_theta {slope:.2f} ({low:.2f} to {high:.2f})")
    theirs = published.writes(GOALS[-1])
    print(f"published at fixed eta, updates: {np.polyfit(*np.log(theirs[:, :2].T), 1)[0]:.2f}")
    for how, one in chosen(found).items():
        rows = one["updates"].sel(goal=GOALS[-1]).transpose("tau_theta", "seed").values
        for tau, row, eta in zip(one["tau_theta"].values, rows, np.broadcast_to(one["eta"], len(rows)), strict=True):
            updates = study.median(row)
            print(f"  {how}: tau_theta {tau}, eta {eta:g}: {updates:,.0f} updates, {updates * tau:,.0f} iterations")


if __name__ == "__main__":
    sys.exit(cli.run(main))
