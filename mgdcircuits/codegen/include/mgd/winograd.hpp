// Convolutions with fewer multiplications: Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, arXiv 1509.09308).
//
// For weights times something of the pre unit, summed over a 3 x 3 kernel of stride one. Four outputs that make a square need 16
// products a channel and not 36: weights and inputs go through transforms that only add (and halve), products are summed over
// channels, and the sums are transformed back. In the mean, rounding errors are no larger than those of the plain sum
// (tests/codegen/test_winograd.py): 9 times fewer products meet in one sum.
//
// Products are 16 small matrix products, [outputs, channels] times [channels, squares], with a vector of replicas as number.
#pragma once

#include <vector>

#include "conv2d.hpp"

namespace mgd {

template <class Topology>
struct Winograd;

template <int C_in, int H_in, int W_in, int C_out, int H_out, int W_out, int PY, int PX>
struct Winograd<Conv2d<C_in, H_in, W_in, C_out, H_out, W_out, 3, 3, 1, 1, PY, PX, 1, 1, 1>> {
  using Topology = Conv2d<C_in, H_in, W_in, C_out, H_out, W_out, 3, 3, 1, 1, PY, PX, 1, 1, 1>;
  static constexpr int rows = divide_up(H_out, 2), columns = divide_up(W_out, 2);  // of squares
  static constexpr int points = 16;                                                // products of a square

  // Operations of one replica, roughly: products, and additions of the transforms.
  static constexpr double work = rows * columns * (16.0 * C_in * C_out + 48.0 * (C_in + C_out));

  // Transformed weights of a member: [point][tile of outputs][channel][output of the tile]. Here and below, arrays of the points
  // are a little apart, lest their lines meet in one set of a cache.
  static constexpr int tile = divide_up(C_out, divide_up(C_out, smaller(8, register_tile<Lanes<float, 16>>())));
  static constexpr Index next_weights = static_cast<Index>(C_out) * C_in + 16;
  static constexpr Index n_weights = points * next_weights;

  // `weight(syn, m)` of all members; `to` has n_weights for each.
  template <class T, class F>
  static void transform(int n_threads, Index members, const F& weight, T* to) {
    parallel_for(n_threads, divide_up(C_out, tile) * members, 64.0 * C_out * C_in * static_cast<double>(members), [&](Index task) {
      const F local(weight);
      const Index m = task % members;
      const int first = static_cast<int>(task / members) * tile, end = smaller(first + tile, C_out);
      T* out = to + m * n_weights + static_cast<Index>(first) * C_in;
      for (int ic = 0; ic < C_in; ++ic)
        for (int oc = first; oc < end; ++oc, ++out) {
          T half[4][3];
          for (int x = 0; x < 3; ++x)
            spread([&](int y) { return local(Topology::synapse(oc, ic, y, x), m); }, [&](int k, T sum) { half[k][x] = sum; });
          for (int y = 0; y < 4; ++y)
            spread([&](int x) { return half[y][x]; }, [&](int k, T sum) { out[(4 * y + k) * next_weights] = sum; });
        }
    });
  }

  // Squares that go through together: whole rows of them, or parts of a row. (Measured: up to 8 of them are faster than more.)
  struct Strip {
    static constexpr int most = 8;
    static constexpr int parts = divide_up(columns, most);                        // of a row
    static constexpr int height = parts > 1 ? 1 : smaller(rows, most / columns);  // rows
    static constexpr int width = divide_up(columns, parts);
    static constexpr int squares = height * width;
    static constexpr int tasks = divide_up(rows, height) * parts;
  };
  static constexpr Index next_inputs = static_cast<Index>(C_in) * Strip::squares + 1;
  static constexpr Index next_sums = static_cast<Index>(C_out) * Strip::squares + 1;

  // post <- sum over its synapses of weight*x(pre, block); `weights` are the transformed ones of the block's member.
  template <class V, class Block, class X, class S>
  static void gather(int n_threads, const Block& block, const typename V::value_type* weights, const X& x, const S& store) {
    using P = Strip;
    parallel_for(n_threads, P::tasks, work * V::width, [&](Index task) {
      thread_local std::vector<V> room;
      room.resize(points * (next_inputs + next_sums));
      V* const inputs = room.data();
      V* const sums = inputs + points * next_inputs;
      const int top = static_cast<int>(task) / P::parts * P::height;
      const int left = static_cast<int>(task) % P::parts * P::width;  // a last strip may hang over: each output is stored once
      forth<V>(top, left, block, x, inputs);
      multiply<V>(top, left, weights, inputs, sums);
      back<V>(top, left, block, sums, store);
    });
  }

 private:
  // Three weights to four points.
  template <class From, class To>
  static MGD_INLINE void spread(const From& from, const To& to) {
    const auto outer = from(0) + from(2);
    to(0, from(0));
    to(1, (outer + from(1)) / 2);
    to(2, (outer - from(1)) / 2);
    to(3, from(2));
  }

  // Four inputs to four points.
  template <class V>
  struct Four {
    V at[4];
  };
  template <class V>
  static MGD_INLINE Four<V> combined(V a, V b, V c, V d) {
    return {{a - c, b + c, c - b, b - d}};
  }

