"""Learning from reward in trials: the estimate is the gradient of the expected reward; trials are reproducible."""

from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd

NETLISTS = Path(__file__).parents[2] / "netlists"


def session_of(circuit, **options):
    return mgd.Session(circuit, target="numpy", dtype="float64", **options)


def edited(tmp_path, name, *changes):
    """A netlist with some of its text replaced."""
    text = (NETLISTS / name).read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (tmp_path / name).write_text(text)
    return mgd.load(tmp_path / name)


@pytest.fixture(scope="module")
def lif():
    return mgd.load(NETLISTS / "lif_reward.yaml")


def test_reward_times_eligibility_is_the_gradient_of_the_expected_reward():
    """rules.md section 4, item 1: exact for independent Gaussian bins, at any size, through spikes (|z| <= 4)."""
    sigma, members = 6e-9, 2500
    circuit = mgd.load(NETLISTS / "lif_reward.yaml", tau_p="dt", sigp="6*nS")

    def trial(shift):
        session = session_of(circuit, members=members, seed=0)
        session.parameters["lif.w"][...] = 1.5e-9 + shift
        session.step(1)
        return session.view("R").ravel(), session.view("lif.el").reshape(members, 4, 10)

    reward, eligibility = trial(0.0)
    assert reward.std() > 0.1
    for post in (0, 2):  # one neuron that shall fire, one that shall not; all ten weights of it together
        direction = np.zeros((4, 10))
        direction[post] = 1
        estimate = (reward - reward.mean()) * eligibility[:, post].sum(1) / sigma**2
        step = 0.15e-9
        difference = (trial(step * direction)[0] - trial(-step * direction)[0]) / (2 * step)  # common random numbers
        errors = [v.std() / np.sqrt(members) for v in (estimate, difference)]
        assert abs(difference.mean()) > 4 * errors[0], "the test has no power"
        assert abs(estimate.mean() - difference.mean()) <= 4 * np.hypot(*errors)


def test_the_estimate_is_reward_times_eligibility():
    circuit = mgd.load(NETLISTS / "lif_reward.yaml", tau_theta="5*iteration")
    session = session_of(circuit, members=2, seed=3)
    expected, baseline = np.zeros((2, 4, 10)), np.zeros(2)
    for n in range(1, 4):
        session.step(1)
        reward = session.view("R").ravel()
        estimate = (reward - baseline)[:, None, None] * session.view("lif.el").reshape(2, 4, 10) / (2e-9) ** 2
        expected += (estimate - expected) / n
        baseline += (reward - baseline) / 10
        np.testing.assert_allclose(session.gradient_estimate()["lif.w"], expected, rtol=1e-10)
    assert np.abs(expected).max() > 0


def test_reward_is_what_the_spikes_say(lif):
    session = session_of(lif, members=3, seed=1)
    seen = []
    for _ in range(3):
        session.step(1)
        times, units, replica = session.spikes("lif")
        assert times.min() >= (session.iteration - 1) * 0.1 - 1e-9 and times.max() < session.iteration * 0.1
        on = np.bincount(replica[units < 2], minlength=3)
        off = np.bincount(replica[units >= 2], minlength=3)
        np.testing.assert_array_equal(session.view("n_on").ravel(), on)
        np.testing.assert_array_equal(session.view("n_off").ravel(), off)
        np.testing.assert_allclose(session.view("R").ravel(), -(np.abs(on - 8) + off) / 10)
        seen.append(session.view("R").ravel().copy())
    assert len(np.unique(seen)) > 1


def state(session) -> dict[str, np.ndarray]:
    return {a.name: session.target.array(a.name).copy() for a in session.program.arrays}


