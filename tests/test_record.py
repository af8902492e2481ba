"""The dataset: schema, writer, reading back, and what a full disk or a damaged file leads to."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import mgdcircuits as mgd
from mgdcircuits import record
from mgdcircuits.errors import RecordError
from mgdcircuits.netlist.spec import RecordSpec
from mgdcircuits.record import DECLARED, RunWriter, open_run, run_attributes, write_dataset
from mgdcircuits.recording import Recorder, as_specs

ROOT = Path(__file__).parent.parent
XOR = ROOT / "netlists" / "xor.yaml"
LIF = ROOT / "netlists" / "lif_reward.yaml"
NAMES = ("iteration", "evaluations", "hardware_seconds", "parameter", "parameter_size", "cost", "writes_mean")


def attributes(**further):
    spec = SimpleNamespace(
        name="toy", file="/somewhere/toy.yaml", text="circuit: toy\n" * 5200,
        parameters={"eta": 0.1}, overrides={"d": 4}, clocks={}, tables={},
    )  # fmt: skip
    return run_attributes(spec, **further)


def writer(path, overwrite=False, members=1):
    declared = [DECLARED[n].with_members(members) for n in NAMES]
    sizes = {"parameter": 2, "member": members}
    constants = {"parameter": ["a.w", "a.b"], "parameter_size": [4, 2]}
    return RunWriter(path, declared, sizes, constants, attributes(seed=[3]), overwrite)


def row(k, members=1):
    many = (members,) if members > 1 else ()
    return {
        "iteration": 10 * k,
        "evaluations": 20 * k,
        "hardware_seconds": 1e-6 * k,
        "cost": np.full(many, 1.0 / (k + 1)),
        "writes_mean": np.full((*many, 2), k),
    }


def test_what_is_written_is_read_back(tmp_path):
    run = writer(tmp_path / "run.nc", members=3)
    for k in range(5):
        run.row(row(k, members=3))
    run.close("finished")
    found = open_run(tmp_path / "run.nc")
    assert found.sizes == {"iteration": 5, "member": 3, "parameter": 2}
    assert list(found["iteration"].values) == [0, 10, 20, 30, 40]
    assert found["cost"].dims == ("iteration", "member")
    assert np.allclose(found["cost"][:, 1], 1 / np.arange(1, 6))
    assert list(found["parameter"].values) == ["a.w", "a.b"]
    assert {"evaluations", "hardware_seconds", "parameter_size"} <= set(found.coords)
    assert found["hardware_seconds"].attrs["units"] == "s"
    assert found["cost"].attrs["long_name"]
    assert found.attrs["state"] == "finished"
    assert found.attrs["netlist"] == "circuit: toy\n" * 5200, "text longer than 64 KiB"
    assert json.loads(found.attrs["parameters"]) == {"eta": 0.1}
    assert json.loads(found.attrs["machine"])["cores"] >= 1
    assert found.attrs["seed"] == 3


def test_attributes_name_no_host():
    import platform

    text = json.dumps({k: str(v) for k, v in attributes(seed=[1]).items() if k != "command"})
    host = platform.node()
    assert len(host) < 4 or host not in text


def test_rows_are_on_disk_while_the_file_is_open(tmp_path):
    run = writer(tmp_path / "run.nc")
    for k in range(3):
        run.row(row(k))
        code = f"from mgdcircuits import open_run; print(open_run({str(tmp_path / 'run.nc')!r}).sizes['iteration'])"
        if k == 2:
            out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
            assert out.stdout.strip() == "3"
    run.close("finished")


def test_a_row_cut_off_by_a_kill_is_left_out(tmp_path):
    run = writer(tmp_path / "run.nc")
    run.row(row(0))
    run._file.variables["cost"][1] = 7.0
    run._file.close()
    assert open_run(tmp_path / "run.nc").sizes["iteration"] == 1


def test_an_existing_file_is_kept_unless_told(tmp_path):
    path = tmp_path / "run.nc"
    writer(path).close("finished")
    with pytest.raises(RecordError, match="exists.*--force"):
        writer(path)
    writer(path, overwrite=True).close("finished")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RecordError, match="the folder .*nowhere does not exist"):
        writer(tmp_path / "nowhere" / "run.nc")


DISK_FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
from test_record import writer, row
from mgdcircuits.errors import RecordError
run = writer({path!r})
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
try:
    for k in range(100000):
        run.row(row(k))
except RecordError as error:
    print(k, error)
"""


def test_a_full_disk_keeps_every_row_written_before(tmp_path):
    path = tmp_path / "run.nc"
    code = DISK_FULL.format(tests=str(Path(__file__).parent), path=str(path), size=300_000)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    count = int(done.stdout.split()[0])
    assert count > 100
    assert f"the {count} rows written before are kept" in done.stdout
    found = open_run(path)
    assert found.sizes["iteration"] == count
    assert np.array_equal(found["iteration"], 10 * np.arange(count))


