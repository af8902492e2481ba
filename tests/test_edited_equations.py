"""Edit one equation, change nothing else, and run: against numpy, on every topology and both targets.

The circuit below is in volts, amperes and siemens and goes through every topology; each edit is a replacement of text,
as a user would make it in an editor. The price on every population's activity gives each topology a gradient of its
own, also where an edit makes synapses blind to the pre-synaptic side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from oracles.compare import assert_close, members_of
from oracles.network import (
    CLIP,
    LINEAR,
    TANH,
    Conv2d,
    Dense,
    Edges,
    Layer,
    Network,
    Neuron,
    Synapse,
    conv_edges,
    cross_entropy,
    dense_edges,
    driving_force,
    gated_driving_force,
    mean_square,
    one_to_one_edges,
    onehot,
    pool_edges,
    sinh_synapse,
)

import mgdcircuits as mgd

NETLISTS = Path(__file__).parent.parent / "netlists"

V0, RF, A, E = 0.3, 20e3, 0.2, 0.4  # volt, ohm, volt, volt
NETLIST = """
circuit: every_topology
parameters: {V0: 0.3*volt, Rf: 20*kohm, a: 200*mV, E: 0.4*volt, delta: 0.01, eta: 0.001}
clocks: {tau_p: 1*us}
kinds:
  neuron:
    equations: |
      V = V0*tanh((I*Rf + b + theta_b)/V0) : volt
      I : amp
      b : volt (plastic, per channel)
      theta_b : volt (perturbation of b)
    scale: {b: 100*mV}
  follower:
    equations: |
      V = I*Rf : volt
      I : amp
  synapse:
    equations: |
      I_post = (g + theta_g)*V_pre : amp (summed)
      g : siemens (plastic)
      theta_g : siemens (perturbation of g)
    scale: {g: 20*uS}
  strongest:
    equations: |
      I_post = V_pre/Rf : amp (summed)
    reduce: max
chain:
  - image: {shape: [2, 9, 8], equations: "V : volt"}
  - conv: {channels: 4, kind: neuron, via: synapse, conv2d: {kernel: [3, 2], stride: [2, 1], padding: 1}}
  - grouped: {channels: 6, kind: neuron, via: synapse, conv2d: {kernel: 2, dilation: 2, groups: 2, padding: 1}}
  - peak: {kind: follower, via: strongest, pool: {kernel: 3, stride: 2, padding: 1}}
  - average: {via: mean_pool(2)}
  - random: {shape: 9, kind: neuron, via: synapse, sparse: 0.4}
  - fixed: {shape: 6, kind: neuron, via: synapse, sparse: {in_degree: 3}}
  - listed: {shape: 5, kind: neuron, via: synapse, sparse: {edges: edges.csv}}
  - paired: {shape: 5, kind: neuron, via: synapse, one_to_one: true}
  - out: {shape: 3, kind: neuron, via: synapse}
task: {V_image: V0*x, target: y}
cost:
  C: mean((V_out/V0 - target)**2) + 0.1*mean((V_conv/V0)**2) + 0.1*mean((V_grouped/V0)**2) +
     0.1*mean((V_random/V0)**2) + 0.1*mean((V_fixed/V0)**2) + 0.1*mean((V_listed/V0)**2) + 0.1*mean((V_paired/V0)**2)
learning:
  wp:
    perturb: {theta_g: delta*scale*bernoulli(), theta_b: delta*scale*bernoulli()}
    passes: {clean: 0, plus: 1}
    estimate: (C.plus - C.clean)*theta/(delta*scale)**2
    update: {request: -eta*scale**2*G}
