"""The numbers of `experiments/published`: figures 3b, 4b and 5 of Oripov et al. 2025 (arXiv 2501.15403)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "published"
SEEDS = 10
"""Published runs of a rule and a size in figures 3b and 4b."""
ETA = 1e-3
"""Of figure 4."""
GOALS = (0.2, 0.4, 0.6, 0.8)
"""Accuracies of figures 4b and 5."""
Quartiles = tuple[float, float, float]


def until_15_degrees() -> dict[tuple[str, int], Quartiles]:
    """Figure 3b: iterations until the accumulated estimate is within 15 degrees of the gradient, by rule and d."""
    return _figure_3("csv_iters_alpha15deg_{}")


def until_cos_95() -> dict[tuple[str, int], Quartiles]:
    """The same until the cosine of that angle is .95."""
    return _figure_3("raw_iters_cos0.95_{}")


def until_accuracy() -> dict[tuple[str, int, float], Quartiles]:
    """Figure 4b: iterations until a test accuracy, by rule, d and the accuracy."""
    return {
        (row["train_method"], int(row["d"]), goal): _quartiles(row, f"it{round(100 * goal)}_test_{{}}")
        for row in _rows("fig4.csv")
        for goal in GOALS
    }


def writes(goal: float) -> np.ndarray:
    """Figure 5: tau_theta, updates and iterations until a test accuracy, (row, 3), where it was reached."""
    percent = round(100 * goal)
    names = ("tau_theta", f"updates_to_{percent}_test", f"iters_to_{percent}_test")
    return np.array([[float(row[name]) for name in names] for row in _rows("fig5.csv") if row[names[1]]])


def _figure_3(name: str) -> dict[tuple[str, int], Quartiles]:
    return {(row["train_method"], int(row["d"])): _quartiles(row, name) for row in _rows("fig3.csv")}


def _quartiles(row: dict[str, str], name: str) -> Quartiles:
    return tuple(float(row[name.format(quartile)]) for quartile in ("q25", "median", "q75"))


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8") as file:
        yield from csv.DictReader(file)
