"""The C++ runtime headers against numpy: lanes, functions and topologies, driven through ctypes.

Two small shared libraries are compiled side by side. The oracles are numpy in higher precision (functions) and a plain
list of edges written down by Python loops (topologies); topology data are small integers, so that sums are exact and
compare equal whatever their order. Order itself is tested on reals, bit by bit.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mgdcircuits

INCLUDE = Path(mgdcircuits.__file__).parent / "codegen" / "include"
FLAGS = "-O3 -march=native -std=c++17 -fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp -shared -fPIC"
WARNINGS = "-Wall -Wextra -Werror"
COMPILER = shutil.which("g++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++")

# ---- what is compiled ------------------------------------------------------------------------------------------------

FUNCTIONS = {  # name: (numpy name, allowed ulp for float, for double)
    "exp": ("exp", 1.0, 1.0),
    "expm1": ("expm1", 2.0, 2.0),
    "exprel": (None, 1.0, 3.5),
    "log": ("log", 1.0, 1.0),
    "log1p": ("log1p", 2.0, 2.0),
    "log10": ("log10", 1.0, 2.0),
    "sqrt": ("sqrt", 0.5, 0.5),
    "sin": ("sin", 1.0, 2.0),
    "cos": ("cos", 1.0, 2.0),
    "tan": ("tan", 1.0, 1.0),
    "sinh": ("sinh", 2.0, 2.0),
    "cosh": ("cosh", 2.0, 2.0),
    "tanh": ("tanh", 2.5, 2.5),
    "sigmoid": (None, 2.0, 2.0),
    "arcsin": ("arcsin", 1.0, 1.0),
    "arccos": ("arccos", 1.0, 1.0),
    "arctan": ("arctan", 1.0, 1.0),
    "floor": ("floor", 0.0, 0.0),
    "ceil": ("ceil", 0.0, 0.0),
    "abs": ("abs", 0.0, 0.0),
    "sign": ("sign", 0.0, 0.0),
}

# Each as a user writes it; Brian2 prints it, C++ computes it in lanes and plain, numpy evaluates it (as the second text
# where numpy needs other words for and, or, not).
EXPRESSIONS = {
    "tanh(x*2.0 + y)": "",
    "1/(1 + exp(-x))": "",
    "x**2 + y**3 - x**-1": "",
    "abs(x)**0.5 + exp(x)**1.5": "",
    "2**x": "",
    "x/3 + y/(x*x + 1)": "",
    "int(x > 0)*(y - 1.5) + int(x < y and y < 1)": "(x > 0)*(y - 1.5) + ((x < y) & (y < 1))",
    "(x > 0)*2.0 + (1 - (x > y))": "",
    "int(x > 0 or not (y > 0))*x": "((x > 0) | ~(y > 0))*x",
    "int(not (x == y))": "1.0*(x != y)",
    "int(3.7*x) + sign(x)*floor(y) - ceil(x)": "",
    "clip(x, -1, 0.5) + clip(0.25, x, y*y + 10)": "",
    "(3*x) % 2 + (3*x) % (-2)": "",
    "(5*x) // 2 + y // (x*x + 0.5)": "",
    "sinh(x/0.7)*y + cosh(y) + log(x*x + 1) + log10(y*y + 2) + log1p(abs(x)) + expm1(y) + exprel(x)": "",
    "sin(3*x) + cos(y) + tan(x/4) + arctan(y) + arcsin(x/10) + arccos(y/10) + sqrt(abs(x))": "",
    "x*shared + 1e-3*whole - 7 % whole + 7 // whole + whole/2": "",
}
STEPS = ("%", "//", "floor", "int(3.7")  # in float the step falls elsewhere: compared in double only

MATH_SOURCE = """
#include <math.h>
#include <algorithm>
#include <mgd/lanes.hpp>
namespace mgd_generated {
template <class V> V by_name(int which, V x) {
  switch (which) { %(cases)s }
  return x;
}
template <class V> V expression(int which, V x, V y, float shared, int whole) {
  switch (which) { %(expressions)s }
  return x;
}
// A coupling of plain numbers of every kind: which overload is taken must be ours and unambiguous.
double plain_numbers(double d, float f, int n, bool b) {
  static_assert(std::is_same<decltype(tanh(f)), float>::value, "float stays float");
  static_assert(std::is_same<decltype(tanh(d)), double>::value, "double stays double");
  static_assert(std::is_same<decltype(tanh(n)), double>::value, "integers compute in double");
  static_assert(std::is_same<decltype(abs(n)), int>::value, "abs keeps integers");
  static_assert(std::is_same<decltype(_brian_pow(f, 2)), float>::value, "float power");
  static_assert(std::is_same<decltype(_brian_mod(n, 3)), int>::value, "integer remainder");
  static_assert(std::is_same<decltype(mgd::Lanes<float, 4>(1) * 2.5), mgd::Lanes<float, 4>>::value, "no promotion");
  return tanh(d) + tanh(f) + tanh(n) + abs(d) + abs(f) + abs(n) +
         exp(f) + exp(d) + log(d) + sqrt(f) + floor(f) +
         ceil(d) + sinh(d) + cosh(f) + sin(d) + min(d, n) + max(f, 2) + clip(n, 0.5, 1.5) + int_(b) + int_(d > 0) +
         _brian_mod(-n, 3) + _brian_floordiv(-n, 2) + _brian_pow(d, n) + where(b, d, 1) + sign(f) + sign(n);
}
}  // namespace mgd_generated
using namespace mgd;
template <class T, int W> void over(int kind, int which, const T* x, const T* y, T* z, long n) {
  using V = Lanes<T, W>;
  for (long i = 0; i + W <= n; i += W) {
    const V a = V::load(x + i), b = V::load(y + i);
    const V c = kind == 0 ? mgd_generated::by_name<V>(which, a)
                          : mgd_generated::expression<V>(which, a, b, 0.75f, 3);
    c.store(z + i);
  }
}
template <class T> void dispatch(int W, int kind, int which, const T* x, const T* y, T* z, long n) {
  switch (W) {
    case 0:
      for (long i = 0; i < n; ++i)
        z[i] = kind == 0 ? mgd_generated::by_name<T>(which, x[i])
                         : mgd_generated::expression<T>(which, x[i], y[i], 0.75f, 3);
      break;
    case 1: over<T, 1>(kind, which, x, y, z, n); break;
    case 4: over<T, 4>(kind, which, x, y, z, n); break;
    case 16: over<T, 16>(kind, which, x, y, z, n); break;
  }
}
extern "C" void lanes_float(int W, int kind, int which, const float* x, const float* y, float* z, long n) {
  dispatch(W, kind, which, x, y, z, n);
}
extern "C" void lanes_double(int W, int kind, int which, const double* x, const double* y, double* z, long n) {
  dispatch(W, kind, which, x, y, z, n);
}
extern "C" double plain_numbers(double d, float f, int n, bool b) { return mgd_generated::plain_numbers(d, f, n, b); }
extern "C" int masks() {
  using V = Lanes<float, 4>;
  using M = Mask<float, 4>;
  const float data[5] = {0, 1, 2, 3, 4};
  const V x = V::load(data + 1);  // unaligned
  int ok = 1;
  ok &= sum_lanes(where(x > 2, x, 0)) == 7;
  ok &= sum_lanes(where(x > 2 && x < 4, 1, 2.0)) == 7;
  ok &= any(x > 3) && !all(x > 3) && !any(!(x > 0));
  ok &= sum_lanes(V(M::first(3))) == 3;
  ok &= all((x > 2) == (x >= 3)) && sum_lanes(-(x > 2)) == -2 && sum_lanes((x > 2) * (x > 3)) == 1;
  ok &= all((x > 9) || true) && !any((x > 0) && false);
  V y = 1.5; y += x; y -= 1; y *= 2; y /= x;
  ok &= y[0] == 3.0f && y[3] == 2.25f;
  y.set(2, 9); ok &= y[2] == 9;
  ok &= all(_brian_pow(x * 1.1f, 2) == x * 1.1f * (x * 1.1f));
  ok &= std::signbit(V(-0.0)[1]) && std::isnan(min(V(NAN), 1)[0]) && std::isnan(max(1.0, V(NAN))[0]);
  return ok;
}
"""

TOPOLOGY_SOURCE = """
#include <mgd/conv2d.hpp>
#include <mgd/dense.hpp>
#include <mgd/layout.hpp>
#include <mgd/one_to_one.hpp>
#include <mgd/pool2d.hpp>
#include <mgd/sparse.hpp>
using namespace mgd;
enum Walk { GATHER, GATHER_MAX, TO_PRE, TO_PARAMETER, FIRST_WINNER, GATHER_FEW, GATHER_MAX_FEW };
struct Call { int walk, threads; Index begin, end, R, n_pre, n_post; const void *w, *x, *z; void* out; };
template <class T, int W, class Topology> void walk(const Topology& t, const Call& c) {
  using V = Lanes<T, W>;
  const T *w = static_cast<const T*>(c.w), *x = static_cast<const T*>(c.x), *z = static_cast<const T*>(c.z);
  T* out = static_cast<T*>(c.out);
  const Index R = c.R;
  const auto f = [=](Index syn, Index pre, Index post, Index block) {
    return (w[syn] * V::load(z + post * R + block * W)) * V::load(x + pre * R + block * W);
  };
  const auto store = [=](Index unit, Index block, V acc) { acc.store(out + unit * R + block * W); };
  const auto add = [=](Index syn, V acc) { acc.store(out + syn * W); };
  switch (c.walk) {
    case GATHER:
      for (Index block = 0; block < c.end; ++block) t.template gather<V>(c.threads, block, f, store);
      break;
    case GATHER_MAX:
      if constexpr (W == 16 && sizeof(T) == 4)
        for (Index block = 0; block < c.end; ++block) t.template gather_max<V>(c.threads, block, f, store);
      break;
    case TO_PRE: t.template to_pre<V>(c.threads, c.end, f, store); break;
    case TO_PARAMETER: t.template to_parameter<V>(c.threads, c.begin, c.end, f, add); break;
  }
}
// One lane block of few replicas, where vectors hold several units: B = 1, or the last block of B = 20.
template <int B, class Topology> void few(const Topology& t, const Call& c) {
  using Y = Layout<float, B == 1 ? 1 : 16, 1, B>;
  const auto *w = static_cast<const float*>(c.w), *x = static_cast<const float*>(c.x), *z = static_cast<const float*>(c.z);
  auto* out = static_cast<float*>(c.out);
  const auto f = [=, &c](auto syn, auto pre, auto post, auto block) {
    return (Y::mem(w, syn, block) * Y::rep(z, c.n_post, post, block)) * Y::rep(x, c.n_pre, pre, block);
  };
  const auto store = [=, &c](auto post, auto block, auto acc) { Y::put(out, c.n_post, post, block, acc); };
  const Few last{Y::NB - 1};
  if (c.walk == GATHER_FEW) mgd::gather<Y, false>(t, c.threads, last, f, store);
  if (c.walk == GATHER_MAX_FEW) mgd::gather<Y, true>(t, c.threads, last, f, store);
}
template <class T, int W, class Pool> void first_winner(const Call& c) {
  using V = Lanes<T, W>;
  const T *x = static_cast<const T*>(c.x), *z = static_cast<const T*>(c.z);
  T* out = static_cast<T*>(c.out);
  const Index R = c.R;
  Pool::template to_pre_first_winner<V>(
      c.threads, c.end, [=](Index pre, Index block) { return V::load(x + pre * R + block * W); },
      [=](Index, Index, Index post, Index block) { return V::load(z + post * R + block * W); },
      [=](Index pre, Index block, V acc) { acc.store(out + pre * R + block * W); });
}
template <bool all, class Topology> void lanes(int is_double, int W, const Topology& t, const Call& c) {
  if (c.walk == GATHER_FEW || c.walk == GATHER_MAX_FEW) return W == 1 ? few<1>(t, c) : few<20>(t, c);
  const int kind = is_double * 100 + W;
  if (kind == 16) walk<float, 16>(t, c);
  if (kind == 104) walk<double, 4>(t, c);
  if constexpr (all) {
    if (kind == 1) walk<float, 1>(t, c);
    if (kind == 4) walk<float, 4>(t, c);
    if (kind == 101) walk<double, 1>(t, c);
    if (kind == 116) walk<double, 16>(t, c);
  }
}
%(functions)s
extern "C" void sparse(int is_double, int W, Call* c, Sparse* s) {
  with_team(c->threads, 1e9, [&] { lanes<true>(is_double, W, *s, *c); });
}
extern "C" int has_fma() {
#ifdef __FMA__
  return 1;
#else
  return 0;
#endif
}
"""


def cpp_expression(expression: str) -> str:
    from brian2.parsing.rendering import CPPNodeRenderer
    from brian2.utils.stringtools import word_substitute

    names = {"int": "int_", "abs": "_brian_abs", "clip": "_clip", "sign": "_sign", "exprel": "_exprel"}
    names |= {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    return CPPNodeRenderer().render_expr(word_substitute(expression, names))


def math_source() -> str:
    cases = "".join(f"case {i}: return {name}(x);\n" for i, name in enumerate(FUNCTIONS))
    expressions = "".join(f"case {i}: return {cpp_expression(e)};\n" for i, e in enumerate(EXPRESSIONS))
    return MATH_SOURCE % {"cases": cases, "expressions": expressions}


# ---- topologies and their edges --------------------------------------------------------------------------------------

Edges = NDArray[np.int64]  # rows of (synapse, pre, post), in the order a post unit sums them


@dataclass(frozen=True)
class Conv:
    c_in: int
    h_in: int
    w_in: int
    c_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def out(self) -> tuple[int, int]:
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                (self.h_in, self.w_in), self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )

    @property
    def cpp(self) -> str:
        h, w = self.out
        numbers = (self.c_in, self.h_in, self.w_in, self.c_out, h, w, *self.kernel, *self.stride, *self.padding)
        return f"Conv2d<{', '.join(map(str, (*numbers, *self.dilation, self.groups)))}>"

    @property
    def sizes(self) -> tuple[int, int, int]:
        h, w = self.out
        synapses = self.c_out * self.c_in // self.groups * self.kernel[0] * self.kernel[1]
        return self.c_in * self.h_in * self.w_in, self.c_out * h * w, synapses

    def edges(self) -> Iterator[tuple[int, int, int]]:
        (h, w), (kh, kw) = self.out, self.kernel
        i_group, o_group = self.c_in // self.groups, self.c_out // self.groups
        for oc, oy, ox in np.ndindex(self.c_out, h, w):
            for ic, ky, kx in np.ndindex(i_group, kh, kw):
                y = oy * self.stride[0] - self.padding[0] + ky * self.dilation[0]
                x = ox * self.stride[1] - self.padding[1] + kx * self.dilation[1]
                if 0 <= y < self.h_in and 0 <= x < self.w_in:
                    c = oc // o_group * i_group + ic
                    syn = ((oc * i_group + ic) * kh + ky) * kw + kx
                    yield syn, (c * self.h_in + y) * self.w_in + x, (oc * h + oy) * w + ox


@dataclass(frozen=True)
class Dense:
    n_pre: int
    n_post: int

    @property
    def cpp(self) -> str:
        return f"Dense<{self.n_pre}, {self.n_post}>"

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.n_pre, self.n_post, self.n_pre * self.n_post

    def edges(self) -> Iterator[tuple[int, int, int]]:
        for post, pre in np.ndindex(self.n_post, self.n_pre):
            yield post * self.n_pre + pre, pre, post


@dataclass(frozen=True)
class OneToOne:
    n: int

    @property
    def cpp(self) -> str:
        return f"OneToOne<{self.n}>"

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.n, self.n, self.n

    def edges(self) -> Iterator[tuple[int, int, int]]:
        return ((i, i, i) for i in range(self.n))


@dataclass(frozen=True)
class Pool:
    c: int
    h_in: int
    w_in: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def out(self) -> tuple[int, int]:
        return tuple(
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip((self.h_in, self.w_in), self.padding, self.kernel, self.stride, strict=True)
        )

    @property
    def cpp(self) -> str:
        numbers = (self.c, self.h_in, self.w_in, *self.out, *self.kernel, *self.stride, *self.padding)
        return f"Pool2d<{', '.join(map(str, numbers))}>"

    @property
    def sizes(self) -> tuple[int, int, int]:
        h, w = self.out
        return self.c * self.h_in * self.w_in, self.c * h * w, 0

    def edges(self) -> Iterator[tuple[int, int, int]]:
        h, w = self.out
        for c, oy, ox in np.ndindex(self.c, h, w):
            for ky, kx in np.ndindex(self.kernel):
                y, x = oy * self.stride[0] - self.padding[0] + ky, ox * self.stride[1] - self.padding[1] + kx
                if 0 <= y < self.h_in and 0 <= x < self.w_in:
                    yield 0, (c * self.h_in + y) * self.w_in + x, (c * h + oy) * w + ox


@dataclass(frozen=True)
class Sparse:
    n_pre: int
    n_post: int
    n_edges: int

    cpp = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.n_pre, self.n_post, self.n_edges

    def edges(self) -> Iterator[tuple[int, int, int]]:  # with units that have none, and with doubled edges
        rng = np.random.default_rng(5)
        for syn in range(self.n_edges):
            yield syn, int(rng.integers(self.n_pre - 1)), int(rng.integers(1, self.n_post))


TOPOLOGIES = {
    "conv": Conv(2, 6, 13, 5, (3, 3), padding=(1, 1)),
    "conv_strided_groups": Conv(6, 8, 9, 4, (3, 2), stride=(2, 3), padding=(1, 2), groups=2),
    "conv_dilated": Conv(5, 7, 8, 3, (2, 3), padding=(1, 4), dilation=(2, 3)),
    "conv_wide_kernel": Conv(1, 3, 12, 2, (2, 9), padding=(0, 3)),
    "conv_whole_image": Conv(2, 3, 3, 6, (3, 3)),
    "dense": Dense(11, 13),
    "dense_one": Dense(3, 1),
    "dense_long": Dense(43, 13),
    "one_to_one": OneToOne(70),
    "pool": Pool(3, 6, 7, (2, 2), (2, 2), (0, 0)),
    "pool_overlapping": Pool(2, 7, 8, (3, 3), (2, 2), (1, 1)),
    "sparse": Sparse(9, 20, 300),
}
EVERY_WIDTH = ("conv_strided_groups", "dense", "one_to_one", "pool_overlapping", "sparse")  # not all: compiling is slow
WIDTHS = (1, 4, 16)
DTYPES = (np.float32, np.float64)


def topology_source() -> str:
    functions = ""
    for name, topology in TOPOLOGIES.items():
        if topology.cpp is None:
            continue
        functions += f'extern "C" void {name}(int is_double, int W, Call* c, void*) {{\n'
        if isinstance(topology, Pool):
            functions += (
                f"  if (c->walk == FIRST_WINNER) {{ if (is_double) first_winner<double, 4, {topology.cpp}>(*c);"
            )
            functions += f" else first_winner<float, 16, {topology.cpp}>(*c); return; }}\n"
        every = str(name in EVERY_WIDTH).lower()
        functions += (
            f"  with_team(c->threads, 1e9, [&] {{ lanes<{every}>(is_double, W, {topology.cpp}{{}}, *c); }});\n}}\n"
        )
    return TOPOLOGY_SOURCE % {"functions": functions}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """Both libraries; test processes side by side share them, and the first that needs them compiles."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "runtime_headers"
    folder.mkdir(exist_ok=True)
    running = {}
    with FileLock(folder / "lock"):
        for name, source in {"math": math_source(), "topology": topology_source()}.items():
            if (folder / f"{name}.so").exists():
                continue
            (folder / f"{name}.cpp").write_text(source)
            command = [COMPILER, *FLAGS.split(), *WARNINGS.split(), f"-I{INCLUDE}", f"{name}.cpp", "-o", f"{name}.so"]
            running[name] = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        errors = {name: process.communicate()[1] for name, process in running.items()}
        for name, process in running.items():
            assert process.returncode == 0, f"{name}.cpp does not compile:\n{errors[name][:8000]}"
    return {name: ctypes.CDLL(str(folder / f"{name}.so")) for name in ("math", "topology")}


