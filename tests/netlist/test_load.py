"""From text to a description: names, shapes, roles, rules, overrides, includes."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mgdcircuits.netlist
from mgdcircuits.errors import NetlistError
from mgdcircuits.netlist import library, load, sizes
from mgdcircuits.netlist.checks.registry import Report
from mgdcircuits.netlist.expressions import parse
from mgdcircuits.netlist.learning import evaluations
from mgdcircuits.netlist.show import effective, origins
from mgdcircuits.netlist.source import dump, leaves, merge, read
from mgdcircuits.netlist.spec import (
    Axis,
    CircuitSpec,
    Conv2d,
    CouplingSpec,
    Dense,
    Pool,
    Position,
    Reduce,
    Role,
    Sharing,
    Sparse,
    Variable,
    VariableKind,
)
from mgdcircuits.netlist.topologies import spatial

NETLISTS = Path(__file__).parent.parent.parent / "netlists"
ALL = sorted(path.name for path in NETLISTS.glob("*.yaml"))


def variable(spec: CircuitSpec, qualified: str) -> Variable:
    """A variable by its qualified name."""
    name, _, word = qualified.partition(".")
    return next(
        v for t in (*spec.populations, *spec.couplings) if t.name == name for v in t.variables if v.name == word
    )


def coupling(spec: CircuitSpec, name: str) -> CouplingSpec:
    return next(c for c in spec.couplings if c.name == name)


@pytest.mark.parametrize("name", ALL)
def test_netlists_are_valid(name: str) -> None:
    """Every netlist that comes with the package; every expression of the description can be parsed."""
    spec = load(NETLISTS / name)
    for thing in (*spec.populations, *spec.couplings):
        for found in thing.variables:
            for text in (found.expression, found.initial):
                if text is not None:
                    parse(text)
    assert spec.name in effective(spec)


def test_xor() -> None:
    spec = load(NETLISTS / "xor.yaml")
    assert [(p.name, p.shape) for p in spec.populations] == [("input", (2,)), ("hidden_layer", (2,)), ("output", (1,))]
    assert [(c.name, c.pre, c.post, c.topology) for c in spec.couplings] == [
        ("hidden_layer", "input", "hidden_layer", Dense()),
        ("output", "hidden_layer", "output", Dense()),
    ]
    roles = {v.name: v.role for v in spec.populations[1].variables}
    assert roles["x"] is Role.STORED and roles["I"] is Role.TARGET and roles["b"] is Role.PLASTIC
    assert variable(spec, "input.x").role is Role.INPUT
    assert variable(spec, "hidden_layer.theta_b").perturbs == "b"
    assert variable(spec, "hidden_layer.theta").perturbs is None
    assert variable(spec, "output.theta_w").perturbs == "w"
    assert sum(sizes.parameters(spec).values()) == 9
    (system,) = spec.learning
    assert system.passes == (("clean", 0.0), ("plus", 1.0)) and evaluations(spec.learning) == 2
    assert [s.parameter for s in system.sites] == ["hidden_layer.w", "hidden_layer.b", "output.w", "output.b"]
    assert system.sites[0].theta == "hidden_layer.theta_w"
    assert system.sites[0].on_write == "w = w + request\nwrites += int(request != 0)"
    assert spec.parameters["delta"] == "norm / sqrt(K)"
    assert spec.task is not None and spec.task.target_shape == (1,)
    assert spec.cost is not None and spec.cost.expression == "mean((x_output - target) ** 2)"
    assert spec.parameters["tau_x"] == pytest.approx(2e-6)


TABLE = {
    1: (520, 2762), 2: (1908, 5514), 4: (7318, 11018), 8: (28674, 22026), 24: (254578, 66058), 32: (451818, 88074),
    48: (1014874, 132106), 64: (1802698, 176138),
}  # fmt: skip
"""d: (N, K), mgd.md section 2 (Oripov et al. 2025, table 1)."""


@pytest.mark.parametrize("d", TABLE)
def test_counts_of_the_cnn(d: int) -> None:
    spec = load(NETLISTS / "fashion_mnist_cnn.yaml", {"d": d})
    assert (sum(sizes.parameters(spec).values()), sum(sizes.nodes(spec).values())) == TABLE[d]


def test_cnn_blocks_axes_and_names() -> None:
    spec = load(NETLISTS / "fashion_mnist_cnn.yaml")
    assert spec.learning[0].perturb is not None
    assert spec.learning[0].perturb.blocks[0] == ("conv1.theta_w", "conv1.theta_b")
    assert len(spec.learning[0].perturb.blocks) == 9 and evaluations(spec.learning) == 10
    assert variable(spec, "conv1.b").axis is Axis.CHANNEL and variable(spec, "conv1.theta_b").axis is Axis.CHANNEL
    assert variable(spec, "conv1.theta").axis is Axis.UNIT
    assert variable(spec, "dense1.b").axis is Axis.UNIT  # a unit without positions is its own channel
    assert variable(spec, "conv1.w").sharing is Sharing.MEMBER and variable(spec, "conv1.x").sharing is Sharing.REPLICA
    assert coupling(spec, "pool1").reduce is Reduce.MAX and coupling(spec, "pool1").topology == Pool((2, 2), (2, 2))
    shapes = {p.name: p.shape for p in spec.populations}
    assert (shapes["pool1"], shapes["pool2"], shapes["pool3"]) == ((4, 14, 14), (8, 7, 7), (16, 3, 3))
    assert spec.parameters["tau_x"] == pytest.approx(10e-6)
    assert spec.task is not None and spec.task.accuracy == "argmax(x_logits) == y"


def test_node_perturbation_changes_learning_only() -> None:
    wp, np_ = load(NETLISTS / "fashion_mnist_cnn.yaml"), load(NETLISTS / "fashion_mnist_cnn_np.yaml")
    assert [(p.name, p.shape, p.variables) for p in wp.populations] == [
        (p.name, p.shape, p.variables) for p in np_.populations
    ]
    (system,) = np_.learning
    site = next(s for s in system.sites if s.parameter == "conv2.w")
    assert site.theta is None and site.block == 1 and "theta_post" in site.estimate


# overrides


def test_override_of_a_parameter_and_a_clock() -> None:
    spec = load(NETLISTS / "fashion_mnist_cnn.yaml", {"d": 2, "eta": "0.1/(1 + n_theta)", "tau_theta": "10*iteration"})
    assert spec.parameters["d"] == 2.0
    assert spec.parameters["eta"] == "0.1 / (1 + n_theta)"
    assert spec.parameters["tau_theta"] == pytest.approx(100e-6)
    assert "0.1 / (1 + n_theta)" in spec.learning[0].sites[0].update
    assert dict(spec.overrides)["d"] == 2


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"etta": 1}, "did you mean `eta`"),
        ({"Rf": 10_000}, "write `Rf=10000*ohm`"),
        ({"tau_p": "3"}, "a number without unit; expected a time"),
        ({"eta": "0.1 +"}, "cannot read"),
    ],
)
def test_wrong_overrides(overrides: dict[str, object], part: str) -> None:
    with pytest.raises(NetlistError, match="override") as caught:
        load(NETLISTS / "analog_rc.yaml", overrides)
    assert part in str(caught.value)


def test_prefix_of_a_unit_changes_nothing() -> None:
    """50*uS or 50000*nS: the same numbers."""
    text = (NETLISTS / "analog_rc.yaml").read_text()
    first, second = load(text), load(text.replace("50*uS", "50000*nS").replace("{g: 10*uS}", "{g: 10000*nS}"))
    for name, value in first.parameters.items():
        other = second.parameters[name]
        assert math.isclose(value, other, rel_tol=1e-12) if isinstance(value, float) else value == other
    assert math.isclose(variable(first, "hidden.g").scale or 0, variable(second, "hidden.g").scale or 1, rel_tol=1e-12)


# expansion

LOOP = """circuit: loop
parameters: {d: 2}
kinds:
  relu:
    equations: |
      x = clip(I + b, 0, inf) : 1
      I : 1
      b : 1 (plastic, per channel)
  weights:
    equations: |
      I_post = w*x_pre : 1 (summed)
      w : 1 (plastic)
    initial: {w: glorot_uniform()}
