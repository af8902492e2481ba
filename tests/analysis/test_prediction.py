"""Predictions for circuits: what they read of a session against its own gradients, and what they say against a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mgdcircuits import Session, load
from mgdcircuits.analysis.moments import GAUSSIAN, UNIFORM, sparse_bernoulli
from mgdcircuits.analysis.prediction import node_layers, parameter_blocks, predict
from mgdcircuits.analysis.theory import Convergence, combined, weight_perturbation
from mgdcircuits.errors import RunError

ROOT = Path(__file__).parents[2]
SMALL_CONV = ROOT / "tests" / "netlists" / "valid" / "small_conv.yaml"
NODES = """
include: {base}
circuit: nodes
parameters: {{delta: 1e-6}}
clocks: {{tau_theta: 1000000000*iteration}}
learning:
  wp: none
  np:
    perturb: {{theta: delta*bernoulli(), every: tau_p, blocks: {blocks}}}
    passes: {{clean: 0, plus: 1}}
    estimate:
      w: (C.plus - C.clean)*theta_post*x_pre.clean/delta**2
      b: (C.plus - C.clean)*theta/delta**2
    update: {{request: -G, every: tau_theta}}
"""
WEIGHTS = (
    NODES.partition("    perturb")[0]
    + """
    perturb: {{theta_w: delta*bernoulli(), theta_b: delta*bernoulli(), every: tau_p, blocks: {blocks}}}
    passes: {{clean: 0, plus: 1}}
    estimate: (C.plus - C.clean)*theta/delta**2
    update: {{request: -G, every: tau_theta}}
"""
)
WEIGHTS_AND_NODES = (
    NODES.partition("    perturb")[0]
    + """
    perturb: {{conv.theta_w: delta*bernoulli(), conv.theta_b: delta*bernoulli(), logits.theta: delta*bernoulli(),
               every: tau_p, blocks: {blocks}}}
    passes: {{clean: 0, plus: 1}}
    estimate:
      w: (C.plus - C.clean)*theta/delta**2
      b: (C.plus - C.clean)*theta/delta**2
      logits.w: (C.plus - C.clean)*theta_post*x_pre.clean/delta**2
    update: {{request: -G, every: tau_theta}}
