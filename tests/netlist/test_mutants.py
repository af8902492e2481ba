"""Misspelt netlists and garbage: each gives a message at the right line, and never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mutants import lead_to, mutants

from mgdcircuits.errors import NetlistError
from mgdcircuits.netlist import load

NETLISTS = Path(__file__).parent.parent.parent / "netlists"
STEP = int(os.environ.get("MGD_MUTANT_STEP", "8"))
"""Every how manyth mutant is tried; 1 tries all (three minutes)."""


@pytest.mark.parametrize("name", sorted(path.name for path in NETLISTS.glob("*.yaml")))
def test_mutants(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt identifier changes nothing that can be known, or is found where it stands or where it is missed."""
    monkeypatch.chdir(NETLISTS)  # the mutants are texts: files that they include are looked for here
    astray = []
    found = total = 0
    for number, mutant in enumerate(mutants((NETLISTS / name).read_text())):
        if number % STEP:
            continue
        total += 1
        try:
            load(mutant.text)
        except NetlistError as error:
            found += 1
            if not lead_to(error, mutant):
                astray.append(f"{mutant}: {error}")
    assert not astray
    assert found >= 0.6 * total, "mutants that are accepted: only free names and the names of data sets should be"


XOR = (NETLISTS / "xor.yaml").read_text()
LINES = XOR.split("\n")


def loads_or_explains(text: str) -> None:
    """Any text gives a description or a NetlistError whose problems all say something."""
    try:
        load(text + "\n")
    except NetlistError as error:
        assert all(problem.found and problem.line >= 1 for problem in error.problems)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=300))
@example("a: &x {b: *x}")
@example("[" * 500)
@example("circuit: x\nchain: [{a: {shape: 1e400}}]")
@example("circuit: x\nparameters: {a: 1**1e9, b: 9**9**9, c: (-1)**0.5, d: 1/0, e: log(0)}")
@example("? [a]\n: b")
@example("{}")
def test_garbage(text: str) -> None:
    loads_or_explains(text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_netlist(data: st.DataObject) -> None:
    """Lines of a valid netlist cut, swapped, indented or overwritten."""
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["cut", "swap", "indent", "write", "shorten", "double"])):
            case "cut":
                del lines[at]
            case "swap":
                other = data.draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "indent":
                lines[at] = "  " + lines[at]
            case "write":
                where = data.draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:where] + data.draw(st.text(max_size=8)) + lines[at][where:]
            case "shorten":
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
            case "double":
                lines.insert(at, lines[at])
        if not lines:
            break
    loads_or_explains("\n".join(lines))


VALUES = st.recursive(
    st.text(max_size=12)
    | st.sampled_from(["1", "x", "all", "none", "2*d", "max_pool(2)", "rand()", "x_pre", "1*mV", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "parameters",
    "clocks",
    "kinds",
    "chain",
    "populations",
    "synapses",
    "task",
    "cost",
    "measure",
    "trial",
    "learning",
]


def as_yaml(value: object) -> str:
    """A nested value in flow style, texts quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(k)}: {as_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return "'" + "".join(c for c in str(value) if c.isprintable()).replace("'", "''") + "'"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([*KEYS, "hardware", "record"]), VALUES)
def test_wrong_forms(key: str, value: object) -> None:
    """Any value under any key of a netlist."""
    kept = [line for line in LINES]
    loads_or_explains("\n".join(kept) + f"\n'{key}': {as_yaml(value)}" if key not in XOR else _replaced(key, value))


def _replaced(key: str, value: object) -> str:
    lines: list[str] = []
    skipping = False
    for line in LINES:
        if line and not line[0].isspace() and not line.startswith("#"):
            skipping = line.startswith(f"{key}:")
            if skipping:
                lines.append(f"{key}: {as_yaml(value)}")
        if not skipping:
            lines.append(line)
    return "\n".join(lines)
