"""Arguments of a session: what cannot be meant is refused in one sentence, before anything is computed."""

from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd
from mgdcircuits.errors import RecordError, RunError

ROOT = Path(__file__).parent.parent
X, Y = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), np.array([[0], [1], [1], [0.0]])

CLASSES = """
circuit: classes
chain:
  - input: {shape: 6, equations: "x : 1"}
  - hid: {shape: 3, equations: "x = I + b : 1\\nI : 1\\nb : 1 (plastic)", via: weights}
kinds:
  weights: {equations: "I_post = w*x_pre : 1 (summed)\\nw : 1 (plastic)", initial: {w: randn()}}
task: {x_input: x, target: onehot(y), batch: 4}
cost: {C: "mean_square(x_hid, target)"}
"""
SAMPLES, LABELS = np.random.default_rng(0).random((4, 6)), np.array([0, 2, 1, 0])


@pytest.fixture(scope="module")
def xor():
    return mgd.load(ROOT / "netlists" / "xor.yaml")


@pytest.fixture(scope="module")
def classes():
    return mgd.load(CLASSES)


def session_of(circuit, **options):
    return mgd.Session(circuit, target="numpy", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": -1}, "batch=-1: expected a whole number of at least 1"),
        ({"batch": 2.5}, "batch=2.5: expected a whole number"),
        ({"batch": 0}, "batch=0: expected a whole number of at least 1"),
        ({"batch": "2"}, "batch='2': expected a whole number"),
        ({"members": 0}, "members=0: expected a whole number of at least 1"),
        ({"members": True}, "members=True: expected a whole number"),
        ({"threads": 0}, "threads=0: expected a whole number of at least 1"),
        ({"dtype": "foo"}, "dtype 'foo' is not possible; expected one of float32, float64"),
        ({"dtype": "float16"}, "dtype 'float16' is not possible"),
        ({"seed": -1}, "seed=-1: expected a whole number of at least 0, below 2\\*\\*63"),
        ({"seed": 2**63}, "seed=9223372036854775808: expected a whole number"),
        ({"seed": 2**63 - 1, "members": 2}, "seed=9223372036854775808: expected a whole number"),
        ({"seed": 1.5}, "seed=1.5: expected a whole number"),
        ({"seed": "one"}, "seed='one': expected a whole number"),
        ({"seed": [1, -2]}, "seed=-2: expected a whole number"),
        ({"seed": [1, 2, 3], "members": 2}, "3 seeds for 2 members"),
    ],
)
def test_bad_options(xor, options, message):
    with pytest.raises(RunError, match=message):
        session_of(xor, **options)


def test_numbers_of_other_types(xor):
    session = session_of(
        xor, batch=np.int64(4), members=2.0, seed=np.array(2**63 - 2), dtype=np.float64, threads=np.int32(1)
    )
    assert (session.batch, session.members, session.seeds) == (4, 2, [2**63 - 2, 2**63 - 1])
    assert session.target.dtype == np.float64
    assert session_of(xor, seed=range(3)).seeds == [0, 1, 2]


def test_what_is_no_circuit():
    with pytest.raises(RunError, match=r"'xor.yaml' is no circuit; pass mgdcircuits.load\(...\)"):
        session_of("xor.yaml")
    with pytest.raises(RunError, match="3 is no netlist; expected the path of a YAML file"):
        mgd.load(3)


def test_training_refuses_the_same_seeds(xor):
    for seed in (-1, 99999999999999999999):
        with pytest.raises(RunError, match=f"seed={seed}: expected a whole number of at least 0"):
            mgd.train(xor, iterations=2, seed=seed, target="numpy", progress=False)


# Samples


@pytest.mark.parametrize("label", [np.nan, 0.5, 3, -1])
def test_labels_are_class_indices(classes, label):
    session, labels = session_of(classes), np.where(np.arange(4) == 2, label, LABELS)
    for show in (session.present, session.evaluate):
        with pytest.raises(RunError, match="expects class indices from 0 to 2"):
            show(SAMPLES, labels)


