"""Sweeps: grids, points on a cluster whose workers may die, what goes on after what, and the dataset of all points."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

import mgdcircuits as mgd
from mgdcircuits import journal
from mgdcircuits.cli import cli, run
from mgdcircuits.errors import BuildError, DatasetError, NetlistError, RecordError, RunError
from mgdcircuits.journal import Journal
from mgdcircuits.sweeps import sweeping
from mgdcircuits.sweeps.grid import as_grid, parse
from mgdcircuits.sweeps.plan import Plan
from mgdcircuits.sweeps.results import gather, pack, points_of
from mgdcircuits.sweeps.worker import Source

ROOT = Path(__file__).parent.parent
XOR, PARITY = ROOT / "netlists" / "xor.yaml", ROOT / "netlists" / "parity.yaml"
OWN_TIME = ["wall_seconds"]

# A seed fails where a draw is one that has a chance of 1 in 500.
UNLUCKY = """
include: {base}
circuit: unlucky
learning:
  mgd:
    update: {{request: "-eta/K*G/int(rand() > 0.002)", every: tau_theta}}
"""


@pytest.fixture(scope="module")
def xor():
    return mgd.load(XOR)


class Cluster:
    """A Dask scheduler and two workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.processes = [self._start("scheduler", "--port", "0")]
        while not self.file.exists():
            time.sleep(0.05)
        with Client(scheduler_file=str(self.file), set_as_default=False) as client:
            self.address = client.scheduler.address
        self.workers = [self.add_worker(), self.add_worker()]

    def _start(self, what: str, *options: str) -> subprocess.Popen:
        call = [sys.executable, "-m", "dask", what, "--scheduler-file", str(self.file), *options, "--no-dashboard"]
        return subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def add_worker(self) -> subprocess.Popen:
        """A worker with one thread and no nanny: dead is dead."""
        self.processes.append(self._start("worker", "--nthreads", "1", "--no-nanny"))
        return self.processes[-1]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def sweep(cluster):
    def swept(circuit, grid, **options):
        options = {"target": "numpy", "progress": False, "scheduler": cluster.address, "evaluate_every": 10} | options
        return mgd.sweep(circuit, grid, **options)

    return swept


def call(capfd, *arguments):
    status = run(cli, [str(a) for a in arguments])
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


def same(point: xr.Dataset, alone: xr.Dataset) -> None:
    """A point has what the run alone has, bit by bit, in the rows that the run has."""
    point = point.sel(iteration=alone["iteration"])
    for name in alone.variables:
        if name not in OWN_TIME:
            assert point[name].dims == alone[name].dims, name
            np.testing.assert_array_equal(point[name].values, alone[name].values, err_msg=str(name))


# Grids


