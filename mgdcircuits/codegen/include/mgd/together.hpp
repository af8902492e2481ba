// Parts of an iteration that touch nothing of each other run at the same time, each on a session with scratch of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "parallel.hpp"

namespace mgd {

constexpr std::size_t slack = 1024;  // bytes before and after an array that a vector may read and not use

// An array of zeros, aligned to 64 bytes. calloc gives pages that take memory when they are first written: an array that a run
// does not use takes none. The block that calloc gave is noted right before the slack.
template <class A>
A* allocate(Index n) {
  void* block = std::calloc(1, static_cast<std::size_t>(n) * sizeof(A) + 2 * slack + sizeof(void*) + 64);
  if (!block) throw std::bad_alloc();
  const auto free_from = reinterpret_cast<std::uintptr_t>(block) + sizeof(void*) + slack;
  char* const array = reinterpret_cast<char*>((free_from + 63) / 64 * 64);
  std::memcpy(array - slack - sizeof(void*), &block, sizeof(void*));
  return reinterpret_cast<A*>(array);
}
inline void release(const void* array) {
  void* block;
  std::memcpy(&block, static_cast<const char*>(array) - slack - sizeof(void*), sizeof(void*));
  std::free(block);
}
template <class A>
std::shared_ptr<A> allocate_shared(Index n) {
  return std::shared_ptr<A>(allocate<A>(n), [](A* p) { release(p); });
}

// Parts in the order of the threads that run them, the threads about equally loaded: part order[k] for thread t if first[t] <= k <
// first[t + 1]. Always the same parts for a thread: what they need stays in its cache.
struct Shares {
  std::vector<Index> order, first;
  Shares(std::initializer_list<double> work, int threads) {
    std::vector<std::vector<Index>> of(static_cast<std::size_t>(threads));
    std::vector<double> load(static_cast<std::size_t>(threads), 0.0);
    std::vector<Index> sorted(work.size());
    for (std::size_t k = 0; k < work.size(); ++k) sorted[k] = static_cast<Index>(k);
    std::stable_sort(sorted.begin(), sorted.end(), [&](Index a, Index b) { return work.begin()[a] > work.begin()[b]; });
    for (const Index k : sorted) {
      const auto least = static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
      of[least].push_back(k);
      load[least] += work.begin()[k];
    }
    for (const auto& parts : of) {
      first.push_back(static_cast<Index>(order.size()));
      order.insert(order.end(), parts.begin(), parts.end());
    }
    first.push_back(static_cast<Index>(order.size()));
  }
};

// Runs parts[k](session), each after evaluations[k] evaluations. At the same time if there are threads enough for it to be
// faster than to share out the loops of one part after another: `work` are operations of each part, `blocks` lane blocks.
// `make_private(session)` gives a session arrays of its own, `leave(to, from)` copies what the last part leaves in them.
template <class S, class P, class Leave>
inline void together(S& s, Index blocks, std::initializer_list<double> work, std::initializer_list<void (*)(S&)> parts,
                     std::initializer_list<Index> evaluations, const P& make_private, const Leave& leave) {
  Team* const team = leading;
  const Index n = static_cast<Index>(parts.size());
  const double largest = std::max(work), total = std::accumulate(work.begin(), work.end(), 0.0);
  if (!team || blocks >= team->threads() || total < parallel_threshold || largest * team->threads() > 1.25 * total) {
    for (const auto part : parts) part(s);
    return;
  }
  while (static_cast<int>(s.others.size()) < team->threads() - 1) {
    auto other = std::make_shared<S>(s);
    other->others.clear();
    make_private(*other);
    s.others.push_back(other);
  }
  for (auto& other : s.others) other->now() = s.now();
  S* last = &s;
  leading = nullptr;
  const Shares shares(work, team->threads());
  team->each(
      n,
      [&](Index place) {
        const Index k = shares.order[place];
        const int thread = thread_number();
        S& mine = thread ? *s.others[thread - 1] : s;
        mine.evaluation = evaluations.begin()[k];
        parts.begin()[k](mine);
        if (k == n - 1) last = &mine;
      },
      [&](int thread) { return shares.first[thread]; });
  leading = team;
  s.evaluation = evaluations.begin()[n];
  if (last != &s) leave(s, *last);
}

}  // namespace mgd
