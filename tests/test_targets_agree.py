"""The C++ target against the numpy target after 20 iterations, and both against programs written out in numpy.

`every_code.yaml` has every code, pass scheme and optimizer once; `small_conv.yaml` is run with weight and node
perturbation, over the whole network and layer by layer. The programs below follow mgd.md section 2 (Oripov et al. 2025)
and read nothing but the codes from the session.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import Session, load
from mgdcircuits.circuit.program import Precision
from mgdcircuits.codegen.fuse import Fusion

VALID = Path(__file__).parent / "netlists" / "valid"
RNG = np.random.default_rng(7)
X, Y = RNG.random((10, 6)).astype(np.float32), RNG.uniform(-0.8, 0.8, (10, 5)).astype(np.float32)
IMAGES, LABELS = RNG.random((12, 1, 4, 4)).astype(np.float32), RNG.integers(0, 4, 12)

# After 20 iterations, norm-wise per array. The change of the cost is 1e-3 to 1e-1 of the cost, so in float32 an estimate
# keeps three to five digits; parameters, inputs and outputs keep nearly all. Both targets compute costs in float64 from
# float32 outputs: `test_float32_loses_digits_of_a_cost_change_in_the_outputs` shows that neither is nearer to float64.
TOLERANCES = {"float64": (1e-11, 1e-10), "float32": (1e-5, 1e-3)}


def is_estimate(name: str) -> bool:
    """Whether an array holds differences of costs, or what is made of them."""
    return ":" in name or name.endswith(("dC@0", "dC@1"))


def assert_targets_agree(one: Session, other: Session) -> dict[str, float]:
    """Every array, norm-wise; codes of +-1, counters and samples bitwise."""
    found = {}
    usual, of_estimates = TOLERANCES[one.target.dtype.name]
    needed = Fusion(one.program).needed
    for array in one.program.arrays:
        if "@" in array.name and array.name not in needed:
            continue  # a sum that the compiled circuit uses at once and does not store
        a, b = np.array(one.target.array(array.name)), np.array(other.target.array(array.name))
        if array.name.partition(".")[2] in ("theta_w", "theta_b", "theta"):
            np.testing.assert_array_equal(np.sign(a), np.sign(b), err_msg=array.name)
        if array.precision is Precision.INTEGER or array.name in ("y", "target"):
            np.testing.assert_array_equal(a, b, err_msg=array.name)
            continue
        assert np.isfinite(a).all(), array.name
        size = np.linalg.norm(b)
        found[array.name] = float(np.linalg.norm(a - b) / size) if size else float(np.linalg.norm(a))
    wrong = {n: e for n, e in found.items() if e > (of_estimates if is_estimate(n) else usual)}
    assert not wrong
    return found


def pair(circuit, dtype: str, data, iterations: int = 20, **options) -> tuple[Session, Session]:
    """The same run on both targets."""
    both = [Session(circuit, target=t, dtype=dtype, data=data, seed=3, **options) for t in ("cpp", "numpy")]
    for session in both:
        session.step(iterations)
    return both[0], both[1]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_every_code_pass_scheme_and_optimizer(dtype):
    circuit = load(VALID / "every_code.yaml")
    cpp, numpy = pair(circuit, dtype, (X, Y), members=2)
    assert_targets_agree(cpp, numpy)
    start = Session(circuit, target="numpy", dtype=dtype, seed=3, members=2)
    for name, value in cpp.parameters.items():
        if name != "l3.b":  # sequential: the turn of the biases comes after 25 weights
            assert np.abs(value - start.parameters[name]).max() > 1e-5, f"{name} was not trained"


CONV = """
include: {base}
circuit: conv
parameters: {{delta: 0.01, eta: 0.005, amplitude: delta/sqrt(K)}}
clocks: {{tau_x: 2*iteration, tau_theta: 2*iteration}}
learning:
  wp: none
  mgd:
    perturb: {perturb}
    passes: {{clean: 0, plus: 1}}
    estimate: {estimate}
    update: {{request: -eta*G/sqrt(1 + (K - 1)/n_G), every: tau_theta}}
