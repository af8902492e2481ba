"""Spiking circuits on the numpy target against Brian2: the published examples, and every kind of event."""

from pathlib import Path

import numpy as np
import pytest

import mgdcircuits as mgd

b2 = pytest.importorskip("brian2")

NETLISTS = Path(__file__).parents[2] / "netlists"
DT = 0.1 * b2.ms


@pytest.fixture(autouse=True)
def numpy_codegen():
    before = b2.prefs.codegen.target, b2.defaultclock.dt
    b2.prefs.codegen.target = "numpy"
    b2.defaultclock.dt = DT
    yield
    b2.prefs.codegen.target, b2.defaultclock.dt = before


def session_of(circuit, **options):
    return mgd.Session(circuit, target="numpy", dtype="float64", **options)


def ticks_of(times) -> np.ndarray:
    return np.round(np.asarray(times) / 1e-4).astype(int)


def assert_same_spikes(session, population, monitor, offset=0):
    """Same neurons at the same time steps; the order within a step is that of the neurons in both."""
    times, units = session.spikes(population)
    np.testing.assert_array_equal(ticks_of(times), ticks_of(monitor.t / b2.second))
    np.testing.assert_array_equal(units, np.asarray(monitor.i) - offset)


def joined(circuit, key):
    """Edges of the couplings from one of two populations to both, for a script with one group of both."""
    n_e = circuit.populations["exc"].n
    pairs = [circuit.couplings[f"{key}_to_{post}"].topology.indices()[:2] for post in ("exc", "inh")]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([pairs[0][1], pairs[1][1] + n_e])


CUBA = """
dv/dt  = (ge+gi-(v-El))/taum : volt (unless refractory)
dge/dt = -ge/taue : volt
dgi/dt = -gi/taui : volt
"""


def test_cuba_has_the_spike_times_of_the_brian2_script():
    circuit = mgd.load(NETLISTS / "brian2_cuba.yaml", n_e=640, n_i=160, p=0.1)
    session = session_of(circuit, seed=3)
    start = np.concatenate([session.view("exc.v").ravel(), session.view("inh.v").ravel()])
    session.run("50*ms")

    taum, taue, taui = 20 * b2.ms, 5 * b2.ms, 10 * b2.ms
    Vt, Vr, El = -50 * b2.mV, -60 * b2.mV, -49 * b2.mV  # noqa: N806, the names of the script
    we, wi = (60 * 0.27 / 10) * b2.mV, (-20 * 4.5 / 10) * b2.mV
    names = {"taum": taum, "taue": taue, "taui": taui, "Vt": Vt, "Vr": Vr, "El": El, "we": we, "wi": wi}
    P = b2.NeuronGroup(  # noqa: N806
        800, CUBA, threshold="v>Vt", reset="v = Vr", refractory=5 * b2.ms, method="exact", namespace=names
    )
    P.v_ = start
    Ce = b2.Synapses(P[:640], P, on_pre="ge += we", namespace=names)  # noqa: N806
    Ci = b2.Synapses(P[640:], P, on_pre="gi += wi", namespace=names)  # noqa: N806
    for synapses, key in ((Ce, "exc"), (Ci, "inh")):
        i, j = joined(circuit, key)
        synapses.connect(i=i, j=j)
    exc, inh = b2.SpikeMonitor(P[:640]), b2.SpikeMonitor(P[640:])
    b2.Network(P, Ce, Ci, exc, inh).run(50 * b2.ms)

    assert len(exc.t) > 100 and len(inh.t) > 20
    assert_same_spikes(session, "exc", exc)
    assert_same_spikes(session, "inh", inh)


