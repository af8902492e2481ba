"""Train Fashion-MNIST by weight or node perturbation, and say what it took: `make run`.

python experiments/fashion_mnist.py
python experiments/fashion_mnist.py --rule np --set d=2 --iterations 5000
python experiments/fashion_mnist.py --netlist netlists/fashion_mnist_cnn.yaml --set eta=0.005 --iterations 20000
python experiments/fashion_mnist.py --optimizer adam --tau-theta 10 --seed 2 --out adam.nc
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import xarray as xr
from ruamel.yaml import YAML

import mgdcircuits as mgd
from mgdcircuits import cli
from mgdcircuits.errors import RunError

# The defaults of `make run`.
NETLISTS = Path(__file__).resolve().parent.parent / "netlists"
NETLIST = {"wp": NETLISTS / "fashion_mnist_small.yaml", "np": NETLISTS / "fashion_mnist_cnn_np.yaml"}
RULE = "wp"
TAU_THETA: int | None = None  # iterations between updates; None: as the netlist says
ITERATIONS = 250_000
BATCH = 96
SEED = 1
OUT = "fashion_mnist.nc"

# Updates as library snippets in the netlist language; `eta` is the netlist's.
OPTIMIZERS = {"vanilla": "vanilla", "momentum": "momentum(gamma=0.9)", "adam": "adam()"}


def with_optimizer(netlist: Path, optimizer: str, folder: Path) -> Path:
    """A copy of a netlist in which the rules request their updates through another optimizer."""
    yaml = YAML()
    document = yaml.load(netlist)
    rules = [rule for rule in document.get("learning", {}).values() if isinstance(rule, dict) and "update" in rule]
    if not rules:
        raise RunError(f"{netlist} has no learning system of its own whose update --optimizer could replace")
    for rule in rules:
        every = rule["update"].get("every", "tau_theta")
        rule["update"] = {"use": OPTIMIZERS[optimizer], "every": every}
    included = document.get("include", [])
    if included:
        names = [included] if isinstance(included, str) else included
        document["include"] = [str((netlist.parent / name).resolve()) for name in names]
    path = folder / f"{netlist.stem}_{optimizer}.yaml"
    yaml.dump(document, path)
    return path


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--netlist", type=click.Path(path_type=Path), help="Another netlist; then --rule has no meaning.")
@cli.SET
@click.option("--iterations", type=click.IntRange(min=1), default=ITERATIONS, show_default=True)
@click.option("--rule", type=click.Choice(list(NETLIST)), default=RULE, show_default=True, help="Weights or nodes.")
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), help="[default: the netlist's]")
@click.option("--tau-theta", type=click.IntRange(min=1), default=TAU_THETA, help="Iterations between two updates.")
@click.option("--batch", type=click.IntRange(min=1), default=BATCH, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=SEED, show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--evaluate-every", type=click.IntRange(min=1), help="[default: about 100 rows]")
@click.option("--data-dir", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="An older file is replaced."
)
def main(
    netlist: Path | None,
    overrides: dict[str, str],
    iterations: int,
    rule: str,
    optimizer: str | None,
    tau_theta: int | None,
    out: Path,
    **options: object,
) -> None:
    """Train Fashion-MNIST in situ, and say what came of it, what it took, and where it is."""
    settings: dict[str, object] = dict(overrides)
    if netlist is None and rule == "wp":  # the rate of the default netlist falls to zero at the end of the run
        settings.setdefault("n_anneal", max(1, iterations // (tau_theta or 1)))
    if tau_theta is not None:
        settings["tau_theta"] = f"{tau_theta}*iteration"
    with tempfile.TemporaryDirectory() as folder:
        path = netlist or NETLIST[rule]
        if optimizer is not None:
            path = with_optimizer(path, optimizer, Path(folder))
        circuit = mgd.load(path, **settings)
    print(f"{circuit.name}: {circuit.n_parameters:,} parameters, {circuit.n_nodes:,} nodes; {iterations:,} iterations")
    run = mgd.train(circuit, iterations=iterations, out=out, overwrite=True, **options)
    figure = out.with_suffix(".png")
    mgd.plot(run, figure)
    report(run, out, figure)


def report(run: xr.Dataset, out: Path, figure: Path) -> None:
    """What a person wants to know at the end."""
    last = run.isel(iteration=-1)
    writes = float((last["writes_mean"] * run["parameter_size"]).sum() / run["parameter_size"].sum())
    print()
    print(f"test accuracy        {float(last['accuracy_test']):.2%}")
    print(f"iterations           {int(last['iteration']):,}")
    print(f"sample evaluations   {int(last['evaluations']):,}")
    print(f"hardware time        {float(last['hardware_seconds']):,.4g} s (simulated)")
    print(f"writes per parameter {writes:,.0f}")
    print(f"computing time       {float(last['wall_seconds']):,.0f} s")
    print(f"dataset              {out}")
    print(f"figure               {figure}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