"""
LISTED = [
    (5, 0),
    (0, 0),
    (2, 4),
    (3, 1),
    (1, 4),
    (4, 2),
    (0, 1),
    (5, 3),
    (2, 0),
]  # in no order; one to one pair at most
POPULATIONS = ("conv", "grouped", "peak", "average", "random", "fixed", "listed", "paired", "out")
NEURONS = tuple(p for p in POPULATIONS if p not in ("peak", "average"))

NEURON_LINE = "V = V0*tanh((I*Rf + b + theta_b)/V0) : volt"
SYNAPSE_LINE = "I_post = (g + theta_g)*V_pre : amp (summed)"
POOL_LINE = "I_post = V_pre/Rf : amp (summed)"


def scaled(synapse: Synapse, factor: float) -> Synapse:
    """Currents times the feedback resistor."""
    return Synapse(*(lambda w, x, v, f=f: factor * f(w, x, v) for f in (synapse.f, synapse.dw, synapse.dx, synapse.dv)))


def volts(neuron: Neuron) -> Neuron:
    """V0*f(u/V0)."""
    return Neuron(lambda u: V0 * neuron.f(u / V0), lambda u: neuron.df(u / V0))


OHMIC = scaled(Synapse(lambda w, x, v: w * x, lambda w, x, v: x + 0 * w, lambda w, x, v: w + 0 * x, None), RF)  # type: ignore[arg-type]
WIRE = Synapse(lambda w, x, v: x, None, lambda w, x, v: np.ones_like(x), None)  # type: ignore[arg-type]
SINH_WIRE = Synapse(lambda w, x, v: np.sinh(x / A) * A, None, lambda w, x, v: np.cosh(x / A), None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Edit:
    """Replacements in the text, and what they mean to the oracle."""

    replace: tuple[tuple[str, str], ...]
    neuron: Neuron = TANH
    synapse: Synapse = OHMIC
    pool: Synapse = WIRE
    reads_post: bool = False


EDITS = {
    "none": Edit(()),
    "clip": Edit(((NEURON_LINE, "V = V0*clip((I*Rf + b + theta_b)/V0, 0, 1) : volt"),), neuron=CLIP),
    "sinh": Edit(
        (
            (SYNAPSE_LINE, "I_post = (g + theta_g)*sinh(V_pre/a)*a : amp (summed)"),
            (POOL_LINE, "I_post = a*sinh(V_pre/a)/Rf : amp (summed)"),
        ),
        synapse=scaled(sinh_synapse(A), RF),
        pool=SINH_WIRE,
    ),
    "reversal": Edit(
        ((SYNAPSE_LINE, "I_post = (g + theta_g)*(E - b_post) : amp (summed)"),),
        synapse=scaled(driving_force(E), RF),
        reads_post=True,
    ),
    "gated": Edit(
        ((SYNAPSE_LINE, "I_post = (g + theta_g)*V_pre*(E - b_post)/E : amp (summed)"),),
        synapse=scaled(gated_driving_force(E), RF / E),
        reads_post=True,
    ),
}


def edited(folder: Path, replace: tuple[tuple[str, str], ...], text: str = NETLIST) -> Path:
    for old, new in replace:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "circuit.yaml"
    path.write_text(text)
    (folder / "edges.csv").write_text("i,j\n" + "".join(f"{i},{j}\n" for i, j in LISTED))
    return path


# ---- which pairs the random couplings have drawn -------------------------------------------------------------------


def find_pairs(session, name: str, pre: str) -> list[tuple[int, int]]:
    """Switch on one synapse at a time and see which unit answers, and to whom (all units of `pre` differ)."""
    g, b = session.parameters[f"{name}.g"], session.parameters[f"{name}.b"]
    kept = g.copy(), b.copy()
    b[...] = 0
    pairs = []
    for k in range(len(g)):
        g[...] = 0
        g[k] = 1 / RF
        session.outputs()
        answer, heard = session.view(f"{name}.V")[0], session.view(f"{pre}.V")[0].ravel()
        (post,) = np.flatnonzero(answer)
        distance = np.abs(np.arctanh(answer[post] / V0) * V0 - heard)
        assert np.sort(distance)[1] > 1e-6 > 1e-12 > distance.min(), "the probe must be unambiguous"
        pairs.append((int(distance.argmin()), int(post)))
    g[...], b[...] = kept
    return pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Mapping[str, list[tuple[int, int]]]:
    """The sparse couplings of the unedited circuit; an edit of an equation must not change them."""
    session = mgd.Session(mgd.load(edited(tmp_path_factory.mktemp("probe"), ())), target="numpy", dtype="float64")
    randomise(session, np.random.default_rng(0))
    session.present(np.random.default_rng(1).random((1, 2, 9, 8)), np.zeros((1, 3)))
    return {
        "random": find_pairs(session, "random", "average"),
        "fixed": find_pairs(session, "fixed", "random"),
        "listed": find_pairs(session, "listed", "fixed"),
    }


def test_sparse_couplings_connect_what_they_say(pairs):
    assert pairs["listed"] == sorted(LISTED, key=lambda pair: pair[::-1])  # by post-, then pre-synaptic unit
    fixed = pairs["fixed"]
    assert len(set(fixed)) == len(fixed) == 6 * 3
    assert [sum(post == unit for _, post in fixed) for unit in range(6)] == [3] * 6
    drawn = pairs["random"]
    assert len(set(drawn)) == len(drawn)
    assert abs(len(drawn) - 0.4 * 12 * 9) < 5 * np.sqrt(12 * 9 * 0.4 * 0.6)


def randomise(session, rng: np.random.Generator) -> None:
    """Biases near the middle of clip's range, weights that move it past the edges now and then."""
    for name, view in session.parameters.items():
        if name.endswith(".b"):
            view[...] = V0 * rng.uniform(0.1, 0.9, view.shape)
        else:
            shape = view.shape[1:] if session.members > 1 else view.shape
            fan = {"random": 5, "fixed": 3, "listed": 2}.get(name.split(".")[0], max(1, int(np.prod(shape[1:]))))
            view[...] = rng.uniform(-1, 1, view.shape) / RF / np.sqrt(fan)