COBAHH = """
dv/dt = (gl*(El-v)+ge*(Ee-v)+gi*(Ei-v)-
         g_na*(m*m*m)*h*(v-ENa)-
         g_kd*(n*n*n*n)*(v-EK))/Cm : volt
dm/dt = alpha_m*(1-m)-beta_m*m : 1
dn/dt = alpha_n*(1-n)-beta_n*n : 1
dh/dt = alpha_h*(1-h)-beta_h*h : 1
dge/dt = -ge*(1./taue) : siemens
dgi/dt = -gi*(1./taui) : siemens
alpha_m = 0.32*(mV**-1)*4*mV/exprel((13*mV-v+VT)/(4*mV))/ms : Hz
beta_m = 0.28*(mV**-1)*5*mV/exprel((v-VT-40*mV)/(5*mV))/ms : Hz
alpha_h = 0.128*exp((17*mV-v+VT)/(18*mV))/ms : Hz
beta_h = 4./(1+exp((40*mV-v+VT)/(5*mV)))/ms : Hz
alpha_n = 0.032*(mV**-1)*5*mV/exprel((15*mV-v+VT)/(5*mV))/ms : Hz
beta_n = .5*exp((10*mV-v+VT)/(40*mV))/ms : Hz
"""


def test_cobahh_has_the_spike_times_of_the_brian2_script():
    circuit = mgd.load(NETLISTS / "brian2_cobahh.yaml", n_e=160, n_i=40, p=0.1)
    session = session_of(circuit, seed=5)
    both = {v: np.concatenate([session.view(f"{p}.{v}").ravel() for p in ("exc", "inh")]) for v in ("v", "ge", "gi")}
    session.run("40*ms")

    area = 20000 * b2.umetre**2
    names = {
        "Cm": (1 * b2.ufarad * b2.cm**-2) * area, "gl": (5e-5 * b2.siemens * b2.cm**-2) * area,
        "El": -60 * b2.mV, "EK": -90 * b2.mV, "ENa": 50 * b2.mV, "g_na": (100 * b2.msiemens * b2.cm**-2) * area,
        "g_kd": (30 * b2.msiemens * b2.cm**-2) * area, "VT": -63 * b2.mV, "taue": 5 * b2.ms, "taui": 10 * b2.ms,
        "Ee": 0 * b2.mV, "Ei": -80 * b2.mV, "we": 6 * b2.nS, "wi": 67 * b2.nS,
    }  # fmt: skip
    P = b2.NeuronGroup(  # noqa: N806
        200, COBAHH, threshold="v>-20*mV", refractory=3 * b2.ms, method="exponential_euler", namespace=names
    )
    P.v_, P.ge_, P.gi_ = both["v"], both["ge"], both["gi"]
    Ce = b2.Synapses(P[:160], P, on_pre="ge+=we", namespace=names)  # noqa: N806
    Ci = b2.Synapses(P[160:], P, on_pre="gi+=wi", namespace=names)  # noqa: N806
    for synapses, key in ((Ce, "exc"), (Ci, "inh")):
        i, j = joined(circuit, key)
        synapses.connect(i=i, j=j)
    exc, inh = b2.SpikeMonitor(P[:160]), b2.SpikeMonitor(P[160:])
    b2.Network(P, Ce, Ci, exc, inh).run(40 * b2.ms)

    assert len(exc.t) > 30 and len(inh.t) > 5
    assert_same_spikes(session, "exc", exc)
    assert_same_spikes(session, "inh", inh)


