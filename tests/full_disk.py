"""Runs on a disk that fills up, at one size after another: what stops them, what is left, and that they go on.

python tests/full_disk.py SMALL_DISK FOLDER [SIZES]

SMALL_DISK is a file system of its own with a megabyte. Prints what was full, as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections import Counter
from pathlib import Path

import mgdcircuits as mgd
from mgdcircuits import checkpoint
from mgdcircuits.cli import cli, run

XOR = Path(__file__).parent.parent / "netlists" / "xor.yaml"
OPTIONS = [
    "--iterations",
    "20000",
    "--evaluate-every",
    "100",
    "--checkpoint-every",
    "0.001",
    "--quiet",
    "--threads",
    "1",
]


def train(out: Path, *more: str) -> tuple[int, str]:
    """Exit status and what was said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = run(cli, ["train", str(XOR), *OPTIONS, "-o", str(out), *more])
    return status, said.getvalue()


def main() -> int:
    """Leave less and less room."""
    disk, whole = Path(sys.argv[1]), Path(sys.argv[2]) / "whole.nc"
    sizes = int(sys.argv[3]) if len(sys.argv) > 3 else 36
    assert train(whole)[0] == 0
    expected = mgd.open_run(whole).drop_vars("wall_seconds")
    found = Counter()
    for size in range(sizes):
        kilobytes = 220 - 216 * size // sizes
        for path in disk.iterdir():
            path.unlink()
        out, filler = disk / "run.nc", disk / "filler"
        state = os.statvfs(disk)
        filler.write_bytes(bytes(state.f_bavail * state.f_frsize - 1024 * kilobytes))
        status, said = train(out)
        if status == 0:
            found["enough room"] += 1
            continue
        assert status == 2 and said.count("\n") == 1, said
        assert "No space left on device" in said, said
        found["checkpoint" if ".state: " in said else "dataset"] += 1
        rows = mgd.open_run(out).sizes["iteration"] if out.exists() else 0
        assert str(rows) in said or ".state: " in said or not rows, (rows, said)
        left = disk / "run.nc.state"
        iteration = checkpoint.read(left).about["iteration"] if left.exists() else 0
        found["with rows"] += rows > 0
        found["with a checkpoint to go on from"] += iteration > 0
        filler.unlink()
        status, said = train(out, "--resume")
        assert status == 0, said
        assert mgd.open_run(out).drop_vars("wall_seconds").equals(expected)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
