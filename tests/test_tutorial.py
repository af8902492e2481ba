"""Every command of the tutorial, in order, in a folder with a copy of the netlists."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = re.findall(r"^\$ (.+)$", (ROOT / "docs" / "tutorial.md").read_text(), flags=re.MULTILINE)


def test_every_command_of_the_tutorial_runs(tmp_path):
    assert len(COMMANDS) > 15
    shutil.copytree(ROOT / "netlists", tmp_path / "netlists")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    for command in COMMANDS:
        run = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if run.returncode != 0:
            pytest.fail(f"$ {command}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    for made in ("xor.svg", "xor.png", "fashion.png"):
        assert (tmp_path / made).stat().st_size > 1000
