// parallel_for: independent tasks over threads, or in place where sharing them out would cost more than it saves.
//
// OpenMP makes the threads, once a run (`with_team`); while the run lasts, the others wait for the loops of the first. A loop
// that is handed over so costs a fraction of an OpenMP region. Tasks are taken one by one: a thread that the machine has put
// aside delays nothing unless it is in the middle of a task.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace mgd {

using Index = std::int64_t;

// Operations (calls of a coupling's function times lanes) below which one thread is faster.
constexpr double parallel_threshold = 20e3;

// The threads of a run.
class Team {
 public:
  explicit Team(int threads) : threads_(threads) {}
  int threads() const { return threads_; }

  // f(task) for all tasks, n < 65,536; returns when all are done.
  template <class F>
  void each(Index n, const F& f) {
    run_ = [](const void* f_, Index task) { (*static_cast<const F*>(f_))(task); };
    context_ = &f;
    done_.store(0, std::memory_order_relaxed);
    const std::uint64_t loop = (tasks_.load(std::memory_order_relaxed) >> 32) + 1;
    tasks_.store(loop << 32 | static_cast<std::uint64_t>(n) << 16, std::memory_order_release);
    while (work()) {
    }
    for (int waited = 0; done_.load(std::memory_order_acquire) != n; ++waited) wait(waited);
  }
  // What the other threads do until the first one ends the run.
  void serve() {
    for (int waited = 0; !over_.load(std::memory_order_acquire); ++waited) {
      if (work())
        waited = 0;
      else
        wait(waited);
    }
  }
  void end() { over_.store(true, std::memory_order_release); }

 private:
  // Takes a task, if one is left, and does it.
  bool work() {
    std::uint64_t now = tasks_.load(std::memory_order_acquire);
    do {
      if ((now & 0xffff) >= (now >> 16 & 0xffff)) return false;
    } while (!tasks_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    run_(context_, static_cast<Index>(now & 0xffff));  // they are those of this loop, which cannot end before the task
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }
  static void wait(int waited) {
    if (waited > 2000) {  // some 50 us: the machine may have other work
      std::this_thread::yield();
    } else {
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    }
  }

  alignas(64) std::atomic<std::uint64_t> tasks_{0};  // loop number (32 bits), its tasks (16), the next one (16)
  alignas(64) std::atomic<Index> done_{0};
  alignas(64) std::atomic<bool> over_{false};
  void (*run_)(const void*, Index) = nullptr;
  const void* context_ = nullptr;
  int threads_;
};

// The team whose first thread this is, outside of tasks.
inline thread_local Team* leading = nullptr;

// The number of this thread in its team.
inline int thread_number() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// f() with a team of threads, if `work`, the operations of its largest loop, is worth it.
template <class F>
inline void with_team(int threads, double work, const F& f) {
#if defined(_OPENMP)
  if (threads > 1 && work >= parallel_threshold) {
    Team team(threads);
#pragma omp parallel num_threads(threads)
    if (omp_get_thread_num() == 0) {
      leading = &team;
      f();
      leading = nullptr;
      team.end();
    } else {
      team.serve();
    }
    return;
  }
#endif
  (void)threads;
  (void)work;
  f();
}

// f(task) for every task in [0, n_tasks). `work` estimates the operations of all tasks together. Which thread runs a task
// must not matter to the result. Nested calls run serially.
template <class F>
inline void parallel_for(int n_threads, Index n_tasks, double work, const F& f) {
  if (n_threads > 1 && n_tasks > 1 && work >= parallel_threshold && leading) {
    Team* const team = leading;
    leading = nullptr;
    const Index pieces = n_tasks < 4 * team->threads() ? n_tasks : 4 * team->threads();
    team->each(pieces, [&](Index piece) {
      for (Index task = piece * n_tasks / pieces; task < (piece + 1) * n_tasks / pieces; ++task) f(task);
    });
    leading = team;
    return;
  }
  for (Index task = 0; task < n_tasks; ++task) f(task);
}

}  // namespace mgd
