// Conv2d: a kernel slid over a channel-row-column array, with stride, zero padding, dilation and groups.
//
// Units are (c*H + y)*W + x; synapse = ((oc*(C_in/G) + ic)*KH + ky)*KW + kx, one for all the places it is used in. Where
// the kernel hangs over the border there is no synapse. Sums run over ic, ky, kx ascending (to_pre: oc, ky, kx), at the
// border as inside.
//
// Register blocking: a tile of output channels times neighbouring columns is accumulated while ic, ky, kx are walked; each
// loaded input serves every channel of the tile, each weight every column.
#pragma once

#include <memory>

#include "tiles.hpp"
#include "units.hpp"

namespace mgd {

template <int C_in, int H_in, int W_in, int C_out, int H_out, int W_out, int KH, int KW, int SY, int SX, int PY, int PX,
          int DY, int DX, int G>
struct Conv2d {
  static_assert(C_in % G == 0 && C_out % G == 0, "groups divide the channels");
  static constexpr int I = C_in / G, O = C_out / G;  // channels of one group
  static constexpr Index n_synapses = static_cast<Index>(C_out) * I * KH * KW;
  static constexpr Index n_pre = static_cast<Index>(C_in) * H_in * W_in;
  static constexpr Index n_post = static_cast<Index>(C_out) * H_out * W_out;

  static constexpr Index pre_index(Index c, Index y, Index x) { return (c * H_in + y) * W_in + x; }
  static constexpr Index post_index(Index c, Index y, Index x) { return (c * H_out + y) * W_out + x; }
  static constexpr Index synapse(Index oc, Index ic, Index ky, Index kx) { return ((oc * I + ic) * KH + ky) * KW + kx; }

  template <class V, class Block, class F, class S>
  static void gather(int n_threads, const Block& block, const F& f, const S& store) {
    gather_rows<V>(n_threads, block, V(0), store, [&](Index syn, Index pre, Index post, const Block& at, V acc)
        __attribute__((always_inline)) { return settled(acc + f(syn, pre, post, at)); });
  }

  template <class V, class Block, class F, class S>
  static void gather_max(int n_threads, const Block& block, const F& f, const S& store) {
    gather_rows<V>(n_threads, block, lowest<V>(), store, [&](Index syn, Index pre, Index post, const Block& at, V acc)
        __attribute__((always_inline)) { return max(acc, f(syn, pre, post, at)); });
  }

  // With few replicas a vector holds several columns, if the stride is one.
  template <int few>
  static constexpr bool spreads() {
    return SX == 1 && KW <= 7 && PX <= 16 && (KW - 1) * DX <= 16;
  }
  template <class T, int few, class Block, class F, class S>
  static void gather_few(int n_threads, const Block& block, const F& f, const S& store) {
    few_rows<T, few>(n_threads, block, T(0), store, [&](auto syn, auto pre, auto post, const Block& at, auto acc)
        __attribute__((always_inline)) { return acc + f(syn, pre, post, at); });
  }
  template <class T, int few, class Block, class F, class S>
  static void gather_max_few(int n_threads, const Block& block, const F& f, const S& store) {
    few_rows<T, few>(n_threads, block, -static_cast<T>(INFINITY), store,
                     [&](auto syn, auto pre, auto post, const Block& at, auto acc)
                         __attribute__((always_inline)) { return max(acc, f(syn, pre, post, at)); });
  }

  template <class V, class F, class S>
  static void to_pre(int n_threads, Index nb, const F& f, const S& store) {
    parallel_for(n_threads, nb * H_in, work<V>(nb), [&](Index task) {
      pre_row<V>(static_cast<int>(task % H_in), task / H_in, f, store);
    });
  }

