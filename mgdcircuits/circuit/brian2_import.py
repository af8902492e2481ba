"""Brian2, imported so that the process stays as it was: by itself it takes over Ctrl-C and the reports of errors."""

from __future__ import annotations

import signal
import sys
import threading


def import_brian2() -> None:
    """Import Brian2, from any thread, and put back what it replaces; to be called before every import of its parts."""
    if "brian2" in sys.modules:
        return
    hook = sys.excepthook
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)
        import brian2  # noqa: F401

        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    else:
        install = signal.signal  # refuses to work in this thread, and Brian2 would not be imported
        signal.signal = lambda number, handler: None  # type: ignore[assignment]
        try:
            import brian2  # noqa: F401
        finally:
            signal.signal = install
    sys.excepthook = hook
