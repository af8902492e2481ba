"""The program of a circuit: arrays, kernels and the explicit list of phases that both targets walk.

A *kernel* is a loop over elements of the circuit with expressions in Brian2's syntax inside; a *step* is one call of a
kernel on particular arrays. The numpy target interprets a program, the C++ target prints it. Neither adds meaning.

Every array has the logical shape (elements, member, batch); the batch axis has length 1 where entries of a batch share
the value. How a target lays it out in memory is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mgdcircuits.circuit.topology import Topology
from mgdcircuits.netlist.spec import Reduce, Sharing


class Precision(Enum):
    """Number type of an array."""

    REAL = "real"  # float32 or float64, as the session says
    DOUBLE = "double"  # always float64: costs, signals and what is averaged from them
    INTEGER = "integer"  # int64: counters


@dataclass(frozen=True)
class Array:
    """A named array of `n` elements; `shape` is how a user sees the element axis."""

    name: str
    shape: tuple[int, ...]
    sharing: Sharing
    precision: Precision = Precision.REAL

    @property
    def n(self) -> int:
        """Number of elements."""
        n = 1
        for s in self.shape:
            n *= s
        return n


class Index(Enum):
    """Which element of an array an operand reads inside a loop."""

    ELEMENT = "element"
    CHANNEL = "channel"  # element // positions
    PRE = "pre"
    PRE_CHANNEL = "pre channel"
    POST = "post"
    POST_CHANNEL = "post channel"
    SYNAPSE = "synapse"
    ZERO = "zero"  # the array has one element


@dataclass(frozen=True)
class Read:
    """An element of an array; multiplied by the factor of the pass where `amplitude` names a perturbation."""

    array: Array
    index: Index
    positions: int = 1  # units per channel, for the CHANNEL indices
    amplitude: bool = False


@dataclass(frozen=True)
class Word:
    """A number of the running session, the same for all elements and replicas (`n_p`, `t`, ...)."""

    name: str


@dataclass(frozen=True)
class Parameter:
    """A netlist parameter, changeable without compiling."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A number fixed by the netlist: a unit, a size, a time step."""

    value: float


@dataclass(frozen=True)
class Position:
    """The index of the element itself (Brian2's `i`), plus the offset of the site in its block (`element`)."""

    index: Index = Index.ELEMENT
    offset: int = 0


class Scope(Enum):
    """When a draw is renewed; an axis of the counter."""

    INITIAL = "initial"
    PERIOD = "period"  # common to all passes of a period
    PASS = "pass"
    WRITE = "write"


@dataclass(frozen=True)
class Random:
    """A keyed draw: `function` in rand, randn, bit, poisson.

    `hold` names the runtime parameter that says how many iterations a draw of a period is held; without it, one.
    """

    function: str
    site: str
    scope: Scope
    index: Index
    arguments: tuple[str, ...] = ()
    hold: str | None = None


Operand = Read | Word | Parameter | Literal | Position | Random


@dataclass(frozen=True)
class Statement:
    """`target = expression`; `target` names a written array (a key of `Kernel.writes`) or a local variable."""

    target: str
    expression: str


@dataclass(frozen=True, eq=False)
class Kernel:
    """A loop and what it computes; the subclasses are the loops."""

    name: str
    statements: tuple[Statement, ...]
    operands: Mapping[str, Operand]
    writes: Mapping[str, Array]

    def reads(self) -> set[str]:
        """Names of the arrays read."""
        return {o.array.name for o in self.operands.values() if isinstance(o, Read)}

    def perturbations(self) -> set[str]:
        """Names of the perturbation arrays whose factor the kernel applies."""
        return {o.array.name for o in self.operands.values() if isinstance(o, Read) and o.amplitude}


def draws_in(kernel: Kernel, scope: Scope) -> bool:
    """Whether a kernel draws numbers of a scope: a pass whose noise is its own is evaluated again."""
    return any(isinstance(o, Random) and o.scope is scope for o in kernel.operands.values())


@dataclass(frozen=True, eq=False)
class Elements(Kernel):
    """For every element, and every replica or member: run the statements."""

    n: int
    sharing: Sharing
    precision: Precision = Precision.REAL


class Into(Enum):
    """Where the contributions of synapses are added up."""

    POST = "post"
    PRE = "pre"
    PARAMETER = "parameter"


