"""Kernels and nodes of circuits with spikes: loops over synapses, deliveries of spikes, where a run is watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from mgdcircuits.circuit.program import Array, Kernel, Look, Statement
from mgdcircuits.circuit.topology import Topology


class Side(Enum):
    """Whose spikes drive a pathway."""

    PRE = "pre"
    POST = "post"


@dataclass(frozen=True)
class EventStatement(Statement):
    """``target operator expression``; several events that hit one target with ``+=`` add up."""

    operator: str = "="


@dataclass(frozen=True, eq=False)
class Connections(Kernel):
    """For every synapse and every replica: run the statements, which may read the pre- and post-synaptic side."""

    topology: Topology


@dataclass(frozen=True, eq=False)
class Pathway(Kernel):
    """For every synapse at which a spike arrives in this tick: run the statements (`EventStatement`).

    `spikes` holds the spikes of the last `rows` ticks, the row of tick n being ``n % rows``. `delays` are ticks: one
    for all synapses, or one for each. `guards` names the operand that is 1 where a target must not be written: the unit
    is refractory.
    """

    statements: tuple[EventStatement, ...]
    topology: Topology
    side: Side
    spikes: Array
    rows: int
    delays: np.ndarray
    guards: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Remember(Kernel):
    """Copy the spikes of this tick into their row of the history."""

    spikes: Array
    history: Array
    rows: int


@dataclass(frozen=True)
class Emit(Look):
    """The spikes of a population in this tick are known: whoever records them may read them now."""

    population: str
    spikes: str


@dataclass(frozen=True)
class Observe(Look):
    """The beginning of a tick: whoever records variables may read them now."""


@dataclass(frozen=True)
class Forget(Look):
    """A new trial begins: what was recorded of the last one may go."""
