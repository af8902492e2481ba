"""How many replicas a compiled circuit is made for, and how they share its vectors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The compile-time extents of a session."""

    real: str  # float or double
    lanes: int
    members: int
    batch: int

    @property
    def blocks(self) -> tuple[str, ...]:
        """The types of lane blocks that occur: whole ones (Index), and a last one of few lanes (Few)."""
        if self.batch == 1:
            return ("Few",) if self.members == 1 else ("Index",)
        if 0 < self.batch % self.lanes <= 8 or self.batch == self.lanes <= 8:
            return ("Index", "Few") if self.batch > self.lanes else ("Few",)
        return ("Index",)


def choose_lanes(members: int, batch: int) -> int:
    """Lanes of a block: as many as there are replicas side by side, at most 16."""
    side = members if batch == 1 else batch
    lanes = 1
    while lanes < side and lanes < 16:
        lanes *= 2
    return lanes
