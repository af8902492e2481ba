"""The netlist language: text to a frozen, validated description. Nothing here imports Brian2."""

from mgdcircuits.netlist.load import load
from mgdcircuits.netlist.spec import CircuitSpec

__all__ = ["CircuitSpec", "load"]
