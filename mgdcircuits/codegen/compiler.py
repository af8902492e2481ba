"""From C++ text to a loaded shared library, cached by everything that went into it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache as once
from pathlib import Path

from mgdcircuits.codegen import cache
from mgdcircuits.errors import BuildError

INCLUDE = Path(__file__).parent / "include"
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fopenmp",
    "-fPIC",
    "-w",
    "-Wno-psabi",
)


# What a library is made for: this processor; any x86-64 (or other) processor; this processor without its intrinsics.
BUILDS = {"native": ("-march=native",), "generic": (), "plain": ("-march=native", "-DMGD_PLAIN")}


def flags() -> tuple[str, ...]:
    """Compiler flags of the build that MGDCIRCUITS_BUILD names; native where it is not set.

    Raises
    ------
    BuildError
        There is no such build.
    """
    build = os.environ.get("MGDCIRCUITS_BUILD", "native")
    if build not in BUILDS:
        raise BuildError(f"MGDCIRCUITS_BUILD={build}: expected one of {', '.join(BUILDS)}")
    return (*FLAGS, *BUILDS[build])


@once
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


@once
def _version(command: tuple[str, ...]) -> str:
    return subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout


@once
def _headers() -> str:
    digest = hashlib.sha256()
    for path in sorted(INCLUDE.rglob("*.hpp")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@once
def _processor() -> str:
    """What -march=native depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith("flags")), "")


def parts() -> int:
    """Translation units that are compiled side by side: as MGDCIRCUITS_COMPILERS says, else one a core, at most four.

    Raises
    ------
    BuildError
        It does not say a number of at least one.
    """
    named = os.environ.get("MGDCIRCUITS_COMPILERS")
    if named is None:
        return max(1, min(4, os.cpu_count() or 1))
    if not named.isdecimal() or int(named) < 1:
        raise BuildError(f"MGDCIRCUITS_COMPILERS={named}: expected how many compilers may run side by side, 1 or more")
    return int(named)


def library(sources: Sequence[str]) -> ctypes.CDLL:
    """Compile and load; sources that were compiled before are only loaded.

    Raises
    ------
    BuildError
        No compiler, a compiler error, or no place to write.
    """
    # Idle OpenMP threads spin by default; on a machine that others use too they then wait for each other's time slices.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    command = compiler()
    key = (*sources, _headers(), " ".join(command), _version(command), " ".join(flags()), _processor())
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
    path = cache.library(name, lambda folder, path: _compile(command, sources, folder, path))
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(
            f"the compiled circuit cannot be loaded ({error}); try again after `mgdcircuits cache clear`"
        ) from None


def _compile(command: tuple[str, ...], sources: Sequence[str], folder: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=cache.BUILDING) as work:
        running = []
        for number, source in enumerate(sources):
            text = Path(work) / f"circuit{number}.cpp"
            text.write_text(source)
            made = text.with_suffix(".o")
            call = [*command, *flags(), f"-I{INCLUDE}", "-c", str(text), "-o", str(made)]
            running.append((made, subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)))
        errors = [process.communicate()[1] for _, process in running]
        failed = [e for e, (_, process) in zip(errors, running, strict=True) if process.returncode != 0]
        library = Path(work) / "circuit.so"
        if not failed:
            call = [*command, *flags(), "-shared", *(str(made) for made, _ in running), "-o", str(library)]
            linked = subprocess.run(call, capture_output=True, text=True, check=False)
            if linked.returncode == 0:
                os.replace(library, path)
                return
            failed = [linked.stderr]
        kept = folder / f"{path.stem}.failed.cpp"
        kept.write_text("\n".join(sources))
        first = next((line for line in failed[0].splitlines() if "error" in line), failed[0][-300:])
        raise BuildError(f"the C++ compiler refused the generated code: {first.strip()} (source kept in {kept})")
