"""A circuit that is laid out: its arrays for so many members, and so many samples side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.clocks import Clocks
from mgdcircuits.circuit.program import Array, Program, Read, Sample, steps
from mgdcircuits.codegen.initial import initial_values
from mgdcircuits.codegen.presenting import present
from mgdcircuits.codegen.target import Target
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.spec import Role, Sharing


class Layout:
    """What a session and its evaluator have in common.

    Parameters
    ----------
    circuit, program, clocks
        What `builder.build` made of a circuit.
    target
        Holds the arrays; its batch is `batch`, its seeds are `seeds`.
    seeds
        One a member.
    batch
        Samples side by side.
    """

    def __init__(
        self, circuit: Circuit, program: Program, clocks: Clocks, target: Target, seeds: Sequence[int], batch: int
    ) -> None:
        self.circuit = circuit
        self.program, self.clocks = program, clocks
        self.target = target
        self.seeds, self.members = seeds, len(seeds)
        self.batch = batch
        self._initialise()

    def _initialise(self) -> None:
        """Initial values of all variables, by keyed draws in numpy for both targets; what nothing ever writes."""
        for name, values in self.circuit.fixed.items():
            self.target.write(name, values[:, None, None])
        for name, (_, variable, array) in self.circuit.variables.items():
            if variable.initial is not None:
                self.target.write(array.name, self._initial_values(name, array))

    def _initial_values(self, name: str, array: Array) -> np.ndarray:
        lanes = self.batch if array.sharing is Sharing.REPLICA else 1
        return initial_values(self.circuit, name, self.seeds, lanes, self.program.constants, self.target.parameters)

    # What is presented

    def _check_fit(self, shape: tuple[int, ...], y: np.ndarray) -> None:
        expected = self.circuit.input_shape
        if int(np.prod(shape)) != int(np.prod(expected)):
            raise RunError(f"{self.circuit.name}: a sample has the shape {shape}; the input expects {expected}")
        target = self._sample_kernel.target
        if target is None:
            return
        array, _, _, is_label = target
        if is_label:
            if y.ndim != 1 or not np.isin(y, np.arange(array.n)).all():
                raise RunError(f"{self.circuit.name}: onehot(y) expects class indices from 0 to {array.n - 1}")
        elif int(np.prod(y.shape[1:])) != array.n:
            raise RunError(
                f"{self.circuit.name}: a target has the shape {y.shape[1:]}; the circuit expects {array.shape}"
            )

    @cached_property
    def _sample_kernel(self) -> Sample:
        for step in steps(self.program.iteration):
            if isinstance(step.kernel, Sample):
                return step.kernel
        raise RunError(f"{self.circuit.name}: the netlist has no task, so nothing can be presented")

    def _spread(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Samples and targets of every member, (member, batch, values); a target that is a label has no last axis."""
        target = self._sample_kernel.target
        each = () if target is None or target[3] else (target[0].n,)
        targets = np.zeros((self.batch, *each)) if y is None else np.asarray(y, dtype=np.float64)
        samples = self._of_each_member("x", np.asarray(x), self.circuit.input_shape)
        return samples, self._of_each_member("y", targets, each).reshape(self.members, self.batch, *each)

    def _of_each_member(self, name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Values of a batch, or of a batch of each member, as (member, batch, values)."""
        lanes, n = (self.members, self.batch), math.prod(shape)
        if self.batch == 1 and values.size in (n, self.members * n):  # the batch may be left out
            return np.broadcast_to(values.reshape(-1, 1, n), (*lanes, n))
        if values.shape[:1] == lanes[1:] and values.size == self.batch * n:
            return np.broadcast_to(values.reshape(1, self.batch, n), (*lanes, n))
        if values.shape[:2] == lanes and values.size == self.members * self.batch * n:
            return values.reshape(*lanes, n)
        of_members = f", or with the {self.members} members in front" if self.members > 1 else ""
        raise RunError(
            f"{self.circuit.name}: {name} has the shape {values.shape}; expected {(self.batch, *shape)}, "
            f"the batch first{of_members}"
        )

    def _present(self, x: np.ndarray, y: np.ndarray) -> None:
        present(self.target, self._sample_kernel, x, y)

    # What is read

    def _member_first(self, view: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """(elements, member, 1) to (member, *shape), without the member axis where there is one member."""
        moved = np.moveaxis(view[:, :, 0], 1, 0)
        moved = moved.reshape(self.members, *shape) if moved.flags.c_contiguous else _reshape_view(moved, shape)
        return moved[0] if self.members == 1 else moved

    def _replica_first(self, view: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        moved = np.moveaxis(view, 0, 2).reshape(self.members, self.batch, *shape).copy()
        return moved[0] if self.members == 1 else moved

    @cached_property
    def output_array(self):
        """The array that counts as the output: what the cost reads of the last population."""
        read = []
        for step in steps(self.program.evaluate):
            for operand in step.kernel.operands.values():
                if isinstance(operand, Read) and step.kernel.name.startswith(("cost", "accuracy")):
                    read.append(operand.array.name)
        for population in reversed(self.circuit.populations.values()):
            for array in population.arrays.values():
                if array.name in read:
                    return array
        last = list(self.circuit.populations.values())[-1]
        stored = [v.name for v in last.spec.variables if v.role in (Role.STORED, Role.STATE)]
        return last.arrays[stored[-1]]

    @property
    def has_accuracy(self) -> bool:
        """Whether the task says what a right answer is."""
        return bool(self.circuit.spec.task and self.circuit.spec.task.accuracy)

    def _member_rows(self, name: str) -> np.ndarray:
        return self.target.array(name)[0].copy()

    def _reset_states(self) -> None:
        for name, (_, variable, array) in self.circuit.variables.items():
            if variable.role is Role.STATE:
                drawn = 0.0 if variable.initial is None else self._initial_values(name, array)
                self.target.write(array.name, drawn)


def _reshape_view(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(member, n) with any strides to (member, *shape) without copying."""
    strides = [array.strides[1]]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return np.lib.stride_tricks.as_strided(array, (array.shape[0], *shape), (array.strides[0], *strides))
