"""The chip of a dataset: its netlist, read again with the values of one point of a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits.errors import MgdError, NetlistError, RunError
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.expressions import ExpressionError
from mgdcircuits.netlist.units import Quantity
from mgdcircuits.record import GROUP
from mgdcircuits.sweeps.grid import OPTIONS

if TYPE_CHECKING:
    import xarray as xr

    from mgdcircuits.circuit.circuit import Circuit
    from mgdcircuits.circuit.clocks import Clocks

WINDOW, RATE = "tau_theta", "eta"


@dataclass(frozen=True)
class Chip:
    """A circuit and its clocks, at one point of a sweep."""

    circuit: Circuit
    clocks: Clocks

    @property
    def retention(self) -> float:
        """Seconds for which devices keep what is written."""
        text = self.circuit.spec.hardware.device.get("retention")
        return np.inf if text is None else self.value(text)

    @property
    def period(self) -> int:
        """Iterations between two updates of the first learning system."""
        return next(iter(self.clocks.periods.values()), 1)

    def value(self, text: str) -> float:
        """The value of an expression of parameters and clocks, in SI units."""
        from mgdcircuits.circuit.clocks import value_of

        return value_of(self.circuit, self.clocks, text)

    def batch(self, asked: int) -> tuple[int, int]:
        """How many samples a batch has, and how many copies of the circuit evaluate them; `asked`: 0 for the netlist's own."""
        from mgdcircuits.circuit.hardware import hardware

        task = self.circuit.spec.task
        samples = asked or (task.batch if task else 1)
        return samples, hardware(self.circuit, self.clocks, samples).copies

    def needs(self) -> tuple[Mapping[str, Any], ...]:
        """What the rule needs, where that can be counted (`circuit/needs.py`)."""
        from mgdcircuits.circuit.builder import build
        from mgdcircuits.circuit.needs import as_records, needs

        if self.circuit.spec.trial is not None or self.circuit.is_spiking:
            return ()
        return tuple(as_records(needs(self.circuit, *build(self.circuit, batched=False))))


class Chips:
    """The chip at each tau_theta and eta; None where the dataset's netlist cannot be read, and `problem` says why."""

    def __init__(self, dataset: xr.Dataset, point: Mapping[str, Any], netlist: str | Path | None) -> None:
        self.problem = ""
        self._dataset, self._point, self._netlist = dataset, point, netlist
        self._known: dict[tuple[Any, Any], Chip | None] = {}

    def at(self, window: Any, rate: Any = None) -> Chip | None:
        """The chip, where nothing but these two is open; None: the netlist's own value."""
        if (window, rate) not in self._known:
            self._known[window, rate] = self._read(window, rate)
        return self._known[window, rate]

    def _read(self, window: Any, rate: Any) -> Chip | None:
        given = {name: value for name, value in ((WINDOW, window), (RATE, rate)) if value is not None}
        try:
            return read_chip(self._dataset, {**self._point, **given}, self._netlist)
        except MgdError as error:
            if self._netlist is not None:
                raise
            self.problem = error.problems[0].found if isinstance(error, NetlistError) else str(error).splitlines()[0]
            return None

    def value(self, rate: Any, window: Any) -> float:
        """A learning rate as a number.

        Raises
        ------
        ExpressionError
            It is no constant.
        """
        if isinstance(rate, int | float):
            return float(rate)
        if (chip := self.at(window)) is not None:
            return chip.value(rate)
        if (found := quantity(rate)) is None:
            raise ExpressionError("is not known without the netlist", "")
        return found.value


def quantity(value: Any) -> Quantity | None:
    """A swept value without the netlist: a number, an expression of numbers and units; nothing where it is neither."""
    try:
        return expressions.evaluate(str(value), {})
    except ExpressionError:
        return None


def read_chip(dataset: xr.Dataset, point: Mapping[str, Any], netlist: str | Path | None = None) -> Chip:
    """The chip of a dataset at a point of its sweep.

    Parameters
    ----------
    point
        Values of swept names.
    netlist
        The file or text of the circuit, instead of what the dataset keeps: its text, and those of the tables it names.
        No other file is read.

    Raises
    ------
    NetlistError
        A netlist that cannot be read.
    RunError
        A netlist of another circuit; a dataset that keeps no netlist.
    """
    from mgdcircuits.circuit.circuit import Circuit
    from mgdcircuits.circuit.clocks import resolve
    from mgdcircuits.netlist import load

    overrides, tables = (_mapping(dataset, name) for name in ("overrides", "netlist_tables"))
    overrides |= {name: value for name, value in point.items() if name not in OPTIONS}
    if netlist is not None:
        circuit = Circuit(load(netlist, overrides))
        _check_same(circuit, dataset)
        return Chip(circuit, resolve(circuit))
    if not (text := str(dataset.attrs.get("netlist", ""))):
        raise RunError("the dataset keeps none")
    circuit = Circuit(load(text, overrides, tables))
    return Chip(circuit, resolve(circuit))


def _mapping(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    """An attribute that holds a mapping as JSON; an empty one where there is none."""
    try:
        found = json.loads(dataset.attrs.get(name) or "{}")
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise RunError(f"the attribute {name} of the dataset is damaged")
    return found


def _check_same(circuit: Circuit, dataset: xr.Dataset) -> None:
    sizes = dataset["parameter_size"]
    sizes = sizes.max([d for d in sizes.dims if d != GROUP])
    own = {str(name): float(size) for name, size in zip(dataset[GROUP].values, sizes.values, strict=True)}
    found = {name: array.n for name, array in circuit.plastic.items()}
    name = str(dataset.attrs.get("circuit", ""))
    others = own.keys() ^ found.keys() or [n for n in own if np.isfinite(own[n]) and own[n] != found[n]]
    if circuit.name != name or others:
        raise RunError(
            f"the netlist is of another circuit: {circuit.name} with {_sizes(found)}; "
            f"the dataset is of {name} with {_sizes(own)}"
        )


def _sizes(groups: Mapping[str, float]) -> str:
    return ", ".join(f"{size:g} {name}" for name, size in groups.items())