  template <class V, class F, class A>
  static void to_parameter(int n_threads, Index block_begin, Index block_end, const F& f, const A& add) {
    using P = ParameterTiles<V>;
    const double all = work<V>(block_end - block_begin);
    if constexpr (P::row_splits == 1) {
      parallel_for(n_threads, P::n_tiles, all, [&](Index tile) {
        parameter_tiles<V>(tile, 0, H_out, block_begin, block_end, f, add);
      });
    } else {
      // Few tiles: the rows are split too, always into the same parts, and the parts are summed in order.
      const std::unique_ptr<V[]> part(new V[n_synapses * P::row_splits]);
      parallel_for(n_threads, P::n_tiles * P::row_splits, all, [&](Index task) {
        const int split = static_cast<int>(task % P::row_splits);
        V* const out = part.get() + split * n_synapses;
        parameter_tiles<V>(task / P::row_splits, H_out * split / P::row_splits, H_out * (split + 1) / P::row_splits,
                           block_begin, block_end, f, [out](Index syn, V acc) { out[syn] = acc; });
      });
      for (Index syn = 0; syn < n_synapses; ++syn) {
        V acc = part[syn];
        for (int split = 1; split < P::row_splits; ++split) acc += part[split * n_synapses + syn];
        add(syn, acc);
      }
    }
  }

 private:
  template <class V>
  static double work(Index nb) {
    return static_cast<double>(n_synapses) * H_out * W_out * static_cast<double>(nb) * V::width;
  }

  struct Range {
    int begin, end;
  };
  // The k with 0 <= at + k*dilation < extent.
  static constexpr Range valid(int at, int dilation, int kernel, int extent) {
    const int begin = at >= 0 ? 0 : divide_up(-at, dilation);
    const int end = at >= extent ? 0 : smaller(kernel, divide_up(extent - at, dilation));
    return {begin, larger(begin, end)};
  }
  // Output columns whose whole kernel row lies inside.
  static constexpr int first_inner = smaller(divide_up(PX, SX), W_out);
  static constexpr int end_inner = larger(
      first_inner, W_in + PX - (KW - 1) * DX - 1 < 0 ? 0 : smaller(W_out, (W_in + PX - (KW - 1) * DX - 1) / SX + 1));
  static constexpr int n_inner = end_inner - first_inner;
  // The other output columns, e = 0 ... W_out - n_inner - 1.
  static constexpr int border_column(int e) { return e < first_inner ? e : e + n_inner; }

  // f(kx) for every kx, unrolled while the kernel is small.
  template <class F>
  static MGD_INLINE void over_kx(const F& f) {
    if constexpr (KW <= 7)
      unroll<KW>(f);
    else
      for (int kx = 0; kx < KW; ++kx) f(kx);
  }

  // ---- gather ------------------------------------------------------------------------------------------------------

  // Columns of a row are cut into tiles of nearly equal size; those that touch the border are unrolled with their place
  // known at compile time, so that a tap outside costs nothing.
  template <class V>
  struct Columns {
    static constexpr int channels = smaller(4, O);
    static constexpr int most = larger(1, smaller(register_tile<V>(), 16) / channels);
    static constexpr int n = divide_up(W_out, most), small = W_out / n, n_large = W_out % n;
    static constexpr int size(int tile) { return tile < n_large ? small + 1 : small; }
    static constexpr int first(int tile) { return tile * small + smaller(tile, n_large); }
    static constexpr bool inner(int tile) {
      return first(tile) >= first_inner && first(tile) + size(tile) <= end_inner;
    }
    static constexpr int count_border() {
      int found = 0;
      for (int t = 0; t < n; ++t) found += !inner(t);
      return found;
    }
    static constexpr bool unrolled = KW <= 7 && count_border() <= 6;
  };

  template <class V, class Block, class S, class F>
  static void gather_rows(int n_threads, const Block& block, V start, const S& store, const F& fold) {
    constexpr int channels = Columns<V>::channels, tiles = divide_up(O, channels);
    parallel_for(n_threads, static_cast<Index>(H_out) * G * tiles, work<V>(1), [&](Index task) {
      const int tile = static_cast<int>(task % tiles), g = static_cast<int>(task / tiles % G);
      const int oy = static_cast<int>(task / (tiles * G)), oc = g * O + tile * channels;
      if constexpr (O % channels != 0)
        if (tile == tiles - 1) return gather_row<V, O % channels>(g, oc, oy, block, start, store, fold);
      gather_row<V, channels>(g, oc, oy, block, start, store, fold);
    });
  }

