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


XOR = (Path(__file__).parents[2] / "netlists" / "xor.yaml").read_text()


def changed(*changes: tuple[str, str]) -> str:
    """The netlist of XOR with changes."""
    text = XOR
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


UPDATE, CHAIN = "update: {request: -eta/K*G", "chain:"


@pytest.mark.parametrize(
    "changes",
    [
        # a coupling and the population that it reaches have one name, and a bias is of the population
        [
            ("perturb: {theta_w: delta*bernoulli(), ", "plastic: [hidden_layer.b, output.b]\n    perturb: {"),
            (UPDATE, "update: {request: -eta/K*G - 0.01*b"),
        ],
        # names that an optimizer of the library computes are its own business
        [(UPDATE, "update: {use: adam"), ("  eta: 3", "  eta: 3\n  slope: 0.5"), ("2*rand() - 1}", "2*rand() - slope}")],
        # a variable hides a parameter
        [
            ("  eta: 3", "  eta: 3\n  gain: 0"), ("exp(-(I - b", "exp(-(I/gain - b"),
            ("      theta_b", "      gain : 1 (constant)\n      theta_b"), ("{b: 2*rand() - 1}", "{b: 2*rand() - 1, gain: 2}"),
        ],
        # `where` may guard a division
        [("  eta: 3", "  eta: 3\n  tail: 0"), (UPDATE, 'update: {request: "where(tail > 0, -eta/tail*G, -eta/K*G)"')],
        # a parameter called y, and no target
        [
            ("  eta: 3", "  eta: 3\n  y: 0.5"), ("  target: y\n", ""), ("abs(x_output - target)", "abs(x_output - y)"),
            ("mean_square(x_output, target)", "mean((x_output - y)**2)"),
        ],
    ],
    ids=["bias", "optimizer", "variable", "where", "y"],
)  # fmt: skip
def test_what_is_no_problem(changes):
    load(changed(*changes))


def test_a_parameter_that_divides_through_another():
    with pytest.raises(NetlistError, match="divides by") as found:
        load(changed(("  norm: 0.05", "  norm: 0")))
    assert set(found.value.rules) == {"division-by-zero"}


def test_an_optimizer_keeps_its_names_to_itself():
    """They are others where the netlist has them already."""
    use = (UPDATE, "update: {use: momentum(0.9)")
    plain, other = (load(changed(use, ("  eta: 3", f"  eta: 3{more}"))) for more in ("", "\n  velocity: 2"))
    (before, *_), (after, *_) = (spec.learning[0].sites for spec in (plain, other))
    assert [name for name, _ in before.states] == ["velocity"] and [name for name, _ in after.states] == ["velocity_0"]
    assert before.update.replace("velocity", "velocity_0") == after.update
