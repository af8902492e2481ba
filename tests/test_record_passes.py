"""Variables, costs and measures of each pass and block, as `record:` gives them, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.errors import RecordError

NET = """
circuit: net
parameters: {{delta: 0.05, eta: 0.1}}
clocks: {{tau_p: 1*us}}
kinds:
  neuron:
    equations: |
      x = tanh(I + b + theta_b + theta) : 1
      I : 1
      b : 1 (plastic)
      theta_b : 1 (perturbation of b)
      theta : 1 (perturbation)
    initial: {{b: rand() - 0.5}}
  weights:
    equations: |
      I_post = (w + theta_w)*x_pre : 1 (summed)
      w : 1 (plastic)
      theta_w : 1 (perturbation of w)
    initial: {{w: 2*rand() - 1}}
chain:
  - input: {{shape: 3, equations: "x : 1"}}
  - hidden: {{shape: 4, kind: neuron, via: weights}}
  - output: {{shape: 2, kind: neuron, via: weights}}
task: {{batch: 5, x_input: x, target: y}}
cost: {{C: "mean((x_output - target)**2)"}}
measure:
  size: sum(x_hidden**2)
  root: sqrt(C)*size
learning:
  mgd:
    perturb: {{{codes}, every: tau_p, blocks: {blocks}}}
    passes: {passes}
    estimate: {estimate}
    update: {{request: -eta*G, every: 1000*iteration}}
