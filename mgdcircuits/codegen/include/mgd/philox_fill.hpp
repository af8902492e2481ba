// Philox in bulk: arrays of contiguous elements of one replica, and arrays [element][replica] with replicas innermost.
//
// Every helper writes exactly the numbers of the scalar functions in philox.hpp, and uses all words of a call. Elements
// start at `first`, which must be a multiple of 128 (one call of bits), so that threads can share an array.
#pragma once

#include "philox.hpp"

namespace mgd {

constexpr Index elements_per_call_of_bits = 128;

namespace philox {
// The 32 bits of a word as `size` (1) and -`size` (0).
template <class T>
MGD_INLINE void signs_of_word(std::uint32_t word, T size, T* out) {
  using U = typename raw::VectorOf<std::uint32_t, 16>::type;
  const U bit = {1u << 0, 1u << 1, 1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
                 1u << 8, 1u << 9, 1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15};
  for (int half = 0; half < 2; ++half) {
    const U chosen = raw::splat<U>(word >> (16 * half)) & bit;
    using V = typename raw::VectorOf<float, 16>::type;
    if constexpr (sizeof(T) == 4) {
      const auto y = raw::select(chosen != 0, raw::splat<V>(size), raw::splat<V>(-size));
      std::memcpy(out + 16 * half, &y, sizeof(y));
    } else {
      using W = typename raw::VectorOf<T, 16>::type;
      const auto x = raw::select(chosen != 0, raw::splat<V>(1.0f), raw::splat<V>(-1.0f));
      const W y = __builtin_convertvector(x, W) * raw::splat<W>(size);
      std::memcpy(out + 16 * half, &y, sizeof(y));
    }
  }
}
// The first n <= 32 bits of a word.
template <class T>
MGD_INLINE void signs_of_bits(std::uint32_t word, Index n, T size, T* out) {
  for (Index k = 0; k < n; ++k) out[k] = word >> k & 1u ? size : -size;
}
}  // namespace philox

// out[0 .. n) = size or -size: bit 1 gives size. Elements first ... first + n - 1 of one replica.
template <class T>
inline void fill_signs(T* out, Index n, std::uint64_t key, std::uint64_t count, std::uint32_t replica = 0,
                       Index first = 0, T size = 1) {
  if (n <= elements_per_call_of_bits) {  // one call, faster than eight at once
    const auto words = philox::call(key, static_cast<std::uint32_t>(first / elements_per_call_of_bits), replica, count);
    for (Index j = 0; 32 * j < n; ++j) {
      if (n - 32 * j >= 32)
        philox::signs_of_word(words.w[j], size, out + 32 * j);
      else
        philox::signs_of_bits(words.w[j], n - 32 * j, size, out + 32 * j);
    }
    return;
  }
  constexpr int N = 8;  // calls at once
  for (Index e = 0; e < n; e += elements_per_call_of_bits * N) {
    const std::uint32_t c0 = static_cast<std::uint32_t>((first + e) / elements_per_call_of_bits);
    const philox::Calls<N> calls([&](int i) { return c0 + static_cast<std::uint32_t>(i); },
                                 [&](int) { return replica; }, [&](int) { return key; }, count);
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < 4; ++j) {
        const Index at = e + elements_per_call_of_bits * i + 32 * j;
        const std::uint32_t word = static_cast<std::uint32_t>(calls.word[j][i / 8][i % 8]);
        if (at + 32 <= n)
          philox::signs_of_word(word, size, out + at);
        else
          philox::signs_of_bits(word, n - at, size, out + at);
      }
  }
}

// Words of 32 bits each: bit e of all is that of element first + e.
inline void fill_bits(std::uint32_t* out, Index n, std::uint64_t key, std::uint64_t count, std::uint32_t replica = 0,
                      Index first = 0) {
  constexpr int N = 16;  // calls at once
  for (Index e = 0; e < n; e += elements_per_call_of_bits * N) {
    const std::uint32_t c0 = static_cast<std::uint32_t>((first + e) / elements_per_call_of_bits);
    const philox::Calls<N> calls([&](int i) { return c0 + static_cast<std::uint32_t>(i); },
                                 [&](int) { return replica; }, [&](int) { return key; }, count);
    std::uint64_t words[N][2];  // two and two
    for (int h = 0; h < N / 8; ++h) {
      std::uint64_t pair[2][8];
      for (int j = 0; j < 2; ++j) {
        const philox::Words8 two = calls.word[2 * j][h] | calls.word[2 * j + 1][h] << 32;
        std::memcpy(pair[j], &two, sizeof(two));
      }
      for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 2; ++j) words[8 * h + i][j] = pair[j][i];
    }
    const Index rest = (n - e + 31) / 32;
    std::memcpy(out + e / 32, words, static_cast<std::size_t>(rest < 4 * N ? rest : 4 * N) * sizeof(std::uint32_t));
  }
}

