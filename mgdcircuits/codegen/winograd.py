"""Which couplings are convolved with fewer multiplications (``include/mgd/winograd.hpp``)."""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable
from math import prod
from typing import TypeGuard

from mgdcircuits.circuit.topology import Conv2d, Topology


def fits(topology: Topology) -> TypeGuard[Conv2d]:
    """Whether a coupling is a convolution of all channels with a 3 x 3 kernel, place by place."""
    if not isinstance(topology, Conv2d):
        return False
    g = topology.geometry
    return (*g.kernel, *g.stride, *g.dilation, g.groups) == (3, 3, 1, 1, 1, 1, 1)


def products(topology: Conv2d) -> int:
    """Multiplications of one replica: 16 a square of four outputs and pair of channels, fewer where it hangs over the end."""
    c_out, *extents = topology.post_shape
    return topology.pre_shape[0] * c_out * prod(4 * -(-n // 2) - n % 2 for n in extents)


def pays(topology: Topology) -> bool:
    """Whether Winograd's F(2x2, 3x3) takes fewer operations than the plain sum.

    Transforms take some 48 operations a square and channel, on either side. The plain sum leaves out what hangs over the
    border.
    """
    if not fits(topology):
        return False
    (c_in, *extents), (c_out, *out) = topology.pre_shape, topology.post_shape
    plain = c_in * c_out
    for n_pre, n_post, padding in zip(extents, out, topology.geometry.padding, strict=True):
        plain *= sum(0 <= post - padding + k < n_pre for post in range(n_post) for k in range(3))
    squares = prod(-(-n // 2) for n in out)
    return 1.05 * (products(topology) + 48 * squares * (c_in + c_out)) < plain


def factors(text: str, kind: Callable[[str], Hashable | None]) -> tuple[str, str] | None:
    """The parts (of the synapse, of the pre unit) of an expression that is their product; None for any other.

    Numbers that are the same everywhere go with the synapse.
    """
    found: dict[Hashable | None, list[str]] = {"syn": [], "pre": [], "uniform": []}
    nodes = [ast.parse(text.strip(), mode="eval").body]
    while nodes:
        match nodes.pop():
            case ast.BinOp(left, ast.Mult(), right):
                nodes += [right, left]
            case ast.BinOp(left, ast.Div(), (ast.Name() | ast.Constant()) as right) if _uniform(right, kind):
                found["uniform"].append(f"(1/{ast.unparse(right)})")
                nodes.append(left)
            case ast.Constant(value):
                found["uniform"].append(str(value))
            case ast.Name(name):
                found.setdefault(kind(name), []).append(name)
            case _:
                return None
    synapse, pre = found["syn"], found["pre"]
    if len(found) > 3 or not synapse or not pre:
        return None
    return "*".join([*synapse, *found["uniform"]]), "*".join(pre)


def _uniform(node: ast.Name | ast.Constant, kind: Callable[[str], Hashable | None]) -> bool:
    return isinstance(node, ast.Constant) or kind(node.id) == "uniform"
