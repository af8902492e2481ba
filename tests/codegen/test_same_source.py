"""The C++ text of a circuit is the same in every process, so that it is compiled once: the cache goes by the text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NETLISTS = ("xor", "xor_analog", "fashion_mnist_cnn_np", "analog_rc", "crossbar_rram")
SCRIPT = """
import sys
import mgdcircuits as mgd
from mgdcircuits.codegen import compiler

class Enough(Exception):
    pass

def show(sources):
    print(*sources, sep="\\n")
    raise Enough

compiler.library = show
for name in sys.argv[1:]:
    circuit = mgd.load(f"netlists/{name}.yaml")
    try:
        mgd.Session(circuit, batch=2)
    except Enough:
        pass
"""


def test_the_generated_source_does_not_depend_on_the_process():
    """Python's sets of text have another order in every process; PYTHONHASHSEED chooses it."""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, *NETLISTS],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate()[0] for process in running)
    assert all(process.returncode == 0 for process in running)
    assert first.count("mgd_generated") >= len(NETLISTS)
    assert first.splitlines() == second.splitlines()