def test_space_is_asked_of_the_system_too(tmp_path, monkeypatch):
    run = writer(tmp_path / "run.nc")
    run.row(row(0))
    monkeypatch.setattr(record, "_fallocate", lambda *_: record.errno.ENOSPC)
    with pytest.raises(RecordError, match="No space left.*1 rows"):
        run.row(row(1))
    assert open_run(tmp_path / "run.nc").sizes["iteration"] == 1


def test_files_that_are_no_runs(tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        open_run(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(RecordError, match="no run of mgdcircuits"):
        open_run(tmp_path / "text.nc")
    import xarray as xr

    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(RecordError, match="was not written by mgdcircuits"):
        open_run(tmp_path / "other.nc")


def test_a_truncated_file_is_called_damaged(tmp_path):
    path = tmp_path / "run.nc"
    run = writer(path)
    for k in range(50):
        run.row(row(k))
    run.close("finished")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RecordError, match="damaged"):
        open_run(path)


def test_every_declared_variable_is_documented():
    text = (ROOT / "docs" / "dataset.md").read_text()
    for declared in DECLARED.values():
        lines = [k for k in text.splitlines() if k.startswith(f"| `{declared.name}` | {', '.join(declared.dims)} |")]
        assert any(declared.long_name in line for line in lines), f"docs/dataset.md does not describe {declared.name}"


# record:


@pytest.fixture(scope="module")
def session():
    made = mgd.Session(mgd.load(XOR), batch=2, members=2, target="numpy", seed=4)
    made.set_data("xor")
    made.step(3)
    return made


def reading(session, *entries):
    recorder = Recorder(session, as_specs(entries))
    return recorder, recorder.read_row()


def test_what_every_run_has_needs_no_variable(session):
    recorder, values = reading(session, "C", "accuracy", "reward", "writes")
    assert recorder.declarations == [] and values == {}


def test_gradient_words_ask_for_the_gradient(session):
    assert reading(session, "cosine")[0].wants_gradient


def test_variables_of_members_samples_and_units(session):
    recorder, values = reading(session, "hidden_layer.x", {"variable": "hidden_layer.w", "units": "1:3"})
    dims = {d.name: d.dims for d in recorder.declarations}
    assert dims["x_hidden_layer"] == ("iteration", "member", "x_hidden_layer_sample", "x_hidden_layer_unit")
    assert np.array_equal(values["x_hidden_layer"], session.view("hidden_layer.x"))
    assert np.array_equal(values["w_hidden_layer"], session.view("hidden_layer.w").reshape(2, -1)[:, 1:3])
    assert list(recorder.constants["w_hidden_layer_unit"]) == [1, 2]


def test_passes_of_the_cost():
    entry = {"variable": "C", "passes": ["clean", "plus"]}
    circuit = mgd.load(XOR).recording(as_specs([entry]))
    session = mgd.Session(circuit, batch=2, members=2, target="numpy", seed=4, data="xor")
    session.step(3)
    _, values = reading(session, entry)
    assert values["C_plus"].shape == (2, 2)
    assert np.array_equal(values["C_plus"], session.view("mgd.C.plus").reshape(2, 2))
    assert not np.array_equal(values["C_plus"], values["C_clean"])


def test_a_clock_of_its_own(session):
    recorder, values = reading(session, {"variable": "output.b", "every": "3*iteration"})
    assert values == {}
    assert list(recorder.due()) == ["b_output_iteration"]  # iteration 3
    assert recorder.next_due(3) == 6


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("hidden_layer.q", "keeps no values of hidden_layer.q"),
        ({"variable": "hidden_layer.x", "passes": "minus"}, "in the pass minus"),
        ({"variable": "output.b", "every": "0.3*iteration"}, "between iterations only"),
        ({"variable": "output.b", "units": "7:9"}, "choose none of its 1"),
        ({"variable": "output.b", "units": "a"}, "choose none"),
        ("spikes_output", "no population output gives spikes"),
        ("energy", "says no energy"),
        ({"wariable": "C"}, "expected a name"),
    ],
)
def test_entries_that_cannot_be_recorded_are_refused(entry, message, session):
    with pytest.raises(RecordError, match=message):
        reading(session, entry)


def test_a_refusal_names_the_line(session):
    from mgdcircuits.netlist.spec import Position

    with pytest.raises(RecordError, match=r"^xor.yaml:65: record: .*--record none"):
        Recorder(session, [RecordSpec("energy", at=Position("xor.yaml", 65))])


