"""Noise of inputs, neurons and devices is common to all passes of a period; noise of the measurement is not.

So without perturbation (delta = 0) the change of the cost is exactly 0, or has twice the variance of the measurement.
"""

from __future__ import annotations

import numpy as np
import pytest

from mgdcircuits import Session, load

# Noise everywhere. `request: 0*...` keeps the parameters, `x` at two layers tells the noise of inputs from that of neurons.
NOISY = """
circuit: noisy
parameters: {{delta: 0.0, sigma: 0.0, pixel: 0.3, neuron: 0.2, device: 0.1}}
clocks: {{tau_p: 1*us, tau_x: 2*iteration, tau_theta: 1000000*iteration}}
kinds:
  neuron:
    equations: |
      x = tanh(I + b + theta_b) + neuron*{neuron_noise} : 1
      I : 1
      b : 1 (plastic)
      theta_b : 1 (perturbation of b)
    initial: {{b: 0.1*randn()}}
  device:
    equations: |
      I_post = (w + theta_w)*spread*x_pre + device*randn()*x_pre : 1 (summed)
      w : 1 (plastic)
      theta_w : 1 (perturbation of w)
      spread = exp(0.3*randn()) : 1 (per device)
    initial: {{w: randn()}}
chain:
  - input:
      shape: 4
      equations: |
        x = light + pixel*randn() : 1
        light : 1
  - hidden: {{shape: 5, kind: neuron, via: device}}
  - output: {{shape: 2, kind: neuron, via: device}}
task: {{batch: 4, light_input: x, target: y}}
cost: {{C: "mean_square(x_output, target) + sigma*{measurement}"}}
learning:
  wp:
    perturb: {{theta_w: delta*bernoulli(), theta_b: delta*bernoulli(), every: tau_p, blocks: layer}}
    passes: {{clean: 0, plus: 1, minus: -1}}
    estimate: (C.plus - C.clean)*theta + 0*C.minus*theta
    update: {{request: 0*G, every: tau_theta}}
"""
SAMPLES = np.linspace(-1, 1, 16).reshape(4, 4), np.zeros((4, 2))


def noisy(folder, target, *, neuron_noise="randn()", measurement="randn()", **parameters) -> Session:
    path = folder / "noisy.yaml"
    path.write_text(NOISY.format(neuron_noise=neuron_noise, measurement=measurement))
    session = Session(load(path, **parameters), target=target, members=3, seed=4)
    session.present(*SAMPLES)
    return session


def changes(session: Session, iterations: int) -> dict[str, np.ndarray]:
    """Costs of the three passes, (iteration, member, sample)."""
    found = {name: [] for name in ("clean", "plus", "minus")}
    for _ in range(iterations):
        session.step()
        for name, costs in found.items():
            costs.append(session.view(f"wp.C.{name}").copy())
    return {name: np.array(costs) for name, costs in found.items()}


@pytest.mark.parametrize("target", ["cpp", "numpy"])
def test_without_perturbation_nothing_changes(tmp_path, target):
    """delta = 0: to the last bit, although pixels, synapses and neurons are noisy and new in every period."""
    costs = changes(noisy(tmp_path, target), 50)
    np.testing.assert_array_equal(costs["plus"], costs["clean"])
    np.testing.assert_array_equal(costs["minus"], costs["clean"])
    flat = costs["clean"].reshape(50, -1)
    assert (np.diff(flat, axis=0) != 0).all(), "noise is the same in two periods"
    assert len(np.unique(flat[0])) == flat.shape[1], "noise is the same for two samples or members"


@pytest.mark.parametrize("target", ["cpp", "numpy"])
def test_measurement_noise_differs_between_passes(tmp_path, target):
    """delta = 0: the change of the cost has the mean 0 and the variance 2 sigma**2."""
    n = {"cpp": 4000, "numpy": 400}[target]
    costs = changes(noisy(tmp_path, target, sigma=0.05), n)
    for one, other in (("plus", "clean"), ("minus", "clean"), ("plus", "minus")):
        change = costs[one] - costs[other]
        spread = np.sqrt(2 / change.size)  # of the relative variance
        assert abs(change.mean()) < 4 * 0.05 * np.sqrt(2 / change.size)
        assert change.var() == pytest.approx(2 * 0.05**2, rel=4 * spread)
    # independent of each other, of the sample, and of the period
    a, b = costs["plus"] - costs["clean"], costs["minus"] - costs["clean"]
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(0.5, abs=4 / np.sqrt(a.size))  # both share clean
    assert abs(np.corrcoef(a[1:].ravel(), a[:-1].ravel())[0, 1]) < 4 / np.sqrt(a.size)
    assert abs(np.corrcoef(a[:, :, 1:].ravel(), a[:, :, :-1].ravel())[0, 1]) < 4 / np.sqrt(a.size / 2)


def test_measurement_noise_does_not_touch_the_rest(tmp_path):
    """The same seed with and without it: the same pixels, synapses and neurons."""
    with_noise, without = (noisy(tmp_path, "numpy", sigma=s) for s in (0.05, 0.0))
    for session in (with_noise, without):
        session.step(3)
    np.testing.assert_array_equal(with_noise.view("output.x"), without.view("output.x"))
    assert (with_noise.view("wp.C.clean") != without.view("wp.C.clean")).all()


def test_both_can_be_said_otherwise(tmp_path):
    """`randn_period()` in a cost is common to the passes; `randn_pass()` in a neuron is not."""
    common = changes(noisy(tmp_path, "numpy", measurement="randn_period()", sigma=0.05), 20)
    np.testing.assert_array_equal(common["plus"], common["clean"])
    fresh = changes(noisy(tmp_path, "numpy", neuron_noise="randn_pass()"), 20)
    assert (fresh["plus"] != fresh["minus"]).all()


def test_noise_is_common_to_all_blocks(tmp_path):
    """With a perturbation too: the plus pass is the clean one with other parameters, noise and all."""
    session = noisy(tmp_path, "numpy", delta=0.1, device=0.0)
    session.step()
    # the last block perturbs the layer `output`: its neurons see the same hidden activity and noise of their own as before
    names = ["output.w", "output.theta_w", "output.spread", "output.b", "output.theta_b"]
    w, theta_w, spread, b, theta_b = (session.view(name) for name in names)
    hidden, clean = session.view("hidden.x"), session.view("output.x")

    def tanh(weights, bias):
        return np.tanh(np.einsum("moi,mbi->mbo", weights * spread, hidden) + bias[:, None])

    own_noise = clean - tanh(w, b)
    assert np.abs(own_noise).max() > 0.01
    cost = ((tanh(w + theta_w, b + theta_b) + own_noise) ** 2).mean(2)
    np.testing.assert_allclose(session.view("wp.C.plus")[:, :, 0], cost, rtol=1e-4)
