// OneToOne: unit i reaches unit i; synapse = i.
#pragma once

#include "tiles.hpp"

namespace mgd {

template <int N>
struct OneToOne {
  static constexpr Index n_synapses = N, n_pre = N, n_post = N;

  template <class V, class F, class S>
  static void gather(int n_threads, Index nb, const F& f, const S& store) {
    over_units<V>(n_threads, nb, [&](Index i) {
      for (Index block = 0; block < nb; ++block) store(i, block, V(f(i, i, i, block)));
    });
  }
  template <class V, class F, class S>
  static void gather_max(int n_threads, Index nb, const F& f, const S& store) {
    gather<V>(n_threads, nb, f, store);
  }
  template <class V, class F, class S>
  static void to_pre(int n_threads, Index nb, const F& f, const S& store) {
    gather<V>(n_threads, nb, f, store);
  }
  template <class V, class F, class A>
  static void to_parameter(int n_threads, Index block_begin, Index block_end, const F& f, const A& add) {
    over_units<V>(n_threads, block_end - block_begin, [&](Index i) {
      V acc(0);
      for (Index block = block_begin; block < block_end; ++block) acc = settled(acc + f(i, i, i, block));
      add(i, acc);
    });
  }

 private:
  static constexpr int units_per_task = 64;
  template <class V, class F>
  static void over_units(int n_threads, Index nb, const F& f) {
    const double work = static_cast<double>(N) * static_cast<double>(nb) * V::width;
    parallel_for(n_threads, divide_up(N, units_per_task), work, [&](Index task) {
      units(task * units_per_task, smaller((task + 1) * units_per_task, Index(N)), f);
    });
  }
  template <class F>
  static MGD_KERNEL void units(Index begin, Index end, const F& f) {
    for (Index i = begin; i < end; ++i) f(i);
  }
};

}  // namespace mgd
