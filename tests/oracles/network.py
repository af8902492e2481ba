"""Feed-forward networks in plain numpy, float64, with backpropagation written out by hand.

Two kinds of couplings that know nothing of each other, so that they can be checked against one another:

* `Dense`, `Conv2d`, `MaxPool`, `MeanPool`: the usual w*x on whole arrays, a convolution as a loop over its kernel;
* `Edges`: a list of synapses (pre, post, which parameter), built by plain loops for every topology, with any synaptic
  function. Slow, and simple enough to be believed.

All arrays have the batch first. Gradients are per sample, that is, of each sample's own cost; their mean over the batch
is the gradient of the mean cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

Arrays = Mapping[str, np.ndarray]
Function = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Neuron:
    """y = f(u) of the summed current plus bias, and its derivative, a.e."""

    f: Function
    df: Function


TANH = Neuron(np.tanh, lambda u: 1 / np.cosh(u) ** 2)
LINEAR = Neuron(lambda u: u, np.ones_like)
CLIP = Neuron(lambda u: np.clip(u, 0, 1), lambda u: ((u > 0) & (u < 1)).astype(float))


@dataclass(frozen=True)
class Synapse:
    """What one synapse contributes, as a function of its parameter, x_pre and v_post, with the three derivatives."""

    f: Function
    dw: Function
    dx: Function
    dv: Function


def _zero(w, x, v):
    return np.zeros(np.broadcast_shapes(np.shape(w), np.shape(x), np.shape(v)))


BILINEAR = Synapse(lambda w, x, v: w * x, lambda w, x, v: x + 0 * w, lambda w, x, v: w + 0 * x, _zero)


def sinh_synapse(a: float) -> Synapse:
    """w*sinh(x_pre/a)*a."""
    return Synapse(
        lambda w, x, v: w * np.sinh(x / a) * a,
        lambda w, x, v: np.sinh(x / a) * a + 0 * w,
        lambda w, x, v: w * np.cosh(x / a),
        _zero,
    )


def driving_force(e: float) -> Synapse:
    """w*(E - v_post): a conductance that pulls towards E and does not look at the pre-synaptic side."""
    return Synapse(
        lambda w, x, v: w * (e - v) + 0 * x,
        lambda w, x, v: (e - v) + 0 * (w * x),
        _zero,
        lambda w, x, v: -w + 0 * (x * v),
    )


def gated_driving_force(e: float) -> Synapse:
    """w*x_pre*(E - v_post): the same, opened by the pre-synaptic side."""
    return Synapse(
        lambda w, x, v: w * x * (e - v),
        lambda w, x, v: x * (e - v) + 0 * w,
        lambda w, x, v: w * (e - v) + 0 * x,
        lambda w, x, v: -w * x + 0 * v,
    )


class Coupling(Protocol):
    """From (batch, *pre) to (batch, *post); `v` is a post-synaptic variable, (*post,), for those that read one."""

    def forward(self, w: np.ndarray | None, x: np.ndarray, v: np.ndarray | None) -> np.ndarray: ...

    def backward(
        self, w: np.ndarray | None, x: np.ndarray, v: np.ndarray | None, g: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
        """Gradients per sample with respect to w, x and v, given g with respect to the current."""
        ...


class Dense:
    """w: (post, pre)."""

    def forward(self, w, x, v):
        return x.reshape(len(x), -1) @ w.T

    def backward(self, w, x, v, g):
        flat = x.reshape(len(x), -1)
        return g[:, :, None] * flat[:, None, :], (g @ w).reshape(x.shape), None


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _positions(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@dataclass(frozen=True)
class Conv2d:
    """w: (out, in/groups, ky, kx). One pass over the whole image for each kernel entry."""

    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1

    def _windows(self, w, x):
        """The padded image, and for each kernel entry the part of it that meets the entry."""
        (sy, sx), (py, px), (dy, dx) = _pair(self.stride), _pair(self.padding), _pair(self.dilation)
        padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
        ky, kx = w.shape[2:]
        ny = _positions(x.shape[2], ky, sy, py, dy)
        nx = _positions(x.shape[3], kx, sx, px, dx)
        parts = {}
        for p in range(ky):
            for q in range(kx):
                rows = slice(p * dy, p * dy + (ny - 1) * sy + 1, sy)
                columns = slice(q * dx, q * dx + (nx - 1) * sx + 1, sx)
                parts[p, q] = (slice(None), slice(None), rows, columns)
        return padded, parts, (ny, nx)

    def forward(self, w, x, v):
        padded, parts, size = self._windows(w, x)
        out, into = len(w) // self.groups, w.shape[1]
        current = np.zeros((len(x), len(w), *size))
        for (p, q), part in parts.items():
            window = padded[part]
            for k in range(self.groups):
                o, c = slice(k * out, (k + 1) * out), slice(k * into, (k + 1) * into)
                current[:, o] += np.einsum("oc,bcyx->boyx", w[o, :, p, q], window[:, c], optimize=True)
        return current

    def backward(self, w, x, v, g):
        padded, parts, _ = self._windows(w, x)
        out, into = len(w) // self.groups, w.shape[1]
        gw = np.zeros((len(x), *w.shape))
        gpadded = np.zeros_like(padded)
        for (p, q), part in parts.items():
            window = padded[part]
            gwindow = gpadded[part]  # a view
            for k in range(self.groups):
                o, c = slice(k * out, (k + 1) * out), slice(k * into, (k + 1) * into)
                gw[:, o, :, p, q] = np.einsum("boyx,bcyx->boc", g[:, o], window[:, c], optimize=True)
                gwindow[:, c] += np.einsum("oc,boyx->bcyx", w[o, :, p, q], g[:, o], optimize=True)
        py, px = _pair(self.padding)
        return gw, gpadded[:, :, py : py + x.shape[2], px : px + x.shape[3]], None


@dataclass(frozen=True)
class MaxPool:
    """Windows that do not overlap and no padding; of equal values the first in reading order wins."""

    size: int = 2

    def _windows(self, x):
        b, c, h, w = x.shape
        s = self.size
        x = x[:, :, : h // s * s, : w // s * s].reshape(b, c, h // s, s, w // s, s)
        return x.transpose(0, 1, 2, 4, 3, 5).reshape(b, c, h // s, w // s, s * s)

    def forward(self, w, x, v):
        return self._windows(x).max(axis=-1)

    def backward(self, w, x, v, g):
        winner = self._windows(x).argmax(axis=-1)  # numpy: the first of equals
        gx = np.zeros_like(x)
        b, c, y, z = np.indices(winner.shape)
        gx[b, c, y * self.size + winner // self.size, z * self.size + winner % self.size] = g
        return None, gx, None


@dataclass(frozen=True)
class MeanPool:
    """Windows that do not overlap and no padding."""

    size: int = 2

    def forward(self, w, x, v):
        return MaxPool(self.size)._windows(x).mean(axis=-1)

    def backward(self, w, x, v, g):
        s = self.size
        gx = np.zeros_like(x)
        wide = np.repeat(np.repeat(g, s, axis=2), s, axis=3) / s**2
        gx[:, :, : wide.shape[2], : wide.shape[3]] = wide
        return None, gx, None


@dataclass(frozen=True)
class Edges:
    """A list of synapses, in reading order of each post-synaptic unit's window, reduced by sum, mean or max."""

    pre: np.ndarray
    post: np.ndarray
    index: np.ndarray  # which entry of the flattened parameter
    post_shape: tuple[int, ...]
    synapse: Synapse = BILINEAR
    reduce: str = "sum"

    @property
    def _n(self) -> int:
        return int(np.prod(self.post_shape))

    def _arguments(self, w, x, v):
        ws = 1.0 if w is None else w.ravel()[self.index]
        vs = 0.0 if v is None else v.ravel()[self.post]
        return ws, x.reshape(len(x), -1)[:, self.pre], vs

    def _weights(self, terms):
        """The derivative of the reduction with respect to each synapse's term, (batch, edges)."""
        if self.reduce == "sum":
            return np.ones_like(terms)
        if self.reduce == "mean":
            return np.ones_like(terms) / np.bincount(self.post, minlength=self._n)[self.post]
        chosen = np.zeros_like(terms)
        for unit in range(self._n):
            (mine,) = np.nonzero(self.post == unit)
            winner = mine[terms[:, mine].argmax(axis=1)]
            chosen[np.arange(len(terms)), winner] = 1
        return chosen

    def forward(self, w, x, v):
        terms = self.synapse.f(*self._arguments(w, x, v))
        return _collect(terms * self._weights(terms), self.post, self._n).reshape(len(x), *self.post_shape)

    def backward(self, w, x, v, g):
        arguments = self._arguments(w, x, v)
        share = self._weights(self.synapse.f(*arguments)) * g.reshape(len(x), -1)[:, self.post]
        gx = _collect(share * self.synapse.dx(*arguments), self.pre, x[0].size).reshape(x.shape)
        gw = gv = None
        if w is not None:
            gw = _collect(share * self.synapse.dw(*arguments), self.index, w.size).reshape(len(x), *w.shape)
        if v is not None:
            gv = _collect(share * self.synapse.dv(*arguments), self.post, v.size).reshape(len(x), *v.shape)
        return gw, gx, gv


