"""What a run records of worn, coarse and bounded devices, noise and settling, and the sentence that `train` makes of it."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.difficulties import explain
from tests.test_hardware import DATA, TARGETS, circuit


def trained(made, target="numpy", iterations=40, **options):
    options = {"iterations": iterations, "evaluate_every": iterations // 4, "progress": False, "record": [], **options}
    return mgd.train(made, options.pop("data", DATA), target=target, seed=2, dtype="float64", **options)


def writes(*lines):
    return {"initial: {w": "on_write: |\n" + "".join(f"      {line}\n" for line in lines) + "    initial: {w"}


@TARGETS
def test_requests_that_come_to_nothing(tmp_path, target):
    """Counted by hand along the same trajectory: a pulse of 0.01, at most two pulses, |w| < 0.3, 12 pulses of life."""
    replaced = writes(
        "n = clip(floor(request/0.01 + 0.5), -2, 2)", "w = clip(w + 0.01*n, -0.3, 0.3)", "writes += abs(n)"
    )
    made = circuit(tmp_path, ["device: {endurance: {w: 12}}"], replace=replaced, eta=0.1)
    chip = mgd.Session(made, target=target, dtype="float64", seed=2, data=DATA)
    counts = np.zeros(4)
    for _ in range(60):
        chip.step(1)
        w, used = chip.parameters["hidden.w"].copy(), chip.writes("hidden.w").copy()
        chip.step(1)
        request = -0.1 * chip.view("hidden.w:G")
        worn = used >= 12
        n = np.floor(request / 0.01 + 0.5)
        moved = w + 0.01 * np.clip(n, -2, 2)
        clipped = (np.abs(n) > 2) | (np.abs(moved) > 0.3)
        counts += [request.size, worn.sum(), (~worn & clipped).sum(), (~worn & ~clipped & (n == 0)).sum()]
    run = trained(made, target, iterations=120)
    found = [float(run[f"requests_{n}"].sel(parameter="hidden.w")[-1]) for n in ("stuck", "clipped", "rounded")]
    assert counts[1:].min() > 5
    np.testing.assert_allclose(found, counts[1:] / counts[0], rtol=1e-12)
    assert np.isnan(run["requests_stuck"].sel(parameter="hidden.b")).all()
    assert float(run["worn"].sel(parameter="hidden.w")[-1]) == (chip.writes("hidden.w") >= 12).mean()
    assert float(run["wear"].sel(parameter="hidden.w")[-1]) == chip.writes("hidden.w").max() / 12


@TARGETS
def test_reading_a_measured_curve_is_no_bound(tmp_path, target):
    """Of the requests that a measured step rounds to nothing, none is clipped."""
    (tmp_path / "pulse.csv").write_text("w, step\n-2, 0.1\n0, 0.2\n2, 0.1\n")
    replaced = writes('step = table("pulse.csv", w)', "w = clip(w + step*floor(request/step + 0.5), -1.5, 1.5)")
    run = trained(circuit(tmp_path, ["write: {time: 1*us}"], replace=replaced, eta=1e-4), target)
    last = {n: float(run[f"requests_{n}"].sel(parameter="hidden.w")[-1]) for n in ("clipped", "rounded")}
    assert last == {"clipped": 0, "rounded": 1}


@TARGETS
def test_devices_without_any_writes_to_give_are_worn(tmp_path, target):
    """Drawn below 0, an endurance is used up before the first write."""
    run = trained(circuit(tmp_path, ["device: {endurance: {w: -1 - rand()}}"]), target)
    for row in (0, -1):
        weights, biases = (run.sel(parameter=f"hidden.{name}").isel(iteration=row) for name in "wb")
        assert float(weights["worn"]) == 1 and float(weights["wear"]) == 1
        assert np.isnan(biases["worn"]) and np.isnan(biases["wear"])
    assert (run["requests_stuck"].sel(parameter="hidden.w")[-1] == 1).all()


@TARGETS
def test_signal_to_noise(tmp_path, target):
    """The noise of a difference of two means over five samples is 0.2 sqrt(2/5)."""
    loud, still = (
        circuit(tmp_path, [f"measurement: {{noise: {noise}}}"], eta=0, tau_theta="iteration") for noise in (0.2, 1e-9)
    )
    run, reference = (trained(made, target, iterations=200, evaluate_every=50, members=40) for made in (loud, still))
    noise, signal = 0.2 * np.sqrt(2 / 5), reference["cost_change"].values[1:]
    np.testing.assert_allclose(run["cost_change_snr"].values[1:].mean(), (signal / noise).mean(), rtol=0.05)
    np.testing.assert_allclose((run["cost_change"].values[1:] ** 2).mean(), (signal**2).mean() + noise**2, rtol=0.05)
    assert np.isnan(run["cost_change"].values[0]).all()
    quiet = trained(circuit(tmp_path, ["write: {time: 1*us}"]), target)
    assert "cost_change" in quiet and "cost_change_snr" not in quiet


RC = """
circuit: rc
parameters: {tau: 10*ns, delta: 0.01, eta: 0}
clocks: {dt: 1*ns, tau_p: 20*ns}
kinds:
  neuron:
    equations: |
      dU/dt = (I - U)/tau : 1
      I : 1
    method: exponential_euler
  weight:
    equations: |
      I_post = (w + theta_w)*x_pre : 1 (summed)
      w : 1 (plastic)
      theta_w : 1 (perturbation of w)
    initial: {w: 1}
