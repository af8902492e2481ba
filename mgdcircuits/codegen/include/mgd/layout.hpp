// Where a value lies: replicas innermost, a parameter once per member.
//
// Replicas form lane blocks of W. An array of n units per replica holds one block after another, each n runs of W numbers: what
// a block computes lies side by side in memory. With one entry a batch, lanes are members: arrays per member are loaded as lanes
// too. Otherwise every member has whole blocks, but for the last, which is narrow where few replicas are left; a parameter is one
// number for a block.
#pragma once

#include <cstring>
#include <vector>

#include "functions.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "signs.hpp"
#include "tiles.hpp"
#include "units.hpp"

namespace mgd {

template <class T_, int W_, int M_, int B_>
struct Layout {
  using T = T_;
  static constexpr int W = W_;
  static constexpr Index M = M_, B = B_;
  static constexpr bool lanes_are_members = B == 1;
  static constexpr Index padded(Index n) { return (n + W - 1) / W * W; }
  static constexpr Index MP = lanes_are_members ? padded(M) : M;                   // stride of an array per member
  static constexpr Index NBM = (lanes_are_members ? padded(M) : padded(B)) / W;  // lane blocks of a member
  static constexpr Index groups = lanes_are_members ? 1 : M;                     // runs of NBM blocks
  static constexpr Index NB = groups * NBM;                                      // lane blocks
  static constexpr Index alike = lanes_are_members ? NBM : 1;  // blocks of a member with all that is not alike in replicas
  static constexpr Index L = NB * W;                                             // lanes
  static constexpr Index last_lanes = lanes_are_members ? M - (NB - 1) * W : B - (NBM - 1) * W;  // real lanes in the last

  using V = Lanes<T, W>;
  using D = Lanes<double, W>;

  // Few replicas in the last block of a member: there, kernels that can let a vector hold several units.
  static constexpr int few = last_lanes <= 1 ? 1 : last_lanes <= 2 ? 2 : last_lanes <= 4 ? 4 : 8;
  static constexpr bool has_few = (lanes_are_members ? M == 1 : last_lanes < W || NBM == 1) && last_lanes <= 8 && few <= W;
  static constexpr bool narrow = has_few && few < W;  // that block holds `few` numbers a unit
  static constexpr bool is_few(Index block) { return has_few && block % NBM == NBM - 1; }
  static constexpr Index RM = narrow ? (NBM - 1) * W + few : NBM * W;  // numbers of a unit for a member's replicas
  static constexpr Index R = groups * RM;                              // numbers of a unit
  // Where the block of an array of n units begins, and how many numbers each of its units has.
  static MGD_INLINE constexpr Index start(Index n, Index block) {
    if constexpr (NB == 1)
      return 0;
    else if constexpr (narrow && groups > 1)
      return (block / NBM * RM + block % NBM * W) * n;
    else
      return block * W * n;
  }
  static MGD_INLINE constexpr Index member(Index block) {  // where lanes are replicas of one
    if constexpr (groups == 1)
      return 0;
    else
      return block / NBM;
  }
  static MGD_INLINE constexpr Index width(Index block) {
    if constexpr (narrow)
      return is_few(block) ? few : W;
    else
      return W;
  }

  // The lanes of a block at a unit.
  template <class Block, class U>
  struct AtPlace {
    using type = V;
  };
  template <class U>
  struct AtPlace<Few, U> {
    using type = Lanes<T, U::places * few>;
  };
  template <class Block, class U>
  using At = typename AtPlace<Block, U>::type;

