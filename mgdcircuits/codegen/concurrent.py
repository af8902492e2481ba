"""Which parts of an iteration may run at the same time: the perturbed passes, as far as none needs what another makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mgdcircuits.circuit.carried import exposed, reads, writes
from mgdcircuits.circuit.program import Count, Node, Program

EVALUATED = Count("evaluation")


@dataclass(frozen=True)
class Together:
    """Parts that may run at the same time if each has the `private` arrays for itself.

    `evaluations` are the numbers of evaluations before each part, and after the last. `left` are the private arrays that the
    last part writes: what it leaves in them is what the program leaves.
    """

    parts: tuple[tuple[Node, ...], ...]
    evaluations: tuple[int, ...]
    private: tuple[str, ...]
    left: tuple[str, ...]


def together(program: Program) -> list[Node | Together]:
    """The nodes of an iteration, with the longest run of parts that may run at the same time as one."""
    nodes = list(program.iteration)
    try:
        carried = exposed(nodes, set()) | exposed(program.evaluate, set())
        segments = list(_segments(nodes))
    except NotImplementedError:  # spiking circuits
        return nodes
    ends = [(first, last) for first in range(len(segments)) for last in range(first + 2, len(segments) + 1)]
    for first, last in sorted(ends, key=lambda pair: pair[0] - pair[1]):
        parts = segments[first:last]
        begin = sum(map(len, segments[:first]))
        end = begin + sum(map(len, parts))
        private = _private(parts)
        left = private & writes(parts[-1]) if private is not None else set()
        if private is None or private & carried or exposed(nodes[end:], set()) & private - left:
            continue
        evaluations = [sum(n == EVALUATED for n in nodes[:begin])]
        for part in parts:
            evaluations.append(evaluations[-1] + part.count(EVALUATED))
        made = Together(tuple(parts), tuple(evaluations), tuple(sorted(private)), tuple(sorted(left)))
        return [*nodes[:begin], made, *nodes[end:]]
    return nodes


def _segments(nodes: Sequence[Node]) -> Iterator[tuple[Node, ...]]:
    """Runs of nodes around evaluations: what they need, themselves, and what reads their results but no other segment's.

    The first segment, in which samples and the unperturbed evaluation are, does not count as another one.
    """
    segment: list[Node] = []
    first, others = True, set()
    for node in nodes:
        made = writes(segment)
        if EVALUATED in segment and (not reads([node]) & made or (reads([node]) - made) & others):
            yield tuple(segment)
            others |= set() if first else made
            segment, first = [], False
        segment.append(node)
    if EVALUATED in segment and Count("n_p") not in segment:
        yield tuple(segment)


def _private(parts: Sequence[Iterable[Node]]) -> set[str] | None:
    """The arrays that each part needs for itself; None if the parts depend on each other."""
    made, needed, read = ([f(part) for part in parts] for f in (writes, lambda part: exposed(part, set()), reads))
    private: set[str] = set()
    for one in range(len(parts)):
        for other in range(len(parts)):
            if one != other:
                if made[one] & needed[other]:
                    return None
                private |= made[one] & (made[other] | read[other])
    return private
