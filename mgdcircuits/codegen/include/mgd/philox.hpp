// Randomness as a function of (key, element, replica, count): Philox4x32-10, the same bits as mgdcircuits/randomness.py.
//
// The 64-bit key stands for (seed, site, member) and is computed in Python only. The counter of a call is
// (element word, replica, low and high half of the site's own 64-bit count); its four 32-bit words are dealt out to
// neighbouring elements:
//   bit          element e has bit e % 32 of word e/32 % 4 of call e/128
//   uniform32    word e % 4 of call e/4               integer: the same word
//   uniform64    words 2(e % 2), 2(e % 2) + 1 of call e/2      normal, poisson: the same two words
// Integers, bits and uniforms agree bitwise with numpy, normals within 4 ulp.
// Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <cstdint>

#include "lanes.hpp"
#include "parallel.hpp"

namespace mgd {
namespace philox {

constexpr int rounds = 10;
constexpr std::uint32_t multiplier0 = 0xD2511F53u, multiplier1 = 0xCD9E8D57u;
constexpr std::uint32_t weyl0 = 0x9E3779B9u, weyl1 = 0xBB67AE85u;

struct Words {
  std::uint32_t w[4];
};

MGD_INLINE Words call(std::uint64_t key, std::uint32_t c0, std::uint32_t c1, std::uint64_t count) {
  std::uint32_t c2 = static_cast<std::uint32_t>(count), c3 = static_cast<std::uint32_t>(count >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t a = static_cast<std::uint64_t>(multiplier0) * c0;
    const std::uint64_t b = static_cast<std::uint64_t>(multiplier1) * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(a);
    k0 += weyl0;
    k1 += weyl1;
  }
  return {{c0, c1, c2, c3}};
}

// Eight 32-bit words, each in the low half of a 64-bit lane, as the machine multiplies them.
typedef std::uint64_t Words8 __attribute__((vector_size(64)));

// The full products of the low halves; what is in the high halves does not matter.
MGD_INLINE Words8 multiply(Words8 a, std::uint32_t m) {
#if defined(MGD_AVX512)
  return raw::bits<Words8>(_mm512_maskz_mul_epu32(0xff, raw::bits<__m512i>(a), _mm512_set1_epi64(m)));
#elif defined(MGD_AVX2)
  __m256i half[2];
  std::memcpy(half, &a, sizeof(a));
  for (auto& h : half) h = _mm256_mul_epu32(h, _mm256_set1_epi64x(m));
  std::memcpy(&a, half, sizeof(a));
  return a;
#else
  return (a & 0xffffffffu) * m;
#endif
}

// N calls side by side, N a multiple of 8. word[j][i / 8][i % 8]: word j of call i.
template <int N>
struct Calls {
  Words8 word[4][N / 8];

