// Raw lane vectors: the types under mgd::Lanes and the few operations GCC's vector extensions lack.
//
// A "raw" value is a plain float or double (W = 1) or a GCC/Clang vector of W of them; every function here and in
// raw_math.hpp is written once for both, so that the result of a lane never depends on W.
// Reads and writes no memory of the caller.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// Which of the machine's own instructions are named; MGD_PLAIN leaves all of them to the compiler.
#if !defined(MGD_PLAIN)
#if defined(__AVX__)
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own undefined vectors
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#define MGD_AVX
#endif
#if defined(__AVX2__)
#define MGD_AVX2
#endif
#if defined(__AVX512F__)
#define MGD_AVX512
#endif
#endif

#define MGD_INLINE inline __attribute__((always_inline))

// Vectors wider than the machine's are split by the compiler; everything is inlined, so no ABI is at stake.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#elif defined(__clang__)
#pragma clang diagnostic ignored "-Wbitwise-instead-of-logical"  // | of two comparisons: bool with one lane, else a vector
#endif

namespace mgd {
namespace raw {

template <class T>
struct IntOf;
template <>
struct IntOf<float> {
  using type = std::int32_t;
  using unsigned_type = std::uint32_t;
};
template <>
struct IntOf<double> {
  using type = std::int64_t;
  using unsigned_type = std::uint64_t;
};

template <class T, int W>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
};
template <class T>
struct VectorOf<T, 1> {
  using type = T;
};

// Element type, lane count and the integer vectors of the same shape, from the raw type alone.
template <class V, bool = std::is_arithmetic<V>::value>
struct Shape {
  using T = V;
  static constexpr int W = 1;
};
template <class V>
struct Shape<V, false> {
  using T = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<V&>()[0])>>;
  static constexpr int W = sizeof(V) / sizeof(T);
};
template <class V>
using Element = typename Shape<V>::T;
template <class V>
using Signed = typename VectorOf<typename IntOf<Element<V>>::type, Shape<V>::W>::type;
template <class V>
using Unsigned = typename VectorOf<typename IntOf<Element<V>>::unsigned_type, Shape<V>::W>::type;

// The same bits under another type of the same size.
template <class To, class From>
MGD_INLINE To bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "bits() keeps the size");
  To y;
  std::memcpy(&y, &x, sizeof(To));
  return y;
}

// One number in every lane ("c - 0" and not "0 + c": it keeps -0).
template <class V>
MGD_INLINE V splat(Element<V> c) {
  if constexpr (std::is_arithmetic<V>::value)
    return c;
  else
    return c - V{};
}

// Lane-wise choice; `mask` is what a comparison of two V gives (bool for a scalar).
template <class M, class V>
MGD_INLINE V select(M mask, V a, V b) {
  return mask ? a : b;
}

// The smaller one; b where either is nan. (The compiler makes two instructions of the choice, for fear of nan.)
template <class V>
MGD_INLINE V least(V a, V b) {
  using T = Element<V>;
  constexpr bool is_float = std::is_same<T, float>::value;
#if defined(MGD_AVX512)
  if constexpr (sizeof(V) == 64 && is_float) return bits<V>(_mm512_min_ps(bits<__m512>(a), bits<__m512>(b)));
  if constexpr (sizeof(V) == 64 && !is_float) return bits<V>(_mm512_min_pd(bits<__m512d>(a), bits<__m512d>(b)));
#endif
#if defined(MGD_AVX)
  if constexpr (sizeof(V) == 32 && is_float) return bits<V>(_mm256_min_ps(bits<__m256>(a), bits<__m256>(b)));
  if constexpr (sizeof(V) == 32 && !is_float) return bits<V>(_mm256_min_pd(bits<__m256d>(a), bits<__m256d>(b)));
#endif
  return select(a < b, a, b);
}

// Applies `f` to the two halves of a vector and joins the results.
template <class V, class F, class... A>
MGD_INLINE V by_halves(F f, A... a) {
  using H = typename VectorOf<Element<V>, Shape<V>::W / 2>::type;
  V out;
  for (int h = 0; h < 2; ++h) {
    const auto half = [h](const V& x) __attribute__((always_inline)) {
      H y;
      std::memcpy(&y, reinterpret_cast<const char*>(&x) + h * sizeof(H), sizeof(H));
      return y;
    };
    const H y = f(half(a)...);
    std::memcpy(reinterpret_cast<char*>(&out) + h * sizeof(H), &y, sizeof(H));
  }
  return out;
}

