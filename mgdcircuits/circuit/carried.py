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
    Read,
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
        names = exposed(program.iteration, set()) | exposed(program.evaluate, set())
    except NotImplementedError:
        return program.arrays
    return tuple(a for a in program.arrays if a.name in names)


def exposed(nodes: Iterable[Node], written: set[str]) -> set[str]:
    """Names that are read before they are in `written`, to which whatever the nodes certainly write is added.

    Raises
    ------
    NotImplementedError
        A kernel whose loop is not known here.
    """
    found: set[str] = set()
    for node in nodes:
        match node:
            case Step():
                found |= _read(node) - written
                written |= _written(node)
            case Copy(source, target):
                found |= {source} - written
                written.add(target)
            case Clear(target):
                written.add(target)
            case Ticks(_, body):
                found |= exposed(body, written)
            case Every(_, _, body) | Between(_, _, body):
                found |= exposed(body, set(written))  # may be left out
            case Count():
                pass
            case _:
                raise NotImplementedError(type(node).__name__)
    return found


def reads(nodes: Iterable[Node]) -> set[str]:
    """Names of all arrays that nodes may read."""
    found: set[str] = set()
    for node in nodes:
        match node:
            case Step():
                found |= _read(node)
            case Copy(source=source):
                found.add(source)
            case Ticks(body=body) | Every(body=body) | Between(body=body):
                found |= reads(body)
    return found


def writes(nodes: Iterable[Node]) -> set[str]:
    """Names of all arrays that nodes may change."""
    found: set[str] = set()
    for node in nodes:
        match node:
            case Step(kernel=Sample() as kernel):
                found |= {*kernel.presented, kernel.labels.name}
            case Step():
                found |= _written(node)
            case Copy(target=target) | Clear(target=target):
                found.add(target)
            case Ticks(body=body) | Every(body=body) | Between(body=body):
                found |= writes(body)
    return found


def _read(step: Step) -> set[str]:
    kernel = step.kernel
    if not isinstance(kernel, KNOWN):
        raise NotImplementedError(type(kernel).__name__)
    operands = [o for o in kernel.operands.values() if isinstance(o, Read)]
    # no target reads a perturbation that is not active
    names = {o.array.name for o in operands if not o.amplitude or o.array.name in step.active}
    if isinstance(kernel, Couple | Fold) and kernel.add:
        names |= {a.name for a in kernel.writes.values()}
    return {step.rename.get(n, n) for n in names}


def _written(step: Step) -> set[str]:
    """Arrays that hold nothing of their old values afterwards; samples are not always presented."""
    if isinstance(step.kernel, Sample):
        return set()
    return {step.rename.get(a.name, a.name) for a in step.kernel.writes.values()}
