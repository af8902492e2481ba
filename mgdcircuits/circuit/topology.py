"""Topologies: which units a coupling joins, computed by loops and never stored as index arrays (edge lists excepted).

One class a topology. Each knows its shapes, its C++ type (in ``codegen/include/mgd``) and its numpy loops. A numpy loop is
given as *pieces*: index triples (parameter, pre, post) whose elements broadcast against each other, so that one vectorised
expression covers a whole piece and a synapse that does not exist (zero padding) is never evaluated.

Parameters, pre- and post-synaptic values are arrays whose last two axes are (member, batch).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from mgdcircuits import randomness
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist import spec

Index = tuple


@dataclass(frozen=True)
class Piece:
    """Synapses that one broadcast expression covers.

    `parameter`, `pre` and `post` index arrays reshaped to `Topology.parameter_view`, `pre_view` and `post_view`; the
    results broadcast against each other.
    """

    parameter: Index
    pre: Index
    post: Index
    reduce_axes: tuple[int, ...]  # axes of the broadcast result that are summed into `post`
    pre_axes: tuple[int, ...]  # axes summed when the result goes to the pre side
    parameter_axes: tuple[int, ...]  # axes summed when the result goes to the parameters

    def shape(self, topology: Topology) -> tuple[int, ...]:
        """Broadcast shape of the piece, without the replica axes."""
        nothing = np.zeros((), np.int8)
        views = (
            (topology.parameter_view, self.parameter),
            (topology.pre_view, self.pre),
            (topology.post_view, self.post),
        )
        return np.broadcast_shapes(*(np.broadcast_to(nothing, view)[index].shape for view, index in views))


class Topology:
    """What the builder and both targets ask of a topology."""

    pre_shape: tuple[int, ...]
    post_shape: tuple[int, ...]

    @property
    def n_pre(self) -> int:
        """Units on the pre-synaptic side."""
        return prod(self.pre_shape)

    @property
    def n_post(self) -> int:
        """Units on the post-synaptic side."""
        return prod(self.post_shape)

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        """Shape of a parameter of the coupling."""
        raise NotImplementedError

    @property
    def n_synapses(self) -> int:
        """Number of distinct synaptic parameters (a convolution shares each over all positions)."""
        return prod(self.parameter_shape)

    @property
    def n_connections(self) -> int:
        """Number of synapses as a chip would wire them: multiply-accumulates of one evaluation of one sample."""
        raise NotImplementedError

    fan_in: int
    fan_out: int
    parameter_view: tuple[int, ...]
    pre_view: tuple[int, ...]
    post_view: tuple[int, ...]

    def pieces(self) -> Iterator[Piece]:
        """The synapses, piece by piece, in the order of summation."""
        raise NotImplementedError

    def cpp_type(self) -> str:
        """The C++ type with its compile-time extents."""
        raise NotImplementedError

    def in_degrees(self) -> np.ndarray:
        """Number of synapses of each post unit, (n_post,): fewer where a window hangs over the border."""
        count = np.zeros(self.post_view, np.int64)
        for piece in self.pieces():
            shape = piece.shape(self)
            count[piece.post] += prod(shape[axis] for axis in piece.reduce_axes)
        return count.ravel()

    def indices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(i, j, synapse): pre unit, post unit and parameter index of every connection, for Brian2's `Synapses`."""
        synapse = np.arange(self.n_synapses).reshape(self.parameter_view)
        pre = np.arange(self.n_pre).reshape(self.pre_view)
        post = np.arange(self.n_post).reshape(self.post_view)
        columns = [np.broadcast_arrays(pre[p.pre], post[p.post], synapse[p.parameter]) for p in self.pieces()]
        i, j, s = (np.concatenate([np.ravel(c[k]) for c in columns]) for k in range(3))
        order = np.lexsort((i, j))
        return i[order], j[order], s[order]


@dataclass(frozen=True)
class Dense(Topology):
    """Every pre unit to every post unit."""

    pre_shape: tuple[int, ...]
    post_shape: tuple[int, ...]

    @property
    def parameter_shape(self):
        return (self.n_post, self.n_pre)

    @property
    def n_connections(self):
        return self.n_synapses

    @property
    def fan_in(self):
        return self.n_pre

    @property
    def fan_out(self):
        return self.n_post

    @property
    def parameter_view(self):
        return self.parameter_shape

    @property
    def pre_view(self):
        return (1, self.n_pre)

    @property
    def post_view(self):
        return (self.n_post, 1)

    def pieces(self):
        everything = (slice(None), slice(None))
        yield Piece(everything, everything, everything, reduce_axes=(1,), pre_axes=(0,), parameter_axes=())

    def cpp_type(self):
        return f"mgd::Dense<{self.n_pre}, {self.n_post}>"


