"""The benchmark harness: counting, statistics, workers, table. No timing, and nothing of the peers' environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import mgdcircuits as mgd
from benchmarks import cli, figures, results, roofline, workers
from benchmarks.cases import CASES, Measure, find, restrict
from benchmarks.macs import iteration_macs, products
from benchmarks.networks import Pool, cnn, mlp
from benchmarks.results import Spread, spread, summary
from benchmarks.table import figure, row, time
from mgdcircuits.circuit import builder

ROOT = Path(__file__).resolve().parents[1]
# One evaluation at d = 1, by hand: taps in a row x taps in a column x channels in x channels out, in the order of the layers.
# Of the 3 x 28 taps along a row of 28, two lie in the padding.
MACS_1 = [82 * 82, 82 * 82, 40 * 40 * 2, 40 * 40 * 4, 19 * 19 * 8, 19 * 19 * 16, 36 * 4, 4 * 4, 4 * 10]


def circuit_of(name: str) -> mgd.circuit.circuit.Circuit:
    work = find([name])[0].work
    return mgd.load(ROOT / work["netlist"], **work["overrides"])


def layerwise(macs: list[int]) -> int:
    """A clean pass, and for each layer a pass that starts at this layer."""
    return sum(macs) + sum(sum(macs[k:]) for k in range(len(macs)))


def test_macs_of_an_iteration_equal_a_count_by_hand():
    assert MACS_1 == [6724, 6724, 3200, 6400, 2888, 5776, 144, 16, 40]
    assert iteration_macs(circuit_of("cnn_d1_b1")) == layerwise(MACS_1)
    assert iteration_macs(circuit_of("mlp_b1")) == layerwise([784 * 128, 128 * 128, 128 * 10])


@pytest.mark.parametrize("name", ["cnn_d4_b100", "cnn_d48_b1", "sinh_d8_b100"])
def test_macs_scale_with_the_width(name):
    d = find([name])[0].work["d"]
    wide = [MACS_1[0] * d, *(m * d * d for m in MACS_1[1:8]), MACS_1[8] * d]
    assert iteration_macs(circuit_of(name)) == layerwise(wide)


def test_products_are_the_synapses_that_exist():
    for name, coupling in circuit_of("cnn_d1_b1").couplings.items():
        if coupling.topology.n_connections:
            assert products(coupling.topology) == len(coupling.topology.indices()[0]), name


def test_whole_network_and_nodes():
    macs = [layer.macs for layer in cnn(8) if not isinstance(layer, Pool)]
    assert iteration_macs(circuit_of("whole_d8_b100")) == 2 * sum(macs)
    # A perturbed node changes what comes after it: its own currents are those of the clean pass.
    assert iteration_macs(circuit_of("node_d8_b100")) == layerwise(macs) - sum(macs)


@pytest.mark.parametrize("case", [c for c in CASES if "network" in c.work], ids=lambda c: c.name)
def test_the_peers_run_the_same_network(case):
    layers = cnn(case.work["d"]) if case.work["network"] == "cnn" else mlp()
    circuit = circuit_of(case.name)
    trained = [layer for layer in layers if not isinstance(layer, Pool)]
    assert sum(layer.parameters for layer in trained) == circuit.n_parameters
    assert sum(layer.nodes for layer in trained) == circuit.n_nodes
    _, clocks = builder.build(circuit)
    assert clocks.evaluations == (2 if case.work["scheme"] == "whole" else len(trained) + 1)
    assert len(circuit.spec.learning) == 1


def test_a_case_chooses_among_the_forms_of_each_framework():
    case = find(["cnn_d8_b1"])[0]
    assert set(case.tried) == {"torch", "torch-plain", "jax", "jax-plain"}
    assert sorted(sum(case.tried.values(), ())) == sorted(case.peers)
    assert restrict(case, ["jax"], quick=False).peers == ("jax",)
    assert not any("compiled" in p for p in restrict(case, [], quick=True).peers)


def result(ours, measure=Measure.RATIO, required=None, **peers):
    return {
        "title": "a case",
        "work": {"threads": 2},
        "measure": measure.value,
        "required": required,
        "macs": 4_000_000,
        "fma_peak": [{"threads_1": 50.0, "threads_2": 100.0}, {"threads_1": 40.0, "threads_2": 80.0}],
        "seconds": {"ours": ours, **{name.replace("_", "-"): times for name, times in peers.items()}},
    }


def test_summary_compares_round_by_round_with_the_fastest_peer():
    # The second round is twice as slow for everybody: the ratio does not see it.
    s = summary(result([1e-3, 2e-3, 1e-3], required=5, jax=[6e-3, 12e-3, 6e-3], torch_nhwc_plain=[8e-3, 16e-3, 8e-3]))
    assert s.best == "jax" and s.value == Spread(6, 6, 6) and s.plain == Spread(8, 8, 8)
    assert s.ours.median == 1e-3 and s.peer.median == 6e-3
    assert s.gflops == pytest.approx(2 * 4e6 / 1e-3 * 1e-9) and s.peak == 100
    assert s.verdict == "met"


def test_verdicts():
    times = {"torch": [6e-3], "torch_plain": [8e-3]}
    assert summary(result([1e-3], required=7, **times)).verdict == "only against plain peers"
    assert summary(result([1e-3], required=9, **times)).verdict == "not met"
    assert summary(result([1e-3], **times)).verdict == ""
    rate = {"measure": Measure.RATE, "required": 2e6}
    assert summary(result([4e-7], **rate)).verdict == "met"
    assert summary(result([6e-7], **rate)).verdict == "not met"
    cost = {"measure": Measure.COST, "required": 2, "ours_bilinear": [1e-3]}
    assert summary(result([1.9e-3], **cost)).verdict == "met"
    assert summary(result([2.1e-3], **cost)).verdict == "not met"


def test_quartiles():
    assert spread([1, 2, 3, 4, 5]) == Spread(2, 3, 4)
    assert spread([7]) == Spread(7, 7, 7)


def test_a_row_of_the_table():
    made = result([1e-3, 1e-3], required=5, jax=[6e-3, 6e-3])
    assert row("a case", summary(made)) == (
        "a case",
        "1 (1–1) ms",
        "6 (6–6) ms",
        "jax",
        "6 (6–6)",
        "",
        "≥ 5",
        "met",
        "8",
        "8 %",
    )
    assert time(Spread(4e-7, 5e-7, 6e-7)) == "0.5 (0.4–0.6) µs"
    assert figure(2.5e6) == "2.5M" and figure(1234) == "1234" and figure(1.2345) == "1.23"


def test_results_are_read_as_they_were_written(tmp_path):
    made = result([1e-3], jax=[2e-3])
    results.write("a_case", made, tmp_path)
    assert results.read("a_case", tmp_path) == made
    assert results.read("another", tmp_path) is None


@pytest.mark.parametrize("path", sorted(results.FOLDER.glob("*.json")), ids=lambda p: p.stem)
def test_kept_results_belong_to_a_case_and_say_where_they_come_from(path):
    kept = results.read(path.stem)
    assert {"date", "commit", "processor", "versions"} <= set(kept)
    if path.stem in cli.OTHERS:
        return
    case = find([path.stem])[0]
    assert kept["work"] == case.work and kept["required"] == case.required
    assert {len(times) for times in kept["seconds"].values()} == {kept["rounds"]}
    assert summary(kept).ours.median > 0


FAKE = """
from benchmarks.worker import Iteration, serve

