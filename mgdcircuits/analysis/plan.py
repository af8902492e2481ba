"""From runs to a choice of tau_theta: what training takes on the chip, what it wears, and which choice is the best.

Reads datasets only: a run of `train`, or a sweep, which has a dimension for every swept name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits.analysis.report import si
from mgdcircuits.errors import MgdError, RunError
from mgdcircuits.record import GROUP, ROW

if TYPE_CHECKING:
    import xarray as xr

RATE, SEED, MEMBER = "eta", "seed", "member"
STATEMENT = "eta_tuned"
"""Attribute of a dataset that says how eta was tuned at each tau_theta."""
NEEDED = ("accuracy_test", "hardware_seconds", "update_period", "writes_mean", "writes_max", "parameter_size")
CLOSE = 0.01
"""Accuracy that a quicker choice may lack against the best one, where none is asked for."""
FEWEST = 3
"""Learning rates that must have been tried for one of them to be the best."""


@dataclass(frozen=True)
class Option:
    """What training takes at one tau_theta, with the best learning rate that was tried there.

    Medians over the runs that reached the accuracy; `wear` is that of the most worn device of them all. `accuracy` is that
    of all runs. What nobody knows is not a number.
    """

    period: int  # iterations between updates
    rate: Any
    tuned: bool
    basis: str  # how it is known that eta is tuned, or why it is not
    runs: int
    reached: int
    iterations: float
    accuracy: float
    seconds: float
    joules: float
    writes_mean: float
    writes_max: float
    wear: float
    endurance: float = np.nan  # writes that the most worn device survives

    @property
    def enough(self) -> bool:
        """Whether more than half of the runs reached the accuracy."""
        return 2 * self.reached > self.runs


@dataclass(frozen=True)
class Plan:
    """The options, the best one and the reason; `target` is the accuracy asked for."""

    circuit: str
    target: float | None
    options: tuple[Option, ...]
    best: Option | None
    reason: str
    needs: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = field(default=())

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
    period: int
    rate: Any
    reached: bool
    iterations: float = np.nan
    accuracy: float = np.nan
    seconds: float = np.nan
    joules: float = np.nan
    writes_mean: float = np.nan
    writes_max: float = np.nan
    wear: float = np.nan
    endurance: float = np.nan


def plan(
    dataset: xr.Dataset, accuracy: float | None = None, at: Mapping[str, str] | None = None, netlist: str | None = None
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
        A dataset that lacks what is needed; other swept names without a value.
    """
    missing = [name for name in NEEDED if name not in dataset.variables]
    if missing:
        mend = "train again with this version, on a task that has right answers"
        raise RunError(f"the dataset has no {', '.join(missing)}; {mend}")
    dataset = _chosen(dataset, dict(at or {}))
    runs = list(_runs(dataset, accuracy))
    statement = str(dataset.attrs.get(STATEMENT, ""))
    options = tuple(
        _option([r for r in runs if r.period == period], statement, accuracy)
        for period in sorted({r.period for r in runs})
    )
    circuit = _Chip(dataset, netlist)
    best, reason = _best(options, accuracy, circuit.retention)
    return Plan(
        circuit=str(dataset.attrs.get("circuit", "")),
        target=accuracy,
        options=options,
        best=best,
        reason=reason,
        needs=circuit.needs,
        notes=circuit.notes(dataset),
    )


def _chosen(dataset: xr.Dataset, at: dict[str, str]) -> xr.Dataset:
    """The dataset at the chosen values of other swept names."""
    known = {ROW, GROUP, RATE, SEED, MEMBER, "tau_theta"}
    others = [str(d) for d in dataset["accuracy_test"].dims if d not in known]
    for name in others:
        values = [str(v) for v in dataset[name].values]
        wanted = at.pop(name, values[0] if len(values) == 1 else None)
        if wanted not in values:
            shown = ", ".join(values)
            raise RunError(f"{name} is swept too; choose one of its values with --at {name}=VALUE: {shown}")
        dataset = dataset.isel({name: values.index(wanted)})
    if at:
        raise RunError(f"nothing called {', '.join(at)} is swept; there is {', '.join(others) or 'nothing to choose'}")
    return dataset


