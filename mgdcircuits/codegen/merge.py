"""Estimates and the updates that read them, piece by piece in one loop where an update is due.

An estimate (``G``) is formed for every parameter in every iteration; where an update is due, it reads the estimate. In one
loop it finds it in the first cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mgdcircuits.circuit.carried import reads, writes
from mgdcircuits.circuit.program import (
    Count,
    Elements,
    Every,
    Index,
    Kernel,
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

PIECE = 1024  # parameters that are done at a time; fewer than that stay in the first cache anyway


@dataclass(frozen=True, eq=False)
class Merged(Kernel):
    """Kernels over the same parameters, one after another for a piece of them at a time."""

    parts: tuple[Elements, ...]

    @classmethod
    def of(cls, *parts: Elements) -> Merged:
        """The kernels as one."""
        operands = {f"{k}:{n}": o for k, part in enumerate(parts) for n, o in part.operands.items()}
        written = {f"{k}:{n}": a for k, part in enumerate(parts) for n, a in part.writes.items()}
        return cls(parts[-1].name, (), operands, written, parts)


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
    for number, node in enumerate(every.body):
        maker = next((n for n in reversed(before) if n not in moved and _hands(n, node)), None)
        if maker is None or not _may_wait(maker, [*before[before.index(maker) + 1 :], *every.body[:number]]):
            body.append(node)
        else:
            moved.append(maker)
            body.append(Step(Merged.of(*_loops(maker, node))))
    if not moved:
        return [*before, every]
    return [*(n for n in before if n not in moved), Due(every.period, every.offset, tuple(body), tuple(moved))]


def _may_wait(step: Node, others: Sequence[Node]) -> bool:
    """Whether a step may run after the others instead of before."""
    made = writes([step])
    return not (made & reads(others) or (made | reads([step])) & writes(others) or Count("n_p") in others)


def _loops(*nodes: Node) -> list[Elements]:
    """The loops over elements that are among some nodes, of steps on the very arrays that the loops name."""
    return [n.kernel for n in nodes if isinstance(n, Step) and isinstance(n.kernel, Elements) and not n.rename]


def _hands(maker: Node, taker: Node) -> bool:
    """Whether the one step makes what the other needs, element by element."""
    loops = _loops(maker, taker)
    if len(loops) < 2:
        return False
    one, other = loops
    if one.n != other.n or one.n <= PIECE or not (_plain(one) and _plain(other)):
        return False
    made, taken = ({a.name for a in k.writes.values()} for k in (one, other))
    return bool(made & other.reads()) and not (made & _common(other) or taken & _common(one))


def _plain(kernel: Elements) -> bool:
    """Whether a kernel runs through arrays per member in vectors, and draws nothing."""
    draws = any(isinstance(o, Random) for o in kernel.operands.values())
    return kernel.sharing is Sharing.MEMBER and in_vectors(kernel) and not draws


def _common(kernel: Elements) -> set[str]:
    """Arrays of which a kernel reads the same number for all its elements."""
    found = [o for o in kernel.operands.values() if isinstance(o, Read)]
    return {o.array.name for o in found if o.index is not Index.ELEMENT}
