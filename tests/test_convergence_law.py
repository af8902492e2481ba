"""The law of gradient convergence (Oripov et al. 2025, Theorem 1 and Corollary 1.1, with the corrections for small K).

For independent codes of +-delta, n of them, the sum of dC*theta/delta**2 over n has the expectation n times the gradient;
its mean square is (1 + (K - 1)/n) of the gradient's; and tan(angle)**2 = K_eff/n. The replicates are members that start
from the same parameters, see the same pinned samples, and never update.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mgdcircuits import Session, load

NETLISTS = Path(__file__).parent.parent / "netlists"
VALID = Path(__file__).parent / "netlists" / "valid"

WEIGHT_PERTURBATION = """
include: {base}
circuit: law
parameters: {{delta: 1e-6}}
clocks: {{tau_theta: 1000000000*iteration}}
learning:
  {old}: none
  law:
    perturb: {{theta_w: delta*{code}, theta_b: delta*{code}, every: tau_p, blocks: {blocks}}}
    passes: {{clean: 0, plus: 1}}
    estimate: (C.plus - C.clean)*theta/delta**2
    accumulate: G + estimate
    update: {{request: -G, every: tau_theta, clear: false}}
"""

NODE_PERTURBATION = """
include: {base}
circuit: law
parameters: {{delta: 1e-6}}
clocks: {{tau_theta: 1000000000*iteration}}
learning:
  {old}: none
  law:
    perturb: {{theta: delta*{code}, every: tau_p, blocks: {blocks}}}
    passes: {{clean: 0, plus: 1}}
    estimate:
      w: (C.plus - C.clean)*theta_post*x_pre.clean/delta**2
      b: {bias}(C.plus - C.clean)*theta/delta**2
    accumulate: G + estimate
    update: {{request: -G, every: tau_theta, clear: false}}
