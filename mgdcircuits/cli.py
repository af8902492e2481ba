"""The command line: check, show, draw, train, sweep, plot, data fetch, cache info and clear."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from mgdcircuits.errors import MgdError

INTERRUPTED = 130  # what a shell reports for Ctrl-C

TRAIN_EXAMPLES = """
\b
Examples:
  mgdcircuits train netlists/xor.yaml --iterations 20000 -o xor.nc
  mgdcircuits train netlists/fashion_mnist_cnn.yaml --iterations 20000 --set d=4 --set eta=0.05 -o run.nc
  mgdcircuits train netlists/letters.yaml --iterations 50000 --until "accuracy >= .8"
\b
Stopped with Ctrl-C, killed, or out of disk? The same command with --resume goes on, as if nothing had happened:
  mgdcircuits train netlists/xor.yaml --iterations 20000 -o xor.nc --resume
"""

SWEEP_EXAMPLES = """
\b
Examples:
  mgdcircuits sweep netlists/xor.yaml --grid seed=0..9 --iterations 20000 -o xor.nc
  mgdcircuits sweep netlists/xor.yaml --grid eta=1,3,10 --grid seed=0..99 --iterations 200000 -o eta.nc
  mgdcircuits sweep netlists/xor.yaml --grid "tau_theta=iteration,10*iteration" --iterations 20000 -o window.nc
  mgdcircuits sweep netlists/xor.yaml --grid seed=0..999 --iterations 20000 -o xor.nc --scheduler tcp://node7:8786
