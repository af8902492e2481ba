#!/usr/bin/env python3
"""Make `.venv` with everything mgdcircuits needs, or say in one sentence what is missing on this machine.

`make` calls it before every target. It does nothing when `.venv` already fits (same pyproject.toml, same folder).
Standard library only, and no syntax newer than Python 3.6, because it runs under whatever `python3` is and may hand
over to a newer interpreter that it finds on PATH.

Python's own headers are not checked: Brian2 comes as a wheel, and Brian2's Cython target, which compiles against
Python.h at run time, is not used by mgdcircuits (its C++ is a plain shared library). Only where pip has to build some
package from source does a missing Python.h matter; then it is named.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "mgdcircuits-stamp.json"
LOG = VENV / "mgdcircuits-install.log"
OLDEST = (3, 11)
NEWER_PYTHONS = ("python3.13", "python3.12", "python3.11")

NO_REGISTRY = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Network is unreachable"
    r"|Temporary failure in name resolution|Name or service not known|Could not find a version"
    r"|No matching distribution|Connection (refused|reset|broken|aborted)|[45]\d\d (Client|Server) Error"
)


class Missing(Exception):
    """Something this machine lacks, as one sentence that says how to get it."""


def version_of(python):
    """(major, minor) of an interpreter, None if it does not run (pyenv's shims exist without one behind them)."""
    command = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=True).stdout
        major, minor = out.decode().split()
        return int(major), int(minor)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def find_python():
    """This interpreter if it is new enough, else a newer one on PATH."""
    if sys.version_info[:2] >= OLDEST:
        # Where make runs inside another environment, the base interpreter outlives it.
        return getattr(sys, "_base_executable", None) or sys.executable
    for name in NEWER_PYTHONS:
        found = shutil.which(name)
        if found and (version_of(found) or (0, 0)) >= OLDEST:
            return found
    raise Missing(
        "mgdcircuits needs Python 3.11 or newer and found only Python {}.{} ({}): install a newer one "
        "(Debian/Ubuntu: apt install python3.11 python3.11-venv), or name it with make PYTHON=...".format(
            sys.version_info[0], sys.version_info[1], sys.executable
        )
    )


def check_compiler():
    """Build a one-line shared library with OpenMP, which is what mgdcircuits does with every circuit."""
    chosen = os.environ.get("CXX", "").strip()
    candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    candidates = [command for command in candidates if shutil.which(command[0])]
    if not candidates:
        raise Missing(
            "mgdcircuits needs a C++ compiler and found {}: install one (Debian/Ubuntu: apt install g++; "
            "Fedora: dnf install gcc-c++), or set CXX to its name.".format(
                "no program named " + chosen + " (from CXX)" if chosen else "none of c++, g++, clang++ on PATH"
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text('#include <vector>\n#include <omp.h>\nextern "C" int f() { return omp_get_max_threads(); }\n')
        for command in candidates:
            arguments = ["-std=c++17", "-O1", "-fopenmp", "-shared", "-fPIC", str(source), "-o", str(source) + ".so"]
            done = subprocess.run(command + arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode == 0:
                return
    raise Missing(
        "The C++ compiler {} cannot build a shared library with OpenMP ({}): install a complete one "
        "(Debian/Ubuntu: apt install g++; with clang also libomp-dev), or set CXX.".format(
            shlex.join(command) if hasattr(shlex, "join") else " ".join(command), first_error(done.stdout)
        )
    )


def first_error(output):
    """The line of a tool's output that says what is wrong."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "cannot" in line.lower()]
    return (telling or lines or ["no message"])[0][:300]


def make_environment(python):
    """Create `.venv`, with venv where it works and virtualenv where Debian has split ensurepip off."""
    inside = VENV / "bin" / "python"
    if (version_of(inside) or (0, 0)) >= OLDEST and runs(inside, "-m", "pip", "--version"):
        return inside
    if VENV.exists():
        shutil.rmtree(str(VENV))
    if runs(python, "-c", "import venv, ensurepip"):
        command = [python, "-m", "venv", str(VENV)]
    elif runs(python, "-c", "import virtualenv"):
        command = [python, "-m", "virtualenv", "--quiet", str(VENV)]
    else:
        raise Missing(
            "Python at {} has neither the venv module with ensurepip nor virtualenv: install one "
            "(Debian/Ubuntu: apt install python3-venv).".format(python)
        )
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Missing(
            "{} could not make {} ({}): check that the folder is writable and that the disk is not full.".format(
                python, VENV.name, first_error(done.stdout)
            )
        )
    return inside


def runs(*command):
    quiet = subprocess.DEVNULL
    try:
        return subprocess.run([str(word) for word in command], stdout=quiet, stderr=quiet).returncode == 0
    except OSError:
        return False


def install(python):
    """pip install of this folder with its test extra. Warnings of pip go to the log and decide nothing."""
    print("mgdcircuits: installing what it needs into .venv (once, about a minute) ...", flush=True)
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2"]
    with LOG.open("wb") as log:
        code = subprocess.run(
            command + ["--editable", ".[test]"], cwd=str(ROOT), stdout=log, stderr=subprocess.STDOUT
        ).returncode
    if code == 0:
        return
    output = LOG.read_bytes()
    text = output.decode(errors="replace")
    log_name = LOG.relative_to(ROOT)
    if "Python.h" in text:
        raise Missing(
            "pip had to compile a package and did not find Python's headers (Python.h): install them "
            "(Debian/Ubuntu: apt install python3-dev); the log is {}.".format(log_name)
        )
    if "No space left on device" in text:
        raise Missing("The disk is full: free about 1 GB and run make again; the log is {}.".format(log_name))
    if NO_REGISTRY.search(text):
        raise Missing(
            "pip could not fetch the packages that pyproject.toml names: connect this machine to the network (or set "
            "pip's proxy or index) and run make again; the log is {}.".format(log_name)
        )
    raise Missing("pip failed ({}): the log is {}.".format(first_error(output), log_name))


def wanted_stamp():
    """What `.venv` was made from; the folder too, since the editable install of a moved checkout points astray."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "bootstrap.py"):
        digest.update((ROOT / name).read_bytes())
    return {"sha256": digest.hexdigest(), "folder": str(ROOT)}


def is_current(wanted):
    try:
        return json.loads(STAMP.read_text()) == wanted and version_of(VENV / "bin" / "python") is not None
    except (OSError, ValueError):
        return False


def main():
    try:
        wanted = wanted_stamp()
        if is_current(wanted):
            return 0
        python = find_python()
        check_compiler()
        inside = make_environment(python)
        install(inside)
        STAMP.write_text(json.dumps(wanted))
    except Missing as missing:
        print("mgdcircuits: {}".format(missing), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
