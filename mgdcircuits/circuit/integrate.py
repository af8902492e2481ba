"""Numerical integration: Brian2 turns the differential equations of a population into abstract code."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mgdcircuits.circuit.brian2_import import import_brian2
from mgdcircuits.circuit.circuit import Circuit, Coupling, Population
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Role, Variable, VariableKind

BRIAN2_FLAGS = ("unless refractory", "shared", "constant", "event-driven", "clock-driven", "summed", "constant over dt")


def brian2_line(variable: Variable) -> str:
    """A variable as a line of a Brian2 equation block; flags that only the netlist has are left out."""
    flags = [f for f in BRIAN2_FLAGS if f in variable.flags]
    suffix = f" ({', '.join(flags)})" if flags else ""
    match variable.kind:
        case VariableKind.DIFFERENTIAL:
            left = f"d{variable.name}/dt = {variable.expression}"
        case VariableKind.SUBEXPRESSION:
            left = f"{variable.name} = {variable.expression}"
        case VariableKind.PARAMETER:
            left = variable.name
    return f"{left} : {variable.unit}{suffix}"


def brian2_equations(variables: Iterable[Variable]) -> str:
    """An equation block that Brian2 reads."""
    return "\n".join(brian2_line(v) for v in variables)


def brian2_namespace(circuit: Circuit) -> dict:
    """Parameters and clocks of the netlist as Brian2 quantities."""
    import_brian2()
    from brian2 import Quantity, get_or_create_dimension

    spec = circuit.spec
    return {
        name: Quantity(value, dim=get_or_create_dimension(spec.parameter_dimensions[name]))
        if name in spec.parameter_dimensions
        else value
        for name, value in spec.parameters.items()
        if not isinstance(value, str) and name != "dt"
    }


def population_code(circuit: Circuit, population: Population) -> str:
    """Abstract code of one time step of a population (Brian2's choice of method unless the netlist names one).

    Raises
    ------
    BuildError
        No integrator suits the equations.
    """
    import_brian2()
    from brian2 import NeuronGroup
    from brian2.stateupdaters.base import StateUpdateMethod

    spec = population.spec
    try:
        group = NeuronGroup(
            1,
            brian2_equations(spec.variables),
            threshold=spec.threshold,
            reset=(spec.reset or "") if spec.threshold else None,  # Brian2 warns of a group that says nothing of it
            refractory=spec.refractory or False,
            method=spec.method or ("exact", "euler", "heun"),
            namespace=brian2_namespace(circuit),
            name="integrated_population*",
        )
        group._network = "integrated here"  # Brian2 warns of groups that no network runs
        return StateUpdateMethod.apply_stateupdater(
            group.equations, group.variables, spec.method or ("exact", "euler", "heun"), group_name=spec.name
        )
    except Exception as error:  # Brian2 raises many kinds; all of them are about the equations
        raise BuildError(f"{spec.at}: population {spec.name}: {error}") from error


def coupling_code(circuit: Circuit, coupling: Coupling, event_driven: bool = False) -> str:
    """Abstract code of one time step of the synaptic states, or of their exact solution between events.

    Raises
    ------
    BuildError
        No integrator suits the equations.
    """
    import_brian2()
    from brian2 import NeuronGroup
    from brian2.stateupdaters.base import StateUpdateMethod

    chosen = [v for v in coupling.spec.variables if v.role is not Role.SUMMED and not _left_out(v, event_driven)]
    if event_driven:
        chosen = [v for v in chosen if v.kind is not VariableKind.SUBEXPRESSION]
    names = {v.name for v in chosen}
    outside = _outside_names(chosen, coupling, names)
    text = brian2_equations(chosen).replace("(event-driven)", "").replace("(clock-driven)", "")
    text += "".join(f"\n{name} : {unit}" for name, unit in outside.items())
    text = re.sub(r"\b(\w+_)(pre|post)\b", r"\1\2_side_", text)  # Brian2 lets no variable of a group end in _pre
    try:
        group = NeuronGroup(1, text, namespace=brian2_namespace(circuit), name="integrated_coupling*")
        group._network = "integrated here"  # as above
        method = "exact" if event_driven else coupling.spec.method or ("exact", "euler", "heun")
        code = StateUpdateMethod.apply_stateupdater(group.equations, group.variables, method)
    except Exception as error:
        raise BuildError(f"{coupling.spec.at}: coupling {coupling.name}: {error}") from error
    return re.sub(r"_(pre|post)_side_\b", r"_\1", code)


def _left_out(variable: Variable, event_driven: bool) -> bool:
    """States that are integrated in the other way."""
    return variable.kind is VariableKind.DIFFERENTIAL and ("event-driven" in variable.flags) is not event_driven


def _outside_names(chosen: Iterable[Variable], coupling: Coupling, own: set[str]) -> dict[str, str]:
    """Pre- and post-synaptic variables that synaptic equations read, with their units."""
    found: dict[str, str] = {}
    for variable in chosen:
        for name in re.findall(r"[A-Za-z_]\w*", variable.expression or ""):
            if name in own or name in found:
                continue
            for suffix, population in (("_pre", coupling.pre), ("_post", coupling.post), ("", coupling.post)):
                target = population.variable(name.removesuffix(suffix)) if name.endswith(suffix) else None
                if target is not None:
                    found[name] = target.unit
                    break
    return found
