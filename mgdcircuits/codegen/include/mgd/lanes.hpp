// mgd::Lanes<T, W>: W numbers side by side that behave as one number in generated equations.
//
// One lane is one replica. Every expression Brian2's C++ renderer prints compiles with Lanes in place of double:
// constants of any arithmetic type are converted to T and never promote, comparisons give a Mask, masks count as 0 and 1
// in arithmetic. Including this header also makes all functions visible inside `namespace mgd_generated`, where they
// hide the C library's of the same name.
#pragma once

#include "raw_math.hpp"

namespace mgd {

template <class T, int W>
struct Mask;

template <class T, int W>
struct Lanes {
  static_assert(std::is_same<T, float>::value || std::is_same<T, double>::value, "Lanes of float or double");
  static_assert(W == 1 || W == 2 || W == 4 || W == 8 || W == 16, "1, 2, 4, 8 or 16 lanes");
  using value_type = T;
  using Raw = typename raw::VectorOf<T, W>::type;
  static constexpr int width = W;

  Raw v;

  Lanes() = default;
  template <class S, std::enable_if_t<std::is_arithmetic<S>::value, int> = 0>
  MGD_INLINE Lanes(S scalar) : v(raw::splat<Raw>(static_cast<T>(scalar))) {}
  MGD_INLINE Lanes(Mask<T, W> mask);  // 1 where true
  static MGD_INLINE Lanes of(Raw v) {
    Lanes x;
    x.v = v;
    return x;
  }

  static MGD_INLINE Lanes load(const T* from) {  // any alignment
    Lanes x;
    std::memcpy(&x.v, from, sizeof(Raw));
    return x;
  }
  MGD_INLINE void store(T* to) const { std::memcpy(to, &v, sizeof(Raw)); }

  MGD_INLINE T operator[](int i) const {
    if constexpr (W == 1)
      return (void)i, v;
    else
      return v[i];
  }
  MGD_INLINE void set(int i, T x) {
    if constexpr (W == 1)
      (void)i, v = x;
    else
      v[i] = x;
  }

  MGD_INLINE Lanes operator-() const { return of(-v); }
  MGD_INLINE Lanes operator+() const { return *this; }
  MGD_INLINE Lanes& operator+=(Lanes b) { return v = v + b.v, *this; }
  MGD_INLINE Lanes& operator-=(Lanes b) { return v = v - b.v, *this; }
  MGD_INLINE Lanes& operator*=(Lanes b) { return v = v * b.v, *this; }
  MGD_INLINE Lanes& operator/=(Lanes b) { return v = v / b.v, *this; }

  // Friends, not templates: a scalar or a mask on either side converts.
  friend MGD_INLINE Lanes operator+(Lanes a, Lanes b) { return of(a.v + b.v); }
  friend MGD_INLINE Lanes operator-(Lanes a, Lanes b) { return of(a.v - b.v); }
  friend MGD_INLINE Lanes operator*(Lanes a, Lanes b) { return of(a.v * b.v); }
  friend MGD_INLINE Lanes operator/(Lanes a, Lanes b) { return of(a.v / b.v); }
  friend MGD_INLINE Mask<T, W> operator<(Lanes a, Lanes b) { return Mask<T, W>::of(a.v < b.v); }
  friend MGD_INLINE Mask<T, W> operator<=(Lanes a, Lanes b) { return Mask<T, W>::of(a.v <= b.v); }
  friend MGD_INLINE Mask<T, W> operator>(Lanes a, Lanes b) { return Mask<T, W>::of(a.v > b.v); }
  friend MGD_INLINE Mask<T, W> operator>=(Lanes a, Lanes b) { return Mask<T, W>::of(a.v >= b.v); }
  friend MGD_INLINE Mask<T, W> operator==(Lanes a, Lanes b) { return Mask<T, W>::of(a.v == b.v); }
  friend MGD_INLINE Mask<T, W> operator!=(Lanes a, Lanes b) { return Mask<T, W>::of(a.v != b.v); }
};

// W truth values, shaped like Lanes<T, W>.
template <class T, int W>
struct Mask {
  using Int = typename raw::IntOf<T>::type;
  using Raw = typename raw::VectorOf<Int, W>::type;
  static constexpr int width = W;

  Raw m;  // -1 where true, 0 where false

  Mask() = default;
  MGD_INLINE Mask(bool all) {
    const Int word = all ? Int(-1) : Int(0);
    if constexpr (W == 1)
      m = word;
    else
      m = word - Raw{};
  }
  template <class M>
  static MGD_INLINE Mask of(M comparison) {
    Mask mask;
    if constexpr (W == 1)
      mask.m = -static_cast<Int>(comparison ? 1 : 0);
    else
      mask.m = comparison;
    return mask;
  }
  // True in the first n lanes: the replicas that exist, where the last block is padded.
  static MGD_INLINE Mask first(long n) {
    Mask mask(false);
    for (int i = 0; i < W; ++i) mask.set(i, i < n);
    return mask;
  }
  MGD_INLINE bool operator[](int i) const {
    if constexpr (W == 1)
      return (void)i, m != 0;
    else
      return m[i] != 0;
  }
  MGD_INLINE void set(int i, bool x) {
    const Int word = x ? Int(-1) : Int(0);
    if constexpr (W == 1)
      (void)i, m = word;
    else
      m[i] = word;
  }

