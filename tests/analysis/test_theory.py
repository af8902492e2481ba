"""Closed forms against enumeration of all codes (exact) and against Monte Carlo in plain numpy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import sympy

from mgdcircuits.analysis import theory
from mgdcircuits.analysis.moments import (
    BERNOULLI,
    GAUSSIAN,
    UNIFORM,
    Factor,
    K,
    Law,
    expectation,
    partitions,
    power_sum,
    sparse_bernoulli,
)
from mgdcircuits.analysis.theory import FOURTH, SQUARE, N, NodeLayer

SIGNS = {1.0: 0.5, -1.0: 0.5}
THIRDS = {3.0: 1 / 6, -3.0: 1 / 6, 0.0: 2 / 3}  # bernoulli(3)
DISCRETE = [(BERNOULLI, SIGNS), (sparse_bernoulli(3), THIRDS)]
RNG = np.random.default_rng(3)


def all_codes(values: dict[float, float], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every code of k independent elements, (codes, k), and its probability."""
    codes = np.array(list(product(values, repeat=k)))
    return codes, np.array([np.prod([values[v] for v in code]) for code in codes])


def weight_estimates(codes: np.ndarray, gradient: np.ndarray, power: float) -> np.ndarray:
    return (codes @ gradient)[:, None] * codes / power


def noise(estimates: np.ndarray, probability: np.ndarray, gradient: np.ndarray) -> tuple[float, float]:
    """Mean square across a gradient and variance along it, in units of its square."""
    square = gradient @ gradient
    along = estimates @ gradient / np.sqrt(square)
    across = (estimates**2).sum(1) - along**2
    return float(probability @ across / square), float(probability @ (along - np.sqrt(square)) ** 2 / square)


def numbers(slopes: np.ndarray, direction: np.ndarray) -> dict:
    found = {K: len(slopes)}
    for a, b in product(range(5), repeat=2):
        if a + b:
            found[power_sum(a, b)] = float((slopes**a * direction**b).sum())
    return found


def test_moments_are_those_of_the_laws():
    assert BERNOULLI.moments == (1, 0, 1, 0, 1)
    assert GAUSSIAN.moments == (1, 0, 1, 0, 3)
    assert UNIFORM.moments == (1, 0, 1, 0, sympy.Rational(9, 5))
    assert sparse_bernoulli(4).moments == (1, 0, 4, 0, 64)


def test_partitions_are_counted_by_bell_numbers():
    assert [len(list(partitions(list(range(k))))) for k in range(6)] == [1, 1, 2, 5, 15, 52]


def test_expectation_of_a_sum_over_three_indices_with_a_skew_law():
    law = Law.discrete("skew", {2: sympy.Rational(1, 3), -1: sympy.Rational(2, 3)})
    codes, probability = all_codes({2.0: 1 / 3, -1.0: 2 / 3}, 4)
    slopes, direction = RNG.normal(size=(2, 4))
    made = expectation([Factor(theta=2, slope=1), Factor(theta=1, direction=1), Factor(theta=1, slope=1)], law)
    expected = probability @ ((codes**2 @ slopes) * (codes @ direction) * (codes @ slopes))
    assert float(made.subs(numbers(slopes, direction))) == pytest.approx(expected, rel=1e-12)


# One block of weights


def test_theorem_1_every_centred_law_gives_the_gradient():
    m2, m3, m4 = sympy.symbols("m2 m3 m4")
    any_law = Law("any", (sympy.Integer(1), sympy.Integer(0), m2, m3, m4))
    assert theory.mean(any_law) == power_sum(1, 1)
    kurtosis = m4 / m2**2
    assert sympy.simplify(theory.across(any_law) - (K + kurtosis - 4 - (kurtosis - 3) * FOURTH)) == 0
    assert sympy.simplify(theory.mean_square(any_law) - SQUARE * (1 + (K + kurtosis - 2) / N)) == 0


def test_a_law_with_a_mean_is_biased():
    law = Law.discrete("one-sided", {1: sympy.Rational(1, 2), 0: sympy.Rational(1, 2)})
    assert theory.mean(law) == power_sum(1, 1) / 2 + power_sum(1, 0) * power_sum(0, 1) / 2
    with pytest.raises(ValueError, match="one-sided has the mean 1/2"):
        theory.across(law)


def test_the_published_forms():
    """Corollary 1.1 for signs, and K_eff for signs and normal perturbations (mgd.md section 3)."""
    assert sympy.simplify(theory.mean_square(BERNOULLI) - SQUARE * (1 + (K - 1) / N)) == 0
    assert sympy.simplify(theory.across(BERNOULLI) - (K - 3 + 2 * FOURTH)) == 0
    assert theory.across(GAUSSIAN) == K - 1
    assert sympy.simplify(theory.mean_square(GAUSSIAN) - SQUARE * (1 + (K + 1) / N)) == 0
    assert theory.weight_perturbation(np.ones(9)).across == pytest.approx(6 + 2 / 9)


