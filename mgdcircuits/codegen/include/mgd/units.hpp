// Where a vector's lanes lie among the units of a circuit.
//
// Usually the lanes of a vector are replicas and a unit is a plain Index. Where replicas are few, a vector holds several
// units: S units times `few` replicas. An index then says which units:
//   Next<S, Lo, Hi, Stride>   units u, u + Stride, ...; only those from the Lo-th to before the Hi-th exist
//   Same<S>                   unit u in every place
//   Channels<Next<...>>       the channel of each of those units, which may differ where a vector reaches into the next one
// Kernels are written once; these types choose the loads and stores (Layout::rep, mem, put).
#pragma once

#include "lanes.hpp"
#include "parallel.hpp"

namespace mgd {

// The last lane block of a member, whose replicas are few.
struct Few {
  Index block;
  MGD_INLINE operator Index() const { return block; }
};

template <int S, int Lo = 0, int Hi = S, int Stride = 1>
struct Next {
  static constexpr int places = S, begin = Lo, end = Hi, stride = Stride;
  // A place whose unit exists, for those whose unit does not.
  static constexpr int existing(int place) { return place < Lo ? Lo : place < Hi ? place : Hi - 1; }
  Index u;
};
template <int S>
struct Same {
  static constexpr int places = S;
  Index u;
};

template <class Units>
struct Channels {
  static constexpr int places = Units::places;
  Units units;
  Index positions;
  MGD_INLINE Index of(int place) const { return (units.u + place * Units::stride) / positions; }
  MGD_INLINE bool one() const { return of(Units::begin) == of(Units::end - 1); }
};

// The channel of a unit.
MGD_INLINE Index channel_of(Index u, Index positions) { return u / positions; }
template <int S, int Lo, int Hi, int Stride>
MGD_INLINE Channels<Next<S, Lo, Hi, Stride>> channel_of(Next<S, Lo, Hi, Stride> u, Index positions) {
  return {u, positions};
}
template <int S>
MGD_INLINE Same<S> channel_of(Same<S> u, Index positions) {
  return {u.u / positions};
}

// The only element of an array that has one, in as many places as `u`.
MGD_INLINE Index zero_of(Index) { return 0; }
template <class U>
MGD_INLINE Same<U::places> zero_of(U) {
  return {0};
}

namespace raw {

// One vector of two halves.
template <class T, int W>
MGD_INLINE typename VectorOf<T, 2 * W>::type concatenate(typename VectorOf<T, W>::type low,
                                                         typename VectorOf<T, W>::type high) {
  using Whole = typename VectorOf<T, 2 * W>::type;
  if constexpr (W == 1) {
    return Whole{low, high};
  } else {
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define MGD_SHUFFLEVECTOR
    if constexpr (W == 2) return __builtin_shufflevector(low, high, 0, 1, 2, 3);
    if constexpr (W == 4) return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
    if constexpr (W == 8)
      return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif
#endif
    Whole whole;
    std::memcpy(&whole, &low, sizeof(low));
    std::memcpy(reinterpret_cast<char*>(&whole) + sizeof(low), &high, sizeof(high));
    return whole;
  }
}

// Every second number of two vectors side by side.
template <class T, int W>
MGD_INLINE typename VectorOf<T, W>::type evens(typename VectorOf<T, W>::type low, typename VectorOf<T, W>::type high) {
#if defined(MGD_SHUFFLEVECTOR)
  if constexpr (W == 2) return __builtin_shufflevector(low, high, 0, 2);
  if constexpr (W == 4) return __builtin_shufflevector(low, high, 0, 2, 4, 6);
  if constexpr (W == 8) return __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14);
  if constexpr (W == 16)
    return __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#endif
  typename VectorOf<T, W>::type chosen{};
  if constexpr (W == 1)
    chosen = low;
  else
    for (int k = 0; k < W; ++k) chosen[k] = 2 * k < W ? low[2 * k] : high[2 * k - W];
  return chosen;
}

}  // namespace raw

// Lanes of N groups of W, where group(k) gives the k-th.
template <class T, int W, int N, int First = 0, class F>
MGD_INLINE Lanes<T, W * N> gathered(const F& group) {
  if constexpr (N == 1)
    return group(std::integral_constant<int, First>{});
  else
    return Lanes<T, W * N>::of(raw::concatenate<T, W * N / 2>(gathered<T, W, N / 2, First>(group).v,
                                                              gathered<T, W, N / 2, First + N / 2>(group).v));
}

// The first (0) or second (1) half of a vector.
template <int which, class T, int W>
MGD_INLINE Lanes<T, W / 2> half(Lanes<T, W> x) {
  Lanes<T, W / 2> made(0);
  std::memcpy(&made.v, reinterpret_cast<const char*>(&x.v) + which * sizeof(made.v), sizeof(made.v));
  return made;
}

// Every number of a vector `times` over.
template <int times, class T, int S>
MGD_INLINE Lanes<T, S * times> repeated(Lanes<T, S> x) {
  if constexpr (times == 1) return Lanes<T, S * times>(x);
#if defined(MGD_AVX512)
  if constexpr (std::is_same<T, float>::value && S * times == 16 && (S == 4 || S == 8)) {
    __m512i which;
    __m512 wide;
    if constexpr (S == 4) {
      which = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
      wide = _mm512_castps128_ps512(raw::bits<__m128>(x.v));
    } else {
      which = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
      wide = _mm512_castps256_ps512(raw::bits<__m256>(x.v));
    }
    return Lanes<T, S * times>::of(raw::bits<typename Lanes<T, S * times>::Raw>(_mm512_maskz_permutexvar_ps(0xffff, which, wide)));
  }
#endif
  Lanes<T, S * times> made(0);
  for (int k = 0; k < S * times; ++k) made.set(k, x[k / times]);
  return made;
}

// True in the lanes of places Lo to before Hi, `few` lanes a place.
template <class T, int W, int few, int Lo, int Hi>
MGD_INLINE Mask<T, W> places() {
  typename Mask<T, W>::Raw m{};
  if constexpr (W == 1)
    m = Lo < Hi ? -1 : 0;
  else
    for (int k = 0; k < W; ++k) m[k] = k >= Lo * few && k < Hi * few ? -1 : 0;
  return Mask<T, W>::from_words(m);
}

}  // namespace mgd
