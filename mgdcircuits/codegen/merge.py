"""Estimates and the updates that read them, as one loop where an update is due.

An estimate (``G``) is formed for every parameter in every iteration; where an update is due, it reads the estimate. As one
loop the two move each parameter and its estimate through the processor once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mgdcircuits.circuit.carried import reads, writes
from mgdcircuits.circuit.program import (
    Count,
    Elements,
    Every,
    Index,
    Literal,
    Node,
    Parameter,
    Precision,
    Random,
    Read,
    Step,
    Word,
)
from mgdcircuits.codegen.hoist import increments
from mgdcircuits.codegen.rendering import names
from mgdcircuits.netlist.spec import Sharing


@dataclass(frozen=True, eq=False)
class Merged(Elements):
    """Two kernels over the same elements: `first` statements that make the values `handed`, and those that take them."""

    first: int = 0
    handed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Due(Every):
    """`Every` with something else to do where the body is not due."""

    otherwise: tuple[Node, ...] = ()


def merge(nodes: Iterable[Node]) -> list[Node]:
    """The nodes, with loops over parameters moved into the `Every` after them where a loop in there takes what they make."""
    found: list[Node] = []
    for node in nodes:
        found = _due(found, node) if isinstance(node, Every) else [*found, node]
    return found


def in_vectors(kernel: Elements) -> bool:
    """Whether a vector may hold neighbouring numbers of the arrays per member that a kernel runs through."""
    statements = [(s.target, s.expression) for s in kernel.statements]
    counts = increments(kernel, statements)
    used = {n for _, text in statements for n in names(text)} | set(kernel.writes)
    arrays = [a for n, a in kernel.writes.items() if n not in counts]
    for operand in (o for n, o in kernel.operands.items() if n in used - set(counts)):
        match operand:
            case Read(array, Index.ELEMENT, amplitude=False):
                arrays.append(array)
            case Read(index=Index.ZERO, amplitude=False) | Random() | Literal() | Parameter() | Word():
                pass
            case _:
                return False
    return all(a.precision is Precision.REAL for a in arrays)


def _due(before: list[Node], every: Every) -> list[Node]:
    """The nodes before an `Every` that stay, and what becomes of it."""
    body: list[Node] = []
    moved: list[Node] = []
    for node in every.body:
        maker = next((n for n in reversed(before) if n not in moved and _hands(n, node)), None)
        if maker is None or not _may_wait(maker, [*before[before.index(maker) + 1 :], *body]):
            body.append(node)
        else:
            moved.append(maker)
            body.append(Step(_joined(maker.kernel, node.kernel)))
    if not moved:
        return [*before, every]
    return [*(n for n in before if n not in moved), Due(every.period, every.offset, tuple(body), tuple(moved))]


def _may_wait(step: Step, others: Sequence[Node]) -> bool:
    """Whether a step may run after the others instead of before."""
    made = writes([step])
    return not (made & reads(others) or (made | reads([step])) & writes(others) or Count("n_p") in others)


def _handed(maker: Elements, taker: Elements) -> list[str]:
    """What the one kernel writes and the other reads at the same element, by a name that both use."""
    return [n for n, a in maker.writes.items() if taker.operands.get(n) == Read(a, Index.ELEMENT)]


def _hands(maker: Node, taker: Node) -> bool:
    """Whether two steps can be one loop in which the first hands on what it makes."""
    if not all(isinstance(n, Step) and isinstance(n.kernel, Elements) and not n.rename for n in (maker, taker)):
        return False
    one, other = maker.kernel, taker.kernel
    if any(k.sharing is not Sharing.MEMBER or not in_vectors(k) for k in (one, other)) or one.n != other.n:
        return False
    if one.precision is not other.precision or any(isinstance(o, Random) for o in one.operands.values()):
        return False
    handed = _handed(one, other)
    common = _names(one) & _names(other) - set(handed)
    changed = {s.target for k in (one, other) for s in k.statements}
    if not handed or any(n in changed or one.operands.get(n) != other.operands.get(n) for n in common):
        return False
    made, taken = ({a.name for a in k.writes.values()} for k in (one, other))
    return not (made & taken or taken & one.reads() or other.reads() & made - {one.writes[n].name for n in handed})


def _joined(one: Elements, other: Elements) -> Merged:
    handed = tuple(_handed(one, other))
    operands = {**{n: o for n, o in other.operands.items() if n not in handed}, **one.operands}
    statements = (*one.statements, *other.statements)
    merged = Merged(other.name, statements, operands, {**one.writes, **other.writes}, one.n, one.sharing, one.precision)
    return replace(merged, first=len(one.statements), handed=handed)


def _names(kernel: Elements) -> set[str]:
    return {*kernel.operands, *kernel.writes, *(s.target for s in kernel.statements)}