def oracle(edit: Edit, pairs: Mapping[str, list[tuple[int, int]]]) -> Network:
    def of_pairs(name: str, n: int) -> Edges:
        pre, post = np.array(pairs[name]).T
        return Edges(pre, post, np.arange(len(pre)), (n,), edit.synapse)

    first = conv_edges((2, 9, 8), 4, (3, 2), (2, 1), 1, synapse=edit.synapse)
    second = conv_edges(first.post_shape, 6, 2, 1, 1, dilation=2, groups=2, synapse=edit.synapse)
    peak = pool_edges(second.post_shape, 3, 2, 1, "max", edit.pool)
    couplings = {
        "conv": first,
        "grouped": second,
        "peak": peak,
        "average": pool_edges(peak.post_shape, 2, 2, 0, "mean"),
        "random": of_pairs("random", 9),
        "fixed": of_pairs("fixed", 6),
        "listed": of_pairs("listed", 5),
        "paired": one_to_one_edges((5,), edit.synapse),
        "out": dense_edges(5, (3,), edit.synapse),
    }
    layers = []
    for name, coupling in couplings.items():
        if name in NEURONS:
            b = f"{name}.b"
            layers.append(Layer(coupling, volts(edit.neuron), f"{name}.g", b, b if edit.reads_post else None))
        else:
            layers.append(Layer(coupling, LINEAR))
    penalties = {k: 0.1 / V0**2 for k, p in enumerate(POPULATIONS) if p in NEURONS and p != "out"}

    def cost(z, target):
        value, slope = mean_square(z / V0, target)
        return value, slope / V0

    return Network(layers, cost, penalties)


# ---- the edits -----------------------------------------------------------------------------------------------------

SESSIONS = {  # target, precision, batch, members
    "numpy": ("numpy", "float64", 3, 2),
    "cpp": ("cpp", "float64", 5, 1),
    "cpp-float32": ("cpp", "float32", 4, 3),
}
RUNS = [(edit, kind) for edit in EDITS for kind in ("numpy", "cpp-float32" if edit == "sinh" else "cpp")]


class Run:
    """An edited circuit alive, with random parameters and samples."""

    def __init__(self, edit: str, kind: str, folder: Path, pairs) -> None:
        target, self.dtype, self.batch, members = SESSIONS[kind]
        circuit = mgd.load(edited(folder, EDITS[edit].replace))
        self.session = mgd.Session(circuit, batch=self.batch, members=members, seed=1, target=target, dtype=self.dtype)
        rng = np.random.default_rng(5)
        randomise(self.session, rng)
        self.network = oracle(EDITS[edit], pairs)
        self.members = members_of(self.session)
        self.x = rng.uniform(-1, 1, (self.batch, 2, 9, 8)).astype(np.float32)
        self.y = rng.uniform(0, 1, (self.batch, 3)).astype(np.float32).astype(float)
        self.session.present(self.x, self.y)

    def expected(self, what) -> np.ndarray:
        found = [what(self.network, own, V0 * self.x.astype(float), self.y) for own in self.members]
        return np.stack(found) if len(found) > 1 else found[0]


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def run(request, pairs, tmp_path_factory) -> Run:
    return Run(*request.param, tmp_path_factory.mktemp("edited"), pairs)


def test_every_population(run):
    run.session.outputs()
    for k, name in enumerate(POPULATIONS):
        expected = run.expected(lambda network, own, x, y, k=k: network.activity(own, x)[k])
        assert_close(run.session.view(f"{name}.V"), expected, run.dtype, name)


