"""A resumed session goes on bit for bit; what is no checkpoint is refused."""

import numpy as np
import pytest

from mgdcircuits import Session, load
from mgdcircuits.errors import RunError


@pytest.mark.parametrize(("target", "netlist"), [("numpy", "xor"), ("cpp", "xor"), ("numpy", "xor_analog")])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, netlists, target, netlist):
    circuit = load(netlists / f"{netlist}.yaml")
    whole = Session(circuit, target=target, seed=3, members=2, data="xor")
    whole.step(30)
    first = Session(circuit, target=target, seed=3, members=2, data="xor")
    first.step(11)
    first.save(tmp_path / "state.nc")
    rest = Session.resume(tmp_path / "state.nc", data="xor")
    rest.step(19)
    assert rest.iteration == whole.iteration == 30
    for name, value in whole.parameters.items():
        np.testing.assert_array_equal(rest.parameters[name], value)


def test_damaged_checkpoint_is_refused(tmp_path, netlists):
    circuit = load(netlists / "xor.yaml")
    session = Session(circuit, target="numpy", data="xor")
    session.save(tmp_path / "state.nc")
    whole = (tmp_path / "state.nc").read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        (tmp_path / "damaged.nc").write_bytes(content)
        with pytest.raises(RunError, match="no readable checkpoint"):
            Session.resume(tmp_path / "damaged.nc")


def test_unwritable_place_keeps_the_old_checkpoint(tmp_path, netlists):
    session = Session(load(netlists / "xor.yaml"), target="numpy", data="xor")
    with pytest.raises(RunError, match="was not written"):
        session.save(tmp_path / "missing" / "state.nc")
