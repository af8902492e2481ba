"""What the hardware, or this machine, cannot do: steps that are too coarse, sizes that do not fit."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING

from mgdcircuits.netlist.checks.registry import Report, rule
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    Quantity,
    evaluate,
    names,
    parse,
    parse_statements,
    substitute,
    text,
)
from mgdcircuits.netlist.sizes import memory
from mgdcircuits.netlist.spec import Site
from mgdcircuits.netlist.units import DIMENSIONLESS, describe, divide

if TYPE_CHECKING:
    from mgdcircuits.netlist.load import Circuit

MEMORY_SHARE = 0.8
"""The part of the machine's memory that a circuit may take."""


@rule("coarse-device", "a device step must not be so coarse that every update rounds to zero")
def coarse_device(circuit: Circuit, report: Report) -> None:
    """`floor(request/STEP + constant)` in `on_write`.

    The request is computed for the gradient with which the cost changes by one (in its SI unit) when the parameter
    moves by its whole natural size, |G| = 1/scale, at the first update, with optimizer states at zero. A learning
    circuit hardly ever sees a larger one, so if this request rounds to no step in both directions, none will. Rounding
    at random (`+ rand()`) is not judged.
    """
    variables = circuit.objects.variables()
    reported: set[object] = set()
    for system in circuit.spec.learning:
        for site in system.sites:
            variable = variables[site.parameter]
            name = site.parameter.partition(".")[0]
            request = _typical_request(circuit, site)
            if request is None:
                continue
            for rounded in _roundings(site.on_write):
                zero = all(_rounds_to_zero(circuit, rounded, sign * request, variable.dimensions) for sign in (1, -1))
                thing = circuit.draft.couplings.get(name) or circuit.draft.populations.get(name)
                block = thing.template.texts.get("on_write") if thing is not None else None
                at = getattr(block, "at", variable.at)
                if zero and at not in reported:
                    reported.add(at)
                    size = f"{abs(request):.3g} {describe(variable.dimensions)}".removesuffix(" 1")
                    report.add(
                        "coarse-device",
                        at,
                        f"`{rounded}` is 0 for every request on `{site.parameter}`: even where the cost "
                        f"changes by 1 over the whole `scale`, the request is {size}",
                        "steps no larger than the requests",
                        "make the step smaller or eta larger, or round at random: `floor(request/step + rand())`",
                    )


def _typical_request(circuit: Circuit, site: Site) -> float | None:
    variable = circuit.objects.variables()[site.parameter]
    cost = next((d for d in circuit.measured.dimensions.values() if d is not None), DIMENSIONLESS)
    scale = variable.scale or 1.0
    values = dict(circuit.parameters.constants())
    values |= {n: Quantity(v) for n, v in (("n_theta", 0.0), ("n_G", 1.0), ("n_x", 1.0), ("n_p", 1.0), ("K", 1.0))}
    values["scale"] = Quantity(scale, variable.dimensions)
    values["G"] = Quantity(1 / scale, divide(cost, variable.dimensions))
    values |= {name: Quantity(0.0, dims) for name, dims in site.states}
    try:
        for statement in parse_statements(site.update):
            values[statement.target] = evaluate(statement.value, values)
    except (ExpressionError, ArithmeticError):
        return None
    found = values.get("request")
    return None if found is None or found.value == 0 else found.value


def _roundings(on_write: str) -> list[str]:
    """The calls of floor, ceil and int whose argument is a quotient of `request` and no random number."""
    found = []
    for statement in parse_statements(on_write):
        for node in ast.walk(parse(statement.value)):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("floor", "ceil", "int")
            ):
                continue
            inside = text(node.args[0])
            calls = {n.func.id for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            quotient = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div) for n in ast.walk(node))
            if (
                "request" in names(inside)
                and quotient
                and not any(c.startswith(("rand", "poisson", "bit")) for c in calls)
            ):
                found.append(text(node))
    return found


def _rounds_to_zero(circuit: Circuit, rounded: str, request: float, dims: tuple[int | float, ...]) -> bool:
    try:
        values = {**circuit.parameters.constants(), "request": Quantity(request, dims)}
        return evaluate(substitute(rounded, {}), values).value == 0
    except ExpressionError:
        return False


@rule("memory", "the circuit must fit into the memory of this machine")
def memory_size(circuit: Circuit, report: Report) -> None:
    """A lower bound of the session's arrays, for one member and the batch of the task."""
    available = _physical_memory()
    if available is None or circuit.objects.lost:
        return
    needed = memory(circuit.spec)
    if needed > MEMORY_SHARE * available:
        task = circuit.document.task
        at = task.batch.at if task is not None and task.batch is not None else circuit.spec.populations[0].at
        largest = max(circuit.spec.couplings, key=lambda c: memory_of(circuit, c.name), default=None)
        if largest is not None and (task is None or task.batch is None):
            at = largest.at
        report.add(
            "memory",
            at,
            f"the circuit needs at least {needed / 2**30:.3g} GiB, this machine has {available / 2**30:.3g} GiB",
            f"at most {MEMORY_SHARE:.0%} of the memory",
            "make the batch or the populations smaller, or a coupling sparse",
        )


def memory_of(circuit: Circuit, name: str) -> int:
    """Elements of the largest variable of a coupling."""
    from mgdcircuits.netlist.sizes import elements

    coupling = circuit.objects.couplings[name]
    return max((elements(coupling, v, circuit.objects.populations) for v in coupling.variables), default=0)


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
