"""Outputs, costs and exact gradients against a network written in plain numpy (tests/oracles/network.py).

Norm-wise 1e-5 in float32, elementwise 1e-10 in float64; the gradient also against central differences of the cost.
The cases below cover every width, batch, number of members, precision and target, and every pair of them at least once;
MGDCIRCUITS_FULL_GRID=1 runs all combinations (an hour of compiling).
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
from oracles.compare import assert_close, decided_samples, members_of, set_parameters
from oracles.network import (
    BILINEAR,
    CLIP,
    LINEAR,
    TANH,
    Conv2d,
    Dense,
    Layer,
    MaxPool,
    MeanPool,
    Network,
    conv_edges,
    cross_entropy,
    dense_edges,
    mean_square,
    mlp,
    onehot,
    paper_cnn,
    pool_edges,
    sinh_synapse,
)

import mgdcircuits as mgd

NETLISTS = Path(__file__).parent.parent / "netlists"
FULL_GRID = os.environ.get("MGDCIRCUITS_FULL_GRID") == "1"

# ---- the oracle itself ---------------------------------------------------------------------------------------------


def conv_variants() -> list[dict]:
    return [
        {"kernel": 3, "padding": 1},
        {"kernel": (2, 3), "stride": (2, 1), "padding": (1, 0)},
        {"kernel": 3, "dilation": 2, "padding": 2, "groups": 2},
        {"kernel": (3, 1), "stride": 2, "dilation": (1, 2), "padding": (0, 1), "groups": 4},
    ]


@pytest.mark.parametrize("variant", conv_variants(), ids=str)
def test_the_two_convolutions_of_the_oracle_agree(variant):
    rng = np.random.default_rng(0)
    edges = conv_edges((4, 7, 6), 8, **variant)
    whole = Conv2d(**{k: v for k, v in variant.items() if k != "kernel"})
    kernel = variant["kernel"] if isinstance(variant["kernel"], tuple) else (variant["kernel"],) * 2
    w = rng.normal(size=(8, 4 // variant.get("groups", 1), *kernel))
    x, g = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(2, *edges.post_shape))
    np.testing.assert_allclose(whole.forward(w, x, None), edges.forward(w, x, None), atol=1e-13)
    for a, b in zip(whole.backward(w, x, None, g), edges.backward(w, x, None, g), strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, atol=1e-13)


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_the_two_pools_of_the_oracle_agree(reduce):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, size=(2, 3, 7, 5)).astype(float)  # many ties
    whole = {"max": MaxPool, "mean": MeanPool}[reduce](2)
    edges = pool_edges((3, 7, 5), 2, 2, 0, reduce)
    g = rng.normal(size=(2, *edges.post_shape))
    np.testing.assert_allclose(whole.forward(None, x, None), edges.forward(None, x, None), atol=1e-14)
    np.testing.assert_allclose(whole.backward(None, x, None, g)[1], edges.backward(None, x, None, g)[1], atol=1e-14)


@pytest.mark.parametrize("cost", [cross_entropy, mean_square])
def test_the_oracles_gradient_is_the_slope_of_its_cost(cost):
    rng = np.random.default_rng(1)
    layers = [
        Layer(conv_edges((2, 6, 5), 3, 2, synapse=sinh_synapse(0.7)), TANH, "a.w", "a.b"),
        Layer(pool_edges((3, 5, 4), 2, 2, 0, "max")),
        Layer(pool_edges((3, 2, 2), 2, 1, 1, "mean")),
        Layer(dense_edges(27, (4,), BILINEAR), CLIP, "b.w", "b.b"),
        Layer(Dense(), LINEAR, "c.w", "c.b"),
    ]
    shapes = {"a.w": (3, 2, 2, 2), "a.b": (3,), "b.w": (4, 27), "b.b": (4,), "c.w": (5, 4), "c.b": (5,)}
    network = Network(layers, cost)
    theta = {n: rng.normal(size=s) / 2 for n, s in shapes.items()}
    x, target = rng.normal(size=(3, 2, 6, 5)), onehot(np.array([0, 4, 1]), 5, 0.9, 0.02)
    gradient = network.gradient(theta, x, target)
    for name in shapes:
        direction = rng.normal(size=shapes[name])
        up, down = ({**theta, name: theta[name] + s * 1e-6 * direction} for s in (1, -1))
        slope = (network.cost(up, x, target) - network.cost(down, x, target)) / 2e-6
        np.testing.assert_allclose((gradient[name] * direction).reshape(3, -1).sum(axis=1), slope, rtol=1e-7, atol=1e-9)


# ---- counts --------------------------------------------------------------------------------------------------------

TABLE_1 = {  # of the scaling paper: parameters, nodes, multiplications per sample
    1: (520, 2_762, 35_480),
    2: (1_908, 5_514, 127_728),
    4: (7_318, 11_018, 482_528),
    8: (28_674, 22_026, 1_873_344),
    24: (254_578, 66_058, 16_519_488),
    32: (451_818, 88_074, 29_292_288),
    48: (1_014_874, 132_106, 65_737_344),
    64: (1_802_698, 176_138, 116_715_008),
}


@pytest.mark.parametrize("d", TABLE_1)
def test_the_convolutional_network_has_the_papers_size(d):
    circuit = mgd.load(NETLISTS / "fashion_mnist_cnn.yaml", d=d)
    assert (circuit.n_parameters, circuit.n_nodes, circuit.n_macs) == TABLE_1[d]


# ---- outputs, costs, gradients -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A session and what numpy says about it."""

    netlist: str
    width: int
    batch: int
    members: int
    dtype: str
    target: str
    per_sample: bool = True

    def __str__(self) -> str:
        return f"{self.netlist}-{self.width}-b{self.batch}-m{self.members}-{self.dtype}-{self.target}"

    @property
    def network(self) -> Network:
        return paper_cnn() if "cnn" in self.netlist else mlp()

    @cached_property
    def live(self) -> Live:
        return Live(self)


