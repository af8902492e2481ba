"""From C++ text to a loaded shared library, cached by everything that went into it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import platformdirs
from filelock import FileLock

from mgdcircuits.errors import BuildError

INCLUDE = Path(__file__).parent / "include"
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-w",
)


@cache
def compiler() -> tuple[str, ...]:
    """The C++ compiler: the environment's CXX, else the first of c++, g++, clang++.

    Raises
    ------
    BuildError
        There is none.
    """
    named = os.environ.get("CXX")
    candidates = [shlex.split(named)] if named else [["c++"], ["g++"], ["clang++"]]
    for candidate in candidates:
        if candidate and shutil.which(candidate[0]):
            return tuple(candidate)
    tried = named or "c++, g++, clang++"
    raise BuildError(
        f"no C++ compiler was found ({tried}); install g++ or clang++, or set CXX, or use the numpy target (--target numpy)"
    )


@cache
def _version(command: tuple[str, ...]) -> str:
    return subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout


@cache
def _headers() -> str:
    digest = hashlib.sha256()
    for path in sorted(INCLUDE.rglob("*.hpp")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _processor() -> str:
    """What -march=native depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith("flags")), "")


def cache_folder() -> Path:
    """Where compiled circuits are kept: MGDCIRCUITS_CACHE, else the user's cache."""
    named = os.environ.get("MGDCIRCUITS_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("mgdcircuits")) / "compiled"


def library(source: str) -> ctypes.CDLL:
    """Compile and load; a source that was compiled before is only loaded.

    Raises
    ------
    BuildError
        No compiler, a compiler error, or no place to write.
    """
    command = compiler()
    parts = (source, _headers(), " ".join(command), _version(command), " ".join(FLAGS), _processor())
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    folder = cache_folder()
    path = folder / f"{name}.so"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{name}.lock"):
                if not path.exists():
                    _compile(command, source, folder, path)
        except OSError as error:
            raise BuildError(f"{folder}: cannot keep the compiled circuit: {error.strerror or error}") from None
    return ctypes.CDLL(str(path))


def _compile(command: tuple[str, ...], source: str, folder: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as work:
        text = Path(work) / "circuit.cpp"
        text.write_text(source)
        made = Path(work) / "circuit.so"
        run = subprocess.run(
            [*command, *FLAGS, f"-I{INCLUDE}", str(text), "-o", str(made)], capture_output=True, text=True, check=False
        )
        if run.returncode != 0:
            kept = folder / f"{path.stem}.failed.cpp"
            kept.write_text(source)
            first = next((line for line in run.stderr.splitlines() if "error" in line), run.stderr[-300:])
            raise BuildError(f"the C++ compiler refused the generated code: {first.strip()} (source kept in {kept})")
        os.replace(made, path)
