// Numbers of replicas that must not become infinite or not a number.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.hpp"

namespace mgd {

// Whether the numbers of all real replicas are finite.
template <class Y>
inline bool all_finite(const std::vector<const double*>& numbers) {
  constexpr std::uint64_t infinite = 0x7ff0000000000000;  // the exponent of infinities and of what is no number
  bool finite = true;
  for (const double* p : numbers)
    for (Index g = 0; g < Y::groups; ++g)
      for (Index r = 0; r < (Y::lanes_are_members ? Y::M : Y::B); ++r) {
        std::uint64_t bits;
        std::memcpy(&bits, p + g * Y::RM + r, sizeof bits);
        finite &= (bits & infinite) != infinite;
      }
  return finite;
}

}  // namespace mgd
