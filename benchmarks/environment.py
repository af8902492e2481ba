"""The peers' environment: `.bench-venv`, made once and kept up to date with requirements.txt."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.workers import PEERS_PYTHON, ROOT

FOLDER = ROOT / ".bench-venv"
STAMP = FOLDER / "requirements.sha256"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class EnvironmentFailure(Exception):
    """The peers cannot be installed; the message says why."""


def ensure() -> None:
    """Make the environment unless it fits.

    Raises
    ------
    EnvironmentFailure
        pip did not succeed.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if PEERS_PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    print("benchmarks: installing PyTorch and JAX into .bench-venv (once) ...", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    base = getattr(sys, "_base_executable", None) or sys.executable
    log = ROOT / "build" / "benchmarks" / "install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    install = [str(PEERS_PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    with log.open("wb") as output:
        for command in ([base, "-m", "venv", str(FOLDER)], install):
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode:
                raise EnvironmentFailure(
                    f"the peers could not be installed; {log.relative_to(ROOT)} says why; check that "
                    "this machine is connected to the network"
                )
    STAMP.write_text(wanted)
