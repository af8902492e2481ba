"""How fast the accumulated estimate of multiplexed gradient descent turns into the gradient.

A draw perturbs K elements by theta (independent, of one law) and gives the estimate dC*theta/E(theta**2), where
dC = sum of slope*theta for small perturbations. Everything here follows from that sentence and the moments of the law:

* `mean`: the estimate is unbiased (Theorem 1 of arXiv 2501.15403);
* `covariance`: that of one draw, as a quadratic form (the independence of draws makes it 1/n after n: equation 16);
* `mean_square`: E|G|**2 after n draws (Corollary 1.1);
* `tan_squared`: the angle after n draws (equation 21), with all terms of small K.

`weight_perturbation` and `node_perturbation` put numbers in; `combined` puts blocks together that are perturbed one after
another. The prediction is of first order in the size of the perturbations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import sympy

from mgdcircuits.analysis.moments import BERNOULLI, Factor, K, Law, expectation, power_sum

SQUARE = sympy.Symbol("g2", positive=True)
"""|gradient|**2."""
FOURTH = sympy.Symbol("S4", positive=True)
"""Sum of the fourth powers of the unit gradient: 1/K where all slopes are equal, 1 where there is only one."""
N = sympy.Symbol("n", positive=True)

# dC is the sum over k of slope_k*theta_k; G_p is dC*theta_p; h.G is the sum over p of direction_p*G_p.
_COST = Factor(theta=1, slope=1)
_ALONG = Factor(theta=1, direction=1)
_LENGTH = Factor(theta=2)


@cache
def mean(law: Law) -> sympy.Expr:
    """E(h.G) for any direction h: it is the sum of slope*direction if and only if the estimate is unbiased."""
    return sympy.simplify(expectation([_ALONG, _COST], law) / law.power)


@cache
def covariance(law: Law) -> sympy.Expr:
    """Var(h.G) of one draw, for any direction h; the covariance of two components is its mixed derivative by h."""
    square = expectation([_ALONG, _ALONG, _COST, _COST], law) / law.power**2
    return sympy.expand(square - mean(law) ** 2)


@cache
def mean_square(law: Law) -> sympy.Expr:
    """E|G|**2 after n draws, of K, n and |gradient|**2."""
    one = _of_gradient(expectation([_LENGTH, _COST, _COST], law) / law.power**2)
    return sympy.factor(one / N + (1 - 1 / N) * SQUARE)


@cache
def along(law: Law) -> sympy.Expr:
    """The variance of one draw along the gradient, in units of |gradient|**2.

    Raises
    ------
    ValueError
        A law with a mean: its estimate is biased, and the angle does not go to zero.
    """
    if not law.has_no_mean:
        raise ValueError(f"{law.name} has the mean {law.moments[1]}: take perturbations with mean zero")
    return sympy.simplify(_towards_gradient(covariance(law)) / SQUARE)


@cache
def across(law: Law) -> sympy.Expr:
    """K_eff: the mean square of one draw across the gradient, in units of |gradient|**2; raises as `along`."""
    return sympy.simplify(mean_square(law).subs(N, 1) / SQUARE - 1 - along(law))


@cache
def tan_squared(law: Law) -> sympy.Expr:
    """tan(angle)**2 after n draws: mean square across the gradient over the square of the mean along it."""
    return across(law) / N


def _of_gradient(expression: sympy.Expr) -> sympy.Expr:
    """Write sums of the slopes alone as lengths of the gradient."""
    return expression.subs({power_sum(2, 0): SQUARE, power_sum(4, 0): FOURTH * SQUARE**2})


def _towards_gradient(expression: sympy.Expr) -> sympy.Expr:
    """Take the unit gradient as the direction."""
    root = sympy.sqrt(SQUARE)
    lengths = {2: SQUARE, 4: FOURTH * SQUARE**2}
    known = {power_sum(order - b, b): value / root**b for order, value in lengths.items() for b in range(order + 1)}
    return expression.subs(known)


@dataclass(frozen=True)
class Convergence:
    """Noise of the estimate of one draw, in units of the square of the gradient it estimates.

    Attributes
    ----------
    across
        Mean square across the gradient: K_eff.
    along
        Variance along the gradient.
    square
        |gradient|**2.
    """

    across: float
    along: float
    square: float

    def tan_squared(self, n: np.ndarray | float) -> np.ndarray:
        """tan(angle)**2 after n draws."""
        return self.across / np.asarray(n, float)

    def cosine(self, n: np.ndarray | float) -> np.ndarray:
        """cos(angle) after n draws."""
        return 1 / np.sqrt(1 + self.tan_squared(n))

    def degrees(self, n: np.ndarray | float) -> np.ndarray:
        """Angle after n draws."""
        return np.degrees(np.arctan(np.sqrt(self.tan_squared(n))))

    def norm_ratio(self, n: np.ndarray | float) -> np.ndarray:
        """|G|/|gradient| after n draws (root mean square)."""
        return np.sqrt(1 + (self.across + self.along) / np.asarray(n, float))

    def draws(self, degrees: float) -> float:
        """Draws after which the angle is so many degrees, of 0 to 90 (neither)."""
        if not 0 < degrees < 90:
            raise ValueError(f"an angle of {degrees} degrees; expected one between 0 and 90")
        return self.across / np.tan(np.radians(degrees)) ** 2


def weight_perturbation(gradient: np.ndarray, law: Law = BERNOULLI) -> Convergence:
    """Of one block of parameters that are perturbed together, from its exact gradient; where that is 0, so is the estimate.

    Raises
    ------
    ValueError
        No parameters; a law with a mean.
    """
    g = np.asarray(gradient, np.float64).ravel()
    if not g.size:
        raise ValueError("no parameters are perturbed; expected their gradient")
    square = float(g @ g)
    if square == 0:
        return Convergence(0.0, 0.0, 0.0)
    numbers = {K: g.size, FOURTH: float(((g * g / square) ** 2).sum())}
    return Convergence(float(across(law).subs(numbers)), float(along(law).subs(numbers)), square)


@dataclass(frozen=True)
class NodeLayer:
    """What node perturbation needs to know of a layer: units in channels, each channel with parameters of its own.

    Attributes
    ----------
    slopes
        (sample, channel, position): the slope of the sample's own cost by the perturbation of each node.
    inputs
        (sample, position, parameter): by what a parameter of the channel enters the node at a position; 1 for a bias.
    """

    slopes: np.ndarray
    inputs: np.ndarray

    def gradient(self) -> np.ndarray:
        """Exact gradient of the mean cost, (channel, parameter)."""
        return np.einsum("bop,bpf->of", self.slopes, self.inputs, optimize=True) / len(self.slopes)


def node_perturbation(layers: Sequence[NodeLayer], law: Law = BERNOULLI, own_codes: bool = False) -> Convergence:
    """Of layers whose nodes are perturbed together; the cost change is that of each sample.

    With one code s for the batch, parameter p has the estimate s'M(p)s, where M(p)[j, k] is the mean over samples of (input
    of p at node j)*(slope of node k), for the nodes j that p enters. A quadratic form of independent draws has the variance
    sum_jk M_jk**2 + M_jk*M_kj + (kurtosis - 3)*sum_j M_jj**2; so has the component along the gradient, with the sum of
    M(p)*(unit gradient)_p. M itself is never made: its sums are those of products between samples. With codes of their own
    (`own_codes`) samples are independent, and only the products of a sample with itself are left.

    Raises
    ------
    ValueError
        No layers; samples whose gradients cancel: there is noise, but no gradient to measure it by.
    """
    if not layers:
        raise ValueError("no layers are perturbed")
    batch, excess = len(layers[0].slopes), float(law.kurtosis) - 3
    met = np.eye(batch) if own_codes else np.ones((batch, batch))  # samples that a code has in common
    gradients = [layer.gradient() for layer in layers]
    square = sum(float((gradient**2).sum()) for gradient in gradients)
    if square == 0:
        if any(layer.slopes.any() for layer in layers):
            raise ValueError("the gradient is 0 and slopes of single samples are not: expected a gradient")
        return Convergence(0.0, 0.0, 0.0)
    alike = met * sum(_products(layer.slopes, layer.slopes) for layer in layers)
    total, along_square, mixed = 0.0, np.zeros((batch, batch)), np.zeros((batch, batch))
    towards = 0.0
    for layer, gradient in zip(layers, gradients, strict=True):
        g, x = layer.slopes, layer.inputs
        total += len(gradient) * float((alike * _products(x, x)).sum())
        for o in range(len(gradient)):
            total += _exchanged(g[:, o], x, met) + excess * _coincident(g[:, o], x, own_codes)
        a = np.einsum("bpf,of->bop", x, gradient / np.sqrt(square), optimize=True)
        along_square += _products(a, a)
        mixed += _products(a, g)
        towards += excess * float((met * _products(a * g, a * g)).sum())
    towards += float((alike * along_square).sum() + (met * mixed * mixed.T).sum())
    total, towards = total / batch**2 / square, towards / batch**2 / square
    return Convergence(total - towards, towards, square)


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products of each sample of one with each sample of the other."""
    return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T


