"""Names of a netlist as names of C++: a variable called `s`, `u` or `new` must not meet what the generated loops call so."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mgdcircuits.circuit.program import (
    Between,
    Couple,
    Elements,
    Every,
    Fold,
    Kernel,
    MemberMean,
    Node,
    Operand,
    Program,
    Random,
    Reduction,
    Sample,
    Step,
    Ticks,
)

PREFIX = "v_"
KNOWN = (Couple, Elements, Fold, MemberMean, Reduction, Sample)


def private(program: Program) -> Program:
    """The same program with a prefix before every operand and local variable of its kernels."""
    made: dict[int, Kernel] = {}

    def walk(nodes: Iterable[Node]) -> tuple[Node, ...]:
        found: list[Node] = []
        for node in nodes:
            if isinstance(node, Step) and isinstance(node.kernel, KNOWN):
                kernel = made.get(id(node.kernel)) or made.setdefault(id(node.kernel), _kernel(node.kernel))
                node = replace(node, kernel=kernel)
            elif isinstance(node, Every | Ticks | Between):
                node = replace(node, body=walk(node.body))
            found.append(node)
        return tuple(found)

    return replace(
        program,
        iteration=walk(program.iteration),
        evaluate=walk(program.evaluate),
        gradient=walk(program.gradient),
        per_sample_gradient=walk(program.per_sample_gradient),
    )


def _kernel(kernel: Kernel) -> Kernel:
    if isinstance(kernel, Sample):
        inputs = tuple((array, *_presented(text, operands)) for array, text, operands in kernel.inputs)
        target = None
        if kernel.target is not None:
            array, text, operands, label = kernel.target
            target = (array, *_presented(text, operands), label)
        return replace(kernel, inputs=inputs, target=target)
    own = set(kernel.operands)
    if isinstance(kernel, Elements):  # elsewhere the target of the only statement is the loop's own word
        own |= {s.target for s in kernel.statements}
    statements = tuple(
        replace(s, target=PREFIX + s.target if s.target in own else s.target, expression=_expression(s.expression, own))
        for s in kernel.statements
    )
    changed: dict[str, Any] = {"statements": statements, "operands": _operands(kernel.operands)}
    if isinstance(kernel, Elements):
        changed["writes"] = {PREFIX + name: array for name, array in kernel.writes.items()}
    if isinstance(kernel, Couple) and kernel.winner:
        changed["winner"] = _expression(kernel.winner, own)
    return replace(kernel, **changed)


def _presented(text: str, operands: Mapping[str, Operand]) -> tuple[str, dict[str, Operand]]:
    return _expression(text, set(operands)), _operands(operands)


def _operands(operands: Mapping[str, Operand]) -> dict[str, Operand]:
    names = set(operands)
    return {
        PREFIX + name: replace(o, arguments=tuple(_expression(a, names) for a in o.arguments)) if isinstance(o, Random) else o
        for name, o in operands.items()
    }  # fmt: skip


def _expression(text: str, names: set[str]) -> str:
    tree = ast.parse(text.strip(), mode="eval")
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names and id(node) not in functions:
            node.id = PREFIX + node.id
    return ast.unparse(tree)
