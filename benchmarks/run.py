"""Measure mgdcircuits beside its peers: `python benchmarks/run.py --case cnn_d4_b100 --rounds 5`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
