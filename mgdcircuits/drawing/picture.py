"""A picture of a circuit: populations, how they are coupled, what learns and what is perturbed, as SVG."""

from __future__ import annotations

from pathlib import Path

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.drawing.canvas import (
    ARC,
    BOX_WIDTH,
    CHARACTER,
    FILL,
    GAP,
    INK,
    INPUT_FILL,
    LINE,
    MARGIN,
    OUTPUT_FILL,
    PERTURBED,
    PLASTIC,
    SOFT,
    Box,
    Canvas,
)
from mgdcircuits.drawing.layout import assign_columns, loop_height, place, room_above, room_below
from mgdcircuits.drawing.words import (
    coupling_label,
    driven,
    learning_lines,
    plastic_line,
    population_equations,
    task_lines,
    wrapped,
)
from mgdcircuits.errors import RecordError
from mgdcircuits.netlist.spec import Role


def draw(circuit: Circuit, path: str | Path) -> Path:
    """Write an SVG picture of a circuit.

    Parameters
    ----------
    circuit
        From `mgdcircuits.load`; it need not be able to run.
    path
        Where to; it should end in .svg.

    Raises
    ------
    RecordError
        The file cannot be written, or its name asks for another format.
    """
    path = Path(path)
    if path.suffix.lower() not in (".svg", ""):
        raise RecordError(f"{path}: a drawing is an SVG file; expected a name that ends in .svg")
    try:
        path.write_text(svg(circuit), encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror}") from error
    return path


def svg(circuit: Circuit) -> str:
    """The picture as text."""
    boxes = {b.population.name: b for b in _boxes(circuit)}
    assign_columns(boxes, circuit)
    canvas = Canvas()
    bands = sorted({b.band for b in boxes.values()})
    columns = max((b.column for b in boxes.values()), default=0) + 1
    width = max(2 * MARGIN + columns * BOX_WIDTH + (columns - 1) * GAP, 960)
    if len(bands) > 1:
        width += 2 * 14
    y = 84.0
    for band in bands:
        members = [b for b in boxes.values() if b.band == band]
        y = place(members, y + room_above(members, circuit), columns, width)
        y += room_below(members, circuit, boxes)
    for box in boxes.values():
        _draw_box(canvas, box)
    _draw_couplings(canvas, circuit, boxes)
    _head(canvas, circuit)
    bottom = _panels(canvas, circuit, y + 12, width)
    bottom = _legend(canvas, bottom + 22, width)
    return _document(canvas, width, bottom + 16)


# What stands in a box


def _boxes(circuit: Circuit) -> list[Box]:
    names = driven(circuit)
    inputs = {name for name, _ in circuit.inputs}
    targets = {c.spec.post for c in circuit.couplings.values() if c.spec.post != c.spec.pre}
    sources = {c.spec.pre for c in circuit.couplings.values() if c.spec.post != c.spec.pre}
    found = []
    for p in circuit.populations.values():
        plastic = [v for v in p.spec.variables if v.role is Role.PLASTIC]
        marks = [v.name for v in p.spec.variables if f"{p.name}.{v.name}" in names]
        shape = "×".join(map(str, p.spec.shape))
        units = f"{p.n:,} unit{'s' if p.n != 1 else ''}"
        lines = [("name", p.name), ("soft", f"{shape} = {units}" if len(p.spec.shape) > 1 else units)]
        lines += [("code", line) for line in population_equations(p)]
        lines += [plastic_line(circuit, f"{p.name}.{v.name}", p.arrays[v.name].n) for v in plastic]
        if marks:
            lines.append(("perturb", f"{', '.join(marks)} perturbed"))
        fill = INPUT_FILL if p.name in inputs or p.name not in targets else FILL
        if fill == FILL and p.name not in sources:
            fill = OUTPUT_FILL
        found.append(Box(p, lines, fill, bool(plastic), bool(marks)))
    return found


