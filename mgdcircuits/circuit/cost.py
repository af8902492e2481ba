"""Steps of a cost: reductions over units, then an expression of them, all in float64."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from mgdcircuits.circuit.circuit import Circuit, replica_scalar
from mgdcircuits.circuit.measures import REDUCTIONS, without_slices
from mgdcircuits.circuit.operands import Lookup, Resolver, identifier, time_words
from mgdcircuits.circuit.program import (
    Array,
    Elements,
    Index,
    Position,
    Precision,
    Read,
    Reduction,
    Scope,
    Statement,
    Step,
)
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Sharing

TARGET, LABEL = "target", "y"


@dataclass(frozen=True)
class Reduced:
    """One reduction of a cost: its result, the expression under it, and the loop over that."""

    array: Array
    operation: str
    expression: str
    kernel: Reduction


@dataclass(frozen=True)
class CostSteps:
    """The steps of a cost and the reductions in it, which the gradient needs one by one."""

    steps: tuple[Step, ...]
    reduced: tuple[Reduced, ...]
    expression: str  # in terms of the names of `reduced` arrays
    resolver: Resolver


def task_arrays(circuit: Circuit) -> dict[str, Array]:
    """The arrays that a sample fills besides inputs: `target` and the label `y`."""
    task = circuit.spec.task
    if task is None or task.target is None:
        return {}
    shape = task.target_shape or (1,)
    return {TARGET: Array(TARGET, shape, Sharing.REPLICA), LABEL: replica_scalar(LABEL)}


def unit_variable(circuit: Circuit, name: str) -> Read | None:
    """`VAR_POP`: a variable of a population, per unit."""
    for population in circuit.populations.values():
        variable = name.removesuffix(f"_{population.name}")
        if variable != name and population.variable(variable) is not None:
            return population.read(variable)
    return None


def parameter_variable(circuit: Circuit, name: str) -> Read | None:
    """A variable of a coupling inside a reduction (`sum(g_hidden**2)`)."""
    for coupling in circuit.couplings.values():
        variable = name.removesuffix(f"_{coupling.name}")
        if variable != name and coupling.variable(variable) is not None:
            return coupling.read_own(variable, Index.ELEMENT)
    return None


def cost_steps(
    circuit: Circuit,
    expression: str,
    result: str,
    constants: Mapping[str, float],
    add_weight: float | None = None,
    also: Lookup | None = None,
    site: str | None = None,
) -> CostSteps:
    """The steps that put `expression` into the per-replica float64 array `result`.

    With `add_weight` the value is multiplied by it and added, for averages over a window. `also` is what else a name may
    mean, asked first. Draws are named after `site`: the passes share one, so that `randn_period()` is common to them.
    """
    task = task_arrays(circuit)
    site = site or result

    def lookup(name: str):
        found = also(name) if also is not None else None
        if found is not None:
            return found
        if name == LABEL and name in task:
            return Read(task[LABEL], Index.ZERO)
        if name == TARGET and name in task:
            return Read(task[TARGET], Index.ELEMENT)
        if name == "i":
            return Position()
        return unit_variable(circuit, name)

    reduced: list[Reduced] = []

    def resolver(place: str, extra=None) -> Resolver:
        lookups = [lookup] if extra is None else [extra, lookup]
        parameters = {**circuit.spec.parameters, **time_words(constants)}
        return Resolver(parameters, constants, lookups, place, scope=Scope.PASS)

    def replace(node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REDUCTIONS:
            if len(node.args) == 1:
                return ast.Name(add_reduction(node.func.id, node.args[0]))
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                setattr(node, field, replace(value))
            elif isinstance(value, list):
                setattr(node, field, [replace(v) if isinstance(v, ast.AST) else v for v in value])
        return node

    def add_reduction(operation: str, argument: ast.expr) -> str:
        array = replica_scalar(f"{result}.reduction_{len(reduced)}")
        inner = resolver(f"{site}.reduction_{len(reduced)}")
        text = inner.expression(ast.unparse(argument))
        sizes = {o.array.n for o in inner.operands.values() if isinstance(o, Read) and o.index is Index.ELEMENT}
        if len(sizes) != 1:
            raise BuildError(
                f"{result}: {operation}({ast.unparse(argument)}) reduces over units, so it must read variables of "
                f"populations of one size; found sizes {sorted(sizes)}"
            )
        kernel = Reduction(
            array.name,
            (Statement("result", text),),
            inner.operands,
            {"result": array},
            n=sizes.pop(),
            operation=operation,
        )
        reduced.append(Reduced(array, operation, text, kernel))
        return identifier(array.name)

    tree = replace(ast.parse(without_slices(circuit, expression), mode="eval").body)

    def outside(name: str):
        found = next((r.array for r in reduced if identifier(r.array.name) == name), None)
        if found is not None:
            return Read(found, Index.ZERO)
        read = lookup(name)
        if isinstance(read, Read) and read.index is Index.ELEMENT:
            if read.array.n != 1:
                raise BuildError(f"{result}: {name} has {read.array.n} units; reduce it with sum, mean or max")
            return Read(read.array, Index.ZERO)
        return read

    outer = resolver(site, outside)
    text = outer.expression(ast.unparse(tree))
    target = replica_scalar(result)
    if add_weight is not None:
        own = identifier(target.name)
        outer.operands[own] = Read(target, Index.ZERO)
        statement = Statement("result", f"{own} + {add_weight!r}*({text})")
    else:
        statement = Statement("result", text)
    kernel = Elements(
        result,
        (statement,),
        outer.operands,
        {"result": target},
        n=1,
        sharing=Sharing.REPLICA,
        precision=Precision.DOUBLE,
    )
    return CostSteps((*(Step(r.kernel) for r in reduced), Step(kernel)), tuple(reduced), text, outer)