@pytest.mark.parametrize(("law", "values"), DISCRETE, ids=lambda v: getattr(v, "name", ""))
@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_all_codes_of_a_small_block(law, values, k):
    gradient, direction = RNG.normal(size=(2, k))
    codes, probability = all_codes(values, k)
    estimates = weight_estimates(codes, gradient, float(law.power))
    np.testing.assert_allclose(probability @ estimates, gradient, rtol=1e-12)
    projected = estimates @ direction
    variance = probability @ projected**2 - (gradient @ direction) ** 2
    assert float(theory.covariance(law).subs(numbers(gradient, direction))) == pytest.approx(variance, rel=1e-9)
    across, along = noise(estimates, probability, gradient)
    found = theory.weight_perturbation(gradient, law)
    assert (found.across, found.along) == (pytest.approx(across, abs=1e-9), pytest.approx(along, abs=1e-9))
    assert found.square == pytest.approx(gradient @ gradient)


def test_two_draws_halve_the_noise():
    gradient = np.array([1.0, -2.0, 0.5])
    codes, _ = all_codes(SIGNS, 3)
    one = weight_estimates(codes, gradient, 1.0)
    both = ((one[:, None] + one[None, :]) / 2).reshape(-1, 3)
    across, along = noise(both, np.full(len(both), 1 / len(both)), gradient)
    found = theory.weight_perturbation(gradient)
    assert (across, along) == (pytest.approx(found.across / 2), pytest.approx(found.along / 2))
    mean_square = theory.mean_square(BERNOULLI).subs({K: 3, N: 2, SQUARE: gradient @ gradient})
    assert (both**2).sum(1).mean() == pytest.approx(float(mean_square))
    assert found.norm_ratio(2) ** 2 == pytest.approx((both**2).sum(1).mean() / (gradient @ gradient))


@pytest.mark.parametrize("law", [GAUSSIAN, UNIFORM], ids=lambda law: law.name)
def test_monte_carlo_of_laws_with_a_density(law):
    rng = np.random.default_rng(1)
    gradient, draws = rng.normal(size=7), 400_000
    codes = rng.normal(size=(draws, 7)) if law is GAUSSIAN else rng.uniform(-np.sqrt(3), np.sqrt(3), (draws, 7))
    across, along = noise(weight_estimates(codes, gradient, 1.0), np.full(draws, 1 / draws), gradient)
    found = theory.weight_perturbation(gradient, law)
    assert (found.across, found.along) == (pytest.approx(across, rel=0.02), pytest.approx(along, rel=0.02))


def test_monte_carlo_of_the_angle_of_blocks():
    """cos and length after n draws of two blocks, each with a code of its own."""
    rng, n, repeats = np.random.default_rng(2), 400, 200
    blocks = [rng.normal(size=40), 3 * rng.normal(size=60)]
    parts = []
    for g in blocks:
        codes = rng.choice([-1.0, 1.0], size=(repeats, n, len(g)))
        parts.append(np.einsum("rn,rnk->rk", codes @ g, codes) / n)
    estimate, gradient = np.concatenate(parts, axis=1), np.concatenate(blocks)
    found = theory.combined(map(theory.weight_perturbation, blocks))
    length = np.linalg.norm(estimate, axis=1)
    cosine = estimate @ gradient / length / np.linalg.norm(gradient)
    assert np.median(cosine) == pytest.approx(found.cosine(n), rel=0.01)
    assert np.median(length) / np.linalg.norm(gradient) == pytest.approx(found.norm_ratio(n), rel=0.01)
    assert np.degrees(np.arccos(np.median(cosine))) == pytest.approx(found.degrees(n), rel=0.03)
    assert found.degrees(found.draws(15)) == pytest.approx(15)


def test_blocks_one_after_another_exactly():
    first, second = RNG.normal(size=3), RNG.normal(size=4)
    codes = [all_codes(SIGNS, k)[0] for k in (3, 4)]
    estimates = [weight_estimates(c, g, 1.0) for c, g in zip(codes, (first, second), strict=True)]
    joint = np.array([np.concatenate(pair) for pair in product(*estimates)])
    across, along = noise(joint, np.full(len(joint), 1 / len(joint)), np.concatenate([first, second]))
    found = theory.combined([theory.weight_perturbation(first), theory.weight_perturbation(second)])
    assert (found.across, found.along) == (pytest.approx(across), pytest.approx(along))


# Nodes


def layer(batch: int, channels: int, positions: int, parameters: int) -> NodeLayer:
    return NodeLayer(RNG.normal(size=(batch, channels, positions)), RNG.normal(size=(batch, positions, parameters)))


