"""`hardware`: what evaluations, perturbations and writes take, what a device survives, and how well a cost is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import reading_rule
from mgdcircuits.netlist.costs import Measured, cost_scope
from mgdcircuits.netlist.document import Doc, Document, PerturbationDoc
from mgdcircuits.netlist.expressions import FUNCTIONS, ExpressionError, calls, evaluate
from mgdcircuits.netlist.kinds import expected_of
from mgdcircuits.netlist.objects import Objects
from mgdcircuits.netlist.parameters import SECOND
from mgdcircuits.netlist.source import Map, Text
from mgdcircuits.netlist.spec import (
    CouplingSpec,
    Dimensions,
    HardwareSpec,
    LearningSpec,
    PopulationSpec,
    Role,
    Sharing,
    TrialSpec,
    Variable,
    VariableKind,
)
from mgdcircuits.netlist.units import DIMENSIONLESS

HARDWARE_UNITS = reading_rule(
    "hardware-units",
    "`time` and `retention` are times, `energy` an energy, `noise` a cost, `copies` and `endurance` numbers",
)
HARDWARE_VALUE = reading_rule(
    "hardware-value", "times, energies and noise are not negative; copies and writes at least 1"
)
ENDURANCE = reading_rule("endurance", "an entry of `endurance` must name a plastic parameter")
PERTURB_BY_WRITING = reading_rule("perturb-by-writing", "only a device can be perturbed by writing it")

ENERGY: Dimensions = (2, 1, -2, 0, 0, 0, 0)
WANTED: Mapping[str, Dimensions] = {
    "time": SECOND, "energy": ENERGY, "copies": DIMENSIONLESS, "retention": SECOND, "endurance": DIMENSIONLESS,
}  # fmt: skip
CHOICES = {"through": ("volatile", "write"), "parallel": ("none", "row", "column", "all")}
SECTIONS = ("inference", "perturbation", "write", "device", "measurement")
AT_LEAST_ONE = ("copies", "endurance")


def give_endurance(document: Document, objects: Objects, expressions: Expressions) -> None:
    """Note how many writes the devices of each plastic parameter survive (`objects.endurance`).

    A number of draws (``1e6*exp(0.5*randn())``) becomes a variable of the object, drawn once per device.
    """
    device = document.hardware.device if document.hardware is not None else None
    if device is None or device.endurance is None:
        return
    given = device.endurance
    if not isinstance(given, Map):
        given = Map({Text("", device.at): given}, device.at)
    for thing in objects.every():
        for variable in [v for v in thing.variables if v.role is Role.PLASTIC]:
            names = (f"{thing.name}.{variable.name}", variable.name, thing.name, "")
            text = next((given.get(n) for n in names if n in given), None)
            if text is None or not _is_number_of_writes(text, expressions):
                continue
            finished = expressions.parameters.finish(text)
            if any(FUNCTIONS[name].is_random for name in calls(text)):
                drawn = _drawn(variable, finished, text)
                _add(objects, thing, drawn)
                finished = drawn.name
            objects.endurance[names[0]] = finished
    _report_strangers(given, objects, expressions)


def _is_number_of_writes(text: Text, expressions: Expressions) -> bool:
    found = expressions.check(text, text.at, {}, "`endurance`", DIMENSIONLESS, rule="hardware-units")
    if found is not None:
        _check_value("endurance", text, expressions)
    return found == DIMENSIONLESS


def _drawn(variable: Variable, expression: str, text: Text) -> Variable:
    return Variable(
        name=f"endurance_{variable.name}",
        kind=VariableKind.PARAMETER,
        role=Role.DEVICE,
        dimensions=DIMENSIONLESS,
        unit="1",
        axis=variable.axis,
        sharing=Sharing.MEMBER,
        flags=frozenset({"per device"}),
        initial=expression,
        at=text.at,
    )


def _add(objects: Objects, thing: PopulationSpec | CouplingSpec, variable: Variable) -> None:
    if isinstance(thing, CouplingSpec):
        whole = objects.couplings[thing.name]
        objects.couplings[thing.name] = replace(whole, variables=(*whole.variables, variable))
    else:
        population = objects.populations[thing.name]
        objects.populations[thing.name] = replace(population, variables=(*population.variables, variable))


def _report_strangers(given: Mapping[Text, Text], objects: Objects, expressions: Expressions) -> None:
    """Entries of `endurance` that fit no plastic parameter."""
    plastic = [(t.name, v.name) for t in objects.every() for v in t.variables if v.role is Role.PLASTIC]
    known = {word for thing, name in plastic for word in (f"{thing}.{name}", name, thing)}
    for key, text in given.items():
        if key and str(key) not in known and not objects.any_broken:
            expected, mend = expected_of(str(key), {name for _, name in plastic} | {f"{t}.{n}" for t, n in plastic})
            found = f"`endurance` names `{key}`, which is no plastic parameter"
            expressions.report.add(ENDURANCE, getattr(key, "at", text.at), found, expected, mend)


def hardware_spec(
    document: Document,
    objects: Objects,
    expressions: Expressions,
    measured: Measured,
    systems: tuple[LearningSpec, ...],
    trial: TrialSpec | None,
) -> HardwareSpec:
    """What the section says; names of all objects may stand in an energy."""
    doc = document.hardware
    if doc is None:
        return HardwareSpec()
    scope: dict[str, Dimensions] = cost_scope(objects)
    for thing in objects.every():
        scope |= {n: d for n, d in objects.scope(thing).items() if n not in scope}
    wanted = dict(WANTED)
    if measured.cost is not None:
        wanted["noise"] = measured.cost.dimensions
    parts = {name: _section(name, getattr(doc, name), scope, wanted, objects, expressions) for name in SECTIONS}
    if doc.perturbation is not None and parts["perturbation"].get("through") == "write":
        _check_perturb_by_writing(doc.perturbation, objects, expressions, systems, trial)
    if doc.measurement is not None and parts["measurement"] and (trial is not None or measured.cost is None):
        expressions.report.add(
            HARDWARE_VALUE, doc.measurement.at, "`measurement` in a circuit without a cost that passes measure",
            "a `cost` and no `trial`", "write the noise into what the trial measures",
        )  # fmt: skip
    return HardwareSpec(**parts, endurance=MappingProxyType(dict(objects.endurance)))


def _section(
    section: str,
    doc: Doc | None,
    scope: Mapping[str, Dimensions],
    wanted: Mapping[str, Dimensions],
    objects: Objects,
    expressions: Expressions,
) -> Mapping[str, str]:
    """The entries of one part, but for `endurance`, which belongs to the parameters."""
    entries: dict[str, str] = {}
    for key in type(doc).model_fields if doc is not None else ():
        text = getattr(doc, key)
        if key in ("at", "keys_at", "endurance") or text is None:
            continue
        if key in CHOICES:
            if str(text) not in CHOICES[key]:
                expressions.report.add(
                    "unknown-word", text.at, f"`{key}: {text}`", *expected_of(str(text), CHOICES[key])
                )
            entries[key] = str(text)
            continue
        places = scope if section == "inference" and key == "energy" else {}
        found = expressions.check(
            text,
            text.at,
            places,
            f"`{section}.{key}`",
            wanted.get(key),
            rule="hardware-units",
            reductions=bool(places),
            tolerated=lambda n: objects.any_broken,
        )
        entries[key] = expressions.parameters.finish(text, set(places)) if found is not None else str(text)
        if found is not None and not places:
            _check_value(key, text, expressions)
    return MappingProxyType(entries)


def _check_value(key: str, text: Text, expressions: Expressions) -> None:
    """Whether a constant is one that can be."""
    try:
        value = evaluate(expressions.parameters.finish(text), expressions.parameters.constants()).value
    except ExpressionError:
        return  # it is drawn, or depends on the iteration, whose duration is not known yet
    least, said = (1, "at least 1") if key in AT_LEAST_ONE else (0, "not negative")
    if not value >= least or (key == "copies" and value != int(value)):
        said = "a whole number of at least 1" if key == "copies" else said
        expressions.report.add(HARDWARE_VALUE, text.at, f"`{key}` is {value:g}", f"a value that is {said}")


def _check_perturb_by_writing(
    doc: PerturbationDoc,
    objects: Objects,
    expressions: Expressions,
    systems: tuple[LearningSpec, ...],
    trial: TrialSpec | None,
) -> None:
    report = expressions.report
    at = doc.place("through")
    for key in ("time", "energy"):
        if getattr(doc, key) is not None:
            report.add(
                PERTURB_BY_WRITING, doc.place(key), f"`perturbation.{key}` of a perturbation that is a write",
                f"`{key}` under `write` alone", "leave it out",
            )  # fmt: skip
    if trial is not None:
        report.add(PERTURB_BY_WRITING, at, "`through: write` in a circuit with a trial", "`through: volatile`")
    variables = objects.variables()
    driven = [name for s in systems if s.perturb is not None for name in s.perturb.codes]
    for name in driven:
        variable = variables.get(name)
        if variable is not None and (variable.perturbs is None or variable.sharing is Sharing.REPLICA):
            report.add(
                PERTURB_BY_WRITING, at, f"`through: write`, but `{name}` perturbs no device",
                "perturbations of plastic parameters, which all samples share",
                "write `through: volatile`, or perturb weights",
            )  # fmt: skip