chain:
  - image: {shape: [1, 8, 8], equations: "x : 1"}
  - for: {m: [1, 2]}
    chain:
      - a$m: {channels: m*d, kind: relu, via: weights, conv2d: {kernel: 3, padding: 1}}
      - b$m: {like: a$m}
      - p$m: {via: "mean_pool(2)"}
  - out: {shape: 4*d, kind: relu, via: weights}
task: {x_image: x}
"""


def test_chain_for_and_like() -> None:
    spec = load(LOOP)
    assert [(p.name, p.shape) for p in spec.populations] == [
        ("image", (1, 8, 8)), ("a1", (2, 8, 8)), ("b1", (2, 8, 8)), ("p1", (2, 4, 4)),
        ("a2", (4, 4, 4)), ("b2", (4, 4, 4)), ("p2", (4, 2, 2)), ("out", (8,)),
    ]  # fmt: skip
    assert coupling(spec, "a2").topology == Conv2d((3, 3), (1, 1), (1, 1))
    assert coupling(spec, "p2").reduce is Reduce.MEAN
    assert variable(spec, "a2.w").initial == "sqrt(6 / (18 + 36)) * (2 * rand() - 1)"  # fan_in 2*9, fan_out 4*9


def test_relay_takes_name_and_unit_of_what_it_hands_on() -> None:
    text = LOOP.replace("x = clip(I + b, 0, inf) : 1", "V = clip(I + b, 0*volt, inf*volt) : volt")
    text = text.replace("I : 1", "I : volt").replace("b : 1", "b : volt").replace("x_pre : 1", "V_pre : volt")
    text = text.replace("x : 1", "V : volt").replace("x_image: x", "V_image: x*volt")
    spec = load(text)
    assert variable(spec, "p1.V").unit == "volt" and variable(spec, "p1.I").unit == "volt"


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30)),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_shape_of_a_convolution(
    shape: tuple[int, int, int], kernel: int, stride: int, padding: int, dilation: int
) -> None:
    """The inferred size counts the places where a window fits."""
    topology = Conv2d((kernel, kernel), (stride, stride), (padding, padding), (dilation, dilation))
    for axis, found in enumerate(spatial(topology, shape)):
        padded = shape[axis + 1] + 2 * padding
        fits = [s for s in range(0, padded, stride) if s + dilation * (kernel - 1) + 1 <= padded]
        assert max(found, 0) == len(fits)


SYNAPSES = """circuit: net
parameters: {tau: 10*ms}
clocks: {dt: 1*ms}
kinds:
  cell: {equations: "dv/dt = (I - v)/tau : 1\\nI : 1", initial: {v: 0}}
  wire:
    equations: |
      I_post = w*v_pre : 1 (summed)
      w : 1
    initial: {w: randn()/sqrt(fan_in)}
