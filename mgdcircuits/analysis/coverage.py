"""Whether the law of `analysis.theory` is that of a circuit's rule: independent codes of one law, and estimates dC*theta."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgdcircuits.analysis.moments import Law
from mgdcircuits.circuit.circuit import Coupling
from mgdcircuits.circuit.program import Random, Read, steps
from mgdcircuits.codegen.evaluating import evaluate
from mgdcircuits.errors import RunError
from mgdcircuits.netlist import units
from mgdcircuits.netlist.evaluation import compute
from mgdcircuits.netlist.functions import CONSTANTS, FUNCTIONS
from mgdcircuits.netlist.spec import LearningSpec, Perturb, Sharing, Site
from mgdcircuits.netlist.syntax import ExpressionError, UnknownName, names, parse
from mgdcircuits.session import Session

EQUAL = 1e-3
"""How much amplitudes of one block, or scales of estimates, may differ."""
MOMENT = 0.05
"""How much the moments of a code, which are sums over a grid, may differ from those of a law."""


@dataclass(frozen=True)
class Code:
    """What the expression of a code draws: mean square, mean over its root, and kurtosis."""

    power: float
    mean: float
    kurtosis: float


def values_of(session: Session, perturb: Perturb, block: int) -> dict[str, float]:
    """The numbers that expressions of a block may read."""
    elements = sum(session.circuit.variables[name][2].n for name in perturb.blocks[block])
    return {**session.program.parameters, "K": float(elements)}


# Codes


def code(expression: str, values: Mapping[str, float]) -> Code:
    """The moments of a code, by summing over what its random functions may give.

    Raises
    ------
    RunError
        A code that is not random, or depends on the draw, the element, or something that runs.
    """
    return _code(expression, frozenset(values.items()))


@functools.lru_cache(maxsize=1024)
def _code(expression: str, items: frozenset[tuple[str, float]]) -> Code:
    values, tree, calls = dict(items), parse(expression), _RandomCalls()
    tree = calls.visit(tree)
    if not calls.grids:
        raise RunError(f"the code `{expression}` is not random; `analysis.codes` draws such codes")
    points, weights = _product(list(calls.grids.values()), expression)
    read = names(expression)
    known = {**CONSTANTS, **{name: unit.value for name in read if (unit := units.lookup(name)) is not None}, **values}
    if others := sorted(read - known.keys()):
        raise RunError(f"draws of the code `{expression}` are not independent: it reads `{others[0]}`")
    found = evaluate(ast.unparse(tree), {**known, **dict(zip(calls.grids, points, strict=True))})
    mean, power, fourth = (float(weights @ np.broadcast_to(found, weights.shape) ** k) for k in (1, 2, 4))
    if power == 0:
        raise RunError(f"the code `{expression}` is 0")
    return Code(power, mean / np.sqrt(power), fourth / power**2)


class _RandomCalls(ast.NodeTransformer):
    """Puts names in the place of random functions."""

    def __init__(self) -> None:
        self.grids: dict[str, str] = {}

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        assert isinstance(node.func, ast.Name)
        function = FUNCTIONS.get(node.func.id)
        if function is None or not function.is_random:
            return node
        kind = node.func.id.partition("_")[0]
        if kind not in GRIDS:
            raise RunError(f"codes with {node.func.id}() are not covered; the theory knows bit(), rand() and randn()")
        name = f"_{len(self.grids)}"
        self.grids[name] = kind
        return ast.copy_location(ast.Name(name, ast.Load()), node)


def _midpoints(n: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)


def _normal(n: int) -> tuple[np.ndarray, np.ndarray]:
    points, weights = np.polynomial.hermite_e.hermegauss(16)
    return points, weights / weights.sum()


GRIDS = {
    "bit": (2, lambda n: (np.array([0.0, 1.0]), np.array([0.5, 0.5]))),
    "rand": (None, _midpoints),
    "randn": (16, _normal),
}
"""Of a random function how many values are looked at (None: as there is room for), and these with their probabilities."""
ROOM = 2**18
"""Combinations of values of random functions that are looked at."""


def _product(kinds: Sequence[str], expression: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Values of several random functions in all combinations, and the probability of each."""
    fixed = math.prod(GRIDS[kind][0] or 1 for kind in kinds)
    free = sum(GRIDS[kind][0] is None for kind in kinds)
    n = int((ROOM / fixed) ** (1 / free)) if free else 1
    if fixed > ROOM or (free and n < 256):
        raise RunError(f"the code `{expression}` has too many random functions for this theory")
    grids = [GRIDS[kind][1](n) for kind in kinds]
    points = np.meshgrid(*(values for values, _ in grids), indexing="ij")
    weights = functools.reduce(np.multiply.outer, (probabilities for _, probabilities in grids))
    return [one.ravel() for one in points], weights.ravel()


