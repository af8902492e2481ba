"""Initial values of variables, by keyed draws: the same for every target and for Brian2 objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.operands import Resolver
from mgdcircuits.circuit.program import Literal, Parameter, Position, Random, Scope
from mgdcircuits.codegen.evaluating import draw, evaluate
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.spec import Role
from mgdcircuits.randomness import site_key


def initial_values(
    circuit: Circuit,
    name: str,
    seeds: Sequence[int],
    lanes: int,
    constants: Mapping[str, float],
    parameters: Mapping[str, float],
) -> np.ndarray:
    """Initial values of a variable, broadcastable to (elements, member, lanes).

    Parameters
    ----------
    name
        Qualified name of a variable; without an initial expression it starts at zero.
    seeds
        One for each member.
    lanes
        Entries of the batch, 1 for a variable that they share.
    constants
        Literals by name: clocks.
    parameters
        Current values of the netlist's parameters.

    Raises
    ------
    RunError
        What is drawn for a device, such as its endurance, is not a number.
    """
    owner, variable, array = circuit.variables[name]
    if variable.initial is None:
        return np.zeros((array.n, 1, 1))
    fans: dict[str, float] = {"N": array.n}
    if hasattr(owner, "topology"):
        fans |= {"fan_in": owner.topology.fan_in, "fan_out": owner.topology.fan_out}
    lookups = [{"i": Position()}.get]
    resolver = Resolver(circuit.spec.parameters, {**constants, **fans}, lookups, f"{name}/initial", Scope.INITIAL)
    expression = resolver.expression(variable.initial)
    values: dict[str, object] = {}
    for key, operand in resolver.operands.items():
        match operand:
            case Literal(value):
                values[key] = value
            case Parameter(parameter):
                values[key] = parameters[parameter]
            case Position():
                values[key] = np.arange(array.n)[:, None, None]
            case Random(function, site, _, _, arguments):
                keys = np.array([site_key(seed, site) for seed in seeds], dtype=np.uint64)
                drawn = [evaluate(a, values) for a in arguments]
                values[key] = draw(function, keys, array.n, lanes, 0, np.dtype(np.float64), drawn)
    found = evaluate(expression, values)
    if variable.role is Role.DEVICE and np.isnan(found).any():
        where = f"{variable.at.file}:{variable.at.line}" if variable.at else circuit.spec.file
        raise RunError(
            f"{where}: `{variable.initial}` is not a number for some devices of {owner.name}; check its draws"
        )
    return found