"""
RULES = {
    "WP": ("theta_w: amplitude*bernoulli(), theta_b: amplitude*bernoulli()", "(C.plus - C.clean)*theta/amplitude**2"),
    "NP": (
        "theta: amplitude*bernoulli()",
        "{w: (C.plus - C.clean)*theta_post*x_pre.clean/amplitude**2, b: (C.plus - C.clean)*theta/amplitude**2}",
    ),
    "WP of conv, NP of logits": (
        "conv.theta_w: amplitude*bernoulli(), conv.theta_b: amplitude*bernoulli(), logits.theta: amplitude*bernoulli()",
        "{w: (C.plus - C.clean)*theta/amplitude**2, b: (C.plus - C.clean)*theta/amplitude**2,"
        " logits.w: (C.plus - C.clean)*theta_post*x_pre.clean/amplitude**2}",
    ),
}


def conv(folder: Path, rule: str, blocks: str):
    """The small convolutional net with a rule."""
    code, estimate = RULES[rule]
    perturb = f"{{{code}, every: tau_p, blocks: {blocks}}}"
    path = folder / f"{rule}_{blocks}.yaml"
    path.write_text(CONV.format(base=VALID / "small_conv.yaml", perturb=perturb, estimate=estimate))
    return load(path, channels=2)


@pytest.mark.parametrize(
    ("rule", "blocks", "dtype"),
    [
        ("WP", "layer", "float64"),
        ("WP", "all", "float32"),
        ("NP", "layer", "float32"),
        ("NP", "all", "float64"),
        ("WP of conv, NP of logits", "layer", "float64"),
    ],
)
def test_convolution(tmp_path, rule, blocks, dtype):
    pixels = mgd.datasets.from_arrays((255 * IMAGES).astype(np.uint8), LABELS, scale=1 / 255)
    data = pixels if blocks == "layer" else (IMAGES, LABELS)
    cpp, numpy = pair(conv(tmp_path, rule, blocks), dtype, data, batch=3, members=2)
    assert_targets_agree(cpp, numpy)


def cross_entropy(logits: np.ndarray) -> np.ndarray:
    """In float64, of the labels above."""
    z = logits.astype(float)
    top = z.max(-1, keepdims=True)
    return (np.log(np.exp(z - top).sum(-1)) + top[..., 0]) - z[..., np.arange(len(LABELS)), LABELS]


def test_float32_loses_digits_of_a_cost_change_in_the_outputs(tmp_path):
    """Costs are exact for the outputs that they are made of; what two targets differ by is as far as each is from float64."""
    conv(tmp_path, "WP", "all")
    circuit = load(tmp_path / "WP_all.yaml", channels=2, amplitude=2.0**-9)  # codes that float32 holds exactly
    kinds = {"cpp": ("cpp", "float32"), "numpy": ("numpy", "float32"), "exact": ("numpy", "float64")}
    sessions = {k: Session(circuit, target=t, dtype=d, seed=1, batch=12, members=4) for k, (t, d) in kinds.items()}
    for name, value in sessions["exact"].parameters.items():
        value[...] = sessions["numpy"].parameters[name]
    change = {}
    for name, session in sessions.items():
        session.present(IMAGES, LABELS)
        session.step()
        clean = session.view("mgd.C.clean").reshape(4, 12)
        np.testing.assert_allclose(clean, cross_entropy(session.view("logits.x")), rtol=2e-15)
        change[name] = (session.view("mgd.C.plus").reshape(4, 12) - clean).ravel()
    size = np.linalg.norm(change["exact"])
    lost = {k: np.linalg.norm(change[k] - change["exact"]) / size for k in ("cpp", "numpy")}
    assert 1e-3 < size / np.linalg.norm(sessions["exact"].view("mgd.C.clean")) < 2e-3
    assert all(5e-6 < v < 1e-4 for v in lost.values()), "an output's last digit, over the change: 2e-8/1e-3"
    assert 0.5 < lost["cpp"] / lost["numpy"] < 2
    assert np.linalg.norm(change["cpp"] - change["numpy"]) / size < 2 * max(lost.values())


@pytest.mark.parametrize(
    ("netlist", "data", "dtype"), [("analog_rc", "xor", "float32"), ("crossbar_rram", "letters", "float64")]
)
def test_circuits_with_charge_and_devices(netlists, netlist, data, dtype):
    """Integration steps, a cost over a window, filters, measurement noise, noisy devices that saturate."""
    cpp, numpy = pair(load(netlists / f"{netlist}.yaml"), dtype, data, members=3)
    assert_targets_agree(cpp, numpy)


# ---- written out in numpy -------------------------------------------------------------------------------------------


class ConvNet:
    """Convolution 3 x 3 with padding, tanh, maximum over 2 x 2, a dense layer, cross entropy: forward, with perturbations."""

    def __init__(self, parameters: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray):
        self.p = {name: np.array(value, dtype=float) for name, value in parameters.items()}
        self.patches = np.zeros((len(x), 9, 4, 4))  # what the kernel entry (ky, kx) meets at each place
        padded = np.pad(x[:, 0].astype(float), ((0, 0), (1, 1), (1, 1)))
        for ky in range(3):
            for kx in range(3):
                self.patches[:, 3 * ky + kx] = padded[:, ky : ky + 4, kx : kx + 4]
        self.y = y

    def cost(self, change: dict[str, np.ndarray] | None = None, nodes: dict[str, np.ndarray] | None = None):
        """Cost of each sample; `change` is added to parameters, `nodes` to pre-activations."""
        change, nodes = change or {}, nodes or {}
        p = {name: value + change.get(name, 0) for name, value in self.p.items()}
        kernels = p["conv.w"].reshape(len(p["conv.w"]), 9)
        current = np.einsum("ck,bkyx->bcyx", kernels, self.patches) + p["conv.b"][:, None, None]
        active = np.tanh(current + nodes.get("conv", 0))
        self.pooled = active.reshape(len(active), -1, 2, 2, 2, 2).max(axis=(3, 5)).reshape(len(active), -1)
        logits = self.pooled @ p["logits.w"].T + p["logits.b"] + nodes.get("logits", 0)
        top = logits.max(1, keepdims=True)
        return np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[np.arange(len(logits)), self.y]


THETA = {"conv.w": "conv.theta_w", "conv.b": "conv.theta_b", "logits.w": "logits.theta_w", "logits.b": "logits.theta_b"}
BLOCKS = {"layer": [["conv"], ["logits"]], "all": [["conv", "logits"]]}


def update(net: ConvNet, estimates: list[dict[str, np.ndarray]], sizes: dict[str, int], eta: float = 0.005) -> None:
    """W -= eta * mean estimate / sqrt(1 + (K - 1)/tau), after tau estimates."""
    tau = len(estimates)
    for name, value in net.p.items():
        value -= eta * sum(e[name] for e in estimates) / tau / np.sqrt(1 + (sizes[name] - 1) / tau)


@pytest.mark.parametrize(
    ("rule", "blocks"),
    [("WP", "layer"), ("WP", "all"), ("NP", "layer"), ("NP", "all"), ("WP of conv, NP of logits", "layer")],
)
def test_algorithm_of_the_paper(tmp_path, rule, blocks):
    """Two iterations and the update after them (tau_theta = 2), by weight perturbation, node perturbation, or both."""
    of_nodes = {"WP": [], "NP": BLOCKS[blocks]}.get(rule, [["logits"]])
    of_weights = [block for block in BLOCKS[blocks] if block not in of_nodes]
    session = Session(conv(tmp_path, rule, blocks), target="numpy", dtype="float64", batch=3, seed=3)
    session.present(IMAGES[:3], LABELS[:3])
    net = ConvNet(session.parameters, IMAGES[:3], LABELS[:3])
    before = {name: value.copy() for name, value in net.p.items()}
    np.testing.assert_allclose(session.cost(), net.cost(), rtol=1e-12)
    estimates, sizes = [], {}
    for _ in range(2):
        session.step()
        weights, nodes = weight_perturbation(session, net, of_weights), node_perturbation(session, net, of_nodes)
        estimates.append(weights[0] | nodes[0])
        sizes = weights[1] | nodes[1]
    update(net, estimates, sizes)
    for name, value in net.p.items():
        np.testing.assert_allclose(session.parameters[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
        assert np.abs(value - before[name]).max() > 1e-4
    assert all((session.writes(name) == 1).all() for name in net.p)


def weight_perturbation(session: Session, net: ConvNet, blocks: list[list[str]]):
    """Estimates of one iteration: perturb the parameters of a block, take the mean change of the cost."""
    found, sizes = {}, {}
    for block in blocks:
        names = [n for n in net.p if n.partition(".")[0] in block]
        k = sum(net.p[n].size for n in names)
        theta = {n: session.view(THETA[n]).reshape(net.p[n].shape) for n in names}
        assert all((np.abs(np.abs(t) - 0.01 / np.sqrt(k)) < 1e-15).all() for t in theta.values())
        change = (net.cost(theta) - net.cost()).mean()
        for n in names:
            found[n] = change * theta[n] / (0.01**2 / k)
            sizes[n] = k
    return found, sizes


def node_perturbation(session: Session, net: ConvNet, blocks: list[list[str]]):
    """Estimates of one iteration: perturb the pre-activations of a block, one code for the batch, change by sample."""
    found, sizes = {}, {}
    net.cost()
    pooled = net.pooled.copy()
    for block in blocks:
        theta = {layer: session.view(f"{layer}.theta") for layer in block}
        k = sum(t.size for t in theta.values())
        assert all((np.abs(np.abs(t) - 0.01 / np.sqrt(k)) < 1e-15).all() for t in theta.values())
        change = (net.cost(nodes=theta) - net.cost()) / (0.01**2 / k)
        batch = len(change)
        if "conv" in theta:
            kernels = np.einsum("b,cyx,bkyx->ck", change, theta["conv"], net.patches) / batch
            found["conv.w"] = kernels.reshape(net.p["conv.w"].shape)
            found["conv.b"] = change.mean() * theta["conv"].sum(axis=(1, 2))
            sizes |= {"conv.w": k, "conv.b": k}
        if "logits" in theta:
            found["logits.w"] = np.einsum("b,o,bi->oi", change, theta["logits"], pooled) / batch
            found["logits.b"] = change.mean() * theta["logits"]
            sizes |= {"logits.w": k, "logits.b": k}
    return found, sizes


OPTIMIZERS = """
include: {base}
circuit: optimizers
learning:
  wp: none
  mgd:
    perturb: {{theta_w: delta*bernoulli(), theta_b: delta*bernoulli(), every: tau_p, blocks: layer}}
    passes: {{clean: 0, plus: 1}}
    estimate: (C.plus - C.clean)*theta/delta**2
    accumulate: estimate
    update: {{use: "{optimizer}", every: tau_theta, clear: false}}
