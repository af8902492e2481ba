"""Which amplitude is best: what a finite perturbation and a noisy cost do to the estimate of the gradient.

A code s of mean square 1 perturbs K parameters by delta*s. The change of the cost, over delta, is

    f = g.s + delta/2 s'Hs + delta**2/6 T[s, s, s] + noise/delta

with the gradient g, the curvature H and the third derivative T; in an antithetic pair the term of H cancels. The estimate is
the mean of f*s over n draws. Its squared error is a polynomial of delta from delta**-2 (noise) to delta**4 (third derivative),
whose coefficients are found here for given codes and for independent signs. Derivatives beyond the third are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LOWEST = -2
"""The power of delta that the first coefficient of a squared error belongs to."""
POWERS = 7


@dataclass(frozen=True)
class Scheme:
    """How the change of the cost is measured.

    Attributes
    ----------
    even
        1 where the curvature enters the change, 0 where it cancels.
    noise
        Variance of the noise of the change, in units of that of one measurement.
    held
        The same of the noise that all draws have in common.
    """

    name: str
    even: float
    noise: float
    held: float = 0


ONE_SIDED = Scheme("one-sided", even=1, noise=2)
"""A clean and a perturbed evaluation in every draw."""
HELD = Scheme("clean held", even=1, noise=1, held=1)
"""A perturbed evaluation in every draw; the clean one was measured once."""
ANTITHETIC = Scheme("antithetic", even=0, noise=0.5)
"""Half the difference of an evaluation with the perturbation and one with its opposite."""

Gradient = Callable[[np.ndarray], np.ndarray]
"""Points (m, K) to exact gradients (m, K)."""


@dataclass(frozen=True)
class Along:
    """Derivatives of the cost along codes: g.s, s'Hs and T[s, s, s] of each, (draws,)."""

    slope: np.ndarray
    second: np.ndarray
    third: np.ndarray


@dataclass(frozen=True)
class Taylor:
    """The cost around a point, as far as independent signs see it.

    Attributes
    ----------
    gradient, hessian
        (K,) and (K, K).
    third_sum
        Sum over i of T_iip: the gradient of the trace of the curvature, (K,).
    third_own
        T_ppp, (K,).
    """

    gradient: np.ndarray
    hessian: np.ndarray
    third_sum: np.ndarray
    third_own: np.ndarray

    @property
    def bias(self) -> np.ndarray:
        """What E(f*s) has beside the gradient, over delta**2: E(s_p T[s, s, s])/6 for independent signs."""
        return self.third_sum / 2 - self.third_own / 3

    @property
    def curvature_square(self) -> float:
        """E(s'Hs)**2 for independent signs."""
        h = self.hessian
        return float(np.trace(h) ** 2 + 2 * (h**2).sum() - 2 * (np.diag(h) ** 2).sum())


@dataclass(frozen=True)
class SquaredError:
    """E|G - g|**2 over delta; the coefficients begin with that of delta**-2."""

    coefficients: np.ndarray

    def __call__(self, delta: np.ndarray | float) -> np.ndarray:
        """At some amplitudes."""
        return np.polynomial.Polynomial(self.coefficients)(delta) * np.asarray(delta, float) ** LOWEST

    def best(self) -> float:
        """The amplitude with the least error; 0 where the smallest is best (which takes a cost without noise)."""
        powers = LOWEST + np.arange(POWERS)
        slope = np.polynomial.Polynomial(powers * self.coefficients)  # delta**3 times the derivative
        roots = slope.roots()
        real = roots[(abs(roots.imag) < 1e-9 * abs(roots)) & (roots.real > 0)].real
        found = float(min(real, key=self, default=np.inf))
        if self.coefficients[0] == 0 and (not len(real) or self(found) >= self._vanishing):
            return 0.0
        return found

    def least(self) -> float:
        """The error at the best amplitude."""
        best = self.best()
        return float(self(best)) if best else self._vanishing

    @property
    def _vanishing(self) -> float:
        """The error of the smallest amplitudes, without noise."""
        return float(self.coefficients[-LOWEST])


def taylor(gradient: Gradient, point: np.ndarray, step: float = 1e-3) -> Taylor:
    """Derivatives from differences of exact gradients along every parameter."""
    g, above, below = _stencil(gradient, point, np.eye(len(point)), step)
    second, third = (above - below) / (2 * step), (above + below - 2 * g) / step**2
    return Taylor(g, (second + second.T) / 2, third.sum(0), np.diag(third).copy())


def along(gradient: Gradient, point: np.ndarray, codes: np.ndarray, step: float = 1e-3) -> Along:
    """Derivatives along codes (draws, K), from differences of exact gradients; no element goes further than the step."""
    step /= np.abs(codes).max()
    g, above, below = _stencil(gradient, point, codes, step)
    second = ((above - below) * codes).sum(1) / (2 * step)
    return Along(codes @ g, second, ((above + below - 2 * g) * codes).sum(1) / step**2)


def _stencil(gradient: Gradient, point: np.ndarray, codes: np.ndarray, step: float) -> tuple[np.ndarray, ...]:
    return gradient(point[None])[0], gradient(point + step * codes), gradient(point - step * codes)


def given_codes(
    codes: np.ndarray, derivatives: Along, gradient: np.ndarray, scheme: Scheme, sigma: float, cycles: int = 1
) -> SquaredError:
    """Of codes (draws, K) that are known, walked through so many times; sigma is the noise of a measured cost."""
    n = len(codes)
    parts = [
        codes.T @ derivatives.slope / n - gradient,
        scheme.even * codes.T @ derivatives.second / (2 * n),
        codes.T @ derivatives.third / (6 * n),
    ]
    found = np.zeros(POWERS)
    for i, a in enumerate(parts):
        for j, b in enumerate(parts):
            found[i + j - LOWEST] += a @ b
    length, common = (codes**2).sum() / n**2 / cycles, (codes.mean(0) ** 2).sum()
    found[0] = sigma**2 * (scheme.noise * length + scheme.held * common)
    return SquaredError(found)


def independent_signs(cost: Taylor, scheme: Scheme, sigma: float, n: int, third_square: float = 0.0) -> SquaredError:
    """Of n draws of independent signs.

    E|G - g|**2 = |E(f*s) - g|**2 + (K*E(f**2) - |E(f*s)|**2)/n. The curvature is a noise that averages out: E(s_p s'Hs) = 0.

    Parameters
    ----------
    third_square
        E(T[s, s, s]**2), which has no short form: a mean over drawn codes (`along`). It matters at the largest amplitudes.
    """
    g, b = cost.gradient, cost.bias
    k, mixed, square = len(g), float(g @ b), float(b @ b)
    found = np.zeros(POWERS)
    found[0] = sigma**2 * (scheme.noise + scheme.held) * k / n
    found[2] = (k - 1) / n * (g @ g)
    found[4] = (k * (scheme.even * cost.curvature_square / 4 + 2 * mixed) - 2 * mixed) / n
    found[6] = square * (1 - 1 / n) + k * third_square / 36 / n
    return SquaredError(found)
