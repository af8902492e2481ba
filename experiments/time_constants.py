"""Time constants of McCaughan et al. 2023 (arXiv 2303.03986): how long samples, perturbations and estimates are held.

python experiments/time_constants.py --quick
python experiments/time_constants.py --full --out experiments/results

Planes of tau_x, tau_p and tau_theta, in iterations, of XOR, letters and digits, where the third is one iteration; of tau_x and
the low-pass filter of XOR in analog mode. Estimates of a window are added up, as in the paper. And batches of B samples
beside windows of B single samples, both after the same number of samples.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import study
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import mgdcircuits as mgd
from mgdcircuits import cli

NETLISTS = study.FOLDER.parent / "netlists"
LAST = 3
"""Rows whose mean is the accuracy at the end."""

TEXT = """
include: {netlist}
circuit: time_constants
parameters: {{tau_code: 1}}  # iterations that a code is held
learning:
  {rule}: {{perturb: {{every: tau_code*iteration}}}}
"""
SUMMED = "*n_G"  # the sum of a window, not its mean


@dataclass(frozen=True)
class Task:
    """A netlist, its learning rule, the learning rate, iterations and numbers of seeds."""

    netlist: Path
    rule: str
    eta: float
    iterations: Mapping[str, int]
    seeds: Mapping[str, int]
    settings: Mapping[str, str | float] = field(default_factory=dict)

    def circuit(self, rate: str | float | None = None, **settings: str | float) -> mgd.Circuit:
        """With sums of windows, unless another rate is given."""
        text = TEXT.format(netlist=self.netlist, rule=self.rule)
        return mgd.load(text, eta=f"{self.eta}{SUMMED}" if rate is None else rate, **self.settings, **settings)


TASKS = {
    "xor": Task(NETLISTS / "xor.yaml", "mgd", 3, {"full": 60_000}, {"full": 16}),
    "letters": Task(NETLISTS / "letters.yaml", "mgd", 3, {"quick": 20_000, "full": 60_000}, {"quick": 8, "full": 8}),
    "digits": Task(study.FOLDER / "write_cycles.yaml", "wp", 3e-4, {"full": 30_000}, {"full": 4}, {"normalise": 0}),
}
ANALOG, ANALOG_ETA = "xor, analog", 1.5
DISCRETE = (("tau_x", "tau_theta"), ("tau_p", "tau_theta"), ("tau_p", "tau_x"))
PLANES = {
    "quick": [("letters", "tau_p", "tau_x")],
    "full": [*((task, *pair) for task in TASKS for pair in DISCRETE), (ANALOG, "tau_x", "tau_lp")],
}
ROWS = {"quick": (1, 16), "full": (1, 8, 64, 512)}
COLUMNS = {"quick": (1, 16), "full": (1, 8, 64, 512)}
COMPARED = "letters"
BATCHES = {"quick": (1, 8), "full": (1, 4, 16, 64)}
SAMPLES = {"quick": 32_768, "full": 49_152}


def ended(run: xr.Dataset) -> xr.Dataset:
    """Accuracy and cost at the end of each run."""
    return run[["accuracy_test", "cost_test"]].isel(iteration=slice(-LAST, None)).mean("iteration")


def swept_clock(clock: str, values: tuple[int, ...]) -> dict[str, list]:
    """The name and the values of a sweep of a clock, in iterations."""
    return {"tau_code": list(values)} if clock == "tau_p" else {clock: [f"{v}*iteration" for v in values]}


def plane(task: str, row: str, column: str, options: study.Options, address: str) -> xr.Dataset:
    """Accuracy and cost at the end over (row, column, seed)."""
    size, like = options.size, TASKS["xor" if task == ANALOG else task]
    circuit = mgd.load(NETLISTS / "xor_analog.yaml", eta=ANALOG_ETA) if task == ANALOG else like.circuit()
    clocks = swept_clock(row, ROWS[size]) | swept_clock(column, COLUMNS[size])
    names, iterations = list(clocks), like.iterations[size]
    seeds = range(options.seed, options.seed + like.seeds[size])
    part = f"time_constants_{size}_{task}_{row}_{column}".replace(", ", "_")
    run = study.swept(
        part, circuit, clocks | {"seed": seeds}, options, address,
        iterations=iterations, batch=1, evaluate_every=iterations // 10,
    )  # fmt: skip
    found = ended(run).rename({names[0]: "row", names[1]: "column"})
    return found.assign_coords(row=list(ROWS[size]), column=list(COLUMNS[size]))


def equivalence(options: study.Options, address: str) -> xr.Dataset:
    """Cost after the same number of samples: batches of B, and windows of B single samples; (how, size, seed)."""
    one, size, samples = TASKS[COMPARED], options.size, SAMPLES[options.size]
    seeds, found = range(options.seed, options.seed + one.seeds[size]), []
    for b in BATCHES[size]:
        ways = {
            "batch": (one.circuit(one.eta * b, tau_theta="iteration"), b, samples // b),
            "window": (one.circuit(tau_theta=f"{b}*iteration"), 1, samples),
        }
        for how, (circuit, batch, iterations) in ways.items():
            run = study.swept(
                f"time_constants_{size}_{how}_{b}", circuit, {"seed": seeds}, options, address,
                iterations=iterations, batch=batch, evaluate_every=iterations // 16, members=len(seeds),
            )  # fmt: skip
            found.append(ended(run))
    joined = xr.concat(found, "way").assign_coords(
        b=("way", np.repeat(BATCHES[size], 2)), how=("way", ["batch", "window"] * len(BATCHES[size]))
    )
    joined = joined.set_index(way=["b", "how"]).unstack("way")
    return joined.rename(accuracy_test="equal_accuracy", cost_test="equal_cost", seed="equal_seed")


SYMBOLS = {"tau_x": "$\\tau_x$", "tau_p": "$\\tau_p$", "tau_theta": "$\\tau_\\theta$", "tau_lp": "$\\tau_{lp}$"}


def draw(found: xr.Dataset, path: Path) -> None:
    """A map of each plane, a task a row; costs of batches and windows in the last place."""
    n = found.sizes["plane"]
    columns = 3 if n < 4 else 4
    rows = -(-(n + 1) // columns)
    figure = Figure(figsize=(3.5 * columns, 3.1 * rows), layout="constrained")
    places = [
        k + k // 3 * (columns - 3) if k < 9 else columns - 1 for k in range(n)
    ]  # three planes a task, then analog
    for k, place in enumerate(places):
        _map(figure.add_subplot(rows, columns, place + 1), found.isel(plane=k))
    _costs(figure.add_subplot(rows, columns, rows * columns), found)
    figure.savefig(path, dpi=110)


def _map(axes: Axes, one: xr.Dataset) -> None:
    values = 100 * one["accuracy_test"].mean("seed").transpose("row", "column").values
    axes.imshow(values, origin="lower", cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        color = "w" if value < 70 else "k"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(one.sizes["column"]), one["column"].values)
    axes.set_yticks(range(one.sizes["row"]), one["row"].values)
    axes.set_xlabel(f"{SYMBOLS[one['column_clock'].item()]} (iterations)")
    axes.set_ylabel(f"{SYMBOLS[one['row_clock'].item()]} (iterations)")
    axes.set_title(f"{one['task'].item()}: test accuracy (%)", fontsize=9)


def _costs(axes: Axes, found: xr.Dataset) -> None:
    for how, color in (("batch", "#c2571a"), ("window", "#1f5fa8")):
        one = found["equal_cost"].sel(how=how).transpose("b", "equal_seed")
        low, middle, high = one.quantile([0.25, 0.5, 0.75], "equal_seed").values
        axes.fill_between(one["b"], low, high, color=color, alpha=0.2, linewidth=0)
        label = "batch of B" if how == "batch" else "B samples, $\\tau_\\theta = B\\,\\tau_x$"
        axes.plot(one["b"], middle, "o-", color=color, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("B")
    axes.set_ylabel("test cost")
    axes.set_title(f"{COMPARED}, the same samples", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


@study.command
def main(options: study.Options) -> None:
    """Measure planes of time constants, and batches beside windows."""
    size, planes = options.size, PLANES[options.size]
    with study.cluster(options) as address:
        parts = [plane(*one, options, address) for one in planes]
        equal = equivalence(options, address)
    names = [f"{task}: {row}, {column}" for task, row, column in planes]
    found = xr.merge([xr.concat(parts, xr.DataArray(names, dims="plane", name="plane"), join="outer"), equal])
    clocks = zip(*planes, strict=True)
    found = found.assign_coords(
        {n: ("plane", list(v)) for n, v in zip(("task", "row_clock", "column_clock"), clocks, strict=True)}
    )
    found.attrs |= {
        "samples": SAMPLES[size],
        **{f"iterations of {n}": t.iterations.get(size, 0) for n, t in TASKS.items()},
    }
    path = study.keep(found, "time_constants", TASKS["xor"].circuit().spec, options)
    draw(found, path.with_suffix(".png"))
    for name in names:
        print(f"{name}: accuracy at the end, mean of the seeds")
        print(found["accuracy_test"].sel(plane=name).mean("seed").transpose("row", "column").values.round(2))
    for how in ("batch", "window"):
        medians = found["equal_cost"].sel(how=how).median("equal_seed").values
        costs = ", ".join(f"B={b}: {c:.4f}" for b, c in zip(found["b"].values, medians, strict=True))
        print(f"{COMPARED}, {how}: test cost {costs}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
