"""Which parts of an iteration may run at the same time: the passes, as far as none needs what another makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from mgdcircuits.circuit.carried import exposed, reads, writes
from mgdcircuits.circuit.program import Count, Every, Node, Program, Sample, steps

EVALUATED = Count("evaluation")


@dataclass(frozen=True)
class Part:
    """What one thread does: `nodes`; then, once the first part is done, `waiting`; and once all parts are done, `after`."""

    nodes: tuple[Node, ...]
    waiting: tuple[Node, ...] = ()
    after: tuple[Node, ...] = ()

    @property
    def own(self) -> tuple[Node, ...]:
        """What belongs to the part itself."""
        return (*self.nodes, *self.waiting)


@dataclass(frozen=True)
class Together:
    """Parts that may run at the same time if each has the `private` arrays for itself.

    `evaluations` are the numbers of evaluations before each part, and after the last. `left` are the private arrays that the
    last part writes: what it leaves in them is what the program leaves. `nodes` are all of it for a single thread.
    """

    parts: tuple[Part, ...]
    evaluations: tuple[int, ...]
    private: tuple[str, ...]
    left: tuple[str, ...]
    nodes: tuple[Node, ...]


def together(program: Program) -> Sequence[Node | Together]:
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
        return _run(nodes, begin, end, [Part(part) for part in parts], private, left)
    return nodes


def _run(
    nodes: list[Node], begin: int, end: int, parts: list[Part], private: set[str], left: set[str]
) -> list[Node | Together]:
    """Nodes of which those from `begin` to before `end` are parts; with the pass before them and what follows, if it can be."""
    if (first := _first(nodes[:begin], parts, private)) is not None:
        begin -= len(first[0].nodes)
        parts = first
    parts, rest = _followed(parts, nodes[end:], private)
    evaluations = [sum(n == EVALUATED for n in nodes[:begin])]
    for part in parts:
        evaluations.append(evaluations[-1] + part.own.count(EVALUATED))
    serial = tuple(nodes[begin : len(nodes) - len(rest)])
    made = Together(tuple(parts), tuple(evaluations), tuple(sorted(private)), tuple(sorted(left)), serial)
    return [*nodes[:begin], made, *rest]


def _first(before: Sequence[Node], parts: Sequence[Part], private: set[str]) -> list[Part] | None:
    """The pass before some parts as the first of them, and what each does before it needs that one's results.

    None where nobody would have an evaluation to do meanwhile.
    """
    shown = max((k for k, node in enumerate(before) if not _evaluates(node)), default=-1) + 1
    clean = tuple(before[shown:])
    made, needed = writes(clean), reads(clean)
    if EVALUATED not in clean or (made | needed) & private:
        return None
    found = [Part(clean)]
    for part in parts:
        touching = (k for k, node in enumerate(part.nodes) if (reads([node]) | writes([node])) & made)
        begin = next(touching, len(part.nodes))
        if writes(part.nodes[:begin]) & needed:
            return None
        found.append(Part(part.nodes[:begin], part.nodes[begin:]))
    return found if any(EVALUATED in part.nodes for part in found[1:]) else None


def _evaluates(node: Node) -> bool:
    """Whether a node belongs to an evaluation: it is done whenever it is met, and shows no samples."""
    return node == EVALUATED or (bool(writes([node])) and not isinstance(node, Every) and not _shows(node))


def _shows(node: Node) -> bool:
    return any(isinstance(step.kernel, Sample) for step in steps([node]))


def _followed(parts: Sequence[Part], rest: Sequence[Node], private: set[str]) -> tuple[list[Part], list[Node]]:
    """The parts with what follows on one of them alone, and what remains."""
    made = [writes(part.own) for part in parts]
    after: list[list[Node]] = [[] for _ in parts]
    left = list(rest)
    while left and isinstance(every := left[0], Every):
        each = [[k for k, names in enumerate(made) if reads([node]) & names] for node in every.body]
        if any(len(makers) != 1 for makers in each):
            break
        del left[0]
        for k in sorted({makers[0] for makers in each}):
            body = tuple(n for n, makers in zip(every.body, each, strict=True) if makers[0] == k)
            after[k].append(Every(every.period, every.offset, body))
    apart = all(not writes(one) & (reads(other) | writes(other)) for one, other in permutations(after, 2))
    if not apart or reads(sum(after, [])) & private:
        return list(parts), list(rest)
    return [Part(p.nodes, p.waiting, tuple(a)) for p, a in zip(parts, after, strict=True)], left


def _segments(nodes: Sequence[Node]) -> Iterator[tuple[Node, ...]]:
    """Runs of nodes around evaluations: what they need, themselves, and what reads their results but no other segment's.

    The first segment, in which samples and the unperturbed evaluation are, does not count as another one.
    """
    segment: list[Node] = []
    others: set[str] = set()
    first = True
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