def _exchanged(slopes: np.ndarray, inputs: np.ndarray, met: np.ndarray) -> float:
    """Sum of M_jk*M_kj over the parameters of a channel: slopes of one sample meet inputs of another, and the reverse."""
    made = np.tensordot(slopes, inputs, axes=(1, 1))
    return float(np.vdot(met[:, :, None] * made, made.swapaxes(0, 1)))


def _coincident(slopes: np.ndarray, inputs: np.ndarray, own_codes: bool) -> float:
    """Sum of M_jj**2 over the parameters of a channel."""
    if own_codes:
        return float(np.einsum("bp,bpf->", slopes**2, inputs**2, optimize=True))
    return float((np.einsum("bp,bpf->pf", slopes, inputs, optimize=True) ** 2).sum())


def combined(blocks: Iterable[Convergence]) -> Convergence:
    """Of the whole network, where blocks are perturbed one after another with codes of their own.

    Raises
    ------
    ValueError
        The gradient is 0, so that it has no direction.
    """
    blocks = list(blocks)
    square = sum(block.square for block in blocks)
    if square == 0:
        raise ValueError("the gradient is 0")
    shares = [block.square / square for block in blocks]
    towards = sum(share**2 * block.along for share, block in zip(shares, blocks, strict=True))
    total = sum(share * (block.across + block.along) for share, block in zip(shares, blocks, strict=True))
    return Convergence(total - towards, towards, square)