// a*b + c with one rounding, in every lane count alike.
template <class V>
MGD_INLINE V fma(V a, V b, V c) {
#if defined(__FMA__) && !defined(MGD_PLAIN)
  using T = Element<V>;
  if constexpr (Shape<V>::W == 1) {
    if constexpr (std::is_same<T, float>::value)
      return __builtin_fmaf(a, b, c);
    else
      return __builtin_fma(a, b, c);
  }
#if defined(MGD_AVX512)
  else if constexpr (sizeof(V) == 64) {
    if constexpr (std::is_same<T, float>::value)
      return bits<V>(_mm512_fmadd_ps(bits<__m512>(a), bits<__m512>(b), bits<__m512>(c)));
    else
      return bits<V>(_mm512_fmadd_pd(bits<__m512d>(a), bits<__m512d>(b), bits<__m512d>(c)));
  }
#endif
  else if constexpr (sizeof(V) == 32) {
    if constexpr (std::is_same<T, float>::value)
      return bits<V>(_mm256_fmadd_ps(bits<__m256>(a), bits<__m256>(b), bits<__m256>(c)));
    else
      return bits<V>(_mm256_fmadd_pd(bits<__m256d>(a), bits<__m256d>(b), bits<__m256d>(c)));
  } else if constexpr (sizeof(V) == 16) {
    if constexpr (std::is_same<T, float>::value)
      return bits<V>(_mm_fmadd_ps(bits<__m128>(a), bits<__m128>(b), bits<__m128>(c)));
    else
      return bits<V>(_mm_fmadd_pd(bits<__m128d>(a), bits<__m128d>(b), bits<__m128d>(c)));
  } else {
    return by_halves<V>([](auto p, auto q, auto r) __attribute__((always_inline)) { return fma(p, q, r); }, a, b, c);
  }
#elif defined(__ARM_FEATURE_FMA)
  return a * b + c;  // contracted by the compiler
#else
  // No such instruction: the C library's exact fma, lane by lane. Slow, but the error bounds hold.
  if constexpr (Shape<V>::W == 1) {
    if constexpr (std::is_same<V, float>::value)
      return __builtin_fmaf(a, b, c);
    else
      return __builtin_fma(a, b, c);
  } else {
    V y = c;
    for (int i = 0; i < Shape<V>::W; ++i) y[i] = raw::fma<Element<V>>(a[i], b[i], c[i]);
    return y;
  }
#endif
}

template <class V>
MGD_INLINE V sqrt(V x) {
  using T = Element<V>;
  if constexpr (Shape<V>::W == 1) {
    if constexpr (std::is_same<T, float>::value)
      return __builtin_sqrtf(x);
    else
      return __builtin_sqrt(x);
  }
#if defined(MGD_AVX512)
  else if constexpr (sizeof(V) == 64) {
    if constexpr (std::is_same<T, float>::value)
      return bits<V>(_mm512_maskz_sqrt_ps(0xffff, bits<__m512>(x)));
    else
      return bits<V>(_mm512_maskz_sqrt_pd(0xff, bits<__m512d>(x)));
  }
#endif
#if defined(MGD_AVX)
  else if constexpr (sizeof(V) == 32) {
    if constexpr (std::is_same<T, float>::value)
      return bits<V>(_mm256_sqrt_ps(bits<__m256>(x)));
    else
      return bits<V>(_mm256_sqrt_pd(bits<__m256d>(x)));
  }
#endif
  else {
    V y;
    for (int i = 0; i < Shape<V>::W; ++i) y[i] = raw::sqrt<T>(x[i]);
    return y;
  }
}

// Lane by lane through a scalar function: for what is too rare to deserve a polynomial.
template <class V, class F>
MGD_INLINE V each(V x, F f) {
  if constexpr (Shape<V>::W == 1) {
    return f(x);
  } else {
    V y{};
    for (int i = 0; i < Shape<V>::W; ++i) y[i] = f(x[i]);
    return y;
  }
}

template <class V>
MGD_INLINE V abs(V x) {
  using U = Unsigned<V>;
  using UT = typename IntOf<Element<V>>::unsigned_type;
  return bits<V>(bits<U>(x) & static_cast<UT>(~UT(0) >> 1));
}

// |magnitude| with the sign bit of `sign`.
template <class V>
MGD_INLINE V copysign(V magnitude, V sign) {
  using U = Unsigned<V>;
  using UT = typename IntOf<Element<V>>::unsigned_type;
  constexpr UT low = static_cast<UT>(~UT(0) >> 1);
  return bits<V>((bits<U>(magnitude) & low) | (bits<U>(sign) & static_cast<UT>(~low)));
}

}  // namespace raw
}  // namespace mgd
