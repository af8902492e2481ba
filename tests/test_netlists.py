"""Every netlist that we ship loads, has its drawing, and runs or says in one sentence why it does not yet."""

import re
from pathlib import Path

import numpy as np
import pytest

from mgdcircuits import BuildError, Session, load
from mgdcircuits.netlist.show import effective

ROOT = Path(__file__).parent.parent
NETLISTS = sorted((ROOT / "netlists").glob("*.yaml"))
MEMORYLESS_OR_CONTINUOUS = [
    "xor", "xor_np", "xor_analog", "parity", "letters", "digits_mlp", "fashion_mnist_mlp", "fashion_mnist_cnn",
    "fashion_mnist_cnn_np", "fashion_mnist_cnn_paper", "analog_rc", "crossbar_rram", "delta_mgd",
]  # fmt: skip


@pytest.mark.parametrize("path", NETLISTS, ids=lambda p: p.stem)
def test_netlist_loads_and_is_listed_with_its_drawing(path):
    circuit = load(path)
    assert circuit.name and effective(circuit.spec)
    readme = (ROOT / "netlists" / "README.md").read_text()
    assert path.name in readme
    assert (ROOT / "docs" / "drawings" / f"{path.stem}.svg").is_file()


def test_links_of_the_documents_exist():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "netlists" / "README.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


@pytest.mark.parametrize("name", MEMORYLESS_OR_CONTINUOUS)
def test_netlist_takes_steps_on_the_numpy_target(name):
    overrides = {"d": 1} if "cnn" in name else {}
    circuit = load(ROOT / "netlists" / f"{name}.yaml", **overrides)
    session = Session(circuit, target="numpy", batch=4, seed=1)
    random = np.random.default_rng(0)
    array, _, _, is_label = session._sample_kernel.target
    y = random.integers(0, array.n, 8) if is_label else random.integers(0, 2, (8, array.n))
    session.set_data((random.random((8, *circuit.input_shape)).astype(np.float32), y))
    session.step(3)
    assert session.iteration == 3
    for values in session.parameters.values():
        assert np.isfinite(values).all()


def test_spiking_circuits_say_that_they_run_on_the_numpy_target():
    with pytest.raises(BuildError, match="numpy target"):
        Session(load(ROOT / "netlists" / "lif_reward.yaml"))