namespace philox {
// Runs f(i, call words of calls c0 + i) for the calls that n elements need, `per_call` elements each.
template <class F>
MGD_INLINE void over_calls(Index n, int per_call, Index first, std::uint64_t key, std::uint64_t count,
                           std::uint32_t replica, const F& f) {
  constexpr int N = 16;
  for (Index e = 0; e < n; e += static_cast<Index>(per_call) * N) {
    const std::uint32_t c0 = static_cast<std::uint32_t>((first + e) / per_call);
    const Calls<N> calls([&](int i) { return c0 + static_cast<std::uint32_t>(i); }, [&](int) { return replica; },
                         [&](int) { return key; }, count);
    f(e, calls);
  }
}
// Normals from words j and j + 1 of N calls.
template <int N>
MGD_INLINE void normals(const Calls<N>& calls, int j, double* out) {
  using D = typename raw::VectorOf<double, 8>::type;
  for (int h = 0; h < N / 8; ++h) {
    const D y = to_normal<D>(calls.word[j][h], calls.word[j + 1][h]);
    std::memcpy(out + 8 * h, &y, sizeof(D));
  }
}
}  // namespace philox

// out[0 .. n) = uniform in [0, 1): uniform32 for float, uniform64 for double.
template <class T>
inline void fill_uniform(T* out, Index n, std::uint64_t key, std::uint64_t count, std::uint32_t replica = 0,
                         Index first = 0) {
  constexpr bool narrow = sizeof(T) == 4;
  constexpr int per_call = narrow ? 4 : 2;
  philox::over_calls(n, per_call, first, key, count, replica, [&](Index e, const philox::Calls<16>& calls) {
    T u[16 * per_call];
    std::uint32_t w[4][16];
    for (int j = 0; j < 4; ++j) calls.words(j, w[j]);
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < per_call; ++j) {
        if constexpr (narrow)
          u[i * per_call + j] = philox::to_uniform32(w[j][i]);
        else
          u[i * per_call + j] = philox::to_uniform64(w[2 * j][i], w[2 * j + 1][i]);
      }
    const Index m = n - e < 16 * per_call ? n - e : 16 * per_call;
    std::memcpy(out + e, u, static_cast<std::size_t>(m) * sizeof(T));
  });
}

// out[0 .. n) = standard normal.
template <class T>
inline void fill_normal(T* out, Index n, std::uint64_t key, std::uint64_t count, std::uint32_t replica = 0,
                        Index first = 0) {
  philox::over_calls(n, 2, first, key, count, replica, [&](Index e, const philox::Calls<16>& calls) {
    double even[16], odd[16];
    philox::normals(calls, 0, even);
    philox::normals(calls, 2, odd);
    const Index m = n - e < 32 ? n - e : 32;
    for (Index i = 0; i < m; ++i) out[e + i] = static_cast<T>(i % 2 ? odd[i / 2] : even[i / 2]);
  });
}

// ---- replicas innermost: out[element*stride + r], lane r with its own key and replica number -----------------------

namespace philox {
// f(element, lane, words of both) for elements in [first, first + n), 16 lanes a time; `per_call` elements share a call.
template <class F>
MGD_INLINE void over_lanes(Index n, int per_call, Index first, Index lanes, const std::uint64_t* keys,
                           const std::uint32_t* replicas, std::uint64_t count, const F& f) {
  for (Index e = 0; e < n; e += per_call)
    for (Index lane = 0; lane < lanes; lane += 16) {
      const int m = lanes - lane < 16 ? static_cast<int>(lanes - lane) : 16;
      const std::uint32_t c0 = static_cast<std::uint32_t>((first + e) / per_call);
      const auto at = [&](int i) { return lane + (i < m ? i : 0); };
      const Calls<16> calls([&](int) { return c0; }, [&](int i) { return replicas[at(i)]; },
                            [&](int i) { return keys[at(i)]; }, count);
      f(e, n - e < per_call ? static_cast<int>(n - e) : per_call, lane, m, calls);
    }
}
// size where bit k of a word is 1, else -size: the bit, turned over, changes the sign.
template <class T>
MGD_INLINE void signs(Words8 words, int k, T size, T* out) {
  using D = typename raw::VectorOf<double, 8>::type;
  const D y = raw::bits<D>((((~words >> k) & 1u) << 63) ^ raw::bits<Words8>(raw::splat<D>(static_cast<double>(size))));
  if constexpr (sizeof(T) == 8) {
    std::memcpy(out, &y, sizeof(y));
  } else {
    const auto x = __builtin_convertvector(y, typename raw::VectorOf<float, 8>::type);
    std::memcpy(out, &x, sizeof(x));
  }
}
template <class T>
MGD_INLINE void put(T* out, const T* values, int m) {  // m <= 16 values, the usual 16 without a loop
  if (m == 16)
    std::memcpy(out, values, 16 * sizeof(T));
  else
    std::memcpy(out, values, static_cast<std::size_t>(m) * sizeof(T));
}
}  // namespace philox