  template <class V, int N, class Block, class S, class F>
  static MGD_KERNEL void gather_row(int g, int oc, int oy, const Block& block, V start, const S& store, const F& fold) {
    using Tiles = Columns<V>;
    if constexpr (Tiles::unrolled) {
      unroll<Tiles::n>([&](auto t) __attribute__((always_inline)) {
        constexpr int tile = decltype(t)::value;
        if constexpr (!Tiles::inner(tile))
          gather_tile<V, N, Tiles::size(tile), false>(g, oc, oy, std::integral_constant<int, Tiles::first(tile)>{}, block,
                                                      start, store, fold);
      });
      over_tiles<V>([&](int tile, auto size) __attribute__((always_inline)) {
        if (Tiles::inner(tile))
          gather_tile<V, N, decltype(size)::value, true>(g, oc, oy, Tiles::first(tile), block, start, store, fold);
      });
    } else {
      over_tiles<V>([&](int tile, auto size) __attribute__((always_inline)) {
        gather_tile<V, N, decltype(size)::value, false>(g, oc, oy, Tiles::first(tile), block, start, store, fold);
      });
    }
  }
  // A pointer the compiler knows nothing of, so that it does not unroll and keep in registers what lies there.
  template <class V>
  static MGD_INLINE const V* opaque(const V* at) {
    asm("" : "+r"(at) : : "memory");
    return at;
  }
  template <class V, class F>
  static MGD_INLINE void over_tiles(const F& f) {
    using Tiles = Columns<V>;
    if constexpr (Tiles::n_large > 0)
      for (int t = 0; t < Tiles::n_large; ++t) f(t, std::integral_constant<int, Tiles::small + 1>{});
    for (int t = Tiles::n_large; t < Tiles::n; ++t) f(t, std::integral_constant<int, Tiles::small>{});
  }

  template <class V, int Channels, int N, bool Inner, class X, class Block, class S, class F>
  static MGD_INLINE void gather_tile(int g, int oc, int oy, X ox, const Block& block, V start, const S& store,
                                     const F& fold) {
    const int iy = oy * SY - PY;
    const Range ky_range = valid(iy, DY, KH, H_in);
    V acc[Channels][N];
    unroll<Channels>([&](auto o) __attribute__((always_inline)) {
      unroll<N>([&](auto p) __attribute__((always_inline)) { acc[o][p] = start; });
    });
    for (int ic = 0; ic < I; ++ic)
      for (int ky = ky_range.begin; ky < ky_range.end; ++ky)
        over_kx([&](auto kx) __attribute__((always_inline)) {
          unroll<N>([&](auto p) __attribute__((always_inline)) {
            const int ix = (ox + p) * SX - PX + kx * DX;
            if (!Inner && (ix < 0 || ix >= W_in)) return;
            unroll<Channels>([&](auto o) __attribute__((always_inline)) {
              acc[o][p] = fold(synapse(oc + o, ic, ky, kx), pre_index(g * I + ic, iy + ky * DY, ix),
                               post_index(oc + o, oy, ox + p), block, acc[o][p]);
            });
          });
        });
    // From memory, in a loop: what follows on a sum may be long, and is compiled once.
    V sums[Channels][N];
    unroll<Channels>([&](auto o) __attribute__((always_inline)) {
      unroll<N>([&](auto p) __attribute__((always_inline)) { sums[o][p] = acc[o][p]; });
    });
    const V* const at = opaque(&sums[0][0]);
    for (int o = 0; o < Channels; ++o)
      for (int p = 0; p < N; ++p) store(post_index(oc + o, oy, ox + p), block, at[o * N + p]);
  }

