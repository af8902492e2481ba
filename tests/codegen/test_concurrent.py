"""Passes of one iteration that run at the same time: the same bits as one after another."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.circuit import builder
from mgdcircuits.circuit.carried import reads, writes
from mgdcircuits.codegen import compiler
from mgdcircuits.codegen.concurrent import EVALUATED, Together, together

CNN = "fashion_mnist_cnn.yaml"


def parts_of(netlists, name: str, **settings) -> list[Together]:
    program, _ = builder.build(mgd.load(netlists / name, **settings))
    return [node for node in together(program) if isinstance(node, Together)]


def test_perturbed_passes_do_not_need_each_other(netlists) -> None:
    (found,) = parts_of(netlists, CNN, d=1)
    assert len(found.parts) == 10  # one a layer, after the unperturbed evaluation
    assert found.evaluations == tuple(range(11))
    assert "wp.C.plus" in found.left and not any(name.endswith(":G") for name in found.private)


def test_the_first_perturbed_pass_does_not_wait_for_the_unperturbed_one(netlists) -> None:
    (found,) = parts_of(netlists, CNN, d=1)
    clean, first, *others = found.parts
    assert EVALUATED in clean.nodes and EVALUATED in first.nodes and first.waiting and not clean.waiting
    assert all(EVALUATED in part.waiting for part in others)
    for part in found.parts[1:]:
        assert not (reads(part.nodes) | writes(part.nodes)) & writes(clean.nodes)


def test_a_layer_is_updated_where_its_estimate_was_made(netlists) -> None:
    (found,) = parts_of(netlists, CNN, d=1)
    assert not found.parts[0].after
    for part in found.parts[1:]:
        estimates = {name for name in reads(part.after) if name.endswith(":G")}
        assert len(estimates) == 2 and estimates <= writes(part.own)  # of weights and biases


SHARES = """
#include <cstdio>
#include <mgd/together.hpp>
// Work before and after the first part is done, of ten passes through a network; its shares for some threads.
int main() {
  const std::initializer_list<mgd::Work> work = {{20.7, 0}, {20.7, .1}, {0, 19.8}, {0, 14.7}, {0, 12.4},
                                                 {0, 7.9},  {0, 6.3},   {0, 1.6},  {0, .2},   {0, .1}};
  for (int threads = 1; threads < 13; ++threads) {
    const mgd::Shares shares(work, threads);
    for (int t = 0; t < threads; ++t) {
      for (mgd::Index k = shares.first[t]; k < shares.first[t + 1]; ++k) std::printf("%d ", static_cast<int>(shares.order[k]));
      std::printf(t + 1 < threads ? "| " : "\\n");
    }
  }
}
"""


def test_shares_of_threads(tmp_path: Path) -> None:
    """Each part once, about equal; the part that others wait for is the first of the first thread, so that all go on."""
    source, program = tmp_path / "shares.cpp", tmp_path / "shares"
    source.write_text(SHARES)
    call = [*compiler.compiler(), *compiler.flags(), f"-I{compiler.INCLUDE}", str(source), "-o", str(program)]
    subprocess.run(call, check=True)
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    work = [20.7, 20.8, 19.8, 14.7, 12.4, 7.9, 6.3, 1.6, 0.2, 0.1]
    for threads, line in enumerate(lines, start=1):
        shares = [[int(k) for k in part.split()] for part in line.split("|")]
        assert sorted(k for share in shares for k in share) == list(range(10)) and len(shares) == threads
        assert shares[0][0] == 0 and all(share == sorted(share) for share in shares)
        if threads == 2:
            loads = [sum(work[k] for k in share) for share in shares]
            assert abs(loads[0] - loads[1]) < 0.02 * sum(work) and 1 in shares[1]
    assert len(lines) == 12


def test_a_pass_that_needs_the_one_before_waits_for_it(netlists) -> None:
    """The filters of an analog circuit go on from pass to pass; one perturbation of everything is one pass."""
    assert not parts_of(netlists, "xor_analog.yaml")
    assert not any(len(p.parts) > 2 for p in parts_of(netlists, "xor.yaml"))


@pytest.mark.parametrize("name", [CNN, "fashion_mnist_cnn_np.yaml"])
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_bits_of_passes_at_the_same_time(netlists, assert_same_bits, name: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((1, 1, 28, 28)), rng.integers(0, 10, 1)
    sessions = [mgd.Session(mgd.load(netlists / name, d=1), batch=1, seed=3, threads=n) for n in (1, threads)]
    for session in sessions:
        session.present(x, y)
    for n in (1, 2, 200):
        for session in sessions:
            session.step(n)
            session.cost()
        assert_same_bits(*sessions)
