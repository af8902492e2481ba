"""What a person sees while a circuit trains: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

import numpy as np

PLAIN_LINES = 20
"""Lines that a run prints at most where there is no terminal, besides the first and the last."""

UPDATE_SECONDS = 0.1
"""Between two updates of a bar."""


class Progress:
    """Reports on standard error.

    Parameters
    ----------
    total
        Iterations to do.
    mode
        True, or False for silence.
    done
        Iterations done before.
    stream
        Where to; a bar is drawn if it is a terminal.
    """

    def __init__(self, total: int, mode: bool = True, done: int = 0, stream: TextIO | None = None) -> None:
        self._total = total
        self._done = done
        self._next_update = 0.0
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._quiet = not mode
        self._use_bar = mode and self._stream.isatty()
        self._started = time.monotonic()
        self._next_line = 0.0

    def __enter__(self) -> Progress:
        if self._use_bar:
            from rich import progress as rich_progress
            from rich.console import Console

            self._bar = rich_progress.Progress(
                rich_progress.BarColumn(bar_width=24),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[result]}"),
                rich_progress.TimeElapsedColumn(),
                rich_progress.TextColumn("left"),
                rich_progress.TimeRemainingColumn(),
                console=Console(file=self._stream),
                refresh_per_second=5,
            )
            self._bar.start()
            self._task = self._bar.add_task("train", total=self._total, completed=self._done, result="")
        self._started = time.monotonic()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, iteration: int) -> None:
        """Iterations done, between rows."""
        if self._bar is not None and (now := time.monotonic()) >= self._next_update:
            self._next_update = now + UPDATE_SECONDS
            self._bar.update(self._task, completed=iteration)

    def row(self, iteration: int, values: Mapping[str, Any]) -> None:
        """A row was written."""
        self.report(iteration, summary(values))

    def report(self, iteration: int, text: str) -> None:
        """Iterations done, and what there is to say about it."""
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, result=text)
        elif not self._quiet and (iteration >= self._next_line or iteration >= self._total):
            self._next_line = iteration + self._total / PLAIN_LINES
            passed = time.monotonic() - self._started
            made = iteration - self._done
            left = passed * (self._total - iteration) / made if made else float("nan")
            ends = f", {_duration(left)} left" if made and iteration < self._total else ""
            self.say(", ".join(p for p in (f"{iteration}/{self._total} iterations", text) if p) + ends)

    def say(self, text: str) -> None:
        """A sentence of its own."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif not self._quiet:
            print(text, file=self._stream, flush=True)


def summary(values: Mapping[str, Any]) -> str:
    """The numbers of a row that a person follows: cost or reward, accuracy; the mean over members."""
    parts = []
    first = ("reward", ("reward",), "{:.4g}") if "R" in values else ("cost", ("cost", "cost_test"), "{:.4g}")
    for label, names, form in (first, ("accuracy", ("accuracy_test",), "{:.1%}")):
        found = next((np.mean(values[n]) for n in names if n in values and np.all(np.isfinite(values[n]))), None)
        if found is not None:
            parts.append(f"{label} {form.format(found)}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
