"""How results are held against an oracle, and inputs on which the comparison is fair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from oracles.network import MaxPool, Network


def error(found: np.ndarray, expected: np.ndarray, dtype: str) -> float:
    """float32: ‖a−b‖/‖b‖. float64: the largest difference, in units of the largest entry."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert np.isfinite(a).all() and np.abs(b).max() > 0, "nothing to compare"
    if dtype == "float32":
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))
    return float(np.abs(a - b).max() / np.abs(b).max())


BOUND = {"float32": 1e-5, "float64": 1e-10}


def assert_close(found: np.ndarray, expected: np.ndarray, dtype: str, what: str = "") -> None:
    """Within the bound of the precision."""
    off = error(found, expected, dtype)
    assert off <= BOUND[dtype], f"{what}: off by {off:.2e}, allowed {BOUND[dtype]:.0e}"


def set_parameters(session, rng: np.random.Generator, sizes: Mapping[str, float] | None = None) -> None:
    """Random values through the live views: uniform, of Glorot's size for weights, up to 0.5 for vectors."""
    for name, view in session.parameters.items():
        shape = view.shape[1:] if session.members > 1 else view.shape
        fan = np.prod(shape[1:]) + shape[0] * np.prod(shape[2:])
        size = (sizes or {}).get(name, 0.5 if len(shape) == 1 else np.sqrt(6 / fan))
        view[...] = rng.uniform(-size, size, view.shape)


def members_of(session) -> list[dict[str, np.ndarray]]:
    """The parameters of each member, as the session holds them, in float64."""
    values = {n: np.array(v, np.float64) for n, v in session.parameters.items()}
    if session.members == 1:
        return [values]
    return [{n: v[m] for n, v in values.items()} for m in range(session.members)]


def decided_samples(
    network: Network,
    members: Sequence[Mapping[str, np.ndarray]],
    rng: np.random.Generator,
    shape: tuple[int, ...],
    n: int,
) -> np.ndarray:
    """n random samples in which every maximum leads by more than rounding: both sides must find the same winner."""
    kept = []
    while len(kept) < n:
        x = rng.random((min(n, 20), *shape), dtype=np.float32)
        decided = np.ones(len(x), bool)
        for parameters in members:
            for layer, (into, _) in zip(network.layers, network.forward(parameters, x.astype(float)), strict=False):
                if isinstance(layer.coupling, MaxPool):
                    first, second = np.partition(layer.coupling._windows(into), (-2, -1))[..., -1:-3:-1].transpose(
                        4, 0, 1, 2, 3
                    )
                    decided &= (first - second).reshape(len(x), -1).min(axis=1) > 3e-6
        kept += list(x[decided])
    return np.stack(kept[:n])
