"""Expressions, snippets and statements; dimensions against Brian2's own inference."""

import ast
import math

import numpy as np
import pytest
from brian2 import DimensionMismatchError
from brian2.core.namespace import DEFAULT_CONSTANTS, DEFAULT_FUNCTIONS, DEFAULT_UNITS
from brian2.core.variables import Constant, Variable
from brian2.parsing.expressions import parse_expression_dimensions
from brian2.units.fundamentalunits import get_or_create_dimension
from hypothesis import assume, given
from hypothesis import strategies as st

from mgdcircuits.netlist.expressions import (
    FUNCTIONS,
    REDUCTIONS,
    Call,
    ExpressionError,
    Macro,
    Quantity,
    Statement,
    UnknownName,
    calls,
    dimensions,
    evaluate,
    expand_calls,
    is_condition,
    names,
    nearest,
    parse,
    parse_call,
    parse_statements,
    substitute,
    substitute_statements,
    text,
    unit_values,
)
from mgdcircuits.netlist.units import DIMENSIONLESS, parse_unit

KNOWN = {
    **{"v": parse_unit("volt"), "g": parse_unit("siemens"), "tau": parse_unit("second"), "t": parse_unit("second")},
    **{"dt": parse_unit("second"), "I": parse_unit("amp"), "x": DIMENSIONLESS, "y": DIMENSIONLESS},
}

BRIAN2_TABLE = """
v + v | v + I | v + 0 | 0 + v | v - 3*mV | v*g | v*g + I | v*g - v | -v | +v | v/v | v/mV + x
v > 0 | v > 0*mV | v > inf | 0 < v | v == v | v != I | x > 0 | x and y | v > 0*mV and x < 2 | not x | not (v > I)
v % (3*mV) | v % 3 | v % x | x % 2 | v//v | v//(3*mV) | x//2
v**2 | v**-2 | v**0.5 | v**(1/2) | v**x | x**y | x**v | v**2*g**2 - I**2 | 2**x | v**n | (v/mV)**x
sqrt(v) | sqrt(v)**2 + v | sqrt(v**2) + v | sqrt(x)
abs(v) | abs(v) + v | sign(v) | sign(v) + v | floor(v) | ceil(v) + x | int(x) | int(v) | int(v > 3*mV)
clip(v, 0*mV, 3*mV) | clip(v, 0, 3) | clip(x, 0, 1) | clip(v, 0*mV, 1) | clip(v, 0*mV)
exp(x) | exp(v) | exp(v/mV) | sin(2*pi*t*Hz) | sin(t) | tanh(x) | log(v/volt) | log(v) | exprel(x) | expm1(v) | log10(x)
rand() | randn() | rand() < x*dt/tau | randn()*v | rand(3) | poisson(x) | poisson(v) | e*x | pi*v | inf | inf*v | e + v
timestep(t, dt) | timestep(t, x) | timestep(t) | timestep(2*ms, 1*ms)
xx + 1 | foo(x) | foo(v) | rand | True | False + x | (gL*(EL-v) + g*(Ee-v))/Cm | x if y else x | v[0] | v.a
3*mV/cm**2 | v*siemens/cm2 + I/um2 | kohm*nA + v | 1e-3*volt + mV | x^2 | x & y | 2*(3 + x)*v | arctan(x) | arcsin(v)
"""
CASES = [case.strip() for line in BRIAN2_TABLE.strip().splitlines() for case in line.split(" | ")]
CONSTANT_EXPONENTS = {"n": 3.0}


