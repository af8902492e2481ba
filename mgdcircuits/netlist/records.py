"""`record`: which variables go to disk, and when."""

from __future__ import annotations

from mgdcircuits.netlist.checks.expressions import Expressions
from mgdcircuits.netlist.checks.registry import reading_rule
from mgdcircuits.netlist.costs import Measured
from mgdcircuits.netlist.document import Document
from mgdcircuits.netlist.expressions import nearest
from mgdcircuits.netlist.objects import Objects
from mgdcircuits.netlist.parameters import SECOND
from mgdcircuits.netlist.spec import LearningSpec, RecordSpec

UNKNOWN_RECORD = reading_rule("unknown-record", "`record` must name something that the circuit has")

ALWAYS = (
    "accuracy",
    "train_accuracy",
    "test_accuracy",
    "cosine",
    "norm_ratio",
    "writes",
    "hardware_time",
    "G",
    "reward",
    "energy",
)
"""What the program reports by itself and `record` may ask for."""


def records(
    document: Document, objects: Objects, result: Measured, systems: tuple[LearningSpec, ...], expressions: Expressions
) -> tuple[RecordSpec, ...]:
    """One entry for each item; names are qualified where they are variables of an object."""
    report = expressions.report
    signals = [a.name for s in systems for a in (*s.signals, *s.baseline)]
    spiking = [f"spikes_{p.name}" for p in objects.populations.values() if p.threshold is not None]
    qualified = objects.variables()
    words = {f"{v.name}_{thing.name}": f"{thing.name}.{v.name}" for thing in objects.every() for v in thing.variables}
    plain = {*result.dimensions, *signals, *spiking, *ALWAYS}
    passes = [name for s in systems for name, _ in s.passes]
    found = []
    for doc in document.record:
        word = str(doc.variable)
        if word in words:
            word = words[word]
        elif word not in plain and word not in qualified and not objects.any_broken and not result.broken:
            pool = [*plain, *words, *qualified]
            close = nearest(word, pool)
            listed = ", ".join([*result.dimensions, *signals, *spiking, "accuracy"])
            report.add(
                UNKNOWN_RECORD,
                doc.variable.at,
                f"`record` names `{word}`, which the circuit does not have",
                f"one of {listed}, a variable `VARIABLE_POPULATION` or `OBJECT.VARIABLE`",
                f"did you mean `{close}`?" if close else "",
            )
            continue
        if doc.every is not None:
            expressions.check(doc.every, doc.every.at, {"iteration": SECOND}, "`record: every`", SECOND)
        for name in doc.passes or ():
            if str(name) not in passes:
                close = nearest(str(name), passes)
                report.add(
                    UNKNOWN_RECORD,
                    name.at,
                    f"`record` names the pass `{name}`, which no learning system has",
                    f"one of {', '.join(passes)}" if passes else "",
                    f"did you mean `{close}`?" if close else "",
                )
        found.append(
            RecordSpec(
                variable=word,
                every=None if doc.every is None else str(doc.every),
                passes=tuple(map(str, doc.passes or ())),
                units=None if doc.units is None else str(doc.units),
                at=doc.variable.at,
            )
        )
    return tuple(found)
