"""Where compiled circuits are kept: one shared library each, named by a hash of everything that went into it.

Several processes may use the folder at once: a library is compiled in a folder of its own under a lock and moved into
place whole. What a killed compilation leaves is taken away later; the libraries used longest ago go when there are too many.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from mgdcircuits.errors import BuildError

LIMIT = 1_000_000_000  # bytes
ABANDONED = 24 * 3600.0  # seconds after which an unfinished compilation is nobody's
BUILDING = "build-"


def folder() -> Path:
    """MGDCIRCUITS_CACHE, else the user's cache."""
    named = os.environ.get("MGDCIRCUITS_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("mgdcircuits")) / "compiled"


def limit() -> int:
    """Bytes that libraries may take: MGDCIRCUITS_CACHE_BYTES, else a gigabyte.

    Raises
    ------
    BuildError
        The variable is no number.
    """
    named = os.environ.get("MGDCIRCUITS_CACHE_BYTES", str(LIMIT))
    try:
        return int(float(named))
    except (ValueError, OverflowError):
        raise BuildError(f"MGDCIRCUITS_CACHE_BYTES={named}: expected a number of bytes, such as 1e9") from None


def library(name: str, make: Callable[[Path, Path], None]) -> Path:
    """The library called `name`; ``make(folder, path)`` compiles it where it is missing.

    Raises
    ------
    BuildError
        There is no place to write.
    """
    where, bytes_allowed = folder(), limit()
    path = where / f"{name}.so"
    try:
        if not path.exists():
            where.mkdir(parents=True, exist_ok=True)
            with FileLock(where / f"{name}.lock"):
                if not path.exists():
                    make(where, path)
            _prune(where, bytes_allowed, path)
        else:
            _touch(path)
    except OSError as error:
        raise BuildError(f"{where}: cannot keep the compiled circuit: {error.strerror or error}") from None
    return path


@dataclass(frozen=True)
class Info:
    """What the cache holds."""

    folder: Path
    libraries: int
    bytes: int
    limit: int


def info() -> Info:
    """Number and size of the libraries."""
    sizes = [_size(p) for p in folder().glob("*.so")]
    return Info(folder(), len(sizes), sum(sizes), limit())


def clear() -> Info:
    """Remove every library, and say what there was. Running sessions keep what they have loaded."""
    before = info()
    for path in _everything(before.folder):
        _remove(path)
    return before


def _everything(where: Path) -> list[Path]:
    return [p for pattern in ("*.so", "*.lock", "*.failed.cpp", f"{BUILDING}*") for p in where.glob(pattern)]


def _prune(where: Path, bytes_allowed: int, keep: Path) -> None:
    """Remove what was used longest ago until the rest fits, and what killed compilations left."""
    now = time.time()
    for path in [*where.glob(f"{BUILDING}*"), *where.glob("*.lock"), *where.glob("*.failed.cpp")]:
        if now - _used(path) > ABANDONED:
            _remove(path)
    libraries = sorted(where.glob("*.so"), key=_used, reverse=True)
    taken = _size(keep)
    for path in libraries:
        if path == keep:
            continue
        taken += _size(path)
        if taken > bytes_allowed:
            _remove(path)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        pass  # a cache that only others may write is as good


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # another process has just removed it


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
