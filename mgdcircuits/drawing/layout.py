"""Where the boxes of a picture stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.drawing.canvas import ARC, BOX_WIDTH, COLUMNS, GAP, Box
from mgdcircuits.drawing.words import coupling_label


def assign_columns(boxes: dict[str, Box], circuit: Circuit) -> None:
    """Columns by the longest way from a source, loops left out; a long chain is wrapped into bands."""
    following: dict[str, list[str]] = {name: [] for name in boxes}
    for c in circuit.couplings.values():
        if c.spec.pre != c.spec.post:
            following[c.spec.pre].append(c.spec.post)
    forward = _without_loops(following)
    rank = dict.fromkeys(boxes, 0)
    for _ in boxes:
        for pre, posts in forward.items():
            for post in posts:
                rank[post] = max(rank[post], rank[pre] + 1)
    ranks = max(rank.values(), default=0) + 1
    bands = -(-ranks // COLUMNS)
    per_band = -(-ranks // bands)
    for name, box in boxes.items():
        box.band, box.column = divmod(rank[name], per_band)


def _without_loops(following: dict[str, list[str]]) -> dict[str, list[str]]:
    """Edges that do not lead back to a population from which the walk came."""
    kept: dict[str, list[str]] = {name: [] for name in following}
    done: set[str] = set()

    def walk(name: str, path: frozenset[str]) -> None:
        if name in done:
            return
        for post in following[name]:
            if post not in path:
                kept[name].append(post)
                walk(post, path | {post})
        done.add(name)

    for name in following:
        walk(name, frozenset({name}))
    return kept


def place(members: Iterable[Box], top: float, columns: int, width: float) -> float:
    """Coordinates of a band; its lower edge."""
    stacks: dict[int, list[Box]] = {}
    for box in members:
        stacks.setdefault(box.column, []).append(box)
    heights = {k: sum(b.height for b in s) + 58 * (len(s) - 1) for k, s in stacks.items()}
    tallest = max(heights.values(), default=0)
    left = (width - columns * BOX_WIDTH - (columns - 1) * GAP) / 2
    for column, stack in stacks.items():
        y = top + (tallest - heights[column]) / 2
        for box in stack:
            box.x, box.y = left + column * (BOX_WIDTH + GAP), y
            y += box.height + 58
    return top + tallest


def loop_height(members: Iterable[Box], circuit: Circuit) -> float:
    """Height of the loops of populations onto themselves, with their labels."""
    names = {b.population.name for b in members}
    loops = [c for c in circuit.couplings.values() if c.spec.pre == c.spec.post and c.spec.pre in names]
    return max((56 + 13 * len(coupling_label(circuit, c)[0]) for c in loops), default=0)


def room_above(members: Sequence[Box], circuit: Circuit) -> float:
    """For loops onto oneself, and arcs over boxes in between."""
    names = {b.population.name: b for b in members}
    arcs = sum(
        1
        for c in circuit.couplings.values()
        if c.spec.pre in names and c.spec.post in names and names[c.spec.post].column - names[c.spec.pre].column > 1
    )
    return loop_height(members, circuit) + ARC * arcs


def room_below(members: Sequence[Box], circuit: Circuit, boxes: dict[str, Box]) -> float:
    names = {b.population.name: b for b in members}
    back = sum(
        1
        for c in circuit.couplings.values()
        if c.spec.pre in names and c.spec.post in names and names[c.spec.post].column < names[c.spec.pre].column
    )
    band = {name: box.band for name, box in boxes.items()}
    onward = any(c.spec.pre in names and band[c.spec.post] > band[c.spec.pre] for c in circuit.couplings.values())
    return 24 + ARC * back + (92 if onward else 0)


# Arrows
