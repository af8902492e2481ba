"""Figures and drawings: what they show, without a screen and without the simulator."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits import figures
from mgdcircuits.drawing import svg
from mgdcircuits.errors import NetlistError, RecordError

ROOT = Path(__file__).parent.parent
NETLISTS = ROOT / "netlists"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run():
    return mgd.train(
        mgd.load(NETLISTS / "xor.yaml"),
        iterations=20, evaluate_every=4, members=3, gradient=True, target="numpy", progress=False,
        record=["hidden_layer.x", {"variable": "output.w", "every": "2*iteration"}],
    )  # fmt: skip


def titles(figure):
    return [axes.get_ylabel() for axes in figure.axes]


def test_a_plain_run_shows_cost_and_accuracy(run):
    plain = run.drop_vars(["cosine", "norm_ratio", "group_cosine", "group_norm_ratio", "x_hidden_layer", "w_output"])
    figure = mgd.plot(plain)
    assert titles(figure) == ["cost", "accuracy (%)"]
    line = figure.axes[0].lines[0]
    assert np.allclose(line.get_ydata(), run["cost"].median("member")[1:])


def test_angles_and_traces_where_recorded(run, tmp_path):
    figure = mgd.plot(run, tmp_path / "run.png")
    assert "angle to the exact gradient (°)" in titles(figure)
    assert {"x_hidden_layer", "w_output"} <= {a.get_title().partition(" (")[0] for a in figure.axes}
    angle = next(a for a in figure.axes if a.get_ylabel().startswith("angle"))
    whole = next(k for k in angle.lines if k.get_label() == "whole network")
    assert np.allclose(np.cos(np.radians(whole.get_ydata())), run["cosine"].median("member")[-len(whole.get_ydata()) :])
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_raster_where_spikes_are_recorded(run):
    spiking = run.assign(spike_time_out=("spike_out", [0.1, 0.2]), spike_unit_out=("spike_out", [3, 4]))
    figure = mgd.plot(spiking)
    raster = next(a for a in figure.axes if a.get_title() == "spikes of out")
    assert list(raster.lines[0].get_ydata()) == [3, 4]


def test_a_run_without_rows_has_no_figure(run):
    with pytest.raises(RecordError, match="has no rows"):
        mgd.plot(run.isel(iteration=slice(0, 0)))


def test_a_figure_that_cannot_be_written(run, tmp_path):
    with pytest.raises(RecordError, match="Format 'foo' is not supported"):
        mgd.plot(run, tmp_path / "run.foo")
    with pytest.raises(RecordError, match="cannot be written"):
        mgd.plot(run, tmp_path / "nowhere" / "run.png")


def test_figures_import_neither_brian2_nor_a_session():
    code = (
        "import sys, mgdcircuits.figures; "
        "bad = [m for m in ('brian2', 'mgdcircuits.session', 'matplotlib.pyplot') if m in sys.modules]; print(bad)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_angle_axis_reaches_beyond_ninety_degrees(run):
    figure = mgd.plot(run.assign(cosine=-abs(run["cosine"]) - 0.2))
    angle = next(a for a in figure.axes if a.get_ylabel().startswith("angle"))
    assert angle.get_ylim()[1] == 180


# drawings


def drawing(name, **overrides):
    root = ET.fromstring(svg(mgd.load(NETLISTS / f"{name}.yaml", **overrides)))
    return root, ["".join(t.itertext()) for t in root.iter(f"{SVG}text")]


def test_xor_is_drawn_with_what_learns_and_what_is_perturbed():
    root, texts = drawing("xor")
    assert {"input", "hidden_layer", "output", "dense", "theta_w perturbed", "learning: mgd"} <= set(texts)
    assert {"w: 4 plastic", "b: 2 plastic", "w: 2 plastic", "b: 1 plastic"} <= set(texts)
    arrows = [p for p in root.iter(f"{SVG}path") if p.get("marker-end") == "url(#learns)"]
    assert len(arrows) == 2 + 1, "two couplings and the legend"


def test_the_cnn_is_wrapped_and_complete():
    circuit = mgd.load(NETLISTS / "fashion_mnist_cnn.yaml", d=2)
    root, texts = drawing("fashion_mnist_cnn", d=2)
    assert set(circuit.populations) <= set(texts)
    assert float(root.get("width")) < 1600
    assert "max pool 2×2" in texts and "conv 3×3, padding 1" in texts
    assert "2×28×28 = 1,568 units" in texts


def test_a_loop_onto_itself_and_a_way_back():
    _, texts = drawing("delayed_reward")
    assert texts.count("sparse, 0.1 of all") == 3 and texts.count("sparse, 0.2 of all") == 2
    assert "spike if v > -54*mV" in texts


def boxes(root):
    return [
        tuple(float(r.get(k)) for k in ("x", "y", "width", "height"))
        for r in root.iter(f"{SVG}rect")
        if r.get("stroke-width") in ("2", "1.2")
    ]


# Brian2's large examples are two populations each, and take long to lay out.
DRAWN = [p for p in sorted(NETLISTS.glob("*.yaml")) if p.stem not in ("brian2_cuba", "brian2_cobahh")]


@pytest.mark.parametrize("path", DRAWN, ids=lambda p: p.stem)
def test_every_netlist_is_drawn_inside_the_picture_without_overlaps(path):
    try:
        circuit = mgd.load(path)
    except NetlistError:
        pytest.skip("not a valid netlist at the moment")
    root = ET.fromstring(svg(circuit))
    width, height = float(root.get("width")), float(root.get("height"))
    found = boxes(root)
    assert len(found) == len(circuit.populations)
    for k, (x, y, w, h) in enumerate(found):
        assert 0 <= x and x + w <= width and 0 <= y and y + h <= height
        for x2, y2, w2, h2 in found[:k]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x")) <= width and 0 <= float(text.get("y")) <= height


def test_draw_writes_svg_only(tmp_path):
    circuit = mgd.load(NETLISTS / "xor.yaml")
    assert ET.parse(mgd.draw(circuit, tmp_path / "a.svg")).getroot().tag == f"{SVG}svg"
    with pytest.raises(RecordError, match="ends in .svg"):
        mgd.draw(circuit, tmp_path / "a.png")
    with pytest.raises(RecordError, match="cannot be written"):
        mgd.draw(circuit, tmp_path / "nowhere" / "a.svg")


def test_recorded_variables_are_found_by_their_intent(run):
    assert set(figures.recorded(run)) == {"x_hidden_layer", "w_output"}
