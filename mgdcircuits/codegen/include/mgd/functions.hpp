// The functions of Brian2's equations for Lanes, masks and plain numbers, under the names its C++ renderer prints.
//
// float stays float, every other plain number is computed as double; a mixture with Lanes is computed in the lanes' type.
// The last part makes the names visible in `namespace mgd_generated` by using-declarations: these hide ::tanh and the
// like, where a using-directive would make a call ambiguous.
#pragma once

#include "lanes.hpp"

namespace mgd {

// The type an equation's number is computed in.
template <class S>
using Real = std::conditional_t<std::is_same<S, float>::value, float, double>;
template <class S>
using IfNumber = std::enable_if_t<std::is_arithmetic<S>::value, int>;

// The Lanes type among the arguments (of a Mask: its Lanes); void if all are plain numbers.
template <class... A>
struct LanesAmong {
  using type = void;
};
template <class T, int W, class... A>
struct LanesAmong<Lanes<T, W>, A...> {
  using type = Lanes<T, W>;
};
template <class T, int W, class... A>
struct LanesAmong<Mask<T, W>, A...> {
  using type = Lanes<T, W>;
};
template <class S, class... A>
struct LanesAmong<S, A...> : LanesAmong<A...> {};

// The type a function of several arguments computes in.
template <class... A>
struct Common {
  using L = typename LanesAmong<A...>::type;
  template <class X, class... B>
  struct Pick {
    using type = X;
    static MGD_INLINE auto raw_of(X x) { return x.v; }
    static MGD_INLINE X result(typename X::Raw v) { return X::of(v); }
  };
  template <class... B>
  struct Pick<void, B...> {
    using type = std::common_type_t<B...>;
    static MGD_INLINE type raw_of(type x) { return x; }
    static MGD_INLINE type result(type x) { return x; }
  };
  using P = Pick<L, A...>;
  using type = typename P::type;
  template <class X>
  static MGD_INLINE auto raw_of(X x) {
    return P::raw_of(type(x));
  }
};

// ---- one argument --------------------------------------------------------------------------------------------------

#define MGD_UNARY(name, raw_name)                                               \
  template <class T, int W>                                                     \
  MGD_INLINE Lanes<T, W> name(Lanes<T, W> x) {                                  \
    return Lanes<T, W>::of(raw::raw_name(x.v));                                 \
  }                                                                             \
  template <class T, int W>                                                     \
  MGD_INLINE Lanes<T, W> name(Mask<T, W> x) {                                   \
    return name(Lanes<T, W>(x));                                                \
  }                                                                             \
  template <class S, IfNumber<S> = 0>                                           \
  MGD_INLINE Real<S> name(S x) {                                                \
    return raw::raw_name(static_cast<Real<S>>(x));                              \
  }
MGD_UNARY(exp, exp)
MGD_UNARY(expm1, expm1)
MGD_UNARY(exprel, exprel)
MGD_UNARY(_exprel, exprel)
MGD_UNARY(log, log)
MGD_UNARY(log1p, log1p)
MGD_UNARY(log10, log10)
MGD_UNARY(sqrt, sqrt)
MGD_UNARY(sin, sin)
MGD_UNARY(cos, cos)
MGD_UNARY(tan, tan)
MGD_UNARY(sinh, sinh)
MGD_UNARY(cosh, cosh)
MGD_UNARY(tanh, tanh)
MGD_UNARY(sigmoid, sigmoid)
MGD_UNARY(arcsin, arcsin)
MGD_UNARY(arccos, arccos)
MGD_UNARY(arctan, arctan)
MGD_UNARY(asin, arcsin)
MGD_UNARY(acos, arccos)
MGD_UNARY(atan, arctan)
MGD_UNARY(floor, floor)
MGD_UNARY(ceil, ceil)
MGD_UNARY(fabs, abs)
#undef MGD_UNARY

template <class T, int W>
MGD_INLINE Lanes<T, W> abs(Lanes<T, W> x) {
  return Lanes<T, W>::of(raw::abs(x.v));
}
template <class S, IfNumber<S> = 0>
MGD_INLINE S abs(S x) {
  if constexpr (std::is_floating_point<S>::value)
    return raw::abs(x);
  else
    return x < S(0) ? static_cast<S>(-x) : x;
}
template <class T, int W>
MGD_INLINE Lanes<T, W> sign(Lanes<T, W> x) {
  return Lanes<T, W>::of(raw::sign(x.v));
}
template <class S, IfNumber<S> = 0>
MGD_INLINE auto sign(S x) {
  if constexpr (std::is_floating_point<S>::value)
    return raw::sign(x);
  else
    return (S(0) < x) - (x < S(0));
}

// int(...): truncation; lanes stay lanes, a plain number becomes an integer, a truth value 0 or 1.
template <class T, int W>
MGD_INLINE Lanes<T, W> int_(Lanes<T, W> x) {
  return Lanes<T, W>::of(raw::trunc(x.v));
}
template <class T, int W>
MGD_INLINE Lanes<T, W> int_(Mask<T, W> x) {
  return Lanes<T, W>(x);
}
template <class S, IfNumber<S> = 0>
MGD_INLINE auto int_(S x) {
  if constexpr (std::is_floating_point<S>::value)
    return static_cast<std::int64_t>(x);
  else if constexpr (sizeof(S) < sizeof(int))
    return static_cast<int>(x);
  else
    return x;
}

// ---- two and three arguments ---------------------------------------------------------------------------------------

// nan if either argument is, as numpy.minimum and numpy.maximum
template <class A, class B>
MGD_INLINE auto min(A a, B b) {
  using C = Common<A, B>;
  return C::P::result(raw::minimum(C::raw_of(a), C::raw_of(b)));
}
template <class A, class B>
MGD_INLINE auto max(A a, B b) {
  using C = Common<A, B>;
  return C::P::result(raw::maximum(C::raw_of(a), C::raw_of(b)));
}
template <class A, class B, class D>
MGD_INLINE auto clip(A x, B low, D high) {
  using C = Common<A, B, D>;
  return C::P::result(raw::clip(C::raw_of(x), C::raw_of(low), C::raw_of(high)));
}

template <class T, int W, class A, class B>
MGD_INLINE Lanes<T, W> where(Mask<T, W> mask, A a, B b) {
  using L = Lanes<T, W>;
  return L::of(raw::select(mask.m, L(a).v, L(b).v));
}
// A plain condition chooses for all lanes.
template <class S, class A, class B, IfNumber<S> = 0>
MGD_INLINE auto where(S condition, A a, B b) {
  using C = typename Common<A, B>::type;
  return condition ? C(a) : C(b);
}

// Remainder with the sign of y, and floor division, as Python's % and //.
template <class A, class B>
MGD_INLINE auto _brian_mod(A x, B y) {
  if constexpr (std::is_integral<A>::value && std::is_integral<B>::value) {
    using I = std::common_type_t<A, B>;
    const I r = static_cast<I>(x) % static_cast<I>(y);
    return static_cast<I>(r + ((r != 0) & ((r ^ static_cast<I>(y)) < 0)) * static_cast<I>(y));
  } else {
    using C = Common<A, B>;
    return C::P::result(raw::floor_division(C::raw_of(x), C::raw_of(y)).remainder);
  }
}
template <class A, class B>
MGD_INLINE auto _brian_floordiv(A x, B y) {
  if constexpr (std::is_integral<A>::value && std::is_integral<B>::value) {
    using I = std::common_type_t<A, B>;
    const I q = static_cast<I>(x) / static_cast<I>(y), r = static_cast<I>(x) % static_cast<I>(y);
    return static_cast<I>(q - ((r != 0) & ((r ^ static_cast<I>(y)) < 0)));
  } else {
    using C = Common<A, B>;
    return C::P::result(raw::floor_division(C::raw_of(x), C::raw_of(y)).quotient);
  }
}

// x**y. A plain y that is a small integer multiplies (x**2 is exactly x*x), 0.5 takes the root; a constant y costs no test.
constexpr int power_by_multiplication = 32;

template <class V, class Y>
MGD_INLINE V power_number(V x, Y y) {
  if (y >= -power_by_multiplication && y <= power_by_multiplication && static_cast<Y>(static_cast<int>(y)) == y)
    return raw::power_integer(x, static_cast<int>(y));
  if (static_cast<double>(y) == 0.5) return raw::sqrt(x);
  return raw::power(x, raw::splat<V>(static_cast<raw::Element<V>>(y)));
}
template <class A, class B>
MGD_INLINE auto _brian_pow(A x, B y) {
  using L = typename LanesAmong<A, B>::type;
  if constexpr (std::is_void<L>::value) {
    constexpr bool narrow = std::is_same<A, float>::value && !std::is_same<B, double>::value;
    return power_number(static_cast<std::conditional_t<narrow, float, double>>(x), y);
  } else if constexpr (std::is_arithmetic<B>::value) {
    return L::of(power_number(L(x).v, y));
  } else {
    return L::of(raw::power(L(x).v, L(y).v));
  }
}

// Brian2's own spellings of the above.
template <class A, class B, class D>
MGD_INLINE auto _clip(A x, B low, D high) {
  return clip(x, low, high);
}
template <class A>
MGD_INLINE auto _sign(A x) {
  return sign(x);
}
template <class A>
MGD_INLINE auto _brian_abs(A x) {
  return abs(x);
}
template <class A, class B>
MGD_INLINE auto _timestep(A t, B dt) {
  return int_((t + 1e-3 * dt) / dt);
}

// A number as it is: a product inside is rounded and not fused with a sum outside.
template <class S, IfNumber<S> = 0>
MGD_INLINE S rounded(S x) {
#if defined(__x86_64__)
  if constexpr (std::is_floating_point<S>::value) asm("" : "+x"(x));
#elif defined(__aarch64__)
  if constexpr (std::is_floating_point<S>::value) asm("" : "+w"(x));
#else
  asm("" : "+m"(x));
#endif
  return x;
}
template <class T, int W>
MGD_INLINE Lanes<T, W> rounded(Lanes<T, W> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(x) <= 64 && sizeof(x) >= 4) {
    asm("" : "+v"(x.v));
    return x;
  }
#elif defined(__AVX__)
  if constexpr (sizeof(x) <= 32) {
    asm("" : "+x"(x.v));
    return x;
  }
#elif defined(__x86_64__)
  if constexpr (sizeof(x) <= 16) {
    asm("" : "+x"(x.v));
    return x;
  }
#endif
  asm("" : "+m"(x.v));
  return x;
}
template <class T, int W>
MGD_INLINE Lanes<T, W> rounded(Mask<T, W> x) {
  return Lanes<T, W>(x);
}

}  // namespace mgd

namespace mgd_generated {
using namespace mgd;
// clang-format off
using mgd::exp; using mgd::expm1; using mgd::exprel; using mgd::_exprel; using mgd::log; using mgd::log1p;
using mgd::log10; using mgd::sqrt; using mgd::sin; using mgd::cos; using mgd::tan; using mgd::sinh; using mgd::cosh;
using mgd::tanh; using mgd::sigmoid; using mgd::arcsin; using mgd::arccos; using mgd::arctan; using mgd::asin;
using mgd::acos; using mgd::atan; using mgd::floor; using mgd::ceil; using mgd::fabs; using mgd::abs; using mgd::sign;
using mgd::int_; using mgd::min; using mgd::max; using mgd::clip; using mgd::where; using mgd::_brian_mod;
using mgd::_brian_floordiv; using mgd::_brian_pow; using mgd::_clip; using mgd::_sign; using mgd::_brian_abs;
using mgd::_timestep; using mgd::rounded;
// clang-format on
}  // namespace mgd_generated