def test_spikes_are_ragged_and_rewards_recorded():
    run = mgd.train(mgd.load(LIF), iterations=3, evaluate_every=1, target="numpy", seed=2, progress=False)
    counts = run["spike_count_lif"].values
    assert counts[0] == 0 and counts[1:].min() > 0 and counts.sum() == run.sizes["spike_lif"]
    last = run["spike_time_lif"].values[-counts[-1] :]
    assert last.min() >= 0.2 and last.max() < 0.3, "the third trial of 100 ms"
    assert set(run["spike_unit_lif"].values) <= set(range(4))
    counted = run["n_on"].values + run["n_off"].values
    assert np.array_equal(counted, counts)
    assert np.array_equal(run["reward"].values[1:], run["R"].values[1:])
    assert "cost_test" not in run and "accuracy_test" not in run


def test_spikes_of_every_trial():
    """Whatever the rows: the same as with a row each."""
    entry = {"variable": "spikes_lif", "every": "iteration"}
    options = {"iterations": 6, "target": "numpy", "seed": 2, "members": 2, "progress": False}
    run = mgd.train(mgd.load(LIF), evaluate_every=3, record=[entry], **options)
    rows = mgd.train(mgd.load(LIF), evaluate_every=1, record=["spikes_lif"], **options)
    assert list(run["spikes_lif_iteration"].values) == [1, 2, 3, 4, 5, 6] and run.sizes["iteration"] == 3
    np.testing.assert_array_equal(run["spike_count_lif"], rows["spike_count_lif"][1:])
    for name in ("spike_time_lif", "spike_unit_lif", "spike_replica_lif"):
        np.testing.assert_array_equal(run[name], rows[name])
    second = mgd.train(mgd.load(LIF), evaluate_every=6, record=[entry | {"every": "2*iteration"}], **options)
    np.testing.assert_array_equal(second["spike_count_lif"], rows["spike_count_lif"][2::2])


def test_traces_within_trials():
    entry = {"variable": "lif.v", "every": "5*ms", "units": "1:3"}
    run = mgd.train(
        mgd.load(LIF), iterations=2, evaluate_every=1, members=2, target="numpy", progress=False, record=[entry]
    )
    assert run["v_lif"].dims == ("v_lif_time", "v_lif_unit", "v_lif_replica")
    assert list(run["v_lif_count"].values) == [0, 20, 20]
    assert np.allclose(run["v_lif_time"], np.arange(40) * 5e-3)
    assert list(run["v_lif_unit"].values) == [1, 2]
    assert np.all(run["v_lif"] < -0.05) and run["v_lif"].attrs["units"] == "volt"


def test_longer_words_in_a_dataset_that_was_read(tmp_path):
    """A dataset that was read knows how long the words of its file were; that must not cut others off."""
    path = tmp_path / "rules.nc"
    write_dataset(xr.Dataset(coords={"rule": ("case", ["node"])}), path, "")
    more = xr.Dataset(coords={"rule": ("case", ["node_or_weight"])})
    write_dataset(xr.concat([xr.load_dataset(path), more], "case"), path, "")
    assert list(xr.load_dataset(path)["rule"].values) == ["node", "node_or_weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning": "{mgd: {signals: {reward: 2*C.plus}}}", "record": "[reward]"}, "reward of its own; rename it"),
        (
            {"learning": "{mgd: {signals: {cost_change: 2*C.plus}}}", "record": "[cost_change]"},
            "cost_change of its own",
        ),
        ({"measure": "{accuracy: sum(x_output)}", "record": "[accuracy]"}, "accuracy of its own; rename it"),
        (
            {"record": "[{variable: C, every: 2*iteration}]"},
            "C is that of the rows .*; expected no every, or a pass of C",
        ),
        (
            {"record": "[{variable: accuracy, every: 2*iteration}]"},
            "accuracy is that of the rows .*; expected no every",
        ),
        ({"record": "[output.b, {variable: output.b, every: 2*iteration}]"}, "output.b is named twice"),
        ({"include": LIF, "record": "[lif.v, {variable: lif.v, every: dt}]"}, "lif.v is named twice"),
        ({"include": LIF, "record": "[{variable: lif.v, every: dt}, lif.v]"}, "lif.v is named twice"),
        ({"include": LIF, "record": "[spikes_lif, spikes_lif]"}, "spikes_lif is named twice"),
        ({"record": "[output.w, {variable: output.w, units: '0:1'}]"}, "output.w is named twice"),
    ],
)
def test_a_name_in_a_dataset_is_that_of_one_variable(change, message):
    given = {"include": XOR, "circuit": "own"} | change
    text = "".join(f"{key}: {value}\n" for key, value in given.items())
    with pytest.raises(RecordError, match=message):
        mgd.train(mgd.load(text), iterations=2, target="numpy", progress=False)


def test_one_entry_needs_no_list():
    assert as_specs("energy") == as_specs(["energy"])
    assert as_specs({"variable": "G", "every": "2*iteration"}) == as_specs([{"variable": "G", "every": "2*iteration"}])