def test_one_call_or_many_the_same_bits(lif):
    once, often = session_of(lif, seed=5), session_of(lif, seed=5)
    once.step(4)
    for _ in range(4):
        often.step(1)
        often.spikes("lif")
    for (name, a), b in zip(state(once).items(), state(often).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    other = session_of(lif, seed=6)
    other.step(4)
    assert not np.array_equal(other.view("lif.el"), once.view("lif.el"))


def test_members_alone_or_together_the_same_bits(lif):
    together = session_of(lif, seed=[4, 11, 7])
    alone = session_of(lif, seed=11)
    together.step(3)
    alone.step(3)
    both = state(together)
    for name, value in state(alone).items():
        np.testing.assert_array_equal(both[name][:, 1:2], value, err_msg=name)


def test_learning_raises_the_reward(lif):
    session = session_of(lif, members=10, seed=0)
    rewards = []
    for _ in range(60):
        session.step(1)
        rewards.append(session.view("R").mean())
    assert np.mean(rewards[-15:]) > np.mean(rewards[:20]) + 0.5


def test_dopamine_turns_tags_into_weights():
    """rules.md section 6, from Izhikevich 2007: one pair of spikes, then a pulse of dopamine (1 %)."""
    circuit = mgd.load(NETLISTS / "rstdp_dopamine.yaml", dt="0.5*ms")
    session = session_of(circuit)
    session.run("2*second")
    lag = 5e-3 * np.arange(1, 5)
    wait = 305e-3 - 100e-3 - lag
    expected = 0.01 * np.exp(-lag / 20e-3) * 0.002 * np.exp(-wait / 1.0) * (1.0 * 0.2 / 1.2)
    np.testing.assert_allclose(session.view("pre_to_post.w").ravel(), expected, rtol=0.01)


TRIAL = """
circuit: trial
parameters: {tau: 20*ms}
clocks: {dt: 1*ms, tau_p: 4*ms}
populations:
  source: {shape: 3, equations: "rate : Hz", threshold: rand() < rate*dt}
  cell:
    shape: 4
    equations: |
      dv/dt = (drive + noise*b - v)/tau : 1
      drive : 1
      noise : 1 (perturbation)
      double = 2*v : 1
      b : 1 (plastic)
    method: euler
    initial: {v: 0, b: 0}
synapses:
  source -> cell: {on_pre: v_post += 0.01, dense: true}
task: {data: xor, batch: 1, sampling: sequential}
trial:
  first:
    for: 10*ms
    set:
      rate_source: 200*Hz*x[1]
      drive_cell: 1 + x[0] + i
    measure:
      a: mean(v_cell[1:3])
  wait: {after: 5*ms, set: {drive_cell: 0}, measure: {c: max(double_cell), d: count(source)}}
  last: {for: 5*ms, measure: {R: a + y}}
  reset: [v]
learning:
  rule:
    perturb: {noise: bernoulli(), every: tau_p}
    passes: {trial: 1}
    baseline: {Rbar: "Rbar + (R - Rbar)/2", per: stimulus}
    estimate: (R - Rbar)*noise
    update: {request: 0*G, at: last}
"""
XOR = (np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0.0, 1, 1, 0]))


@pytest.fixture
def trial(tmp_path):
    (tmp_path / "trial.yaml").write_text(TRIAL)
    return mgd.load(tmp_path / "trial.yaml")


def test_phases_set_and_measure_and_reset(trial):
    session = session_of(trial, seed=2, data=XOR)
    session.watch("cell.v", "cell.drive", "cell.noise")
    for n in range(6):
        session.step(1)
        x, y = XOR[0][n % 4], XOR[1][n % 4]
        times, drive = session.trace("cell.drive")
        assert len(times) == 20
        np.testing.assert_allclose(drive[:10], np.tile(1 + x[0] + np.arange(4), (10, 1)))
        assert (drive[15:] == 0).all()  # `after`: set at the event, 15 ms from the beginning
        v = session.trace("cell.v")[1]
        spikes = len(session.spikes("source")[0])
        assert (spikes > 0) == (x[1] > 0)
        np.testing.assert_allclose(v[0], 0)
        if not x[1]:  # no spikes before the end of the first phase: the Euler steps in closed form
            np.testing.assert_allclose(v[10], (1 + x[0] + np.arange(4)) * (1 - 0.95**10), rtol=1e-12)
        np.testing.assert_allclose(session.view("a").item(), v[10, 1:3].mean(), rtol=1e-12)
        np.testing.assert_allclose(session.view("c").item(), 2 * v[15].max(), rtol=1e-12)
        np.testing.assert_allclose(session.view("R").item(), session.view("a").item() + y, rtol=1e-12)
        noise = session.trace("cell.noise")[1]
        assert set(np.unique(noise)) == {-1.0, 1.0}
        changes = 1 + np.nonzero(np.diff(noise, axis=0).any(1))[0]
        assert set(changes % 4) == {0}  # held for tau_p, four ticks


