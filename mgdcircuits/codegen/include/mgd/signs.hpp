// Codes of signs, one bit an element: what a netlist sees as an array of numbers that are all `size` or -`size`.
#pragma once

#include <cstdint>
#include <cstring>

#include "lanes.hpp"

namespace mgd {

// Element k is `size` where bit k is 1, else -`size`.
template <class T>
struct Signs {
  const std::uint32_t* words;
  T size;

  MGD_INLINE T operator[](Index k) const { return words[k / 32] >> (k % 32) & 1u ? size : -size; }
  // Elements k, k + 1, ...; bits up to 32 elements behind the last are read.
  template <int W>
  MGD_INLINE Lanes<T, W> lanes(Index k) const {
    std::uint32_t bits;
    std::memcpy(&bits, reinterpret_cast<const char*>(words) + k / 8, sizeof(bits));
    bits >>= k % 8;
    if constexpr (W == 1) {
      return Lanes<T, W>(bits & 1u ? size : -size);
    } else {
      using V = typename raw::VectorOf<T, W>::type;
      using U = raw::Unsigned<V>;
      U bit;
      for (int i = 0; i < W; ++i) bit[i] = typename raw::IntOf<T>::unsigned_type(1) << i;
      return Lanes<T, W>::of(raw::select((raw::splat<U>(bits) & bit) != 0, raw::splat<V>(size), raw::splat<V>(-size)));
    }
  }
};
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bits are addressed by bytes");

// Signs that are all +0: their size is -0, and zeros have no bit that is 1.
template <class T>
Signs<T> no_signs(const T* zeros) {
  return {reinterpret_cast<const std::uint32_t*>(zeros), static_cast<T>(-0.0)};
}

// Where a code is kept.
template <class T>
struct Code {
  std::uint32_t* words = nullptr;
  T* size = nullptr;
  Signs<T> signs() const { return {words, *size}; }
  // The numbers, for whoever looks at them.
  void expand(T* out, Index n) const {
    const Signs<T> these = signs();
    Index k = 0;
    for (; k + 16 <= n; k += 16) these.template lanes<16>(k).store(out + k);
    for (; k < n; ++k) out[k] = these[k];
  }
};

}  // namespace mgd
