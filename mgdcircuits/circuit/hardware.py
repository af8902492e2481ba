"""What the chip of `hardware` takes for a run: seconds and joules, by the numbers of evaluations and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.clocks import Clocks, value_of
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.spec import LearningSpec

ENERGY = "energy"
"""The key of `hardware`, the word of `record` that asks for joules, and the array that adds up those of evaluations."""


@dataclass(frozen=True)
class Hardware:
    """The chip, for a circuit and a batch.

    Parameters
    ----------
    iteration
        Seconds of an iteration without updates: its evaluations, and setting its perturbations.
    updates
        (iterations between updates, seconds of an update) of each learning system.
    copies
        Of the circuit: so many samples are evaluated at once, and so many devices hold each parameter.
    evaluation_energy
        Joules of an evaluation of a sample, where it is a constant; None: it depends on the state of the circuit.
    perturbation_energy
        Joules of the perturbations of an iteration, in all copies.
    write_energy
        Joules of a write of one parameter, in all copies.
    """

    iteration: float
    updates: tuple[tuple[int, float], ...]
    copies: int
    evaluation_energy: float | None
    perturbation_energy: float
    write_energy: float

    def seconds(self, iterations: int) -> float:
        """Of so many iterations, with their updates."""
        return iterations * self.iteration + sum(iterations // period * each for period, each in self.updates)


def hardware(circuit: Circuit, clocks: Clocks, batch: int) -> Hardware:
    """The numbers of `hardware`, and what it leaves out: an evaluation takes tau_p, all else no time and no energy."""
    spec = circuit.spec.hardware

    def value(section: str, key: str, default: float = 0.0) -> float:
        text = getattr(spec, section).get(key)
        return default if text is None else value_of(circuit, clocks, text)

    copies = round(value("inference", "copies", 1.0))
    samples = ceil(batch / copies)
    by_writing = spec.perturbation.get("through") == "write"
    evaluating = clocks.evaluations * samples * value("inference", "time", clocks.tau_p)
    setting, joules, updates = 0.0, 0.0, []
    for system in circuit.spec.learning:
        set_, each = _setting(circuit, system, value("write", "time"), value("perturbation", "time"), by_writing)
        setting += set_
        joules += 0.0 if by_writing else each * value("perturbation", ENERGY)
        written = sum(groups(circuit, site.parameter) for site in system.sites)
        updates.append((clocks.periods[system.name], written * value("write", "time")))
    constant = ENERGY not in spec.inference or is_constant(circuit, clocks, spec.inference[ENERGY])
    return Hardware(
        iteration=evaluating + setting,
        updates=tuple(updates),
        copies=copies,
        evaluation_energy=value("inference", ENERGY) if constant else None,
        perturbation_energy=joules * min(copies, batch),
        write_energy=value("write", ENERGY) * min(copies, batch),
    )


def is_constant(circuit: Circuit, clocks: Clocks, text: str) -> bool:
    """Whether an energy reads nothing of the circuit's state."""
    known = {*circuit.spec.parameters, *clocks.seconds}
    return all(n in known or expressions.unit_values(n) for n in expressions.names(text))


def groups(circuit: Circuit, parameter: str) -> int:
    """How many groups of devices an update of a parameter writes one after another; vectors are one row."""
    shape = circuit.plastic[parameter].shape
    n = circuit.plastic[parameter].n
    rows = shape[0] if len(shape) > 1 else 1
    parallel = circuit.spec.hardware.write.get("parallel", "none")
    return {"none": n, "row": rows, "column": n // rows if len(shape) > 1 else 1, "all": 1}[parallel]


def switches(passes: Sequence[tuple[str, float]]) -> int:
    """How often a perturbed device is set in an iteration: for each pass that differs from the one before, and back."""
    factors = [0.0, *(factor for _, factor in passes if factor), 0.0]
    return sum(a != b for a, b in zip(factors, factors[1:], strict=False))


def _setting(
    circuit: Circuit, system: LearningSpec, write: float, volatile: float, by_writing: bool
) -> tuple[float, int]:
    """Seconds of setting the perturbations of an iteration, and how many elements are set in its passes."""
    if system.perturb is None or circuit.spec.trial is not None:
        return 0.0, 0
    perturbed = sum(factor != 0 for _, factor in system.passes)
    names = [name for block in system.perturb.blocks for name in block]
    elements = perturbed * sum(circuit.variables[name][2].n for name in names)
    if not by_writing:
        return len(system.perturb.blocks) * perturbed * volatile, elements
    written = sum(groups(circuit, perturbed_parameter(circuit, name)) for name in names)
    return switches(system.passes) * written * write, elements


def perturbed_parameter(circuit: Circuit, perturbation: str) -> str:
    """The qualified name of the plastic parameter that a perturbation belongs to."""
    owner, variable, _ = circuit.variables[perturbation]
    assert variable.perturbs is not None, "checked when the netlist was read"
    return f"{owner.name}.{variable.perturbs}"
