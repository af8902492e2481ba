"""How many iterations make a slice of work: between slices Ctrl-C, progress and checks have their turn."""

from __future__ import annotations

SLICE_SECONDS = 0.05


class Pace:
    """Adapts the number of iterations in a slice to what iterations have taken."""

    def __init__(self) -> None:
        self._iterations = 1.0

    def next(self, left: int) -> int:
        """Iterations of the next slice, at most `left`."""
        return min(int(self._iterations), left)

    def took(self, iterations: int, seconds: float) -> None:
        """A slice is done; a short one says little about how long a whole one may be."""
        if iterations >= int(self._iterations) or seconds > SLICE_SECONDS:
            self._iterations = max(1.0, iterations * min(4.0, SLICE_SECONDS / max(seconds, 1e-9)))
