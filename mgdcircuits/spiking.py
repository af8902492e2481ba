"""What a session offers for spiking circuits: running in time, spikes, traces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.clocks import Clocks, multiple, runs_freely
from mgdcircuits.codegen.numpy_events import Trace, recorder
from mgdcircuits.codegen.numpy_target import NumpyTarget
from mgdcircuits.codegen.target import Target
from mgdcircuits.errors import BuildError, RunError
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.units import Quantity


def refuse_cpp(circuit: Circuit, target: str) -> None:
    """Spiking circuits and trials have no C++ form yet.

    Raises
    ------
    BuildError
        With what to write instead.
    """
    if target == "cpp" and (circuit.is_spiking or circuit.spec.trial is not None):
        what = "spiking circuits" if circuit.is_spiking else "circuits with trials"
        raise BuildError(f"{circuit.name}: {what} run on the numpy target so far; write target='numpy'")


class SpikingSession:
    """The part of `Session` that deals with time and spikes."""

    circuit: Circuit
    clocks: Clocks
    target: Target
    members: int
    batch: int

    def _advance(self, n: int) -> Iterator[int]:
        raise NotImplementedError

    def run(self, duration: float | str) -> None:
        """Let time pass in a spiking circuit without trials.

        Parameters
        ----------
        duration
            Seconds, or text with a unit (``"100*ms"``); a whole number of time steps.

        Raises
        ------
        RunError
            A circuit that has trials, or no spikes: use `step`.
        """
        if not runs_freely(self.circuit):
            raise RunError(f"{self.circuit.name}: only a spiking circuit without trials runs in time; use step(n)")
        if isinstance(duration, str):
            parameters = self.circuit.spec.parameters
            values = {
                n: Quantity(v, self.circuit.spec.parameter_dimensions.get(n, (0,) * 7))
                for n, v in parameters.items()
                if not isinstance(v, str)
            }
            duration = expressions.evaluate(duration, values).value
        for _ in self._advance(multiple(float(duration), self._dt, "the duration", "dt")):
            pass

    def watch(self, *names: str, every: float | None = None, units=slice(None)) -> None:
        """Record variables from now on, at the beginning of time steps (as Brian2's `StateMonitor` does).

        Parameters
        ----------
        *names
            Qualified names: ``"exc.v"``.
        every
            Seconds between records; default one time step.
        units
            Which elements: a slice or a list of indices.
        """
        step = 1 if every is None else multiple(every, self._dt, "every", "dt")
        chosen = units if isinstance(units, slice) else np.asarray(units)
        for name in names:
            if name not in self.circuit.variables:
                close = expressions.nearest(name, self.circuit.variables)
                raise RunError(f"nothing is called {name!r}" + (f"; did you mean {close!r}?" if close else ""))
            array = self.circuit.variables[name][2].name
            recorder(self._numpy).traces[name] = Trace(array, step, chosen)

    def spikes(self, population: str) -> tuple[np.ndarray, ...]:
        """Spikes of the last trial; without trials, since the session began or `forget` was called.

        Returns
        -------
        times, units
            Seconds and unit indices, ordered by time then unit; with several members or a batch also the index of the
            replica, ``member*batch + entry``.
        """
        if population not in self.circuit.populations or not self.circuit.populations[population].spec.threshold:
            spiking = [n for n, p in self.circuit.populations.items() if p.spec.threshold]
            raise RunError(f"{population!r} emits no spikes; populations with a threshold: {', '.join(spiking)}")
        made = recorder(self._numpy).spikes.get(population, [])
        n = np.array([len(found[0]) for _, found in made], dtype=int)
        ticks = np.repeat(np.array([tick for tick, _ in made], dtype=np.int64), n)
        columns = [np.concatenate([f[k] for _, f in made]) if made else np.zeros(0, int) for k in range(3)]
        times = ticks * self._dt
        if self.members * self.batch == 1:
            return times, columns[0]
        return times, columns[0], columns[1] * self.batch + columns[2]

    def trace(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A watched variable: times (n,) in seconds and values (n, units[, replicas])."""
        found = recorder(self._numpy).traces.get(name)
        if found is None:
            raise RunError(f"{name!r} is not watched; call watch({name!r}) before running")
        times = np.array(found.ticks) * self._dt
        values = np.array(found.values)
        if values.ndim < 4:
            return times, values
        if self.members * self.batch == 1:
            return times, values[:, :, 0, 0]
        return times, values.reshape(*values.shape[:2], -1)

    def forget(self) -> None:
        """Drop the spikes and traces recorded so far."""
        recorder(self._numpy).forget()

    @property
    def _dt(self) -> float:
        if self.clocks.dt is None:
            raise RunError(f"{self.circuit.name} has no time steps")
        return self.clocks.dt

    @property
    def _numpy(self) -> NumpyTarget:
        if not isinstance(self.target, NumpyTarget):
            raise RunError("spikes and traces are recorded on the numpy target so far")
        return self.target
