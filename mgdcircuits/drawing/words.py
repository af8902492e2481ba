"""What a picture says of populations, couplings, task and learning."""

from __future__ import annotations

import textwrap

from mgdcircuits.circuit.circuit import Circuit, Coupling, Population
from mgdcircuits.drawing.canvas import BOX_WIDTH, CHARACTER, EQUATION_LINES, GAP
from mgdcircuits.netlist.spec import Conv2d, Dense, LearningSpec, OneToOne, Pool, Reduce, Role, Sparse


def plastic_line(circuit: Circuit, name: str, count: int) -> tuple[str, str]:
    """How many plastic parameters, and whether anything trains them."""
    variable = name.rpartition(".")[2]
    if is_trained(circuit, name):
        return "learn", f"{variable}: {count:,} plastic"
    return "soft", f"{variable}: {count:,} not trained"


def is_trained(circuit: Circuit, name: str) -> bool:
    """Whether a learning system trains a plastic parameter, or equations of its own change it (no `learning`)."""
    trained = {site.parameter for system in circuit.spec.learning for site in system.sites}
    return name in trained or not circuit.spec.learning


def population_equations(population: Population) -> list[str]:
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
    lines = [line for t in texts for line in wrapped(t, room)]
    return cut(lines, EQUATION_LINES + (1 if population.spec.threshold else 0))


def wrapped(text: str, room: int) -> list[str]:
    """Lines of at most `room` characters."""
    return textwrap.wrap(" ".join(text.split()), room, subsequent_indent="  ", break_long_words=True) or [""]


def cut(lines: list[str], most: int) -> list[str]:
    """At most that many lines."""
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][:-1] + "…"]


def driven(circuit: Circuit) -> set[str]:
    """Qualified names of the perturbation variables that some learning system drives."""
    return {name for system in circuit.spec.learning if system.perturb for name in system.perturb.codes}


def coupling_label(circuit: Circuit, c: Coupling) -> tuple[list[tuple[str, str]], bool]:
    """Lines of a label, and whether the coupling learns."""
    room = int((GAP - 22) / CHARACTER)
    names = driven(circuit)
    lines = [("topology", topology(c))]
    texts = [f"{v.name} = {v.expression}" for v in c.summed if v.expression]
    if c.spec.on_pre:
        texts.append("on_pre: " + "; ".join(s.strip() for s in c.spec.on_pre.statements.splitlines() if s.strip()))
    if not isinstance(c.spec.topology, Pool):
        lines += [("code", line) for line in cut([w for t in texts for w in wrapped(t, room)], 3)]
    plastic = [v for v in c.spec.variables if v.role is Role.PLASTIC]
    lines += [plastic_line(circuit, f"{c.name}.{v.name}", c.arrays[v.name].n) for v in plastic]
    marks = [v.name for v in c.spec.variables if f"{c.name}.{v.name}" in names]
    if marks:
        lines.append(("perturb", f"{', '.join(marks)} perturbed"))
    delay = c.spec.delay or (c.spec.on_pre.delay if c.spec.on_pre else None)
    if delay:
        lines.append(("soft", f"delay {delay}"))
    return lines, any(is_trained(circuit, f"{c.name}.{v.name}") for v in plastic)


def topology(c: Coupling) -> str:
    """How a coupling connects."""
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


def task_lines(circuit: Circuit) -> list[str]:
    """Task, cost and trial."""
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


def learning_lines(system: LearningSpec) -> list[str]:
    """Perturbation, passes, rule and update of a learning system."""
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
