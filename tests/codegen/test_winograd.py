"""Convolutions with fewer multiplications: the same sums, no larger rounding errors, and only where they pay."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from mgdcircuits import Session, load
from mgdcircuits.codegen import compiler, winograd

CIRCUIT = """
circuit: minimal
parameters: {{delta: 0.01, eta: 0.01, amplitude: delta/sqrt(K)}}
clocks: {{tau_p: 1*us, tau_x: iteration, tau_theta: iteration}}
kinds:
  tanh:
    equations: |
      x = tanh(I + b + theta_b + theta) : 1
      I : 1
      b : 1 (plastic, per channel)
      theta_b : 1 (perturbation of b)
      theta : 1 (perturbation)
    initial: {{b: 0}}
  weights:
    equations: |
      I_post = {coupling} : 1 (summed)
      w : 1 (plastic)
      theta_w : 1 (perturbation of w)
    initial: {{w: glorot_uniform()}}
chain:
  - image: {{shape: [{c_in}, {rows}, {columns}], equations: "x : 1"}}
  - one: {{channels: {c_out}, kind: tanh, via: weights, conv2d: {{kernel: 3, padding: {padding}}}}}
  - two: {{like: one, channels: 9}}
  - out: {{shape: 3, kind: tanh, via: weights}}
task: {{batch: {batch}, x_image: x, target: "onehot(y, 1, 0)"}}
cost: {{C: "cross_entropy(x_out, target)"}}
learning:
  wp:
    perturb: {{{perturb}, every: tau_p, blocks: layer}}
    passes: {{clean: 0, plus: 1}}
    estimate: {estimate}
    update: {{request: -eta*G, every: tau_theta}}