  template <class A>
  static MGD_INLINE V rep(const A* p, Index n, Index i, Index block) {
    return load<V>(p + start(n, block) + i * width(block));
  }
  template <class A>
  static MGD_INLINE V mem(const A* p, Index i, Index block) {
    if constexpr (lanes_are_members)
      return load<V>(p + i * MP + block * W);
    else
      return V(static_cast<T>(p[i * MP + member(block)]));
  }
  template <class A>
  static MGD_INLINE D rep_double(const A* p, Index n, Index i, Index block) {
    return load<D>(p + start(n, block) + i * width(block));
  }
  template <class A>
  static MGD_INLINE D mem_double(const A* p, Index i, Index block) {
    if constexpr (lanes_are_members)
      return load<D>(p + i * MP + block * W);
    else
      return D(static_cast<double>(p[i * MP + member(block)]));
  }
  template <class L, class A>
  static MGD_INLINE void put(A* p, Index n, Index i, Index block, L x) {
    A* to = p + start(n, block) + i * width(block);
    if constexpr (narrow)
      if (is_few(block)) {
        for (int k = 0; k < few; ++k) to[k] = static_cast<A>(x[k]);
        return;
      }
    if constexpr (std::is_same<A, typename L::value_type>::value)
      x.store(to);
    else
      for (int k = 0; k < W; ++k) to[k] = static_cast<A>(x[k]);
  }

