"""Perturbations made of what the circuit evaluates: delta-MGD, in which they point along a stored gradient."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.errors import BuildError

RNG = np.random.default_rng(3)
X, Y = RNG.random((12, 6)).astype(np.float32), RNG.integers(0, 10, 12)


def session_of(netlists, target, batch=1, **parameters):
    circuit = mgd.load(netlists / "delta_mgd.yaml", pixels=6, h=5, **parameters)
    session = mgd.Session(circuit, target=target, dtype="float64", batch=batch, seed=2)
    for name, value in session.parameters.items():
        if name.startswith("label"):
            value[...] = RNG.normal(size=value.shape)  # stored deltas
    return session


@pytest.mark.parametrize("target", ["numpy", "cpp"])
@pytest.mark.parametrize("batch", [1, 4])
def test_an_aligned_perturbation_is_activity_times_delta(netlists, target, batch):
    """Averaged over the batch, which shares the perturbation, and descending by the change of the cost that it makes."""
    session = session_of(netlists, target, batch, eta=1e-3, eps=1e-4)
    session.present(X[:batch], Y[:batch])
    before = {name: value.copy() for name, value in session.parameters.items()}
    stored = before["label_to_hidden2.v"][:, Y[:batch]]  # (unit, sample)
    x = session._look(lambda: session.view("hidden1.x"))
    cost = session.cost()
    session.step()
    theta = session.view("hidden2.theta_w")
    np.testing.assert_allclose(theta, 1e-4 * (stored @ x) / batch, rtol=1e-9)
    np.testing.assert_allclose(session.view("hidden2.theta_b"), 1e-4 * stored.mean(1), rtol=1e-9)
    moved = session.parameters["hidden2.w"] - before["hidden2.w"]
    change = (session.view("delta_mgd.C.plus").ravel() - session.view("delta_mgd.C.clean").ravel()) / 1e-4**2 * cost
    np.testing.assert_allclose(moved, -1e-3 * change.mean() * theta, rtol=1e-6)


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_the_stored_deltas_become_the_gradient_of_the_biases(netlists, target):
    """Many measurements of one sample by node perturbation: the stored vector of its class is the bias gradient."""
    session = session_of(netlists, target, eta=0, forget=1, tau_delta="4000*iteration", eps_node=1e-4)
    session.present(X[:1], Y[:1])
    session.step(8000)
    exact = session.exact_gradient()
    found = np.concatenate([session.parameters[f"label_to_{p}.v"][:, Y[0]] for p in ("hidden1", "hidden2", "logits")])
    wanted = np.concatenate([exact[f"{p}.b"] for p in ("hidden1", "hidden2", "logits")])
    cosine = found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)
    assert cosine > 0.99, "20 nodes, 4000 measurements: 0.997 expected"


@pytest.mark.parametrize("seed", [1, 2])
def test_delta_mgd_learns_digits(netlists, seed):
    circuit = mgd.load(netlists / "delta_mgd.yaml", pixels=64, h=16, eta=1e-4)
    run = mgd.train(circuit, "digits", iterations=20000, evaluate_every=20000, seed=seed, progress=False)
    assert run["cost_test"].values[-1] < 0.5 * run["cost_test"].values[0]
    assert run["accuracy_test"].values[-1] > 0.65


CODES = {
    "theta_w: eps*x_pre.plus": "codes are drawn after the passes with factor 0",
    "theta_w: eps*x_pre.clean*randn()": "cannot draw numbers",
}


@pytest.mark.parametrize("code", CODES)
def test_codes_that_cannot_be_made(netlists, tmp_path, code):
    text = (netlists / "delta_mgd.yaml").read_text()
    start = text.index("      theta_w: eps*where")
    path = tmp_path / "net.yaml"
    path.write_text(text[:start] + f"      {code}\n" + text[text.index("      theta_b: eps*where") :])
    with pytest.raises(BuildError, match=CODES[code]):
        mgd.Session(mgd.load(path, pixels=6, h=5), target="numpy")
