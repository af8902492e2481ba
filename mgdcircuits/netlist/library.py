"""The library: named snippets in the netlist language that come with mgdcircuits (folder `mgdcircuits/library`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from mgdcircuits.netlist.checks.registry import Report
from mgdcircuits.netlist.document import KindDoc, validate
from mgdcircuits.netlist.expressions import Macro
from mgdcircuits.netlist.source import Map, parse


@cache
def _tree(name: str) -> Map:
    text = resources.files("mgdcircuits.library").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    report = Report()
    tree = parse(text, f"library/{name}.yaml", report)
    report.stop_if_any()
    return tree


@cache
def _macros(name: str) -> Mapping[str, Macro]:
    return {str(key): _macro(str(key), entry) for key, entry in _tree(name).items()}


def _macro(name: str, entry: Map) -> Macro:
    arguments = entry.get("arguments", {})
    defaults = {str(key): str(value) for key, value in arguments.items() if str(value) != "required"}
    return Macro(name, tuple(str(key) for key in arguments), defaults, str(entry.get("is", "")))


def codes() -> Mapping[str, Macro]:
    """What may drive a perturbation: ``bernoulli()``, ``walsh()``..."""
    return _macros("codes")


def plain_codes(code: str) -> str:
    """Write `bernoulli()` without its sparsity, so that a plain code stays a plain expression."""
    pattern = r"\b(bernoulli|bernoulli_power)\s*\(\s*\)"
    return re.sub(pattern, "(2*bit() - 1)", code)


def costs() -> Mapping[str, Macro]:
    """``cross_entropy(z, t)``, ``mean_square(z, t)``."""
    return _macros("costs")


def optimizers() -> Mapping[str, Macro]:
    """Blocks of statements that turn G into a request: ``momentum(gamma=0.9)``..."""
    return _macros("optimizers")


@cache
def couplings() -> Mapping[str, tuple[Macro, Map]]:
    """Couplings that are called with arguments (``max_pool(2)``): the signature, and the kind they stand for."""
    return {
        str(name): (
            _macro(str(name), entry),
            Map({key: value for key, value in entry.items() if key != "arguments"}, entry.at),
        )
        for name, entry in _tree("couplings").items()
    }


@cache
def kinds() -> Mapping[str, KindDoc]:
    """Kinds that need not be written, such as ``relay``."""
    report = Report()
    read = {str(name): validate(KindDoc, entry, report) for name, entry in _tree("kinds").items()}
    report.stop_if_any()
    return {name: doc for name, doc in read.items() if doc is not None}
