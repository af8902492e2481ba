"""Sessions that live side by side in one process, are stopped, looked at and changed, and leave Python as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import Session, load
from mgdcircuits.circuit.carried import carried
from mgdcircuits.errors import RunError

ROOT = Path(__file__).parent.parent
NETLISTS = ROOT / "netlists"
CONV = ROOT / "tests" / "netlists" / "valid" / "small_conv.yaml"
RNG = np.random.default_rng(8)
IMAGES, LABELS = RNG.random((20, 1, 4, 4)).astype(np.float32), RNG.integers(0, 4, 20)
TARGETS = ("numpy", "cpp")
FOREVER = 10**12


def state(session: Session) -> dict[str, np.ndarray]:
    return {a.name: session.target.array(a.name).copy() for a in carried(session.program)}


def assert_same(one: Session, other: Session) -> None:
    assert one.iteration == other.iteration
    ours, theirs = state(one), state(other)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def xor(target: str, **options) -> Session:
    return Session(load(NETLISTS / "xor.yaml"), **{"target": target, "data": "xor", "seed": 4, **options})


# Ctrl-C


def press_ctrl_c(after: float) -> list[float]:
    """Send SIGINT to this process in a while; when it was sent."""
    sent: list[float] = []

    def press() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(after, press).start()
    return sent


@pytest.mark.parametrize("target", TARGETS)
def test_ctrl_c_acts_within_two_tenths_of_a_second_and_the_session_goes_on(target):
    session = xor(target)
    session.step(100)
    late = []
    for _ in range(3):
        sent = press_ctrl_c(0.3)
        with pytest.raises(KeyboardInterrupt):
            session.step(FOREVER)
        late.append(time.monotonic() - sent[0])
    assert min(late) < 0.2, late
    session.step(50)
    other = xor(target)
    other.step(session.iteration)
    assert_same(session, other)


def test_ctrl_c_in_a_spiking_circuit():
    """A tick is never cut in two."""
    circuit = load(NETLISTS / "brian2_stdp.yaml")
    session, other = (Session(circuit, target="numpy", seed=1) for _ in range(2))
    press_ctrl_c(0.1)
    with pytest.raises(KeyboardInterrupt):
        session.run(1000.0)
    for _ in range(session.iteration):
        other.target.run("iteration", 1)
    assert_same(session, other)


@pytest.mark.parametrize("target", TARGETS)
def test_ctrl_c_while_training(tmp_path, target):
    circuit = load(NETLISTS / "xor.yaml")
    mgd.train(circuit, iterations=10, target=target, progress=False)
    sent = press_ctrl_c(1.0)
    with pytest.raises(mgd.Interrupted, match="stopped at iteration") as caught:
        mgd.train(circuit, iterations=FOREVER, target=target, progress=False, out=tmp_path / "run.nc")
    assert time.monotonic() - sent[0] < 1.0  # a checkpoint is written, the dataset closed and read
    assert caught.value.dataset.attrs["state"] == "interrupted"


@pytest.mark.parametrize("target", TARGETS)
def test_a_handler_of_the_user_is_called_and_the_step_completed(target):
    session, calls = xor(target), []
    session.step(100)
    n = {"numpy": 1_000, "cpp": 1_000_000}[target]
    previous = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        press_ctrl_c(0.1)
        session.step(n)
    finally:
        assert signal.signal(signal.SIGINT, previous) is not previous
    assert calls == [signal.SIGINT] and session.iteration == 100 + n


UNTOUCHED = """
import ctypes, signal, sys
import numpy as np

def python():
    handlers = {s: signal.getsignal(s) for s in signal.valid_signals()}
    with np.errstate(all="ignore"):
        small = [float(np.float32(1e-40) * np.float32(0.5)), 5e-324 * 1.0, float(np.float32(1e-20) ** 2)]
        arrays = [(np.full(64, 1e-40, np.float32) * np.float32(0.5)).tolist(), (np.full(64, 1e-310) / 2).tolist()]
    libm = ctypes.CDLL(None)
    return handlers, small, arrays, np.geterr(), libm.fegetround(), 1.0 / 3.0, sys.getswitchinterval()

