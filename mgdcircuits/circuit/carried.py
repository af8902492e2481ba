"""What a program carries from one iteration to the next; everything else it computes anew before it reads it."""

from __future__ import annotations

from collections.abc import Iterable

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
    MemberMean,
    Node,
    Program,
    Reduction,
    Sample,
    Step,
    Ticks,
)

KNOWN = (Elements, Couple, Fold, Reduction, MemberMean, Sample)


def carried(program: Program) -> tuple[Array, ...]:
    """The arrays that an iteration or an evaluation may read before it has written all of them.

    With their values, the counters and the parameters a run goes on to the bit, whatever the other arrays hold. Programs
    with kernels whose loops are not known here (deliveries of spikes) carry everything.
    """
    try:
        exposed = _exposed(program.iteration, set()) | _exposed(program.evaluate, set())
    except NotImplementedError:
        return program.arrays
    return tuple(a for a in program.arrays if a.name in exposed)


def _exposed(nodes: Iterable[Node], written: set[str]) -> set[str]:
    """Names that are read before they are in `written`, to which whatever the nodes certainly write is added."""
    exposed: set[str] = set()
    for node in nodes:
        match node:
            case Step():
                exposed |= _reads(node) - written
                written |= _writes(node)
            case Copy(source, target):
                exposed |= {source} - written
                written.add(target)
            case Clear(target):
                written.add(target)
            case Ticks(_, body):
                exposed |= _exposed(body, written)
            case Every(_, _, body) | Between(_, _, body):
                exposed |= _exposed(body, set(written))  # may be left out
            case Count():
                pass
            case _:
                raise NotImplementedError(type(node).__name__)
    return exposed


def _reads(step: Step) -> set[str]:
    kernel = step.kernel
    if not isinstance(kernel, KNOWN):
        raise NotImplementedError(type(kernel).__name__)
    names = kernel.reads()  # perturbations that are not active too: a target may multiply them by zero
    if isinstance(kernel, Couple | Fold) and kernel.add:
        names |= {a.name for a in kernel.writes.values()}
    return {step.rename.get(n, n) for n in names}


def _writes(step: Step) -> set[str]:
    """Arrays that hold nothing of their old values afterwards; samples are not always presented."""
    if isinstance(step.kernel, Sample):
        return set()
    return {step.rename.get(a.name, a.name) for a in step.kernel.writes.values()}
