// Sparse: an edge list. Synapse = position in the edge list; sums run in the order of the edge list.
//
// The arrays belong to the caller and outlive the struct. Each side has its edges sorted by unit (stably), CSR fashion:
// by_post: edges e in [post_start[j], post_start[j + 1]) end at unit j, start at post_pre[e], are synapse post_syn[e];
// by_pre: the same seen from the other side. syn_pre and syn_post are the edge list itself.
#pragma once

#include "tiles.hpp"
#include "units.hpp"

namespace mgd {

struct Sparse {
  Index n_pre, n_post, n_synapses;
  const std::int32_t *syn_pre, *syn_post;                // [n_synapses]
  const Index* post_start;                               // [n_post + 1]
  const std::int32_t *post_pre, *post_syn;               // [n_synapses]
  const Index* pre_start;                                // [n_pre + 1]
  const std::int32_t *pre_post, *pre_syn;                // [n_synapses]

  template <int few>
  static constexpr bool spreads() {
    return false;
  }

  template <class V, class F, class S>
  void gather(int n_threads, Index block, const F& f, const S& store) const {
    over_units<V>(n_threads, block, block + 1, n_post, post_start, V(0), store, [&](Index e, Index post, Index at, V acc)
        __attribute__((always_inline)) { return settled(acc + f(Index(post_syn[e]), Index(post_pre[e]), post, at)); });
  }
  template <class V, class F, class S>
  void gather_max(int n_threads, Index block, const F& f, const S& store) const {
    over_units<V>(n_threads, block, block + 1, n_post, post_start, lowest<V>(), store,
                  [&](Index e, Index post, Index at, V acc) __attribute__((always_inline)) {
                    return max(acc, f(Index(post_syn[e]), Index(post_pre[e]), post, at));
                  });
  }
  template <class V, class F, class S>
  void to_pre(int n_threads, Index nb, const F& f, const S& store) const {
    over_units<V>(n_threads, 0, nb, n_pre, pre_start, V(0), store, [&](Index e, Index pre, Index block, V acc)
        __attribute__((always_inline)) { return settled(acc + f(Index(pre_syn[e]), pre, Index(pre_post[e]), block)); });
  }
  template <class V, class F, class A>
  void to_parameter(int n_threads, Index block_begin, Index block_end, const F& f, const A& add) const {
    const Index n_tasks = (n_synapses + edges_per_task - 1) / edges_per_task;
    parallel_for(n_threads, n_tasks, work<V>(block_end - block_begin), [&](Index task) {
      edges<V>(task * edges_per_task, smaller((task + 1) * edges_per_task, n_synapses), block_begin, block_end, f, add);
    });
  }

 private:
  static constexpr Index edges_per_task = 256, units_per_task = 16;

  template <class V>
  double work(Index nb) const {
    return static_cast<double>(n_synapses) * static_cast<double>(nb) * V::width;
  }
  template <class V, class S, class F>
  void over_units(int n_threads, Index b0, Index b1, Index n, const Index* start_of, V start, const S& store,
                  const F& fold) const {
    parallel_for(n_threads, (n + units_per_task - 1) / units_per_task, work<V>(b1 - b0), [&](Index task) {
      units<V>(task * units_per_task, smaller((task + 1) * units_per_task, n), b0, b1, start_of, start, store, fold);
    });
  }
  template <class V, class S, class F>
  static MGD_KERNEL void units(Index begin, Index end, Index b0, Index b1, const Index* start_of, V start,
                               const S& store, const F& fold) {
    for (Index unit = begin; unit < end; ++unit)
      in_pieces(b0, b1, [&](Index block, auto blocks) __attribute__((always_inline)) {
        constexpr int B = decltype(blocks)::value;
        V acc[B];
        unroll<B>([&](auto b) __attribute__((always_inline)) { acc[b] = start; });
        for (Index e = start_of[unit]; e < start_of[unit + 1]; ++e)
          unroll<B>([&](auto b) __attribute__((always_inline)) { acc[b] = fold(e, unit, block + b, acc[b]); });
        unroll<B>([&](auto b) __attribute__((always_inline)) { store(unit, block + b, acc[b]); });
      });
  }
  template <class V, class F, class A>
  MGD_KERNEL void edges(Index begin, Index end, Index block_begin, Index block_end, const F& f, const A& add) const {
    for (Index syn = begin; syn < end; ++syn) {
      V acc(0);
      for (Index block = block_begin; block < block_end; ++block)
        acc = settled(acc + f(syn, Index(syn_pre[syn]), Index(syn_post[syn]), block));
      add(syn, acc);
    }
  }
};

}  // namespace mgd
