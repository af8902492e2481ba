// What the topologies share: unrolled loops, register tiles and the meaning of their three walks.
//
// A topology knows which synapses exist; it owns no data and calls lambdas with (syn, pre, post, block):
//   gather        post <- sum over its synapses         store(post, block, acc)
//   to_pre        pre  <- sum over its synapses         store(pre, block, acc)
//   to_parameter  syn  <- sum over places and blocks    add(syn, acc)
// A block is W consecutive replicas. Lambdas run on several threads at once: store and add must touch only what their
// index names, and each index is reported once. The order of every sum is fixed by the shape alone.
#pragma once

#include <type_traits>
#include <utility>

#include "lanes.hpp"
#include "parallel.hpp"

// A kernel: whatever it calls, lambdas included, is inlined, so that its accumulators can live in registers.
#define MGD_KERNEL __attribute__((noinline, flatten))

namespace mgd {

template <int... I, class F>
MGD_INLINE void unroll_sequence(std::integer_sequence<int, I...>, const F& f) {
  (f(std::integral_constant<int, I>{}), ...);
}
// f(0), ..., f(N-1) with compile-time arguments: arrays indexed by them become registers.
template <int N, class F>
MGD_INLINE void unroll(const F& f) {
  unroll_sequence(std::make_integer_sequence<int, N>{}, f);
}

// Accumulators of type V to keep in flight: about two thirds of the vector registers.
template <class V>
constexpr int register_tile() {
#if defined(__AVX512F__)
  constexpr int bytes = 64, registers = 32;
#elif defined(__AVX__)
  constexpr int bytes = 32, registers = 16;
#else
  constexpr int bytes = 16, registers = 16;
#endif
  constexpr int each = (static_cast<int>(sizeof(V)) + bytes - 1) / bytes;
  constexpr int tile = registers * 3 / 4 / each;
  return tile < 2 ? 2 : tile;
}

constexpr int smaller(int a, int b) { return a < b ? a : b; }
constexpr int larger(int a, int b) { return a > b ? a : b; }
constexpr Index smaller(Index a, Index b) { return a < b ? a : b; }
constexpr Index larger(Index a, Index b) { return a > b ? a : b; }
constexpr int divide_up(int a, int b) { return (a + b - 1) / b; }
constexpr int positive_modulo(int a, int b) { return ((a % b) + b) % b; }

// begin, begin + 1, ... < end of one axis, cut into pieces of 4, 2 and 1 with compile-time sizes: f(first, size).
template <class F>
MGD_INLINE void in_pieces(Index begin, Index end, const F& f) {
  Index i = begin;
  for (; i + 4 <= end; i += 4) f(i, std::integral_constant<int, 4>{});
  if (i + 2 <= end) {
    f(i, std::integral_constant<int, 2>{});
    i += 2;
  }
  if (i < end) f(i, std::integral_constant<int, 1>{});
}

// [0, Extent) cut into pieces of Size and one remainder, sizes known at compile time: f(first, size).
template <int Extent, int Size, class F>
MGD_INLINE void in_tiles(const F& f) {
  for (int i = 0; i + Size <= Extent; i += Size) f(i, std::integral_constant<int, Size>{});
  if constexpr (Extent % Size != 0) f(Extent - Extent % Size, std::integral_constant<int, Extent % Size>{});
}

// A running sum, as it is. With few lanes the compiler would vectorize across sums and then round products apart from sums
// in one place and fused in another; the empty statement keeps every place alike.
template <class V>
MGD_INLINE V settled(V acc) {
#if defined(__x86_64__)
  if constexpr (sizeof(V) <= 16) asm("" : "+x"(acc.v));
#elif defined(__aarch64__)
  if constexpr (sizeof(V) <= 16) asm("" : "+w"(acc.v));
#endif
  return acc;
}

template <class V>
MGD_INLINE V lowest() {
  return V(-static_cast<typename V::value_type>(INFINITY));
}

}  // namespace mgd