def brian2_dimensions(expression):
    variables = {
        name: Variable(name, dimensions=get_or_create_dimension(list(dims)), scalar=True)
        for name, dims in KNOWN.items()
    }
    variables |= {name: Constant(name, value=value) for name, value in CONSTANT_EXPONENTS.items()}
    namespace = {**DEFAULT_UNITS, **DEFAULT_CONSTANTS, **DEFAULT_FUNCTIONS, **variables}
    try:
        dims = parse_expression_dimensions(expression, namespace)
    except (SyntaxError, DimensionMismatchError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return tuple(float(exponent) for exponent in dims._dims)


@pytest.mark.parametrize("expression", CASES)
def test_dimensions_are_those_of_brian2(expression):
    try:
        ours = dimensions(expression, KNOWN | {"n": DIMENSIONLESS}, values=CONSTANT_EXPONENTS)
    except ExpressionError:
        ours = None
    assert ours == brian2_dimensions(expression)


def test_the_table_holds_right_and_wrong_expressions():
    outcomes = [brian2_dimensions(case) is None for case in CASES]
    assert 30 < sum(outcomes) < len(outcomes) - 30


def test_we_know_every_function_of_brian2():
    assert set(DEFAULT_FUNCTIONS) <= set(FUNCTIONS)


@pytest.mark.parametrize(
    ("expression", "message", "mend"),
    [
        (
            "v + I",
            "adds volt + amp: 'v' is volt, 'I' is amp",
            "make both sides the same kind of quantity",
        ),
        ("v > 0", "compares volt with 1: 'v' is volt, '0' has no unit", "give the number a unit: 0*volt"),
        (
            "exp(v)",
            "exp needs a number without unit, but 'v' is volt",
            "divide by a quantity of the same kind, for example v/volt",
        ),
        (
            "v**x",
            "the exponent 'x' is not a constant number, but 'v' is volt",
            "make the base a number without unit, for example (v/volt)**...",
        ),
        ("clip(v, 0*mV, 1)", "gives clip volt and 1: 'v' is volt, '1' has no unit", "give the number a unit: 1*volt"),
        ("clip(v)", "clip takes 3 arguments, found 1", "write clip with 3 arguments"),
        ("max(v)", "max takes 2 or more arguments, found 1", "write max with 2 or more arguments"),
        (
            "mean(v)",
            "mean combines the units of a population and cannot stand here",
            "use it in cost, measure or signals",
        ),
        ("timestep(x, dt)", "timestep needs a time, but 'x' is 1", "give it seconds"),
        ("rand + 1", "'rand' is a function and stands without its arguments", "write rand(...)"),
        ("rand(a=1)", "rand takes no argument by name", "write rand(...) without a="),
        ("tanhh(x)", "unknown function 'tanhh'", "did you mean 'tanh'?"),
        ("a < x < 1", "'a < x < 1' compares more than two values", "write a < b and b < c"),
        ("x ^ 2", "the operator '^' is not part of the language", "write ** for a power"),
        ("(x + 1", "cannot read the expression '(x + 1'", "count the brackets: 1 '(' and 0 ')'"),
        ("x = 1", "cannot read the expression 'x = 1'", "an expression has no '='; to compare, write =="),
        ("v[:2]", "found an index in 'v[:2]'", "a range of units can only stand in a reduction, as in count(exc[:20])"),
        ("", "found nothing where an expression was expected", "write an expression, for example 0*volt"),
        ("ünit", "the name 'ünit' has letters outside ASCII", "write it in a-z, 0-9 and _"),
    ],
)
def test_messages(expression, message, mend):
    with pytest.raises(ExpressionError) as caught:
        dimensions(expression, KNOWN)
    assert (caught.value.message, caught.value.mend) == (message, mend)
    assert str(caught.value) == f"{message}; {mend}"


def test_unknown_name_says_which_and_suggests():
    with pytest.raises(UnknownName) as caught:
        dimensions("tua + t", KNOWN)
    assert caught.value.name == "tua"
    assert caught.value.mend == "did you mean 'tau'?"
    assert nearest("qqqq", KNOWN) is None


def test_own_functions_and_reductions():
    both = FUNCTIONS | REDUCTIONS
    known = KNOWN | {"C.plus": parse_unit("volt"), "v.plus": parse_unit("volt")}
    assert dimensions("max(v, 3*mV)", known) == KNOWN["v"]
    assert dimensions("where(x > 0, v, 0*mV)", known) == KNOWN["v"]
    assert dimensions("mean((v/volt - x)**2) + 1e-3*randn_pass()", known, both) == DIMENSIONLESS
    assert dimensions("sum(v*g) + max(I)", known, both) == KNOWN["I"]
    assert dimensions("max(v, 3*mV)", known, both) == KNOWN["v"]
    assert dimensions("argmax(v) == y", known, both) == DIMENSIONLESS
    assert dimensions("count(exc[:20]) - count(exc[20:40])", known, both) == DIMENSIONLESS
    assert dimensions("(C.plus - v.plus)/v", known) == DIMENSIONLESS
    assert dimensions("walsh_sign(x + 1, y)*bit()", known) == DIMENSIONLESS
    with pytest.raises(ExpressionError, match="adds volt"):
        dimensions("sum(v) + x", known, both)
    with pytest.raises(UnknownName, match="C.minus"):
        dimensions("C.plus - C.minus", known)


def test_nested_calls_are_inferred_once():
    nested = "x"
    for _ in range(60):
        nested = f"max({nested}, x)"
    assert dimensions(nested, KNOWN) == DIMENSIONLESS


def test_names_and_calls():
    expression = "(C.plus - C.clean)*theta*x_pre.clean/delta**2 + where(x > 3*mV, rand(), pi)"
    assert names(expression) == {"C.plus", "C.clean", "theta", "x_pre.clean", "delta", "x", "mV", "pi"}
    assert calls(expression) == {"where", "rand"}
    assert names("count(exc[:n])") == {"exc", "n"}
    assert names("a + # comment\n b") == {"a", "b"}


def test_unit_values():
    assert unit_values("3*mV*w + 2*nS/cm**2 + m*second", {"second"}) == {"mV": 1e-3, "nS": 1e-9, "cm": 1e-2}


@pytest.mark.parametrize(
    ("expression", "mapping", "result"),
    [
        ("a*b**c", {"a": "x + 1", "b": "-2"}, "(x + 1) * (-2) ** c"),
        ("a - b", {"b": "c - d"}, "a - (c - d)"),
        ("a + a_b", {"a": "b", "b": "c"}, "b + a_b"),
        ("f(a, k=a)", {"a": "1", "f": "g", "k": "l"}, "f(1, k=1)"),
        ("theta.plus + theta", {"theta": "theta_w"}, "theta_w.plus + theta_w"),
        ("C.plus + C", {"C.plus": "C1", "C": "2*x"}, "C1 + 2 * x"),
        ("C.plus", {"C": "2*x"}, "C.plus"),
        ("count(exc[:n])", {"n": "20", "exc": "inh"}, "count(inh[:20])"),
        ("not a", {"a": "x or y"}, "not (x or y)"),
    ],
)
def test_substitute(expression, mapping, result):
    assert substitute(expression, mapping) == result


MACROS = {
    "bernoulli": Macro("bernoulli", ("s",), {"s": "1"}, "where(rand() < 1/s, s*(2*bit() - 1), 0)"),
    "square": Macro("square", ("z",), {}, "z*z"),
    "quartic": Macro("quartic", ("z",), {}, "square(square(z))"),
    "loop": Macro("loop", (), {}, "1 + loop()"),
}


def test_expand_calls():
    assert expand_calls("delta*bernoulli()", MACROS) == "delta * where(rand() < 1 / 1, 1 * (2 * bit() - 1), 0)"
    assert expand_calls("square(z=a + b)", MACROS) == "(a + b) * (a + b)"
    assert expand_calls("quartic(z)", MACROS) == "z * z * (z * z)"
    assert expand_calls("square(square(2))", MACROS) == "2 * 2 * (2 * 2)"
    assert expand_calls("tanh(x)", MACROS) == "tanh(x)"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("square()", "square needs the argument 'z'"),
        ("square(1, 2)", "square takes at most 1 arguments, found 2"),
        ("square(1, z=2)", "the argument 'z' of square is given twice"),
        ("bernoulli(sparsity=2)", "bernoulli has no argument 'sparsity'"),
        ("loop()", "the snippet 'loop' calls itself (loop -> loop)"),
    ],
)
def test_wrong_snippet_calls(expression, message):
    with pytest.raises(ExpressionError) as caught:
        expand_calls(expression, MACROS)
    assert caught.value.message == message