def test_what_a_grid_says():
    found = parse(["d=1,2,4", "seed=0..3,9", "eta=1e-3,.5", "tau_theta=iteration, 10*iteration", "noise=max(1, 2)*mV"])
    assert found == {
        "d": (1, 2, 4),
        "seed": (0, 1, 2, 3, 9),
        "eta": (1e-3, 0.5),
        "tau_theta": ("iteration", "10*iteration"),
        "noise": ("max(1, 2)*mV",),
    }
    grid = as_grid(found)
    assert len(grid) == 3 * 5 * 2 * 2 == len(list(grid))
    assert grid.describe((1, 4, 0, 1, 0)) == "d=2, seed=9, eta=0.001, tau_theta=10*iteration, noise=max(1, 2)*mV"
    assert as_grid({"eta": np.linspace(0, 1, 3), "d": 2}).as_json() == {"eta": [0.0, 0.5, 1.0], "d": [2]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--grid"),
        (["--grid", "seed"], "NAME=VALUES"),
        (["--grid", "seed="], "NAME=VALUES"),
        (["--grid", "eta=1,,2"], "empty value"),
        (["--grid", "seed=9..0"], "9..0 is no range"),
        (["--grid", "seed=0..x"], "no range"),
        (["--grid", "seed=0..1", "--grid", "seed=2"], "swept already"),
        (["--grid", "seed=1,1"], "each of them once"),
        (["--grid", "eta=1,2/2"], "each of them once"),
        (["--grid", "seed=-1..1"], "whole numbers of at least 0"),
        (["--grid", "seed=a"], "whole numbers"),
        (["--grid", "seed=0,99999999999999999999"], "whole numbers of at least 0, below 2**63"),
        (["--grid", "eta=1,2", "--seed", "99999999999999999999"], "seed=99999999999999999999: expected a whole"),
        (["--grid", "eta=1,2", "--seed", "-1"], "seed=-1: expected a whole number of at least 0"),
        (["--grid", "seed=0..1", "--record", "foo"], "the session keeps no values of foo"),
        (["--grid", "seed=0..1", "--until", "foo > 3"], 'until "foo > 3" names foo'),
        (["--grid", "seed=0..1", "--until", "accuracy > "], 'until "accuracy > " is no condition'),
        (["--grid", "seed=0..1", "--data", "foo"], "unknown data set 'foo'"),
        (["--grid", "data=xor,foo"], "unknown data set 'foo'"),
        (["--grid", "eta=1,2", "--set", "eta=3"], "eta is swept and has one value as well"),
        (["--grid", "seed=1,2", "--seed", "3"], "seed is swept and has one value as well"),
        (["--grid", "etta=1,2"], "eta"),
        (["--grid", "eta=1,volt"], "volt"),
        (["--grid", "seed=0..1", "--until", "accuracy > 2", "--members", "2"], "cannot run together"),
        (["--grid", "seed=0..1", "-o", "no/sweep.nc"], "does not exist"),
        (["--grid", "seed=0..1", "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers"),
        (["--grid", "seed=0..1", "--scheduler", "nowhere"], "no Dask scheduler answers"),
    ],
)
def test_bad_sweeps_have_one_message_and_status_2(capfd, monkeypatch, tmp_path, cluster, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeping, "CONNECT_SECONDS", 0.5)
    scheduler = [] if "--scheduler" in arguments else ["--scheduler", cluster.address]
    status, out, err = call(capfd, "sweep", XOR, "--iterations", 5, "--quiet", *scheduler, *arguments)
    assert status == 2 and message in err and out == ""
    assert " failed" not in err, "it is found before the first point"
    assert not list(tmp_path.glob("*.nc*"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"grid": {"eta": np.ones((2, 2))}},
            RunError,
            r"grid eta: array\(\[1., 1.\]\) is not possible; expected numbers",
        ),
        ({"grid": {"eta": [[1, 2]]}}, RunError, r"grid eta: \[1, 2\] is not possible"),
        ({"grid": "eta=1,2"}, RunError, "grid 'eta=1,2': expected names with their values"),
        ({"circuit": "xor.yaml"}, RunError, r"'xor.yaml' is no circuit; pass mgdcircuits.load\(...\)"),
        ({"iterations": 0}, RunError, "iterations=0: expected a whole number of at least 1"),
        ({"iterations": 1.5}, RunError, "iterations=1.5: expected a whole number"),
        ({"evaluate_every": 0}, RunError, "evaluate_every=0: expected a whole number"),
        ({"batch": 0}, RunError, "batch=0: expected a whole number"),
        ({"members": 0}, RunError, "members=0: expected a whole number"),
        ({"workers": 0}, RunError, "workers=0: expected a whole number"),
        ({"threads": -1}, RunError, "threads=-1: expected a whole number"),
        ({"seed": -1}, RunError, "seed=-1: expected a whole number of at least 0"),
        ({"on_nan": "foo"}, RunError, "on_nan 'foo' is unknown; expected one of stop, continue"),
        ({"dtype": "float16"}, RunError, "dtype 'float16' is not possible; expected one of float32, float64"),
        ({"target": "gpu"}, RunError, "target 'gpu' is unknown"),
        ({"data": "nofile.csv"}, DatasetError, "nofile.csv"),
        ({"circuit": mgd.load(ROOT / "netlists" / "analog_rc.yaml"), "gradient": True}, RunError, "no exact gradient"),
        ({"circuit": mgd.load(ROOT / "netlists" / "lif_reward.yaml"), "grid": {"seed": [1]}}, BuildError, "numpy"),
    ],
)
def test_bad_arguments_are_found_before_the_start(xor, monkeypatch, options, error, message):
    monkeypatch.setattr(sweeping, "_connected", None)
    with pytest.raises(error, match=message):
        mgd.sweep(**{"circuit": xor, "grid": {"eta": [1, 3]}, "iterations": 10, "progress": False} | options)


