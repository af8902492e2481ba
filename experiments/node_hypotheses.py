"""What else the published node perturbation could have been: predicted iterations to 15 degrees, beside figure 3b.

python experiments/node_hypotheses.py
python experiments/node_hypotheses.py --d 1 --seeds 3

gradient_convergence.py finds other numbers for node perturbation than arXiv 2501.15403. This predicts, for the same
circuits, initial parameters and images, what some other readings of the rule would give. Nothing is measured here.
"""

from __future__ import annotations

import csv
import sys

import click
import numpy as np
import study
from rich.console import Console
from rich.table import Table

import mgdcircuits as mgd
from mgdcircuits import cli
from mgdcircuits.analysis.prediction import node_layers, predict
from mgdcircuits.analysis.theory import combined, node_perturbation, weight_perturbation

BATCH, DEGREES = 100, 15.0
NETLIST = study.FOLDER.parent / "netlists" / "fashion_mnist_cnn_np.yaml"


def session_of(d: int, seed: int, batch: int) -> mgd.Session:
    """The circuit at its initial parameters, with some training images."""
    data = mgd.datasets.load("fashion_mnist")
    session = mgd.Session(mgd.load(NETLIST, d=d, target_off=0.01), batch=batch, seed=seed, target="numpy")
    chosen = np.random.default_rng(seed).integers(len(data.x_train), size=batch)
    session.present(data.x_train[chosen] * np.float32(data.scale), data.y_train[chosen])
    return session


def hypotheses(d: int, seed: int) -> dict[str, float]:
    """Iterations to 15 degrees by each reading of the rule."""
    session = session_of(d, seed, BATCH)
    blocks = node_layers(session)
    slopes = {name: np.concatenate([layer.slopes.mean(0).ravel() for layer in block]) for name, block in blocks.items()}
    found = {
        "one code for the batch (as described)": predict(session).network,
        "a code for each sample": combined(node_perturbation(block, own_codes=True) for block in blocks.values()),
        "a batch of one sample": predict(session_of(d, seed, 1)).network,
        "angle between slopes of nodes, not of weights": combined(weight_perturbation(s) for s in slopes.values()),
    }
    return {name: one.draws(DEGREES) for name, one in found.items()}


def published(d: int) -> str:
    """Median and quartiles of figure 3b."""
    with (study.PUBLISHED / "fig3.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if (r["panel"], r["train_method"], int(r["d"])) == ("3b", "node", d))
    low, middle, high = (float(row[f"csv_iters_alpha15deg_{q}"]) for q in ("q25", "median", "q75"))
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--d", "sizes", type=click.IntRange(1, 8), multiple=True, default=(1, 2, 4), show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
def main(sizes: tuple[int, ...], seeds: int) -> None:
    """Print a table."""
    table = Table(title=f"iterations to {DEGREES:g} degrees, median (quartiles) of {seeds} seeds")
    for column in ("", *(f"d = {d}" for d in sizes)):
        table.add_column(column)
    found = {d: [hypotheses(d, seed) for seed in range(1, seeds + 1)] for d in sizes}
    for name in found[sizes[0]][0]:
        quartiles = [np.percentile([one[name] for one in found[d]], [25, 50, 75]) for d in sizes]
        table.add_row(name, *(f"{m:,.0f} ({low:,.0f} to {high:,.0f})" for low, m, high in quartiles))
    table.add_row("published, 10 seeds", *map(published, sizes))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(cli.run(main))
