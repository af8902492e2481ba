"""What a rule needs on a chip besides the circuit: memory cells, multipliers and random sources, counted in its program."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from mgdcircuits.circuit.carried import carried
from mgdcircuits.circuit.circuit import Circuit, Coupling
from mgdcircuits.circuit.clocks import Clocks
from mgdcircuits.circuit.outcomes import COUNTERS
from mgdcircuits.circuit.program import (
    Couple,
    Every,
    Index,
    Kernel,
    Node,
    Operand,
    Position,
    Program,
    Random,
    Read,
    Statement,
    Step,
    Ticks,
)
from mgdcircuits.netlist.spec import Role, Sharing

RULE, UPDATE = "iteration", "update"
COUNTED = {"writes", *COUNTERS}  # by us, not by the chip


@dataclass
class Needs:
    """Of each synapse or neuron of a place (or, for `whole circuit`, of all of it together)."""

    place: str
    kind: str  # synapse, neuron or circuit
    elements: int
    cells: list[str] = field(default_factory=list)  # what is kept, beside the parameter itself
    products: dict[str, int] = field(default_factory=lambda: {RULE: 0, UPDATE: 0})  # of two signals
    random: list[str] = field(default_factory=list)  # what is drawn for each iteration

    def add(self, cell: str) -> None:
        """Note a memory cell once."""
        if cell not in self.cells:
            self.cells.append(cell)


def needs(circuit: Circuit, program: Program, clocks: Clocks) -> list[Needs]:
    """The needs of every plastic parameter, of every population whose nodes are perturbed or remembered, and of the whole.

    Circuits of memoryless equations or of dynamics; not spiking ones, and none with trials.

    A *memory cell* holds what the rule has to know later: from one iteration to the next, or from one pass to another. A
    *multiplier* makes the product of two signals; to multiply by a constant is a matter of gain and is not counted. A
    *random source* gives a number for each draw of a code.

    Parameters
    ----------
    program
        Of `build(circuit, batched=False)`: the rule as a chip follows it.
    """
    return _Count(circuit, program, clocks).found()


def as_records(found: Iterable[Needs]) -> list[dict]:
    """For JSON."""
    return [asdict(n) for n in found]


class _Count:
    def __init__(self, circuit: Circuit, program: Program, clocks: Clocks) -> None:
        self.circuit = circuit
        self.program = program
        self.single = {s.name for s in circuit.spec.learning if clocks.periods.get(s.name) == 1 and s.clear}
        self.whole = Needs("whole circuit", "circuit", 1)
        self.places: dict[str, Needs] = {}
        self.rules = {site.parameter: s for s in circuit.spec.learning for site in s.sites}

    def found(self) -> list[Needs]:
        for when, step in _steps(self.program.iteration, RULE):
            self._step(step.kernel, when)
        for array in carried(self.program):
            self._carried(array.name)
        cost = self.circuit.spec.cost
        for system in self.circuit.spec.learning:
            measured = sorted(system.passes, key=lambda p: p[1] != 0)  # unperturbed ones first, as they are run
            if cost is not None:
                for name, _ in measured[:-1]:
                    self.whole.add(f"{cost.name}.{name}")  # until the last one is measured
        return [n for n in (*self.places.values(), self.whole) if n.cells or n.random or any(n.products.values())]

    def _place(self, name: str) -> Needs:
        """Of a plastic parameter by its qualified name, or of a population."""
        if name not in self.places:
            if name in self.circuit.plastic:
                kind = "synapse" if name.rpartition(".")[0] in self._couplings_of(name) else "neuron"
                self.places[name] = Needs(name, kind, self.circuit.plastic[name].n)
            else:
                self.places[name] = Needs(name, "neuron", self.circuit.populations[name].n)
        return self.places[name]

    def _couplings_of(self, parameter: str) -> set[str]:
        owner = self.circuit.variables[parameter][0]
        return {c.name for c in self.circuit.couplings.values() if c is owner}

    def _step(self, kernel: Kernel, when: str) -> None:
        for array in kernel.writes.values():
            base, _, word = array.name.partition(":")
            if base in self.circuit.plastic and word and word not in COUNTED:
                if kernel.name.startswith(tuple(f"{s.name}/" for s in self.circuit.spec.learning)):
                    self._products(kernel, self._place(base), when)
                    self._remembered(kernel)
                    return
            variable = self.circuit.variables.get(base)
            if not word and variable is not None and variable[1].role is Role.PERTURBATION:
                self._code(kernel, base)
                return
            if base in self.circuit.plastic and not word and when == UPDATE:
                self._products(kernel, self._place(base), when)
                return

    def _code(self, kernel: Kernel, perturbation: str) -> None:
        if kernel.name.endswith("/set"):
            return
        owner, variable, _ = self.circuit.variables[perturbation]
        own = f"{owner.name}.{variable.perturbs}" if variable.perturbs else owner.name
        place = self._place(own)
        place.add("perturbation")
        drawn = [o for o in kernel.operands.values() if isinstance(o, Random)]
        place.random += [
            {"bit": "bit", "rand": "uniform", "randn": "normal"}.get(o.function, o.function) for o in drawn
        ]
        if not drawn and any(isinstance(o, Position) for o in kernel.operands.values()):
            place.random.append("counter")

    def _remembered(self, kernel: Kernel) -> None:
        """States of neurons that an estimate reads: they are held while other passes go on."""
        for operand in kernel.operands.values():
            if isinstance(operand, Read) and operand.array.sharing is Sharing.REPLICA and operand.array.n > 1:
                name = operand.array.name.partition("@")[0]
                if name in self.circuit.variables and self.circuit.variables[name][1].role is not Role.PERTURBATION:
                    self._place(name.rpartition(".")[0]).add(name.rpartition(".")[2])

    def _carried(self, name: str) -> None:
        base, _, word = name.partition(":")
        if base in self.circuit.plastic and word and word not in COUNTED:
            if not (word == "G" and self.rules[base].name in self.single):
                self._place(base).add(word)
            return
        system, _, signal = name.partition(".")
        named = {a.name for s in self.circuit.spec.learning if s.name == system for a in (*s.signals, *s.baseline)}
        if signal.partition("@")[0] in named:
            self.whole.add(signal.partition("@")[0])

    # Products of two signals

    def _products(self, kernel: Kernel, place: Needs, when: str) -> None:
        local: dict[str, frozenset[str]] = {n: _depends(o) for n, o in kernel.operands.items()}
        for statement in _of_rule(kernel):
            for node in ast.walk(ast.parse(statement.expression, mode="eval")):
                if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult | ast.Div | ast.Pow):
                    continue
                left, right = _signal(node.left, local), _signal(node.right, local)
                if left and right:
                    self._at(left | right, kernel, place).products[when] += 1
            local[statement.target] = _signal(ast.parse(statement.expression, mode="eval").body, local)

    def _at(self, depends: frozenset[str], kernel: Kernel, place: Needs) -> Needs:
        """Where a product is made: at the neuron, if it reads nothing of the synapse and nothing of the other side."""
        if isinstance(kernel, Couple) and depends <= {"post", "scalar"} and "post" in depends:
            return self._place(self._post_of(place))
        return self.whole if depends == {"scalar"} else place

    def _post_of(self, place: Needs) -> str:
        coupling = self.circuit.variables[place.place][0]
        assert isinstance(coupling, Coupling)
        return coupling.post.name


def _of_rule(kernel: Kernel) -> list[Statement]:
    """The statements of a rule: those after the request are the device's own."""
    found = []
    for statement in kernel.statements:
        found.append(statement)
        if statement.target == "request":
            break
    return found


def _steps(nodes: Iterable[Node], when: str) -> Iterable[tuple[str, Step]]:
    for node in nodes:
        if isinstance(node, Step):
            yield when, node
        elif isinstance(node, Every):
            yield from _steps(node.body, UPDATE if node.period.startswith("period_") else when)
        elif isinstance(node, Ticks):
            yield from _steps(node.body, when)


def _depends(operand: Operand) -> frozenset[str]:
    """On which side of a synapse an operand stands; nothing for numbers."""
    if not isinstance(operand, Read):
        return frozenset({"element"}) if isinstance(operand, Random) else frozenset()
    side = {
        Index.PRE: "pre", Index.PRE_CHANNEL: "pre", Index.POST: "post", Index.POST_CHANNEL: "post",
        Index.ZERO: "scalar",
    }.get(operand.index, "element")  # fmt: skip
    return frozenset({side})


def _signal(node: ast.AST, local: dict[str, frozenset[str]]) -> frozenset[str]:
    """What an expression depends on, beside constants."""
    return frozenset().union(*(local.get(n.id, frozenset()) for n in ast.walk(node) if isinstance(n, ast.Name)))
