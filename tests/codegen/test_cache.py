"""The cache of compiled circuits: its key, several writers, killed compilations, its bound; and the builds."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mgdcircuits import Session, load
from mgdcircuits.codegen import cache, compiler
from mgdcircuits.errors import BuildError

SMALL_CONV = Path(__file__).parent.parent / "netlists" / "valid" / "small_conv.yaml"
SOURCE = 'extern "C" int answer() {{ return {}; }}'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MGDCIRCUITS_CACHE", str(tmp_path))
    return tmp_path


def libraries(folder: Path) -> set[str]:
    return {p.name for p in folder.glob("*.so")}


def test_the_key_is_everything_that_matters(folder, monkeypatch):
    assert compiler.library([SOURCE.format(1)]).answer() == 1
    assert len(libraries(folder)) == 1
    assert compiler.library([SOURCE.format(1)]).answer() == 1
    assert len(libraries(folder)) == 1
    assert compiler.library([SOURCE.format(2)]).answer() == 2
    assert len(libraries(folder)) == 2
    monkeypatch.setenv("MGDCIRCUITS_BUILD", "generic")
    compiler.library([SOURCE.format(1)])
    assert len(libraries(folder)) == 3
    monkeypatch.delenv("MGDCIRCUITS_BUILD")
    for name, value in (
        ("_version", lambda command: "another"),
        ("_headers", lambda: "x"),
        ("_processor", lambda: "y"),
    ):
        before = len(libraries(folder))
        with monkeypatch.context() as patch:
            patch.setattr(compiler, name, value)
            compiler.library([SOURCE.format(1)])
        assert len(libraries(folder)) == before + 1, name


def test_an_unknown_build(folder, monkeypatch):
    monkeypatch.setenv("MGDCIRCUITS_BUILD", "fast")
    with pytest.raises(BuildError, match="MGDCIRCUITS_BUILD=fast: expected one of native, generic, plain"):
        compiler.library([SOURCE.format(1)])


def test_pieces(folder, netlists, monkeypatch):
    """A circuit compiled in several pieces computes the same."""
    found = []
    for pieces in (1, 3):
        monkeypatch.setenv("MGDCIRCUITS_COMPILERS", str(pieces))
        session = Session(load(netlists / "xor.yaml"), seed=3, batch=4)
        assert len(session.target._main.sources) == pieces
        session.present(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0]))
        session.step(5)
        parameters = {name: value.copy() for name, value in session.parameters.items()}
        found.append({"cost": session.cost(), **session.exact_gradient(), **parameters})
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    monkeypatch.setenv("MGDCIRCUITS_COMPILERS", "0")
    with pytest.raises(BuildError, match="MGDCIRCUITS_COMPILERS=0: expected how many"):
        compiler.parts()


def _answer(number: int) -> int:
    return compiler.library([SOURCE.format(number)]).answer()


def test_several_writers(folder):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(_answer, [7] * 8) == [7] * 8
    assert len(libraries(folder)) == 1
    assert not list(folder.glob("build-*"))


def test_a_killed_compilation(folder):
    slow = folder / "slow"
    slow.write_text('#!/bin/sh\ncase "$*" in *--version*) echo slow; exit;; esac\nsleep 30\n')
    slow.chmod(0o755)
    code = "from mgdcircuits.codegen import compiler; compiler.library(['int x;'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "CXX": str(slow)}, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("build-*/*.cpp")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (left,) = folder.glob("build-*")
    assert compiler.library([SOURCE.format(3)]).answer() == 3  # neither blocked nor confused by what is left
    os.utime(left, (0, 0))
    compiler.library([SOURCE.format(4)])
    assert not left.exists()


def test_the_cache_is_bounded(folder, monkeypatch):
    compiler.library([SOURCE.format(0)])
    size = cache.info().bytes
    monkeypatch.setenv("MGDCIRCUITS_CACHE_BYTES", str(size * 3.5))
    for number in range(1, 6):
        for age, path in enumerate(sorted(folder.glob("*.so"), key=lambda p: p.stat().st_mtime, reverse=True)):
            os.utime(path, (time.time() - 100 * (age + 1),) * 2)
        compiler.library([SOURCE.format(number)])
    assert cache.info().libraries == 3
    before = libraries(folder)
    assert compiler.library([SOURCE.format(5)]).answer() == 5  # the youngest are there
    assert libraries(folder) == before


def test_a_bound_that_is_no_number(folder, monkeypatch):
    monkeypatch.setenv("MGDCIRCUITS_CACHE_BYTES", "much")
    with pytest.raises(BuildError, match="MGDCIRCUITS_CACHE_BYTES=much: expected a number of bytes"):
        compiler.library([SOURCE.format(1)])


def test_a_damaged_library(folder):
    compiler.library([SOURCE.format(1)])
    (path,) = folder.glob("*.so")
    path.unlink()  # not in place: this process has the old one loaded
    path.write_bytes(b"garbage")
    code = f"from mgdcircuits.codegen import compiler; compiler.library([{SOURCE.format(1)!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot be loaded" in done.stderr and "try again after `mgdcircuits cache clear`" in done.stderr


def test_info_and_clear(folder):
    compiler.library([SOURCE.format(1)])

    def call(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "mgdcircuits", "cache", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call("info").startswith("1 compiled circuit, ")
    assert call("clear").startswith("removed 1 compiled circuit ")
    assert call("info").startswith("0 compiled circuits, ")
    assert compiler.library([SOURCE.format(2)]).answer() == 2


def test_nothing_recompiles_for_another_number(folder, netlists):
    options = {"batch": 4, "data": "xor"}
    Session(load(netlists / "xor.yaml"), seed=1, threads=1, **options).step(1)
    before = libraries(folder)
    Session(load(netlists / "xor.yaml", eta=0.02, norm=0.01), seed=9, threads=2, **options).step(1)
    Session(load(netlists / "xor.yaml", tau_theta="3*iteration"), seed=9, **options).step(1)
    assert libraries(folder) == before


COMPILERS = ["", "clang++", "clang++-14", "g++-11", "g++-13", "g++-14"]  # "": the one that is taken by default


@pytest.mark.parametrize("build", ["native", "generic", "plain"])
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-9)])
def test_builds_agree(build, compiler, dtype, tolerance, monkeypatch):
    """Every build of every compiler that is there, at a batch with whole lane blocks and few replicas, and online."""
    if not compiler and build == "native":
        pytest.skip("it is what others are compared with")
    if compiler and shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    circuit = load(SMALL_CONV, side=6, channels=3)
    rng = np.random.default_rng(0)

    def run(batch: int) -> dict[str, np.ndarray]:
        session = Session(circuit, seed=3, batch=batch, dtype=dtype)
        session.present(rng.random((batch, 1, 6, 6)), rng.integers(0, 4, batch))
        session.step(5)
        return {name: np.array(value) for name, value in session.parameters.items()}

    for batch in (20, 1) if compiler else (20,):
        rng = np.random.default_rng(batch)
        native = run(batch)
        with monkeypatch.context() as changed:
            changed.setenv("MGDCIRCUITS_BUILD", build)
            if compiler:
                changed.setenv("CXX", compiler)
            rng = np.random.default_rng(batch)
            for name, value in run(batch).items():
                assert np.linalg.norm(value - native[name]) <= tolerance * np.linalg.norm(native[name]), name
