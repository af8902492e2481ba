"""Bytes on disk: arrays behind a header, and files that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Chunk = bytes | memoryview


def pack(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
    """A line of JSON that describes, then the arrays one after another.

    Parameters
    ----------
    about
        Whatever JSON can say.
    arrays
        By name; of numbers or booleans.
    """
    listed = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    yield json.dumps({"about": about, "arrays": listed}).encode() + b"\n"
    for array in arrays.values():
        if array.size:
            yield np.ascontiguousarray(array).reshape(-1).data.cast("B")


def unpack(content: bytes, first: int, last: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `pack` was given, from ``content[first:last]``; the arrays are read-only views.

    Raises
    ------
    ValueError
        Bytes that `pack` did not write.
    """
    position = content.index(b"\n", first, last) + 1
    found = json.loads(content[first:position])
    arrays = {}
    for name, dtype, shape in found["arrays"]:
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(content, np.dtype(dtype), count, position).reshape(shape)
        position += arrays[name].nbytes
    if position != last:
        raise ValueError("the length is not that of the header")
    return found["about"], arrays


def fingerprint(*arrays: np.ndarray, also: str = "") -> str:
    """SHA-256 of arrays with their types and shapes."""
    digest = hashlib.sha256(also.encode())
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_whole(path: Path, chunks: Iterable[Chunk]) -> None:
    """Write a file that is found either whole or not at all, whatever happens: what was there stays until then.

    The bytes go to a file beside it, ``NAME.part``, which is synced and renamed; then the folder is synced.

    Raises
    ------
    OSError
        What the system says, for instance that the disk is full; nothing is left behind.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Put on disk what a library has written."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renamed and removed names last; not every system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