def check_codes(session: Session, system: LearningSpec, law: Law) -> set[int]:
    """Blocks whose codes differ from sample to sample.

    Raises
    ------
    RunError
        Codes that are not independent draws of the law, or of different amplitudes in one block.
    """
    assert system.perturb is not None
    if not law.has_no_mean:
        raise RunError(f"{law.name} has the mean {law.moments[1]}: the estimate would be biased")
    own_codes = set()
    for block, driven in enumerate(system.perturb.blocks):
        values = values_of(session, system.perturb, block)
        powers = {}
        for name in driven:
            found = code(system.perturb.codes[name], values)
            if abs(found.mean) > MOMENT or abs(found.kurtosis / float(law.kurtosis) - 1) > MOMENT:
                raise RunError(
                    f"{name} is driven by `{system.perturb.codes[name]}`, of mean {found.mean:.2g} times its root mean "
                    f"square and kurtosis {found.kurtosis:.3g}; the law {law.name} has 0 and {float(law.kurtosis):.3g}: "
                    "give predict(session, law) the law of the code (`analysis.moments`)"
                )
            powers[name] = found.power
        if max(powers.values()) > (1 + EQUAL) * min(powers.values()):
            sizes = ", ".join(f"{name} {np.sqrt(power):.3g}" for name, power in powers.items())
            raise RunError(
                f"the perturbations of a block are of different sizes ({sizes}), which this theory does not cover"
            )
        sharing = {session.circuit.variables[name][1].sharing for name in driven}
        if Sharing.REPLICA in sharing and session.batch > 1:
            if len(sharing) > 1:
                raise RunError(f"{', '.join(driven)}: some are per sample and some are not")
            own_codes.add(block)
    return own_codes


# Estimates


def check_estimates(session: Session, system: LearningSpec) -> dict[str, float]:
    """The sign of each parameter's estimate: 1 for dC*theta, -1 for its opposite.

    Costs are those of small perturbations, C + factor*S for a pass; the estimate must be S*theta (times x_pre) times one
    number for all parameters.

    Raises
    ------
    RunError
        Another estimate, one that is not accumulated as a mean or a sum, or a cost that is measured with noise.
    """
    assert system.perturb is not None
    noise = session.circuit.spec.hardware.measurement.get("noise", "0")
    try:
        silent = compute(parse(noise), session.program.parameters) == 0
    except ExpressionError:  # it is drawn, or changes
        silent = False
    if not silent:
        raise RunError(f"{session.circuit.name}: its cost is measured with noise, which this theory does not know of")
    _check_noise(session)
    scales = {}
    for site in system.sites:
        values = values_of(session, system.perturb, site.block)
        scales[site.parameter] = _weight(site, values) * _scale(session, system, site, values)
    sizes = [abs(scale) for scale in scales.values()]
    if max(sizes) > (1 + EQUAL) * min(sizes):
        each = ", ".join(f"{name} {scale:.3g}" for name, scale in scales.items())
        raise RunError(f"the estimates are not the gradient times one number: {each}")
    return {name: float(np.sign(scale)) for name, scale in scales.items()}


