"""Weight against node perturbation on dense, sparse, convolutional, recurrent, stepping and spiking circuits.

python experiments/architectures.py --quick
python experiments/architectures.py --full --out experiments/results

Where the circuit has a gradient, the noise K_eff of both rules at the initial parameters is measured and predicted. Then both
are trained to a goal; the learning rate (and for steps and spikes the size of the perturbation) is the best of a grid on half
of the seeds, and the other half is reported. Circuits: architectures/*.yaml. Cases that are done are kept, the same command
goes on with the others.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import architectures_recurrent as recurrent
import numpy as np
import study
import xarray as xr
from architectures_figure import draw

import mgdcircuits as mgd
from mgdcircuits import cli, randomness
from mgdcircuits.analysis.convergence import Accumulated
from mgdcircuits.analysis.prediction import predict
from mgdcircuits.analysis.theory import node_perturbation, weight_perturbation

FOLDER = study.FOLDER / "architectures"
RULES = ("weight", "node")
ROWS = 20
NEVER = "1000000000*iteration"
SETTLE, MEMORY = 300, 30
"""Trials before the estimate of a sequence is looked at, and that its baseline remembers."""
ETAS = (0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Case:
    """A circuit, how long its noise is measured, and how long it is trained at the most."""

    family: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    knob: str = ""
    batch: int = 64
    draws: int = 0
    limit: int = 0
    goal: float = 0.8
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: {"eta": ETAS})
    target: str = "cpp"

    def __str__(self) -> str:
        return f"{self.family}{', ' if self.knob else ''}{self.knob}"

    def circuit(self, rule: str, **further: Any) -> mgd.Circuit:
        """Under a rule: by a file of its own, or by that of all."""
        settings = {**self.settings, **further}
        own = FOLDER / f"{self.family}_{rule}.yaml"
        if own.exists():
            return mgd.load(own, **settings)
        files = [FOLDER / f"{self.family}.yaml"]
        if self.family not in ("sequence", "spiking") and rule == "node":
            files.append(FOLDER / "node.yaml")
        text = f"include: [{', '.join(map(str, files))}]\ncircuit: {self.family}_{rule}\n"
        return mgd.load(text, **settings)

    def session(self, circuit: mgd.Circuit, seeds: list[int], **further: Any) -> mgd.Session:
        """Of all seeds; circuits with trials run in double precision, on numpy."""
        dtype = "float64" if self.trials else "float32"
        options = {"batch": self.batch, "target": self.target, "dtype": dtype, "on_nan": "continue", **further}
        return mgd.Session(circuit, seed=seeds, **options)

    @property
    def trials(self) -> bool:
        """Whether an iteration is a trial."""
        return self.family in ("sequence", "spiking")

    @property
    def points(self) -> list[dict[str, float]]:
        """Of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


STEPPING = {"eta": (0.001, 0.003, 0.01, 0.03), "delta": (0.3, 1.0, 3.0)}
SEQUENCE = {"eta": (0.0003, 0.001, 0.003, 0.01)}
SPIKING = {"eta": (0.01, 0.03, 0.1, 0.3), "size": (1.0, 3.0)}
SMALL_BATCH = {1: (0.0003, 0.001, 0.003, 0.01, 0.03), 8: (0.001, 0.003, 0.01, 0.03, 0.1)}


def _dense(h: int, batch: int = 64, limit: int = 5000, **further: Any) -> Case:
    return Case("dense", {"h": h}, f"h={h}, batch {batch}", batch, 1500, limit, **further)


