"""Which steps a compiled circuit runs as one loop.

A coupling that is followed by the equation of its target (``I`` and then ``x = tanh(I + b)``) becomes one loop: the
equation is evaluated while the sum is still in a register. A sum that nothing else reads is never stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mgdcircuits.circuit.program import (
    Array,
    Between,
    Copy,
    Couple,
    Elements,
    Every,
    Index,
    Into,
    Kernel,
    Node,
    Precision,
    Program,
    Random,
    Read,
    Reduction,
    Step,
    Ticks,
)
from mgdcircuits.netlist.spec import Sharing


def is_local(kernel: Kernel) -> bool:
    """Whether replicas do not meet in the kernel, so that a lane block can run through it alone."""
    match kernel:
        case Elements(sharing=Sharing.REPLICA) | Reduction():
            return True
        case Couple(into=Into.POST):
            return True
    return False


def replicas_alike(kernel: Kernel) -> bool:
    """Whether all replicas of a member give the same: nothing that is read differs between them, and what is made does not."""
    alone = any(isinstance(o, Random) for o in kernel.operands.values())
    reads = [o.array for o in kernel.operands.values() if isinstance(o, Read)]
    return not alone and all(a.sharing is Sharing.MEMBER for a in (*reads, *kernel.writes.values()))


def positions_of(kernel: Elements) -> int:
    """Units of one channel; all units where no operand is per channel; 0 where operands disagree."""
    reads = [o for o in kernel.operands.values() if isinstance(o, Read)]
    found = {o.positions for o in reads if o.index is Index.CHANNEL and o.positions > 1}
    return 0 if len(found) > 1 else found.pop() if found else kernel.n


def spreadable(kernel: Kernel) -> bool:
    """Whether one vector may hold several units of the kernel, where replicas are few."""
    if not is_local(kernel) or any(isinstance(o, Random) for o in kernel.operands.values()):
        return False
    match kernel:
        case Elements():
            real = all(a.precision is Precision.REAL for a in _arrays(kernel))
            return real and kernel.precision is Precision.REAL and positions_of(kernel) > 0
        case Couple():
            sides = ({Index.PRE, Index.PRE_CHANNEL}, {Index.POST, Index.POST_CHANNEL})
            reads = [o for o in kernel.operands.values() if isinstance(o, Read)]
            return all(len({o.positions for o in reads if o.index in side} - {1}) <= 1 for side in sides)
    return False


@dataclass(frozen=True)
class Fused(Step):
    """A step of a coupling and the step that follows on its sums; `kept` says whether the sums are stored too."""

    finish: Step = field(kw_only=True)
    kept: bool = field(kw_only=True)


class Fusion:
    """Fuses the runs of local steps of a program."""

    def __init__(self, program: Program) -> None:
        self.needed: set[str] = set()  # arrays that are read elsewhere than in a loop that has just made them
        for nodes in program.phases().values():
            self._note(nodes)

    def _note(self, nodes: Iterable[Node]) -> None:
        for run in runs(nodes):
            steps = [node for node in run if isinstance(node, Step)]  # all nodes of the run, or none
            sums = {finish: _target(steps[couple]) for couple, finish in _pairs(steps).items()}
            for number, node in enumerate(run):
                match node:
                    case Step():
                        self.needed |= _reads(node) - {sums.get(number)}
                    case Copy(source=source):
                        self.needed.add(source)
                    case Every(body=body) | Ticks(body=body) | Between(body=body):
                        self._note(body)

    def fused(self, run: Sequence[Step]) -> list[Step]:
        """The steps of a run, fused where they can be."""
        pairs = _pairs(run)
        steps: list[Step] = []
        for number, step in enumerate(run):
            if number in pairs:
                kept = "@" not in _target(step) or _target(step) in self.needed
                finish = run[pairs[number]]
                steps.append(Fused(step.kernel, step.rename, step.active, step.factor, finish=finish, kept=kept))
            elif number not in pairs.values():
                steps.append(step)
        return steps


def runs(nodes: Iterable[Node]) -> list[list[Node]]:
    """Runs of steps in which replicas do not meet; every other node by itself."""
    found: list[list[Node]] = []
    running: list[Node] = []
    for node in nodes:
        if isinstance(node, Step) and is_local(node.kernel):
            if any(isinstance(n, Step) and n.kernel is node.kernel for n in running):
                running = []
            if not running:
                found.append(running)
            running.append(node)
        else:
            running = []
            found.append([node])
    return found


def _pairs(run: Sequence[Step]) -> dict[int, int]:
    """Positions of couplings in a run, each with the position of the step that may follow on its sums."""
    pairs: dict[int, int] = {}
    for number, step in enumerate(run):
        if not isinstance(step.kernel, Couple) or step.kernel.into is not Into.POST or step.kernel.add:
            continue
        sums = _target(step)
        for later in range(number + 1, len(run)):
            if sums in _reads(run[later]):
                if later not in pairs.values() and _follows(step, run[later], run[number + 1 : later]):
                    pairs[number] = later
                break
            if sums in _writes(run[later]):
                break
    return pairs


def _follows(step: Step, finish: Step, between: Sequence[Step]) -> bool:
    """Whether `finish` may run right where the sums of `step` are made, before the steps between."""
    couple, kernel, sums = step.kernel, finish.kernel, _target(step)
    if not isinstance(couple, Couple) or not isinstance(kernel, Elements):
        return False
    if not spreadable(kernel) or not spreadable(couple):
        return False
    if kernel.n != couple.topology.n_post or couple.writes["target"].precision is not Precision.REAL:
        return False
    for operand in kernel.operands.values():
        if not isinstance(operand, Read) or finish.rename.get(operand.array.name, operand.array.name) != sums:
            continue
        if operand.index is not Index.ELEMENT or operand.amplitude:
            return False
    if sums in _writes(finish) or _writes(finish) & _reads(step):
        return False
    if any(step.rename.get(n, n) != finish.rename.get(n, n) for n in _names(step) & _names(finish)):
        return False
    if couple.perturbations() & kernel.perturbations():
        return False
    others = (_reads(finish) | _writes(finish)) - {sums}
    return not any(_writes(s) & others or _reads(s) & _writes(finish) for s in between)


def _arrays(kernel: Kernel) -> list[Array]:
    reads = [o.array for o in kernel.operands.values() if isinstance(o, Read)]
    return [*reads, *kernel.writes.values()]


def _names(step: Step) -> set[str]:
    return {a.name for a in _arrays(step.kernel)}


def _target(step: Step) -> str:
    name = step.kernel.writes["target"].name
    return step.rename.get(name, name)


def _reads(step: Step) -> set[str]:
    return {step.rename.get(n, n) for n in step.kernel.reads()}


def _writes(step: Step) -> set[str]:
    return {step.rename.get(a.name, a.name) for a in step.kernel.writes.values()}