def test_stdp_has_the_spike_times_and_weights_of_the_brian2_script():
    circuit = mgd.load(NETLISTS / "brian2_stdp.yaml", n_inputs=300, F="50*Hz")
    session = session_of(circuit, seed=1)
    name = "poisson_input_to_neurons.w"
    start = session.view(name).ravel().copy()
    session.run("400*ms")
    times, units = session.spikes("poisson_input")

    gmax, taupre = 0.01, 20 * b2.ms
    names = {
        "taum": 10 * b2.ms, "taupre": taupre, "taupost": taupre, "Ee": 0 * b2.mV, "vt": -54 * b2.mV, "vr": -60 * b2.mV,
        "El": -74 * b2.mV, "taue": 5 * b2.ms, "gmax": gmax, "dApre": 0.01 * gmax, "dApost": -0.01 * gmax * 1.05,
    }  # fmt: skip
    poisson = b2.SpikeGeneratorGroup(300, units, times * b2.second)
    neurons = b2.NeuronGroup(
        1,
        """dv/dt = (ge * (Ee-v) + El - v) / taum : volt
           dge/dt = -ge / taue : 1""",
        threshold="v>vt",
        reset="v = vr",
        method="euler",
        namespace=names,
    )
    S = b2.Synapses(  # noqa: N806
        poisson,
        neurons,
        """w : 1
           dApre/dt = -Apre / taupre : 1 (event-driven)
           dApost/dt = -Apost / taupost : 1 (event-driven)""",
        on_pre="""ge += w
                  Apre += dApre
                  w = clip(w + Apost, 0, gmax)""",
        on_post="""Apost += dApost
                   w = clip(w + Apre, 0, gmax)""",
        namespace=names,
    )
    S.connect()
    S.w_ = start
    monitor = b2.SpikeMonitor(neurons)
    b2.Network(poisson, neurons, S, monitor).run(400 * b2.ms)

    assert len(monitor.t) > 5
    assert_same_spikes(session, "neurons", monitor)
    assert np.abs(S.w_[:] - start).max() > 1e-4
    np.testing.assert_allclose(session.view(name).ravel(), S.w_[:], rtol=1e-12, atol=1e-16)


def test_brian2_objects_run_in_a_network_and_can_be_watched():
    circuit = mgd.load(NETLISTS / "brian2_cuba.yaml", n_e=160, n_i=40, p=0.2)
    session = session_of(circuit, seed=4)
    session.watch("exc.v", units=[0, 7])
    session.run("20*ms")
    session.run(0.01)

    objects = circuit.brian2(seed=4)
    exc, inh = b2.SpikeMonitor(objects["exc"]), b2.SpikeMonitor(objects["inh"])
    voltage = b2.StateMonitor(objects["exc"], "v", record=[0, 7])
    b2.Network(*objects, exc, inh, voltage).run(30 * b2.ms)

    assert len(exc.t) > 10
    assert_same_spikes(session, "exc", exc)
    assert_same_spikes(session, "inh", inh)
    times, values = session.trace("exc.v")
    np.testing.assert_allclose(times, voltage.t_, atol=1e-12)
    np.testing.assert_allclose(values.T, voltage.v_, rtol=1e-12)


EVENTS = """
circuit: events
parameters: {tau: 10*ms, tau_s: 4*ms, tau_x: 30*ms, n: 12}
clocks: {dt: 0.1*ms}
kinds:
  neuron:
    equations: |
      dv/dt = (drive + I + 0.3*x - v)/tau : 1 (unless refractory)
      dx/dt = -x/tau_x : 1
      fast = v*(1 + x) : 1
      drive : 1
      I : 1
    threshold: fast > 1
    reset: |
      v = 0.1*x
      x += 0.01
    refractory: 1*ms + 1*ms*x
    method: euler
    initial: {v: rand(), drive: 1.1 + 0.3*rand()}
populations:
  a: {shape: n, kind: neuron}
  b: {shape: n, kind: neuron}
synapses:
  a -> b:
    sparse: 0.5
    equations: |
      I_post = w*s : 1 (summed)
      ds/dt = -s/tau_s + 0.001*v_post/ms : 1
      w : 1
    on_pre: s += 1
    delay: 0.7*ms
    method: euler
    initial: {w: 0.05*rand()}
  b -> a:
    sparse: 0.5
    equations: |
      I_post = 0.02*(fast_pre - v_post) : 1 (summed)
      w : 1
    on_pre: x_post = clip(x_post + w*(1 - x_post), 0, 1)
    delay: 0.5*ms + 0.1*ms*((i + 2*j) % 7)
    initial: {w: 0.3*rand()}
  a -> a:
    sparse: {probability: 0.4, self: false}
    equations: |
      I_post = -0.1*s : 1 (summed)
      ds/dt = -s/tau_s : 1 (clock-driven)
      dtag/dt = -tag/tau_x : 1 (event-driven)
      w : 1
    on_pre: |
      v_post += w
      s += 1
      tag += 1
    on_post: |
      x_pre += 0.01*tag
      w = clip(w - 0.01*tag, -0.2, 0.2)
    method: exact
    initial: {w: 0.1*rand()}
"""


