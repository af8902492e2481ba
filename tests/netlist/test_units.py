"""Units against Brian2's, name by name."""

import pytest
from brian2.core.namespace import DEFAULT_UNITS
from brian2.equations.equations import dimensions_and_type_from_string
from brian2.units.fundamentalunits import get_dimensions
from hypothesis import given
from hypothesis import strategies as st

from mgdcircuits.netlist.units import (
    DIMENSIONLESS,
    UnitError,
    describe,
    divide,
    is_base_unit,
    lookup,
    multiply,
    parse_unit,
    power,
    unit_table,
)

VOLT = (2, 1, -3, -1, 0, 0, 0)
exponents = st.tuples(*[st.one_of(st.integers(-4, 4), st.sampled_from([0.5, -1.5]))] * 7)


def brian2_dimensions(quantity):
    return tuple(float(exponent) for exponent in get_dimensions(quantity)._dims)


def test_every_unit_of_brian2_has_its_value_and_dimensions():
    for name, unit in DEFAULT_UNITS.items():
        ours = lookup(name)
        assert ours is not None, name
        assert ours.value == pytest.approx(float(unit), rel=1e-15), name
        assert ours.dimensions == brian2_dimensions(unit), name


def test_names_beyond_brian2s_equations_are_exported_by_brian2_or_its_short_names():
    import brian2

    for name in set(unit_table()) - set(DEFAULT_UNITS) - {"ns", "ps"}:
        unit = getattr(brian2, name, None)
        if unit is None:
            unit = getattr(brian2.units.allunits, name)
        assert lookup(name).value == pytest.approx(float(unit), rel=1e-15), name
        assert lookup(name).dimensions == brian2_dimensions(unit), name


def test_values_are_the_floats_nearest_to_the_decimal_number():
    assert [lookup(name).value for name in ("mV", "uF", "nS", "pA", "um2", "kohm")] == [
        1e-3,
        1e-6,
        1e-9,
        1e-12,
        1e-12,
        1e3,
    ]


def test_brian2_and_we_accept_the_same_units_at_the_end_of_an_equation():
    for name in DEFAULT_UNITS:
        try:
            dimensions_and_type_from_string(name)
            accepted = True
        except ValueError:
            accepted = False
        assert is_base_unit(name) == accepted, name


@pytest.mark.parametrize(
    ("unit", "dimensions"),
    [
        ("1", DIMENSIONLESS),
        ("Hz", (0, 0, -1, 0, 0, 0, 0)),
        ("siemens/cm**2", (-4, -1, 3, 2, 0, 0, 0)),
        ("nS*mV", (0, 0, 0, 1, 0, 0, 0)),
        ("siemens/(metre**2)", (-4, -1, 3, 2, 0, 0, 0)),
        ("1/second", (0, 0, -1, 0, 0, 0, 0)),
        ("second**-0.5", (0, 0, -0.5, 0, 0, 0, 0)),
        ("metre**(1/2)", (0.5, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_parse_unit(unit, dimensions):
    assert parse_unit(unit) == dimensions


@pytest.mark.parametrize(
    ("unit", "message", "mend"),
    [
        ("vlot", "'vlot' is not a unit", "did you mean 'volt'?"),
        ("2*volt", "found '2' in the unit '2*volt'", "write units with * / and **, for example siemens/metre**2"),
        ("metre**x", "found 'x' as the exponent of a unit", "write a number, for example metre**2"),
        ("volt**1e9", "the dimension has the exponent 2e+09", "take smaller powers"),
    ],
)
def test_refused_units(unit, message, mend):
    with pytest.raises(UnitError) as caught:
        parse_unit(unit)
    assert (caught.value.message, caught.value.mend) == (message, mend)


def test_scaled_units_are_refused_where_only_the_kind_is_said():
    with pytest.raises(UnitError) as caught:
        parse_unit("mV", base_only=True)
    assert caught.value.mend == "write volt"


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("1", "1"),
        ("mV", "volt"),
        ("siemens/cm**2", "siemens / metre ** 2"),
        ("1/metre**2", "metre ** -2"),
        ("volt/second", "volt / second"),
        ("1/second", "hertz"),
        ("volt*second", "weber"),
        ("volt**2", "volt ** 2"),
        ("siemens**2", "siemens ** 2"),
        ("kilogram*metre**5*kelvin**2", "metre ** 5 * kilogram * kelvin ** 2"),
    ],
)
def test_describe(unit, words):
    assert describe(parse_unit(unit)) == words


@given(exponents)
def test_describe_is_read_back(dimensions):
    assert parse_unit(describe(dimensions)) == dimensions


@given(exponents, exponents)
def test_algebra_of_dimensions(a, b):
    assert divide(multiply(a, b), b) == a
    assert multiply(a, b) == multiply(b, a)
    assert power(power(a, 1 / 3), 3) == a
    assert power(a, 2) == multiply(a, a)
    assert multiply(a, power(a, -1)) == DIMENSIONLESS


def test_whole_exponents_are_integers():
    assert all(isinstance(exponent, int) for exponent in power(power(VOLT, 0.5), 2))