  // Inputs to points: B'dB. Squares overlap by two columns.
  template <class V, class Block, class X>
  static MGD_KERNEL void forth(int top, int left, const Block& block, const X& x, V* to) {
    using P = Strip;
    for (int ic = 0; ic < C_in; ++ic)
      for (int r = 0; r < P::height; ++r) {
        const int y = 2 * (top + r) - PY, first = 2 * left - PX;
        V* out = to + ic * P::squares + r * P::width;
        const auto column = [&](int k) __attribute__((always_inline)) {
          const auto input = [&](int row) __attribute__((always_inline)) {
            return row < 0 || row >= H_in ? V(0) : x(Topology::pre_index(ic, row, first + k), block);
          };
          if (first + k < 0 || first + k >= W_in) return Four<V>{{V(0), V(0), V(0), V(0)}};
          return combined(input(y), input(y + 1), input(y + 2), input(y + 3));
        };
        Four<V> a = column(0), b = column(1);
        for (int p = 0; p < P::width; ++p, ++out) {
          const Four<V> c = column(2 * p + 2), d = column(2 * p + 3);
          unroll<4>([&](auto row) __attribute__((always_inline)) {
            const Four<V> made = combined(a.at[row], b.at[row], c.at[row], d.at[row]);
            unroll<4>([&](auto k) __attribute__((always_inline)) { out[(4 * row + k) * next_inputs] = made.at[k]; });
          });
          a = c;
          b = d;
        }
      }
  }

  // The last points of a row or column of squares matter to its second outputs only; where these hang over, they are left out.
  template <class V>
  static MGD_KERNEL void multiply(int top, int left, const typename V::value_type* weights, const V* inputs, V* sums) {
    constexpr int width = Strip::width;
    for (int point = 0; point < points; ++point) {
      const bool no_last_row = H_out % 2 && point / 4 == 3 && top + Strip::height == rows;
      const bool no_last_column = W_out % 2 && point % 4 == 3 && left + width == columns;
      const int height = Strip::height - no_last_row;
      const V* const in = inputs + point * next_inputs;
      V* const out = sums + point * next_sums;
      in_tiles<C_out, tile>([&](int oc, auto n) __attribute__((always_inline)) {
        const auto* const w = weights + point * next_weights + static_cast<Index>(oc) * C_in;
        for (int r = 0; r < height; ++r) {
          const V* const from = in + r * width;
          V* const to = out + oc * Strip::squares + r * width;
          if (!no_last_column)
            multiply_row<V, decltype(n)::value, width>(w, from, to);
          else if constexpr (width > 1)
            multiply_row<V, decltype(n)::value, width - 1>(w, from, to);
        }
      });
    }
  }
  template <class V, int N, int width>
  static MGD_INLINE void multiply_row(const typename V::value_type* weights, const V* inputs, V* sums) {
    constexpr int most = larger(1, smaller(2, register_tile<V>() / tile));
    in_tiles<width, divide_up(width, divide_up(width, most))>([&](int first, auto size) __attribute__((always_inline)) {
      constexpr int M = decltype(size)::value;
      const typename V::value_type* w = weights;
      const V* from = inputs + first;
      V acc[N][M];
      unroll<N>([&](auto o) __attribute__((always_inline)) {
        unroll<M>([&](auto p) __attribute__((always_inline)) { acc[o][p] = V(0); });
      });
      for (int ic = 0; ic < C_in; ++ic, w += N, from += Strip::squares)
        unroll<M>([&](auto p) __attribute__((always_inline)) {
          const V value = from[p];
          unroll<N>([&](auto o) __attribute__((always_inline)) { acc[o][p] += V(w[o]) * value; });
        });
      unroll<N>([&](auto o) __attribute__((always_inline)) {
        unroll<M>([&](auto p) __attribute__((always_inline)) { sums[o * Strip::squares + first + p] = acc[o][p]; });
      });
    });
  }

  // Sums of points to outputs: A'mA.
  template <class V, class Block, class S>
  static MGD_KERNEL void back(int top, int left, const Block& block, const V* sums, const S& store) {
    using P = Strip;
    for (int oc = 0; oc < C_out; ++oc)
      for (int r = 0; r < P::height; ++r)
        for (int p = 0; p < P::width; ++p) {
          const V* const from = sums + static_cast<Index>(oc) * P::squares + r * P::width + p;
          constexpr Index next = next_sums;
          V half[2][4];
          unroll<4>([&](auto k) __attribute__((always_inline)) {
            const V a = from[k * next], b = from[(4 + k) * next], c = from[(8 + k) * next], d = from[(12 + k) * next];
            half[0][k] = (a + b) + c;
            half[1][k] = (b - c) - d;
          });
          const int y = 2 * (top + r), x = 2 * (left + p);
          for (int k = 0; k < 2; ++k)
            if (y + k < H_out) {
              const V* const h = half[k];
              if (x < W_out) store(Topology::post_index(oc, y + k, x), block, (h[0] + h[1]) + h[2]);
              if (x + 1 < W_out) store(Topology::post_index(oc, y + k, x + 1), block, (h[1] - h[2]) - h[3]);
            }
        }
  }
};

}  // namespace mgd
