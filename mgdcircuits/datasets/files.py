"""Getting files whose contents are known: verify them, download them, unpack them from a Debian package.

Nothing here ever leaves a half-written file under its final name: whatever arrives goes to a temporary file in the
same folder, is verified, and takes its name in one step.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Protocol

# Long enough for a slow link to answer, short enough for a machine without internet to go on to the next source.
CONNECT_SECONDS = 5.0
APT_SECONDS = 300.0
CHUNK = 1 << 16


class Unavailable(Exception):
    """A source that does not have the files; its text completes "tried <source>: ..."."""


class Progress(Protocol):
    """What a download calls with the bytes that have arrived."""

    def __call__(self, arrived: int, total: int | None) -> None: ...


@dataclass(frozen=True)
class KnownFile:
    """A gzipped file by its contents.

    `sha256` and `size` (bytes) belong to the *decompressed* contents: distributions recompress, contents stay.
    """

    name: str
    sha256: str
    size: int

    def read(self, path: Path) -> bytes:
        """The verified contents of a copy, compressed or not.

        Raises
        ------
        Unavailable
            If the file cannot be read or is not this file; says which and why.
        """
        try:
            with path.open("rb") as file:
                compressed = file.read(2) == b"\x1f\x8b"
                file.seek(0)
                # One byte more than expected tells a longer file; a damaged one cannot fill the memory.
                data = (gzip.open(file) if compressed else file).read(self.size + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise Unavailable(f"{path} is damaged (truncated or not gzip)") from None
        except OSError as error:
            raise Unavailable(f"{path} cannot be read ({error.strerror or error})") from None
        if len(data) != self.size or hashlib.sha256(data).hexdigest() != self.sha256:
            raise Unavailable(f"{path} is damaged (its SHA-256 is not that of {self.name})")
        return data

    def install(self, source: Path, folder: Path) -> Path:
        """Copy a file into `folder` under its name if it is this file."""
        with _temporary(folder, self.name) as temporary:
            try:
                shutil.copyfile(source, temporary)
            except OSError as error:
                raise Unavailable(f"{source} cannot be copied ({error.strerror or error})") from None
            self.read(temporary)
            os.replace(temporary, folder / self.name)
        return folder / self.name

    def download(self, base: str, folder: Path, progress: Progress | None = None) -> Path:
        """Fetch ``base + name`` into `folder`; verified before it takes its name.

        Raises
        ------
        Unavailable
            No connection, an interrupted one, or other contents.
        """
        address = base + self.name
        host = urllib.parse.urlsplit(base).hostname or base
        with _temporary(folder, self.name) as temporary:
            try:
                _require_resolvable(host)
                with urllib.request.urlopen(address, timeout=CONNECT_SECONDS) as answer, temporary.open("wb") as file:
                    length = answer.headers.get("Content-Length")
                    _copy(answer, file, int(length) if length else None, progress)
            except urllib.error.HTTPError as error:
                raise Unavailable(f"{host} answers {error.code} for {self.name}") from None
            except (OSError, HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                raise Unavailable(f"no complete answer from {host} ({reason})") from None
            try:
                self.read(temporary)
            except Unavailable:
                raise Unavailable(f"{host} sent something else or only a part of {self.name}") from None
            os.replace(temporary, folder / self.name)
        return folder / self.name


def unpack_debian_package(package: str, inside: str, files: tuple[KnownFile, ...], folder: Path) -> None:
    """Take `files` from the folder `inside` of a Debian package of the configured distribution, without root.

    First with the machine's package lists; where those are empty (fresh containers), with lists fetched into a
    temporary folder.

    Raises
    ------
    Unavailable
        Not Debian or Ubuntu, no network, or no such package.
    """
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"not a Debian or Ubuntu machine (no {missing[0]})")
    with tempfile.TemporaryDirectory(prefix="mgdcircuits-") as scratch:
        here = Path(scratch)
        # The user _apt, to which apt drops its rights when run by root, may not write to a private folder.
        common = ["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=10"]
        try:
            _apt([*common, "download", package], here)
        except Unavailable:
            (here / "lists" / "partial").mkdir(parents=True)
            (here / "cache" / "archives" / "partial").mkdir(parents=True)
            private = ["-o", f"Dir::State::Lists={here / 'lists'}", "-o", f"Dir::Cache={here / 'cache'}"]
            _apt([*common, *private, "-o", "Acquire::Languages=none", "update"], here)
            _apt([*common, *private, "download", package], here)
        archives = sorted(here.glob(f"{package}_*.deb"))
        if not archives:
            raise Unavailable(f"apt-get download {package} left no package")
        _run(["dpkg-deb", "-x", str(archives[-1]), str(here / "unpacked")], here)
        for file in files:
            file.install(here / "unpacked" / inside / file.name, folder)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """A bar on stderr if that is a terminal, else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda arrived, total: bar.update(task, completed=arrived, total=total)


def _copy(source: IO[bytes], target: IO[bytes], total: int | None, progress: Progress | None) -> None:
    arrived = 0
    while chunk := source.read(CHUNK):
        target.write(chunk)
        arrived += len(chunk)
        if progress is not None:
            progress(arrived, total)
    if total is not None and arrived != total:
        raise OSError(f"interrupted after {arrived} of {total} bytes")


@contextmanager
def _temporary(folder: Path, name: str) -> Iterator[Path]:
    """A file name in `folder` of this process alone, gone afterwards whatever happened."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
        os.close(handle)
        # mkstemp's 0600 would keep the other users of a shared data folder out.
        os.chmod(path, 0o644)
    except OSError as error:
        raise Unavailable(f"{folder} is not writable ({error.strerror or error})") from None
    try:
        yield Path(path)
    finally:
        Path(path).unlink(missing_ok=True)


def _require_resolvable(host: str) -> None:
    """Fail after CONNECT_SECONDS where no name server answers: socket timeouts do not cover the look-up."""
    if urllib.request.getproxies():
        return  # the proxy looks names up
    outcome: list[OSError | None] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, None)
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not outcome:
        raise OSError("no answer from the name server")
    if outcome[0] is not None:
        raise outcome[0]


def _apt(arguments: list[str], folder: Path) -> None:
    _run(["apt-get", *arguments], folder)


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=APT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} failed ({type(error).__name__})") from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith(("E:", "dpkg"))]
        raise Unavailable(f"{command[0]} failed ({(said or ['no message'])[0]})")
