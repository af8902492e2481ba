"""Passes of one iteration that run at the same time: the same bits as one after another."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.circuit import builder
from mgdcircuits.codegen.concurrent import Together, together

CNN = "fashion_mnist_cnn.yaml"


def parts_of(netlists, name: str, **settings) -> list[Together]:
    program, _ = builder.build(mgd.load(netlists / name, **settings))
    return [node for node in together(program) if isinstance(node, Together)]


def test_perturbed_passes_do_not_need_each_other(netlists) -> None:
    (found,) = parts_of(netlists, CNN, d=1)
    assert len(found.parts) == 9  # one a layer; the unperturbed evaluation comes before
    assert found.evaluations == tuple(range(1, 11))
    assert "wp.C.plus" in found.left and not any(name.endswith(":G") for name in found.private)


def test_a_pass_that_needs_the_one_before_waits_for_it(netlists) -> None:
    """The filters of an analog circuit go on from pass to pass; one perturbation of everything is one pass."""
    assert not parts_of(netlists, "xor_analog.yaml")
    assert not any(len(p.parts) > 2 for p in parts_of(netlists, "xor.yaml"))


@pytest.mark.parametrize("name", [CNN, "fashion_mnist_cnn_np.yaml"])
@pytest.mark.parametrize("threads", [2, 3])
def test_bits_of_passes_at_the_same_time(netlists, name: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((1, 1, 28, 28)), rng.integers(0, 10, 1)
    sessions = [mgd.Session(mgd.load(netlists / name, d=1), batch=1, seed=3, threads=n) for n in (1, threads)]
    for session in sessions:
        session.present(x, y)
    for n in (1, 2, 20):
        for session in sessions:
            session.step(n)
            session.cost()
        for array in sessions[0].program.arrays:
            if "@" not in array.name:  # scratch
                one, other = (s.target.array(array.name) for s in sessions)
                np.testing.assert_array_equal(one, other, err_msg=array.name)
