"""A resumed session goes on bit for bit; a file that is damaged, cut off or foreign is refused with one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mgdcircuits import Session, checkpoint, load, storage
from mgdcircuits.circuit.carried import carried
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.spec import Sharing

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(3)
IMAGES, LABELS = RNG.random((64, 1, 16, 16)).astype(np.float32), RNG.integers(0, 20, 64)

# Large enough that loops are shared between threads; noise in the neurons and in the cost; Adam; two systems of clocks.
LARGE = f"""
include: {ROOT / "tests" / "netlists" / "valid" / "small_conv.yaml"}
circuit: large
parameters: {{side: 16, channels: 8, classes: 20, delta: 0.001, noise: 0.01}}
clocks: {{tau_x: 2*iteration, tau_theta: 3*iteration}}
kinds:
  tanh:
    equations: |
      x = tanh(I + b + theta_b + theta) + noise*randn() : 1
      I : 1
      b : 1 (plastic, per channel)
      theta_b : 1 (perturbation of b)
      theta : 1 (perturbation)
cost: {{C: "cross_entropy(x_logits, target) + 1e-3*randn()"}}
learning:
  wp: none
  adam:
    perturb: {{theta_w: delta*gaussian(), theta_b: delta*bernoulli(), every: tau_p, blocks: layer}}
    passes: {{clean: 0, plus: 1}}
    estimate: (C.plus - C.clean)*theta/delta**2
    update: {{use: adam(), every: tau_theta}}
