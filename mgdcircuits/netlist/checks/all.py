"""Imports every module of rules, so that all of them are registered."""

from mgdcircuits.netlist.checks import devices, equations, graph, reads, timing
from mgdcircuits.netlist.checks.registry import RULES

__all__ = ["RULES", "devices", "equations", "graph", "reads", "timing"]
