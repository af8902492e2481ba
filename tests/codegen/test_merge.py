"""Estimates that take turns with the updates that read them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import mgdcircuits as mgd
from mgdcircuits.circuit import builder
from mgdcircuits.circuit.program import Copy, Count, Every, Index, Random, Scope, Step
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
    merged = [(k, step.kernel.parts) for k, step in enumerate(due.body) if isinstance(step.kernel, Merged)]
    assert [taker.name for _, (_, taker) in merged] == ["wp/hidden.w/update"]  # the other parameters are few
    assert [taker for _, (_, taker) in merged] == [every.body[k].kernel for k, _ in merged]
    assert [maker for _, (maker, _) in merged] == [step.kernel for step in due.otherwise]
    assert len(due.body) == len(every.body) and len(merge(nodes)) == len(nodes) - len(merged)


@pytest.mark.parametrize("between", [Copy("hidden.w:G", "other"), Copy("other", "hidden.theta_w"), Count("n_p")])
def test_an_estimate_that_something_else_needs_stays(nodes, between) -> None:
    place = estimate(nodes, "hidden.w")
    found = merge([*nodes[: place + 1], between, *nodes[place + 1 :]])
    kept = found[estimate(found, "hidden.w")]
    assert kept is nodes[place] and found.index(between) > found.index(kept)


def test_an_update_that_draws_runs_by_itself(nodes) -> None:
    noise = Random("randn", "noise", Scope.WRITE, Index.ELEMENT)
    place = next(k for k, n in enumerate(nodes) if isinstance(n, Every) and n.period != "period_x")
    kernels = [step.kernel for step in nodes[place].body]
    body = tuple(Step(replace(kernel, operands={**kernel.operands, "noise": noise})) for kernel in kernels)
    found = [*nodes[:place], replace(nodes[place], body=body), *nodes[place + 1 :]]
    assert any(isinstance(n, Due) for n in merge(nodes)) and merge(found) == found
