"""What the published node perturbation could have been: predicted iterations to 15 degrees, beside figure 3b.

python experiments/node_hypotheses.py
python experiments/node_hypotheses.py --d 1 --seeds 3 --only "one class"

gradient_convergence.py finds other numbers for node perturbation than arXiv 2501.15403. This predicts what other readings
of the rule would give for the same circuits, initial parameters and images, and what the rule would give for other
circuits, initial parameters and images. Weight perturbation stands beside it, which any explanation must leave as it is.
Nothing is measured here.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import click
import numpy as np
import study
from rich.console import Console
from rich.table import Table

import mgdcircuits as mgd
from mgdcircuits import cli
from mgdcircuits.analysis.prediction import node_layers
from mgdcircuits.analysis.theory import Convergence, NodeLayer, combined, node_perturbation, weight_perturbation
from mgdcircuits.datasets import Dataset

DEGREES = 15.0
NETLISTS = study.FOLDER.parent / "netlists"
TEXT = "include: {netlist}\ncircuit: node_hypotheses\n{changes}"
INITIAL = "kinds: {{weights: {{initial: {{w: '{}'}}}}}}"
MEAN, DEVIATION = 0.2860, 0.3530  # of the pixels of Fashion-MNIST between 0 and 1

Block = list[NodeLayer]
Images = Callable[[int, int, Dataset], np.ndarray]


def any_images(seed: int, n: int, data: Dataset) -> np.ndarray:
    """Numbers of training images, drawn with replacement."""
    return np.random.default_rng(seed).integers(len(data.x_train), size=n)


def one_class(seed: int, n: int, data: Dataset) -> np.ndarray:
    """The first images of a class."""
    return np.flatnonzero(data.y_train == seed % data.n_classes)[:n]


def as_described(block: Block) -> Convergence:
    """One code for the batch."""
    return node_perturbation(block)


def own_codes(block: Block) -> Convergence:
    """A code for each sample."""
    return node_perturbation(block, own_codes=True)


def slopes_of_nodes(block: Block) -> Convergence:
    """The mean slopes of the nodes are estimated, and not the gradient of the weights."""
    return weight_perturbation(np.concatenate([layer.slopes.mean(0).ravel() for layer in block]))


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

    def blocks(self, d: int, seed: int) -> list[Block]:
        """The circuit at its initial parameters with some training images."""
        data = samples()
        text = TEXT.format(netlist=NETLISTS / "fashion_mnist_cnn_np.yaml", changes=self.changes)
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
        gradients = [np.concatenate([layer.gradient().ravel() for layer in block]) for block in blocks]
        nodes, weights = combined(map(self.rule, blocks)), combined(map(weight_perturbation, gradients))
        return nodes.draws(DEGREES), weights.draws(DEGREES)


@cache
def samples() -> Dataset:
    """Fashion-MNIST."""
    return mgd.datasets.load("fashion_mnist")


def mean_pooling() -> str:
    """The same chain with other pools."""
    text = (NETLISTS / "fashion_mnist_cnn.yaml").read_text(encoding="utf-8")
    return "chain:\n" + text.split("\nchain:\n")[1].split("\n\n")[0].replace("max_pool", "mean_pool")


HYPOTHESES = {
    "one code for the batch (as described)": Hypothesis(),
    "a code for each sample": Hypothesis(own_codes),
    "angle between slopes of nodes, not of weights": Hypothesis(slopes_of_nodes),
    "a batch of one sample": Hypothesis(batch=1),
    "a batch of one class": Hypothesis(images=one_class),
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


def published(rule: str, d: int) -> np.ndarray:
    """Quartiles of figure 3b."""
    with (study.PUBLISHED / "fig3.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if (r["panel"], r["train_method"], int(r["d"])) == ("3b", rule, d))
    return np.array([float(row[f"csv_iters_alpha15deg_{q}"]) for q in ("q25", "median", "q75")])


def cell(nodes: np.ndarray, weights: np.ndarray) -> str:
    """Quartiles of nodes, and the median of weights."""
    low, middle, high = nodes
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f}); {weights[1]:,.0f}"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--d", "sizes", type=click.IntRange(1, 8), multiple=True, default=(1, 2, 4), show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--only", default="", help="Hypotheses whose name contains this.")
def main(sizes: tuple[int, ...], seeds: int, only: str) -> None:
    """Print a table."""
    tried = {name: hypothesis for name, hypothesis in HYPOTHESES.items() if only in name}
    if not tried:
        raise click.BadParameter(f"no hypothesis contains '{only}'; there are: {', '.join(HYPOTHESES)}")
    table = Table(title=f"iterations to {DEGREES:g} degrees: nodes, median (quartiles); weights, median; {seeds} seeds")
    for column in ("", *(f"d = {d}" for d in sizes)):
        table.add_column(column)
    for name, hypothesis in tried.items():
        found = [[hypothesis.iterations(d, seed) for seed in range(1, seeds + 1)] for d in sizes]
        table.add_row(name, *(cell(*np.percentile(one, [25, 50, 75], axis=0).T) for one in found))
    table.add_row("published, 10 seeds", *(cell(published("node", d), published("weight", d)) for d in sizes))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(cli.run(main))
