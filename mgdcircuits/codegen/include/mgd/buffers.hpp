// What kernels evaluate beforehand: numbers in slots, kept while neither parameters nor the factors of perturbations change.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "together.hpp"

namespace mgd {

template <class T>
struct Buffers {
  std::vector<const T*> held;  // the buffer of a slot, or an array that is what it would hold

  T* buffer(int k, Index n) {
    if (static_cast<int>(scratch.size()) <= k) scratch.resize(k + 1);
    if (static_cast<Index>(scratch[k].size()) < n + 2 * room) scratch[k].resize(n + 2 * room);
    if (static_cast<int>(held.size()) <= k) held.resize(k + 1);
    held[k] = at(k);
    return at(k);
  }
  T* at(int k) { return scratch[k].data() + room; }
  // Whether what slot k holds was evaluated for another version of the parameters, or with other factors of perturbations.
  bool stale(std::int64_t version, int k, std::initializer_list<double> factors) {
    if (static_cast<int>(evaluated.size()) <= k) evaluated.resize(k + 1, {-1, {}});
    auto& [when, with] = evaluated[k];
    if (when == version && std::equal(with.begin(), with.end(), factors.begin(), factors.end())) return false;
    when = version;
    with = factors;
    return true;
  }
  void borrow(int slot, int k, const T* array) {
    if (static_cast<int>(held.size()) <= slot + k) held.resize(slot + k + 1);
    held[slot + k] = array;
    if (static_cast<int>(evaluated.size()) > slot) evaluated[slot].first = -1;
  }

 private:
  static constexpr Index room = slack / sizeof(T);
  std::vector<std::vector<T>> scratch;
  std::vector<std::pair<std::int64_t, std::vector<double>>> evaluated;
};

}  // namespace mgd
