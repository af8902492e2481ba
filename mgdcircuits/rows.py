"""What a run writes at a row: numbers of the session, of the data, and what `record:` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits import datasets
from mgdcircuits.comparison import squeeze
from mgdcircuits.difficulties import Difficulties
from mgdcircuits.errors import RunError
from mgdcircuits.record import DECLARED, GROUP, MEMBER, ROW, Declaration
from mgdcircuits.recording import Recorder

if TYPE_CHECKING:
    from mgdcircuits.session import Session

TRAIN_SAMPLES = 2000
"""Training samples that `accuracy_train` looks at, at most; and no more than this many batches of them:"""
TRAIN_BATCHES = 100


class Rows:
    """A session, its data and what is read of them.

    Parameters
    ----------
    session, dataset
        What runs, and what it learns from.
    recorder
        What is recorded besides.
    gradient
        Whether the estimate is compared with the exact gradient.

    Raises
    ------
    RunError
        A comparison that is impossible.
    """

    def __init__(self, session: Session, dataset: datasets.Dataset | None, recorder: Recorder, gradient: bool) -> None:
        self.session = session
        self.dataset = dataset
        self.recorder = recorder
        self.gradient = gradient
        self.groups = list(session.circuit.plastic)
        self.costs: list[np.ndarray] = []  # since the last row, (member,)
        self.difficulties = Difficulties(session, self.groups)
        self.angles: Mapping[str, np.ndarray] = {}  # of the iteration before the row
        self._cost_arrays, self._cost_sign = _training_cost(session)
        if gradient:
            if dataset is None:
                raise RunError("a comparison with the exact gradient needs a task and data")
            if not session.program.gradient:
                session.exact_gradient()  # says why there is none
        self._train_part = None
        if dataset is not None and session.has_accuracy:
            n = len(dataset.x_train)
            self._train_part = np.linspace(0, n - 1, min(n, TRAIN_SAMPLES, TRAIN_BATCHES * session.batch)).astype(
                np.int64
            )

    # Which variables there are

    @property
    def names(self) -> list[str]:
        """Declared variables that this run has."""
        session = self.session
        names = ["iteration", "evaluations", "hardware_seconds", "wall_seconds", "seed", "parameter", "parameter_size"]
        names += ["member"] if session.members > 1 else []
        names += ["update_period"] if session.circuit.spec.learning else []
        if self._cost_arrays:
            names += ["cost", "reward"]
        if self.dataset is not None and session.circuit.spec.cost is not None:
            names.append("cost_test")
        if self.dataset is not None and session.has_accuracy:
            names += ["accuracy_test", "accuracy_train"]
        names += ["writes_mean", "writes_max", *self.difficulties.names]
        if self.gradient:
            names += ["cosine", "norm_ratio", "group_cosine", "group_norm_ratio"]
        return names

    @property
    def scalars(self) -> list[str]:
        """Numbers of a row, which `until` may use."""
        fixed = ("iteration", "evaluations", "hardware_seconds", "wall_seconds")
        return [n for n in self.names if n in fixed or DECLARED[n].dims == (ROW,)]

    def schema(self) -> tuple[list[Declaration], dict[str, int], dict[str, Any]]:
        """Declarations, lengths of the fixed dimensions, and what does not change from row to row."""
        session, members = self.session, self.session.members
        names = [n for n in self.names if n != "seed" or members > 1]
        constants = {
            "parameter": self.groups,
            "parameter_size": [session.circuit.plastic[n].n for n in self.groups],
            "member": list(range(members)),
            "seed": session.seeds,
            "update_period": next(iter(session.clocks.periods.values()), 0),
        }
        return (
            [*(DECLARED[n].with_members(members) for n in names), *self.recorder.declarations],
            {GROUP: len(self.groups), MEMBER: members, **self.recorder.sizes},
            {n: v for n, v in constants.items() if n in names} | self.recorder.constants,
        )

    # Their values

    def evaluate(self) -> dict[str, np.ndarray]:
        """Cost and accuracy on the data; takes its time and leaves the session as it is."""
        data, session = self.dataset, self.session
        if data is None or session.circuit.spec.cost is None:
            return {}
        test = session.evaluate(data.x_test, data.y_test, data.scale)
        values = {"cost_test": test.cost.mean(-1)}
        if test.accuracy is not None and self._train_part is not None:
            part = session.evaluate(data.x_train[self._train_part], data.y_train[self._train_part], data.scale)
            assert part.accuracy is not None
            values |= {"accuracy_test": test.accuracy.mean(-1), "accuracy_train": part.accuracy.mean(-1)}
        return values

    def read(self) -> dict[str, Any]:
        """Everything else of the row at this iteration; costs are averaged from here on anew."""
        session = self.session
        values: dict[str, Any] = {
            "iteration": session.iteration,
            "evaluations": session.evaluations,
            "hardware_seconds": session.hardware_seconds,
            **self.recorder.read_row(),
            **self._writes(),
            **self.difficulties.read(),
            **self.angles,
        }
        if self._cost_arrays:
            nothing = np.full(session.members, np.nan)
            mean = squeeze(np.mean(self.costs, axis=0) if self.costs else nothing)
            values |= {"cost": mean, "reward": -mean}
            self.costs.clear()
        return values

    def _writes(self) -> dict[str, np.ndarray]:
        """Mean and maximum of the write counts of each group."""
        session, written = self.session, {a.name for a in self.session.program.arrays}
        mean, most = np.zeros((2, session.members, len(self.groups)))
        for k, name in enumerate(self.groups):
            if f"{name}:writes" in written:
                counts = np.asarray(session.writes(name)).reshape(session.members, -1)
                mean[:, k], most[:, k] = counts.mean(1), counts.max(1)
        return {"writes_mean": squeeze(mean), "writes_max": squeeze(most)}

    def note_cost(self) -> None:
        """Let the cost of the iteration just done count."""
        self.difficulties.note()
        if self._cost_arrays:
            session = self.session
            values = [np.asarray(session.view(n)).reshape(session.members, -1).mean(1) for n in self._cost_arrays]
            self.costs.append(self._cost_sign * np.mean(values, axis=0))


def _training_cost(session: Session) -> tuple[list[str], float]:
    """Arrays whose mean is the cost of the training samples (times the sign: a reward is minus a cost).

    The cost of the unperturbed pass, where there is one; else the mean of all passes; of a trial without a cost: R.
    """
    spec = session.circuit.spec
    arrays = {a.name for a in session.program.arrays}
    if spec.cost is not None:
        for wanted in (True, False):
            names = [
                f"{s.name}.{spec.cost.name}.{name}"
                for s in spec.learning
                for name, factor in s.passes
                if not wanted or factor == 0
            ]
            if names and all(n in arrays for n in names):
                return names, 1.0
    for name in ("R", *(f"{s.name}.R" for s in spec.learning), *(f"{s.name}.R@0" for s in spec.learning)):
        if name in arrays:
            return [name], -1.0
    return [], 1.0