def test_parse_call():
    assert parse_call("momentum(gamma=0.9)") == Call("momentum", (), {"gamma": "0.9"})
    assert parse_call("max_pool(2)") == Call("max_pool", ("2",))
    assert parse_call("vanilla") == Call("vanilla")
    with pytest.raises(ExpressionError, match="where a call was expected"):
        parse_call("1 + x")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("20*kohm + 3*volt/amp", 20003.0),
        ("2*pi*e", 2 * math.pi * math.e),
        ("-7 // 2", -4.0),
        ("-7 % 3", 2.0),
        ("x**2 > 3 and not (x == 1)", 1.0),
        ("clip(x, 0, 1) + where(x > 1, 5, 6) + max(1, x, 3)", 9.0),
        ("int(2.7) + int(-2.7) + sign(-3*mV)", -1.0),
        ("exprel(0) + log1p(0)", 1.0),
        ("timestep(0.3*ms, 0.1*ms)", 3.0),
        ("C.plus*2", 20.0),
    ],
)
def test_evaluate(expression, value):
    assert evaluate(expression, {"x": Quantity(2.0), "C.plus": Quantity(10.0)}).value == pytest.approx(value, rel=1e-14)


def test_evaluate_carries_dimensions():
    found = evaluate("sqrt(p*R)", {"p": Quantity(1e-3, parse_unit("watt")), "R": Quantity(10.0, parse_unit("ohm"))})
    assert found == Quantity(0.1, parse_unit("volt"))


