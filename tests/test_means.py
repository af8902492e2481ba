"""`reduce: mean` where units have different numbers of synapses: each is the mean over its own."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd

NET = """
circuit: means
kinds:
  unit: {equations: "x = I : 1\\nI : 1"}
  mean: {equations: "I_post = w*x_pre**2 : 1 (summed)\\nw : 1 (plastic)", reduce: mean, initial: {w: rand()}}
chain:
  - image: {shape: [2, 4, 5], equations: "x : 1"}
  - conv: {channels: 3, kind: unit, via: mean, conv2d: {kernel: 3, padding: 1, stride: 2}}
populations:
  few: {shape: 7, kind: unit}
synapses:
  conv -> few: {kind: mean, sparse: 0.2}
task: {x_image: x, target: y, batch: 2}
cost: {C: mean((x_few - target)**2)}
"""
X = np.random.default_rng(1).uniform(-1, 1, (2, 2, 4, 5))
Y = np.zeros((2, 7))


def session_of(folder, **options):
    path = folder / "means.yaml"
    path.write_text(NET)
    session = mgd.Session(mgd.load(path), dtype="float64", **options)
    session.present(X, Y)
    return session


def by_hand(session):
    """Loops over units and what reaches them."""
    w = session.parameters["conv.w"]
    x = np.float32(X).astype(float)
    conv = np.zeros((2, 3, 2, 3))
    for b, out, y, column in np.ndindex(conv.shape):
        terms = [
            w[out, c, ky, kx] * x[b, c, 2 * y + ky - 1, 2 * column + kx - 1] ** 2
            for c, ky, kx in np.ndindex(2, 3, 3)
            if 0 <= 2 * y + ky - 1 < 4 and 0 <= 2 * column + kx - 1 < 5
        ]
        conv[b, out, y, column] = sum(terms) / len(terms)
    few, edges = np.zeros((2, 7)), session.circuit.couplings["conv_to_few"].topology
    v = session.parameters["conv_to_few.w"]
    for unit in range(7):
        own = np.flatnonzero(edges.post == unit)
        few[:, unit] = (v[own] * conv.reshape(2, -1)[:, edges.pre[own]] ** 2).sum(1) / max(1, len(own))
    return conv, few


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_means_by_hand(tmp_path, target):
    session = session_of(tmp_path, target=target)
    conv, few = by_hand(session)
    degrees = session.circuit.couplings["conv_to_few"].topology.in_degrees()
    assert len(set(degrees)) > 2, "the test has no power"
    np.testing.assert_allclose(session.outputs(), few, rtol=1e-6)
    np.testing.assert_allclose(session.view("conv.x"), conv, rtol=1e-6)


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_the_gradient_through_a_mean_is_the_slope_of_the_cost(tmp_path, target):
    session = session_of(tmp_path, target=target)
    for name, gradient in session.exact_gradient().items():
        values, slope = session.parameters[name], np.zeros_like(gradient)
        for place in np.ndindex(values.shape):
            before, costs = values[place], []
            for step in (1e-5, -1e-5):
                values[place] = before + step
                costs.append(session.cost().mean())
            values[place] = before
            slope[place] = (costs[0] - costs[1]) / 2e-5
        np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-10)


def test_brian2_takes_the_same_means(tmp_path):
    b2 = pytest.importorskip("brian2")
    session = session_of(tmp_path, target="numpy", seed=1)
    before = b2.prefs.codegen.target
    b2.prefs.codegen.target = "numpy"
    try:
        objects = session.circuit.brian2(seed=1, values={"image.x": np.float32(X[:1]).reshape(1, -1)})
        b2.Network(*objects).run(session.clocks.tau_p * b2.second)
    finally:
        b2.prefs.codegen.target = before
    np.testing.assert_allclose(objects["few"].x_[:], by_hand(session)[1][0], rtol=1e-6)
