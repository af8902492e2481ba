"""G over windows of several iterations: an update leaves it, the next estimate begins it anew."""

from __future__ import annotations

import numpy as np
import pytest

from mgdcircuits import Session, load

XOR = np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]), np.array([[0], [1], [1], [0.0]])
ACCUMULATE = {"mean": "G + (estimate - G)/n_G", "sum": "G + estimate"}


def session_of(folder, base, target, accumulate, tau, eta, clear="true"):
    path = folder / "net.yaml"
    path.write_text(f"""
include: {base}
circuit: windows
parameters: {{eta: {eta}}}
clocks: {{tau_theta: {tau}*iteration}}
learning:
  mgd:
    accumulate: {ACCUMULATE[accumulate]}
    update: {{request: -eta*G, every: tau_theta, clear: {clear}}}
""")
    session = Session(load(path), batch=4, target=target, dtype="float64", seed=5)
    session.present(*XOR)
    return session


@pytest.mark.parametrize("target", ["numpy", "cpp"])
@pytest.mark.parametrize("accumulate", ACCUMULATE)
def test_an_update_leaves_what_it_used(netlists, tmp_path, target, accumulate):
    """Windows of 3 at eta = 0 are the estimates of single iterations, averaged or added up by hand."""
    base = netlists / "xor.yaml"
    single = session_of(tmp_path, base, target, "mean", 1, 0)
    windows = session_of(tmp_path, base, target, accumulate, 3, 0)
    collected = []
    for n in range(12):
        single.step()
        windows.step()
        collected = [*([] if n % 3 == 0 else collected), single.gradient_estimate()]
        for name, value in windows.gradient_estimate().items():
            expected = sum(c[name] for c in collected) / (len(collected) if accumulate == "mean" else 1)
            np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-13)
            assert value.any(), "also right after an update"
    assert all((w == 0).all() for w in (single.writes(n) for n in single.parameters)), "eta = 0 asks for nothing"


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_the_update_is_made_of_what_it_leaves(netlists, tmp_path, target):
    session = session_of(tmp_path, netlists / "xor.yaml", target, "mean", 4, 0.5)
    before = {name: value.copy() for name, value in session.parameters.items()}
    for n in range(1, 9):
        session.step()
        moved = {name: value - before[name] for name, value in session.parameters.items()}
        for name, g in session.gradient_estimate().items():
            np.testing.assert_allclose(moved[name], -0.5 * g if n % 4 == 0 else 0 * g, rtol=1e-9, atol=1e-15)
        before = {name: value.copy() for name, value in session.parameters.items()}


def test_what_is_not_cleared_goes_on(netlists, tmp_path):
    session = session_of(tmp_path, netlists / "xor.yaml", "numpy", "sum", 1, 0, "false")
    session.step()
    first = session.gradient_estimate()
    session.step()
    single = session_of(tmp_path, netlists / "xor.yaml", "numpy", "sum", 1, 0)
    single.step(2)
    for name, value in session.gradient_estimate().items():
        np.testing.assert_allclose(value - first[name], single.gradient_estimate()[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("target", ["numpy", "cpp"])
def test_momentum_of_a_changing_eta(netlists, tmp_path, target):
    """M = gamma*M + eta*G and W -= M (mgd.md section 2): what was gathered at a larger eta keeps its length."""
    path = tmp_path / "net.yaml"
    path.write_text(f"""
include: {netlists / "xor.yaml"}
circuit: momentum
parameters: {{eta: 0.5/(1 + n_theta)}}
learning:
  mgd:
    update: {{request: none, use: momentum(gamma=0.5), every: tau_theta}}
""")
    session = Session(load(path), batch=4, target=target, dtype="float64", seed=5)
    session.present(*XOR)
    gathered = dict.fromkeys(session.parameters, 0.0)
    for n in range(6):
        before = {name: values.copy() for name, values in session.parameters.items()}
        session.step()
        for name, estimate in session.gradient_estimate().items():
            gathered[name] = 0.5 * gathered[name] + 0.5 / (1 + n) * estimate
            np.testing.assert_allclose(session.parameters[name], before[name] - gathered[name], rtol=1e-12, atol=1e-15)
