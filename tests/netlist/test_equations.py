"""Equation blocks, against Brian2's own parser where the block is Brian2's."""

import brian2
import pytest
from brian2.equations.equations import Equations
from brian2.utils.logger import catch_logs
from hypothesis import given
from hypothesis import strategies as st

from mgdcircuits import Session, load
from mgdcircuits.netlist.equations import FLAGS, EquationError, parse_equations
from mgdcircuits.netlist.spec import VariableKind
from mgdcircuits.netlist.syntax import parse, text
from mgdcircuits.netlist.units import parse_unit

BRIAN2_BLOCKS = [
    """
    dv/dt = (gL*(EL - v) + ge*(Ee - v)  # a comment : with a colon
             + gi*(Ei - v))/Cm : volt (unless refractory)

    dge/dt = -ge/tau_e : siemens
    gi : siemens (shared, constant)
    I = 3*nA*sin(2*pi*f*t)
        + I_ext : amp (constant over dt)
    """,
    "v : volt",
    "x = int(v > 3*mV) : integer\ny = v > 3*mV : boolean\nn : integer (constant)",
    "w : 1\nI_post = w*(v_pre\n - v_post) : amp (summed)\nds/dt = -s/tau : 1 (event-driven)",
    "dv/dt = -v/tau + sigma*xi*tau**-0.5 : volt\ndu/dt = xi_u/tau**0.5 : 1",
    "x = a +\n b : 1\ng : siemens/metre**2\n  (constant)",
    "d v / dt = -v/(10*ms) : volt",
    "rate : Hz\ncharge : amp*second",
    "",
    "# only a comment",
]


@pytest.mark.parametrize("block", BRIAN2_BLOCKS)
def test_blocks_are_read_as_brian2_reads_them(block):
    ours = {equation.name: equation for equation in parse_equations(block)}
    theirs = Equations(block)
    assert set(ours) == set(theirs)
    for name, equation in theirs.items():
        assert ours[name].kind.value == equation.type
        assert list(ours[name].flags) == equation.flags
        assert ours[name].dimensions == tuple(float(exponent) for exponent in equation.dim._dims)
        assert (ours[name].unit in ("boolean", "integer")) == (equation.var_type != "float")
        if equation.expr is None:
            assert ours[name].expression is None
        else:
            assert text(parse(ours[name].expression)) == text(parse(equation.expr.code))


def test_our_flags_and_lines():
    equations = parse_equations(
        "x = tanh(I + b\n  + theta_b) : 1\n\nI : 1\nb : 1 (plastic, per channel)\n"
        "theta_b : 1 (perturbation of b)\ntheta : 1 (perturbation, per  sample)\n"
        "life = exp(randn()) : 1 (per device)\n",
        first_line=10,
    )
    assert [equation.line for equation in equations] == [10, 13, 14, 15, 16, 17]
    assert [equation.flags for equation in equations[2:]] == [
        ("plastic", "per channel"),
        ("perturbation of b",),
        ("perturbation", "per sample"),
        ("per device",),
    ]
    assert equations[0].expression == "tanh(I + b + theta_b)"
    assert equations[0].kind is VariableKind.SUBEXPRESSION
    assert equations[1].dimensions == parse_unit("1")


