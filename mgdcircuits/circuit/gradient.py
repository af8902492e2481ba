"""The exact gradient of the cost: reverse mode along the steps of an evaluation.

Each forward step has its adjoint steps, made of derivatives of the very expression that it evaluates. An adjoint array
``adj:NAME`` accompanies every array between parameters and cost. The gradient is an oracle: it measures convergence and
serves the baseline of exact gradient descent; no learning rule of a netlist reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mgdcircuits.circuit.circuit import Circuit, replica_scalar
from mgdcircuits.circuit.cost import CostSteps
from mgdcircuits.circuit.derivatives import derivative
from mgdcircuits.circuit.operands import identifier
from mgdcircuits.circuit.program import (
    Array,
    Clear,
    Couple,
    Elements,
    Fold,
    Index,
    Into,
    Kernel,
    Node,
    Operand,
    Precision,
    Read,
    Statement,
    Step,
)
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Reduce, Sharing

UNITS = {Index.ELEMENT, Index.PRE, Index.POST, Index.ZERO}
WEIGHTS = {"sum": "1", "mean": "1/{n}", "logsumexp": "exp(({inner}) - {value})"}


def is_possible(circuit: Circuit) -> bool:
    """Whether the circuit has a gradient by reverse mode."""
    return not (circuit.is_spiking or circuit.is_continuous) and bool(circuit.plastic)


def gradient_array(name: str, array: Array, per_sample: bool) -> Array:
    """The array that receives the gradient by a parameter; per sample it has the batch axis."""
    if per_sample:
        return Array(f"gradient_per_sample:{name}", array.shape, Sharing.REPLICA)
    return Array(f"gradient:{name}", array.shape, Sharing.MEMBER)


def adjoint(array: Array) -> Array:
    """The adjoint of an array."""
    return replace(array, name=f"adj:{array.name}", sharing=Sharing.REPLICA, precision=Precision.REAL)


class _Reverse:
    """Collects adjoint steps."""

    def __init__(self, wrt: Mapping[str, Array], per_sample: bool) -> None:
        self.plastic = {a.name: gradient_array(n, a, per_sample) for n, a in wrt.items()}
        self.nodes: list[Node] = []
        self.carried: dict[str, Array] = {}  # arrays that depend on a parameter and lead to the cost

    def find_carried(self, forward: Sequence[Step]) -> None:
        """Arrays between parameters and cost."""
        for step in forward:
            if any(n in self.plastic or n in self.carried for n in step.kernel.reads()):
                for array in step.kernel.writes.values():
                    self.carried[array.name] = array

    def clear(self) -> None:
        """All adjoints and gradients start at zero."""
        self.nodes += [Clear(adjoint(a).name) for a in self.carried.values()]
        self.nodes += [Clear(a.name) for a in self.plastic.values()]

    def wanted(self, kernel: Kernel) -> list[tuple[str, Read]]:
        """Operands that lead back to a parameter."""
        return [
            (name, o)
            for name, o in kernel.operands.items()
            if isinstance(o, Read) and (o.array.name in self.plastic or o.array.name in self.carried)
        ]

    def cost(self, cost: CostSteps) -> None:
        """Adjoints of what the cost reads."""
        outer = cost.steps[-1].kernel
        for reduced in cost.reduced:
            name = identifier(reduced.array.name)
            slope = derivative(cost.expression, name)
            if slope is None:
                continue
            above = replica_scalar(f"adj:{reduced.array.name}")
            kernel = Elements(
                above.name,
                (Statement("result", slope),),
                outer.operands,
                {"result": above},
                n=1,
                sharing=Sharing.REPLICA,
                precision=Precision.DOUBLE,
            )
            self.nodes.append(Step(kernel))
            if reduced.operation not in WEIGHTS:
                raise BuildError(f"the cost has no gradient through {reduced.operation}()")
            inner = reduced.kernel
            weight = WEIGHTS[reduced.operation].format(n=inner.n, inner=reduced.expression, value="value")
            known = {"above": Read(above, Index.ZERO), "value": Read(reduced.array, Index.ZERO)}
            for operand_name, operand in self.wanted(inner):
                slope = derivative(reduced.expression, operand_name)
                if slope is not None:
                    text = f"above*({weight})*({slope})"
                    self.elements(f"{above.name}/{operand_name}", text, {**inner.operands, **known}, operand, inner.n)
        for operand_name, operand in self.wanted(outer):
            slope = derivative(cost.expression, operand_name)
            if slope is not None:
                self.elements(f"adj:cost/{operand_name}", slope, outer.operands, operand, 1)

    def elements(self, name: str, text: str, operands: Mapping[str, Operand], operand: Read, n: int) -> None:
        """Add `text` of every element to the adjoint of an operand of an `Elements` loop."""
        if operand.array.name in self.plastic:
            target = self.plastic[operand.array.name]
            positions = n // target.n
            kernel = Fold(
                name, (Statement("target", text),), operands, {"target": target}, n=n, positions=positions, add=True
            )
            self.nodes.append(Step(kernel))
            return
        if operand.index not in UNITS:
            raise BuildError(f"{name}: the gradient cannot go through {operand.array.name}, shared within a channel")
        target = adjoint(operand.array)
        own = "adjoint_so_far"
        sums = Elements(
            name,
            (Statement(own, f"{own} + ({text})"),),
            {**operands, own: Read(target, Index.ELEMENT)},
            {own: target},
            n=n,
            sharing=Sharing.REPLICA,
        )
        self.nodes.append(Step(sums))

    def back(self, step: Step) -> None:
        """Adjoints of what a forward step reads."""
        kernel = step.kernel
        (written,) = kernel.writes.values()
        if written.name not in self.carried:
            return
        text = kernel.statements[-1].expression
        for name, operand in self.wanted(kernel):
            slope = derivative(text, name)
            if slope is None:
                continue
            label = f"adj:{written.name}/{name}"
            if isinstance(kernel, Elements):
                above = {"above": Read(adjoint(written), Index.ELEMENT)}
                self.elements(label, f"above*({slope})", {**kernel.operands, **above}, operand, kernel.n)
            elif isinstance(kernel, Couple):
                self.couple(label, kernel, f"above*({slope})", operand, written, text)

    def couple(self, label: str, kernel: Couple, text: str, operand: Read, written: Array, expression: str) -> None:
        """The adjoint of a coupling, into a parameter or back to the pre- or post-synaptic side."""
        operands: dict[str, Operand] = {**kernel.operands, "above": Read(adjoint(written), Index.POST)}
        into, target = Into.PARAMETER, self.plastic.get(operand.array.name)
        folded = None
        if target is None:
            side = {Index.PRE: Into.PRE, Index.POST: Into.POST}.get(operand.index)
            if side is None:
                raise BuildError(
                    f"{label}: the gradient cannot go through {operand.array.name}, shared within a channel"
                )
            into, target = side, adjoint(operand.array)
        elif operand.index is not Index.SYNAPSE:
            # a parameter of a population, read by its synapses: collected unit by unit, then folded into its channels
            pre = operand.index in (Index.PRE, Index.PRE_CHANNEL)
            into, folded = (Into.PRE if pre else Into.POST), target
            n = kernel.topology.n_pre if pre else kernel.topology.n_post
            target = Array(f"{label}/units", (n,), Sharing.REPLICA)
        winner = None
        if kernel.reduce is Reduce.MAX:
            if into is not Into.PRE:
                raise BuildError(f"{label}: a maximum has a gradient by its pre-synaptic values only")
            winner = expression
        made = Couple(
            label,
            (Statement("target", text),),
            operands,
            {"target": target},
            topology=kernel.topology,
            into=into,
            winner=winner,
            add=folded is None,
        )
        self.nodes.append(Step(made))
        if folded is not None:
            units = {"of_unit": Read(target, Index.ELEMENT)}
            self.nodes.append(
                Step(
                    Fold(
                        target.name,
                        (Statement("target", "of_unit"),),
                        units,
                        {"target": folded},
                        n=target.n,
                        positions=target.n // folded.n,
                        add=True,
                    )
                )
            )


def steps(
    circuit: Circuit,
    forward: Sequence[Step],
    cost: CostSteps,
    constants: Mapping[str, float],
    per_sample: bool,
    wrt: Mapping[str, Array] | None = None,
) -> list[Node]:
    """The steps that fill the gradient arrays after an evaluation: by the plastic parameters, or by the arrays of `wrt`.

    Raises
    ------
    BuildError
        An equation whose derivative is not known.
    """
    reverse = _Reverse(circuit.plastic if wrt is None else wrt, per_sample)
    reverse.find_carried(forward)
    reverse.clear()
    reverse.cost(cost)
    for step in reversed(forward):
        reverse.back(step)
    return reverse.nodes