"""
CASES = {
    "weights": ("xor", {}, {"data": "xor", "members": 2}),
    "nodes": ("xor_np", {"tau_theta": "4*iteration"}, {"data": "xor", "batch": 4}),
    "analog": ("xor_analog", {}, {"data": "xor", "members": 3}),
    "analog_volts": ("analog_rc", {}, {"data": "xor"}),
    "wear": ("crossbar_rram", {"endurance": 20, "tau_theta": "10*iteration"}, {"data": "letters", "members": 2}),
    "spikes": ("lif_reward", {}, {}),
}
SPIKES = ("spikes", "cpp")  # do not run yet


def carried_of(session: Session) -> dict[str, np.ndarray]:
    return {a.name: session.target.array(a.name).copy() for a in carried(session.program)}


def assert_same(one: Session, other: Session) -> None:
    assert one.iteration == other.iteration
    ours, theirs = carried_of(one), carried_of(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def assert_goes_on(path, circuit, steps, threads=(1, 1), **options) -> None:
    """The run cut in two, through a file, against the run in one piece."""
    whole = Session(circuit, seed=3, threads=threads[0], **options)
    whole.step(sum(steps))
    first = Session(circuit, seed=3, threads=threads[0], **options)
    start = {n: np.array(p) for n, p in first.parameters.items()}
    first.step(steps[0])
    first.save(path)
    rest = Session.resume(path, threads=threads[1], data=options.get("data"))
    assert rest.iteration == steps[0]
    assert_same(first, rest)
    rest.step(steps[1])
    assert_same(whole, rest)
    assert all(np.isfinite(p).all() for p in rest.parameters.values())
    assert any(not np.array_equal(start[n], p) for n, p in rest.parameters.items()), "nothing was learned"


@pytest.mark.parametrize(("case", "target"), [(c, t) for c in CASES for t in ("numpy", "cpp") if (c, t) != SPIKES])
def test_a_resumed_session_equals_the_uninterrupted_one(tmp_path, netlists, case, target):
    name, overrides, options = CASES[case]
    circuit = load(netlists / f"{name}.yaml", **overrides)
    assert_goes_on(tmp_path / "state", circuit, (11, 19), target=target, **options)


def test_a_device_that_has_worn_out_stays_so(tmp_path, netlists):
    circuit = load(netlists / "crossbar_rram.yaml", endurance=1, eta=5)
    session = Session(circuit, seed=3, data="letters")
    session.step(80)
    assert (session.writes("hidden.g") >= session.endurance("hidden.g")).any(), "no device has worn out"
    assert_goes_on(tmp_path / "state", circuit, (47, 33), data="letters")


@pytest.mark.parametrize("threads", [(1, 2), (2, 1)])
def test_adam_with_noise_on_another_number_of_threads(tmp_path, threads):
    circuit = load(LARGE)
    assert_goes_on(tmp_path / "state", circuit, (4, 5), threads=threads, data=(IMAGES, LABELS), batch=20, members=2)


def test_adam_with_noise_in_numpy(tmp_path):
    circuit = load(LARGE, side=4, channels=2)
    data = (IMAGES[:, :, :4, :4], LABELS)
    assert_goes_on(tmp_path / "state", circuit, (4, 5), target="numpy", dtype="float64", data=data, batch=3)


def test_pinned_samples_and_changed_numbers_are_kept(tmp_path, netlists):
    session = Session(load(netlists / "xor.yaml"), batch=2, target="numpy", seed=1, data="xor")
    session.step(3)
    session.present(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[1.0], [0.0]]))
    session.set(eta=0.5)
    session.step(2)
    session.save(tmp_path / "state")
    rest = Session.resume(tmp_path / "state")
    assert rest.pinned and rest.target.parameters["eta"] == 0.5
    for one in (session, rest):
        one.step(5)
    assert_same(session, rest)


SMALL = ("xor", "xor_np", "xor_analog", "analog_rc", "crossbar_rram", "delta_mgd")


@pytest.mark.parametrize(
    ("name", "target"), [("fashion_mnist_cnn", "numpy"), *((n, t) for n in SMALL for t in ("numpy", "cpp"))]
)
def test_nothing_but_what_is_carried_matters(netlists, name, target):
    """Everything else is overwritten by what is no number, and the run does not notice."""
    circuit = load(netlists / f"{name}.yaml", **({"d": 1} if "cnn" in name else {}))
    array, _, _, is_label = Session(circuit, target="numpy")._sample_kernel.target
    labels = RNG.integers(0, array.n, 8) if is_label else RNG.integers(0, 2, (8, array.n))
    data = (RNG.random((8, *circuit.input_shape)).astype(np.float32), labels)
    assert_scratch_does_not_matter(circuit, target, data, batch=2)


def test_nothing_but_what_is_carried_matters_with_adam(tmp_path):
    assert_scratch_does_not_matter(load(LARGE), "cpp", (IMAGES, LABELS), batch=20, members=2)


def assert_scratch_does_not_matter(circuit, target, data, **options):
    plain, poisoned = (Session(circuit, target=target, seed=2, data=data, **options) for _ in range(2))
    kept = {a.name for a in carried(plain.program)}
    assert kept < {a.name for a in plain.program.arrays}
    for n in (2, 1, 2, 3):  # ends in and between updates
        for one in (plain, poisoned):
            one.step(n)
        for array in poisoned.program.arrays:
            if array.name not in kept:
                real = poisoned.target.array(array.name).dtype.kind == "f"
                poisoned.target.write(array.name, np.nan if real else -(2**40))
        np.testing.assert_array_equal(plain.outputs(), poisoned.outputs())
        assert_same(plain, poisoned)


def test_a_checkpoint_is_small(tmp_path, netlists):
    """Activations are not in it: they are computed anew."""
    circuit = load(netlists / "fashion_mnist_cnn.yaml", d=2)
    session = Session(circuit, batch=100, target="numpy")
    session.save(tmp_path / "state")
    replicas = sum(a.n * 400 for a in session.program.arrays if a.sharing is Sharing.REPLICA)
    assert (tmp_path / "state").stat().st_size < 0.1 * replicas


# What is no checkpoint of this circuit


@pytest.fixture
def saved(tmp_path, netlists):
    session = Session(load(netlists / "xor.yaml"), target="numpy", data="xor")
    session.step(3)
    session.save(tmp_path / "state")
    return tmp_path / "state"


def refused(path, match, **options):
    with pytest.raises(RunError, match=match) as caught:
        Session.resume(path, **options)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_cut_off_at_any_byte(saved):
    whole = saved.read_bytes()
    checkpoint.parse(whole, saved)
    for length in range(len(whole)):
        with pytest.raises(RunError, match="damaged or cut off|no checkpoint"):
            checkpoint.parse(whole[:length], saved)
    saved.write_bytes(whole[: len(whole) // 2])
    refused(saved, "damaged or cut off", data="xor")


def test_any_byte_changed(saved):
    whole = saved.read_bytes()
    for place in range(len(whole)):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        with pytest.raises(RunError, match="damaged or cut off|no checkpoint|format"):
            checkpoint.parse(changed, saved)


def test_something_appended(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    refused(saved, "damaged or cut off")


def test_another_kind_of_file(tmp_path):
    import xarray as xr

    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc")
    refused(tmp_path / "other.nc", "no checkpoint of mgdcircuits")
    refused(ROOT / "netlists" / "xor.yaml", "no checkpoint of mgdcircuits")
    refused(tmp_path / "missing", "No such file")
    refused(tmp_path, "cannot be read")


def test_another_version(saved, monkeypatch):
    monkeypatch.setattr(checkpoint.metadata, "version", lambda name: "99.0")
    refused(saved, "written by mgdcircuits .*, this is 99.0")


def test_another_format(saved, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", b"3\n")
    refused(saved, "of format 2; this version reads format 3")


def test_another_netlist_or_override(saved, netlists):
    assert Session.resume(saved, circuit=load(netlists / "xor.yaml")).iteration == 3
    refused(saved, "another netlist", circuit=load(netlists / "xor_analog.yaml"))
    refused(saved, "with eta = 3.0, here it is 0.5", circuit=load(netlists / "xor.yaml", eta=0.5))
    refused(saved, "with hidden = 2.0, here it is 3", circuit=load(netlists / "xor.yaml", hidden=3))
    refused(saved, r"with tau_theta = iteration, here", circuit=load(netlists / "xor.yaml", tau_theta="2*iteration"))


def test_tables_are_kept_and_another_is_refused(tmp_path):
    """Also where they lie beside a netlist that was included, and are gone."""
    (tmp_path / "chip").mkdir()
    table, mine = tmp_path / "chip" / "pulse.csv", tmp_path / "mine.yaml"
    text = (ROOT / "netlists" / "xor.yaml").read_text().replace("eta: 3", 'eta: table("pulse.csv", 1)')
    (tmp_path / "chip" / "xor.yaml").write_text(text)
    table.write_text("g (1), up (1)\n0, 1\n2, 3\n")
    mine.write_text("include: chip/xor.yaml\ncircuit: mine\n")
    session = Session(load(mine), data="xor", target="numpy")
    session.save(tmp_path / "saved")
    assert session.circuit.spec.parameters["eta"] == 2
    table.write_text("g (1), up (1)\n0, 3\n2, 3\n")
    refused(tmp_path / "saved", "another table pulse.csv", circuit=load(mine))
    assert Session.resume(tmp_path / "saved").circuit.spec.parameters["eta"] == 2
    mine.unlink()
    table.unlink()
    assert Session.resume(tmp_path / "saved").circuit.spec.parameters["eta"] == 2


def test_other_data(saved):
    x, y = np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32)
    refused(saved, "learned from other data", data=(x, y))
    rest = Session.resume(saved)
    rest.set_data((x, y))
    rest.step(1)


def test_a_circuit_of_other_arrays(saved):
    held = checkpoint.read(saved)
    session = Session(load(ROOT / "netlists" / "xor.yaml"), batch=2, target="numpy")
    with pytest.raises(RunError, match="does not fit the circuit"):
        held.restore(session)


# Writing


def test_the_folder_of_the_netlist_may_be_gone(tmp_path, netlists):
    text = (netlists / "xor_np.yaml").read_text().replace("include: xor.yaml", f"include: {netlists / 'xor.yaml'}")
    (tmp_path / "mine.yaml").write_text(text)
    session = Session(load(tmp_path / "mine.yaml", eta="0.25"), target="numpy", data="xor")
    session.step(2)
    session.save(tmp_path / "state")
    (tmp_path / "mine.yaml").unlink()
    rest = Session.resume(tmp_path / "state", data="xor")
    rest.step(2), session.step(2)
    assert_same(session, rest)


def test_an_unwritable_place(tmp_path, netlists):
    session = Session(load(netlists / "xor.yaml"), target="numpy", data="xor")
    with pytest.raises(RunError, match="was not written: No such file"):
        session.save(tmp_path / "missing" / "state")


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failure_at_any_step_keeps_the_old_checkpoint(saved, monkeypatch, call):
    session = Session.resume(saved, data="xor")
    session.step(4)
    before = saved.read_bytes()

    def fails(*_):
        raise OSError(28, "No space left on device")

    if call == "write":
        monkeypatch.setattr(storage, "open", lambda *a: FullDisk(), raising=False)
    else:
        monkeypatch.setattr(os, call, fails)
    with pytest.raises(RunError, match="the checkpoint was not written: No space left on device"):
        session.save(saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["state"]
    session.save(saved)
    assert Session.resume(saved, data="xor").iteration == 7


class FullDisk:
    """A file on a disk that has no room."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, chunk):
        raise OSError(28, "No space left on device")


def test_everything_is_on_disk_before_the_name_is(saved, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, call=call, name=name: (done.append(name), call(*a))[1])
    Session.resume(saved).save(saved)
    assert done == ["fsync", "replace", "fsync"], "the file, the name, the folder"


LIMITED = """
import resource, sys
from mgdcircuits import Session
session = Session.resume(sys.argv[1], data="xor")
session.step(4)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
session.save(sys.argv[1])
"""


def test_a_file_that_may_not_grow(saved):
    """The system itself says no in the middle of the file."""
    pytest.importorskip("resource")
    before = saved.read_bytes()
    done = subprocess.run([sys.executable, "-c", LIMITED, str(saved)], cwd=ROOT, capture_output=True, text=True)
    assert "the checkpoint was not written: File too large" in done.stderr
    assert saved.read_bytes() == before and len(before) > 1000
    assert [p.name for p in saved.parent.iterdir()] == ["state"]