  // A row in vectors of S columns times `few` replicas, of 16 lanes or 8, whichever wastes less; two rows at a time where
  // one does not fill the registers.
  template <int few>
  struct Spread {
    static constexpr int lanes(int wide) { return divide_up(W_out, wide / few) * wide; }
    static constexpr int S = (lanes(16) <= lanes(8) ? 16 : 8) / few;
    static constexpr int vectors = divide_up(W_out, S);
    static constexpr int channels = smaller(O, larger(1, smaller(8, register_tile<Lanes<float, 16>>() / vectors)));
    static constexpr int rows = 2 * channels * vectors <= smaller(register_tile<Lanes<float, 16>>(), 16) && H_out > 1 ? 2 : 1;
  };

  template <class T, int few, class Block, class S, class F>
  static void few_rows(int n_threads, const Block& block, T start, const S& store, const F& fold) {
    constexpr int channels = Spread<few>::channels, tiles = divide_up(O, channels);
    constexpr int rows = Spread<few>::rows, row_tiles = divide_up(H_out, rows);
    parallel_for(n_threads, static_cast<Index>(row_tiles) * G * tiles, work<Lanes<T, few>>(1), [&](Index task) {
      const int tile = static_cast<int>(task / row_tiles) % tiles, g = static_cast<int>(task / row_tiles) / tiles;
      const int oy = static_cast<int>(task % row_tiles) * rows, oc = g * O + tile * channels;
      const auto run = [&](auto n_channels) {
        if constexpr (H_out % rows != 0)
          if (oy + rows > H_out)
            return few_row<T, few, decltype(n_channels)::value, 1>(g, oc, oy, block, start, store, fold);
        few_row<T, few, decltype(n_channels)::value, rows>(g, oc, oy, block, start, store, fold);
      };
      if constexpr (O % channels != 0)
        if (tile == tiles - 1) return run(std::integral_constant<int, O % channels>{});
      run(std::integral_constant<int, channels>{});
    });
  }

  template <class T, int few, int Channels, int Rows, class Block, class S, class F>
  static MGD_KERNEL void few_row(int g, int oc, int oy, const Block& block, T start, const S& store, const F& fold) {
    constexpr int vectors = Spread<few>::vectors;
    using V = Lanes<T, Spread<few>::S * few>;
    V acc[Rows][Channels][vectors];
    over_tile<Rows, Channels, vectors>([&](auto r, auto o, auto v) __attribute__((always_inline)) { acc[r][o][v] = V(start); });
    const auto inside = [&](int r, int ky) {
      const int iy = (oy + r) * SY - PY + ky * DY;
      return iy >= 0 && iy < H_in;
    };
    for (int ic = 0; ic < I; ++ic)
      for (int ky = 0; ky < KH; ++ky) {
        const Index synapses = synapse(oc, ic, ky, 0), in_row = pre_index(g * I + ic, oy * SY - PY + ky * DY, 0);
        const Index out_row = post_index(oc, oy, 0);
        const auto taps = [&](auto first, auto end) __attribute__((always_inline)) {
          unroll<KW * vectors>([&](auto tap) __attribute__((always_inline)) {
            constexpr int t = decltype(tap)::value;
            few_tap<few, decltype(first)::value, decltype(end)::value, t % vectors, t / vectors>(acc, synapses, in_row, out_row,
                                                                                                block, fold);
          });
        };
        using Zero = std::integral_constant<int, 0>;
        using One = std::integral_constant<int, 1>;
        if constexpr (Rows == 1) {
          if (inside(0, ky)) taps(Zero{}, One{});
        } else {
          const bool upper = inside(0, ky), lower = inside(1, ky);
          if (upper && lower)
            taps(Zero{}, std::integral_constant<int, 2>{});
          else if (upper)
            taps(Zero{}, One{});
          else if (lower)
            taps(One{}, std::integral_constant<int, 2>{});
        }
      }
    V sums[Rows][Channels][vectors];
    over_tile<Rows, Channels, vectors>(
        [&](auto r, auto o, auto v) __attribute__((always_inline)) { sums[r][o][v] = acc[r][o][v]; });
    const V* const at = opaque(&sums[0][0][0]);
    for (int r = 0; r < Rows; ++r)
      for (int o = 0; o < Channels; ++o)
        few_stores<few, vectors>(at + (r * Channels + o) * vectors, post_index(oc + o, oy + r, 0), block, store);
  }
  template <int few, int vectors, class V, class Block, class S>
  static MGD_INLINE void few_stores(const V* sums, Index row, const Block& block, const S& store) {
    constexpr int whole = W_out / Spread<few>::S;
    for (int k = 0; k < whole; ++k) store(Next<Spread<few>::S>{row + k * Spread<few>::S}, block, sums[k]);
    if constexpr (whole < vectors) store(few_outputs<few, whole>(row), block, sums[whole]);
  }