"""
WP = {
    "codes": "theta_w: delta*bernoulli(), theta_b: delta*gaussian()",
    "estimate": "(C.plus - C.clean)*theta/delta**2",
    "passes": "{clean: 0, plus: 1}",
}
NP = {
    "codes": "theta: delta*gaussian()",
    "estimate": "{w: (C.plus - C.clean)*theta_post*x_pre.clean/delta**2, b: (C.plus - C.clean)*theta/delta**2}",
    "passes": "{clean: 0, plus: 1}",
}
RNG = np.random.default_rng(0)
DATA = RNG.uniform(-1, 1, (30, 3)).astype(np.float32), RNG.uniform(-1, 1, (30, 2)).astype(np.float32)
TARGETS = ("numpy", "cpp")


def run_of(folder, record, target, blocks="layer", rule=WP, members=2, iterations=3):
    """Rows of iterations in which nothing is updated, so that the parameters are those of the first row."""
    path = folder / "net.yaml"
    path.write_text(NET.format(**rule, blocks=blocks))
    return mgd.train(
        mgd.load(path), DATA, iterations=iterations, evaluate_every=1, target=target, dtype="float64", members=members,
        seed=2, progress=False, record=record,
    )  # fmt: skip


def forward(run, x, k, m, perturbation=lambda name: 0.0):
    """Hidden and output values (sample, unit), with what `perturbation` adds to each variable."""
    for layer in ("hidden", "output"):
        w, b = (run[f"{v}_{layer}"].values[k, m] for v in "wb")
        w, b = w + perturbation(f"theta_w_{layer}"), b + perturbation(f"theta_b_{layer}")
        x = np.tanh(x @ w.T + b + perturbation(f"theta_{layer}"))
        yield x


PARAMETERS = ["w_hidden", "b_hidden", "w_output", "b_output"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("rule", "thetas"), [(WP, ("theta_w", "theta_b")), (NP, ("theta",))], ids=["WP", "NP"])
def test_every_pass_and_block(tmp_path, target, rule, thetas):
    words = [f"{v}_{layer}" for v in thetas for layer in ("hidden", "output")]
    passes = [{"variable": v, "passes": ["clean", "plus"]} for v in ("x_hidden", "x_output", "C")]
    seen = [{"variable": v, "passes": "plus"} for v in (*words, "size", "root")]
    run = run_of(tmp_path, [*PARAMETERS, "x_input", "target", *passes, *seen], target, rule=rule)
    assert list(run["x_hidden_plus_block"].values) == ["hidden", "output"]
    assert run["x_hidden_plus"].dims == (
        "iteration", "member", "x_hidden_plus_block", "x_hidden_plus_sample", "x_hidden_plus_unit",
    )  # fmt: skip
    for k in range(1, 4):
        for m in range(2):
            x = run["x_input"].values[k, m]
            clean = list(forward(run, x, k, m))
            np.testing.assert_allclose(run["x_hidden_clean"].values[k, m], clean[0], rtol=1e-7)
            np.testing.assert_allclose(run["x_output_clean"].values[k, m], clean[1], rtol=1e-6)
            for block, name in enumerate(("hidden", "output")):
                applied = {w: run[f"{w}_plus"].values[k, m, block] for w in words}
                assert all(np.any(a) == w.endswith(name) for w, a in applied.items()), "one block at a time"
                hidden, output = forward(run, x, k, m, lambda n, a=applied: a.get(n, 0.0))
                np.testing.assert_allclose(run["x_hidden_plus"].values[k, m, block], hidden, rtol=1e-6)
                np.testing.assert_allclose(run["x_output_plus"].values[k, m, block], output, rtol=1e-5)
                cost = ((output - run["target"].values[k, m]) ** 2).mean(-1)
                size = (hidden**2).sum(-1)
                np.testing.assert_allclose(run["C_plus"].values[k, m, block], cost, rtol=1e-6)
                np.testing.assert_allclose(run["size_plus"].values[k, m, block], size, rtol=1e-6)
                np.testing.assert_allclose(run["root_plus"].values[k, m, block], np.sqrt(cost) * size, rtol=1e-6)
    assert np.isnan(run["x_hidden_plus"].values[0]).all(), "nothing was evaluated before the first iteration"


@pytest.mark.parametrize("target", TARGETS)
def test_antithetic_passes_and_the_last_one(tmp_path, target):
    """Without an unperturbed pass a variable has the value of the last one, where no pass is asked for."""
    rule = WP | {"passes": "{plus: 1, minus: -1}", "estimate": "(C.plus - C.minus)*theta/(2*delta**2)"}
    record = [
        *PARAMETERS, "x_input", "x_output", {"variable": "x_output", "passes": ["plus", "minus"]},
        {"variable": "theta_w_output", "passes": ["plus", "minus"]}, "theta_w_hidden", "theta_b_hidden", "theta_b_output",
    ]  # fmt: skip
    run = run_of(tmp_path, record, target, blocks="all", rule=rule)
    assert "x_output_plus_block" not in run.dims, "one block needs no axis"
    np.testing.assert_array_equal(run["x_output"], run["x_output_minus"])
    np.testing.assert_array_equal(run["theta_w_output_plus"], -run["theta_w_output_minus"])
    for m in range(2):
        for sign, name in ((1, "x_output_plus"), (-1, "x_output_minus")):

            def perturbation(n, m=m, sign=sign):
                found = f"{n}_plus" if f"{n}_plus" in run else n
                return sign * run[found].values[2, m] if found in run else 0.0

            *_, output = forward(run, run["x_input"].values[2, m], 2, m, perturbation)
            np.testing.assert_allclose(run[name].values[2, m], output, rtol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_every_evaluation(tmp_path, target):
    """`every: tau_p` is every evaluation: all passes of every iteration, whatever the rows."""
    entries = [{"variable": "x_output", "every": "tau_p"}, {"variable": "x_output", "passes": ["plus"]}]
    run = run_of(tmp_path, entries[:1], target, iterations=4)
    other = run_of(tmp_path, entries[1:], target, iterations=4)
    assert run["x_output_plus"].dims[0] == "x_output_plus_iteration" and run.sizes["x_output_plus_iteration"] == 5
    np.testing.assert_array_equal(run["x_output_plus"], other["x_output_plus"])
    assert run["x_output_clean"].dims[0] == "x_output_clean_iteration"


@pytest.mark.parametrize("target", TARGETS)
def test_recording_passes_does_not_change_the_run(tmp_path, target):
    many = [{"variable": "x_hidden", "every": "tau_p"}, {"variable": "C", "passes": ["plus"]}, "size", *PARAMETERS]
    plain, recorded = run_of(tmp_path, PARAMETERS, target), run_of(tmp_path, many, target)
    for name in PARAMETERS:
        np.testing.assert_array_equal(plain[name], recorded[name])


@pytest.mark.parametrize("target", TARGETS)
def test_a_rule_may_read_a_measure(tmp_path, target):
    """The cost plus a measure, written into the estimate, is what the same cost would be."""
    rule = WP | {"estimate": "(C.plus + 0.1*size.plus - C.clean - 0.1*size.clean)*theta/delta**2"}
    one = run_of(tmp_path, ["G"], target, rule=rule)
    text = NET.replace("target)**2)", "target)**2) + 0.1*sum(x_hidden**2)")
    (tmp_path / "other.yaml").write_text(text.format(**WP, blocks="layer"))
    other = mgd.train(
        mgd.load(tmp_path / "other.yaml"), DATA, iterations=3, evaluate_every=1, target=target, dtype="float64",
        members=2, seed=2, progress=False, record=["G"],
    )  # fmt: skip
    np.testing.assert_allclose(one["G_w_hidden"], other["G_w_hidden"], rtol=1e-9)
    assert one["G_w_hidden"].values[-1].any()


@pytest.mark.parametrize("target", TARGETS)
def test_passes_of_a_circuit_with_dynamics(netlists, target):
    """States and voltages at the end of a pass: those that the next pass begins with."""
    record = [{"variable": v, "passes": "plus"} for v in ("U_hidden", "V_output", "theta_g_hidden", "C")]
    run = mgd.train(
        mgd.load(netlists / "analog_rc.yaml"), iterations=4, evaluate_every=1, target=target, seed=1, progress=False,
        record=[*record, "U_hidden", "theta_g_hidden", "C"],
    )  # fmt: skip
    np.testing.assert_array_equal(run["U_hidden_plus"].values[1:], run["U_hidden"].values[1:])
    np.testing.assert_array_equal(run["theta_g_hidden_plus"].values[1:], run["theta_g_hidden"].values[1:])
    assert run["V_output_plus"].attrs["units"] == "volt" and np.isfinite(run["V_output_plus"].values[1:]).all()
    np.testing.assert_allclose(run["C_plus"].values[1:], run["cost"].values[1:])


def test_a_pass_that_is_not_there(tmp_path):
    with pytest.raises(RecordError, match="no values of hidden.x in the pass minus"):
        run_of(tmp_path, [{"variable": "x_hidden", "passes": "minus"}], "numpy")