def test_the_first_axis_is_the_batch(classes):
    session = session_of(classes)
    with pytest.raises(RunError, match=r"x has the shape \(6, 4\); expected \(4, 6\), the batch first$"):
        session.present(SAMPLES.T, LABELS)
    with pytest.raises(RunError, match=r"x has the shape \(24,\)"):
        session.present(SAMPLES.ravel(), LABELS)
    with pytest.raises(RunError, match=r"y has the shape \(3,\); expected \(4,\)"):
        session.present(SAMPLES, LABELS[:3])
    session.present(SAMPLES.reshape(4, 2, 3), LABELS)  # one input may have another shape of the same size
    several = session_of(classes, members=3)
    with pytest.raises(RunError, match=r"the batch first, or with the 3 members in front$"):
        several.present(np.zeros((4, 3, 6)), LABELS)
    several.present(np.stack([SAMPLES, SAMPLES + 1, SAMPLES + 2]), LABELS)
    session.present(SAMPLES + 1, LABELS)
    for name, values in several.parameters.items():
        session.parameters[name][...] = values[1]
    np.testing.assert_array_equal(several.cost()[1], session.cost())


def test_evaluation_takes_a_target_for_each_sample(xor, classes):
    with pytest.raises(RunError, match=r"x has the shape \(4, 2\) and y \(2, 1\); expected as many targets as samples"):
        session_of(xor).evaluate(X, Y[:2])
    with pytest.raises(RunError, match=r"a sample has the shape \(4,\); the input expects \(6,\)"):
        session_of(classes).evaluate(SAMPLES.T, np.zeros(6, int))
    with pytest.raises(RunError, match="no samples to evaluate"):
        session_of(xor).evaluate(X[:0], Y[:0])


LOOKS = ["outputs", "cost", "accuracy", "exact_gradient"]


@pytest.mark.parametrize("look", LOOKS)
def test_what_is_looked_at_must_be_shown(xor, look, tmp_path):
    session = session_of(xor, batch=4)
    with pytest.raises(RunError, match="nothing to show: call present"):
        getattr(session, look)()
    session.evaluate(X, Y)  # shows samples of its own
    session.set_data((X, Y))
    with pytest.raises(RunError, match="no sample is shown yet: call step"):
        getattr(session, look)()
    session.step()
    getattr(session, look)()
    session.save(tmp_path / "state")
    resumed = getattr(mgd.Session.resume(tmp_path / "state", data=(X, Y)), look)()
    np.testing.assert_equal(resumed, getattr(session, look)())
    session.set_data((X, Y))
    with pytest.raises(RunError, match="no sample is shown yet"):
        getattr(session, look)()
    session.present(X, Y)
    getattr(session, look)()


def test_a_circuit_without_a_task_needs_no_sample():
    text = CLASSES.partition("task:")[0].replace('"x : 1"', '"x : 1", initial: {x: 1}')
    assert session_of(mgd.load(text)).outputs().shape == (1, 3)


# Other calls


@pytest.mark.parametrize("n", [1.5, "3", -1, None, float("nan")])
def test_iterations_are_counted(xor, n):
    session = session_of(xor)
    session.present(X[:1], Y[:1])
    with pytest.raises(RunError, match="expected a whole number of at least 0"):
        session.step(n)
    session.step(0)
    session.step(np.int64(2))
    assert session.iteration == 2


@pytest.mark.parametrize("value", ["abc", None, np.nan, np.inf, [1, 2]])
def test_numbers_that_are_set_are_finite(xor, value):
    session = session_of(xor)
    before = dict(session.target.parameters)
    with pytest.raises(RunError, match=r"eta=.*: expected a finite number, in SI units"):
        session.set(norm=1, eta=value)
    assert session.target.parameters == before, "nothing is set where one of the values is bad"


def test_the_gradient_of_one_parameter(classes):
    session = session_of(classes)
    session.present(SAMPLES, LABELS)
    assert list(session.exact_gradient(wrt="hid.w")) == ["hid.w"]
    with pytest.raises(RunError, match="'hid.q' is not a plastic parameter; there are hid.w, hid.b"):
        session.exact_gradient(wrt="hid.q")


