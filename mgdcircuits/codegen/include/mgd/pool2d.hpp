// Pool2d: each output looks at a window of its own channel. No parameters: lambdas get syn = 0.
//
// Units are (c*H + y)*W + x. Where the window hangs over the border there is no synapse (a mean divides by what f says).
#pragma once

#include "tiles.hpp"
#include "units.hpp"

namespace mgd {

template <int C, int H_in, int W_in, int H_out, int W_out, int KH, int KW, int SY, int SX, int PY, int PX>
struct Pool2d {
  static constexpr Index n_synapses = 0;
  static constexpr Index n_pre = static_cast<Index>(C) * H_in * W_in, n_post = static_cast<Index>(C) * H_out * W_out;

  static constexpr Index pre_index(Index c, Index y, Index x) { return (c * H_in + y) * W_in + x; }
  static constexpr Index post_index(Index c, Index y, Index x) { return (c * H_out + y) * W_out + x; }
  // How many pre units this output has, for a mean over what exists.
  static constexpr int window_size(Index post) {
    const Range rows = window(static_cast<int>(post / W_out % H_out) * SY - PY, KH, H_in);
    const Range columns = window(static_cast<int>(post % W_out) * SX - PX, KW, W_in);
    return (rows.end - rows.begin) * (columns.end - columns.begin);
  }

  template <class V, class Block, class F, class S>
  static void gather(int n_threads, const Block& block, const F& f, const S& store) {
    over_outputs<V>(n_threads, block, V(0), f, store,
                    [](V acc, V x) __attribute__((always_inline)) { return settled(acc + x); });
  }
  template <class V, class Block, class F, class S>
  static void gather_max(int n_threads, const Block& block, const F& f, const S& store) {
    over_outputs<V>(n_threads, block, lowest<V>(), f, store,
                    [](V acc, V x) __attribute__((always_inline)) { return max(acc, x); });
  }

  // With few replicas a vector holds several outputs of a row, if all windows lie inside.
  template <int few>
  static constexpr bool spreads() {
    return SX <= 2 && PX == 0 && PY == 0 && (H_out - 1) * SY + KH <= H_in && (W_out - 1) * SX + KW <= W_in;
  }
  template <class T, int few, class Block, class F, class S>
  static void gather_few(int n_threads, const Block& block, const F& f, const S& store) {
    few_rows<T, few>(n_threads, block, T(0), f, store,
                     [](auto acc, auto x) __attribute__((always_inline)) { return acc + x; });
  }
  template <class T, int few, class Block, class F, class S>
  static void gather_max_few(int n_threads, const Block& block, const F& f, const S& store) {
    few_rows<T, few>(n_threads, block, -static_cast<T>(INFINITY), f, store,
                     [](auto acc, auto x) __attribute__((always_inline)) { return max(acc, x); });
  }

  template <class V, class F, class S>
  static void to_pre(int n_threads, Index nb, const F& f, const S& store) {
    over_inputs<V>(n_threads, nb, store, [&](Index pre, Index post, int, int, Index block) { return f(Index(0), pre, post, block); });
  }

  // The gradient of a maximum: pre receives f from each output whose first largest window entry (row by row) it is.
  // value(pre, block) gives what the maximum was taken of; a nan counts as largest, as it does in the maximum.
  template <class V, class X, class F, class S>
  static void to_pre_first_winner(int n_threads, Index nb, const X& value, const F& f, const S& store) {
    over_inputs<V>(n_threads, nb, store, [&](Index pre, Index post, int oy, int ox, Index block) {
      const int c = static_cast<int>(pre / (H_in * W_in));
      const V mine = value(pre, block);
      const auto mine_nan = mine != mine;
      auto wins = !mine_nan || mine_nan;  // all true
      bool earlier = true;
      const Range rows = window(oy * SY - PY, KH, H_in), columns = window(ox * SX - PX, KW, W_in);
      for (int iy = rows.begin; iy < rows.end; ++iy)
        for (int ix = columns.begin; ix < columns.end; ++ix) {
          const Index other = pre_index(c, iy, ix);
          if (other == pre) {
            earlier = false;
            continue;
          }
          const V theirs = value(other, block);
          const auto theirs_nan = theirs != theirs;
          // An earlier entry wins ties, a later one does not.
          if (earlier)
            wins = wins && !theirs_nan && (mine > theirs || mine_nan);
          else
            wins = wins && (mine >= theirs || mine_nan);
        }
      return where(wins, f(Index(0), pre, post, block), V(0));
    });
  }

  template <class V, class F, class A>
  static void to_parameter(int, Index, Index, const F&, const A&) {}  // there is none

