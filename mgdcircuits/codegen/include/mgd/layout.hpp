// Where a value lies: replicas innermost, a parameter once per member.
//
// Replica r of member m and batch entry b. With one entry a batch, lanes are members: arrays per member are loaded as
// lanes too. Otherwise the lanes of a member are padded to whole blocks of W, and a parameter is one number for a block.
#pragma once

#include <cstring>

#include "functions.hpp"
#include "lanes.hpp"
#include "parallel.hpp"

namespace mgd {

template <class T_, int W_, int M_, int B_>
struct Layout {
  using T = T_;
  static constexpr int W = W_;
  static constexpr Index M = M_, B = B_;
  static constexpr bool lanes_are_members = B == 1;
  static constexpr Index padded(Index n) { return (n + W - 1) / W * W; }
  static constexpr Index MP = lanes_are_members ? padded(M) : M;                   // stride of an array per member
  static constexpr Index R = lanes_are_members ? padded(M) : M * padded(B);        // stride of an array per replica
  static constexpr Index NB = R / W;                                               // lane blocks
  static constexpr Index NBM = lanes_are_members ? NB : padded(B) / W;             // lane blocks of a member
  static constexpr Index groups = lanes_are_members ? 1 : M;                       // runs of NBM blocks
  static constexpr Index last_lanes = lanes_are_members ? M - (NB - 1) * W : B - (NBM - 1) * W;  // real lanes in the last

  using V = Lanes<T, W>;
  using D = Lanes<double, W>;

  template <class A>
  static MGD_INLINE V rep(const A* p, Index i, Index block) {
    return load<V>(p + i * R + block * W);
  }
  template <class A>
  static MGD_INLINE V mem(const A* p, Index i, Index block) {
    if constexpr (lanes_are_members)
      return load<V>(p + i * MP + block * W);
    else
      return V(static_cast<T>(p[i * MP + block / NBM]));
  }
  template <class A>
  static MGD_INLINE D rep_double(const A* p, Index i, Index block) {
    return load<D>(p + i * R + block * W);
  }
  template <class A>
  static MGD_INLINE D mem_double(const A* p, Index i, Index block) {
    if constexpr (lanes_are_members)
      return load<D>(p + i * MP + block * W);
    else
      return D(static_cast<double>(p[i * MP + block / NBM]));
  }
  template <class L, class A>
  static MGD_INLINE void put(A* p, Index i, Index block, L x) {
    A* to = p + i * R + block * W;
    if constexpr (std::is_same<A, typename L::value_type>::value)
      x.store(to);
    else
      for (int k = 0; k < W; ++k) to[k] = static_cast<A>(x[k]);
  }
  // The sum over a member's real lanes of `acc`, in lane order.
  static MGD_INLINE double sum(V acc) {
    double s = 0;
    for (int k = 0; k < W; ++k) s += static_cast<double>(acc[k]);
    return s;
  }
  static MGD_INLINE V masked_last(V x) {
    if constexpr (last_lanes == W)
      return x;
    else
      return where(Mask<T, W>::first(last_lanes), x, V(0));
  }

