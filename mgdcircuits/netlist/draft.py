"""Everything in its place: names, kinds, shapes and topologies, before any expression is looked into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mgdcircuits.netlist.document import PopulationDoc
from mgdcircuits.netlist.kinds import Template
from mgdcircuits.netlist.source import Text
from mgdcircuits.netlist.spec import Position, Topology
from mgdcircuits.netlist.topologies import Shape


@dataclass
class Population:
    """A population that has its place."""

    name: str
    template: Template
    shape: Shape | None  # None: a problem was reported
    at: Position
    doc: PopulationDoc
    arrives: Arrival | None = None


@dataclass(frozen=True)
class Arrival:
    """How a population of a chain is reached."""

    source: str
    via: Text | None
    topology: tuple[str, Any] | None
    delay: Any


@dataclass
class Coupling:
    """A coupling that has its place."""

    name: str
    pre: str
    post: str
    topology: Topology | None
    template: Template
    at: Position
    key: str  # the key under `synapses`, or the name


@dataclass
class Draft:
    """Populations and couplings in netlist order."""

    populations: dict[str, Population] = field(default_factory=dict)
    couplings: dict[str, Coupling] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # names of what could not be placed
