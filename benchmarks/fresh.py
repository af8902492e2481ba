"""One measurement in a process of its own, printed as JSON: `python -m benchmarks.fresh start 8`.

`start D`: from the start of the process to the end of the first iteration of the CNN of width D, batch 100.
`memory D`: peak resident memory of that with Fashion-MNIST loaded. `size D`: reading, checking and building its netlist.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np

import mgdcircuits as mgd
from benchmarks.cases import CNN
from mgdcircuits.circuit import builder

BATCH = 100


def start(d: int) -> dict:
    """Seconds since the process began until the circuit is built, and until the first iteration is done."""
    begun = time.perf_counter()
    circuit = mgd.load(CNN, d=d)
    session = mgd.Session(circuit, batch=BATCH, threads=2)
    built = time.perf_counter()
    session.present(np.full((BATCH, 1, 28, 28), 0.5, np.float32), np.zeros(BATCH, int))
    session.step(1)
    done = time.perf_counter()
    return {"netlist_to_session": built - begun, "netlist_to_first_iteration": done - begun}


def memory(d: int) -> dict:
    """Peak resident memory in MB (10^6 bytes), with the imports alone and after two iterations on Fashion-MNIST."""
    imports = _peak()
    session = mgd.Session(mgd.load(CNN, d=d), batch=BATCH, threads=2, data="fashion_mnist")
    session.step(2)
    return {"imports": imports, "peak": _peak(), "samples": len(session.dataset.x_train)}


def size(d: int) -> dict:
    """Seconds for a netlist to be read, checked and built into arrays and a program, without C++."""
    begun = time.perf_counter()
    circuit = mgd.load(CNN, d=d)
    loaded = time.perf_counter()
    builder.build(circuit)
    done = time.perf_counter()
    return {"parameters": circuit.n_parameters, "load_and_check": loaded - begun, "total": done - begun}


def _peak() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / 1e6 if sys.platform == "darwin" else kilobytes * 1024 / 1e6


if __name__ == "__main__":
    what, d = sys.argv[1:]
    print(json.dumps({"start": start, "memory": memory, "size": size}[what](int(d))))
