"""Imports every module of rules, so that all of them are registered."""

from mgdcircuits.netlist.checks import registry

RULES = registry.RULES