class Live:
    """The session of a case, with random parameters and samples, and the oracle's answers."""

    def __init__(self, case: Case) -> None:
        override = {"d" if "cnn" in case.netlist else "h": case.width}
        circuit = mgd.load(NETLISTS / f"{case.netlist}.yaml", **override)
        self.session = mgd.Session(
            circuit, batch=case.batch, members=case.members, seed=3, target=case.target, dtype=case.dtype
        )
        rng = np.random.default_rng([case.width, case.batch, case.members])
        set_parameters(self.session, rng)
        parameters = members_of(self.session)
        x = decided_samples(case.network, parameters, rng, circuit.input_shape, case.batch * case.members)
        x = x.reshape(case.members, case.batch, *circuit.input_shape)
        y = rng.integers(0, 10, (case.members, case.batch))
        outputs, costs, gradients = [], [], []
        for m, own in enumerate(parameters):
            outputs.append(case.network.outputs(own, x[m]))
            costs.append(case.network.cost(own, x[m], onehot(y[m], 10)))
            gradients.append(case.network.gradient(own, x[m], onehot(y[m], 10)))
        if case.members == 1:
            x, y = x[0], y[0]
        self.session.present(x, y)
        self.outputs, self.cost = (_stack(v, case.members) for v in (outputs, costs))
        self.per_sample = {n: _stack([g[n] for g in gradients], case.members) for n in gradients[0]}
        axis = int(case.members > 1)
        self.gradient = {n: g.mean(axis=axis) for n, g in self.per_sample.items()}


def _stack(values, members):
    return np.stack(values) if members > 1 else values[0]


DIGITS, FASHION, CNN = "digits_mlp", "fashion_mnist_mlp", "fashion_mnist_cnn"
COVERING = [
    Case(DIGITS, 32, 100, 3, "float32", "cpp", per_sample=False),
    Case(DIGITS, 7, 5, 1, "float64", "cpp", per_sample=False),
    Case(FASHION, 10, 1, 1, "float32", "cpp", per_sample=False),
    Case(CNN, 1, 5, 1, "float64", "cpp"),
    Case(CNN, 3, 1, 3, "float64", "cpp", per_sample=False),
    Case(CNN, 4, 100, 1, "float32", "cpp", per_sample=False),
    Case(DIGITS, 32, 5, 3, "float64", "numpy"),
    Case(FASHION, 10, 100, 1, "float32", "numpy"),
    Case(CNN, 1, 1, 3, "float32", "numpy"),
    Case(CNN, 3, 1, 1, "float64", "numpy"),
    Case(CNN, 3, 100, 3, "float32", "numpy"),
    Case(CNN, 4, 5, 1, "float64", "numpy"),
]
GRID = [
    Case(netlist, width, *rest)
    for (netlist, width), *rest in itertools.product(
        [(DIGITS, 32), (FASHION, 10), (CNN, 1), (CNN, 3), (CNN, 4)],
        (1, 5, 100),
        (1, 3),
        ("float32", "float64"),
        ("cpp", "numpy"),
    )
]
CASES = GRID if FULL_GRID else COVERING


