"""Boxes of populations, and the SVG elements that a picture is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from mgdcircuits.circuit.circuit import Population

COLUMNS = 4  # populations side by side before a chain goes on in the next row
BOX_WIDTH, GAP, MARGIN, LINE = 204, 172, 36, 15
INK, SOFT, PLASTIC, PERTURBED = "#22262b", "#6b7280", "#c2571a", "#7a3fb0"
FILL, INPUT_FILL, OUTPUT_FILL = "#f6f6f3", "#e8f3ea", "#e6eef8"
CHARACTER = 6.05  # width of a monospaced character of 10 px
EQUATION_LINES = 4
ARC = 78  # distance between arcs over or under the boxes of a row


@dataclass
class Box:
    """A population and where it stands."""

    population: Population
    lines: list[tuple[str, str]]  # style, text
    fill: str
    learns: bool
    perturbed: bool
    column: int = 0
    band: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + 18

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + BOX_WIDTH

    @property
    def centre(self) -> float:
        return self.x + BOX_WIDTH / 2


@dataclass
class Canvas:
    """SVG elements, lowest first, and the areas that text already takes."""

    shapes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def text(self, x: float, y: float, style: str, content: str, anchor: str = "start") -> None:
        place = f'x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}"'
        self.texts.append(f"<text {place}>{escape(content)}</text>")

    def path(self, d: str, plastic: bool) -> None:
        color, width = (PLASTIC, 2.2) if plastic else (SOFT, 1.5)
        marker = "learns" if plastic else "fixed"
        self.shapes.append(
            f'<path d="{d}" fill="none" stroke="{color}" stroke-width="{width}" marker-end="url(#{marker})"/>'
        )

    def rect(self, x: float, y: float, width: float, height: float, fill: str, stroke: str, extra: str = "") -> None:
        self.shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="7" fill="{fill}" '
            f'stroke="{stroke}" {extra}/>'
        )

    def mark(self, x: float, y: float) -> None:
        """The wave that stands for a perturbation."""
        self.texts.append(f'<use href="#wave" x="{x:.1f}" y="{y:.1f}"/>')

    def label(self, x: float, y: float, lines: Sequence[tuple[str, str]]) -> None:
        """Centred lines on a white ground, moved down until they cover no other label."""
        width = max(len(t) * CHARACTER for _, t in lines) + 8
        height = 13 * len(lines) + 4
        top = y - height / 2
        while any(
            x - width / 2 < right and left < x + width / 2 and top < bottom and upper < top + height
            for left, upper, right, bottom in self.taken
        ):
            top += 6
        self.taken.append((x - width / 2, top, x + width / 2, top + height))
        self.texts.append(
            f'<rect x="{x - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="white" '
            'fill-opacity="0.88" rx="3"/>'
        )
        for k, (style, content) in enumerate(lines):
            self.text(x, top + 12 + 13 * k, style, content, "middle")

    def label_around(self, x: float, y: float, lines: Sequence[tuple[str, str]]) -> None:
        """A label of a level arrow: what the coupling is above it, what it holds below."""
        first = [line for line in lines if line[0] in ("topology", "code")]
        self.label(x, y - 7 - 6.5 * len(first), first)
        if len(first) < len(lines):
            self.label(x, y + 10 + 6.5 * (len(lines) - len(first)), lines[len(first) :])
