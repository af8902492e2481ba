"""What a measured convergence says: noise of a draw, draws until an angle, exponents. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Accumulated:
    """Sums over draws of members, compared with their exact gradients, block by block.

    Parameters
    ----------
    exact
        The gradient of each block, (member, elements).
    """

    def __init__(self, exact: Sequence[np.ndarray]) -> None:
        self.exact = [np.asarray(block, np.float64) for block in exact]
        self.squares = np.stack([(block**2).sum(1) for block in self.exact], axis=1)
        self.rows: list[tuple[np.ndarray, np.ndarray]] = []
        self.n = 0
        self._sums = [np.zeros_like(block) for block in self.exact]
        self._across = np.zeros(len(self.squares))

    def add(self, n: int, estimate: Sequence[np.ndarray]) -> None:
        """The mean of the first n estimates, (member, elements) of each block."""
        found = [np.asarray(block, np.float64) for block in estimate]
        pairs = list(zip(found, self.exact, strict=True))
        dots = np.stack([(e * g).sum(1) for e, g in pairs], axis=1)
        self.rows.append((dots, np.stack([(e**2).sum(1) for e in found], axis=1)))
        sums = [n * block for block in found]
        windows = [new - old for new, old in zip(sums, self._sums, strict=True)]
        along = sum((w * g).sum(1) for w, g in zip(windows, self.exact, strict=True))
        self._across += sum((w**2).sum(1) for w in windows) - along**2 / self.squares.sum(1)
        self._sums, self.n = sums, n

    @property
    def across(self) -> np.ndarray:
        """Measured K_eff of each member: mean square of a draw across the gradient, from windows that do not overlap."""
        return self._across / self.n / self.squares.sum(1)

    def cosine(self) -> np.ndarray:
        """Of the whole network, (row, member)."""
        dots, lengths = (np.stack(part) for part in zip(*self.rows, strict=True))
        return dots.sum(2) / np.sqrt(lengths.sum(2) * self.squares.sum(1))

    def norm_ratio(self) -> np.ndarray:
        """Of the whole network, (row, member)."""
        return np.sqrt(np.stack([lengths.sum(1) for _, lengths in self.rows]) / self.squares.sum(1))

    def block_cosine(self) -> np.ndarray:
        """(row, member, block)."""
        return np.stack([dots / np.sqrt(lengths * self.squares) for dots, lengths in self.rows])


def draws_until(n: np.ndarray, cosine: np.ndarray, degrees: float) -> float:
    """Draws until the angle first falls to so many degrees, between two rows on a logarithmic scale; nan if it does not."""
    tangent = np.sqrt(1 / np.clip(cosine, 1e-12, 1) ** 2 - 1)
    goal = np.tan(np.radians(degrees))
    reached = np.flatnonzero((tangent <= goal) & (cosine > 0))
    if not len(reached):
        return float("nan")
    k = int(reached[0])
    if k == 0 or tangent[k - 1] <= tangent[k]:
        return float(n[k])
    part = np.log(tangent[k - 1] / goal) / np.log(tangent[k - 1] / max(tangent[k], 1e-12))
    return float(n[k - 1] * (n[k] / n[k - 1]) ** part)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of y over x on logarithmic scales."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponent_interval(
    x: Sequence[float], quartiles: np.ndarray, seeds: int, draws: int = 4000, level: float = 0.95
) -> tuple[float, float]:
    """An interval of the exponent of medians, from published quartiles alone.

    The seeds of each point are drawn from the log-normal law that has its median and interquartile ratio.

    Parameters
    ----------
    x
        (point,).
    quartiles
        (point, 3): q25, median, q75.
    seeds
        Published runs behind each point.
    """
    rng = np.random.default_rng(0)
    low, middle, high = np.log(np.asarray(quartiles, float)).T
    spread = (high - low) / 1.349  # interquartile range of the normal law
    medians = np.median(rng.normal(middle, spread, size=(draws, seeds, len(middle))), axis=1)
    centred = np.log(x) - np.mean(np.log(x))
    slopes = medians @ centred / (centred @ centred)
    return tuple(np.quantile(slopes, [(1 - level) / 2, (1 + level) / 2]))