def _collect(values: np.ndarray, where: np.ndarray, n: int) -> np.ndarray:
    return np.stack([np.bincount(where, row, n) for row in values])


def dense_edges(n_pre: int, post_shape: tuple[int, ...], synapse: Synapse = BILINEAR) -> Edges:
    """Parameter of shape (post, pre)."""
    n_post = int(np.prod(post_shape))
    post, pre = np.divmod(np.arange(n_post * n_pre), n_pre)
    return Edges(pre, post, np.arange(n_post * n_pre), post_shape, synapse)


def one_to_one_edges(shape: tuple[int, ...], synapse: Synapse = BILINEAR) -> Edges:
    """Parameter of shape (units,)."""
    units = np.arange(int(np.prod(shape)))
    return Edges(units, units, units, shape, synapse)


def conv_edges(
    pre_shape: tuple[int, int, int],
    out: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    synapse: Synapse = BILINEAR,
) -> Edges:
    """Parameter of shape (out, in/groups, ky, kx). Outside of the image there is no synapse."""
    channels, h, w = pre_shape
    (ky, kx), (sy, sx), (py, px), (dy, dx) = (_pair(p) for p in (kernel, stride, padding, dilation))
    ny, nx = _positions(h, ky, sy, py, dy), _positions(w, kx, sx, px, dx)
    into = channels // groups
    edges = []
    for o in range(out):
        group = o // (out // groups)
        for y in range(ny):
            for x in range(nx):
                for c in range(into):
                    for p in range(ky):
                        for q in range(kx):
                            row, column = y * sy + p * dy - py, x * sx + q * dx - px
                            if 0 <= row < h and 0 <= column < w:
                                pre = ((group * into + c) * h + row) * w + column
                                edges.append((pre, (o * ny + y) * nx + x, ((o * into + c) * ky + p) * kx + q))
    pre, post, index = np.array(edges).T
    return Edges(pre, post, index, (out, ny, nx), synapse)


