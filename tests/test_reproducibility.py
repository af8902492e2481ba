"""The same seed gives the same bits: with 1 or 2 threads, in one call or many, members together or alone, watched or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import Session, load

VALID = Path(__file__).parent / "netlists" / "valid"

# Large enough that loops are shared between threads (mgd/parallel.hpp: 60,000 operations): 10,380 parameters.
BIG = """
include: {base}
circuit: big
parameters: {{side: 16, channels: 8, classes: 20, delta: 0.001, noise: 0.01}}
clocks: {{tau_x: 2*iteration, tau_theta: 2*iteration}}
kinds:
  tanh:
    equations: |
      x = tanh(I + b + theta_b + theta) + noise*randn() : 1
      I : 1
      b : 1 (plastic, per channel)
      theta_b : 1 (perturbation of b)
      theta : 1 (perturbation)
learning:
  wp: none
  both:
    perturb: {{theta_w: delta*gaussian(), theta_b: delta*bernoulli(), every: tau_p, blocks: layer}}
    passes: {{clean: 0, plus: 1}}
    estimate: (C.plus - C.clean)*theta/delta**2
    update: {{use: momentum, every: tau_theta}}
"""
RNG = np.random.default_rng(3)
IMAGES, LABELS = RNG.random((64, 1, 16, 16)).astype(np.float32), RNG.integers(0, 20, 64)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big.yaml"
    path.write_text(BIG.format(base=VALID / "small_conv.yaml"))
    return load(path)


def run(circuit, steps=(6,), *, watch=None, data=(IMAGES, LABELS), **options) -> dict[str, np.ndarray]:
    """Everything that a run leaves behind; `watch` is called between the steps."""
    session = Session(circuit, data=data, **options)
    for n in steps:
        session.step(n)
        if watch is not None:
            watch(session)
    assert session.iteration == sum(steps)
    return state(session)


def state(session: Session) -> dict[str, np.ndarray]:
    """Parameters, estimates, write counters and states of the rule, member first, copied."""
    names = [a.name for a in session.program.arrays if a.name in session.parameters or ":" in a.name]
    names = [n for n in names if not n.startswith(("gradient", "adj"))]
    return {n: np.array(session.view(n)) for n in names}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def together(big) -> dict[str, np.ndarray]:
    """The run that the others are compared with: three members, one thread, one call."""
    found = run(big, seed=20, members=3, batch=20)
    assert all(
        np.isfinite(v).all() and v.any() for n, v in found.items() if n in ("conv.w", "logits.b", "conv.w:velocity")
    )
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_calls(big, together, threads):
    assert_same(together, run(big, (1, 2, 1, 1, 1), seed=20, members=3, batch=20, threads=threads))


def watch(session: Session) -> None:
    """Everything that one can look at."""
    session.cost(), session.outputs(), session.evaluate(IMAGES[:7], LABELS[:7]), session.gradient_estimate()
    session.view("both.C.plus"), session.parameters["conv.w"].copy()


def test_watching(big, together):
    assert_same(together, run(big, (1, 1, 3, 1), watch=watch, seed=20, members=3, batch=20, threads=2))


def test_a_member_alone(big, together):
    """Member m of seed s is the run of seed s + m."""
    alone = run(big, seed=22, batch=20, threads=2)
    assert_same({n: v[2] for n, v in together.items()}, alone)


def test_another_seed_is_another_run(big, together):
    assert not np.array_equal(together["conv.w"][0], together["conv.w"][1])


# Batch 1: lanes are members, so an experiment alone runs in another loop than a hundred together.


@pytest.mark.parametrize("netlist", ["xor", "xor_analog"])
def test_members_in_lanes(netlists, netlist):
    circuit = load(netlists / f"{netlist}.yaml")
    whole = run(circuit, (1000,), data="xor", seed=1, members=100)
    alone = run(circuit, (300, 700), data="xor", seed=38)
    assert_same({n: v[37] for n, v in whole.items()}, alone)


@pytest.mark.parametrize("netlist", ["analog_rc", "crossbar_rram"])
def test_watching_a_circuit_with_charge(netlists, netlist):
    """Charge and filters carry over from one evaluation to the next; looking must not move them."""
    circuit = load(netlists / f"{netlist}.yaml")
    options = {"target": "numpy", "seed": 3, "data": circuit.spec.task.data}

    def look(session: Session) -> None:
        session.cost(), session.outputs(), session.accuracy()
        session.evaluate(session.dataset.x_train[:3], session.dataset.y_train[:3])

    assert_same(run(circuit, (12,), **options), run(circuit, (1, 4, 1, 5, 1), watch=look, **options))


def test_recording(netlists, tmp_path):
    """`train` with much to record, with nothing, and `step`: the same end."""
    circuit = load(netlists / "xor.yaml")
    plain = run(circuit, (40,), data="xor", seed=6, target="numpy")
    options = {"iterations": 40, "seed": 6, "target": "numpy", "progress": False}
    everything = [
        "C",
        "accuracy",
        "writes",
        {"variable": "output.w", "every": "iteration"},
        {"variable": "hidden_layer.x", "every": "iteration", "passes": ["clean"]},
    ]
    for record, every in ((everything, 3), ([{"variable": "output.w", "every": "iteration"}], 40)):
        found = mgd.train(circuit, "xor", record=record, evaluate_every=every, **options)
        np.testing.assert_array_equal(found["w_output"].values[-1].ravel(), plain["output.w"].ravel())
