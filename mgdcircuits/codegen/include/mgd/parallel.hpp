// parallel_for: independent tasks over threads through OpenMP, or in place where a region would cost more than it saves.
#pragma once

#include <cstdint>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace mgd {

using Index = std::int64_t;

// Operations (calls of a coupling's function times lanes) below which one thread is faster. Measured on 2 cores with
// AVX-512: a region whose threads still spin costs 0.6 us, and dense 64 -> 64 breaks even near 16 replicas.
constexpr double parallel_threshold = 60e3;

// f(task) for every task in [0, n_tasks). `work` estimates the operations of all tasks together. Which thread runs a task
// must not matter to the result. Nested calls run serially.
template <class F>
inline void parallel_for(int n_threads, Index n_tasks, double work, const F& f) {
#if defined(_OPENMP)
  if (n_threads > 1 && n_tasks > 1 && work >= parallel_threshold && !omp_in_parallel()) {
    const int team = n_tasks < n_threads ? static_cast<int>(n_tasks) : n_threads;
#pragma omp parallel for schedule(static) num_threads(team)
    for (Index task = 0; task < n_tasks; ++task) f(task);
    return;
  }
#else
  (void)n_threads;
  (void)work;
#endif
  for (Index task = 0; task < n_tasks; ++task) f(task);
}

}  // namespace mgd
