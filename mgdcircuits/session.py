"""A live circuit: step it, read and write its state, evaluate it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mgdcircuits import checkpoint
from mgdcircuits.arguments import check_batch, check_choices, check_circuit, finite, number_type, whole
from mgdcircuits.circuit import builder
from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.clocks import value_of
from mgdcircuits.circuit.hardware import Hardware, hardware
from mgdcircuits.codegen.numpy_target import NumpyTarget
from mgdcircuits.codegen.target import Data, Target
from mgdcircuits.datasets import Dataset
from mgdcircuits.datasets.of_task import dataset_of
from mgdcircuits.divergence import Watch
from mgdcircuits.errors import RunError
from mgdcircuits.evaluation import Evaluation, Evaluator
from mgdcircuits.interrupts import Held
from mgdcircuits.layout import Layout
from mgdcircuits.netlist.spec import Role, Sharing
from mgdcircuits.pace import Pace
from mgdcircuits.randomness import seeds_of
from mgdcircuits.spiking import SpikingSession
from mgdcircuits.storage import fingerprint

NOTHING = "nothing to show: call present(x, y) or set_data(...) first"


class Session(Layout, SpikingSession):
    """A compiled circuit that is alive.

    Parameters
    ----------
    circuit
        From `mgdcircuits.load`.
    batch
        Samples shown side by side; they share the plastic parameters. Default: the netlist's.
    members
        Independent experiments side by side, each with parameters of its own; member m has the seed ``seed + m``.
    seed
        Of all keyed draws. A whole number from 0 to 2**63 - 1, or one for each member.
    target
        ``"cpp"`` or ``"numpy"``, the readable oracle.
    dtype
        ``"float32"`` or ``"float64"``; costs are always float64.
    threads
        Of the C++ target; the results do not depend on it.
    data
        What `step` draws its samples from: a `Dataset`, a name, or arrays (x, y), see `set_data`.
    on_nan
        What `step` does when a cost, a parameter or a state becomes infinite or not a number: ``"stop"`` with a RunError
        that says where and why, or ``"continue"``.

    Raises
    ------
    BuildError
        The circuit cannot run on this target; no C++ compiler.
    RunError
        A bad argument.
    """

    def __init__(
        self,
        circuit: Circuit,
        *,
        batch: int | None = None,
        members: int = 1,
        seed: int | Sequence[int] = 0,
        target: str = "cpp",
        dtype: str = "float32",
        threads: int = 1,
        data: Any = None,
        on_nan: str = "stop",
    ) -> None:
        check_circuit(circuit)
        check_choices(circuit, target, on_nan)
        task = circuit.spec.task
        batch = (task.batch if task else 1) if batch is None else whole("batch", batch)
        check_batch(circuit, batch)
        seeds = seeds_of(seed, whole("members", members))
        self.target_name = target
        number = number_type(dtype)
        program, clocks = builder.build(circuit)
        made = _target(target)(program, clocks, seeds, batch, number, whole("threads", threads))
        super().__init__(circuit, program, clocks, made, seeds, batch)
        self.pinned = False
        self.targets_missing = False  # samples were presented without y
        self._data_since = 0  # iteration at which the data was chosen
        self._pace = Pace()
        self._watch = Watch(self) if on_nan == "stop" else None
        self._evaluator: Evaluator | None = None
        if data is not None:
            self.set_data(data)

    # Data

    def set_data(self, data: Any = None) -> None:
        """Choose what `step` draws its samples from.

        Parameters
        ----------
        data
            A `Dataset`, a name, or arrays (x, y); by default what the task of the netlist names. Options of the task hold for
            the data that it names, and what it holds out for validation is not drawn.

        Raises
        ------
        RunError
            Samples that do not fit the circuit's input; a task that names no data.
        """
        dataset = data if isinstance(data, Dataset) else dataset_of(self.circuit, data)
        if dataset is None:
            raise RunError(f"{self.circuit.name}: the netlist names no data; give some, or present(x, y)")
        self.dataset = dataset
        y = np.ascontiguousarray(dataset.y_train, dtype=np.float64)
        self._check_fit(dataset.x_train.shape[1:], y)
        self.target.set_data(Data(np.ascontiguousarray(dataset.x_train), y, float(dataset.scale)))
        self.pinned = self.targets_missing = False
        self._data_since = self.iteration
        self.__dict__.pop("data_digest", None)

    @cached_property
    def data_digest(self) -> str | None:
        """SHA-256 of the samples that `step` draws from, by which a checkpoint knows them."""
        data = self.target.data
        if data is None:
            return None
        return fingerprint(data.x, data.y, also=repr(data.scale))

    def present(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Pin the input: the session shows these samples until other data is set.

        Parameters
        ----------
        x
            (batch, *input shape); a leading member axis where members > 1 (without it all members see the same). As the circuit
            sees it: samples of a `Dataset` times its `scale`.
        y
            Class index (batch,) or target (batch, *output); without it there are outputs, but no cost, accuracy, gradient
            or step.

        Raises
        ------
        RunError
            Samples or targets of another shape; labels that are no class indices.
        """
        self.targets_missing = y is None and self._sample_kernel.target is not None
        x, y = self._spread(x, y)
        self._check_fit(x.shape[2:], y.reshape(-1, *y.shape[2:]))
        self._present(x, y)
        self.pinned = True
        self.target.set_data(None)
        self.__dict__.pop("data_digest", None)

    # Reading

    def view(self, name: str) -> np.ndarray:
        """A variable by qualified name, shared per member: a live view (member axis first where members > 1);
        per replica: a copy (batch, *shape)."""
        array = next((a for a in self.program.arrays if a.name == name), None)
        if array is None:
            from mgdcircuits.netlist.expressions import nearest

            close = nearest(name, [a.name for a in self.program.arrays])
            raise RunError(f"nothing is called {name!r}" + (f"; did you mean {close!r}?" if close else ""))
        if array.sharing is Sharing.MEMBER:
            return self._member_first(self.target.array(name), array.shape)
        return self._replica_first(self.target.array(name), array.shape)

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Plastic parameters by qualified name: live views, (out, in) dense, (out, in, ky, kx) conv, (out,) bias."""
        return {name: self.view(a.name) for name, a in self.circuit.plastic.items()}

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.target.iteration

    @property
    def evaluations(self) -> int:
        """Sample evaluations on the hardware so far, for one member."""
        return self.iteration * self.clocks.evaluations * self.batch

    @cached_property
    def hardware(self) -> Hardware:
        """What the chip of the netlist's `hardware` takes."""
        return hardware(self.circuit, self.clocks, self.batch)

    @property
    def hardware_seconds(self) -> float:
        """Simulated time: evaluations one after another on `copies` of the circuit, perturbations and writes."""
        return self.hardware.seconds(self.iteration)

    def writes(self, name: str) -> np.ndarray:
        """Writes of every device of a plastic parameter, shaped like it."""
        return self.view(f"{name}:writes")

    def endurance(self, name: str) -> np.ndarray | None:
        """Writes that every device of a plastic parameter survives, shaped like it; None where none is declared."""
        text = self.circuit.spec.hardware.endurance.get(name)
        if text is None:
            return None
        drawn = f"{name.rpartition('.')[0]}.{text}"
        if drawn in self.circuit.variables:
            return self.view(drawn)
        return np.full(self.writes(name).shape, value_of(self.circuit, self.clocks, text))

    # Running

    def step(self, n: int = 1) -> None:
        """Run n iterations (an iteration is one draw of all codes with every evaluation that belongs to it).

        Ctrl-C stops within 0.2 s, or at the end of the iteration; the session is whole then and can go on.

        Raises
        ------
        RunError
            Nothing to show: neither `present` nor data. A cost, parameter or state that is not finite any more.
        """
        for _ in self.slices(n):
            pass

    def slices(self, n: int) -> Iterator[int]:
        """As `step`, in slices of about 0.05 s; gives the iterations done so far after each."""
        n = whole("n", n, least=0)
        if not self.circuit.spec.learning and self.circuit.spec.trial is None:
            raise RunError(f"{self.circuit.name}: the netlist has no `learning`, so there is nothing to step")
        if self.circuit.spec.task is not None and not self.pinned and self.target.data is None:
            raise RunError(NOTHING)
        self._check_targets()
        yield from self._advance(n)

    def _advance(self, n: int) -> Iterator[int]:
        end = self.iteration + n
        while (now := self.iteration) < end:
            count = self._pace.next(end - now)
            start = time.perf_counter()
            finite = self.target.run("iteration", count)
            passed = time.perf_counter() - start
            self._pace.took(self.iteration - now, passed)
            if self._watch is not None:
                self._watch.look(self, now, finite, passed)
            yield self.iteration

    def check_finite(self, cost: np.ndarray | None = None) -> None:
        """Make sure that parameters and states are finite, and the cost of an evaluation, if there is one.

        Raises
        ------
        RunError
            They are not, and the session was not told to continue.
        """
        if self._watch is not None:
            self._watch.check(self, cost)

    def outputs(self) -> np.ndarray:
        """Outputs (batch, *output shape) of an unperturbed evaluation of the presented samples."""
        return self._look(self._outputs)

    def _outputs(self) -> np.ndarray:
        array = self.output_array
        return self._replica_first(self.target.array(array.name), array.shape)

    def cost(self) -> np.ndarray:
        """Cost (batch,) of an unperturbed evaluation of the presented samples."""
        self._needs("cost")
        self._check_targets()
        return self._look(lambda: self._replica_first(self.target.array("cost"), ()))

    def accuracy(self) -> np.ndarray:
        """1 for a right answer, 0 for a wrong one, (batch,)."""
        self._needs("accuracy")
        self._check_targets()
        return self._look(lambda: self._replica_first(self.target.array("accuracy"), ()))

    def settling_residual(self) -> np.ndarray:
        """By how much the cost of the presented samples goes on changing while a circuit with dynamics settles.

        The root mean square over the batch of the difference between two evaluations that follow each other, the first of
        which begins with the initial states; of each member where there are several.
        """
        self._needs("cost")
        self._check_targets()

        def twice() -> np.ndarray:
            again = self._member_rows("cost")  # the one from rest
            self.target.run("evaluate")
            return np.sqrt(((self._member_rows("cost") - again) ** 2).mean(1))

        found = self._look(twice, from_rest=True)
        return found if self.members > 1 else found[0]

    def _needs(self, name: str) -> None:
        if not any(a.name == name for a in self.program.arrays):
            raise RunError(f"{self.circuit.name}: the netlist has no `{name}`, so there is none to evaluate")

    def _check_targets(self) -> None:
        """Refuse what needs targets where samples were presented without them."""
        if self.targets_missing:
            raise RunError("samples were presented without targets: call present(x, y)")

    def _check_shown(self) -> None:
        """Refuse to look at samples before there are any."""
        if not self.circuit.inputs or self.pinned or self.iteration > self._data_since:
            return
        if self.target.data is None:
            raise RunError(NOTHING)
        raise RunError("no sample is shown yet: call step() first, which draws from the data, or present(x, y)")

    def _look(self, read: Callable[[], np.ndarray], from_rest: bool = False) -> np.ndarray:
        """What `read` finds after an unperturbed evaluation; states (the charge of a circuit) are put back afterwards."""
        self._check_shown()
        states = [a.name for _, v, a in self.circuit.variables.values() if v.role is Role.STATE]
        with Held():
            kept = {name: self.target.array(name).copy() for name in states}
            if from_rest:
                self._reset_states()
            self.target.run("evaluate")
            found = read()
            for name, value in kept.items():
                self.target.write(name, value)
        return found

    def evaluate(self, x: np.ndarray, y: np.ndarray, scale: float = 1.0) -> Evaluation:
        """Cost, accuracy and outputs on other data; the trajectory and the presented samples are not disturbed.

        Parameters
        ----------
        x, y
            Any number of samples (n, *input shape), (n,) or (n, *output); the same for all members.
        scale
            By which samples are multiplied, as `Dataset.scale`.

        Raises
        ------
        RunError
            There are no samples, or they do not fit; the circuit has no cost.
        """
        self._needs("cost")
        x, y = np.asarray(x), np.asarray(y)
        if not x.size:
            raise RunError("there are no samples to evaluate; give at least one")
        if x.shape[:1] != y.shape[:1]:
            raise RunError(f"x has the shape {x.shape} and y {y.shape}; expected as many targets as samples")
        self._check_fit(x.shape[1:], y)
        if self._evaluator is None or not self._evaluator.serves(self, len(x)):
            self._evaluator = Evaluator(self, len(x))
        return self._evaluator.evaluate(self, x, y, scale)

    def exact_gradient(self, wrt: str | Sequence[str] | None = None, per_sample: bool = False) -> dict[str, np.ndarray]:
        """The exact gradient of the mean cost over the presented batch, by reverse mode.

        Parameters
        ----------
        wrt
            Qualified names of plastic parameters, or one; default all.
        per_sample
            Each sample's own gradient, with a batch axis in front of the parameter's.

        Raises
        ------
        RunError
            A spiking or continuous circuit, or an equation without a known derivative; an unknown parameter; no sample
            is shown.
        """
        if not self.program.gradient:
            reason = self.program.constants.get("gradient_refusal") or "it has dynamics or spikes"
            raise RunError(f"{self.circuit.name} has no exact gradient: {reason}")
        names = [wrt] if isinstance(wrt, str) else wrt or self.circuit.plastic
        for name in names:
            if name not in self.circuit.plastic:
                raise RunError(f"{name!r} is not a plastic parameter; there are {', '.join(self.circuit.plastic)}")
        self._check_shown()
        self._check_targets()
        self.target.run("evaluate")
        self.target.run("per_sample_gradient" if per_sample else "gradient")
        found = {}
        for name in names:
            array = self.circuit.plastic[name]
            if per_sample:
                found[name] = self._replica_first(self.target.array(f"gradient_per_sample:{name}"), array.shape)
            else:
                found[name] = self._member_first(self.target.array(f"gradient:{name}"), array.shape).copy()
        return found

    def gradient_estimate(self) -> dict[str, np.ndarray]:
        """The accumulated estimate G of every trained parameter, laid out like the parameter (a copy)."""
        names = [s.parameter for system in self.circuit.spec.learning for s in system.sites]
        return {name: self.view(f"{name}:G").copy() for name in names}

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, atomically; see `mgdcircuits.checkpoint.save`."""
        checkpoint.save(self, path)

    @staticmethod
    def resume(
        path: str | Path,
        *,
        circuit: Circuit | None = None,
        threads: int = 1,
        data: Any = None,
        on_nan: str = "stop",
    ) -> Session:
        """A session that goes on where `save` left it; see `mgdcircuits.checkpoint.resume`."""
        return checkpoint.resume(path, circuit=circuit, threads=threads, data=data, on_nan=on_nan)

    def set(self, **values: float) -> None:
        """Change netlist parameters of the running session, in SI units; nothing is compiled again.

        Raises
        ------
        RunError
            An unknown parameter, or one that is an expression of runtime words; a value that is no finite number.
        """
        for name in values:
            if name not in self.target.parameters:
                raise RunError(f"{name!r} is not a number that the running circuit reads")
        self.target.parameters.update({name: finite(name, value) for name, value in values.items()})


def _target(name: str) -> type[Target]:
    if name == "numpy":
        return NumpyTarget
    from mgdcircuits.codegen.cpp_target import CppTarget

    return CppTarget