  // `c0(i)`, `replica(i)` and `key(i)` give the counter and key of call i.
  template <class C0, class R, class K>
  MGD_INLINE Calls(const C0& c0_of, const R& replica_of, const K& key_of, std::uint64_t count) {
    for (int h = 0; h < N / 8; ++h) {
      std::uint64_t counters[8], replicas[8], keys[8];
      for (int i = 0; i < 8; ++i) {
        counters[i] = c0_of(8 * h + i);
        replicas[i] = replica_of(8 * h + i);
        keys[i] = key_of(8 * h + i);
      }
      Words8 c0, c1, k0;
      std::memcpy(&c0, counters, sizeof(c0));
      std::memcpy(&c1, replicas, sizeof(c1));
      std::memcpy(&k0, keys, sizeof(k0));
      Words8 k1 = k0 >> 32, c2 = (count & 0xffffffffu) - Words8{}, c3 = (count >> 32) - Words8{};
      for (int round = 0; round < rounds; ++round) {  // only low halves count
        const Words8 a = multiply(c0, multiplier0), b = multiply(c2, multiplier1);
        c0 = (b >> 32) ^ c1 ^ k0;
        c1 = b;
        c2 = (a >> 32) ^ c3 ^ k1;
        c3 = a;
        k0 += weyl0;
        k1 += weyl1;
      }
      word[0][h] = c0 & 0xffffffffu;
      word[1][h] = c1 & 0xffffffffu;
      word[2][h] = c2 & 0xffffffffu;
      word[3][h] = c3 & 0xffffffffu;
    }
  }
  // Word j of all calls as an array.
  MGD_INLINE void words(int j, std::uint32_t* out) const {
    for (int h = 0; h < N / 8; ++h)
      for (int i = 0; i < 8; ++i) out[8 * h + i] = static_cast<std::uint32_t>(word[j][h][i]);
  }
};

// ---- from words to numbers -----------------------------------------------------------------------------------------

MGD_INLINE float to_uniform32(std::uint32_t w) { return static_cast<float>(w >> 8) * 0x1p-24f; }
MGD_INLINE double to_uniform64(std::uint32_t w0, std::uint32_t w1) {
  const std::uint64_t bits53 = (static_cast<std::uint64_t>(w0 >> 5) << 26) | (w1 >> 6);
  return static_cast<double>(bits53) * 0x1p-53;
}

// Box-Muller, cosine branch: sqrt(-2 log((w0 + 1)/2^32)) cos(2 pi w1/2^32), the angle reduced to an eighth turn exactly.
// `D`: double or a raw vector of doubles; words as unsigned 64-bit integers of the same shape.
template <class D>
MGD_INLINE D to_normal(raw::Unsigned<D> w0, raw::Unsigned<D> w1) {
  const D magic = raw::splat<D>(0x1p52);
  // Integers below 2^33 to double: put them into the mantissa of 2^52.
  const D u1 = (raw::bits<D>((w0 + 1u) | raw::bits<raw::Unsigned<D>>(magic)) - magic) * raw::splat<D>(0x1p-32);
  const auto quarter = (w1 + (1ull << 29)) >> 30;
  // w1 minus the nearest quarter turn, in [-2^29, 2^29], shifted up to be positive
  const auto rest = w1 + (1ull << 30) - (quarter << 30);
  const D angle = (raw::bits<D>(rest | raw::bits<raw::Unsigned<D>>(magic)) - raw::splat<D>(0x1p52 + 0x1p30)) *
                  raw::splat<D>(0x1.921fb54442d18p-30);
  const D radius = raw::sqrt(raw::splat<D>(-2.0) * raw::log(u1));
  return radius * raw::sin_quarters(angle, quarter + 1u);
}

}  // namespace philox

// ---- one number ----------------------------------------------------------------------------------------------------

MGD_INLINE std::uint32_t philox_word(std::uint64_t key, Index element, std::uint32_t replica, std::uint64_t count) {
  return philox::call(key, static_cast<std::uint32_t>(element / 4), replica, count).w[element % 4];
}

// 0 or 1, each with probability 1/2.
MGD_INLINE std::uint32_t bit(std::uint64_t key, Index element, std::uint32_t replica, std::uint64_t count) {
  const Index word = element / 32;
  return philox::call(key, static_cast<std::uint32_t>(word / 4), replica, count).w[word % 4] >> (element % 32) & 1u;
}
// [0, 1) in steps of 2^-24.
MGD_INLINE float uniform32(std::uint64_t key, Index element, std::uint32_t replica, std::uint64_t count) {
  return philox::to_uniform32(philox_word(key, element, replica, count));
}
// [0, 1) in steps of 2^-53.
MGD_INLINE double uniform64(std::uint64_t key, Index element, std::uint32_t replica, std::uint64_t count) {
  const auto words = philox::call(key, static_cast<std::uint32_t>(element / 2), replica, count);
  const int first = 2 * static_cast<int>(element % 2);
  return philox::to_uniform64(words.w[first], words.w[first + 1]);
}
// Standard normal, computed in double; |x| <= 6.67.
MGD_INLINE double normal(std::uint64_t key, Index element, std::uint32_t replica, std::uint64_t count) {
  const auto words = philox::call(key, static_cast<std::uint32_t>(element / 2), replica, count);
  const int first = 2 * static_cast<int>(element % 2);
  return philox::to_normal<double>(words.w[first], words.w[first + 1]);
}
// 0 ... n - 1; n <= 2^32. The bias of any value is below n/2^32.
MGD_INLINE std::uint64_t integer(std::uint64_t key, Index element, std::uint32_t replica, std::uint64_t count,
                                 std::uint64_t n) {
  return static_cast<std::uint64_t>(philox_word(key, element, replica, count)) * n >> 32;
}

// Poisson with mean lam, by inversion of uniform64: takes O(lam) steps; nan unless 0 <= lam <= 700, where exp(-lam)
// leaves the normal range. numpy may differ when the uniform falls within rounding of a boundary (about 1e-15 a draw).
inline double poisson(std::uint64_t key, Index element, std::uint32_t replica, std::uint64_t count, double lam) {
  if (!(lam >= 0.0 && lam <= 700.0)) return static_cast<double>(NAN);
  const double u = uniform64(key, element, replica, count);
  double probability = std::exp(-lam), below = probability, k = 0.0;
  while (u >= below && probability > 0.0) {
    k += 1.0;
    const double ratio = lam / k;
    probability *= ratio;
    below += probability;
  }
  return k;
}

// Where `index` of range(n) goes under a keyed bijection of range(n): an 8-round Feistel network on the next power of
// four, repeated until the value falls below n (J. Black, P. Rogaway, CT-RSA 2002). n <= 2^62; `count` numbers the
// permutations of one key.
inline std::uint64_t permutation(std::uint64_t key, std::uint64_t index, std::uint64_t n, std::uint64_t count = 0) {
  if (n <= 1) return 0;
  int half = 1;
  while (half < 31 && (std::uint64_t(1) << (2 * half)) < n) ++half;
  const std::uint32_t mask = static_cast<std::uint32_t>((std::uint64_t(1) << half) - 1);
  std::uint64_t x = index;
  do {
    std::uint32_t left = static_cast<std::uint32_t>(x >> half), right = static_cast<std::uint32_t>(x) & mask;
    for (std::uint32_t round = 0; round < 8; ++round) {
      const std::uint32_t mixed = left ^ (philox::call(key, right, round, count).w[0] & mask);
      left = right;
      right = mixed;
    }
    x = static_cast<std::uint64_t>(left) << half | right;
  } while (x >= n);
  return x;
}

}  // namespace mgd

#include "philox_fill.hpp"
