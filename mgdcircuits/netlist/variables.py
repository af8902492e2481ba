"""Roles, axes and sharing: from a draft to the populations and couplings of the specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.draft import Coupling, Draft, Population
from mgdcircuits.netlist.equations import Equation
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    Macro,
    evaluate,
    expand_calls,
    names,
    nearest,
    substitute,
)
from mgdcircuits.netlist.kinds import NO_UNIT, Template, expected_of
from mgdcircuits.netlist.objects import Objects, said, statements_of
from mgdcircuits.netlist.parameters import Parameters
from mgdcircuits.netlist.source import Map, Text
from mgdcircuits.netlist.spec import (
    Axis,
    Conv2d,
    CouplingSpec,
    Dense,
    Dimensions,
    Event,
    OneToOne,
    Pool,
    PopulationSpec,
    Reduce,
    Role,
    Sharing,
    Sparse,
    Variable,
    VariableKind,
)
from mgdcircuits.netlist.topologies import product, synapses
from mgdcircuits.netlist.units import DIMENSIONLESS, describe

DRIVES = reading_rule("drives", "`X_post` must name a plain parameter of the post-synaptic population")
PAIRING = reading_rule("pairing", "`perturbation of NAME` must name a plastic parameter of the same object")
INITIAL = reading_rule("initial", "`initial` and `scale` must name variables that can have one")
REDUCE = reading_rule("reduce", "`reduce` is sum, mean or max")

INITIALIZERS = {
    "glorot_uniform": Macro("glorot_uniform", (), {}, "sqrt(6/(fan_in + fan_out))*(2*rand() - 1)"),
    "glorot_normal": Macro("glorot_normal", (), {}, "sqrt(2/(fan_in + fan_out))*randn()"),
}


def build(
    draft: Draft,
    inputs: set[tuple[str, str]],
    parameters: Parameters,
    report: Report,
) -> Objects:
    """Give every variable its role.

    Parameters
    ----------
    inputs
        The variables (population, variable) that the task or a phase of the trial sets.
    """
    objects = Objects(lost=set(draft.lost))
    driven = _driven(draft)
    for population in draft.populations.values():
        written = _written_in(population, draft, report)
        objects.broken[population.name] = population.template.broken
        elsewhere = {
            variable
            for other, variable in driven
            if population.template.name and draft.populations[other].template.name == population.template.name
        }  # driven in another population of the same kind: here it is zero
        objects.populations[population.name] = _population(
            population, driven, inputs, written, elsewhere, parameters, report
        )
    for coupling in draft.couplings.values():
        broken = objects.broken.get(coupling.name, frozenset())
        objects.broken[coupling.name] = broken | coupling.template.broken
        objects.couplings[coupling.name] = _coupling(coupling, draft, objects, parameters, report)
    return objects


def _driven(draft: Draft) -> dict[tuple[str, str], Coupling]:
    """Which variables of which population summed synaptic equations drive."""
    return {
        (coupling.post, name.removesuffix("_post")): coupling
        for coupling in draft.couplings.values()
        for name in coupling.template.lines
        if name.endswith("_post")
    }


def _written_in(population: Population, draft: Draft, report: Report) -> set[str]:
    """The variables of a population that its reset or an incoming event writes."""
    written = {s.target for s in statements_of(population.template.texts.get("reset"), report)}
    for coupling in draft.couplings.values():
        for key in ("on_pre", "on_post"):
            for statement in statements_of(coupling.template.texts.get(key), report):
                target = statement.target
                if coupling.post == population.name:
                    if target.endswith("_post"):
                        written.add(target.removesuffix("_post"))
                    elif target not in coupling.template.lines:
                        written.add(target)
                if coupling.pre == population.name and target.endswith("_pre"):
                    written.add(target.removesuffix("_pre"))
    return written


def _role(equation: Equation, driven: bool, is_input: bool) -> Role:
    flags = equation.flags
    if "summed" in flags:
        return Role.SUMMED
    if "plastic" in flags:
        return Role.PLASTIC
    if any(flag.startswith("perturbation") for flag in flags):
        return Role.PERTURBATION
    if "per device" in flags:
        return Role.DEVICE
    if equation.kind is VariableKind.DIFFERENTIAL:
        return Role.STATE
    if equation.kind is VariableKind.SUBEXPRESSION:
        return Role.STORED
    return Role.TARGET if driven else Role.INPUT if is_input else Role.CONSTANT


def _axis(equation: Equation, default: Axis) -> Axis:
    flags = equation.flags
    if "shared" in flags:
        return Axis.SCALAR
    if "per channel" in flags:
        return Axis.CHANNEL
    return Axis.UNIT if "per unit" in flags and default is not Axis.SYNAPSE else default


def _sharing(equation: Equation, role: Role, written: bool) -> Sharing:
    if "per sample" in equation.flags:
        return Sharing.REPLICA
    if "per member" in equation.flags:
        return Sharing.MEMBER
    if role in (Role.PLASTIC, Role.PERTURBATION, Role.DEVICE):
        return Sharing.MEMBER
    if role is Role.CONSTANT and not written:
        return Sharing.MEMBER
    return Sharing.REPLICA


def _pairs(template: Template, default: Axis, report: Report) -> dict[str, str]:
    """Which perturbation belongs to which plastic parameter of the same object."""
    pairs: dict[str, str] = {}
    plastic = {n: line for n, line in template.lines.items() if "plastic" in line.equation.flags}
    free: list[str] = []
    count = 0
    for name, line in template.lines.items():
        for flag in line.equation.flags:
            if flag == "perturbation":
                free.append(name)
                count += 1
            elif flag.startswith("perturbation of "):
                count += 1
                owner = flag.removeprefix("perturbation of ").strip()
                if owner not in plastic:
                    if owner not in template.broken and "*" not in template.broken:
                        expected, mend = expected_of(owner, plastic)
                        found = f"`{name}` is a perturbation of `{owner}`, which is not a plastic parameter here"
                        report.add(PAIRING, line.at, found, expected or "a parameter with the flag (plastic)", mend)
                    continue
                pairs[name] = owner
                if plastic[owner].equation.dimensions != line.equation.dimensions:
                    own, other = line.equation.dimensions, plastic[owner].equation.dimensions
                    found = f"`{name}` is {describe(own)}, but perturbs `{owner}`, which is {describe(other)}"
                    report.add("unit-mismatch", line.at, found, describe(other), f"write `{name} : {describe(other)}`")
    if count == 1 and len(free) == 1 and len(plastic) == 1 and not template.broken:
        (owner, line), name = next(iter(plastic.items())), free[0]
        equation = template.lines[name].equation
        alike = equation.dimensions == line.equation.dimensions
        if alike and _axis(equation, default) is _axis(line.equation, default):
            pairs[name] = owner
    return pairs


class _Values:
    """Initial values and scales of one object."""

    def __init__(
        self, template: Template, name: str, fans: Mapping[str, float], parameters: Parameters, report: Report
    ):
        self.template, self.name, self.fans = template, name, fans
        self.parameters, self.report = parameters, report
        for what, given in (("initial", template.initial), ("scale", template.scale)):
            for variable, text in given.items():
                self._check_name(what, variable, text)

    def _check_name(self, what: str, variable: str, text: Text) -> None:
        template = self.template
        if variable in template.broken or "*" in template.broken:
            return
        line = template.lines.get(variable)
        if line is None:
            expected, mend = expected_of(variable, template.lines)
            self.report.add(
                INITIAL, text.at, f"`{what}` of `{self.name}` names `{variable}`, which is not there", expected, mend
            )
        elif what == "initial" and line.equation.kind is VariableKind.SUBEXPRESSION:
            found = f"`initial` of `{variable}`, which is given by an equation"
            self.report.add(INITIAL, text.at, found, "a parameter or a state", "remove it, or change the equation")

    def initial(self, variable: str, local: set[str]) -> str | None:
        """The initial value with `glorot_uniform()` and the fans written out."""
        text = self.template.initial.get(variable)
        if text is None:
            return None
        try:
            expanded = expand_calls(text, INITIALIZERS)
            known = {n: f"{v:g}" for n, v in self.fans.items() if n not in self.template.lines}
            return self.parameters.finish(substitute(expanded, known), local)
        except ExpressionError as problem:
            self.report.add("expression", text.at, f"`initial` of `{variable}`: {problem.message}", "", problem.mend)
            return None

    def scale(self, equation: Equation) -> float | None:
        """The natural size of a parameter, 1 in SI units where none is given."""
        text = self.template.scale.get(equation.name)
        if text is None:
            return 1.0 if "plastic" in equation.flags else None
        try:
            value = evaluate(text, self.parameters.constants())
        except ExpressionError as problem:
            if not names(text) & self.parameters.broken:
                self.report.add(
                    "expression",
                    text.at,
                    f"`scale` of `{equation.name}`: {problem.message}",
                    "a constant",
                    problem.mend,
                )
            return 1.0
        if value.dimensions != equation.dimensions:
            found = f"`scale` of `{equation.name}` is {describe(value.dimensions)}"
            self.report.add("unit-mismatch", text.at, found, f"{describe(equation.dimensions)}, as `{equation.name}`")
        elif not value.value > 0:
            self.report.add(INITIAL, text.at, f"`scale` of `{equation.name}` is {value.value:g}", "a positive size")
            return 1.0
        return value.value


def _variables(
    template: Template,
    name: str,
    default: Axis,
    shape: tuple[int, ...] | None,
    fans: Mapping[str, float],
    roles: Mapping[str, Role],
    written: set[str],
    units: Mapping[str, tuple[str, Dimensions]],
    parameters: Parameters,
    report: Report,
) -> tuple[Variable, ...]:
    values = _Values(template, name, fans, parameters, report)
    pairs = _pairs(template, default, report)
    local = set(template.lines)
    axes = {n: _axis(line.equation, default) for n, line in template.lines.items()}
    result = []
    for key, line in template.lines.items():
        equation, role = line.equation, roles[key]
        axis = axes[pairs[key]] if key in pairs else axes[key]
        if axis is Axis.CHANNEL and shape is not None and len(shape) == 1:
            axis = Axis.UNIT  # without positions every unit is its own channel
        unit, dimensions = units.get(key, (equation.unit, equation.dimensions))
        kind, expression, initial = equation.kind, equation.expression, values.initial(key, local)
        if role is Role.DEVICE and kind is VariableKind.SUBEXPRESSION:
            kind, initial, expression = VariableKind.PARAMETER, expression, None
            initial = substitute(expand_calls(initial or "0", INITIALIZERS), {n: f"{v:g}" for n, v in fans.items()})
            initial = parameters.finish(initial, local)
        if expression is not None:
            expression = parameters.finish(expression, local)
        result.append(
            Variable(
                name=key,
                kind=kind,
                role=role,
                dimensions=dimensions,
                unit=unit,
                axis=axis,
                sharing=_sharing(equation, role, key in written),
                expression=expression,
                flags=frozenset(equation.flags),
                perturbs=pairs.get(key),
                initial=initial,
                scale=values.scale(equation),
                at=line.at,
            )
        )
    return tuple(result)


def _population(
    population: Population,
    driven: Mapping[tuple[str, str], Coupling],
    inputs: set[tuple[str, str]],
    written: set[str],
    elsewhere: set[str],
    parameters: Parameters,
    report: Report,
) -> PopulationSpec:
    template, name = population.template, population.name
    roles = {
        key: _role(line.equation, (name, key) in driven, (name, key) in inputs) for key, line in template.lines.items()
    }
    variables = _variables(template, name, Axis.UNIT, population.shape, {}, roles, written, {}, parameters, report)
    variables = tuple(
        replace(v, initial=f"0*{v.unit}" if v.dimensions != DIMENSIONLESS else "0")
        if v.role is Role.CONSTANT and v.initial is None and v.name not in written and v.name in elsewhere
        else v
        for v in variables
    )
    local = set(template.lines)
    texts = {key: _finished(template.texts.get(key), local, parameters, report) for key in ("threshold", "refractory")}
    return PopulationSpec(
        name=name,
        shape=population.shape or (1,),
        variables=variables,
        threshold=texts["threshold"],
        reset=_block(template.texts.get("reset"), local, parameters, report),
        refractory=texts["refractory"],
        method=_plain(template.texts.get("method")),
        on_write=_block(template.texts.get("on_write"), local, parameters, report),
        kind=template.name,
        at=population.at,
    )


def _finished(text: Text | None, local: set[str], parameters: Parameters, report: Report) -> str | None:
    if text is None:
        return None
    try:
        return parameters.finish(" ".join(str(text).split()), local)
    except ExpressionError as problem:
        report.add("expression", text.at, problem.message, "", problem.mend)
        return None


def _block(text: Text | None, local: set[str], parameters: Parameters, report: Report) -> str | None:
    if text is None:
        return None
    lines = statements_of(text, report)
    return "\n".join(f"{s.target} {s.operator} {parameters.finish(s.expression, local)}" for s in lines)


def _plain(text: Text | None) -> str | None:
    return None if text is None else str(text)


def fans(coupling: Coupling, draft: Draft) -> dict[str, float]:
    """`fan_in` and `fan_out` of a coupling: inputs of a post-synaptic unit, outputs of a pre-synaptic one."""
    pre, post = draft.populations[coupling.pre].shape, draft.populations[coupling.post].shape
    if pre is None or post is None:
        return {"fan_in": 1, "fan_out": 1}
    n_pre, n_post = product(pre), product(post)
    match coupling.topology:
        case Conv2d(kernel=kernel, groups=groups):
            window = kernel[0] * kernel[1]
            return {"fan_in": pre[0] // groups * window, "fan_out": post[0] * window}
        case Pool() | OneToOne() | None:
            return {"fan_in": 1, "fan_out": 1}
        case Sparse() as sparse:
            edges = synapses(sparse, n_pre, n_post)
            return {"fan_in": edges / n_post, "fan_out": edges / n_pre}
        case Dense():
            pass
    return {"fan_in": n_pre, "fan_out": n_post}


def _coupling(
    coupling: Coupling, draft: Draft, objects: Objects, parameters: Parameters, report: Report
) -> CouplingSpec:
    template, name = coupling.template, coupling.name
    post = objects.populations[coupling.post]
    roles = {key: _role(line.equation, False, False) for key, line in template.lines.items()}
    events = {key: statements_of(template.texts.get(key), report) for key in ("on_pre", "on_post")}
    written = {s.target for statements in events.values() for s in statements}
    units: dict[str, tuple[str, Dimensions]] = {}
    post_variables = {v.name: v for v in post.variables}
    for key, line in template.lines.items():
        if roles[key] is not Role.SUMMED:
            continue
        target = key.removesuffix("_post")
        found = post_variables.get(target)
        if found is None or found.role is not Role.TARGET:
            objects.doubtful.add(post.name)
        if found is None:
            if not objects.is_broken(post.name, target):
                close = nearest(target, post_variables)
                plain = [v.name for v in post.variables if v.role is Role.CONSTANT]
                report.add(
                    DRIVES,
                    line.at,
                    f"`{key}` drives `{target}`, which `{post.name}` does not have",
                    f"one of {', '.join(plain)}"
                    if plain
                    else f"a line `{target} : {line.equation.unit}` in `{post.name}`",
                    f"did you mean `{close}_post`?"
                    if close
                    else f"add `{target} : {line.equation.unit}` to its equations",
                )
            if line.equation.unit == NO_UNIT:
                units[key] = ("1", DIMENSIONLESS)
            continue
        if found.role is not Role.TARGET:
            report.add(
                DRIVES,
                line.at,
                f"`{key}` drives `{target}`, which is {said(found.role)} of `{post.name}`",
                f"a line `{target} : {found.unit}` without expression",
                f"let `{target}` stand alone in `{post.name}`",
            )
        if line.equation.unit == NO_UNIT:
            units[key] = (found.unit, found.dimensions)
        elif line.equation.dimensions != found.dimensions:
            report.add(
                "unit-mismatch",
                line.at,
                f"`{key}` is {describe(line.equation.dimensions)}, "
                f"but `{target}` of `{post.name}` is {describe(found.dimensions)}",
                "the same unit on both sides",
                f"change one of the two units (`{target}` stands in line {found.at.line if found.at else '?'})",
            )
    variables = _variables(
        template, name, Axis.SYNAPSE, None, fans(coupling, draft), roles, written, units, parameters, report
    )
    local = set(template.lines)
    delays = _delays(template.texts.get("delay"), local, parameters, report)
    reduce_text = template.texts.get("reduce")
    reduce = Reduce.SUM
    if reduce_text is not None:
        if str(reduce_text) in {r.value for r in Reduce}:
            reduce = Reduce(str(reduce_text))
        else:
            report.add(REDUCE, reduce_text.at, f"`reduce: {reduce_text}`", "one of sum, mean, max")
    made: dict[str, Event | None] = {}
    for key, side in (("on_pre", "pre"), ("on_post", "post")):
        text = template.texts.get(key)
        made[key] = None
        if text is not None:
            made[key] = Event(_block(text, local, parameters, report) or "", delays.get(side), text.at)
    return CouplingSpec(
        name=name,
        pre=coupling.pre,
        post=coupling.post,
        topology=coupling.topology or Dense(),
        variables=variables,
        reduce=reduce,
        on_pre=made["on_pre"],
        on_post=made["on_post"],
        method=_plain(template.texts.get("method")),
        on_write=_block(template.texts.get("on_write"), local, parameters, report),
        kind=template.name,
        at=coupling.at,
        delay=delays.get("pre"),
        key=coupling.key,
    )


def _delays(delay: Any, local: set[str], parameters: Parameters, report: Report) -> dict[str, str]:
    if delay is None:
        return {}
    given = {str(k): v for k, v in delay.items()} if isinstance(delay, Map) else {"pre": delay}
    for key, text in given.items():
        if key not in ("pre", "post"):
            report.add("unknown-key", text.at, f"unknown key `{key}` in `delay`", "one of pre, post")
    found = {k: _finished(v, local, parameters, report) for k, v in given.items()}
    return {k: v for k, v in found.items() if v is not None}
