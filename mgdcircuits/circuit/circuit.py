"""A circuit: the description with its arrays, topologies, and order of evaluation."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mgdcircuits.circuit import topology
from mgdcircuits.circuit.program import Array, Index, Read
from mgdcircuits.errors import BuildError, NetlistError
from mgdcircuits.netlist import load as load_spec
from mgdcircuits.netlist.checks.registry import Report
from mgdcircuits.netlist.source import read
from mgdcircuits.netlist.spec import (
    Axis,
    CircuitSpec,
    CouplingSpec,
    PopulationSpec,
    RecordSpec,
    Reduce,
    Role,
    Sharing,
    TrialSpec,
    Variable,
)


@dataclass(frozen=True, eq=False)
class Population:
    """A population and its arrays, by variable name."""

    spec: PopulationSpec
    arrays: Mapping[str, Array]

    @property
    def name(self) -> str:
        """Name in the netlist."""
        return self.spec.name

    @property
    def n(self) -> int:
        """Number of units."""
        return prod(self.spec.shape)

    @property
    def positions(self) -> int:
        """Units per channel."""
        return prod(self.spec.shape[1:])

    def variable(self, name: str) -> Variable | None:
        """The variable of that name."""
        return next((v for v in self.spec.variables if v.name == name), None)

    def read(self, name: str, unit: Index = Index.ELEMENT) -> Read | None:
        """The operand that reads a variable; `unit` is ELEMENT, PRE or POST."""
        variable = self.variable(name)
        if variable is None:
            return None
        channel = {Index.ELEMENT: Index.CHANNEL, Index.PRE: Index.PRE_CHANNEL, Index.POST: Index.POST_CHANNEL}[unit]
        index = {Axis.UNIT: unit, Axis.CHANNEL: channel, Axis.SCALAR: Index.ZERO}[variable.axis]
        return Read(self.arrays[name], index, self.positions, amplitude=variable.role is Role.PERTURBATION)


@dataclass(frozen=True, eq=False)
class Coupling:
    """A coupling and its arrays, by variable name."""

    spec: CouplingSpec
    topology: topology.Topology
    pre: Population
    post: Population
    arrays: Mapping[str, Array]

    @property
    def name(self) -> str:
        """Name in the netlist."""
        return self.spec.name

    def variable(self, name: str) -> Variable | None:
        """The variable of that name."""
        return next((v for v in self.spec.variables if v.name == name), None)

    @property
    def summed(self) -> tuple[Variable, ...]:
        """The summed equations, `X_post = ...`."""
        return tuple(v for v in self.spec.variables if v.role is Role.SUMMED)

    @cached_property
    def shares(self) -> np.ndarray:
        """What a synapse counts in a mean over the synapses of its post unit: one over their number, for each unit."""
        return 1.0 / np.maximum(self.topology.in_degrees(), 1)

    @property
    def share(self) -> Array | None:
        """The array of `shares`, of a mean over synapses whose number differs between units; None: it is one number."""
        if self.spec.reduce is not Reduce.MEAN or np.ptp(self.shares) == 0:
            return None
        return Array(f"{self.name}@share", (self.post.n,), Sharing.MEMBER)

    def read_own(self, name: str, synapse: Index = Index.SYNAPSE) -> Read | None:
        """The operand that reads a variable of the coupling itself."""
        variable = self.variable(name)
        if variable is None or name not in self.arrays:
            return None
        index = Index.ZERO if variable.axis is Axis.SCALAR else synapse
        return Read(self.arrays[name], index, amplitude=variable.role is Role.PERTURBATION)

    def read(self, name: str) -> Read | None:
        """The operand that a name stands for in a synaptic expression."""
        own = self.read_own(name)
        if own is not None:
            return own
        for suffix, population, unit in (("_pre", self.pre, Index.PRE), ("_post", self.post, Index.POST)):
            if name.endswith(suffix):
                return population.read(name.removesuffix(suffix), unit)
        return self.post.read(name, Index.POST)


class Circuit:
    """A netlist that was read, checked and laid out; the argument of `Session` and `train`.

    Parameters
    ----------
    spec
        The description.

    Raises
    ------
    BuildError
        An edge list that cannot be read or does not fit.
    """

    def __init__(self, spec: CircuitSpec) -> None:
        self.spec = spec
        folder = Path(spec.file).parent if spec.file else Path()
        self.populations = {p.name: Population(p, _population_arrays(p)) for p in spec.populations}
        self.couplings: dict[str, Coupling] = {}
        for c in spec.couplings:
            pre, post = self.populations[c.pre], self.populations[c.post]
            built = topology.build(c, pre.spec.shape, post.spec.shape, folder)
            self.couplings[c.name] = Coupling(c, built, pre, post, _coupling_arrays(c, built))

    @property
    def name(self) -> str:
        """Name in the netlist."""
        return self.spec.name

    def __repr__(self) -> str:
        return f"<Circuit {self.name}: {self.n_parameters} parameters, {self.n_nodes} nodes>"

    def _objects(self) -> list[Population | Coupling]:
        return [*self.populations.values(), *self.couplings.values()]

    @cached_property
    def variables(self) -> dict[str, tuple[Population | Coupling, Variable, Array]]:
        """Every variable that has an array, by qualified name (``"conv1.w"``)."""
        found = {}
        for owner in self._objects():
            for variable in owner.spec.variables:
                if variable.name in owner.arrays:
                    found[f"{owner.name}.{variable.name}"] = (owner, variable, owner.arrays[variable.name])
        return found

    @cached_property
    def plastic(self) -> dict[str, Array]:
        """The plastic parameters by qualified name, weights before biases of each population."""
        names = [n for n, (_, v, _) in self.variables.items() if v.role is Role.PLASTIC]
        order = {name: k for k, name in enumerate(self.populations)}

        def rank(name: str) -> tuple[int, int]:
            owner = self.variables[name][0]
            return (order[owner.post.name], 0) if isinstance(owner, Coupling) else (order[owner.name], 1)

        return {n: self.variables[n][2] for n in sorted(names, key=rank)}

    @property
    def fixed(self) -> dict[str, np.ndarray]:
        """Values of the arrays that nothing writes, by name."""
        return {c.share.name: c.shares for c in self.couplings.values() if c.share is not None}

    @property
    def n_parameters(self) -> int:
        """N: plastic parameters of one member."""
        return sum(a.n for a in self.plastic.values())

    @property
    def n_nodes(self) -> int:
        """K: units with a perturbation of their own, of no parameter (pre-activations in node perturbation)."""
        return sum(
            array.n
            for owner, variable, array in self.variables.values()
            if isinstance(owner, Population) and variable.role is Role.PERTURBATION and variable.perturbs is None
        )

    @property
    def n_macs(self) -> int:
        """Multiply-accumulates of one evaluation of one sample."""
        return sum(c.topology.n_connections for c in self.couplings.values())

    @cached_property
    def is_spiking(self) -> bool:
        """Whether anything emits spikes."""
        return any(p.spec.threshold for p in self.populations.values())

    @cached_property
    def is_continuous(self) -> bool:
        """Whether any population or synapse has a differential equation."""
        return any(v.role is Role.STATE for o in self._objects() for v in o.spec.variables)

    @property
    def inputs(self) -> dict[tuple[str, str], str]:
        """What the task sets: (population, variable) to an expression of `x`."""
        return dict(self.spec.task.inputs) if self.spec.task else {}

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        if not self.inputs and self.spec.trial is not None and self.spec.task is not None:
            return self._sample_of_trial(self.spec.trial)
        if not self.inputs:
            raise BuildError(f"{self.name}: the netlist has no task that sets an input, such as `x_image: x`")
        population, _ = next(iter(self.inputs))
        return self.populations[population].spec.shape

    def _sample_of_trial(self, trial: TrialSpec) -> tuple[int, ...]:
        """Shape of a sample that phases of a trial read: as `x`, a number for each unit, or as `x__0`, `x__1` (`x[0]`)."""
        numbers = 0
        for phase in trial.phases:
            for name, text in phase.set.items():
                population, variable, _ = self.variables[name]
                assert isinstance(population, Population)
                if re.search(r"\bx\b", text):
                    return population.spec.shape if variable.axis is not Axis.SCALAR else (1,)
            texts = (*phase.set.values(), *(m.expression for m in phase.measure))
            found = [int(k) for t in texts for k in re.findall(r"\bx__(\d+)\b", t)]
            numbers = max([numbers, *(k + 1 for k in found)])
        return (max(numbers, 1),)

    def recording(self, entries: Iterable[RecordSpec]) -> Circuit:
        """The same circuit with other entries of `record`: a session keeps of each pass what they ask for.

        A variable may be called by its qualified name or as in a cost, `V_hidden`.
        """
        words = {f"{v.name}_{owner.name}": name for name, (owner, v, _) in self.variables.items()}
        named = tuple(replace(e, variable=words.get(e.variable, e.variable)) for e in entries)
        made = copy.copy(self)
        made.spec = replace(self.spec, record=named)
        return made

    def brian2(self, **options: Any):
        """Brian2 objects of the circuit, for a Brian2 `Network`; see `mgdcircuits.circuit.brian2_objects.build`."""
        from mgdcircuits.circuit.brian2_objects import build

        return build(self, **options)


def _shape(variable: Variable, shape: tuple[int, ...]) -> tuple[int, ...]:
    match variable.axis:
        case Axis.SCALAR:
            return (1,)
        case Axis.CHANNEL:
            return shape[:1]
    return shape


def _population_arrays(population: PopulationSpec) -> dict[str, Array]:
    return {
        v.name: Array(f"{population.name}.{v.name}", _shape(v, population.shape), v.sharing)
        for v in population.variables
    }


def _coupling_arrays(coupling: CouplingSpec, built: topology.Topology) -> dict[str, Array]:
    return {
        v.name: Array(f"{coupling.name}.{v.name}", _shape(v, built.parameter_shape), v.sharing)
        for v in coupling.variables
        if v.role is not Role.SUMMED
    }


def replica_scalar(name: str) -> Array:
    """A float64 number for each replica."""
    from mgdcircuits.circuit.program import Precision

    return Array(name, (1,), Sharing.REPLICA, Precision.DOUBLE)


def load(path: str | Path, **overrides: Any) -> Circuit:
    """Read, check and lay out a netlist.

    Parameters
    ----------
    path
        A netlist file.
    **overrides
        Parameter values instead of the netlist's: numbers, or text with units (``Rf="10*kohm"``).

    Returns
    -------
    Circuit

    Raises
    ------
    NetlistError
        Everything found wrong, each with file and line.
    """
    return Circuit(load_spec(path, overrides))


def load_again(
    text: str, file: str | Path, overrides: Mapping[str, Any], tables: Mapping[str, str] | None = None
) -> Circuit:
    """The circuit of a netlist that was read before: from its file, beside which others may lie and by whose lines problems are
    told, where that with what it includes still says the same; else from its text. `tables`: as they were then."""
    path = Path(file)
    try:
        same = path.is_file() and read(path, Report())[1] == text
    except NetlistError:
        same = False
    return Circuit(load_spec(path if same else text, overrides, tables))
