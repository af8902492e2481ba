"""Single statements of docs/netlist.md that no other test looks at, on both targets, against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.errors import BuildError

NET = """
circuit: net
parameters: {delta: 0.05, eta: 0.1}
clocks: {tau_p: 1*us}
kinds:
  neuron:
    equations: |
      x = tanh(I + b + theta_b) : 1
      I : 1
      b : 1 (plastic)
      theta_b : 1 (perturbation of b)
    initial: {b: rand() - 0.5}
  weights:
    equations: |
      I_post = (w + theta_w)*x_pre : 1 (summed)
      w : 1 (plastic)
      theta_w : 1 (perturbation of w)
    initial: {w: 2*rand() - 1}
chain:
  - input: {shape: 3, equations: "x : 1"}
  - hidden: {shape: 4, kind: neuron, via: weights}
  - output: {shape: 3, kind: neuron, via: weights}
task: {batch: 5, x_input: x, target: y}
cost: {C: "mean((x_output - target)**2)"}
learning:
  mgd:
    perturb: {theta_w: delta*bernoulli(), theta_b: delta*bernoulli(), every: tau_p}
    passes: {clean: 0, plus: 1}
    estimate: (C.plus - C.clean)*theta/delta**2
    update: {request: -eta*G, every: tau_theta}
"""
RNG = np.random.default_rng(0)
X, Y = RNG.uniform(-1, 1, (5, 3)).astype(np.float32), RNG.uniform(-1, 1, (5, 3)).astype(np.float32)


@pytest.fixture(params=["numpy", "cpp"])
def session_of(request, tmp_path):
    def make(*changes, **parameters):
        text = NET
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "net.yaml").write_text(text)
        circuit = mgd.load(tmp_path / "net.yaml", **parameters)
        session = mgd.Session(circuit, target=request.param, dtype="float64", seed=1)
        session.present(X, Y)
        return session

    return make


def test_slices_in_a_cost(session_of):
    text = "mean((x_output[1:3] - target)**2) + sum(x_hidden[:2]) - logsumexp(x_output[:2])"
    session = session_of(("mean((x_output - target)**2)", text))
    z, h = session.outputs(), session._look(lambda: session.view("hidden.x"))
    expected = ((z - Y)[:, 1:] ** 2).mean(1) + h[:, :2].sum(1) - np.log(np.exp(z[:, :2]).sum(1))
    np.testing.assert_allclose(session.cost(), expected, rtol=1e-12)
    gradient = session.exact_gradient()["hidden.b"]
    bias = session.parameters["hidden.b"]
    for k in range(4):
        costs = []
        for step in (1e-5, -2e-5):
            bias[k] += step
            costs.append(session.cost().mean())
        bias[k] += 1e-5
        np.testing.assert_allclose(gradient[k], (costs[0] - costs[1]) / 2e-5, rtol=1e-6)


def test_the_largest_of_three(session_of):
    session = session_of(("mean((x_output - target)**2)", "mean(max(x_output, target, 0.1)) + min(1, 2, 3)"))
    expected = np.maximum(np.maximum(session.outputs(), Y), 0.1).mean(1) + 1
    np.testing.assert_allclose(session.cost(), expected, rtol=1e-12)


def test_learning_without_a_perturbation(session_of):
    """Hebb's rule: the mean product of both sides over the batch."""
    session = session_of(
        ("perturb: {theta_w: delta*bernoulli(), theta_b: delta*bernoulli(), every: tau_p}", "plastic: all"),
        ("passes: {clean: 0, plus: 1}", "passes: {clean: 0}"),
        ("estimate: (C.plus - C.clean)*theta/delta**2", "estimate: {w: x_pre*x_post, b: x}"),
    )
    before = {name: value.copy() for name, value in session.parameters.items()}
    hidden, output = session._look(lambda: session.view("hidden.x")), session.outputs()
    session.step()
    assert session.evaluations == 5
    x = X.astype(float)
    for name, pre, post in (("hidden", x, hidden), ("output", hidden, output)):
        moved = {v: session.parameters[f"{name}.{v}"] - before[f"{name}.{v}"] for v in "wb"}
        np.testing.assert_allclose(moved["w"], -0.1 * post.T @ pre / 5, rtol=1e-10)
        np.testing.assert_allclose(moved["b"], -0.1 * post.mean(0), rtol=1e-10)


def test_time_in_an_equation_is_that_of_the_iteration(session_of):
    """Two evaluations of 1 us an iteration; both passes see the same time."""
    session = session_of(("x = tanh(I + b + theta_b) : 1", "x = tanh(I + b + theta_b)*cos(t/us) : 1"), delta=1e-30)
    w, b = (session.parameters[f"output.{v}"].copy() for v in "wb")
    for k in range(3):
        hidden = np.tanh(X @ session.parameters["hidden.w"].T + session.parameters["hidden.b"]) * np.cos(2 * k)
        np.testing.assert_allclose(session.outputs(), np.tanh(hidden @ w.T + b) * np.cos(2 * k), rtol=1e-6, atol=1e-9)
        session.step()
        np.testing.assert_array_equal(session.view("mgd.C.plus"), session.view("mgd.C.clean"))


