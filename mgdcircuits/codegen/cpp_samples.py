"""Showing samples: which ones replicas see, and what becomes of their numbers."""

from __future__ import annotations

from collections.abc import Mapping

from mgdcircuits.circuit.program import Array, Kernel, Operand, Read, Sample
from mgdcircuits.codegen.cpp_arrays import Arrays, pointer
from mgdcircuits.codegen.cpp_operands import Operands
from mgdcircuits.codegen.rendering import cpp_expression, names


def sample(kernel: Sample, operands: Operands, arrays: Arrays, batch: int) -> list[str]:
    """Choose a sample for every replica; show its inputs, its label and its targets."""
    lines = _choose(kernel, operands, batch)
    for array, expression, words in kernel.inputs:
        read = "s.x_bytes ? T(s.x_bytes[k]) * T(s.x_scale) : T(s.x_floats[k]) * T(s.x_scale)"
        read = f"const Index k = chosen[r] * s.n_inputs + u; x_lanes[l] = {read};"
        lines += _present(array, expression, words, read, operands)
    if kernel.labels.name in arrays:
        lines += [
            "if (s.n_targets == 1) for (Index block = 0; block < Y::NB; ++block)",
            "  for (Index l = 0; l < Y::width(block); ++l)",
            f"    {pointer(kernel.labels)}[Y::start(1, block) + l] = s.y_values[chosen[block * Y::W + l]];",
        ]
    for array, expression, words, is_label in kernel.of_target:
        element = "" if is_label else " * s.n_targets + u"
        lines += _present(array, expression, words, f"x_lanes[l] = T(s.y_values[chosen[r]{element}]);", operands)
    return lines


def _choose(kernel: Sample, operands: Operands, batch: int) -> list[str]:
    """Which sample each replica sees."""
    keys = f"s.lane_keys[{operands.sites['sample']} * Y::L + r]"
    count = f"static_cast<std::uint64_t>(s.n_p / static_cast<std::int64_t>({operands.parameter('period_x')}))"
    choose = {
        "random": f"integer({keys}, s.lane_replica[r] % {batch}, 0, count, n)",
        "sequential": "(count * Y::B + b) % n",
        "shuffle": f"permutation({keys}, (count * Y::B + b) % n, n, (count * Y::B + b) / n)",
    }[kernel.sampling]
    return [
        "if (!s.n_samples) return;",
        f"const std::uint64_t count = {count}, n = static_cast<std::uint64_t>(s.n_samples);",
        "Index chosen[Y::L];",
        "for (Index r = 0; r < Y::L; ++r) {",
        "  const std::uint64_t b = s.lane_replica[r] % Y::B; (void)b;",
        f"  chosen[r] = static_cast<Index>({choose});",
        "}",
    ]


def _present(array: Array, expression: str, words: Mapping[str, Operand], read: str, operands: Operands) -> list[str]:
    """An expression of a sample's numbers, for every unit and replica; `read` puts a number in a lane."""
    others = Kernel("present", (), {k: o for k, o in words.items() if not isinstance(o, Read)}, {})
    used = names(expression)
    loads = operands.loads(others, used, "V")
    xs = [f"const V {k} = V::load(x_lanes);" for k, o in words.items() if isinstance(o, Read) and k in used]
    return [
        "{",
        *(f"  {line}" for line in operands.uniforms(others, used)),
        f"  parallel_for(s.threads, {array.n}, {array.n} * double(Y::R) * 4, [&](Index u) {{",
        "    for (Index block = 0; block < Y::NB; ++block) {",
        "      T x_lanes[Y::W];",
        f"      for (int l = 0; l < Y::W; ++l) {{ const Index r = block * Y::W + l; {read} }}",
        f"      {' '.join([*loads, *xs])}",
        f"      Y::put({pointer(array)}, {array.n}, u, block, V({cpp_expression(expression)}));",
        "    }",
        "  });",
        "}",
    ]