  // Columns of the v-th vector of an output row that starts at unit `row`.
  template <int few, int v>
  static constexpr int few_exist() {
    return smaller(Spread<few>::S, W_out - v * Spread<few>::S);
  }
  template <int few, int v>
  static MGD_INLINE Next<Spread<few>::S, 0, few_exist<few, v>()> few_outputs(Index row) {
    return {row + v * Spread<few>::S};
  }

  // One kernel column into the v-th vector of every channel and row of the tile; columns without a synapse keep their sums.
  template <int few, int FirstRow, int EndRow, int v, int kx, class V, int Rows, int Channels, int Vectors, class Block,
            class F>
  static MGD_INLINE void few_tap(V (&acc)[Rows][Channels][Vectors], Index synapses, Index in_row, Index out_row,
                                 const Block& block, const F& fold) {
    constexpr int S = Spread<few>::S, exist = few_exist<few, v>(), ix = v * S - PX + kx * DX;
    constexpr int lo = larger(0, -ix), hi = smaller(exist, W_in - ix);
    if constexpr (lo < hi) {
      unroll<Channels>([&](auto o) __attribute__((always_inline)) {
        const Same<S> syn{synapses + static_cast<Index>(o) * I * KH * KW + kx};
        unroll<EndRow - FirstRow>([&](auto k) __attribute__((always_inline)) {
          constexpr int r = FirstRow + decltype(k)::value;
          const Next<S, lo, hi> pre{in_row + r * SY * W_in + ix};
          const Next<S, lo, hi> post{out_row + (static_cast<Index>(o) * H_out + r) * W_out + v * S};
          const V next = fold(syn, pre, post, block, acc[r][o][v]);
          if constexpr (lo == 0 && hi == exist)
            acc[r][o][v] = next;
          else
            acc[r][o][v] = where(places<typename V::value_type, V::width, few, lo, hi>(), next, acc[r][o][v]);
        });
      });
    }
  }

  // ---- to_pre ------------------------------------------------------------------------------------------------------

  template <class V, class F, class S>
  static MGD_KERNEL void pre_row(int iy, Index block, const F& f, const S& store) {
    constexpr int channels = smaller(4, I);
    constexpr int columns = larger(1, smaller(register_tile<V>() / channels, divide_up(W_in, SX)));
    for (int g = 0; g < G; ++g)
      in_tiles<I, channels>([&](int ic, auto n_ic) __attribute__((always_inline)) {
        constexpr int N = decltype(n_ic)::value;
        // Columns of one phase (ix modulo the stride) use the same kernel columns, at consecutive outputs.
        for (int phase = 0; phase < smaller(SX, W_in); ++phase) {
          const int n_columns = (W_in - phase - 1) / SX + 1;
          int begin = 0, end = n_columns;  // all kernel columns of the phase reach an output inside [begin, end)
          for (int kx = 0; kx < KW; ++kx)
            if (positive_modulo(phase + PX - kx * DX, SX) == 0) {
              const int ox = floor_quotient(phase + PX - kx * DX, SX);
              begin = larger(begin, -ox);
              end = smaller(end, W_out - ox);
            }
          begin = smaller(begin, n_columns);
          end = larger(end, begin);
          const int tiles = (end - begin) / columns, tiled = tiles * columns;
          for (int t = 0; t < tiles; ++t)
            pre_tile<V, N, columns, true>(g, ic, iy, phase + (begin + t * columns) * SX, block, f, store);
          // The rest one by one: the border, and what no tile of columns covers.
          for (int e = 0; e < n_columns - tiled; ++e)
            pre_tile<V, N, 1, false>(g, ic, iy, phase + (e < begin ? e : e + tiled) * SX, block, f, store);
        }
      });
  }