  // The same where a vector holds several units.
  template <class A, int S, int Lo, int Hi, int Stride>
  static MGD_INLINE Lanes<T, S * few> rep(const A* p, Index n, Next<S, Lo, Hi, Stride> u, Few block) {
    constexpr int w = S * few;
    const A* from = p + start(n, block) + u.u * few;
    if constexpr (std::is_same<A, T>::value && Stride == 1) {
      return Lanes<T, w>::load(from);
    } else if constexpr (std::is_same<A, T>::value && Stride == 2 && few == 1) {
      return Lanes<T, w>::of(raw::evens<T, w>(Lanes<T, w>::load(from).v, Lanes<T, w>::load(from + w).v));
    } else {
      return gathered<T, few, S>([&](auto k) __attribute__((always_inline)) {
        constexpr int place = Next<S, Lo, Hi, Stride>::existing(decltype(k)::value);
        return load<Lanes<T, few>>(from + place * Stride * few);
      });
    }
  }
  template <class A, int S>
  static MGD_INLINE Lanes<T, S * few> rep(const A* p, Index n, Same<S> u, Few block) {
    const auto one = load<Lanes<T, few>>(p + start(n, block) + u.u * few);
    if constexpr (few == 1)
      return Lanes<T, S * few>(one.v);
    else
      return gathered<T, few, S>([&](auto) __attribute__((always_inline)) { return one; });
  }
  template <class A, int S, int Lo, int Hi, int Stride>
  static MGD_INLINE Lanes<T, S * few> mem(const A* p, Next<S, Lo, Hi, Stride> u, Few block) {
    const A* from = p + u.u * MP + member(block);
    if constexpr (MP == 1 && Stride == 1 && std::is_same<A, T>::value) {
      return repeated<few>(Lanes<T, S>::load(from));
    } else {
      return gathered<T, few, S>([&](auto k) __attribute__((always_inline)) {
        constexpr int place = Next<S, Lo, Hi, Stride>::existing(decltype(k)::value);
        return Lanes<T, few>(static_cast<T>(from[place * Stride * MP]));
      });
    }
  }
  template <class A, int S>
  static MGD_INLINE Lanes<T, S * few> mem(const A* p, Same<S> u, Few block) {
    return Lanes<T, S * few>(static_cast<T>(p[u.u * MP + member(block)]));
  }
  // A code of signs, of the only member.
  static MGD_INLINE V mem(Signs<T> p, Index i, Index) { return V(p[i]); }
  template <int S, int Lo, int Hi>
  static MGD_INLINE Lanes<T, S * few> mem(Signs<T> p, Next<S, Lo, Hi> u, Few) {
    return repeated<few>(p.template lanes<S>(u.u));
  }
  template <class A, class Units>
  static MGD_INLINE Lanes<T, Units::places * few> rep(const A* p, Index n, Channels<Units> c, Few block) {
    if (c.one()) return rep(p, n, Same<Units::places>{c.of(Units::begin)}, block);
    return gathered<T, few, Units::places>([&](auto k) __attribute__((always_inline)) {
      return load<Lanes<T, few>>(p + start(n, block) + c.of(Units::existing(k)) * few);
    });
  }
  template <class A, class Units>
  static MGD_INLINE Lanes<T, Units::places * few> mem(const A* p, Channels<Units> c, Few block) {
    if (c.one()) return mem(p, Same<Units::places>{c.of(Units::begin)}, block);
    return gathered<T, few, Units::places>([&](auto k) __attribute__((always_inline)) {
      return Lanes<T, few>(static_cast<T>(p[c.of(Units::existing(k)) * MP + member(block)]));
    });
  }
  template <class A, int S, int Hi>
  static MGD_INLINE void put(A* p, Index n, Next<S, 0, Hi> u, Few block, Lanes<T, S * few> x) {
    A* to = p + start(n, block) + u.u * few;
    if constexpr (std::is_same<A, T>::value)
      std::memcpy(to, &x.v, Hi * few * sizeof(T));
    else
      for (int k = 0; k < Hi * few; ++k) to[k] = static_cast<A>(x[k]);
  }
  // The number of a unit.
  static MGD_INLINE double number(Index u, double offset) { return static_cast<double>(u) + offset; }
  template <int S, int Lo, int Hi, int Stride>
  static MGD_INLINE Lanes<T, S * few> number(Next<S, Lo, Hi, Stride> u, double offset) {
    Lanes<T, S * few> x(0);
    for (int k = 0; k < S * few; ++k) x.set(k, static_cast<T>(static_cast<double>(u.u + k / few * Stride) + offset));
    return x;
  }
  template <int S>
  static MGD_INLINE double number(Same<S> u, double offset) {
    return static_cast<double>(u.u) + offset;
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
// `f(masked, syn, pre, post, block)` gives a contribution, `out` has MP values a synapse. `Alike`: all replicas of a member give
// the same, so that one block of them will do.
template <class Y, bool Alike, class Topology, class F, class A>
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
  } else if constexpr (Alike) {
    for (Index m = 0; m < Y::M; ++m)
      topology.template to_parameter<V>(
          threads, m * Y::NBM, m * Y::NBM + 1,
          [&](Index s, Index i, Index j, Index b) __attribute__((always_inline)) { return f(s, i, j, b); },
          [&](Index s, V acc) {
            A* to = out + s * Y::MP + m;
            *to = static_cast<A>((add ? *to : A(0)) + acc[0]);
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

// The same for every replica by itself: `out` is an array per replica with n synapses.
template <class Y, class Topology, class F, class A>
inline void into_parameter_per_replica(const Topology& topology, int threads, const F& f, A* out, Index n, bool add) {
  using V = typename Y::V;
  for (Index block = 0; block < Y::NB; ++block)
    topology.template to_parameter<V>(
        threads, block, block + 1,
        [&](Index s, Index i, Index j, Index b) __attribute__((always_inline)) { return f(s, i, j, b); },
        [&](Index s, V acc) {
          const V before = add ? Y::rep(out, n, s, block) : V(0);
          Y::put(out, n, s, block, before + acc);
        });
}

// Units of a channel (positions) and replicas of a member into one number for the channel. `Alike` as above.
template <class Y, bool Alike, class F, class A>
inline void fold(Index channels, Index positions, int threads, const F& f, A* out, bool add, bool per_replica) {
  using V = typename Y::V;
  constexpr Index blocks = Alike ? Y::alike : Y::NBM;
  const double work = static_cast<double>(channels * positions) * static_cast<double>(Y::groups * blocks * Y::W);
  parallel_for(threads, channels, work, [&](Index c) {
    for (Index g = 0; g < Y::groups; ++g) {
      V total(0);
      for (Index block = g * Y::NBM; block < g * Y::NBM + blocks; ++block) {
        V acc(0);
        for (Index k = 0; k < positions; ++k) acc += f(c * positions + k, block);
        if (per_replica) {
          Y::put(out, channels, c, block, (add ? Y::rep(out, channels, c, block) : V(0)) + acc);
        } else if constexpr (Y::lanes_are_members) {
          A* to = out + c * Y::MP + block * Y::W;
          for (int k = 0; k < Y::W; ++k) to[k] = static_cast<A>((add ? to[k] : A(0)) + acc[k]);
        } else {
          total += !Alike && block + 1 == (g + 1) * Y::NBM ? Y::masked_last(acc) : acc;
        }
      }
      if (!per_replica && !Y::lanes_are_members) {
        A* to = out + c * Y::MP + g;
        const double mean = Alike ? static_cast<double>(total[0]) : Y::sum(total) / static_cast<double>(Y::B);
        *to = static_cast<A>((add ? static_cast<double>(*to) : 0.0) + mean);
      }
    }
  });
}

// Run f(block) for all lane blocks. Replicas do not meet inside f, so a block goes through all of it at once: its values
// stay in the cache, and threads share out blocks. What does not divide evenly the threads do together, unit by unit.
template <class Y, class F>
inline void over_blocks(int threads, double work, const F& f) {
  const auto one = [&](Index block) {
    if constexpr (Y::has_few)
      if (Y::is_few(block)) return f(Few{block});
    f(block);
  };
  constexpr Index whole = Y::NB - (Y::has_few && Y::groups == 1);
  const Index shared = whole / threads * threads;
  if (threads > 1 && shared > 0) {
    // A last block of few lanes is one of the shared; in a large circuit the threads do it together, unit by unit, lest the
    // others wait for the one that has it (measured: d=8 of the CNN gains 4 %, d=4 would lose a quarter).
    const bool with_few = Y::has_few && Y::groups == 1 && shared == whole && work < 1e8;
    parallel_for(threads, shared + with_few, work, [&](Index block) { one(block); });
    for (Index block = shared; block < Y::NB - with_few; ++block) one(block);
  } else {
    for (Index block = 0; block < Y::NB; ++block) one(block);
  }
}

// f(u) for all n units of a lane block, as plain indices or several units a vector; a vector stays within one of the runs of
// `positions` units that make a channel.
template <class Y, Index n, Index positions, class Block, class F>
inline void over_units(int threads, double work, const Block&, const F& f) {
  if constexpr (std::is_same<Block, Few>::value) {
    constexpr int S = 16 / Y::few;
    constexpr Index full = positions / S, tail = positions % S, run = 256;
    constexpr Index pieces = full > run ? (full + run - 1) / run : 1;
    parallel_for(threads, n / positions * pieces, work / Y::W * Y::few, [&](Index task) {
      const F local(f);
      const Index first = task / pieces * positions, piece = task % pieces;
      const Index end = pieces == 1 || (piece + 1) * run > full ? full : (piece + 1) * run;
      for (Index k = piece * run; k < end; ++k) local(Next<S>{first + k * S});
      if constexpr (tail > 0)
        if (piece == pieces - 1) local(Next<S, 0, tail>{first + full * S});
    });
  } else {
    constexpr Index run = n < 64 ? 1 : 64;
    parallel_for(threads, (n + run - 1) / run, work, [&](Index task) {
      const F local(f);
      const Index end = (task + 1) * run < n ? (task + 1) * run : n;
      for (Index u = task * run; u < end; ++u) local(u);
    });
  }
}

// f(k, exist) for the n numbers of an array per member, in vectors of 16 neighbours k, k + 1, ... of which `exist` do: the same
// arithmetic for each number, so that a member has the same bits alone. The work of a parameter counts as that of a synapse: a
// coupling and an update are then both shared out, or neither is, and a thread finds in its cache what it has used before.
// Several functions take turns, for pieces that stay in the first cache.
template <class Y, class... F>
inline void over_numbers(int threads, Index n, const F&... f) {
  constexpr Index run = 1024;
  parallel_for(threads, (n + run - 1) / run, static_cast<double>(n) * (Y::NB >= threads ? 4 : 1), [&](Index task) {
    const Index end = (task + 1) * run < n ? (task + 1) * run : n;
    const auto piece = [&](const auto local) {  // a copy
      Index k = task * run;
      for (; k + 16 <= end; k += 16) local(k, std::integral_constant<int, 16>{});
      if (k < end) local(k, static_cast<int>(end - k));
    };
    (piece(f), ...);
  });
}
// f(elements, first) for the elements of an array per member, some calls of the generator at once.
template <class Y, Index run = (Y::MP >= 8 ? 128 : 1024 / Y::MP / 128 * 128), class F>
inline void over_elements(int threads, Index elements, const F& f) {
  parallel_for(threads, (elements + run - 1) / run, static_cast<double>(elements * Y::MP) * (Y::NB >= threads ? 4 : 1), [&](Index task) {
    f(elements - task * run < run ? elements - task * run : run, task * run);
  });
}
// As over_numbers, for kernels that draw: f(k, exist, drawn), where a number of the j-th draw lies at drawn + j*drawn_room<Y>.
// `fill(to, elements, first)` draws for elements first, first + 1, ... (a multiple of 128): draws stay in the cache.
template <class Y>
constexpr Index drawn_elements = Y::MP >= 16 ? 128 : 2048 / Y::MP / 128 * 128;
template <class Y>
constexpr Index drawn_room = drawn_elements<Y> * Y::MP + 16;
template <class Y, int draws, class Fill, class F>
inline void over_drawn(int threads, Index elements, const Fill& fill, const F& f) {
  constexpr Index run = drawn_elements<Y>;
  parallel_for(threads, (elements + run - 1) / run, static_cast<double>(elements * Y::MP) * 8, [&](Index task) {
    thread_local std::vector<typename Y::T> drawn(draws * drawn_room<Y>);
    const F local(f);
    const Index first = task * run, here = elements - first < run ? elements - first : run;
    fill(drawn.data(), here, first);
    Index k = 0;
    for (; k + 16 <= here * Y::MP; k += 16) local(first * Y::MP + k, std::integral_constant<int, 16>{}, drawn.data() + k);
    if (k < here * Y::MP) local(first * Y::MP + k, static_cast<int>(here * Y::MP - k), drawn.data() + k);
  });
}
template <class T, class N>
MGD_INLINE void put_first(T* to, Lanes<T, 16> x, N exist) {
  if constexpr (std::is_same<N, int>::value)
    for (int k = 0; k < exist; ++k) to[k] = x[k];
  else
    x.store(to);
}
template <class T, class N>
MGD_INLINE void add_whole(std::int64_t* to, Lanes<T, 16> x, N exist) {
  for (int k = 0; k < exist; ++k) to[k] += static_cast<std::int64_t>(x[k]);
}
// The number of each member, where k, k + 1, ... run through members.
template <class Y, class A>
MGD_INLINE Lanes<typename Y::T, 16> of_members(const A* p, Index k) {
  using T = typename Y::T;
  if constexpr (Y::MP == 1) return Lanes<T, 16>(static_cast<T>(p[0]));
  Lanes<T, 16> x(0);
  for (int i = 0; i < 16; ++i) x.set(i, static_cast<T>(p[(k + i) % Y::MP]));
  return x;
}

// The sums (or maxima) of a coupling into its post units, for one lane block.
template <class Y, bool maximum, class Topology, class Block, class F, class S>
inline void gather(const Topology& topology, int threads, const Block& block, const F& f, const S& store) {
  if constexpr (std::is_same<Block, Few>::value) {
    if constexpr (Topology::template spreads<Y::few>()) {
      if constexpr (maximum)
        topology.template gather_max_few<typename Y::T, Y::few>(threads, block, f, store);
      else
        topology.template gather_few<typename Y::T, Y::few>(threads, block, f, store);
      return;
    }
  }
  const Index whole = block;
  if constexpr (maximum)
    topology.template gather_max<typename Y::V>(threads, whole, f, store);
  else
    topology.template gather<typename Y::V>(threads, whole, f, store);
}

// Reductions over units, in float64: `f(unit, block)` gives D.
enum class Reduce { sum, mean, max, logsumexp, argmax };

template <class Y, Reduce kind, class F>
inline void reduce(Index n, Index block, const F& f, double* out) {
  using D = typename Y::D;
  {
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
    Y::put(out, 1, 0, block, acc);
  }
}

template <class Y>
inline void member_mean(const double* in, double* out) {
  for (Index m = 0; m < Y::M; ++m) {
    if constexpr (Y::lanes_are_members) {
      out[m] = in[m];
    } else {
      double s = 0;
      for (Index b = 0; b < Y::B; ++b) s += in[m * Y::RM + b];
      out[m] = s / static_cast<double>(Y::B);
    }
  }
}

inline double walsh_sign(double row, double number) {
  const auto common = static_cast<std::uint64_t>(row) & static_cast<std::uint64_t>(number);
  return __builtin_parityll(common) ? -1.0 : 1.0;
}

}  // namespace mgd