def pool_edges(
    pre_shape: tuple[int, int, int],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] = 0,
    reduce: str = "max",
    synapse: Synapse = BILINEAR,
) -> Edges:
    """No parameter: each channel by itself."""
    channels, h, w = pre_shape
    (ky, kx), (sy, sx), (py, px) = (_pair(p) for p in (kernel, stride, padding))
    ny, nx = _positions(h, ky, sy, py, 1), _positions(w, kx, sx, px, 1)
    edges = []
    for c in range(channels):
        for y in range(ny):
            for x in range(nx):
                for p in range(ky):
                    for q in range(kx):
                        row, column = y * sy + p - py, x * sx + q - px
                        if 0 <= row < h and 0 <= column < w:
                            edges.append(((c * h + row) * w + column, (c * ny + y) * nx + x))
    pre, post = np.array(edges).T
    return Edges(pre, post, np.zeros_like(pre), (channels, ny, nx), synapse, reduce)


@dataclass(frozen=True)
class Layer:
    """A population and the coupling that reaches it: y = f(sum of the synapses + bias).

    The names say which parameter plays which part; a bias of a map, (channels,), is one per channel.
    """

    coupling: Coupling
    neuron: Neuron = LINEAR
    w: str | None = None
    b: str | None = None
    v: str | None = None  # a post-synaptic variable that the synapses read


