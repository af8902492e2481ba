"""Evaluations, hardware seconds and writes, counted by hand on three netlists."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import Session, load

RNG = np.random.default_rng(2)

XOR = np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]), np.array([[0], [1], [1], [0.0]])


def test_convolutional_net_layer_by_layer(netlists):
    """Batch 96, nine blocks and a baseline: 10 passes of 96 samples are 960 sample evaluations an iteration."""
    circuit = load(netlists / "fashion_mnist_cnn.yaml", d=1, tau_theta="2*iteration")
    data = RNG.integers(0, 256, (200, 28, 28), dtype=np.uint8), RNG.integers(0, 10, 200)
    session = Session(circuit, batch=96, target="numpy", data=data)
    assert (session.evaluations, session.hardware_seconds) == (0, 0)
    session.step()
    assert session.evaluations == 10 * 96 == 960
    assert session.hardware_seconds == pytest.approx(960e-6)  # 1 us each, one after another
    assert sum(session.writes(name).sum() for name in session.parameters) == 0  # an update every second iteration
    session.step(2)
    assert session.evaluations == 2880
    assert session.hardware_seconds == pytest.approx(2880e-6)
    # One update. A device is written unless its request is 0: where no pixel or tanh reaches, G is not 0 either, since
    # weight perturbation gives the whole layer the same change of the cost.
    written = {name: session.writes(name) for name in session.parameters}
    assert sum(w.size for w in written.values()) == 520
    assert all((w == 1).all() for w in written.values())


def test_xor_one_device_after_another(netlists, tmp_path):
    """Finite differences, antithetic: 2 evaluations an iteration, one device written in each; 9 devices take turns."""
    path = tmp_path / "sequential.yaml"
    path.write_text(f"""
include: {netlists / "xor.yaml"}
circuit: sequential
learning:
  mgd: none
  fd:
    perturb: {{theta_w: delta*sequential(), theta_b: delta*sequential(), every: tau_p}}
    passes: {{plus: 1, minus: -1}}
    estimate: (C.plus - C.minus)*theta/(2*delta**2)
    update: {{request: -eta*G, every: tau_theta}}
""")
    session = Session(load(path), batch=4, target="numpy", seed=5)
    session.present(*XOR)
    total = 0
    for n in range(1, 19):
        session.step()
        total = sum(session.writes(name).sum() for name in session.parameters)
        assert total == n
        assert session.evaluations == n * 2 * 4
        assert session.hardware_seconds == pytest.approx(n * 2 * 4 * 1e-6)
    assert all((session.writes(name) == 2).all() for name in session.parameters)  # 18 iterations are two turns


def test_evaluations_on_request_are_not_counted(netlists):
    """Looking is free: outputs, costs, gradients and test sets are not evaluations on the hardware."""
    session = Session(load(netlists / "xor.yaml"), target="numpy", data="xor")
    session.step(3)
    session.cost(), session.outputs(), session.exact_gradient(), session.evaluate(*XOR)
    assert (session.iteration, session.evaluations) == (3, 6)
    assert session.hardware_seconds == pytest.approx(6e-6)


PULSES = """
circuit: pulses
parameters: {dG: 0.5*uS, delta: 0.01, eta: 0.2}
clocks: {tau_p: 100*ns, tau_theta: 3*iteration}
kinds:
  device:
    equations: |
      I_post = (g + theta_g)*V_pre : amp (summed)
      g : siemens (plastic)
      theta_g : siemens (perturbation of g)
    initial: {g: 20*uS*rand()}
    scale: {g: 20*uS}
    on_write: |
      n = floor(request/dG + 0.5)
      g = g + n*dG
      writes += abs(n)
chain:
  - row: {shape: 3, equations: "V : volt"}
  - column: {shape: 2, equations: "I : amp\\nU = I*100*kohm : volt", via: device}
task: {V_row: x*volt, target: y, batch: 8}
cost: {C: "mean((U_column/volt - target)**2)"}
learning:
  mgd:
    perturb: {theta_g: delta*scale*bernoulli(), every: tau_p}
    passes: {clean: 0, plus: 1}
    estimate: (C.plus - C.clean)*theta/(delta*scale)**2
    update: {request: -eta*scale**2*G, every: tau_theta}
hardware:
  inference: {time: 40*ns, copies: 4}
  write: {time: 1*us, parallel: row}
"""


def test_pulses_on_four_copies(tmp_path):
    """A device that moves in pulses counts pulses, and 8 samples on 4 copies of the circuit take the time of 2."""
    (tmp_path / "pulses.yaml").write_text(PULSES)
    circuit = load(tmp_path / "pulses.yaml")
    data = RNG.uniform(-1, 1, (40, 3)).astype(np.float32), RNG.uniform(-1, 1, (40, 2)).astype(np.float32)
    session = Session(circuit, target="numpy", dtype="float64", seed=1, data=data)
    moved, before = np.zeros((2, 3)), session.parameters["column.g"].copy()
    for n in range(1, 31):
        session.step()
        after = session.parameters["column.g"].copy()
        moved += np.abs(after - before) / 0.5e-6
        before = after
        if n % 3:
            assert (session.writes("column.g") == np.rint(moved)).all()
    np.testing.assert_allclose(moved, np.rint(moved), atol=1e-6)
    assert (session.writes("column.g") == np.rint(moved)).all()
    assert moved.max() > 10
    assert session.evaluations == 30 * 2 * 8
    assert session.hardware_seconds == pytest.approx(30 * 2 * 2 * 40e-9 + 10 * 2 * 1e-6)  # ten updates of two rows


def test_the_dataset_has_the_same_counts(netlists):
    run = mgd.train(load(netlists / "xor_analog.yaml"), iterations=12, evaluate_every=4, target="numpy", progress=False)
    assert run["iteration"].values.tolist() == [0, 4, 8, 12]
    assert run["evaluations"].values.tolist() == [0, 4, 8, 12]  # one evaluation an iteration
    np.testing.assert_allclose(run["hardware_seconds"], np.array([0, 4, 8, 12]) * 1e-6)
    assert run["writes_max"].values.max() <= 12
    assert run["writes_mean"].values[-1].min() >= 10  # written in every iteration, but where the change was 0 so far
