"""The command line of the benchmarks."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from benchmarks import cases, environment, results
from benchmarks.measuring import measure
from benchmarks.table import table
from benchmarks.workers import WorkerError

ROUNDS, QUICK_ROUNDS = 11, 3
SECONDS, QUICK_SECONDS = 0.7, 0.25


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--case", "names", multiple=True, help="Only this case (may be given several times).")
@click.option("--rounds", type=click.IntRange(1), help=f"Turns of every worker; default {ROUNDS}.")
@click.option("--quick", is_flag=True, help=f"{QUICK_ROUNDS} short rounds; nothing is written.")
@click.option("--list", "listing", is_flag=True, help="Say what cases there are.")
@click.option("--table", "only_table", is_flag=True, help="Print the table of the kept results; measure nothing.")
@click.option("--write/--no-write", "writing", default=None, help="Keep the results; default: unless --quick.")
def main(names, rounds, quick, listing, only_table, writing) -> None:
    """Measure mgdcircuits beside PyTorch, JAX and plain Brian2, in turns."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    try:
        chosen = cases.find(list(names))
    except KeyError as error:
        raise click.UsageError(error.args[0]) from None
    if listing:
        for case in chosen:
            console.print(f"{case.name:14} {case.title}", highlight=False)
        return
    found = []
    try:
        if not only_table:
            environment.ensure()
        for case in chosen:
            if only_table:
                result = results.read(case.name)
            else:
                result = measure(
                    case, rounds or (QUICK_ROUNDS if quick else ROUNDS), QUICK_SECONDS if quick else SECONDS
                )
                if writing if writing is not None else not quick:
                    results.write(case.name, result)
            if result is not None:
                found.append(result)
    except (environment.EnvironmentFailure, WorkerError) as error:
        raise click.ClickException(str(error)) from None
    console.print(table(found))