@dataclass(frozen=True)
class OneToOne(Topology):
    """Unit i to unit i."""

    pre_shape: tuple[int, ...]
    post_shape: tuple[int, ...]

    @property
    def parameter_shape(self):
        return (self.n_post,)

    @property
    def n_connections(self):
        return self.n_post

    fan_in = 1
    fan_out = 1

    @property
    def parameter_view(self):
        return self.parameter_shape

    pre_view = parameter_view
    post_view = parameter_view

    def pieces(self):
        everything = (slice(None),)
        yield Piece(everything, everything, everything, reduce_axes=(), pre_axes=(), parameter_axes=())

    def cpp_type(self):
        return f"mgd::OneToOne<{self.n_post}>"


def _valid(offset: int, n_pre: int, n_post: int, stride: int) -> tuple[slice, slice]:
    """Slices (post, pre) of the positions where ``pre = post*stride + offset`` lies inside."""
    first = max(0, -(offset // stride))
    last = min(n_post - 1, (n_pre - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(first, last + 1), slice(start, last * stride + offset + 1, stride)


@dataclass(frozen=True)
class Conv2d(Topology):
    """Convolution with zero padding, where padding means that the synapse does not exist."""

    pre_shape: tuple[int, ...]
    post_shape: tuple[int, ...]
    geometry: spec.Conv2d

    @property
    def parameter_shape(self):
        return (self.post_shape[0], self.pre_shape[0] // self.geometry.groups, *self.geometry.kernel)

    @property
    def n_connections(self):
        """Counted as convolutions are counted in the literature, padding included."""
        return self.n_post * prod(self.parameter_shape[1:])

    @property
    def fan_in(self):
        return prod(self.parameter_shape[1:])

    @property
    def fan_out(self):
        return self.post_shape[0] // self.geometry.groups * prod(self.geometry.kernel)

    @property
    def parameter_view(self):
        g = self.geometry.groups
        out, *rest = self.parameter_shape
        return (g, out // g, rest[0], 1, 1, *rest[1:])

    @property
    def pre_view(self):
        g = self.geometry.groups
        c, h, w = self.pre_shape
        return (g, 1, c // g, h, w)

    @property
    def post_view(self):
        g = self.geometry.groups
        c, h, w = self.post_shape
        return (g, c // g, 1, h, w)

    def pieces(self):
        k, s, p, d = self.geometry.kernel, self.geometry.stride, self.geometry.padding, self.geometry.dilation
        every = slice(None)
        for c in range(self.parameter_view[2]):
            channel = slice(c, c + 1)
            for ky in range(k[0]):
                for kx in range(k[1]):
                    post_y, pre_y = _valid(ky * d[0] - p[0], self.pre_shape[1], self.post_shape[1], s[0])
                    post_x, pre_x = _valid(kx * d[1] - p[1], self.pre_shape[2], self.post_shape[2], s[1])
                    yield Piece(
                        (every, every, channel, every, every, ky, kx),
                        (every, every, channel, pre_y, pre_x),
                        (every, every, every, post_y, post_x),
                        reduce_axes=(2,),
                        pre_axes=(1,),
                        parameter_axes=(3, 4),
                    )

    def cpp_type(self):
        g = self.geometry
        extents = (*self.pre_shape, *self.post_shape, *g.kernel, *g.stride, *g.padding, *g.dilation, g.groups)
        return f"mgd::Conv2d<{', '.join(map(str, extents))}>"


@dataclass(frozen=True)
class Pool(Topology):
    """A window per channel, without parameters."""

    pre_shape: tuple[int, ...]
    post_shape: tuple[int, ...]
    geometry: spec.Pool

    parameter_shape = (1,)
    parameter_view = (1, 1, 1)

    @property
    def n_connections(self):
        """Pooling multiplies nothing."""
        return 0

    @property
    def fan_in(self):
        return prod(self.geometry.kernel)

    fan_out = 1

    @property
    def pre_view(self):
        return self.pre_shape

    @property
    def post_view(self):
        return self.post_shape

    def pieces(self):
        k, s, p = self.geometry.kernel, self.geometry.stride, self.geometry.padding
        every = slice(None)
        for ky in range(k[0]):
            for kx in range(k[1]):
                post_y, pre_y = _valid(ky - p[0], self.pre_shape[1], self.post_shape[1], s[0])
                post_x, pre_x = _valid(kx - p[1], self.pre_shape[2], self.post_shape[2], s[1])
                yield Piece((every,) * 3, (every, pre_y, pre_x), (every, post_y, post_x), (), (), (0, 1, 2))

    def cpp_type(self):
        g = self.geometry
        extents = (*self.pre_shape, *self.post_shape[1:], *g.kernel, *g.stride, *g.padding)
        return f"mgd::Pool2d<{', '.join(map(str, extents))}>"


@dataclass(frozen=True)
class Sparse(Topology):
    """A list of edges ordered by (post, pre)."""

    pre_shape: tuple[int, ...]
    post_shape: tuple[int, ...]
    pre: np.ndarray
    post: np.ndarray

    @property
    def parameter_shape(self):
        return (len(self.pre),)

    @property
    def n_connections(self):
        return len(self.pre)

    @property
    def fan_in(self):
        return max(1, round(len(self.pre) / self.n_post))

    @property
    def fan_out(self):
        return max(1, round(len(self.pre) / self.n_pre))

    @property
    def parameter_view(self):
        return self.parameter_shape

    @property
    def pre_view(self):
        return (self.n_pre,)

    @property
    def post_view(self):
        return (self.n_post,)

    def pieces(self):
        yield Piece((slice(None),), (self.pre,), (self.post,), reduce_axes=(), pre_axes=(), parameter_axes=())

    def in_degrees(self):
        return np.bincount(self.post, minlength=self.n_post)

    def indices(self):
        return self.pre, self.post, np.arange(len(self.pre))

    def cpp_type(self):
        return "mgd::Sparse"


def draw_edges(topology: spec.Sparse, n_pre: int, n_post: int, same: bool, name: str, folder: Path):
    """Edges (pre, post) of a sparse coupling, ordered by (post, pre).

    A drawn structure belongs to the circuit: it depends on the coupling's name and on nothing else, so every seed,
    member and machine has the same wiring.

    Raises
    ------
    BuildError
        A CSV file that cannot be read, or an index outside the populations.
    """
    if topology.edges is not None:
        pre, post = _read_edges(folder / topology.edges, n_pre, n_post)
    else:
        key = randomness.site_key(0, f"{name}/edges")
        u = randomness.uniform64(key, np.arange(n_pre * n_post), 0, 0).reshape(n_post, n_pre)
        if same and not topology.self_connections:
            np.fill_diagonal(u, 2.0)
        if topology.probability is not None:
            post, pre = np.nonzero(u < topology.probability)
        else:
            assert topology.in_degree is not None
            available = n_pre - (1 if same and not topology.self_connections else 0)
            if topology.in_degree > available:
                raise BuildError(f"{name}: in_degree {topology.in_degree} exceeds the {available} available inputs")
            pre = np.sort(np.argsort(u, axis=1)[:, : topology.in_degree], axis=1).ravel()
            post = np.repeat(np.arange(n_post), topology.in_degree)
    order = np.lexsort((pre, post))
    return pre[order].astype(np.int64), post[order].astype(np.int64)


def _read_edges(path: Path, n_pre: int, n_post: int):
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            if not {"i", "j"} <= set(reader.fieldnames or ()):
                raise BuildError(f"{path}:1: an edge list needs the columns i (pre) and j (post)")
            edges = []
            for line, row in enumerate(reader, start=2):
                try:
                    i, j = int(row["i"]), int(row["j"])
                except (TypeError, ValueError):
                    raise BuildError(f"{path}:{line}: i and j must be whole numbers") from None
                if not (0 <= i < n_pre and 0 <= j < n_post):
                    raise BuildError(f"{path}:{line}: edge {i} -> {j} lies outside {n_pre} pre and {n_post} post units")
                edges.append((i, j))
    except OSError as error:
        raise BuildError(f"{path}: cannot read the edge list: {error.strerror}") from None
    array = np.array(edges, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def build(coupling: spec.CouplingSpec, pre_shape, post_shape, folder: Path) -> Topology:
    """The topology of a coupling between populations of the given shapes."""
    match coupling.topology:
        case spec.Dense():
            return Dense(pre_shape, post_shape)
        case spec.OneToOne():
            return OneToOne(pre_shape, post_shape)
        case spec.Conv2d() as geometry:
            return Conv2d(pre_shape, post_shape, geometry)
        case spec.Pool() as geometry:
            return Pool(pre_shape, post_shape, geometry)
        case spec.Sparse() as sparse:
            same = coupling.pre == coupling.post
            pre, post = draw_edges(sparse, prod(pre_shape), prod(post_shape), same, coupling.name, folder)
            return Sparse(pre_shape, post_shape, pre, post)
    raise BuildError(f"{coupling.name}: unknown topology {coupling.topology!r}")
