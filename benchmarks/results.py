"""Results on disk: raw times in JSON, one file a case; everything else is computed from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks.cases import Measure

FOLDER = Path(__file__).with_name("results")


def write(name: str, values: dict, folder: Path = FOLDER) -> Path:
    """Write one file of results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(values, indent=1) + "\n")
    return path


def read(name: str, folder: Path = FOLDER) -> dict | None:
    """What `write` wrote; None if there is none."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float

    def scaled(self, factor: float) -> Spread:
        """All three times a number."""
        return Spread(self.low * factor, self.median * factor, self.high * factor)


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of some numbers."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(low, middle, high)


@dataclass(frozen=True)
class Summary:
    """What the table says of a case. `best` is the fastest peer of any form, `plain` the fastest plain one."""

    ours: Spread  # seconds an iteration
    best: str | None
    peer: Spread | None  # seconds an iteration of `best`
    value: Spread  # what is compared with what is required: a ratio or a rate, round by round
    plain: Spread | None  # the ratio to the fastest plain peer
    gflops: float | None
    peak: float | None
    required: float | None
    measure: Measure

    @property
    def verdict(self) -> str:
        """Whether what is required holds for the median."""
        if self.required is None:
            return ""
        if self.measure is Measure.COST:
            return "met" if self.value.median <= self.required else "not met"
        if self.value.median >= self.required:
            return "met"
        if self.plain is not None and self.plain.median >= self.required:
            return "only against plain peers"
        return "not met"


def summary(result: dict) -> Summary:
    """Medians, quartiles and ratios of the raw times of a case."""
    seconds = dict(result["seconds"])
    ours = seconds.pop("ours")
    measure = Measure(result["measure"])
    plain = {name: times for name, times in seconds.items() if "plain" in name.split("-")}
    best = _fastest(seconds)
    ratios = _ratios(seconds[best], ours) if best else []
    match measure:
        case Measure.RATIO:
            value = spread(ratios)
        case Measure.RATE:
            value = spread([1 / t for t in ours])
        case Measure.COST:
            value = spread([1 / r for r in ratios])
    peaks = [p[f"threads_{result['work']['threads']}"] for p in result["fma_peak"]]
    macs = result.get("macs")
    return Summary(
        ours=spread(ours),
        best=best,
        peer=spread(seconds[best]) if best else None,
        value=value,
        plain=spread(_ratios(plain[_fastest(plain)], ours)) if plain else None,
        gflops=2e-9 * macs / median(ours) if macs else None,
        peak=max(peaks),
        required=result["required"],
        measure=measure,
    )


def _fastest(seconds: dict[str, list[float]]) -> str | None:
    return min(seconds, key=lambda name: median(seconds[name]), default=None)


def _ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Round by round, so that what slows a whole round down cancels."""
    return [a / b for a, b in zip(theirs, ours, strict=True)]
