"""A run that was stopped goes on, and its dataset is that of a run that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import checkpoint, journal, training
from mgdcircuits.cli import cli, run
from mgdcircuits.codegen.cpp_target import CppTarget
from mgdcircuits.codegen.numpy_target import NumpyTarget
from mgdcircuits.errors import RecordError, RunError

ROOT = Path(__file__).parent.parent
XOR = ROOT / "netlists" / "xor.yaml"
X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([[0], [1], [1], [0]], np.float32)
WALL = ("command", "started")  # attributes that differ between two runs of the same thing
OWN_CLOCK = {"variable": "output.w", "every": "7*iteration"}
EVERY_TRIAL = {"variable": "spikes_lif", "every": "iteration"}
CASES = {
    "plain": ("xor", {"iterations": 60, "evaluate_every": 20}),
    "sampled_costs": ("xor", {"iterations": 300, "evaluate_every": 130, "seed": 4}),
    "members": ("xor", {"iterations": 60, "evaluate_every": 25, "members": 3, "record": ["G", OWN_CLOCK]}),
    "gradient": ("xor", {"iterations": 60, "evaluate_every": 15, "gradient": True, "record": ["hidden_layer.x"]}),
    "until": ("xor", {"iterations": 200, "evaluate_every": 10, "until": "iteration >= 90"}),
    "analog": ("xor_analog", {"iterations": 60, "evaluate_every": 20, "record": [OWN_CLOCK]}),
    "wear": ("crossbar_rram", {"iterations": 60, "evaluate_every": 25, "record": ["hidden.g"], "target": "cpp"}),
    "spikes": ("lif_reward", {"iterations": 9, "evaluate_every": 2}),
    "every_trial": ("lif_reward", {"iterations": 9, "evaluate_every": 4, "record": [EVERY_TRIAL]}),
}


@pytest.fixture(scope="module")
def xor():
    return mgd.load(XOR)


@pytest.fixture
def stop_at(monkeypatch):
    """Ctrl-C while an iteration after the given one is computed."""
    plain = {target: target.run for target in (NumpyTarget, CppTarget)}

    def choose(iteration):
        def stopped(self, phase, count=1):
            found = plain[type(self)](self, phase, 1 if phase == "iteration" else count)
            if phase == "iteration" and self.iteration >= iteration:
                signal.raise_signal(signal.SIGINT)
            return found

        for target, original in plain.items():
            monkeypatch.setattr(target, "run", stopped if iteration is not None else original)

    return choose


def train(circuit, out, **options):
    return mgd.train(circuit, **{"out": out, "target": "numpy", "progress": False, **options})


def stopped(circuit, out, **options):
    with pytest.raises(mgd.Interrupted) as caught:
        train(circuit, out, **options)
    return str(caught.value)


def assert_same(found, expected):
    """Everything but what the clock on the wall says."""
    assert np.all(np.diff(found["wall_seconds"]) > 0)
    assert found.drop_vars("wall_seconds").equals(expected.drop_vars("wall_seconds"))
    assert list(found.variables) == list(expected.variables)
    assert found.attrs.keys() == expected.attrs.keys()
    assert {n: str(v) for n, v in found.attrs.items() if n not in WALL} == {
        n: str(v) for n, v in expected.attrs.items() if n not in WALL
    }


def files(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("case", CASES)
def test_the_dataset_of_a_stopped_run(tmp_path, stop_at, case):
    name, options = CASES[case]
    circuit = mgd.load(ROOT / "netlists" / f"{name}.yaml")
    whole = train(circuit, tmp_path / "whole.nc", **options)
    out = tmp_path / "run.nc"
    end = int(whole["iteration"][-1])
    for place in (1, end // 3, end // 3 + 2, end - 1):
        stop_at(place)
        text = stopped(circuit, out, **options, resume=out.exists())
        assert f"stopped at iteration {place}; the " in text
        assert f"--resume goes on from iteration {place}" in text
        partial = mgd.open_run(out)
        assert partial.attrs["state"] == "interrupted" and partial.sizes["iteration"] >= 1
        assert files(tmp_path) == ["run.nc", "run.nc.rows", "run.nc.state", "whole.nc"]
    stop_at(None)
    assert_same(train(circuit, out, **options, resume=True), whole)
    assert_same(mgd.open_run(out), whole)
    assert files(tmp_path) == ["run.nc", "whole.nc"]


def test_the_dataset_of_a_stopped_run_in_cpp(tmp_path, xor):
    """A checkpoint every few slices, other threads, and no stop in good order: the files as they were at some moment."""
    options = {"iterations": 300_000, "evaluate_every": 30_000, "target": "cpp", "seed": 2}
    whole = train(xor, tmp_path / "whole.nc", **options)
    out, kept = tmp_path / "run.nc", tmp_path / "kept"
    kept.mkdir()
    save = training.ResumableWriter.save

    def copying(self, session, *rest):
        save(self, session, *rest)
        if session.iteration > 100_000 and not files(kept):
            for path in (self.path, self.path.with_name("run.nc.state"), self.path.with_name("run.nc.rows")):
                shutil.copy(path, kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.ResumableWriter, "save", copying)
        train(xor, out, **options, checkpoint_every=0.01, threads=1)
    assert files(kept) == ["run.nc", "run.nc.rows", "run.nc.state"]
    assert_same(train(xor, kept / "run.nc", **options, resume=True, threads=2), whole)


def test_ctrl_c_while_a_row_is_evaluated(tmp_path, xor, monkeypatch):
    """What was read of the session for the row waits in the checkpoint."""
    whole = train(xor, tmp_path / "whole.nc", iterations=40, evaluate_every=10)
    plain, out = mgd.Session.evaluate, tmp_path / "run.nc"

    def evaluate(self, *arguments):
        if self.iteration == 30:
            signal.raise_signal(signal.SIGINT)
        return plain(self, *arguments)

    monkeypatch.setattr(mgd.Session, "evaluate", evaluate)
    text = stopped(xor, out, iterations=40, evaluate_every=10)
    assert "stopped at iteration 30; the 3 rows up to iteration 20 are kept" in text
    assert "--resume goes on from iteration 30" in text
    monkeypatch.undo()
    assert_same(train(xor, out, iterations=40, evaluate_every=10, resume=True), whole)


@pytest.fixture
def begun(tmp_path, xor, stop_at):
    """A run that was stopped at iteration 25 of 60."""
    stop_at(25)
    stopped(xor, tmp_path / "run.nc", iterations=60, evaluate_every=10)
    stop_at(None)
    return tmp_path / "run.nc"


def test_rows_after_the_checkpoint_are_dropped(tmp_path, xor, begun, stop_at):
    """Killed after more rows had been written than the checkpoint knows of."""
    whole = train(xor, tmp_path / "whole.nc", iterations=60, evaluate_every=10)
    state = begun.with_name("run.nc.state")
    before = state.read_bytes()
    stop_at(55)
    stopped(xor, begun, iterations=60, evaluate_every=10, resume=True)
    assert mgd.open_run(begun).sizes["iteration"] == 6
    state.write_bytes(before)
    with begun.with_name("run.nc.rows").open("ab") as file:
        file.write(b"half a row")
    stop_at(27)
    assert "3 rows up to iteration 20" in stopped(xor, begun, iterations=60, evaluate_every=10, resume=True)
    stop_at(None)
    assert_same(train(xor, begun, iterations=60, evaluate_every=10, resume=True), whole)


@pytest.mark.parametrize("harm", ["removed", "cut", "garbage"])
def test_a_dataset_that_a_kill_destroyed_is_put_together_again(tmp_path, xor, begun, harm):
    whole = train(xor, tmp_path / "whole.nc", iterations=60, evaluate_every=10)
    content = {"cut": begun.read_bytes()[:3000], "garbage": b"nothing"}.get(harm)
    begun.unlink() if content is None else begun.write_bytes(content)
    if content is not None:
        with pytest.raises(RecordError, match="damaged.*; --resume goes on with the run and puts it together again"):
            mgd.open_run(begun)
    assert_same(train(xor, begun, iterations=60, evaluate_every=10, resume=True), whole)


def test_resume_begins_a_run_that_has_not_begun(tmp_path, xor):
    whole = train(xor, tmp_path / "whole.nc", iterations=20, evaluate_every=10)
    assert_same(train(xor, tmp_path / "run.nc", iterations=20, evaluate_every=10, resume=True), whole)


def test_without_checkpoints(tmp_path, xor, stop_at):
    stop_at(5)
    assert "--resume" not in stopped(xor, tmp_path / "run.nc", iterations=20, evaluate_every=4, checkpoint_every=0)
    assert files(tmp_path) == ["run.nc"]


def test_without_checkpoints_nothing_of_an_older_run_is_left(xor, begun):
    train(xor, begun, iterations=5, overwrite=True, checkpoint_every=0)
    assert files(begun.parent) == ["run.nc"]


def test_force_begins_anew(tmp_path, xor, begun):
    other = train(xor, tmp_path / "other.nc", iterations=30, evaluate_every=10, seed=7)
    assert_same(train(xor, begun, iterations=30, evaluate_every=10, seed=7, overwrite=True), other)
    assert files(tmp_path) == ["other.nc", "run.nc"]


# Refusals


def refused(message, circuit, out, error=RunError, **options):
    before = {p: p.read_bytes() for p in out.parent.iterdir()}
    with pytest.raises(error, match=message) as caught:
        train(circuit, out, **{"iterations": 60, "evaluate_every": 10, "resume": True, **options})
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in out.parent.iterdir()} == before, "nothing is touched"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 3}, "begun with seed = 0, here it is 3"),
        ({"iterations": 80}, "begun with iterations = 60, here it is 80"),
        ({"evaluate_every": 5}, "begun with evaluate_every = 10, here it is 5"),
        ({"batch": 2}, "begun with batch = 1, here it is 2"),
        ({"members": 2}, r"begun with seed = 0, here it is \[0, 1\]"),
        ({"dtype": "float64"}, "begun with dtype = float32, here it is float64"),
        ({"target": "cpp"}, "begun with target = numpy, here it is cpp"),
        ({"until": "accuracy > .9"}, "begun with until = , here it is accuracy > .9"),
        ({"record": ["G"]}, "begun with record = "),
        ({"gradient": True}, "begun with gradient = False, here it is True"),
        ({"data": (X[:3], Y[:3])}, "begun with other data"),
    ],
)
def test_other_options_are_refused(xor, begun, options, message):
    refused(message, xor, begun, **options)


def test_another_circuit_is_refused(begun):
    refused("another netlist", mgd.load(ROOT / "netlists" / "xor_analog.yaml"), begun)
    refused("with eta = 3.0, here it is 0.5", mgd.load(XOR, eta=0.5), begun)


def test_damaged_files_are_refused(xor, begun):
    state, rows = begun.with_name("run.nc.state"), begun.with_name("run.nc.rows")
    good = state.read_bytes(), rows.read_bytes()
    state.write_bytes(good[0][:-1])
    refused("damaged or cut off", xor, begun)
    state.write_bytes(good[0])
    for content in (
        b"",
        good[1][: len(good[1]) // 2],
        good[1][:-1],
        b"\0" + good[1][1:],
        good[1][:400] + b"x" + good[1][401:],
    ):
        rows.write_bytes(content)
        refused("does not hold the rows of .*run.nc.state: ", xor, begun, RecordError)
    rows.write_bytes(good[1])
    assert train(xor, begun, iterations=60, evaluate_every=10, resume=True).sizes["iteration"] == 7


def test_the_checkpoint_of_a_session_is_no_run(tmp_path, xor):
    session = mgd.Session(xor, target="numpy", data="xor")
    session.save(tmp_path / "run.nc.state")
    refused("of a session, not of a run", xor, tmp_path / "run.nc")


def test_a_complete_run_does_not_go_on(tmp_path, xor):
    train(xor, tmp_path / "run.nc", iterations=60, evaluate_every=10)
    refused("has no checkpoint run.nc.state beside it", xor, tmp_path / "run.nc")


def test_a_stopped_run_is_not_overwritten(xor, begun):
    refused("go on with --resume .*, or say --force", xor, begun, RecordError, resume=False)
    begun.unlink()
    refused("go on with --resume .*, or say --force", xor, begun, RecordError, resume=False)


def test_a_run_that_another_process_has_finished_meanwhile_stays(tmp_path, xor, monkeypatch):
    """Both found nothing there when they began, and compiled."""
    out, other = tmp_path / "run.nc", tmp_path / "other.nc"
    mgd.train(xor, iterations=5, out=other, target="numpy", progress=False)
    plain = training.Recorder

    def slow(*arguments):
        shutil.copy(other, out)
        return plain(*arguments)

    monkeypatch.setattr(training, "Recorder", slow)
    with pytest.raises(RecordError, match="exists; expected a new file"):
        mgd.train(xor, iterations=7, out=out, target="numpy", progress=False)
    assert out.read_bytes() == other.read_bytes()


def test_resume_needs_a_file(xor):
    with pytest.raises(RunError, match="needs the file"):
        mgd.train(xor, iterations=5, resume=True, progress=False)


def test_one_process_at_a_time(xor, begun):
    code = (
        "import sys, time; from mgdcircuits.journal import Journal; from pathlib import Path; "
        "held = Journal(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, f"{begun}.rows"], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert holder.stdout.readline() == b"held\n"
        refused("written by another process", xor, begun, RecordError)
    finally:
        holder.kill()
        holder.wait()
    train(xor, begun, iterations=60, evaluate_every=10, resume=True)


# Command line


def test_resume_on_the_command_line(tmp_path, capfd, monkeypatch, stop_at):
    monkeypatch.chdir(tmp_path)
    call = ["train", str(XOR), "--iterations", "60", "--evaluate-every", "10", "--target", "numpy", "--seed", "2"]
    assert run(cli, [*call, "-o", "whole.nc"]) == 0
    stop_at(25)
    assert run(cli, [*call, "-o", "run.nc"]) == 130
    assert "3 rows up to iteration 20 are kept in run.nc; --resume goes on from iteration 25" in capfd.readouterr().err
    stop_at(None)
    assert run(cli, [*call, "-o", "run.nc", "--resume", "--seed", "3"]) == 2
    assert "run.nc.state: the run was begun with seed = 2, here it is 3" in capfd.readouterr().err
    assert run(cli, [*call, "-o", "run.nc", "--resume"]) == 0
    said = capfd.readouterr()
    assert "goes on from iteration 25" in said.err and said.out.startswith("xor: 60 iterations")
    assert_same(mgd.open_run("run.nc"), mgd.open_run("whole.nc"))
    assert files(tmp_path) == ["run.nc", "whole.nc"]


# No room


@pytest.mark.parametrize("what", ["rows", "state"])
def test_no_room_for_a_row_or_a_checkpoint(tmp_path, xor, monkeypatch, what):
    whole = train(xor, tmp_path / "whole.nc", iterations=60, evaluate_every=10)
    out, append, write = tmp_path / "run.nc", journal.Journal.append, checkpoint.write_whole
    full = OSError(28, "No space left on device")

    def no_row(self, about, arrays):
        if arrays.get("iteration", [0])[0] == 40:
            raise full
        append(self, about, arrays)

    def no_checkpoint(path, chunks):
        if mgd.open_run(out).sizes["iteration"] == 4 if out.exists() else False:
            raise full
        write(path, chunks)

    if what == "rows":
        monkeypatch.setattr(journal.Journal, "append", no_row)
        message = "run.nc cannot be written any further: No space left on device; the 4 rows .* with --resume"
    else:
        monkeypatch.setattr(checkpoint, "write_whole", no_checkpoint)
        message = "run.nc.state: the checkpoint was not written: No space left .* before it is kept; make room"
    with pytest.raises(RecordError, match=message):
        train(xor, out, iterations=60, evaluate_every=10, checkpoint_every=1e-9)
    monkeypatch.undo()
    assert list(mgd.open_run(out)["iteration"]) == [0, 10, 20, 30]
    assert 29 <= checkpoint.read(out.with_name("run.nc.state")).about["iteration"] <= 40
    assert_same(train(xor, out, iterations=60, evaluate_every=10, resume=True), whole)


OWN_DISK = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" "$3" "$1" "$4" 4'


def test_a_disk_that_fills_up(tmp_path):
    """A real one, of a megabyte, in a name space of its own."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no file system of one's own without privileges here")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = str(Path(__file__).parent / "full_disk.py")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", OWN_DISK, "sh", str(disk), sys.executable, script, str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["dataset"] >= 2 and found["with rows"] >= 1, found


# Killed


def test_runs_that_are_killed_at_random_moments(tmp_path):
    """Six kills; as many as the environment variable MGDCIRCUITS_KILLS says for a long test."""
    kills = os.environ.get("MGDCIRCUITS_KILLS", "6")
    script = Path(__file__).parent / "kill_and_resume.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "--kills", kills],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == 0 and found["kills"] >= int(kills)