@dataclass
class Network:
    """Layers in a row, a cost of the last one, and optionally a price on the activity of others.

    `penalties` maps the position of a layer to a factor: C += factor * mean(y**2) of that layer.
    """

    layers: Sequence[Layer]
    cost_of: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    penalties: Mapping[int, float] = field(default_factory=dict)

    def forward(self, parameters: Arrays, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each layer its input and its argument u of the neuron; behind them the output."""
        x = np.asarray(x, float)
        passed = []
        for layer in self.layers:
            w = parameters[layer.w] if layer.w else None
            v = _per_unit(parameters[layer.v], layer.coupling) if layer.v else None
            u = layer.coupling.forward(w, x, v)
            if layer.b is not None:
                u = u + _along(parameters[layer.b], u)
            passed.append((x, u))
            x = layer.neuron.f(u)
        return [*passed, (x, x)]

    def outputs(self, parameters: Arrays, x: np.ndarray) -> np.ndarray:
        """(batch, *output)."""
        return self.forward(parameters, x)[-1][0]

    def activity(self, parameters: Arrays, x: np.ndarray) -> list[np.ndarray]:
        """The output of every layer."""
        return [y for y, _ in self.forward(parameters, x)[1:]]

    def cost(self, parameters: Arrays, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(batch,)."""
        activity = self.activity(parameters, x)
        prices = (f * (activity[k] ** 2).reshape(len(x), -1).mean(axis=1) for k, f in self.penalties.items())
        return self.cost_of(activity[-1], target)[0] + sum(prices)

    def gradient(self, parameters: Arrays, x: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        """Of each sample's cost, (batch, *parameter)."""
        passed = self.forward(parameters, x)
        g = self.cost_of(passed[-1][0], target)[1]
        found: dict[str, np.ndarray] = {}
        for k in reversed(range(len(self.layers))):
            layer, (x, u), y = self.layers[k], passed[k], passed[k + 1][0]
            g = g + 2 * self.penalties.get(k, 0.0) * y / y[0].size
            g = g * layer.neuron.df(u)
            if layer.b is not None:
                found[layer.b] = _fold(g, parameters[layer.b])
            w = parameters[layer.w] if layer.w else None
            v = _per_unit(parameters[layer.v], layer.coupling) if layer.v else None
            gw, g, gv = layer.coupling.backward(w, x, v, g)
            if layer.w is not None:
                found[layer.w] = gw
            if layer.v is not None:  # it may be the bias as well
                found[layer.v] = found.get(layer.v, 0) + _fold(gv, parameters[layer.v])
        return found


def _along(b: np.ndarray, u: np.ndarray) -> np.ndarray:
    """A bias in the shape of one sample of u: per unit, or per channel of a map."""
    return b[:, None, None] if b.ndim == 1 and u.ndim == 4 else b


def _per_unit(v: np.ndarray, coupling: Coupling) -> np.ndarray:
    assert isinstance(coupling, Edges), "only lists of synapses read the post-synaptic side"
    return np.broadcast_to(_along(v, np.empty((1, *coupling.post_shape))), coupling.post_shape)


def _fold(g: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over the positions that share a bias: (batch, *b)."""
    return g.sum(axis=(2, 3)) if b.ndim == 1 and g.ndim == 4 else g


def cross_entropy(z: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the softmax of z (batch, n) with probabilities target (batch, n): cost (batch,) and its gradient in z."""
    shifted = z - z.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)
    logarithm = shifted - np.log(total)
    mass = target.sum(axis=1, keepdims=True)
    return -(target * logarithm).sum(axis=1), mass * np.exp(shifted) / total - target


def mean_square(z: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the outputs of the squared error: cost (batch,) and its gradient in z."""
    flat = (z - target).reshape(len(z), -1)
    return (flat**2).mean(axis=1), 2 * (z - target) / flat.shape[1]


def onehot(y: np.ndarray, n: int, on: float = 1.0, off: float = 0.0) -> np.ndarray:
    """(batch, n)."""
    target = np.full((len(y), n), off)
    target[np.arange(len(y)), y] = on
    return target


def mlp(cost=cross_entropy) -> Network:
    """The network of digits_mlp and fashion_mnist_mlp."""
    hidden = Layer(Dense(), TANH, "hidden.w", "hidden.b")
    return Network([hidden, Layer(Dense(), LINEAR, "logits.w", "logits.b")], cost)


def paper_cnn(cost=cross_entropy) -> Network:
    """The network of fashion_mnist_cnn, of any width: six convolutions, three pools, three dense layers."""
    layers = []
    for k in (1, 2, 3, 4, 5, 6):
        layers.append(Layer(Conv2d(padding=1), TANH, f"conv{k}.w", f"conv{k}.b"))
        if k % 2 == 0:
            layers.append(Layer(MaxPool(2)))
    layers += [Layer(Dense(), TANH, f"{name}.w", f"{name}.b") for name in ("dense1", "dense2")]
    return Network([*layers, Layer(Dense(), LINEAR, "logits.w", "logits.b")], cost)
