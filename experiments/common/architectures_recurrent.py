"""Slopes of the recurrent circuits of architectures.py, written out by hand: circuits with dynamics have no exact gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mgdcircuits.analysis.theory import NodeLayer

Values = Mapping[str, np.ndarray]
ORDER = {
    "sequence": (("input.w", "recurrent.w", "net.b"), ("readout.w", "out.b")),
    "settled": (("hidden.w", "recurrent.w", "hidden.b"), ("logits.w", "logits.b")),
}
"""Parameters of each layer, the last of which is the bias."""


def layers(family: str, parameters: Values, x: np.ndarray, y: np.ndarray, wait: int = 0) -> list[NodeLayer]:
    """The recurrent layer and the output of one member."""
    own = {name: np.asarray(values, float) for name, values in parameters.items()}
    return _sequence(own, x, y, wait) if family == "sequence" else _settled(own, np.asarray(x, float), y)


def joined(family: str, values: Values, members: int) -> np.ndarray:
    """Parameters of all members side by side, (member, elements), in the order of the gradients of `layers`."""
    found = []
    for names in ORDER[family]:
        channels = np.asarray(values[names[-1]]).size // members
        parts = [np.asarray(values[n], float).reshape(members, channels, -1) for n in names]
        found.append(np.concatenate(parts, axis=2).reshape(members, -1))
    return np.concatenate(found, axis=1)


def _sequence(own: Values, x: np.ndarray, y: np.ndarray, wait: int) -> list[NodeLayer]:
    """Reverse mode through time; the steps of a sequence are the positions of the recurrent layer."""
    feed, recurrent, bias, readout = (own[n] for n in ("input.w", "recurrent.w", "net.b", "readout.w"))
    steps, samples = wait + 3, len(x)
    shown = np.zeros((samples, steps, 2))
    shown[:, 0, 0], shown[:, wait + 1, 1] = (2 * np.asarray(x, float) - 1).T
    state = np.zeros((samples, steps + 1, len(bias)))
    for t in range(steps):
        state[:, t + 1] = np.tanh(shown[:, t] @ feed.T + state[:, t] @ recurrent.T + bias)
    error = 2 * (state[:, -1] @ readout.T + own["out.b"] - (2 * np.asarray(y, float).reshape(-1, 1) - 1))
    slopes = np.zeros((samples, len(bias), steps))
    back = error @ readout
    for t in reversed(range(steps)):
        slopes[:, :, t] = back * (1 - state[:, t + 1] ** 2)
        back = slopes[:, :, t] @ recurrent
    ones = np.ones((samples, steps, 1))
    net = NodeLayer(slopes, np.concatenate([shown, state[:, :-1], ones], axis=2))
    return [net, _last(error, state[:, -1])]


def _settled(own: Values, x: np.ndarray, y: np.ndarray) -> list[NodeLayer]:
    """At the fixed point U = w x + r tanh(U) + b: a perturbation moves it by the inverse of 1 - r*tanh'(U)."""
    recurrent = own["recurrent.w"]
    drive = x.reshape(len(x), -1) @ own["hidden.w"].T + own["hidden.b"]
    potential = drive
    for _ in range(500):
        potential = drive + np.tanh(potential) @ recurrent.T
    state = np.tanh(potential)
    logits = state @ own["logits.w"].T + own["logits.b"]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    error = odds / odds.sum(1, keepdims=True) - np.eye(logits.shape[1])[np.asarray(y, int)]
    gain = 1 - state**2
    back = (error @ own["logits.w"]) * gain
    slopes = [np.linalg.solve(np.eye(len(recurrent)) - (recurrent * g).T, s) for g, s in zip(gain, back, strict=True)]
    inputs = np.concatenate([x.reshape(len(x), -1), state, np.ones((len(x), 1))], axis=1)
    return [NodeLayer(np.array(slopes)[:, :, None], inputs[:, None]), _last(error, state)]


def _last(error: np.ndarray, state: np.ndarray) -> NodeLayer:
    inputs = np.concatenate([state, np.ones((len(state), 1))], axis=1)
    return NodeLayer(error[:, :, None], inputs[:, None])
