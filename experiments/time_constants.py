"""Time constants of McCaughan et al. 2023 (arXiv 2303.03986): how long samples, perturbations and estimates are held.

python experiments/time_constants.py --quick
python experiments/time_constants.py --full --out experiments/results

Planes of tau_x, tau_p and tau_theta, in iterations, of XOR, letters and digits, where the third is one iteration; of tau_x and
the low-pass filter in analog mode. Estimates of a window are added up, as in the paper. And batches of B samples beside
windows of B single samples, both after the same number of samples.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import mgdcircuits as mgd
from common import study
from mgdcircuits import cli

LAST = 3
"""Rows whose mean is the accuracy at the end."""

TEXT = """
include: {netlist}
circuit: time_constants
parameters: {{tau_code: 1}}  # iterations that a code is held
learning:
  {rule}: {{perturb: {{every: tau_code*iteration}}}}
"""
# The rule of netlists/xor_analog.yaml.
ANALOG = """
include: {netlist}
circuit: time_constants_analog
parameters: {{size: {size}, rate: {rate}, high: tau_hp/(tau_hp + tau_p), low: tau_p/(tau_lp + tau_p)}}
clocks: {{tau_hp: 2*iteration, tau_lp: iteration}}
learning:
  {rule}: none
  analog:
    perturb: {{theta_w: size*bernoulli(), theta_b: size*bernoulli()}}
    passes: {{plus: 1}}
    signals:
      dC: high*(dC + C.plus - where(new_x > 0, C.plus, C_last))
      C_last: C.plus
    estimate: dC*theta/size**2
    accumulate: G + (estimate - G)*low
    update: {{request: -rate*G, every: tau_theta, clear: false}}