def test_an_update_may_read_its_writes(session_of):
    session = session_of(("request: -eta*G", "request: -eta*G/(1 + writes)"))
    for k in range(3):
        before = {name: value.copy() for name, value in session.parameters.items()}
        session.step()
        for name, g in session.gradient_estimate().items():
            np.testing.assert_allclose(session.parameters[name] - before[name], -0.1 * g / (1 + k), rtol=1e-9)


@pytest.mark.parametrize(("noise", "same"), [("randn()", True), ("randn_pass()", False)])
def test_noise_of_a_population_that_nothing_perturbs(session_of, noise, same):
    """Common to the passes of an iteration, or new in each: also where no perturbation makes it be evaluated again."""
    session = session_of(
        ('input: {shape: 3, equations: "x : 1"}', f'input: {{shape: 3, equations: "s : 1\\nx = s + 0.1*{noise} : 1"}}'),
        ("x_input: x", "s_input: x"),
        ("every: tau_p}", "every: tau_p, blocks: layer}"),
        delta=1e-30,
    )
    session.step()
    difference = session.view("mgd.C.plus") - session.view("mgd.C.clean")
    assert (difference == 0).all() == same and (difference != 0).all() != same


def test_a_baseline_per_stimulus_needs_a_trial(session_of):
    with pytest.raises(BuildError, match="net.yaml:27: a baseline `per: stimulus` runs in circuits with trials so far"):
        session_of(("    estimate:", "    baseline: {m: m + (C.plus - m)/20, per: stimulus}\n    estimate:"))


def test_two_systems_have_an_unperturbed_evaluation_each(session_of):
    """The second one learns with the parameters that the first has left."""
    start = NET.index("  mgd:\n")
    second = NET[start:].replace("mgd:", "two:").replace("perturb: {", "plastic: output\n    perturb: {of: output, ")
    session = session_of(
        ("    perturb: {theta_w", "    plastic: hidden\n    perturb: {of: hidden, theta_w"),
        ("tau_theta}\n", "tau_theta}\n" + second),
    )
    session.step(3)
    assert session.clocks.evaluations == 4 and session.evaluations == 3 * 4 * 5
    assert session.hardware_seconds == pytest.approx(3 * 4 * 5e-6)
    assert session.clocks.iteration == pytest.approx(4e-6)


NAMES = [
    "s",
    "u",
    "m",
    "p",
    "f",
    "n",
    "V",
    "T",
    "block",
    "syn",
    "slot",
    "new",
    "double",
    "b0",
    "acc",
    "count",
    "k",
    "pre_",
]


def test_any_name_may_be_given_to_a_variable(session_of):
    """Also those that C++ or the generated loops use."""
    lines = "".join(f"      {name} : 1 (per device)\n" for name in NAMES)
    initial = ", ".join(f"{name}: 0.01*(i + {k})" for k, name in enumerate(NAMES))
    session = session_of(
        (
            "      x = tanh(I + b + theta_b) : 1\n",
            f"      x = tanh(I + b + theta_b + {' + '.join(NAMES)}) : 1\n{lines}",
        ),
        ("initial: {b: rand() - 0.5}", f"initial: {{b: rand() - 0.5, {initial}}}"),
        ("parameters: {delta: 0.05,", "parameters: {s_: 1, task: 0.5, topology: 2, delta: 0.05,"),
        ("x_input: x", "x_input: x*task*topology*s_"),
        ("request: -eta*G", 'equations: "wanted = -eta*G\\n      request = wanted*task*topology"'),
    )
    names = {"hidden": np.arange(4), "output": np.arange(3)}
    x = X
    for layer, i in names.items():
        shift = sum(0.01 * (i + k) for k in range(len(NAMES)))
        x = np.tanh(x @ session.parameters[f"{layer}.w"].T + session.parameters[f"{layer}.b"] + shift)
    np.testing.assert_allclose(session.outputs(), x, rtol=1e-6)
    session.step(3)
    assert session.exact_gradient()["hidden.w"].any()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("output: {shape: 3,", "output: {shape: 3, delay: 1*us,", "delay of a summed equation does not run yet"),
        (
            "      theta_w : 1",
            "      dq/dt = -q/us : 1\n      theta_w : 1",
            "hidden.q: a differential equation of a synapse",
        ),
    ],
)
def test_synapses_that_only_spiking_circuits_have(session_of, old, new, message):
    """They are refused, not left out."""
    with pytest.raises(BuildError, match=message):
        session_of((old, new), ("clocks: {tau_p: 1*us}", "clocks: {tau_p: 1*us, dt: 0.1*us}"))


@pytest.mark.parametrize("quantity", ["C", "M"])
def test_a_cost_or_measure_of_the_only_pass_needs_no_pass(quantity):
    """`C` is `C.plus` where there is one pass."""
    text = (Path(__file__).parents[1] / "netlists" / "xor_analog.yaml").read_text()
    text += '\nmeasure: {M: "2*mean_square(x_output, target)"}\n'
    learned = []
    for name in (f"{quantity}.plus", quantity):
        session = mgd.Session(mgd.load(text.replace("C.plus", name)), seed=3, data="xor", target="numpy")
        session.step(20)
        learned.append(np.concatenate([values.ravel() for values in session.parameters.values()]))
    np.testing.assert_array_equal(*learned)
