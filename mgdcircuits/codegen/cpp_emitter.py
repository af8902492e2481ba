"""A program as C++.

Each kernel becomes a function of the arrays it touches, each phase a function that calls kernels in order. Loops, lanes
and draws are plain C++ in ``include/mgd``; here only names, expressions and calls are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mgdcircuits.circuit.operands import identifier
from mgdcircuits.circuit.program import (
    Array,
    Between,
    Clear,
    Copy,
    Count,
    Couple,
    Elements,
    Every,
    Fold,
    Index,
    Into,
    Kernel,
    Literal,
    MemberMean,
    Node,
    Parameter,
    Position,
    Precision,
    Program,
    Random,
    Read,
    Reduction,
    Sample,
    Scope,
    Step,
    Ticks,
    Word,
    steps,
)
from mgdcircuits.circuit.topology import Dense, Sparse
from mgdcircuits.codegen import winograd
from mgdcircuits.codegen.codes import codes_of_bits
from mgdcircuits.codegen.concurrent import Together, together
from mgdcircuits.codegen.fuse import Fused, Fusion, is_local, positions_of, runs, spreadable
from mgdcircuits.codegen.hoist import counted, increments, is_cheap, multiplied, size_of_sign, split, without
from mgdcircuits.codegen.merge import Due, Merged, in_vectors, merge
from mgdcircuits.codegen.rendering import cpp_expression, names
from mgdcircuits.codegen.target import random_sites
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Reduce, Sharing

CPP_TYPE = {Precision.REAL: "T", Precision.DOUBLE: "double", Precision.INTEGER: "std::int64_t"}
UNIT_OF = {
    Index.ELEMENT: "u",
    Index.PRE: "pre",
    Index.POST: "post",
    Index.SYNAPSE: "syn",
    Index.ZERO: "zero_of(u)",
}
CHANNEL_OF = {Index.CHANNEL: "u", Index.PRE_CHANNEL: "pre", Index.POST_CHANNEL: "post"}
COUNTS = {
    Scope.INITIAL: "0",
    Scope.PERIOD: "s.count_period()",
    Scope.PASS: "s.count_pass()",
    Scope.WRITE: "s.count_write()",
}
LAMBDA = "__attribute__((always_inline))"


SLOTS = 8  # scratch buffers a kernel may have


@dataclass(frozen=True)
class _Signature:
    """How a kernel is called: its function, arrays and perturbations by position, its first scratch buffer."""

    name: str
    arrays: list[Array]
    amplitudes: list[str]
    slot: int
    prepares: bool
    borrows: tuple[Read, ...]  # what its buffers are without perturbation, where that is an array as it stands


@dataclass(frozen=True)
class Layout:
    """The compile-time extents of a session."""

    real: str  # float or double
    lanes: int
    members: int
    batch: int

    @property
    def blocks(self) -> tuple[str, ...]:
        """The types of lane blocks that occur: whole ones (Index), and a last one of few lanes (Few)."""
        if self.batch == 1:
            return ("Few",) if self.members == 1 else ("Index",)
        if 0 < self.batch % self.lanes <= 8 or self.batch == self.lanes <= 8:
            return ("Index", "Few") if self.batch > self.lanes else ("Few",)
        return ("Index",)


def choose_lanes(members: int, batch: int) -> int:
    """Lanes of a block: as many as there are replicas side by side, at most 16."""
    side = members if batch == 1 else batch
    lanes = 1
    while lanes < side and lanes < 16:
        lanes *= 2
    return lanes


class Emitter:
    """Writes the C++ of a program."""

    def __init__(self, program: Program, layout: Layout, ticks: int, evaluations: int, phases: tuple[str, ...]) -> None:
        self.program = program
        self.chosen = {name: program.phases()[name] for name in phases}
        self.layout = layout
        self.ticks = ticks
        self.evaluations = evaluations
        self.sites = {site: k for k, site in enumerate(random_sites(program))}
        self.parameter_index = {name: k for k, name in enumerate(program.parameters)}
        self.arrays = {a.name: k for k, a in enumerate(program.arrays)}
        self.topologies: dict[int, Sparse] = {}  # id -> edge list; passed at run time
        self.functions: dict[
            tuple[str, str, str], str
        ] = {}  # template, body, preparation -> name; equal ones are shared
        self.signatures: dict[tuple, _Signature] = {}
        self.steps: list[Step] = []  # keeps ids alive
        self.fusion = Fusion(program)
        self.counted = {name: k for k, name in enumerate(sorted(counted(program)))}
        self.coded = self._kept_as_bits() if "iteration" in phases else set()

    def sources(self, parts: int) -> list[str]:
        """Translation units: kernels shared out over `parts`, phases and entry points in the first."""
        phases = "".join(self._phase(name, nodes) for name, nodes in self.chosen.items())
        head = self._head()
        written = []
        for (head_, body, prepare), name in self.functions.items():
            blocks = self.layout.blocks if head_ else ()
            made = [f"template void {name}({_parameters(body).replace('B block', f'{b} block')});\n" for b in blocks]
            written.append(f"{head_}void {name}({body}{''.join(made)}")
            if prepare.count("\n") > 3:
                written.append(f"void {name}_prepare({prepare}")
        declarations = "".join(f"{text.partition(') {')[0]});\n" for text in written)
        definitions = sorted(written, key=len, reverse=True)
        shared = [definitions[k::parts] for k in range(parts)]
        first = "\n".join([head, declarations, *shared[0], phases, self._tail()])
        return [first, *("\n".join([head, *part, "}  // namespace mgd_generated"]) for part in shared[1:] if part)]

    # Frame

    def _head(self) -> str:
        y = self.layout
        members = "".join(
            f"  {CPP_TYPE[a.precision]}* a{k} = nullptr;  // {a.name}\n" for k, a in enumerate(self.program.arrays)
        )
        members += "".join(f"  Code<T> {self._code(name)};  // {name}\n" for name in sorted(self.coded))
        return f"""// Generated by mgdcircuits. One struct holds all state; kernels touch only what they are given.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <new>
#include <utility>
#include <vector>
#include <mgd/buffers.hpp>
#include <mgd/conv2d.hpp>
#include <mgd/counters.hpp>
#include <mgd/dense.hpp>
#include <mgd/finite.hpp>
#include <mgd/functions.hpp>
#include <mgd/layout.hpp>
#include <mgd/one_to_one.hpp>
#include <mgd/philox.hpp>
#include <mgd/philox_fill.hpp>
#include <mgd/pool2d.hpp>
#include <mgd/signs.hpp>
#include <mgd/sparse.hpp>
#include <mgd/together.hpp>
#include <mgd/units.hpp>
#include <mgd/winograd.hpp>

