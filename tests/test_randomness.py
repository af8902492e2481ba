"""Philox: published answers, statistics, and the same numbers in numpy and in C++."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mgdcircuits
from mgdcircuits import randomness as random

INCLUDE = Path(mgdcircuits.__file__).parent / "codegen" / "include"
FLAGS = "-O3 -march=native -std=c++17 -fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp -shared -fPIC"
COMPILER = shutil.which("g++")

KEY = random.site_key(7, "hidden.theta")
COUNTS = (0, 5, 2**32 - 1, 2**40 + 3)

SOURCE = """
#include <mgd/philox.hpp>
using namespace mgd;
typedef unsigned long long u64;
extern "C" {
void words(u64 key, unsigned c0, unsigned c1, u64 count, unsigned* out) {
  const auto w = philox::call(key, c0, c1, count);
  for (int j = 0; j < 4; ++j) out[j] = w.w[j];
}
void scalars(u64 key, unsigned replica, u64 count, long n, double* out, double lam, u64 range) {
  for (long e = 0; e < n; ++e) {
    double* row = out + 6 * e;
    row[0] = bit(key, e, replica, count);
    row[1] = uniform32(key, e, replica, count);
    row[2] = uniform64(key, e, replica, count);
    row[3] = normal(key, e, replica, count);
    row[4] = double(integer(key, e, replica, count, range));
    row[5] = poisson(key, e, replica, count, lam);
  }
}
void permuted(u64 key, u64 n, u64 count, u64* out) {
  for (u64 i = 0; i < n; ++i) out[i] = permutation(key, i, n, count);
}
}
template <class V, class T>
void inside(int what, T* out, long element, const std::uint64_t* keys, const unsigned* replicas, u64 count) {
  if (what == 0) lanes_sign<V>(keys, replicas, element, count).store(out);
  if (what == 1) lanes_uniform<V>(keys, replicas, element, count).store(out);
  if (what == 2) lanes_normal<V>(keys, replicas, element, count).store(out);
  if (what == 3) lanes_poisson<V>(keys, replicas, element, count, V(2.5)).store(out);
}
extern "C" {
#define FILLS(name, T)                                                                                              \\
  void name(int what, T* out, long n, u64 key, u64 count, unsigned replica, long first) {                           \\
    if (what == 0) fill_signs(out, n, key, count, replica, first);                                                  \\
    if (what == 1) fill_uniform(out, n, key, count, replica, first);                                                \\
    if (what == 2) fill_normal(out, n, key, count, replica, first);                                                 \\
  }                                                                                                                 \\
  void name##_lanes(int what, T* out, long n, long lanes, long stride, const std::uint64_t* keys,                   \\
                    const unsigned* replicas, u64 count, long first) {                                              \\
    if (what == 0) fill_signs_lanes(out, n, lanes, stride, keys, replicas, count, first);                           \\
    if (what == 1) fill_uniform_lanes(out, n, lanes, stride, keys, replicas, count, first);                         \\
    if (what == 2) fill_normal_lanes(out, n, lanes, stride, keys, replicas, count, first);                          \\
  }                                                                                                                 \\
  void name##_inside(int what, int width, T* out, long element, const std::uint64_t* keys, const unsigned* replicas,  \\
                     u64 count) {                                                                                   \\
    if (width == 4) inside<Lanes<T, 4>>(what, out, element, keys, replicas, count);                                 \\
    if (width == 8) inside<Lanes<T, 8>>(what, out, element, keys, replicas, count);                                 \\
    if (width == 16) inside<Lanes<T, 16>>(what, out, element, keys, replicas, count);                               \\
  }