def _draw_couplings(canvas: Canvas, circuit: Circuit, boxes: dict[str, Box]) -> None:
    above: dict[int, int] = {}
    below: dict[int, int] = {}
    for c in circuit.couplings.values():
        pre, post = boxes[c.spec.pre], boxes[c.spec.post]
        lines, learns = coupling_label(circuit, c)
        if pre is post:
            top = pre.y
            x = pre.centre
            canvas.path(f"M {x - 34},{top} C {x - 44},{top - 50} {x + 44},{top - 50} {x + 34},{top - 4}", learns)
            canvas.label(x, top - 42 - 6.5 * len(lines), lines)
        elif pre.band != post.band:
            _elbow(canvas, pre, post, lines, learns, boxes)
        elif post.column == pre.column + 1:
            bend = GAP / 2
            end = post.x - 5
            start = f"M {pre.right},{pre.middle} C {pre.right + bend},{pre.middle}"
            canvas.path(f"{start} {end - bend},{post.middle} {end},{post.middle}", learns)
            x, y = (pre.right + post.x) / 2, (pre.middle + post.middle) / 2
            if abs(pre.middle - post.middle) < 1:
                canvas.label_around(x, y, lines)
            else:
                canvas.label(x, y, lines)
        elif post.column == pre.column:
            side = 30 if post.y > pre.y else -30
            low, high = (pre.y + pre.height, post.y - 5) if post.y > pre.y else (pre.y, post.y + post.height + 5)
            canvas.path(f"M {pre.centre + side},{low} L {pre.centre + side},{high}", learns)
            canvas.label(pre.centre + 3 * side, (low + high) / 2, lines)
        elif post.column > pre.column:
            level = above[pre.band] = above.get(pre.band, 0) + 1
            row = [b for b in boxes.values() if b.band == pre.band]
            rise = max(pre.y, post.y) - min(b.y for b in row) + loop_height(row, circuit) + ARC * level - 38
            _arc(canvas, pre, post, -rise / 0.75, lines, learns)
        else:
            level = below[pre.band] = below.get(pre.band, 0) + 1
            _arc(canvas, pre, post, 70 + ARC * (level - 1) / 0.75, lines, learns)


def _arc(canvas: Canvas, pre: Box, post: Box, height: float, lines: list[tuple[str, str]], learns: bool) -> None:
    if height < 0:
        start, end = pre.y, post.y - 5
    else:
        start, end = pre.y + pre.height, post.y + post.height + 5
    x1, x2 = pre.centre + (20 if post.x > pre.x else -20), post.centre + (-20 if post.x > pre.x else 20)
    canvas.path(f"M {x1},{start} C {x1},{start + height} {x2},{end + height} {x2},{end}", learns)
    canvas.label((x1 + x2) / 2, (start + end) / 2 + 0.75 * height, lines)


def _elbow(
    canvas: Canvas, pre: Box, post: Box, lines: list[tuple[str, str]], learns: bool, boxes: dict[str, Box]
) -> None:
    """From the right edge of a band around to the left edge of another."""
    bottom = max(b.y + b.height for b in boxes.values() if b.band == min(pre.band, post.band))
    channel = bottom + 46
    right, left = max(b.right for b in boxes.values()) + 16, min(b.x for b in boxes.values()) - 20
    r = 9
    canvas.path(
        f"M {pre.right},{pre.middle} L {right - r},{pre.middle} q {r},0 {r},{r} L {right},{channel - r} "
        f"q 0,{r} {-r},{r} L {left + r},{channel} q {-r},0 {-r},{r} L {left},{post.middle - r} "
        f"q 0,{r} {r},{r} L {post.x - 5},{post.middle}",
        learns,
    )
    canvas.label_around((left + right) / 2, channel, lines)


# Text around it


def _draw_box(canvas: Canvas, box: Box) -> None:
    stroke = PLASTIC if box.learns else "#9aa1ab"
    canvas.rect(box.x, box.y, BOX_WIDTH, box.height, box.fill, stroke, f'stroke-width="{2 if box.learns else 1.2}"')
    for k, (style, text) in enumerate(box.lines):
        canvas.text(box.x + 11, box.y + 20 + LINE * k, style, text)
    if box.perturbed:
        canvas.mark(box.right - 34, box.y + 15)