template <class T>
inline void fill_signs_lanes(T* out, Index n, Index lanes, Index stride, const std::uint64_t* keys,
                             const std::uint32_t* replicas, std::uint64_t count, Index first = 0, T size = 1) {
  if (lanes == 1 && stride == 1) return fill_signs(out, n, keys[0], count, replicas[0], first, size);
  philox::over_lanes(n, 128, first, lanes, keys, replicas, count,
                     [&](Index e, int elements, Index lane, int m, const philox::Calls<16>& calls) {
                       for (int k = 0; k < elements; ++k) {
                         T v[16];
                         for (int h = 0; h < 2; ++h) philox::signs(calls.word[k / 32][h], k % 32, size, v + 8 * h);
                         philox::put(out + (e + k) * stride + lane, v, m);
                       }
                     });
}

template <class T>
inline void fill_uniform_lanes(T* out, Index n, Index lanes, Index stride, const std::uint64_t* keys,
                               const std::uint32_t* replicas, std::uint64_t count, Index first = 0) {
  constexpr bool narrow = sizeof(T) == 4;
  if (lanes == 1 && stride == 1) return fill_uniform(out, n, keys[0], count, replicas[0], first);
  philox::over_lanes(n, narrow ? 4 : 2, first, lanes, keys, replicas, count,
                     [&](Index e, int elements, Index lane, int m, const philox::Calls<16>& calls) {
                       std::uint32_t w[4][16];
                       for (int j = 0; j < 4; ++j) calls.words(j, w[j]);
                       for (int k = 0; k < elements; ++k) {
                         T v[16];
                         for (int i = 0; i < 16; ++i) {
                           if constexpr (narrow)
                             v[i] = philox::to_uniform32(w[k][i]);
                           else
                             v[i] = philox::to_uniform64(w[2 * k][i], w[2 * k + 1][i]);
                         }
                         philox::put(out + (e + k) * stride + lane, v, m);
                       }
                     });
}

template <class T>
inline void fill_normal_lanes(T* out, Index n, Index lanes, Index stride, const std::uint64_t* keys,
                              const std::uint32_t* replicas, std::uint64_t count, Index first = 0) {
  if (lanes == 1 && stride == 1) return fill_normal(out, n, keys[0], count, replicas[0], first);
  philox::over_lanes(n, 2, first, lanes, keys, replicas, count,
                     [&](Index e, int elements, Index lane, int m, const philox::Calls<16>& calls) {
                       for (int k = 0; k < elements; ++k) {
                         double y[16];
                         T v[16];
                         philox::normals(calls, 2 * k, y);
                         for (int i = 0; i < 16; ++i) v[i] = static_cast<T>(y[i]);
                         philox::put(out + (e + k) * stride + lane, v, m);
                       }
                     });
}

// ---- inside an equation: one element, W replicas -------------------------------------------------------------------

// Lanes of uniforms, normals or signs of `element`; keys and replicas point at the block's first lane.
namespace philox {
// Word `j` of call `c0` of each lane; several lanes are called side by side.
template <int W>
MGD_INLINE void lane_words(const std::uint64_t* keys, const std::uint32_t* replicas, std::uint32_t c0, int j,
                           std::uint64_t count, std::uint32_t* out) {
  if constexpr (W % 8 == 0) {
    Calls<W>([&](int) { return c0; }, [&](int i) { return replicas[i]; }, [&](int i) { return keys[i]; }, count)
        .words(j, out);
  } else {
    for (int i = 0; i < W; ++i) out[i] = call(keys[i], c0, replicas[i], count).w[j];
  }
}
}  // namespace philox

template <class V>
inline V lanes_uniform(const std::uint64_t* keys, const std::uint32_t* replicas, Index element, std::uint64_t count) {
  V x(0);
  if constexpr (sizeof(typename V::value_type) == 4) {
    std::uint32_t w[V::width];
    const auto call = static_cast<std::uint32_t>(element / 4);
    philox::lane_words<V::width>(keys, replicas, call, element % 4, count, w);
    for (int i = 0; i < V::width; ++i) x.set(i, philox::to_uniform32(w[i]));
  } else {
    for (int i = 0; i < V::width; ++i) x.set(i, uniform64(keys[i], element, replicas[i], count));
  }
  return x;
}
template <class V>
inline V lanes_normal(const std::uint64_t* keys, const std::uint32_t* replicas, Index element, std::uint64_t count) {
  typename V::value_type v[2][V::width];
  fill_normal_lanes(&v[0][0], 2, V::width, V::width, keys, replicas, count, element - element % 2);
  return V::load(v[element % 2]);
}
template <class V>
inline V lanes_sign(const std::uint64_t* keys, const std::uint32_t* replicas, Index element, std::uint64_t count) {
  V x(0);
  std::uint32_t w[V::width];
  const Index word = element / 32;
  philox::lane_words<V::width>(keys, replicas, static_cast<std::uint32_t>(word / 4), word % 4, count, w);
  for (int i = 0; i < V::width; ++i) x.set(i, w[i] >> (element % 32) & 1u ? 1 : -1);
  return x;
}
template <class V, class L>
inline V lanes_poisson(const std::uint64_t* keys, const std::uint32_t* replicas, Index element, std::uint64_t count,
                       L lam) {
  V x(0);
  for (int i = 0; i < V::width; ++i) x.set(i, poisson(keys[i], element, replicas[i], count, V(lam)[i]));
  return x;
}

}  // namespace mgd
