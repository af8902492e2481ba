"""The list of rules that a netlist must keep, and the report that collects what breaks them.

A rule has an identifier (``undriven-input``). Those that need the whole circuit are functions in this folder, decorated
with `rule`; those that come up while the text is read, understood or expanded are declared with `reading_rule` beside
the code that reports them. Both kinds stand in `RULES`, so that a test can ask for one invalid example of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mgdcircuits.errors import NetlistError, Problem
from mgdcircuits.netlist.spec import Position


@dataclass(frozen=True)
class Rule:
    """A rule: its identifier, one sentence, and the function that checks it (None: it is checked while reading)."""

    name: str
    summary: str
    check: Callable[[Any, Report], None] | None = None

    def __str__(self) -> str:
        return self.name


RULES: dict[str, Rule] = {}


def reading_rule(name: str, summary: str) -> Rule:
    """Declare a rule that is checked while the text is read or expanded."""
    assert name not in RULES, f"rule {name} declared twice"
    RULES[name] = Rule(name, summary)
    return RULES[name]


def rule(name: str, summary: str) -> Callable[[Callable[[Any, Report], None]], Callable[[Any, Report], None]]:
    """Register a function `check(circuit, report)` as the rule `name`."""

    def register(check: Callable[[Any, Report], None]) -> Callable[[Any, Report], None]:
        assert name not in RULES, f"rule {name} declared twice"
        RULES[name] = Rule(name, summary, check)
        return check

    return register


class Report:
    """Collects problems, each under the rule that it breaks; the same problem is kept once."""

    def __init__(self) -> None:
        self.entries: list[tuple[Rule, Problem]] = []
        self._seen: set[Problem] = set()

    def add(self, rule: Rule | str, at: Position | None, found: str, expected: str = "", mend: str = "") -> None:
        """Note a problem at a position."""
        rule = RULES[rule] if isinstance(rule, str) else rule
        at = at or Position("<netlist>", 1)
        problem = Problem(at.file, at.line, found, expected, mend)
        if problem not in self._seen:
            self._seen.add(problem)
            self.entries.append((rule, problem))

    def has(self, rule: Rule | str) -> bool:
        """Whether a problem of this rule was found."""
        return any(str(found) == str(rule) for found, _ in self.entries)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def error(self) -> NetlistError:
        """All problems in the order of their lines, as the exception to raise; `rules` names the rule of each."""
        files = list(dict.fromkeys(str(problem.file) for _, problem in self.entries))
        ordered = sorted(self.entries, key=lambda entry: (files.index(str(entry[1].file)), entry[1].line))
        error = NetlistError(problem for _, problem in ordered)
        error.rules = tuple(str(rule) for rule, _ in ordered)
        return error

    def stop_if_any(self) -> None:
        """Raise if there is a problem."""
        if self.entries:
            raise self.error()
