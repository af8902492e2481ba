"""Put samples into the input arrays of a target, with numpy; both targets present pinned samples this way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mgdcircuits.circuit.program import Literal, Operand, Parameter, Position, Random, Read, Sample, Word
from mgdcircuits.codegen.evaluating import draw, evaluate
from mgdcircuits.codegen.target import Target


def present(target: Target, kernel: Sample, x: np.ndarray, y: np.ndarray) -> None:
    """Set inputs and target.

    Parameters
    ----------
    target
        Where.
    kernel
        Expressions of `x` and `y`.
    x
        (member, batch, *sample shape).
    y
        Class indices (member, batch), or targets (member, batch, outputs).
    """
    units = np.moveaxis(np.asarray(x).reshape(target.members, target.batch, -1), 2, 0).astype(target.dtype)
    for array, expression, operands in kernel.inputs:
        target.write(array.name, evaluate(expression, _values(target, operands, units, array.n)))
    y = np.asarray(y)
    targets = y[None] if y.ndim == 2 else np.moveaxis(y.reshape(*y.shape[:2], -1), 2, 0)
    if targets.shape[0] == 1 and any(a.name == kernel.labels.name for a in target.program.arrays):
        target.write(kernel.labels.name, targets)
    for array, expression, operands, _ in kernel.of_target:
        target.write(array.name, evaluate(expression, _values(target, operands, targets, array.n)))


def _values(target: Target, operands: Mapping[str, Operand], units: np.ndarray, n: int) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, operand in operands.items():
        match operand:
            case Read():
                values[name] = units
            case Literal(value):
                values[name] = value
            case Parameter(parameter):
                values[name] = target.parameters[parameter]
            case Word("n_p"):
                values[name] = target.iteration
            case Position():
                values[name] = np.arange(n)[:, None, None]
    for name, operand in operands.items():
        if isinstance(operand, Random):
            keys = np.array(target.keys(operand.site), dtype=np.uint64)
            count = target.iteration * target.clocks.ticks
            arguments = [evaluate(a, values) for a in operand.arguments]
            values[name] = draw(operand.function, keys, n, target.batch, count, target.dtype, arguments)
    return values
