"""The functions of the language for numpy arrays; `codegen/include/mgd/functions.hpp` has the same for C++."""

from __future__ import annotations

import numpy as np


def int_(x):
    """1 or 0 of a condition, a number without its fraction."""
    x = np.asarray(x)
    if x.dtype == bool:
        return x.astype(np.float32)
    return np.trunc(x)


def clip(x, low, high):
    """x limited to [low, high]."""
    return np.minimum(np.maximum(x, low), high)


def exprel(x):
    """(exp(x) - 1)/x, 1 at 0."""
    x = np.asarray(x)
    small = np.abs(x) < 1e-16
    safe = np.where(small, 1, x)
    return np.where(small, 1, np.expm1(safe) / safe)


def walsh_sign(row, number):
    """Entry (row, number) of a Hadamard matrix in natural order: ±1 by the parity of the common bits."""
    common = np.asarray(row).astype(np.int64) & np.asarray(number).astype(np.int64)
    for shift in (32, 16, 8, 4, 2, 1):
        common = common ^ (common >> shift)
    return 1.0 - 2.0 * (common & 1)


def timestep(t, dt):
    """The integer number of the time step at t."""
    return np.floor((t + 1e-3 * dt) / dt)


def power(base, exponent):
    """`base**exponent`, also of a whole number to a negative one, which numpy refuses."""
    if np.asarray(base).dtype.kind in "iu" and np.any(np.asarray(exponent) < 0):
        base = np.asarray(base, dtype=np.float64)
    return base**exponent


NAMESPACE = {
    "int_": int_,
    "power": power,
    "clip": clip,
    "exprel": exprel,
    "walsh_sign": walsh_sign,
    "timestep": timestep,
    "where": np.where,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "abs": np.abs,
    **{
        name: getattr(np, name)
        for name in (
            "sin cos tan sinh cosh tanh arcsin arccos arctan exp log log10 log1p expm1 sqrt sign floor ceil logical_not"
        ).split()
    },
}

NAMESPACE_DOUBLE = {**NAMESPACE, "int_": lambda x: np.asarray(int_(x), dtype=np.float64)}
"""The same for float64: there 1 and 0 of a condition must not make a number a float32."""
