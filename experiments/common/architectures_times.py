"""Training times of architectures.py: of each case under a rule at the point of its grid that was tuned, and their ratios."""

from __future__ import annotations

import numpy as np
import xarray as xr

from common import study


def trained(found: xr.Dataset) -> list[str]:
    """Cases that were trained."""
    return [c for c in found["case"].values if bool(found["iterations"].sel(case=c).notnull().any())]


def tuned(one: xr.Dataset) -> tuple[int, np.ndarray]:
    """Of a case under a rule: the point that was best on the first half of the seeds, and the iterations of the other half."""
    iterations = one["iterations"].transpose("point", "seed").values
    iterations = iterations[~np.isnan(iterations).all(1)]
    half = iterations.shape[1] // 2
    best = int(np.argmin([study.median(row) for row in iterations[:, :half]]))
    return best, iterations[best, half:]


def ratio_interval(weights: np.ndarray, nodes: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Ratio of medians, with 95 % of what seeds drawn anew give; infinite or 0 where a median is not reached."""
    rng = np.random.default_rng(0)

    def ratio(a: np.ndarray, b: np.ndarray) -> float:
        a, b = study.median(a), study.median(b)
        return np.nan if np.isinf(a) and np.isinf(b) else a / b

    drawn = [ratio(rng.choice(weights, len(weights)), rng.choice(nodes, len(nodes))) for _ in range(draws)]
    return (ratio(weights, nodes), *np.nanpercentile(drawn, [2.5, 97.5], method="nearest"))