populations:
  one: {shape: 10, kind: cell}
  two: {shape: 20, kind: cell}
synapses:
  one, two -> two: {kind: wire, sparse: {in_degree: 5, self: false}}
  two -> one: {kind: wire, dense: true, delay: 2*ms, name: feedback, replace: {I_post: 2*w*v_pre}}
"""


def test_synapses() -> None:
    spec = load(SYNAPSES)
    assert [c.name for c in spec.couplings] == ["one_to_two", "two_to_two", "feedback"]
    assert coupling(spec, "two_to_two").topology == Sparse(in_degree=5, self_connections=False)
    assert coupling(spec, "feedback").delay == "2*ms"
    assert variable(spec, "feedback.I_post").expression == "2*w*v_pre"
    assert variable(spec, "one_to_two.w").initial == "randn() / sqrt(5)"
    assert variable(spec, "one.v").kind is VariableKind.DIFFERENTIAL


def test_names_that_collide_are_qualified() -> None:
    """Both the neuron and the synapse have `theta`: the coupling is called `pre_to_post`."""
    text = LOOP.replace("b : 1 (plastic, per channel)", "b : 1 (plastic, per channel)\n      w : 1")
    text = text.replace("  weights:\n", "    initial: {w: 1}\n  weights:\n").replace("I + b, 0", "I + b*w, 0")
    assert "image_to_a1" in {c.name for c in load(text).couplings}


def test_per_device_is_drawn_once() -> None:
    found = variable(load(NETLISTS / "crossbar_rram.yaml"), "hidden.endurance_g")
    assert found.role is Role.DEVICE and found.expression is None
    assert found.initial == "endurance*exp(0.5*randn())"


# learning


def with_update(update: str) -> CircuitSpec:
    text = (NETLISTS / "xor.yaml").read_text()
    return load(text.replace("{request: -eta/K*G, every: tau_theta}", update))


def test_momentum_and_adam() -> None:
    site = with_update("{use: momentum(gamma=0.5), every: tau_theta}").learning[0].sites[0]
    assert [name for name, _ in site.states] == ["velocity"] and "0.5 * velocity" in site.update
    site = with_update('{use: "adam(beta1=0.8, bias_correction=0)", every: tau_theta}').learning[0].sites[0]
    assert [name for name, _ in site.states] == ["first_moment", "second_moment"]
    assert "0.8 * first_moment" in site.update and "request = " in site.update.splitlines()[-1]


def test_states_of_an_update_have_units() -> None:
    """A cost in watt needs a learning rate in 1/watt, and the momentum of eta*scale*G is a number."""
    text = (NETLISTS / "analog_rc.yaml").read_text().replace("request: -eta*scale**2*G,", "use: momentum(gamma=0.9),")
    text = text.replace("mean((V_output/V0 - target)**2)", "mean((V_output/V0 - target)**2)*watt")
    spec = load(text.replace("eta: 0.01 ", "eta: 0.01/watt "))
    assert spec.learning[0].sites[0].states == (("velocity", (0,) * 7),)
    with pytest.raises(NetlistError, match="the unit of `hidden.g`"):
        load(text)


def test_signals_keep_what_they_read_first() -> None:
    system = load(NETLISTS / "xor_analog.yaml").learning[0]
    assert [a.name for a in system.signals] == ["dC", "C_last"] and not system.clear
    assert system.sites[0].accumulate == "G + (estimate - G)*low"


def test_scale_of_a_code_is_that_of_its_parameter() -> None:
    perturb = load(NETLISTS / "analog_rc.yaml").learning[0].perturb
    assert perturb is not None
    scales = {"hidden.theta_g": 10e-6, "hidden.theta_b": 0.3}
    for name, scale in scales.items():
        number = re.search(r"\(([-0-9.e]+) \*", perturb.codes[name])
        assert number and math.isclose(float(number[1]), scale, rel_tol=1e-12)


@pytest.mark.parametrize("code", sorted(library.codes()))
def test_codes_of_the_library(code: str) -> None:
    call = "sinusoid(spacing=1*kHz)" if code == "sinusoid" else f"{code}()"
    text = (
        (NETLISTS / "xor.yaml")
        .read_text()
        .replace("bernoulli()", call)
        .replace("tau_theta: iteration", "tau_theta: 1000*iteration")
    )
    perturb = load(text).learning[0].perturb
    assert perturb is not None
    assert f"{code}(" not in perturb.codes["output.theta_w"], "the snippet is written out"


def test_plain_bernoulli_is_one_bit() -> None:
    perturb = load(NETLISTS / "xor.yaml").learning[0].perturb
    assert perturb is not None and perturb.codes["output.theta_w"].endswith("(2 * bit() - 1)")


# includes, positions, text


def test_include_merges_by_key_and_keeps_origins(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(LOOP)
    (tmp_path / "wide.yaml").write_text("include: base.yaml\ncircuit: wide\nparameters:\n  d: 3\n")
    spec = load(tmp_path / "wide.yaml")
    assert spec.name == "wide" and spec.parameters["d"] == 3.0
    assert spec.populations[1].shape == (3, 8, 8)
    shown = origins(tmp_path / "wide.yaml")
    assert re.search(r"wide.yaml:4 +parameters.d: 3", shown) and re.search(r"base.yaml:22 +task.x_image: x", shown)
    again = load(spec.text)  # the merged text stands alone
    assert [(p.name, p.shape) for p in again.populations] == [(p.name, p.shape) for p in spec.populations]


def test_none_takes_an_included_key_out_at_any_depth(tmp_path: Path) -> None:
    """Here the request of an update and a list; `none` as a value stays one."""
    (tmp_path / "over.yaml").write_text(f"""
