"""Siemens and volts learn in one block with a dimensionless rate and amplitude, and no unit prefix matters.

The same circuit is written four times: in microsiemens and millivolts, in nanosiemens, in siemens with other words for
volts, and without any units. With the same seed all four draw the same codes, so their trajectories must be the same,
each parameter in its own unit. One iteration is also computed by plain numpy from the codes that the session has drawn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles.network import TANH, Dense, Layer, Network, Neuron, mean_square

import mgdcircuits as mgd

NETLIST = """
circuit: amplifiers
parameters: {V0: 300*mV, Rf: 20*kohm, delta: 0.02, eta: 0.05}
kinds:
  amplifier:
    equations: |
      V = V0*tanh((I*Rf + b + theta_b)/V0) : volt
      I : amp
      b : volt (plastic)
      theta_b : volt (perturbation of b)
    initial: {b: 50*mV*randn()}
    scale: {b: 300*mV}
  memristor:
    equations: |
      I_post = (g + theta_g)*V_pre : amp (summed)
      g : siemens (plastic)
      theta_g : siemens (perturbation of g)
    initial: {g: 50*uS*glorot_uniform()}
    scale: {g: 50*uS}
    on_write: g = clip(g + request, -60*uS, 60*uS)
chain:
  - input: {shape: 3, equations: "V : volt"}
  - hidden: {shape: 4, kind: amplifier, via: memristor}
  - output: {shape: 2, kind: amplifier, via: memristor}
task: {V_input: 300*mV*x, target: y}
cost: {C: mean((V_output/V0 - target)**2)}
learning:
  wp:
    perturb: {theta_g: delta*scale*bernoulli(), theta_b: delta*scale*bernoulli()}
    passes: {clean: 0, plus: 1}
    estimate: (C.plus - C.clean)*theta/(delta*scale)**2
    update: {request: -eta*scale**2*G}
"""
NANO = NETLIST.replace("50*uS", "50000*nS").replace("60*uS", "60000*nS")
OTHER_WORDS = (
    NETLIST.replace("50*uS", "5e-5*siemens")
    .replace("60*uS", "0.06*msiemens")
    .replace("300*mV", "0.3*volt")
    .replace("50*mV", "5e4*uvolt")
    .replace("20*kohm", "0.02*Mohm")
)
# g = 50 uS is a gain of one, and voltages are counted in units of V0
PLAIN = (
    NETLIST.replace("V0: 300*mV, Rf: 20*kohm", "V0: 1, Rf: 1")
    .replace("50*uS", "1")
    .replace("60*uS", "1.2")
    .replace("50*mV", "1/6")
    .replace("300*mV", "1")
    .replace("V_pre : amp", "V_pre : 1")
    .replace(": volt", ": 1")
    .replace(": amp\n", ": 1\n")
    .replace(": siemens", ": 1")
)
SIZES = {"b": 0.3, "g": 50e-6}
BATCH, V0, RF = 4, 0.3, 20e3

X = np.random.default_rng(2).uniform(-1, 1, (BATCH, 3)).astype(np.float32)
Y = np.random.default_rng(3).uniform(-0.6, 0.6, (BATCH, 2))


def session(folder: Path, text: str, target: str, dtype: str) -> mgd.Session:
    path = folder / "circuit.yaml"
    path.write_text(text)
    made = mgd.Session(mgd.load(path), batch=BATCH, seed=11, target=target, dtype=dtype)
    made.present(X, Y)
    return made


def snapshot(live: mgd.Session) -> dict[str, np.ndarray]:
    return {name: np.array(v, float) for name, v in live.parameters.items()}


def trajectory(live: mgd.Session, n: int = 20) -> list[dict[str, np.ndarray]]:
    """Parameters at the start and after each of n iterations."""
    states = [snapshot(live)]
    for _ in range(n):
        live.step()
        states.append(snapshot(live))
    return states


TARGETS = [("numpy", "float64"), ("cpp", "float32")]


@pytest.fixture(scope="module", params=TARGETS, ids="-".join)
def target(request):
    return request.param


@pytest.fixture(scope="module")
def reference(target, tmp_path_factory):
    live = session(tmp_path_factory.mktemp("units"), NETLIST, *target)
    return live, trajectory(live)


def test_the_trajectory_goes_somewhere(reference):
    _, states = reference
    for name, first in states[0].items():
        assert np.abs(states[-1][name] - first).max() > 1e-3 * SIZES[name[-1]], name


@pytest.mark.parametrize("text", [NANO, OTHER_WORDS], ids=["nanosiemens", "other words"])
def test_rewriting_a_unit_changes_nothing(target, reference, tmp_path, text):
    assert text != NETLIST
    for state, other in zip(reference[1], trajectory(session(tmp_path, text, *target)), strict=True):
        for name, value in state.items():
            np.testing.assert_allclose(other[name], value, rtol=0, atol=1e-6 * np.abs(value).max(), err_msg=name)


def test_units_are_but_factors(target, reference, tmp_path):
    """A twin without units learns the same, in units of each parameter's scale."""
    tolerance = 5e-5 if target[1] == "float32" else 1e-9  # biases are made of small differences of costs alone
    for state, twin in zip(reference[1], trajectory(session(tmp_path, PLAIN, *target)), strict=True):
        for name, value in state.items():
            atol = tolerance * np.abs(value).max()
            np.testing.assert_allclose(twin[name] * SIZES[name[-1]], value, rtol=0, atol=atol, err_msg=name)


def network() -> Network:
    amplifier = Neuron(lambda u: V0 * np.tanh(u / V0), lambda u: TANH.df(u / V0))

    class Crossbar(Dense):
        def forward(self, w, x, v):
            return RF * super().forward(w, x, v)

    def cost(z, t):
        value, slope = mean_square(z / V0, t)
        return value, slope / V0

    return Network([Layer(Crossbar(), amplifier, f"{n}.g", f"{n}.b") for n in ("hidden", "output")], cost)


def test_one_iteration_by_hand(target, tmp_path):
    live = session(tmp_path, NETLIST, *target)
    before = snapshot(live)
    live.step()
    theta = {name: np.array(live.view(name.replace(".", ".theta_")), float) for name in before}
    for name, code in theta.items():  # delta*scale*bernoulli()
        np.testing.assert_allclose(np.abs(code), 0.02 * SIZES[name[-1]], rtol=1e-6)
    x = V0 * X.astype(float)
    wobbled = {name: before[name] + theta[name] for name in before}
    change = (network().cost(wobbled, x, Y) - network().cost(before, x, Y)).mean()
    after = snapshot(live)
    for name, value in before.items():
        size = SIZES[name[-1]]
        request = -0.05 * size**2 * change * theta[name] / (0.02 * size) ** 2
        expected = np.clip(value + request, -60e-6, 60e-6) if name.endswith(".g") else value + request
        rounding = 1e-7 * size if target[1] == "float32" else 1e-15 * size
        off = np.abs(after[name] - expected).max()
        assert off <= 1e-5 * np.abs(request).max() + 5 * rounding, name
        if target[1] == "float64":
            assert off <= 1e-9 * np.abs(request).max(), name


def test_conductances_and_biases_learn_together(target, reference):
    live, _ = reference
    start = live.cost().mean()
    live.step(600)
    assert live.cost().mean() < 0.5 * start
    assert np.abs(live.parameters["hidden.g"]).max() <= 60e-6 * (1 + 1e-6)
