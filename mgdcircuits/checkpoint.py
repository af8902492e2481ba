"""A session on disk: everything that it needs to go on as if it had not stopped.

A checkpoint is one file: a line that says what it is, a line of JSON (netlist, seeds, counters, numbers, the names and
shapes of the arrays), the arrays that an iteration carries to the next, and the SHA-256 of all that. It is written
beside its place and renamed, so that a crash leaves either the old one or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits.circuit.carried import carried
from mgdcircuits.circuit.circuit import Circuit, load_again
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.spec import CircuitSpec
from mgdcircuits.storage import Chunk, pack, unpack, write_whole

if TYPE_CHECKING:
    from mgdcircuits.session import Session

MAGIC = b"mgdcircuits checkpoint "
FORMAT = b"2\n"
DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Parameters
    ----------
    path
        Where it was read; for messages.
    about
        Netlist, seeds, counters, numbers.
    arrays
        Arrays of the program by name.
    run, run_arrays
        What `train` needs to go on with a run; empty for the checkpoint of a session.
    """

    path: Path
    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    run: Mapping[str, Any] = field(default_factory=dict)
    run_arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def check_circuit(self, spec: CircuitSpec) -> None:
        """Refuse another netlist, or other overrides.

        Raises
        ------
        RunError
            With what differs.
        """
        mend = "take what it was made with, or start anew"
        if self.about["netlist"] != spec.text:
            raise RunError(f"{self.path}: a checkpoint of another netlist ({self.about['circuit']}); {mend}")
        for name, text in spec.tables.items():
            if self.about["tables"].get(name) != text:
                raise RunError(f"{self.path}: a checkpoint with another table {name}; {mend}")
        for name, value in _numbers(spec).items():
            saved = self.about["numbers"].get(name)
            if saved != value:
                raise RunError(f"{self.path}: a checkpoint with {name} = {saved}, here it is {value}; {mend}")

    def restore(self, session: Session) -> None:
        """Put everything into a session of the same circuit, batch and seeds.

        Raises
        ------
        RunError
            Arrays that do not fit, or other data.
        """
        fits = {a.name: session.target.array(a.name) for a in carried(session.program)}
        for name in sorted(fits.keys() | self.arrays.keys()):
            here, saved = fits.get(name), self.arrays.get(name)
            if here is None or saved is None or (here.shape, here.dtype) != (saved.shape, saved.dtype):
                raise RunError(f"{self.path}: the checkpoint does not fit the circuit ({name} differs)")
        if self.about["pinned"]:
            session.target.set_data(None)
        elif session.target.data is not None and session.data_digest != self.about["data"]:
            raise RunError(
                f"{self.path}: the run learned from other data; give the same, or none and then set_data(...)"
            )
        for name in fits:
            session.target.write(name, self.arrays[name])
        session.pinned = self.about["pinned"]
        session.targets_missing = self.about.get("targets_missing", False)
        session.target.iteration = self.about["iteration"]
        session.target.parameters.update(self.about["parameters"])


def save(
    session: Session,
    path: str | Path,
    run: Mapping[str, Any] | None = None,
    run_arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a checkpoint.

    Raises
    ------
    RunError
        The file cannot be written; an earlier checkpoint at the path stays as it was.
    """
    path, target, spec = Path(path), session.target, session.circuit.spec
    about = {
        "version": metadata.version("mgdcircuits"),
        "circuit": spec.name,
        "file": str(spec.file),
        "netlist": spec.text,
        "tables": dict(spec.tables),
        "overrides": {k: str(v) for k, v in spec.overrides.items()},
        "numbers": _numbers(spec),
        "batch": session.batch,
        "seeds": session.seeds,
        "target": session.target_name,
        "dtype": target.dtype.name,
        "iteration": target.iteration,
        "parameters": target.parameters,
        "pinned": session.pinned,
        "targets_missing": session.targets_missing,
        "data": session.data_digest,
        "run": dict(run or {}),
    }
    arrays = {a.name: target.array(a.name) for a in carried(session.program)}
    arrays |= {f"run/{name}": a for name, a in (run_arrays or {}).items()}
    try:
        write_whole(path, _sealed(about, arrays))
    except OSError as error:
        raise RunError(f"{path}: the checkpoint was not written: {error.strerror or error}") from None


def _sealed(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
    digest = hashlib.sha256()
    for chunk in (MAGIC, FORMAT, *pack(about, arrays)):
        digest.update(chunk)
        yield chunk
    yield digest.digest()


def read(path: str | Path) -> Checkpoint:
    """A checkpoint from its file.

    Raises
    ------
    RunError
        No file, another kind of file, one that is damaged or cut off, or one of another version.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise RunError(f"{path}: the checkpoint cannot be read: {error.strerror or error}") from None
    return parse(content, Path(path))


def parse(content: bytes, path: Path) -> Checkpoint:
    """A checkpoint from the bytes of its file; `read` says what it raises."""
    first = len(MAGIC) + len(FORMAT)
    if not content.startswith(MAGIC):
        raise RunError(f"{path}: this is no checkpoint of mgdcircuits")
    found, newline, _ = content[len(MAGIC) : first + 16].partition(b"\n")
    if newline and found + newline != FORMAT:
        here = f"this version reads format {FORMAT.decode().strip()}"
        raise RunError(f"{path}: a checkpoint of format {found.decode(errors='replace')}; {here}")
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        raise RunError(f"{path}: the checkpoint is damaged or cut off: its checksum is not that of its contents")
    about, arrays = unpack(content, first, len(content) - DIGEST)
    version = metadata.version("mgdcircuits")
    if about["version"] != version:
        raise RunError(f"{path}: written by mgdcircuits {about['version']}, this is {version}; go on with that one")
    run_arrays = {n.removeprefix("run/"): a for n, a in arrays.items() if n.startswith("run/")}
    own = {n: a for n, a in arrays.items() if not n.startswith("run/")}
    return Checkpoint(path, about, own, about["run"], run_arrays)


def resume(
    path: str | Path, *, circuit: Circuit | None = None, threads: int = 1, data: Any = None, **options: Any
) -> Session:
    """A session that goes on where `save` left it.

    Parameters
    ----------
    path
        Written by `save`.
    circuit
        Default: made from the netlist in the checkpoint. A circuit that is given must be the same.
    threads
        May differ from the saved session's; the results do not depend on it.
    data
        What `step` draws its samples from; needed again unless samples were pinned.
    **options
        What else `Session` takes and a checkpoint does not hold: `on_nan`.

    Raises
    ------
    RunError
        A file that is damaged or no checkpoint of this version; another circuit; other data.
    """
    from mgdcircuits.session import Session

    saved = read(path)
    about = saved.about
    if circuit is None:
        circuit = load_again(about["netlist"], about["file"], about["overrides"], about["tables"])
    saved.check_circuit(circuit.spec)
    session = Session(
        circuit,
        batch=about["batch"],
        seed=about["seeds"],
        target=about["target"],
        dtype=about["dtype"],
        threads=threads,
        data=data,
        **options,
    )
    saved.restore(session)
    return session


def _numbers(spec: CircuitSpec) -> dict[str, Any]:
    """Parameters and clocks, which overrides may change."""
    return {**spec.parameters, **spec.clocks}
