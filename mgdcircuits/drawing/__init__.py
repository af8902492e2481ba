"""Pictures of circuits."""

from mgdcircuits.drawing.picture import draw, svg

__all__ = ["draw", "svg"]
