"""A picture of a circuit: populations, how they are coupled, what learns and what is perturbed, as SVG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from mgdcircuits.circuit.circuit import Circuit, Coupling, Population
from mgdcircuits.errors import RecordError
from mgdcircuits.netlist.spec import Conv2d, Dense, LearningSpec, OneToOne, Pool, Reduce, Role, Sparse

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
    _assign_columns(boxes, circuit)
    canvas = Canvas()
    bands = sorted({b.band for b in boxes.values()})
    columns = max((b.column for b in boxes.values()), default=0) + 1
    width = max(2 * MARGIN + columns * BOX_WIDTH + (columns - 1) * GAP, 960)
    if len(bands) > 1:
        width += 2 * 14
    y = 84.0
    for band in bands:
        members = [b for b in boxes.values() if b.band == band]
        y = _place(members, y + _room_above(members, circuit), columns, width)
        y += _room_below(members, circuit, boxes)
    for box in boxes.values():
        _draw_box(canvas, box)
    _draw_couplings(canvas, circuit, boxes)
    _head(canvas, circuit)
    bottom = _panels(canvas, circuit, y + 12, width)
    bottom = _legend(canvas, bottom + 22, width)
    return _document(canvas, width, bottom + 16)


# What stands in a box


def _boxes(circuit: Circuit) -> list[Box]:
    driven = _driven(circuit)
    inputs = {name for name, _ in circuit.inputs}
    targets = {c.spec.post for c in circuit.couplings.values() if c.spec.post != c.spec.pre}
    sources = {c.spec.pre for c in circuit.couplings.values() if c.spec.post != c.spec.pre}
    found = []
    for p in circuit.populations.values():
        plastic = [v for v in p.spec.variables if v.role is Role.PLASTIC]
        marks = [v.name for v in p.spec.variables if f"{p.name}.{v.name}" in driven]
        shape = "×".join(map(str, p.spec.shape))
        units = f"{p.n:,} unit{'s' if p.n != 1 else ''}"
        lines = [("name", p.name), ("soft", f"{shape} = {units}" if len(p.spec.shape) > 1 else units)]
        lines += [("code", line) for line in _population_equations(p)]
        lines += [_plastic_line(circuit, f"{p.name}.{v.name}", p.arrays[v.name].n) for v in plastic]
        if marks:
            lines.append(("perturb", f"{', '.join(marks)} perturbed"))
        fill = INPUT_FILL if p.name in inputs or p.name not in targets else FILL
        if fill == FILL and p.name not in sources:
            fill = OUTPUT_FILL
        found.append(Box(p, lines, fill, bool(plastic), bool(marks)))
    return found


def _plastic_line(circuit: Circuit, name: str, count: int) -> tuple[str, str]:
    variable = name.rpartition(".")[2]
    if _is_trained(circuit, name):
        return "learn", f"{variable}: {count:,} plastic"
    return "soft", f"{variable}: {count:,} not trained"


def _is_trained(circuit: Circuit, name: str) -> bool:
    """Whether a learning system trains a plastic parameter, or equations of its own change it (no `learning`)."""
    trained = {site.parameter for system in circuit.spec.learning for site in system.sites}
    return name in trained or not circuit.spec.learning


def _population_equations(population: Population) -> list[str]:
    """Equations of states and stored variables, and the threshold; wrapped, and cut after a few lines."""
    room = int((BOX_WIDTH - 22) / CHARACTER)
    texts = []
    for v in population.spec.variables:
        if v.role is Role.STATE:
            texts.append(f"d{v.name}/dt = {v.expression}")
        elif v.role is Role.STORED:
            texts.append(f"{v.name} = {v.expression}")
    if population.spec.threshold:
        texts.append(f"spike if {population.spec.threshold}")
    lines = [line for t in texts for line in _wrapped(t, room)]
    return _cut(lines, EQUATION_LINES + (1 if population.spec.threshold else 0))


def _wrapped(text: str, room: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), room, subsequent_indent="  ", break_long_words=True) or [""]


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][:-1] + "…"]


def _driven(circuit: Circuit) -> set[str]:
    """Qualified names of the perturbation variables that some learning system drives."""
    return {name for system in circuit.spec.learning if system.perturb for name in system.perturb.codes}


def _coupling_label(circuit: Circuit, c: Coupling) -> tuple[list[tuple[str, str]], bool]:
    """Lines of a label, and whether the coupling learns."""
    room = int((GAP - 22) / CHARACTER)
    driven = _driven(circuit)
    lines = [("topology", _topology(c))]
    texts = [f"{v.name} = {v.expression}" for v in c.summed if v.expression]
    if c.spec.on_pre:
        texts.append("on_pre: " + "; ".join(s.strip() for s in c.spec.on_pre.statements.splitlines() if s.strip()))
    if not isinstance(c.spec.topology, Pool):
        lines += [("code", line) for line in _cut([w for t in texts for w in _wrapped(t, room)], 3)]
    plastic = [v for v in c.spec.variables if v.role is Role.PLASTIC]
    lines += [_plastic_line(circuit, f"{c.name}.{v.name}", c.arrays[v.name].n) for v in plastic]
    marks = [v.name for v in c.spec.variables if f"{c.name}.{v.name}" in driven]
    if marks:
        lines.append(("perturb", f"{', '.join(marks)} perturbed"))
    delay = c.spec.delay or (c.spec.on_pre.delay if c.spec.on_pre else None)
    if delay:
        lines.append(("soft", f"delay {delay}"))
    return lines, any(_is_trained(circuit, f"{c.name}.{v.name}") for v in plastic)


def _topology(c: Coupling) -> str:
    reduce = "" if c.spec.reduce is Reduce.SUM else f"{c.spec.reduce.value} "
    match c.spec.topology:
        case Dense():
            return f"{reduce}dense"
        case Conv2d(kernel, stride, padding, dilation, groups):
            parts = [f"{reduce}conv {kernel[0]}×{kernel[1]}"]
            parts += [f"stride {stride[0]}"] if stride != (1, 1) else []
            parts += [f"padding {padding[0]}"] if padding != (0, 0) else []
            parts += [f"dilation {dilation[0]}"] if dilation != (1, 1) else []
            parts += [f"{groups} groups"] if groups != 1 else []
            return ", ".join(parts)
        case Pool(kernel, _, _):
            return f"{c.spec.reduce.value} pool {kernel[0]}×{kernel[1]}"
        case OneToOne():
            return f"{reduce}one to one"
        case Sparse(probability, in_degree, edges, _):
            if probability is not None:
                return f"{reduce}sparse, {probability:.3g} of all"
            return f"{reduce}sparse, {in_degree} inputs each" if in_degree is not None else f"{reduce}edges of {edges}"
    return type(c.spec.topology).__name__.lower()


# Where the boxes stand


def _assign_columns(boxes: dict[str, Box], circuit: Circuit) -> None:
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


def _place(members: Iterable[Box], top: float, columns: int, width: float) -> float:
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


def _loop_height(members: Iterable[Box], circuit: Circuit) -> float:
    """Height of the loops of populations onto themselves, with their labels."""
    names = {b.population.name for b in members}
    loops = [c for c in circuit.couplings.values() if c.spec.pre == c.spec.post and c.spec.pre in names]
    return max((56 + 13 * len(_coupling_label(circuit, c)[0]) for c in loops), default=0)


def _room_above(members: Sequence[Box], circuit: Circuit) -> float:
    """For loops onto oneself, and arcs over boxes in between."""
    names = {b.population.name: b for b in members}
    arcs = sum(
        1
        for c in circuit.couplings.values()
        if c.spec.pre in names and c.spec.post in names and names[c.spec.post].column - names[c.spec.pre].column > 1
    )
    return _loop_height(members, circuit) + ARC * arcs


def _room_below(members: Sequence[Box], circuit: Circuit, boxes: dict[str, Box]) -> float:
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


def _draw_couplings(canvas: Canvas, circuit: Circuit, boxes: dict[str, Box]) -> None:
    above: dict[int, int] = {}
    below: dict[int, int] = {}
    for c in circuit.couplings.values():
        pre, post = boxes[c.spec.pre], boxes[c.spec.post]
        lines, learns = _coupling_label(circuit, c)
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
            rise = max(pre.y, post.y) - min(b.y for b in row) + _loop_height(row, circuit) + ARC * level - 38
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
    contents = [("task and cost", _task_lines(circuit))]
    contents += [(f"learning: {system.name}", _learning_lines(system)) for system in circuit.spec.learning]
    if circuit.spec.clocks:
        contents.append(("clocks", [f"{name} = {text}" for name, text in circuit.spec.clocks.items()]))
    contents = [(title, lines) for title, lines in contents if lines]
    wide = sum(2 if title.startswith("learning") else 1 for title, _ in contents)
    share = (width - 2 * MARGIN - 14 * (len(contents) - 1)) / max(wide, 1)
    x, deepest = float(MARGIN), top
    for title, lines in contents:
        span = share * (2 if title.startswith("learning") else 1)
        wrapped = [w for line in lines for w in _wrapped(line, int((span - 24) / CHARACTER))]
        height = 34 + 14 * len(wrapped)
        canvas.rect(x, top, span, height, "white", "#c9ced6")
        canvas.text(x + 12, top + 20, "panel", title)
        for k, line in enumerate(wrapped):
            canvas.text(x + 12, top + 39 + 14 * k, "code", line)
        x += span + 14
        deepest = max(deepest, top + height)
    return deepest


def _task_lines(circuit: Circuit) -> list[str]:
    spec = circuit.spec
    lines = []
    if spec.task is not None:
        lines += [f"data: {spec.task.data}"] if spec.task.data else []
        lines += [f"{variable}_{population} = {text}" for (population, variable), text in spec.task.inputs.items()]
        lines += [f"target = {spec.task.target}"] if spec.task.target else []
        lines.append(f"batch: {spec.task.batch}")
    if spec.cost is not None:
        window = "" if spec.cost.over is None else f"   from {spec.cost.over[0]:g} s to {spec.cost.over[1]:g} s"
        lines.append(f"cost: {spec.cost.name} = {spec.cost.expression}{window}")
    if spec.trial is not None:
        for phase in spec.trial.phases:
            lines.append(f"{phase.name}: {'after' if phase.after else 'for'} {phase.duration}")
            lines += [f"  set {name} = {text}" for name, text in phase.set.items()]
            lines += [f"  {a.name} = {a.expression}" for a in phase.measure]
    return lines


def _learning_lines(system: LearningSpec) -> list[str]:
    lines = []
    if system.perturb is not None:
        codes: dict[str, list[str]] = {}
        for name, code in system.perturb.codes.items():
            codes.setdefault(code, []).append(name)
        for code, names in codes.items():
            kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
            lines.append(f"perturb {', '.join(kinds)} by {code}, every {system.perturb.every}")
        blocks = len(system.perturb.blocks)
        lines.append("all at once" if blocks == 1 else f"in {blocks} blocks, one after another")
    lines.append("passes: " + ", ".join(f"{name} (×{factor:g})" for name, factor in system.passes))
    lines += [f"{a.name} = {a.expression}" for a in (*system.signals, *system.baseline)]
    rules = {"estimate": [s.estimate for s in system.sites], "update": [s.update for s in system.sites]}
    for title, texts in rules.items():
        for text in dict.fromkeys("; ".join(t.strip() for t in text.splitlines() if t.strip()) for text in texts):
            lines.append(f"{title}: {text}")
    lines.append(f"update at {system.update_at}" if system.update_at else f"update every {system.update_every}")
    return lines


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
