// Parts of an iteration that touch nothing of each other run at the same time, each on a session with scratch of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
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

// Operations of a part: before it needs the results of part 0, and from then on.
struct Work {
  double before, waiting;
  double all() const { return before + waiting; }
};

// Parts in the order of the threads that run them: part order[k] for thread t if first[t] <= k < first[t + 1]. Always the same parts
// for a thread: what they need stays in its cache. Part 0 is the first of thread 0, which nobody can keep from it: a thread that waits
// for it waits for one that runs it or is about to.
struct Shares {
  std::vector<Index> order, first;
  Shares() = default;
  Shares(std::initializer_list<Work> work, int threads) {
    const auto of = shared(work, threads);
    for (int thread = 0; thread < threads; ++thread) {
      first.push_back(static_cast<Index>(order.size()));
      for (std::size_t k = 0; k < of.size(); ++k)
        if (of[k] == thread) order.push_back(static_cast<Index>(k));
    }
    first.push_back(static_cast<Index>(order.size()));
  }
  int threads() const { return static_cast<int>(first.size()) - 1; }

 private:
  // The thread of each part: of all ways if they are few; else the largest parts first, each where all are done earliest.
  static std::vector<int> shared(const std::vector<Work>& work, int threads) {
    const std::size_t n = work.size();
    std::vector<int> of(n, 0);
    if (std::pow(threads, n - 1) > 1e5) {
      std::vector<std::size_t> sorted(n);
      for (std::size_t k = 0; k < n; ++k) sorted[k] = k;
      std::stable_sort(sorted.begin() + 1, sorted.end(), [&](auto a, auto b) { return work[a].all() > work[b].all(); });
      std::fill(of.begin() + 1, of.end(), -1);
      for (std::size_t k = 1; k < n; ++k) {
        std::vector<double> done;
        for (int thread = 0; thread < threads; ++thread) {
          of[sorted[k]] = thread;
          done.push_back(end(work, of, threads));
        }
        of[sorted[k]] = static_cast<int>(std::min_element(done.begin(), done.end()) - done.begin());
      }
      return of;
    }
    std::vector<int> best = of;
    double earliest = end(work, of, threads);
    for (std::size_t k = n - 1; k > 0;) {  // counts in numbers of base `threads`
      for (k = n - 1; k > 0 && ++of[k] == threads; --k) of[k] = 0;
      const double found = end(work, of, threads);
      if (found < earliest) {
        earliest = found;
        best = of;
      }
    }
    return best;
  }
  // When the last thread is done; each takes its parts in order. Parts of no thread (-1) are left out.
  static double end(const std::vector<Work>& work, const std::vector<int>& of, int threads) {
    std::vector<double> now(static_cast<std::size_t>(threads), 0.0);
    double first_done = 0;
    for (std::size_t k = 0; k < of.size(); ++k) {
      if (of[k] < 0) continue;
      double& time = now[static_cast<std::size_t>(of[k])];
      time += work[k].before;
      if (work[k].waiting > 0) time = std::max(time, first_done) + work[k].waiting;
      if (k == 0) first_done = time;
    }
    return *std::max_element(now.begin(), now.end());
  }
};

// What a session S has for parts that run at the same time.
template <class S>
struct Shared {
  std::vector<std::shared_ptr<S>> others;  // the sessions of the other threads, and one for the last part
  Shares shares;
  std::shared_ptr<std::atomic<bool>> first_done = std::make_shared<std::atomic<bool>>(true);  // of this and the others

  void wait_for_first() const {
    for (int waited = 0; !first_done->load(std::memory_order_acquire); ++waited) Team::wait(waited);
  }
};

// Something to do by the thread that ran a part, once all parts are done.
template <class S>
struct After {
  Index part;
  void (*run)(S&);
};

// Runs parts[k](session), each after evaluations[k] evaluations, then what comes `after`. At the same time if there are threads
// enough for it to be faster than to share out the loops of one part after another: `work` are operations of each part, `blocks`
// lane blocks. `make_private(session)` gives a session arrays of its own, `leave(to, from)` copies what the last part leaves in them;
// it has a session to itself, as its thread may take over another part later.
template <class S, class P, class Leave>
inline void together(S& s, Index blocks, std::initializer_list<Work> work, std::initializer_list<void (*)(S&)> parts,
                     std::initializer_list<Index> evaluations, std::initializer_list<After<S>> after, const P& make_private,
                     const Leave& leave) {
  Team* const team = leading;
  const Index n = static_cast<Index>(parts.size());
  double largest = 0, total = 0;
  for (const Work& each : work) {
    largest = std::max(largest, each.all());
    total += each.all();
  }
  if (!team || blocks >= team->threads() || total < parallel_threshold || largest * team->threads() > 1.25 * total) {
    for (const auto part : parts) part(s);
    for (const auto& each : after) each.run(s);
    return;
  }
  while (static_cast<int>(s.others.size()) < team->threads()) {
    auto other = std::make_shared<S>(s);
    other->others.clear();
    make_private(*other);
    s.others.push_back(other);
  }
  for (auto& other : s.others) other->now() = s.now();
  if (s.shares.threads() != team->threads()) s.shares = Shares(work, team->threads());
  const auto first = [&](int thread) { return s.shares.first[static_cast<std::size_t>(thread)]; };
  const auto mine = [&]() -> S& {
    const int thread = thread_number();
    return thread ? *s.others[static_cast<std::size_t>(thread) - 1] : s;
  };
  leading = nullptr;
  s.first_done->store(false, std::memory_order_relaxed);
  team->each(
      n,
      [&](Index place) {
        const Index k = s.shares.order[static_cast<std::size_t>(place)];
        S& session = k == n - 1 ? *s.others.back() : mine();
        session.evaluation = evaluations.begin()[k];
        parts.begin()[k](session);
        if (k == 0) s.first_done->store(true, std::memory_order_release);
      },
      first);
  if (after.size())
    team->each(
        n,
        [&](Index place) {
          S& session = mine();
          session.evaluation = evaluations.begin()[n];
          for (const auto& each : after)
            if (each.part == s.shares.order[static_cast<std::size_t>(place)]) each.run(session);
        },
        first);
  leading = team;
  s.evaluation = evaluations.begin()[n];
  leave(s, *s.others.back());
}

}  // namespace mgd
