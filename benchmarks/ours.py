"""Our side: a session on uniform images that stay the same, as the peers have them.

Words of a variant: `bilinear` takes the ordinary network instead of the one that the work order names; `train` runs
`mgdcircuits.train`, which evaluates, records and writes the dataset, where it is `step` else.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import mgdcircuits as mgd
from benchmarks.cases import CNN
from benchmarks.worker import Iteration, serve


def build(work: dict) -> Iteration:
    """The iteration of this work order."""
    words = work["variant"].split("-")
    circuit = mgd.load(CNN if "bilinear" in words else work["netlist"], **work["overrides"])
    if "train" in words:
        return _training(circuit, work)
    session = mgd.Session(circuit, batch=work["batch"], threads=work["threads"], seed=1)
    if "data" in work:
        session.set_data(work["data"])
    else:
        rng = np.random.default_rng(0)
        shape = (work["batch"], *circuit.input_shape)
        session.present(rng.random(shape, dtype=np.float32), rng.integers(0, 10, work["batch"]))
    return Iteration(session.step, lambda: session.cost().mean())


def _training(circuit, work: dict) -> Iteration:
    folder = tempfile.TemporaryDirectory(prefix="mgdcircuits-bench-")

    last = None

    def run(n: int) -> float:
        nonlocal last
        last = mgd.train(
            circuit,
            iterations=n,
            out=Path(folder.name) / "run.nc",
            batch=work["batch"],
            threads=work["threads"],
            seed=1,
            progress=False,
            overwrite=True,
        )
        return float(
            last["wall_seconds"].values[-1]
        )  # the loop with its evaluations and rows, not what comes before it

    return Iteration(run, lambda: last["cost"].values[-1])


if __name__ == "__main__":
    serve(build)
