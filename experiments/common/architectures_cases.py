"""The cases of architectures.py: a circuit each, how long its noise is measured and it is trained, and over which grid."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mgdcircuits as mgd
from common import study

FOLDER = study.FOLDER / "architectures"
RULES = ("weight", "node")
ETAS = (0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Case:
    """A circuit, how long its noise is measured, and how long it is trained at the most."""

    family: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    knob: str = ""
    batch: int = 64
    draws: int = 0
    limit: int = 0
    goal: float = 0.8
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: {"eta": ETAS})
    target: str = "cpp"

    def __str__(self) -> str:
        return f"{self.family}{', ' if self.knob else ''}{self.knob}"

    def circuit(self, rule: str, **further: Any) -> mgd.Circuit:
        """Under a rule: by a file of its own, or by that of all."""
        settings = {**self.settings, **further}
        own = FOLDER / f"{self.family}_{rule}.yaml"
        if own.exists():
            return mgd.load(own, **settings)
        files = [FOLDER / f"{self.family}.yaml"]
        if self.family not in ("sequence", "spiking") and rule == "node":
            files.append(FOLDER / "node.yaml")
        included = ", ".join(f'"{file.as_posix()}"' for file in files)
        text = f"include: [{included}]\ncircuit: {self.family}_{rule}\n"
        return mgd.load(text, **settings)

    def session(self, circuit: mgd.Circuit, seeds: list[int], **further: Any) -> mgd.Session:
        """Of all seeds; circuits with trials run in double precision, on numpy."""
        dtype = "float64" if self.trials else "float32"
        options = {"batch": self.batch, "target": self.target, "dtype": dtype, "on_nan": "continue", **further}
        return mgd.Session(circuit, seed=seeds, **options)

    @property
    def trials(self) -> bool:
        """Whether an iteration is a trial."""
        return self.family in ("sequence", "spiking")

    @property
    def points(self) -> list[dict[str, float]]:
        """Of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


STEPPING = {"eta": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), "delta": (0.3, 1.0, 3.0)}
SEQUENCE = {"eta": (0.0003, 0.001, 0.003, 0.01)}
SPIKING = {"eta": (0.01, 0.03, 0.1, 0.3, 1.0), "size": (1.0, 3.0, 10.0)}
SMALL_BATCH = {1: (0.0003, 0.001, 0.003, 0.01, 0.03), 8: (0.001, 0.003, 0.01, 0.03, 0.1)}


def _dense(h: int, batch: int = 64, limit: int = 5000, **further: Any) -> Case:
    return Case("dense", {"h": h}, f"h={h}, batch {batch}", batch, 1500, limit, **further)


FULL = (
    *(_dense(h) for h in (8, 16, 64)),
    _dense(16, 1, 50_000, grid={"eta": SMALL_BATCH[1]}),
    _dense(16, 8, 20_000, grid={"eta": SMALL_BATCH[8]}),
    *(Case("sparse", {"fan_in": f}, f"fan-in {f}", draws=1500, limit=5000) for f in (1, 4, 16)),
    *(
        Case(
            "convolution",
            {"channels": 8, "stride": s, "side": 8 // s},
            f"{(8 // s) ** 2} positions",
            64,
            1500,
            8000,
            0.7,
        )
        for s in (4, 2, 1)
    ),
    Case("settled", {"h": 16}, "40 steps", 16, 1000),
    *(
        Case("sequence", {"wait": w}, f"{w + 3} steps", 4, 1000, limit, 1.0, SEQUENCE, "numpy")
        for w, limit in ((1, 1500), (5, 1500), (13, 0))
    ),
    Case("step", {"h": 16}, "h=16", 64, 0, 10_000, grid=STEPPING),
    Case("quantised", {"h": 16}, "5 levels", 64, 0, 10_000, grid=STEPPING),
    Case("spiking", {}, "", 1, 0, 300, -1.0, SPIKING, "numpy"),
)
QUICK = (
    _dense(16, limit=1500, grid={"eta": (0.01, 0.1)}),
    Case("sparse", {"h": 8, "fan_in": 2}, "fan-in 2", 16, 300, target="numpy"),
    Case("sequence", {"h": 4, "wait": 1}, "4 steps", 4, 500, target="numpy"),
)
SIZES = {"quick": (QUICK, 4), "full": (FULL, 8)}
