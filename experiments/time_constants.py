"""Time constants of McCaughan et al. 2023 (arXiv 2303.03986): how long a sample is held, and how long estimates are added up.

python experiments/time_constants.py --quick
python experiments/time_constants.py --full --out experiments/results

Planes of tau_x and tau_theta, in iterations (one perturbation each), of XOR, letters and digits; of tau_x and the low-pass
filter of XOR in analog mode. Estimates of a window are added up, as in the paper. And batches of B samples beside windows of
B single samples, both after the same number of samples.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import study
import xarray as xr
from matplotlib.figure import Figure

import mgdcircuits as mgd
from mgdcircuits import cli

NETLISTS = study.FOLDER.parent / "netlists"
LAST = 5
"""Rows whose mean is the accuracy at the end."""


@dataclass(frozen=True)
class Plane:
    """A netlist, the clock that counts as tau_theta, the learning rate, and settings."""

    name: str
    file: Path
    slow: str
    eta: str
    iterations: Mapping[str, int]
    settings: Mapping[str, str | float] = field(default_factory=dict)

    def circuit(self, **settings: str | float) -> mgd.Circuit:
        """With the learning rate of the plane, unless another is given."""
        return mgd.load(self.file, **{"eta": self.eta, **self.settings, **settings})


SUMMED = "*n_G"  # the sum of a window, not its mean
PLANES = {
    "xor": Plane("xor", NETLISTS / "xor.yaml", "tau_theta", "3" + SUMMED, {"quick": 30_000, "full": 100_000}),
    "letters": Plane(
        "letters", NETLISTS / "letters.yaml", "tau_theta", "3" + SUMMED, {"quick": 30_000, "full": 60_000}
    ),
    "digits": Plane(
        "digits", study.FOLDER / "write_cycles.yaml", "tau_theta", "0.003" + SUMMED, {"full": 10_000}, {"normalise": 0}
    ),
    "xor, analog": Plane("xor, analog", NETLISTS / "xor_analog.yaml", "tau_lp", "1.5", {"full": 100_000}),
}
FAST = {"quick": (1, 16), "full": (1, 4, 16, 64, 256)}
SLOW = {"quick": (1, 16, 256), "full": (1, 4, 16, 64, 256)}
SEEDS = {"quick": 8, "full": 16}
BATCHES = {"quick": (1, 8), "full": (1, 2, 4, 8, 16, 32)}
SAMPLES = {"quick": 32_768, "full": 49_152}
COMPARED = {"quick": ("letters",), "full": ("letters",)}


def clocks(values: tuple[int, ...]) -> list[str]:
    """Values of a clock, in iterations."""
    return [f"{v}*iteration" for v in values]


def ended(run: xr.Dataset) -> xr.Dataset:
    """Accuracy and cost at the end of each run."""
    return run[["accuracy_test", "cost_test"]].isel(iteration=slice(-LAST, None)).mean("iteration")


def plane(one: Plane, options: study.Options, address: str) -> xr.Dataset:
    """Accuracy at the end over (tau_x, tau_theta, seed)."""
    size, first = options.size, options.seed
    grid = {"tau_x": clocks(FAST[size]), one.slow: clocks(SLOW[size]), "seed": range(first, first + SEEDS[size])}
    iterations = one.iterations[size]
    run = study.swept(
        f"time_constants_{size}_{one.file.stem}", one.circuit(), grid, options, address,
        iterations=iterations, batch=1, evaluate_every=iterations // 40,
    )  # fmt: skip
    found = ended(run).rename({one.slow: "tau_theta"} if one.slow != "tau_theta" else {})
    return found.assign_coords(tau_x=list(FAST[size]), tau_theta=list(SLOW[size]))


def equivalence(one: Plane, options: study.Options, address: str) -> xr.Dataset:
    """Cost after the same number of samples: batches of B, and windows of B single samples; (how, size, seed)."""
    size, samples, seeds = options.size, SAMPLES[options.size], range(options.seed, options.seed + SEEDS[options.size])
    found = []
    for b in BATCHES[size]:
        rate = float(one.eta.removesuffix(SUMMED))
        ways = {
            "batch": (one.circuit(eta=rate * b, tau_x="iteration", tau_theta="iteration"), b, samples // b),
            "window": (one.circuit(tau_x="iteration", tau_theta=f"{b}*iteration"), 1, samples),
        }
        for how, (circuit, batch, iterations) in ways.items():
            run = study.swept(
                f"time_constants_{size}_{one.file.stem}_{how}_{b}", circuit, {"seed": seeds}, options, address,
                iterations=iterations, batch=batch, evaluate_every=iterations // 32, members=len(seeds),
            )  # fmt: skip
            found.append(ended(run))
    joined = xr.concat(found, "way").assign_coords(
        b=("way", np.repeat(BATCHES[size], 2)), how=("way", ["batch", "window"] * len(BATCHES[size]))
    )
    return (
        joined.set_index(way=["b", "how"]).unstack("way").rename(accuracy_test="equal_accuracy", cost_test="equal_cost")
    )


def draw(found: xr.Dataset, path: Path) -> None:
    """A map of each plane, and costs of batches and windows."""
    names = list(found["task"].values)
    compared = [n for n in names if bool(found["equal_cost"].sel(task=n).notnull().any())]
    figure = Figure(figsize=(3.3 * (len(names) + len(compared)), 3.4), layout="constrained")
    for k, name in enumerate(names):
        axes = figure.add_subplot(1, len(names) + len(compared), k + 1)
        values = 100 * found["accuracy_test"].sel(task=name).mean("seed").transpose("tau_x", "tau_theta").values
        image = axes.imshow(values, origin="lower", cmap="viridis", vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", color="w" if value < 70 else "k", fontsize=8
            )
        axes.set_xticks(range(found.sizes["tau_theta"]), found["tau_theta"].values)
        axes.set_yticks(range(found.sizes["tau_x"]), found["tau_x"].values)
        axes.set_xlabel("$\\tau_{lp}$" if "analog" in name else "$\\tau_\\theta$")
        axes.set_ylabel("$\\tau_x$")
        axes.set_title(f"{name}: accuracy (%)", fontsize=9)
    figure.colorbar(image, ax=axes, label="%")
    for k, name in enumerate(compared):
        axes = figure.add_subplot(1, len(names) + len(compared), len(names) + k + 1)
        axes.spines[["top", "right"]].set_visible(False)
        for how, color in (("batch", "#c2571a"), ("window", "#1f5fa8")):
            one = found["equal_cost"].sel(task=name, how=how).transpose("b", "seed")
            low, middle, high = one.quantile([0.25, 0.5, 0.75], "seed").values
            axes.fill_between(one["b"], low, high, color=color, alpha=0.2, linewidth=0)
            label = "batch of B" if how == "batch" else "B samples, $\\tau_\\theta = B\\,\\tau_x$"
            axes.plot(one["b"], middle, "o-", color=color, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("B")
        axes.set_ylabel("test cost")
        axes.set_title(f"{name}, the same samples", fontsize=9)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


@study.command
def main(options: study.Options) -> None:
    """Measure planes of time constants, and batches beside windows."""
    names = [n for n, one in PLANES.items() if options.size in one.iterations]
    with study.cluster(options) as address:
        planes = [plane(PLANES[n], options, address) for n in names]
        equal = [equivalence(PLANES[n], options, address) for n in COMPARED[options.size]]
    found = xr.merge(
        [
            xr.concat(planes, xr.DataArray(names, dims="task", name="task")),
            xr.concat(equal, xr.DataArray(list(COMPARED[options.size]), dims="task", name="task")),
        ],
        join="outer",
    ).sel(task=names)
    found.attrs |= {
        "samples": SAMPLES[options.size],
        **{f"iterations of {n}": PLANES[n].iterations[options.size] for n in names},
    }
    path = study.keep(found, "time_constants", PLANES["xor"].circuit().spec, options)
    draw(found, path.with_suffix(".png"))
    for name in names:
        print(f"{name}: accuracy at the end over (tau_x, tau_theta), mean of {found.sizes['seed']} seeds")
        print(found["accuracy_test"].sel(task=name).mean("seed").transpose("tau_x", "tau_theta").values.round(2))
    for name in COMPARED[options.size]:
        for how in ("batch", "window"):
            medians = found["equal_cost"].sel(task=name, how=how).median("seed").values
            print(
                f"{name}, {how}: test cost "
                + ", ".join(f"B={b}: {c:.4f}" for b, c in zip(found["b"].values, medians, strict=True))
            )


if __name__ == "__main__":
    sys.exit(cli.run(main))