@cache
def live(case: Case) -> Live:
    return Live(case)


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    yield request.param
    live.cache_clear()  # the large ones need not live side by side


def test_outputs(case):
    assert_close(live(case).session.outputs(), live(case).outputs, case.dtype)


def test_costs(case):
    assert_close(live(case).session.cost(), live(case).cost, case.dtype)


def test_exact_gradient(case):
    found = live(case).session.exact_gradient()
    assert set(found) == set(live(case).gradient)
    for name, expected in live(case).gradient.items():
        assert_close(found[name], expected, case.dtype, name)


def test_exact_gradient_of_each_sample(case):
    if not case.per_sample:
        pytest.skip("another kernel to compile; covered by other cases")
    found = live(case).session.exact_gradient(per_sample=True)
    assert set(found) == set(live(case).per_sample)
    for name, expected in live(case).per_sample.items():
        assert_close(found[name], expected, case.dtype, name)


def test_exact_gradient_of_some_parameters(case):
    found = live(case).session.exact_gradient(wrt=["logits.b"])
    assert list(found) == ["logits.b"]
    assert_close(found["logits.b"], live(case).gradient["logits.b"], case.dtype)


def test_gradient_is_the_slope_of_the_cost(case):
    """Central differences through the live views: along random directions, and of single entries of every array."""
    if case.dtype != "float64":
        pytest.skip("differences need float64")
    session, rng = live(case).session, np.random.default_rng(0)
    gradient, h = session.exact_gradient(), 1e-6

    def mean_cost() -> np.ndarray:
        return session.cost().reshape(case.members, case.batch).mean(axis=1)

    def slope(direction: dict[str, np.ndarray]) -> np.ndarray:
        kept = {n: session.parameters[n].copy() for n in direction}
        costs = []
        for sign in (1, -1):
            for name, value in direction.items():
                session.parameters[name][...] = kept[name] + sign * h * value
            costs.append(mean_cost())
        for name in direction:
            session.parameters[name][...] = kept[name]
        return (costs[0] - costs[1]) / (2 * h)

    def predicted(direction: dict[str, np.ndarray]) -> np.ndarray:
        return sum((gradient[n] * v).reshape(case.members, -1).sum(axis=1) for n, v in direction.items())

    size = np.sqrt(sum((g.reshape(case.members, -1) ** 2).sum(axis=1) for g in gradient.values()))
    directions = [{n: rng.choice([-1.0, 1.0], v.shape) for n, v in gradient.items()} for _ in range(3)]
    for name, value in gradient.items():
        for _ in range(2):
            single = np.zeros(value.shape)
            single.reshape(case.members, -1)[:, rng.integers(value.size // case.members)] = 1
            directions.append({name: single})
    for direction in directions:
        length = np.sqrt(sum((v.reshape(case.members, -1) ** 2).sum(axis=1) for v in direction.values()))
        assert np.all(np.abs(slope(direction) - predicted(direction)) <= 1e-6 * size * length), list(direction)
    np.testing.assert_array_equal(session.exact_gradient()["logits.b"], gradient["logits.b"])  # nothing was left behind


# ---- ties, and shapes that are not square --------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_of_equal_values_the_first_wins(target):
    """Dark surroundings: whole windows of zeros, as in every real image."""
    case = Case(CNN, 1, 5, 1, "float64", "cpp") if target == "cpp" else Case(CNN, 3, 1, 1, "float64", "numpy")
    live_case = Live(case)
    session, rng = live_case.session, np.random.default_rng(6)
    for name, view in session.parameters.items():
        if name.startswith("conv") and name.endswith(".b"):
            view[...] = 0
    x = np.zeros((case.batch, 1, 28, 28), np.float32)
    x[:, :, 9:17, 11:20] = rng.random((case.batch, 1, 8, 9))
    y = rng.integers(0, 10, case.batch)
    session.present(x, y)
    (own,) = members_of(session)
    ties = MaxPool(2)._windows(case.network.forward(own, x.astype(float))[2][0])
    assert (np.diff(np.sort(ties)[..., -2:]) == 0).mean() > 0.3
    expected = case.network.gradient(own, x.astype(float), onehot(y, 10))
    found = session.exact_gradient()
    for name, value in expected.items():
        assert_close(found[name], value.mean(axis=0), case.dtype, name)


ODD = """
circuit: odd
kinds:
  tanh:
    equations: |
      x = tanh(I + b) : 1
      I : 1
      b : 1 (plastic, per channel)
  weights:
    equations: |
      I_post = w*x_pre : 1 (summed)
      w : 1 (plastic)
chain:
  - image: {{shape: [4, 7, 6], equations: "x : 1"}}
  - conv: {{channels: 8, kind: tanh, via: weights, conv2d: {conv}}}
  - pool: {{via: "{pool}"}}
  - out: {{shape: [1, 2, 3], kind: tanh, via: weights}}
task: {{x_image: x, target: y}}
cost: {{C: "mean_square(x_out, target)"}}
"""
POOLS = {
    "max_pool(2)": (2, 2, 0, "max"),
    "mean_pool(2)": (2, 2, 0, "mean"),
    "max_pool(2, stride=1)": (2, 1, 0, "max"),
    "mean_pool(3, stride=2)": (3, 2, 0, "mean"),
}
PADDED = {
    "mean_pool(3, stride=1, padding=1)": (3, 1, 1, "mean"),
    "max_pool(3, stride=2, padding=1)": (3, 2, 1, "max"),
}
CASES = [
    *((variant, pool, "numpy") for variant, pool in zip(conv_variants(), POOLS, strict=True)),
    *(({"kernel": 3}, pool, target) for pool in PADDED for target in ("numpy", "cpp")),
]


@pytest.mark.parametrize(("variant", "pool", "target"), CASES, ids=str)
def test_convolutions_and_pools_of_any_shape(variant, pool, target, tmp_path):
    """A mean with padding is over the synapses that exist: four at a corner, nine inside."""
    given = ", ".join(f"{k}: {list(v) if isinstance(v, tuple) else v}" for k, v in variant.items())
    path = tmp_path / "odd.yaml"
    path.write_text(ODD.format(conv="{" + given + "}", pool=pool))
    session = mgd.Session(mgd.load(path), batch=3, target=target, dtype="float64")
    rng = np.random.default_rng(4)
    set_parameters(session, rng)
    conv = conv_edges((4, 7, 6), 8, **variant)
    pooled = pool_edges(conv.post_shape, *(POOLS | PADDED)[pool])
    layers = [
        Layer(conv, TANH, "conv.w", "conv.b"),
        Layer(pooled),
        Layer(dense_edges(int(np.prod(pooled.post_shape)), (1, 2, 3)), TANH, "out.w", "out.b"),
    ]
    network, (own,) = Network(layers, mean_square), members_of(session)
    x, y = rng.uniform(-1, 1, (3, 4, 7, 6)).astype(np.float32), rng.uniform(-1, 1, (3, 1, 2, 3))
    session.present(x, y)
    assert_close(session.outputs(), network.outputs(own, x), "float64")
    assert_close(session.cost(), network.cost(own, x, y), "float64")
    expected = network.gradient(own, x, y)
    for name, found in session.exact_gradient(per_sample=True).items():
        assert_close(found, expected[name].reshape(found.shape), "float64", name)


def test_a_circuit_without_a_gradient_still_runs(tmp_path):
    text = ODD.format(conv="{kernel: 3}", pool="max_pool(2)").replace(
        "mean_square(x_out, target)", "max(abs(x_out - target))"
    )
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    session = mgd.Session(mgd.load(path), batch=3, target="numpy", dtype="float64")
    set_parameters(session, np.random.default_rng(4))
    y = np.random.default_rng(5).uniform(-1, 1, (3, 1, 2, 3))
    session.present(np.random.default_rng(6).random((3, 4, 7, 6)), y)
    np.testing.assert_allclose(session.cost(), np.abs(session.outputs() - y).reshape(3, -1).max(axis=1), rtol=1e-12)
    with pytest.raises(mgd.RunError, match=r"odd has no exact gradient: .*max\(\)"):
        session.exact_gradient()
