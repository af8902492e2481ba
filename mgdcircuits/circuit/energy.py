"""The energy of an evaluation that depends on the state of the circuit, added up while a session runs.

A reduction over units is that of a cost. ``sum(g*V_pre**2)`` is one over synapses: of all couplings that have what it reads.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from mgdcircuits.circuit import forward
from mgdcircuits.circuit.circuit import Circuit, Coupling, replica_scalar
from mgdcircuits.circuit.clocks import Clocks
from mgdcircuits.circuit.cost import cost_steps, unit_variable
from mgdcircuits.circuit.hardware import ENERGY, is_constant
from mgdcircuits.circuit.program import Array, Couple, Index, Into, Read, Reduction, Statement, Step
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist import expressions
from mgdcircuits.netlist.spec import Sharing


def is_counted(circuit: Circuit, clocks: Clocks) -> bool:
    """Whether the energy of evaluations depends on the state of the circuit, and `record` asks to add it up."""
    text = circuit.spec.hardware.inference.get(ENERGY)
    asked = any(e.variable == ENERGY for e in circuit.spec.record)
    if text is None or not asked or circuit.spec.trial is not None or circuit.is_spiking:
        return False
    return not is_constant(circuit, clocks, text)


def energy_steps(circuit: Circuit, constants: Mapping[str, float], weight: float) -> list[Step]:
    """Steps that add the energy of an evaluation, times a weight, to the array `ENERGY`.

    Raises
    ------
    BuildError
        A sum over synapses that no coupling can make.
    """
    sums = _Sums(circuit, constants)
    tree = sums.visit(ast.parse(circuit.spec.hardware.inference[ENERGY].strip(), mode="eval"))
    text = ast.unparse(ast.fix_missing_locations(tree))
    made = cost_steps(circuit, text, ENERGY, constants, weight, also=sums.results.get)
    return [*sums.steps, *made.steps]


class _Sums(ast.NodeTransformer):
    """Puts the results of sums over synapses in their places."""

    def __init__(self, circuit: Circuit, constants: Mapping[str, float]) -> None:
        self.circuit, self.constants = circuit, constants
        self.steps: list[Step] = []
        self.results: dict[str, Read] = {}

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802, ast's naming
        text = ast.unparse(node)
        own = {n for n in expressions.names(text) if unit_variable(self.circuit, n) is None and self._readers({n})}
        if not own:
            return self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id == "sum" and len(node.args) == 1):
            raise BuildError(f"{self.circuit.spec.file}: `{text}` in `energy`; expected sum(...) over synapses")
        couplings = self._readers(own)
        if not couplings:
            raise BuildError(f"{self.circuit.spec.file}: `{text}` in `energy`: no coupling has all of {', '.join(own)}")
        names = [self._sum(coupling, ast.unparse(node.args[0])) for coupling in couplings]
        return ast.parse(" + ".join(names), mode="eval").body

    def _readers(self, names: set[str]) -> list[Coupling]:
        return [c for c in self.circuit.couplings.values() if all(c.read(n) is not None for n in names)]

    def _sum(self, coupling: Coupling, text: str) -> str:
        place = f"{ENERGY}/{len(self.results)}"
        resolver = forward.coupling_resolver(self.circuit, coupling, place, self.constants)
        each = Array(f"{place}@{coupling.name}", (coupling.post.n,), Sharing.REPLICA)
        statement = (Statement("target", resolver.expression(text)),)
        couple = Couple(
            each.name, statement, resolver.operands, {"target": each}, topology=coupling.topology, into=Into.POST
        )
        whole = replica_scalar(place)
        reduction = Reduction(
            place,
            (Statement("result", "value"),),
            {"value": Read(each, Index.ELEMENT)},
            {"result": whole},
            n=each.n,
            operation="sum",
        )
        self.steps += [Step(couple), Step(reduction)]
        name = f"_energy_{len(self.results)}"
        self.results[name] = Read(whole, Index.ZERO)
        return name
