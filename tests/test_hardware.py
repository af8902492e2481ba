"""What `hardware` declares, simulated: devices that wear out, perturbations by writing, measurement noise, seconds, joules."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd

NET = """
circuit: chip
parameters: {delta: 0.05, eta: 0.5}
clocks: {tau_p: 2*us, tau_theta: 2*iteration}
kinds:
  neuron:
    equations: |
      V = tanh(I + b + theta_b) : 1
      I : 1
      b : 1 (plastic)
      theta_b : 1 (perturbation of b)
  device:
    equations: |
      I_post = (w + theta_w)*V_pre : 1 (summed)
      w : 1 (plastic)
      theta_w : 1 (perturbation of w)
    initial: {w: rand() - 0.5}
chain:
  - input: {shape: 3, equations: "V : 1"}
  - hidden: {shape: 4, kind: neuron, via: device}
  - output: {shape: 2, kind: neuron, via: device}
task: {batch: 5, V_input: x, target: y}
cost: {C: "mean((V_output - target)**2)"}
learning:
  mgd:
    perturb: {theta_w: delta*bernoulli(), theta_b: delta*bernoulli(), every: tau_p, blocks: layer}
    passes: {clean: 0, plus: 1}
    estimate: (C.plus - C.clean)*theta/delta**2
    update: {request: -eta*G, every: tau_theta}