  static constexpr int floor_quotient(int a, int b) { return a >= 0 ? a / b : -divide_up(-a, b); }

  template <class V, int Channels, int Columns, bool Inner, class F, class S>
  static MGD_INLINE void pre_tile(int g, int ic, int iy, int ix, Index block, const F& f, const S& store) {
    V acc[Channels][Columns];
    unroll<Channels>([&](auto i) __attribute__((always_inline)) {
      unroll<Columns>([&](auto p) __attribute__((always_inline)) { acc[i][p] = V(0); });
    });
    for (int oc = 0; oc < O; ++oc)
      for (int ky = 0; ky < KH; ++ky) {
        const int y = iy + PY - ky * DY;
        if (y < 0 || y % SY != 0 || y / SY >= H_out) continue;
        const int oy = y / SY;
        over_kx([&](auto kx) __attribute__((always_inline)) {
          const int x = ix + PX - kx * DX;
          if (SX > 1 && positive_modulo(x, SX) != 0) return;
          const int ox = floor_quotient(x, SX);
          if (!Inner && (x < 0 || ox >= W_out)) return;
          unroll<Channels>([&](auto i) __attribute__((always_inline)) {
            unroll<Columns>([&](auto p) __attribute__((always_inline)) {
              acc[i][p] = settled(acc[i][p] + f(synapse(g * O + oc, ic + i, ky, kx),
                                                pre_index(g * I + ic + i, iy, ix + p * SX),
                                                post_index(g * O + oc, oy, ox + p), block));
            });
          });
        });
      }
    unroll<Channels>([&](auto i) __attribute__((always_inline)) {
      unroll<Columns>([&](auto p) __attribute__((always_inline)) {
        store(pre_index(g * I + ic + i, iy, ix + p * SX), block, acc[i][p]);
      });
    });
  }

  // ---- to_parameter ------------------------------------------------------------------------------------------------

  // A tile is `outs` output times `ins` input channels times `taps` kernel columns, held in registers along a row of
  // places; between rows it rests in a small array, so that all kernel rows use a row of places while it is in cache.
  template <class V>
  struct ParameterTiles {
    static constexpr int taps = KW <= 7 ? KW : 1;
    static constexpr int outs = smaller(4, O);
    static constexpr int ins = larger(1, smaller(register_tile<V>() / (outs * taps), I));
    static constexpr int out_tiles = divide_up(O, outs), in_tiles = divide_up(I, ins);
    static constexpr Index n_tiles = static_cast<Index>(G) * out_tiles * in_tiles;
    static constexpr int wanted_tasks = 16;
    static constexpr int row_splits = n_tiles >= wanted_tasks ? 1 : smaller(divide_up(wanted_tasks, n_tiles), H_out);
    static constexpr int blocks_at_once = 4;
  };

