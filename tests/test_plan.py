"""`mgdcircuits plan`: on datasets made by hand, where every number is known, and on a real sweep."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mgdcircuits as mgd
from mgdcircuits.analysis.pareto import plot
from mgdcircuits.analysis.plan import plan
from mgdcircuits.analysis.report import as_text, si
from mgdcircuits.circuit.builder import build
from mgdcircuits.circuit.needs import needs
from mgdcircuits.errors import RunError

ROWS = np.array([0, 100, 200, 400])


def made(accuracy, periods=(1, 10, 100), rates=(0.1, 1.0, 10.0), seeds=2, endurance=np.inf, seconds_of_write=1.0):
    """A sweep in which `accuracy(period, rate, seed)` gives the accuracy of each row. A row takes a second an iteration, and
    `seconds_of_write` for every update; the first of two groups, of 3 and 1 parameters, is written half as often."""
    shape = (len(periods), len(rates), seeds, len(ROWS))
    found = np.array(
        [[[accuracy(p, r, s) for s in range(seeds)] for r in rates] for p in periods], dtype=float
    ).reshape(shape)  # fmt: skip
    updates = np.broadcast_to((ROWS // np.array(periods)[:, None])[:, None, None, :], shape)
    writes = updates[..., None] * np.array([0.5, 1.0])
    dims = ("tau_theta", "eta", "seed")
    rows = (*dims, "iteration")
    return xr.Dataset(
        {
            "accuracy_test": (rows, found),
            "writes_mean": ((*rows, "parameter"), writes / 2),
            "writes_max": ((*rows, "parameter"), writes),
            "wear": ((*rows, "parameter"), writes / endurance),
            "energy": (rows, ROWS * 2.0 + 3 * updates),
        },
        {
            "tau_theta": [f"{p}*iteration" for p in periods],
            "eta": list(rates),
            "seed": list(range(seeds)),
            "iteration": ROWS,
            "hardware_seconds": (rows, ROWS + seconds_of_write * updates),
            "update_period": (dims, np.broadcast_to(np.array(periods)[:, None, None], shape[:3])),
            "parameter_size": ((*dims, "parameter"), np.broadcast_to([3, 1], (*shape[:3], 2))),
        },
        {"circuit": "known"},
    )


def climbs(best):
    """Right from row 200 on at the best rate of a period, from row 400 on at another rate next to it."""

    def accuracy(period, rate, seed):
        return [0.1, 0.2, 0.9, 0.95] if rate == best[period] else [0.1, 0.2, 0.5, 0.9]

    return accuracy


def test_numbers_of_an_option():
    found = plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), endurance=1000.0), accuracy=0.9)
    first = found.options[0]
    assert (first.period, first.rate, first.tuned, first.runs, first.reached) == (1, 1.0, True, 2, 2)
    assert (first.iterations, first.seconds, first.joules) == (200, 400, 1000)
    assert (first.writes_mean, first.writes_max, first.wear) == ((3 * 50 + 100) / 4, 200, 0.2)
    assert first.endurance == 1000
    to_the_end = plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0}))).options[0]
    assert (to_the_end.iterations, to_the_end.accuracy) == (400, 0.95) and to_the_end.wear == 0
    assert found.best.period == 100 and "shortest time, 202 s" in found.reason


def test_only_a_tuned_eta_is_recommended():
    """At tau_theta = 100 the largest eta is the best: nobody knows what a larger one would do."""
    found = plan(made(climbs({1: 1.0, 10: 1.0, 100: 10.0})), accuracy=0.9)
    assert [o.tuned for o in found.options] == [True, True, False]
    assert found.options[2].basis == "the best eta is the largest of those tried" and found.best.period == 10
    few = plan(made(climbs({1: 1.0}), periods=(1,), rates=(1.0, 10.0)), accuracy=0.9)
    assert few.best is None and "only 2 values of eta were tried" in few.reason
    one = plan(made(climbs({1: 1.0}), periods=(1,), rates=(1.0,)).isel(eta=0, drop=True), accuracy=0.9)
    assert one.best is None and "eta was not varied" in one.reason
    said = made(climbs({1: 1.0}), periods=(1,), rates=(1.0,)).assign_attrs(eta_tuned="on validation data, at each")
    assert plan(said, accuracy=0.9).best is not None


def test_failed_runs_are_tried_values():
    """A rate that diverges is an edge that was tried."""

    def accuracy(period, rate, seed):
        return [np.nan] * 4 if rate == 10.0 or period == 10 else climbs({1: 1.0})(period, rate, seed)

    sweep = made(accuracy, periods=(1, 10))
    missing = sweep["update_period"].astype(float)
    missing[:, 2], missing[1] = np.nan, np.nan  # of points that failed nothing is known, at tau_theta = 10 all did
    found = plan(sweep.assign_coords(update_period=missing), accuracy=0.9)
    assert [o.period for o in found.options] == [1] and found.options[0].tuned and found.best is not None


def test_devices_must_survive():
    """Updates at every iteration are the quickest here, but wear the devices out."""
    quick = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), endurance=150.0, seconds_of_write=-0.5)
    found = plan(quick, accuracy=0.9)
    assert found.options[0].wear > 1 and found.best.period == 10
    assert "1 quicker or slower ones wear a device out" in found.reason
    assert plan(made(climbs({1: 1.0}), periods=(1,), endurance=1.0), accuracy=0.9).best is None


def test_what_does_not_reach_the_accuracy():
    found = plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0})), accuracy=0.99)
    assert found.best is None and "no tau_theta" in found.reason
    assert all(o.reached == 0 and np.isnan(o.seconds) for o in found.options)
    assert "99%" in as_text(found) and plot(found) is not None


def test_the_front_has_no_option_that_another_beats():
    found = plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), seconds_of_write=-0.5), accuracy=0.9)
    assert [o.period for o in found.front] == [1, 10, 100]  # time rises as writes fall
    found = plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0})), accuracy=0.9)
    assert [o.period for o in found.front] == [100]


def test_other_swept_names_are_chosen():
    base = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}))
    both = xr.concat(
        [base, base], xr.IndexVariable("d", [1, 2]), data_vars="all", coords=["hardware_seconds", "update_period"]
    )
    both = both.assign_coords(parameter_size=base["parameter_size"])
    with pytest.raises(RunError, match="d is swept too; choose one of its values with --at d=VALUE: 1, 2"):
        plan(both)
    assert plan(both, accuracy=0.9, at={"d": "2"}).best.period == 100
    with pytest.raises(RunError, match="nothing called h is swept"):
        plan(both, at={"d": "2", "h": "1"})


def test_a_dataset_without_what_is_needed():
    with pytest.raises(RunError, match="the dataset has no accuracy_test; train again"):
        plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0})).drop_vars("accuracy_test"))


@pytest.mark.filterwarnings("error")
def test_figure_of_one_tau_theta(tmp_path):
    """A single point has room around it on logarithmic axes, and matplotlib nothing to warn of."""
    found = plan(made(lambda *_: [0.1, 0.5, 0.9, 0.9], periods=(1,)), 0.8)
    figure = plot(found, tmp_path / "one.png")
    assert figure.axes[1].get_xlim() == (0.1, 10)


@pytest.mark.parametrize(("value", "text"), [(0.0032, "3.2 m"), (1e-13, "100 f"), (0, "0 "), (4.5e4, "45 k")])
def test_si(value, text):
    assert si(value) == text


def test_of_a_run(netlists, tmp_path):
    """A run of train: its numbers, the chip's, and what the rule needs; nothing is recommended."""
    from click.testing import CliRunner

    from mgdcircuits.cli import cli

    path = tmp_path / "run.nc"
    circuit = mgd.load(netlists / "technologies" / "rram.yaml", tau_theta="20*iteration")
    run = mgd.train(circuit, iterations=400, evaluate_every=200, seed=1, out=path, progress=False, target="numpy")
    result = CliRunner().invoke(cli, ["plan", str(path)])
    assert result.exit_code == 0, result.output
    assert "eta was not varied" in result.output and (tmp_path / "run_plan.png").exists()
    assert "perturbation, G" in result.output
    found = plan(mgd.open_run(path)).options[0]
    assert found.seconds == pytest.approx(400 * 2 * 200e-9 + 20 * (16 + 1 + 10 + 1) * 10e-9)
    assert found.joules == pytest.approx(800 * 1184 * 0.04e-12 + 20 * 1210 * 3e-12)
    assert (found.period, found.writes_max, found.wear) == (20, 20, 20e-6)
    assert float(run["update_period"]) == 20