def _head(canvas: Canvas, circuit: Circuit) -> None:
    canvas.text(MARGIN, 38, "title", circuit.name)
    parts = [
        f"{len(circuit.populations)} populations",
        f"{sum(p.n for p in circuit.populations.values()):,} units",
        f"{circuit.n_macs:,} synapses",
        f"{circuit.n_parameters:,} plastic parameters",
    ]
    canvas.text(MARGIN, 58, "soft", "  ·  ".join(parts))


def _panels(canvas: Canvas, circuit: Circuit, top: float, width: float) -> float:
    """Task, cost and trial; learning; clocks."""
    contents = [("task and cost", task_lines(circuit))]
    contents += [(f"learning: {system.name}", learning_lines(system)) for system in circuit.spec.learning]
    if circuit.spec.clocks:
        contents.append(("clocks", [f"{name} = {text}" for name, text in circuit.spec.clocks.items()]))
    contents = [(title, lines) for title, lines in contents if lines]
    wide = sum(2 if title.startswith("learning") else 1 for title, _ in contents)
    share = (width - 2 * MARGIN - 14 * (len(contents) - 1)) / max(wide, 1)
    x, deepest = float(MARGIN), top
    for title, lines in contents:
        span = share * (2 if title.startswith("learning") else 1)
        broken = [w for line in lines for w in wrapped(line, int((span - 24) / CHARACTER))]
        height = 34 + 14 * len(broken)
        canvas.rect(x, top, span, height, "white", "#c9ced6")
        canvas.text(x + 12, top + 20, "panel", title)
        for k, line in enumerate(broken):
            canvas.text(x + 12, top + 39 + 14 * k, "code", line)
        x += span + 14
        deepest = max(deepest, top + height)
    return deepest


def _legend(canvas: Canvas, y: float, width: float) -> float:
    x = float(MARGIN)
    keys = ((INPUT_FILL, SOFT, "input"), (OUTPUT_FILL, SOFT, "output"), (FILL, PLASTIC, "holds plastic parameters"))
    for fill, stroke, text in keys:
        canvas.rect(x, y - 10, 22, 14, fill, stroke)
        canvas.text(x + 28, y + 1, "soft", text)
        x += 50 + 6.4 * len(text)
    for plastic, text in ((True, "plastic coupling"), (False, "fixed coupling")):
        canvas.path(f"M {x},{y - 3} L {x + 26},{y - 3}", plastic)
        canvas.text(x + 38, y + 1, "soft", text)
        x += 58 + 6.4 * len(text)
    canvas.mark(x, y - 3)
    canvas.text(x + 30, y + 1, "perturb", "perturbed while it learns")
    return y


def _document(canvas: Canvas, width: float, height: float) -> str:
    arrows = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="7" refY="5" markerWidth="9" markerHeight="9" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,1 L9,5 L0,9 z" fill="{color}"/></marker>'
        for name, color in (("learns", PLASTIC), ("fixed", SOFT))
    )
    style = (
        "text{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;font-size:11px;fill:" + INK + "}"
        ".title{font-size:22px;font-weight:bold}.name{font-size:13px;font-weight:bold}"
        ".panel{font-size:12px;font-weight:bold}"
        f".soft{{fill:{SOFT}}}.topology{{font-weight:bold}}.learn{{fill:{PLASTIC};font-weight:bold}}"
        f".perturb{{fill:{PERTURBED}}}"
        ".code{font-family:'DejaVu Sans Mono',Menlo,Consolas,monospace;font-size:10px;white-space:pre}"
    )
    wave = f'<path id="wave" d="M0,0 q 3.5,-9 7,0 t 7,0 t 7,0" fill="none" stroke="{PERTURBED}" stroke-width="1.8"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n<defs><style>{style}</style>{arrows}{wave}</defs>\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join([*canvas.shapes, *canvas.texts]) + "\n</svg>\n"
    )
