"""Errors of finite amplitudes against the enumeration of all codes of a cubic cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mgdcircuits.analysis.amplitude import (
    ANTITHETIC,
    HELD,
    ONE_SIDED,
    SquaredError,
    along,
    given_codes,
    independent_signs,
    taylor,
)

K = 4
RNG = np.random.default_rng(5)
SLOPES = RNG.normal(size=K)
HESSIAN = RNG.normal(size=(K, K))
HESSIAN = HESSIAN + HESSIAN.T
DRAWN = RNG.normal(size=(K, K, K))
THIRD = sum(DRAWN.transpose(order) for order in itertools.permutations(range(3)))
POINT = RNG.normal(size=K)
SIGNS = np.array(list(itertools.product((-1.0, 1.0), repeat=K)))


def cost(x: np.ndarray) -> np.ndarray:
    x = x - POINT
    cubic = np.einsum("ijk,mi,mj,mk->m", THIRD, x, x, x)
    return x @ SLOPES + np.einsum("ij,mi,mj->m", HESSIAN, x, x) / 2 + cubic / 6


def gradient(x: np.ndarray) -> np.ndarray:
    x = x - POINT
    return SLOPES + x @ HESSIAN + np.einsum("ijk,mj,mk->mi", THIRD, x, x) / 2


def changes(codes: np.ndarray, delta: float, scheme) -> np.ndarray:
    """Of the cost, over delta."""
    other = -delta * codes if scheme is ANTITHETIC else np.zeros_like(codes)
    width = 2 * delta if scheme is ANTITHETIC else delta
    return (cost(POINT + delta * codes) - cost(POINT + other)) / width


def test_derivatives():
    found = taylor(gradient, POINT)
    np.testing.assert_allclose(found.gradient, SLOPES)
    np.testing.assert_allclose(found.hessian, HESSIAN, atol=1e-9)
    np.testing.assert_allclose(found.third_sum, np.einsum("iip->p", THIRD), atol=1e-6)
    np.testing.assert_allclose(found.third_own, np.einsum("ppp->p", THIRD), atol=1e-6)
    codes = RNG.normal(size=(3, K))
    ahead = along(gradient, POINT, codes)
    np.testing.assert_allclose(ahead.second, np.einsum("ij,mi,mj->m", HESSIAN, codes, codes), atol=1e-8)
    np.testing.assert_allclose(ahead.third, np.einsum("ijk,mi,mj,mk->m", THIRD, codes, codes, codes), atol=1e-5)


def test_moments_of_signs():
    found = taylor(gradient, POINT)
    ahead = along(gradient, POINT, SIGNS)
    assert found.curvature_square == pytest.approx((ahead.second**2).mean())
    np.testing.assert_allclose(found.bias, (SIGNS * ahead.third[:, None]).mean(0) / 6, atol=1e-6)


@pytest.mark.parametrize("scheme", [ONE_SIDED, ANTITHETIC], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("n", [1, 2])
def test_independent_signs_against_all_codes(scheme, n):
    third_square = float((along(gradient, POINT, SIGNS).third ** 2).mean())
    predicted = independent_signs(taylor(gradient, POINT), scheme, 0.0, n, third_square)
    for delta in (0.01, 0.3, 2.0):
        single = changes(SIGNS, delta, scheme)[:, None] * SIGNS
        errors = [((np.mean(pick, axis=0) - SLOPES) ** 2).sum() for pick in itertools.product(single, repeat=n)]
        assert predicted(delta) == pytest.approx(np.mean(errors), rel=1e-6)


@pytest.mark.parametrize("scheme", [ONE_SIDED, ANTITHETIC, HELD], ids=lambda scheme: scheme.name)
def test_given_codes(scheme):
    codes, sigma, delta, cycles = RNG.normal(size=(5, K)), 0.7, 0.4, 3
    predicted = given_codes(codes, along(gradient, POINT, codes), SLOPES, scheme, sigma, cycles)
    exact = ((codes.T @ changes(codes, delta, scheme) / 5 - SLOPES) ** 2).sum()
    many, each = np.tile(codes, (cycles, 1)), np.random.default_rng(1)
    clean, plus, minus = (sigma * each.normal(size=(20_000, len(many))) for _ in range(3))
    noise = {"one-sided": plus - clean, "antithetic": (plus - minus) / 2, "clean held": plus - clean[:, :1]}[
        scheme.name
    ]
    added = ((noise @ many / len(many) / delta) ** 2).sum(1).mean()
    assert predicted(delta) == pytest.approx(exact + added, rel=0.03)
    assert given_codes(codes, along(gradient, POINT, codes), SLOPES, scheme, 0.0)(delta) == pytest.approx(
        exact, rel=1e-6
    )


def test_noise_of_independent_signs():
    sigma, n, delta, rng = 0.5, 3, 0.2, np.random.default_rng(2)
    codes = rng.choice((-1.0, 1.0), size=(40_000, n, K))
    plus, clean = sigma * rng.normal(size=(2, 40_000, n))
    for scheme, noise in ((ONE_SIDED, plus - clean), (HELD, plus - clean[:, :1]), (ANTITHETIC, (plus - clean) / 2)):
        measured = (((noise[:, :, None] * codes).mean(1) / delta) ** 2).sum(1).mean()
        flat = taylor(lambda x: np.zeros_like(x), POINT)
        assert independent_signs(flat, scheme, sigma, n)(delta) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("scheme", [ONE_SIDED, ANTITHETIC], ids=lambda scheme: scheme.name)
def test_best_amplitude(scheme):
    codes = 2 * np.eye(K)  # finite differences
    error = given_codes(codes, along(gradient, POINT, codes), SLOPES, scheme, 1e-4)
    tried = np.geomspace(1e-4, 10, 20_001)
    assert error.best() == pytest.approx(tried[np.argmin(error(tried))], rel=1e-3)
    assert given_codes(codes, along(gradient, POINT, codes), SLOPES, scheme, 0.0).best() == 0


def test_a_large_amplitude_may_be_best_without_noise():
    dip = SquaredError(np.array([0, 0, 1.0, 0, -2, 0, 1]))  # (1 - delta**2)**2
    assert dip.best() == pytest.approx(1) and dip.least() == pytest.approx(0, abs=1e-12)
    rising = SquaredError(np.array([0, 0, 1.0, 0, 2, 0, 1]))
    assert rising.best() == 0 and rising.least() == 1
