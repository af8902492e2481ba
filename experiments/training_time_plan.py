"""The runs of a training study: what is to be done, what there is, and what a later call of the study knows of them.

Several processes may work on the runs of one study, in one folder, if they are given the same command.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from training_time_run import RULES, Place, Point, Rows, Run, circuit

from mgdcircuits.record import run_attributes

Plan = Iterable[tuple[Run, float, int]]
"""Runs with their goals and the iterations after which they are cut off; a run may come again with a further goal."""
INTERRUPTED, FINISHED = "interrupted", "finished"


def tell(run: Run, goal: float, moved: bool) -> None:
    """Say how far a run is, if it has gone on."""
    if moved:
        rows = run.found
        n = rows.reached(goal)
        found = f"{goal:.0%} after {n:,.0f}" if np.isfinite(n) else f"{goal:.0%} not reached in {rows.iteration:,}"
        print(f"{run.point}: {found} iterations, {rows.seconds:.0f} s", flush=True)


def work_through(plan: Plan) -> str:
    """Let runs go on, one after another; the state of the study then.

    After Ctrl-C it is `interrupted`, and so it is while other processes are at work on some of the runs.
    """
    busy = set()
    try:
        for run, goal, limit in plan:
            tell(run, goal, run.advance(goal, limit))
            busy |= {run.point} if run.busy else set()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", flush=True)
        return INTERRUPTED
    if busy:
        print(
            f"another process is at work on {', '.join(map(str, busy))}: then give the same command again", flush=True
        )
        return INTERRUPTED
    return FINISHED


def furthest(plan: Plan) -> list[tuple[Run, float, int]]:
    """Each run once, with the last of its goals."""
    found: dict[Point, tuple[Run, float, int]] = {}
    for run, goal, limit in plan:
        if run.point not in found or goal > found[run.point][1]:
            found[run.point] = run, goal, limit
    return list(found.values())


def tidy(place: Place, state: str, told: Plan = ()) -> None:
    """Once a summary is written: leave nothing of a study that is finished, and of another not the files of runs that are
    complete, if the summary tells of them (`recalled`)."""
    if state == FINISHED:
        shutil.rmtree(place.folder, ignore_errors=True)
    for run, goal, limit in told:
        if run.found.complete(goal, limit):
            run.path.unlink(missing_ok=True)


def gathered(
    runs: Iterable[Run], axes: Mapping[str, str], goals: Sequence[float], facts: Mapping[str, Callable[[Run], float]]
) -> xr.Dataset:
    """What there is of some runs, over `axes` (name to attribute of a point): `iterations` to each goal (infinite if it was not
    reached), rows, how many iterations are `done`, `processor_seconds`, and further `facts`."""
    runs = [run for run in runs if run.found.each]
    values = {axis: sorted({getattr(run.point, name) for run in runs}) for axis, name in axes.items()}
    shape = [len(each) for each in values.values()]
    longest = max((len(run.found.each) for run in runs), default=0)
    further = {"iterations": ("goal", len(goals)), "row_iteration": ("row", longest), "row_accuracy": ("row", longest)}
    facts = {"done": lambda run: run.found.iteration, "processor_seconds": lambda run: run.found.seconds, **facts}
    found = {name: np.full(shape, np.nan) for name in facts}
    found |= {name: np.full((*shape, length), np.nan) for name, (_, length) in further.items()}
    for run in runs:
        at = tuple(values[axis].index(getattr(run.point, name)) for axis, name in axes.items())
        for name, fact in facts.items():
            found[name][at] = fact(run)
        rows = np.array(run.found.each)
        found["iterations"][at] = [run.found.reached(goal) for goal in goals]
        found["row_iteration"][at][: len(rows)], found["row_accuracy"][at][: len(rows)] = rows.T
    dims = {name: (*axes, further[name][0]) if name in further else tuple(axes) for name in found}
    return xr.Dataset({name: (dims[name], each) for name, each in found.items()}, {**values, "goal": list(goals)})


def recalled(path: Path, netlists: str, axes: Mapping[str, str], point: Callable[..., Point]) -> dict[Point, Rows]:
    """What `gathered` wrote into a summary, if the study was interrupted and its netlists are the same.

    `point` makes a point from the attributes that `axes` names.
    """
    if not path.exists():
        return {}
    with xr.open_dataset(path) as summary:
        if summary.attrs["state"] != INTERRUPTED or summary.attrs["netlists"] != netlists:
            return {}
        each = summary.stack(run=list(axes)).dropna("run", subset=["done"]).load()
    found = {}
    for run in (each.isel(run=k) for k in range(each.sizes["run"])):
        rows = run[["row_iteration", "row_accuracy"]].dropna("row")
        pairs = zip(rows["row_iteration"].values, rows["row_accuracy"].values, strict=True)
        values = {name: run[axis].item() for axis, name in axes.items()}
        found[point(**values)] = Rows([(int(n), round(float(a), 6)) for n, a in pairs], float(run["processor_seconds"]))
    return found


def digest_of_netlists() -> str:
    """Of the texts of all rules, with what they include."""
    specs = {rule: circuit(rule, 1, 1e-3).spec for rule in RULES}
    return json.dumps({rule: run_attributes(spec)["netlist_sha256"] for rule, spec in specs.items()})


def tried(found: xr.Dataset) -> xr.DataArray:
    """Which goals a run has reached, or has gone on to from the goal before: (..., goal)."""
    before = found["iterations"].shift(goal=1, fill_value=0)
    return np.isfinite(found["iterations"]) | (np.isfinite(before) & (found["done"] > before))
