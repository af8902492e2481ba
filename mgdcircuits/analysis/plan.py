"""From runs to a choice of tau_theta: what training takes on the chip, what it wears, and which choice is the best.

Reads datasets only: a run of `train`, or a sweep, which has a dimension for every swept name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits.analysis.chip import RATE, WINDOW, Chip, Chips, quantity
from mgdcircuits.analysis.report import grouped, percent, si
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.expressions import ExpressionError
from mgdcircuits.record import GROUP, MEMBER, ROW
from mgdcircuits.sweeps.results import MISSING, STATE

if TYPE_CHECKING:
    import xarray as xr

SEED = "seed"
STATEMENT = "eta_tuned"
"""Attribute of a dataset that says how eta was tuned at each tau_theta."""
NEEDED = ("accuracy_test", "hardware_seconds", "update_period", "writes_mean", "writes_max", "parameter_size")
CLOSE = 0.01
"""Accuracy that a quicker choice may lack against the best one, where none is asked for."""
FEWEST = 3
"""Learning rates that must have been tried for one of them to be the best."""
SAME = 1e-12
"""Relative difference of a value that is written in two ways."""


@dataclass(frozen=True)
class Option:
    """What training takes at one tau_theta, with the best learning rate that was tried there.

    Medians over the runs; one that does not reach the accuracy takes for ever. `wear` is that of the most worn device of
    those that do, and where most do not, of all runs at their end. `since`: seconds at the row before, when the accuracy was
    not there yet. `accuracy` is that of all runs. What nobody knows is not a number.
    """

    window: Any  # tau_theta as it was swept; None: it was not
    period: int | None  # iterations between updates; None: nothing ran, and the netlist cannot be read
    rate: Any
    tuned: bool
    basis: str  # how it is known that eta is tuned, or why it is not
    runs: int
    reached: int
    iterations: float = np.nan
    accuracy: float = np.nan
    seconds: float = np.nan
    since: float = np.nan
    joules: float = np.nan
    writes_mean: float = np.nan
    writes_max: float = np.nan
    wear: float = np.nan
    retention: float = np.inf  # seconds for which devices keep what is written

    @property
    def name(self) -> str:
        """Its tau_theta in iterations, else as it was swept."""
        return str(self.window if self.period is None else self.period)

    @property
    def enough(self) -> bool:
        """Whether more than half of the runs reached the accuracy."""
        return 2 * self.reached > self.runs

    @property
    def worn(self) -> bool:
        """Whether a device uses up its endurance."""
        return self.wear >= 1


@dataclass(frozen=True)
class Plan:
    """The options, the best one and the reason; `target` is the accuracy asked for."""

    circuit: str
    target: float | None
    options: tuple[Option, ...]
    best: Option | None
    reason: str
    hindrances: Mapping[Option, str] = field(default_factory=dict)  # why an option is not recommended
    needs: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def front(self) -> tuple[Option, ...]:
        """Options that no other one beats in both seconds and worst writes."""
        usable = [o for o in self.options if o.enough]
        pairs = [(o.seconds, o.writes_max) for o in usable]
        return tuple(o for o, own in zip(usable, pairs, strict=True) if not any(_beats(p, own) for p in pairs))


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@dataclass(frozen=True)
class _Run:
    """A run up to the row that counts; without such a row it takes for ever, and its wear is that of its end."""

    window: Any
    period: float
    rate: Any
    missing: bool  # it never ran
    accuracy: float = np.nan  # not a number: it is missing, or failed
    reached: bool = False
    iterations: float = np.inf
    seconds: float = np.inf
    since: float = np.inf
    joules: float = np.inf
    writes_mean: float = np.inf
    writes_max: float = np.inf
    wear: float = np.nan


def plan(
    dataset: xr.Dataset,
    accuracy: float | None = None,
    at: Mapping[str, str] | None = None,
    netlist: str | Path | None = None,
) -> Plan:
    """Compare what training takes at every tau_theta of a dataset.

    Parameters
    ----------
    dataset
        Of `mgdcircuits.train`, or of a sweep over tau_theta, eta and seed.
    accuracy
        On the test set, that training is to reach: counted up to the first row that has it. Default: to the end of each run.
    at
        Values of other swept names, as text.
    netlist
        The file or text of the circuit, where the dataset's own does not do.

    Raises
    ------
    RunError
        A dataset that lacks what is needed; other swept names without a value; an accuracy that is none; a netlist of
        another circuit.
    NetlistError
        A netlist that was named and cannot be read.
    """
    if accuracy is not None and not 0 < accuracy <= 1:
        raise RunError(f"accuracy = {accuracy:g}; expected a fraction of the test set, above 0 and at most 1")
    _check(dataset)
    dataset, point = _chosen(dataset, dict(at or {}))
    runs = list(_runs(dataset, accuracy))
    if not runs:
        raise RunError("the dataset has no runs; expected at least one value of every swept name")
    chips = Chips(dataset, point, netlist)
    statement = str(dataset.attrs.get(STATEMENT, ""))
    windows = dict.fromkeys(r.window for r in runs)
    found = [_option([r for r in runs if r.window == w], chips, statement, accuracy) for w in windows]
    options = tuple(sorted(found, key=lambda o: np.inf if o.period is None else o.period))
    best, reason, hindrances = _best(options, accuracy, chips.problem)
    shown = best or options[-1]
    chip = chips.at(shown.window, shown.rate)
    batch = int(point.get("batch") or dataset.attrs.get("batch") or 0)
    return Plan(
        circuit=str(dataset.attrs.get("circuit", "")),
        target=accuracy,
        options=options,
        best=best,
        reason=reason,
        hindrances=hindrances,
        needs=() if chip is None else chip.needs(),
        notes=tuple(_notes(dataset, runs, chip, batch)),
    )


def _check(dataset: xr.Dataset) -> None:
    """Refuse a dataset that lacks what is needed."""
    mend = "train again with this version, on a task that has right answers"
    if missing := [name for name in NEEDED if name not in dataset.variables]:
        raise RunError(f"the dataset has no {', '.join(missing)}; {mend}")
    if ROW not in dataset.dims:
        raise RunError(f"the dataset has no dimension {ROW}; give the whole run, or keep a row as isel({ROW}=[-1])")
    if wrong := [name for name in NEEDED if dataset[name].dtype.kind not in "iuf"]:
        raise RunError(f"the dataset has no numbers in {', '.join(wrong)}; {mend}")


def _chosen(dataset: xr.Dataset, at: dict[str, str]) -> tuple[xr.Dataset, dict[str, Any]]:
    """The dataset at the chosen values of other swept names, and these values."""
    known = {ROW, GROUP, RATE, SEED, MEMBER, WINDOW}
    others = [str(d) for d in dataset["accuracy_test"].dims if d not in known]
    point: dict[str, Any] = {}
    for name in others:
        values = dataset[name].values.tolist()
        wanted = at.pop(name, values[0] if len(values) == 1 else None)
        same = [] if wanted is None else [k for k, value in enumerate(values) if _same(value, wanted)]
        if not same:
            found = f"{name} is swept too" if wanted is None else f"{name} = {wanted} was not found"
            shown = ", ".join(map(str, values))
            raise RunError(f"{found}; choose one of its values with --at {name}=VALUE: {shown}")
        dataset, point[name] = dataset.isel({name: same[0]}), values[same[0]]
    if at:
        compared = [name for name in (WINDOW, RATE, SEED) if name in at]
        why = f"all values of {', '.join(compared)} are compared" if compared else f"{', '.join(at)} is not swept"
        raise RunError(f"{why}; --at may choose {', '.join(others) or 'nothing here'}")
    return dataset, point


def _same(one: Any, other: Any) -> bool:
    a, b = quantity(one), quantity(other)
    if a is None or b is None:
        return str(one) == str(other)
    return a.dimensions == b.dimensions and bool(np.isclose(a.value, b.value, rtol=SAME, atol=0))


def _runs(dataset: xr.Dataset, target: float | None) -> Iterator[_Run]:
    """Every point, up to the row that counts; where nothing ran, another run may tell the period of that tau_theta."""
    names = [n for n in (*NEEDED, "energy", "wear", STATE, ROW, RATE, WINDOW) if n in dataset.variables]
    dataset = dataset[names].reset_coords()
    dims = [str(d) for d in dataset["accuracy_test"].dims if d != ROW]
    sizes = tuple(dataset.sizes[d] for d in dims)
    period = dataset["update_period"]
    if 0 not in sizes and (others := [d for d in period.dims if d != WINDOW]):
        dataset["update_period"] = period.fillna(period.max(others))
    for index in np.ndindex(sizes):
        yield _run(dataset.isel(dict(zip(dims, index, strict=True))), target)


def _run(run: xr.Dataset, target: float | None) -> _Run:
    window, rate = (run[name].item() if name in run.variables else None for name in (WINDOW, RATE))
    missing = STATE in run and run[STATE].item() == MISSING
    none = _Run(window, float(run["update_period"]), rate, missing)
    accuracy = np.asarray(run["accuracy_test"])
    rows = np.flatnonzero(np.isfinite(accuracy))
    if not len(rows):
        return none
    there = rows if target is None else rows[accuracy[rows] >= target]
    if not len(there):
        return replace(none, accuracy=float(accuracy[rows].max()), wear=_wear(run.isel({ROW: rows[-1]})))
    first = there[0] if target is not None else there[-1]
    row = run.isel({ROW: first})
    before = rows[rows < first] if target is not None else rows[:0]
    size = np.asarray(row["parameter_size"], float)
    return replace(
        none,
        accuracy=float(row["accuracy_test"]),
        reached=True,
        iterations=float(row[ROW]),
        seconds=float(row["hardware_seconds"]),
        since=float(run["hardware_seconds"][before[-1]] if len(before) else row["hardware_seconds"]),
        joules=float(row["energy"]) if "energy" in row else np.nan,
        writes_mean=float((np.asarray(row["writes_mean"]) * size).sum() / size.sum()),
        writes_max=float(np.asarray(row["writes_max"], float).max()),
        wear=_wear(row),
    )


def _wear(row: xr.Dataset) -> float:
    """That of the most worn device."""
    wear = np.asarray(row["wear"] if "wear" in row else np.nan)
    return float(np.nanmax(wear)) if np.isfinite(wear).any() else np.nan


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def _option(runs: list[_Run], chips: Chips, statement: str, target: float | None) -> Option:
    """The best learning rate of those tried at a tau_theta."""
    window, period = runs[0].window, runs[0].period
    if not np.isfinite(period):
        chip = chips.at(window)
        period = np.nan if chip is None else chip.period
    iterations = int(period) if np.isfinite(period) else None
    if all(np.isnan(r.accuracy) or r.missing for r in runs):
        return Option(window, iterations, None, False, "every run is missing or failed", len(runs), 0)
    tried = list(dict.fromkeys(r.rate for r in runs if not r.missing))
    try:
        tried.sort(key=lambda rate: 0.0 if rate is None else chips.value(rate, window))
        ordered = True
    except ExpressionError:
        ordered = False

    def median(rate: Any, name: str) -> float:
        return _median(getattr(r, name) for r in runs if r.rate == rate)

    def accuracy(rate: Any) -> float:
        known = [r.accuracy for r in runs if r.rate == rate and np.isfinite(r.accuracy)]
        return _median(known) if known else -np.inf

    def score(rate: Any) -> tuple[float, ...]:
        if target is None:
            return float(np.mean([r.reached for r in runs if r.rate == rate])), accuracy(rate)
        return -median(rate, "iterations"), accuracy(rate)

    rate = max(tried, key=score)
    own = [r for r in runs if r.rate == rate]
    complete = [v for v in tried if not any(r.missing for r in runs if r.rate == v)]
    tuned, basis = _tuned(complete, rate, ordered, statement)
    there = [r for r in own if r.reached]
    counted = there if 2 * len(there) > len(own) else own
    chip = chips.at(window, rate)
    return Option(
        window=window,
        period=iterations,
        rate=rate,
        tuned=tuned,
        basis=basis,
        runs=len(own),
        reached=len(there),
        accuracy=accuracy(rate),
        wear=max((r.wear for r in counted if np.isfinite(r.wear)), default=np.nan),
        retention=np.inf if chip is None else chip.retention,
        **{
            name: median(rate, name)
            for name in ("iterations", "seconds", "since", "joules", "writes_mean", "writes_max")
        },
    )


def _tuned(tried: Sequence[Any], best: Any, ordered: bool, statement: str) -> tuple[bool, str]:
    """Whether the best value of eta is known to be one, and how; `tried` are those that ran with every seed."""
    if statement:
        return True, f"the dataset says: {statement}"
    if best is None:
        return False, "eta was not varied"
    if not ordered:
        return False, "the values of eta are no constants, and so have no order"
    if best not in tried:
        return False, "runs of the best eta are missing"
    if len(tried) < FEWEST:
        return False, f"only {len(tried)} values of eta were tried"
    if best in (tried[0], tried[-1]):
        edge = "smallest" if best == tried[0] else "largest"
        return False, f"the best eta is the {edge} of those tried"
    return True, f"the best of {len(tried)} values of eta, and not at the edge"


def _best(
    options: Sequence[Option], target: float | None, problem: str
) -> tuple[Option | None, str, Mapping[Option, str]]:
    """The quickest option that the devices survive, why, and what hinders the others.

    Of those that were not there yet when the quickest one was nobody knows which is the quickest: the one that writes least
    counts as that.
    """
    usable = [o.accuracy for o in options if o.enough and o.tuned and not o.worn and o.seconds <= o.retention]
    most = max(usable, default=-np.inf)
    least = most - CLOSE if target is None else -np.inf
    goal = f"reach {percent(target)}" if target is not None else "train"
    found = {o: _hindrance(o, goal, least) for o in options}
    hindrances = {o: why for o, why in found.items() if why}
    fit = [o for o, why in found.items() if not why]
    if problem:
        why = f"the netlist of the dataset cannot be read ({problem}), so nobody knows what the devices survive"
        return None, f"no recommendation: {why}; name it with --netlist", hindrances
    if not fit:
        return None, f"no recommendation: {'; '.join(grouped(hindrances))}", hindrances
    quickest = min(fit, key=lambda o: (o.seconds, o.writes_max))
    as_quick = [o for o in fit if o is quickest or o.since < quickest.seconds]
    best = min(as_quick, key=lambda o: (o.writes_max, o.seconds))
    plural = "iteration" if best.period == 1 else "iterations"
    among = (
        "reaches the accuracy" if target is not None else f"is within {CLOSE:.0%} of their best accuracy, {most:.1%},"
    )
    text = (
        f"tau_theta = {best.name} {plural}: {best.basis}; of those it {among} in the shortest time, {si(best.seconds)}s"
    )
    if best is not quickest:
        text += (
            f" (by rows it may be there at any time after {si(best.since)}s; tau_theta = {quickest.name} is there after "
            f"{si(quickest.seconds)}s, with {_times(quickest.writes_max, best.writes_max)} the writes)"
        )
    if np.isfinite(best.wear):
        text += f", and uses {best.wear:.2g} of the endurance of its most worn device"
    fewer = best
    for o in sorted(fit, key=lambda o: (o.seconds, o.writes_max)):
        if o.writes_max < fewer.writes_max:
            fewer = o
            text += (
                f"; tau_theta = {o.name} writes {_times(best.writes_max, o.writes_max)} less "
                f"and takes {_times(o.seconds, best.seconds)} as long"
            )
    better = max((o for o in hindrances if np.isfinite(o.accuracy)), key=lambda o: o.accuracy, default=best)
    if target is None and better.accuracy > best.accuracy + CLOSE:
        text += f"; but tau_theta = {better.name} has {better.accuracy:.1%}, where {hindrances[better]}"
    return best, text, hindrances


def _times(one: float, other: float) -> str:
    return f"{one / other:.3g} times" if other else "infinitely many times"


def _hindrance(option: Option, goal: str, least: float) -> str:
    """Why an option cannot be recommended; nothing if it can."""
    if np.isnan(option.accuracy):
        return option.basis
    if not option.enough:
        worn = ", and a device uses up its endurance" if option.worn else ""
        return f"at most half of the runs {goal}{worn}" + ("" if option.tuned else f" ({option.basis})")
    if not option.tuned:
        return f"eta is not known to be tuned ({option.basis})"
    if option.worn:
        return "a device uses up its endurance"
    if option.seconds > option.retention:
        return f"training takes longer than devices keep what is written ({si(option.retention)}s)"
    return (
        ""
        if option.accuracy >= least
        else f"more than {CLOSE:.0%} below the best accuracy of those that could be chosen"
    )


def _notes(dataset: xr.Dataset, runs: Sequence[_Run], chip: Chip | None, batch: int) -> Iterator[str]:
    """What the numbers assume, and what they lack."""
    missing = sum(r.missing for r in runs)
    failed = sum(np.isnan(r.accuracy) for r in runs) - missing
    if missing or failed:
        yield f"of {len(runs)} points {missing} are missing and {failed} failed; they count as never reaching anything"
    if chip is not None:
        samples, copies = chip.batch(batch)
        if samples > 1:
            where = f"{copies} copies" if copies > 1 else "one copy"
            yield (
                f"the {samples} samples of a batch are evaluated one after another on {where} of the circuit, "
                f"{chip.clocks.evaluations} times an iteration"
            )
    if "energy" not in dataset:
        asked = "and `record: [energy]` where they depend on the state"
        yield f"joules are not known: say energies under `hardware`, {asked}"
    if "wear" not in dataset:
        yield "endurance is not known: say `hardware: {device: {endurance: ...}}`"
    if chip is not None and np.isfinite(chip.retention):
        yield f"devices keep what is written for {si(chip.retention)}s"
