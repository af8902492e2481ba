// Dense: every pre unit reaches every post unit; synapse = post*N_pre + pre.
#pragma once

#include <algorithm>

#include "tiles.hpp"
#include "units.hpp"

namespace mgd {

template <int N_pre, int N_post>
struct Dense {
  static constexpr Index n_synapses = static_cast<Index>(N_pre) * N_post;
  static constexpr Index n_pre = N_pre, n_post = N_post;

  template <class V, class Block, class F, class S>
  static void gather(int n_threads, const Block& block, const F& f, const S& store) {
    over_posts<V>(n_threads, block, V(0), store,
                  [](V acc, V x) __attribute__((always_inline)) { return settled(acc + x); }, f);
  }

  template <class V, class Block, class F, class S>
  static void gather_max(int n_threads, const Block& block, const F& f, const S& store) {
    over_posts<V>(n_threads, block, lowest<V>(), store,
                  [](V acc, V x) __attribute__((always_inline)) { return max(acc, x); }, f);
  }

  // With few replicas a vector holds several pre units, and stores several post units.
  template <int few>
  static constexpr bool spreads() {
    return few <= 4 && strands > 1;
  }
  template <class T, int few, class Block, class F, class S>
  static void gather_few(int n_threads, const Block& block, const F& f, const S& store) {
    few_posts<T, few>(n_threads, block, T(0), store, [](auto acc, auto x) __attribute__((always_inline)) { return acc + x; }, f);
  }
  template <class T, int few, class Block, class F, class S>
  static void gather_max_few(int n_threads, const Block& block, const F& f, const S& store) {
    few_posts<T, few>(n_threads, block, -static_cast<T>(INFINITY), store,
                      [](auto acc, auto x) __attribute__((always_inline)) { return max(acc, x); }, f);
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
  // A long sum runs as `strands` sums side by side, pre = k modulo strands in the k-th, which are then added by halves: the
  // same sum whether lanes are replicas or, with one replica, pre units.
  static constexpr int strands = N_pre >= 16 ? 8 : 1;
  // Strands of a tile at a time: the fewer, the more post units share a loaded pre unit.
  static constexpr int at_once = smaller(strands, 4);

  template <class V, class Block, class S, class Fold, class F>
  static void over_posts(int n_threads, const Block& block, V start, const S& store, const Fold& fold, const F& f) {
    constexpr int posts = smaller(larger(register_tile<V>() / at_once, 1), N_post);
    constexpr int n_tiles = divide_up(N_post, posts);
    parallel_for(n_threads, n_tiles, static_cast<double>(n_synapses) * V::width, [&](Index tile) {
      if constexpr (N_post % posts != 0)
        if (tile == n_tiles - 1) return post_tile<V, N_post % posts>(tile * posts, block, start, store, fold, f);
      post_tile<V, posts>(tile * posts, block, start, store, fold, f);
    });
  }

  template <class V, int Posts, class Block, class S, class Fold, class F>
  static MGD_KERNEL void post_tile(Index post, const Block& block, V start, const S& store, const Fold& fold, const F& f) {
    V sums[Posts][strands];
    for (int first = 0; first < strands; first += at_once) {
      V acc[Posts][at_once];
      unroll<Posts>([&](auto j) __attribute__((always_inline)) {
        unroll<at_once>([&](auto k) __attribute__((always_inline)) { acc[j][k] = start; });
      });
      const auto at = [&](Index pre, auto j, auto k) __attribute__((always_inline)) {
        acc[j][k] = fold(acc[j][k], f((post + j) * N_pre + pre, pre, post + j, block));
      };
      for (Index pre = first; pre + at_once <= N_pre; pre += strands)
        unroll<at_once>([&](auto k) __attribute__((always_inline)) {
          unroll<Posts>([&](auto j) __attribute__((always_inline)) { at(pre + k, j, k); });
        });
      constexpr Index whole = N_pre - N_pre % strands;
      unroll<at_once>([&](auto k) __attribute__((always_inline)) {
        const Index pre = whole + first + k;
        const bool cut = whole + first + at_once > N_pre;  // the strands of the last round that the loop has left out
        if (cut && pre < N_pre) unroll<Posts>([&](auto j) __attribute__((always_inline)) { at(pre, j, k); });
      });
      unroll<Posts>([&](auto j) __attribute__((always_inline)) {
        unroll<at_once>([&](auto k) __attribute__((always_inline)) { sums[j][first + k] = acc[j][k]; });
      });
    }
    unroll<Posts>([&](auto j) __attribute__((always_inline)) { store(post + j, block, by_halves<strands>(sums[j], fold)); });
  }
  template <int N, class V, class Fold>
  static MGD_INLINE V by_halves(V* strand, const Fold& fold) {
    if constexpr (N == 1) {
      return strand[0];
    } else {
      unroll<N / 2>([&](auto k) __attribute__((always_inline)) { strand[k] = fold(strand[k], strand[k + N / 2]); });
      return by_halves<N / 2>(strand, fold);
    }
  }

  // Vectors of S strands times `few` replicas.
  template <class T, int few>
  struct Spread {
    static constexpr int S = smaller(strands, 16 / few), vectors = strands / S;
    using V = Lanes<T, S * few>;
    static constexpr int room = register_tile<V>() / vectors;
    static constexpr int posts = room >= 8 ? 8 : room >= 4 ? 4 : 2;  // at once
    static constexpr int stored = smaller(posts, 16 / few);          // post units a vector
  };

  template <class T, int few, class Block, class S, class Fold, class F>
  static void few_posts(int n_threads, const Block& block, T start, const S& store, const Fold& fold, const F& f) {
    constexpr int posts = Spread<T, few>::posts, n_tiles = divide_up(N_post, posts);
    parallel_for(n_threads, n_tiles, static_cast<double>(n_synapses) * few, [&](Index tile) {
      if constexpr (N_post % posts != 0)
        if (tile == n_tiles - 1) return few_tile<T, few, N_post % posts>(tile * posts, block, start, store, fold, f);
      few_tile<T, few, posts>(tile * posts, block, start, store, fold, f);
    });
  }

  template <class T, int few, int Posts, class Block, class Store, class Fold, class F>
  static MGD_KERNEL void few_tile(Index post, const Block& block, T start, const Store& store, const Fold& fold, const F& f) {
    constexpr int S = Spread<T, few>::S, vectors = Spread<T, few>::vectors, stored = Spread<T, few>::stored;
    using V = typename Spread<T, few>::V;
    V acc[Posts][vectors];
    unroll<Posts>([&](auto j) __attribute__((always_inline)) {
      unroll<vectors>([&](auto v) __attribute__((always_inline)) { acc[j][v] = V(start); });
    });
    for (Index pre = 0; pre + strands <= N_pre; pre += strands)
      unroll<vectors>([&](auto v) __attribute__((always_inline)) {
        unroll<Posts>([&](auto j) __attribute__((always_inline)) {
          const Index from = pre + v * S;
          acc[j][v] = fold(acc[j][v], f(Next<S>{(post + j) * N_pre + from}, Next<S>{from}, Same<S>{post + j}, block));
        });
      });
    constexpr int rest = N_pre % strands;
    unroll<divide_up(rest, S)>([&](auto v) __attribute__((always_inline)) {
      constexpr int exist = smaller(S, rest - v * S);
      constexpr Index from = N_pre - rest + v * S;
      unroll<Posts>([&](auto j) __attribute__((always_inline)) {
        const V next = fold(acc[j][v], f(Next<S, 0, exist>{(post + j) * N_pre + from}, Next<S, 0, exist>{from},
                                         Same<S>{post + j}, block));
        acc[j][v] = where(places<T, S * few, few, 0, exist>(), next, acc[j][v]);
      });
    });
    unroll<divide_up(Posts, stored)>([&](auto group) __attribute__((always_inline)) {
      constexpr int exist = smaller(stored, Posts - group * stored);
      const auto sums = gathered<T, few, stored>([&](auto k) __attribute__((always_inline)) {
        return few_sum<T, few>(acc[group * stored + smaller(k, exist - 1)], fold);
      });
      store(Next<stored, 0, exist>{post + group * stored}, block, sums);
    });
  }
  // The strands of one unit, added by halves.
  template <class T, int few, class V, class Fold>
  static MGD_INLINE Lanes<T, few> few_sum(const V* vectors, const Fold& fold) {
    V sums[Spread<T, few>::vectors];
    std::copy_n(vectors, Spread<T, few>::vectors, sums);
    return few_halves<T, few>(by_halves<Spread<T, few>::vectors>(sums, fold), fold);
  }
  template <class T, int few, int W, class Fold>
  static MGD_INLINE Lanes<T, few> few_halves(Lanes<T, W> strand, const Fold& fold) {
    if constexpr (W == few)
      return strand;
    else
      return few_halves<T, few>(fold(half<0>(strand), half<1>(strand)), fold);
  }

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
