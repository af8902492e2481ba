"""The command line: exit statuses, messages, files."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mgdcircuits as mgd
from mgdcircuits.cli import cli, run
from mgdcircuits.errors import BuildError

ROOT = Path(__file__).parent.parent
NETLISTS = ROOT / "netlists"
XOR = str(NETLISTS / "xor.yaml")
FAST = ["--target", "numpy", "--quiet"]


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def made(*arguments):
        status = run(cli, [str(a) for a in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return made


def test_help_has_examples(call):
    for command in ([], ["check"], ["show"], ["draw"], ["train"], ["sweep"], ["plot"], ["data", "fetch"]):
        status, out, _ = call(*command, "--help")
        assert status == 0
        assert "Example" in out and "mgdcircuits" in out, command


def test_check_says_what_it_found(call):
    status, out, _ = call("check", XOR, NETLISTS / "letters.yaml")
    assert status == 0
    first, second = out.splitlines()
    assert first == f"{XOR}: xor: 3 populations, 2 couplings, 9 plastic parameters, 6 synapses; mgd"
    assert "letters" in second


def test_check_prints_all_problems_of_all_files(call, tmp_path):
    text = Path(XOR).read_text()
    (tmp_path / "bad.yaml").write_text(text.replace("kind: sigmoid", "kind: sigmoyd").replace("data: xor", "dta: xor"))
    status, out, err = call("check", "bad.yaml", XOR, "none.yaml")
    assert status == 2
    assert "xor: 3 populations" in out
    problems = [line for line in err.splitlines() if line]
    assert sum(line.startswith("bad.yaml:") for line in problems) >= 2
    assert any("none.yaml" in line for line in problems)


def test_overrides(call):
    status, out, _ = call("check", XOR, "--set", "hidden=5")
    assert status == 0 and "21 plastic parameters" in out
    status, _, err = call("check", XOR, "--set", "hiden=5")
    assert status == 2 and "hidden" in err
    status, _, err = call("check", XOR, "--set", "hidden")
    assert status == 2 and "NAME=VALUE" in err


def test_show(call):
    status, out, _ = call("show", XOR)
    assert status == 0
    assert "plastic parameters N = 9" in out and "estimate:" in out
    status, out, _ = call("show", XOR, "--origin")
    assert status == 0 and "xor.yaml:" in out


def test_draw(call):
    assert call("draw", XOR, "-o", "a.svg")[0] == 0
    assert Path("a.svg").read_text().startswith("<svg")
    assert call("draw", XOR)[0] == 0 and Path("xor.svg").exists()
    status, _, err = call("draw", XOR, "-o", "a.gif")
    assert status == 2 and "ends in .svg" in err


def test_train_then_plot(call):
    status, out, _ = call("train", XOR, "--iterations", 20, "--evaluate-every", 10, "-o", "run.nc", "--seed", 3, *FAST)
    assert status == 0
    assert out.startswith("xor: 20 iterations, cost ") and "written to run.nc" in out
    assert mgd.open_run("run.nc").attrs["seed"] == 3
    assert call("plot", "run.nc", "-o", "figure.png")[0] == 0
    assert Path("figure.png").stat().st_size > 5000
    assert call("plot", "run.nc")[0] == 0 and Path("run.png").exists()


def test_train_options_reach_the_run(call):
    status, _, _ = call(
        "train", XOR, "--iterations", 6, "--data", "parity", "--batch", 2, "--members", 2, "--dtype", "float64",
        "--set", "eta=0.2", "--gradient", "--record", "hidden_layer.x", "--until", "iteration >= 3",
        "--evaluate-every", 1, "--threads", 1, "-o", "run.nc", *FAST,
    )  # fmt: skip
    assert status == 0
    found = mgd.open_run("run.nc")
    assert found["iteration"].values[-1] == 3
    assert found.attrs["data"].startswith("parity") and found.attrs["dtype"] == "float64"
    assert found.sizes["member"] == 2 and found["x_hidden_layer"].dtype.kind == "f"
    assert '"eta": "0.2"' in found.attrs["overrides"]
    assert "cosine" in found


def test_an_existing_run_is_not_overwritten(call):
    assert call("train", XOR, "--iterations", 2, *FAST)[0] == 0
    before = Path("xor.nc").read_bytes()
    status, _, err = call("train", XOR, "--iterations", 2, *FAST)
    assert status == 2 and "--force" in err
    assert Path("xor.nc").read_bytes() == before
    assert call("train", XOR, "--iterations", 2, "--force", *FAST)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", XOR], "--iterations"),
        (["train", XOR, "--iterations", "0"], "not in the range"),
        (["train", XOR, "--iterations", "many"], "not a valid integer"),
        (["train", XOR, "--iterations", "5", "--sed", "1"], "--seed"),
        (["train", XOR, "--iterations", "5", "--seed", "-1", *FAST], "seed=-1: expected a whole number of at least 0"),
        (["train", XOR, "--iterations", "9" * 22, *FAST], "expected a whole number of at least 1, below 2**63"),
        (["train", XOR, "--iterations", "5", "--seed", "99999999999999999999", *FAST], "expected a whole number"),
        (["train", XOR, "--iterations", "5", "--target", "gpu"], "numpy"),
        (["train", XOR, "--iterations", "5", "--checkpoint-every", "-1"], "--checkpoint-every"),
        (["train", XOR, "--iterations", "5", "--on-nan", "ignore"], "--on-nan"),
        (["train", XOR, "--iterations", "5", "--data", "moons", *FAST], "unknown data set 'moons'"),
        (["train", XOR, "--iterations", "5", "--data", "letters", *FAST], "input expects"),
        (["train", XOR, "--iterations", "5", "--until", "acuracy > 1", *FAST], "did you mean accuracy"),
        (["train", XOR, "--iterations", "5", "--record", "spikes_output", *FAST], "spikes"),
        (["train", XOR, "--iterations", "5", "-o", "no/run.nc", *FAST], "does not exist"),
        (["train", "none.yaml", "--iterations", "5"], "none.yaml"),
        (["show", "none.yaml"], "none.yaml"),
        (["plot", "none.nc"], "none.nc does not exist"),
        (["data", "fetch", "moons"], "unknown data set"),
        (["trian"], "No such command"),
    ],
)
def test_bad_calls_have_one_message_and_status_2(call, arguments, message):
    status, out, err = call(*arguments)
    assert status == 2
    assert message in err
    assert out == ""


@pytest.mark.parametrize("out", ["base.yaml", "own.yaml", "../{folder}/base.yaml"])
def test_a_dataset_does_not_take_the_place_of_the_netlist(call, tmp_path, out):
    texts = {"base.yaml": Path(XOR).read_text(), "own.yaml": "include: base.yaml\ncircuit: own\n"}
    for name, text in texts.items():
        Path(name).write_text(text)
    path = out.format(folder=tmp_path.name)
    for command in (["train"], ["sweep", "--grid", "seed=0..1"]):
        status, said, err = call(*command, "own.yaml", "--iterations", 5, "-o", path, "--force", *FAST)
        assert (status, said) == (2, "")
        assert err == f"{path} is read as a part of the netlist; choose another name for what is written\n"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == texts


def test_what_cannot_run_yet_says_so_in_one_sentence(call, monkeypatch):
    def refuse(*_, **__):
        raise BuildError("xor: sigmoid circuits run on Tuesdays only")

    monkeypatch.setattr(mgd.Session, "__init__", refuse)
    status, out, err = call("train", XOR, "--iterations", 2, *FAST)
    assert (status, out, err) == (2, "", "xor: sigmoid circuits run on Tuesdays only\n")


def test_plain_lines_without_a_terminal(call):
    _, _, err = call("train", XOR, "--iterations", 30, "--evaluate-every", 10, "--target", "numpy", "-o", "run.nc")
    lines = err.strip().splitlines()
    assert lines[0].startswith("0/30 iterations, cost ")
    assert lines[-1].startswith("30/30 iterations, cost ")
    assert "accuracy" in lines[1] and "left" in lines[1]


def test_a_bar_on_a_terminal():
    from io import StringIO

    from mgdcircuits.progress import Progress

    class Terminal(StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Progress(10, stream=stream) as shown:
        shown.advance(3)
        shown.row(5, {"cost": 0.25, "accuracy_test": 0.75})
        shown.say("a sentence")
    text = stream.getvalue()
    assert (
        "5/10" in text and "cost 0.25" in text and "accuracy 75.0%" in text and "left" in text and "a sentence" in text
    )


def test_the_module_runs_and_the_package_is_light():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mgdcircuits", "check", XOR], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and "xor" in done.stdout
    code = (
        "import sys, mgdcircuits; print([m for m in ('numpy', 'brian2', 'xarray', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names():
    for name in mgd.__all__:
        assert getattr(mgd, name) is not None
    import_module("mgdcircuits.drawing")  # a module of the same name would hide the function
    assert callable(mgd.draw) and callable(mgd.plot) and callable(mgd.train)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        mgd.lod  # noqa: B018
