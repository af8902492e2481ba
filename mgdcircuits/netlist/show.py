"""The expanded netlist as text: what a circuit really is once kinds, snippets and defaults are written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mgdcircuits.netlist import sizes
from mgdcircuits.netlist.checks.registry import Report
from mgdcircuits.netlist.checks.timing import duration
from mgdcircuits.netlist.learning import evaluations
from mgdcircuits.netlist.source import leaves, read
from mgdcircuits.netlist.spec import (
    CircuitSpec,
    Conv2d,
    CouplingSpec,
    Dense,
    LearningSpec,
    OneToOne,
    Pool,
    PopulationSpec,
    Reduce,
    Role,
    Site,
    Sparse,
    Topology,
    Variable,
    VariableKind,
)
from mgdcircuits.netlist.units import describe

_OURS = {Role.INPUT: "set by the task", Role.TARGET: "sum of couplings", Role.DEVICE: "per device"}


def effective(spec: CircuitSpec) -> str:
    """Everything that a circuit is, for `mgdcircuits show`."""
    sections = [_head(spec), _parameters(spec), _populations(spec), _couplings(spec), _task(spec), _trial(spec)]
    sections += [_learning(spec, system) for system in spec.learning]
    sections += [_hardware(spec), _record(spec)]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def origins(path_or_text: str | Path) -> str:
    """The line that each value of a netlist came from, includes followed (`show --origin`)."""
    report = Report()
    tree, _, _ = read(path_or_text, report)
    report.stop_if_any()
    rows = [(str(value.at), ".".join(path), " ".join(str(value).split())) for path, value in leaves(tree)]
    width = max((len(at) for at, _, _ in rows), default=0)
    return "\n".join(f"{at:<{width}}  {path}: {value}" for at, path, value in rows) + "\n"


def _head(spec: CircuitSpec) -> list[str]:
    counts = sizes.parameters(spec)
    nodes = sizes.nodes(spec)
    lines = [
        f"circuit: {spec.name}   ({spec.file})",
        f"  plastic parameters N = {sum(counts.values()):,}",
        f"  nodes K = {sum(nodes.values()):,}",
    ]
    if spec.learning:
        count = evaluations(spec.learning, spec.trial)
        blocks = sum(len(s.perturb.blocks) for s in spec.learning if s.perturb is not None)
        lines.append(f"  evaluations an iteration = {count}   ({blocks} block{'s' if blocks != 1 else ''})")
    return lines


def _parameters(spec: CircuitSpec) -> list[str]:
    if not spec.parameters:
        return []
    lines = ["parameters"]
    for name, value in spec.parameters.items():
        if name in spec.clocks:
            continue
        unit = describe(spec.parameter_dimensions[name])
        shown = f"{value:.12g}" if isinstance(value, float) else value
        lines.append(f"  {name} = {shown}" + ("" if unit == "1" or not isinstance(value, float) else f" {unit}"))
    lines += ["clocks"]
    for name, text in spec.clocks.items():
        seconds = spec.parameters.get(name)
        lines.append(f"  {name} = {text}" + (f"   ({duration(seconds)})" if isinstance(seconds, float) else ""))
    return lines


def _populations(spec: CircuitSpec) -> list[str]:
    lines = ["populations"]
    for population in spec.populations:
        shape = " x ".join(map(str, population.shape))
        kind = f"   kind {population.kind}" if population.kind else ""
        lines.append(f"  {population.name}: {shape}{kind}")
        lines += _equations(population, spec)
        for key in ("threshold", "reset", "refractory", "method", "on_write"):
            lines += _entry(key, getattr(population, key))
    return lines


def _couplings(spec: CircuitSpec) -> list[str]:
    if not spec.couplings:
        return []
    lines = ["couplings"]
    for coupling in spec.couplings:
        kind = f"   kind {coupling.kind}" if coupling.kind else ""
        reduce = "" if coupling.reduce is Reduce.SUM else f", {coupling.reduce.value}"
        lines.append(
            f"  {coupling.name}: {coupling.pre} -> {coupling.post}, {topology(coupling.topology)}{reduce}{kind}"
        )
        lines += _equations(coupling, spec)
        for key, event in (("on_pre", coupling.on_pre), ("on_post", coupling.on_post)):
            if event is not None:
                lines += _entry(key + (f" (delay {event.delay})" if event.delay else ""), event.statements)
        if coupling.delay and coupling.on_pre is None:
            lines += _entry("delay", coupling.delay)
        for key in ("method", "on_write"):
            lines += _entry(key, getattr(coupling, key))
    return lines


def topology(value: Topology) -> str:
    """A topology in the words of the netlist."""
    match value:
        case Conv2d(kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups):
            return f"conv2d kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}, groups {groups}"
        case Pool(kernel=kernel, stride=stride, padding=padding):
            return f"pool kernel {kernel}, stride {stride}, padding {padding}"
        case Sparse(probability=float(p)):
            return f"sparse probability {p:g}"
        case Sparse(in_degree=int(n)):
            return f"sparse in_degree {n}"
        case Sparse(edges=str(path)):
            return f"sparse edges {path}"
        case OneToOne():
            return "one_to_one"
        case Dense():
            return "dense"
    return str(value)


def _equations(thing: PopulationSpec | CouplingSpec, spec: CircuitSpec) -> Iterator[str]:
    populations = {p.name: p for p in spec.populations}
    for variable in thing.variables:
        yield f"      {line(variable)}{_remark(thing, variable, populations)}"


def line(variable: Variable) -> str:
    """A variable as a line of an equation block."""
    left = f"d{variable.name}/dt" if variable.kind is VariableKind.DIFFERENTIAL else variable.name
    right = f" = {variable.expression}" if variable.expression is not None else ""
    flags = f" ({', '.join(sorted(variable.flags))})" if variable.flags else ""
    return f"{left}{right} : {variable.unit}{flags}"


def _remark(thing: PopulationSpec | CouplingSpec, variable: Variable, populations: dict[str, PopulationSpec]) -> str:
    remarks = []
    if variable.role in (Role.PLASTIC, Role.PERTURBATION):
        remarks.append(f"{sizes.elements(thing, variable, populations):,} elements")
    if variable.role in _OURS:
        remarks.append(_OURS[variable.role])
    if variable.perturbs:
        remarks.append(f"perturbs {variable.perturbs}")
    if variable.initial is not None:
        remarks.append(f"initial {variable.initial}")
    if variable.role is Role.PLASTIC and variable.scale not in (None, 1.0):
        remarks.append(f"scale {variable.scale:g} {describe(variable.dimensions)}")
    return f"   # {', '.join(remarks)}" if remarks else ""


def _entry(key: str, text: str | None, indent: str = "      ") -> list[str]:
    if not text:
        return []
    rows = text.split("\n")
    return (
        [f"{indent}{key}: {rows[0]}"] if len(rows) == 1 else [f"{indent}{key}:", *(f"{indent}  {row}" for row in rows)]
    )


def _task(spec: CircuitSpec) -> list[str]:
    lines = []
    if spec.task is not None:
        task = spec.task
        lines.append("task")
        lines += _entry(
            "data",
            f"{task.data or 'given as arrays'}{_options(task.options)}, batch {task.batch}, {task.sampling.value}",
            "  ",
        )
        lines += [f"  {variable} of {population} = {text}" for (population, variable), text in task.inputs.items()]
        if task.target:
            lines.append(f"  target = {task.target}   ({' x '.join(map(str, task.target_shape)) or '1'})")
        lines += _entry("accuracy", task.accuracy, "  ")
    if spec.cost is not None:
        over = (
            "" if spec.cost.over is None else f"   over {duration(spec.cost.over[0])} to {duration(spec.cost.over[1])}"
        )
        lines.append(f"cost {spec.cost.name} = {spec.cost.expression}{over}")
    lines += [f"measure {a.name} = {a.expression}" for a in spec.measure]
    return lines


def _options(options: Mapping[str, Any]) -> str:
    return "".join(f", {key} = {value}" for key, value in options.items())


def _trial(spec: CircuitSpec) -> list[str]:
    if spec.trial is None:
        return []
    lines = ["trial"]
    for phase in spec.trial.phases:
        lines.append(f"  {phase.name}: {'after' if phase.after else 'for'} {phase.duration}")
        lines += [f"      set {name} = {text}" for name, text in phase.set.items()]
        lines += [f"      measure {a.name} = {a.expression}" for a in phase.measure]
    return lines + _entry("reset", ", ".join(spec.trial.reset), "  ")


def _learning(spec: CircuitSpec, system: LearningSpec) -> list[str]:
    lines = [f"learning {system.name}"]
    if system.perturb is not None:
        lines.append(f"  perturb every {system.perturb.every}")
        groups: dict[str, list[str]] = {}
        for name, code in system.perturb.codes.items():
            groups.setdefault(code, []).append(name)
        for code, names in groups.items():
            lines.append(f"      {', '.join(names)} = {code}")
        variables = {f"{t.name}.{v.name}": (t, v) for t in spec.things for v in t.variables}
        populations = {p.name: p for p in spec.populations}
        for index, block in enumerate(system.perturb.blocks):
            count = sum(sizes.elements(*variables[q], populations) for q in block)
            lines.append(f"      block {index}: {', '.join(block)}   K = {count:,}")
    lines.append("  passes " + ", ".join(f"{name}: {factor:g}" for name, factor in system.passes))
    lines += [f"  signal {a.name} = {a.expression}" for a in system.signals]
    rules: dict[tuple[str, ...], list[Site]] = {}
    for site in system.sites:
        rules.setdefault((site.estimate, site.accumulate, site.update, site.on_write), []).append(site)
    for (estimate, accumulate, update, on_write), sites in rules.items():
        lines.append("  sites")
        for site in sites:
            theta = f"theta = {site.theta}, " if site.theta else ""
            lines.append(f"      {site.parameter}   ({theta}block {site.block})")
        lines += _entry("estimate", estimate) + _entry("accumulate: G", accumulate and f"= {accumulate}")
        lines += _entry("update", update) + _entry("on_write", on_write)
        states = dict.fromkeys(name for site in sites for name, _ in site.states)
        lines += _entry("states", ", ".join(states))
    lines += [f"  baseline {a.name} = {a.expression}" for a in system.baseline]
    when = f"at {system.update_at}" if system.update_at else f"every {system.update_every}"
    lines.append(f"  update {when}, then G is {'cleared' if system.clear else 'kept'}")
    return lines


def _hardware(spec: CircuitSpec) -> list[str]:
    lines = []
    for section in ("inference", "perturbation", "write", "device", "measurement"):
        entries = getattr(spec.hardware, section)
        if entries:
            lines.append(f"  {section}: " + ", ".join(f"{key} {value}" for key, value in entries.items()))
    lines += [f"  endurance of {name}: {text} writes" for name, text in spec.hardware.endurance.items()]
    return ["hardware", *lines] if lines else []


def _record(spec: CircuitSpec) -> list[str]:
    return ["record", "  " + ", ".join(entry.variable for entry in spec.record)] if spec.record else []
