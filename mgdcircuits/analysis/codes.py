"""Codes as mgdcircuits draws them, and what the estimate becomes with them: Monte Carlo for codes that are not independent.

The law of independent draws does not hold for sequential, Walsh and sinusoidal codes. Here the circuit's own program draws
the codes, and the cost changes by slope*code, as for small perturbations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgdcircuits.circuit import builder
from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.circuit.program import Count, Step
from mgdcircuits.codegen.numpy_target import NumpyTarget
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.spec import Sharing


def drawn(circuit: Circuit, n: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """The codes of the first n iterations, (n, elements), by the name of the perturbation; one entry a block.

    Raises
    ------
    RunError
        A circuit without one learning system that perturbs, or whose codes read units of the circuit or differ from sample to
        sample; less than one iteration.
    """
    if n < 1:
        raise RunError(f"codes of {n} iterations; expected 1 or more")
    perturbed = [system.perturb for system in circuit.spec.learning if system.perturb is not None]
    if len(perturbed) != 1:
        raise RunError(f"{circuit.name} has {len(perturbed)} learning systems that perturb; expected one")
    blocks = perturbed[0].blocks
    arrays = {circuit.variables[name][2].name: name for block in blocks for name in block}
    if own := [name for name in arrays.values() if circuit.variables[name][1].sharing is Sharing.REPLICA]:
        raise RunError(f"{', '.join(own)}: codes of each sample are not drawn by themselves")
    program, clocks = builder.build(circuit)
    draws = [node for node in program.iteration if isinstance(node, Step) and _written(node) & arrays.keys()]
    outside = {name for step in draws for name in step.kernel.reads()} - arrays.keys()
    if outside:
        raise RunError(f"{circuit.name}: codes that read {', '.join(sorted(outside))} cannot be drawn by themselves")
    alone = replace(program, iteration=(*draws, Count("n_p")))
    target = NumpyTarget(alone, clocks, [seed], 1, np.dtype(np.float64), 1, ("iteration",))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in arrays.values()}
    for _ in range(n):
        target.run("iteration")
        for array, name in arrays.items():
            rows[name].append(target.array(array)[:, 0, 0].copy())
    return [{name: np.array(rows[name]) for name in block} for block in blocks]


def _written(step: Step) -> set[str]:
    return {array.name for array in step.kernel.writes.values()}


@dataclass(frozen=True)
class Simulated:
    """An estimate that was accumulated with given codes.

    Attributes
    ----------
    cosine
        After each of `counts` draws, the whole network.
    norm_ratio
        |G|/|gradient|, if a draw is divided by the mean square of its code over all draws and elements.
    """

    counts: np.ndarray
    cosine: np.ndarray
    norm_ratio: np.ndarray


def simulate(blocks: Sequence[tuple[np.ndarray, np.ndarray]], counts: Sequence[int]) -> Simulated:
    """Accumulate (slope.code)*code over draws, block by block.

    Parameters
    ----------
    blocks
        (slopes, codes) of each block that is perturbed by itself: (elements,) and (draws, elements).
    counts
        After how many draws to compare with the slopes.

    Raises
    ------
    ValueError
        No blocks or counts, counts beyond the draws, or codes that do not fit the slopes.
    """
    after = np.asarray(counts, int)
    if not len(blocks) or not after.size or after.min() < 1:
        raise ValueError(f"{len(blocks)} blocks, compared after {list(counts)} draws; expected some, after 1 or more")
    dot, length, square = np.zeros(len(after)), np.zeros(len(after)), 0.0
    for slopes, codes in blocks:
        g, codes = np.asarray(slopes, np.float64), np.asarray(codes, np.float64)
        if codes.ndim != 2 or g.shape != codes.shape[1:]:
            raise ValueError(
                f"slopes of the shape {g.shape} and codes of {codes.shape}; expected (elements,) and (draws, elements)"
            )
        if after.max() > len(codes):
            raise ValueError(f"{after.max()} draws of codes are asked for and {len(codes)} are given")
        estimates = np.cumsum((codes @ g)[:, None] * codes, axis=0)[after - 1] / after[:, None] / (codes**2).mean()
        dot += estimates @ g
        length += (estimates**2).sum(1)
        square += float(g @ g)
    return Simulated(after, dot / np.sqrt(length * square), np.sqrt(length / square))


def joined(of_variables: Mapping[str, np.ndarray]) -> np.ndarray:
    """The variables of a block side by side, in their order."""
    return np.concatenate([values.reshape(len(values), -1) for values in of_variables.values()], axis=1)
