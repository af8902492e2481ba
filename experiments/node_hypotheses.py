"""What the published node perturbation could have been: predicted iterations to 15 degrees, beside figure 3b.

python experiments/node_hypotheses.py --d 1 --seeds 3 --only whichever
python experiments/node_hypotheses.py --out experiments/results

gradient_convergence.py finds other numbers for node perturbation than arXiv 2501.15403. This predicts what other readings
of the rule would give for the same circuits, initial parameters and images, and what the rule would give for other
circuits, initial parameters and images. Weight perturbation stands beside it, which any explanation must leave as it is.
Nothing is measured here. With --out a dataset and a figure are kept; the same command goes on after Ctrl-C.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mgdcircuits as mgd
from common import published, study
from common.node_or_weight import perturbs_nodes
from mgdcircuits import cli
from mgdcircuits.analysis.prediction import node_layers
from mgdcircuits.analysis.theory import Convergence, NodeLayer, combined, node_perturbation, weight_perturbation
from mgdcircuits.datasets import Dataset
from mgdcircuits.errors import RunError
from mgdcircuits.record import run_attributes

DEGREES = 15.0
TEXT = "include: {netlist}\ncircuit: node_hypotheses\n{changes}"
INITIAL = "kinds: {{weights: {{initial: {{w: '{}'}}}}}}"
MEAN, DEVIATION = 0.2860, 0.3530  # of the pixels of Fashion-MNIST between 0 and 1

Block = list[NodeLayer]
Images = Callable[[int, int, Dataset], np.ndarray]
COLORS = {1: "#1f5fa8", 2: "#3d8a4d", 4: "#c2571a"}
SECONDS_BETWEEN_WRITES = 30


def any_images(seed: int, n: int, data: Dataset) -> np.ndarray:
    """Numbers of training images, drawn with replacement."""
    return np.random.default_rng(seed).integers(len(data.x_train), size=n)


def one_class(seed: int, n: int, data: Dataset) -> np.ndarray:
    """The first images of a class, another one for each seed."""
    return of_class(seed % data.n_classes)(seed, n, data)


def of_class(label: int) -> Images:
    """The first images of this class, the same for all seeds."""
    return lambda seed, n, data: np.flatnonzero(data.y_train == label)[:n]


def as_described(block: Block) -> Convergence:
    """One code for the batch."""
    return node_perturbation(block)


def own_codes(block: Block) -> Convergence:
    """A code for each sample."""
    return node_perturbation(block, own_codes=True)


def without_biases(block: Block) -> Convergence:
    """The angle is that of the kernels alone."""
    return node_perturbation([NodeLayer(layer.slopes, layer.inputs[..., :-1]) for layer in block])


def slopes_of_nodes(block: Block) -> Convergence:
    """The mean slopes of the nodes are estimated, and not the gradient of the weights."""
    return weight_perturbation(np.concatenate([layer.slopes.mean(0).ravel() for layer in block]))


def pooled(block: Block) -> Block:
    """The nodes that are left after pooling by 2 x 2, as layers of one channel each; a block before no pool as it is.

    Only one node of a window has a slope: the winner, through which the parameters enter the pooled node.
    """
    (layer,) = block
    n_samples, n_channels, n_positions = layer.slopes.shape
    side = math.isqrt(n_positions)
    if n_positions == 1 or np.count_nonzero(layer.slopes) > layer.slopes.size / 4:
        return block
    half = side // 2
    square = np.arange(n_positions).reshape(side, side)[: 2 * half, : 2 * half]
    windows = square.reshape(half, 2, half, 2).swapaxes(1, 2).reshape(half**2, 4)
    found = []
    for slopes in layer.slopes.swapaxes(0, 1):
        each = slopes[:, windows]
        winners = np.take_along_axis(windows[None], np.abs(each).argmax(-1)[..., None], -1)
        found.append(NodeLayer(each.sum(-1)[:, None], np.take_along_axis(layer.inputs, winners, 1)))
    return found


def after_pooling(block: Block) -> Convergence:
    """Nodes are perturbed after pooling."""
    return node_perturbation(pooled(block))


def own_codes_after_pooling(block: Block) -> Convergence:
    """The same, with a code for each sample."""
    return node_perturbation(pooled(block), own_codes=True)


def of_weights(block: Block) -> Convergence:
    """The parameters of the block are perturbed."""
    return weight_perturbation(np.concatenate([layer.gradient().ravel() for layer in block]))


def whichever_are_fewer(block: Block) -> Convergence:
    """A layer perturbs its nodes or its parameters."""
    nodes = sum(layer.slopes[0].size for layer in block)
    parameters = sum(layer.gradient().size for layer in block)
    return as_described(block) if perturbs_nodes(nodes, parameters) else of_weights(block)


def weights_of_kernels(block: Block) -> Convergence:
    """Convolutions perturb their parameters, and dense layers their nodes."""
    return of_weights(block) if block[0].slopes.shape[-1] > 1 else as_described(block)


def draw_biases(session: mgd.Session, limit: Callable[[int, int], float], seed: int) -> None:
    """Biases other than 0."""
    random = np.random.default_rng((seed, 99))  # not the numbers that choose images
    for name, bias in session.parameters.items():
        if name.endswith(".b"):
            inputs = session.parameters[name.removesuffix("b") + "w"].size // bias.size
            bias[...] = limit(inputs, bias.size) * random.uniform(-1, 1, bias.shape)


@dataclass(frozen=True)
class Hypothesis:
    """What is other than in gradient_convergence.py: the reading of the rule, the netlist, or the images."""

    rule: Callable[[Block], Convergence] = as_described
    changes: str = ""
    images: Images = any_images
    batch: int = 100
    mean: float = 0.0  # which is taken from the pixels
    deviation: float = 1.0  # by which they are divided
    biases: Callable[[int, int], float] | None = None  # limit of uniform ones, by inputs of a neuron and channels

    def numbers(self) -> list[float]:
        """What of the circuit is not in its netlist: pixels, and the limit of initial biases of 8 inputs and 4 channels."""
        return [self.mean, self.deviation, self.biases(8, 4) if self.biases else 0.0]

    def blocks(self, d: int, seed: int) -> list[Block]:
        """The circuit at its initial parameters with some training images."""
        data = samples()
        text = TEXT.format(netlist=(study.NETLISTS / "fashion_mnist_cnn_np.yaml").resolve(), changes=self.changes)
        session = mgd.Session(mgd.load(text, d=d, target_off=0.01), batch=self.batch, seed=seed, target="numpy")
        if self.biases:
            draw_biases(session, self.biases, seed)
        chosen = self.images(seed, self.batch, data)
        pixels = data.x_train[chosen] * np.float32(data.scale)
        session.present((pixels - np.float32(self.mean)) / np.float32(self.deviation), data.y_train[chosen])
        return list(node_layers(session).values())

    def iterations(self, d: int, seed: int) -> tuple[float, float]:
        """Until 15 degrees, with nodes and with weights."""
        blocks = self.blocks(d, seed)
        nodes, weights = combined(map(self.rule, blocks)), combined(map(of_weights, blocks))
        return nodes.draws(DEGREES), weights.draws(DEGREES)


@cache
def samples() -> Dataset:
    """Fashion-MNIST."""
    return mgd.datasets.load("fashion_mnist")


def mean_pooling() -> str:
    """The same chain with other pools."""
    text = (study.NETLISTS / "fashion_mnist_cnn.yaml").read_text(encoding="utf-8")
    return "chain:\n" + text.split("\nchain:\n")[1].split("\n\n")[0].replace("max_pool", "mean_pool")


HYPOTHESES = {
    "one code for the batch (as described)": Hypothesis(),
    "a code for each sample": Hypothesis(own_codes),
    "nodes perturbed after pooling": Hypothesis(after_pooling),
    "after pooling, with a code for each sample": Hypothesis(own_codes_after_pooling),
    "nodes or parameters, whichever are fewer": Hypothesis(whichever_are_fewer),
    "parameters of convolutions, nodes of dense layers": Hypothesis(weights_of_kernels),
    "angle between slopes of nodes, not of weights": Hypothesis(slopes_of_nodes),
    "angle of the kernels, biases left out": Hypothesis(without_biases),
    "a batch of one sample": Hypothesis(batch=1),
    "a batch of one class": Hypothesis(images=one_class),
    **{f"a batch of class {label}": Hypothesis(images=of_class(label)) for label in range(10)},
    "pixels standardized": Hypothesis(mean=MEAN, deviation=DEVIATION),
    "pixels from -1 to 1": Hypothesis(mean=0.5, deviation=0.5),
    "mean pooling": Hypothesis(changes=mean_pooling()),
    "Glorot, normal": Hypothesis(changes=INITIAL.format("glorot_normal()")),
    "He, uniform": Hypothesis(changes=INITIAL.format("sqrt(6/fan_in)*(2*rand() - 1)")),
    "weights up to 1/sqrt(fan_in)": Hypothesis(changes=INITIAL.format("(2*rand() - 1)/sqrt(fan_in)")),
    "biases up to 1/sqrt(fan_in)": Hypothesis(biases=lambda inputs, channels: inputs**-0.5),
    "biases up to 0.5": Hypothesis(changes="kinds: {tanh: {initial: {b: '0.5*(2*rand() - 1)'}}}"),
    "biases up to sqrt(6/(1 + channels))": Hypothesis(biases=lambda inputs, channels: (6 / (1 + channels)) ** 0.5),
    "mean square error": Hypothesis(changes="cost: {C: 'mean_square(x_logits, target)'}"),
    "binary cross entropy": Hypothesis(changes="cost: {C: 'sum(log(1 + exp(x_logits))) - sum(target*x_logits)'}"),
}


def cell(values: np.ndarray) -> str:
    """Quartiles of nodes, and the median of weights: `values` (rule, seed) without those that are missing."""
    low, middle, high = np.percentile(values[0], [25, 50, 75])
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f}); {np.median(values[1]):,.0f}"


def empty(names: list[str], sizes: list[int], seeds: int) -> xr.Dataset:
    """Nothing predicted yet: iterations(hypothesis, rule, d, seed)."""
    coords = {"hypothesis": names, "rule": ["node", "weight"], "d": sizes, "seed": np.arange(1, seeds + 1)}
    found = xr.Dataset(coords=coords)
    found["iterations"] = (tuple(coords), np.full([len(v) for v in coords.values()], np.nan))
    until = published.until_15_degrees()
    theirs = [[until[rule, d] for d in sizes] for rule in coords["rule"]]
    found["published"] = (("rule", "d", "quartile"), np.array(theirs))
    return found.assign_coords(quartile=[0.25, 0.5, 0.75])


def begun(path: Path | None, names: list[str], sizes: list[int], seeds: int) -> xr.Dataset:
    """What a file already holds, with room for what is asked.

    Raises
    ------
    RunError
        A file that was made with another netlist.
    """
    found = empty(names, sizes, seeds)
    if path is None or not path.exists():
        return found
    with xr.open_dataset(path) as there:
        if not study.is_of(described(), there):
            raise RunError(f"{path} was made with another netlist: remove it, or give another --out")
        earlier = there["iterations"].load().drop_attrs()
    order = {"hypothesis": [n for n in HYPOTHESES if n in {*names, *earlier["hypothesis"].values}]}
    order |= {axis: np.union1d(found[axis], earlier[axis]) for axis in ("d", "seed")}
    wider = empty(order["hypothesis"], list(order["d"]), int(order["seed"].max()))
    wider["iterations"] = earlier.reindex_like(wider["iterations"])
    return wider


def missing(found: xr.Dataset, wanted: xr.Dataset) -> list[tuple[str, int, int]]:
    """Points that are wanted and not predicted yet."""
    names, sizes, seeds = (wanted[axis].values for axis in ("hypothesis", "d", "seed"))
    there = found["iterations"].notnull().all("rule")
    every = itertools.product(map(str, names), map(int, sizes), map(int, seeds))
    return [(name, d, seed) for name, d, seed in every if not there.sel(hypothesis=name, d=d, seed=seed)]


def work(found: xr.Dataset, wanted: xr.Dataset, path: Path | None) -> None:
    """Predict what is wanted and missing; write it now and then."""
    points = missing(found, wanted)
    written = time.monotonic()
    try:
        for name, d, seed in track(points, "predictions", console=Console(stderr=True), transient=True):
            predicted = np.array(HYPOTHESES[name].iterations(d, seed))
            found["iterations"].loc[{"hypothesis": name, "d": d, "seed": seed}] = predicted
            if path is not None and time.monotonic() > written + SECONDS_BETWEEN_WRITES:
                keep(found, path, "running")
                written = time.monotonic()
    except KeyboardInterrupt:
        click.echo("interrupted; the same command goes on" if path is not None else "interrupted", err=True)
    if path is not None:
        keep(found, path, "interrupted" if missing(found, wanted) else "finished")
        draw(found, path.with_suffix(".png"))


def described() -> mgd.Circuit:
    """The circuit by which the dataset is described."""
    return mgd.load(study.NETLISTS / "fashion_mnist_cnn_np.yaml", target_off=0.01)


def keep(found: xr.Dataset, path: Path, state: str) -> None:
    """Write the dataset."""
    found["iterations"].attrs = {"long_name": f"predicted iterations to {DEGREES:g} degrees"}
    study.write(found.assign_attrs(run_attributes(described().spec, title="node hypotheses", state=state)), path)


def draw(found: xr.Dataset, path: Path) -> None:
    """Our medians and quartiles over the published median: nodes, and weights."""
    names = list(found["hypothesis"].values)
    figure = Figure(figsize=(11, 0.34 * len(names) + 1.6), layout="constrained")
    for axes, rule in zip(figure.subplots(1, 2, sharey=True), ("node", "weight"), strict=True):
        for k, d in enumerate(found["d"].values):
            color = COLORS.get(d, "#777777")
            theirs = found["published"].sel(rule=rule, d=d)
            middle = float(theirs.sel(quartile=0.5))
            low, high = (theirs.sel(quartile=[0.25, 0.75]) / middle).values
            axes.axvspan(low, high, fc=(color, 0.1), ec=(color, 0.6), lw=0.8, label=f"d = {d}: published quartiles")
            for row, name in enumerate(names):
                values = found["iterations"].sel(hypothesis=name, rule=rule, d=d).dropna("seed").values / middle
                if len(values):
                    low, median, high = np.percentile(values, [25, 50, 75])
                    place = row + 0.22 * (k - (found.sizes["d"] - 1) / 2)
                    axes.plot([low, high], [place, place], color=color, lw=1)
                    axes.plot(median, place, "o", ms=4, color=color)
            axes.plot([], [], "o-", ms=4, lw=1, color=color, label=f"d = {d}: our median and quartiles")
        finish(axes, {"node": "nodes", "weight": "weights"}[rule], "iterations to 15° / published median")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=found.sizes["d"], frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def finish(axes: Axes, title: str, label: str) -> None:
    """Titles and ticks of iterations over published ones."""
    axes.axvline(1, color="#999999", lw=0.8, ls=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--d", "sizes", type=click.IntRange(1, 8), multiple=True, default=(1, 2, 4), show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--only", default="", help="Hypotheses whose name contains this.")
@click.option("--out", type=study.FOLDER_TO_WRITE, help="A folder for the dataset and the figure.")
def main(sizes: tuple[int, ...], seeds: int, only: str, out: Path | None) -> None:
    """Print a table."""
    names = [name for name in HYPOTHESES if only in name]
    if not names:
        raise click.BadParameter(f"no hypothesis contains '{only}'; there are: {', '.join(HYPOTHESES)}")
    path = None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = out / "node_hypotheses.nc"
    wanted = empty(names, sorted(set(sizes)), seeds)
    found = begun(path, names, sorted(set(sizes)), seeds)
    work(found, wanted, path)
    print_table(found.sel(wanted.coords))


def print_table(found: xr.Dataset) -> None:
    """A row for each hypothesis, and the published one."""
    counts = found["iterations"].count("seed").values
    seeds = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    table = Table(title=f"iterations to {DEGREES:g} degrees: nodes, median (quartiles); weights, median; {seeds} seeds")
    for column in ("", *(f"d = {d}" for d in found["d"].values)):
        table.add_column(column)
    for name in found["hypothesis"].values:
        each = [found["iterations"].sel(hypothesis=name, d=d).dropna("seed").values for d in found["d"].values]
        table.add_row(str(name), *(cell(values) if values.size else "" for values in each))
    theirs = [found["published"].sel(d=d).values for d in found["d"].values]
    cells = [f"{n[1]:,.0f} ({n[0]:,.0f} to {n[2]:,.0f}); {w[1]:,.0f}" for n, w in theirs]
    table.add_row("published, 10 seeds", *cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(cli.run(main))