def _check_noise(session: Session) -> None:
    """Refuse random numbers that an evaluation draws for the cost; those of devices are drawn once."""
    needed = {"cost"}
    for step in reversed(list(steps(session.program.evaluate))):
        written = {step.rename.get(array.name, array.name) for array in step.kernel.writes.values()}
        if not written & needed:
            continue
        for operand in step.kernel.operands.values():
            if isinstance(operand, Random):
                noisy = ", ".join(sorted(written))
                raise RunError(
                    f"{noisy} is noisy ({operand.function}() in its equation), which this theory does not know of"
                )
            if isinstance(operand, Read):
                needed.add(step.rename.get(operand.array.name, operand.array.name))


def _weight(site: Site, values: Mapping[str, float]) -> float:
    """By what estimates are multiplied where they are added up; 1 where `accumulate` is their mean."""

    def accumulated(total: float, estimate: float, count: float) -> float:
        return compute(parse(site.accumulate), {**values, "G": total, "estimate": estimate, "n_G": count})

    try:
        mean = [accumulated(0.7, 0.3, n) - (0.7 + (0.3 - 0.7) / n) for n in (2.0, 5.0)]
        weight = accumulated(0.7, 0.3, 5.0) - 0.7
        total = [accumulated(g, e, n) - g - weight * e / 0.3 for g, e, n in ((0.4, 0.3, 5.0), (0.7, 0.6, 2.0))]
    except ExpressionError:
        mean = total = [np.nan]
        weight = np.nan
    if np.allclose(mean, 0):
        return 1.0
    if np.allclose(total, 0) and weight != 0:
        return weight / 0.3
    raise RunError(
        f"{site.parameter}: `accumulate: {site.accumulate}` is neither the mean nor the sum of the estimates"
    )


def _scale(session: Session, system: LearningSpec, site: Site, values: Mapping[str, float]) -> float:
    """Mean of the estimate over the gradient: its coefficient of S*theta times the mean square of theta."""
    assert system.perturb is not None
    circuit = session.circuit
    owner, variable, _ = circuit.variables[site.parameter]
    post = owner.post if isinstance(owner, Coupling) else owner
    driven = system.perturb.blocks[site.block]
    source = site.theta or next((n for n in driven if circuit.variables[n][0] is post), None)
    if source is None:
        raise RunError(f"{site.parameter}: no perturbation of its own or of the neurons that it enters is driven")
    theta = source.rpartition(".")[2]
    words = names(site.estimate).union(*(names(each.expression) for each in system.signals))
    inputs = {word for word in words if word.partition(".")[0].endswith("_pre")} if site.theta is None else set()
    cost = circuit.spec.cost.name if circuit.spec.cost else ""
    values = {**values, "scale": variable.scale or 1.0}

    def estimate(base: float, change: float, drawn: float, x: float) -> float:
        known = {**values, **dict.fromkeys(inputs, x), **dict.fromkeys(("theta", theta, f"{theta}_post"), drawn)}
        known |= {f"{cost}.{name}": base + factor * change for name, factor in system.passes}
        if len(system.passes) == 1:
            known[cost] = base + system.passes[0][1] * change
        for signal in system.signals:
            known[signal.name] = compute(parse(signal.expression), known)
        return compute(parse(site.estimate), known)

    problem = ""
    try:
        found = estimate(0.3, 0.02, 0.5, 0.7)
        expected = {(1.1, 0.02, 0.5, 0.7): found}
        for k in (-1.0, 2.0):
            expected |= {(0.3, 0.02 * k, 0.5, 0.7): k * found, (0.3, 0.02, 0.5 * k, 0.7): k * found}
            expected |= {(0.3, 0.02, 0.5, 0.7 * k): k * found} if inputs else {}
        covered = found != 0 and all(np.isclose(estimate(*at), value, rtol=1e-6) for at, value in expected.items())
    except UnknownName as unknown:
        covered, problem = False, f": it reads `{unknown.name}`"
    except ExpressionError as error:
        covered, problem = False, f": {error.message}"
    if not covered:
        raise RunError(
            f"{site.parameter}: the theory does not cover the estimate `{site.estimate}`{problem}; expected the change of "
            "the cost times theta, or times theta_post*x_pre"
        )
    return found / (0.02 * 0.5 * (0.7 if inputs else 1)) * code(system.perturb.codes[source], values).power