def _runs(dataset: xr.Dataset, target: float | None) -> Iterator[_Run]:
    """Every run, up to the row that counts; failed ones too, where another run tells their tau_theta."""
    names = [n for n in (*NEEDED, "energy", "wear", ROW, RATE) if n in dataset.variables]
    dataset = dataset[names].reset_coords()
    period = dataset["update_period"]
    if failed := [d for d in period.dims if d != "tau_theta"]:
        dataset["update_period"] = period.fillna(period.max(failed))
    dims = [str(d) for d in dataset["accuracy_test"].dims if d != ROW]
    sizes = tuple(dataset.sizes[d] for d in dims)
    for index in np.ndindex(sizes):
        run = dataset.isel(dict(zip(dims, index, strict=True)))
        if np.isfinite(run["update_period"]):
            yield _run(run, target)


def _run(run: xr.Dataset, target: float | None) -> _Run:
    period, rate = int(run["update_period"]), run[RATE].item() if RATE in run.variables else None
    accuracy = np.asarray(run["accuracy_test"])
    rows = np.flatnonzero(np.isfinite(accuracy))
    if not len(rows):
        return _Run(period, rate, False)  # it is missing, or failed
    there = rows if target is None else rows[accuracy[rows] >= target]
    if not len(there):
        return _Run(period, rate, False, accuracy=float(accuracy[rows].max()))
    row = run.isel({ROW: there[0] if target is not None else there[-1]})
    size = np.asarray(row["parameter_size"], float)
    writes = np.asarray(row["writes_max"], float)
    wear = np.asarray(row["wear"]) if "wear" in row else np.full(len(size), np.nan)
    most = int(np.nanargmax(wear)) if np.isfinite(wear).any() else 0
    return _Run(
        period,
        rate,
        True,
        float(row[ROW]),
        float(row["accuracy_test"]),
        float(row["hardware_seconds"]),
        float(row["energy"]) if "energy" in row else np.nan,
        float((np.asarray(row["writes_mean"]) * size).sum() / size.sum()),
        float(writes.max()),
        float(wear[most]),
        float(writes[most] / wear[most]) if wear[most] > 0 else np.nan,
    )