def build(work):
    if work["variant"] == "broken":
        raise RuntimeError("no such thing")
    print("this must not disturb the answers")
    done = []
    return Iteration(lambda n: done.append(n) or 0.25 * n, lambda: len(done))

serve(build)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_worker.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    monkeypatch.setitem(workers.MODULES, "fake", (sys.executable, "fake_worker"))


def test_workers_take_turns(fake):
    worker = workers.Worker("fake", {"variant": ""})
    try:
        assert worker.measure(4) == 0.25
        worker.calibrate(10)
        assert 10 <= worker.iterations * 0.25 <= 20
        assert workers.alternate([worker], 3) == {"fake": [0.25] * 3}
        assert worker.costs == sorted(worker.costs) and worker.costs[0] == 1
    finally:
        worker.close()


def test_a_worker_that_stops_says_why(fake):
    with pytest.raises(workers.WorkerError, match="the worker fake-broken stopped: RuntimeError: no such thing"):
        workers.Worker("fake-broken", {"variant": "broken"})


def test_the_parts_of_the_roofline_are_the_iteration():
    circuit = mgd.load(ROOT / "netlists" / "fashion_mnist_cnn.yaml", d=2)
    program, _ = builder.build(circuit)
    parts = roofline._parts(circuit, program.iteration)
    assert list(parts)[:3] == ["conv1", "conv2", "pool1"]
    assert {roofline.CODES, roofline.COST, roofline.LEARNING} <= set(parts)
    work = {name: roofline._work(nodes, batch=10) for name, nodes in parts.items()}
    assert sum(w["macs"] for w in work.values()) == 10 * iteration_macs(circuit)
    # conv1 at d = 2: two passes read the image and write I, then read I and write x; weights and codes are shared.
    replica = 2 * (784 + 2 * 784) + 2 * (2 * 784 + 2 * 784)
    shared = 2 * 18 + 18 + 2 * 2 + 2
    assert work["conv1"]["bytes"] == 4 * (10 * replica + shared)


def test_figures_draw_what_was_measured(tmp_path):
    figures.ratios([result([1e-3], required=5, jax=[6e-3], torch_plain=[9e-3])], tmp_path / "ratios.svg")
    part = {"seconds": 1e-3, "macs": 1_000_000, "bytes": 100_000}
    iteration = {"d": 8, "batch": 100, "whole": 2e-3, "parts": {"conv1": part, "codes": part | {"macs": 0}}}
    measured = {
        "fma_peak": 200.0,
        "bandwidth": {"L1": 500, "L2": 200, "L3": 100, "memory": 30},
        "iterations": [iteration],
    }
    figures.roofline(measured, tmp_path / "roofline.svg")
    assert all("<svg" in path.read_text() for path in tmp_path.iterdir()) and len(list(tmp_path.iterdir())) == 2


def test_the_command_line():
    runner = CliRunner()
    listed = runner.invoke(cli.main, ["--list"])
    assert listed.exit_code == 0 and all(case.name in listed.output for case in CASES) and "roofline" in listed.output
    unknown = runner.invoke(cli.main, ["--case", "cnn_d3"])
    assert unknown.exit_code == 2 and "no case is called cnn_d3; expected one of cnn_d1_b100" in unknown.output
