"""The small tasks are learned: XOR as often as by the exact gradient, parity, letters, digits."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import Session, load

XOR = np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]), np.array([[0], [1], [1], [0.0]])
WEIGHTS = ("hidden_layer.w", "hidden_layer.b", "output.w", "output.b")


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def xor_outputs(p: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Hidden and output activity (start, sample, unit) of 2-2-1 sigmoids whose biases are subtracted."""
    hidden = sigmoid(np.einsum("mij,bj->mbi", p["hidden_layer.w"], XOR[0]) - p["hidden_layer.b"][:, None])
    return hidden, sigmoid(np.einsum("mij,mbj->mbi", p["output.w"], hidden) - p["output.b"][:, None])


def xor_gradient(p: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradient of the mean square error over the four samples."""
    hidden, out = xor_outputs(p)
    back = 2 * (out - XOR[1]) * out * (1 - out) / 4
    back_hidden = np.einsum("mbi,mij->mbj", back, p["output.w"]) * hidden * (1 - hidden)
    return {
        "hidden_layer.w": np.einsum("mbi,bj->mij", back_hidden, XOR[0]),
        "hidden_layer.b": -back_hidden.sum(1),
        "output.w": np.einsum("mbi,mbj->mij", back, hidden),
        "output.b": -back.sum(1),
    }


def solved(p: dict[str, np.ndarray]) -> int:
    """How many starts get all four patterns right."""
    return int((np.abs(xor_outputs(p)[1] - XOR[1]) < 0.5).all(axis=(1, 2)).sum())


def doubles(session: Session) -> dict[str, np.ndarray]:
    return {name: session.parameters[name].astype(float) for name in WEIGHTS}


@pytest.fixture(scope="module")
def by_exact_gradient(netlists) -> tuple[dict[str, np.ndarray], int]:
    """The 100 starts (seeds 1 to 100), and how many of them descent along the exact gradient solves."""
    session = Session(load(netlists / "xor.yaml"), members=100, seed=1, batch=4, target="numpy", dtype="float64")
    session.present(*XOR)
    start = doubles(session)
    exact, mine = session.exact_gradient(), xor_gradient(start)
    for name in WEIGHTS:
        np.testing.assert_allclose(mine[name], exact[name], rtol=1e-9, atol=1e-15)
    p = {name: value.copy() for name, value in start.items()}
    for _ in range(4000):  # steps of 5: as many solved as with 20,000 steps of 1, or 100,000 of 0.2
        for name, slope in xor_gradient(p).items():
            p[name] -= 5.0 * slope
    return start, solved(p)


@pytest.mark.parametrize(("netlist", "iterations"), [("xor", 200_000), ("xor_analog", 400_000)])
def test_xor(netlists, by_exact_gradient, netlist, iterations):
    """Discrete and analog, from the same 100 starts: within 10 points of the exact gradient, and at least 60."""
    start, exact = by_exact_gradient
    session = Session(load(netlists / f"{netlist}.yaml"), members=100, seed=1, data="xor")
    for name in WEIGHTS:
        np.testing.assert_allclose(session.parameters[name], start[name], rtol=1e-6)
    session.step(iterations)
    count = solved(doubles(session))
    assert count >= 60
    assert abs(count - exact) <= 10


def accuracies(session: Session, data) -> np.ndarray:
    """Fraction of the test set that each member answers right, evaluated on the numpy target (nothing to compile)."""
    reader = Session(session.circuit, members=session.members, target="numpy", batch=session.batch)
    for name, value in reader.parameters.items():
        value[...] = session.parameters[name]
    return reader.evaluate(data.x_test, data.y_test, data.scale).accuracy.mean(-1)


def test_parity(netlists):
    """Three bits, 16 starts."""
    data = mgd.datasets.load("parity", n=3)
    session = Session(load(netlists / "parity.yaml"), members=16, seed=1, data=data)
    session.step(100_000)
    assert (accuracies(session, data) == 1).sum() >= 13


def test_letters(netlists):
    """Unseen patterns, every one of three starts."""
    data = mgd.datasets.load("letters")
    session = Session(load(netlists / "letters.yaml"), members=3, seed=1, data=data)
    session.step(300_000)
    assert accuracies(session, data).min() >= 0.80


def test_digits(netlists):
    """Hands that were not trained on."""
    data = mgd.datasets.load("digits")
    session = Session(load(netlists / "digits_mlp.yaml"), seed=1, data=data)
    session.step(10_000)
    assert accuracies(session, data) >= 0.90
