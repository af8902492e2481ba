// Counts of what happens to each number of an array, at most once in an update.
//
// They are kept in bytes and added to whole numbers when a byte may be full or somebody looks: eight times less memory moves.
#pragma once

#include <cstdint>
#include <vector>

#include "lanes.hpp"
#include "parallel.hpp"

namespace mgd {

class Counters {
 public:
  void add(std::int64_t* total, Index n) { all_.push_back({total, std::vector<std::uint8_t>(static_cast<std::size_t>(n)), 0}); }
  // The bytes of array k for one more update.
  std::uint8_t* update(int k) {
    Recent& one = all_[k];
    if (one.updates == 255) one.settle();
    ++one.updates;
    return one.bytes.data();
  }
  void settle() {
    for (Recent& one : all_) one.settle();
  }

 private:
  struct Recent {
    std::int64_t* total;
    std::vector<std::uint8_t> bytes;
    int updates;
    void settle() {
      if (updates == 0) return;
      updates = 0;
      for (std::size_t k = 0; k < bytes.size(); ++k) {
        total[k] += bytes[k];
        bytes[k] = 0;
      }
    }
  };
  std::vector<Recent> all_;
};

// Adds 0 or 1 to the bytes of numbers k, k + 1, ... of which `exist` do.
template <class T, class N>
MGD_INLINE void count_whole(std::uint8_t* to, Lanes<T, 16> x, N exist) {
  if constexpr (std::is_same<N, int>::value) {
    for (int k = 0; k < exist; ++k) to[k] = static_cast<std::uint8_t>(to[k] + (x[k] != 0));
  } else {
    typedef std::int8_t Bytes __attribute__((vector_size(16)));
    Bytes sum;
    std::memcpy(&sum, to, sizeof(sum));
    sum -= __builtin_convertvector(x.v != raw::splat<decltype(x.v)>(0), Bytes);  // true is -1
    std::memcpy(to, &sum, sizeof(sum));
  }
}

}  // namespace mgd