chain:
  - input: {shape: 1, equations: "x : 1"}
  - output: {shape: 1, kind: neuron, via: weight}
task: {x_input: x, target: y, batch: 2}
cost: {C: "sum(U_output)"}
learning:
  mgd:
    perturb: {theta_w: delta*bernoulli(), every: tau_p}
    passes: {clean: 0, plus: 1}
    estimate: (C.plus - C.clean)*theta/delta**2
    update: {request: -eta*G, every: tau_theta}
"""


@TARGETS
def test_settling_residual(tmp_path, target):
    """A cost that is the state at the last tick, from rest: exp(-19/10) - exp(-39/10) of the way; looking is free."""
    (tmp_path / "rc.yaml").write_text(RC)
    made = mgd.load(tmp_path / "rc.yaml")
    data = np.array([[1.0], [-3.0]], np.float32), np.zeros((2, 1), np.float32)
    run = trained(made, target, data=data, iterations=8)
    sizes = {np.sqrt((a**2 + b**2) / 2) for a in (1, 3) for b in (1, 3)}
    for found in run["settling_residual"].values[1:]:
        assert min(abs(found / (s * (np.exp(-1.9) - np.exp(-3.9))) - 1) for s in sizes) < 1e-6
    chip = mgd.Session(made, target=target, dtype="float64", seed=2, data=data)
    chip.step(3)
    before = chip.view("output.U").copy()
    chip.settling_residual()
    assert (chip.view("output.U") == before).all()


@pytest.mark.parametrize(
    ("hardware", "replaced", "changes", "sentence"),
    [
        (["device: {endurance: 1}"], {}, {"eta": 1e-6}, "of the devices are worn out"),
        ([], writes("w = w + 0.1*floor(request/0.1 + rand()*0 + 0.5)"), {"eta": 1e-4}, "were too small to move a device"),
        ([], writes("w = where(rand() < 2, w, w + request)"), {"eta": 1e-4}, "or met one that never moves"),
        (["measurement: {noise: 20}"], {}, {"eta": 1e-4}, "the noise of a measured change of the cost is"),
    ],
)  # fmt: skip
def test_train_says_why_nothing_is_learned(tmp_path, capsys, hardware, replaced, changes, sentence):
    made = circuit(tmp_path, hardware or ["write: {time: 1*us}"], replace=replaced, **changes)
    run = trained(made, iterations=400, progress=True)
    assert "nothing was learned: " in (text := capsys.readouterr().err) and sentence in text
    assert sentence in explain(run)


def test_without_progress_the_reason_is_a_warning(tmp_path, caplog):
    run = trained(circuit(tmp_path, ["device: {endurance: 1}"], eta=1e-6), iterations=400)
    assert caplog.messages == [explain(run)]


def test_quiet_hides_progress_and_not_the_reason(netlists, tmp_path):
    text = f"include: {netlists / 'xor.yaml'}\ncircuit: worn\nhardware: {{device: {{endurance: 1}}}}\n"
    (tmp_path / "worn.yaml").write_text(text)
    words = "train worn.yaml --iterations 200 --set eta=1e-6 --target numpy --quiet"
    command = [sys.executable, "-m", "mgdcircuits", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "nothing was learned: 100% of the devices are worn out\n"


def test_train_says_when_most_devices_are_worn_out(tmp_path):
    """Something was learned before, and a run that goes on for long after that is in vain."""
    run = trained(circuit(tmp_path, ["device: {endurance: 1000}"]), iterations=100)
    learned = [0.1, *[0.6] * (run.sizes["iteration"] - 1)]
    run = run.assign(accuracy_test=("iteration", learned), worn=run["worn"] * 0)
    assert explain(run) is None
    run["worn"][-1] = 1
    assert explain(run) is None, "nobody knows what comes after the last row"
    run["worn"][-2:] = 1
    run["worn"][-2, 0] = 0.9
    assert re.search(
        r"^nothing more is learned: 100% of the devices are worn out, most by iteration \d+$", explain(run)
    )
    run["accuracy_test"][-1] = 0.7
    assert explain(run) is None, "the other devices go on learning"


def test_a_run_that_learns_needs_no_explanation(netlists):
    run = mgd.train(mgd.load(netlists / "crossbar_rram.yaml"), iterations=2000, seed=1, progress=False)
    assert float(run["accuracy_test"][-1]) > 0.5 and explain(run) is None
    assert {"requests_rounded", "cost_change_snr", "settling_residual"} <= set(run)