FULL = (
    *(_dense(h) for h in (8, 16, 64)),
    *(Case("sparse", {"fan_in": f}, f"fan-in {f}", draws=1500, limit=5000) for f in (1, 4)),
    *(
        Case(
            "convolution",
            {"channels": 8, "stride": s, "side": 8 // s},
            f"{(8 // s) ** 2} positions",
            64,
            1500,
            8000,
            0.7,
        )
        for s in (4, 2, 1)
    ),
    Case("step", {"h": 16}, "h=16", 64, 0, 10_000, grid=STEPPING),
    *(
        Case("sequence", {"wait": w}, f"{w + 3} steps", 4, 1000, limit, 1.0, SEQUENCE, "numpy")
        for w, limit in ((1, 1500), (5, 1500), (13, 0))
    ),
    Case("settled", {"h": 16}, "40 steps", 16, 1000),
    Case("spiking", {}, "", 1, 0, 300, -1.0, SPIKING, "numpy"),
    Case("quantised", {"h": 16}, "5 levels", 64, 0, 10_000, grid=STEPPING),
    _dense(16, 1, 50_000, grid={"eta": SMALL_BATCH[1]}),
    _dense(16, 8, 20_000, grid={"eta": SMALL_BATCH[8]}),
    Case("sparse", {"fan_in": 16}, "fan-in 16", draws=1500, limit=5000),
)
QUICK = (
    _dense(16, limit=1500, grid={"eta": (0.01, 0.1)}),
    Case("sparse", {"h": 8, "fan_in": 2}, "fan-in 2", 16, 300, target="numpy"),
    Case("sequence", {"h": 4, "wait": 1}, "4 steps", 4, 500, target="numpy"),
)
SIZES = {"quick": (QUICK, 4), "full": (FULL, 8)}


# Noise of the estimate


def convergence(case: Case, rule: str, seeds: list[int]) -> dict[str, tuple]:
    """K_eff of each member and cosines over draws, beside what gradients predict."""
    measure = _sequence if case.family == "sequence" else _pinned
    rows = np.unique(np.geomspace(5, case.draws, ROWS).astype(int))
    predicted, found = measure(case, rule, seeds, rows)
    return {
        "predicted_k_eff": (("seed",), predicted),
        "k_eff": (("seed",), found.across),
        "draws": (("row",), rows.astype(float)),
        "cosine": (("row", "seed"), found.cosine()),
    }


def _pinned(case: Case, rule: str, seeds: list[int], rows: np.ndarray) -> tuple[list[float], Accumulated]:
    """At the initial parameters, for training images that stay."""
    circuit = case.circuit(rule, tau_theta=NEVER)
    data = mgd.datasets.load("digits")
    chosen = np.stack([_images(seed, case.batch, len(data.x_train)) for seed in seeds])
    x, y = data.x_train[chosen] * np.float32(data.scale), data.y_train[chosen]
    session = case.session(circuit, seeds)
    session.present(x, y)
    if case.family == "settled":
        predicted, exact = _by_hand(case, rule, session, [(x[k], y[k]) for k in range(len(seeds))])
    else:
        predicted, exact = _predicted(circuit, session, x, y)
    found = Accumulated([exact])
    for n in rows:
        session.step(n - session.iteration)
        found.add(n, [_estimate(case, session)])
    return predicted, found


def _predicted(
    circuit: mgd.Circuit, session: mgd.Session, x: np.ndarray, y: np.ndarray
) -> tuple[list[float], np.ndarray]:
    """K_eff by `predict`, and the exact gradient of each member."""
    one = mgd.Session(circuit, batch=session.batch, target="numpy")
    predicted, exact = [], []
    for k in range(len(x)):
        for name, values in one.parameters.items():
            values[...] = session.parameters[name][k]
        one.present(x[k], y[k])
        gradient = one.exact_gradient()
        exact.append(np.concatenate([gradient[name].ravel() for name in circuit.plastic]))
        predicted.append(predict(one).network.across)
    return predicted, np.stack(exact)


def _by_hand(
    case: Case, rule: str, session: mgd.Session, samples: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[list[float], np.ndarray]:
    """The same for a circuit with dynamics, from slopes that are written out."""
    predicted, exact = [], []
    for k, (x, y) in enumerate(samples):
        own = {name: values[k] for name, values in session.parameters.items()}
        layers = recurrent.layers(case.family, own, x, y, case.settings.get("wait", 0))
        gradient = np.concatenate([layer.gradient().ravel() for layer in layers])
        law = weight_perturbation(gradient) if rule == "weight" else node_perturbation(layers)
        exact.append(gradient)
        predicted.append(law.across)
    return predicted, np.stack(exact)


def _estimate(case: Case, session: mgd.Session) -> np.ndarray:
    """The accumulated estimate of each member, in the order of the gradients."""
    found = session.gradient_estimate()
    if case.family in recurrent.ORDER:
        return recurrent.joined(case.family, found, session.members)
    return np.concatenate([found[name].reshape(session.members, -1) for name in session.circuit.plastic], axis=1)


def _images(seed: int, count: int, n: int) -> np.ndarray:
    return randomness.integer(randomness.site_key(seed, "pinned images"), np.arange(count), 0, 0, n)


def _sequence(case: Case, rule: str, seeds: list[int], rows: np.ndarray) -> tuple[list[float], Accumulated]:
    """The same for sequences, all four of which are shown in every trial; the noise of the baseline is predicted too."""
    circuit = case.circuit(rule, tau_theta=NEVER, memory=MEMORY, delta=0.01)
    session = case.session(circuit, seeds, data="xor")
    data, members = session.dataset, len(seeds)
    predicted, exact = _by_hand(case, rule, session, [(data.x_train, data.y_train)] * members)
    predicted = [k * (1 + 1 / (2 * MEMORY - 1)) for k in predicted]
    session.step(SETTLE)
    before = SETTLE * _estimate(case, session)
    found = Accumulated([exact])
    for n in rows:
        session.step(SETTLE + n - session.iteration)
        total = session.iteration * _estimate(case, session)
        found.add(n, [(total - before) / n])
    return predicted, found


# Training


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


def run(case: Case, rule: str, seeds: list[int], kept: xr.Dataset | None = None) -> xr.Dataset:
    """All of a case under a rule, but for the points that are kept of an earlier run."""
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
        noise = ("predicted_k_eff", "k_eff", "draws", "cosine")
        values |= {n: kept[n].variable for n in noise} if kept is not None else convergence(case, rule, seeds)
    if case.limit:
        known = _known(case, kept)
        found = [
            kept["iterations"].values[known.index(p)]
            if kept is not None and p in known
            else train(case, rule, p, seeds)
            for p in case.points
        ]
        values["iterations"] = (("point", "seed"), np.stack(found))
        values |= {name: (("point",), np.array([p[name] for p in case.points])) for name in case.grid}
    earlier = 0.0 if kept is None else float(kept["seconds"])
    values["seconds"] = ((), earlier + time.monotonic() - begun)
    coordinates = {"case": str(case), "family": case.family, "rule": rule, "seed": seeds}
    return xr.Dataset(values, coordinates)


def part(case: Case, rule: str, seeds: list[int], folder: Path, size: str) -> xr.Dataset:
    """The case under a rule, from its file as far as an earlier run has got."""
    path = folder / (re.sub(r"\W+", "_", f"architectures_{size}_{seeds[0]}_{case}_{rule}") + ".part.nc")
    kept = xr.load_dataset(path) if path.exists() else None
    if kept is None or float(kept["limit"]) != case.limit or _known(case, kept) != (case.points if case.limit else []):
        kept = run(case, rule, seeds, kept)
        kept.to_netcdf(path)
    return kept


def _known(case: Case, kept: xr.Dataset | None) -> list[dict[str, float]]:
    """Points of the grid that an earlier run has trained to the same goal, for as long."""
    if (
        kept is None
        or "point" not in kept.sizes
        or (float(kept["limit"]), float(kept["goal"])) != (case.limit, case.goal)
    ):
        return []
    return [{n: float(kept[n][k]) for n in case.grid} for k in range(kept.sizes["point"])]


def _nodes(case: Case, circuit: mgd.Circuit, steps: int) -> int:
    """Nodes that a draw perturbs: at every position of a map, and at every step of a sequence."""
    if case.family == "sequence":
        return circuit.populations["net"].n * steps + 1
    if case.family == "spiking":
        return circuit.populations["lif"].n * 20  # bins of 5 ms in a trial of 100 ms
    return circuit.n_nodes


def tuned(one: xr.Dataset) -> tuple[int, np.ndarray, np.ndarray]:
    """Of a case under a rule: the point that was best on the first half of the seeds, and the iterations of the other half."""
    iterations = one["iterations"].transpose("point", "seed").values
    iterations = iterations[~np.isnan(iterations).all(1)]
    half = iterations.shape[1] // 2
    best = int(np.argmin([study.median(row) for row in iterations[:, :half]]))
    return best, iterations[best, half:], iterations


def report(found: xr.Dataset) -> str:
    """A table."""
    lines = [f"{'':26}{'N':>6}{'nodes':>6}{'K_eff: weight':>22}{'node':>22}{'iterations: weight':>26}{'node':>22}"]
    for case in found["case"].values:
        pair = [found.sel(case=case, rule=rule) for rule in RULES]
        cells = [f"{case:26}{int(pair[0]['n_parameters']):6}{int(pair[0]['n_nodes']):6}"]
        for one, width in zip(pair, (22, 22), strict=True):
            known = bool(one["k_eff"].notnull().any())
            ratio = one["k_eff"] / one["predicted_k_eff"]
            text = f"{float(one['predicted_k_eff'].median()):.1f} x {float(ratio.mean()):.3f}" if known else "-"
            cells.append(f"{text:>{width}}")
        for one, width in zip(pair, (26, 22), strict=True):
            if not bool(one["iterations"].notnull().any()):
                cells.append(f"{'-':>{width}}")
                continue
            best, values, _ = tuned(one)
            at = ", ".join(
                f"{n} {float(one[n][best]):g}" for n in ("eta", "delta", "size") if n in one and one[n][best].notnull()
            )
            cells.append(f"{f'{study.median(values):,.0f} ({at})':>{width}}")
        lines.append("".join(cells))
    return "\n".join(lines)


@study.command
def main(options: study.Options) -> None:
    """Noise and training time of weight and node perturbation on many kinds of circuits."""
    cases, members = SIZES[options.size]
    seeds = list(range(options.seed, options.seed + members))
    found = []
    for case in cases:
        pair = []
        for rule in RULES:
            pair.append(part(case, rule, seeds, options.out, options.size))
            print(f"{case}, {rule}: {float(pair[-1]['seconds']):.0f} s", flush=True)
        found.append(xr.concat(pair, "rule", join="outer", data_vars="all"))
    joined = xr.concat(found, "case", join="outer", data_vars="all", coords="different", compat="equals")
    joined.attrs["computing_seconds"] = float(joined["seconds"].sum())
    path = study.keep(joined, "architectures", cases[0].circuit("weight").spec, options)
    draw(joined, {c: {r: tuned(joined.sel(case=c, rule=r)) for r in RULES} for c in _trained(joined)}, path)
    print(report(joined))


def _trained(found: xr.Dataset) -> list[str]:
    return [c for c in found["case"].values if bool(found["iterations"].sel(case=c).notnull().any())]


if __name__ == "__main__":
    sys.exit(cli.run(main))