namespace mgd_generated {{
using namespace mgd;
using mgd::Index;
using Y = Layout<{y.real}, {y.lanes}, {y.members}, {y.batch}>;
using T = Y::T;
using V = Y::V;
using D = Y::D;

// What changes between runs and in the course of one.
struct Now {{
  double p[{len(self.parameter_index) or 1}];
  std::int64_t n_p = 0, evaluation = 0, tick = 0, offset = 0;
  std::int64_t version = 0;  // counts changes of parameters
  const std::uint8_t* x_bytes = nullptr;
  const float* x_floats = nullptr;
  const double* y_values = nullptr;
  std::int64_t n_samples = 0, n_inputs = 0, n_targets = 0;
  double x_scale = 1;
}};

struct Session : Now, Buffers<T> {{
{members}  const T* zeros = nullptr;  // what a perturbation that is not active reads
  Now& now() {{ return *this; }}
  std::vector<std::uint64_t> keys;          // [site][MP]
  std::vector<std::uint64_t> lane_keys;     // [site][L]
  std::vector<std::uint32_t> lane_replica;  // [L]
  std::vector<std::uint32_t> no_replica;    // [MP]
  int threads = 1;
  std::vector<Sparse> edges;
  std::vector<std::shared_ptr<Session>> others;  // for other threads, which run parts of an iteration
  std::vector<std::shared_ptr<void>> owned;
  std::shared_ptr<Counters> counters = std::make_shared<Counters>();
  template <class A>
  A* own(Index n) {{
    const auto array = allocate_shared<A>(n);
    owned.push_back(array);
    return array.get();
  }}
  std::vector<const double*> watched;  // numbers of replicas that must stay finite
  std::uint64_t count_period() const {{ return static_cast<std::uint64_t>(offset + n_p * {self.ticks} + tick); }}
  std::uint64_t count_pass() const {{
    return static_cast<std::uint64_t>(offset + (n_p * {self.evaluations} + evaluation) * {self.ticks} + tick);
  }}
  std::uint64_t count_write() const {{ return static_cast<std::uint64_t>(offset + n_p); }}
  const std::uint64_t* site_keys(int site) const {{ return keys.data() + site * Y::MP; }}
  const std::uint64_t* block_keys(int site, Index block) const {{ return lane_keys.data() + site * Y::L + block * Y::W; }}
  const std::uint32_t* block_replica(Index block) const {{ return lane_replica.data() + block * Y::W; }}
  std::vector<Buffers<T>> by_thread;  // what each thread evaluates for itself
  Buffers<T>& mine() {{ return by_thread[thread_number()]; }}
}};
"""

    def _tail(self) -> str:
        sizes = []
        for k, a in enumerate(self.program.arrays):
            made = f"make<{CPP_TYPE[a.precision]}>(all, {k}, {self._numbers(a)})"
            sizes.append(f"  s->a{k} = {made};")
        frees = "".join(f"    release(s->a{k});\n" for k in range(len(self.program.arrays)))
        kernels = [s.kernel for nodes in self.chosen.values() for s in steps(nodes)]
        most = max((self._work(k) for k in kernels if isinstance(k, Couple | Elements)), default=0)
        by_name = {a.name: a for a in self.program.arrays}
        counters = "".join(
            f"  s->counters->add(s->{self._array(name)}, {self._numbers(by_name[name])});\n" for name in self.counted
        )
        cases = "\n".join(f"        case {k}: phase_{n}(*s); break;" for k, n in enumerate(self.chosen))
        coded = [by_name[name] for name in sorted(self.coded)]
        codes = "".join(
            f"  s->{self._code(a.name)} = {{s->own<std::uint32_t>({a.n} / 32 + 2), s->own<T>(1)}};\n" for a in coded
        )
        expanded = [f"s->{self._code(a.name)}.expand(s->{self._array(a.name)}, {a.n});" for a in coded]
        iterated = f"phase == {list(self.chosen).index('iteration')} && n > 0" if coded else ""
        expand = f"  if ({iterated}) {{ {' '.join(expanded)} }}\n" if coded else ""
        n_sites = len(self.sites)
        return f"""
template <class A>
A* make(void** all, int k, Index n) {{  // all[k] is an array of another library of the same session, or null
  if (!all[k]) all[k] = allocate<A>(n);
  return static_cast<A*>(all[k]);
}}
}}  // namespace mgd_generated

