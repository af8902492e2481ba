"""Ctrl-C at the right moment: held back while something must not be cut in two, then delivered as it would have been."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Held:
    """While it lasts, Ctrl-C waits; at the end, or at `act`, the handler that was there before gets it.

    That is Python's own, which raises KeyboardInterrupt, or the user's. Where Ctrl-C is ignored, or in another thread than
    the main one, nothing changes. May be nested: the outer one then holds back what the inner one delivers.
    """

    def __init__(self) -> None:
        self.pending = False
        self._previous: Any = None

    def __enter__(self) -> Held:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if handler is not None and handler is not signal.SIG_IGN:
                self._previous = handler
                signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self.act()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = True

    @contextmanager
    def released(self) -> Iterator[None]:
        """Meanwhile Ctrl-C acts at once: for what takes long and may be cut off anywhere."""
        if self._previous is None:
            yield
            return
        signal.signal(signal.SIGINT, self._previous)
        try:
            self.act()
            yield
        finally:
            signal.signal(signal.SIGINT, self._note)

    def act(self) -> None:
        """Deliver what was held back."""
        if not self.pending:
            return
        self.pending = False
        if callable(self._previous):
            self._previous(signal.SIGINT, sys._getframe())
        else:  # the system's own, which ends the process
            signal.signal(signal.SIGINT, self._previous)
            signal.raise_signal(signal.SIGINT)
