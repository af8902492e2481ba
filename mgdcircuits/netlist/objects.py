"""The populations and couplings of a circuit together, and what the names in their equations stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.expressions import (
    ExpressionError,
    Statement,
    parse_statements,
)
from mgdcircuits.netlist.parameters import SECOND
from mgdcircuits.netlist.source import Text
from mgdcircuits.netlist.spec import (
    CouplingSpec,
    Dimensions,
    PopulationSpec,
    Position,
    Role,
    Variable,
)
from mgdcircuits.netlist.units import DIMENSIONLESS

STATEMENT = reading_rule("statement", "a line of an event or of an update must be a statement")

_SAID = {
    Role.STATE: "a state (a differential equation)",
    Role.STORED: "the result of an equation",
    Role.SUMMED: "a summed equation",
    Role.TARGET: "driven by couplings",
    Role.INPUT: "an input that the task sets",
    Role.PLASTIC: "a plastic parameter",
    Role.PERTURBATION: "a perturbation",
    Role.DEVICE: "drawn per device",
    Role.CONSTANT: "a plain parameter",
}


def said(role: Role) -> str:
    """A role as a message says it: `x` is ..."""
    return _SAID[role]


BRIAN_WORDS: dict[str, Dimensions] = {
    "i": DIMENSIONLESS, "N": DIMENSIONLESS, "t": SECOND, "dt": SECOND, "lastspike": SECOND,
    "not_refractory": DIMENSIONLESS, "t_in_timesteps": DIMENSIONLESS,
}  # fmt: skip
"""Names that Brian2 gives to every group."""

COUPLING_WORDS: dict[str, Dimensions] = {
    "i": DIMENSIONLESS, "j": DIMENSIONLESS, "N": DIMENSIONLESS, "N_pre": DIMENSIONLESS, "N_post": DIMENSIONLESS,
    "N_incoming": DIMENSIONLESS, "N_outgoing": DIMENSIONLESS, "t": SECOND, "dt": SECOND, "lastupdate": SECOND,
    "lastspike_pre": SECOND, "lastspike_post": SECOND, "i_pre": DIMENSIONLESS, "i_post": DIMENSIONLESS,
    "not_refractory_post": DIMENSIONLESS, "not_refractory_pre": DIMENSIONLESS,
    "t_pre": SECOND, "t_post": SECOND,
}  # fmt: skip


@dataclass
class Objects:
    """Populations and couplings of the specification, and what could not be read of them."""

    populations: dict[str, PopulationSpec] = field(default_factory=dict)
    couplings: dict[str, CouplingSpec] = field(default_factory=dict)
    broken: dict[str, frozenset[str]] = field(default_factory=dict)  # object -> variables ("*": any)
    lost: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)  # populations that a coupling drives in vain
    endurance: dict[str, Text] = field(default_factory=dict)  # plastic parameter -> writes that its devices survive

    def every(self) -> list[PopulationSpec | CouplingSpec]:
        """All objects, layer by layer: a population behind the couplings that reach it."""
        found: list[PopulationSpec | CouplingSpec] = []
        for population in self.populations.values():
            found += [c for c in self.couplings.values() if c.post == population.name]
            found.append(population)
        return found

    def variables(self) -> dict[str, Variable]:
        """Every variable by its qualified name."""
        return {f"{o.name}.{v.name}": v for o in self.every() for v in o.variables}

    def is_broken(self, name: str, variable: str) -> bool:
        """Whether a variable may exist in a line that could not be read."""
        broken = self.broken.get(name, frozenset())
        return "*" in broken or variable in broken

    @property
    def any_broken(self) -> bool:
        """Whether any line or object could not be read."""
        return bool(self.lost) or any(self.broken.values())

    def find(self, word: str) -> tuple[str, str] | None:
        """Read `VARIABLE_POPULATION`, e.g. ``x_image``."""
        for cut in range(len(word) - 1, 0, -1):
            if word[cut] != "_":
                continue
            variable, population = word[:cut], word[cut + 1 :]
            if population in self.populations and any(
                v.name == variable for v in self.populations[population].variables
            ):
                return population, variable
        return None

    def may_be_broken(self, word: str) -> bool:
        """Whether `VARIABLE_POPULATION` may name something that could not be read."""
        for cut in range(len(word) - 1, 0, -1):
            if word[cut] == "_":
                variable, population = word[:cut], word[cut + 1 :]
                if population in self.lost or self.is_broken(population, variable):
                    return True
        return False

    def words(self) -> dict[str, Variable]:
        """Every `VARIABLE_POPULATION`."""
        return {f"{v.name}_{p.name}": v for p in self.populations.values() for v in p.variables}

    def population_scope(self, population: PopulationSpec) -> dict[str, Dimensions]:
        """The names that an equation of a population may read, parameters of the netlist aside."""
        return {**BRIAN_WORDS, **{v.name: v.dimensions for v in population.variables}}

    def coupling_scope(self, coupling: CouplingSpec) -> dict[str, Dimensions]:
        """The names that an equation of a coupling may read: its own, `X_pre`, `X_post`, and `X` of the post side."""
        scope = dict(COUPLING_WORDS)
        post, pre = self.populations.get(coupling.post), self.populations.get(coupling.pre)
        for variable in post.variables if post else ():
            scope[variable.name] = scope[f"{variable.name}_post"] = variable.dimensions
        for variable in pre.variables if pre else ():
            scope[f"{variable.name}_pre"] = variable.dimensions
        for variable in coupling.variables:
            if variable.role is not Role.SUMMED:
                scope[variable.name] = variable.dimensions
        return scope

    def scope(self, thing: PopulationSpec | CouplingSpec) -> dict[str, Dimensions]:
        """The names that an equation of an object may read."""
        return self.coupling_scope(thing) if isinstance(thing, CouplingSpec) else self.population_scope(thing)


def statements_of(text: Any, report: Report) -> list[Statement]:
    """Take a block apart; a problem is reported at its line."""
    if text is None:
        return []
    try:
        return parse_statements(text)
    except ExpressionError as problem:
        at = Position(text.at.file, text.at.line + problem.line_offset)
        report.add(STATEMENT, at, problem.message, "", problem.mend)
        return []
