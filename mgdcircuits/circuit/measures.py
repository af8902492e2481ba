"""Reductions as costs and measures write them: slices of units, counts of spikes, numbers of the sample."""

from __future__ import annotations

import ast

from mgdcircuits.circuit.circuit import Circuit, Population
from mgdcircuits.circuit.operands import identifier
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist import expressions

REDUCTIONS = frozenset({"sum", "mean", "max", "logsumexp", "argmax", "count"})


def count_word(population: Population) -> str:
    """The word for the spikes that each unit of a population emitted in the phase."""
    return f"_spikes_of_{identifier(population.name)}"


def sample_numbers(text: str) -> set[int]:
    """The numbers k of `x__k`, which a netlist writes `x[k]`, in an expression."""
    return {int(n[3:]) for n in expressions.names(text) if n.startswith("x__") and n[3:].isdigit()}


def without_slices(circuit: Circuit, text: str) -> str:
    """`count(pop[:20])` and `mean(v_pop[0:1])` in the words that the steps of a cost know."""
    sizes = {}
    for population in circuit.populations.values():
        sizes[population.name] = (count_word(population), population.n)
        for variable in population.spec.variables:
            word = f"{variable.name}_{population.name}"
            sizes[word] = (word, population.n)
    tree = Slices(sizes).visit(ast.parse(text.strip(), mode="eval"))
    return ast.unparse(ast.fix_missing_locations(tree))


class Slices(ast.NodeTransformer):
    """Rewrites reductions over slices of units as masks; `sizes` maps a word to (word inside, units)."""

    def __init__(self, sizes: dict[str, tuple[str, int]]) -> None:
        self.sizes = sizes

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802, ast's naming
        if not (isinstance(node.func, ast.Name) and node.func.id in REDUCTIONS and len(node.args) == 1):
            return self.generic_visit(node)
        operation = node.func.id
        slices = [n for n in ast.walk(node.args[0]) if isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Slice)]
        ranges = {self._range(n) for n in slices}
        inner = self.generic_visit(_Plain(self.sizes, operation == "count").visit(node.args[0]))
        text = ast.unparse(ast.fix_missing_locations(inner))
        operation = "sum" if operation == "count" else operation
        if not ranges:
            return ast.parse(f"{operation}({text})", mode="eval").body
        if len(ranges) > 1:
            raise BuildError(f"{ast.unparse(node)}: all slices within one reduction must be the same")
        first, last = ranges.pop()
        inside = f"int(i >= {first})*int(i < {last})"
        made = {
            "sum": f"sum(({text})*{inside})",
            "mean": f"sum(({text})*{inside})/{max(1, last - first)}",
            "max": f"max(where({inside} > 0, {text}, -inf))",
            "logsumexp": f"logsumexp(where({inside} > 0, {text}, -inf))",
            "argmax": f"(argmax(where({inside} > 0, {text}, -inf)) - {first})",
        }[operation]
        return ast.parse(made, mode="eval").body

    def _range(self, node: ast.Subscript) -> tuple[int, int]:
        name = ast.unparse(node.value)
        assert isinstance(node.slice, ast.Slice)
        if name not in self.sizes or node.slice.step is not None:
            raise BuildError(f"{ast.unparse(node)}: a slice is `population[first:last]` or `VARIABLE_POPULATION[0:9]`")
        bounds = [None if b is None else int(ast.literal_eval(b)) for b in (node.slice.lower, node.slice.upper)]
        first, last, _ = slice(*bounds).indices(self.sizes[name][1])
        return first, last


class _Plain(ast.NodeTransformer):
    """Takes slices off, and puts the count of spikes in the place of a population."""

    def __init__(self, sizes: dict[str, tuple[str, int]], counting: bool) -> None:
        self.sizes, self.counting = sizes, counting

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:  # noqa: N802, ast's naming
        return self.visit(node.value) if isinstance(node.slice, ast.Slice) else node

    def visit_Name(self, node: ast.Name) -> ast.AST:  # noqa: N802, ast's naming
        if self.counting and node.id in self.sizes:
            return ast.Name(self.sizes[node.id][0])
        return node
