"""Counts of writes, which C++ keeps in bytes in between."""

from __future__ import annotations

import numpy as np
import pytest

import mgdcircuits as mgd


@pytest.mark.parametrize("batch, members", [(1, 1), (1, 20), (3, 2)])
def test_more_writes_than_a_byte_holds(netlists, batch: int, members: int) -> None:
    circuit = mgd.load(netlists / "xor.yaml")
    writes = {}
    for target in ("numpy", "cpp"):
        session = mgd.Session(circuit, batch=batch, members=members, seed=4, target=target, dtype="float64", data="xor")
        session.step(255)
        session.step(700)
        writes[target] = {
            a.name: session.view(a.name).copy() for a in session.program.arrays if a.name.endswith(":writes")
        }
    assert writes["cpp"] and max(np.max(w) for w in writes["cpp"].values()) > 800
    for name, counted in writes["cpp"].items():
        np.testing.assert_array_equal(counted, writes["numpy"][name], err_msg=name)
