"""Topologies: their numbers, the shapes they lead to, and whether they fit between two populations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.document import ConvDoc, PoolDoc, SparseDoc
from mgdcircuits.netlist.expressions import ExpressionError, evaluate
from mgdcircuits.netlist.kinds import (
    truth,
)
from mgdcircuits.netlist.parameters import Parameters
from mgdcircuits.netlist.source import TEXT_NAME, Text
from mgdcircuits.netlist.spec import Conv2d, Dense, OneToOne, Pool, Position, Sparse, Topology
from mgdcircuits.netlist.units import DIMENSIONLESS

SHAPE_MISMATCH = reading_rule("shape-mismatch", "the shapes on both sides of a coupling must fit its topology")
TOPOLOGY = reading_rule("topology", "a coupling has one topology with usable numbers")

Shape = tuple[int, ...]


class Topologies:
    """Reads the topology of a coupling."""

    def __init__(self, parameters: Parameters, report: Report) -> None:
        self.parameters = parameters
        self.report = report

    def read(self, key: str, doc: Any, what: str, at: Position) -> Topology | None:
        """The topology of a document; None where a problem was reported."""
        if key == "dense":
            return Dense()
        if key == "one_to_one":
            return OneToOne()
        if isinstance(doc, ConvDoc | PoolDoc):
            kernel = self._pair(doc.kernel, f"`kernel` of {what}", 1)
            stride = self._pair(doc.stride, f"`stride` of {what}", 1)
            padding = self._pair(doc.padding, f"`padding` of {what}", 0)
            if (
                kernel is None
                or stride is None
                and doc.stride is not None
                or padding is None
                and doc.padding is not None
            ):
                return None
            if isinstance(doc, PoolDoc):
                if padding and (padding[0] >= kernel[0] or padding[1] >= kernel[1]):
                    found = f"a padding of {list(padding)} with a window of {list(kernel)}"
                    self.report.add(TOPOLOGY, doc.place("padding"), found, "a padding smaller than the window")
                    return None
                return Pool(kernel, stride or kernel, padding or (0, 0))
            dilation = self._pair(doc.dilation, f"`dilation` of {what}", 1)
            groups = 1 if doc.groups is None else self.parameters.integer(doc.groups, f"`groups` of {what}")
            if groups is None or dilation is None and doc.dilation is not None:
                return None
            return Conv2d(kernel, stride or (1, 1), padding or (0, 0), dilation or (1, 1), groups)
        return self._sparse(doc, what, at)

    def _pair(self, texts: Any, what: str, least: int) -> tuple[int, int] | None:
        if texts is None:
            return None
        sizes = [self.parameters.integer(text, what, least) for text in texts]
        if len(sizes) not in (1, 2):
            self.report.add(TOPOLOGY, texts.at, f"{what} has {len(sizes)} numbers", "one or two")
            return None
        if None in sizes:
            return None
        first, second = (sizes * 2)[:2] if len(sizes) == 1 else sizes
        assert first is not None and second is not None
        return first, second

    def _sparse(self, doc: Any, what: str, at: Position) -> Sparse | None:
        if isinstance(doc, Text):
            probability = self._probability(doc, what)
            return None if probability is None else Sparse(probability=probability)
        assert isinstance(doc, SparseDoc)
        given = [key for key in ("probability", "in_degree", "edges") if getattr(doc, key) is not None]
        if len(given) != 1:
            found = f"`sparse` of {what} with {' and '.join(given) if given else 'none of its keys'}"
            self.report.add(TOPOLOGY, doc.at, found, "exactly one of probability, in_degree, edges")
            return None
        loops = truth(doc.self, "self", self.report)
        if doc.probability is not None:
            probability = self._probability(doc.probability, what)
            return None if probability is None else Sparse(probability=probability, self_connections=loops)
        if doc.in_degree is not None:
            degree = self.parameters.integer(doc.in_degree, f"`in_degree` of {what}")
            return None if degree is None else Sparse(in_degree=degree, self_connections=loops)
        assert doc.edges is not None
        path = beside(doc.edges)
        if not path.is_file():
            self.report.add("missing-file", doc.edges.at, f"there is no file {path}", "a CSV file with columns i, j")
            return None
        return Sparse(edges=str(path), self_connections=loops)

    def _probability(self, text: Text, what: str) -> float | None:
        try:
            value = evaluate(text, self.parameters.constants())
        except ExpressionError as problem:
            self.report.add("expression", text.at, f"the probability of {what}: {problem.message}", "", problem.mend)
            return None
        if value.dimensions != DIMENSIONLESS or not 0 < value.value <= 1:
            self.report.add(TOPOLOGY, text.at, f"{what} has the probability `{text}`", "a number above 0, at most 1")
            return None
        return value.value


def beside(path: Text) -> Path:
    """A path relative to the file in which it was written."""
    folder = Path() if path.at.file == TEXT_NAME or path.at.file.startswith("override") else Path(path.at.file).parent
    return folder / str(path)


def spatial(topology: Conv2d | Pool, source: Shape) -> tuple[int, int]:
    """Height and width behind a convolution or a pooling of a (channels, height, width) shape."""
    out = []
    for axis in (0, 1):
        dilation = topology.dilation[axis] if isinstance(topology, Conv2d) else 1
        window = dilation * (topology.kernel[axis] - 1) + 1
        out.append((source[axis + 1] + 2 * topology.padding[axis] - window) // topology.stride[axis] + 1)
    return out[0], out[1]


def word(topology: Topology) -> str:
    words: Mapping[type, str] = {
        Dense: "dense",
        Conv2d: "conv2d",
        Pool: "pool",
        OneToOne: "one_to_one",
        Sparse: "sparse",
    }
    return words[type(topology)]


def too_large(topology: Conv2d | Pool, pre: str, shape: Shape) -> tuple[str, str, str]:
    found = f"a {word(topology)} window of {list(topology.kernel)} over `{pre}`, whose shape is {list(shape)}"
    padded = [shape[1] + 2 * topology.padding[0], shape[2] + 2 * topology.padding[1]]
    return found, f"a window of at most {padded}", "make the kernel (or its dilation) smaller, or add padding"


def mismatch(topology: Topology, pre: str, source: Shape, post: str, target: Shape) -> tuple[str, str, str] | None:
    """Why a topology does not fit between two shapes: found, expected, mend."""
    if isinstance(topology, Conv2d | Pool):
        for name, shape in ((pre, source), (post, target)):
            if len(shape) != 3:
                return (
                    f"{word(topology)} between `{pre}` and `{post}`, but `{name}` has the shape {list(shape)}",
                    "a shape [channels, height, width]",
                    f"give `{name}` such a shape, or use `dense`",
                )
        out = spatial(topology, source)
        if min(out) < 1:
            return too_large(topology, pre, source)
        if out != target[1:]:
            found = f"{word(topology)} makes {list(out)} positions of `{pre}`, but `{post}` has {list(target[1:])}"
            return (
                found,
                f"the shape [{target[0]}, {out[0]}, {out[1]}]",
                "write `channels` and let the rest be inferred",
            )
        if isinstance(topology, Pool) and source[0] != target[0]:
            found = f"pooling keeps {source[0]} channels, but `{post}` has {target[0]}"
            return found, f"{source[0]} channels", f"remove the shape of `{post}`"
        if isinstance(topology, Conv2d) and (source[0] % topology.groups or target[0] % topology.groups):
            found = f"{topology.groups} groups with {source[0]} channels in `{pre}` and {target[0]} in `{post}`"
            return found, "groups that divide both", "change `groups` or the channels"
    if isinstance(topology, OneToOne):
        sizes = [product(source), product(target)]
        if sizes[0] != sizes[1]:
            found = f"one_to_one between {sizes[0]} units of `{pre}` and {sizes[1]} of `{post}`"
            return found, "equal numbers", "change a shape, or use `dense`"
    if isinstance(topology, Sparse) and topology.in_degree is not None and topology.in_degree > product(source):
        found = f"an in-degree of {topology.in_degree} from the {product(source)} units of `{pre}`"
        return found, f"at most {product(source)}", "make `in_degree` smaller"
    return None


def product(shape: Shape) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def synapses(topology: Any, n_pre: int, n_post: int) -> float:
    """The (expected) number of synapses of a coupling without weight sharing."""
    match topology:
        case Sparse(probability=float(probability)):
            return probability * n_pre * n_post
        case Sparse(in_degree=int(degree)):
            return degree * n_post
        case Sparse(edges=str(path)):
            try:
                with open(path, encoding="utf-8") as file:
                    return max(1, sum(1 for line in file if line.strip() and line.strip()[0].isdigit()))
            except OSError:
                return 1
        case OneToOne():
            return n_post
    return n_pre * n_post
