// Dense: every pre unit reaches every post unit; synapse = post*N_pre + pre.
#pragma once

#include "tiles.hpp"

namespace mgd {

template <int N_pre, int N_post>
struct Dense {
  static constexpr Index n_synapses = static_cast<Index>(N_pre) * N_post;
  static constexpr Index n_pre = N_pre, n_post = N_post;

  template <class V, class F, class S>
  static void gather(int n_threads, Index nb, const F& f, const S& store) {
    over_units<V, N_post, N_pre>(n_threads, nb, V(0), store, [&](Index pre, Index post, Index block, V acc)
        __attribute__((always_inline)) { return settled(acc + f(post * N_pre + pre, pre, post, block)); });
  }

  template <class V, class F, class S>
  static void gather_max(int n_threads, Index nb, const F& f, const S& store) {
    over_units<V, N_post, N_pre>(n_threads, nb, lowest<V>(), store, [&](Index pre, Index post, Index block, V acc)
        __attribute__((always_inline)) { return max(acc, f(post * N_pre + pre, pre, post, block)); });
  }

  template <class V, class F, class S>
  static void to_pre(int n_threads, Index nb, const F& f, const S& store) {
    over_units<V, N_pre, N_post>(n_threads, nb, V(0), store, [&](Index post, Index pre, Index block, V acc)
        __attribute__((always_inline)) { return settled(acc + f(post * N_pre + pre, pre, post, block)); });
  }

  template <class V, class F, class A>
  static void to_parameter(int n_threads, Index block_begin, Index block_end, const F& f, const A& add) {
    constexpr int post_tile = smaller(4, N_post), n_tiles = divide_up(N_post, post_tile);
    const double work = static_cast<double>(n_synapses) * static_cast<double>(block_end - block_begin) * V::width;
    parallel_for(n_threads, n_tiles, work, [&](Index tile) {
      const Index post = tile * post_tile;
      if (post + post_tile <= N_post)
        parameter_rows<V, post_tile>(post, block_begin, block_end, f, add);
      else if constexpr (N_post % post_tile != 0)
        parameter_rows<V, N_post % post_tile>(post, block_begin, block_end, f, add);
    });
  }

 private:
  // out[unit, block] = fold over the N_other units of the other side, ascending.
  template <class V, int N_unit, int N_other, class S, class F>
  static void over_units(int n_threads, Index nb, V start, const S& store, const F& fold) {
    constexpr int unit_tile = smaller(larger(register_tile<V>() / 4, 2), N_unit);
    constexpr int n_tiles = divide_up(N_unit, unit_tile);
    const double work = static_cast<double>(n_synapses) * static_cast<double>(nb) * V::width;
    parallel_for(n_threads, n_tiles, work, [&](Index tile) {
      const Index unit = tile * unit_tile;
      if (unit + unit_tile <= N_unit)
        unit_rows<V, unit_tile, N_other>(unit, nb, start, store, fold);
      else if constexpr (N_unit % unit_tile != 0)
        unit_rows<V, N_unit % unit_tile, N_other>(unit, nb, start, store, fold);
    });
  }

  template <class V, int Units, int N_other, class S, class F>
  static MGD_KERNEL void unit_rows(Index unit, Index nb, V start, const S& store, const F& fold) {
    in_pieces(0, nb, [&](Index block, auto blocks) __attribute__((always_inline)) {
      constexpr int B = decltype(blocks)::value;
      V acc[Units][B];
      unroll<Units>([&](auto u) __attribute__((always_inline)) {
        unroll<B>([&](auto b) __attribute__((always_inline)) { acc[u][b] = start; });
      });
      for (Index other = 0; other < N_other; ++other)
        unroll<Units>([&](auto u) __attribute__((always_inline)) {
          unroll<B>([&](auto b) __attribute__((always_inline)) {
            acc[u][b] = fold(other, unit + u, block + b, acc[u][b]);
          });
        });
      unroll<Units>([&](auto u) __attribute__((always_inline)) {
        unroll<B>([&](auto b) __attribute__((always_inline)) { store(unit + u, block + b, acc[u][b]); });
      });
    });
  }

  template <class V, int Posts, class F, class A>
  static MGD_KERNEL void parameter_rows(Index post, Index block_begin, Index block_end, const F& f, const A& add) {
    constexpr int pre_tile = smaller(larger(register_tile<V>() / 4, 1), N_pre);
    in_tiles<N_pre, pre_tile>([&](int pre, auto pres) __attribute__((always_inline)) {
      constexpr int P = decltype(pres)::value;
      V acc[Posts][P];
      unroll<Posts>([&](auto o) __attribute__((always_inline)) {
        unroll<P>([&](auto i) __attribute__((always_inline)) { acc[o][i] = V(0); });
      });
      for (Index block = block_begin; block < block_end; ++block)
        unroll<Posts>([&](auto o) __attribute__((always_inline)) {
          unroll<P>([&](auto i) __attribute__((always_inline)) {
            acc[o][i] = settled(acc[o][i] + f((post + o) * N_pre + pre + i, Index(pre + i), post + o, block));
          });
        });
      unroll<Posts>([&](auto o) __attribute__((always_inline)) {
        unroll<P>([&](auto i) __attribute__((always_inline)) { add((post + o) * N_pre + pre + i, acc[o][i]); });
      });
    });
  }
};

}  // namespace mgd