def test_walsh_rows_are_orthogonal():
    signs = np.array([[evaluate(f"walsh_sign({row}, {n})", {}).value for n in range(8)] for row in range(8)])
    assert np.array_equal(signs @ signs.T, 8 * np.eye(8))


@pytest.mark.parametrize(
    "expression", ["rand()", "1/0", "(-1)**0.5", "10.0**1000", "log(0)", "1e308*10 - y", "int(inf)"]
)
def test_evaluate_refuses(expression):
    with pytest.raises(ExpressionError):
        evaluate(expression, {})


def test_is_condition():
    assert all(is_condition(each) for each in ("v > 3", "a and b", "not a", "True"))
    assert not any(is_condition(each) for each in ("v", "v + 1", "int(v > 1)", "1"))


def test_statements():
    block = "v = 0*mV; u += 2  # reset; both\n\ns += (1\n  + x)\nw **= 2\nflag = v == u"
    assert parse_statements(block) == [
        Statement("v", "=", "0*mV", 0),
        Statement("u", "+=", "2", 0),
        Statement("s", "+=", "(1 + x)", 2),
        Statement("w", "**=", "2", 4),
        Statement("flag", "=", "v == u", 5),
    ]
    assert parse_statements("  # nothing\n") == []
    assert Statement("w", "*=", "a + b").value == "w * (a + b)"
    assert substitute_statements("a += b*c; d = a", {"a": "z", "b": "x + 1"}) == "z += (x + 1) * c\nd = z"


