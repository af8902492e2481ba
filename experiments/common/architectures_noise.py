"""Noise of the estimates of architectures.py at the initial parameters, measured and predicted."""

from __future__ import annotations

import numpy as np

import mgdcircuits as mgd
from common import architectures_recurrent as recurrent
from common.architectures_cases import Case
from mgdcircuits import randomness
from mgdcircuits.analysis.convergence import Accumulated
from mgdcircuits.analysis.prediction import predict
from mgdcircuits.analysis.theory import node_perturbation, weight_perturbation

ROWS = 20
NEVER = "1000000000*iteration"
SETTLE, MEMORY = 300, 30
"""Trials before the estimate of a sequence is looked at, and that its baseline remembers."""


def convergence(case: Case, rule: str, seeds: list[int]) -> dict[str, tuple]:
    """K_eff of each member and cosines over draws, beside what gradients predict."""
    measure = _sequence if case.family == "sequence" else _pinned
    rows = np.unique(np.geomspace(5, case.draws, ROWS).astype(int))
    predicted, found = measure(case, rule, seeds, rows)
    return {
        "predicted_k_eff": (("seed",), predicted),
        "k_eff": (("seed",), found.across),
        "draws": (("row",), rows.astype(float)),
        "cosine": (("row", "seed"), found.cosine()),
    }


def _pinned(case: Case, rule: str, seeds: list[int], rows: np.ndarray) -> tuple[list[float], Accumulated]:
    """At the initial parameters, for training images that stay."""
    circuit = case.circuit(rule, tau_theta=NEVER)
    data = mgd.datasets.load("digits")
    chosen = np.stack([_images(seed, case.batch, len(data.x_train)) for seed in seeds])
    x, y = data.x_train[chosen] * np.float32(data.scale), data.y_train[chosen]
    session = case.session(circuit, seeds)
    session.present(x, y)
    if case.family == "settled":
        predicted, exact = _by_hand(case, rule, session, [(x[k], y[k]) for k in range(len(seeds))])
    else:
        predicted, exact = _predicted(circuit, session, x, y)
    found = Accumulated([exact])
    for n in rows:
        session.step(n - session.iteration)
        found.add(n, [_estimate(case, session)])
    return predicted, found


def _predicted(
    circuit: mgd.Circuit, session: mgd.Session, x: np.ndarray, y: np.ndarray
) -> tuple[list[float], np.ndarray]:
    """K_eff by `predict`, and the exact gradient of each member."""
    one = mgd.Session(circuit, batch=session.batch, target="numpy")
    predicted, exact = [], []
    for k in range(len(x)):
        for name, values in one.parameters.items():
            values[...] = session.parameters[name][k]
        one.present(x[k], y[k])
        gradient = one.exact_gradient()
        exact.append(np.concatenate([gradient[name].ravel() for name in circuit.plastic]))
        predicted.append(predict(one).network.across)
    return predicted, np.stack(exact)


def _by_hand(
    case: Case, rule: str, session: mgd.Session, samples: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[list[float], np.ndarray]:
    """The same for a circuit with dynamics, from slopes that are written out."""
    predicted, exact = [], []
    for k, (x, y) in enumerate(samples):
        own = {name: values[k] for name, values in session.parameters.items()}
        layers = recurrent.layers(case.family, own, x, y, case.settings.get("wait", 0))
        gradient = np.concatenate([layer.gradient().ravel() for layer in layers])
        law = weight_perturbation(gradient) if rule == "weight" else node_perturbation(layers)
        exact.append(gradient)
        predicted.append(law.across)
    return predicted, np.stack(exact)


def _estimate(case: Case, session: mgd.Session) -> np.ndarray:
    """The accumulated estimate of each member, in the order of the gradients."""
    found = session.gradient_estimate()
    if case.family in recurrent.ORDER:
        return recurrent.joined(case.family, found, session.members)
    return np.concatenate([found[name].reshape(session.members, -1) for name in session.circuit.plastic], axis=1)


def _images(seed: int, count: int, n: int) -> np.ndarray:
    return randomness.integer(randomness.site_key(seed, "pinned images"), np.arange(count), 0, 0, n)


def _sequence(case: Case, rule: str, seeds: list[int], rows: np.ndarray) -> tuple[list[float], Accumulated]:
    """The same for sequences, all four of which are shown in every trial; the noise of the baseline is predicted too."""
    circuit = case.circuit(rule, tau_theta=NEVER, memory=MEMORY, delta=0.01)
    session = case.session(circuit, seeds, data="xor")
    data, members = session.dataset, len(seeds)
    predicted, exact = _by_hand(case, rule, session, [(data.x_train, data.y_train)] * members)
    predicted = [k * (1 + 1 / (2 * MEMORY - 1)) for k in predicted]
    session.step(SETTLE)
    before = SETTLE * _estimate(case, session)
    found = Accumulated([exact])
    for n in rows:
        session.step(SETTLE + n - session.iteration)
        total = session.iteration * _estimate(case, session)
        found.add(n, [(total - before) / n])
    return predicted, found
