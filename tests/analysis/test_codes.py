"""Codes drawn by themselves are those of a running session; what they do to the estimate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mgdcircuits import Session, load
from mgdcircuits.analysis.codes import drawn, joined, simulate
from mgdcircuits.analysis.theory import combined, weight_perturbation
from mgdcircuits.errors import RunError

ROOT = Path(__file__).parents[2]
SMALL_CONV = ROOT / "tests" / "netlists" / "valid" / "small_conv.yaml"
TEXT = """
include: {base}
circuit: codes
learning:
  wp: none
  law:
    perturb: {{theta_w: "{code}", theta_b: "{bias}", every: tau_p, blocks: {blocks}}}
    passes: {{clean: 0, plus: 1}}
    estimate: (C.plus - C.clean)*theta
    update: {{request: -G, every: tau_theta}}
"""
RNG = np.random.default_rng(11)
SLOPES = RNG.normal(size=30)
CODES = ["bernoulli()", "gaussian()", "sequential()", "walsh()", "walsh_alternating()", "sinusoid(spacing=7000*Hz)"]


def circuit(folder: Path, code: str, blocks: str = "all", bias: str = ""):
    path = folder / "codes.yaml"
    path.write_text(TEXT.format(base=SMALL_CONV, code=code, bias=bias or code, blocks=blocks))
    return load(path, tau_theta="200*iteration")


@pytest.mark.parametrize("code", CODES)
def test_they_are_the_codes_of_a_session(tmp_path, code):
    made = circuit(tmp_path, code, "layer")
    blocks = drawn(made, 5, seed=3)
    assert [list(block) for block in blocks] == [["conv.theta_w", "conv.theta_b"], ["logits.theta_w", "logits.theta_b"]]
    session = Session(made, batch=1, seed=3, target="numpy", dtype="float64")
    session.present(np.zeros((1, 1, 4, 4)), np.zeros(1))
    for k in range(5):
        session.step(1)
        for block in blocks:
            for name, values in block.items():
                np.testing.assert_array_equal(values[k], session.view(name).ravel())


@pytest.mark.parametrize(("code", "cycle"), [("sequential()", 30), ("walsh()", 32), ("walsh_alternating()", 32)])
def test_a_whole_cycle_has_no_error_and_a_part_has(tmp_path, code, cycle):
    (block,) = drawn(circuit(tmp_path, code), 2 * cycle)
    found = simulate([(SLOPES, joined(block))], [cycle // 2, cycle, 2 * cycle])
    assert found.cosine[1:] == pytest.approx(1, abs=1e-12)
    assert found.norm_ratio[1:] == pytest.approx(1, abs=1e-12)
    assert found.cosine[0] < 0.95
    # better than independent draws of the same number would be
    assert weight_perturbation(SLOPES).cosine(cycle) < 0.8


def test_half_a_cycle_of_finite_differences_knows_half_of_the_slopes(tmp_path):
    (block,) = drawn(circuit(tmp_path, "sequential()"), 15)
    found = simulate([(SLOPES, joined(block))], [15])
    assert found.cosine[0] == pytest.approx(np.linalg.norm(SLOPES[:15]) / np.linalg.norm(SLOPES))


def test_sinusoids_against_the_formula(tmp_path):
    (block,) = drawn(circuit(tmp_path, "sinusoid(spacing=7000*Hz)"), 200)
    t = 2e-6 * np.arange(200)  # two evaluations of 1 us an iteration
    expected = np.sqrt(2) * np.sin(2 * np.pi * 7000 * np.arange(1, 31) * t[:, None])
    np.testing.assert_allclose(joined(block), expected, atol=1e-9)
    found = simulate([(SLOPES, expected)], [100, 200])
    assert found.cosine[1] > 0.95 > weight_perturbation(SLOPES).cosine(200)


def test_independent_codes_follow_the_law(tmp_path):
    made, n = circuit(tmp_path, "bernoulli()", "layer"), 600
    parts = np.split(SLOPES, [10])
    tangents = []
    for seed in range(40):
        blocks = drawn(made, n, seed)
        found = simulate([(g, joined(b)) for g, b in zip(parts, blocks, strict=True)], [n])
        tangents.append(1 / found.cosine[0] ** 2 - 1)
    law = combined(map(weight_perturbation, parts))
    assert np.mean(tangents) == pytest.approx(law.tan_squared(n), rel=0.12)  # 40 of about 20 degrees of freedom: 5 %


def test_more_draws_than_there_are(tmp_path):
    with pytest.raises(ValueError, match="7 draws of codes are asked for and 5 are given"):
        simulate([(SLOPES[:2], np.ones((5, 2)))], [7])


def test_a_code_that_reads_the_circuit_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"codes that read conv\.w"):
        drawn(circuit(tmp_path, "sign(w)", bias="bernoulli()"), 1)


def test_two_systems_are_refused():
    with pytest.raises(RunError, match="delta_mgd has 2 learning systems that perturb; expected one"):
        drawn(load(ROOT / "netlists" / "delta_mgd.yaml"), 1)


@pytest.mark.parametrize(
    ("blocks", "counts"), [([], [1]), ([(np.ones(2), np.ones((3, 2)))], [0]), ([(np.ones(3), np.ones((3, 2)))], [1])]
)
def test_what_cannot_be_simulated(blocks, counts):
    with pytest.raises(ValueError, match="expected"):
        simulate(blocks, counts)