 private:
  template <class L, class A>
  static MGD_INLINE L load(const A* from) {
    if constexpr (std::is_same<A, typename L::value_type>::value) {
      return L::load(from);
    } else {
      L x(0);
      for (int k = 0; k < W; ++k) x.set(k, static_cast<typename L::value_type>(from[k]));
      return x;
    }
  }
};

// Contributions of all places and replicas of a member to a synaptic parameter, averaged over the batch:
// `f(masked, syn, pre, post, block)` gives a contribution, `out` has MP values a synapse.
template <class Y, class Topology, class F, class A>
inline void into_parameter(const Topology& topology, int threads, const F& f, A* out, bool add) {
  using V = typename Y::V;
  if constexpr (Y::lanes_are_members) {
    for (Index block = 0; block < Y::NB; ++block)
      topology.template to_parameter<V>(
          threads, block, block + 1,
          [&](Index s, Index i, Index j, Index b) __attribute__((always_inline)) { return f(s, i, j, b); },
          [&](Index s, V acc) {
            A* to = out + s * Y::MP + block * Y::W;
            for (int k = 0; k < Y::W; ++k) to[k] = static_cast<A>((add ? to[k] : A(0)) + acc[k]);
          });
  } else {
    for (Index m = 0; m < Y::M; ++m) {
      const Index first = m * Y::NBM, last = first + Y::NBM;
      const Index whole = Y::last_lanes == Y::W ? last : last - 1;
      bool more = add;
      const auto put = [&](Index s, V acc) {
        A* to = out + s * Y::MP + m;
        *to = static_cast<A>((more ? static_cast<double>(*to) : 0.0) + Y::sum(acc) / static_cast<double>(Y::B));
      };
      if (whole > first) {
        topology.template to_parameter<V>(
            threads, first, whole,
            [&](Index s, Index i, Index j, Index b) __attribute__((always_inline)) { return f(s, i, j, b); }, put);
        more = true;
      }
      if (whole < last)
        topology.template to_parameter<V>(
            threads, whole, last,
            [&](Index s, Index i, Index j, Index b) __attribute__((always_inline)) { return Y::masked_last(f(s, i, j, b)); },
            put);
    }
  }
}

// The same for every replica by itself: `out` has R values a synapse.
template <class Y, class Topology, class F, class A>
inline void into_parameter_per_replica(const Topology& topology, int threads, const F& f, A* out, bool add) {
  using V = typename Y::V;
  for (Index block = 0; block < Y::NB; ++block)
    topology.template to_parameter<V>(
        threads, block, block + 1,
        [&](Index s, Index i, Index j, Index b) __attribute__((always_inline)) { return f(s, i, j, b); },
        [&](Index s, V acc) {
          const V before = add ? Y::rep(out, s, block) : V(0);
          Y::put(out, s, block, before + acc);
        });
}

// Units of a channel (positions) and replicas of a member into one number for the channel.
template <class Y, class F, class A>
inline void fold(Index channels, Index positions, int threads, const F& f, A* out, bool add, bool per_replica) {
  using V = typename Y::V;
  const double work = static_cast<double>(channels * positions * Y::R);
  parallel_for(threads, channels, work, [&](Index c) {
    for (Index g = 0; g < Y::groups; ++g) {
      double total = 0;
      for (Index block = g * Y::NBM; block < (g + 1) * Y::NBM; ++block) {
        V acc(0);
        for (Index k = 0; k < positions; ++k) acc += f(c * positions + k, block);
        if (per_replica) {
          Y::put(out, c, block, (add ? Y::rep(out, c, block) : V(0)) + acc);
        } else if constexpr (Y::lanes_are_members) {
          A* to = out + c * Y::MP + block * Y::W;
          for (int k = 0; k < Y::W; ++k) to[k] = static_cast<A>((add ? to[k] : A(0)) + acc[k]);
        } else {
          total += Y::sum(block + 1 == (g + 1) * Y::NBM ? Y::masked_last(acc) : acc);
        }
      }
      if (!per_replica && !Y::lanes_are_members) {
        A* to = out + c * Y::MP + g;
        *to = static_cast<A>((add ? static_cast<double>(*to) : 0.0) + total / static_cast<double>(Y::B));
      }
    }
  });
}

// Run f(b0, b1) over all lane blocks. Replicas do not meet inside f, so a block goes through all of it at once: its values
// stay in the cache, and threads share out blocks. With fewer blocks than threads, f shares out units itself.
template <class Y, class F>
inline void over_blocks(int threads, double work, const F& f) {
  if (Y::NB < threads)
    f(Index(0), Y::NB);
  else
    parallel_for(threads, Y::NB, work, [&](Index block) { f(block, block + 1); });
}

// Reductions over units, in float64: `f(unit, block)` gives D.
enum class Reduce { sum, mean, max, logsumexp, argmax };

template <class Y, Reduce kind, class F>
inline void reduce(Index n, Index b0, Index b1, const F& f, double* out) {
  using D = typename Y::D;
  for (Index block = b0; block < b1; ++block) {
    D acc(0);
    if constexpr (kind == Reduce::sum || kind == Reduce::mean) {
      for (Index u = 0; u < n; ++u) acc += f(u, block);
      if constexpr (kind == Reduce::mean) acc = acc / static_cast<double>(n);
    } else {
      D best = f(0, block), at(0);
      for (Index u = 1; u < n; ++u) {
        const D x = f(u, block);
        const auto larger = x > best;
        best = where(larger, x, best);
        at = where(larger, D(static_cast<double>(u)), at);
      }
      acc = kind == Reduce::argmax ? at : best;
      if constexpr (kind == Reduce::logsumexp) {
        D s(0);
        for (Index u = 0; u < n; ++u) s += exp(f(u, block) - best);
        acc = best + log(s);
      }
    }
    acc.store(out + block * Y::W);
  }
}

template <class Y>
inline void member_mean(const double* in, double* out) {
  for (Index m = 0; m < Y::M; ++m) {
    if constexpr (Y::lanes_are_members) {
      out[m] = in[m];
    } else {
      double s = 0;
      for (Index b = 0; b < Y::B; ++b) s += in[m * Y::NBM * Y::W + b];
      out[m] = s / static_cast<double>(Y::B);
    }
  }
}

inline double walsh_sign(double row, double number) {
  const auto common = static_cast<std::uint64_t>(row) & static_cast<std::uint64_t>(number);
  return __builtin_parityll(common) ? -1.0 : 1.0;
}

}  // namespace mgd
