"""The rows of a run in the order in which they were written: a file that only grows, so that a kill harms its end alone.

A netCDF file that is killed while it is written may be lost as a whole, and its rows cannot be taken back. So a run keeps
this file beside it, from which the dataset up to any checkpoint can be put together again. A record is its length, its
CRC-32, and what `storage.pack` makes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mgdcircuits.storage import pack, unpack

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HEAD = struct.Struct("<QI")

Record = tuple[dict[str, Any], dict[str, np.ndarray]]


class Journal:
    """A journal that is written; by one process at a time.

    Parameters
    ----------
    path
        Made where it does not exist.

    Raises
    ------
    BlockingIOError
        Another process writes it.
    OSError
        It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "ab")  # noqa: SIM115, closed by `close`
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise
        except OSError:
            pass  # a file system without locks

    def restart(self, end: int = 0) -> None:
        """Go on after `end` bytes; what comes after them is cut off."""
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Add a record; it is on disk after the next `sync`."""
        content = b"".join(pack(about, arrays))
        self._file.write(HEAD.pack(len(content), zlib.crc32(content)))
        self._file.write(content)

    def sync(self) -> int:
        """Put everything on disk; the bytes there are."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Give the file back; what could not be written is lost."""
        try:
            self._file.close()
        except OSError:
            pass

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read(path: Path, end: int) -> Iterator[Record]:
    """The records in the first `end` bytes.

    Raises
    ------
    ValueError
        The file is shorter or damaged.
    OSError
        It cannot be read.
    """
    return (record for record, _ in _records(path, end))


def whole(path: Path) -> tuple[list[Record], int]:
    """The records before the first that is damaged or cut off, and the bytes that they take.

    Raises
    ------
    OSError
        It cannot be read.
    """
    records, end = [], 0
    with contextlib.suppress(ValueError):
        for record, after in _records(path, path.stat().st_size):
            records.append(record)
            end = after
    return records, end


def _records(path: Path, end: int) -> Iterator[tuple[Record, int]]:
    """Each record, and where it ends."""
    with open(path, "rb") as file:
        while file.tell() < end:
            head = file.read(HEAD.size)
            length, checksum = HEAD.unpack(head) if len(head) == HEAD.size else (0, -1)
            if length > end - file.tell():
                raise ValueError("a record is longer than the file")
            content = file.read(length)
            if len(content) != length or zlib.crc32(content) != checksum:
                raise ValueError("a record is damaged or cut off")
            yield unpack(content, 0, length), file.tell()