include: {NETLISTS / "xor.yaml"}
circuit: over
parameters: {{eta: 0.1}}
task: {{accuracy: none}}
learning: {{mgd: {{update: {{request: none, use: adam}}}}}}
record: none
""")
    base, spec = load(NETLISTS / "xor.yaml"), load(tmp_path / "over.yaml")
    assert "first_moment" in spec.learning[0].sites[0].update, "`eta` is read by the library alone"
    assert base.task is not None and base.task.accuracy is not None and base.record
    assert spec.task is not None and spec.task.accuracy is None and not spec.record


def test_schedule_over_an_included_netlist(tmp_path: Path) -> None:
    """A formula disappears into what reads it; here that is the library alone."""
    (tmp_path / "over.yaml").write_text(
        f"include: {NETLISTS / 'digits_mlp.yaml'}\ncircuit: over\nparameters: {{eta: 0.1/(1 + n_theta)}}\n"
    )
    assert "n_theta" in load(tmp_path / "over.yaml").learning[0].sites[0].update


def test_none_under_replace_removes_a_variable(tmp_path: Path) -> None:
    """There it is a value: the variable of the kind goes, not the replacement of the included file."""
    kind, over = "{use: tanh, replace: {x: I, theta: 0}}", "{replace: {theta: none}}"
    report = Report()
    base, top = (read(f"circuit: a\nkinds: {{k: {text}}}\n", report)[0] for text in (kind, over))
    replaced = merge(base, top)["kinds"]["k"]["replace"]
    assert {str(k): str(v) for k, v in replaced.items()} == {"x": "I", "theta": "none"} and not report


@pytest.mark.parametrize("name", ALL)
def test_dump_reads_back(name: str) -> None:
    report = Report()
    tree, _, _ = read(NETLISTS / name, report)
    again, _, _ = read(dump(tree), report)
    assert [(p, str(v)) for p, v in leaves(again)] == [(p, str(v)) for p, v in leaves(tree)]


def test_positions_are_lines_of_the_file() -> None:
    lines = (NETLISTS / "xor.yaml").read_text().splitlines()
    at = variable(load(NETLISTS / "xor.yaml"), "output.theta_b").at
    assert isinstance(at, Position) and "theta_b : 1 (perturbation of b)" in lines[at.line - 1]


def test_what_is_left_empty_is_reported_where_its_key_stands(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(f"include: {NETLISTS / 'xor.yaml'}\ncircuit: a\nhardware:\n\nrecord: [C]\n")
    with pytest.raises(NetlistError, match=r"net\.yaml:3: nothing in `hardware`"):
        load(tmp_path / "net.yaml")


def test_sample_elements_become_names() -> None:
    spec = load(NETLISTS / "miconi_dnms.yaml")
    assert spec.trial is not None
    assert spec.trial.phases[0].set["stimulus.s"] == "int(x__0 == i)"


def test_netlist_never_imports_brian2() -> None:
    folder = Path(mgdcircuits.netlist.__file__).parent
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(m.startswith("brian2") for m in modules), path
