"""Training: what is written when, what stops it, and that looking does not change it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import training
from mgdcircuits.codegen.numpy_target import NumpyTarget
from mgdcircuits.errors import RecordError, RunError
from mgdcircuits.session import Session
from mgdcircuits.stopping import Condition
from mgdcircuits.training import _Plan

ROOT = Path(__file__).parent.parent
XOR = ROOT / "netlists" / "xor.yaml"
X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([[0], [1], [1], [0]], np.float32)
FAST = {"target": "numpy", "progress": False}


@pytest.fixture(scope="module")
def xor():
    return mgd.load(XOR)


def test_rows_and_coordinates(xor, tmp_path):
    run = mgd.train(xor, iterations=25, evaluate_every=10, out=tmp_path / "run.nc", **FAST)
    assert list(run["iteration"].values) == [0, 10, 20, 25]
    assert list(run["evaluations"].values) == [0, 20, 40, 50]  # a clean and a perturbed pass, one sample
    assert np.allclose(run["hardware_seconds"], [0, 20e-6, 40e-6, 50e-6])
    assert np.all(np.diff(run["wall_seconds"]) > 0)
    assert np.isnan(run["cost"][0]) and np.isfinite(run["cost"][1:]).all()
    assert np.array_equal(run["reward"][1:], -run["cost"][1:])
    assert list(run["parameter"].values) == ["hidden_layer.w", "hidden_layer.b", "output.w", "output.b"]
    assert list(run["parameter_size"].values) == [4, 2, 2, 1]
    assert np.all(run["writes_mean"][-1] == 25) and np.all(run["writes_max"][-1] == 25)
    assert run.attrs["state"] == "finished"
    assert run.equals(mgd.open_run(tmp_path / "run.nc"))


def test_about_a_hundred_rows_by_default(xor):
    run = mgd.train(xor, iterations=250, **FAST)
    assert 80 <= run.sizes["iteration"] <= 102


def test_test_accuracy_and_cost_are_of_the_whole_test_set(xor):
    run = mgd.train(xor, (X, Y), iterations=30, evaluate_every=30, seed=2, **FAST)
    session = Session(xor, target="numpy", seed=2, data=(X, Y))
    session.step(30)
    w1, b1, w2, b2 = (session.parameters[n] for n in ("hidden_layer.w", "hidden_layer.b", "output.w", "output.b"))
    hidden = 1 / (1 + np.exp(-(X @ w1.T - b1)))
    out = 1 / (1 + np.exp(-(hidden @ w2.T - b2)))
    assert np.isclose(run["cost_test"][-1], np.mean((out - Y) ** 2), rtol=1e-5)
    assert np.isclose(run["accuracy_test"][-1], np.mean(np.abs(out - Y) < 0.5))
    assert run["accuracy_train"][-1] == run["accuracy_test"][-1]


def test_training_cost_is_the_mean_since_the_last_row(xor):
    run = mgd.train(xor, iterations=20, evaluate_every=10, seed=1, **FAST)
    session = Session(xor, target="numpy", seed=1, data="xor")
    costs = []
    for _ in range(20):
        session.step(1)
        costs.append(float(np.mean(session.view("mgd.C.clean"))))
    assert np.allclose(run["cost"][1:], [np.mean(costs[:10]), np.mean(costs[10:])], rtol=1e-12)


def test_members_have_a_dimension(xor):
    run = mgd.train(xor, iterations=12, evaluate_every=6, members=3, seed=5, gradient=True, **FAST)
    assert run["cost"].dims == ("iteration", "member")
    assert run["writes_mean"].dims == ("iteration", "member", "parameter")
    assert run["group_cosine"].dims == ("iteration", "member", "parameter")
    assert list(run["seed"].values) == [5, 6, 7]
    alone = mgd.train(xor, iterations=12, evaluate_every=6, seed=6, gradient=True, **FAST)
    for name in ("cost", "cost_test", "cosine"):
        assert np.array_equal(run[name].isel(member=1), alone[name], equal_nan=True), name


def final(run):
    return run["cost_test"].values[-1], run["cost"].values[-1]


def test_looking_changes_nothing(xor):
    plain = mgd.train(xor, iterations=60, evaluate_every=60, **FAST)
    looked = mgd.train(
        xor,
        iterations=60,
        evaluate_every=15,
        gradient=True,
        record=["hidden_layer.x", "G", {"variable": "output.w", "every": "7*iteration"}],
        **FAST,
    )
    assert plain["cost_test"].values[-1] == looked["cost_test"].values[-1]
    assert list(looked["w_output_iteration"].values) == [0, 7, 14, 21, 28, 35, 42, 49, 56]


def cosine(a, b):
    a, b = (np.concatenate([np.ravel(v[n]) for n in a]).astype(float) for v in (a, b))
    return a @ b / np.sqrt((a @ a) * (b @ b)), np.sqrt((a @ a) / (b @ b))


def test_gradient_in_the_middle_of_a_window():
    circuit = mgd.load(XOR, tau_theta="50*iteration")
    run = mgd.train(circuit, iterations=40, evaluate_every=20, gradient=True, seed=3, **FAST)
    session = Session(circuit, target="numpy", seed=3, data="xor")
    session.step(20)
    angle, ratio = cosine(session.gradient_estimate(), session.exact_gradient())
    assert np.isclose(run["cosine"][1], angle, rtol=1e-6)
    assert np.isclose(run["norm_ratio"][1], ratio, rtol=1e-6)
    assert np.isnan(run["cosine"][0])


@pytest.mark.parametrize("tau", [1, 4])
def test_gradient_at_an_update(tau):
    # eta=0 keeps the parameters, so that a session without updates accumulates the same estimates
    run = mgd.train(
        mgd.load(XOR, eta=0, tau_theta=f"{tau}*iteration"),
        iterations=24, evaluate_every=12, gradient=True, seed=3, dtype="float64", **FAST,
    )  # fmt: skip
    long = mgd.load(XOR, eta=0, tau_theta="1000*iteration")
    session = Session(long, target="numpy", seed=3, data="xor", dtype="float64")
    session.step(24 - tau)
    before = session.gradient_estimate()
    session.step(tau)
    after = session.gradient_estimate()
    window = {n: (24 * after[n] - (24 - tau) * before[n]) / tau for n in after}
    angle, ratio = cosine(window, session.exact_gradient())
    assert np.isclose(run["cosine"][-1], angle, rtol=1e-6)
    assert np.isclose(run["norm_ratio"][-1], ratio, rtol=1e-6)


def test_gradient_at_an_update_is_that_of_the_parameters_before_it():
    """Every row has an angle, also in the first windows; with a large step the parameters afterwards have another one."""
    circuit = mgd.load(XOR, eta=30, tau_theta="2*iteration")
    record = ["G", *(f"{v}_{layer}" for layer in ("hidden_layer", "output") for v in "wb")]
    run = mgd.train(
        circuit, iterations=6, evaluate_every=1, gradient=True, seed=3, dtype="float64", record=record, **FAST
    )
    assert np.isfinite(run["cosine"].values[1:]).all()
    session = Session(circuit, target="numpy", seed=3, data="xor", dtype="float64")
    for k in range(1, 7):
        before = {name: value.copy() for name, value in session.parameters.items()}
        session.step()
        estimate = session.gradient_estimate()
        for name, value in estimate.items():
            owner, _, variable = name.partition(".")
            np.testing.assert_array_equal(run[f"G_{variable}_{owner}"].values[k].ravel(), value.ravel())
        after = {name: value.copy() for name, value in session.parameters.items()}
        late, _ = cosine(estimate, session.exact_gradient())
        for name, value in before.items():
            session.parameters[name][...] = value
        angle, _ = cosine(estimate, session.exact_gradient())
        assert np.isclose(run["cosine"][k], angle, rtol=1e-9)
        assert (abs(late - angle) > 1e-6) == (k % 2 == 0), "an update every second iteration"
        for name, value in after.items():
            session.parameters[name][...] = value


@pytest.mark.parametrize("every", [1, 7, 49, 50, 51, 120, 1000])
def test_costs_are_sampled_at_fixed_iterations(every):
    plan = _Plan(10 * every + 3, every)
    now, seen = 0, []
    while now < plan.iterations:
        following = plan.next_cost(now)
        assert now < following <= plan.next_row(now)
        now = following
        seen.append(now)
    first = [k for k in seen if k <= every]
    assert first[-1] == every
    assert len(first) == min(every, training.COST_SAMPLES)
    # wherever one starts in between, the next one is the same
    assert all(plan.next_cost(k) == next(s for s in seen if s > k) for k in range(every))


@pytest.mark.parametrize("text", ["-cost_test", "cost_test and iteration > 2", "not cost_test"])
def test_until_compares(xor, text):
    with pytest.raises(RunError, match="compares nothing"):
        mgd.train(xor, iterations=5, until=text, **FAST)


def test_until_stops_at_the_first_row(xor):
    run = mgd.train(xor, iterations=1000, evaluate_every=5, until="iteration >= 20 and cost_test < 9", **FAST)
    assert run["iteration"].values[-1] == 20
    assert run.attrs["state"].startswith("until")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy > .8", "did you mean accuracy"),
        ("accuracy >=", "no condition"),
        ("accuracy", "compares nothing"),
        ("open('x') > 1", "open"),
        ("cosine > .5", "names cosine"),
        ("accuracy > 'a'", "not understood"),
        ("accuracy[0] > 1", "not understood"),
    ],
)
def test_bad_conditions(xor, text, message):
    with pytest.raises(RunError, match=message):
        mgd.train(xor, iterations=5, until=text, **FAST)


def test_conditions():
    row = {"accuracy_test": np.array([0.9, 0.7]), "cost": 0.5, "iteration": 30}
    names = list(row)
    for text, result in {
        "accuracy >= .7": True,
        "accuracy >= .8": False,
        "not accuracy >= .8 and cost < 1": False,
        "cost < .1 or iteration > 29": True,
        "0.4 < cost*2 - .5 <= .5": True,
        "-cost > 0": False,
    }.items():
        assert Condition(text, names).holds(row) is result, text


def test_a_cost_that_is_not_finite_stops_the_run(tmp_path):
    circuit = mgd.load(XOR, eta="1e60")
    with pytest.raises(RunError, match=r"xor: at iteration \d+ the cost is not finite.*try a smaller eta = 1e\+60"):
        mgd.train(circuit, iterations=500, evaluate_every=50, out=tmp_path / "run.nc", **FAST)
    assert mgd.open_run(tmp_path / "run.nc").attrs["state"].startswith("failed: xor: at iteration")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations=0"),
        ({"iterations": 1.5}, "iterations=1.5"),
        ({"iterations": 5, "evaluate_every": 0}, "evaluate_every=0"),
        ({"iterations": 5, "members": 0}, "members=0"),
        ({"iterations": 5, "target": "gpu"}, "target 'gpu'"),
        ({"iterations": 5, "data": (np.zeros((4, 3), np.float32), Y)}, "input expects"),
    ],
)
def test_bad_arguments(xor, options, message):
    with pytest.raises(RunError, match=message):
        mgd.train(xor, **{**FAST, **options})


def test_a_bad_file_is_refused_before_anything_is_compiled(xor, tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "__init__", lambda *_, **__: pytest.fail("compiled"))
    with pytest.raises(RecordError, match="does not exist"):
        mgd.train(xor, iterations=5, out=tmp_path / "no" / "run.nc")
    with pytest.raises(RecordError, match="is a folder"):
        mgd.train(xor, iterations=5, out=tmp_path)


def test_interrupt_in_python_carries_the_dataset(xor, monkeypatch):
    plain = NumpyTarget.run

    def interrupted(self, phase, count=1):
        finite = plain(self, phase, 1)
        if self.iteration >= 12:
            signal.raise_signal(signal.SIGINT)
        return finite

    monkeypatch.setattr(NumpyTarget, "run", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match="stopped at iteration 12; the 3 rows up to iteration 10 are kept"
    ) as caught:
        mgd.train(xor, iterations=100, evaluate_every=5, **FAST)
    assert list(caught.value.dataset["iteration"].values) == [0, 5, 10]
    assert caught.value.dataset.attrs["state"] == "interrupted"


def start(out, *more):
    """A long training in a process of its own, after its first rows."""
    command = [sys.executable, "-m", "mgdcircuits", "train", str(XOR), "--iterations", "10000000", "--target", "numpy"]
    process = subprocess.Popen(
        [*command, "--evaluate-every", "20", "-o", str(out), *more],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if out.exists():
            with contextlib.suppress(RecordError):
                if mgd.open_run(out).sizes["iteration"] >= 3:
                    return process
        time.sleep(0.2)
    process.kill()
    raise AssertionError(process.communicate())


def test_ctrl_c_keeps_a_valid_dataset(tmp_path):
    process = start(tmp_path / "run.nc")
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert time.monotonic() - begun < 10
    assert "are kept in" in said and "Traceback" not in said
    run = mgd.open_run(tmp_path / "run.nc")
    assert run.sizes["iteration"] >= 2
    assert run.attrs["state"] == "interrupted"
    assert np.isfinite(run["cost_test"]).all()


def test_kill_leaves_a_readable_file(tmp_path):
    process = start(tmp_path / "run.nc", "--evaluate-every", "400")  # so rarely written that no kill hits a row
    process.kill()
    process.communicate(timeout=30)
    run = mgd.open_run(tmp_path / "run.nc")
    assert run.sizes["iteration"] >= 2
    assert run.attrs["state"] == "running"
    assert np.isfinite(run["cost_test"]).all()
