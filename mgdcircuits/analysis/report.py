"""A plan as text: the table of options, the recommendation, and what the rule needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mgdcircuits.analysis.plan import Option, Plan

_PREFIXES = {12: "T", 9: "G", 6: "M", 3: "k", 0: "", -3: "m", -6: "u", -9: "n", -12: "p", -15: "f"}


def si(value: float) -> str:
    """A number and the prefix of its unit: `3.2 m`."""
    if not np.isfinite(value) or value == 0:
        return f"{value:g} "
    value = float(f"{value:.3g}")  # 999.7 is 1 k
    exponent = int(np.clip(3 * np.floor(np.log10(abs(value)) / 3), -15, 12))
    return f"{value / 10.0**exponent:.3g} {_PREFIXES[exponent]}"


def percent(fraction: float) -> str:
    """A fraction as it was asked for: `85.5%`."""
    return f"{100 * fraction:.6g}%"


def grouped(reasons: Mapping[Option, str]) -> list[str]:
    """Reasons by tau_theta as lines, each reason once."""
    return [
        f"tau_theta = {', '.join(option.name for option, other in reasons.items() if other == why)}: {why}"
        for why in dict.fromkeys(reasons.values())
    ]


def as_text(found: Plan) -> str:
    """The table of options, the recommendation and the needs, as lines."""
    head: tuple[str, ...] = (
        "tau_theta",
        "eta",
        "tuned",
        "reached",
        "accuracy",
        "time",
        "energy",
        "writes: mean",
        "worst",
        "endurance used",
    )
    rows: list[tuple[str, ...]] = [
        (
            o.name, f"{o.rate:g}" if isinstance(o.rate, int | float) else str(o.rate or "-"), "yes" if o.tuned else "no",
            f"{o.reached}/{o.runs}", f"{o.accuracy:.1%}",
            "never" if np.isinf(o.seconds) else f"{si(o.seconds)}s", f"{si(o.joules)}J",
            f"{o.writes_mean:,.0f}", f"{o.writes_max:,.0f}", f"{o.wear:.2g}",
        )
        for o in found.options
    ]  # fmt: skip
    lines = [
        f"{found.circuit}: " + ("to the end of each run" if found.target is None else f"to {percent(found.target)}"),
        "",
    ]
    lines += _table(head, [tuple("-" if cell.startswith(("nan", "inf")) else cell for cell in row) for row in rows])
    lines += ["", *(grouped(found.hindrances) if found.best is not None else ()), found.reason, *found.notes]
    if found.needs:
        head = (
            "the rule needs",
            "number",
            "memory cells of each",
            "products: an iteration",
            "an update",
            "random source",
        )
        rows = [
            (
                n["place"] + ("" if n["kind"] == "circuit" else f" (each {n['kind']})"), f"{n['elements']:,}",
                f"{len(n['cells'])}: {', '.join(n['cells'])}" if n["cells"] else "0", str(n["products"]["iteration"]),
                str(n["products"]["update"]), ", ".join(n["random"]) or "-",
            )
            for n in found.needs
        ]  # fmt: skip
        lines += ["", *_table(head, rows)]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(r[k]) for r in (head, *rows)) for k in range(len(head))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]