"""


class Momentum:
    """M = gamma M + g (mgd.md section 2)."""

    def __init__(self, gamma: float):
        self.gamma, self.m = gamma, 0.0

    def __call__(self, g, n):
        self.m = self.gamma * self.m + g
        return self.m


class Adam:
    """Kingma and Ba 2015, Algorithm 1; without its two corrections where `correct` is false."""

    def __init__(self, beta1=0.9, beta2=0.999, eps=1e-8, correct=True):
        self.b1, self.b2, self.eps, self.correct, self.m, self.v = beta1, beta2, eps, correct, 0.0, 0.0

    def __call__(self, g, n):
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g * g
        if not self.correct:
            return self.m / (np.sqrt(self.v) + self.eps)
        return self.m / (1 - self.b1**n) / (np.sqrt(self.v / (1 - self.b2**n)) + self.eps)


@pytest.mark.parametrize(
    ("optimizer", "written"),
    [
        ("vanilla", lambda: lambda g, n: g),
        ("momentum", lambda: Momentum(0.9)),
        ("momentum(gamma=0.5)", lambda: Momentum(0.5)),
        ("adam", Adam),
        ("adam(bias_correction=0)", lambda: Adam(correct=False)),
        ("adam(beta1=0.8, beta2=0.9, eps=0.01)", lambda: Adam(0.8, 0.9, 0.01)),
    ],
)
def test_optimizers(tmp_path, optimizer, written):
    """Twenty updates from the estimates that the session reports."""
    path = tmp_path / "optimizers.yaml"
    path.write_text(OPTIMIZERS.format(base=VALID / "small_conv.yaml", optimizer=optimizer))
    session = Session(load(path), target="numpy", dtype="float64", data=(IMAGES, LABELS), seed=1)
    mine = {name: value.copy() for name, value in session.parameters.items()}
    start = {name: value.copy() for name, value in mine.items()}
    rules = {name: written() for name in mine}
    for n in range(1, 21):
        session.step()
        for name, g in session.gradient_estimate().items():
            mine[name] -= 0.05 * rules[name](g, n)
    for name, value in session.parameters.items():
        np.testing.assert_allclose(value, mine[name], rtol=1e-10, atol=1e-13, err_msg=name)
        assert np.abs(value - start[name]).max() > 1e-4
