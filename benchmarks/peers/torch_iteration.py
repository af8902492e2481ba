"""One iteration of perturbative learning in PyTorch, in the forms a careful user would try.

A variant is a set of words: `nchw` or `nhwc` (layout of the maps), `plain` or `stacked` (see below), `compiled`
(torch.compile). All parameters are one flat vector, so that codes, perturbation and update are a few calls whatever the
number of layers; `plain` has calls for every parameter instead.

`stacked` runs passes side by side: those that are perturbed in an earlier layer meet the clean parameters of all later
layers, so they go through these together with the clean pass, as one larger batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from benchmarks.networks import CLASSES, Conv, Dense, Pool, input_shape, network
from benchmarks.worker import Iteration, serve

DELTA = 0.01  # perturbation norm of a layer; the amplitude is DELTA/sqrt(parameters of the layer)
ETA = 0.002


class Parameters:
    """Weights and biases of all layers as views of one flat vector."""

    def __init__(self, layers, nhwc: bool) -> None:
        self.layers, self.nhwc = layers, nhwc
        self.trained = [k for k, layer in enumerate(layers) if not isinstance(layer, Pool)]
        self.sizes = [layers[k].parameters for k in self.trained]
        self.starts = [sum(self.sizes[:k]) for k in range(len(self.sizes))]
        self.flat = torch.empty(sum(self.sizes))
        for k, (weight, bias) in self.views(self.flat).items():
            fan = 9 * (layers[k].inputs + layers[k].outputs) if isinstance(layers[k], Conv) else sum(weight.shape)
            weight.uniform_(-math.sqrt(6 / fan), math.sqrt(6 / fan))
            bias.zero_()

    def views(self, flat):
        """{number of the layer: (weight, bias)} of a vector that is laid out like `flat`."""
        found = {}
        for k, start, size in zip(self.trained, self.starts, self.sizes, strict=True):
            layer = self.layers[k]
            weight, bias = flat[start : start + size].split([size - layer.outputs, layer.outputs])
            if isinstance(layer, Dense):
                weight = weight.view(layer.outputs, layer.inputs)
            elif self.nhwc:
                weight = weight.view(layer.outputs, 3, 3, layer.inputs).permute(0, 3, 1, 2)
            else:
                weight = weight.view(layer.outputs, layer.inputs, 3, 3)
            found[k] = (weight, bias)
        return found

    def blocks(self, flat):
        """The vector cut into layers."""
        return flat.split(self.sizes)


def is_tanh(layer) -> bool:
    """Whether the units of a layer are nonlinear."""
    return isinstance(layer, Conv) or layer.tanh


def linear(layer, p, a):
    """What the units of a layer receive."""
    if isinstance(layer, Conv):
        return F.conv2d(a, p[0], p[1], padding=1)
    return F.linear(a.flatten(1), p[0], p[1])


def apply(layer, p, a):
    """One layer."""
    if isinstance(layer, Pool):
        return F.max_pool2d(a, 2)
    z = linear(layer, p, a)
    return z.tanh_() if is_tanh(layer) else z


def onward(layers, clean, a, first):
    """From the input of layer `first` to the output, unperturbed."""
    for k in range(first, len(layers)):
        a = apply(layers[k], clean.get(k), a)
    return a


def activities(layers, clean, x):
    """Inputs of every layer, and the output."""
    found = [x]
    for k, layer in enumerate(layers):
        found.append(apply(layer, clean.get(k), found[-1]))
    return found


def costs_one_by_one(layers, parameters, clean, perturbed, x, cost):
    """Change of the mean cost by the perturbation of each layer; one pass after another."""
    acts = activities(layers, clean, x)
    c0 = cost(acts[-1]).mean()
    changes = []
    for k in parameters.trained:
        y = onward(layers, clean, apply(layers[k], perturbed[k], acts[k]), k + 1)
        changes.append(cost(y).mean() - c0)
    return torch.stack(changes)


def costs_stacked(layers, parameters, clean, perturbed, x, cost):
    """The same with passes side by side."""
    a, n = x, len(x)
    for k, layer in enumerate(layers):
        if isinstance(layer, Pool):
            a = apply(layer, None, a)
            continue
        a = join(layer, linear(layer, clean[k], a), linear(layer, perturbed[k], a[:n]))
    c = cost(a.view(-1, n, CLASSES)).mean(1)
    return c[1:] - c[0]


def join(layer, *parts):
    """Activities of several groups of samples behind one another."""
    if not is_tanh(layer):
        return torch.cat(parts)
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    nhwc = parts[0].dim() == 4 and not parts[0].is_contiguous()
    joined = torch.empty(shape, memory_format=torch.channels_last if nhwc else torch.contiguous_format)
    for z, place in zip(parts, joined.split([len(z) for z in parts]), strict=True):
        torch.tanh(z, out=place)
    return joined


def costs_whole(layers, parameters, clean, perturbed, x, cost):
    """Change of the mean cost by the perturbation of all parameters at once."""
    c0, c1 = (cost(onward(layers, p, x, 0)).mean() for p in (clean, perturbed))
    return (c1 - c0).expand(len(parameters.trained))


SIGNS_OF_BYTE = ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).float() * 2 - 1


def signs_like(tensor):
    """New random signs, eight from each random byte: a hundred times as fast as a draw for each."""
    n = tensor.numel()
    words = torch.empty(-(-n // 64), dtype=torch.int64).random_(-(2**63), None)
    return SIGNS_OF_BYTE.index_select(0, words.view(torch.uint8).int()).view(-1)[:n].view(tensor.shape)


def weight_perturbation(work, layers, parameters, x, cost):
    """One iteration of weight perturbation, by layers or of the whole network."""
    whole = work["scheme"] == "whole"
    sizes = torch.tensor(parameters.sizes)
    counted = sizes.sum().expand(len(sizes)) if whole else sizes
    scale = DELTA / counted.float().sqrt()
    amplitude = scale.repeat_interleave(sizes)
    clean = parameters.views(parameters.flat)
    changes = costs_whole if whole else costs_stacked if "stacked" in work["variant"] else costs_one_by_one

    def iteration():
        signs = signs_like(parameters.flat)
        perturbed = parameters.views(torch.addcmul(parameters.flat, signs, amplitude))
        steps = changes(layers, parameters, clean, perturbed, x, cost) * (-ETA / scale)
        for block, sign, step in zip(
            parameters.blocks(parameters.flat), parameters.blocks(signs), steps.unbind(), strict=True
        ):
            block.addcmul_(sign, step)

    return iteration


def plain_weight_perturbation(work, layers, parameters, x, cost):
    """The same as most would write it: every parameter is drawn, perturbed and updated by calls of its own."""
    clean = parameters.views(parameters.flat)
    whole = work["scheme"] == "whole"
    changes = costs_whole if whole else costs_one_by_one

    def iteration():
        perturbed, drawn = {}, []
        for k, size in zip(parameters.trained, parameters.sizes, strict=True):
            amplitude = DELTA / math.sqrt(sum(parameters.sizes) if whole else size)
            signs = [torch.empty_like(q).random_(0, 2).mul_(2).sub_(1) for q in clean[k]]
            perturbed[k] = tuple(torch.add(q, s, alpha=amplitude) for q, s in zip(clean[k], signs, strict=True))
            drawn.append((clean[k], signs, ETA / amplitude))
        found = changes(layers, parameters, clean, perturbed, x, cost)
        for (values, signs, rate), change in zip(drawn, found.unbind(), strict=True):
            for q, s in zip(values, signs, strict=True):
                q.sub_(s.mul_(rate * change))

    return iteration


def node_perturbation(work, layers, parameters, x, cost):
    """One iteration of node perturbation by layers: codes per unit, common to the batch."""
    clean = parameters.views(parameters.flat)
    n = len(x)

    def iteration():
        acts, currents = [x], {}
        for k, layer in enumerate(layers):
            if isinstance(layer, Pool):
                acts.append(apply(layer, None, acts[-1]))
                continue
            currents[k] = linear(layer, clean[k], acts[-1])
            acts.append(currents[k].tanh() if is_tanh(layer) else currents[k])
        c0 = cost(acts[-1])
        updates = []
        for k in parameters.trained:
            layer = layers[k]
            amplitude = DELTA / math.sqrt(layer.nodes)
            signs = signs_like(currents[k][:1])
            y = currents[k] + amplitude * signs
            y = y.tanh_() if is_tanh(layer) else y
            change = (cost(onward(layers, clean, y, k + 1)) - c0) * (1 / (n * amplitude))
            # The codes are common to the batch, so the activities are averaged first and correlated once.
            seen = (change @ acts[k].reshape(n, -1)).view(1, *acts[k].shape[1:])
            if isinstance(layer, Conv):
                weight = torch.nn.grad.conv2d_weight(seen, clean[k][0].shape, signs, padding=1)
                bias = signs.sum((0, 2, 3)) * change.sum()
            else:
                weight = signs.T * seen.flatten(1)
                bias = signs[0] * change.sum()
            updates.append((k, weight, bias))
        for k, weight, bias in updates:
            clean[k][0].sub_(weight, alpha=ETA)
            clean[k][1].sub_(bias, alpha=ETA)

    return iteration


def build(work: dict) -> Iteration:
    """The iteration of this work order."""
    torch.set_num_threads(work["threads"])
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    layers = network(work)
    words = work["variant"].split("-")
    nhwc = "nhwc" in words
    parameters = Parameters(layers, nhwc)
    x = torch.rand(work["batch"], *input_shape(work))
    if nhwc and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    target = F.one_hot(torch.randint(0, CLASSES, (work["batch"],)), CLASSES).float()

    def cost(y):
        return -(torch.log_softmax(y, -1) * target).sum(-1)

    made = plain_weight_perturbation if "plain" in words else weight_perturbation
    made = node_perturbation if work["scheme"] == "node" else made
    iteration = made(work, layers, parameters, x, cost)
    if "compiled" in words:
        iteration = torch.compile(iteration, dynamic=False)

    def run(n: int) -> None:
        with torch.inference_mode("compiled" not in words):
            for _ in range(n):
                iteration()

    clean = parameters.views(parameters.flat)
    return Iteration(run, lambda: cost(onward(layers, clean, x, 0)).mean().item())


if __name__ == "__main__":
    serve(build)