# ---- functions -------------------------------------------------------------------------------------------------------


def in_lanes(libraries: dict[str, ctypes.CDLL], width: int, kind: int, which: int, x: NDArray, y: NDArray) -> NDArray:
    """Function (kind 0) or expression (kind 1) number `which`; width 0 = plain scalars."""
    call = libraries["math"].lanes_float if x.dtype == np.float32 else libraries["math"].lanes_double
    n = len(x) // 16 * 16
    z = np.zeros(n, x.dtype)
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (np.ascontiguousarray(x), np.ascontiguousarray(y), z))
    call(width, kind, which, *pointers, ctypes.c_long(n))
    return z


def arguments(dtype: type) -> NDArray:
    """Random bit patterns (all magnitudes, infinities, nan), the usual range densely, and the special values."""
    rng = np.random.default_rng(1)
    kind, n = (np.uint32, 400_000) if dtype is np.float32 else (np.uint64, 200_000)
    patterns = rng.integers(0, np.iinfo(kind).max, n, dtype=kind, endpoint=True).view(dtype)
    usual = rng.uniform(-1, 1, n) * 10.0 ** rng.uniform(-3, 2.9, n)
    limits = np.linspace(-120, 120, 20_000)
    whole = np.arange(-40, 41) * 0.5
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, np.finfo(dtype).tiny, np.finfo(dtype).max, 1e-40]
    x = np.concatenate([patterns, *(np.asarray(a).astype(dtype) for a in (usual, limits, whole, special))])
    return np.concatenate([x, np.zeros(-len(x) % 16, dtype)])


