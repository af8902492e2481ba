"""Arguments of sessions, training and sweeps: one clear error for what is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.divergence import ON_NAN
from mgdcircuits.errors import RecordError, RunError
from mgdcircuits.netlist.checks.reads import per_sample
from mgdcircuits.netlist.checks.registry import Report
from mgdcircuits.netlist.expressions import names, parse_statements
from mgdcircuits.netlist.source import leaves, read
from mgdcircuits.randomness import SEEDS
from mgdcircuits.spiking import refuse_cpp

TARGETS = ("cpp", "numpy")
DTYPES = ("float32", "float64")


def check_circuit(circuit: Any) -> None:
    """Refuse what is no circuit.

    Raises
    ------
    RunError
        With what to pass instead.
    """
    if not isinstance(circuit, Circuit):
        raise RunError(f"{circuit!r} is no circuit; pass mgdcircuits.load(...) of a netlist")


def check_out(circuit: Circuit, out: str | Path | None) -> None:
    """Refuse to write a dataset in the place of the netlist that it is made from, or of a file that this includes.

    Raises
    ------
    RecordError
        With the file that is read.
    """
    if out is None or not Path(circuit.spec.file).is_file():
        return
    tree, _, file = read(Path(circuit.spec.file), Report())
    sources = {str(file), *(value.at.file for _, value in leaves(tree))}
    if Path(out).resolve() in {Path(name).resolve() for name in sources}:
        raise RecordError(f"{out} is read as a part of the netlist; choose another name for what is written")


def check_choices(circuit: Circuit, target: str, on_nan: str) -> None:
    """Refuse what is no choice, or none for this circuit.

    Raises
    ------
    RunError
        A misspelt word.
    BuildError
        The circuit cannot run on this target.
    """
    for name, value, choices in (("target", target, TARGETS), ("on_nan", on_nan, ON_NAN)):
        if value not in choices:
            raise RunError(f"{name} {value!r} is unknown; expected one of {', '.join(choices)}")
    refuse_cpp(circuit, target)


def number_type(dtype: Any) -> np.dtype:
    """The type of the numbers of a session.

    Raises
    ------
    RunError
        Another one than `DTYPES`.
    """
    try:
        found = None if dtype is None else np.dtype(dtype)  # numpy's None is float64
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise RunError(f"dtype {dtype!r} is not possible; expected one of {', '.join(DTYPES)}")
    return found


def check_batch(circuit: Circuit, batch: int) -> None:
    """Refuse writes that read what is computed for each sample, where a batch has several.

    `check` looks at the batch of the netlist.

    Raises
    ------
    RunError
        With what reads what.
    """
    for system in circuit.spec.learning if batch > 1 else ():
        for site in system.sites:
            owner = circuit.variables[site.parameter][0].spec
            for key, block in (("update", site.update), ("on_write", site.on_write)):
                statements = parse_statements(block)
                read = set().union(*(names(s.value) for s in statements)) - {s.target for s in statements}
                if word := next(iter(sorted(read & per_sample(owner))), None):
                    raise RunError(
                        f"batch={batch}: `{key}` of {site.parameter} reads `{word}`, which is computed for each sample; "
                        "put it into `estimate`, or take batch=1"
                    )


def whole(name: str, value: Any, least: int = 1) -> int:
    """A number that counts something.

    Raises
    ------
    RunError
        No whole number, or one below `least`.
    """
    number = value.item() if isinstance(value, np.generic | np.ndarray) and value.size == 1 else value
    counts = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
    if not counts or isinstance(number, bool) or not least <= number < SEEDS.stop:
        raise RunError(f"{name}={value!r}: expected a whole number of at least {least}, below 2**63")
    return int(number)


def counted(name: str, value: Any) -> int | None:
    """As `whole`, of an argument that may be left out."""
    return None if value is None else whole(name, value)


def finite(name: str, value: Any) -> float:
    """A finite number.

    Raises
    ------
    RunError
        No number, an infinite one, or nan.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RunError(f"{name}={value!r}: expected a finite number, in SI units")
    return number
