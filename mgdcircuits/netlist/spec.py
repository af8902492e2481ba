"""The frozen description of a circuit: what the text of a netlist says, checked and expanded, and nothing else.

A description holds no arrays, no Brian2 object and no file handle. Library snippets (`bernoulli()`, `cross_entropy(...)`,
`momentum(...)`) are already replaced by their text, `kinds` are resolved, `chain` and `for` are expanded, and shapes are
inferred. Expressions are strings in Brian2's syntax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

Dimensions = tuple[int | float, ...]
"""Exponents of (metre, kilogram, second, ampere, kelvin, mole, candela), the order that Brian2 uses."""


@dataclass(frozen=True)
class Position:
    """Where a value was written: a file and a line counted from one."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class VariableKind(Enum):
    """The three kinds of line in an equation block, named as in Brian2."""

    DIFFERENTIAL = "differential equation"
    SUBEXPRESSION = "subexpression"
    PARAMETER = "parameter"


class Axis(Enum):
    """Over which elements a variable varies."""

    UNIT = "per unit"
    CHANNEL = "per channel"
    SYNAPSE = "per synapse"
    SCALAR = "shared"


class Sharing(Enum):
    """Among which replicas a variable is shared."""

    MEMBER = "per member"
    REPLICA = "per replica"


class Role(Enum):
    """What a variable is for."""

    STATE = "state"  # a differential equation
    STORED = "stored"  # a subexpression, evaluated once per evaluation in graph order
    SUMMED = "summed"  # a synaptic equation `X_post = ... (summed)`; stands in a coupling
    TARGET = "target"  # a population parameter that at least one coupling drives
    INPUT = "input"  # a population parameter that the task or a trial phase sets
    PLASTIC = "plastic"
    PERTURBATION = "perturbation"
    DEVICE = "per device"  # drawn once per physical element
    CONSTANT = "constant"  # any other parameter: it has its initial value, or what events write into it


@dataclass(frozen=True)
class Variable:
    """One line of an equation block.

    For a summed synaptic equation `I_post = ...`, `name` is ``"I_post"``; its target is the variable ``I`` of the
    post-synaptic population.
    """

    name: str
    kind: VariableKind
    role: Role
    dimensions: Dimensions
    unit: str
    axis: Axis
    sharing: Sharing
    expression: str | None = None
    flags: frozenset[str] = frozenset()
    perturbs: str | None = None  # of a perturbation: the plastic parameter of the same object that it perturbs, if any
    initial: str | None = None  # an expression, evaluated once; randomness is keyed
    scale: float | None = None  # of a plastic parameter: its natural size in SI units
    at: Position | None = None


@dataclass(frozen=True)
class Event:
    """Statements that run when a spike is emitted or arrives, in Brian2's syntax (`s += 1`)."""

    statements: str
    delay: str | None = None
    at: Position | None = None


@dataclass(frozen=True)
class PopulationSpec:
    """A population. `shape` is ``(n,)`` or ``(channels, height, width)``."""

    name: str
    shape: tuple[int, ...]
    variables: tuple[Variable, ...]
    threshold: str | None = None
    reset: str | None = None
    refractory: str | None = None
    method: str | None = None
    on_write: str | None = None
    kind: str | None = None
    at: Position | None = None


@dataclass(frozen=True)
class Dense:
    """Every unit to every unit; parameters have the shape (post, pre)."""


@dataclass(frozen=True)
class Conv2d:
    """Convolution with zero padding: where the padding lies there is no synapse. Parameters: (out, in/groups, ky, kx)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Pool:
    """A window per channel; no parameters. What is done with the window is the coupling's `reduce`."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class OneToOne:
    """Unit i to unit i; parameters have the shape of the population, flattened."""


@dataclass(frozen=True)
class Sparse:
    """A list of edges: drawn with a probability, with a fixed in-degree, or read from a CSV file (columns i, j).

    Exactly one of `probability`, `in_degree`, `edges` is set. Parameters have the shape (synapses,). Edges are ordered
    by (post, pre). `self_connections` matters where pre and post are one population.
    """

    probability: float | None = None
    in_degree: int | None = None
    edges: str | None = None
    self_connections: bool = True


Topology = Dense | Conv2d | Pool | OneToOne | Sparse