def test_a_bad_value_is_told_with_its_file_and_line(monkeypatch, tmp_path):
    """Also where the netlist includes another one."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(XOR.read_text())
    Path("own.yaml").write_text("include: base.yaml\ncircuit: own\n")
    with pytest.raises(NetlistError) as alone:
        mgd.load("own.yaml", hidden=0)
    with pytest.raises(NetlistError) as swept:
        mgd.sweep(mgd.load("own.yaml"), {"hidden": [2, 0]}, iterations=10)
    assert str(swept.value) == str(alone.value)
    assert str(swept.value).startswith("base.yaml:")


def test_a_worker_reads_the_file_where_it_still_says_the_same(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(XOR.read_text())
    Path("own.yaml").write_text("include: base.yaml\ncircuit: own\n")
    source = Source(mgd.load("own.yaml").spec.text, "own.yaml", {}).from_anywhere()
    monkeypatch.chdir(ROOT)
    assert source.circuit({}).spec.file == str(tmp_path / "own.yaml")
    (tmp_path / "base.yaml").write_text(XOR.read_text().replace("eta: 3", "eta: 4"))
    found = source.circuit({}).spec
    assert found.file == "<text>" and found.parameters["eta"] == 3


def test_large_seeds_are_different_values():
    assert len(as_grid({"seed": [2**62, 2**62 + 1], "data": ["1.csv", "1.0.csv"]})) == 4


def test_iterations_are_given_or_swept(capfd):
    status, _, err = call(capfd, "sweep", XOR, "--grid", "seed=0,1")
    assert status == 2 and "--iterations" in err


def jobs(circuit, grid, workers=1, members=None, **options):
    options = {"iterations": 5, "batch": None, "until": None, "record": [], "target": "numpy"} | options
    plan = Plan.of(Source(circuit.spec.text, str(circuit.spec.file), {}), as_grid(grid), options, 0)
    return plan, plan.jobs(plan.grid, workers, members)


def test_seeds_run_together_where_the_batch_is_one(xor):
    _, found = jobs(xor, {"eta": [1, 3], "seed": range(20)})
    assert [len(j.seeds) for j in found] == [16, 16, 16, 16]
    assert [len(j.points) for j in found] == [16, 4, 16, 4], "the same size everywhere: one compilation"
    assert found[1].seeds == (16, 17, 18, 19, *[19] * 12) and found[1].points[3] == (0, 19)
    assert [len(j.seeds) for j in jobs(xor, {"seed": range(10)}, workers=2)[1]] == [5, 5]
    assert {len(j.seeds) for j in jobs(xor, {"seed": range(10)}, batch=4)[1]} == {1}
    assert {len(j.seeds) for j in jobs(xor, {"seed": range(10)}, until="accuracy > .9")[1]} == {1}
    assert {len(j.seeds) for j in jobs(xor, {"seed": range(10)}, batch=4, members=2)[1]} == {2}
    assert {len(j.seeds) for j in jobs(xor, {"batch": [1, 4], "seed": range(3)})[1]} == {3, 1}


def test_structures(xor):
    plan, found = jobs(mgd.load(PARITY), {"h": [2, 3], "eta": [1, 3], "seed": range(4)}, workers=4)
    assert len(found) == 4 and len({plan.structure(job) for job in found}) == 2


# Points


def test_a_point_is_the_run_alone(xor, sweep, tmp_path):
    found = sweep(xor, {"eta": [1, 3], "seed": [5, 0, 7]}, iterations=25, out=tmp_path / "sweep.nc", gradient=True)
    assert dict(found.sizes) == {"eta": 2, "seed": 3, "iteration": 4, "parameter": 4}
    assert found["cost"].dims == ("eta", "seed", "iteration")
    assert (found["state"] == "finished").all() and found.attrs["state"] == "finished"
    for eta in (1, 3):
        for seed in (5, 0, 7):
            one = mgd.load(XOR, eta=eta)
            alone = mgd.train(
                one, iterations=25, seed=seed, gradient=True, evaluate_every=10, target="numpy", progress=False
            )
            same(found.sel(eta=eta, seed=seed), alone)
    assert found.identical(mgd.open_run(tmp_path / "sweep.nc"))
    assert [f.name for f in tmp_path.iterdir()] == ["sweep.nc"]
    assert str(ROOT) not in str(found.attrs)
    axes = mgd.plot(found).axes
    assert [a.get_ylabel() for a in axes] == ["test cost", "test accuracy"]
    np.testing.assert_allclose(axes[0].lines[1].get_ydata(), found["cost_test"].sel(eta=3).median("seed"))


def test_runs_that_stop_early_have_rows_of_their_own(xor, sweep):
    found = sweep(xor, {"seed": range(3)}, iterations=40, until="cost_test < .27", evaluate_every=2, seed=None)
    for seed in range(3):
        alone = mgd.train(
            xor, iterations=40, until="cost_test < .27", seed=seed, evaluate_every=2, target="numpy", progress=False
        )
        same(found.sel(seed=seed), alone)
        assert found["state"].sel(seed=seed) == alone.attrs["state"]
        assert np.isnan(found["cost_test"].sel(seed=seed)).sum() == found.sizes["iteration"] - alone.sizes["iteration"]
    assert len(set(found["cost_test"].notnull().sum("iteration").values)) > 1, "they stop at different rows"


def test_sizes_options_and_texts_may_be_swept(sweep):
    parity = mgd.load(PARITY)
    grid = {"h": [2, 3], "batch": [1, 2], "iterations": [10, 15], "tau_theta": ["iteration", "5*iteration"]}
    found = sweep(parity, grid, record=["hidden.x"], evaluate_every=5, seed=4)
    assert found["x_hidden"].dims == (*grid, "iteration", "x_hidden_sample", "x_hidden_unit")
    assert list(found["tau_theta"].values) == ["iteration", "5*iteration"] and found["h"].dtype.kind == "i"
    point = {"h": 3, "batch": 2, "iterations": 15, "tau_theta": "5*iteration"}
    alone = mgd.train(
        mgd.load(PARITY, h=3, tau_theta="5*iteration"), batch=2, iterations=15, evaluate_every=5, seed=4,
        record=["hidden.x"], target="numpy", progress=False,
    )  # fmt: skip
    same(found.sel(point), alone)
    small = found.sel(point | {"h": 2, "batch": 1, "iterations": 10})["x_hidden"]
    assert np.isfinite(small[1:3, 0, :2]).all() and np.isnan(small[:, 1:]).all() and np.isnan(small[..., 2]).all()
    assert np.isnan(small.sel(iteration=15)).all()


def test_arrays_are_sent_to_the_workers(xor, sweep):
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([[0], [1], [1], [0]], np.float32)
    found = sweep(xor, {"seed": [0, 1]}, data=(x, y), iterations=10)
    same(
        found.sel(seed=1),
        mgd.train(xor, (x, y), iterations=10, seed=1, target="numpy", progress=False, evaluate_every=10),
    )


def test_a_failed_point_is_told_and_the_rest_go_on(cluster, capfd, tmp_path):
    options = ["--iterations", 10, "--target", "numpy", "--scheduler", cluster.address, "-o", tmp_path / "sweep.nc"]
    for _ in range(2):  # what failed is missing, and is tried again
        status, out, err = call(capfd, "sweep", XOR, "--grid", "data=xor,moons.csv,parity", *options)
        assert status == 2 and out.startswith("xor: 2 of 3 points; written to")
        assert "data=moons.csv failed: moons.csv" in err and "1 point failed, the first because moons.csv" in err
        found = mgd.open_run(tmp_path / "sweep.nc")
        states = found["state"].values
        assert [s.partition(":")[0] for s in states] == ["finished", "failed", "finished"]
        assert np.isnan(found["cost_test"][1]).all() and np.isfinite(found["cost_test"][0]).all()
        assert found.attrs["state"] == "failed"
        assert points_of(tmp_path / "sweep.nc").exists()


def test_where_all_points_fail_there_is_no_file(cluster, capfd, monkeypatch, tmp_path):
    """The workers lack the data."""
    monkeypatch.chdir(tmp_path)
    options = ["--iterations", 10, "--target", "numpy", "--scheduler", cluster.address, "--quiet", "-o", "sweep.nc"]
    status, out, err = call(capfd, "sweep", XOR, "--grid", "seed=0..2", "--data", "moons.csv", *options)
    assert status == 2 and out == ""
    assert err.startswith("xor: nothing is written: all 3 points failed, the first because moons.csv")
    assert not list(tmp_path.iterdir())


def test_a_member_that_fails_leaves_the_others(sweep, tmp_path):
    netlist = tmp_path / "unlucky.yaml"
    netlist.write_text(UNLUCKY.format(base=XOR))
    circuit = mgd.load(netlist)
    found = sweep(circuit, {"seed": range(6)}, iterations=10, members=6)
    failed = [str(state).startswith("failed: ") for state in found["state"].values]
    assert 0 < sum(failed) < 6
    assert not any("member" in state for state in found["state"].values), "a point is no member to the user"
    for seed in np.flatnonzero(np.logical_not(failed)):
        alone = mgd.train(circuit, iterations=10, seed=int(seed), evaluate_every=10, target="numpy", progress=False)
        same(found.sel(seed=seed), alone)


def test_each_structure_is_compiled_once(xor, monkeypatch, tmp_path):
    """On local workers, where a point is the run alone, too."""
    monkeypatch.setenv("MGDCIRCUITS_CACHE", str(tmp_path / "cache"))
    made = lambda: {p.name for p in (tmp_path / "cache").glob("*.so")}  # noqa: E731
    mgd.train(mgd.load(XOR, hidden=1), iterations=1, members=2, progress=False)
    of_one = len(made())
    found = mgd.sweep(
        xor, {"eta": [1, 3], "hidden": [1, 2], "seed": range(4)}, iterations=40, members=2, progress=False
    )
    assert len(made()) == 2 * of_one
    alone = mgd.train(mgd.load(XOR, hidden=2, eta=1), iterations=40, seed=3, progress=False)
    same(found.sel(eta=1, hidden=2, seed=3), alone)


# Stopping and going on


def test_the_same_sweep_goes_on_and_another_is_refused(xor, sweep, tmp_path, monkeypatch):
    out = tmp_path / "sweep.nc"
    options = {"iterations": 20, "out": out}
    first = sweep(xor, {"seed": range(3)}, **options)
    assert sweep(xor, {"seed": range(3)}, **options, scheduler="nowhere").identical(first), "nothing is missing"
    before = out.read_bytes()
    with pytest.raises(RunError, match=r"a sweep of grid = .*; repeat what it was begun with, .* --force"):
        sweep(xor, {"seed": range(4)}, **options)
    with pytest.raises(RunError, match="a sweep of iterations = 20, here it is 30"):
        sweep(xor, {"seed": range(3)}, **options | {"iterations": 30})
    with pytest.raises(RunError, match="overrides"):
        sweep(mgd.load(XOR, eta=7), {"seed": range(3)}, **options)
    with pytest.raises(RunError, match="a sweep of another netlist"):
        sweep(mgd.load(PARITY), {"seed": range(3)}, **options)
    assert out.read_bytes() == before
    assert sweep(xor, {"seed": range(2)}, **options, overwrite=True).sizes["seed"] == 2
    mgd.train(xor, iterations=2, out=tmp_path / "run.nc", target="numpy", progress=False)
    with pytest.raises(RecordError, match="is no sweep"):
        sweep(xor, {"seed": range(3)}, **options | {"out": tmp_path / "run.nc"})


def test_a_sweep_of_other_samples_is_refused(sweep, tmp_path):
    data, out = tmp_path / "d.csv", tmp_path / "sweep.nc"
    data.write_text("x0,x1,y0\n0,0,0\n0,1,1\n1,0,1\n1,1,0\n")
    options = {"iterations": 5, "out": out, "data": data, "scheduler": "local"}
    first = sweep(mgd.load(XOR), {"seed": range(2)}, **options)
    assert sweep(mgd.load(XOR), {"seed": range(2)}, **options).identical(first)
    data.write_text("x0,x1,y0\n0,0,0\n0,1,1\n1,0,1\n1,1,1\n")
    with pytest.raises(RunError, match="a sweep of other samples, by the same name"):
        sweep(mgd.load(XOR), {"seed": range(2)}, **options)
    with mgd.open_run(out) as found:
        assert found.identical(first)


def test_swept_names_are_no_rows_and_no_variables(sweep, tmp_path):
    """A parameter may be called as if it counted rows; one that is called like a variable is refused before anything runs."""
    netlist = XOR.read_text().replace("eta: 3", "eta: 3\n  n_iteration: 0\n  cost: 0")
    found = sweep(mgd.load(netlist), {"n_iteration": [0.5, 1.5, -1]}, iterations=2, out=tmp_path / "sweep.nc")
    assert mgd.open_run(tmp_path / "sweep.nc").identical(found) and found["n_iteration"].values.tolist() == [
        0.5,
        1.5,
        -1,
    ]
    with pytest.raises(RecordError, match="cost is swept, and a run has a variable cost too"):
        mgd.sweep(mgd.load(netlist), {"cost": [1, 2]}, iterations=2, out=tmp_path / "other.nc", scheduler="nowhere")
    assert not points_of(tmp_path / "other.nc").exists()


def test_an_empty_journal_hides_nothing(xor, sweep, tmp_path):
    out = tmp_path / "run.nc"
    mgd.train(xor, iterations=2, out=out, target="numpy", progress=False)
    points_of(out).touch()
    with pytest.raises(RecordError, match="is no sweep"):
        sweep(xor, {"seed": range(2)}, iterations=2, out=out)


def test_a_grid_has_an_end():
    with pytest.raises(RunError, match="has 100,000,000,000 values; at most 1,000,000"):
        parse(["seed=0..99999999999"])
    with pytest.raises(RunError, match="the grid has 2,000,000 points"):
        as_grid({"seed": range(1000), "eta": range(2000)})


def test_a_sweep_with_another_table_is_refused(sweep, tmp_path):
    netlist, table = tmp_path / "own.yaml", tmp_path / "eta.csv"
    netlist.write_text(XOR.read_text().replace("eta: 3", 'eta: table("eta.csv", 1)'))
    table.write_text("g (1), eta (1)\n0, 1\n2, 3\n")
    options = {"iterations": 5, "out": tmp_path / "sweep.nc"}
    first = sweep(mgd.load(netlist), {"seed": range(2)}, **options)
    assert sweep(mgd.load(netlist), {"seed": range(2)}, **options).identical(first)
    table.write_text("g (1), eta (1)\n0, 2\n2, 3\n")
    with pytest.raises(RunError, match="a sweep of other tables, by the same names"):
        sweep(mgd.load(netlist), {"seed": range(2)}, **options)


def test_what_a_kill_cut_off_is_computed_again(xor, sweep, tmp_path):
    """A kill of the process that sweeps leaves the journal alone, perhaps with half a record."""
    out = tmp_path / "sweep.nc"
    grid = {"data": ["xor", "moons.csv"], "seed": range(2)}
    sweep(xor, grid, iterations=10, out=out)
    points = points_of(out)
    records, end = journal.whole(points)
    assert len(records) == 3 and end == points.stat().st_size
    content = points.read_bytes()
    points.write_bytes(content[:-5])
    out.unlink()
    with Journal(points), pytest.raises(RecordError, match="another process"):
        sweep(xor, grid, iterations=10, out=out)
    found = sweep(xor, grid, iterations=10, out=out)
    kept = records[1][1]["wall_seconds"]
    np.testing.assert_array_equal(found["wall_seconds"][0, 0], kept, err_msg="this point was not computed again")
    assert (found["state"].sel(data="xor") == "finished").all()
    assert len(journal.whole(points)[0]) == 3


@contextmanager
def a_process(*arguments):
    """`mgdcircuits sweep` in a process of its own."""
    command = [sys.executable, "-m", "mgdcircuits", "sweep", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, process=None, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def points_done(out: Path) -> int:
    return max(0, len(journal.whole(points_of(out))[0]) - 1) if points_of(out).exists() else 0


LONG = ["--iterations", "300", "--evaluate-every", "150", "--target", "numpy", "--members", "1", "--quiet"]


@pytest.mark.parametrize("where", ["local", "address"])
def test_ctrl_c_keeps_what_is_done_and_stops_the_workers(cluster, tmp_path, where, capfd):
    out = tmp_path / "sweep.nc"
    scheduler = ["--scheduler", cluster.address] if where == "address" else ["--workers", 1]
    arguments = [XOR, "--grid", "seed=0..5", *LONG, "-o", out, *scheduler]
    with a_process(*arguments) as process:
        wait_for(lambda: points_done(out) >= 1, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the workers too
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "of 6 points are kept" in said and "goes on with what is missing" in said and "Traceback" not in said
    stopped = mgd.open_run(out)
    assert stopped.attrs["state"] == "interrupted" and {"finished", "missing"} == set(stopped["state"].values)
    if where == "address":
        with Client(cluster.address, set_as_default=False) as client:
            wait_for(lambda: not any(client.run(lambda dask_worker: dask_worker.state.executing_count).values()))
        return
    status, words, _ = call(capfd, "sweep", *arguments)
    assert status == 0 and words.startswith("xor: 6 of 6 points")
    found = mgd.open_run(out)
    done = stopped["state"].values == "finished"
    np.testing.assert_array_equal(found["wall_seconds"][done], stopped["wall_seconds"][done])


def test_a_worker_that_is_killed_in_the_middle_costs_nothing_but_time(cluster, xor, tmp_path):
    out = tmp_path / "sweep.nc"
    victim = cluster.workers.pop()
    with a_process(XOR, "--grid", "seed=0..5", *LONG, "-o", out, "--scheduler", cluster.address) as process:
        wait_for(lambda: points_done(out) >= 2, process)
        victim.send_signal(signal.SIGKILL)
        words, said = process.communicate(timeout=300)
    assert (process.returncode, words, said) == (0, f"xor: 6 of 6 points; written to {out}\n", "")
    found = mgd.open_run(out)
    assert (found["state"] == "finished").all()
    alone = mgd.train(xor, iterations=300, evaluate_every=150, seed=5, target="numpy", progress=False)
    same(found.sel(seed=5), alone)
    cluster.workers.append(cluster.add_worker())


def test_a_scheduler_that_is_gone_is_said_and_the_points_stay(xor, tmp_path):
    own = Cluster(tmp_path)
    out = tmp_path / "sweep.nc"
    try:
        with a_process(XOR, "--grid", "seed=0..5", *LONG, "-o", out, "--scheduler", own.address) as process:
            wait_for(lambda: points_done(out) >= 1, process)
            own.close()
            _, said = process.communicate(timeout=300)
    finally:
        own.close()
    assert process.returncode == 2, said
    assert said == "the scheduler is gone; the same sweep goes on with what is missing\n"
    assert points_done(out) >= 1 and "missing" in mgd.open_run(out)["state"].values


def test_progress_is_told(cluster, capfd, tmp_path):
    status, _, err = call(
        capfd, "sweep", XOR, "--grid", "seed=0..1", "--iterations", 300, "--members", 1, "--target", "numpy",
        "--scheduler", cluster.address, "-o", tmp_path / "sweep.nc",
    )  # fmt: skip
    lines = err.splitlines()
    assert status == 0 and lines[-1] == "600/600 iterations, 2/2 points"
    assert any(line.split("/")[0] not in ("0", "300", "600") for line in lines), "in the middle of runs, too"


# The dataset


def test_gather_leaves_out_nothing():
    """Runs with other rows, sizes and labels; whole numbers where a value may be missing."""

    def one(rows, units, labels):
        return xr.Dataset(
            {
                "v": (("iteration", "unit"), np.arange(len(rows) * units).reshape(len(rows), units)),
                "half": (("iteration",), np.ones(len(rows), np.float32)),
                "word": (("part",), [f"is {label}" for label in labels]),
            },
            {"iteration": rows, "part": labels},
            {"state": "finished"},
        )

    runs = {(0, 0): pack(one([0, 5], 2, ["a", "b"])), (1, 1): pack(one([0, 3, 5], 3, ["b", "c"]))}
    grid = as_grid({"d": [1, 2], "seed": [7, 8]})
    found = gather(grid, runs, {(1, 0): "it broke"})
    assert list(found["iteration"].values) == [0, 3, 5] and list(found["part"].values) == ["a", "b", "c"]
    assert found["half"].dtype == np.float32 and found["v"].dtype == np.float64
    np.testing.assert_array_equal(found["v"].sel(d=1, seed=7), [[0, 1, np.nan], [np.nan] * 3, [2, 3, np.nan]])
    np.testing.assert_array_equal(found["v"].sel(d=2, seed=8), np.arange(9).reshape(3, 3))
    assert list(found["word"].sel(d=2, seed=8).values) == ["", "is b", "is c"]
    assert found["state"].values.tolist() == [["finished", "missing"], ["failed: it broke", "finished"]]