@pytest.fixture
def events(tmp_path):
    """Delays, refractoriness, subexpressions, resets that read, two summed couplings, writes of every kind."""
    (tmp_path / "events.yaml").write_text(EVENTS)
    return mgd.load(tmp_path / "events.yaml")


def test_every_kind_of_event_is_what_brian2_makes_of_it(events):
    session = session_of(events, seed=2)
    session.watch("a.v", "a.x", "b.v")
    session.run("60*ms")
    objects = events.brian2(seed=2)
    monitors = {p: b2.SpikeMonitor(objects[p]) for p in ("a", "b")}
    states = {p: b2.StateMonitor(objects[p], ["v", "x"], record=True) for p in ("a", "b")}
    b2.Network(*objects, *monitors.values(), *states.values()).run(60 * b2.ms)
    for population, monitor in monitors.items():
        assert len(monitor.t) > 20
        assert_same_spikes(session, population, monitor)
    np.testing.assert_allclose(session.trace("a.v")[1].T, states["a"].v_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(session.trace("a.x")[1].T, states["a"].x_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(session.trace("b.v")[1].T, states["b"].v_, rtol=1e-9, atol=1e-12)
    w = objects.couplings["a_to_a"].w_[:]
    np.testing.assert_allclose(session.view("a_to_a.w").ravel(), w, rtol=1e-9, atol=1e-12)


def test_replicas_are_as_many_single_circuits(events):
    together = session_of(events, members=2, batch=2, seed=[2, 9])
    together.run("30*ms")
    alone = session_of(events, seed=9)
    alone.run("30*ms")
    times, units, replica = together.spikes("a")
    own_times, own_units = alone.spikes("a")
    chosen = replica == 2  # member 1, entry 0: the same keys as alone
    assert chosen.sum() > 5
    np.testing.assert_array_equal(times[chosen], own_times)
    np.testing.assert_array_equal(units[chosen], own_units)


def test_several_circuits_live_in_one_process(events):
    first, second = events.brian2(seed=1), events.brian2(seed=1)
    monitors = [b2.SpikeMonitor(o["a"]) for o in (first, second)]
    b2.Network(*first, monitors[0]).run(15 * b2.ms)
    b2.Network(*second, monitors[1]).run(15 * b2.ms)
    np.testing.assert_array_equal(monitors[0].t_, monitors[1].t_)
    names = {o.name for o in (*first, *second)}
    assert len(names) == len([*first, *second])


def test_memoryless_circuits_have_brian2_objects(tmp_path):
    text = """
circuit: chain
kinds:
  tanh:
    equations: |
      x = tanh(I + b + theta) : 1
      I : 1
      b : 1 (plastic)
      theta : 1 (perturbation)
    initial: {b: rand()}
  weights:
    equations: |
      I_post = w*x_pre : 1 (summed)
      w : 1 (plastic)
    initial: {w: randn()}
chain:
  - input: {shape: 3, equations: "x : 1"}
  - hidden: {shape: 4, kind: tanh, via: weights}
  - output: {shape: 2, kind: tanh, via: weights}
task: {x_input: x, target: y}
cost: {C: mean((x_output - target)**2)}
"""
    (tmp_path / "chain.yaml").write_text(text)
    circuit = mgd.load(tmp_path / "chain.yaml")
    session = session_of(circuit, seed=1)
    sample = np.array([[0.3, -0.5, 0.8]])
    session.present(sample)
    objects = circuit.brian2(seed=1, values={"input.x": sample})
    b2.Network(*objects).run(session.clocks.tau_p * b2.second)
    np.testing.assert_allclose(objects["output"].x_[:], session.outputs()[0], rtol=1e-12)


def test_the_cpp_target_says_that_it_cannot_spike_yet():
    circuit = mgd.load(NETLISTS / "brian2_cuba.yaml", n_e=16, n_i=4, p=0.5)
    with pytest.raises(mgd.errors.BuildError, match="spiking circuits run on the numpy target so far"):
        mgd.Session(circuit)
