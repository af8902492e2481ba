"""Who drives whom: inputs that nothing drives, and loops in which a value would depend on itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgdcircuits.netlist.checks.registry import Report, rule
from mgdcircuits.netlist.expressions import ExpressionError, names, parse_statements
from mgdcircuits.netlist.objects import BRIAN_WORDS
from mgdcircuits.netlist.spec import CouplingSpec, PopulationSpec, Role, VariableKind

if TYPE_CHECKING:
    from mgdcircuits.netlist.load import Circuit

Node = tuple[str, str]


def reads(thing: PopulationSpec | CouplingSpec) -> set[str]:
    """All names that the equations and events of an object read."""
    texts = [v.expression for v in thing.variables] + [v.initial for v in thing.variables]
    blocks = [thing.on_write]
    if isinstance(thing, PopulationSpec):
        texts += [thing.threshold, thing.refractory]
        blocks.append(thing.reset)
    else:
        blocks += [event.statements for event in (thing.on_pre, thing.on_post) if event]
    found: set[str] = set()
    for text in texts:
        found |= names(text) if text else set()
    for block in blocks:
        for statement in parse_statements(block) if block else ():
            found |= names(statement.value)
    return found


def _written(thing: PopulationSpec | CouplingSpec) -> set[str]:
    blocks = [thing.on_write]
    blocks += (
        [thing.reset]
        if isinstance(thing, PopulationSpec)
        else [e.statements for e in (thing.on_pre, thing.on_post) if e]
    )
    return {s.target for block in blocks if block for s in parse_statements(block)}


@rule(
    "undriven-input", "a plain parameter that an equation reads must be driven, set, written or given an initial value"
)
def undriven_input(circuit: Circuit, report: Report) -> None:
    """Plain parameters of populations and couplings."""
    objects = circuit.objects
    read = {(thing.name, type(thing)): reads(thing) for thing in objects.every()}
    for thing in objects.every():
        if thing.name in objects.lost or thing.name in objects.doubtful or report.has("unknown-input"):
            continue
        used, written = set(read[thing.name, type(thing)]), _written(thing)
        for coupling in objects.couplings.values():
            outside = read[coupling.name, type(coupling)]
            for side, suffix in ((coupling.pre, "_pre"), (coupling.post, "_post")):
                if side == thing.name and isinstance(thing, PopulationSpec):
                    used |= {n.removesuffix(suffix) for n in outside if n.endswith(suffix)}
                    written |= {n.removesuffix(suffix) for n in _written(coupling) if n.endswith(suffix)}
            if coupling.post == thing.name and isinstance(thing, PopulationSpec):
                own = {v.name for v in coupling.variables}
                used |= outside - own
                written |= _written(coupling) - own
        if isinstance(thing, PopulationSpec):
            used |= _read_outside(circuit, thing)
        for variable in thing.variables:
            if variable.role is not Role.CONSTANT or variable.initial is not None or variable.name in written:
                continue
            if variable.name not in used or objects.is_broken(thing.name, variable.name):
                continue
            if any(objects.broken.get(c) for c in _neighbours(circuit, thing)) or objects.lost:
                continue
            example = f"`task: {{{variable.name}_{thing.name}: x}}`" if isinstance(thing, PopulationSpec) else ""
            drive = f"drive it with `{variable.name}_post = ... (summed)`, set it in {example}, or " if example else ""
            report.add(
                "undriven-input",
                variable.at,
                f"nothing drives `{variable.name}` of `{thing.name}`, which an equation reads",
                "a coupling, an input or an initial value",
                f"{drive}give it a value with `initial: {{{variable.name}: ...}}`",
            )


def _neighbours(circuit: Circuit, thing: PopulationSpec | CouplingSpec) -> list[str]:
    return [c.name for c in circuit.objects.couplings.values() if c.post == thing.name]


def _read_outside(circuit: Circuit, thing: PopulationSpec) -> set[str]:
    """Variables of a population that cost, measures and the trial read."""
    texts = [a.expression for a in circuit.spec.measure]
    texts += [circuit.spec.cost.expression] if circuit.spec.cost else []
    for phase in circuit.spec.trial.phases if circuit.spec.trial else ():
        texts += [a.expression for a in phase.measure]
    words = set().union(*(names(t) for t in texts), set())
    return {v.name for v in thing.variables if f"{v.name}_{thing.name}" in words}


@rule("cycle", "a memoryless value must not depend on itself: a loop needs a delay or dynamics")
def cycle(circuit: Circuit, report: Report) -> None:
    """Loops of subexpressions and summed couplings."""
    edges = _dependencies(circuit)
    state: dict[Node, int] = {}
    trail: list[Node] = []
    for start in edges:
        found = _loop(start, edges, state, trail)
        if found:
            shown = " -> ".join(f"{variable} of `{name}`" for name, variable in found)
            thing = {o.name: o for o in circuit.objects.populations.values()}.get(found[0][0])
            variable = next((v for v in thing.variables if v.name == found[0][1]), None) if thing else None
            report.add(
                "cycle",
                variable.at if variable else None,
                f"{shown}: a value depends on itself at the same moment",
                "no loop without memory",
                "give one coupling of the loop a `delay`, or a population a differential equation",
            )
            return


def _dependencies(circuit: Circuit) -> dict[Node, list[Node]]:
    """From each memoryless variable of a population to what it is computed from."""
    edges: dict[Node, list[Node]] = {}
    populations = circuit.objects.populations
    for population in populations.values():
        own = {v.name for v in population.variables}
        for variable in population.variables:
            if variable.role is Role.STORED and variable.expression:
                edges[population.name, variable.name] = [
                    (population.name, n) for n in sorted(names(variable.expression) & own)
                ]
    for coupling in circuit.objects.couplings.values():
        own_expressions = {v.name: v for v in coupling.variables}
        for variable in coupling.variables:
            if variable.role is not Role.SUMMED or not variable.expression or coupling.delay is not None:
                continue
            todo, read = list(names(variable.expression)), set()
            while todo:
                name = todo.pop()
                if name in read:
                    continue
                read.add(name)
                inner = own_expressions.get(name)
                if inner is not None and inner.kind is VariableKind.SUBEXPRESSION and inner.expression:
                    todo += names(inner.expression)
            post = {v.name for v in populations[coupling.post].variables}
            target = edges.setdefault((coupling.post, variable.name.removesuffix("_post")), [])
            for name in sorted(read):
                if name.endswith("_pre"):
                    target.append((coupling.pre, name.removesuffix("_pre")))
                elif name.endswith("_post"):
                    target.append((coupling.post, name.removesuffix("_post")))
                elif name in post and name not in own_expressions and name not in BRIAN_WORDS:
                    target.append((coupling.post, name))
    return edges


def _loop(start: Node, edges: dict[Node, list[Node]], state: dict[Node, int], trail: list[Node]) -> list[Node] | None:
    """A loop that can be reached from `start` (depth first, without recursion)."""
    if state.get(start):
        return None
    stack = [(start, iter(edges.get(start, ())))]
    state[start] = 1
    trail = [start]
    while stack:
        node, rest = stack[-1]
        following = next(rest, None)
        if following is None:
            state[node] = 2
            stack.pop()
            trail.pop()
            continue
        if state.get(following) == 1:
            return [*trail[trail.index(following) :], following]
        if not state.get(following) and following in edges:
            state[following] = 1
            trail.append(following)
            stack.append((following, iter(edges[following])))
    return None


@rule("unread-perturbation", "a perturbation that is driven must stand in an equation")
def unread_perturbation(circuit: Circuit, report: Report) -> None:
    """Driven perturbation variables that no equation of the circuit reads."""
    objects = circuit.objects
    if objects.any_broken:
        return
    variables = objects.variables()
    read = [(thing, reads(thing)) for thing in objects.every()]
    for system in circuit.spec.learning:
        for qualified in system.perturb.codes if system.perturb is not None else ():
            name, _, word = qualified.partition(".")
            seen: set[str] = set()
            for thing, found in read:
                if thing.name == name:
                    seen |= found
                if isinstance(thing, CouplingSpec):
                    seen |= {n.removesuffix("_post") for n in found if n.endswith("_post") and thing.post == name}
                    seen |= {n.removesuffix("_pre") for n in found if n.endswith("_pre") and thing.pre == name}
                    seen |= found - {v.name for v in thing.variables} if thing.post == name else set()
            if word not in seen:
                report.add(
                    "unread-perturbation",
                    variables[qualified].at,
                    f"no equation reads the perturbation `{qualified}`",
                    "the perturbation as a term of an equation",
                    f"add it where it acts, for example `x = tanh(I + {word}) : 1`",
                )


@rule("missing-dt", "a circuit with dynamics needs an integration step")
def missing_dt(circuit: Circuit, report: Report) -> None:
    """Differential equations, thresholds and delays without the clock `dt`."""
    if "dt" in circuit.parameters.texts:
        return
    for thing in circuit.objects.every():
        dynamic = any(v.kind is VariableKind.DIFFERENTIAL for v in thing.variables)
        if dynamic or getattr(thing, "threshold", None) is not None:
            at = next((v.at for v in thing.variables if v.kind is VariableKind.DIFFERENTIAL), thing.at)
            report.add(
                "missing-dt",
                at,
                f"`{thing.name}` changes in time, but there is no integration step",
                "a clock `dt`",
                "write for example `clocks: {dt: 0.1*ms}`",
            )
            return


__all__ = ["ExpressionError", "reads"]
