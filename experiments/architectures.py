"""Weight against node perturbation on dense, sparse, convolutional, recurrent, stepping and spiking circuits.

python experiments/architectures.py --quick
python experiments/architectures.py --full --out experiments/results

Where the circuit has a gradient, the noise K_eff of both rules at the initial parameters is measured and predicted. Then both
are trained to a goal; the learning rate (and for steps and spikes the size of the perturbation) is the best of a grid on half
of the seeds, and the other half is reported. Circuits: architectures/*.yaml. Cases that are done are kept, the same command
goes on with the others.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np
import xarray as xr

import mgdcircuits as mgd
from common import study
from common.architectures_cases import RULES, SIZES, Case
from common.architectures_figure import draw
from common.architectures_noise import convergence
from common.architectures_times import ratio_interval, tuned
from mgdcircuits import cli


def score(case: Case, session: mgd.Session) -> Callable[[int], np.ndarray]:
    """Runs some iterations; then the accuracy of each member on the test set, or its mean reward since."""
    if case.family == "spiking":
        return lambda n: np.mean([_reward(session) for _ in range(n)], axis=0)
    data = mgd.datasets.load("xor" if case.family == "sequence" else "digits")

    def accuracy(n: int) -> np.ndarray:
        session.step(n)
        return session.evaluate(data.x_test, data.y_test, data.scale).accuracy.mean(1)

    return accuracy


def _reward(session: mgd.Session) -> np.ndarray:
    session.step(1)
    return session.view("R").ravel()


def train(case: Case, rule: str, point: Mapping[str, float], seeds: list[int]) -> np.ndarray:
    """Iterations of each member until its score is at least the goal; infinite where it is not in time."""
    point = dict(point)
    if size := point.pop("size", 0):
        point |= {"sigp": f"{2 * size}*nS"} if rule == "node" else {"sigw": f"{0.2 * size}*nS"}
    data = None if case.family == "spiking" else "xor" if case.family == "sequence" else "digits"
    session = case.session(case.circuit(rule, **point), seeds, data=data)
    run, reached = score(case, session), np.full(len(seeds), np.inf)
    with np.errstate(all="ignore"):
        while session.iteration < case.limit and np.isinf(reached).any():
            values = run(20 if case.trials else max(10, session.iteration // 20))
            reached[(values >= case.goal) & np.isinf(reached)] = session.iteration
            finite = [np.isfinite(v.reshape(len(seeds), -1)).all(1) for v in session.parameters.values()]
            if not (np.all(finite, axis=0) & np.isinf(reached)).any():
                break
    return np.where(reached <= case.limit, reached, np.inf)


def run(case: Case, rule: str, seeds: list[int]) -> xr.Dataset:
    """All of a case under a rule."""
    begun = time.monotonic()
    circuit = case.circuit(rule)
    steps = int(circuit.spec.parameters["steps"]) if case.family == "sequence" else 1
    values: dict[str, tuple] = {
        "n_parameters": ((), circuit.n_parameters),
        "n_nodes": ((), _nodes(case, circuit, steps)),
        "limit": ((), case.limit),
        "goal": ((), case.goal),
    }
    if case.draws:
        values |= convergence(case, rule, seeds)
    if case.limit:
        found = [train(case, rule, point, seeds) for point in case.points]
        values["iterations"] = (("point", "seed"), np.stack(found))
        values |= {name: (("point",), np.array([p[name] for p in case.points])) for name in case.grid}
    values["seconds"] = ((), time.monotonic() - begun)
    coordinates = {"case": str(case), "rule": rule, "seed": seeds}
    found = xr.Dataset(values, coordinates)
    return found.assign_coords({name: np.arange(found.sizes[name]) for name in ("point", "row") if name in found.sizes})


def part(case: Case, rule: str, seeds: list[int], options: study.Options) -> xr.Dataset:
    """The case under a rule, from its file if it is done."""
    name = re.sub(r"\W+", "_", f"architectures_{options.size}_{case}_{rule}")
    made_with = [study.facts_of(case.circuit(rule)), asdict(case), seeds]
    return study.kept_part(name, made_with, options, lambda: run(case, rule, seeds))


def _nodes(case: Case, circuit: mgd.Circuit, steps: int) -> int:
    """Nodes that a draw perturbs: at every position of a map, and at every step of a sequence."""
    if case.family == "sequence":
        return circuit.populations["net"].n * steps + 1
    if case.family == "spiking":
        return circuit.populations["lif"].n * 20  # bins of 5 ms in a trial of 100 ms
    return circuit.n_nodes


def report(found: xr.Dataset) -> str:
    """A table: predicted K_eff times measured over predicted, iterations at the best point, and their ratio."""
    lines = [
        f"{'':27}{'N':>5}{'nodes':>6}{'K_eff: weight':>16}{'node':>16}{'iterations: weight':>30}{'node':>30}{'ratio':>20}"
    ]
    for case in found["case"].values:
        pair = [found.sel(case=case, rule=rule) for rule in RULES]
        noise = "".join(f"{_noise(one):>16}" for one in pair)
        times = "".join(f"{_time(one):>30}" for one in pair)
        lines.append(
            f"{case:27}{int(pair[0]['n_parameters']):5}{int(pair[0]['n_nodes']):6}{noise}{times}{_ratio(pair):>20}"
        )
    return "\n".join(lines)


def _noise(one: xr.Dataset) -> str:
    if not bool(one["k_eff"].notnull().any()):
        return "-"
    return (
        f"{float(one['predicted_k_eff'].median()):,.1f} x {float((one['k_eff'] / one['predicted_k_eff']).mean()):.2f}"
    )


def _time(one: xr.Dataset) -> str:
    if not bool(one["iterations"].notnull().any()):
        return "-"
    best, values = tuned(one)
    if np.isinf(values).all():
        return f"none in {int(one['limit']):,}"
    at = [f"{n} {float(one[n][best]):g}" for n in ("eta", "delta", "size") if n in one and bool(one[n][best].notnull())]
    return f"{study.median(values):,.0f} ({', '.join(at)})"


def _ratio(pair: list[xr.Dataset]) -> str:
    if not all(bool(one["iterations"].notnull().any()) for one in pair):
        return "-"
    weights, nodes = (tuned(one)[1] for one in pair)
    if np.isinf(weights).all() or np.isinf(nodes).all():
        return "-"
    ratio, low, high = ratio_interval(weights, nodes)
    return f"{ratio:.2g} ({low:.2g} to {high:.2g})"


@study.command
def main(options: study.Options) -> None:
    """Noise and training time of weight and node perturbation on many kinds of circuits."""
    cases, members = SIZES[options.size]
    seeds = list(range(options.seed, options.seed + members))
    how = {"join": "outer", "data_vars": "all", "coords": "minimal", "compat": "override"}
    found = []
    for case in cases:
        pair = []
        for rule in RULES:
            pair.append(part(case, rule, seeds, options))
            print(f"{case}, {rule}: {float(pair[-1]['seconds']):.0f} s", flush=True)
        found.append(xr.concat(pair, "rule", **how))
    joined = xr.concat(found, "case", **how)
    joined = joined.assign_coords(case=list(map(str, cases)), family=("case", [case.family for case in cases]))
    joined.attrs["seconds"] = float(joined["seconds"].sum())  # those of earlier calls count too
    path = study.keep(joined, "architectures", cases[0].circuit("weight").spec, options)
    draw(joined, path.with_suffix(".png"))
    print(report(joined))


if __name__ == "__main__":
    sys.exit(cli.run(main))
