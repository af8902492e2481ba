"""Codes that `perturb: every` holds for several iterations: each lasts as long, and they are those of a run that holds none."""

import re
from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import checkpoint
from mgdcircuits.analysis.prediction import predict
from mgdcircuits.errors import NetlistError, RunError

NETLISTS = Path(__file__).parent.parent / "netlists"
HOLD = 3
TEXT = """
include: {netlist}
circuit: held
parameters: {{delta: 0.01}}
learning:
  {rule}: {{perturb: {{theta_w: "{code}", theta_b: "{code}", every: {every}}}}}
"""


def circuit(netlist: str, rule: str, every: str, code: str = "delta*bernoulli()", **settings: str) -> mgd.Circuit:
    """A netlist with another code, which is held."""
    return mgd.load(TEXT.format(netlist=NETLISTS / netlist, rule=rule, code=code, every=every), **settings)


def codes_drawn(made: mgd.Circuit, data: str, iterations: int, **options) -> dict[str, np.ndarray]:
    """The perturbations of each iteration: (iteration, element, member)."""
    session = mgd.Session(made, data=mgd.datasets.load(data), seed=4, **options)
    names = [n for system in made.spec.learning for block in system.perturb.blocks for n in block]
    found = {name: [] for name in names}
    for _ in range(iterations):
        session.step(1)
        for name, rows in found.items():
            rows.append(np.array(session.target.array(name)))
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.parametrize("target", ["numpy", "cpp"])
@pytest.mark.parametrize(
    ("netlist", "rule", "data", "options"),
    [
        ("xor.yaml", "mgd", "xor", {"batch": 1, "members": 2}),
        ("letters.yaml", "mgd", "letters", {"batch": 5}),
        ("digits_mlp.yaml", "wp", "digits", {"batch": 1, "threads": 2}),  # its codes are bits
    ],
)
def test_a_held_code_is_the_code_of_a_draw(netlist, rule, data, options, target):
    """Draw k of a run that holds its codes is draw k of one that does not."""
    if target == "numpy":
        options = {k: v for k, v in options.items() if k != "threads"}
    held = codes_drawn(circuit(netlist, rule, f"{HOLD}*iteration"), data, 8, target=target, **options)
    free = codes_drawn(circuit(netlist, rule, "tau_p"), data, 3, target=target, **options)
    for name, rows in held.items():
        np.testing.assert_array_equal(rows, free[name][np.arange(8) // HOLD])
        assert (np.diff(free[name], axis=0) != 0).any()


@pytest.mark.parametrize("target", ["numpy", "cpp"])
@pytest.mark.parametrize("code", ["gaussian()", "walsh()"])
def test_other_codes_are_held_too(code, target):
    """Each for three iterations, and then there is another."""
    held = circuit("xor.yaml", "mgd", f"{HOLD}*iteration", f"delta*{code}")
    for rows in codes_drawn(held, "xor", 2 * HOLD, target=target, batch=1).values():
        np.testing.assert_array_equal(rows[:HOLD], np.broadcast_to(rows[0], rows[:HOLD].shape))
        np.testing.assert_array_equal(rows[HOLD:], np.broadcast_to(rows[HOLD], rows[HOLD:].shape))
    every = np.concatenate(
        [rows[[0, HOLD]] for rows in codes_drawn(held, "xor", 2 * HOLD, target=target).values()], axis=1
    )
    assert (every[0] != every[1]).any()


@pytest.mark.parametrize("target", ["numpy", "cpp"])
@pytest.mark.parametrize("hidden", [1, 2, 3, 7, 31, 63])  # of K = 5, 9, 13, 29, 125, 253 parameters
def test_alternating_walsh_codes_flip_after_each_period(hidden, target):
    """Rows of a Hadamard matrix over a period; then the same with all signs flipped, and then as at first."""
    drawn = circuit("xor.yaml", "mgd", "tau_p", "walsh_alternating()", hidden=hidden)
    k = drawn.n_parameters
    period = 1 << k.bit_length()
    parts = codes_drawn(drawn, "xor", 2 * period + 1, target=target, batch=1).values()
    rows = np.concatenate([part.reshape(2 * period + 1, -1) for part in parts], axis=1)
    np.testing.assert_array_equal(rows[:period].T @ rows[:period], period * np.eye(k))
    np.testing.assert_array_equal(rows[period:-1], -rows[:period])
    np.testing.assert_array_equal(rows[-1], rows[0])


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_words_of_a_code_are_those_of_its_draw(target):
    """In a code `n_p` counts draws and `t` is when its draw began; `n_theta` counts updates, as everywhere."""
    k = np.arange(2 * HOLD + 1)
    held = circuit("xor.yaml", "mgd", f"{HOLD}*iteration", "n_p + n_theta/100 + t/ms")
    expected = k // HOLD + k / 100 + k // HOLD * HOLD * 0.002  # an iteration lasts 2 us
    for rows in codes_drawn(held, "xor", len(k), target=target, batch=1).values():
        np.testing.assert_allclose(
            rows.reshape(len(k), -1), np.broadcast_to(expected[:, None], (len(k), rows[0].size)), rtol=1e-5
        )


@pytest.mark.parametrize("every", ["tau_p", f"{HOLD}*iteration"])
@pytest.mark.parametrize("delta", ["0.001/(1 + n_p)", "0.001*exp(-t/(4*us))", "0.001/(1 + n_theta)"])
def test_an_amplitude_that_changes_is_the_same_in_code_and_estimate(delta, every):
    """A parameter is of the present iteration in both, so that the estimate along a code is the slope along it."""
    made = circuit("xor.yaml", "mgd", every, delta=delta, eta=0)
    session = mgd.Session(made, batch=4, seed=2, target="numpy", dtype="float64")
    data = mgd.datasets.load("xor")
    session.present(data.x_train * data.scale, data.y_train)
    exact = session.exact_gradient()
    pairs = {site.parameter: site.theta for site in made.spec.learning[0].sites}
    for _ in range(5):
        session.step(1)
        signs = {p: np.sign(session.target.array(theta)).ravel() for p, theta in pairs.items()}
        slope = sum(float(exact[p].ravel() @ sign) for p, sign in signs.items())
        for p, estimate in session.gradient_estimate().items():
            np.testing.assert_allclose(estimate.ravel(), slope * signs[p], rtol=0.01)


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_a_run_goes_on_inside_a_hold(tmp_path, target):
    """A checkpoint between two draws; the code is not drawn anew."""
    made, data = circuit("xor.yaml", "mgd", "4*iteration"), mgd.datasets.load("xor")
    whole, first, second = (mgd.Session(made, data=data, seed=1, target=target) for _ in range(3))
    whole.step(9)
    first.step(6)
    checkpoint.save(first, tmp_path / "run.checkpoint")
    checkpoint.read(tmp_path / "run.checkpoint").restore(second)
    second.step(3)
    for name, values in whole.parameters.items():
        np.testing.assert_array_equal(values, second.parameters[name])


def test_how_long_is_a_runtime_number():
    """Another hold needs no compilation: the programs differ in one number only."""
    one, other = (mgd.Session(circuit("xor.yaml", "mgd", f"{n}*iteration"), seed=1).program for n in (1, 5))
    assert repr(one.phases()) == repr(other.phases())
    assert dict(one.parameters) | {"hold.mgd": 5.0} == dict(other.parameters)


@pytest.mark.parametrize("read", ["(1 + b)*bernoulli()", "(2*rand_pass() - 1)", "tanh(I)*bernoulli()"])
def test_a_code_of_what_changes_cannot_be_held(read):
    """A code that reads a parameter would change with it, and a draw of a pass is new in every pass."""
    with pytest.raises(
        NetlistError, match=r"the code of `theta_b` reads `.*`, which may change .* expected .*`every: tau_p`"
    ):
        circuit("xor.yaml", "mgd", "2*iteration", f"delta*{read}")
    circuit("xor.yaml", "mgd", "tau_p", f"delta*{read}")


def test_a_time_that_is_nearly_tau_p_is_tau_p():
    """0.1*us is 100*ns, though not to the last digit."""
    session = mgd.Session(circuit("xor.yaml", "mgd", "0.1*us", tau_p="100*ns"), seed=1, target="numpy")
    assert session.clocks.holds == {"mgd": 1}


def test_no_time_at_all_is_refused():
    """Also where frequencies are compared with it."""
    with pytest.raises(NetlistError, match="`mgd` holds a code for 0 second"):
        circuit("xor.yaml", "mgd", "0*second", "delta*sinusoid(1*Hz)")


def test_a_variable_called_like_a_word_is_the_variable():
    """Words of time do not hide what belongs to the object."""
    text = (NETLISTS / "xor.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\bb\b", "n_x", text).replace("theta_b: delta*bernoulli()", "theta_b: delta*(5 + n_x)")
    rows = codes_drawn(mgd.load(text, delta=1), "xor", 3, target="numpy")
    session = mgd.Session(mgd.load(text, delta=1), seed=4, target="numpy")
    for name, found in rows.items():
        if name.endswith("theta_b"):
            bias = session.parameters[name.replace("theta_b", "n_x")].ravel()
            np.testing.assert_allclose(found[0].ravel(), 5 + bias, rtol=1e-5)


def test_held_codes_are_not_predicted():
    """The law is one of codes that are new in each iteration."""
    session = mgd.Session(circuit("xor.yaml", "mgd", "2*iteration"), seed=1, batch=4, target="numpy")
    session.present(np.zeros((4, 2)), np.zeros((4, 1)))
    with pytest.raises(RunError, match="mgd holds a code for 2 iterations"):
        predict(session)