def test_outputs_and_cost(run):
    assert_close(run.session.outputs(), run.expected(lambda n, own, x, y: n.outputs(own, x)), run.dtype)
    assert_close(run.session.cost(), run.expected(lambda n, own, x, y: n.cost(own, x, y)), run.dtype)


def test_gradient(run):
    found = run.session.exact_gradient()
    assert set(found) == {f"{p}.{v}" for p in NEURONS for v in "gb"}
    for name in found:
        expected = run.expected(lambda n, own, x, y, name=name: n.gradient(own, x, y)[name].mean(axis=0))
        assert_close(found[name], expected, run.dtype, name)


def test_it_learns_on(run):
    """One iteration moves every parameter by as much, in units of its scale, and the whole downhill."""
    n, before = len(run.members), {name: v.copy() for name, v in run.session.parameters.items()}
    gradient = run.session.exact_gradient()
    run.session.step(1)
    moved = {name: v - before[name] for name, v in run.session.parameters.items()}
    downhill = sum((moved[name] * gradient[name]).reshape(n, -1).sum(axis=1) for name in moved)
    assert np.all(downhill < 0)  # -eta*dC*(gradient.theta)/delta**2, and dC has the sign of gradient.theta
    sizes = {"g": 20e-6, "b": 0.1}
    steps = np.concatenate([(np.abs(v) / sizes[name[-1]]).reshape(n, -1) for name, v in moved.items()], axis=1)
    np.testing.assert_allclose(
        steps, np.broadcast_to(steps[:, :1], steps.shape), rtol=1e-9 if run.dtype == "float64" else 0.05
    )
    for name, view in run.session.parameters.items():
        view[...] = before[name]


# ---- mistakes in an edit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (NEURON_LINE, "V = V0*clip(I*Rf + b + theta_b, 0, 1) : volt", "clip"),
        (NEURON_LINE, "V = clip((I*Rf + b + theta_b)/V0, 0, 1) : volt", "volt"),
        (NEURON_LINE, "V = V0*tanh((I + b + theta_b)/V0) : volt", "I"),
        (SYNAPSE_LINE, "I_post = (g + theta_g)*sinh(V_pre)*a : amp (summed)", "sinh"),
        (SYNAPSE_LINE, "I_post = (g + theta_g)*sinh(V_pre/a) : amp (summed)", "amp"),
        (SYNAPSE_LINE, "I_post = (g + theta_g)*sinh(V_pre/Rf)*a : amp (summed)", "sinh"),
        (SYNAPSE_LINE, "I_post = (g + theta_g)*(E - I_post) : amp (summed)", "'I_post' is amp"),
        (SYNAPSE_LINE, "I_post = (g + theta_g)*(Rf - b_post) : amp (summed)", "Rf"),
        (SYNAPSE_LINE, "I_post = (g + theta_g)*(E - b_pots) : amp (summed)", "b_post"),
        (POOL_LINE, "I_post = V_pre : amp (summed)", "amp"),
    ],
)
def test_a_mistaken_edit_is_refused_at_its_line(tmp_path, old, new, complaint):
    path = edited(tmp_path, ((old, new),))
    line = 1 + path.read_text().split(new)[0].count("\n")
    with pytest.raises(mgd.NetlistError) as refusal:
        mgd.load(path)
    mine = [entry for entry in str(refusal.value).splitlines() if entry.startswith(f"{path}:{line}: ")]
    assert any(complaint in entry for entry in mine), str(refusal.value)


def test_a_synapse_that_reads_what_it_drives_is_refused(tmp_path):
    new = "I_post = (g + theta_g)*(E - V_post) : amp (summed)"
    with pytest.raises(mgd.NetlistError, match="`conv`.*depends on itself"):
        mgd.load(edited(tmp_path, ((SYNAPSE_LINE, new),)))


# ---- netlists of the repository ------------------------------------------------------------------------------------

X_NEURON, X_SYNAPSE = "tanh(I + b + theta_b + theta)", "(w + theta_w)*x_pre"
LIBRARY_EDITS = {
    "clip": ((X_NEURON, "clip(I + b + theta_b + theta, 0, 1)"), CLIP, None),
    "sinh": ((X_SYNAPSE, "(w + theta_w)*sinh(x_pre/0.7)*0.7"), TANH, sinh_synapse(0.7)),
}


