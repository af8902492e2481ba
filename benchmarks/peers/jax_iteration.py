"""One iteration of perturbative learning in JAX: any number of iterations in one jit-compiled loop.

A variant is a set of words: `stacked` runs passes that meet the same parameters side by side, as in the PyTorch version.
Signs are bits of random words, one word for 32 parameters; `plain` draws each with `jax.random.rademacher`.
"""

from __future__ import annotations

import math
import os

from benchmarks.networks import CLASSES, Conv, Dense, Pool, input_shape, network
from benchmarks.worker import Iteration, serve

DELTA = 0.01
ETA = 0.002


def build(work: dict) -> Iteration:
    """The iteration of this work order."""
    if work["threads"] < len(os.sched_getaffinity(0)):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: work["threads"]])
    import jax
    import jax.numpy as jnp

    layers = network(work)
    trained = [k for k, layer in enumerate(layers) if not isinstance(layer, Pool)]
    words = work["variant"].split("-")
    n, stacked, plain = work["batch"], "stacked" in words, "plain" in words

    def initial(layer, key):
        if isinstance(layer, Pool):
            return None
        k = 9 if isinstance(layer, Conv) else 1
        bound = math.sqrt(6 / (k * (layer.inputs + layer.outputs)))
        shape = (*((3, 3) if k == 9 else ()), layer.inputs, layer.outputs)
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound), jnp.zeros(layer.outputs)

    shape = input_shape(work)
    x = jax.random.uniform(jax.random.PRNGKey(1), (n, *(shape[1:] + shape[:1])))
    target = jax.nn.one_hot(jax.random.randint(jax.random.PRNGKey(2), (n,), 0, CLASSES), CLASSES)

    def linear(layer, p, a):
        if isinstance(layer, Conv):
            dims = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(a, p[0], (1, 1), "SAME", dimension_numbers=dims) + p[1]
        return a.reshape(len(a), -1) @ p[0] + p[1]

    def activate(layer, z):
        return jnp.tanh(z) if isinstance(layer, Conv) or layer.tanh else z

    def apply(layer, p, a):
        if isinstance(layer, Pool):
            return jax.lax.reduce_window(a, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return activate(layer, linear(layer, p, a))

    def onward(params, a, first):
        for layer, p in zip(layers[first:], params[first:], strict=True):
            a = apply(layer, p, a)
        return a

    def cost(y):
        return -(jax.nn.log_softmax(y) * target).sum(-1)

    def signs_like(key, shapes):
        """Random signs of these shapes."""
        if plain:
            keys = jax.random.split(key, len(shapes))
            return [jax.random.rademacher(k, shape, jnp.float32) for k, shape in zip(keys, shapes, strict=True)]
        sizes = [math.prod(s) for s in shapes]
        drawn = jax.random.bits(key, (-(-sum(sizes) // 32),), jnp.uint32)
        bits = (drawn[:, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
        signs = bits.reshape(-1).astype(jnp.float32) * 2 - 1
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        return [signs[s : s + m].reshape(shape) for s, m, shape in zip(starts, sizes, shapes, strict=True)]

    def changes_one_by_one(params, perturbed):
        acts = [x]
        for layer, p in zip(layers, params, strict=True):
            acts.append(apply(layer, p, acts[-1]))
        c0 = cost(acts[-1]).mean()
        ends = (onward(params, apply(layers[k], perturbed[k], acts[k]), k + 1) for k in trained)
        return [cost(y).mean() - c0 for y in ends]

    def changes_stacked(params, perturbed):
        a = x
        for k, layer in enumerate(layers):
            if isinstance(layer, Pool):
                a = apply(layer, None, a)
                continue
            a = activate(layer, jnp.concatenate([linear(layer, params[k], a), linear(layer, perturbed[k], a[:n])]))
        c = cost(a.reshape(-1, n, CLASSES)).mean(1)
        return list(c[1:] - c[0])

    def changes_whole(params, perturbed):
        return [cost(onward(perturbed, x, 0)).mean() - cost(onward(params, x, 0)).mean()] * len(trained)

    def weight_perturbation(params, key):
        whole = work["scheme"] == "whole"
        counts = [sum(layers[k].parameters for k in trained) if whole else layers[k].parameters for k in trained]
        scales = [DELTA / math.sqrt(count) for count in counts]
        signs = signs_like(key, [q.shape for k in trained for q in params[k]])
        signs = list(zip(signs[::2], signs[1::2], strict=True))
        perturbed = list(params)
        for k, scale, s in zip(trained, scales, signs, strict=True):
            perturbed[k] = tuple(q + scale * v for q, v in zip(params[k], s, strict=True))
        changes = changes_whole if whole else changes_stacked if stacked else changes_one_by_one
        new = list(params)
        for k, scale, s, change in zip(trained, scales, signs, changes(params, perturbed), strict=True):
            new[k] = tuple(q - ETA / scale * change * v for q, v in zip(params[k], s, strict=True))
        return new

    def node_perturbation(params, key):
        acts, currents = [x], {}
        for k, layer in enumerate(layers):
            if isinstance(layer, Pool):
                acts.append(apply(layer, None, acts[-1]))
            else:
                currents[k] = linear(layer, params[k], acts[-1])
                acts.append(activate(layer, currents[k]))
        c0 = cost(acts[-1])
        signs = signs_like(key, [(1, *currents[k].shape[1:]) for k in trained])
        new = list(params)
        for k, s in zip(trained, signs, strict=True):
            layer, amplitude = layers[k], DELTA / math.sqrt(layers[k].nodes)
            y = onward(params, activate(layer, currents[k] + amplitude * s), k + 1)
            change = (cost(y) - c0) / (n * amplitude)
            seen = jnp.tensordot(change, acts[k], 1)[None]
            weight = correlate(layer, params[k][0], seen, s)
            bias = s.sum(tuple(range(s.ndim - 1))) * change.sum()
            new[k] = (params[k][0] - ETA * weight, params[k][1] - ETA * bias)
        return new

    def correlate(layer, weight, seen, codes):
        """Sum over positions of activity times code, for every weight."""
        if isinstance(layer, Dense):
            return seen.reshape(-1, 1) * codes
        _, back = jax.vjp(lambda w: linear(layer, (w, 0.0), seen), weight)
        return back(codes)[0]

    one = node_perturbation if work["scheme"] == "node" else weight_perturbation

    def iteration(_, carry):
        params, key = carry
        key, now = jax.random.split(key)
        return one(params, now), key

    loop = jax.jit(lambda carry, count: jax.lax.fori_loop(0, count, iteration, carry))
    keys = jax.random.split(jax.random.PRNGKey(0), len(layers))
    carry = ([initial(layer, key) for layer, key in zip(layers, keys, strict=True)], jax.random.PRNGKey(3))

    def run(count: int) -> None:
        nonlocal carry
        carry = jax.block_until_ready(loop(carry, count))

    return Iteration(run, lambda: cost(onward(carry[0], x, 0)).mean().item())


if __name__ == "__main__":
    serve(build)