using namespace mgd_generated;
extern "C" {{
Session* mgd_create(void** all, std::int64_t* layout) {{
  try {{
  Session* s = new Session();
{chr(10).join(sizes)}
  s->keys.resize({n_sites} * Y::MP);
  s->lane_keys.resize({n_sites} * Y::L);
  s->lane_replica.assign(Y::L, 0);
  s->no_replica.assign(Y::MP, 0);
  for (Index r = 0; r < Y::L; ++r)
    s->lane_replica[r] = Y::lanes_are_members ? 0 : static_cast<std::uint32_t>(r % (Y::NBM * Y::W));
  s->edges.resize({len(self.topologies)});
{counters}{codes}  s->zeros = s->own<T>({self._largest_perturbation()});
  layout[0] = Y::MP; layout[1] = Y::W; layout[2] = Y::NBM; layout[3] = Y::RM; layout[4] = Y::lanes_are_members;
  return s;
  }} catch (const std::bad_alloc&) {{ return nullptr; }}
}}
void mgd_destroy(Session* s, int owner) {{
  if (owner) {{
{frees}  }}
  delete s;
}}
double* mgd_parameters(Session* s) {{ return s->p; }}
void mgd_set_keys(Session* s, const std::uint64_t* keys) {{  // [site][member]
  for (int k = 0; k < {n_sites}; ++k) {{
    for (Index m = 0; m < Y::MP; ++m) s->keys[k * Y::MP + m] = keys[k * Y::M + (m < Y::M ? m : 0)];
    for (Index r = 0; r < Y::L; ++r) {{
      const Index m = Y::lanes_are_members ? (r < Y::M ? r : 0) : r / (Y::NBM * Y::W);
      s->lane_keys[k * Y::L + r] = keys[k * Y::M + m];
    }}
  }}
}}
void mgd_set_edges(Session* s, int k, std::int64_t n_pre, std::int64_t n_post, std::int64_t n, const std::int32_t* syn_pre,
                   const std::int32_t* syn_post, const std::int64_t* post_start, const std::int32_t* post_pre,
                   const std::int32_t* post_syn, const std::int64_t* pre_start, const std::int32_t* pre_post,
                   const std::int32_t* pre_syn) {{
  s->edges[k] = Sparse{{n_pre, n_post, n, syn_pre, syn_post, post_start, post_pre, post_syn, pre_start, pre_post, pre_syn}};
}}
void mgd_set_data(Session* s, const std::uint8_t* bytes, const float* floats, const double* y, std::int64_t n,
                  std::int64_t n_inputs, std::int64_t n_targets, double scale) {{
  s->x_bytes = bytes; s->x_floats = floats; s->y_values = y;
  s->n_samples = n; s->n_inputs = n_inputs; s->n_targets = n_targets; s->x_scale = scale;
}}
void mgd_watch(Session* s, const double* const* numbers, int n) {{ s->watched.assign(numbers, numbers + n); }}
// Runs a phase n times, or until a watched number is not finite; whether all are. Iterations are counted in n_p.
int mgd_run(Session* s, int phase, std::int64_t n, std::int64_t* n_p, std::int64_t offset, int threads) {{
  s->threads = threads; s->n_p = *n_p; s->offset = offset;
  s->by_thread.resize(std::max<std::size_t>(s->by_thread.size(), threads));
  ++s->version;  // parameters are written between calls
  bool finite = true;
  with_team(threads, {most} * double(Y::R), [&] {{
    for (std::int64_t k = 0; k < n && finite; ++k) {{
      s->evaluation = 0;
      s->tick = 0;
      switch (phase) {{
{cases}
      }}
      *n_p = s->n_p;
      finite = all_finite<Y>(s->watched);
    }}
  }});
  s->counters->settle();
{expand}  return finite;
}}
}}
"""

    # Phases

    def _phase(self, name: str, nodes: Iterable[Node]) -> str:
        written: list[str] = []
        lines: list[str] = []
        serial: list[Node] = []
        for node in [*(together(self.program) if name == "iteration" else nodes), None]:
            if isinstance(node, Together) and self._shares(node):
                lines += [*self._nodes(serial), *self._together(node, written)]
                serial = []
            elif isinstance(node, Together):
                serial += [n for part in node.parts for n in part]
            elif node is not None:
                serial.append(node)
        lines += self._nodes(serial)
        return "".join([*written, _void(f"phase_{name}", lines)])

    def _loads(self, node: Together) -> list[int]:
        """Operations of each part, for one replica."""
        return [
            sum(self._work(s.kernel) for s in steps(part) if isinstance(s.kernel, Couple | Elements))
            for part in node.parts
        ]

    def _shares(self, node: Together) -> bool:
        """Whether two threads have about the same to do with some of the parts each."""
        loads = self._loads(node)
        return 2 * max(loads) <= 1.25 * sum(loads)

    def _together(self, node: Together, written: list[str]) -> list[str]:
        """The call of parts that may run at the same time; their functions are added to what is written."""
        written += [_void(f"part_{k}", self._nodes(part)) for k, part in enumerate(node.parts)]
        arrays = [self.program.arrays[self.arrays[name]] for name in node.private]
        own = [f"o.{self._array(a.name)} = o.own<{CPP_TYPE[a.precision]}>({self._numbers(a)});" for a in arrays]
        leave = [f"std::memcpy(to.{a}, from.{a}, {self._bytes(n)});" for n in node.left for a in [self._array(n)]]
        loads = self._loads(node)
        return [
            f"together(s, Y::NB, {{{', '.join(f'{load} * double(Y::R)' for load in loads)}}},",
            f"         {{{', '.join(f'part_{k}' for k in range(len(node.parts)))}}},",
            f"         {{{', '.join(map(str, node.evaluations))}}},",
            "         [](Session& o) {",
            *(f"  {line}" for line in own),
            "}, [](Session& to, const Session& from) {",
            *(f"  {line}" for line in leave),
            "});",
        ]

    def _nodes(self, nodes: Iterable[Node]) -> list[str]:
        lines: list[str] = []
        for group in runs(merge(nodes)):
            if len(group) > 1 or (isinstance(group[0], Step) and is_local(group[0].kernel)):
                lines += self._calls(group)
                continue
            match node := group[0]:
                case Step():
                    lines.append(self._call(node))
                case Every(period, offset, body):
                    k = self.parameter_index[period]
                    lines += [f"if ((s.n_p + {offset}) % static_cast<std::int64_t>(s.p[{k}]) == 0) {{"]
                    lines += [f"  {line}" for line in self._nodes(body)] + ["}"]
                    if isinstance(node, Due):
                        lines[-1] += " else {"
                        lines += [f"  {line}" for line in self._nodes(node.otherwise)] + ["}"]
                case Ticks(n, body):
                    lines += [f"for (s.tick = 0; s.tick < {n}; ++s.tick) {{"]
                    lines += [f"  {line}" for line in self._nodes(body)] + ["}", "s.tick = 0;"]
                case Between(first, last, body):
                    lines += [f"if (s.tick >= {first} && s.tick < {last}) {{"]
                    lines += [f"  {line}" for line in self._nodes(body)] + ["}"]
                case Clear(target):
                    lines.append(f"std::memset(s.{self._array(target)}, 0, {self._bytes(target)});")
                case Copy(source, target):
                    lines.append(
                        f"std::memcpy(s.{self._array(target)}, s.{self._array(source)}, {self._bytes(target)});"
                    )
                case Count(counter="n_p"):
                    lines.append("++s.n_p; ++s.version;")
                case Count(counter="evaluation"):
                    lines.append("++s.evaluation;")
        return lines

    def _array(self, name: str) -> str:
        return f"a{self.arrays[name]}"

    def _code(self, name: str) -> str:
        return f"code{self.arrays[name]}"

    def _kept_as_bits(self) -> set[str]:
        """Codes of signs of which memory has bits while a run lasts."""
        if self.layout.members > 1:
            return set()
        found = codes_of_bits(self.program, self._is_code, lambda c: self._met_once(c) or self._apart(c))
        return found - {n for node in together(self.program) if isinstance(node, Together) for n in node.private}

    @staticmethod
    def _numbers(array: Array) -> str:
        return f"{array.n}LL * {'Y::R' if array.sharing is Sharing.REPLICA else 'Y::MP'}"

    def _bytes(self, name: str) -> str:
        a = self.program.arrays[self.arrays[name]]
        return f"static_cast<std::size_t>({self._numbers(a)}) * sizeof({CPP_TYPE[a.precision]})"

    def _largest_perturbation(self) -> str:
        """How many numbers the longest array has that a kernel reads as a perturbation."""
        kernels = [s.kernel for nodes in self.chosen.values() for s in steps(nodes)]
        found = {n for k in kernels for n in k.perturbations()}
        return f"std::max<Index>({{1, {', '.join(sorted(self._numbers(a) for a in self.program.arrays if a.name in found))}}})"

    def _calls(self, group: list[Step]) -> list[str]:
        """Steps in which replicas do not meet: all of them for one lane block after another."""
        steps = self.fusion.fused(group)
        calls = [self._call(step) for step in steps]
        first, apart = [], []
        for step in steps:
            (apart if self._apart(step.kernel) else first).extend(self._prepared(step))
        work = sum(self._work(step.kernel) for step in group)
        opening = f"over_blocks<Y>(s.threads, {work} * double(Y::R), [&](auto block) {{"
        return [*first, opening, *(f"  {c}" for c in (*apart, *calls)), "});"]

    def _prepared(self, step: Step) -> list[str]:
        """What a coupling evaluates once a synapse, beforehand; what did not change since is not evaluated again."""
        made = self.signatures[_key(step)]
        if not made.prepares:
            return []
        call = self._call(step, "_prepare")
        if any(isinstance(o, Word) for o in step.kernel.operands.values()):
            return [call]
        where = self._buffers(step.kernel)
        factors = [repr(float(step.factor)) for a in made.amplitudes if a in step.active & step.kernel.perturbations()]
        if not factors and made.borrows:
            arrays = [s_.array for s_ in made.borrows]
            return [f"{where}.borrow({made.slot}, {k}, s.{self._array(a.name)});" for k, a in enumerate(arrays)]
        return [f"if ({where}.stale(s.version, {made.slot}, {{{', '.join(factors)}}})) {call}"]

    def _buffers(self, kernel: Kernel) -> str:
        return "s.mine()" if self._apart(kernel) else "s"

    @staticmethod
    def _work(kernel: Kernel) -> int:
        """Operations of one replica, roughly."""
        return kernel.topology.n_connections or kernel.topology.n_post if isinstance(kernel, Couple) else 8 * kernel.n

    def _call(self, step: Step, part: str = "") -> str:
        if _key(step) not in self.signatures:
            self._function(step)
        made = self.signatures[_key(step)]
        finish = step.finish if isinstance(step, Fused) else step
        rename = {**finish.rename, **step.rename}
        arguments = [f"s.{self._array(rename.get(a.name, a.name))}" for a in made.arrays]
        written = {a.name for a in step.kernel.writes.values()}
        for k, a in enumerate(made.arrays):
            if a.name in self.coded:
                arguments[k] = f"s.{self._code(a.name)}{'' if a.name in written else '.signs()'}"
            if a.name in _inactive(finish, step):
                arguments[k] = "no_signs(s.zeros)" if a.name in self.coded else "s.zeros"
        if isinstance(step, Fused) and not step.kept:
            arguments[made.arrays.index(step.kernel.writes["target"])] = "nullptr"
        active = {a: s.factor for s in (finish, step) for a in s.active & s.kernel.perturbations()}
        factors = [repr(float(active.get(a, 0.0))) for a in made.amplitudes]
        blocks = [str(made.slot), *(("block",) if not part and is_local(step.kernel) else ())]
        return f"{made.name}{part}({', '.join(['s', *blocks, *arguments, *factors])});  // {step.kernel.name}"

    # Kernels

    def _function(self, step: Step) -> None:
        kernel, finish = step.kernel, step.finish.kernel if isinstance(step, Fused) else None
        self.steps.append(step)
        kernels = [kernel, finish] if finish else [kernel]
        arrays: dict[str, Array] = {}
        for operand in (o for k in kernels for o in k.operands.values()):
            if isinstance(operand, Read):
                arrays[operand.array.name] = operand.array
        arrays |= {a.name: a for k in kernels for a in k.writes.values()}
        written = {a.name for k in kernels for a in k.writes.values()}
        if isinstance(kernel, Sample):
            for array, *_ in (*kernel.inputs, *kernel.of_target):
                arrays[array.name] = array
                written.add(array.name)
            if kernel.labels.name in self.arrays:
                arrays[kernel.labels.name] = kernel.labels
                written.add(kernel.labels.name)
        amplitudes = sorted({a for k in kernels for a in k.perturbations()})
        arguments = ["Session& s", "int slot"]
        spreads = spreadable(kernel)
        if is_local(kernel):
            arguments.append("B block" if spreads else "Index block")
        for a in arrays.values():
            const = "" if a.name in written else "const "
            kind = f"{const}{CPP_TYPE[a.precision]}* __restrict"
            if a.name in self.coded:
                kind = "Code<T>" if a.name in written else "Signs<T>"
            arguments.append(f"{kind} {_pointer(a)}")
        arguments += [f"double {_factor(a)}" for a in amplitudes]
        write = {
            Elements: self._elements,
            Merged: self._merged,
            Couple: self._couple,
            Fold: self._fold,
            Reduction: self._reduction,
            MemberMean: self._member_mean,
            Sample: self._sample,
        }.get(type(kernel))
        if write is None:
            raise BuildError(
                "spiking circuits run on the numpy target so far: choose target='numpy' (or --target numpy on the command line)"
            )
        self.preparation: list[str] = []
        self.borrowed: list[Read | None] = []
        body = self._couple(kernel, step) if isinstance(kernel, Couple) else write(kernel)

        def text(lines: list[str], parameters: list[str]) -> str:
            made = f"{', '.join(parameters)}) {{\n  (void)s; (void)slot;\n" + "".join(f"  {x}\n" for x in lines) + "}\n"
            for k, a in enumerate(arrays.values()):  # by position, so that kernels of one form are one function
                made = re.sub(rf"\b{_pointer(a)}\b", f"a{k}", made)
            for k, a in enumerate(amplitudes):
                made = re.sub(rf"\b{_factor(a)}\b", f"factor{k}", made)
            return made

        prepare = text(self.preparation, [a for a in arguments if not a.endswith(" block")])
        template = "template <class B>\n" if spreads else ""
        name = self.functions.setdefault((template, text(body, arguments), prepare), f"k{len(self.functions)}")
        slot = SLOTS * (len(self.steps) - 1)
        borrows = tuple(self.borrowed) if self.borrowed and None not in self.borrowed else ()
        self.signatures[_key(step)] = _Signature(
            name, list(arrays.values()), amplitudes, slot, bool(self.preparation), borrows
        )

    def _uniform(self, operand) -> str | None:
        """A number that is the same for all elements and replicas, as C++; None for anything else."""
        match operand:
            case Literal(value):
                return f"{value!r}" if value not in (float("inf"), float("-inf")) else "INFINITY"
            case Parameter(parameter):
                return f"s.p[{self.parameter_index[parameter]}]"
            case Word("n_p"):
                return "static_cast<double>(s.n_p)"
            case Word("tick"):
                return "static_cast<double>(s.tick)"
            case Word(word):
                raise BuildError(f"the word {word} is not available in compiled circuits")
        return None

    def _operand(self, name: str, operand, kind: str) -> str:
        """Definition of a per-element operand inside a loop. `kind`: V, D (lanes) or scalar (one member)."""
        match operand:
            case Read(array, index, positions, amplitude):
                unit = UNIT_OF.get(index) or f"channel_of({CHANNEL_OF[index]}, {positions})"
                pointer = _pointer(array)
                if kind == "scalar":
                    value = f"static_cast<T>({pointer}[{unit} * Y::MP + m])"
                    if array.precision is Precision.INTEGER:
                        value = f"static_cast<double>({pointer}[{unit} * Y::MP + m])"
                else:
                    suffix = "_double" if kind == "D" else ""
                    if array.sharing is Sharing.REPLICA:
                        value = f"Y::rep{suffix}({pointer}, {array.n}, {unit}, block)"
                    else:
                        value = f"Y::mem{suffix}({pointer}, {unit}, block)"
                if amplitude:
                    type_ = {"V": "V", "D": "D", "scalar": "T"}[kind]
                    value = f"{type_}({_factor(array.name)}) * {value}"
                return f"auto {name} = {value};"
            case Position(index, offset):
                return f"const auto {name} = Y::number({UNIT_OF[index]}, {offset});"
            case Random(function, site, scope, index, arguments):
                return self._lane_draw(name, function, self.sites[site], COUNTS[scope], UNIT_OF[index], arguments, kind)
        raise BuildError(f"{name}: unknown operand {operand!r}")

    @staticmethod
    def _lane_draw(name, function, site, count, unit, arguments, kind) -> str:
        keys = f"s.block_keys({site}, block), s.block_replica(block), {unit}, {count}"
        match function:
            case "rand":
                return f"auto {name} = lanes_uniform<{kind}>({keys});"
            case "randn":
                return f"auto {name} = lanes_normal<{kind}>({keys});"
            case "bit":
                return f"auto {name} = 0.5 * (lanes_sign<{kind}>({keys}) + 1.0);"
        return f"auto {name} = lanes_poisson<{kind}>({keys}, {cpp_expression(arguments[0])});"

    def _operands(self, kernel: Kernel, needed: set[str], kind: str) -> list[str]:
        """Definitions of the per-element operands that are needed, draws last."""
        return list(self._named_operands(kernel, needed, kind).values())

    def _named_operands(self, kernel: Kernel, needed: set[str], kind: str) -> dict[str, str]:
        chosen = [(n, o) for n, o in kernel.operands.items() if n in needed and self._uniform(o) is None]
        chosen.sort(key=lambda item: isinstance(item[1], Random))
        return {n: self._operand(n, o, kind) for n, o in chosen}

    def _uniforms(self, kernel: Kernel, needed: set[str]) -> list[str]:
        lines = []
        for name, operand in kernel.operands.items():
            value = self._uniform(operand)
            if value is not None and name in needed:
                lines.append(f"const double {name} = {value};")
        return lines

    def _kind(self, kernel: Kernel):
        def kind(name: str):
            operand = kernel.operands.get(name)
            return "uniform" if operand is not None and self._uniform(operand) is not None else None

        return kind

    def _hoisted(self, kernel: Kernel, reciprocals: bool = False) -> tuple[list[tuple[str, str]], list[str]]:
        """Statements with uniform parts taken out, and the lines that evaluate uniforms once."""
        statements, lines, used = [], [], set()
        assigned = {s.target for s in kernel.statements}
        kind = self._kind(kernel)
        for number, statement in enumerate(kernel.statements):
            expression = multiplied(statement.expression, kind) if reciprocals else statement.expression
            text, parts = split(expression, lambda n: None if n in assigned else kind(n), f"hoisted_{number}_")
            for name, (_, part) in parts.items():
                used |= names(part)
                lines.append(f"const double {name} = {cpp_expression(part)};")
            used |= names(text)
            statements.append((statement.target, text))
        arguments = {
            n for o in kernel.operands.values() if isinstance(o, Random) for a in o.arguments for n in names(a)
        }
        return statements, [*self._uniforms(kernel, used | arguments), *lines]

    def _statements(self, kernel: Kernel, statements, kind: str) -> list[str]:
        """Assignments to locals; an array's local exists already where the kernel reads the array."""
        declared = set(kernel.operands)
        lines = []
        for target, text in statements:
            value = cpp_expression(text)
            if target in declared:
                lines.append(f"{target} = {value};")
            else:
                type_ = "auto" if target not in kernel.writes else {"V": "V", "D": "D", "scalar": "double"}[kind]
                lines.append(f"{type_} {target} = {value};")
                declared.add(target)
        return lines

    def _needed(self, kernel: Kernel, statements) -> set[str]:
        needed = {n for _, text in statements for n in names(text)} | (set(kernel.writes) & set(kernel.operands))
        for operand in kernel.operands.values():
            if isinstance(operand, Random):
                needed |= {n for a in operand.arguments for n in names(a)}
        return needed

    def _elements(self, kernel: Elements) -> list[str]:
        if kernel.sharing is Sharing.MEMBER:
            return self._member_elements(kernel)
        statements, lines = self._hoisted(kernel)
        kind = "D" if kernel.precision is Precision.DOUBLE else "V"
        inside = self._operands(kernel, self._needed(kernel, statements), kind)
        inside += self._statements(kernel, statements, kind)
        inside += [f"Y::put({_pointer(a)}, {a.n}, u, block, {kind}({n}));" for n, a in kernel.writes.items()]
        return [*lines, *self._over_units(kernel.n, positions_of(kernel), 4 * len(statements), inside)]

    @staticmethod
    def _over_units(n: int, positions: int, work: int, inside: list[str], unit: str = "u") -> list[str]:
        """A loop over the units of a lane block. Pointers and numbers are captured by value: they stay in registers."""
        return [
            f"over_units<Y, {n}, {positions}>(s.threads, {n} * double(Y::W) * {work}, block, [=, &s](auto {unit}) {LAMBDA} {{",
            f"  using V = Y::At<std::decay_t<decltype(block)>, decltype({unit})>; (void)s;",
            *(f"  {line}" for line in inside),
            "});",
        ]

    def _member_elements(self, kernel: Elements) -> list[str]:
        """A loop over an array per member, in vectors of neighbouring numbers where every operand allows it."""
        draws = {name: o for name, o in kernel.operands.items() if isinstance(o, Random)}
        if not in_vectors(kernel):
            return self._one_by_one(kernel, *self._hoisted(kernel), draws)
        statements, lines = self._hoisted(kernel, reciprocals=True)
        if size := self._size_of_code(kernel, statements):
            return [*lines, *self._signs(kernel, next(iter(draws.values())), size)]
        lines, inside = self._of_numbers(kernel, draws)
        if draws:
            fills = [
                f"{self._fill_name(o)}(to + {j} * drawn_room<Y>, elements, Y::MP, Y::MP, s.site_keys({self.sites[o.site]}), "
                f"s.no_replica.data(), {COUNTS[o.scope]}, first);"
                for j, o in enumerate(draws.values())
            ]
            opening = [
                f"over_drawn<Y, {len(draws)}>(s.threads, {kernel.n}, [&](T* to, Index elements, Index first) {{",
                *(f"  {line}" for line in fills),
                f"}}, [=](Index k, auto exist, const T* drawn) {LAMBDA} {{",
            ]
        else:
            opening = [f"over_numbers<Y>(s.threads, {kernel.n}LL * Y::MP, [=](Index k, auto exist) {LAMBDA} {{"]
        return [*lines, *opening, *(f"  {line}" for line in inside), "});"]

    def _merged(self, kernel: Merged) -> list[str]:
        """Loops over arrays per member, in turns for a piece of the arrays at a time."""
        made = []
        for number, part in enumerate(kernel.parts):
            lines, inside = self._of_numbers(part, {})
            made += [f"const auto part{number} = [&] {{", *(f"  {line}" for line in lines)]
            made += [
                f"  return [=](Index k, auto exist) {LAMBDA} {{",
                *(f"    {line}" for line in inside),
                "  };",
                "}();",
            ]
        parts = ", ".join(f"part{number}" for number in range(len(kernel.parts)))
        return [*made, f"over_numbers<Y>(s.threads, {kernel.parts[0].n}LL * Y::MP, {parts});"]

    def _varying(self, kernel: Elements, statements: Sequence[tuple[str, str]]) -> dict[str, Read | Random]:
        """Operands that a loop over an array per member loads, always in the same order: the cache goes by the text."""
        needed = sorted(self._needed(kernel, statements) - set(increments(kernel, statements)))
        operands = {n: kernel.operands[n] for n in needed if n in kernel.operands}
        return {n: o for n, o in operands.items() if self._uniform(o) is None}

    def _of_numbers(self, kernel: Elements, draws: Mapping[str, Random]) -> tuple[list[str], list[str]]:
        """What is evaluated once, and what for the numbers k, k + 1, ... of which `exist` do."""
        statements, lines = self._hoisted(kernel, reciprocals=True)
        counts = increments(kernel, statements)
        inside = ["using V = Lanes<T, 16>;"]
        for name, operand in self._varying(kernel, statements).items():
            if isinstance(operand, Random):
                value = f"V::load(drawn + {list(draws).index(name)} * drawn_room<Y>)"
                inside.append(
                    f"const V {name} = {f'V(0.5) * ({value} + V(1))' if operand.function == 'bit' else value};"
                )
            elif operand.index is Index.ZERO:
                inside.append(f"auto {name} = of_members<Y>({_pointer(operand.array)}, k);")
            else:
                inside.append(f"auto {name} = {self._number(operand)};")
        inside += self._statements(kernel, [s for s in statements if s[0] not in counts], "V")
        inside += [f"put_first({_pointer(a)} + k, {n}, exist);" for n, a in kernel.writes.items() if n not in counts]
        for name, text in counts.items():
            array = kernel.writes[name]
            if array.name in self.counted:
                lines.append(f"std::uint8_t* const recent_{name} = s.counters->update({self.counted[array.name]});")
                inside.append(f"count_whole(recent_{name} + k, V({cpp_expression(text)}), exist);")
            else:
                inside.append(f"add_whole({_pointer(array)} + k, V({cpp_expression(text)}), exist);")
        return lines, inside

    def _number(self, operand: Read) -> str:
        """The numbers k, k + 1, ... of an array per member."""
        pointer = _pointer(operand.array)
        return f"{pointer}.template lanes<16>(k)" if operand.array.name in self.coded else f"V::load({pointer} + k)"

    def _size_of_code(self, kernel: Elements, statements: Sequence[tuple[str, str]]) -> str | None:
        """The size of the signs that a kernel draws, if it does nothing else."""
        draws = {name for name, o in kernel.operands.items() if isinstance(o, Random) and o.function == "bit"}
        if set(self._varying(kernel, statements)) != draws or len(draws) != 1 or len(statements) != 1:
            return None
        return size_of_sign(statements[0][1], *draws)

    def _is_code(self, kernel: Kernel) -> bool:
        if not isinstance(kernel, Elements) or kernel.sharing is not Sharing.MEMBER or not in_vectors(kernel):
            return False
        return self._size_of_code(kernel, self._hoisted(kernel, reciprocals=True)[0]) is not None

    def _signs(self, kernel: Elements, draw: Random, size: str) -> list[str]:
        """A code of signs, drawn where it is kept."""
        (array,) = kernel.writes.values()
        if array.name in self.coded:
            keys = f"s.site_keys({self.sites[draw.site]})[0], {COUNTS[draw.scope]}, s.no_replica[0], first"
            return [
                f"*{_pointer(array)}.size = static_cast<T>({size});",
                f"over_elements<Y, 2048>(s.threads, {kernel.n}, [&](Index elements, Index first) {{",
                f"  fill_bits({_pointer(array)}.words + first / 32, elements, {keys});",
                "});",
            ]
        keys = f"s.site_keys({self.sites[draw.site]}), s.no_replica.data(), {COUNTS[draw.scope]}, first"
        to = f"{_pointer(array)} + first * Y::MP"
        return [
            f"over_elements<Y>(s.threads, {kernel.n}, [&](Index elements, Index first) {{",
            f"  fill_signs_lanes({to}, elements, Y::MP, Y::MP, {keys}, static_cast<T>({size}));",
            "});",
        ]

    def _one_by_one(self, kernel: Elements, statements, lines: list[str], draws: Mapping[str, Random]) -> list[str]:
        """The same, number by number in float64."""
        for number, (name, operand) in enumerate(draws.items()):
            lines = [*lines, *self._fill(name, operand, kernel.n, number)]
        inside = []
        for name in sorted(self._needed(kernel, statements)):
            operand = kernel.operands.get(name)
            if operand is None or self._uniform(operand) is not None:
                continue
            if isinstance(operand, Random):
                drawn = f"fill_{name}[u * Y::MP + m]"
                drawn = f"T(0.5) * ({drawn} + T(1))" if operand.function == "bit" else drawn
                inside.append(f"const T {name} = {drawn};")
            else:
                inside.append(self._operand(name, operand, "scalar"))
        inside += self._statements(kernel, statements, "scalar")
        for name, array in kernel.writes.items():
            inside.append(f"{_pointer(array)}[u * Y::MP + m] = static_cast<{CPP_TYPE[array.precision]}>({name});")
        return [
            "{",
            *(f"  {line}" for line in lines),
            f"  constexpr Index chunk = 4096, n = {kernel.n};",
            "  parallel_for(s.threads, (n + chunk - 1) / chunk, double(n) * Y::MP * 4, [&](Index task) {",
            "    const Index end = (task + 1) * chunk < n ? (task + 1) * chunk : n;",
            "    for (Index u = task * chunk; u < end; ++u)",
            "      for (Index m = 0; m < Y::MP; ++m) {",
            *(f"        {line}" for line in inside),
            "      }",
            "  });",
            "}",
        ]

    @staticmethod
    def _fill_name(operand: Random) -> str:
        """The function that draws numbers of an array per member."""
        fills = {"rand": "fill_uniform_lanes", "randn": "fill_normal_lanes", "bit": "fill_signs_lanes"}
        if operand.function not in fills:
            raise BuildError(f"{operand.site}: {operand.function}() of a parameter runs on the numpy target only")
        return fills[operand.function]

    def _fill(self, name: str, operand: Random, n: int, number: int) -> list[str]:
        """Draws of all elements of an array per member, beforehand."""
        site, count, fill = self.sites[operand.site], COUNTS[operand.scope], self._fill_name(operand)
        # a power of two elements a task, so that no call of the generator is shared between tasks
        lines = [
            f"T* const fill_{name} = s.buffer(slot + {number}, {n}LL * Y::MP);",
            f"parallel_for(s.threads, ({n} + 8191) / 8192, {n} * double(Y::MP) * 8, [&](Index task) {{",
            f"  const Index first = task * 8192, count_n = first + 8192 < {n} ? 8192 : {n} - first;",
            f"  {fill}(fill_{name} + first * Y::MP, count_n, Y::MP, Y::MP, s.site_keys({site}), s.no_replica.data(), "
            f"{count}, first);",
            "});",
        ]
        return lines

    # Couplings

    def _side(self, kernel: Couple, name: str) -> str | None:
        """What a name depends on: the pre or post side, the synapse, nothing; None for what no part of an expression has."""
        operand = kernel.operands.get(name)
        if operand is None or isinstance(operand, Random | Position):
            return None
        if self._uniform(operand) is not None:
            return "uniform"
        if operand.index is Index.SYNAPSE:
            return "syn" if operand.array.sharing is Sharing.MEMBER else None
        sides = {Index.PRE: "pre", Index.PRE_CHANNEL: "pre", Index.POST: "post", Index.POST_CHANNEL: "post"}
        return sides.get(operand.index)

    def _sides(self, kernel: Couple) -> tuple[str, dict[str, tuple[str, str]]]:
        """The expression of a coupling, and its parts that depend on one side."""
        return split(kernel.statements[0].expression, lambda n: self._side(kernel, n), "hoisted_")

    def _apart(self, kernel: Kernel) -> bool:
        """Whether every thread evaluates for itself what depends on a synapse.

        Synapses of a dense coupling are as many as places where they are used: one thread would wait for what the other wrote.
        """
        if not isinstance(kernel, Couple) or not is_local(kernel) or not isinstance(kernel.topology, Dense):
            return False
        if self.layout.members > 1 or self._met_once(kernel) or any(isinstance(o, Word) for o in kernel.operands.values()):
            return False
        parts = self._sides(kernel)[1].values()
        operands = [kernel.operands[n] for _, part in parts for n in names(part)]
        real = all(isinstance(o, Read) and o.array.precision is Precision.REAL for o in operands)
        return real and all(where == "syn" and is_cheap(part) for where, part in parts)

    def _couple(self, kernel: Couple, step: Step) -> list[str]:
        text, parts = self._sides(kernel)
        used = names(text) | {n for _, part in parts.values() for n in names(part)}
        if kernel.winner:
            used |= names(kernel.winner)
        lines = self._uniforms(kernel, used)
        loads = self._named_operands(kernel, names(text), "V")
        product = None
        if self._pays(kernel):
            product = winograd.factors(text, lambda n: parts[n][0] if n in parts else self._side(kernel, n))
        zero = {n for n, o in kernel.operands.items() if isinstance(o, Read) and o.amplitude}
        in_place: list[str] = []  # parts evaluated where they are used, ...
        unperturbed: list[str] = []  # ... and where perturbations are zero
        for number, (name, (where, part)) in enumerate(parts.items()):
            if where == "syn" and self._met_once(kernel) and is_cheap(part):
                self.borrowed.append(None)
                in_place += self._part(kernel, name, part)
                unperturbed += self._part(kernel, name, without(part, zero))
                continue
            lines_of, load = self._hoist_side(kernel, name, where, part, number)
            lines += lines_of
            if load:
                loads[name] = load
        result = f"return V({cpp_expression(text)});"
        if not is_local(kernel):
            lines = [*self.preparation, *lines]
            self.preparation = []
        lines += self._of_synapse("f", [*loads.values(), *in_place, result])
        clean = in_place != unperturbed
        if clean:
            lines += self._of_synapse("clean", [*loads.values(), *unperturbed, result])
        if product:
            weight, value = product
            self._transformed(kernel, weight, parts)
            inside = [*(loads[n] for n in loads if n in names(value)), f"return V({cpp_expression(value)});"]
            lines += [f"const auto value = [=, &s](auto pre, auto block) {LAMBDA} {{ {' '.join(inside)} }};"]
        lines += self._topology(kernel)
        return lines + self._collect(kernel, step, clean, len(parts) if product else None)

    def _pays(self, kernel: Couple) -> bool:
        """Whether whole blocks of replicas of one member are summed with fewer products."""
        replicas = self.layout.batch > 1 and "Index" in self.layout.blocks
        summed = is_local(kernel) and kernel.into is Into.POST and kernel.reduce is not Reduce.MAX
        return replicas and summed and winograd.pays(kernel.topology)

    def _transformed(self, kernel: Couple, weight: str, parts: Mapping[str, tuple]) -> None:
        """Adds to the preparation: weights as the sum with fewer products wants them, in the buffer after the parts."""
        whole = f"Winograd<{kernel.topology.cpp_type()}>"
        loads = []
        used = names(weight)
        for number, (name, (where, part)) in enumerate(parts.items()):
            if name in used and where == "uniform":
                used |= names(part)
                loads.append(f"const double {name} = {cpp_expression(part)};")
            elif name in used:
                loads.append(f"const T {name} = {name}_of[syn * Y::MP + m];")
                self.preparation.append(f"const T* const {name}_of = s.at(slot + {number});")
        reads = self._named_operands(kernel, used, "scalar")
        self.borrowed.append(None)
        self.preparation += [
            *self._uniforms(kernel, used),
            f"T* const transformed = s.buffer(slot + {len(parts)}, {whole}::n_weights * Y::MP);",
            f"{whole}::transform<T>(s.threads, Y::MP, [=](Index syn, Index m) {LAMBDA} {{",
            f"  {' '.join([*reads.values(), *loads])} return T({cpp_expression(weight)});",
            "}, transformed);",
        ]

    @staticmethod
    def _of_synapse(name: str, inside: list[str]) -> list[str]:
        """What a synapse gives, as a function."""
        return [
            f"const auto {name} = [=, &s](auto syn, auto pre, auto post, auto block) {LAMBDA} {{",
            "  using V = Y::At<decltype(block), decltype(post)>; (void)s; const auto u = post; (void)u;",
            f"  (void)syn; (void)pre; (void)post; (void)block; {' '.join(inside)}",
            "};",
        ]

    def _met_once(self, kernel: Couple) -> bool:
        """Whether a sum meets each synapse once: then evaluating its parts beforehand would only cost memory traffic."""
        few = self.layout.members == 1 and self.layout.batch <= 4
        return few and isinstance(kernel.topology, Dense) and kernel.into is Into.POST

    def _part(self, kernel: Couple, name: str, part: str) -> list[str]:
        """A part evaluated where it is used."""
        varying = {n for n in names(part) if self._uniform(kernel.operands[n]) is None}
        return [*self._operands(kernel, varying, "V"), f"const V {name} = {cpp_expression(part)};"]

    def _hoist_side(self, kernel: Couple, name: str, where, part: str, number: int) -> tuple[list[str], str]:
        """A part that depends on one side only, evaluated once an element."""
        value = cpp_expression(part)
        if where == "uniform":
            return [f"const double {name} = {value};"], ""
        n = {"pre": kernel.topology.n_pre, "post": kernel.topology.n_post, "syn": kernel.topology.n_synapses}[where]
        buffer = f"s.buffer(slot + {number}, {n}LL * "
        self.borrowed.append(self._unperturbed(kernel, part) if where == "syn" else None)
        if self._apart(kernel):
            self.preparation += self._evaluated(kernel, name, part, f"s.mine().buffer(slot + {number}, {n}LL * Y::MP)")
            lines = [f"const T* const {name}_of = s.mine().held[slot + {number}];"]
            return lines, f"const V {name} = Y::mem({name}_of, syn, block);"
        if where == "syn":
            loads = []
            for operand_name in sorted(names(part)):
                operand = kernel.operands[operand_name]
                if self._uniform(operand) is None:
                    loads.append(self._operand(operand_name, operand, "scalar"))
            self.preparation += [
                "{",
                *(f"  {line}" for line in self._uniforms(kernel, names(part))),
                f"  T* const {name}_of = {buffer}Y::MP);",
                f"  over_runs(s.threads, {n}, {n} * double(Y::MP) * 4, [=, &s](Index first, Index end) {{",
                "    (void)s;",
                "    for (Index syn = first; syn < end; ++syn)",
                "      for (Index m = 0; m < Y::MP; ++m) {",
                f"        {' '.join(loads)}",
                f"        {name}_of[syn * Y::MP + m] = static_cast<T>({value});",
                "      }",
                "  });",
                "}",
            ]
            lines = [f"const T* const {name}_of = s.held[slot + {number}];"]
            return lines, f"const V {name} = Y::mem({name}_of, syn, block);"
        self.preparation.append(f"{buffer}Y::R);")
        inside = [*self._operands(kernel, names(part), "V"), f"Y::put({name}_of, {n}, {where}, block, V({value}));"]
        positions = self._side_positions(kernel, names(part), n)
        loop = self._over_units(n, positions, 8, inside, where)
        if not is_local(kernel):
            loop = ["for (Index block = 0; block < Y::NB; ++block) {", *(f"  {line}" for line in loop), "}"]
        lines = [f"T* const {name}_of = s.at(slot + {number});", *loop]
        return lines, f"const V {name} = Y::rep({name}_of, {n}, {where}, block);"

    def _evaluated(self, kernel: Couple, name: str, part: str, buffer: str) -> list[str]:
        """The loop over synapses that evaluates a part, in vectors of neighbours."""
        loads = []
        for operand_name in sorted(names(part)):
            operand = kernel.operands[operand_name]
            factor = f"V({_factor(operand.array.name)}) * " if operand.amplitude else ""
            loads.append(f"const V {operand_name} = {factor}{self._number(operand)};")
        return [
            "{",
            f"  T* const {name}_of = {buffer};",
            f"  over_numbers<Y>(s.threads, {kernel.topology.n_synapses}LL * Y::MP, [=](Index k, auto exist) {LAMBDA} {{",
            f"    using V = Lanes<T, 16>; {' '.join(loads)}",
            f"    put_first({name}_of + k, V({cpp_expression(part)}), exist);",
            "  });",
            "}",
        ]

    @staticmethod
    def _side_positions(kernel: Couple, used: set[str], n: int) -> int:
        """Units of one channel among the operands of a side; all units where none is per channel."""
        found = {o.positions for k, o in kernel.operands.items() if k in used and isinstance(o, Read)} - {1}
        return found.pop() if found else n

    @staticmethod
    def _unperturbed(kernel: Couple, part: str) -> Read | None:
        """The array that a part is where perturbations are zero, if it is one as it stands."""
        zero = {n for n, o in kernel.operands.items() if isinstance(o, Read) and o.amplitude}
        operand = kernel.operands.get(without(part, zero))
        whole = isinstance(operand, Read) and operand.index is Index.SYNAPSE and operand.array.sharing is Sharing.MEMBER
        return operand if whole and operand.array.precision is Precision.REAL else None

    def _topology(self, kernel: Couple) -> list[str]:
        if isinstance(kernel.topology, Sparse):
            number = next(
                (k for k, t in enumerate(self.topologies.values()) if t is kernel.topology), len(self.topologies)
            )
            self.topologies[id(kernel.topology)] = kernel.topology
            return [f"const Sparse& topology = s.edges[{number}];"]
        return [f"const {kernel.topology.cpp_type()} topology{{}};"]

    def _collect(self, kernel: Couple, step: Step, clean: bool, transformed: int | None) -> list[str]:
        target = kernel.writes["target"]
        pointer = _pointer(target)
        add = "true" if kernel.add else "false"
        if kernel.into is Into.PARAMETER:
            per_replica = "_per_replica" if target.sharing is Sharing.REPLICA else ""
            extent = f", {target.n}" if per_replica else ""
            return [f"into_parameter{per_replica}<Y>(topology, s.threads, f, {pointer}{extent}, {add});"]
        unit = "post" if kernel.into is Into.POST else "pre"
        value = f"Y::rep({pointer}, {target.n}, {unit}, block) + acc" if kernel.add else "acc"
        if kernel.into is Into.POST:
            maximum = "true" if kernel.reduce is Reduce.MAX else "false"

            def gather(of_synapse: str) -> str:
                return f"gather<Y, {maximum}>(topology, s.threads, block, {of_synapse}, store);"

            collect = gather("f")
            if clean:
                idle = " && ".join(f"{_factor(a)} == 0" for a in sorted(kernel.perturbations()))
                collect = f"if ({idle}) {gather('clean')} else {collect}"
            if transformed is not None:
                whole = f"Winograd<{kernel.topology.cpp_type()}>"
                weights = f"s.held[slot + {transformed}] + Y::member(block) * {whole}::n_weights"
                fewer = f"{whole}::gather<V>(s.threads, Index(block), {weights}, value, store);"
                collect = f"if constexpr (!std::is_same<std::decay_t<decltype(block)>, Few>::value) {fewer} else {collect}"
            return [*self._store(step, target, value), collect]
        store = f"[&](Index {unit}, Index block, V acc) {LAMBDA} {{ Y::put({pointer}, {target.n}, {unit}, block, {value}); }}"
        if kernel.winner:
            if "Pool2d" not in kernel.topology.cpp_type():
                raise BuildError(f"{kernel.name}: the gradient of a maximum is available for pooling only")
            loads = " ".join(self._operands(kernel, names(kernel.winner), "V"))
            value = f"[&](Index pre, Index block) {LAMBDA} {{ {loads} return V({cpp_expression(kernel.winner)}); }}"
            return [f"topology.template to_pre_first_winner<V>(s.threads, Y::NB, {value}, f, {store});"]
        return [f"topology.template to_pre<V>(s.threads, Y::NB, f, {store});"]

    def _store(self, step: Step, target: Array, value: str) -> list[str]:
        """What becomes of a finished sum: it is stored, and the equation that reads it follows at once where one does."""
        pointer = _pointer(target)
        uniforms, inside = [], []
        test = f"if ({pointer}) " if isinstance(step, Fused) else ""
        inside.append(f"{test}Y::put({pointer}, {target.n}, post, block, {value});")
        if isinstance(step, Fused):
            kernel = step.finish.kernel
            statements, uniforms = self._hoisted(kernel)
            needed = self._needed(kernel, statements)
            sums = {n for n, o in kernel.operands.items() if isinstance(o, Read) and _pointer(o.array) == pointer}
            inside += [f"V {name} = acc;" for name in sorted(sums & needed)]
            inside += self._operands(kernel, needed - sums, "V") + self._statements(kernel, statements, "V")
            inside += [f"Y::put({_pointer(a)}, {a.n}, u, block, V({n}));" for n, a in kernel.writes.items()]
        return [
            "const auto store = [&] {",
            *(f"  {line}" for line in uniforms),
            f"  return [=, &s](auto post, auto block, auto acc) {LAMBDA} {{",
            "    using V = decltype(acc); const auto u = post; (void)u; (void)s;",
            *(f"    {line}" for line in inside),
            "  };",
            "}();",
        ]

    # Other loops

    def _fold(self, kernel: Fold) -> list[str]:
        statements, lines = self._hoisted(kernel)
        loads = " ".join(self._operands(kernel, self._needed(kernel, statements), "V"))
        target = kernel.writes["target"]
        per_replica = "true" if target.sharing is Sharing.REPLICA else "false"
        channels = kernel.n // kernel.positions
        return [
            *lines,
            f"fold<Y>({channels}, {kernel.positions}, s.threads, [&](Index u, Index block) {{",
            f"  {loads} return V({cpp_expression(statements[0][1])});",
            f"}}, {_pointer(target)}, {'true' if kernel.add else 'false'}, {per_replica});",
        ]

    def _reduction(self, kernel: Reduction) -> list[str]:
        statements, lines = self._hoisted(kernel)
        loads = " ".join(self._operands(kernel, self._needed(kernel, statements), "D"))
        return [
            *lines,
            f"reduce<Y, mgd::Reduce::{kernel.operation}>({kernel.n}, block, [&](Index u, Index block) {{",
            f"  (void)u; {loads} return D({cpp_expression(statements[0][1])});",
            f"}}, {_pointer(kernel.writes['result'])});",
        ]

    @staticmethod
    def _member_mean(kernel: MemberMean) -> list[str]:
        (operand,) = kernel.operands.values()
        return [f"member_mean<Y>({_pointer(operand.array)}, {_pointer(kernel.writes['result'])});"]

    def _sample(self, kernel: Sample) -> list[str]:
        site = self.sites["sample"]
        count = (
            f"static_cast<std::uint64_t>(s.n_p / static_cast<std::int64_t>(s.p[{self.parameter_index['period_x']}]))"
        )
        choose = {
            "random": f"integer(s.lane_keys[{site} * Y::L + r], s.lane_replica[r] % {self.layout.batch}, 0, count, n)",
            "sequential": "(count * Y::B + b) % n",
            "shuffle": f"permutation(s.lane_keys[{site} * Y::L + r], (count * Y::B + b) % n, n, (count * Y::B + b) / n)",
        }[kernel.sampling]
        lines = [
            "if (!s.n_samples) return;",
            f"const std::uint64_t count = {count}, n = static_cast<std::uint64_t>(s.n_samples);",
            "Index chosen[Y::L];",
            "for (Index r = 0; r < Y::L; ++r) {",
            "  const std::uint64_t b = s.lane_replica[r] % Y::B; (void)b;",
            f"  chosen[r] = static_cast<Index>({choose});",
            "}",
        ]
        for array, expression, operands in kernel.inputs:
            read = "s.x_bytes ? T(s.x_bytes[k]) * T(s.x_scale) : T(s.x_floats[k]) * T(s.x_scale)"
            lines += self._present(
                array, expression, operands, f"const Index k = chosen[r] * s.n_inputs + u; x_lanes[l] = {read};"
            )
        if kernel.labels.name in self.arrays:
            lines += [
                "if (s.n_targets == 1) for (Index block = 0; block < Y::NB; ++block)",
                "  for (Index l = 0; l < Y::width(block); ++l)",
                f"    {_pointer(kernel.labels)}[Y::start(1, block) + l] = s.y_values[chosen[block * Y::W + l]];",
            ]
        for array, expression, operands, is_label in kernel.of_target:
            element = "" if is_label else " * s.n_targets + u"
            lines += self._present(array, expression, operands, f"x_lanes[l] = T(s.y_values[chosen[r]{element}]);")
        return lines

    def _present(self, array: Array, expression: str, operands: Mapping, read: str) -> list[str]:
        inner = Kernel("present", (), {k: o for k, o in operands.items() if not isinstance(o, Read)}, {})
        needed = names(expression)
        loads = self._operands(inner, needed, "V")
        xs = [f"const V {k} = V::load(x_lanes);" for k, o in operands.items() if isinstance(o, Read) and k in needed]
        return [
            "{",
            *(f"  {line}" for line in self._uniforms(inner, needed)),
            f"  parallel_for(s.threads, {array.n}, {array.n} * double(Y::R) * 4, [&](Index u) {{",
            "    for (Index block = 0; block < Y::NB; ++block) {",
            "      T x_lanes[Y::W];",
            f"      for (int l = 0; l < Y::W; ++l) {{ const Index r = block * Y::W + l; {read} }}",
            f"      {' '.join([*loads, *xs])}",
            f"      Y::put({_pointer(array)}, {array.n}, u, block, V({cpp_expression(expression)}));",
            "    }",
            "  });",
            "}",
        ]