def test_training_takes_a_circuit():
    with pytest.raises(RunError, match="is no circuit; pass mgdcircuits.load"):
        mgd.train("xor.yaml", iterations=10)


def test_a_single_sample_needs_no_batch_axis(xor):
    whole, bare = session_of(xor), session_of(xor)
    assert whole.batch == 1
    whole.present(X[:1], Y[:1])
    bare.present(X[0], Y[0])
    np.testing.assert_array_equal(whole.outputs(), bare.outputs())


def test_a_dataset_does_not_take_the_place_of_its_netlist(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text((ROOT / "netlists" / "xor.yaml").read_text())
    circuit = mgd.load(path)
    with pytest.raises(RecordError, match="is read as a part of the netlist"):
        mgd.train(circuit, iterations=4, out=path, overwrite=True, target="numpy", progress=False)
    with pytest.raises(RecordError, match="is read as a part of the netlist"):
        mgd.sweep(circuit, {"seed": [0]}, iterations=4, out=path, overwrite=True, target="numpy", progress=False)
    assert path.read_text() == (ROOT / "netlists" / "xor.yaml").read_text()


def test_a_session_learns_from_what_the_task_says(tmp_path):
    """Its options, and without the samples that are held out, as a run does."""
    path = tmp_path / "few.yaml"
    task = "\ntask: {data: letters, options: {flips: 0, shift: 0, n: 4}, validation: 2}\n"
    path.write_text(f"include: {ROOT / 'netlists' / 'letters.yaml'}\ncircuit: few{task}")
    for given in ("letters", None):
        session = mgd.Session(mgd.load(path), target="numpy")
        session.set_data(given)
        assert len(session.dataset.x_train) == 2
    with pytest.raises(RunError, match="names no data"):
        mgd.Session(mgd.load(ROOT / "netlists" / "lif_reward.yaml"), target="numpy").set_data()


def test_writes_read_what_is_computed_for_each_sample_at_batch_1_only(xor):
    """Of a population, whose numbers are those of the one sample then."""
    text = xor.spec.text.replace("-eta/K*G,", "-eta/K*G*(1 - x),").replace("theta_w: delta*bernoulli(), ", "")
    bias_only = mgd.load(text)
    found = []
    for target in ("numpy", "cpp"):
        session = mgd.Session(bias_only, target=target, data="xor", dtype="float64", seed=1)
        before = session.parameters["hidden_layer.b"].copy()
        session.step(3)
        found.append(session.parameters["hidden_layer.b"] - before)
    assert found[0].any()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)
    with pytest.raises(
        RunError, match=r"batch=4: `update` of hidden_layer.b reads `x`, which is computed for each sample"
    ):
        mgd.Session(bias_only, batch=4)


def test_samples_without_targets_have_outputs_alone(xor, tmp_path):
    session = session_of(xor, batch=4, seed=1)
    session.present(X)
    assert session.outputs().shape == (4, 1)
    for wanted in (session.cost, session.accuracy, session.exact_gradient, session.step):
        with pytest.raises(RunError, match="presented without targets: call present\\(x, y\\)"):
            wanted()
    session.save(tmp_path / "shown")
    with pytest.raises(RunError, match="without targets"):
        mgd.Session.resume(tmp_path / "shown").cost()
    session.present(X, Y)
    assert session.cost().shape == (4,)
    session.present(X)
    session.set_data((X, Y))
    session.step()


def test_few_samples_first_do_not_make_many_slow(classes):
    """What is laid out for one sample is laid out anew for many."""
    session = session_of(classes, batch=1)
    one = session.evaluate(SAMPLES[:1], LABELS[:1])
    many = session.evaluate(np.tile(SAMPLES, (50, 1)), np.tile(LABELS, 50))
    assert session._evaluator.batch >= 64
    np.testing.assert_allclose(many.cost.reshape(50, 4)[:, 0], one.cost[0], rtol=1e-6)