def _median(values: Sequence[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.median(known)) if known else np.nan


def _option(runs: list[_Run], statement: str, target: float | None) -> Option:
    """The best learning rate of those tried at a tau_theta."""
    tried = list(dict.fromkeys(r.rate for r in runs))
    numbers = all(isinstance(v, int | float) for v in tried)
    tried = sorted(tried) if numbers else tried

    def score(rate: Any) -> tuple[float, ...]:
        own = [r for r in runs if r.rate == rate]
        share = float(np.mean([r.reached for r in own]))
        accuracy, time = (_median([getattr(r, name) for r in own]) for name in ("accuracy", "iterations"))
        accuracy = accuracy if np.isfinite(accuracy) else -np.inf
        return (share, accuracy) if target is None else (share > 0.5, -time if np.isfinite(time) else -np.inf, accuracy)

    rate = max(tried, key=score)
    own = [r for r in runs if r.rate == rate]
    done = [r for r in own if r.reached]
    tuned, basis = _tuned(tried, rate, statement)
    names = ("iterations", "seconds", "joules", "writes_mean", "writes_max")
    return Option(
        period=runs[0].period,
        rate=rate,
        tuned=tuned,
        basis=basis,
        runs=len(own),
        reached=len(done),
        accuracy=_median([r.accuracy for r in own]),
        wear=max((r.wear for r in done if np.isfinite(r.wear)), default=np.nan),
        endurance=min((r.endurance for r in done if np.isfinite(r.endurance)), default=np.nan),
        **{name: _median([getattr(r, name) for r in done]) for name in names},
    )


def _tuned(tried: Sequence[Any], best: Any, statement: str) -> tuple[bool, str]:
    if statement:
        return True, f"the dataset says: {statement}"
    if tried == [None]:
        return False, "eta was not varied"
    if len(tried) < FEWEST:
        return False, f"only {len(tried)} values of eta were tried"
    if best in (tried[0], tried[-1]):
        edge = "smallest" if best == tried[0] else "largest"
        return False, f"the best eta is the {edge} of those tried"
    return True, f"the best of {len(tried)} values of eta, and not at the edge"


def _best(options: Sequence[Option], target: float | None, retention: float) -> tuple[Option | None, str]:
    """The quickest option that the devices survive, and why."""
    goal = f"reach {target:.0%}" if target is not None else "train"
    if not (done := [o for o in options if o.enough]):
        return None, f"no recommendation: at no tau_theta more than half of the runs {goal}"
    if not (tuned := [o for o in done if o.tuned]):
        return None, f"no recommendation: eta is not known to be tuned at any tau_theta that does ({done[0].basis})"
    if target is None:
        most = max(o.accuracy for o in tuned)
        tuned = [o for o in tuned if o.accuracy >= most - CLOSE]
    survive = [o for o in tuned if not o.wear >= 1]
    if not survive:
        return None, "no recommendation: at every tau_theta a device uses up its endurance before the end"
    kept = [o for o in survive if not o.seconds > retention]
    if not kept:
        return None, f"no recommendation: training takes longer than devices keep what is written ({si(retention)}s)"
    best = min(kept, key=lambda o: (o.seconds, o.writes_max))
    among = "reaches the accuracy" if target is not None else f"is within {CLOSE:.0%} of the best accuracy"
    text = f"tau_theta = {best.period} iterations: {best.basis}; of those it {among} in the shortest time, {si(best.seconds)}s"
    if np.isfinite(best.wear):
        text += f", and uses {best.wear:.2g} of the endurance of its most worn device"
    if dropped := len(tuned) - len(survive):
        text += f" ({dropped} quicker or slower ones wear a device out)"
    fewest = min(kept, key=lambda o: o.writes_max)
    if fewest.writes_max < best.writes_max:
        text += (
            f"; tau_theta = {fewest.period} writes {best.writes_max / fewest.writes_max:.3g} times less "
            f"and takes {fewest.seconds / best.seconds:.3g} times as long"
        )
    return best, text


class _Chip:
    """What the netlist of a dataset says: retention, what the rule needs, how samples are counted."""

    def __init__(self, dataset: xr.Dataset, netlist: str | None) -> None:
        from mgdcircuits.circuit.builder import build
        from mgdcircuits.circuit.circuit import Circuit
        from mgdcircuits.circuit.clocks import value_of
        from mgdcircuits.circuit.hardware import hardware
        from mgdcircuits.circuit.needs import as_records, needs
        from mgdcircuits.netlist import load

        self.needs: tuple[Mapping[str, Any], ...] = ()
        self.retention, self.problem, self.chip = np.inf, "", None
        self.batch = int(dataset.attrs.get("batch", 1) or 1)
        overrides = json.loads(dataset.attrs.get("overrides") or "{}")
        if not (text := netlist or str(dataset.attrs.get("netlist", ""))):
            self.problem = "it has none"
            return
        try:
            circuit = Circuit(load(text, overrides))
            program, clocks = build(circuit, batched=False)
        except MgdError as error:
            self.problem = str(error).splitlines()[0]
            return
        self.chip = hardware(circuit, clocks, self.batch)
        self.evaluations = clocks.evaluations
        if "retention" in circuit.spec.hardware.device:
            self.retention = value_of(circuit, clocks, circuit.spec.hardware.device["retention"])
        if circuit.spec.trial is None and not circuit.is_spiking:
            self.needs = tuple(as_records(needs(circuit, program, clocks)))

    def notes(self, dataset: xr.Dataset) -> tuple[str, ...]:
        """What the numbers assume."""
        found = []
        if self.chip is None:
            found.append(f"the netlist of the dataset cannot be read here ({self.problem}); name it with --netlist")
        elif self.batch > 1:
            copies = f"{self.chip.copies} copies" if self.chip.copies > 1 else "one copy"
            found.append(
                f"the {self.batch} samples of a batch are evaluated one after another on {copies} of the circuit, "
                f"{self.evaluations} times an iteration"
            )
        if "energy" not in dataset:
            asked = "and `record: [energy]` where they depend on the state"
            found.append(f"joules are not known: say energies under `hardware`, {asked}")
        if "wear" not in dataset:
            found.append("endurance is not known: say `hardware: {device: {endurance: ...}}`")
        if np.isfinite(self.retention):
            found.append(f"devices keep what is written for {si(self.retention)}s")
        return tuple(found)