 private:
  struct Range {
    int begin, end;
  };
  static constexpr Range window(int at, int kernel, int extent) {
    const int begin = larger(at, 0), end = smaller(at + kernel, extent);
    return {begin, larger(begin, end)};
  }

  template <class V, class Block, class F, class S, class Fold>
  static void over_outputs(int n_threads, const Block& block, V start, const F& f, const S& store, const Fold& fold) {
    const double work = static_cast<double>(n_post) * KH * KW * V::width;
    parallel_for(n_threads, static_cast<Index>(C) * H_out, work, [&](Index task) {
      output_row<V>(static_cast<int>(task / H_out), static_cast<int>(task % H_out), block, start, f, store, fold);
    });
  }
  template <class V, class Block, class F, class S, class Fold>
  static MGD_KERNEL void output_row(int c, int oy, const Block& block, V start, const F& f, const S& store,
                                    const Fold& fold) {
    const Range rows = window(oy * SY - PY, KH, H_in);
    for (int ox = 0; ox < W_out; ++ox) {
      const Index post = post_index(c, oy, ox);
      const Range columns = window(ox * SX - PX, KW, W_in);
      V acc = start;
      for (int iy = rows.begin; iy < rows.end; ++iy)
        for (int ix = columns.begin; ix < columns.end; ++ix)
          acc = fold(acc, f(Index(0), pre_index(c, iy, ix), post, block));
      store(post, block, acc);
    }
  }

  template <class T, int few, class Block, class F, class S, class Fold>
  static void few_rows(int n_threads, const Block& block, T start, const F& f, const S& store, const Fold& fold) {
    parallel_for(n_threads, static_cast<Index>(C) * H_out, static_cast<double>(n_post) * KH * KW * few, [&](Index task) {
      few_row<T, few>(static_cast<int>(task / H_out), static_cast<int>(task % H_out), block, start, f, store, fold);
    });
  }
  template <class T, int few, class Block, class F, class S, class Fold>
  static MGD_KERNEL void few_row(int c, int oy, const Block& block, T start, const F& f, const S& store, const Fold& fold) {
    constexpr int columns = 16 / few, full = W_out / columns, tail = W_out % columns;
    for (int k = 0; k < full; ++k) few_outputs<T, few, columns>(c, oy, k * columns, block, start, f, store, fold);
    if constexpr (tail > 0) few_outputs<T, few, tail>(c, oy, full * columns, block, start, f, store, fold);
  }
  template <class T, int few, int N, class Block, class F, class S, class Fold>
  static MGD_INLINE void few_outputs(int c, int oy, int ox, const Block& block, T start, const F& f, const S& store,
                                     const Fold& fold) {
    constexpr int columns = 16 / few;
    using Outputs = Next<columns, 0, N>;
    using Inputs = Next<columns, 0, N, SX>;
    const Outputs post{post_index(c, oy, ox)};
    Lanes<T, columns * few> acc(start);
    for (int ky = 0; ky < KH; ++ky)
      for (int kx = 0; kx < KW; ++kx) {
        const Inputs pre{pre_index(c, oy * SY + ky, ox * SX + kx)};
        acc = fold(acc, f(Same<columns>{0}, pre, post, block));
      }
    store(post, block, acc);
  }

  // The outputs along one axis whose window holds input i.
  static constexpr Range reached(int i, int stride, int padding, int kernel, int extent) {
    const int last = (i + padding) / stride, lowest_at = i + padding - kernel + 1;
    const int begin = lowest_at > 0 ? divide_up(lowest_at, stride) : 0;
    const int end = smaller(last + 1, extent);
    return {begin, larger(begin, end)};
  }
  template <class V, class S, class F>
  static void over_inputs(int n_threads, Index nb, const S& store, const F& f) {
    const double work = static_cast<double>(n_post) * KH * KW * static_cast<double>(nb) * V::width;
    parallel_for(n_threads, static_cast<Index>(C) * H_in, work, [&](Index task) {
      input_row<V>(static_cast<int>(task / H_in), static_cast<int>(task % H_in), nb, store, f);
    });
  }
  template <class V, class S, class F>
  static MGD_KERNEL void input_row(int c, int iy, Index nb, const S& store, const F& f) {
    const Range rows = reached(iy, SY, PY, KH, H_out);
    for (int ix = 0; ix < W_in; ++ix) {
      const Index pre = pre_index(c, iy, ix);
      const Range columns = reached(ix, SX, PX, KW, W_out);
      for (Index block = 0; block < nb; ++block) {
        V acc(0);
        for (int oy = rows.begin; oy < rows.end; ++oy)
          for (int ox = columns.begin; ox < columns.end; ++ox) acc = settled(acc + f(pre, post_index(c, oy, ox), oy, ox, block));
        store(pre, block, acc);
      }
    }
  }
};

}  // namespace mgd
