"""Costs, parameters and states that are not finite stop a run at once, with iteration, names and likely causes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import divergence
from mgdcircuits.cli import cli, run
from mgdcircuits.errors import RunError

ROOT = Path(__file__).parent.parent
XOR = ROOT / "netlists" / "xor.yaml"
CONV = ROOT / "tests" / "netlists" / "valid" / "small_conv.yaml"
# Outputs that grow without bound, ever faster.
GROWING = f"""
include: {CONV}
circuit: growing
kinds:
  linear: {{use: tanh, replace: {{x: exp(I + b + theta_b + theta)}}}}
cost: {{C: "0 - mean(x_logits)"}}
"""
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.random((9, 1, 4, 4)).astype(np.float32), RNG.integers(0, 4, 9)
TARGETS = ("numpy", "cpp")


def diverges(session, n=1000, calls=1) -> str:
    with pytest.raises(RunError) as caught:
        for _ in range(calls):
            session.step(n)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{session.circuit.name}: ")
    return text


def first_bad_iteration(circuit, **options) -> int:
    """By looking after every single iteration."""
    session = mgd.Session(circuit, on_nan="continue", **options)
    for _ in range(1000):
        session.step(1)
        costs = [session.target.array(name) for name in divergence.costs(session)]
        if not all(np.isfinite(c).all() for c in costs):
            return session.iteration
    raise AssertionError("nothing diverged")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("eta", [0.003, 0.1])
def test_the_iteration_is_exact(target, eta):
    """However many iterations a call runs."""
    circuit = mgd.load(GROWING, eta=eta)
    options = {"target": target, "data": (IMAGES, LABELS), "seed": 1}
    expected = first_bad_iteration(circuit, **options)
    assert 5 < expected < 900
    for n in (1, 7, 1000):
        session = mgd.Session(circuit, **options)
        text = diverges(session, n, calls=1000 // n + 1)
        assert session.iteration == expected, n
        assert f"at iteration {expected} the cost is not finite any more; infinite or not a number: " in text
        assert f"; try a smaller eta = {eta} or delta = 0.01, or go on all the same with --on-nan continue" in text


@pytest.mark.parametrize("target", TARGETS)
def test_members_are_named(target):
    session = mgd.Session(mgd.load(XOR), target=target, data="xor", members=30)
    session.step(3)
    for member in (2, 17):
        session.parameters["output.b"][member] = np.nan
    text = diverges(session)
    assert "at iteration 4 the cost in members 2, 17 is not finite any more; infinite or not a number: " in text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("batch", [3, 20])
def test_one_sample_of_a_batch_is_enough(target, batch):
    """Other lanes than those of the samples do not count, and one of them does."""
    circuit = mgd.load(CONV)
    x, y = np.ones((batch, 1, 4, 4), np.float32), np.zeros(batch, int)
    session = mgd.Session(circuit, target=target, batch=batch, members=2)
    session.present(x, y)
    session.step(2)
    x[-1, 0, 2, 2] = np.nan
    session.present(x, y)
    assert "at iteration 3 the cost in members 0, 1 is not finite" in diverges(session)


@pytest.mark.parametrize("target", TARGETS)
def test_a_parameter_that_the_cost_does_not_show(target):
    """A saturated neuron hides it; it is found by looking, within 0.05 s of running or at the next row."""
    circuit = mgd.load(XOR, eta=0)
    session = mgd.Session(circuit, target=target, data="xor")
    session.step(10)
    session.parameters["output.b"][...] = np.inf
    text = diverges(session, 100, calls=100_000)
    assert re.match(r"xor: (at iteration|between iterations) \d+.* output.b became infinite or not a number; try", text)
    assert "try a smaller norm = 0.05" in text


@pytest.mark.parametrize("netlist", ["analog_rc", "lif_reward"])
def test_states_of_circuits_in_time(netlist):
    circuit = mgd.load(ROOT / "netlists" / f"{netlist}.yaml")
    session = mgd.Session(circuit, target="numpy", data="xor" if netlist == "analog_rc" else None)
    session.step(1)
    state = {"analog_rc": "hidden.g", "lif_reward": "lif.w"}[netlist]
    session.target.write(state, np.nan)
    text = diverges(session, 1, calls=1000)
    assert state in text


@pytest.mark.parametrize("target", TARGETS)
def test_to_go_on_all_the_same(target):
    session = mgd.Session(mgd.load(XOR, eta="1e60"), target=target, data="xor", on_nan="continue")
    session.step(500)
    assert session.iteration == 500 and np.isnan(session.parameters["output.w"]).any()


@pytest.mark.parametrize("target", TARGETS)
def test_a_session_that_diverged_can_be_mended(target):
    circuit = mgd.load(XOR, eta="1e60")
    session = mgd.Session(circuit, target=target, data="xor")
    start = {n: p.copy() for n, p in session.parameters.items()}
    diverges(session)
    for name, values in start.items():
        session.parameters[name][...] = values
    session.set(eta=0.5)
    for name in session.parameters:
        session.view(f"{name}:G")[...] = 0
    session.step(500)
    assert session.iteration == 502 and all(np.isfinite(p).all() for p in session.parameters.values())


def test_an_unknown_setting():
    with pytest.raises(RunError, match="on_nan 'raise' is unknown; expected one of stop, continue"):
        mgd.Session(mgd.load(XOR), target="numpy", on_nan="raise")


# Runs


@pytest.mark.parametrize("target", TARGETS)
def test_a_run_stops_and_can_go_on(tmp_path, target):
    """The rows until then are kept, and so is the last checkpoint, from which it goes on regardless."""
    circuit, out = mgd.load(XOR, eta="1e60"), tmp_path / "run.nc"
    options = {"iterations": 60, "evaluate_every": 20, "target": target, "progress": False, "seed": 1}
    with pytest.raises(
        RunError, match=r"^xor: at iteration \d+ the cost is not finite any more; .*try a smaller eta = 1e\+60"
    ):
        mgd.train(circuit, out=out, **options)
    assert mgd.open_run(out).attrs["state"].startswith("failed: xor: at iteration")
    assert out.with_name("run.nc.state").exists()
    run = mgd.train(circuit, out=out, **options, resume=True, on_nan="continue")
    assert list(run["iteration"]) == [0, 20, 40, 60] and np.isnan(run["cost_test"][-1])


def test_a_test_set_that_is_not_finite(tmp_path):
    x, y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    circuit = mgd.load(XOR)
    session = mgd.Session(circuit, target="numpy", data=(x, y))
    with pytest.raises(RunError, match="at iteration 0 the cost of the test set is not finite any more; try a smaller"):
        session.check_finite(np.float64(np.nan))
    session.check_finite(np.float64(1.0))


def test_the_command_line(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["train", str(XOR), "--set", "eta=1e60", "--iterations", "50", "--target", "numpy", "--quiet"]
    assert run(cli, call) == 2
    said = capfd.readouterr().err
    assert said.startswith("xor: at iteration 1 hidden_layer.b, output.b, ") and said.count("\n") == 1
    assert run(cli, [*call, "--force", "--on-nan", "continue"]) == 0