def library_network(netlist: str, neuron: Neuron, synapse: Synapse | None) -> Network:
    """With d = 1: the widths of the maps are 1, 1, 2, 2, 4, 4."""
    if "mlp" in netlist:
        sizes = [(64, 6), (6, 10)]
        names = ["hidden", "logits"]
        couplings = [Dense() if synapse is None else dense_edges(n, (m,), synapse) for n, m in sizes]
    else:
        names, couplings, shape = [], [], (1, 28, 28)
        for k, channels in enumerate((1, 1, 2, 2, 4, 4), start=1):
            made = conv_edges(shape, channels, 3, padding=1, synapse=synapse) if synapse else Conv2d(padding=1)
            names.append(f"conv{k}")
            couplings.append(made)
            shape = (channels, *shape[1:])
            if k % 2 == 0:
                names.append("")
                couplings.append(pool_edges(shape, 2, 2))
                shape = (channels, shape[1] // 2, shape[2] // 2)
        for name, n, m in (("dense1", 36, 4), ("dense2", 4, 4), ("logits", 4, 10)):
            names.append(name)
            couplings.append(dense_edges(n, (m,), synapse) if synapse else Dense())
    layers = [
        Layer(c, LINEAR if n in ("", "logits") else neuron, f"{n}.w" if n else None, f"{n}.b" if n else None)
        for n, c in zip(names, couplings, strict=True)
    ]
    return Network(layers, cross_entropy)


@pytest.mark.parametrize("edit", LIBRARY_EDITS)
@pytest.mark.parametrize("netlist", ["digits_mlp", "fashion_mnist_cnn"])
def test_edited_netlists_of_the_library(netlist, edit, tmp_path):
    replace, neuron, synapse = LIBRARY_EDITS[edit]
    path = edited(tmp_path, (replace,), (NETLISTS / f"{netlist}.yaml").read_text())
    circuit = mgd.load(path, **({"h": 6} if "mlp" in netlist else {"d": 1}))
    session = mgd.Session(circuit, batch=2, target="numpy", dtype="float64")
    rng = np.random.default_rng(8)
    for name, view in session.parameters.items():
        fan = max(1, int(np.prod(view.shape[1:])))
        view[...] = (
            rng.uniform(0.2, 0.6, view.shape) if name.endswith(".b") else rng.normal(size=view.shape) * 0.7 / fan**0.5
        )
    x, y = rng.random((2, *circuit.input_shape), dtype=np.float32), np.array([3, 9])
    session.present(x, y)
    network, (own,) = library_network(netlist, neuron, synapse), members_of(session)
    assert_close(session.outputs(), network.outputs(own, x), "float64")
    assert_close(session.cost(), network.cost(own, x, onehot(y, 10)), "float64")
    expected, found = network.gradient(own, x, onehot(y, 10)), session.exact_gradient()
    for name in expected:
        assert_close(found[name], expected[name].mean(axis=0), "float64", name)


# ---- other post-synaptic variables ---------------------------------------------------------------------------------

POST = """
circuit: post
kinds:
  neuron:
    equations: |
      x = tanh(I) : 1
      I : 1
      {v}
    initial: {initial}
  pull:
    equations: |
      I_post = w*x_pre*(0.4 - v_post) : 1 (summed)
      w : 1 (plastic)
chain:
  - image: {{shape: [2, 5, 4], equations: "x : 1"}}
  - conv: {{channels: 2, kind: neuron, via: pull, conv2d: {{kernel: 3, padding: 1, stride: 2}}}}
  - out: {{shape: 3, kind: neuron, via: pull}}
task: {{x_image: x, target: y{task}}}
cost: {{C: "mean_square(x_out, target)"}}
"""


@pytest.mark.parametrize(
    "given",
    [
        {"v": "v : 1", "initial": "{v: 0.1 + 0.01*i}", "task": ""},
        {"v": "v : 1 (constant)", "initial": "{v: 0.1 + 0.01*i}", "task": ""},
        {"v": "v = 0.1 + 0.01*i : 1", "initial": "{}", "task": ""},
        {"v": "v : 1", "initial": "{}", "task": ", v_conv: 0.1 + 0.01*i, v_out: 0.1 + 0.01*i"},
    ],
    ids=["initial", "constant", "stored", "input"],
)
def test_synapses_read_any_post_synaptic_variable_that_is_there_before(given, tmp_path):
    path = tmp_path / "post.yaml"
    path.write_text(POST.format(**given))
    session = mgd.Session(mgd.load(path), batch=2, target="numpy", dtype="float64")
    rng = np.random.default_rng(4)
    for view in session.parameters.values():
        view[...] = rng.normal(size=view.shape)
    x, y = rng.random((2, 2, 5, 4), dtype=np.float32), rng.random((2, 3))
    session.present(x, y)
    pull = gated_driving_force(0.4)
    conv = conv_edges((2, 5, 4), 2, 3, 2, 1, synapse=pull)
    layers = [
        Layer(conv, TANH, "conv.w", v="conv.v"),
        Layer(dense_edges(12, (3,), pull), TANH, "out.w", v="out.v"),
    ]
    (own,) = members_of(session)
    own |= {"conv.v": 0.1 + 0.01 * np.arange(12.0).reshape(2, 3, 2), "out.v": 0.1 + 0.01 * np.arange(3.0)}
    network = Network(layers, mean_square)
    assert_close(session.outputs(), network.outputs(own, x), "float64")
    expected, found = network.gradient(own, x, y), session.exact_gradient()
    for name in found:
        assert_close(found[name], expected[name].mean(axis=0), "float64", name)


READ_ACROSS = """
circuit: read_across
kinds:
  neuron:
    equations: |
      x = tanh(I + b) : 1
      I : 1
      b : 1 (plastic, per channel)
      u : 1 (plastic)
  weights:
    equations: |
      I_post = gain*w*x_pre*u_pre*b_pre/(1 + b_post**2) : 1 (summed)
      w : 1 (plastic)
      gain : 1 (plastic, shared)
  plain:
    equations: |
      I_post = w*x_pre : 1 (summed)
      w : 1 (plastic)
chain:
  - image: {shape: [1, 4, 5], equations: "x : 1"}
  - first: {channels: 2, kind: neuron, via: plain, conv2d: 2}
  - second: {channels: 3, kind: neuron, via: weights, conv2d: {kernel: 2, padding: 1}}
  - third: {shape: [3, 4, 5], kind: neuron, via: weights, one_to_one: true}
  - out: {shape: 2, kind: neuron, via: weights, replace: {u: none}}
task: {x_image: x, target: y}
cost: {C: "mean_square(x_out, target)"}
"""


@pytest.mark.parametrize("target, batch", [("numpy", 2), ("cpp", 1), ("cpp", 2), ("cpp", 5)])
def test_the_gradient_by_parameters_that_synapses_read_on_either_side(target, batch, tmp_path):
    """Biases and gains of both populations, per unit and per channel, and one number of a whole coupling."""
    path = tmp_path / "read_across.yaml"
    path.write_text(READ_ACROSS)
    session = mgd.Session(mgd.load(path), batch=batch, target=target, dtype="float64")
    rng = np.random.default_rng(4)
    for view in session.parameters.values():
        view[...] = rng.uniform(0.3, 1, view.shape) * rng.choice([-1, 1], view.shape)
    session.present(rng.random((batch, 1, 4, 5)), rng.random((batch, 2)))
    gradient = session.exact_gradient()
    assert {"first.u", "first.b", "second.gain", "out.gain", "out.b"} <= set(gradient)
    size = max(np.abs(g).max() for g in gradient.values())
    for name, view in session.parameters.items():
        slope = np.zeros(view.shape)
        for index in np.ndindex(view.shape):
            kept, costs = view[index].copy(), []
            for h in (1e-6, -1e-6):
                view[index] = kept + h
                costs.append(session.cost().mean())
            view[index] = kept
            slope[index] = (costs[0] - costs[1]) / 2e-6
        np.testing.assert_allclose(gradient[name], slope, rtol=1e-6, atol=1e-8 * size, err_msg=name)


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_negative_powers_of_an_index(target):
    """Whole numbers, of which numpy refuses negative powers."""
    text = """
circuit: powers
chain:
  - input: {shape: 1, equations: "x : 1"}
  - out: {shape: 3, equations: "x = I*(i + 1)**-1 : 1\\nI : 1", via: ones}
kinds: {ones: {equations: "I_post = w*x_pre : 1 (summed)\\nw : 1", initial: {w: 1}}}
task: {x_input: x, target: onehot(y)}
cost: {C: "mean_square(x_out, target)"}
"""
    session = mgd.Session(mgd.load(text), target=target, dtype="float64")
    session.present(np.array([[6.0]]), np.array([0]))
    np.testing.assert_allclose(session.outputs().ravel(), [6, 3, 2])
