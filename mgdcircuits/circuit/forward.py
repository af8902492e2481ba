"""The steps of one evaluation: summed couplings and stored subexpressions in graph order, then state updates.

A stored subexpression is evaluated once per evaluation into an array (the one deviation from Brian2, where a chain of
subexpressions is re-evaluated at every synapse). Several couplings into one variable write one array each, and their sum
is a step of its own, so that a step that need not be repeated is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mgdcircuits.circuit import integrate
from mgdcircuits.circuit.circuit import Circuit, Coupling, Population
from mgdcircuits.circuit.operands import Resolver, time_words
from mgdcircuits.circuit.program import (
    Array,
    Couple,
    Elements,
    Index,
    Into,
    Position,
    Read,
    Statement,
    Step,
)
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Reduce, Role, Sharing, Variable, VariableKind


def population_resolver(
    circuit: Circuit, population: Population, place: str, constants: Mapping[str, float]
) -> Resolver:
    """Names in an equation of a population."""

    def own(name: str):
        return Position() if name == "i" else population.read(name)

    parameters = {**circuit.spec.parameters, **time_words(constants)}
    return Resolver(parameters, {**constants, "N": population.n}, [own], place)


def coupling_resolver(circuit: Circuit, coupling: Coupling, place: str, constants: Mapping[str, float]) -> Resolver:
    """Names in an equation of a synapse."""
    sizes = {"N_pre": coupling.pre.n, "N_post": coupling.post.n, "N": coupling.topology.n_synapses}
    positions = {"i": Position(Index.PRE), "j": Position(Index.POST)}
    # a subexpression of a synapse is not stored, as in Brian2: it is read where its name stands
    inlined = {v.name: v.expression for v in coupling.spec.variables if v.role is Role.STORED and v.expression}

    def read(name: str):
        return None if name in inlined else coupling.read(name)

    parameters = {**circuit.spec.parameters, **inlined, **time_words(constants)}
    return Resolver(parameters, {**constants, **sizes}, [positions.get, read], place, index=Index.SYNAPSE)


def refuse_dynamic_synapses(circuit: Circuit) -> None:
    """Delays, events and states of synapses run in circuits with spikes or trials only.

    Raises
    ------
    BuildError
        With what to write instead.
    """
    for coupling in circuit.couplings.values():
        spec = coupling.spec
        if spec.on_pre is not None or spec.on_post is not None:
            raise BuildError(f"{spec.at}: {spec.name} waits for spikes, but no population has a `threshold`")
        if spec.delay is not None:
            raise BuildError(
                f"{spec.at}: {spec.name}: a delay of a summed equation does not run yet; leave `delay` out"
            )
        state = next((v for v in spec.variables if v.kind is VariableKind.DIFFERENTIAL), None)
        if state is not None:
            raise BuildError(
                f"{spec.at}: {spec.name}.{state.name}: a differential equation of a synapse runs in circuits with spikes or "
                "trials so far; put it into the population"
            )


def couple(circuit: Circuit, coupling: Coupling, summed: Variable, target: Array, constants) -> Step:
    """The step that adds up a summed equation of a coupling."""
    assert summed.expression is not None
    resolver = coupling_resolver(circuit, coupling, f"{coupling.name}.{summed.name}", constants)
    expression, reduce = resolver.expression(summed.expression), coupling.spec.reduce
    if reduce is Reduce.MEAN:
        reduce = Reduce.SUM
        if coupling.share is None:
            expression = f"({expression})/{round(1 / coupling.shares[0])}"
        else:
            resolver.operands["_share"] = Read(coupling.share, Index.POST)
            expression = f"({expression})*_share"
    kernel = Couple(
        f"{coupling.name}.{summed.name}",
        (Statement("target", expression),),
        resolver.operands,
        {"target": target},
        topology=coupling.topology,
        into=Into.POST,
        reduce=reduce,
    )
    return Step(kernel)


def _stored(circuit: Circuit, population: Population, variable: Variable, constants) -> Step:
    assert variable.expression is not None
    resolver = population_resolver(circuit, population, f"{population.name}.{variable.name}", constants)
    statement = Statement("target", resolver.expression(variable.expression))
    array = population.arrays[variable.name]
    if array.n != population.n:
        raise BuildError(f"{array.name}: a subexpression has one value per unit; remove `{variable.axis.value}`")
    kernel = Elements(
        array.name, (statement,), resolver.operands, {"target": array}, n=array.n, sharing=Sharing.REPLICA
    )
    return Step(kernel)


def _sum_of(target: Array, parts: list[Array]) -> Step:
    operands = {f"part_{k}": Read(part, Index.ELEMENT) for k, part in enumerate(parts)}
    statement = Statement("target", " + ".join(operands))
    return Step(Elements(target.name, (statement,), operands, {"target": target}, n=target.n, sharing=Sharing.REPLICA))


def evaluation_steps(circuit: Circuit, constants: Mapping[str, float]) -> tuple[list[Step], list[Array]]:
    """Steps in graph order, and the arrays they need beyond the circuit's own.

    Raises
    ------
    BuildError
        A loop that no state and no delay breaks.
    """
    found: list[Step] = []
    extra: list[Array] = []
    sources: dict[str, list[tuple[Coupling, Variable]]] = {}
    for coupling in circuit.couplings.values():
        for summed in coupling.summed:
            target = coupling.post.arrays[summed.name.removesuffix("_post")]
            sources.setdefault(target.name, []).append((coupling, summed))
    for population in circuit.populations.values():
        for array in population.arrays.values():
            into = sources.get(array.name, [])
            if len(into) == 1:
                found.append(couple(circuit, *into[0], array, constants))
            elif into:
                parts = [Array(f"{array.name}@{c.name}", array.shape, array.sharing) for c, _ in into]
                extra += parts
                found += [couple(circuit, *source, part, constants) for source, part in zip(into, parts, strict=True)]
                found.append(_sum_of(array, parts))
        for variable in population.spec.variables:
            if variable.role is Role.STORED:
                found.append(_stored(circuit, population, variable, constants))
    return in_graph_order(found), extra


def in_graph_order(found: Iterable[Step]) -> list[Step]:
    """Steps ordered so that every array is written before it is read; the given order where there is a choice."""
    waiting = list(found)
    unwritten = {a.name for s in waiting for a in s.kernel.writes.values()}
    ordered: list[Step] = []
    while waiting:
        ready = next((s for s in waiting if not s.kernel.reads() & unwritten), None)
        if ready is None:
            names = sorted(a.name for s in waiting for a in s.kernel.writes.values())
            raise BuildError(f"a loop without delay or dynamics: {', '.join(names)}")
        waiting.remove(ready)
        unwritten -= {a.name for a in ready.kernel.writes.values()}
        ordered.append(ready)
    return ordered


def update_steps(circuit: Circuit, constants: Mapping[str, float]) -> list[Step]:
    """State updates of populations, after everything was evaluated; Brian2's integrators."""
    found = []
    for population in circuit.populations.values():
        if any(v.role is Role.STATE for v in population.spec.variables):
            resolver = population_resolver(circuit, population, f"{population.name}.update", constants)
            code = integrate.population_code(circuit, population)
            found.append(_update(code, resolver, population.arrays, population.n))
    return found


def _assignments(code: str, resolver: Resolver, arrays: Mapping[str, Array]):
    """Statements and written arrays of abstract code; names that are no array are local."""
    statements, writes = [], {}
    for line in code.splitlines():
        target, separator, expression = line.partition(" = ")
        if not separator:
            continue
        target = target.strip()
        text = resolver.expression(expression)
        if target in arrays:
            writes[resolver.name(target)] = arrays[target]
            statements.append(Statement(resolver.name(target), text))
        else:
            resolver.local.add(target)
            statements.append(Statement(target, text))
    return tuple(statements), writes


def _update(code: str, resolver: Resolver, arrays: Mapping[str, Array], n: int) -> Step:
    statements, writes = _assignments(code, resolver, arrays)
    return Step(Elements(resolver.place, statements, resolver.operands, writes, n=n, sharing=Sharing.REPLICA))