hardware:
"""
DATA_RNG = np.random.default_rng(0)
DATA = (
    DATA_RNG.uniform(-1, 1, (30, 3)).astype(np.float32),
    DATA_RNG.uniform(-1, 1, (30, 2)).astype(np.float32),
)
TARGETS = pytest.mark.parametrize("target", ["numpy", "cpp"])


def circuit(tmp_path, hardware, **changes):
    text = NET + "".join(f"  {line}\n" for line in hardware)
    for old, new in changes.pop("replace", {}).items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "chip.yaml").write_text(text)
    return mgd.load(tmp_path / "chip.yaml", **changes)


def session(made, target, **options):
    return mgd.Session(made, target=target, dtype="float64", seed=2, data=DATA, **options)


@TARGETS
def test_a_device_that_has_used_up_its_writes_sticks(tmp_path, target):
    """Three writes of each weight, then it stays as it is while the biases go on."""
    made = circuit(tmp_path, ["device: {endurance: {w: 3}}"])
    chip = session(made, target, members=2)
    chip.step(6)
    stuck = {n: chip.parameters[n].copy() for n in chip.parameters}
    assert (chip.writes("hidden.w") == 3).all() and (chip.endurance("hidden.w") == 3).all()
    chip.step(20)
    for name in ("hidden.w", "output.w"):
        assert (chip.parameters[name] == stuck[name]).all() and (chip.writes(name) == 3).all()
    for name in ("hidden.b", "output.b"):
        assert (chip.parameters[name] != stuck[name]).all() and (chip.writes(name) == 13).all()
        assert chip.endurance(name) is None


@TARGETS
def test_every_device_has_an_endurance_of_its_own(tmp_path, target):
    made = circuit(tmp_path, ["device: {endurance: 8*exp(0.7*randn())}"])
    chip = session(made, target)
    chip.step(60)
    for name in chip.parameters:
        assert (chip.writes(name) == np.minimum(30, np.maximum(np.ceil(chip.endurance(name)), 0))).all()
    lives = np.concatenate([chip.endurance(n).ravel() for n in chip.parameters])
    assert len(set(lives)) == lives.size and 4 < np.median(lives) < 16


def test_an_endurance_that_is_not_a_number_stops_before_the_run(tmp_path):
    made = circuit(tmp_path, ["device: {endurance: 8*sqrt(randn())}"])
    with pytest.raises(
        mgd.RunError, match=r"chip.yaml:\d+: `8\*sqrt\(randn\(\)\)` is not a number for some devices of hidden"
    ):
        mgd.train(made, DATA, iterations=9, target="numpy", progress=False, out=tmp_path / "run.nc")
    assert not list(tmp_path.glob("run.nc*"))


@TARGETS
def test_wear_of_a_device_that_counts_pulses(tmp_path, target):
    """`on_write` decides what a write is; the last request may go beyond the endurance, the next one finds it stuck."""
    pulses = "on_write: |\n      n = floor(request/0.01 + 0.5)\n      w = w + 0.01*n\n      writes += abs(n)\n    initial: {w"
    made = circuit(tmp_path, ["device: {endurance: {w: 20}}"], replace={"initial: {w": pulses})
    chip = session(made, target)
    before = chip.parameters["hidden.w"].copy()
    chip.step(200)
    writes = chip.writes("hidden.w")
    at_end = chip.parameters["hidden.w"].copy()
    worn, moved = writes >= 20, (at_end - before) / 0.01
    assert worn.sum() > 3 and np.abs(moved - np.rint(moved)).max() < 1e-6
    chip.step(100)
    assert (chip.parameters["hidden.w"][worn] == at_end[worn]).all()
    assert (chip.writes("hidden.w")[worn] == writes[worn]).all()


@TARGETS
@pytest.mark.parametrize(("passes", "sets"), [("{clean: 0, plus: 1}", 2), ("{plus: 1, minus: -1}", 3)])
def test_perturbations_through_the_device_are_writes(tmp_path, target, passes, sets):
    """Set for each pass and back; a device that is worn out is perturbed no more."""
    replaced = {"{clean: 0, plus: 1}": passes}
    if sets == 3:
        replaced["(C.plus - C.clean)*theta/delta**2"] = "(C.plus - C.minus)*theta/(2*delta**2)"
    made = circuit(tmp_path, ["perturbation: {through: write}", "device: {endurance: {w: 40}}"], replace=replaced)
    chip = session(made, target)
    chip.step(10)
    for name in chip.parameters:
        assert (chip.writes(name) == 10 * sets + 5).all()
        assert (np.abs(chip.view(name.replace(".", ".theta_"))) == 0.05).all()
    chip.step(30)
    for name in ("hidden.w", "output.w"):
        assert (chip.writes(name) >= 40).all() and (chip.writes(name) < 40 + sets).all()
        assert (chip.view(name.replace(".", ".theta_")) == 0).all()
    assert (chip.writes("output.b") == 40 * sets + 20).all()


@TARGETS
def test_a_sparse_perturbation_writes_the_devices_that_it_moves(tmp_path, target):
    replaced = {"delta*bernoulli(), theta_b: delta*bernoulli()": "delta*sequential(), theta_b: delta*sequential()"}
    made = circuit(tmp_path, ["perturbation: {through: write}"], replace=replaced, eta=0)
    chip = session(made, target)
    for n in range(1, 20):
        chip.step(1)
        for layer in ("hidden", "output"):
            assert chip.writes(f"{layer}.w").sum() + chip.writes(f"{layer}.b").sum() == 2 * n


@TARGETS
def test_measurement_noise(tmp_path, target):
    """Of the declared size, new in each pass and for each sample, in the costs that the rule reads and not in tests."""
    noisy = session(circuit(tmp_path, ["measurement: {noise: 0.2}"], eta=0), target, members=50)
    quiet = session(circuit(tmp_path, ["inference: {time: tau_p}"], eta=0), target, members=50)
    noise = {name: [] for name in ("clean", "plus")}
    for _ in range(20):
        noisy.step(1)
        quiet.step(1)
        for name, found in noise.items():
            found.append(noisy.view(f"mgd.C.{name}") - quiet.view(f"mgd.C.{name}"))
        np.testing.assert_allclose(noisy.view("mgd.C__quiet.plus"), quiet.view("mgd.C.plus"), rtol=1e-12)
    clean, plus = (np.array(noise[name]).ravel() for name in ("clean", "plus"))
    assert clean.size == 5000 and clean.std() == pytest.approx(0.2, rel=0.05) and abs(clean.mean()) < 0.01
    assert plus.std() == pytest.approx(0.2, rel=0.05) and abs(np.corrcoef(clean, plus)[0, 1]) < 0.05
    np.testing.assert_array_equal(noisy.cost(), quiet.cost())


def test_both_targets_measure_the_same_noise(tmp_path):
    made = circuit(tmp_path, ["measurement: {noise: 0.2}", "device: {endurance: 9*exp(0.3*randn())}"])
    chips = [session(made, target) for target in ("numpy", "cpp")]
    for chip in chips:
        chip.step(40)
    for name in made.plastic:
        np.testing.assert_allclose(chips[0].parameters[name], chips[1].parameters[name], rtol=1e-9)


PARTS = ["inference: {time: 3*us, energy: 2*pjoule, copies: 2}", "write: {time: 7*us, energy: 5*pjoule, parallel: row}"]
ELEMENTS, GROUPS = 12 + 4 + 8 + 2, {"none": 26, "row": 4 + 1 + 2 + 1, "column": 3 + 1 + 4 + 1, "all": 4}


@pytest.mark.parametrize("parallel", GROUPS)
def test_seconds(tmp_path, parallel):
    """Five samples on two copies take the time of three; nine iterations have four updates."""
    made = circuit(tmp_path, [PARTS[0], PARTS[1].replace("row", parallel), "perturbation: {time: 11*us}"])
    chip = session(made, "numpy")
    chip.step(9)
    expected = 9 * (3 * 3 * 3e-6 + 2 * 11e-6) + 4 * GROUPS[parallel] * 7e-6
    assert chip.hardware_seconds == pytest.approx(expected)


def test_seconds_of_perturbing_through_the_device(tmp_path):
    chip = session(circuit(tmp_path, [*PARTS, "perturbation: {through: write}"]), "numpy")
    chip.step(9)
    assert chip.hardware_seconds == pytest.approx(9 * (3 * 3 * 3e-6 + 2 * 8 * 7e-6) + 4 * 8 * 7e-6)


@TARGETS
def test_constant_energies_are_recorded_unasked(tmp_path, target):
    made = circuit(tmp_path, [*PARTS, "perturbation: {energy: 1*pjoule}"])
    run = mgd.train(made, DATA, iterations=9, evaluate_every=9, target=target, seed=2, progress=False, record=[])
    expected = 9 * 3 * 5 * 2 + 9 * ELEMENTS * 2 * 1 + 4 * ELEMENTS * 2 * 5
    assert run["energy"].values[-1] == pytest.approx(expected * 1e-12)
    by_writing = circuit(tmp_path, [*PARTS, "perturbation: {through: write}"])
    run = mgd.train(by_writing, DATA, iterations=9, evaluate_every=9, target=target, seed=2, progress=False, record=[])
    expected = 9 * 3 * 5 * 2 + (4 + 9 * 2) * ELEMENTS * 2 * 5
    assert run["energy"].values[-1] == pytest.approx(expected * 1e-12)


CURVE = "w, step\n-2, 0.02\n0, 0.05\n2, 0.01\n"


@TARGETS
def test_a_measured_curve(tmp_path, target):
    """`table` is numpy's linear interpolation."""
    (tmp_path / "pulse.csv").write_text(CURVE)
    write = 'on_write: |\n      w = w + sign(request)*table("pulse.csv", w)\n    initial: {w'
    made = circuit(tmp_path, ["write: {time: 1*us}"], replace={"initial: {w": write})
    chip = session(made, target)
    for _ in range(30):
        before = chip.parameters["hidden.w"].copy()
        chip.step(2)
        moved = np.abs(chip.parameters["hidden.w"] - before)
        np.testing.assert_allclose(moved, np.interp(before, [-2, 0, 2], [0.02, 0.05, 0.01]), rtol=1e-9)


