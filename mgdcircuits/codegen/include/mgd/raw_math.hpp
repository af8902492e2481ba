// Elementary functions on raw lane vectors: branch-free, the same arithmetic for 1 lane and for 16.
//
// Polynomials are minimax fits (Remez, 200 bits) on the reduced range; `fma` is written out wherever a product meets a
// sum, so that -ffp-contract cannot choose differently for another W. Errors against a correctly rounded result are
// measured by tests/codegen/test_runtime_headers.py. Special values (+-inf, nan, +-0, overflow) follow C's libm.
// Sources: argument reduction after W. J. Cody and W. Waite (1980); log after FreeBSD's e_log.c and e_logf.c.
#pragma once

#include "raw_vector.hpp"

namespace mgd {
namespace raw {

template <class T>
struct Constants;

template <>
struct Constants<float> {
  static constexpr float round_magic = 0x1.8p23f;  // adding and subtracting it rounds |x| < 2^22 to an integer
  static constexpr float integral_from = 0x1p23f;  // every larger float is an integer
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float log2e = 0x1.715476p+0f, ln2_hi = 0x1.62e43p-1f, ln2_lo = -0x1.05c61p-29f;
  static constexpr float exp_max = 89.5f, exp_min = -104.0f;  // exp is inf, 0; at exp_max 2^(k-2) is finite
  static constexpr float expm1_min = -18.0f, tanh_one = 10.0f, smallest_normal = 0x1p-126f;
  // (exp(r) - 1 - r)/r^2 on |r| <= ln(2)/2
  static constexpr int exp_degree = 5;
  static constexpr float exp_poly[] = {0x1p-1f,         0x1.555556p-3f, 0x1.5554e8p-5f,
                                       0x1.1110acp-7f, 0x1.6d4366p-10f, 0x1.a17e12p-13f};
  static constexpr int log_terms = 4;
  static constexpr float log_poly[] = {0xaaaaaa.0p-24f, 0xccce13.0p-25f, 0x91e9ee.0p-25f, 0xf89e26.0p-26f};
  static constexpr std::uint32_t sqrt_half_bits = 0x3f3504f3u, one_bits = 0x3f800000u, mantissa_mask = 0x007fffffu;
  static constexpr float log_ln2_hi = 0x1.62e3p-1f, log_ln2_lo = 0x1.2fefa2p-17f;
  static constexpr float two_mantissa = 0x1p25f;
  static constexpr float linear = 0x1p-26f;  // expm1 x = x below
  // (sinh(x)/x - 1)/x^2 in powers of x^2, on |x| below sinh_small
  static constexpr float sinh_small = 1.0f;
  static constexpr int sinh_degree = 3;
  static constexpr float sinh_poly[] = {0x1.555556p-3f, 0x1.11111ep-7f, 0x1.a008fcp-13f, 0x1.78a7cp-19f};
  static constexpr int two_mantissa_log = 25;
};

template <>
struct Constants<double> {
  static constexpr double round_magic = 0x1.8p52;
  static constexpr double integral_from = 0x1p52;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double log2e = 0x1.71547652b82fep+0, ln2_hi = 0x1.62e42fefa39efp-1, ln2_lo = 0x1.abc9e3b39803fp-56;
  static constexpr double exp_max = 710.7, exp_min = -746.0;
  static constexpr double expm1_min = -38.0, tanh_one = 20.0, smallest_normal = 0x1p-1022;
  static constexpr int exp_degree = 10;
  static constexpr double exp_poly[] = {
      0x1p-1,                0x1.5555555555557p-3,  0x1.5555555555558p-5,  0x1.11111111100cep-7,
      0x1.6c16c16c151f6p-10, 0x1.a01a01abef4dap-13, 0x1.a01a01acfd9a9p-16, 0x1.71de021a60404p-19,
      0x1.27e4ccc5c11cbp-22, 0x1.af4e19cedc43cp-26, 0x1.1f8b5c8520155p-29};
  static constexpr int log_terms = 7;
  static constexpr double log_poly[] = {6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                                        2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                                        1.479819860511658591e-01};
  static constexpr std::uint64_t sqrt_half_bits = 0x3fe6a09e667f3bcdull, one_bits = 0x3ff0000000000000ull,
                                 mantissa_mask = 0x000fffffffffffffull;
  static constexpr double log_ln2_hi = 6.93147180369123816490e-01, log_ln2_lo = 1.90821492927058770002e-10;
  static constexpr double two_mantissa = 0x1p54;
  static constexpr double linear = 0x1p-55;
  static constexpr double sinh_small = 1.0;
  static constexpr int sinh_degree = 6;
  static constexpr double sinh_poly[] = {0x1.5555555555555p-3,  0x1.11111111110fdp-7,  0x1.a01a01a01ee80p-13,
                                         0x1.71de3a4e13ea0p-19, 0x1.ae6460fbe4ee7p-26, 0x1.611cb2bdfeca3p-33,
                                         0x1.b412592656c75p-41};
  static constexpr int two_mantissa_log = 54;
};

// c[0] + c[1] x + ... + c[N] x^N, highest power first.
template <int N, class V>
MGD_INLINE V horner(V x, const Element<V>* c) {
  V y = splat<V>(c[N]);
#pragma GCC unroll 16
  for (int i = N - 1; i >= 0; --i) y = fma(y, x, splat<V>(c[i]));
  return y;
}

// 2^k for an integer vector k in the range of normal exponents (other k give garbage, never a trap).
template <class V>
MGD_INLINE V power_of_two(Signed<V> k) {
  using C = Constants<Element<V>>;
  using U = Unsigned<V>;
  return bits<V>((bits<U>(k) + static_cast<typename IntOf<Element<V>>::unsigned_type>(C::bias)) << C::mantissa);
}

// exp(x) = 2^k (1 + p): `k` integral, p = exp(r) - 1 with |r| <= ln(2)/2. x must be clamped already; nan stays in p.
// `exact`: whether r is free of the error of k ln(2) in one number, k times a quarter of an ulp at most.
template <class V>
struct Reduced {
  Signed<V> k;
  V p;
};
template <bool exact = true, class V>
MGD_INLINE Reduced<V> reduce_exp(V x) {
  using T = Element<V>;
  using C = Constants<T>;
  const V shifted = fma(x, splat<V>(C::log2e), splat<V>(C::round_magic));
  const V n = shifted - splat<V>(C::round_magic);
  V r = fma(n, splat<V>(-C::ln2_hi), x);
  if constexpr (exact) r = fma(n, splat<V>(-C::ln2_lo), r);
  const V q = horner<C::exp_degree>(r, C::exp_poly);
  const V r2 = r * r;
  // Unsigned: for a nan input this difference is garbage and must not be undefined.
  const auto k = bits<Unsigned<V>>(shifted) - bits<Unsigned<V>>(splat<V>(C::round_magic));
  return {bits<Signed<V>>(k), fma(r2, q, r)};
}

template <class V>
MGD_INLINE V clamp_above(V x, Element<V> top) {  // keeps nan
  return least(splat<V>(top), x);
}
template <class V>
MGD_INLINE V clamp_below(V x, Element<V> bottom) {  // keeps nan
  return select(x < splat<V>(bottom), splat<V>(bottom), x);
}

template <class V>
MGD_INLINE V exp(V x) {
  using T = Element<V>;
  using C = Constants<T>;
  const auto e = reduce_exp(clamp_below(clamp_above(x, C::exp_max), C::exp_min));
  // In two steps: 2^k alone may leave the range of normal numbers where exp(x) does not.
  const Signed<V> k1 = e.k >> 1;
  const Signed<V> k2 = e.k - k1;
  const V s1 = power_of_two<V>(k1);
  return fma(e.p, s1, s1) * power_of_two<V>(k2);
}

// expm1(x)/4 without overflow below 4 times the largest number; x <= exp_max.
template <bool exact = true, class V>
MGD_INLINE V quarter_expm1(V x) {
  const auto e = reduce_exp<exact>(x);
  const V s = power_of_two<V>(e.k - 2);
  return fma(s, e.p, s - splat<V>(Element<V>(0.25)));
}

template <class V>
MGD_INLINE V expm1(V x) {
  using C = Constants<Element<V>>;
  const V y = quarter_expm1(clamp_below(clamp_above(x, C::exp_max), C::expm1_min)) * splat<V>(4);
  return select(abs(x) < splat<V>(C::linear), x, y);  // keeps -0 and subnormal digits
}

// x + x^3 P(x^2)
template <int N, class V>
MGD_INLINE V odd(V x, const Element<V>* c) {
  const V z = x * x;
  return fma(x * z, horner<N>(z, c), x);
}

template <class V>
MGD_INLINE V tanh(V x) {
  using C = Constants<Element<V>>;
  const V a = abs(x);
  const V y = clamp_above(a, C::tanh_one);
  const V q = quarter_expm1<false>(y + y);  // tanh is the flatter the larger the error is
  return copysign(q / (q + splat<V>(Element<V>(0.5))), x);
}

template <class V>
MGD_INLINE V sinh(V x) {
  using T = Element<V>;
  using C = Constants<T>;
  // sinh = (t + t/(t + 1))/2 with t = expm1|x|, in quarters so that t does not overflow before sinh does.
  const V a = abs(x);
  const V q = quarter_expm1(clamp_above(a, C::exp_max));
  const V bounded = clamp_above(q, T(0x1p60));
  const V large = fma(splat<V>(T(0.5)), bounded / (bounded + splat<V>(T(0.25))), q + q);
  return copysign(select(a < splat<V>(C::sinh_small), odd<C::sinh_degree>(a, C::sinh_poly), large), x);
}

template <class V>
MGD_INLINE V cosh(V x) {
  using T = Element<V>;
  using C = Constants<T>;
  const auto e = reduce_exp(clamp_above(abs(x), C::exp_max));
  const V s = power_of_two<V>(e.k - 2);
  const V quarter = fma(s, e.p, s);  // exp|x|/4
  return fma(splat<V>(2), quarter, splat<V>(T(0.125)) / quarter);
}

// 1/(1 + exp(-x)), accurate in both tails.
template <class V>
MGD_INLINE V sigmoid(V x) {
  using T = Element<V>;
  const V e = exp(-abs(x)), one = splat<V>(1);
  const V d = one + e, lost = e - (d - one);  // d + lost = 1 + e exactly
  const V numerator = select(x < splat<V>(T(0)), e, one), inverse = one / d;
  const V y = numerator * inverse;
  const V residual = fma(-y, lost, fma(-y, d, numerator));
  return fma(residual, inverse, y);
}

template <class V>
MGD_INLINE V log(V x) {
  using T = Element<V>;
  using C = Constants<T>;
  using U = Unsigned<V>;
  using UT = typename IntOf<T>::unsigned_type;
  const V zero = splat<V>(0), one = splat<V>(1);
  const auto tiny = x < splat<V>(C::smallest_normal);
  const V scaled = select(tiny, x * splat<V>(C::two_mantissa), x);
  // scaled = 2^k m with m in [sqrt(1/2), sqrt(2))
  const U u = bits<U>(scaled) + static_cast<UT>(C::one_bits - C::sqrt_half_bits);
  const V m = bits<V>((u & C::mantissa_mask) + C::sqrt_half_bits);
  const V k_biased = bits<V>((u >> C::mantissa) + bits<U>(splat<V>(C::round_magic))) - splat<V>(C::round_magic);
  const V k = k_biased - select(tiny, splat<V>(T(C::bias + C::two_mantissa_log)), splat<V>(T(C::bias)));
  const V f = m - one;
  const V s = f / (splat<V>(2) + f);
  const V z = s * s;
  const V P = horner<C::log_terms - 1>(z, C::log_poly);
  const V half = splat<V>(T(0.5)) * f;
  const V tail = fma(s, fma(z, P, half * f), k * splat<V>(C::log_ln2_lo));
  V y = fma(k, splat<V>(C::log_ln2_hi), f - fma(half, f, -tail));
  y = select(x == zero, splat<V>(-T(INFINITY)), y);
  y = select(x < zero, splat<V>(T(NAN)), y);
  // inf and nan pass through
  return select(x < splat<V>(T(INFINITY)), y, x);
}

template <class V>
MGD_INLINE V log1p(V x) {
  using T = Element<V>;
  const V u = x + splat<V>(1);
  // What rounding 1 + x lost, to first order (Kahan; HP-15C handbook, 1982).
  const V lost = (x - (u - splat<V>(1))) / u;
  const V y = log(u) + lost;
  // u = 0 (x = -1), u = inf and x = 0 would make nan or lose the sign of zero
  const V special = select(u == splat<V>(0), splat<V>(-T(INFINITY)), x);
  return select((u == splat<V>(0)) | (u == splat<V>(T(INFINITY))) | (x == splat<V>(0)), special, y);
}

// ---- through double precision -------------------------------------------------------------------------------------

// f on the lanes as double, rounded back once: for functions that are not worth a float polynomial of their own.
template <class V, class F>
MGD_INLINE V widen(V x, F f) {
  using T = Element<V>;
  if constexpr (std::is_same<T, double>::value) {
    return f(x);
  } else if constexpr (Shape<V>::W == 1) {
    return static_cast<float>(f(static_cast<double>(x)));
  } else if constexpr (sizeof(V) > 32) {
    return by_halves<V>([&](auto half) __attribute__((always_inline)) { return widen(half, f); }, x);
  } else {
    return __builtin_convertvector(f(__builtin_convertvector(x, typename VectorOf<double, Shape<V>::W>::type)), V);
  }
}

constexpr double sin_poly[] = {-0x1.5555555555555p-3,  0x1.1111111110bacp-7,  -0x1.a01a019e8242ap-13,
                               0x1.71de3794ae404p-19, -0x1.ae60090bed890p-26, 0x1.5e0a62dbbf091p-33};
constexpr double cos_poly[] = {0x1.5555555555555p-5,  -0x1.6c16c16c16964p-10, 0x1.a01a019f4df8ap-16,
                               -0x1.27e4fa16e85c7p-22, 0x1.1eeb67ea51890p-29, -0x1.907ce9fd77c45p-37};

// sin and cos of |r| <= pi/4 plus `quarter` quarter turns (low two bits count), in double.
template <class V>
MGD_INLINE V sin_quarters(V r, Unsigned<V> quarter) {
  const V z = r * r, one = splat<V>(1);
  const V s = fma(r * z, horner<5>(z, sin_poly), r);
  const V c = fma(z * z, horner<5>(z, cos_poly), fma(z, splat<V>(-0.5), one));
  const V y = select((quarter & 1u) != 0u, c, s);
  return bits<V>(bits<Unsigned<V>>(y) ^ ((quarter & 2u) << 62));
}

// sin(x + shift quarter turns), double lanes. Large arguments go to the C library lane by lane.
template <class V>
MGD_INLINE V sin_shifted(V x, unsigned shift) {
  const V magic = splat<V>(Constants<double>::round_magic);
  const V shifted = fma(x, splat<V>(0x1.45f306dc9c883p-1), magic), n = shifted - magic;
  V r = fma(n, splat<V>(-0x1.921fb54442d18p+0), x);
  r = fma(n, splat<V>(-0x1.1a62633145c07p-54), r);
  r = fma(n, splat<V>(0x1.f1976b7ed8fbcp-110), r);
  V y = sin_quarters(r, bits<Unsigned<V>>(shifted) + shift);
  if (shift == 0) y = select(x == splat<V>(0), x, y);  // keeps -0
  const auto lane = [shift](double a) { return shift ? std::cos(a) : std::sin(a); };
  constexpr double limit = 0x1p20;
  if constexpr (Shape<V>::W == 1) {
    return std::fabs(x) < limit ? y : lane(x);
  } else {
    for (int i = 0; i < Shape<V>::W; ++i)
      if (__builtin_expect(!(std::fabs(x[i]) < limit), 0)) y[i] = lane(x[i]);
    return y;
  }
}
template <class V>
MGD_INLINE V sin(V x) {
  return widen(x, [](auto a) __attribute__((always_inline)) { return sin_shifted(a, 0u); });
}
template <class V>
MGD_INLINE V cos(V x) {
  return widen(x, [](auto a) __attribute__((always_inline)) { return sin_shifted(a, 1u); });
}
template <class V>
MGD_INLINE V exprel(V x) {  // (exp(x) - 1)/x
  return widen(x, [](auto a) __attribute__((always_inline)) {
    using D = decltype(a);
    const D inf = splat<D>(INFINITY), one = splat<D>(1), large = splat<D>(700.0);
    const D half = exp(splat<D>(0.5) * a);  // exp(a) overflows before exp(a)/a does
    const D y = select(a > large, half / a * half, expm1(a) / a);
    return select(a == splat<D>(0), one, select(a == inf, inf, y));
  });
}

#define MGD_THROUGH_LIBM(name, call)                                            \
  template <class V>                                                            \
  MGD_INLINE V name(V x) {                                                      \
    return each(x, [](auto a) {                                                 \
      return static_cast<decltype(a)>(call(static_cast<double>(a)));            \
    });                                                                         \
  }
MGD_THROUGH_LIBM(tan, std::tan)
MGD_THROUGH_LIBM(log10, std::log10)
MGD_THROUGH_LIBM(arcsin, std::asin)
MGD_THROUGH_LIBM(arccos, std::acos)
MGD_THROUGH_LIBM(arctan, std::atan)
#undef MGD_THROUGH_LIBM

// ---- rounding to integers ------------------------------------------------------------------------------------------

// Nearest integer (ties to even), sign kept; nan and large numbers unchanged.
template <class V>
MGD_INLINE V round_even(V x) {
  using C = Constants<Element<V>>;
  const V a = abs(x), big = splat<V>(C::integral_from);
  const V r = (a + big) - big;
  return select(a < big, copysign(r, x), x);
}
template <class V>
MGD_INLINE V floor(V x) {
  const V r = round_even(x), down = r - splat<V>(1);
  return copysign(select(r > x, down, r), x);
}
template <class V>
MGD_INLINE V ceil(V x) {
  const V r = round_even(x), up = r + splat<V>(1);
  return copysign(select(r < x, up, r), x);
}
template <class V>
MGD_INLINE V trunc(V x) {
  const V a = abs(x), r = round_even(a), down = r - splat<V>(1);
  return copysign(select(r > a, down, r), x);
}

// ---- two arguments -------------------------------------------------------------------------------------------------

template <class V>
MGD_INLINE V minimum(V a, V b) {  // nan if either is
  return select((b < a) | (b != b), b, a);
}
template <class V>
MGD_INLINE V maximum(V a, V b) {
  return select((b > a) | (b != b), b, a);
}
template <class V>
MGD_INLINE V clip(V x, V low, V high) {  // nan stays
  const V y = select(x < low, low, x);
  return select(y > high, high, y);
}
template <class V>
MGD_INLINE V sign(V x) {  // -1, 0, 1, nan
  const V zero = splat<V>(0), one = splat<V>(1);
  return select(x > zero, one, select(x < zero, -one, x));
}

// Python's floor division and remainder (the remainder has the sign of y), as numpy computes them up to rounding.
template <class V>
struct Division {
  V quotient, remainder;
};
template <class V>
MGD_INLINE Division<V> floor_division(V x, V y) {
  const V zero = splat<V>(0), one = splat<V>(1);
  V q = floor(x / y);
  V r = fma(-q, y, x);
  // x/y may have rounded up to an integer: then the remainder has the wrong sign; or down, then it reaches y.
  const auto above = ((r < zero) & (y > zero)) | ((r > zero) & (y < zero));
  q = select(above, q - one, q);
  r = select(above, r + y, r);
  const auto below = ((r >= y) & (y > zero)) | ((r <= y) & (y < zero));
  q = select(below, q + one, q);
  r = select(below, r - y, r);
  return {q, r};
}

template <class V>
MGD_INLINE V power_integer(V x, long long n) {
  unsigned long long m = n < 0 ? 0ull - static_cast<unsigned long long>(n) : static_cast<unsigned long long>(n);
  V y = splat<V>(1);
  bool first = true;
  for (; m != 0; m >>= 1) {
    if (m & 1) {
      y = first ? x : y * x;
      first = false;
    }
    if (m > 1) x = x * x;
  }
  return n < 0 ? splat<V>(1) / y : y;
}

// x^y for any y: lane by lane in double, through the C library.
template <class V>
MGD_INLINE V power(V x, V y) {
  using T = Element<V>;
  if constexpr (Shape<V>::W == 1) {
    return static_cast<T>(std::pow(static_cast<double>(x), static_cast<double>(y)));
  } else {
    V z{};
    for (int i = 0; i < Shape<V>::W; ++i)
      z[i] = static_cast<T>(std::pow(static_cast<double>(x[i]), static_cast<double>(y[i])));
    return z;
  }
}

}  // namespace raw
}  // namespace mgd