@dataclass(frozen=True, eq=False)
class Couple(Kernel):
    """For every synapse: evaluate the only statement and combine the results in its target.

    Into a parameter the results are averaged over the batch, unless the target is per replica. With `winner`, an
    expression, only the first synapse of a window in which it is largest counts (the derivative of a maximum). With
    `add` the result is added to what the target holds.
    """

    topology: Topology
    into: Into
    reduce: Reduce = Reduce.SUM
    winner: str | None = None
    add: bool = False


@dataclass(frozen=True, eq=False)
class Fold(Kernel):
    """For every unit: evaluate the only statement and add it to its channel (or unit); averaged over the batch as `Couple`."""

    n: int
    positions: int
    add: bool = False


@dataclass(frozen=True, eq=False)
class Reduction(Kernel):
    """For every replica: reduce the only statement over `n` elements, in float64."""

    n: int
    operation: str  # sum, mean, max, logsumexp, argmax


@dataclass(frozen=True, eq=False)
class MemberMean(Kernel):
    """The mean of per-replica scalars over the batch, in a fixed order, in float64."""


@dataclass(frozen=True, eq=False)
class Sample(Kernel):
    """Choose samples and present them: expressions of `x` set input arrays, one of `y` the target.

    The last entry of `target` says whether `y` is a class index (else `y` has a value for every target element).
    `shown` are input arrays that show the target to the circuit.
    """

    inputs: tuple[tuple[Array, str, Mapping[str, Operand]], ...]
    target: tuple[Array, str, Mapping[str, Operand], bool] | None
    labels: Array
    sampling: str
    shown: tuple[tuple[Array, str, Mapping[str, Operand], bool], ...] = ()

    @property
    def presented(self) -> dict[str, Array]:
        """What is set, by name."""
        return {array.name: array for array, *_ in self.inputs} | {array.name: array for array, *_ in self.of_target}

    @property
    def of_target(self) -> tuple[tuple[Array, str, Mapping[str, Operand], bool], ...]:
        """Everything that is set by expressions of `y`."""
        return (*((self.target,) if self.target else ()), *self.shown)


@dataclass(frozen=True)
class Step:
    """One call of a kernel. `rename` maps array names to the arrays used instead; `factor` is applied to the
    perturbations named in `active`, all others count as zero."""

    kernel: Kernel
    rename: Mapping[str, str] = field(default_factory=dict)
    active: frozenset[str] = frozenset()
    factor: float = 0.0


@dataclass(frozen=True)
class Copy:
    """Copy an array."""

    source: str
    target: str


@dataclass(frozen=True)
class Clear:
    """Set an array to zero."""

    target: str


@dataclass(frozen=True)
class Every:
    """Run the body when ``(n_p + offset) % period == 0``; `period` names a runtime parameter."""

    period: str
    offset: int
    body: tuple[Node, ...]


@dataclass(frozen=True)
class Ticks:
    """Run the body `n` times; inside, `tick` counts from zero."""

    n: int
    body: tuple[Node, ...]


@dataclass(frozen=True)
class Between:
    """Inside `Ticks`: run the body for ``first <= tick < last``, at every `every`-th tick of them."""

    first: int
    last: int
    body: tuple[Node, ...]
    every: int = 1


@dataclass(frozen=True)
class Count:
    """Advance the iteration count `n_p` (and start `evaluation` again) or the `evaluation` count of an iteration."""

    counter: str


@dataclass(frozen=True)
class Look:
    """A point at which a run may be watched; it changes nothing."""


Node = Step | Copy | Clear | Every | Ticks | Between | Count | Look


@dataclass(frozen=True)
class Program:
    """Everything a target needs.

    `iteration` is one iteration; `evaluate` an unperturbed evaluation with its cost and accuracy; `gradient` follows an
    `evaluate` and fills the arrays named in `gradients` (`per_sample_gradient` those in `per_sample`).
    """

    arrays: tuple[Array, ...]
    parameters: Mapping[str, float]
    iteration: tuple[Node, ...]
    evaluate: tuple[Node, ...]
    gradient: tuple[Node, ...]
    per_sample_gradient: tuple[Node, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)

    def phases(self) -> Mapping[str, tuple[Node, ...]]:
        """The entry points."""
        return {
            "iteration": self.iteration,
            "evaluate": self.evaluate,
            "gradient": self.gradient,
            "per_sample_gradient": self.per_sample_gradient,
        }


def steps(nodes: Iterable[Node]) -> Iterable[Step]:
    """All steps of a list of nodes, in order of appearance."""
    for node in nodes:
        if isinstance(node, Step):
            yield node
        elif isinstance(node, Every | Ticks | Between):
            yield from steps(node.body)
