"""The table of all cases."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from benchmarks.results import Spread, Summary, summary

COLUMNS = ("case", "ours", "best peer", "", "ratio", "plain", "required", "verdict", "GFLOP/s", "of peak")


def table(results: Iterable[dict]) -> Table:
    """All results, a row each."""
    made = Table(*COLUMNS, box=None, title="Time of an iteration: median and quartiles of the rounds")
    for result in results:
        made.add_row(*row(result["title"], summary(result)))
    return made


def row(title: str, s: Summary) -> tuple[str, ...]:
    """The cells of one case."""
    sign = {"RATIO": "≥", "RATE": "≥", "COST": "≤"}[s.measure.name]
    return (
        title,
        time(s.ours),
        time(s.peer) if s.peer else "",
        s.best or "",
        number(s.value) + ("/s" if s.measure.name == "RATE" else ""),
        number(s.plain) if s.plain else "",
        f"{sign} {figure(s.required)}" if s.required is not None else "",
        s.verdict,
        f"{s.gflops:.0f}" if s.gflops else "",
        f"{100 * s.gflops / s.peak:.0f} %" if s.gflops else "",
    )


def time(s: Spread) -> str:
    """Milliseconds, or microseconds where they are few."""
    factor, unit = (1e3, "ms") if s.median >= 1e-4 else (1e6, "µs")
    return f"{number(s.scaled(factor))} {unit}"


def number(s: Spread) -> str:
    """Median (quartile–quartile)."""
    return f"{figure(s.median)} ({figure(s.low)}–{figure(s.high)})"


def figure(value: float) -> str:
    """Three digits."""
    if value >= 1e5:
        return f"{value / 1e6:.3g}M"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
