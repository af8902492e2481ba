"""A run that can go on after whatever stopped it: its dataset, and beside it a checkpoint and a journal of its rows.

The checkpoint names how much of the journal belongs to it. To go on, the dataset is put together anew from that part; rows
that were written after the checkpoint are dropped, and computed again. A run that has come to its end leaves its dataset
alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgdcircuits import checkpoint, journal
from mgdcircuits.checkpoint import Checkpoint
from mgdcircuits.errors import RecordError, RunError
from mgdcircuits.journal import Journal
from mgdcircuits.record import Declaration, RunWriter, reason, state_of
from mgdcircuits.storage import sync_file, sync_folder

if TYPE_CHECKING:
    from mgdcircuits.session import Session

Schema = tuple[Sequence[Declaration], Mapping[str, int], Mapping[str, Any]]


def rows_of(path: Path) -> Path:
    """Where the journal of a run lies."""
    return path.with_name(f"{path.name}.rows")


def find(out: str | Path | None, overwrite: bool, resume: bool) -> Checkpoint | None:
    """The checkpoint that a call of `train` is to go on from, if it is.

    Raises
    ------
    RunError, RecordError
        What can be said about the files before minutes of compilation.
    """
    if out is None:
        if resume:
            raise RunError("resume=True needs the file of the run: out=...")
        return None
    path = Path(out)
    if path.is_dir():
        raise RecordError(f"{path} is a folder; expected the name of a file, such as {path / 'run.nc'}")
    if not path.parent.is_dir():
        raise RecordError(f"{path}: the folder {path.parent} does not exist; make it first")
    state = state_of(path)
    if resume and state.exists():
        return checkpoint.read(state)
    if resume and path.exists():
        raise RunError(
            f"{path} has no checkpoint {state.name} beside it: the run is complete, or kept none; choose another name, "
            "or say --force instead of --resume"
        )
    _check_free(path, overwrite or resume)
    return None


def _check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write in the place of a run."""
    if overwrite:
        return
    if state_of(path).exists():
        raise RecordError(
            f"{path} is a run that was stopped; go on with --resume (in Python resume=True), or say --force to begin anew"
        )
    if path.exists():
        raise RecordError(
            f"{path} exists; expected a new file; choose another name, or say --force (in Python overwrite=True)"
        )


def remove(path: Path) -> None:
    """Remove what a run goes on from, the checkpoint first; its dataset stays."""
    state = state_of(path)
    for file in (state, rows_of(path), *(f.with_name(f"{f.name}.part") for f in (path, state))):
        file.unlink(missing_ok=True)
    sync_folder(path.parent)


class ResumableWriter(RunWriter):
    """Writes a run row by row, twice: into the dataset and into the journal. Made by `begin` or `go_on`."""

    mend = "make room and go on with --resume (in Python resume=True)"

    def __init__(self, path: Path, schema: Schema, attributes: Mapping[str, Any], rows: Journal | None) -> None:
        self._rows_journal = rows
        super().__init__(path, *schema, attributes, overwrite=True)

    @classmethod
    def begin(
        cls,
        path: Path,
        schema: Schema,
        attributes: Mapping[str, Any],
        session: Session,
        run: Mapping[str, Any],
        overwrite: bool,
    ) -> ResumableWriter:
        """A new run, with `overwrite` in the place of whatever is there.

        The first checkpoint is written before the dataset, so that there is no dataset that cannot go on.

        Raises
        ------
        RecordError
            No room; another process is writing there, or has done so since `find` looked.
        """
        rows = _journal(path)
        try:
            _check_free(path, overwrite)
            state_of(path).unlink(missing_ok=True)
            rows.restart()
            rows.append({"attributes": {n: _json(v) for n, v in attributes.items()}}, {})
            _save(path, rows, session, run, {})
            return cls(path, schema, attributes, rows)
        except OSError as error:
            rows.close()
            raise RecordError(f"{path} cannot be written: {reason(error)}") from None
        except BaseException:
            rows.close()
            raise

    @classmethod
    def go_on(cls, path: Path, schema: Schema, saved: Checkpoint) -> ResumableWriter:
        """The run of a checkpoint, with its rows up to there.

        Raises
        ------
        RecordError
            The journal is damaged; no room; another process is writing there.
        """
        end = saved.run["rows"]
        rows = _journal(path)
        part = path.with_name(f"{path.name}.part")
        try:
            writer = cls._replayed(part, schema, journal.read(rows.path, end))
            os.replace(part, path)
            rows.restart(end)
        except BaseException as error:
            rows.close()
            part.unlink(missing_ok=True)
            if isinstance(error, ValueError):
                raise RecordError(f"{rows.path} does not hold the rows of {state_of(path)}: {error}") from None
            if isinstance(error, OSError | RecordError):
                raise RecordError(f"{path} cannot be put together again: {reason(error)}; {cls.mend}") from None
            raise
        writer.path, writer._rows_journal = path, rows
        return writer

    @classmethod
    def _replayed(cls, path: Path, schema: Schema, records: Iterator[journal.Record]) -> ResumableWriter:
        first = next(records, None)
        if first is None or "attributes" not in first[0]:
            raise ValueError("it does not begin with a run")
        writer = cls(path, schema, first[0]["attributes"], None)
        for about, arrays in records:
            writer._append(about["dimension"], arrays, about["count"], flush=False)
        writer._file.sync()
        return writer

    def _append(self, dimension: str, values: Mapping[str, Any], count: int, flush: bool = True) -> None:
        if self._rows_journal is not None:
            arrays = {name: np.asarray(value) for name, value in values.items()}
            try:
                self._rows_journal.append({"dimension": dimension, "count": count}, arrays)
            except OSError as error:
                self._abandon()
                raise RecordError(self._lost(reason(error))) from None
        super()._append(dimension, values, count, flush)

    def save(self, session: Session, run: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """A checkpoint of the session and of the rows written so far.

        Raises
        ------
        RecordError
            No room; the checkpoint before is kept.
        """
        assert self._rows_journal is not None
        try:
            _save(self.path, self._rows_journal, session, run, arrays)
        except (OSError, RunError) as error:
            raise RecordError(f"{reason(error)}; the checkpoint before it is kept; {self.mend}") from None

    def close(self, state: str, complete: bool = True) -> None:
        """Close the dataset and note how the run ended; a complete one needs nothing else any more."""
        assert self._rows_journal is not None
        try:
            super().close(state)
            if complete:
                sync_file(self.path)  # before that goes from which it could be put together again
                remove(self.path)
        except OSError as error:
            raise RecordError(self._lost(reason(error))) from None
        finally:
            self._rows_journal.close()


def _journal(path: Path) -> Journal:
    try:
        return Journal(rows_of(path))
    except BlockingIOError:
        raise RecordError(f"{path} is being written by another process; wait for its end, or write elsewhere") from None
    except OSError as error:
        raise RecordError(f"{rows_of(path)} cannot be written: {reason(error)}") from None


def _save(
    path: Path, rows: Journal, session: Session, run: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    checkpoint.save(session, state_of(path), {**run, "rows": rows.sync()}, arrays)


def _json(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