"""
WP = {
    "perturb": "theta_w: amplitude*bernoulli(), theta_b: amplitude*bernoulli()",
    "estimate": "(C.plus - C.clean)*theta/amplitude**2",
}
NP = {
    "perturb": "theta: amplitude*bernoulli()",
    "estimate": "{w: (C.plus - C.clean)*theta_post*x_pre.clean/amplitude**2, b: (C.plus - C.clean)*theta/amplitude**2}",
}
BILINEAR, HOISTED, CURVED = "(w + theta_w)*x_pre", "(w + theta_w)*sinh(2*x_pre)/2", "sinh((w + theta_w)*x_pre)"


def circuit(folder: Path, rows: int, columns: int, coupling: str = BILINEAR, rule: dict = WP, **other):
    values = {"c_in": 8, "c_out": 13, "padding": 1, "batch": 16, **rule, **other}
    path = folder / "minimal.yaml"
    path.write_text(CIRCUIT.format(rows=rows, columns=columns, coupling=coupling, **values))
    return load(path)


def data(c: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((50, c, rows, columns), dtype=np.float32), rng.integers(0, 3, 50)


@pytest.fixture
def sources(monkeypatch) -> list[str]:
    """What is compiled while the test runs."""
    seen: list[str] = []
    library = compiler.library
    monkeypatch.setattr(compiler, "library", lambda texts: seen.extend(texts) or library(texts))
    return seen


@pytest.mark.parametrize(
    ("shape", "batch", "members", "dtype", "further"),
    [
        ((6, 8), 16, 1, "float64", {}),
        ((7, 7), 16, 1, "float32", {}),  # squares hang over both ends
        ((7, 18), 20, 2, "float64", {}),  # a row of squares in parts; a last block of few replicas
        ((8, 5), 37, 1, "float64", {"padding": 0}),
        ((3, 3), 16, 3, "float32", {"padding": 2, "coupling": HOISTED}),
        ((6, 6), 32, 1, "float64", {"rule": NP}),
    ],
)
def test_the_sums_are_those_of_the_other_target(tmp_path, monkeypatch, sources, shape, batch, members, dtype, further):
    monkeypatch.setattr(winograd, "pays", winograd.fits)
    made = circuit(tmp_path, *shape, batch=batch, **further)
    sessions = []
    for target in ("cpp", "numpy"):
        session = Session(made, target=target, dtype=dtype, members=members, seed=2, data=data(8, *shape), threads=2)
        session.step(3)
        sessions.append(session)
    assert any("Winograd<mgd::Conv2d<8, " in text for text in sources)
    for name, value in sessions[0].parameters.items():
        # biases are nothing but changes of the cost: three to five digits in float32
        other = sessions[1].parameters[name]
        allowed = 1e-11 if dtype == "float64" else 1e-3 if name.endswith(".b") else 1e-4
        assert np.linalg.norm(value - other) <= allowed * np.linalg.norm(other), name
    np.testing.assert_allclose(
        sessions[0].outputs(), sessions[1].outputs(), rtol=0, atol=1e-11 if dtype == "float64" else 1e-3
    )


@pytest.mark.parametrize(
    "further",
    [{"coupling": CURVED}, {"batch": 8}, {"c_in": 1, "c_out": 4}],
    ids=["no product", "few replicas", "few channels"],
)
def test_what_it_does_not_fit_is_summed_as_it_stands(tmp_path, sources, further):
    made = circuit(tmp_path, 12, 12, **further)
    Session(made, seed=1, data=data(further.get("c_in", 8), 12, 12)).step(1)
    first = f"Winograd<mgd::Conv2d<{further.get('c_in', 8)}, "
    assert sources and not any(first in text for text in sources)


def test_threads_do_not_change_a_bit(tmp_path):
    made = circuit(tmp_path, 14, 14, batch=20)
    found = []
    for threads in (1, 2, 3):
        session = Session(made, seed=1, data=data(8, 14, 14), threads=threads)
        session.step(3)
        found.append({n: np.array(v) for n, v in session.parameters.items()})
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_changes_of_the_cost_are_no_less_accurate(tmp_path, monkeypatch):
    """Against float64: no worse than plain sums, in the mean over layers, replicas and codes."""
    made = circuit(tmp_path, 14, 14, batch=48)
    pays = winograd.pays
    x, y = (part[:48] for part in data(8, 14, 14))

    def changes(dtype: str, fewer: bool) -> np.ndarray:
        monkeypatch.setattr(winograd, "pays", pays if fewer else lambda _: False)
        found = []
        for seed in range(8):
            session = Session(made, batch=48, seed=seed, dtype=dtype)
            session.present(x, y)
            session.step(1)
            found.append([np.ravel(session.view(f"wp.{layer}.w:replica_0")) for layer in ("one", "two")])
        return np.array(found, float)

    exact = changes("float64", False)
    size = np.sqrt((exact**2).mean(-1))
    fewer, plain = (np.sqrt(((changes("float32", f) - exact) ** 2).mean(-1)) / size for f in (True, False))
    assert not np.array_equal(fewer, plain)
    assert np.sqrt((fewer**2).mean()) < 1.1 * np.sqrt((plain**2).mean()) < 1e-2


STORED = """
#include <cstdio>
#include <vector>
#include <mgd/winograd.hpp>
template <int rows, int columns>
bool once() {
  using namespace mgd;
  using V = Lanes<float, 16>;
  using W = Winograd<Conv2d<8, rows, columns, 9, rows, columns, 3, 3, 1, 1, 1, 1, 1, 1, 1>>;
  std::vector<float> weights(W::n_weights);
  std::vector<int> stored(9 * rows * columns);
  const auto value = [](Index, Index) { return V(1); };
  const auto store = [&](Index post, Index, V) { ++stored[post]; };
  W::template gather<V>(1, Index(0), weights.data(), value, store);
  for (const int n : stored)
    if (n != 1) return false;
  return true;
}
int main() { std::printf("%d%d%d%d", once<7, 18>(), once<5, 33>(), once<9, 5>(), once<3, 17>()); }
"""


def test_every_sum_is_stored_once(tmp_path):
    """Two couplings into one population add to what is there."""
    source, program = tmp_path / "stored.cpp", tmp_path / "stored"
    source.write_text(STORED)
    call = [*compiler.compiler(), *compiler.flags(), f"-I{compiler.INCLUDE}", str(source), "-o", str(program)]
    subprocess.run(call, check=True)
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "1111"
