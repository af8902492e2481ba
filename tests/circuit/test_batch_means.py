"""An estimate of a batch is the mean of the estimates of its samples, whatever is averaged beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.circuit.program import Couple, Into, Read, steps
from mgdcircuits.netlist.spec import Sharing

NETLISTS = Path(__file__).parent.parent.parent / "netlists"
TEXT = """
include: {netlist}
circuit: batch_means
clocks: {{tau_theta: 1000*iteration}}
learning:
  node: {{estimate: {{w: "{estimate}"}}}}
"""
CHANGE = "(C.plus - C.clean)"
BEFOREHAND = [
    f"{CHANGE}*theta_post*x_pre.clean/delta**2",
    f"{CHANGE}*theta_post*(x_pre.clean + tanh(x_pre.plus))",
    f"{CHANGE}*x_post.clean*theta_post",
    "C.plus*theta_post*x_pre.plus - C.clean*(w + theta_post)/(2 + C.plus)",
]
AS_THEY_STAND = [
    f"{CHANGE}*theta_post*x_pre.clean*x_post.clean",
    f"exp(theta_post*{CHANGE})*x_pre.clean",
]


def circuit(estimate: str) -> mgd.Circuit:
    return mgd.load(TEXT.format(netlist=NETLISTS / "xor_np.yaml", estimate=estimate))


def estimates(made: mgd.Circuit, x: np.ndarray, y: np.ndarray, target: str, seed=3) -> dict[str, np.ndarray]:
    """After two iterations with the same samples."""
    session = mgd.Session(made, batch=len(x), seed=seed, target=target, dtype="float64")
    session.present(x, y)
    session.step(2)
    return {name: np.array(values) for name, values in session.gradient_estimate().items()}


def reads_samples(made: mgd.Circuit) -> bool:
    """Whether the loop over synapses reads anything that samples differ in."""
    program = mgd.Session(made, batch=2, target="numpy").program
    loops = [
        s.kernel for s in steps(program.iteration) if isinstance(s.kernel, Couple) and s.kernel.into is Into.PARAMETER
    ]
    assert loops
    reads = [o.array.sharing for kernel in loops for o in kernel.operands.values() if isinstance(o, Read)]
    return Sharing.REPLICA in reads


CASES = [(text, "numpy", 4) for text in [*BEFOREHAND, *AS_THEY_STAND]]
CASES += [
    (text, "cpp", 20) for text in (BEFOREHAND[0], BEFOREHAND[3], AS_THEY_STAND[0])
]  # more than a vector has lanes


@pytest.mark.parametrize(("estimate", "target", "batch"), CASES)
def test_estimate_of_a_batch(estimate, target, batch):
    """Samples one by one, with the same codes, are the oracle: nothing is averaged there."""
    made = circuit(estimate)
    random = np.random.default_rng(1)
    x, y = random.uniform(-1, 1, (batch, 2)), random.integers(2, size=batch)
    found = estimates(made, x, y, target)
    each = [estimates(made, x[k : k + 1], y[k : k + 1], "numpy") for k in range(batch)]
    for name, values in found.items():
        expected = np.mean([one[name] for one in each], axis=0)
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_members():
    """Each has means of its own."""
    made = circuit(BEFOREHAND[0])
    random = np.random.default_rng(1)
    x, y = random.uniform(-1, 1, (20, 2)), random.integers(2, size=20)
    together = estimates(made, x, y, "cpp", seed=[3, 4])
    for member, seed in enumerate((3, 4)):
        for name, values in estimates(made, x, y, "numpy", seed=seed).items():
            np.testing.assert_allclose(together[name][member], values, rtol=1e-9, atol=1e-9 * np.abs(values).max())


@pytest.mark.parametrize("estimate", BEFOREHAND)
def test_loops_over_synapses_without_samples(estimate):
    assert not reads_samples(circuit(estimate))


@pytest.mark.parametrize("estimate", AS_THEY_STAND)
def test_estimates_that_stay(estimate):
    assert reads_samples(circuit(estimate))


def test_a_convolution():
    """Shared parameters add over the places where they are used."""
    made = mgd.load(NETLISTS / "fashion_mnist_cnn_np.yaml", d=1, tau_theta="1000*iteration")
    random = np.random.default_rng(2)
    x, y = random.random((3, 28, 28)), random.integers(10, size=3)
    found = estimates(made, x, y, "numpy")
    each = [estimates(made, x[k : k + 1], y[k : k + 1], "numpy") for k in range(3)]
    for name, values in found.items():
        expected = np.mean([one[name] for one in each], axis=0)
        np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
