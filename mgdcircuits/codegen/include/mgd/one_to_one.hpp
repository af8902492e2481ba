// OneToOne: unit i reaches unit i; synapse = i.
#pragma once

#include "tiles.hpp"
#include "units.hpp"

namespace mgd {

template <int N>
struct OneToOne {
  static constexpr Index n_synapses = N, n_pre = N, n_post = N;

  template <class V, class Block, class F, class S>
  static void gather(int n_threads, const Block& block, const F& f, const S& store) {
    over_units<V>(n_threads, 1, [&](Index i) { store(i, block, V(f(i, i, i, block))); });
  }
  template <class V, class Block, class F, class S>
  static void gather_max(int n_threads, const Block& block, const F& f, const S& store) {
    gather<V>(n_threads, block, f, store);
  }
  // With few replicas a vector holds several units.
  template <int few>
  static constexpr bool spreads() {
    return true;
  }
  template <class T, int few, class Block, class F, class S>
  static void gather_few(int, const Block& block, const F& f, const S& store) {
    constexpr int S_ = 16 / few;
    for (Index i = 0; i + S_ <= N; i += S_) {
      const Next<S_> u{i};
      store(u, block, f(u, u, u, block));
    }
    if constexpr (N % S_ != 0) {
      const Next<S_, 0, N % S_> u{N - N % S_};
      store(u, block, f(u, u, u, block));
    }
  }
  template <class T, int few, class Block, class F, class S>
  static void gather_max_few(int n_threads, const Block& block, const F& f, const S& store) {
    gather_few<T, few>(n_threads, block, f, store);
  }
  template <class V, class F, class S>
  static void to_pre(int n_threads, Index nb, const F& f, const S& store) {
    over_units<V>(n_threads, nb, [&](Index i) {
      for (Index block = 0; block < nb; ++block) store(i, block, V(f(i, i, i, block)));
    });
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
