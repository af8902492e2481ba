// parallel_for: independent tasks over threads, or in place where sharing them out would cost more than it saves.
//
// OpenMP makes the threads, once a run (`with_team`); while the run lasts, the others wait for the loops of the first. A loop
// that is handed over so costs a fraction of an OpenMP region. Tasks are taken one by one: a thread that the machine has put
// aside delays nothing unless it is in the middle of a task.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace mgd {

using Index = std::int64_t;

// Operations (calls of a coupling's function times lanes) below which one thread is faster.
constexpr double parallel_threshold = 20e3;

// The number of this thread in its team.
inline int thread_number() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// The threads of a run. Each has a range of the tasks of a loop, the same in every loop of that form, so that it finds its data in
// its own cache; when its range is done and it has waited for a while it takes from the others'.
class Team {
 public:
  explicit Team(int threads) : ranges_(static_cast<std::size_t>(threads)) {}
  int threads() const { return static_cast<int>(ranges_.size()); }

  // f(task) for all tasks, n < 65,536, those from first(t) to before first(t + 1) by thread t; returns when all are done.
  template <class F, class First>
  void each(Index n, const F& f, const First& first) {
    run_ = [](const void* f_, Index task) { (*static_cast<const F*>(f_))(task); };
    context_ = &f;
    done_.store(0, std::memory_order_relaxed);
    ++loop_;
    for (int t = threads() - 1; t >= 0; --t) {  // its own last: the others look for theirs first
      const auto begin = static_cast<std::uint64_t>(first(t)), end = static_cast<std::uint64_t>(first(t + 1));
      ranges_[t].tasks.store(loop_ << 32 | end << 16 | begin, std::memory_order_release);
    }
    for (int waited = 0; done_.load(std::memory_order_acquire) != n;) {
      if (work(0, waited > patience))
        waited = 0;
      else
        wait(waited++);
    }
  }
  // What the other threads do until the first one ends the run.
  void serve(int thread) {
    for (int waited = 0; !over_.load(std::memory_order_acquire); ++waited) {
      if (work(thread, waited > patience))
        waited = 0;
      else
        wait(waited);
    }
  }
  void end() { over_.store(true, std::memory_order_release); }
  // Between two looks at something that another thread is about to do.
  static void wait(int waited) {
    if (waited > 2000) {  // some 50 us: the machine may have other work
      std::this_thread::yield();
    } else {
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    }
  }

 private:
  struct alignas(64) Range {
    std::atomic<std::uint64_t> tasks{0};  // loop number (32 bits), end (16), the next task (16)
  };

  // Pauses, some 5 us, before a thread takes from another's range: that moves data from one cache to another.
  static constexpr int patience = 200;

  // Takes a task of its own range, or else of the `others`, if one is left, and does it.
  bool work(int thread, bool others) {
    for (int k = 0; k < (others ? threads() : 1); ++k) {
      auto& tasks = ranges_[(thread + k) % threads()].tasks;
      std::uint64_t now = tasks.load(std::memory_order_acquire);
      while ((now & 0xffff) < (now >> 16 & 0xffff))
        if (tasks.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
          run_(context_, static_cast<Index>(now & 0xffff));  // those of this loop, which cannot end before the task
          done_.fetch_add(1, std::memory_order_release);
          return true;
        }
    }
    return false;
  }
  std::vector<Range> ranges_;
  alignas(64) std::atomic<Index> done_{0};
  alignas(64) std::atomic<bool> over_{false};
  void (*run_)(const void*, Index) = nullptr;
  const void* context_ = nullptr;
  std::uint64_t loop_ = 0;
};

// The team whose first thread this is, outside of tasks.
inline thread_local Team* leading = nullptr;

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
      team.serve(omp_get_thread_num());
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
    team->each(
        pieces,
        [&](Index piece) {
          for (Index task = piece * n_tasks / pieces; task < (piece + 1) * n_tasks / pieces; ++task) f(task);
        },
        [&](int thread) { return thread * pieces / team->threads(); });
    leading = team;
    return;
  }
  for (Index task = 0; task < n_tasks; ++task) f(task);
}

// f(first, end) for runs of [0, n).
template <class F>
inline void over_runs(int threads, Index n, double work, const F& f) {
  constexpr Index run = 4096;
  parallel_for(threads, (n + run - 1) / run, work, [&](Index task) {
    const F local(f);  // a copy is in registers, what others might change is not
    local(task * run, (task + 1) * run < n ? (task + 1) * run : n);
  });
}

}  // namespace mgd