def exact(name: str, x: NDArray) -> NDArray:
    """The function in a wider type than x's."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    numpy_name = FUNCTIONS[name][0]
    with np.errstate(all="ignore"):
        if numpy_name is not None:
            return getattr(np, numpy_name)(wide)
        if name == "sigmoid":
            return np.where(wide < 0, np.exp(wide), 1) / (1 + np.exp(-np.abs(wide)))
        one = (wide == 0) | (np.abs(wide) < np.finfo(wide.dtype).tiny)
        return np.where(wide == np.inf, np.inf, np.where(one, 1, np.expm1(wide) / np.where(one, 1, wide)))


def ulp_errors(got: NDArray, want: NDArray) -> NDArray:
    """|got - want| in units of the last place of the result type; inf where a special value is wrong."""
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        place = np.spacing(np.minimum(np.abs(rounded), np.finfo(got.dtype).max)).astype(want.dtype)
        error = np.abs(got.astype(want.dtype) - want) / place
    return np.where(same & ~np.isfinite(rounded), 0, np.where(np.isfinite(got), error, np.inf)).astype(float)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_accurate_and_the_same_in_every_width(libraries, name: str, dtype: type, record_property) -> None:
    x = arguments(dtype)
    which = list(FUNCTIONS).index(name)
    y = in_lanes(libraries, 16, 0, which, x, x)
    errors = ulp_errors(y, exact(name, x))
    worst = int(np.argmax(errors))
    record_property("ulp", float(errors[worst]))
    allowed = FUNCTIONS[name][1 if dtype is np.float32 else 2]
    assert errors[worst] <= allowed, f"{name}({x[worst]!r}) = {y[worst]!r}: {errors[worst]:.2f} ulp"
    for width in (0, 1, 4):
        np.testing.assert_array_equal(in_lanes(libraries, width, 0, which, x, x), y)


@pytest.mark.parametrize("name", ["tanh", "sinh", "expm1", "sin", "arctan", "floor", "ceil", "log1p"])
def test_zero_keeps_its_sign(libraries, name: str) -> None:
    x = np.full(16, -0.0, np.float32)
    assert np.signbit(in_lanes(libraries, 16, 0, list(FUNCTIONS).index(name), x, x)).all()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_as_brian2_prints_it(libraries, expression: str) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 2, (2, 4096))
    x[:8] = y[:8]
    which = list(EXPRESSIONS).index(expression)
    names = {name: getattr(np, name) for name in dir(np) if not name.startswith("_")}
    names |= {"exprel": lambda v: np.expm1(v) / v, "int": lambda v: np.trunc(v * 1.0), "x": x, "y": y}
    names |= {"shared": 0.75, "whole": 3}
    want = eval(EXPRESSIONS[expression] or expression, {"__builtins__": {}}, names)  # noqa: S307 - our own list above
    for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 3e-5)):
        if dtype is np.float32 and any(word in expression for word in STEPS):
            continue
        results = [in_lanes(libraries, width, 1, which, x.astype(dtype), y.astype(dtype)) for width in (0, 1, 4, 16)]
        np.testing.assert_allclose(results[3], want, rtol=tolerance, atol=tolerance)
        for narrow in results[:3]:  # not bit by bit: the compiler chooses which products of an expression it fuses
            np.testing.assert_allclose(narrow, want, rtol=tolerance, atol=tolerance)


def test_remainder_is_pythons(libraries) -> None:
    rng = np.random.default_rng(3)
    x = np.round(rng.normal(0, 20, 4096)).astype(np.float32)
    got = in_lanes(libraries, 16, 1, list(EXPRESSIONS).index("(3*x) % 2 + (3*x) % (-2)"), x, x)
    np.testing.assert_array_equal(got, (3 * x) % 2 + (3 * x) % -2)


def test_plain_numbers_call_our_functions(libraries) -> None:
    call = libraries["math"].plain_numbers
    call.restype = ctypes.c_double
    call.argtypes = [ctypes.c_double, ctypes.c_float, ctypes.c_int, ctypes.c_bool]
    d, f, n, b = 0.7, 1.25, 4, True
    want = np.tanh([d, f, n]).sum() + d + f + n + np.exp([f, d]).sum() + np.log(d) + np.sqrt(f) + 1 + 1
    want += np.sinh(d) + np.cosh(f) + np.sin(d) + 0.7 + 2 + 1.5 + 1 + 1 + (-4 % 3) + (-4 // 2) + d**4 + d + 1 + 1
    assert call(d, f, n, b) == pytest.approx(want, rel=1e-6)


def test_masks_and_assignments(libraries) -> None:
    assert libraries["math"].masks() == 1


# ---- topologies ------------------------------------------------------------------------------------------------------


class Call(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("walk", "threads")),
        *((name, ctypes.c_int64) for name in ("begin", "end", "R", "n_pre", "n_post")),
        *((name, ctypes.c_void_p) for name in ("w", "x", "z", "out")),
    ]


class SparseArrays(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n_pre", "n_post", "n_synapses")),
        *((name, ctypes.c_void_p) for name in ("syn_pre", "syn_post", "post_start", "post_pre", "post_syn")),
        *((name, ctypes.c_void_p) for name in ("pre_start", "pre_post", "pre_syn")),
    ]


@dataclass(frozen=True)
class Walker:
    """One topology, compiled: walks it over given data."""

    library: ctypes.CDLL
    name: str

    @property
    def topology(self) -> Conv | Dense | OneToOne | Pool | Sparse:
        return TOPOLOGIES[self.name]

    def edges(self) -> Edges:
        return np.array(list(self.topology.edges()))

    def sparse_arrays(self) -> tuple[SparseArrays, list[NDArray]]:
        syn, pre, post = self.edges().T
        sides = [pre.astype(np.int32), post.astype(np.int32)]
        for unit, n, other in ((post, self.topology.n_post, pre), (pre, self.topology.n_pre, post)):
            order = np.argsort(unit, kind="stable")
            start = np.concatenate([[0], np.cumsum(np.bincount(unit, minlength=n))])
            sides += [start.astype(np.int64), other[order].astype(np.int32), syn[order].astype(np.int32)]
        return SparseArrays(*self.topology.sizes, *(a.ctypes.data for a in sides)), sides

    def __call__(
        self,
        walk: str,
        w: NDArray,
        x: NDArray,
        z: NDArray,
        width: int,
        *,
        threads: int = 1,
        begin: int = 0,
        end: int = 0,
    ) -> NDArray:
        n_pre, n_post, n_synapses = self.topology.sizes
        shape = {"gather": x[:1].size * n_post, "to_parameter": n_synapses * width}
        shape["gather_max"] = shape["gather"]
        shape["gather_few"] = shape["gather_max_few"] = shape["gather"]
        out = np.full(shape.get(walk, x.size), np.nan, x.dtype)
        walks = ("gather", "gather_max", "to_pre", "to_parameter", "first_winner", "gather_few", "gather_max_few")
        number = walks.index(walk)
        replicas = x.shape[1]
        pointers = (a.ctypes.data for a in (w, x, z, out))
        call = Call(number, threads, begin, end or replicas // width, replicas, n_pre, n_post, *pointers)
        arrays, kept = self.sparse_arrays() if isinstance(self.topology, Sparse) else (None, None)
        run = getattr(self.library, self.name)
        run(int(x.dtype == np.float64), width, ctypes.byref(call), ctypes.byref(arrays) if arrays else None)
        del kept
        return out.reshape(-1, width if walk == "to_parameter" else replicas)


@pytest.fixture(params=list(TOPOLOGIES))
def walker(request: pytest.FixtureRequest, libraries: dict[str, ctypes.CDLL]) -> Walker:
    return Walker(libraries["topology"], request.param)


def draw(walker: Walker, dtype: type, replicas: int, seed: int, whole: bool = True) -> tuple[NDArray, NDArray, NDArray]:
    """Weights, pre and post values: small whole numbers (all sums exact) or reals."""
    rng = np.random.default_rng(seed)
    n_pre, n_post, n_synapses = walker.topology.sizes
    number: Callable = (lambda *s: rng.integers(-3, 4, s)) if whole else (lambda *s: rng.normal(size=s))
    return tuple(
        number(*shape).astype(dtype) for shape in ((max(n_synapses, 1),), (n_pre, replicas), (n_post, replicas))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_walks_against_a_list_of_edges(walker: Walker, width: int, dtype: type) -> None:
    blocks = 7  # a piece of 4, of 2 and of 1
    w, x, z = draw(walker, dtype, blocks * width, seed=width)
    if walker.name not in EVERY_WIDTH and (dtype, width) not in ((np.float32, 16), (np.float64, 4)):
        pytest.skip("this topology is not compiled for these lanes")
    n_pre, n_post, n_synapses = walker.topology.sizes
    syn, pre, post = walker.edges().T
    f = w[syn, None] * z[post] * x[pre]

    want = np.zeros((n_post, blocks * width))
    np.add.at(want, post, f)
    np.testing.assert_array_equal(walker("gather", w, x, z, width), want)

    want = np.full((n_post, blocks * width), -np.inf)
    np.maximum.at(want, post, f)
    if (dtype, width) == (np.float32, 16):
        np.testing.assert_array_equal(walker("gather_max", w, x, z, width), want)

    want = np.zeros((n_pre, blocks * width))
    np.add.at(want, pre, f)
    np.testing.assert_array_equal(walker("to_pre", w, x, z, width), want)

    for begin, end in ((0, blocks), (2, 3), (1, 7)):
        want = np.zeros((n_synapses, width))
        if n_synapses:
            np.add.at(want, syn, f.reshape(len(f), blocks, width)[:, begin:end].sum(1))
        np.testing.assert_array_equal(walker("to_parameter", w, x, z, width, begin=begin, end=end), want)


@pytest.mark.parametrize("walk", ["gather", "to_pre", "to_parameter"])
def test_threads_and_widths_keep_the_bits(walker: Walker, walk: str) -> None:
    replicas = 16 * 40  # enough work for a parallel region
    w, x, z = draw(walker, np.float32, replicas, seed=3, whole=False)
    one = walker(walk, w, x, z, 16)
    np.testing.assert_array_equal(walker(walk, w, x, z, 16, threads=2), one)
    np.testing.assert_array_equal(walker(walk, w, x, z, 16, threads=3), one)
    if walk != "to_parameter" and walker.name in EVERY_WIDTH:
        for width in (1, 4):
            np.testing.assert_array_equal(walker(walk, w, x, z, width, threads=2), one)


def with_slack(values: NDArray) -> NDArray:
    """The same values with room before and after them that a vector may read."""
    room = np.full(values.size + 1024, np.nan, values.dtype)
    room[512:-512] = values.ravel()
    return room[512:-512].reshape(values.shape)


@pytest.mark.parametrize("replicas", [1, 20])
@pytest.mark.parametrize("walk", ["gather", "gather_max"])
def test_few_replicas_give_the_same_bits(walker: Walker, walk: str, replicas: int) -> None:
    few = 1 if replicas == 1 else 4  # in the last lane block
    w, x, z = draw(walker, np.float32, replicas, seed=7, whole=False)
    repeated = [np.tile(a[:, -few:], 16 // few) for a in (x, z)]
    want = walker(walk, w, *repeated, 16)[:, :few]
    # lane blocks one after another
    blocks = [np.concatenate([a[:, :-few].ravel(), a[:, -few:].ravel()]).reshape(a.shape) for a in (x, z)]
    w, x, z = (with_slack(a) for a in (w, *blocks))
    for threads in (1, 2):
        got = walker(f"{walk}_few", w, x, z, 1 if replicas == 1 else 16, threads=threads)
        np.testing.assert_array_equal(got.ravel()[-want.size :], want.ravel())


def test_a_member_alone_gives_the_same_bits(walker: Walker) -> None:
    w, x, z = draw(walker, np.float32, 16 * 12, seed=4, whole=False)
    together = walker("to_parameter", w, x, z, 16, begin=6, end=12)
    alone = walker("to_parameter", w, *(np.ascontiguousarray(a[:, 96:]) for a in (x, z)), 16)
    np.testing.assert_array_equal(together, alone)


def test_sums_run_in_the_documented_order(walker: Walker) -> None:
    if not walker.library.has_fma():
        pytest.skip("the order is checked through fused multiply-adds")
    w, x, z = draw(walker, np.float32, 16, seed=5, whole=False)
    strands = 8 if isinstance(walker.topology, Dense) and walker.topology.sizes[0] >= 16 else 1
    sums = np.zeros((strands, *z.shape), np.float32)
    for syn, pre, post in walker.topology.edges():
        factor = (w[syn] * z[post]).astype(np.float64)  # rounded to float, then fused with x
        sums[pre % strands, post] = (factor * x[pre] + sums[pre % strands, post]).astype(np.float32)
    while len(sums) > 1:  # by halves
        sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
    want = sums[0]
    np.testing.assert_array_equal(walker("gather", w, x, z, 16), want)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(list(TOPOLOGIES)))
def test_to_pre_is_the_adjoint_of_gather(libraries, seed: int, name: str) -> None:
    walker = Walker(libraries["topology"], name)
    w, x, _ = draw(walker, np.float64, 8, seed)
    v = draw(walker, np.float64, 8, seed + 1)[2]
    one_pre, one_post = np.ones_like(x), np.ones_like(v)
    forward = walker("gather", w, x, one_post, 4)
    backward = walker("to_pre", w, one_pre, v, 4)
    assert (v * forward).sum() == (backward * x).sum()
    gradient = walker("to_parameter", w, x, v, 4).sum(1)
    if walker.topology.sizes[2]:
        n = len(gradient)
        assert (v * forward).sum() == gradient @ np.ones(n)  # f carries the weight, so this is <w, dC/dw>


@pytest.mark.parametrize("name", ["pool", "pool_overlapping"])
@pytest.mark.parametrize(("dtype", "width"), [(np.float32, 16), (np.float64, 4)])
def test_first_winner_takes_the_gradient_of_a_maximum(libraries, name: str, dtype: type, width: int) -> None:
    walker = Walker(libraries["topology"], name)
    w, x, v = draw(walker, dtype, 3 * width, seed=6)  # whole numbers: many ties
    x[5, ::3] = np.nan
    syn, pre, post = walker.edges().T
    want = np.zeros(x.shape)
    for p in range(walker.topology.sizes[1]):
        window = pre[post == p]  # row by row
        winner = window[np.argmax(x[window], axis=0)]  # the first largest; the first nan, if any
        np.add.at(want, (winner, np.arange(x.shape[1])), v[p])
    for threads in (1, 2):
        np.testing.assert_array_equal(walker("first_winner", w, x, v, width, threads=threads), want)
