"""The command line of the benchmarks."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

import click
from rich.console import Console

from benchmarks import cases, environment, figures, measuring, results, roofline, starting
from benchmarks.table import table
from benchmarks.workers import ROOT, WorkerError
from mgdcircuits.errors import MgdError

ROUNDS, QUICK_ROUNDS = 11, 3
SECONDS, QUICK_SECONDS = 0.7, 0.25  # of a turn
OTHERS = {
    "start": ("cold and warm start, memory, size of a netlist", starting.measure),
    "roofline": ("each kernel beside what the machine can do", roofline.measure_all),
}
ROOFLINE_FIGURE = ROOT / "docs" / "roofline.svg"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--case", "names", multiple=True, metavar="NAME", help="Only this case (may be given several times).")
@click.option("--peer", "peers", multiple=True, help="Only this form of this peer, for example torch-nhwc-stacked.")
@click.option("--rounds", type=click.IntRange(1), help=f"Turns of every worker; default {ROUNDS}.")
@click.option("--quick", is_flag=True, help=f"{QUICK_ROUNDS} short rounds, no torch.compile; nothing is kept.")
@click.option("--list", "listing", is_flag=True, help="Say what cases there are.")
@click.option("--table", "only_table", is_flag=True, help="Show the results that are kept; measure nothing.")
@click.option("--write/--no-write", "writing", default=None, help="Keep the results; default: unless --quick.")
def main(names, peers, rounds, quick, listing, only_table, writing) -> None:
    """Measure mgdcircuits beside PyTorch, JAX and plain Brian2, in turns."""
    others = [name for name in OTHERS if name in names or not names]
    rest = [name for name in names if name not in OTHERS]
    try:
        chosen = cases.find(rest) if rest or not names else []
    except KeyError as error:
        raise click.UsageError(f"{error.args[0]}, {', '.join(OTHERS)}") from None
    if listing:
        titles = {case.name: case.title for case in chosen} | {name: OTHERS[name][0] for name in others}
        click.echo("\n".join(f"{name:14} {title}" for name, title in titles.items()))
        return
    if only_table:
        found = {name: results.read(name) for name in (*(case.name for case in chosen), *others)}
        _show({name: result for name, result in found.items() if result is not None})
        return
    keep = writing if writing is not None else not quick
    turns = (rounds or QUICK_ROUNDS, QUICK_SECONDS) if quick else (rounds or ROUNDS, SECONDS)
    try:
        found = _measure([cases.restrict(case, peers, quick) for case in chosen], others, turns, keep)
    except (environment.EnvironmentFailure, WorkerError, MgdError) as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(2)
    _show(found)
    if keep:
        _draw()


def _measure(chosen: Sequence[cases.Case], others: Sequence[str], turns: tuple[int, float], keep: bool) -> dict:
    """Results by name; each is kept as soon as it is there."""
    if any(case.peers for case in chosen):
        environment.ensure()
    found = {}
    jobs = {case.name: functools.partial(measuring.measure, case, *turns) for case in chosen}
    for name, job in (jobs | {name: OTHERS[name][1] for name in others}).items():
        found[name] = job(say=click.echo)
        if keep:
            results.write(name, found[name])
    return found


def _show(found: dict) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200)
    rows = [result for name, result in found.items() if name not in OTHERS]
    if rows:
        console.print(table(rows))
    if "start" in found:
        console.print(starting.table(found["start"]))


def _draw() -> None:
    """The figures of everything that is kept."""
    kept = [results.read(case.name) for case in cases.CASES]
    figures.ratios([result for result in kept if result is not None], results.FOLDER / "ratios.svg")
    roof = results.read("roofline")
    if roof is not None:
        figures.roofline(roof, ROOFLINE_FIGURE)
