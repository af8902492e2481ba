"""Codes of signs that compiled circuits keep as bits while a run lasts."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.circuit import builder
from mgdcircuits.codegen.cpp_emitter import Emitter
from mgdcircuits.codegen.cpp_layout import Layout, choose_lanes
from mgdcircuits.codegen.naming import private
from mgdcircuits.codegen.target import ITERATE

MLP, CNN = "fashion_mnist_mlp.yaml", "fashion_mnist_cnn.yaml"
CODES = ("hidden.theta_w", "logits.theta_w")


def coded(circuit, batch: int, members: int = 1) -> set[str]:
    program, clocks = builder.build(circuit)
    layout = Layout("float", choose_lanes(members, batch), members, batch)
    return Emitter(private(program), layout, clocks.ticks, clocks.evaluations, ITERATE).arrays.coded


def test_signs_of_weights_are_bits(netlists) -> None:
    circuit = mgd.load(netlists / MLP)
    assert coded(circuit, 1) == coded(circuit, 100) == {"hidden.theta_w"}  # the others are fewer than a call gives
    assert coded(mgd.load(netlists / MLP, h=20), 1) == set(CODES)
    assert not coded(circuit, 1, members=3)
    maps = {name for name in coded(mgd.load(netlists / CNN, d=8), 20) if "conv" in name}
    assert maps == {f"conv{k}.theta_w" for k in range(2, 7)}  # conv1 has 72 weights


@pytest.mark.parametrize(("name", "batch"), [(MLP, 1), (MLP, 3), (MLP, 40), (CNN, 1), (CNN, 20)])
def test_what_is_seen_of_them_is_numbers(netlists, assert_same_bits, name: str, batch: int) -> None:
    """The numbers of the numpy target, after every call, with any number of threads."""
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, 1, 28, 28)), rng.integers(0, 10, batch)
    circuit = mgd.load(netlists / name, **({"d": 1} if name == CNN else {}))
    codes = {MLP: CODES, CNN: ("conv6.theta_w", "dense1.theta_w")}[name]
    made = [("numpy", 1), ("cpp", 1), ("cpp", 2), ("cpp", 3)]
    sessions = [mgd.Session(circuit, batch=batch, seed=3, target=t, threads=n) for t, n in made]
    for session in sessions:
        session.present(x, y)
    for n in (1, 2, 7):
        for session in sessions:
            session.step(n)
            session.cost()
        expected, *found = sessions
        for code in codes:
            assert np.unique(expected.view(code)).size == 2
            for session in found:
                np.testing.assert_allclose(session.view(code), expected.view(code), rtol=1e-6, err_msg=code)
        assert_same_bits(*found)
