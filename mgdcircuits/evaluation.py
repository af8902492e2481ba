"""Many samples evaluated beside a session, whose trajectory and presented samples stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgdcircuits.codegen.target import EVALUATE, ITERATE, Target
from mgdcircuits.layout import Layout
from mgdcircuits.netlist.spec import Sharing

WIDE = 64, 256  # samples side by side when many are evaluated, at least and at most
WIDE_NUMBERS = 2**22  # of all samples side by side, beyond the least


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation on given data found: arrays over samples, with a leading member axis where members > 1."""

    cost: np.ndarray
    accuracy: np.ndarray | None
    outputs: np.ndarray


class Evaluator(Layout):
    """The circuit of a session with arrays of its own, wide enough for many samples side by side.

    Parameters
    ----------
    session
        Whose parameters are evaluated.
    n
        How many samples are to be.
    """

    def __init__(self, session: Layout, n: int) -> None:
        batch = _width(session, n)
        own = session.target
        phases = ITERATE if batch == session.batch else EVALUATE  # the same batch has its library already
        target = type(own)(session.program, session.clocks, session.seeds, batch, own.dtype, own.threads, phases)
        super().__init__(session.circuit, session.program, session.clocks, target, session.seeds, batch)

    def serves(self, session: Layout, n: int) -> bool:
        """Whether so many samples need no wider one; a little wider would not be worth compiling it."""
        return self.batch >= min(_width(session, n), WIDE[0])

    def evaluate(self, session: Layout, x: np.ndarray, y: np.ndarray, scale: float) -> Evaluation:
        """Samples (n, *input shape) times `scale` and their targets, with the parameters that the session has now."""
        self._follow(session.target)
        costs, right, outputs = [], [], []
        for first in range(0, len(x), self.batch):
            chunk = x[first : first + self.batch]
            n = len(chunk)
            index = np.arange(self.batch) % n
            spread = self._spread(chunk[index] * np.float32(scale), y[first : first + n][index])
            self._present(*spread)
            self._reset_states()
            self.target.run("evaluate")
            costs.append(self._member_rows("cost")[:, :n])
            if self.has_accuracy:
                right.append(self._member_rows("accuracy")[:, :n])
            array = self.output_array
            moved = np.moveaxis(self.target.array(array.name), 0, 2)
            outputs.append(moved.reshape(self.members, self.batch, *array.shape)[:, :n].copy())
        leading = 0 if self.members == 1 else slice(None)

        def joined(parts: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(parts, axis=1)[leading]

        return Evaluation(joined(costs), joined(right) if right else None, joined(outputs))

    def _follow(self, target: Target) -> None:
        """Take over what the samples of a session share."""
        for array in self.program.arrays:
            if array.sharing is Sharing.MEMBER:
                self.target.write(array.name, target.array(array.name))
        self.target.parameters.update(target.parameters)
        self.target.iteration = target.iteration
        self.target.threads = target.threads


def _width(session: Layout, n: int) -> int:
    """How many of n samples are evaluated side by side: fewer of a large circuit, and few numbers, as each is compiled."""
    least, most = WIDE
    if session.batch >= least or n <= session.batch:
        return session.batch
    numbers = session.members * sum(a.n for a in session.program.arrays if a.sharing is Sharing.REPLICA)
    fitting = min(most, max(least, WIDE_NUMBERS // numbers), n)
    return max(session.batch, fitting if fitting < least else 2 ** (fitting.bit_length() - 1))
