"""Values that belong to the wiring of a circuit: the same for every seed, member and machine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mgdcircuits.circuit.operands import Resolver
from mgdcircuits.circuit.program import Index, Literal, Parameter, Position, Random
from mgdcircuits.circuit.topology import Topology
from mgdcircuits.codegen.evaluating import draw, evaluate
from mgdcircuits.errors import BuildError
from mgdcircuits.randomness import site_key


def synaptic_values(
    resolver: Resolver, text: str, topology: Topology, parameters: Mapping[str, float | str]
) -> np.ndarray:
    """An expression of `i`, `j`, parameters and random numbers: one value, or one for each synapse.

    Raises
    ------
    BuildError
        An expression that reads something that changes.
    """
    expression = resolver.expression(text)
    pre, post, _ = topology.indices()
    values: dict[str, object] = {}
    for name, operand in resolver.operands.items():
        match operand:
            case Literal(value):
                values[name] = value
            case Parameter(parameter):
                values[name] = float(parameters[parameter])
            case Position(Index.PRE):
                values[name] = pre.astype(float)
            case Position(Index.POST):
                values[name] = post.astype(float)
            case Random(function, site, _, _, arguments):
                keys = np.array([site_key(0, site)], dtype=np.uint64)
                drawn = [evaluate(a, values) for a in arguments]
                values[name] = draw(function, keys, len(pre), 1, 0, np.dtype(np.float64), drawn)[:, 0, 0]
            case _:
                raise BuildError(f"{resolver.place}: {text!r} must be constant")
    return np.atleast_1d(np.asarray(evaluate(expression, values), dtype=np.float64))
