"""The cases: what is run, by whom, and what is required of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum


class Measure(Enum):
    """What of a case is compared with what is required."""

    RATIO = "peer/ours"  # time of the best peer over ours: at least
    RATE = "iterations/s"  # ours: at least
    COST = "ours/first peer"  # our time over that of the first peer: at most


@dataclass(frozen=True)
class Case:
    """One row of the table. `work` is the order that every worker gets (see `ours.py` and `peers/`)."""

    name: str
    title: str
    work: dict
    peers: tuple[str, ...]  # "framework-words"; the words say which form of the iteration it runs
    required: float | None = None
    measure: Measure = Measure.RATIO
    longer: float = 1.0  # length of its turns as a multiple of the usual one

    @property
    def tried(self) -> dict[str, tuple[str, ...]]:
        """Peers by what they compete in: each framework's own best form, and its best plain form."""
        groups: dict[str, tuple[str, ...]] = {}
        for peer in self.peers:
            words = peer.split("-")
            key = "-".join([words[0], *(["plain"] if "plain" in words else [])])
            groups[key] = (*groups.get(key, ()), peer)
        return groups


MAPS = ("torch-nchw-plain", "torch-nhwc-plain", "jax-plain", "torch-nchw", "torch-nhwc", "torch-nhwc-compiled", "jax")
STACKED = ("torch-nchw-stacked", "torch-nhwc-stacked", "torch-nhwc-stacked-compiled", "jax-stacked")
DENSE = ("torch-plain", "jax-plain", "torch", "torch-compiled", "jax")
DENSE_STACKED = ("torch-stacked", "torch-stacked-compiled", "jax-stacked")
CNN = "netlists/fashion_mnist_cnn.yaml"


def _cnn(d: int, batch: int, required: float | None = None) -> Case:
    return Case(
        f"cnn_d{d}_b{batch}",
        f"CNN d={d}, batch {batch}",
        _convolutional(CNN, "layers", d, batch),
        MAPS + STACKED,
        required,
    )


def _convolutional(netlist: str, scheme: str, d: int, batch: int) -> dict:
    work = {"netlist": netlist, "overrides": {"d": d}, "network": "cnn", "scheme": scheme}
    return work | {"d": d, "batch": batch, "threads": 2}


def _mlp(batch: int) -> dict:
    work = {"netlist": "benchmarks/netlists/mlp.yaml", "overrides": {}, "network": "mlp", "scheme": "layers"}
    return work | {"batch": batch, "threads": 2}


def _xor(variant: str) -> dict:
    work = {"netlist": "netlists/xor.yaml", "overrides": {}, "data": "xor", "variant": variant}
    return work | {"batch": 1, "threads": 1}


CASES = (
    _cnn(1, 100, 12),
    _cnn(4, 100, 3.5),
    _cnn(8, 100, 2),
    _cnn(24, 100, 1.15),
    _cnn(48, 100, 1.15),
    _cnn(1, 1, 8),
    _cnn(8, 1, 5),
    _cnn(48, 1, 1.5),
    Case(
        "whole_d8_b100",
        "CNN d=8, batch 100, whole network perturbed",
        _convolutional("benchmarks/netlists/cnn_whole.yaml", "whole", 8, 100),
        MAPS,
    ),
    Case(
        "node_d8_b100",
        "CNN d=8, batch 100, nodes perturbed",
        _convolutional("netlists/fashion_mnist_cnn_np.yaml", "node", 8, 100),
        tuple(peer for peer in MAPS if "plain" not in peer),
    ),
    Case("mlp_b1", "MLP 784-128-128-10, batch 1", _mlp(1), DENSE + DENSE_STACKED, 5),
    Case("mlp_b100", "MLP 784-128-128-10, batch 100", _mlp(100), DENSE + DENSE_STACKED, 1.5),
    Case("brian2_b1", "MLP batch 1, plain Brian2 C++", _mlp(1), ("brian2-serial", "brian2-openmp"), 10),
    Case("xor", "XOR, one replica, one thread", _xor(""), (), 2e6, Measure.RATE),
    Case("xor_train", "XOR, the same, cost recorded in a dataset", _xor("train"), (), 2e6, Measure.RATE, longer=5),
    Case(
        "sinh_d8_b100",
        "CNN d=8, batch 100, w*sinh(x_pre/a)*a; bilinear",
        _convolutional("benchmarks/netlists/cnn_sinh.yaml", "layers", 8, 100),
        ("ours-bilinear",),
        2,
        Measure.COST,
    ),
)


def find(names: Sequence[str]) -> list[Case]:
    """The cases of these names, all where there are none."""
    known = {case.name: case for case in CASES}
    for name in names:
        if name not in known:
            raise KeyError(f"no case is called {name}; expected one of {', '.join(known)}")
    return [known[name] for name in names] or list(CASES)


def restrict(case: Case, peers: Sequence[str], quick: bool) -> Case:
    """The case with these peers only, where any are named; without torch.compile, which takes long, if `quick`."""
    kept = [p for p in case.peers if p in peers or not (peers or (quick and p.endswith("compiled")))]
    return replace(case, peers=tuple(kept))
