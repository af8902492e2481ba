"""Shared places."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def netlists() -> Path:
    """The folder of valid netlists."""
    return ROOT / "netlists"
