"""The runs of a training study: what is to be done, what there is, and what a later call of the study knows of them.

Several processes may work on the runs of one study, in one folder, if they are given the same command.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from filelock import FileLock

import mgdcircuits as mgd
from common import study
from common.training_time_run import Place, Point, Rows, Run
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.spec import CircuitSpec

Planned = tuple[Run, float, int]
"""A run, its goal, and the iterations after which it is cut off."""
Plan = Iterable[Planned]
"""What is to be done, in order; a run may come again with a further goal."""
INTERRUPTED, FINISHED = "interrupted", "finished"


def tell(run: Run, goal: float, moved: bool) -> None:
    """Say how far a run is, if it has gone on; of one of tuning, which does so row by row, only that it is there."""
    rows = run.found
    n = rows.reached(goal)
    if moved and (np.isfinite(n) or not run.point.tuning):
        found = f"{goal:.0%} after {n:,.0f}" if np.isfinite(n) else f"{goal:.0%} not reached in {rows.iteration:,}"
        print(f"{run.point}: {found} iterations, {rows.seconds:.0f} s", flush=True)


def work_through(planned: Callable[[], Plan]) -> str:
    """Let runs go on, one after another; the state of the study then.

    What is planned may depend on what its runs have found so far. After Ctrl-C the state is `interrupted`, and so it is while
    other processes are at work on some of the runs.
    """
    try:
        while True:
            busy: dict[Point, Planned] = {}
            for run, goal, limit in planned():
                tell(run, goal, run.advance(goal, limit))
                if run.busy:
                    busy[run.point] = run, goal, limit
            if not busy:
                return FINISHED
            left = [point for point, (run, *end) in busy.items() if not Run(point, run.place).found.complete(*end)]
            if left:
                print(
                    f"another process is at work on {', '.join(map(str, left))}: then give the same command again",
                    flush=True,
                )
                return INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", flush=True)
        return INTERRUPTED


class Summary(Mapping[Point, Rows]):
    """Rows of the runs that the summary of a study tells of, read again when another process has written it.

    One that is there at the beginning and was made with other netlists tells of nothing: the study begins anew. It is not
    `replaceable` then by one that is not finished.

    Raises
    ------
    RunError
        It begins with another seed: its runs would be lost.
    """

    def __init__(
        self, path: Path, digest: str, axes: Mapping[str, str], point: Callable[..., Point], seed: int
    ) -> None:
        self._path, self._digest, self._axes, self._point = path, digest, axes, point
        self._read: tuple[int, int] | None = None
        self._rows: dict[Point, Rows] = {}
        self.replaceable = True
        if stamp := self._stamp():
            with xr.open_dataset(path) as found:
                state, made_with, first = (found.attrs.get(name) for name in ("state", "digest", "seed"))
            self.replaceable = made_with == digest
            if not self.replaceable:
                self._read = stamp
                print(
                    f"{path} was made with other netlists: the study begins anew, and replaces it when it is finished",
                    flush=True,
                )
            elif first != seed:
                raise RunError(f"{path} holds the runs of --seed {first}: give that, or another --out")
            elif state == FINISHED:
                print(
                    f"{path} is finished, and only what it lacks is done; give another --out to run all of it",
                    flush=True,
                )

    def _stamp(self) -> tuple[int, int] | None:
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            return None
        return facts.st_mtime_ns, facts.st_ino

    def _now(self) -> dict[Point, Rows]:
        stamp = self._stamp()
        if stamp and stamp != self._read:
            self._rows, self._read = recalled(self._path, self._digest, self._axes, self._point), stamp
        return self._rows

    def __getitem__(self, point: Point) -> Rows:
        return self._now()[point]

    def __iter__(self) -> Iterator[Point]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


def furthest(plan: Plan) -> list[Planned]:
    """Each run once, with the last of its goals, and the last limit there."""
    found: dict[Point, Planned] = {}
    for run, goal, limit in plan:
        if run.point not in found or (goal, limit) > found[run.point][1:]:
            found[run.point] = run, goal, limit
    return list(found.values())


def tidy(place: Place, state: str, told: Plan = ()) -> None:
    """Once a summary is written: leave nothing of a study that is finished, and of another not the files of runs that are
    complete, if the summary tells of them (`recalled`). Runs of tuning may go on again."""
    if state == FINISHED:
        shutil.rmtree(place.folder, ignore_errors=True)
        return
    for run, goal, limit in told:
        if run.found.complete(goal, limit) and not run.point.tuning:
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


def recalled(path: Path, digest: str, axes: Mapping[str, str], point: Callable[..., Point]) -> dict[Point, Rows]:
    """What `gathered` wrote into a summary, if its netlists are the same.

    `point` makes a point from the attributes that `axes` names.
    """
    with xr.open_dataset(path) as summary:
        if summary.attrs.get("digest") != digest:
            return {}
        each = summary.stack(run=list(axes)).dropna("run", subset=["done"]).load()
    found = {}
    for run in (each.isel(run=k) for k in range(each.sizes["run"])):
        rows = run[["row_iteration", "row_accuracy"]].dropna("row")
        pairs = zip(rows["row_iteration"].values, rows["row_accuracy"].values, strict=True)
        values = {name: run[axis].item() for axis, name in axes.items()}
        found[point(**values)] = Rows([(int(n), round(float(a), 6)) for n, a in pairs], float(run["processor_seconds"]))
    return found


def digest_of(circuits: Iterable[mgd.Circuit], further: Any = None) -> str:
    """SHA-256 of what circuits are known by (`study.facts_of`), and of further facts (as JSON)."""
    told = [study.facts_of(circuit) for circuit in circuits] + ([] if further is None else [further])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def tried(found: xr.Dataset) -> xr.DataArray:
    """Which goals a run has reached, or has gone on to from the goal before: (..., goal)."""
    before = found["iterations"].shift(goal=1, fill_value=0)
    return np.isfinite(found["iterations"]) | (np.isfinite(before) & (found["done"] > before))


@dataclass(frozen=True)
class SharedStudy:
    """A study whose runs several processes may share, and which goes on from its summary.

    name
        Of the summary and the figure, and of the folder of runs that are not complete.
    spec
        The circuit by which the summary is described.
    circuits, further
        With these netlists, and with what else distinguishes its runs, a summary must have been made to be gone on from.
    axes, point
        As in `gathered` and `recalled`.
    planned
        What is to be done, in order.
    collect
        The summary of what there is of those runs.
    draw
        Writes the figure of a summary.
    table
        Lines to print.
    judged
        On how many samples runs are judged; None: on all.
    """

    name: str
    spec: CircuitSpec
    circuits: Sequence[mgd.Circuit]
    axes: Mapping[str, str]
    point: Callable[..., Point]
    planned: Callable[[Place], Plan]
    collect: Callable[[Sequence[Planned]], xr.Dataset]
    draw: Callable[[xr.Dataset, Path], None]
    table: Callable[[xr.Dataset], Iterable[str]]
    judged: int | None = None
    further: Any = None

    def go_on(self, options: study.Options) -> None:
        """Let its runs go on, write the summary and the figure of what there is then, and print the table."""
        folder, digest = options.out / f"{self.name}{options.suffix}.parts", digest_of(self.circuits, self.further)
        known = Summary(folder.with_suffix(".nc"), digest, self.axes, self.point, options.seed)
        place = Place(folder, options.workers, self.judged, known)
        state = work_through(lambda: self.planned(place))
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "summary.lock"):  # one process at a time
            plan = [one for one in self.planned(place) if one[0].found.each]
            if not plan or state == INTERRUPTED and not known.replaceable:
                return
            planned = {run.point for run, _, _ in plan}
            kept = [(Run(point, place), 0.0, sys.maxsize) for point in known if point not in planned]
            # what is planned may depend on runs that are not complete: until it is, what is known stays
            found = self.collect(plan + kept if state == INTERRUPTED else plan)
            facts = {"seconds": float(found["processor_seconds"].sum()), "state": state, "digest": digest}
            path = study.keep(found.assign_attrs(facts), self.name, self.spec, options)
            self.draw(found, path.with_suffix(".png"))
            print("\n".join(self.table(found)))
            tidy(place, state, furthest(plan))
