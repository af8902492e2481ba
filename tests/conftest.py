"""Shared places."""

import os
import signal
from pathlib import Path

import pytest

# A process in the background of a script ignores Ctrl-C; the tests of Ctrl-C send it. Before Brian2 is imported, which
# would call the ignoring handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where tests run side by side, so do their compilers; here and in the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("MGDCIRCUITS_COMPILERS", "1")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def netlists() -> Path:
    """The folder of valid netlists."""
    return ROOT / "netlists"
