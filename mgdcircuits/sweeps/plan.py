"""Which points of a grid run together, and which need a compilation of their own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.errors import RunError
from mgdcircuits.sweeps.grid import DATA, OPTIONS, SEED, Grid, Index, Value
from mgdcircuits.sweeps.worker import Job, Source, resolved

LANES = 16
"""Members that share the lanes of a vector where the batch is one; more gain nothing (docs/sweeps.md)."""


@dataclass(frozen=True)
class Plan:
    """A grid with what it takes to run it.

    Parameters
    ----------
    source
        The netlist.
    grid
        What is swept.
    options
        Of `train`, but the seed.
    seed
        Of points whose seed is not swept.
    circuits
        The circuit of the first point, and those that differ from it in the value of one axis, by (name, value).
    """

    source: Source
    grid: Grid
    options: Mapping[str, Any]
    seed: int
    circuits: Mapping[tuple[str, Value], Circuit]

    @classmethod
    def of(cls, source: Source, grid: Grid, options: Mapping[str, Any], seed: int) -> Plan:
        """The plan of a grid; reads the netlist once for every value, so that what is wrong with one is said at once.

        Raises
        ------
        NetlistError
            A name that the netlist does not have; a value that it cannot have.
        """
        first = {a.name: a.values[0] for a in grid.axes if a.name not in OPTIONS}
        circuits = {
            (axis.name, value): source.circuit({**first, axis.name: value})
            for axis in grid.axes
            if axis.name not in OPTIONS
            for value in axis.values
        }
        return cls(source, grid, options, seed, circuits or {("", ""): source.circuit({})})

    @property
    def circuit(self) -> Circuit:
        """That of the first point."""
        return next(iter(self.circuits.values()))

    @property
    def structures(self) -> list[Circuit]:
        """A circuit of each structure."""
        return list({_shapes(circuit): circuit for circuit in self.circuits.values()}.values())

    def iterations(self, index: Index) -> int:
        """How many iterations a point takes."""
        return int(self.grid.at(index).get("iterations", self.options["iterations"]))

    def jobs(self, points: Iterable[Index], workers: int, members: int | None) -> list[Job]:
        """The work that remains.

        Parameters
        ----------
        points
            What is missing.
        workers
            Runs that there can be at a time.
        members
            Seeds in one session; default: `together`.

        Raises
        ------
        RunError
            Members where they must be alone.
        """
        sets: dict[tuple[tuple[str, Value], ...], list[Index]] = {}
        for index in points:
            sets.setdefault(tuple((n, v) for n, v in self.grid.at(index).items() if n != SEED), []).append(index)
        found = []
        for chosen, indices in sets.items():
            size = self.together(dict(chosen), workers, members)
            for first in range(0, len(indices), size):
                part = tuple(indices[first : first + size])
                seeds = [int(self.grid.at(index).get(SEED, self.seed)) for index in part]
                seeds += seeds[-1:] * (size - len(seeds))
                values = {n: resolved(str(v)) if n == DATA else v for n, v in chosen if n in OPTIONS}
                overrides = {n: v for n, v in chosen if n not in OPTIONS}
                found.append(Job(overrides, {**self.options, **values}, tuple(seeds), part))
        return found

    def together(self, values: Mapping[str, Value], workers: int, members: int | None) -> int:
        """How many seeds run as members of one session, if nobody says.

        With a batch of one, members share the lanes of vectors: as many as there are seeds, at most `LANES`, and no more
        than leave every worker something to do. A larger batch fills the lanes itself. A run that may stop early, or that
        records spikes, is alone.
        """
        seeds = next((len(a.values) for a in self.grid.axes if a.name == SEED), 1)
        task, record = self.circuit.spec.task, self.options.get("record")
        batch = values.get("batch") or self.options.get("batch") or (task.batch if task else 1)
        recorded = self.circuit.spec.record if record is None else record
        alone = bool(self.options.get("until") or (self.circuit.is_spiking and recorded))
        if alone and (members or 1) > 1:
            raise RunError(f"members={members}: runs that may stop early, or that record spikes, cannot run together")
        if members or alone or batch != 1:
            return members or 1
        return min(LANES, seeds, ceil(len(self.grid) / workers))

    def structure(self, job: Job) -> Hashable:
        """Jobs of which this is the same compile the same code.

        What it cannot see (an axis that changes shapes only together with another) costs time and no more: each library
        is compiled once, under a lock.
        """
        kinds = [(n, _shapes(self.circuits[n, v])) for n, v in job.overrides.items()]
        return tuple(kinds), job.options.get("batch"), len(job.seeds)


def _shapes(circuit: Circuit) -> Hashable:
    return tuple((name, array.shape) for name, (_, _, array) in circuit.variables.items())
