"""Every experiment's --quick, in a process of its own: what it writes, and that its claim holds at that size."""

from __future__ import annotations

import importlib
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock
from PIL import Image

import mgdcircuits as mgd
from mgdcircuits.checkpoint import read
from mgdcircuits.errors import RunError
from mgdcircuits.progress import Progress

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"


def quick(name: str, out: Path) -> str:
    """Run an experiment; what it printed."""
    command = [sys.executable, str(ROOT / "experiments" / name), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_run_of_a_study_goes_on(tmp_path, monkeypatch):
    """One that was stopped goes on, one that is complete is read, one of another circuit is done anew."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from common import study

    class Stops(Progress):
        def row(self, iteration, values):
            if iteration == 40:
                raise KeyboardInterrupt

    def circuit(eta):
        return mgd.load(ROOT / "netlists" / "xor.yaml", eta=eta)

    def trained(eta, **further):
        options = study.Options("quick", seed=1, workers=1, out=tmp_path, begun=0)
        return study.trained("part", circuit(eta), options, **how, **further)

    how = {"iterations": 60, "evaluate_every": 20, "seed": 1, "target": "numpy"}
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        trained(3, progress=Stops(60, False))
    whole = mgd.train(circuit(3), record=[], progress=False, **how)
    found = trained(3, progress=False)
    assert found.drop_vars("wall_seconds").equals(whole.drop_vars("wall_seconds"))
    assert trained(3).identical(found)
    assert not trained(2, progress=False)["cost_test"].equals(found["cost_test"])


def test_gradient_convergence(tmp_path):
    printed = quick("gradient_convergence.py", tmp_path)
    found = xr.open_dataset(tmp_path / "gradient_convergence_quick.nc")
    ratio = (found["k_eff"] / found["predicted_k_eff"]).mean("seed")
    assert abs(float(ratio.sel(case="weight d=1")) - 1) < 0.08  # 4 seeds of 400 iterations: 3 % of chance
    predicted = found["predicted_k_eff"].dropna("seed")
    assert predicted.sizes["seed"] == 2  # positions that share a kernel are nodes each
    assert (predicted.sel(case="node d=1") > predicted.sel(case="weight d=1")).all()
    law = 1 / (1 + found["predicted_k_eff"] / found["iteration"]) ** 0.5
    last = (found["cosine"] - law.rename(seed="member").drop_vars("member", errors="ignore")).isel(row=-1)
    assert abs(float(last.sel(case="weight d=1").mean())) < 0.03
    assert "weight d=1" in printed and "inside" in printed
    assert (tmp_path / "gradient_convergence_quick.png").stat().st_size > 50_000


def test_imperfections(tmp_path):
    """At its smallest severity each imperfection is harmless, at its largest it breaks training."""
    printed = quick("imperfections.py", tmp_path)
    found = xr.open_dataset(tmp_path / "imperfections_quick.nc")
    perfect, median = float(found["perfect_accuracy"].median()), found["accuracy"].median("seed")
    assert perfect > 0.85 and "perfect devices" in printed
    assert (median.isel(level=0) > perfect - 0.15).all()
    assert (median.isel(level=-1) < perfect - 0.3).all()
    assert float(found["requests_rounded"].sel(imperfection="step").isel(level=-1).mean()) > 0.9
    snr = found["cost_change_snr"].sel(imperfection="cost_noise").mean("seed")
    assert 0.3 < float(snr[0]) < 3 and float(snr[-1]) < 0.01
    assert (tmp_path / "imperfections_quick.png").stat().st_size > 20_000
    assert not list(tmp_path.glob("*.part.nc*"))


def test_write_cycles(tmp_path):
    """At a fixed learning rate updates fall about as the root of tau_theta, and every device is written at every update."""
    printed = quick("write_cycles.py", tmp_path)
    found = xr.open_dataset(tmp_path / "write_cycles_quick.nc")
    updates = found["updates"].sel(eta=0.3, goal=0.8, method="nearest").max("seed")
    slope = np.polyfit(np.log(updates["tau_theta"]), np.log(updates), 1)[0]
    assert -0.7 < slope < -0.3 and "updates at fixed eta: exponent" in printed
    assert (found["writes_mean"] == found["writes_max"]).all()
    assert (tmp_path / "write_cycles_quick.png").stat().st_size > 20_000
    assert not list(tmp_path.glob("*.part.nc*"))


def test_write_cycles_cnn(tmp_path):
    """At a tenfold tau_theta updates fall and iterations rise; twice the learning rate is faster."""
    printed = quick("write_cycles_cnn.py", tmp_path)
    found = xr.open_dataset(tmp_path / "write_cycles_cnn_quick.nc").sel(d=1, seed=1, goal=0.4)
    faster, one = found.sel(eta=0.4), found["iterations"].sel(tau_theta=1)
    assert (faster["updates"].diff("tau_theta") < 0).all() and (faster["iterations"].diff("tau_theta") > 0).all()
    assert (faster["iterations"] % faster["tau_theta"] == 0).all() and "eta 0.4: " in printed
    assert np.isfinite(one).all() and (one.diff("eta") < 0).all()
    assert (tmp_path / "write_cycles_cnn_quick.png").stat().st_size > 20_000
    assert not list(tmp_path.glob("*.parts"))


def test_write_histograms(tmp_path):
    """Requests below half a pulse write nothing; longer windows make larger requests, and devices that differ."""
    printed = quick("write_histograms.py", tmp_path)
    found = xr.open_dataset(tmp_path / "write_histograms_quick.nc")
    long, one = found.sel(tau_theta=100), found["pulses"].sel(tau_theta=1)
    assert (one.sel(rounding="nearest") == 0).all() and (one.sel(rounding="random") > 0).all()
    assert (found["accuracy"].sel(tau_theta=1) < 0.6).all() and (long["accuracy"] >= 0.8).all()
    assert (long["pulses"].max("device") > 1.5 * long["pulses"].mean("device")).all()
    assert "never written" in printed
    assert (tmp_path / "write_histograms_quick.png").stat().st_size > 20_000


def test_optimizers(tmp_path):
    """At a small learning rate momentum is several times as fast as vanilla updates; between the best ones little is left."""
    printed = quick("optimizers.py", tmp_path)
    found = xr.open_dataset(tmp_path / "optimizers_quick.nc").isel(problem=0)
    updates = found["updates"].median("seed")
    vanilla, momentum = float(updates.sel(optimizer="vanilla")), float(updates.sel(optimizer="momentum"))
    assert float(found["updates_slow"].median("seed")) / momentum > 3
    assert 0.4 < vanilla / momentum < 2.5 and "over tuned vanilla" in printed
    fewest = found["updates_tuning"].mean("tuning_seed").argmin("trial")
    assert (found["rate"] == found["rate_tried"].isel(trial=fewest)).all()
    assert (tmp_path / "optimizers_quick.png").stat().st_size > 20_000


def test_time_constants(tmp_path):
    """A sample or a perturbation may be held, not both; a window of B samples is as good as a batch of B."""
    printed = quick("time_constants.py", tmp_path)
    found = xr.open_dataset(tmp_path / "time_constants_quick.nc")
    one = found["accuracy_test"].mean("seed").sel(plane="letters: tau_p, tau_x")
    held_alone = [float(one.sel(row=16, column=1)), float(one.sel(row=1, column=16))]
    assert min(held_alone) > 0.35 and float(one.sel(row=16, column=16)) < min(held_alone) - 0.05
    equal = found["equal_cost"].sel(compared="letters")
    cost = equal.mean("equal_seed")
    assert abs(float(cost.sel(b=8, how="window") / cost.sel(b=8, how="batch")) - 1) < 0.1
    same = equal.sel(b=1)
    assert (same.sel(how="window") == same.sel(how="batch")).all() and "letters, window" in printed
    assert (tmp_path / "time_constants_quick.png").stat().st_size > 20_000


def test_perturbation_codes(tmp_path):
    """Orthogonal codes know the gradient after a cycle; the error of a finite amplitude and of noise is the predicted one."""
    printed = quick("perturbation_codes.py", tmp_path)
    found = xr.open_dataset(tmp_path / "perturbation_codes_quick.nc")
    for code in ("sequential", "walsh", "walsh alternating", "sinusoid"):
        one = found.sel(circuit="letters", code=code)
        assert float(abs(one["cosine"] - one["predicted_cosine"]).max()) < 1e-3
        assert (one["cosine"].where(one["n"] == one["cycle"], drop=True) > 0.9999).all()
    for code in ("bernoulli", "sparse bernoulli", "gaussian"):
        one = found.sel(circuit="letters", code=code).isel(row=slice(-5, None))
        assert abs(float((one["cosine"] - one["predicted_cosine"]).mean())) < 0.1
        assert float(one["cosine"].max()) < 0.95
    ratio = (found["error"].mean("member") / found["predicted_error"]).isel(trained=0).sel(norm=[0.02, 0.2])
    exact = ratio.sel(code=["walsh", "walsh alternating"], sigma=0)
    assert abs(exact - 1).max() < 0.02  # no chance in it
    error = found["error"].mean("member").isel(trained=0).sel(scheme="one-sided", sigma=0, norm=0.2)
    assert float(error.sel(code="walsh alternating")) < 0.1 * float(error.sel(code="walsh"))  # no curvature is left
    assert abs(ratio.sel(code="bernoulli", scheme=["one-sided", "antithetic"]) - 1).max() < 0.4
    assert "best norm" in printed and (tmp_path / "perturbation_codes_quick.png").stat().st_size > 20_000


def test_architectures(tmp_path):
    """Noise of both rules as predicted, on a dense, a sparse and a recurrent circuit; nodes train the dense one sooner."""
    printed = quick("architectures.py", tmp_path)
    found = xr.open_dataset(tmp_path / "architectures_quick.nc")
    ratio = (found["k_eff"] / found["predicted_k_eff"]).mean("seed")
    assert abs(ratio.sel(rule="weight") - 1).max() < 0.12 and abs(ratio.sel(rule="node") - 1).max() < 0.3
    dense = found["iterations"].isel(case=0).median("seed").min("point")
    assert float(dense.sel(rule="weight") / dense.sel(rule="node")) > 1.5 and "fan-in 2" in printed
    assert (tmp_path / "architectures_quick.png").stat().st_size > 20_000


@pytest.mark.parametrize("name, said", [("training_time", "ours/published"), ("training_time_tuned", "times backprop")])
def test_training_time(name, said, tmp_path):
    """Perturbation takes several times as many iterations as backpropagation, at a common learning rate and at tuned ones.

    Two processes are given the command, and share the runs.
    """
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--quick", "--out", str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [(*process.communicate(timeout=900), process.returncode) for process in both]
    assert [code for *_, code in told] == [0, 0], told
    assert any(said in printed for printed, *_ in told) and not any("Traceback" in errors for _, errors, _ in told)
    found = xr.open_dataset(tmp_path / f"{name}_quick.nc")
    assert found.attrs["state"] == "finished"
    reported = found.sel(tuning=False).max("eta").sel(seed=[1, 2]) if "tuning" in found.dims else found
    slowest = reported["iterations"].sel(goal=0.2).max("seed").squeeze("d")
    assert np.isfinite(slowest).all()
    assert float(slowest.sel(rule=["node", "weight"]).min() / slowest.sel(rule="backprop")) > 2
    assert (reported["iterations"].sel(goal=0.2) <= reported["done"]).all()
    if "tuning" in found.dims:
        assert (found["done"].sel(tuning=True, seed=1001) > 0).all()  # all rates were tried
    assert (tmp_path / f"{name}_quick.png").stat().st_size > 20_000
    assert not (tmp_path / f"{name}_quick.parts").exists()


def test_training_oracle(tmp_path):
    """The independent program learns."""
    printed = quick("training_oracle.py", tmp_path)
    found = xr.open_dataset(tmp_path / "training_oracle_quick.nc")
    assert (found["iterations"] <= found["done"]).all() and found["iterations"].max() < 200
    assert "median of 3 seeds" in printed and (tmp_path / "training_oracle_quick.png").stat().st_size > 5_000


def test_training_drift(tmp_path, monkeypatch):
    """The step of a layer is divided by the root of what is perturbed in it, and so weights take longer than nodes."""
    printed = quick("training_drift.py", tmp_path)
    found = xr.open_dataset(tmp_path / "training_drift_quick.nc").squeeze()
    assert (
        float(found["iterations"].sel(rule="weight", goal=0.4) / found["iterations"].sel(rule="node", goal=0.4)) > 1.3
    )
    assert "by the drift" in printed and (tmp_path / "training_drift_quick.png").stat().st_size > 10_000
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from common.training_time_run import Place, Point
    from training_drift import Run

    for rule, first, whole in (("node", 784, 2_762), ("weight", 10, 520), ("node_or_weight", 10, 320)):
        run = Run(Point(rule, 1, 0.5, 1), Place(tmp_path, 1, 1000))
        assert run._eta("conv1.w") == run._eta("conv1.b") == 0.5 / first**0.5
        assert sum(run._elements.values()) == whole  # of nodes and of weights: table 1 of arXiv 2501.15403


def test_training_readings(tmp_path, monkeypatch):
    """Longer steps take less time, counts of nodes are those of the network, and what is wanted is ours into the published."""
    command = [sys.executable, str(ROOT / "experiments" / "training_readings.py"), "--quick", "--out", str(tmp_path)]
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert wrong.returncode == 2 and "run training_drift.py" in wrong.stderr and "Traceback" not in wrong.stderr
    quick("training_drift.py", tmp_path)
    printed = quick("training_readings.py", tmp_path)
    found = xr.open_dataset(tmp_path / "training_readings_quick.nc").squeeze()
    relative = found["relative"].sel(goal=0.4)
    assert relative.sel(reading="as described") == 1
    assert relative.sel(reading="channels") < 0.9 < relative.sel(reading="nodes or parameters") <= 1
    assert "channels: 0." in printed and (tmp_path / "training_readings_quick.png").stat().st_size > 10_000
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from common.training_time_run import Place, Point, Rows
    from training_readings import SIZES, Run, collect, counts, draw, table, wanted
    from training_time import circuit

    network = circuit("node", 2, 1.0)
    plain = [1568, 1568, 784, 784, 392, 392, 8, 8, 10]
    assert sum(plain) == 5_514  # table 1 of arXiv 2501.15403
    assert list(counts("nodes after pooling", network).values()) == [1568, 392, 784, 196, 392, 72, 8, 8, 10]
    assert list(counts("channels", network).values()) == [2, 2, 4, 4, 8, 8, 8, 8, 10]
    assert list(counts("parameters of kernels", network).values()) == [20, 38, 76, 148, 296, 584, 8, 8, 10]
    assert list(counts("conv3 twice as far", network).values()) == [n / 4 if k == 2 else n for k, n in enumerate(plain)]
    scaled = xr.DataArray([[[[66_900.0 * 2]] * 3]], {"rule": ["node"], "d": [2], "seed": [1, 2, 3], "goal": [0.6]})
    drift = scaled.to_dataset(name="scaled").assign(done=scaled.isel(goal=0, drop=True)).assign_attrs(eta=1e-3)
    low, middle, high = wanted(drift, 2, 0.6)
    assert low < middle == 0.5 < high < 0.6 and np.isnan(wanted(drift, 1, 0.6)).all()

    def run(reading, seed, *rows):
        point = Point("node", 1, 0.5, seed, variant=reading)
        return Run(point, Place(tmp_path / "none", 1, known={point: Rows(rows)})), 0.4, 10

    def drifts(*seeds):
        over, none = (
            {"rule": ["node", "node_or_weight"], "d": [1], "seed": [1, 2, 3], "goal": [0.2, 0.4, 0.6, 0.8]},
            [np.nan] * 2,
        )
        iterations = xr.DataArray([[[[5, n, *none] for n in seeds]], [[[5, 5, *none]] * 3]], over)
        return iterations.to_dataset(name="iterations").assign(scaled=500 * iterations, done=iterations.isel(goal=1))

    plan = [run("channels", 1, (5, 0.5)), run("channels", 2, (5, 0.3), (10, 0.3))]
    found = collect(plan, SIZES["quick"], drifts(np.inf, 10, 20).assign_attrs(eta=0.5))
    relative = found["relative"].sel(goal=0.4, d=1)
    assert np.isnan(relative.sel(seed=1)).all()  # there is nothing to compare with
    assert relative.sel(seed=2, reading="channels") == np.inf and np.isnan(relative.sel(seed=3, reading="channels"))
    assert relative.sel(reading="nodes or parameters").values[1:].tolist() == [0.5, 0.25]
    assert "d = 1, to 20%" in next(iter(table(found)))
    draw(found, tmp_path / "some.png")
    nothing = collect(plan, SIZES["quick"], drifts(np.inf, np.inf, np.inf).assign_attrs(eta=0.5)).sel(goal=[0.4])
    assert not list(table(nothing))
    draw(nothing, tmp_path / "none.png")


@pytest.fixture
def runs(monkeypatch):
    """The module of training runs."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from common import training_time_run

    return training_time_run


@pytest.fixture
def plans(monkeypatch):
    """The module of the runs of a study."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from common import training_time_plan

    return training_time_plan


def test_a_training_run_goes_on(tmp_path, runs):
    """One that was kept or stopped by Ctrl-C and taken up again is the run that was not stopped, by either kind of rule."""

    class Stops(runs.Run):
        def _learn(self, iterations):
            super()._learn(min(iterations, 3))
            raise KeyboardInterrupt

    class StopsThen(runs.Run):
        """When the iterations of a row are done, and the accuracy is not measured yet."""

        @contextmanager
        def _timed(self):
            if self._n == 15:
                raise KeyboardInterrupt
            with super()._timed():
                yield

    for rule in ("backprop", "weight"):
        point, pieces = runs.Point(rule, 1, 0.1, 1), runs.Place(tmp_path / "pieces", 1, 1000)
        whole = runs.Run(point, runs.Place(tmp_path / "whole", 1, 1000))
        assert whole.advance(goal=1, limit=20)
        assert not Path(read(whole.path).about["file"]).is_absolute()  # kept ones are in git
        assert runs.Run(point, pieces).advance(goal=1, limit=10)
        for stops, at in ((Stops, 13), (StopsThen, 15)):
            with pytest.raises(KeyboardInterrupt):
                stops(point, pieces).advance(goal=1, limit=20)
            last = runs.Run(point, pieces)
            assert last.found.iteration == 10 and last._n == at
        assert last.advance(goal=1, limit=15) and runs.Run(point, pieces).found.iteration == 15
        assert last.advance(goal=1, limit=20)
        assert last.found.each == whole.found.each and len(last.found.each) == 4
        assert not runs.Run(point, pieces).advance(goal=1, limit=20)


def test_training_runs_are_shared(tmp_path, runs, plans, capsys):
    """A run that another process is at work on is left to it, and the study is not called finished."""
    place = runs.Place(tmp_path / "study.parts", 1, 1000)
    first, second = (runs.Run(runs.Point("weight", 1, 0.1, seed), place) for seed in (1, 2))
    plan = [(first, 1, 5), (second, 1, 5)]
    place.folder.mkdir()
    with FileLock(first.path.with_suffix(".lock")):
        assert plans.work_through(lambda: plan) == "interrupted"
    assert not first.found.each and second.found.iteration == 5
    assert f"another process is at work on {first.point}" in capsys.readouterr().out
    assert plans.work_through(lambda: plan) == "finished" and first.found.iteration == 5
    plans.tidy(place, "finished")
    assert not place.folder.exists()


def test_training_runs_are_recalled(tmp_path, runs, plans, capsys):
    """Rows in the summary of a study need not be done again; what goes further begins anew, and so does an edited study."""
    axes, point, path = {"d": "d", "seed": "seed"}, runs.Point("weight", 1, 0.1, 1), tmp_path / "study.nc"

    def known(digest="of now", seed=1):
        return plans.Summary(path, digest, axes, lambda **values: runs.Point("weight", eta=0.1, **values), seed)

    def write(state):
        summary.assign_attrs(state=state, digest="of now", seed=1).to_netcdf(path)

    early = known()
    assert not early and early.replaceable
    place = runs.Place(tmp_path / "study.parts", 1, 1000)
    run = runs.Run(point, place)
    run.advance(goal=1, limit=10)
    summary = plans.gathered([run, runs.Run(replace(point, seed=2), place)], axes, (0.2,), {})
    for state in ("finished", "interrupted"):
        write(state)
        assert set(early) == set(known()) == {point} and known().replaceable  # another process has written it meanwhile
        assert ("give another --out" in capsys.readouterr().out) == (state == "finished")
    with pytest.raises(RunError, match="holds the runs of --seed 1"):
        known(seed=2)
    edited = known("edited")
    assert not edited and not edited.replaceable and "other netlists" in capsys.readouterr().out
    assert known()[point].each == [(n, round(accuracy, 6)) for n, accuracy in run.found.each]
    plans.tidy(place, "interrupted", [(run, 1, 10)])
    assert not run.path.exists()
    again = runs.Run(point, replace(place, known=known()))
    assert not again.advance(goal=1, limit=10) and not run.path.exists()
    assert again.advance(goal=1, limit=15) and [n for n, _ in again.found.each] == [5, 10, 15]


def test_goals_that_were_not_tried(monkeypatch):
    """A run cut off before a goal is so before the next one, if others tried that; one that stopped at its aim is not."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from common.training_time_run import Place, Point, Rows, Run
    from training_time import aims, collected

    def run(seed, *rows):
        point = Point("weight", 1, 1e-3, seed)
        return Run(point, Place(Path("nowhere"), 1, known={point: Rows(rows)}))

    runs = [run(1, (5, 0.25), (10, 0.65)), run(2, (5, 0.3)), run(3, (5, 0.25), (10, 0.3)), run(4, (5, 0.1))]
    ends = ((0.6, 20), (0.2, 20), (0.6, 10), (0.6, 5), (0.6, 20))  # the last was stopped on its way
    runs.append(run(5, (5, 0.45)))
    meant = aims([(one, *end) for one, end in zip(runs, ends, strict=True)])
    iterations = collected(runs, meant, (0.2, 0.4, 0.6))["iterations"].squeeze()
    assert iterations.sel(seed=1).values.tolist() == [5, 10, 10]
    assert iterations.sel(seed=2).values[0] == 5 and np.isnan(iterations.sel(seed=2).values[1:]).all()
    assert iterations.sel(seed=3).values.tolist() == [5, np.inf, np.inf]
    assert iterations.sel(seed=4).values.tolist() == [np.inf] * 3
    assert iterations.sel(seed=5).values[:2].tolist() == [5, 5] and np.isnan(iterations.sel(seed=5).values[2])


def test_training_hypotheses(tmp_path, runs):
    """The circuit as described learns as in training_time.py, and a run that was cut off is not called known."""
    printed = quick("training_hypotheses.py", tmp_path)
    found = xr.open_dataset(tmp_path / "training_hypotheses_quick.nc")
    assert list(found["hypothesis"].values) == ["as described", "biases up to 0.5"]
    iterations = found["iterations"].sel(goal=0.2, d=1)
    assert np.isfinite(iterations).any("seed").all() and (found["done"] <= 50).all()
    assert np.isnan(found["iterations"].sel(goal=0.4)).all()
    same = runs.Run(runs.Point("backprop", 1, 0.1, 1), runs.Place(tmp_path / "same", 2, 1000))
    same.advance(0.2, 50)
    assert same.found.reached(0.2) == float(iterations.sel(hypothesis="as described", seed=1))
    assert ("> 50" in printed) == bool(np.isinf(iterations).any())
    assert (tmp_path / "training_hypotheses_quick.png").stat().st_size > 10_000
    assert not (tmp_path / "training_hypotheses_quick.parts").exists()


def hypotheses(only: str, *options: str) -> subprocess.CompletedProcess:
    script = str(ROOT / "experiments" / "node_hypotheses.py")
    command = [sys.executable, script, "--d", "1", "--seeds", "2", "--only", only, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_node_hypotheses(tmp_path):
    """Samples of one class agree: with them nodes need several times fewer iterations than with one sample, weights as many."""
    hypotheses("a batch of one s", "--out", str(tmp_path))
    printed = hypotheses("a batch of one", "--out", str(tmp_path)).stdout
    rows = {line.split("│")[1].strip(): line.split("│")[2].split() for line in printed.splitlines() if "│" in line}
    kept = xr.open_dataset(tmp_path / "node_hypotheses.nc")
    assert kept["iterations"].notnull().all() and kept.sizes["hypothesis"] == 2
    assert (tmp_path / "node_hypotheses.png").stat().st_size > 10_000
    nodes, weights = (
        {name: float(words[place].replace(",", "")) for name, words in rows.items() if words and "batch of" in name}
        for place in (0, -1)
    )
    assert set(nodes) == {"a batch of one sample", "a batch of one class"}
    assert 3 * nodes["a batch of one class"] < nodes["a batch of one sample"]
    assert 0.5 < weights["a batch of one class"] / weights["a batch of one sample"] < 2
    wrong = hypotheses("nonsense")
    assert wrong.returncode == 2 and "there are: one code" in wrong.stderr and "Traceback" not in wrong.stderr


def test_nodes_or_weights(monkeypatch):
    """The circuit perturbs what is fewer in each layer, and is predicted as its layers are."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from common import node_or_weight
    from mgdcircuits.analysis.prediction import predict
    from node_hypotheses import Hypothesis, whichever_are_fewer

    d = 2
    circuit = mgd.load(node_or_weight.netlist(d), d=d, target_off=0.01)
    perturbed = [name for block in circuit.spec.learning[0].perturb.blocks for name in block]
    convolutions = [f"conv{k}.theta_{of}" for k in range(1, 6) for of in "wb"]
    assert perturbed == [*convolutions, *(f"{layer}.theta" for layer in ("conv6", "dense1", "dense2", "logits"))]
    numbers = [min(pair) for pair in node_or_weight.counts(d).values()]
    assert numbers == [20, 38, 76, 148, 296, 392, 8, 8, 10]
    one, data = Hypothesis(whichever_are_fewer, batch=5), mgd.datasets.load("fashion_mnist")
    session, chosen = mgd.Session(circuit, batch=5, seed=1, target="numpy"), one.images(1, 5, data)
    session.present(data.x_train[chosen] * np.float32(data.scale), data.y_train[chosen])
    assert predict(session).network.draws(15) == pytest.approx(one.iterations(d, 1)[0], rel=1e-4)


def test_nodes_after_pooling(monkeypatch):
    """They are as many as the pools have units, their estimate has the same mean, and less noise."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from node_hypotheses import Hypothesis, after_pooling, as_described, pooled

    blocks = Hypothesis(batch=5).blocks(2, 1)
    counts = [sum(layer.slopes[0].size for layer in pooled(block)) for block in blocks]
    assert counts == [2 * 784, 2 * 196, 4 * 196, 4 * 49, 8 * 49, 8 * 9, 8, 8, 10]
    for (before,), after in ((block, pooled(block)) for block in blocks):
        together = np.concatenate([layer.gradient() for layer in after])
        np.testing.assert_allclose(together, before.gradient(), rtol=1e-9, atol=1e-15)
    plain, changed = (Hypothesis(rule, batch=5).iterations(2, 1)[0] for rule in (as_described, after_pooling))
    assert changed < plain


KEPT = {
    "architectures": "common.architectures_figure.draw",
    "imperfections": "imperfections.draw",
    "node_hypotheses": "node_hypotheses.draw",
    "optimizers": "optimizers.draw",
    "perturbation_codes": "common.perturbation_codes_figure.draw",
    "time_constants": "time_constants.draw",
    "training_drift": "training_drift.draw",
    "training_hypotheses": "training_hypotheses.draw",
    "training_oracle": "training_oracle.draw",
    "training_readings": "training_readings.draw",
    "training_time": "common.training_time_figure.draw_fixed",
    "training_time_tuned": "common.training_time_figure.draw_tuned",
    "write_cycles": "write_cycles.draw",
    "write_cycles_cnn": "common.write_cycles_cnn_figure.draw",
    "write_histograms": "write_histograms.draw",
    "gradient_convergence": "common.gradient_convergence_figure.draw",
}
"""What draws a dataset of experiments/results."""
BESIDE = {
    "training_drift": lambda: xr.load_dataset(RESULTS / "training_time.nc"),
    "training_oracle": lambda: xr.load_dataset(RESULTS / "training_time.nc"),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept_datasets_are_drawn(name, tmp_path, monkeypatch):
    """What a study draws today still reads the dataset that it left, and the kept figure is that of the kept dataset.

    Means over cells of 20 by 20 pixels are compared, in whole where another version of matplotlib drew the kept figure.
    """
    monkeypatch.syspath_prepend(ROOT / "experiments")
    module, function = KEPT[name].rsplit(".", 1)
    found, beside = xr.load_dataset(RESULTS / f"{name}.nc"), [BESIDE[name]()] if name in BESIDE else []
    getattr(importlib.import_module(module), function)(found, *beside, tmp_path / "new.png")
    (new, by), (kept, once_by) = (
        coarse(folder / file) for folder, file in ((tmp_path, "new.png"), (RESULTS, f"{name}.png"))
    )
    assert new.shape == kept.shape
    difference = np.abs(new - kept)
    assert difference.mean() < 0.005
    assert by != once_by or difference.max() < 0.01


def coarse(path: Path, cell: int = 20) -> tuple[np.ndarray, str]:
    """A figure as means over cells, without colour, and what drew it."""
    with Image.open(path) as image:
        grey, by = np.asarray(image.convert("L")) / 255, image.info["Software"]
    rows, columns = (n // cell for n in grey.shape)
    return grey[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell).mean((1, 3)), by
