"""What both targets offer to a session: arrays as numpy views, runtime numbers, and entry points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgdcircuits.circuit.clocks import Clocks
from mgdcircuits.circuit.program import Array, Precision, Program, Random, Sample, steps
from mgdcircuits.randomness import site_key

ITERATE = ("iteration", "evaluate")
EVALUATE = ("evaluate",)
EVALUATION_COUNT = 1 << 62  # draws of evaluations on request never meet those of the training


@dataclass(frozen=True)
class Data:
    """Samples that a session draws from: `x` (n, *input shape) as uint8 or float32, presented as ``x*scale``."""

    x: np.ndarray
    y: np.ndarray  # class indices (n,) as float64, or float targets (n, n_target)
    scale: float


class Target(ABC):
    """A program laid out for some members and batch size; `phases` are those that it must be ready for at once."""

    def __init__(
        self,
        program: Program,
        clocks: Clocks,
        seeds: Sequence[int],
        batch: int,
        dtype: np.dtype,
        threads: int,
        phases: tuple[str, ...] = ITERATE,
    ) -> None:
        self.program = program
        self.clocks = clocks
        self.seeds = list(seeds)
        self.members = len(self.seeds)
        self.batch = batch
        self.dtype = np.dtype(dtype)
        self.threads = threads
        self.parameters = dict(program.parameters)
        self.iteration = 0
        self.watched: tuple[str, ...] = ()
        self.data: Data | None = None

    def numpy_dtype(self, array: Array) -> np.dtype:
        """The number type of an array."""
        return {
            Precision.REAL: self.dtype,
            Precision.DOUBLE: np.dtype(np.float64),
            Precision.INTEGER: np.dtype(np.int64),
        }[array.precision]

    @abstractmethod
    def array(self, name: str) -> np.ndarray:
        """The values, (elements, member, batch or 1): a live view of an array per member, of another one to read only."""

    @abstractmethod
    def write(self, name: str, values: np.ndarray | float) -> None:
        """Set the values of an array; they broadcast to (elements, member, batch or 1)."""

    @abstractmethod
    def run(self, phase: str, count: int = 1) -> bool:
        """Run a phase of the program `count` times; ``iteration`` advances `self.iteration`.

        It stops after the first time that leaves a watched number infinite or not a number; whether none did.
        """

    def watch(self, arrays: Sequence[str]) -> None:
        """Choose the numbers of replicas (float64, one element) that `run` watches."""
        self.watched = tuple(arrays)

    @abstractmethod
    def set_data(self, data: Data | None) -> None:
        """The samples that `iteration` draws from; None: it shows what was presented."""

    def keys(self, site: str) -> list[int]:
        """The key of a random site for each member."""
        return [site_key(seed, site) for seed in self.seeds]


def random_sites(program: Program) -> list[str]:
    """Qualified names of all keyed draws, in order of appearance."""
    sites: dict[str, None] = {}
    for nodes in program.phases().values():
        for step in steps(nodes):
            for operand in step.kernel.operands.values():
                if isinstance(operand, Random):
                    sites[operand.site] = None
            if isinstance(step.kernel, Sample):
                sites["sample"] = None
    return list(sites)