def test_a_table_may_begin_with_a_byte_order_mark(tmp_path):
    replaced = {"initial: {w": 'on_write: |\n      w = w + table("pulse.csv", w)\n    initial: {w'}
    (tmp_path / "pulse.csv").write_text(CURVE, encoding="utf-8")
    plain = circuit(tmp_path, ["write: {time: 1*us}"], replace=replaced)
    (tmp_path / "pulse.csv").write_text(CURVE, encoding="utf-8-sig")
    marked = circuit(tmp_path, ["write: {time: 1*us}"], replace=replaced)
    assert [s.on_write for s in marked.spec.learning[0].sites] == [s.on_write for s in plain.spec.learning[0].sites]


def test_two_tables_of_one_name(tmp_path):
    """In a netlist with what it includes: a dataset keeps them by name."""
    (tmp_path / "chip").mkdir()
    replaced = {"initial: {w": 'on_write: |\n      w = w + table("pulse.csv", w)\n    initial: {w'}
    for folder in (tmp_path, tmp_path / "chip"):
        (folder / "pulse.csv").write_text(CURVE)
    circuit(tmp_path / "chip", ["write: {time: 1*us}"], replace=replaced)
    own = tmp_path / "own.yaml"
    own.write_text("include: chip/chip.yaml\ncircuit: own\nparameters: {eta: \"table('pulse.csv', 1)\"}\n")
    assert dict(mgd.load(own).spec.tables) == {"pulse.csv": CURVE}
    (tmp_path / "pulse.csv").write_text(CURVE + "3, 0.01\n")
    with pytest.raises(mgd.NetlistError, match="another file that is called pulse.csv, too.*rename one of the two"):
        mgd.load(own)


@TARGETS
def test_beyond_a_measured_curve_a_run_stops(tmp_path, target):
    (tmp_path / "pulse.csv").write_text("w, step\n-0.6, 0.1\n0.6, 0.1\n")
    write = 'on_write: |\n      w = w + table("pulse.csv", w)\n    initial: {w'
    made = circuit(tmp_path, ["write: {time: 1*us}"], replace={"initial: {w": write})
    with pytest.raises(mgd.RunError, match=r"infinite or not a number: hidden.w.* outside pulse.csv"):
        session(made, target).step(2000)


@pytest.mark.parametrize("energy", ["sum(w*V_pre**2)*pjoule", "tau_p*watt", "dt*watt", "max(V_output)**2*pjoule"])
def test_energies_of_one_number(tmp_path, energy):
    made = circuit(tmp_path, [f"inference: {{energy: {energy}}}"], replace={"{tau_p: 2*us,": "{dt: 1*us, tau_p: 2*us,"})
    assert made.spec.hardware.inference["energy"]