FILLS(fill_float, float)
FILLS(fill_double, double)
}
"""


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if COMPILER is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("philox")
    (folder / "philox.cpp").write_text(SOURCE)
    command = [COMPILER, *FLAGS.split(), "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", "philox.cpp", "-o", "philox.so"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:8000]
    return ctypes.CDLL(str(folder / "philox.so"))


def u64(value: int) -> ctypes.c_uint64:
    return ctypes.c_uint64(value)


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


# Random123's kat_vectors, philox4x32 with 10 rounds: counter words, key words, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_published_answers(counter: tuple[int, ...], key: tuple[int, ...], answer: tuple[int, ...], cpp) -> None:
    whole_key, count = key[0] | key[1] << 32, counter[2] | counter[3] << 32
    assert tuple(int(w) for w in random.philox(whole_key, counter[0], counter[1], count)) == answer
    out = np.zeros(4, np.uint32)
    cpp.words(u64(whole_key), ctypes.c_uint(counter[0]), ctypes.c_uint(counter[1]), u64(count), pointer(out))
    assert tuple(out.tolist()) == answer


def test_site_key_is_the_documented_hash() -> None:
    assert random.site_key(7, "a.b") == int.from_bytes(hashlib.blake2b(b"7:a.b").digest()[:8], "little")
    keys = {random.site_key(seed, name) for seed in range(50) for name in ("a", "b", "1:a")}
    assert len(keys) == 150


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("replica", [0, 3, 2**31 + 1])
def test_scalars_agree_with_numpy(cpp, count: int, replica: int) -> None:
    n, lam, top = 1000, 3.7, 12_345
    out = np.zeros((n, 6))
    cpp.scalars(
        u64(KEY), ctypes.c_uint(replica), u64(count), ctypes.c_long(n), pointer(out), ctypes.c_double(lam), u64(top)
    )
    at = (KEY, np.arange(n), replica, count)
    np.testing.assert_array_equal(out[:, 0], random.bit(*at))
    np.testing.assert_array_equal(out[:, 1], random.uniform32(*at))
    np.testing.assert_array_equal(out[:, 2], random.uniform64(*at))
    np.testing.assert_array_max_ulp(out[:, 3], random.normal(*at), 4)
    np.testing.assert_array_equal(out[:, 4], random.integer(*at, top))
    np.testing.assert_array_equal(out[:, 5], random.poisson(*at, lam))


def oracle(what: int, dtype: type, *at: object) -> np.ndarray:
    if what == 0:
        return random.sign(*at, dtype=dtype)
    if what == 1:
        return random.uniform32(*at) if dtype is np.float32 else random.uniform64(*at)
    return random.normal(*at, dtype=dtype)


def compare(what: int, got: np.ndarray, want: np.ndarray) -> None:
    if what == 2:
        np.testing.assert_array_max_ulp(got, want, 4)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("what", range(3), ids=["signs", "uniform", "normal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 31, 128, 1000, 3001])
def test_bulk_of_elements(cpp, what: int, dtype: type, n: int) -> None:
    fill = cpp.fill_float if dtype is np.float32 else cpp.fill_double
    for first, count, replica in ((0, 9, 0), (128 * 3, 2**33 + 1, 4)):
        out = np.full(n + 5, 99, dtype)
        fill(what, pointer(out), ctypes.c_long(n), u64(KEY), u64(count), ctypes.c_uint(replica), ctypes.c_long(first))
        compare(what, out[:n], oracle(what, dtype, KEY, first + np.arange(n), replica, count))
        assert (out[n:] == 99).all()


@pytest.mark.parametrize("what", range(3), ids=["signs", "uniform", "normal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lanes", [1, 16, 37])
def test_bulk_with_replicas_innermost(cpp, what: int, dtype: type, lanes: int) -> None:
    fill = cpp.fill_float_lanes if dtype is np.float32 else cpp.fill_double_lanes
    n, stride, first, count = 133, lanes + 3, 256, 77
    keys = np.array([random.site_key(7, f"site[{lane // 10}]") for lane in range(lanes)], np.uint64)
    replicas = (np.arange(lanes) % 10).astype(np.uint32)  # members of 10 replicas each
    out = np.full((n, stride), 99, dtype)
    sizes = (ctypes.c_long(v) for v in (n, lanes, stride))
    fill(what, pointer(out), *sizes, pointer(keys), pointer(replicas), u64(count), ctypes.c_long(first))
    compare(what, out[:, :lanes], oracle(what, dtype, keys, first + np.arange(n)[:, None], replicas, count))
    assert (out[:, lanes:] == 99).all()


@pytest.mark.parametrize("what", range(4), ids=["signs", "uniform", "normal", "poisson"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [4, 8, 16])
def test_inside_an_equation(cpp, what: int, dtype: type, width: int) -> None:
    draw = cpp.fill_float_inside if dtype is np.float32 else cpp.fill_double_inside
    keys, replicas = np.full(width, KEY, np.uint64), np.arange(width, dtype=np.uint32)
    for element in (0, 1, 6, 131):
        out = np.zeros(width, dtype)
        draw(what, width, pointer(out), ctypes.c_long(element), pointer(keys), pointer(replicas), u64(3))
        at = (keys, element, replicas, 3)
        compare(what, out, random.poisson(*at, 2.5) if what == 3 else oracle(what, dtype, *at))


def test_arguments_broadcast() -> None:
    elements, replicas = np.arange(40)[:, None], np.arange(6)
    for function in (random.bit, random.uniform32, random.uniform64, random.normal):
        table = function(KEY, elements, replicas, 11)
        assert table.shape == (40, 6)
        assert table[33, 4] == function(KEY, 33, 4, 11)


def test_moments() -> None:
    n = 200_000
    at = (KEY, np.arange(n), 0, 1)
    z = random.normal(*at)
    for power, want in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert abs((z**power).mean() - want) < 5 * (z**power).std() / np.sqrt(n)
    for u in (random.uniform32(*at), random.uniform64(*at)):
        assert 0 <= u.min() and u.max() < 1
        assert abs(u.mean(dtype=float) - 0.5) < 5 / np.sqrt(12 * n)
    assert abs(random.sign(*at).mean(dtype=float)) < 5 / np.sqrt(n)
    counted = np.bincount(random.integer(*at, 7), minlength=7)
    assert ((counted - n / 7) ** 2 / (n / 7)).sum() < 30  # chi square, 6 degrees of freedom
    for lam in (0.0, 0.3, 40.0):
        k = random.poisson(*at, lam)
        assert abs(k.mean() - lam) <= 5 * np.sqrt(lam / n)
        assert abs(k.var() - lam) <= 0.03 * lam


def test_poisson_says_nan_beyond_its_limit() -> None:
    means = [-1.0, random.POISSON_MAX_MEAN, random.POISSON_MAX_MEAN + 1, np.nan]
    np.testing.assert_array_equal(np.isnan(random.poisson(KEY, np.arange(4), 0, 0, means)), [True, False, True, True])


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1), count=st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection(n: int, key: int, count: int) -> None:
    np.testing.assert_array_equal(np.sort(random.permutation(key, np.arange(n), n, count)), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 5, 64, 65, 1000])
def test_permutation_agrees_with_cpp(cpp, n: int) -> None:
    out = np.zeros(n, np.uint64)
    cpp.permuted(u64(KEY), u64(n), u64(2**35), pointer(out))
    np.testing.assert_array_equal(out.astype(np.int64), random.permutation(KEY, np.arange(n), n, 2**35))


def test_permutations_of_four_are_about_equally_frequent() -> None:
    orders = random.permutation(KEY, np.arange(4)[:, None], 4, np.arange(24_000))
    _, counted = np.unique(orders, axis=1, return_counts=True)
    assert len(counted) == 24
    assert ((counted - 1000) ** 2 / 1000).sum() < 70  # chi square, 23 degrees of freedom


@pytest.mark.parametrize(("index", "n"), [(5, 5), (-1, 5), (0, 0)])
def test_permutation_refuses_what_lies_outside(index: int, n: int) -> None:
    with pytest.raises(ValueError, match="permutation of range"):
        random.permutation(KEY, index, n)
