"""Estimates that take turns with the updates that read them."""

from __future__ import annotations

import pytest

import mgdcircuits as mgd
from mgdcircuits.circuit import builder
from mgdcircuits.circuit.program import Copy, Count, Every, Random, Step
from mgdcircuits.codegen.merge import Due, Merged, merge

MLP = "fashion_mnist_mlp.yaml"


@pytest.fixture
def nodes(netlists) -> list:
    return list(builder.build(mgd.load(netlists / MLP))[0].iteration)


def estimate(nodes: list, name: str) -> int:
    """The place of the step that forms an estimate."""
    (place,) = (k for k, n in enumerate(nodes) if isinstance(n, Step) and n.kernel.name.endswith(f"{name}/accumulate"))
    return place


def test_an_estimate_waits_for_its_update(nodes) -> None:
    (due,) = (n for n in merge(nodes) if isinstance(n, Due))
    (every,) = (n for n in nodes if isinstance(n, Every) and n.period == due.period)
    assert all(isinstance(step.kernel, Merged) for step in due.body)
    assert [step.kernel.parts[1] for step in due.body] == [step.kernel for step in every.body]
    assert [step.kernel.parts[0] for step in due.body] == [step.kernel for step in due.otherwise]
    assert len(merge(nodes)) == len(nodes) - len(every.body)


@pytest.mark.parametrize("between", [Copy("hidden.w:G", "other"), Copy("other", "hidden.theta_w"), Count("n_p")])
def test_an_estimate_that_something_else_needs_stays(nodes, between) -> None:
    place = estimate(nodes, "hidden.w")
    found = merge([*nodes[: place + 1], between, *nodes[place + 1 :]])
    kept = found[estimate(found, "hidden.w")]
    assert kept is nodes[place] and found.index(between) > found.index(kept)


def test_an_update_that_draws_runs_by_itself(netlists) -> None:
    program, _ = builder.build(mgd.load(netlists / "crossbar_rram.yaml"))
    dues = [node for node in merge(program.iteration) if isinstance(node, Due)]
    drawing = [s for d in dues for s in d.body if any(isinstance(o, Random) for o in s.kernel.operands.values())]
    assert drawing and not any(isinstance(step.kernel, Merged) for step in drawing)
