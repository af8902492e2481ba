"""What tests of compiled circuits share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import mgdcircuits as mgd


@pytest.fixture
def assert_same_bits() -> Callable[..., None]:
    """Sessions hold the same in all arrays but scratch."""

    def check(one: mgd.Session, *others: mgd.Session) -> None:
        for array in one.program.arrays:
            if "@" not in array.name:  # scratch
                expected, *found = (s.target.array(array.name) for s in (one, *others))
                for other in found:
                    np.testing.assert_array_equal(expected, other, err_msg=array.name)

    return check
