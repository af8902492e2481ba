"""Noise of a measured cost: what `hardware: {measurement: {noise: ...}}` adds, and what a cost would be without any."""

from __future__ import annotations

import ast

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.learning import System
from mgdcircuits.circuit.program import Elements, Precision, Scope, Statement, Step
from mgdcircuits.netlist.expressions import calls
from mgdcircuits.netlist.spec import Sharing

_MEANS = {"rand": 0.5, "randn": 0.0}
DRAWS = ("rand", "randn", "poisson")


def quiet(cost: str) -> str:
    """The name of a cost without measurement noise."""
    return f"{cost}__quiet"


def quiet_cost(circuit: Circuit) -> tuple[str, str] | None:
    """The name and the expression of the cost without measurement noise; None where there is none, or not only such."""
    spec = circuit.spec
    if spec.cost is None or spec.trial is not None:
        return None
    drawn = {name for name in calls(spec.cost.expression) if name.partition("_")[0] in DRAWS}
    if any(name.endswith("_period") for name in drawn) or not (drawn or "noise" in spec.hardware.measurement):
        return None
    tree = _Quiet().visit(ast.parse(spec.cost.expression.strip(), mode="eval"))
    return quiet(spec.cost.name), ast.unparse(ast.fix_missing_locations(tree))


class _Quiet(ast.NodeTransformer):
    """Puts the mean of every draw in its place."""

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802, ast's naming
        self.generic_visit(node)
        base = node.func.id.partition("_")[0] if isinstance(node.func, ast.Name) else ""
        if base == "poisson":
            return node.args[0]
        return ast.Constant(_MEANS[base]) if base in _MEANS else node


def noise_steps(system: System, pass_name: str) -> list[Step]:
    """The step that adds the declared noise to the cost of a pass, in every pass anew."""
    spec = system.circuit.spec
    noise = spec.hardware.measurement.get("noise")
    if noise is None or spec.cost is None:
        return []
    cost = system.scalar(f"{spec.cost.name}.{pass_name}")
    resolver = system.resolver(f"measurement/{spec.cost.name}", [system.pass_lookup], Scope.PASS)
    text = resolver.expression(f"{spec.cost.name}.{pass_name} + ({noise})*randn()")
    kernel = Elements(
        f"measurement/{cost.name}",
        (Statement("result", text),),
        resolver.operands,
        {"result": cost},
        n=1,
        sharing=Sharing.REPLICA,
        precision=Precision.DOUBLE,
    )
    return [Step(kernel)]
