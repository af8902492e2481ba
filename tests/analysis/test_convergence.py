"""Numbers of a measured convergence, on estimates that were made by hand."""

import numpy as np
import pytest

from mgdcircuits.analysis.convergence import Accumulated, draws_until, exponent, exponent_interval
from mgdcircuits.analysis.theory import combined, weight_perturbation

RNG = np.random.default_rng(4)


def test_noise_of_windows_is_that_of_a_draw():
    gradients = [RNG.normal(size=30), 2 * RNG.normal(size=20)]
    members, n = 20, 2000
    sums = [np.zeros((members, len(g))) for g in gradients]
    found = Accumulated([np.tile(g, (members, 1)) for g in gradients])
    for k in range(1, n + 1):
        for total, g in zip(sums, gradients, strict=True):
            code = RNG.choice([-1.0, 1.0], size=total.shape)
            total += (code @ g)[:, None] * code
        if k % 10 == 0:
            found.add(k, [total / k for total in sums])
    law = combined(map(weight_perturbation, gradients))
    assert found.across.mean() == pytest.approx(law.across, rel=0.02)
    assert found.cosine()[-1].mean() == pytest.approx(law.cosine(n), rel=0.005)
    assert found.norm_ratio()[0].mean() == pytest.approx(law.norm_ratio(10), rel=0.1)
    block = weight_perturbation(gradients[1])
    assert found.block_cosine()[-1, :, 1].mean() == pytest.approx(block.cosine(n), rel=0.005)
    assert found.cosine().shape == (200, members)


def test_draws_until_an_angle():
    n = np.array([10, 20, 40, 80, 160, 320])
    law = weight_perturbation(RNG.normal(size=20))
    assert draws_until(n, law.cosine(n), 30) == pytest.approx(law.draws(30))
    assert np.isnan(draws_until(n, law.cosine(n), 5))
    assert draws_until(n, np.full(6, 1.0), 15) == 10


def test_exponents():
    x = [1, 2, 4, 8]
    assert exponent(x, [3 * v**1.5 for v in x]) == pytest.approx(1.5)
    middle = np.array([3 * v**1.5 for v in x])
    low, high = exponent_interval(x, np.stack([middle / 1.2, middle, middle * 1.2], axis=1), seeds=10)
    assert low < 1.5 < high and high - low < 0.3
    narrow = exponent_interval(x, np.stack([middle / 1.02, middle, middle * 1.02], axis=1), seeds=10)
    assert high - low > 5 * (narrow[1] - narrow[0])
