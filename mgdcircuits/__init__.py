"""Train circuits in situ by multiplexed gradient descent: from a netlist of equations to a run and its dataset."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgdcircuits import datasets as datasets
    from mgdcircuits.circuit.circuit import Circuit as Circuit
    from mgdcircuits.circuit.circuit import load as load
    from mgdcircuits.drawing import draw as draw
    from mgdcircuits.errors import BuildError as BuildError
    from mgdcircuits.errors import DatasetError as DatasetError
    from mgdcircuits.errors import MgdError as MgdError
    from mgdcircuits.errors import NetlistError as NetlistError
    from mgdcircuits.errors import RecordError as RecordError
    from mgdcircuits.errors import RunError as RunError
    from mgdcircuits.figures import plot as plot
    from mgdcircuits.record import open_run as open_run
    from mgdcircuits.session import Session as Session
    from mgdcircuits.sweeps.sweeping import sweep as sweep
    from mgdcircuits.training import Interrupted as Interrupted
    from mgdcircuits.training import train as train

# Where each public name lives. It is imported at its first use: `import mgdcircuits` alone takes a few milliseconds.
_HOMES = {
    "load": "mgdcircuits.circuit.circuit",
    "Circuit": "mgdcircuits.circuit.circuit",
    "Session": "mgdcircuits.session",
    "train": "mgdcircuits.training",
    "Interrupted": "mgdcircuits.training",
    "sweep": "mgdcircuits.sweeps.sweeping",
    "open_run": "mgdcircuits.record",
    "plot": "mgdcircuits.figures",
    "draw": "mgdcircuits.drawing",
    "MgdError": "mgdcircuits.errors",
    "NetlistError": "mgdcircuits.errors",
    "BuildError": "mgdcircuits.errors",
    "RunError": "mgdcircuits.errors",
    "DatasetError": "mgdcircuits.errors",
    "RecordError": "mgdcircuits.errors",
}
_MODULES = ("datasets", "errors")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"mgdcircuits.{name}")
    else:
        raise AttributeError(f"module 'mgdcircuits' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
