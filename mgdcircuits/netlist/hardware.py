"""`hardware`: what evaluations, perturbations and writes take, what a device survives, and how well a cost is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isinf
from types import MappingProxyType

from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import reading_rule
from mgdcircuits.netlist.costs import Measured, cost_scope, outside_reductions
from mgdcircuits.netlist.document import Doc, Document, PerturbationDoc
from mgdcircuits.netlist.expressions import FUNCTIONS, ExpressionError, calls, evaluate, names, parse
from mgdcircuits.netlist.kinds import expected_of
from mgdcircuits.netlist.objects import Objects
from mgdcircuits.netlist.parameters import RUNTIME, SECOND
from mgdcircuits.netlist.source import Map, Text
from mgdcircuits.netlist.spec import (
    Axis,
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
from mgdcircuits.netlist.topologies import product
from mgdcircuits.netlist.units import DIMENSIONLESS

HARDWARE_UNITS = reading_rule(
    "hardware-units",
    "`time` and `retention` are times, `energy` an energy, `noise` a cost, `copies` and `endurance` numbers",
)
HARDWARE_VALUE = reading_rule(
    "hardware-value",
    "times, energies and noise are finite and not negative, copies and writes at least 1; times are constant",
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
MAY_BE_DRAWN = ("noise", "endurance")


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
            called = (f"{thing.name}.{variable.name}", variable.name, thing.name, "")
            text = next((given.get(n) for n in called if n in given), None)
            if text is None or not _is_number_of_writes(text, expressions):
                continue
            if _is_drawn(text):
                drawn = _drawn(variable, expressions.parameters.finish(text), text)
                _add(objects, thing, drawn)
                text = text.same_place(drawn.name)
            objects.endurance[called[0]] = text
    _report_strangers(given, objects, expressions)


def _is_number_of_writes(text: Text, expressions: Expressions) -> bool:
    return expressions.check(text, text.at, {}, "`endurance`", DIMENSIONLESS, rule="hardware-units") == DIMENSIONLESS


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
    draws = {f"{t.name}.{v.name}": v.initial for t in objects.every() for v in t.variables if v.role is Role.DEVICE}
    for parameter, text in objects.endurance.items():
        drawn = draws.get(f"{parameter.rpartition('.')[0]}.{text}")
        _check_value("endurance", text if drawn is None else text.same_place(drawn), expressions)
    return HardwareSpec(**parts, endurance=MappingProxyType({name: str(n) for name, n in objects.endurance.items()}))


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
        if found is not None and places:
            _check_reduced(key, text, objects, expressions)
        if found is not None and not names(text) & set(places):
            _check_value(key, text, expressions)
    return MappingProxyType(entries)


def _check_reduced(key: str, text: Text, objects: Objects, expressions: Expressions) -> None:
    """Whether variables that differ between units or synapses are added up."""
    several = set[str]()
    for thing in objects.every():
        if isinstance(thing, CouplingSpec) or product(thing.shape) > 1:
            several |= {
                f"{v.name}{end}"
                for v in thing.variables
                if v.axis is not Axis.SCALAR
                for end in ("", f"_{thing.name}", "_pre")
            }
    if loose := sorted(outside_reductions(parse(text)) & several):
        listed = ", ".join(f"`{name}`" for name in loose)
        expressions.report.add(
            HARDWARE_VALUE, text.at, f"`{key}: {text}` has a value for every unit or synapse of {listed}", "one number",
            "write `sum(...)`",
        )  # fmt: skip


def _is_drawn(text: str) -> bool:
    return any(FUNCTIONS[name].is_random for name in calls(text) if name in FUNCTIONS)


def _check_value(key: str, text: Text, expressions: Expressions) -> None:
    """Whether a value is a constant that can be. Noise and endurance may be drawn, and noise may change with time."""
    parameters, report = expressions.parameters, expressions.report
    said = {"copies": "a whole number of at least 1", "endurance": "at least 1"}.get(key, "finite and not negative")
    changing = sorted(names(parameters.finish(text)) & set(RUNTIME))
    if changing and key != "noise":
        what = "is the size of a block of perturbations" if changing[0] == "K" else "changes while the circuit runs"
        found = f"`{key}: {text}`: `{changing[0]}` {what}"
        report.add(HARDWARE_VALUE, text.at, found, f"a constant that is {said}")
    elif _is_drawn(text) and key not in MAY_BE_DRAWN:
        report.add(HARDWARE_VALUE, text.at, f"`{key}: {text}` is drawn", f"a constant that is {said}")
    if changing or _is_drawn(text):
        return
    try:
        value = evaluate(text, parameters.constants()).value
    except ExpressionError as problem:
        report.add(HARDWARE_VALUE, text.at, f"`{key}`: {problem.message}", f"a value that is {said}", problem.mend)
        return
    whole = key != "copies" or value % 1 == 0
    if not (value >= 1 if key in AT_LEAST_ONE else value >= 0) or (key != "endurance" and isinf(value)) or not whole:
        report.add(HARDWARE_VALUE, text.at, f"`{key}` is {value:g}", f"a value that is {said}")


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
