"""Values of expressions and of keyed draws, in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import CodeType

import numpy as np

from mgdcircuits import randomness
from mgdcircuits.codegen.functions import NAMESPACE, NAMESPACE_DOUBLE
from mgdcircuits.codegen.rendering import numpy_expression


@cache
def _compiled(text: str) -> CodeType:
    return compile(numpy_expression(text), text, "eval")


def evaluate(text: str, values: Mapping[str, object]):
    """The value of an expression in Brian2's syntax."""
    found = {getattr(v, "dtype", None) for v in values.values()}
    # Numbers and counts alone (`int(n_p % K == element)`) must not become float32: the result may go into a float64.
    single = np.dtype(np.float32) in found and np.dtype(np.float64) not in found
    return eval(_compiled(text), NAMESPACE if single else NAMESPACE_DOUBLE, values)  # noqa: S307, the text is a checked expression


def draw(function: str, keys: np.ndarray, n: int, lanes: int, count: int, dtype, arguments=()) -> np.ndarray:
    """Keyed draws of shape (n, member, lanes)."""
    element = np.arange(n)[:, None, None]
    lane = np.arange(lanes)[None, None, :]
    return draw_at(function, keys[None, :, None], element, lane, count, dtype, arguments)


def draw_at(function: str, key, element, lane, count, dtype, arguments=()) -> np.ndarray:
    """Keyed draws at given elements and lanes, which broadcast against the keys of their members."""
    match function:
        case "rand":
            uniform = randomness.uniform32 if dtype == np.float32 else randomness.uniform64
            found: np.ndarray = uniform(key, element, lane, count)
        case "randn":
            found = randomness.normal(key, element, lane, count)
        case "bit":
            found = randomness.bit(key, element, lane, count)
        case _:
            found = randomness.poisson(key, element, lane, count, arguments[0])
    return found.astype(dtype)