  static MGD_INLINE Mask from_words(Raw m) {
    Mask mask;
    mask.m = m;
    return mask;
  }
  MGD_INLINE Mask operator!() const { return from_words(~m); }
  friend MGD_INLINE Mask operator&&(Mask a, Mask b) { return from_words(a.m & b.m); }
  friend MGD_INLINE Mask operator||(Mask a, Mask b) { return from_words(a.m | b.m); }
  friend MGD_INLINE Mask operator&(Mask a, Mask b) { return from_words(a.m & b.m); }
  friend MGD_INLINE Mask operator|(Mask a, Mask b) { return from_words(a.m | b.m); }
  friend MGD_INLINE Mask operator==(Mask a, Mask b) { return from_words(~(a.m ^ b.m)); }
  friend MGD_INLINE Mask operator!=(Mask a, Mask b) { return from_words(a.m ^ b.m); }

  // 0 and 1 in arithmetic, as in Python.
  using Number = Lanes<T, W>;
  MGD_INLINE Number operator-() const { return -Number(*this); }
  friend MGD_INLINE Number operator+(Mask a, Mask b) { return Number(a) + Number(b); }
  friend MGD_INLINE Number operator-(Mask a, Mask b) { return Number(a) - Number(b); }
  friend MGD_INLINE Number operator*(Mask a, Mask b) { return Number(a && b); }
#define MGD_MASK_WITH_SCALAR(op)                                                        \
  template <class S, std::enable_if_t<std::is_arithmetic<S>::value, int> = 0>           \
  friend MGD_INLINE Number operator op(Mask a, S b) {                                   \
    return Number(a) op Number(b);                                                      \
  }                                                                                     \
  template <class S, std::enable_if_t<std::is_arithmetic<S>::value, int> = 0>           \
  friend MGD_INLINE Number operator op(S a, Mask b) {                                   \
    return Number(a) op Number(b);                                                      \
  }
  MGD_MASK_WITH_SCALAR(+)
  MGD_MASK_WITH_SCALAR(-)
  MGD_MASK_WITH_SCALAR(*)
  MGD_MASK_WITH_SCALAR(/)
#undef MGD_MASK_WITH_SCALAR
};

template <class T, int W>
MGD_INLINE Lanes<T, W>::Lanes(Mask<T, W> mask) : v(raw::select(mask.m, raw::splat<Raw>(T(1)), raw::splat<Raw>(T(0)))) {}

template <class T, int W>
MGD_INLINE bool any(Mask<T, W> mask) {
  bool found = false;
  for (int i = 0; i < W; ++i) found |= mask[i];
  return found;
}
template <class T, int W>
MGD_INLINE bool all(Mask<T, W> mask) {
  return !any(!mask);
}

// Sum over lanes, by halves: ((0+8)+(4+12)) + ... ; the same tree for every machine.
template <class T, int W>
MGD_INLINE T sum_lanes(Lanes<T, W> x) {
  if constexpr (W == 1) {
    return x.v;
  } else {
    Lanes<T, W / 2> low, high;
    std::memcpy(&low.v, &x.v, sizeof(low.v));
    std::memcpy(&high.v, reinterpret_cast<const char*>(&x.v) + sizeof(low.v), sizeof(high.v));
    return sum_lanes(low + high);
  }
}

// The lanes as double, for sums that must not lose digits.
template <class T, int W>
MGD_INLINE Lanes<double, W> to_double(Lanes<T, W> x) {
  if constexpr (W == 1)
    return Lanes<double, W>(x.v);
  else
    return Lanes<double, W>::of(__builtin_convertvector(x.v, typename Lanes<double, W>::Raw));
}
template <class T, int W>
MGD_INLINE Lanes<T, W> from_double(Lanes<double, W> x) {
  if constexpr (W == 1)
    return Lanes<T, W>(x.v);
  else
    return Lanes<T, W>::of(__builtin_convertvector(x.v, typename Lanes<T, W>::Raw));
}

template <class X>
struct is_lanes : std::false_type {};
template <class T, int W>
struct is_lanes<Lanes<T, W>> : std::true_type {};
template <class X>
struct is_mask : std::false_type {};
template <class T, int W>
struct is_mask<Mask<T, W>> : std::true_type {};

}  // namespace mgd

#include "functions.hpp"