before = python()
assert 0 not in before[1] and 0 not in sum(before[2], []), "denormals are gone before we began"
import mgdcircuits as mgd
from mgdcircuits import Session
circuit = mgd.load(sys.argv[1])
session = Session(circuit, batch=20, target=sys.argv[2], threads=2, seed=1)
x, y = np.ones((20, 1, 4, 4), np.float32), np.zeros(20, int)
session.present(x, y)
session.step(5); session.cost(); session.evaluate(x, y); session.exact_gradient()
run = mgd.train(circuit, (x, y), iterations=5, batch=20, target=sys.argv[2], progress=False)
after = python()
for one, other in zip(before, after):
    assert one == other, (one, other)
try:
    np.float32(1) / np.zeros(1, np.float32)
    with np.errstate(divide="raise"):
        np.ones(1) / np.zeros(1)
    raise SystemExit("a division by zero was not raised")
except FloatingPointError:
    print("untouched")
"""


@pytest.mark.parametrize("target", TARGETS)
def test_arithmetic_and_signals_of_python_stay_as_they_were(target):
    """Denormals, rounding, numpy's error state, signal handlers: before and after a library is loaded and run."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNTOUCHED, str(CONV), target],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == "untouched", done.stdout + done.stderr


def test_brian2_is_imported_from_any_thread():
    """By itself it refuses, and takes over Ctrl-C and the reports of errors."""
    code = (
        "import signal, sys, threading; before = signal.signal, signal.getsignal(2), sys.excepthook; import mgdcircuits as m;"
        f"work = lambda: print(m.Session(m.load({str(CONV)!r}), target='numpy').iteration);"
        "t = threading.Thread(target=work); t.start(); t.join();"
        "print(before == (signal.signal, signal.getsignal(2), sys.excepthook))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["0", "True"], done.stdout + done.stderr


# Side by side


def several(target: str) -> list[Session]:
    """Two of the same circuit, one with other numbers, and others."""
    conv = load(CONV)
    images = {"data": (IMAGES, LABELS), "target": target}
    return [
        xor(target),
        xor(target, seed=5),
        Session(load(NETLISTS / "xor.yaml", eta=0.5, tau_theta="3*iteration"), target=target, data="xor", seed=4),
        Session(load(NETLISTS / "xor_analog.yaml"), target=target, data="xor", seed=4),
        Session(conv, batch=20, seed=1, threads=2, **images),
        Session(conv, batch=20, seed=2, **images),
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_steps_that_alternate_give_the_same_bits_as_alone(target):
    together, alone = several(target), several(target)
    for n in (1, 3, 2, 5, 1, 8):
        for session in together:
            session.step(n)
    for session, other in zip(together, alone, strict=True):
        other.step(20)
        assert_same(session, other)


def test_steps_in_threads_give_the_same_bits_as_alone():
    together, alone = several("cpp"), several("cpp")
    with ThreadPoolExecutor(len(together)) as pool:
        list(pool.map(lambda session: [session.step(n) for n in (200, 1, 299)], together))
    for session, other in zip(together, alone, strict=True):
        other.step(500)
        assert_same(session, other)


def test_a_session_may_go_while_others_stay():
    first, second, alone = xor("cpp"), xor("cpp", seed=5), xor("cpp", seed=5)
    first.step(10), second.step(10)
    del first
    second.step(10), alone.step(20)
    assert_same(second, alone)


# Looking and changing


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("batch", [1, 20])
def test_evaluation_on_other_data_disturbs_nothing(target, batch):
    options = {"target": target, "data": (IMAGES, LABELS), "batch": batch, "seed": 3}
    looked, plain = (Session(load(CONV), **options) for _ in range(2))
    other = RNG.random((70, 1, 4, 4)).astype(np.float32), RNG.integers(0, 4, 70)
    for n in (1, 2, 4):
        looked.step(n), plain.step(n)
        first = looked.evaluate(*other)
        looked.evaluate(other[0][:3], other[1][:3]), looked.cost(), looked.outputs(), looked.exact_gradient()
        again = looked.evaluate(*other)
        np.testing.assert_array_equal(first.outputs, again.outputs)
        assert_same(looked, plain)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("batch", [1, 20])
def test_parameters_changed_through_their_views(target, batch):
    """What is stepped and evaluated afterwards is as if the session had always been so."""
    options = {"target": target, "data": (IMAGES, LABELS), "batch": batch, "seed": 3}
    session = Session(load(CONV), **options)
    session.step(4)
    before = session.evaluate(IMAGES, LABELS)
    for name, values in session.parameters.items():
        values *= 1.5
        values += 0.1
        assert np.shares_memory(values, session.parameters[name])
    changed = {n: p.copy() for n, p in session.parameters.items()}
    other = Session(load(CONV), **options)  # with the changed values from the beginning
    other.step(4)
    for array in carried(other.program):
        other.target.write(array.name, session.target.array(array.name))
    assert not np.array_equal(session.evaluate(IMAGES, LABELS).cost, before.cost)
    np.testing.assert_array_equal(session.outputs(), other.outputs())
    for one in (session, other):
        one.step(5)
    assert_same(session, other)
    oracle = Session(load(CONV), **{**options, "target": "numpy", "dtype": "float64"})
    oracle.target.iteration = 4
    for name, values in changed.items():
        oracle.parameters[name][...] = values
    oracle.step(5)
    for name, values in oracle.parameters.items():
        np.testing.assert_allclose(session.parameters[name], values, rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("target", TARGETS)
def test_back_to_an_earlier_state(target):
    """Taking a state back and stepping again gives the same bits."""
    session = xor(target)
    session.step(7)
    kept = state(session)
    session.step(9)
    expected = state(session)
    session.step(100), session.cost()
    for name, values in kept.items():
        session.target.write(name, values)
    session.target.iteration = 7
    session.step(9)
    for name, values in expected.items():
        np.testing.assert_array_equal(session.target.array(name), values, err_msg=name)


# Memory

FLAT = """
import gc, os, sys
import numpy as np
import mgdcircuits as mgd

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

circuit, target, folder = mgd.load(sys.argv[1]), sys.argv[2], sys.argv[3]
x, y = np.ones((40, 1, 4, 4), np.float32), np.arange(40) % 4
session = mgd.Session(circuit, batch=20, target=target, data=(x, y))
def work(n):
    for _ in range(5):
        session.step(n // 5)
        session.evaluate(x, y), session.cost(), session.exact_gradient()
        session.save(f"{folder}/state")
    mgd.train(circuit, (x, y), iterations=n, batch=20, evaluate_every=n // 25, target=target, progress=False,
              out=f"{folder}/run.nc", overwrite=True, checkpoint_every=0.1)
n = {"numpy": 50, "cpp": 1000}[target]
work(n), work(n)
before = resident()
for _ in range(5):
    work(n)
print(resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="says how much memory a process has")
@pytest.mark.parametrize("target", TARGETS)
def test_memory_stays_flat(tmp_path, target):
    """Iterations by the hundred or thousand, rows, evaluations and checkpoints leave less than 4 MB behind."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FLAT, str(CONV), target, str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4.0, f"{done.stdout} MB"


def test_no_samples_to_evaluate():
    session = Session(load(NETLISTS / "xor.yaml"), target="numpy")
    with pytest.raises(RunError, match="no samples to evaluate; give at least one"):
        session.evaluate(np.zeros((0, 2)), np.zeros(0))
