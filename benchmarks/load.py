"""How much of the machine others use while something is measured (Linux only)."""

from __future__ import annotations

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Load:
    """Processor time of everybody and of one process, from now on."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.start = self._read()

    def others(self) -> float | None:
        """Cores that other processes and the host kept busy on average since the start; None where it is not known."""
        now = self._read()
        if now is None or self.start is None:
            return None
        (wall, busy, own), (wall0, busy0, own0) = now, self.start
        return max(0.0, (busy - busy0 - (own - own0)) / TICKS / (wall - wall0))

    def _read(self) -> tuple[float, int, int] | None:
        try:
            user, nice, system, _, _, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
            stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            return None
        busy = sum(int(n) for n in (user, nice, system, irq, softirq, steal))
        return time.perf_counter(), busy, sum(int(n) for n in stat[11:15])
