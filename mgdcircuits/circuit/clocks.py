"""Clocks as integers: how many ticks an evaluation has, how many iterations a sample and an update last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.learning import evaluations as count_evaluations
from mgdcircuits.netlist.parameters import CLOSE, SECOND
from mgdcircuits.netlist.units import Quantity


@dataclass(frozen=True)
class Clocks:
    """Everything about time, in seconds and in counts."""

    dt: float | None  # integration step; None for a memoryless circuit
    tau_p: float  # one evaluation
    evaluations: int  # in one iteration, of all learning systems
    ticks: int  # integration steps in one evaluation
    period_x: int  # iterations that a sample is held
    periods: dict[str, int]  # learning system -> iterations between updates
    holds: dict[str, int]  # learning system -> iterations that its codes are held; only outside trials
    seconds: dict[str, float]  # all clocks, and `iteration`

    @property
    def iteration(self) -> float:
        """Duration of one iteration of one sample, in seconds."""
        return self.seconds["iteration"]


def value_of(circuit: Circuit, clocks: Clocks, text: str) -> float:
    """The value of an expression of parameters and clocks, in SI units."""
    spec = circuit.spec
    values = {
        n: Quantity(v, spec.parameter_dimensions.get(n, (0,) * 7))
        for n, v in spec.parameters.items()
        if not isinstance(v, str)
    }
    values |= {n: Quantity(v, SECOND) for n, v in clocks.seconds.items()}
    return expressions.evaluate(text, values).value


def resolve(circuit: Circuit) -> Clocks:
    """Evaluate the clocks.

    Raises
    ------
    BuildError
        A clock that is no whole multiple of the one below it.
    """
    spec = circuit.spec
    values: dict[str, Quantity] = {
        name: Quantity(value, spec.parameter_dimensions.get(name, (0,) * 7))
        for name, value in spec.parameters.items()
        if not isinstance(value, str)
    }
    waiting = dict(spec.clocks)
    waiting.setdefault("tau_p", "1*second")
    evaluations = count_evaluations(spec.learning, spec.trial)
    names = set(waiting)
    while waiting:
        before = len(waiting)
        for name, text in list(waiting.items()):
            if not (expressions.names(text) & names) - set(values):
                if "iteration" in expressions.names(text) and "iteration" not in values:
                    continue
                values[name] = expressions.evaluate(text, values)
                del waiting[name]
        if "tau_p" in values and "iteration" not in values:
            values["iteration"] = Quantity(_iteration(circuit, values, evaluations), SECOND)
            continue
        if len(waiting) == before:
            raise BuildError(f"{spec.file}: the clocks {', '.join(waiting)} depend on each other in a circle")
    seconds = {name: values[name].value for name in (*names, "iteration")}
    dt = seconds.get("dt") if circuit.is_continuous or circuit.is_spiking else None
    if dt is None and (circuit.is_continuous or circuit.is_spiking):
        raise BuildError(f"{spec.file}: a circuit with dynamics needs the integration step: `clocks: {{dt: 0.1*ms}}`")
    iteration = seconds["iteration"]
    evaluation = iteration if spec.trial or runs_freely(circuit) else seconds["tau_p"]
    ticks = 1 if dt is None else multiple(evaluation, dt, "a trial" if spec.trial else "tau_p", "dt")
    period_x = multiple(seconds.get("tau_x", iteration), iteration, "tau_x", "one iteration")
    periods, holds = {}, {}
    for system in spec.learning:
        every = expressions.evaluate(system.update_every, values).value if system.update_every else iteration
        periods[system.name] = multiple(every, iteration, f"update of {system.name}", "one iteration")
        if system.perturb is not None and spec.trial is None:
            held, what = expressions.evaluate(system.perturb.every, values).value, f"`perturb: every` of {system.name}"
            once = abs(held - seconds["tau_p"]) <= CLOSE * seconds["tau_p"]
            holds[system.name] = 1 if once else multiple(held, iteration, what, "one iteration")
    if spec.trial:
        period_x = 1
    return Clocks(dt, evaluation, evaluations, ticks, period_x, periods, holds, seconds)


def runs_freely(circuit: Circuit) -> bool:
    """Whether a spiking circuit only runs in time: no trial, no learning. Then an iteration is one tick."""
    return circuit.is_spiking and circuit.spec.trial is None and not circuit.spec.learning


def _iteration(circuit: Circuit, values: Mapping[str, Quantity], evaluations: int) -> float:
    """Duration of an iteration: of all evaluations, of a trial, or of a tick."""
    spec = circuit.spec
    if spec.trial is not None:
        return sum(expressions.evaluate(phase.duration, values).value for phase in spec.trial.phases)
    if runs_freely(circuit) and "dt" in values:
        return values["dt"].value
    return values["tau_p"].value * evaluations


def multiple(long: float, short: float, name: str, unit: str) -> int:
    """How many times `short` goes into `long`.

    Raises
    ------
    BuildError
        It does not go a whole number of times.
    """
    ratio = long / short
    count = round(ratio)
    if count < 1 or abs(ratio - count) > CLOSE * max(1, count):
        raise BuildError(f"{name} = {long:g} s is no whole multiple of {unit} = {short:g} s")
    return count