def test_a_baseline_per_stimulus_is_kept_for_each_sample(trial):
    session = session_of(trial, seed=2, data=XOR)
    kept = np.zeros(4)
    for n in range(8):
        session.step(1)
        kept[n % 4] += (session.view("R").item() - kept[n % 4]) / 2
        np.testing.assert_allclose(session.view("rule.Rbar@0").item(), kept[n % 4], rtol=1e-12)
    np.testing.assert_allclose(session.view("rule.Rbar@0@stimulus").ravel()[:4], kept, rtol=1e-12)


def test_evaluation_shows_the_numbers_of_each_sample(trial):
    """x[0] and x[1] of the phases are those of the evaluated samples, not of the one that was trained on last."""
    session = session_of(trial, seed=2, data=XOR)
    session.step(1)
    session.present(XOR[0][1:2], XOR[1][1:2])
    session.target.run("evaluate")
    np.testing.assert_array_equal([session.view("x__0").item(), session.view("x__1").item()], XOR[0][1])


def test_what_is_measured_after_the_last_tick_is_perturbed():
    """The output of a memoryless neuron at the end of a trial has the perturbations of its weights and of its bias."""
    session = session_of(
        mgd.load(NETLISTS.parent / "experiments" / "architectures" / "sequence.yaml"), seed=2, data=XOR
    )
    session.step(1)
    w, b = session.parameters["readout.w"], session.parameters["out.b"]
    x = session.view("net.x")
    out = x @ (w + session.view("readout.theta_w")).ravel() + b + session.view("out.theta_b")
    assert (session.view("readout.theta_w") != 0).all()
    np.testing.assert_allclose(session.view("out.x").ravel(), out, rtol=1e-12)


def test_evaluation_on_request_leaves_the_training_alone(trial):
    plain, asked = session_of(trial, seed=2, data=XOR), session_of(trial, seed=2, data=XOR)
    plain.step(4)
    asked.step(2)
    with pytest.raises(mgd.RunError, match="no `cost`"):
        asked.evaluate(*XOR)
    asked.outputs()
    asked.step(2)
    np.testing.assert_array_equal(plain.view("cell.v"), asked.view("cell.v"))
    np.testing.assert_array_equal(plain.gradient_estimate()["cell.b"], asked.gradient_estimate()["cell.b"])


def test_the_cpp_target_says_that_it_cannot_spike_yet(lif):
    with pytest.raises(mgd.BuildError, match="spiking circuits run on the numpy target so far"):
        mgd.Session(lif, target="cpp")


FREE = """
circuit: free
clocks: {dt: 1*ms, tau_p: 10*ms}
populations:
  cell:
    shape: 4
    equations: |
      dv/dt = (2 + b + theta - v)/(20*ms) : 1
      b : 1 (plastic)
      theta : 1 (perturbation)
    threshold: v > 1
    reset: v = 0
    initial: {v: 0, b: 0}
cost: {C: mean(v_cell)}
learning:
  rule:
    perturb: {theta: bernoulli(), every: tau_p}
    passes: {clean: 0, plus: 1}
    estimate: (C.plus - C.clean)*theta
    update: {request: -G, every: tau_theta}
"""


def test_a_spiking_circuit_learns_in_trials_only(tmp_path):
    (tmp_path / "free.yaml").write_text(FREE)
    with pytest.raises(mgd.BuildError, match="learns in trials"):
        session_of(mgd.load(tmp_path / "free.yaml"))