def _void(name: str, lines: Iterable[str]) -> str:
    """A function of a session."""
    return "".join([f"static void {name}(Session& s) {{\n  (void)s;\n", *(f"  {line}\n" for line in lines), "}\n\n"])


def _inactive(*together: Step) -> set[str]:
    """Perturbations that steps read as such alone and with the factor zero."""
    plain: set[str] = set()
    for step in together:
        reads = [o for o in step.kernel.operands.values() if isinstance(o, Read)]
        plain |= {o.array.name for o in reads if not o.amplitude or o.array.name in step.active}
        plain |= {a.name for a in step.kernel.writes.values()}
    return {name for step in together for name in step.kernel.perturbations()} - plain


def _key(step: Step) -> tuple:
    """Steps with the same key are calls of one function."""
    return (id(step.kernel), id(step.finish.kernel)) if isinstance(step, Fused) else (id(step.kernel),)


def _parameters(text: str) -> str:
    """The parameter list a function's text starts with."""
    return text.partition(") {")[0]


def _pointer(array: Array) -> str:
    return f"p_{_safe(array.name)}"


def _factor(name: str) -> str:
    return f"factor_{_safe(name)}"


def _safe(name: str) -> str:
    made = identifier(name)
    return "".join(c if c.isalnum() or c == "_" else "_" for c in made)