@pytest.mark.parametrize(
    ("block", "message", "line"),
    [
        ("v = 1\nv + 1", "found 'v + 1' where a statement was expected", 1),
        ("x >>= 1", "the operator '>>=' is not part of the language", 0),
        ("v = 1\n\nu = 1 +", "cannot read the expression '1 +'", 2),
        ("mV = 1", "cannot assign to 'mV', the name of a unit", 0),
        ("exp = 1", "cannot assign to 'exp', the name of a function", 0),
        ("C.plus = 1", "cannot assign to 'C.plus'", 0),
        ("v == 1", "found 'v == 1' where a statement was expected", 0),
        ("v =", "found nothing where an expression was expected", 0),
    ],
)
def test_wrong_statements(block, message, line):
    with pytest.raises(ExpressionError) as caught:
        parse_statements(block)
    assert (caught.value.message, caught.value.line_offset) == (message, line)


def test_a_target_can_only_become_a_name():
    with pytest.raises(ExpressionError, match="cannot assign to 'a'"):
        substitute_statements("a = 1", {"a": "2*b"})


leaves = st.one_of(
    st.sampled_from(["x", "y", "C.plus"]),
    st.integers(0, 50).map(str),
    st.floats(0, 1e6, allow_nan=False).map(repr),
)


def _grow(parts):
    pair = st.tuples(parts, parts)
    binary = st.tuples(st.sampled_from("+ - * / // % ** < <= == != and or".split()), pair)
    return st.one_of(
        binary.map(lambda part: f"({part[1][0]}) {part[0]} ({part[1][1]})"),
        parts.map(lambda part: f"-({part})"),
        parts.map(lambda part: f"not ({part})"),
        parts.map(lambda part: f"tanh({part})"),
        st.tuples(parts, parts, parts).map(lambda three: f"where({', '.join(three)})"),
    )


expressions = st.recursive(leaves, _grow, max_leaves=12)
VALUES = {"x": Quantity(0.75), "y": Quantity(-2.0), "C.plus": Quantity(3.0)}


def _outcome(expression, values=VALUES):
    try:
        return evaluate(expression, values)
    except ExpressionError:
        return None


@given(expressions)
def test_text_of_parse_has_the_same_value(expression):
    again = text(parse(expression))
    assert str(_outcome(again)) == str(_outcome(expression))
    assert text(parse(again)) == again


@given(expressions)
def test_values_are_those_of_python(expression):
    assume(not {"and", "or"} & set(expression.split()))  # of Python they return one of their operands, here 1 or 0
    found = _outcome(expression)
    assume(found is not None)
    tree = ast.parse(expression.replace("C.plus", "cplus"), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = float(node.value)
    scope = {"x": 0.75, "y": -2.0, "cplus": 3.0, "tanh": math.tanh, "where": lambda c, a, b: a if c else b}
    expected = float(eval(compile(tree, "<test>", "eval"), scope))
    assert found.value == pytest.approx(expected, rel=1e-12, nan_ok=True)


@given(expressions, expressions)
def test_substitution_is_evaluation_of_the_part_first(expression, part):
    value = _outcome(part)
    assume(value is not None)
    direct = _outcome(expression, VALUES | {"x": value})
    assert str(_outcome(substitute(expression, {"x": part}))) == str(direct)


@given(st.one_of(st.text(), st.text(alphabet="xyv019.+-*/%()[]<>=!&|^~,:;# \n\t'\"\\eEjndotrué@{}", max_size=40)))
def test_garbage_raises_only_expression_errors(garbage):
    for function in (
        parse,
        names,
        calls,
        parse_call,
        parse_statements,
        unit_values,
        lambda each: dimensions(each, KNOWN, FUNCTIONS | REDUCTIONS),
        lambda each: evaluate(each, {"x": Quantity(1.0)}),
        lambda each: substitute(each, {"x": "y + 1"}),
        lambda each: expand_calls(each, MACROS),
        lambda each: substitute_statements(each, {"x": "y"}),
    ):
        try:
            function(garbage)
        except ExpressionError:
            pass


@pytest.mark.parametrize(
    "text", ["(" * 500, "-" * 5000 + "x", "+".join("x" * 5000), "f(" * 300 + ")" * 300, "9" * 5000]
)
def test_monsters_raise_expression_errors(text):
    with pytest.raises(ExpressionError):
        parse(text)
