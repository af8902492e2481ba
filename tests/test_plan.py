"""`mgdcircuits plan`: on datasets made by hand, where every number is known, and on a real sweep."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import mgdcircuits as mgd
from mgdcircuits import cli, figures
from mgdcircuits.analysis.pareto import plot
from mgdcircuits.analysis.plan import plan
from mgdcircuits.analysis.report import as_text, si
from mgdcircuits.circuit.builder import build
from mgdcircuits.circuit.needs import needs
from mgdcircuits.errors import NetlistError, RunError

ROOT = Path(__file__).parent.parent
XOR = (ROOT / "netlists" / "xor.yaml").read_text()
ROWS = np.array([0, 100, 200, 400])


def with_retention(text):
    """xor, whose devices keep what is written for `text`."""
    assert "hardware:" not in XOR
    return XOR.replace("parameters:\n", "parameters:\n  ret: 300*second\n", 1) + (
        f"\nhardware: {{device: {{retention: {text}}}}}\n"
    )


def made(
    accuracy, periods=(1, 10, 100), rates=(0.1, 1.0, 10.0), seeds=2, endurance=np.inf, seconds_of_write=1.0, netlist=XOR
):
    """A sweep of XOR in which `accuracy(period, rate, seed)` gives the accuracy of each row. A row takes a second an iteration,
    and `seconds_of_write` for every update; the first of two groups, of 3 and 1 parameters, is written half as often."""
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
            "state": (dims, np.where(np.isnan(found).all(-1), "failed: infinite", "finished").astype(object)),
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
        {"circuit": "xor", "netlist": netlist, "sweep": "{}"},
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
    """A rate that diverges is an edge that was tried; a tau_theta at which all do has a row, with the period of the netlist."""

    def accuracy(period, rate, seed):
        return [np.nan] * 4 if rate == 10.0 or period == 10 else climbs({1: 1.0})(period, rate, seed)

    sweep = made(accuracy, periods=(1, 10))
    unknown = sweep["update_period"].astype(float)
    unknown[:, 2], unknown[1] = np.nan, np.nan  # of points that failed nothing is known, at tau_theta = 10 all did
    found = plan(sweep.assign_coords(update_period=unknown), accuracy=0.9)
    assert [(o.period, o.reached, o.runs) for o in found.options] == [(1, 2, 2), (10, 0, 6)]
    assert found.options[0].tuned and found.best.period == 1
    assert {o.name: why for o, why in found.hindrances.items()} == {
        "10": "every run is missing or failed"
    } and "0/6" in as_text(found)
    assert "of 12 points 0 are missing and 8 failed" in found.notes[0]


def without(sweep, **places):
    """The sweep interrupted: points at some places are missing."""
    for name in ("accuracy_test", "hardware_seconds", "writes_mean", "writes_max", "wear", "energy", "update_period"):
        sweep[name] = sweep[name].astype(float).copy()
        sweep[name][places] = np.nan
    sweep["state"][places] = "missing"
    return sweep


def test_values_that_never_ran_were_not_tried():
    """At tau_theta = 1 the smallest eta that ran is the best; one that ran with some seeds is no edge either."""
    best = {1: 0.3, 10: 1.0}
    whole = made(climbs(best), periods=(1, 10), rates=(0.1, 0.3, 1.0, 3.0))
    assert [o.tuned for o in plan(whole, accuracy=0.9).options] == [True, True]
    found = plan(without(whole.copy(deep=True), eta=0, tau_theta=0), accuracy=0.9)
    assert [o.tuned for o in found.options] == [False, True] and found.best.period == 10
    assert found.options[0].basis == "the best eta is the smallest of those tried"
    assert "of 16 points 2 are missing and 0 failed" in found.notes[0]
    some = plan(without(whole.copy(deep=True), eta=0, tau_theta=0, seed=1), accuracy=0.9)
    assert not some.options[0].tuned


def test_the_best_eta_must_have_run_with_every_seed():
    whole = made(climbs({1: 1.0}), periods=(1,), seeds=3, rates=(0.1, 1.0, 10.0, 100.0))
    found = plan(without(whole, eta=1, seed=2), accuracy=0.9)
    assert found.options[0].rate == 1.0 and found.options[0].reached == 2
    assert found.best is None and "runs of the best eta are missing" in found.reason


def test_a_tau_theta_that_is_missing_has_a_row():
    whole = made(climbs({1: 1.0, 10: 1.0}), periods=(1, 10))
    missing = without(whole, tau_theta=1)
    found = plan(missing, accuracy=0.9)
    assert [(o.period, o.reached, o.runs, o.rate) for o in found.options][1] == (10, 0, 6, None)
    found = plan(missing.assign_attrs(netlist=""), accuracy=0.9)
    assert [o.name for o in found.options] == ["1", "10*iteration"], "without a netlist: as it was swept"
    assert "10*iteration  -    no     0/6" in as_text(found)


def test_expressions_are_ordered_by_value():
    """1/10, 10/3 and 1/100 as they are typed: the second is the largest."""
    typed = ["1/10", "10/3", "1/100"]
    best = made(climbs({1: 1.0}), periods=(1,)).assign_coords(eta=np.array(typed, dtype=object))
    found = plan(best, accuracy=0.9).options[0]
    assert found.rate == "10/3" and found.basis == "the best eta is the largest of those tried"
    middle = best.assign_coords(eta=np.array(["1/10", "norm", "1/100"], dtype=object))
    assert plan(middle, accuracy=0.9).options[0].tuned, "norm is 0.05"
    decays = best.assign_coords(eta=np.array(["1/10", "1/(1 + n_theta)", "1/100"], dtype=object))
    assert "have no order" in plan(decays, accuracy=0.9).options[0].basis


def test_a_seed_that_never_gets_there_takes_for_ever():
    """Of 200, 400 and never the median is 400; and so the rate at which all take 400 is no worse."""

    def accuracy(period, rate, seed):
        quick = {1.0: (200, 400, np.inf), 0.1: (np.inf, np.inf, np.inf), 10.0: (200, np.inf, np.inf)}[rate][seed]
        return [0.9 if row >= quick else 0.1 for row in ROWS]

    found = plan(made(accuracy, periods=(1,), seeds=3), accuracy=0.9)
    one = found.options[0]
    assert (one.rate, one.reached, one.iterations, one.seconds, one.writes_max) == (1.0, 2, 400, 800, 400)
    never = plan(made(accuracy, periods=(1,), seeds=3).isel(eta=[2]), accuracy=0.9)
    assert never.options[0].reached == 1 and np.isinf(never.options[0].seconds) and "never" in as_text(never)


def test_the_quicker_rate_by_medians_over_all_seeds():
    """At eta = 1 two of five seeds are the quickest of all, but the median is that of the third."""

    def accuracy(period, rate, seed):
        quick = {1.0: (100, 100, 400, np.inf, np.inf), 3.0: (200,) * 5}.get(rate, (400,) * 5)[seed]
        return [0.9 if row >= quick else 0.1 for row in ROWS]

    found = plan(made(accuracy, periods=(1,), seeds=5, rates=(0.1, 1.0, 3.0, 10.0)), accuracy=0.9)
    assert found.options[0].rate == 3.0 and found.options[0].iterations == 200


def test_devices_must_survive():
    """Updates at every iteration are the quickest here, but wear the devices out."""
    quick = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), endurance=150.0, seconds_of_write=-0.5)
    found = plan(quick, accuracy=0.9)
    assert (
        found.options[0].worn and found.best.period == 100
    )  # 199 s, or any time after 99.5 s: 190 s are not less for sure
    assert (
        "by rows it may be there at any time after 99.5 s; tau_theta = 10 is there after 190 s, with 10 times the"
        in found.reason
    )
    assert {o.name: why for o, why in found.hindrances.items()} == {"1": "a device uses up its endurance"}
    assert "tau_theta = 1: a device uses up its endurance" in as_text(found).splitlines()
    assert plan(made(climbs({1: 1.0}), periods=(1,), endurance=1.0), accuracy=0.9).best is None


def test_what_is_worn_out_before_it_gets_there_says_so():
    """Of runs that never get there it is the wear at their end."""
    never = made(lambda p, r, s: [0.1, 0.2, 0.5, 0.5] if r == 1.0 else [0.1] * 4, periods=(1,), endurance=300.0)
    found = plan(never, accuracy=0.9)
    assert found.options[0].wear == pytest.approx(400 / 300) and found.options[0].worn
    assert "at most half of the runs reach 90%, and a device uses up its endurance" in found.reason
    assert as_text(found).splitlines()[3].endswith("1.3")


def test_times_that_rows_do_not_tell_apart_are_equal():
    """Of those the one with the fewest writes is recommended, and each that writes less still is named."""
    sweep = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), seconds_of_write=-0.1)  # 180, 198 and 199.8 s; before, half of it
    assert plan(sweep, accuracy=0.9).best.period == 100
    slow = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), seconds_of_write=0.01)
    slow["hardware_seconds"][2] += 500
    found = plan(slow, accuracy=0.9)
    assert found.best.period == 10  # 200.2 s; 202 s at tau_theta = 1
    assert found.reason.endswith("; tau_theta = 100 writes 10 times less and takes 3.5 times as long")


def test_an_option_that_writes_nothing():
    """At tau_theta = 1000 the accuracy is there before the first update."""
    found = plan(made(climbs({1: 1.0, 1000: 1.0}), periods=(1, 1000), seconds_of_write=-0.1), accuracy=0.9)
    assert found.best.writes_max == 0 and "with infinitely many times the writes" in found.reason


def test_what_wears_out_is_not_the_measure_of_accuracy():
    """A worn-out option that reaches more does not stand in the way of one that survives."""
    best = {1: 0.95, 10: 0.93, 100: 0.9}
    sweep = made(lambda p, r, s: [0.1, 0.5, 0.9, best[p] if r == 1.0 else 0.5], endurance=150)
    assert plan(sweep).best.period == 10


def test_what_cannot_be_chosen_is_told_where_it_has_more():
    """What survives learns nothing; the best accuracy is that of a device that is worn out."""

    def accuracy(period, rate, seed):
        return [0.1, 0.2, 0.3, 0.48 if period == 100 else 0.95] if rate == 1.0 else [0.1] * 4

    found = plan(made(accuracy, endurance=10))
    assert found.best.period == 100 and "within 1% of their best accuracy, 48.0%, in the shortest time" in found.reason
    assert found.reason.endswith("; but tau_theta = 1 has 95.0%, where a device uses up its endurance")


def test_an_accuracy_is_told_as_it_was_asked_for():
    text = as_text(plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0})), accuracy=0.855))
    assert "to 85.5%" in text and "86%" not in text


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: d.isel(iteration=-1), "no dimension iteration"),
        (lambda d: d.assign(accuracy_test=d["accuracy_test"].astype(str)), "no numbers in accuracy_test"),
    ],
)
def test_datasets_that_lack_rows_or_numbers(harm, message):
    with pytest.raises(RunError, match=message):
        plan(harm(made(climbs({1: 1.0, 10: 1.0, 100: 1.0}))))


def test_damaged_attributes_are_told():
    sweep = made(climbs({1: 1.0, 10: 1.0, 100: 1.0})).assign_attrs(overrides="{bad")
    found = plan(sweep, accuracy=0.9)
    assert found.best is None and "the attribute overrides of the dataset is damaged" in found.reason
    states = sweep["state"].where(False, "missing")
    assert plan(sweep.assign(state=states)).best is None


def test_the_reason_says_what_hinders_each():
    """tau_theta = 1 wears a device out; at 10 and 100 none does, but eta is at an edge."""
    found = plan(made(climbs({1: 1.0, 10: 10.0, 100: 10.0}), endurance=150.0), accuracy=0.9)
    edge = "eta is not known to be tuned (the best eta is the largest of those tried)"
    assert found.best is None
    assert found.reason == (
        f"no recommendation: tau_theta = 1: a device uses up its endurance; tau_theta = 10, 100: {edge}"
    )


def test_what_does_not_reach_the_accuracy(tmp_path):
    found = plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0})), accuracy=0.99)
    assert found.best is None and "tau_theta = 1, 10, 100: at most half of the runs reach 99%" in found.reason
    assert all(o.reached == 0 and np.isinf(o.seconds) for o in found.options)
    figure = plot(found, tmp_path / "none.png")
    assert "99%" in as_text(found) and "no tau_theta" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("accuracy", [np.nan, 0, -0.1, 1.5])
def test_an_accuracy_is_a_fraction(accuracy):
    with pytest.raises(RunError, match="above 0 and at most 1"):
        plan(made(climbs({1: 1.0}), periods=(1,)), accuracy=accuracy)


def test_the_front_has_no_option_that_another_beats():
    found = plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), seconds_of_write=-0.5), accuracy=0.9)
    assert [o.period for o in found.front] == [1, 10, 100]  # time rises as writes fall
    found = plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0})), accuracy=0.9)
    assert [o.period for o in found.front] == [100]


def swept(base, name, values):
    """A sweep over a further name, the same at each of its values."""
    both = xr.concat(
        [base] * len(values),
        xr.IndexVariable(name, values),
        data_vars="all",
        coords=["hardware_seconds", "update_period"],
    )
    return both.assign_coords(parameter_size=base["parameter_size"])


def test_other_swept_names_are_chosen():
    both = swept(made(climbs({1: 1.0, 10: 1.0, 100: 1.0})), "hidden", [2, 1000])
    with pytest.raises(RunError, match="hidden is swept too; choose one of its values with --at hidden=VALUE: 2, 1000"):
        plan(both)
    assert plan(both, accuracy=0.9, at={"hidden": "2"}).best.period == 100
    with pytest.raises(RunError, match="h is not swept; --at may choose hidden"):
        plan(both, at={"hidden": "2", "h": "1"})
    with pytest.raises(RunError, match="all values of eta are compared; --at may choose hidden"):
        plan(both, at={"hidden": "2", "eta": "1"})
    with pytest.raises(RunError, match="hidden = 3 was not found; choose one of its values .*: 2, 1000"):
        plan(both, at={"hidden": "3"})


@pytest.mark.parametrize("text", ["2", "2.0", "2e0", "4/2"])
def test_values_are_found_by_value(text):
    both = swept(made(climbs({1: 1.0}), periods=(1,)), "eta_0", [2.0, 0.7]).assign_attrs(netlist="")
    assert plan(both, accuracy=0.9, at={"eta_0": text}).options[0].seconds == 400
    times = swept(made(climbs({1: 1.0}), periods=(1,)), "ret", np.array(["2*us", "1*ms"], dtype=object))
    assert plan(times, accuracy=0.9, at={"ret": "1000*us"}).options[0].seconds == 400


def test_chosen_values_are_those_of_the_chip():
    """Retention and needs are those at the chosen values, and at the tau_theta that is shown."""
    base = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), netlist=with_retention("ret"))
    both = swept(base, "ret", np.array(["100*second", "1000*second"], dtype=object))
    short, long = (plan(both, accuracy=0.9, at={"ret": value}) for value in ("100*second", "1000*second"))
    assert short.best is None and "keep what is written (100 s)" in short.reason
    assert long.best.period == 100 and "devices keep what is written for 1 ks" in long.notes
    sizes = swept(base, "hidden", [2, 5])
    assert [plan(sizes, at={"hidden": str(h)}).needs[0]["elements"] for h in (2, 5)] == [4, 10]
    assert plan(base, accuracy=0.9).needs[0]["cells"] == ["perturbation", "G"]
    assert plan(base.isel(tau_theta=[0]), accuracy=0.9).needs[0]["cells"] == ["perturbation"]
    by_window = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), netlist=with_retention("5e6*tau_theta"))
    assert [o.retention for o in plan(by_window, accuracy=0.9).options] == pytest.approx([10, 100, 1000])


def test_samples_of_a_batch_that_the_netlist_names():
    """A sweep whose options have no batch."""
    netlist = XOR.replace("batch: 1", "batch: 4")
    assert netlist != XOR
    said = "the 4 samples of a batch are evaluated one after another on one copy of the circuit, 2 times an iteration"
    sweep = made(climbs({1: 1.0}), periods=(1,), netlist=netlist).assign_attrs(batch="")
    assert said in plan(sweep, accuracy=0.9).notes


PULSE = "g (1), up (1)\n-1000, 0.5\n1000, 0.2\n"


@pytest.fixture
def device(tmp_path):
    """xor whose retention is in a netlist with a table beside it, in a folder of its own."""
    folder = tmp_path / "chip"
    folder.mkdir()
    text = with_retention("ret").replace("request: -eta/K*G,", "request: '-eta/K*G*table(\"pulse.csv\", 1)',")
    assert "pulse.csv" in text
    (folder / "xor.yaml").write_text(text)
    (folder / "pulse.csv").write_text(PULSE)
    return folder / "xor.yaml"


def test_the_tables_of_a_netlist_are_kept(device, tmp_path, monkeypatch):
    """What is recommended does not depend on where one is, nor on files that lie there."""
    run = mgd.train(mgd.load(device), iterations=2, target="numpy", progress=False, out=tmp_path / "run.nc")
    assert json.loads(run.attrs["netlist_tables"]) == {"pulse.csv": PULSE}
    device.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "pulse.csv").write_text("no table")
    monkeypatch.chdir(elsewhere)
    assert "devices keep what is written for 300 s" in plan(mgd.open_run(tmp_path / "run.nc")).notes


def test_nothing_is_recommended_without_the_netlist(device, monkeypatch):
    """Older datasets keep no tables; one of the folder in which somebody is may be another one."""
    sweep = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}), netlist=device.read_text())
    monkeypatch.chdir(device.parent)
    found = plan(sweep, accuracy=0.9)
    assert found.best is None and "there is no text of pulse.csv" in found.reason and "--netlist" in found.reason
    sizes = {"hidden_layer.w": 4, "hidden_layer.b": 2, "output.w": 2, "output.b": 1}
    named = sweep.isel(parameter=[0, 0, 0, 0]).assign_coords(
        parameter=list(sizes), parameter_size=("parameter", list(sizes.values()))
    )
    assert plan(named, accuracy=0.9, netlist=device).best.period == 100


def test_the_tables_of_included_netlists_are_kept(device, tmp_path):
    """Wherever they lie."""
    (tmp_path / "mine").mkdir()
    mine, other = tmp_path / "mine" / "mine.yaml", tmp_path / "other.csv"
    other.write_text("g (1), kept (second)\n0, 100\n2, 700\n")
    mine.write_text("include: ../chip/xor.yaml\ncircuit: mine\nparameters: {ret: \"table('../other.csv', 1)\"}\n")
    circuit = mgd.load(mine)
    assert dict(circuit.spec.tables) == {"pulse.csv": PULSE, "../other.csv": other.read_text()}
    run = mgd.train(circuit, iterations=2, target="numpy", progress=False)
    for path in (device, device.parent / "pulse.csv", mine, other):
        path.unlink()
    assert "devices keep what is written for 400 s" in plan(run).notes


def test_a_netlist_that_is_named_must_be_that_of_the_dataset(tmp_path, netlists, monkeypatch):
    run = mgd.train(mgd.load(netlists / "xor.yaml"), iterations=2, target="numpy", progress=False)
    (tmp_path / "pulse.csv").write_text(PULSE)
    for name in ("nothere.yaml", "pulse.csv"):
        with pytest.raises(NetlistError, match=name):
            plan(run, netlist=tmp_path / name)
    with pytest.raises(RunError, match="another circuit: xor with 6 hidden_layer.w.* the dataset is of xor with 4"):
        plan(run, netlist=XOR.replace("hidden: 2", "hidden: 3"))
    with pytest.raises(RunError, match="of another circuit: other"):
        plan(run, netlist=XOR.replace("circuit: xor", "circuit: other"))
    assert plan(run, netlist=netlists / "xor.yaml").needs


def test_a_dataset_without_what_is_needed():
    with pytest.raises(RunError, match="the dataset has no accuracy_test; train again"):
        plan(made(climbs({1: 1.0, 10: 1.0, 100: 1.0})).drop_vars("accuracy_test"))


@pytest.mark.filterwarnings("error")
def test_figure_of_one_tau_theta(tmp_path):
    """A single point has room around it on logarithmic axes, and matplotlib nothing to warn of."""
    found = plan(made(lambda *_: [0.1, 0.5, 0.9, 0.9], periods=(1,)), 0.8)
    figure = plot(found, tmp_path / "one.png")
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["writes of the most written device", "test accuracy (%)", "energy"]
    assert figure.axes[1].get_xlim() == figure.axes[2].get_xlim() == (0.1, 10)


@pytest.mark.filterwarnings("error")
def test_figure_of_an_accuracy_that_is_there_before_training(tmp_path):
    found = plan(made(climbs({1: 1.0, 10: 1.0}), periods=(1, 10)), 0.1)
    assert found.options[0].seconds == 0
    figure = plot(found, tmp_path / "before.png")
    assert figure.axes[0].get_legend() is None
    assert figure.axes[0].texts[0].get_text() == "the accuracy is there before training"


@pytest.mark.filterwarnings("error")
def test_an_answer_where_no_accuracy_is_known(tmp_path):
    found = plan(made(lambda *_: [np.nan] * 4))
    assert found.reason == "no recommendation: tau_theta = 1, 10, 100: every run is missing or failed"
    figure = plot(found, tmp_path / "none.png")
    assert figure.axes[1].texts[0].get_text() == "no run has an accuracy"


def test_figure_shows_what_wears_out_and_what_is_right(tmp_path):
    """Devices that are worn out are crosses; numbers beside the axes do not touch, and dots at 100 % are whole."""
    found = plan(made(lambda *_: [0.1, 0.2, 1.0, 1.0], endurance=150.0), 0.8)
    figure = plot(found, tmp_path / "figure.png")
    trade, accuracy, _ = figure.axes
    assert "eta not tuned, wears a device out" in trade.get_legend_handles_labels()[1]
    assert not trade.lines or "endurance" not in str([line.get_label() for line in trade.lines])
    assert accuracy.get_ylim()[1] == 100 and not accuracy.lines[0].get_clip_on()
    for axis in (trade.xaxis, trade.yaxis, accuracy.yaxis):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels(which="both") if label.get_text()]
        assert len(boxes) > 1
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))


def test_figure_of_an_incomplete_sweep(tmp_path):
    """How many points ran, and lines of those only."""
    sweep = made(climbs({1: 1.0, 10: 1.0, 100: 1.0}))
    missing = without(sweep.copy(deep=True), tau_theta=[1, 2])
    figure = figures.plot(missing)
    assert figure.get_suptitle().endswith("6 of 18 points")
    assert figure.axes[0].get_legend_handles_labels()[1] == ["tau_theta = 1*iteration"]
    assert figures.plot(sweep).get_suptitle().endswith(",  18 points")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.plot(without(sweep, tau_theta=[0, 1, 2]))


def test_the_table_comes_before_the_figure(tmp_path):
    """A figure that cannot be written is an error, but the answer is there."""
    sweep = made(climbs({1: 1.0, 10: 1.0, 100: 1.0})).assign_attrs(schema=1, netlist_sha256="")
    sweep.to_netcdf(tmp_path / "sweep.nc")
    words = ["plan", str(tmp_path / "sweep.nc"), "--accuracy", ".9"]
    result = CliRunner().invoke(cli.cli, [*words, "-o", str(tmp_path / "figure.none")])
    assert "tau_theta = 100 iterations" in result.output
    assert "the figure cannot be written" in str(result.exception) and result.exception.exit_status == 2
    assert CliRunner().invoke(cli.cli, [*words[:-1], "nan"]).exception.exit_status == 2


@pytest.mark.parametrize(("value", "text"), [(0.0032, "3.2 m"), (1e-13, "100 f"), (0, "0 "), (4.5e4, "45 k")])
def test_si(value, text):
    assert si(value) == text


def test_of_a_run(netlists, tmp_path):
    """A run of train: its numbers, the chip's, and what the rule needs; nothing is recommended."""
    path = tmp_path / "run.nc"
    circuit = mgd.load(netlists / "technologies" / "rram.yaml", tau_theta="20*iteration")
    run = mgd.train(circuit, iterations=400, evaluate_every=200, seed=1, out=path, progress=False, target="numpy")
    result = CliRunner().invoke(cli.cli, ["plan", str(path)])
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