"""
SUMMED = "*n_G"  # the sum of a window, not its mean


@dataclass(frozen=True)
class Task:
    """A netlist, its learning rule, the learning rate, iterations and numbers of seeds.

    `size` and `rate`: of a perturbation, and per unit of gradient, in analog mode.
    """

    netlist: Path
    rule: str
    eta: float
    iterations: Mapping[str, int]
    seeds: Mapping[str, int]
    size: float
    rate: float
    settings: Mapping[str, str | float] = field(default_factory=dict)

    def circuit(self, rate: str | float | None = None, **settings: str | float) -> mgd.Circuit:
        """With sums of windows, unless another rate is given."""
        text = TEXT.format(netlist=self.netlist, rule=self.rule)
        return mgd.load(text, eta=f"{self.eta}{SUMMED}" if rate is None else rate, **self.settings, **settings)

    def analog(self) -> mgd.Circuit:
        """One pass and two filters."""
        text = ANALOG.format(netlist=self.netlist, rule=self.rule, size=self.size, rate=self.rate)
        return mgd.load(text, **self.settings)


TASKS = {
    "xor": Task(study.NETLISTS / "xor.yaml", "mgd", 3, {"full": 60_000}, {"full": 16}, size=0.1, rate=1.5 / 9),
    "letters": Task(
        study.NETLISTS / "letters.yaml",
        "mgd",
        3,
        {"quick": 20_000, "full": 60_000},
        {"quick": 8, "full": 8},
        size=0.02,
        rate=3 / 220,
    ),
    "digits": Task(
        study.FOLDER / "write_cycles.yaml",
        "wp",
        3e-4,
        {"full": 30_000},
        {"full": 4},
        size=0.02,
        rate=3e-4,
        settings={"normalise": 0},
    ),
}
OF_ANALOG = ", analog"  # after the name of a task
DISCRETE = (("tau_x", "tau_theta"), ("tau_p", "tau_theta"), ("tau_p", "tau_x"))
PLANES = {
    "quick": [("letters", "tau_p", "tau_x")],
    "full": [
        *((task, *pair) for task in TASKS for pair in DISCRETE),
        *((f"{task}{OF_ANALOG}", "tau_x", "tau_lp") for task in TASKS),
    ],
}
ROWS = {"quick": (1, 16), "full": (1, 8, 64, 512)}
COLUMNS = {"quick": (1, 16), "full": (1, 8, 64, 512)}
COMPARED = {"quick": ("letters",), "full": ("letters", "digits")}
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
    size, like = options.size, TASKS[task.removesuffix(OF_ANALOG)]
    circuit = like.analog() if task.endswith(OF_ANALOG) else like.circuit()
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


def equivalence(task: str, options: study.Options, address: str) -> xr.Dataset:
    """Cost after the same number of samples: batches of B, and windows of B single samples; (how, size, seed)."""
    one, size, samples = TASKS[task], options.size, SAMPLES[options.size]
    seeds, found = range(options.seed, options.seed + one.seeds[size]), []
    for b in BATCHES[size]:
        ways = {
            "batch": (one.circuit(one.eta * b, tau_theta="iteration"), b, samples // b),
            "window": (one.circuit(tau_theta=f"{b}*iteration"), 1, samples),
        }
        for how, (circuit, batch, iterations) in ways.items():
            run = study.swept(
                f"time_constants_{size}_{task}_{how}_{b}", circuit, {"seed": seeds}, options, address,
                iterations=iterations, batch=batch, evaluate_every=iterations // 16, members=len(seeds),
            )  # fmt: skip
            found.append(ended(run))
    joined = xr.concat(found, "way").assign_coords(
        b=("way", np.repeat(BATCHES[size], 2)), how=("way", ["batch", "window"] * len(BATCHES[size]))
    )
    joined = joined.set_index(way=["b", "how"]).unstack("way")
    return joined.rename(accuracy_test="equal_accuracy", cost_test="equal_cost", seed="equal_seed").expand_dims(
        compared=[task]
    )


SYMBOLS = {"tau_x": "$\\tau_x$", "tau_p": "$\\tau_p$", "tau_theta": "$\\tau_\\theta$", "tau_lp": "$\\tau_{lp}$"}


def draw(found: xr.Dataset, path: Path) -> None:
    """A task a row: a map of each plane, those of analog learning after the others, and costs of batches and windows."""
    tasks = found["task"].values
    names = dict.fromkeys(name.removesuffix(OF_ANALOG) for name in tasks)
    rows = [[k for k, name in enumerate(tasks) if name.removesuffix(OF_ANALOG) == task] for task in names]
    columns = max(map(len, rows)) + 1
    figure = Figure(figsize=(3.5 * columns, 3.1 * len(rows)), layout="constrained")
    for row, (task, planes) in enumerate(zip(names, rows, strict=True)):
        for column, k in enumerate(planes):
            _map(figure.add_subplot(len(rows), columns, row * columns + column + 1), found.isel(plane=k))
        if task in found["compared"].values:
            _costs(figure.add_subplot(len(rows), columns, (row + 1) * columns), found.sel(compared=task))
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
        one = found["equal_cost"].sel(how=how).transpose("b", "equal_seed").dropna("equal_seed")
        low, middle, high = one.quantile([0.25, 0.5, 0.75], "equal_seed").values
        axes.fill_between(one["b"], low, high, color=color, alpha=0.2, linewidth=0)
        label = "batch of B" if how == "batch" else "B samples, $\\tau_\\theta = B\\,\\tau_x$"
        axes.plot(one["b"], middle, "o-", color=color, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("B")
    axes.set_ylabel("test cost")
    axes.set_title(f"{found['compared'].item()}, the same samples", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


@study.command
def main(options: study.Options) -> None:
    """Measure planes of time constants, and batches beside windows."""
    size, planes = options.size, PLANES[options.size]
    with study.cluster(options) as address:
        parts = [plane(*one, options, address) for one in planes]
        equal = xr.concat([equivalence(task, options, address) for task in COMPARED[size]], "compared", join="outer")
    names = [f"{task}: {row}, {column}" for task, row, column in planes]
    found = xr.merge([xr.concat(parts, xr.DataArray(names, dims="plane", name="plane"), join="outer"), equal])
    clocks = zip(*planes, strict=True)
    found = found.assign_coords(
        {n: ("plane", list(v)) for n, v in zip(("task", "row_clock", "column_clock"), clocks, strict=True)}
    )
    found.attrs |= {
        "samples": SAMPLES[size],
        **{f"iterations of {n}": t.iterations.get(size, 0) for n, t in TASKS.items()},
        **{f"size of a perturbation of {n}{OF_ANALOG}": t.size for n, t in TASKS.items()},
        **{f"rate per unit of gradient of {n}{OF_ANALOG}": t.rate for n, t in TASKS.items()},
    }
    path = study.keep(found, "time_constants", TASKS["xor"].circuit().spec, options)
    draw(found, path.with_suffix(".png"))
    for name in names:
        print(f"{name}: accuracy at the end, mean of the seeds")
        print(found["accuracy_test"].sel(plane=name).mean("seed").transpose("row", "column").values.round(2))
    for task, how in itertools.product(COMPARED[size], ("batch", "window")):
        medians = found["equal_cost"].sel(compared=task, how=how).median("equal_seed").values
        costs = ", ".join(f"B={b}: {c:.4f}" for b, c in zip(found["b"].values, medians, strict=True))
        print(f"{task}, {how}: test cost {costs}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