"""
)
RNG = np.random.default_rng(7)
X, Y = RNG.random((3, 1, 4, 4)), np.array([0, 1, 3])


def circuit(folder: Path, text: str, blocks: str = "layer", **overrides):
    path = folder / "net.yaml"
    path.write_text(text.format(base=SMALL_CONV, blocks=blocks))
    return load(path, **overrides)


def presented(made, members: int = 1) -> Session:
    session = Session(made, batch=len(X), members=members, seed=5, target="numpy", dtype="float64")
    for values in session.parameters.values() if members > 1 else ():
        values[...] = values[0]
    session.present(X, Y)
    return session


def measured(session: Session, exact: np.ndarray, names: list[str], n: int, windows: int) -> tuple[float, float]:
    """Noise of one draw across and along the gradient, from sums over windows of n draws of all members."""
    before, across, along = 0.0, [], []
    for k in range(windows):
        session.step(n)
        found = session.gradient_estimate()
        total = np.concatenate([found[name].reshape(session.members, -1) for name in names], axis=1) * n * (k + 1)
        window, before = (total - before) / n, total
        towards = window @ exact / np.linalg.norm(exact)
        across.append((window**2).sum(1) - towards**2)
        along.append((towards - np.linalg.norm(exact)) ** 2)
    return tuple(n * float(np.mean(values)) / (exact @ exact) for values in (across, along))


@pytest.mark.parametrize(
    ("text", "blocks"),
    [(WEIGHTS, "layer"), (WEIGHTS, "all"), (NODES, "layer"), (NODES, "all"), (WEIGHTS_AND_NODES, "layer")],
    ids=["weights by layer", "weights", "nodes by layer", "nodes", "weights of one layer, nodes of another"],
)
def test_what_a_running_circuit_does(tmp_path, text, blocks):
    made = circuit(tmp_path, text, blocks)
    one = presented(made)
    exact = one.exact_gradient()
    prediction = predict(one)
    many = presented(made, members=300)
    for name in one.parameters:
        np.testing.assert_array_equal(many.parameters[name][-1], one.parameters[name])
    names = list(exact)
    across, along = measured(many, np.concatenate([exact[n].ravel() for n in names]), names, n=10, windows=40)
    assert prediction.network.across == pytest.approx(across, rel=0.04)
    assert prediction.network.along == pytest.approx(along, rel=0.08)
    assert list(prediction.blocks) == (["conv", "logits"] if blocks == "layer" else ["conv+logits"])


def test_blocks_of_weights_follow_the_exact_gradient(tmp_path):
    session = presented(circuit(tmp_path, WEIGHTS))
    exact = session.exact_gradient()
    prediction = predict(session)
    for name in ("conv", "logits"):
        block = np.concatenate([exact[f"{name}.w"].ravel(), exact[f"{name}.b"]])
        assert prediction.blocks[name] == weight_perturbation(block)
    assert prediction.network == combined(prediction.blocks.values())


def assert_same_gradients(session: Session) -> None:
    """Slopes of nodes times inputs of parameters are the exact gradients per sample."""
    exact = session.exact_gradient(per_sample=True)
    for name, layers in node_layers(session).items():
        (layer,) = layers
        made = np.einsum("bop,bpf->bof", layer.slopes, layer.inputs)
        weights = exact[f"{name}.w"].reshape(*made.shape[:2], -1)
        np.testing.assert_allclose(made[..., :-1], weights, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(made[..., -1], exact[f"{name}.b"], rtol=1e-9, atol=1e-12)


def test_node_slopes_of_a_convolution(tmp_path):
    assert_same_gradients(presented(circuit(tmp_path, NODES, channels=3)))


def test_node_slopes_where_biases_are_subtracted():
    session = Session(load(ROOT / "netlists" / "xor_np.yaml"), batch=4, seed=1, target="numpy", dtype="float64")
    session.present(np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]), np.array([[0], [1], [1], [0.0]]))
    exact = session.exact_gradient(per_sample=True)
    (layers,) = node_layers(session).values()  # one block of both populations
    for layer, name in zip(layers, ("hidden_layer", "output"), strict=True):
        made = np.einsum("bop,bpf->bof", layer.slopes, layer.inputs)
        np.testing.assert_allclose(made[..., :-1], exact[f"{name}.w"], atol=1e-12)
        np.testing.assert_allclose(made[..., -1], exact[f"{name}.b"], atol=1e-12)


def test_node_slopes_of_a_sparse_coupling():
    """Each neuron is a layer of one node, whose inputs are its own partners."""
    folder = ROOT / "experiments" / "architectures"
    made = load(f"include: [{folder / 'sparse.yaml'}, {folder / 'node.yaml'}]\ncircuit: few\n", h=5, fan_in=3)
    session = Session(made, batch=4, seed=1, target="numpy", dtype="float64")
    session.present(np.random.default_rng(0).random((4, 64)), np.arange(4))
    exact = session.exact_gradient(per_sample=True)
    (layers,) = node_layers(session).values()
    gradients = [np.einsum("bop,bpf->bof", layer.slopes, layer.inputs)[:, 0] for layer in layers[:5]]
    np.testing.assert_allclose(np.concatenate([g[:, :3] for g in gradients], 1), exact["hidden.w"], atol=1e-12)
    np.testing.assert_allclose(np.stack([g[:, 3] for g in gradients], 1), exact["hidden.b"], atol=1e-12)
    assert len(layers) == 5 + 1  # the dense output is one layer


def test_each_layer_is_predicted_by_its_own_rule(tmp_path):
    weights, nodes, both = (
        predict(presented(circuit(tmp_path, text))).blocks for text in (WEIGHTS, NODES, WEIGHTS_AND_NODES)
    )
    assert both == {"conv": weights["conv"], "logits": nodes["logits"]}
    assert weights["conv"] != nodes["conv"] and weights["logits"] != nodes["logits"]


def test_weights_and_nodes_of_one_block(tmp_path):
    with pytest.raises(RunError, match="weights and nodes of conv\\+logits at once; expected one of them, or blocks"):
        predict(presented(circuit(tmp_path, WEIGHTS_AND_NODES, "all")))


def test_weights_have_no_slopes_of_nodes(tmp_path):
    with pytest.raises(RunError, match="np perturbs no nodes"):
        node_layers(presented(circuit(tmp_path, WEIGHTS)))


def test_only_one_member(tmp_path):
    with pytest.raises(RunError, match="a prediction is of one member; the session has 2"):
        predict(presented(circuit(tmp_path, WEIGHTS), members=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("weights: {{replace: {{I_post: sinh(w + theta_w)*x_pre}}}}", r"predicted for couplings weight\*x_pre"),
        ("tanh: {{replace: {{x: tanh(I + b + theta_b + 0.1*theta)}}}}", "do not enter an equation side by side"),
        ("tanh: {{replace: {{x: tanh(I + b + theta_b) + theta}}}}", "do not enter an equation side by side"),
    ],
)
def test_what_node_perturbation_does_not_cover(tmp_path, change, message):
    session = presented(circuit(tmp_path, f"{NODES}kinds: {{{{{change}}}}}\n"))
    with pytest.raises(RunError, match=message):
        predict(session)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("weights: {{replace: {{I_post: (2*w + theta_w)*x_pre}}}}", "side by side; the ratio of their slopes is 2"),
        ("weights: {{replace: {{I_post: w*(1 + theta_w)*x_pre}}}}", "side by side; the ratio of their slopes is"),
        ("weights: {{replace: {{I_post: (w - theta_w)*x_pre}}}}", "goes against the gradient"),
        ("tanh: {{replace: {{x: tanh(I + b + theta_b + 0.1*randn_pass())}}}}", r"conv.x is noisy \(randn\(\)"),
    ],
)
def test_what_weight_perturbation_does_not_cover(tmp_path, change, message):
    session = presented(circuit(tmp_path, f"{WEIGHTS}kinds: {{{{{change}}}}}\n"))
    with pytest.raises(RunError, match=message):
        predict(session)


def test_noise_that_does_not_reach_the_cost_is_covered(tmp_path):
    """Of a read-out that nothing reads."""
    base = "      x = tanh(I + b + theta_b + theta) : 1\n"
    text = SMALL_CONV.read_text()
    assert base in text
    (tmp_path / "read_out.yaml").write_text(text.replace(base, base + "      m = x + randn() : 1\n"))
    own = WEIGHTS.replace("{base}", str(tmp_path / "read_out.yaml"))
    assert predict(presented(circuit(tmp_path, own))).network == predict(presented(circuit(tmp_path, WEIGHTS))).network


def test_a_parameter_of_two_equations_is_covered(tmp_path):
    """Where its perturbation stands beside it in both."""
    text = SMALL_CONV.read_text()
    once = "      I_post = (w + theta_w)*x_pre : 1 (summed)\n"
    text = text.replace(once, once + once.replace("I_post", "J_post"))
    text = text.replace("      I : 1\n", "      I : 1\n      J : 1\n").replace(
        "I + b + theta_b", "(I + J)/2 + b + theta_b"
    )
    (tmp_path / "twice.yaml").write_text(text)
    own = WEIGHTS.replace("{base}", str(tmp_path / "twice.yaml"))
    found, plain = (predict(presented(circuit(tmp_path, one))).network for one in (own, WEIGHTS))
    np.testing.assert_allclose([found.across, found.along], [plain.across, plain.along], rtol=1e-4)


def test_a_noisy_cost_is_not_covered(tmp_path):
    noisy = 'cost: {{C: "cross_entropy(x_logits, target) + 1e-3*randn()"}}\n'
    with pytest.raises(RunError, match=r"cost is noisy \(randn\(\) in its equation\)"):
        predict(presented(circuit(tmp_path, WEIGHTS + noisy)))


ONE = "(C.plus - C.clean)*theta/delta**2"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (ONE, "dC*theta/delta**2\n    signals: {{dC: C.plus - C.clean}}"),
        (ONE, "(C.plus - C.clean)*theta\n    accumulate: G + estimate"),
        (ONE, f"{ONE}\n    accumulate: G + estimate/10"),
        (
            "{{clean: 0, plus: 1}}\n    estimate: (C.plus - C.clean)",
            "{{plus: 1, minus: -1}}\n    estimate: (C.plus - C.minus)/2",
        ),
    ],
    ids=["signal", "sum", "scaled sum", "antithetic"],
)
def test_other_words_for_the_same_rule(tmp_path, old, new):
    assert old in WEIGHTS
    same = predict(presented(circuit(tmp_path, WEIGHTS.replace(old, new))))
    assert same == predict(presented(circuit(tmp_path, WEIGHTS)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (ONE, "sign(C.plus - C.clean)*theta/delta", "conv.w: the theory does not cover the estimate `sign"),
        (ONE, "(C.plus - C.clean)*abs(theta)/delta**2", "does not cover the estimate"),
        (ONE, "(C.plus - C.clean)**2*theta/delta**2", "does not cover the estimate"),
        (ONE, "C.plus*theta/delta**2", "does not cover the estimate"),
        (ONE, "(C.plus - Cm)*theta/delta**2\n    baseline: {{Cm: 0.9*Cm + 0.1*C.clean}}", "it reads `Cm`"),
        (ONE, "(C.clean - C.plus)*theta/delta**2", "goes against the gradient"),
        (ONE, f"{{{{w: {ONE}, b: 2*{ONE}}}}}", "not the gradient times one number: conv.w 1, conv.b 2"),
        (ONE, f"{ONE}\n    accumulate: 0.9*G + 0.1*estimate", "neither the mean nor the sum"),
        ("theta_b: delta", "theta_b: 3*delta", r"different sizes \(conv.theta_w 1e-06, conv.theta_b 3e-06\)"),
        ("theta_b: delta*bernoulli()", "theta_b: delta*gaussian()", "kurtosis 3; the law bernoulli has 0 and 1"),
        ("theta_b: delta*bernoulli()", "theta_b: delta*int(rand() < 0.5)", "of mean 0.71 times its root mean square"),
        ("theta_b: delta*bernoulli()", "theta_b: delta*walsh()", "is not random"),
        (
            "theta_b: delta*bernoulli()",
            "theta_b: delta*bernoulli()*int(n_p % 2)",
            "not independent: it reads `n_p.draw`",
        ),
        ("    perturb", "    plastic: [logits, conv.w]\n    perturb", "conv.theta_b: perturbed beside conv.w"),
        (
            "every: tau_theta}}\n",
            "every: tau_theta}}\nhardware: {{measurement: {{noise: 1e-3}}}}\n",
            "measured with noise",
        ),
    ],
)
def test_rules_that_the_theory_does_not_cover(tmp_path, old, new, message):
    assert old in WEIGHTS
    with pytest.raises(RunError, match=message):
        predict(presented(circuit(tmp_path, WEIGHTS.replace(old, new))))


def test_the_sign_of_an_estimate_of_nodes(tmp_path):
    """It is that of the way in which the parameter enters the neuron."""
    turned = NODES.replace("b: (C.plus - C.clean)*theta", "b: (C.clean - C.plus)*theta")
    with pytest.raises(RunError, match="the estimate of conv.b goes against the gradient"):
        predict(presented(circuit(tmp_path, turned)))


@pytest.mark.parametrize("law", [GAUSSIAN, UNIFORM, *map(sparse_bernoulli, (2, 5, 10, 100))], ids=lambda law: law.name)
def test_the_law_of_the_code(tmp_path, law):
    code = law.name if "(" in law.name else f"{law.name}()"
    session = presented(circuit(tmp_path, WEIGHTS.replace("bernoulli()", code)))
    exact = session.exact_gradient()
    block = np.concatenate([exact["conv.w"].ravel(), exact["conv.b"]])
    assert predict(session, law).blocks["conv"] == weight_perturbation(block, law)
    with pytest.raises(RunError, match="give predict"):
        predict(session)


def test_codes_of_each_sample(tmp_path):
    """They are predicted for nodes, and refused for weights."""
    base = SMALL_CONV.read_text()
    changed = base.replace("theta : 1 (perturbation)", "theta : 1 (perturbation, per sample)")
    for name in "wb":
        changed = changed.replace(f"(perturbation of {name})", f"(perturbation of {name}, per sample)")
    assert changed != base
    (tmp_path / "own.yaml").write_text(changed)
    made = [text.replace("{base}", str(tmp_path / "own.yaml")) for text in (NODES, WEIGHTS)]
    one = presented(circuit(tmp_path, made[0], "all"))
    exact = one.exact_gradient()
    many = presented(circuit(tmp_path, made[0], "all"), members=300)
    names = list(exact)
    across, along = measured(many, np.concatenate([exact[n].ravel() for n in names]), names, n=10, windows=40)
    assert predict(one).network.across == pytest.approx(across, rel=0.04)
    assert predict(one).network.along == pytest.approx(along, rel=0.08)
    with pytest.raises(RunError, match="codes of each sample"):
        predict(presented(circuit(tmp_path, made[1])))


def test_a_block_without_a_gradient(tmp_path):
    """Its estimate is 0, too; with no gradient at all there is no direction."""
    session = presented(circuit(tmp_path, WEIGHTS))
    session.parameters["logits.w"][...] = 0
    prediction = predict(session)
    assert prediction.blocks["conv"] == Convergence(0, 0, 0)
    assert prediction.network.across == prediction.blocks["logits"].across
    assert predict(presented(circuit(tmp_path, NODES))) is not None
    session = presented(circuit(tmp_path, NODES))
    session.parameters["logits.w"][...] = 0
    assert predict(session).blocks["conv"] == Convergence(0, 0, 0)


@pytest.mark.parametrize("text", [WEIGHTS, NODES])
def test_without_samples_there_is_no_prediction(tmp_path, text):
    with pytest.raises(RunError, match="nothing to show"):
        predict(Session(circuit(tmp_path, text), batch=3, target="numpy"))


def test_spikes_have_no_prediction():
    session = Session(load(ROOT / "netlists" / "lif_reward.yaml"), target="numpy", dtype="float64")
    with pytest.raises(RunError, match="has no exact gradient"):
        predict(session)


def test_an_evaluation_that_is_perturbed_as_a_whole_is_one_block(tmp_path):
    made = circuit(tmp_path, WEIGHTS, "all")
    assert parameter_blocks(made, made.spec.learning[0]) == {
        "conv+logits": ["conv.w", "conv.b", "logits.w", "logits.b"]
    }
