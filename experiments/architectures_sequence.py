"""Slopes of architectures/sequence.yaml, by reverse mode through time: circuits with dynamics have no exact gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mgdcircuits.analysis.theory import NodeLayer


def layers(parameters: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray, wait: int) -> list[NodeLayer]:
    """The recurrent layer and the output of one member; the steps of a sequence are the positions of a layer.

    Parameters
    ----------
    parameters
        `input.w`, `recurrent.w`, `net.b`, `readout.w`, `out.b`.
    x, y
        Bits (sample, 2), and whether they differ (sample, 1).
    """
    feed, recurrent, bias, readout = (
        np.asarray(parameters[n], float) for n in ("input.w", "recurrent.w", "net.b", "readout.w")
    )
    steps, samples = wait + 3, len(x)
    shown = np.zeros((samples, steps, 2))
    shown[:, 0, 0], shown[:, wait + 1, 1] = (2 * np.asarray(x, float) - 1).T
    state = np.zeros((samples, steps + 1, len(bias)))
    for t in range(steps):
        state[:, t + 1] = np.tanh(shown[:, t] @ feed.T + state[:, t] @ recurrent.T + bias)
    error = 2 * (state[:, -1] @ readout.T + parameters["out.b"] - (2 * np.asarray(y, float).reshape(-1, 1) - 1))
    slopes = np.zeros((samples, len(bias), steps))
    back = error @ readout
    for t in reversed(range(steps)):
        slopes[:, :, t] = back * (1 - state[:, t + 1] ** 2)
        back = slopes[:, :, t] @ recurrent
    ones = np.ones((samples, steps, 1))
    net = NodeLayer(slopes, np.concatenate([shown, state[:, :-1], ones], axis=2))
    out = NodeLayer(error[:, :, None], np.concatenate([state[:, -1:], ones[:, :1]], axis=2))
    return [net, out]


def joined(values: Mapping[str, np.ndarray], members: int) -> np.ndarray:
    """Parameters of all members side by side, (member, elements), in the order of the gradients of `layers`."""
    feed, recurrent, bias, readout, offset = (
        np.asarray(values[n], float).reshape(members, *shape)
        for n, shape in (
            ("input.w", (-1, 2)),
            ("recurrent.w", values["recurrent.w"].shape[-2:]),
            ("net.b", (-1, 1)),
            ("readout.w", (-1,)),
            ("out.b", (-1,)),
        )
    )
    net = np.concatenate([feed, recurrent, bias], axis=2)
    return np.concatenate([net.reshape(members, -1), readout, offset], axis=1)
