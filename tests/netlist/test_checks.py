"""Every rule of `check` has an invalid netlist beside the message that it must give (tests/netlists/invalid)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mgdcircuits.netlist.checks.all  # noqa: F401  (registers the rules)
from mgdcircuits.errors import NetlistError
from mgdcircuits.netlist import load
from mgdcircuits.netlist.checks.registry import RULES

INVALID = Path(__file__).parent.parent / "netlists" / "invalid"
EXAMPLES = sorted(path.stem for path in INVALID.glob("*.yaml"))
ANY_RULE = {"several"}
"""Examples with problems of several rules."""


def rule_of(example: str) -> str | None:
    """The rule that an example breaks: the longest name of a rule that its name begins with."""
    fitting = [name for name in RULES if example == name or example.startswith(name + "-")]
    return max(fitting, key=len, default=None)


def overrides_of(path: Path) -> dict[str, str]:
    """The overrides that the first line of an example asks for: `# overrides: d=4 eta=0.1`."""
    first = path.read_text().splitlines()[0]
    found = re.match(r"# overrides: (.*)", first)
    return dict(pair.split("=", 1) for pair in found[1].split()) if found else {}


def failure(example: str, monkeypatch: pytest.MonkeyPatch) -> NetlistError:
    """Load an example by its bare name, so that messages do not depend on where the repository lies."""
    monkeypatch.chdir(INVALID)
    path = Path(f"{example}.yaml")
    with pytest.raises(NetlistError) as caught:
        load(path, overrides_of(path))
    return caught.value


@pytest.mark.parametrize("example", EXAMPLES)
def test_message(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is, word by word, the one beside the example; sizes of this machine are left out."""
    found = re.sub(r"this machine has [0-9.e+]+ GiB", "this machine has ... GiB", str(failure(example, monkeypatch)))
    assert found == (INVALID / f"{example}.txt").read_text().rstrip("\n")


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e not in ANY_RULE])
def test_rule(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example breaks the rule that it is named after, and no other one."""
    rules = set(failure(example, monkeypatch).rules)
    assert rules == {rule_of(example)}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_has_an_example(rule: str) -> None:
    assert rule in EXAMPLES


def test_all_problems_are_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five slips in five places: five problems, each on its own line, and none that only follows from another."""
    error = failure("several", monkeypatch)
    lines = (INVALID / "several.yaml").read_text().splitlines()
    slips = ("bias", "shpe", "x_inputs", "bernouli", "H,")
    expected = [next(n for n, line in enumerate(lines, 1) if slip in line) for slip in slips]
    assert sorted(problem.line for problem in error.problems) == sorted(expected)
