"""Expressions as text: what may be written, which names occur, and how one text is put into another.

An expression is Brian2's: a restricted Python expression. Two things are added: dotted names (``C.plus``, the value of
``C`` in the pass ``plus``) and, inside a reduction, a range of units (``count(exc[:20])``). Keyword arguments are
syntax for library snippets only; `mgdcircuits.netlist.expressions.dimensions` refuses them elsewhere.
"""

from __future__ import annotations

import ast
import copy
import difflib
import keyword
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping

REDUCTION_NAMES = frozenset({"sum", "mean", "max", "logsumexp", "argmax", "count"})
"""Functions that combine all units of a population, the only ones in which a range of units may stand."""

DEEPEST = 150
"""Nesting of an expression beyond which it is refused, well below the recursion limit of Python."""

_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.UAdd, ast.USub, ast.Not)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_INSTEAD: dict[type[ast.AST], tuple[str, str]] = {
    ast.BitXor: ("the operator '^'", "write ** for a power"),
    ast.BitAnd: ("the operator '&'", "write 'and'"),
    ast.BitOr: ("the operator '|'", "write 'or'"),
    ast.Invert: ("the operator '~'", "write 'not'"),
    ast.IfExp: ("'a if c else b'", "write where(c, a, b)"),
    ast.Tuple: ("a list of values", "write one expression"),
    ast.List: ("a list of values", "write one expression"),
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class ExpressionError(ValueError):
    """An expression or a statement that cannot be used as it is written.

    Parameters
    ----------
    message : str
        What was found and what was expected.
    mend : str
        How to mend it; may be empty.
    line_offset : int
        In a block of several lines, the line the problem is in, counted from zero.
    """

    def __init__(self, message: str, mend: str = "", line_offset: int = 0) -> None:
        super().__init__(f"{message}; {mend}" if mend else message)
        self.message = message
        self.mend = mend
        self.line_offset = line_offset


class UnknownName(ExpressionError):
    """A name that stands for nothing here."""

    def __init__(self, name: str, candidates: Iterable[str] = (), what: str = "name") -> None:
        close = nearest(name, candidates)
        super().__init__(f"unknown {what} {name!r}", f"did you mean {close!r}?" if close else "")
        self.name = name


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that looks most like `name`, or None where none is close."""
    pool = sorted(set(candidates))
    found = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
    if not found:
        found = [candidate for candidate in pool if candidate.lower() == name.lower()]
    return found[0] if found else None


def is_identifier(name: str) -> bool:
    """Whether `name` can name something: ASCII letters, digits and underscores, and no Python keyword."""
    return _IDENTIFIER.match(name) is not None and not keyword.iskeyword(name)


def without_comments(text: str) -> str:
    """Return `text` with everything from ``#`` to the end of each line removed (there are no string literals)."""
    return "\n".join(line.split("#", 1)[0] for line in text.split("\n"))


def parse(text: str) -> ast.expr:
    """Parse an expression, which may go over several lines and hold comments.

    Raises
    ------
    ExpressionError
        If it is not an expression of the language.
    """
    code = " ".join(without_comments(str(text)).split())
    if not code:
        raise ExpressionError(
            "found nothing where an expression was expected", "write an expression, for example 0*volt"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            node = ast.parse(code, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise ExpressionError(f"cannot read the expression {_short(code)}", _reason(code, problem)) from None
    if _depth(node) > DEEPEST:
        raise ExpressionError(
            f"the expression {_short(code)} is nested too deeply", "name parts of it in lines of their own"
        )
    _check(node, in_reduction=False)
    return node


def _short(code: str) -> str:
    return repr(code if len(code) <= 80 else code[:77] + "...")


def _reason(code: str, problem: BaseException) -> str:
    for opening, closing in ("()", "[]"):
        if code.count(opening) != code.count(closing):
            return f"count the brackets: {code.count(opening)} {opening!r} and {code.count(closing)} {closing!r}"
    if re.search(r"(?<![=<>!])=(?!=)", code):
        return "an expression has no '='; to compare, write =="
    if isinstance(problem, SyntaxError) and problem.offset and 0 < problem.offset <= len(code):
        return f"look near {code[max(0, problem.offset - 1) : problem.offset + 9]!r}"
    return "write it as a Brian2 expression"


def _depth(node: ast.AST) -> int:
    deepest = 0
    stack = [(node, 1)]
    while stack:
        current, depth = stack.pop()
        deepest = max(deepest, depth)
        stack.extend((child, depth + 1) for child in ast.iter_child_nodes(current))
    return deepest


def _check(node: ast.AST, in_reduction: bool) -> None:
    """Refuse every node that is not in the language."""
    match node:
        case ast.Name(id=name):
            if not is_identifier(name):
                raise ExpressionError(f"the name {name!r} has letters outside ASCII", "write it in a-z, 0-9 and _")
            return
        case ast.Constant(value=value):
            if not isinstance(value, bool | int | float):
                raise ExpressionError(f"found {value!r} where a number was expected", "write a number or a name")
            return
        case ast.Attribute():
            if dotted(node) is None:
                raise ExpressionError(f"{text(node)!r} is not a name", "write NAME.PASS, for example C.plus")
            return
        case ast.Call(func=ast.Name(id=name)):
            inside = in_reduction or name in REDUCTION_NAMES
            for argument in [node.func, *node.args, *(word.value for word in node.keywords)]:
                _check(argument, inside)
            if any(word.arg is None for word in node.keywords):
                raise ExpressionError("'**' has no meaning in a call", "write the arguments one by one")
            return
        case ast.Call():
            raise ExpressionError(f"{text(node.func)!r} is not a function name", "call a function by its name")
        case ast.Subscript(value=ast.Name()) if in_reduction:
            bounds = (
                [node.slice.lower, node.slice.upper, node.slice.step]
                if isinstance(node.slice, ast.Slice)
                else [node.slice]
            )
            for part in [node.value, *(bound for bound in bounds if bound is not None)]:
                _check(part, in_reduction=False)
            return
        case ast.Subscript():
            raise ExpressionError(
                f"found an index in {text(node)!r}",
                "a range of units can only stand in a reduction, as in count(exc[:20])",
            )
        case ast.Compare() if len(node.ops) != 1:
            raise ExpressionError(f"{text(node)!r} compares more than two values", "write a < b and b < c")
    allowed = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.And, ast.Or, ast.Load, *_OPERATORS, *_COMPARISONS)
    if not isinstance(node, allowed):
        what, mend = _INSTEAD.get(
            type(node), (f"Python's {type(node).__name__}", "write it with + - * / % **, comparisons and functions")
        )
        raise ExpressionError(f"{what} is not part of the language", mend)
    for child in ast.iter_child_nodes(node):
        _check(child, in_reduction)


def text(node: ast.AST) -> str:
    """Return the text of a node, with the parentheses it needs."""
    return ast.unparse(node)


def dotted(node: ast.AST) -> str | None:
    """Return ``"x"`` or ``"x.plus"`` for a name or a dotted name, None for any other node."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not all(part.isascii() for part in (node.id, *parts)):
        return None
    return ".".join([node.id, *reversed(parts)])


def _walk_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        for argument in [*node.args, *(word.value for word in node.keywords)]:
            yield from _walk_names(argument)
        return
    name = dotted(node)
    if name is not None:
        yield name
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk_names(child)


def names(text: str) -> set[str]:
    """Return the names that an expression reads, units and constants included, functions not; ``C.plus`` is one."""
    return set(_walk_names(parse(text)))


def calls(text: str) -> set[str]:
    """Return the names of the functions that an expression calls."""
    return {
        node.func.id for node in ast.walk(parse(text)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def substitute(text: str, mapping: Mapping[str, str]) -> str:
    """Put expressions in the place of names; parentheses are set where they are needed.

    A dotted name is replaced where the mapping holds it as a whole. Where it holds only its first part, that part is
    renamed if the replacement is itself a name (``theta -> theta_w`` turns ``theta.plus`` into ``theta_w.plus``), and
    left alone if it is not. Functions keep their names.
    """
    replacements = {name: parse(value) for name, value in mapping.items()}
    return text_of_composed(_Substitution(replacements).visit(parse(text)))


def text_of_composed(node: ast.AST) -> str:
    """Return the text of an expression that was put together from several, which may have become too deep."""
    if _depth(node) > DEEPEST:
        raise ExpressionError(
            "the expression is nested too deeply once its parts are put in", "name parts of it in lines of their own"
        )
    return text(node)


class _Substitution(ast.NodeTransformer):
    def __init__(self, replacements: Mapping[str, ast.expr]) -> None:
        self.replacements = replacements

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return copy.deepcopy(self.replacements.get(node.id, node))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        whole = dotted(node)
        if whole is not None and whole in self.replacements:
            return copy.deepcopy(self.replacements[whole])
        base = dotted(node.value)
        if (
            base is not None
            and dotted(self.replacements.get(base, node)) is not None
            or isinstance(node.value, ast.Attribute)
        ):
            node.value = self.visit(node.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.args = [self.visit(argument) for argument in node.args]
        for word in node.keywords:
            word.value = self.visit(word.value)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        assert isinstance(node.value, ast.Name)
        base = self.replacements.get(node.value.id)
        if isinstance(base, ast.Name):
            node.value = copy.deepcopy(base)
        node.slice = self.visit(node.slice)
        return node
