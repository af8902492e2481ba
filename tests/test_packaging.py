"""Installing: the two lists of dependencies agree, and bootstrap.py names what a machine lacks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
ONLY_CONDA = {"cxx-compiler", "make", "pip"}


def conda_entries() -> dict[str, SpecifierSet]:
    entries = YAML(typ="safe").load(ROOT / "environment.yml")["dependencies"]
    found = {}
    for entry in entries:
        if isinstance(entry, str):
            name, specifier = re.fullmatch(r"([\w.-]+)(.*)", entry).groups()
            # conda's single = is pip's ==.
            found[canonicalize_name(name)] = SpecifierSet(re.sub(r"^=(?=\d)", "==", specifier))
    return found


def pip_entries(python: str) -> dict[str, SpecifierSet]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["test"]]
    marker = {"python_version": python}
    return {
        canonicalize_name(item.name): item.specifier
        for item in requirements
        if item.marker is None or item.marker.evaluate(marker)
    }


def test_environment_has_the_pins_of_pyproject():
    conda = conda_entries()
    python = str(conda.pop("python")).removeprefix("==")
    assert python in ("3.11", "3.12", "3.13")
    for name in ONLY_CONDA:
        del conda[name]
    assert conda == pip_entries(python)


def test_every_python_has_one_brian2_and_one_numpy():
    assert pip_entries("3.11")["brian2"] == SpecifierSet("==2.9.*")
    assert not pip_entries("3.11")["numpy"].contains("2.4.0")
    assert pip_entries("3.13")["brian2"].contains("2.10.0") and not pip_entries("3.13")["brian2"].contains("2.9.0")


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_ci_runs_make_test():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["set -eu", "make test"]


# --- bootstrap.py ---------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """A folder with bootstrap.py and a project without dependencies, and an empty folder to be the PATH."""
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bootstrap.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "probe"\nversion = "1"\n')
    return tmp_path


def script(checkout: Path, name: str, text: str) -> None:
    path = checkout / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def bootstrap(checkout: Path, python: str = sys.executable, before: str = "", **variables: str):
    """Run bootstrap.py with a PATH of only the scripts; `before` is Python that runs in the same interpreter first."""
    code = f"import runpy, sys\n{before}\nrunpy.run_path('bootstrap.py', run_name='__main__')"
    environment = {"PATH": str(checkout / "bin"), "HOME": str(checkout), **variables}
    done = subprocess.run([python, "-c", code], cwd=checkout, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


OLD_PYTHON = "import collections; sys.version_info = collections.namedtuple('V', 'major minor')(3, 9)"


def test_old_python_is_named(checkout):
    script(checkout, "python3.12", "echo pyenv: command not found >&2; exit 127")
    code, said = bootstrap(checkout, before=OLD_PYTHON)
    assert code == 1 and said.count("\n") == 0
    assert "needs Python 3.11 or newer and found only Python 3.9" in said and "apt install" in said


def test_old_python_hands_over_to_a_newer_one(checkout):
    script(checkout, "python3.12", f'exec {sys.executable} "$@"')
    code, said = bootstrap(checkout, before=OLD_PYTHON)
    assert code == 1 and "C++ compiler" in said


def test_missing_compiler_is_named(checkout):
    code, said = bootstrap(checkout)
    assert code == 1 and said.count("\n") == 0
    assert said.startswith("mgdcircuits: mgdcircuits needs a C++ compiler and found none of c++, g++, clang++ on PATH")
    code, said = bootstrap(checkout, CXX="icpx -O2")
    assert code == 1 and "no program named icpx -O2 (from CXX)" in said


def test_incomplete_compiler_is_named(checkout):
    script(checkout, "c++", "echo 'probe.cpp:1:10: fatal error: omp.h: No such file or directory' >&2; exit 1")
    code, said = bootstrap(checkout)
    assert code == 1 and "cannot build a shared library with OpenMP" in said and "omp.h: No such file" in said


def test_missing_venv_module_is_named(checkout):
    script(checkout, "c++", "exit 0")
    script(checkout, "bare-python", 'case "$2" in *ensurepip*|*virtualenv*) exit 1;; esac; exit 0')
    before = f"sys._base_executable = {str(checkout / 'bin' / 'bare-python')!r}"
    code, said = bootstrap(checkout, before=before)
    assert code == 1 and "neither the venv module with ensurepip nor virtualenv" in said and "python3-venv" in said


PIP_SAYS = {
    "WARNING: Retrying: NewConnectionError: Temporary failure in name resolution": "connect this machine",
    "ERROR: Could not find a version that satisfies the requirement brian2": "connect this machine",
    "x.c:1:10: fatal error: Python.h: No such file or directory": "apt install python3-dev",
    "ERROR: [Errno 28] No space left on device": "disk is full",
    "ERROR: something new": "pip failed (ERROR: something new)",
}


def fake_environment(checkout: Path, pip: str) -> None:
    """A .venv whose python is a script: `pip` is what it does for `pip install`."""
    folder = checkout / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text(
        f'#!/bin/sh\ncase "$*" in -c*) echo 3 11;; *--version) ;; *install*) echo run >> ../runs; {pip};; esac\n'
    )
    (folder / "python").chmod(0o755)
    script(checkout, "c++", "exit 0")


@pytest.mark.parametrize("said_by_pip", PIP_SAYS)
def test_failures_of_pip_become_one_sentence(checkout, said_by_pip):
    fake_environment(checkout, f"echo '{said_by_pip}' >&2; exit 1")
    code, said = bootstrap(checkout)
    assert code == 1 and said.count("\n") == 0
    assert PIP_SAYS[said_by_pip] in said and "mgdcircuits-install.log" in said
    assert not (checkout / ".venv" / "mgdcircuits-stamp.json").exists()


def test_a_second_call_does_nothing_until_pyproject_changes(checkout):
    fake_environment(checkout, "echo 'WARNING: running as root' >&2")
    runs = checkout.parent / "runs"
    runs.unlink(missing_ok=True)
    assert bootstrap(checkout) == (0, "")
    assert bootstrap(checkout) == (0, "") and runs.read_text().count("run") == 1
    os.utime(checkout / "pyproject.toml")
    assert bootstrap(checkout) == (0, "") and runs.read_text().count("run") == 1, "times do not matter, contents do"
    (checkout / "pyproject.toml").write_text('[project]\nname = "probe"\nversion = "2"\n')
    assert bootstrap(checkout) == (0, "") and runs.read_text().count("run") == 2
    stamp = checkout / ".venv" / "mgdcircuits-stamp.json"
    assert json.loads(stamp.read_text())["folder"] == str(checkout)


@pytest.mark.parametrize("target", ["setup", "test", "run"])
def test_make_without_python_says_so(checkout, target):
    make, shell = shutil.which("make"), shutil.which("sh")
    if make is None:
        pytest.skip("no make")
    shutil.copy(ROOT / "Makefile", checkout)
    os.symlink(shell, checkout / "bin" / "sh")
    done = subprocess.run(
        [make, target], cwd=checkout, env={"PATH": str(checkout / "bin")}, capture_output=True, text=True
    )
    assert done.returncode and "needs Python 3.11 or newer and found no python3 on PATH" in done.stderr
