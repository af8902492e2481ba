"""A code for each sample (experiments/node_hypotheses.py) against the enumeration of all codes."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from mgdcircuits.analysis.theory import NodeLayer

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
from node_hypotheses import code_per_sample  # noqa: E402


def test_a_code_for_each_sample():
    rng = np.random.default_rng(0)
    batch, channels, positions = 2, 2, 3
    slopes, inputs = rng.normal(size=(batch, channels, positions)), rng.normal(size=(batch, positions, 2))
    layer = NodeLayer(slopes, inputs)
    gradient = layer.gradient()
    noise, along, draws = 0.0, 0.0, 0
    for signs in itertools.product((-1, 1), repeat=slopes.size):
        code = np.reshape(signs, slopes.shape)
        change = (code * slopes).sum((1, 2))
        error = np.einsum("b,bop,bpf->of", change, code, inputs) / batch - gradient
        noise += (error**2).sum()
        along += (error * gradient).sum() ** 2 / (gradient**2).sum()
        draws += 1
    found = code_per_sample([layer])
    square = (gradient**2).sum()
    np.testing.assert_allclose(found.square, square)
    np.testing.assert_allclose(found.along, along / draws / square)
    np.testing.assert_allclose(found.across, (noise - along) / draws / square)