\b
Stopped with Ctrl-C, killed, or some points failed? The same command goes on with the points that are missing.
docs/sweeps.md tells about clusters and SLURM.
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""
\b
Examples:
  mgdcircuits check netlists/*.yaml
  mgdcircuits show netlists/xor.yaml
  mgdcircuits draw netlists/xor.yaml -o xor.svg
  mgdcircuits train netlists/xor.yaml --iterations 20000 -o xor.nc
  mgdcircuits sweep netlists/xor.yaml --grid eta=1,3,10 --grid seed=0..9 --iterations 20000 -o sweep.nc
  mgdcircuits plot xor.nc -o xor.png
""",
)
@click.version_option(package_name="mgdcircuits", message="%(package)s %(version)s")
def cli() -> None:
    """Train circuits in situ by multiplexed gradient descent, from netlists of equations."""


def _settings(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`--set name=value` as overrides of netlist parameters."""
    found = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise click.BadParameter(f"{text!r}; expected NAME=VALUE, such as d=4 or Rf=10*kohm")
        if name.strip() in found:
            raise click.BadParameter(f"{name.strip()} has two values; give one")
        found[name.strip()] = value.strip()
    return found


SET = click.option(
    "--set",
    "overrides",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_settings,
    help="Another value for a parameter or clock of the netlist; may be given several times.",
)
NETLIST = click.argument("file", type=click.Path(path_type=Path))
POSITIVE = click.IntRange(min=1)


RUN_OPTIONS = (
    click.option(
        "--data",
        metavar="NAME",
        help="fashion_mnist, digits, letters, parity, xor, or a CSV file.  [default: the netlist's]",
    ),
    click.option("--data-dir", type=click.Path(path_type=Path), help="Where downloaded data lies."),
    click.option("--batch", type=POSITIVE, help="Samples shown side by side.  [default: the netlist's]"),
    click.option("--target", type=click.Choice(["cpp", "numpy"]), default="cpp", show_default=True),
    click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True),
    click.option("--until", metavar="CONDITION", help='Stop early, for example when "accuracy >= .8".'),
    click.option("--evaluate-every", type=POSITIVE, help="Iterations between two rows.  [default: about 100 rows]"),
    click.option(
        "--record", multiple=True, metavar="NAME", help="Record this instead of the netlist's record:; or none."
    ),
    click.option("--gradient", is_flag=True, help="Compare the estimate with the exact gradient at every row."),
    click.option(
        "--on-nan",
        type=click.Choice(["stop", "continue"]),
        default="stop",
        show_default=True,
        help="When a cost, parameter or state is infinite or not a number.",
    ),
)
"""Options of a run that `train` and `sweep` share."""


def _with(options: Iterable[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """A decorator that adds options, in their order."""

    def decorate(command: Any) -> Any:
        for option in reversed(tuple(options)):
            command = option(command)
        return command

    return decorate


def _record(names: Sequence[str]) -> list[str] | None:
    """What `--record` asks for; nothing where it was not given."""
    return None if not names else [] if tuple(names) == ("none",) else list(names)


def _load(file: Path, overrides: dict[str, str]) -> Any:
    from mgdcircuits.circuit.circuit import Circuit
    from mgdcircuits.netlist import load

    # Not `load(file, **overrides)`: a netlist may call a parameter `path`.
    return Circuit(load(file, overrides))


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@SET
def check(files: tuple[Path, ...], overrides: dict[str, str]) -> None:
    """Look for mistakes in netlists.

    Prints every problem as FILE:LINE and exits with status 2, or says what each file describes.

    \b
    Example:
      mgdcircuits check netlists/xor.yaml netlists/letters.yaml
    """
    failed = False
    for file in files:
        try:
            circuit = _load(file, overrides)
        except MgdError as error:
            failed = True
            click.echo(error, err=True)
            continue
        rules = ", ".join(s.name for s in circuit.spec.learning) or "no learning"
        click.echo(
            f"{file}: {circuit.name}: {_count(len(circuit.populations), 'population')}, "
            f"{_count(len(circuit.couplings), 'coupling')}, {_count(circuit.n_parameters, 'plastic parameter')}, "
            f"{_count(circuit.n_macs, 'synapse')}; {rules}"
        )
    if failed:
        click.get_current_context().exit(2)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


@cli.command()
@NETLIST
@SET
@click.option("--origin", is_flag=True, help="Show instead the line that each value came from, includes followed.")
def show(file: Path, overrides: dict[str, str], origin: bool) -> None:
    """Print what a netlist comes to: populations, shapes, counts, and the equations that are really used.

    \b
    Example:
      mgdcircuits show netlists/fashion_mnist_cnn.yaml --set d=8
    """
    from mgdcircuits.netlist import show as showing

    circuit = _load(file, overrides)
    click.echo((showing.origins(file) if origin else showing.effective(circuit.spec)).rstrip())


@cli.command()
@NETLIST
@SET
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The SVG file.  [default: the circuit's name .svg]")
def draw(file: Path, overrides: dict[str, str], out: Path | None) -> None:
    """Draw a circuit as an SVG picture.

    \b
    Example:
      mgdcircuits draw netlists/xor.yaml -o xor.svg
    """
    from mgdcircuits.drawing import draw as draw_circuit

    circuit = _load(file, overrides)
    click.echo(f"drew {circuit.name} in {draw_circuit(circuit, out or Path(f'{circuit.name}.svg'))}")


@cli.command(epilog=TRAIN_EXAMPLES)
@NETLIST
@click.option("--iterations", type=POSITIVE, required=True, help="How many iterations.")
@SET
@click.option("--seed", type=int, default=0, show_default=True, help="Of all random draws.")
@click.option("--threads", type=POSITIVE, help="Of the C++ target; results do not depend on it.  [default: all cores]")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The netCDF file.  [default: the circuit's name .nc]"
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--members", type=POSITIVE, default=1, show_default=True, help="Independent experiments side by side.")
@_with(RUN_OPTIONS)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped or killed; say the rest as before.")
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How often to write what --resume goes on from; 0 for never.",
)
def train(
    file: Path,
    overrides: dict[str, str],
    out: Path | None,
    force: bool,
    record: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Train a circuit by the rule of its netlist, and write the run to a netCDF file."""
    from mgdcircuits.progress import summary

    circuit = _load(file, overrides)
    path = out or Path(f"{circuit.name}.nc")
    from mgdcircuits.training import train as train_circuit

    run = train_circuit(circuit, out=path, overwrite=force, record=_record(record), progress=not quiet, **options)
    last = run.isel(iteration=-1)
    values = {str(name): last[name].values for name in run.data_vars if last[name].ndim <= 1}
    time = f"{float(last['hardware_seconds']):.4g} s on the hardware"
    parts = [f"{int(last['iteration']):,} iterations", summary(values), time]
    click.echo(f"{circuit.name}: {', '.join(p for p in parts if p)}; written to {path}")


def _grid(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """`--grid name=values` as values by name."""
    from mgdcircuits.sweeps.grid import parse

    try:
        return parse(values)
    except MgdError as error:
        raise click.BadParameter(str(error)) from None


@cli.command(epilog=SWEEP_EXAMPLES)
@NETLIST
@click.option(
    "--grid",
    metavar="NAME=VALUES",
    multiple=True,
    required=True,
    callback=_grid,
    help="What is swept: a parameter or clock of the netlist, seed, iterations, batch or data. Values with commas between, or "
    "whole numbers as 0..9. May be given several times: all combinations are run.",
)
@click.option("--iterations", type=POSITIVE, help="How many iterations each run has; required unless swept.")
@SET
@click.option("--seed", type=int, help="Of all runs, where it is not swept.  [default: 0]")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The netCDF file.  [default: the circuit's name _sweep.nc]"
)
@click.option("--force", is_flag=True, help="Begin anew where the file exists.")
@click.option(
    "--scheduler",
    metavar="local|ADDRESS",
    default="local",
    show_default=True,
    help="Processes on this machine, or the address of a running Dask cluster.",
)
@click.option("--workers", type=POSITIVE, help="Processes on this machine.  [default: one for each core]")
@click.option("--members", type=POSITIVE, help="Seeds that run together in one session.  [default: docs/sweeps.md]")
@click.option("--threads", type=POSITIVE, help="Of each session.  [default: 1; more where runs are fewer than cores]")
@_with(RUN_OPTIONS)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def sweep(
    context: click.Context,
    file: Path,
    overrides: dict[str, str],
    out: Path | None,
    force: bool,
    record: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Train a circuit at every point of a grid, on all cores or on a cluster, and write one dataset."""
    from mgdcircuits.sweeps.results import FAILED
    from mgdcircuits.sweeps.sweeping import sweep as sweep_circuit

    circuit = _load(file, overrides)
    path = out or Path(f"{circuit.name}_sweep.nc")
    found = sweep_circuit(circuit, out=path, overwrite=force, record=_record(record), progress=not quiet, **options)
    states = found["state"].values.ravel()
    failed = [state for state in states if state.startswith(FAILED)]
    if len(failed) < len(states):
        click.echo(f"{circuit.name}: {len(states) - len(failed)} of {_count(len(states), 'point')}; written to {path}")
    if failed:
        what = f"{_count(len(failed), 'point')} failed"
        if len(failed) == len(states):
            what = f"{circuit.name}: nothing is written: {'all ' if len(failed) > 1 else ''}{what}"
        click.echo(f"{what}, the first because {failed[0].removeprefix(FAILED)}", err=True)
        context.exit(2)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN.nc")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The figure.  [default: beside the run, .png]")
def plot(run: Path, out: Path | None) -> None:
    """Plot a run: cost, accuracy, and what else it recorded.

    \b
    Example:
      mgdcircuits plot run.nc -o figure.png
    """
    from mgdcircuits.figures import file_of
    from mgdcircuits.figures import plot as plot_run

    path = out or run.parent / f"{run.stem}.png"
    plot_run(run, path)
    click.echo(f"plotted {run} in {file_of(path)}")


@cli.command("plan")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN_OR_SWEEP.nc")
@click.option("--accuracy", type=float, help="What training is to reach, at most 1.  [default: the end of each run]")
@click.option("--at", multiple=True, metavar="NAME=VALUE", callback=_settings, help="The value of another swept name.")
@click.option("--netlist", type=click.Path(path_type=Path), help="The circuit.  [default: that of the dataset]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The figure.  [default: beside the run, _plan.png]")
def plan_command(run: Path, accuracy: float | None, at: dict[str, str], netlist: Path | None, out: Path | None) -> None:
    """Say what training takes on the chip at each tau_theta, which one to choose, and what the rule needs.

    Seconds, joules, writes and endurance used come from the netlist's `hardware:`. A tau_theta is recommended only where eta
    was tuned at it: several values of eta in the sweep with the best one not at the edge, or a statement in the dataset
    (the attribute `eta_tuned`).

    \b
    Example:
      mgdcircuits sweep chip.yaml --grid "tau_theta=iteration,10*iteration,100*iteration" --grid eta=0.1,0.3,1,3 \\
          --grid seed=0..4 --iterations 20000 -o sweep.nc
      mgdcircuits plan sweep.nc --accuracy .9
    """
    from mgdcircuits.analysis.pareto import plot as plot_plan
    from mgdcircuits.analysis.plan import plan
    from mgdcircuits.analysis.report import as_text
    from mgdcircuits.figures import file_of
    from mgdcircuits.record import open_run

    found = plan(open_run(run), accuracy, at, netlist)
    click.echo(as_text(found))
    path = out or run.with_name(f"{run.stem}_plan.png")
    plot_plan(found, path)
    click.echo(f"drawn in {file_of(path)}")


@cli.group()
def data() -> None:
    """Data sets."""


@data.command()
@click.argument("name")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where to put it.")
def fetch(name: str, data_dir: Path | None) -> None:
    """Make sure that a data set lies on this machine, and say where.

    \b
    Example:
      mgdcircuits data fetch fashion_mnist
    """
    from mgdcircuits.datasets import fetch as fetch_data

    click.echo(f"{name} lies in {fetch_data(name, data_dir)}")


@cli.group()
def cache() -> None:
    """Compiled circuits, kept so that a circuit is compiled once.

    They lie in the user's cache or in MGDCIRCUITS_CACHE; those used longest ago go when all of them take more than
    MGDCIRCUITS_CACHE_BYTES (a gigabyte).
    """


@cache.command("info")
def cache_info() -> None:
    """Say where compiled circuits lie, how many there are and what they take.

    \b
    Example:
      mgdcircuits cache info
    """
    from mgdcircuits.codegen.cache import info

    found = info()
    click.echo(
        f"{_count(found.libraries, 'compiled circuit')}, {found.bytes / 1e6:.1f} MB of {found.limit / 1e6:,.0f} MB, "
        f"in {found.folder}"
    )


@cache.command("clear")
def cache_clear() -> None:
    """Remove all compiled circuits; they are compiled again when they are needed.

    \b
    Example:
      mgdcircuits cache clear
    """
    from mgdcircuits.codegen.cache import clear

    gone = clear()
    click.echo(f"removed {_count(gone.libraries, 'compiled circuit')} ({gone.bytes / 1e6:.1f} MB) from {gone.folder}")


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a click command; its exit status. Every MgdError becomes its message, and Ctrl-C a sentence."""
    try:
        status = command.main(args=None if arguments is None else list(arguments), standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MgdError as error:
        click.echo(error, err=True)
        return error.exit_status
    except (KeyboardInterrupt, click.Abort) as error:
        cause = error if isinstance(error, KeyboardInterrupt) else error.__context__
        click.echo(str(cause or "") or "stopped", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def main() -> None:
    """Entry point of `mgdcircuits`."""
    sys.exit(run(cli))