def node_estimates(layers: list[NodeLayer], codes: np.ndarray, power: float) -> np.ndarray:
    """What the rule does, sample by sample: dC_b*s*x_b, summed over places and averaged over the batch."""
    batch = len(layers[0].slopes)
    found = []
    for code in codes:
        parts = np.split(code, np.cumsum([part.slopes[0].size for part in layers])[:-1])
        signs = [part.reshape(one.slopes.shape[1:]) for part, one in zip(parts, layers, strict=True)]
        total = [np.zeros((one.slopes.shape[1], one.inputs.shape[2])) for one in layers]
        for b in range(batch):
            change = sum((one.slopes[b] * s).sum() for one, s in zip(layers, signs, strict=True))
            for k, (one, s) in enumerate(zip(layers, signs, strict=True)):
                total[k] += change * s @ one.inputs[b] / batch / power
        found.append(np.concatenate([t.ravel() for t in total]))
    return np.array(found)


@pytest.mark.parametrize(("law", "values"), DISCRETE, ids=lambda v: getattr(v, "name", ""))
@pytest.mark.parametrize(
    "layers", [[layer(3, 2, 3, 4)], [layer(1, 1, 4, 2)], [layer(2, 3, 1, 5)], [layer(2, 2, 2, 3), layer(2, 2, 1, 2)]]
)
def test_all_codes_of_a_layer_of_nodes(layers, law, values):
    """Shared weights, one code for the batch; the last case perturbs two layers at once."""
    codes, probability = all_codes(values, sum(one.slopes[0].size for one in layers))
    estimates = node_estimates(layers, codes, float(law.power))
    gradient = np.concatenate([one.gradient().ravel() for one in layers])
    np.testing.assert_allclose(probability @ estimates, gradient, atol=1e-12)
    across, along = noise(estimates, probability, gradient)
    found = theory.node_perturbation(layers, law)
    assert (found.across, found.along) == (pytest.approx(across, rel=1e-9), pytest.approx(along, rel=1e-9))


@pytest.mark.parametrize(("law", "values"), DISCRETE, ids=lambda v: getattr(v, "name", ""))
@pytest.mark.parametrize("layers", [[layer(2, 1, 3, 2)], [layer(3, 2, 1, 2)], [layer(2, 1, 2, 2), layer(2, 1, 1, 2)]])
def test_all_codes_of_nodes_that_have_one_for_each_sample(layers, law, values):
    """Samples are independent, but the gradient is that of the batch."""
    batch, nodes = len(layers[0].slopes), sum(one.slopes[0].size for one in layers)
    codes, probability = all_codes(values, batch * nodes)
    one_sample = [[NodeLayer(one.slopes[[b]], one.inputs[[b]]) for one in layers] for b in range(batch)]
    parts = zip(one_sample, np.split(codes, batch, axis=1), strict=True)
    estimates = sum(node_estimates(sample, code, float(law.power)) for sample, code in parts) / batch
    gradient = np.concatenate([one.gradient().ravel() for one in layers])
    across, along = noise(estimates, probability, gradient)
    found = theory.node_perturbation(layers, law, own_codes=True)
    assert (found.across, found.along) == (pytest.approx(across, rel=1e-9), pytest.approx(along, rel=1e-9))


def test_a_weight_is_a_node_with_the_input_one():
    gradient = RNG.normal(size=6)
    nodes = theory.node_perturbation([NodeLayer(gradient.reshape(1, 6, 1), np.ones((1, 1, 1)))])
    weights = theory.weight_perturbation(gradient)
    assert (nodes.across, nodes.along) == (pytest.approx(weights.across), pytest.approx(weights.along))


def test_decimal_fractions():
    """A mean that is 0 on paper is 0."""
    law = Law.discrete("fractions", {-0.3: 0.25, 0.1: 0.75})
    assert law.has_no_mean and law.moments[2] == sympy.Rational(3, 100)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Law.discrete("two", {1: 1, -1: 1}), "two: the probabilities add up to 2; expected 1"),
        (lambda: sparse_bernoulli(sympy.Rational(1, 2)), "the value 0 has the probability -1"),
        (lambda: Law.discrete("none", {0: 1}), "the mean square is 0"),
        (lambda: Law("short", (1, 0, 1)), "found 3 moments"),
        (lambda: theory.weight_perturbation([]), "no parameters are perturbed"),
        (lambda: theory.node_perturbation([]), "no layers are perturbed"),
        (lambda: theory.combined([theory.weight_perturbation([0.0, 0.0])]), "the gradient is 0"),
        (lambda: theory.Convergence(10.0, 1.0, 1.0).draws(90), "expected one between 0 and 90"),
    ],
)
def test_what_no_law_is(made, message):
    with pytest.raises(ValueError, match=message):
        made()
