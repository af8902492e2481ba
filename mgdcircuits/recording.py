"""From an entry of `record:` to what is read of a session, and when."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits.circuit.energy import is_counted
from mgdcircuits.circuit.hardware import ENERGY
from mgdcircuits.circuit.kept import asked, every_evaluation, kept_name
from mgdcircuits.circuit.program import Array
from mgdcircuits.errors import RecordError, RunError
from mgdcircuits.netlist.spec import LearningSpec, RecordSpec, Role, Sharing
from mgdcircuits.netlist.units import DIMENSIONLESS, describe, divide
from mgdcircuits.record import DECLARED, ROW, Declaration, Intent

if TYPE_CHECKING:
    from mgdcircuits.circuit.circuit import Circuit
    from mgdcircuits.session import Session

ALWAYS = {
    "accuracy",
    "train_accuracy",
    "test_accuracy",
    "accuracy_train",
    "accuracy_test",
    "writes",
    "hardware_time",
    "reward",
}
"""Words of `record:` that every run has anyway; so is the cost by its own name."""
GRADIENT = {"cosine", "norm_ratio"}
"""Words that ask for the exact gradient."""
TAKEN = DECLARED.keys() | ALWAYS | GRADIENT | {ENERGY}
"""Names of every dataset, and words that mean something else than a variable of the netlist."""
KEYS = {"variable", "every", "passes", "units"}
MEND = "leave it out of `record:`, or say what to record instead (--record NAME, --record none)"


@dataclass(frozen=True)
class Source:
    """What a variable of the dataset is read from: an array, or one for each block of a learning system."""

    name: str
    arrays: tuple[Array, ...]
    blocks: tuple[str, ...] = ()  # what each block perturbs; none: there is no such axis
    evaluated: bool = False  # by an iteration: there is no value before the first one


@dataclass(frozen=True)
class Reading:
    """A source that goes to disk."""

    declaration: Declaration
    source: Source
    shape: tuple[int, ...]  # behind the member axis
    units: tuple[int, ...] | None

    def read(self, session: Session) -> np.ndarray:
        """The values now; members first where there are several, then blocks."""
        leading = (session.members,) if session.members > 1 else ()
        values = []
        for array in self.source.arrays:
            value = np.asarray(session.view(array.name))
            if self.units is not None:
                lanes = (session.batch,) if array.sharing is Sharing.REPLICA else ()
                value = value.reshape((*leading, *lanes, -1))[..., list(self.units)]
            values.append(np.full_like(value, np.nan) if self.source.evaluated and not session.iteration else value)
        return np.stack(values, axis=len(leading)).reshape((*leading, *self.shape))


@dataclass(frozen=True)
class Joules:
    """What evaluations, perturbations and writes have taken so far, as `hardware` says."""

    declaration: Declaration

    def read(self, session: Session) -> np.ndarray:
        """Joules of each member, of all samples of its batches and all copies of the circuit.

        Raises
        ------
        RunError
            Evaluations have taken less than nothing.
        """
        hardware, members = session.hardware, session.members
        found = np.full(members, session.iteration * hardware.perturbation_energy)
        if hardware.evaluation_energy is not None:
            found += session.evaluations * hardware.evaluation_energy
        else:
            spent = session.view(ENERGY).reshape(members, -1).sum(1)
            if (spent < 0).any():
                text = session.circuit.spec.hardware.inference[ENERGY]
                raise RunError(
                    f"{session.circuit.spec.file}: hardware: inference: energy: {text}\n"
                    f"    {session.evaluations} evaluations took {spent.min():.3g} J; expected none below 0: look at its signs"
                )
            found += spent
        for name in dict.fromkeys(site.parameter for s in session.circuit.spec.learning for site in s.sites):
            found += hardware.write_energy * session.writes(name).reshape(members, -1).sum(1)
        return found if members > 1 else found[0]


@dataclass(frozen=True)
class Spikes:
    """Spikes of a population in a trial: a ragged array, with the number of spikes of each trial that is recorded."""

    population: str
    several: bool  # members or entries of a batch
    period: int | None = None  # iterations between trials that are recorded; None: those of the rows

    @property
    def trials(self) -> str:
        """The dimension that counts trials."""
        return ROW if self.period is None else f"spikes_{self.population}_{ROW}"

    @property
    def dimension(self) -> str:
        """The dimension that counts spikes."""
        return f"spike_{self.population}"

    @property
    def count(self) -> str:
        """Name of the variable that counts values per row."""
        return f"spike_count_{self.population}"

    def declarations(self) -> list[Declaration]:
        """Count per row; time, unit (and replica) of each spike."""
        name = self.population
        found = [
            _recorded(self.count, self.trials, f"spikes of {name} in the trial of this iteration", "1", "i8"),
            _recorded(f"spike_time_{name}", self.dimension, f"simulated time of a spike of {name}", "s", "f8"),
            _recorded(f"spike_unit_{name}", self.dimension, f"unit of {name} that fired", "1", "i4"),
        ]
        if self.several:
            text = "replica in which it fired: member*batch + entry"
            found.append(_recorded(f"spike_replica_{name}", self.dimension, text, "1", "i4"))
        if self.period is not None:
            found.append(_coordinate(self.trials, f"iterations done, of spikes of {name}"))
        return found

    def read(self, session: Session) -> dict[str, np.ndarray]:
        """Spikes of the trial just run."""
        names = ("time", "unit", "replica")[: 3 if self.several else 2]
        columns = session.spikes(self.population)
        return {f"spike_{n}_{self.population}": np.asarray(c) for n, c in zip(names, columns, strict=True)}


@dataclass(frozen=True)
class Trace:
    """A variable in the course of the trial of a row."""

    variable: str
    unit: str
    units: tuple[int, ...]
    replicas: int
    period: None = None  # of the rows

    @property
    def name(self) -> str:
        """Name in the dataset."""
        return dataset_name(self.variable)

    @property
    def dimension(self) -> str:
        """The dimension of its times."""
        return f"{self.name}_time"

    @property
    def count(self) -> str:
        """Name of the variable that counts values per row."""
        return f"{self.name}_count"

    def declarations(self) -> list[Declaration]:
        """Count per row; times and values."""
        dims = (self.dimension, f"{self.name}_unit", *([f"{self.name}_replica"] if self.replicas > 1 else []))
        values = Declaration(
            self.name, dims, f"{self.variable}, within trials", self.unit, Intent.RECORDED, "f4", False
        )
        return [
            _recorded(self.count, ROW, f"values of {self.variable} in the trial of this row", "1", "i8"),
            Declaration(self.dimension, (self.dimension,), "simulated time", "s", Intent.COORDINATE, "f8", False),
            values,
        ]

    def read(self, session: Session) -> dict[str, np.ndarray]:
        """Times and values of the trial just run."""
        times, values = session.trace(self.variable)
        shape = (len(times), len(self.units), *([self.replicas] if self.replicas > 1 else []))
        return {self.name: np.asarray(values).reshape(shape), self.dimension: times}


class Recorder:
    """Everything that `record:` asks for beyond what every run has.

    Parameters
    ----------
    session
        What is recorded.
    entries
        Of the netlist, or the user's own; see `as_specs`.

    Raises
    ------
    RecordError
        An entry that the session cannot give.
    """

    def __init__(self, session: Session, entries: Sequence[RecordSpec]) -> None:
        self._session = session
        self._arrays: dict[str, Array] = {a.name: a for a in session.program.arrays}
        self.wants_gradient = any(e.variable in GRADIENT for e in entries)
        self.clocked: dict[
            str, tuple[int, list[Reading | Joules]]
        ] = {}  # dimension -> iterations between readings, readings
        self.events: list[Spikes | Trace] = []  # of the rows
        self.clocked_events: list[tuple[int, Spikes]] = []  # with a clock of their own
        self.sizes: dict[str, int] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.declarations: list[Declaration] = []
        cost = session.circuit.spec.cost
        own = _own_names(session.circuit)
        for entry in entries:
            of_passes = entry.passes or every_evaluation(session.circuit, session.clocks, entry)
            of_rows = cost is not None and entry.variable == cost.name and not of_passes
            if entry.variable in own and (entry.variable != "cost" or not of_rows):
                self._check_name(entry, entry.variable)
            if entry.variable in ALWAYS | GRADIENT or of_rows:
                if entry.every and not session.circuit.spec.trial:
                    raise RecordError(
                        f"{_at(entry)}record: {entry.variable} is that of the rows (--evaluate-every); expected no every"
                        + (f", or a pass of {entry.variable}, as passes: [NAME]" if of_rows else "")
                    )
                continue
            if entry.variable == ENERGY:
                continue
            if entry.variable.startswith("spikes_"):
                self._add_spikes(entry)
            else:
                self._add(entry)
        self._add_energy(next((e for e in entries if e.variable == ENERGY), None))

    def _check_name(self, entry: RecordSpec, name: str) -> None:
        """A name in the dataset belongs to one variable."""
        if name in TAKEN:
            raise RecordError(
                f"{_at(entry)}record: {entry.variable}: every dataset has a {name} of its own; rename it in the netlist"
            )
        if any(declared.name == name for declared in self.declarations):
            raise RecordError(f"{_at(entry)}record: {entry.variable} is named twice; expected one entry a variable")

    def _add_energy(self, entry: RecordSpec | None = None) -> None:
        """Joules of the rows: where `record` asks for them, or where they are known without adding any up."""
        circuit = self._session.circuit
        declares = any(ENERGY in part for part in _energies(circuit))
        constant = self._session.hardware.evaluation_energy is not None
        if entry is None and not (declares and constant):
            return
        if entry is not None and not declares:
            raise RecordError(f"{_at(entry)}record: energy: `hardware` says no energy; {MEND}")
        if entry is not None and not constant and not is_counted(circuit, self._session.clocks):
            raise RecordError(f"{_at(entry)}record: energy: it is not counted in trials; {MEND}")
        if entry is not None and (entry.every or entry.passes or entry.units):
            raise RecordError(f"{_at(entry)}record: energy: expected no every, passes or units: it is that of each row")
        declared = Declaration(ENERGY, (ROW,), "energy spent so far, of one member", "joule", Intent.RECORDED)
        declared = declared.with_members(self._session.members)
        self.declarations.append(declared)
        self.clocked.setdefault(ROW, (0, []))[1].append(Joules(declared))

    def _add_spikes(self, entry: RecordSpec) -> None:
        population = entry.variable.removeprefix("spikes_")
        circuit = self._session.circuit
        if population not in circuit.populations or not circuit.populations[population].spec.threshold:
            raise RecordError(f"{_at(entry)}record: {entry.variable}: no population {population} gives spikes; {MEND}")
        if entry.units or entry.passes:
            raise RecordError(
                f"{_at(entry)}record: {entry.variable}: spikes of all units are recorded; expected no units or passes"
            )
        self._add_events(
            entry, Spikes(population, self._session.members * self._session.batch > 1, self._period(entry))
        )

    def _add_events(self, entry: RecordSpec, events: Spikes | Trace) -> None:
        for declared in events.declarations():
            self._check_name(entry, declared.name)
        if isinstance(events, Spikes) and events.period is not None:
            self.clocked_events.append((events.period, events))
        else:
            self.events.append(events)
        self.declarations += events.declarations()

    def _add_trace(self, entry: RecordSpec) -> None:
        """A variable within trials: read at time steps, not between iterations."""
        session, word = self._session, entry.variable
        if word not in session.circuit.variables or entry.passes:
            raise RecordError(f"{_at(entry)}record: {word} cannot be read within a trial; {MEND}")
        _, variable, array = session.circuit.variables[word]
        units = _units(entry, array.n) if entry.units is not None else tuple(range(array.n))
        session.watch(word, every=self._seconds(entry), units=list(units))
        trace = Trace(word, variable.unit, units, session.members * session.batch)
        name = f"{trace.name}_unit"
        self._coordinate(_coordinate(name, f"unit of {word}"), np.array(units))
        self.sizes |= {name: len(units), f"{trace.name}_replica": trace.replicas}
        self._add_events(entry, trace)

    def _add(self, entry: RecordSpec) -> None:
        session = self._session
        if session.circuit.is_spiking and entry.every and self._seconds(entry) < session.clocks.iteration:
            self._add_trace(entry)
            return
        period = self._period(entry)
        for source in self._sources(entry):
            self._add_source(entry, source, period)

    def _add_source(self, entry: RecordSpec, source: Source, period: int | None) -> None:
        name, array, members = source.name, source.arrays[0], self._session.members
        self._check_name(entry, name)
        dimension = ROW if period is None else f"{name}_{ROW}"
        shape, dims = list(array.shape), _axes(name, array.shape)
        units = None
        if entry.units is not None:
            units = _units(entry, array.n)
            shape, dims = [len(units)], [f"{name}_unit"]
        elif shape == [1]:
            shape, dims = [], []
        if array.sharing is Sharing.REPLICA and self._session.batch > 1:
            shape, dims = [self._session.batch, *shape], [f"{name}_sample", *dims]
        if source.blocks:
            shape, dims = [len(source.blocks), *shape], [f"{name}_block", *dims]
            text = "what is perturbed in this block"
            self._coordinate(
                Declaration(dims[0], (dims[0],), text, "1", Intent.COORDINATE, "str", False), source.blocks
            )
        self.sizes |= dict(zip(dims, shape, strict=True))
        if units is not None:
            self._coordinate(_coordinate(f"{name}_unit", f"unit of {array.name}"), np.array(units))
        dtype = {"real": f"f{self._session.target.dtype.itemsize}", "double": "f8", "integer": "i8"}[
            array.precision.value
        ]
        text = (
            f"{entry.variable}, recorded at iteration" if period is None else f"{entry.variable}, every {entry.every}"
        )
        declared = Declaration(name, (dimension, *dims), text, self._unit_of(array, entry), Intent.RECORDED, dtype)
        declared = declared.with_members(members)
        self.declarations.append(declared)
        reading = Reading(declared, source, tuple(shape), units)
        if period is None:
            self.clocked.setdefault(ROW, (0, []))[1].append(reading)
            return
        text = f"iterations done, of {entry.variable}"
        self.declarations.append(Declaration(dimension, (dimension,), text, "1", Intent.COORDINATE, "i8", False))
        self.clocked[dimension] = (period, [reading])

    def _coordinate(self, declared: Declaration, values: Any) -> None:
        self.declarations.append(declared)
        self.constants[declared.name] = values

    def _sources(self, entry: RecordSpec) -> list[Source]:
        """What an entry is read from."""
        word = entry.variable
        if word == "G":
            names = [n for n in self._session.circuit.plastic if f"{n}:G" in self._arrays]
            return [Source(f"G_{dataset_name(n)}", (self._arrays[f"{n}:G"],)) for n in names]
        found = self._of_passes(entry)
        if found:
            return found
        if entry.passes and not self._session.circuit.spec.trial:
            passes = ", ".join(entry.passes)
            raise RecordError(f"{_at(entry)}record: the session keeps no values of {word} in the pass {passes}; {MEND}")
        array = next((self._arrays[o] for o in (word, *self._scalars(word)) if o in self._arrays), None)
        if array is not None:
            _, variable, _ = self._session.circuit.variables.get(word, (None, None, None))
            evaluated = variable is not None and variable.role in (Role.STORED, Role.TARGET)
            return [Source(dataset_name(word), (array,), evaluated=evaluated)]
        for system in self._session.circuit.spec.learning:
            arrays = [a for name, a in self._arrays.items() if name.rpartition("@")[0] == f"{system.name}.{word}"]
            if arrays:
                return [_of_blocks(word, arrays, system)]
        raise RecordError(f"{_at(entry)}record: the session keeps no values of {word}; {MEND}")

    def _of_passes(self, entry: RecordSpec) -> list[Source]:
        """Values of passes, each a variable of its own; the value of the last pass keeps the plain name."""
        circuit, clocks = self._session.circuit, self._session.clocks
        plain = not entry.passes and not every_evaluation(circuit, clocks, entry)
        asking = [(s, name) for s in circuit.spec.learning for name in asked(circuit, clocks, entry, s)]
        found = []
        for system, name in asking:
            numbers = range(1 if dict(system.passes)[name] == 0 else len(_blocks(system)))
            kept = [kept_name(system.name, entry.variable, name, k) for k in numbers]
            if any(array not in self._arrays for array in kept):
                return []
            arrays = [self._arrays[array] for array in kept]
            several = sum(other == name for _, other in asking) > 1
            label = "_".join([dataset_name(entry.variable), name, *([system.name] if several else [])])
            plain_name = dataset_name(entry.variable)
            source = Source(plain_name, (arrays[-1],)) if plain else _of_blocks(label, arrays, system)
            found.append(replace(source, evaluated=True))
        return found

    def _scalars(self, word: str) -> list[str]:
        return [f"{system.name}.{word}" for system in self._session.circuit.spec.learning]

    def _unit_of(self, array: Array, entry: RecordSpec) -> str:
        circuit, word = self._session.circuit, entry.variable
        spec = circuit.spec
        cost = spec.cost.dimensions if spec.cost else DIMENSIONLESS
        if word in circuit.variables:
            return circuit.variables[word][1].unit
        if word == "G":
            return describe(divide(cost, circuit.variables[array.name.partition(":")[0]][1].dimensions))
        if spec.cost and word == spec.cost.name:
            return describe(cost)
        phases = spec.trial.phases if spec.trial else ()
        known = {a.name: a.dimensions for p in phases for a in p.measure}
        known |= {a.name: a.dimensions for s in spec.learning for a in (*s.signals, *s.baseline)}
        known |= {a.name: a.dimensions for a in spec.measure}
        return describe(known.get(word, DIMENSIONLESS))

    def _period(self, entry: RecordSpec) -> int | None:
        """Iterations between two readings; None: with every row."""
        if entry.every is None:
            return None
        session, seconds = self._session, self._seconds(entry)
        if every_evaluation(session.circuit, session.clocks, entry):
            return 1
        ratio = seconds / session.clocks.iteration
        count = round(ratio)
        if count < 1 or abs(ratio - count) > 1e-6 * count:
            raise RecordError(
                f"{_at(entry)}record: {entry.variable} every {entry.every} = {seconds:g} s; a session can be read "
                f"between iterations only, which last {session.clocks.iteration:g} s; expected a whole multiple of that"
            )
        return count

    def _seconds(self, entry: RecordSpec) -> float:
        from mgdcircuits.netlist import expressions
        from mgdcircuits.netlist.units import Quantity

        spec, second = self._session.circuit.spec, (0, 0, 1, 0, 0, 0, 0)
        values = {
            n: Quantity(v, spec.parameter_dimensions.get(n, (0,) * 7))
            for n, v in spec.parameters.items()
            if not isinstance(v, str)
        }
        values |= {n: Quantity(v, second) for n, v in self._session.clocks.seconds.items()}
        return float(expressions.evaluate(str(entry.every), values).value)

    def read_row(self) -> dict[str, Any]:
        """Values that go with every row."""
        readings = self.clocked.get(ROW, (0, []))[1]
        return {r.declaration.name: r.read(self._session) for r in readings}

    def due(self) -> dict[str, dict[str, Any]]:
        """Values of the readings with a clock of their own that are due now, by dimension."""
        now = self._session.iteration
        rows = {
            dim: {dim: now, **{r.declaration.name: r.read(self._session) for r in readings}}
            for dim, (period, readings) in self.clocked.items()
            if dim != ROW and now % period == 0
        }
        for events, columns in self.events_due():
            rows[events.trials] = {events.trials: now, events.count: len(next(iter(columns.values())))}
        return rows

    def events_due(self) -> list[tuple[Spikes, dict[str, np.ndarray]]]:
        """Spikes with a clock of their own that are due now."""
        now = self._session.iteration
        return [(e, e.read(self._session)) for period, e in self.clocked_events if now and now % period == 0]

    def next_due(self, now: int) -> int | None:
        """The next iteration at which something is due, after `now`."""
        periods = [period for dim, (period, _) in self.clocked.items() if dim != ROW]
        periods += [period for period, _ in self.clocked_events]
        return min(((now // p + 1) * p for p in periods), default=None)


def as_lists(specs: Iterable[RecordSpec]) -> list[list[Any]]:
    """What entries ask for, without where they stand: as JSON has it."""
    return [[s.variable, s.every, list(s.passes), s.units] for s in specs]


def as_specs(entries: Iterable[Any]) -> list[RecordSpec]:
    """Entries given in Python: names, or mappings with `variable` and optionally `every`, `passes`, `units`; or one of them.

    Raises
    ------
    RecordError
        Anything else.
    """
    found = []
    for entry in [entries] if isinstance(entries, str | Mapping | RecordSpec) else entries:
        if isinstance(entry, RecordSpec):
            found.append(entry)
        elif isinstance(entry, str):
            found.append(RecordSpec(entry))
        elif isinstance(entry, Mapping) and "variable" in entry and set(entry) <= KEYS:
            passes = entry.get("passes", ())
            found.append(
                RecordSpec(
                    variable=entry["variable"],
                    every=None if entry.get("every") is None else str(entry["every"]),
                    passes=(passes,) if isinstance(passes, str) else tuple(passes),
                    units=None if entry.get("units") is None else str(entry["units"]),
                )
            )
        else:
            raise RecordError(
                f"record entry {entry!r}; expected a name or a mapping with variable, every, passes, units"
            )
    return found


def _recorded(name: str, dimension: str, text: str, units: str, dtype: str) -> Declaration:
    return Declaration(name, (dimension,), text, units, Intent.RECORDED, dtype, per_member=False)


def _coordinate(name: str, text: str) -> Declaration:
    return Declaration(name, (name,), text, "1", Intent.COORDINATE, "i8", False)


def _blocks(system: LearningSpec) -> tuple[tuple[str, ...], ...]:
    """The blocks of a system; one where nothing is perturbed."""
    return system.perturb.blocks if system.perturb else ((),)


def _of_blocks(name: str, arrays: Sequence[Array], system: LearningSpec) -> Source:
    """A source with an axis for the blocks of a system, unless there is only one."""
    labels = [", ".join(dict.fromkeys(q.partition(".")[0] for q in block)) for block in _blocks(system)]
    return Source(name, tuple(arrays), tuple(labels) if len(arrays) > 1 else ())


def _axes(name: str, shape: Sequence[int]) -> list[str]:
    return [f"{name}_unit"] if len(shape) == 1 else [f"{name}_axis{k}" for k in range(len(shape))]


def _own_names(circuit: Circuit) -> set[str]:
    """What the netlist names itself: its cost, measures and signals."""
    spec = circuit.spec
    found = {a.name for a in spec.measure} | ({spec.cost.name} if spec.cost else set())
    return found | {a.name for system in spec.learning for a in (*system.signals, *system.baseline)}


def dataset_name(word: str) -> str:
    """`hidden.V` is called `V_hidden` in the dataset, as in equations of the netlist."""
    owner, dot, rest = word.partition(".")
    variable, colon, suffix = rest.partition(":")
    return "_".join(p for p in (variable, owner, suffix) if p) if dot else word


def _units(entry: RecordSpec, n: int) -> tuple[int, ...]:
    """A Python slice or a list of indices as text."""
    assert entry.units is not None
    text = entry.units.strip().strip("[]")
    try:
        if ":" in text:
            units = tuple(range(n)[slice(*(int(p) if p.strip() else None for p in text.split(":")))])
        else:
            listed = ast.literal_eval(f"({text},)")
            units = tuple(range(n)[int(k)] for k in listed)
    except (ValueError, SyntaxError, TypeError, IndexError):
        units = ()
    if not units:
        raise RecordError(
            f"{_at(entry)}record: units {entry.units!r} of {entry.variable} choose none of its {n}; expected a slice "
            f"such as 0:{min(n, 4)} or indices such as 0, {n - 1}"
        )
    return units


def _at(entry: RecordSpec) -> str:
    return f"{entry.at}: " if entry.at is not None else ""


def _energies(circuit: Circuit) -> Iterable[Mapping[str, str]]:
    hardware = circuit.spec.hardware
    return (hardware.inference, hardware.perturbation, hardware.write)