@pytest.mark.parametrize(
    ("line", "message", "mend"),
    [
        ("v", "'v' has no unit", "end the line with ': volt' or another unit, ': 1' for a number"),
        ("v :", "v has no unit after ':'", "write ': volt' or another unit, ': 1' for a number"),
        ("v : (constant)", "v has no unit after ':'", "write ': volt' or another unit, ': 1' for a number"),
        ("v : mV", "found the scaled unit 'mV' where the kind of quantity is expected", "write volt"),
        ("v : vlot", "'vlot' is not a unit", "did you mean 'volt'?"),
        ("v : bool", "'bool' is not a unit", "write boolean, integer, or 1 for a number"),
        ("v = 1 + : 1", "cannot read the expression '1 +'", "write it as a Brian2 expression"),
        ("v = : 1", "found nothing where an expression was expected", "write an expression, for example 0*volt"),
        ("dv/dt : 1", "dv/dt has no right side", "write dv/dt = expression : unit"),
        ("dv/dt = -v/s : integer", "v has a derivative and cannot be integer", "write dv/dt = ... : 1"),
        ("a, b : 1", "'a, b' names several variables in one line", "write one line for each, as in Brian2"),
        (
            "v : volt w : volt",
            "v has a second ':' in 'volt w : volt'",
            "write one equation a line: NAME = expression : unit (flags)",
        ),
        (
            "e : 1",
            "'e' is the name of a constant and cannot name a variable",
            "choose another name, for example e_",
        ),
        (
            "mV : volt",
            "'mV' is the name of a unit and cannot name a variable",
            "choose another name, for example mV_",
        ),
        (
            "clip : 1",
            "'clip' is the name of a function and cannot name a variable",
            "choose another name, for example clip_",
        ),
        (
            "_v : 1",
            "'_v' starts with an underscore, which is kept for internal names",
            "write v",
        ),
        (
            "lambda : 1",
            "'lambda' is not available as a name, being a Python keyword or not ASCII",
            "choose another name, for example lambda_",
        ),
        ("v : 1 (plastc)", "unknown flag 'plastc'", "did you mean 'plastic'?"),
        ("v : 1 (zzz)", "unknown flag 'zzz'", f"known flags: {', '.join(FLAGS)}"),
        ("v : 1 (constant,)", "v has an empty flag in '1 (constant,)'", "write NAME : unit (flag, flag)"),
        (
            "v : 1 (constant",
            "v ends in '1 (constant', with a bracket that is open",
            "write NAME : unit (flag, flag)",
        ),
        ("v : 1 (constant, constant)", "the flag 'constant' stands twice at v", "write it once"),
        (
            "v : 1 (plastic, perturbation)",
            "the flags 'plastic' and 'perturbation' exclude each other",
            "keep one of them",
        ),
        (
            "v = 1 : 1 (plastic)",
            "the flag 'plastic' stands at a subexpression; it belongs to a parameter",
            "remove it or make v a parameter",
        ),
        (
            "v : 1 (linked)",
            "the flag 'linked' is not available: replicas have no shared arrays to link to",
            "couple the two populations with one_to_one: true",
        ),
        (
            "I = w : 1 (summed)",
            "I is summed, but its name does not say into what",
            "write I_post = ... (summed) to drive I of the post-synaptic population",
        ),
        (
            "I_post = w : 1",
            "the name 'I_post' ends as the name of another population's variable does",
            "add the flag (summed), or choose another name",
        ),
        (
            "v : 1 (perturbation of v)",
            "'v' is not the name of another variable",
            "write (perturbation of NAME) with the name of a plastic one",
        ),
        (
            "v = xi : 1",
            "v uses the noise xi, but is not a differential equation",
            "write randn() here, or put xi into a differential equation",
        ),
    ],
)
def test_messages(line, message, mend):
    with pytest.raises(EquationError) as caught:
        parse_equations(line, first_line=7)
    assert caught.value.problems == [(7, message, mend)]
    assert str(caught.value) == f"7: {message}; {mend}"


@pytest.mark.parametrize(
    "name", ["t", "dt", "i", "j", "N", "xi", "xi_1", "e", "pi", "inf", "mV", "exp", "rand", "_a", "if"]
)
def test_names_that_brian2_gives_a_meaning_are_refused(name):
    with pytest.raises(EquationError):
        parse_equations(f"{name} : 1")
    if name != "j":  # Brian2 refuses j where the block becomes a Synapses object
        with pytest.raises((SyntaxError, brian2.equations.equations.EquationError)):
            Equations(f"{name} : 1")


def test_all_problems_are_gathered_with_their_lines():
    block = "v = x + 2\nw : 1\nI : mA\nw : volt\nq : 1 (plastc)\n\nz = y +* 2\n : 1"
    with pytest.raises(EquationError) as caught:
        parse_equations(block, first_line=101)
    assert [(line, message) for line, message, _ in caught.value.problems] == [
        (101, "'v = x + 2' has no unit"),
        (103, "found the scaled unit 'mA' where the kind of quantity is expected"),
        (104, "w is defined a second time, first in line 102"),
        (105, "unknown flag 'plastc'"),
        (107, "cannot read the expression 'y +* 2'"),
    ]


def test_one_noise_belongs_to_one_equation():
    with pytest.raises(EquationError, match="x uses the noise xi, which v uses as well"):
        parse_equations("dv/dt = xi/tau**0.5 : 1\ndx/dt = xi/tau**0.5 : 1")


lines = st.text(alphabet="dvt/x= +*(:)1#,_.-\nvolt:constant", max_size=60)


@given(
    st.one_of(
        st.text(), lines, st.lists(st.sampled_from("dv/dt = v : volt ( ) constant , \n # x".split(" "))).map(" ".join)
    )
)
def test_garbage_raises_only_equation_errors(garbage):
    try:
        equations = parse_equations(garbage)
    except EquationError as error:
        assert error.problems
        assert all(1 <= line <= garbage.count("\n") + 1 for line, _, _ in error.problems)
    else:
        for equation in equations:
            assert (equation.expression is None) == (equation.kind is VariableKind.PARAMETER)


names = st.from_regex(r"q[a-z]_[a-z]{1,2}", fullmatch=True)


@given(st.lists(names, unique=True, max_size=6), st.integers(0, 3))
def test_lines_are_counted(chosen, blank):
    block = ("\n" * blank).join(f"{name} : 1\n" for name in chosen)
    assert [equation.name for equation in parse_equations(block)] == chosen
    assert [equation.line for equation in parse_equations(block, 5)] == [
        5 + index * (blank + 1) for index in range(len(chosen))
    ]


def test_brian2_says_nothing_of_groups_that_no_one_named(netlists):
    """Populations with a threshold and no reset, whose equations Brian2 integrates in a group of ours."""
    with catch_logs() as logged:
        Session(load(netlists / "rstdp_dopamine.yaml"), target="numpy", dtype="float64")
    assert logged == []