  template <class V, class F, class A>
  static void parameter_tiles(Index tile, int row_begin, int row_end, Index block_begin, Index block_end, const F& f,
                              const A& add) {
    using P = ParameterTiles<V>;
    const int ic = static_cast<int>(tile % P::in_tiles) * P::ins;
    const int oc = static_cast<int>(tile / P::in_tiles % P::out_tiles) * P::outs;
    const int g = static_cast<int>(tile / P::in_tiles / P::out_tiles);
    constexpr int last_out = O % P::outs == 0 ? P::outs : O % P::outs, last_in = I % P::ins == 0 ? P::ins : I % P::ins;
    const auto run = [&](auto outs, auto ins) {
      parameter_tile<V, decltype(outs)::value, decltype(ins)::value>(g, g * O + oc, ic, row_begin, row_end, block_begin,
                                                                     block_end, f, add);
    };
    const auto run_ins = [&](auto outs) {
      if (ic + P::ins <= I)
        run(outs, std::integral_constant<int, P::ins>{});
      else
        run(outs, std::integral_constant<int, last_in>{});
    };
    if (oc + P::outs <= O)
      run_ins(std::integral_constant<int, P::outs>{});
    else
      run_ins(std::integral_constant<int, last_out>{});
  }

  template <class V, int Outs, int Ins, class F, class A>
  static MGD_KERNEL void parameter_tile(int g, int oc, int ic, int row_begin, int row_end, Index block_begin,
                                        Index block_end, const F& f, const A& add) {
    using P = ParameterTiles<V>;
    V rest[KH][KW / P::taps][Outs][Ins][P::taps];
    for (auto& row : rest)
      for (auto& group : row)
        for (auto& a : group)
          for (auto& b : a)
            for (auto& c : b) c = V(0);
    for (Index first = block_begin; first < block_end; first += P::blocks_at_once) {
      const Index end = smaller(first + P::blocks_at_once, block_end);
      for (int oy = row_begin; oy < row_end; ++oy) {
        const Range ky_range = valid(oy * SY - PY, DY, KH, H_in);
        for (int ky = ky_range.begin; ky < ky_range.end; ++ky)
          for (int group = 0; group < KW / P::taps; ++group) {
            auto& kept = rest[ky][group];
            V acc[Outs][Ins][P::taps];
            over_tile<Outs, Ins, P::taps>([&](auto o, auto i, auto t) __attribute__((always_inline)) {
              acc[o][i][t] = kept[o][i][t];
            });
            const int iy = oy * SY - PY + ky * DY;
            const auto place = [&](int ox, auto inner) __attribute__((always_inline)) {
              for (Index block = first; block < end; ++block)
                over_tile<Outs, Ins, P::taps>([&](auto o, auto i, auto t) __attribute__((always_inline)) {
                  const int kx = group * P::taps + t, ix = ox * SX - PX + kx * DX;
                  if (!decltype(inner)::value && (ix < 0 || ix >= W_in)) return;
                  acc[o][i][t] = settled(acc[o][i][t] + f(synapse(oc + o, ic + i, ky, kx),
                                                          pre_index(g * I + ic + i, iy, ix),
                                                          post_index(oc + o, oy, ox), block));
                });
            };
            for (int ox = first_inner; ox < end_inner; ++ox) place(ox, std::true_type{});
            for (int e = 0; e < W_out - n_inner; ++e) place(border_column(e), std::false_type{});
            over_tile<Outs, Ins, P::taps>([&](auto o, auto i, auto t) __attribute__((always_inline)) {
              kept[o][i][t] = acc[o][i][t];
            });
          }
      }
    }
    for (int o = 0; o < Outs; ++o)
      for (int i = 0; i < Ins; ++i)
        for (int ky = 0; ky < KH; ++ky)
          for (int kx = 0; kx < KW; ++kx)
            add(synapse(oc + o, ic + i, ky, kx), rest[ky][kx / P::taps][o][i][kx % P::taps]);
  }

  template <int A, int B, int C, class F>
  static MGD_INLINE void over_tile(const F& f) {
    unroll<A>([&](auto a) __attribute__((always_inline)) {
      unroll<B>([&](auto b) __attribute__((always_inline)) {
        unroll<C>([&](auto c) __attribute__((always_inline)) { f(a, b, c); });
      });
    });
  }
};

}  // namespace mgd