"""


@dataclass
class Net:
    """A circuit to test, and the samples that it sees."""

    base: Path
    old: str
    x: np.ndarray
    y: np.ndarray
    layers: list[list[str]]
    bias: str = ""  # "-" where the neurons subtract their biases


RNG = np.random.default_rng(5)
NETS = {
    "xor": Net(  # K = 9, layers of 6 and 3
        NETLISTS / "xor.yaml",
        "mgd",
        np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]),
        np.array([[0], [1], [1], [0.0]]),
        [["hidden_layer.w", "hidden_layer.b"], ["output.w", "output.b"]],
        "-",
    ),
    "small_conv": Net(  # K = 30, layers of 10 and 20
        VALID / "small_conv.yaml",
        "wp",
        RNG.random((3, 1, 4, 4)),
        np.array([0, 1, 3]),
        [["conv.w", "conv.b"], ["logits.w", "logits.b"]],
    ),
}


class Replicates:
    """Sums of estimates, as rows of one vector a member, and the exact gradient at the common parameters."""

    def __init__(self, folder: Path, net: Net, text: str, target: str, members: int, blocks="all", code="bernoulli()"):
        path = folder / "law.yaml"
        path.write_text(text.format(base=net.base, old=net.old, blocks=blocks, code=code, bias=net.bias))
        circuit = load(path)
        options = {"batch": len(net.x), "dtype": "float64", "seed": 100}
        self.names = [name for layer in net.layers for name in layer]
        self.session = Session(circuit, members=members, target=target, **options)
        for value in self.session.parameters.values():
            value[...] = value[0]
        self.session.present(net.x, net.y)
        one = Session(circuit, target="numpy", **options)  # the gradient of one member, without compiling
        one.present(net.x, net.y)
        for name, value in one.parameters.items():
            np.testing.assert_array_equal(value, self.session.parameters[name][0])
        gradient = one.exact_gradient()
        self.gradient = np.concatenate([gradient[name].ravel() for name in self.names])
        sizes = [sum(gradient[name].size for name in layer) for layer in net.layers]
        self.layers = np.split(np.arange(self.gradient.size), np.cumsum(sizes)[:-1])

    def sums(self) -> np.ndarray:
        """Sum of all estimates so far, (member, K)."""
        found = self.session.gradient_estimate()
        return np.concatenate([found[name].reshape(len(found[name]), -1) for name in self.names], axis=1)

    def windows(self, n: int, count: int) -> np.ndarray:
        """Means over `count` windows of n estimates, (count*members, K)."""
        found, before = [], self.sums()
        for _ in range(count):
            self.session.step(n)
            after = self.sums()
            found.append((after - before) / n)
            before = after
        return np.concatenate(found)


def tan_squared(estimates: np.ndarray, gradient: np.ndarray) -> float:
    """Mean of the squared tangent of the angle to the gradient."""
    along = estimates @ gradient / np.linalg.norm(gradient)
    return float((((estimates**2).sum(1) - along**2) / along**2).mean())


def effective_k(gradient: np.ndarray, blocks: list[np.ndarray]) -> float:
    """K_eff of weight perturbation with codes of +-1, exact for small K (mgd.md section 3)."""
    total = (gradient**2).sum()
    k_eff = 0.0
    for block in blocks:
        part = gradient[block]
        share = (part**2).sum() / total
        k_eff += share * (len(part) - 1) - share**2 * (2 - 2 * ((part**2 / (part**2).sum()) ** 2).sum())
    return k_eff


def assert_unbiased(estimates: np.ndarray, gradient: np.ndarray) -> None:
    """The mean lies within 4 standard errors of the gradient, which are small."""
    error = estimates.std(0, ddof=1) / np.sqrt(len(estimates))
    assert np.linalg.norm(error) < 0.05 * np.linalg.norm(gradient), "too few replicates to tell"
    worst = np.abs((estimates.mean(0) - gradient) / error).max()
    assert worst < 4, f"{worst:.2f} standard errors"


@pytest.fixture(scope="module", params=[(n, b) for n in NETS for b in ("all", "layer")], ids="-".join)
def replicates(request, tmp_path_factory) -> Replicates:
    net, blocks = request.param
    folder = tmp_path_factory.mktemp("law")
    made = Replicates(folder, NETS[net], WEIGHT_PERTURBATION, "cpp", 400, blocks)
    made.blocks = made.layers if blocks == "layer" else [np.arange(made.gradient.size)]
    made.long = made.windows(1000, 30 if net == "xor" else 6)  # 12,000 or 2,400 replicates: the angle to 1 %
    return made


def test_the_law_of_a_whole_block_is_the_short_one():
    """K - 3 + 2 sum g**4 for one block: 6.5 of 9 where all slopes are about equal."""
    gradient = np.array([1.0, -2, 3, 0.5, 0, 1, 1, -1, 2])
    unit = gradient / np.linalg.norm(gradient)
    assert effective_k(gradient, [np.arange(9)]) == pytest.approx(9 - 3 + 2 * (unit**4).sum())
    assert effective_k(np.ones(9), [np.arange(9)]) == pytest.approx(6 + 2 / 9)


def test_mean_of_the_estimate_is_the_gradient(replicates):
    assert_unbiased(replicates.long, replicates.gradient)


def test_angle(replicates):
    expected = effective_k(replicates.gradient, replicates.blocks) / 1000
    assert tan_squared(replicates.long, replicates.gradient) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("n", "count"), [(1, 200), (10, 100), (1000, 0)])
def test_mean_square_of_the_estimate(replicates, n, count):
    estimates = replicates.windows(n, count) if count else replicates.long
    for block in replicates.blocks:
        size = (replicates.gradient[block] ** 2).sum()
        expected = (1 + (len(block) - 1) / n) * size
        assert (estimates[:, block] ** 2).sum(1).mean() == pytest.approx(expected, rel=0.03)


def test_gaussian_codes(tmp_path):
    """K - 1 for the angle and K + 1 for the norm."""
    net = Replicates(tmp_path, NETS["small_conv"], WEIGHT_PERTURBATION, "numpy", 2000, "all", "gaussian()")
    single = net.windows(1, 100)
    size, k = (net.gradient**2).sum(), net.gradient.size
    assert_unbiased(single, net.gradient)
    assert (single**2).sum(1).mean() == pytest.approx((1 + k + 1) * size, rel=0.03)
    along = single @ net.gradient / np.sqrt(size)
    across = (single**2).sum(1) - along**2
    assert across.mean() == pytest.approx((k - 1) * size, rel=0.03)


@pytest.mark.parametrize(("code", "cycle"), [("sequential()", 30), ("walsh()", 32), ("walsh_alternating()", 32)])
def test_codes_that_cycle_give_the_gradient_without_error(tmp_path, code, cycle):
    """One cycle of finite differences, or of an orthogonal code, is the gradient itself (up to the size of delta)."""
    net = Replicates(tmp_path, NETS["small_conv"], WEIGHT_PERTURBATION, "numpy", 2, "all", code)
    found = net.windows(cycle, 2) * (cycle if code == "sequential()" else 1)
    error = np.linalg.norm(found - net.gradient, axis=1) / np.linalg.norm(net.gradient)
    assert error.max() < 1e-4


@pytest.mark.parametrize("blocks", ["all", "layer"])
@pytest.mark.parametrize("name", NETS)
def test_node_perturbation_is_unbiased(tmp_path, name, blocks):
    """Also where a weight is shared between places, and one code serves the whole batch."""
    net = Replicates(tmp_path, NETS[name], NODE_PERTURBATION, "numpy", 400, blocks)
    assert_unbiased(net.windows(10, 20), net.gradient)
