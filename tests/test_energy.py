"""Joules: of evaluations (pass by pass), perturbations and writes, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.errors import BuildError, RecordError, RunError

NET = """
circuit: net
parameters: {delta: 0.1, eta: 0.1}
clocks: {tau_p: 2*us}
kinds:
  neuron:
    equations: |
      V = volt*tanh((I*kohm + b + theta_b)/volt) : volt
      I : amp
      b : volt (plastic)
      theta_b : volt (perturbation of b)
    initial: {b: 0.1*volt*rand()}
    scale: {b: 1*volt}
  device:
    equations: |
      I_post = (g + theta_g)*V_pre : amp (summed)
      g : siemens (plastic)
      theta_g : siemens (perturbation of g)
    initial: {g: 1*mS*rand()}
    scale: {g: 1*mS}
chain:
  - input: {shape: 3, equations: "V : volt"}
  - hidden: {shape: 4, kind: neuron, via: device}
  - output: {shape: 2, kind: neuron, via: device}
task: {batch: 5, V_input: x*volt, target: y}
cost: {C: "mean((V_output/volt - target)**2)"}
learning:
  mgd:
    perturb: {theta_g: delta*scale*bernoulli(), theta_b: delta*scale*bernoulli(), every: tau_p, blocks: layer}
    passes: {clean: 0, plus: 1}
    estimate: (C.plus - C.clean)*theta/(delta*scale)**2
    update: {request: -eta*scale**2*G, every: tau_theta}
hardware:
  inference: {time: tau_p, energy: sum(g*V_pre**2)*tau_p + 2*uS*sum(V_output**2)*tau_p}
  perturbation: {through: volatile, energy: 3*pjoule}
  write: {energy: 5*njoule}
"""
RNG = np.random.default_rng(0)
DATA = RNG.uniform(-1, 1, (30, 3)).astype(np.float32), RNG.uniform(-1, 1, (30, 2)).astype(np.float32)
ELEMENTS, PERTURBED_PASSES = 12 + 4 + 8 + 2, 2


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_energy_by_hand(tmp_path, target):
    (tmp_path / "net.yaml").write_text(NET)
    passes = [{"variable": v, "passes": ["clean", "plus"]} for v in ("V_input", "V_hidden", "V_output")]
    run = mgd.train(
        mgd.load(tmp_path / "net.yaml"), DATA, iterations=4, evaluate_every=1, target=target, dtype="float64", members=2,
        seed=3, progress=False, record=["energy", "g_hidden", "g_output", *passes],
    )  # fmt: skip
    assert run["energy"].attrs["units"] == "joule" and (run["energy"].values[0] == 0).all()
    expected = np.zeros(2)
    for k in range(1, 5):
        for m in range(2):
            g1, g2 = (run[f"g_{layer}"].values[k - 1, m] for layer in ("hidden", "output"))  # before the update
            for name, blocks in (("clean", [()]), ("plus", [0, 1])):
                for block in blocks:
                    x, h, z = (run[f"V_{p}_{name}"].values[k, m][block] for p in ("input", "hidden", "output"))
                    joule = (g1.sum(0) * x**2).sum() + (g2.sum(0) * h**2).sum() + 2e-6 * (z**2).sum()
                    expected[m] += joule * 2e-6
        expected += ELEMENTS * 3e-12
        writes = (run["writes_mean"].values[k] * run["parameter_size"].values).sum(-1)
        np.testing.assert_allclose(run["energy"].values[k], expected + 5e-9 * writes, rtol=1e-9)
    assert (writes == 4 * ELEMENTS).all()


def test_energy_of_a_circuit_in_time(netlists):
    """A crossbar at rest in learning: the mean Joule heat over all steps of all evaluations, and no pulses."""
    circuit = mgd.load(netlists / "crossbar_rram.yaml", eta=0, delta=1e-9, sigma_C=0)
    spent = {}
    for target in ("numpy", "cpp"):
        run = mgd.train(
            circuit, iterations=20, evaluate_every=20, target=target, dtype="float64", seed=1, progress=False,
            record=["energy", "g_hidden"],
        )  # fmt: skip
        spent[target] = run["energy"].values[-1] - 20 * circuit.n_parameters * 1e-15
    assert spent["cpp"] == pytest.approx(spent["numpy"], rel=1e-9)
    session = mgd.Session(circuit, target="numpy", dtype="float64", seed=1, data=mgd.datasets.load("letters", shift=0))
    g, at_inputs = run["g_hidden"].values[0].sum(0), 0.0
    for _ in range(20):
        session.step()
        at_inputs += 2 * (g * session.view("pixel.V").ravel() ** 2).sum() * 100e-9
    assert 1.0 < spent["numpy"] / at_inputs < 1.3, "49 x 16 devices at the inputs take most, 16 x 4 the rest"


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("sum(g*V_pre**2)*tau_p", "sum(-g*V_pre**2)*tau_p", RunError, "took -.* J; expected none below 0"),
        ("sum(g*V_pre**2)*tau_p", "mean(g*V_pre**2)*tau_p", BuildError, "expected sum"),
        (NET[NET.index("hardware:") :], "", RecordError, "`hardware` says no energy"),
    ],
)
def test_what_is_not_counted(tmp_path, old, new, error, message):
    (tmp_path / "net.yaml").write_text(NET.replace(old, new))
    with pytest.raises(error, match=message):
        mgd.train(
            mgd.load(tmp_path / "net.yaml"), DATA, iterations=1, target="numpy", progress=False, record=["energy"]
        )