def of(name, netlists, **changes):
    circuit = mgd.load(netlists / f"{name}.yaml", **changes)
    return {n.place: n for n in needs(circuit, *build(circuit, batched=False))}


def test_needs_of_weight_perturbation(netlists):
    """Each synapse holds its perturbation and, over a window, its estimate; it multiplies once and draws a bit."""
    found = of("xor", netlists)
    w = found["hidden_layer.w"]
    assert (w.kind, w.elements, w.cells, w.products, w.random) == (
        "synapse", 4, ["perturbation"], {"iteration": 1, "update": 0}, ["bit"],
    )  # fmt: skip
    assert found["hidden_layer.b"].kind == "neuron" and found["whole circuit"].cells == ["C.clean"]
    assert of("xor", netlists, tau_theta="10*iteration")["output.w"].cells == ["perturbation", "G"]
    assert of("digits_mlp", netlists)["logits.w"].cells == ["perturbation", "velocity"]


def test_needs_of_node_perturbation(netlists):
    """Nodes hold perturbations and states, synapses nothing; the product with the perturbation is made at the node."""
    found = of("xor_np", netlists)
    assert found["hidden_layer"].cells == ["perturbation", "x"] and found["input"].cells == ["x"]
    assert found["hidden_layer.w"].cells == [] and found["hidden_layer.w"].random == []
    assert found["hidden_layer"].products["iteration"] == found["hidden_layer.w"].products["iteration"] == 1


def test_needs_of_filters(netlists):
    """Analog learning: the filter of the cost is two cells of the whole circuit, every synapse integrates."""
    found = of("xor_analog", netlists)
    assert set(found["whole circuit"].cells) == {"dC", "C_last"} and "G" in found["output.w"].cells