class Reduce(Enum):
    """How the contributions of a coupling to one post-synaptic unit are combined."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"


@dataclass(frozen=True)
class CouplingSpec:
    """A coupling between two populations (one population for a recurrent one)."""

    name: str
    pre: str
    post: str
    topology: Topology
    variables: tuple[Variable, ...]
    reduce: Reduce = Reduce.SUM
    on_pre: Event | None = None
    on_post: Event | None = None
    method: str | None = None
    on_write: str | None = None
    kind: str | None = None
    at: Position | None = None
    delay: str | None = None  # of the summed equation (an expression in seconds); the events carry their own
    key: str | None = None  # the key under `synapses` that it was written under


class Sampling(Enum):
    """How the session chooses the next samples."""

    RANDOM = "random"  # with replacement, by a keyed draw
    SHUFFLE = "shuffle"  # without replacement, a new keyed permutation each epoch
    SEQUENTIAL = "sequential"


@dataclass(frozen=True)
class TaskSpec:
    """Which data, and how a sample enters the circuit.

    `inputs` maps ``(population, variable)`` to an expression of `x`, the sample's value for that unit. `target` is an
    expression of `y`: ``onehot(y)`` (or ``onehot(y, on, off)``) for class indices, or any expression of a float `y`.
    `accuracy` is a cost-like expression that is 1 for a right answer. In expressions of a sample (here, and in
    `Phase.set`) the name ``x__2`` is element 2 of the sample, written ``x[2]`` in the netlist.
    """

    data: str | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    batch: int = 1
    validation: int = 0
    sampling: Sampling = Sampling.RANDOM
    inputs: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))
    target: str | None = None
    target_shape: tuple[int, ...] = ()
    accuracy: str | None = None
    at: Position | None = None
    columns: tuple[str, ...] = ()  # further columns of the data that expressions of a trial may name


@dataclass(frozen=True)
class CostSpec:
    """The cost of one replica, with reductions over units (`sum`, `mean`, `max`, `logsumexp`, `argmax`, `count`).

    `over` is the window of an evaluation (start, end, in seconds from its beginning) over which it is averaged; None
    for a memoryless circuit and for the last tick of a continuous one.
    """

    name: str
    expression: str
    over: tuple[float, float] | None = None
    at: Position | None = None
    dimensions: Dimensions = (0,) * 7


@dataclass(frozen=True)
class Perturb:
    """What drives the perturbation variables of a learning system, and in which blocks.

    `codes` maps the qualified name of a perturbation variable (``"conv1.theta_w"``) to an expression that is evaluated
    once per element at every draw; it may use `element`, `K`, the keyed functions, and `n_p.draw` and `t.draw`, which are what
    a netlist writes as `n_p` and `t` in a code: draws so far, and when this one began. `every` is the time between draws.
    `blocks` lists groups of qualified names that are perturbed together; blocks are evaluated one after another.
    """

    codes: Mapping[str, str]
    every: str
    blocks: tuple[tuple[str, ...], ...]
    at: Position | None = None


@dataclass(frozen=True)
class Assignment:
    """`name = expression`, run in order; a name that is read before it is written keeps its value between runs."""

    name: str
    expression: str
    dimensions: Dimensions
    at: Position | None = None


@dataclass(frozen=True)
class Site:
    """A plastic parameter and the rule that trains it; all words of the rule are local to the site.

    `estimate` and `accumulate` are expressions; `update` and `on_write` are statement blocks. Words: `theta` (the
    perturbation that belongs to the parameter, by its qualified name in `theta`), `G`, `scale`, `request`, `n_G`
    (iterations accumulated in G), `K` (perturbed elements of the block), the parameter's own name.
    """

    parameter: str  # qualified: "conv1.w"
    theta: str | None  # qualified name of the paired perturbation variable
    block: int  # index into Perturb.blocks; -1: the mean cost changes of all blocks are not used
    estimate: str
    accumulate: str
    update: str
    on_write: str
    states: tuple[tuple[str, Dimensions], ...] = ()  # optimizer states, in order of appearance, initially zero


@dataclass(frozen=True)
class LearningSpec:
    """One learning system: perturbation, passes, signals, estimate, accumulation, update."""

    name: str
    perturb: Perturb | None
    passes: tuple[tuple[str, float], ...]  # (name, factor on the perturbation), in order
    signals: tuple[Assignment, ...]  # per-replica scalars, before the estimate
    baseline: tuple[Assignment, ...]  # per-replica scalars, after the estimate
    sites: tuple[Site, ...]
    update_every: str  # a duration
    update_at: str | None = None  # or a trial phase, or "reward"
    clear: bool = True  # G begins anew after an update
    at: Position | None = None
    baseline_per: str | None = None  # a column of the data: one baseline for each of its values ("stimulus")


@dataclass(frozen=True)
class Phase:
    """One phase of a trial."""

    name: str
    duration: str
    after: bool  # True: a pause before the event of this name
    set: Mapping[str, str]  # qualified variable -> expression
    measure: tuple[Assignment, ...]


@dataclass(frozen=True)
class TrialSpec:
    """A sequence of named phases and what is reset to its initial value before each trial (qualified names)."""

    phases: tuple[Phase, ...]
    reset: tuple[str, ...] = ()
    at: Position | None = None


@dataclass(frozen=True)
class HardwareSpec:
    """What evaluations, perturbations and writes take on the chip, and what its devices survive.

    All are expressions, SI units when evaluated. `endurance` maps a plastic parameter (``"hidden.g"``) to the writes that
    its devices survive: a number, or the variable of the same object that holds the number of each device.
    """

    inference: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    perturbation: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    write: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    device: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    measurement: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    endurance: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class RecordSpec:
    """One entry of `record:`: a variable (qualified), when, and which elements."""

    variable: str
    every: str | None = None
    passes: tuple[str, ...] = ()
    units: str | None = None  # a Python slice or index list as text, "0:20"
    at: Position | None = None


@dataclass(frozen=True)
class CircuitSpec:
    """The whole description.

    `parameters` maps a name to a number in SI units where it is constant, else to an expression that is read wherever
    the name stands (`eta: 0.05/(1 + n_theta/1e5)`, `amplitude: delta/sqrt(K)`). `clocks` are expressions that evaluate
    to seconds; `iteration` may appear in them (the duration of one iteration).
    """

    name: str
    parameters: Mapping[str, float | str]
    parameter_dimensions: Mapping[str, Dimensions]
    clocks: Mapping[str, str]
    populations: tuple[PopulationSpec, ...]
    couplings: tuple[CouplingSpec, ...]
    task: TaskSpec | None
    cost: CostSpec | None
    trial: TrialSpec | None
    learning: tuple[LearningSpec, ...]
    hardware: HardwareSpec
    record: tuple[RecordSpec, ...]
    text: str  # the netlist as read, includes merged
    file: str
    overrides: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    measure: tuple[Assignment, ...] = ()
    tables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Texts of the files of measured curves that stand in expressions, by the names by which these call them."""

    @property
    def things(self) -> tuple[PopulationSpec | CouplingSpec, ...]:
        """All populations, then all couplings."""
        return (*self.populations, *self.couplings)
