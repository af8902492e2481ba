"""How fast the estimate turns into the gradient: figures 2 and 3 of arXiv 2501.15403, with the law beside the measurement.

python experiments/gradient_convergence.py --quick
python experiments/gradient_convergence.py --full --out experiments/results

A seed is a network at its initial parameters and 100 training images that stay; nothing is updated. The accumulated
estimate of weight or node perturbation (layer by layer), or in each layer of nodes or weights, whichever are fewer, is compared
with the exact gradient over the same images, and with what `mgdcircuits.analysis` predicts from gradients alone. Cases that a
dataset holds are not run again while their netlists stay as they are.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xarray as xr

import mgdcircuits as mgd
from common import node_or_weight, published, study
from common.gradient_convergence_figure import draw, is_plain
from common.node_or_weight import NODE_OR_WEIGHT
from mgdcircuits import cli, randomness
from mgdcircuits.analysis.convergence import Accumulated, draws_until, exponent, exponent_interval
from mgdcircuits.analysis.prediction import Prediction, parameter_blocks, predict
from mgdcircuits.record import run_attributes

FILES = {"weight": "fashion_mnist_cnn_paper.yaml", "node": "fashion_mnist_cnn_np.yaml"}
RULES = (*FILES, NODE_OR_WEIGHT)
BATCH = 100
ROWS = 40
OF_A_CIRCUIT = ("circuit", "netlist", "netlist_sha256")  # attributes of a run, coordinates of a case
FURTHER = (
    "netlist_file",
    "parameters",
    "overrides",
    "clocks",
)  # attributes that a dataset of several circuits cannot have
DEGREES = {"degrees_15": 15.0, "cos_95": float(np.degrees(np.arccos(0.95)))}


@dataclass(frozen=True)
class Case:
    """A circuit, the seeds that are predicted, and how many of them are measured for how many iterations."""

    rule: str
    d: int
    seeds: int
    measured: int = 0
    iterations: int = 0
    classes: int = 10
    dither: float = 0.0  # uniform noise on the pixels: no two are equal, so that no maximum of a pool is tied

    def __str__(self) -> str:
        also = (f", {self.classes} classes" if self.classes != 10 else "") + (", dithered" if self.dither else "")
        return f"{self.rule} d={self.d}{also}"


SIZES = {
    "quick": (Case("weight", 1, 4, 4, 400), Case("node", 1, 2), Case(NODE_OR_WEIGHT, 1, 2, 2, 100)),
    "full": (
        Case("weight", 1, 10, 10, 2500),
        Case("weight", 2, 10, 5, 5500),
        Case("node", 1, 10, 10, 2000),
        Case("node", 1, 10, 10, 2000, dither=0.01),
        Case("weight", 4, 10, 3, 18000),
        Case("weight", 8, 10, 3, 1500),
        Case("weight", 16, 3, 2, 200),
        Case("weight", 32, 3, 1, 60),
        *(Case("weight", 1, 10, 5, 1500, classes) for classes in (2, 5)),
        *(Case("node", 1, 10, 5, 2000, classes) for classes in (2, 5)),
        Case("node", 2, 10, 5, 5000),
        Case("node", 4, 3, 3, 6000),
        Case(NODE_OR_WEIGHT, 1, 10, 10, 2000),
        Case(NODE_OR_WEIGHT, 2, 10, 5, 5000),
        Case(NODE_OR_WEIGHT, 4, 10, 5, 12000),
        *(Case(NODE_OR_WEIGHT, 1, 10, 5, 2000, classes) for classes in (2, 5)),
        Case(NODE_OR_WEIGHT, 8, 10, 3, 3000),
        Case(NODE_OR_WEIGHT, 16, 3, 2, 400),
        Case(NODE_OR_WEIGHT, 32, 3, 1, 120),
    ),
}


def circuit_of(case: Case) -> mgd.Circuit:
    """The published network with the rule of a case, which updates nothing in any time that is measured."""
    netlist = node_or_weight.netlist(case.d) if case.rule == NODE_OR_WEIGHT else study.NETLISTS / FILES[case.rule]
    return mgd.load(netlist, d=case.d, classes=case.classes, tau_theta="1000000000*iteration", target_off=0.01)


class Seeds:
    """The circuit of a case, and for each seed its initial parameters, images, exact gradient and prediction."""

    def __init__(self, case: Case, first: int) -> None:
        self.case = case
        self.numbers = list(range(first, first + case.seeds))
        self.circuit = circuit_of(case)
        data = mgd.datasets.load("fashion_mnist", classes=range(case.classes))
        chosen = [self._images(seed, len(data.x_train)) for seed in self.numbers]
        self.x = np.stack([data.x_train[index] * np.float32(data.scale) for index in chosen])
        self.y = np.stack([data.y_train[index] for index in chosen])
        if case.dither:
            noise = np.random.default_rng(first).random(self.x.shape, dtype=np.float32)
            self.x = self.x + np.float32(case.dither) * noise
        start = mgd.Session(self.circuit, batch=1, seed=self.numbers, target="numpy")
        self.start = {name: values.reshape(case.seeds, -1) for name, values in start.parameters.items()}
        self.blocks = parameter_blocks(self.circuit, self.circuit.spec.learning[0])
        self.gradients: list[dict[str, np.ndarray]] = []
        self.predictions: list[Prediction] = []
        one = mgd.Session(self.circuit, batch=BATCH, target="numpy")
        for k in range(case.seeds):
            for name, values in one.parameters.items():
                values[...] = self.start[name][k].reshape(values.shape)
            one.present(self.x[k], self.y[k])
            self.gradients.append(one.exact_gradient())
            self.predictions.append(predict(one))

    @staticmethod
    def _images(seed: int, of: int) -> np.ndarray:
        return randomness.integer(randomness.site_key(seed, "pinned images"), np.arange(BATCH), 0, 0, of)

    def by_block(self, values: dict[str, np.ndarray], members: int) -> list[np.ndarray]:
        """Parameters of each block side by side, (member, elements)."""
        return [np.concatenate([values[n].reshape(members, -1) for n in names], 1) for names in self.blocks.values()]

    def measure(self, threads: int) -> tuple[np.ndarray, Accumulated]:
        """Accumulate estimates of the first seeds; at which iterations they were compared, and how."""
        case, members = self.case, self.case.measured
        session = mgd.Session(self.circuit, batch=BATCH, seed=self.numbers[:members], threads=threads)
        for name, values in session.parameters.items():
            values[...] = self.start[name][:members].reshape(values.shape)
        session.present(self.x[:members], self.y[:members])
        exact = {name: np.stack([g[name] for g in self.gradients[:members]]) for name in self.circuit.plastic}
        found = Accumulated(self.by_block(exact, members))
        rows = np.geomspace(8, case.iterations, ROWS).astype(int)
        for n in rows:
            session.step(n - session.iteration)
            found.add(n, self.by_block(session.gradient_estimate(), members))
        return rows, found


def n_perturbed(circuit: mgd.Circuit) -> int:
    """Elements that are perturbed, of all blocks."""
    (system,) = circuit.spec.learning
    return sum(circuit.variables[name][2].n for block in system.perturb.blocks for name in block)


def run(case: Case, first: int, threads: int) -> xr.Dataset:
    """Prediction and measurement of a case."""
    begun = time.monotonic()
    seeds = Seeds(case, first)
    predicted = [p.network for p in seeds.predictions]
    each = ("seed",)
    values: dict[str, tuple] = {
        "predicted_k_eff": (each, [p.across for p in predicted]),
        "predicted_along": (each, [p.along for p in predicted]),
        "predicted_block_k_eff": (
            ("seed", "block"),
            [[p.blocks[b].across for b in seeds.blocks] for p in seeds.predictions],
        ),
        "n_parameters": ((), seeds.circuit.n_parameters),
        "n_perturbed": ((), n_perturbed(seeds.circuit)),
    }
    for name, degrees in DEGREES.items():
        values[f"predicted_{name}"] = (each, [p.draws(degrees) for p in predicted])
    if case.measured:
        rows, found = seeds.measure(threads)
        cosine = found.cosine()

        def per_seed(measured: np.ndarray) -> np.ndarray:
            return np.concatenate([measured, np.full(case.seeds - case.measured, np.nan)])

        values |= {
            "k_eff": (each, per_seed(found.across)),
            "iteration": (("row",), rows.astype(float)),
            "cosine": (("row", "member"), cosine),
            "norm_ratio": (("row", "member"), found.norm_ratio()),
            "block_cosine": (("row", "member", "block"), found.block_cosine()),
        }
        for name, degrees in DEGREES.items():
            until = np.array([draws_until(rows, column, degrees) for column in cosine.T])
            beyond = found.across / np.tan(np.radians(degrees)) ** 2
            values[name] = (each, per_seed(np.where(np.isnan(until), beyond, until)))
            values[f"{name}_reached"] = (each, per_seed(np.isfinite(until).astype(float)))
    coordinates = {
        "seed": seeds.numbers,
        "block": list(seeds.blocks),
        "row": np.arange(ROWS if case.measured else 0),
        "member": np.arange(case.measured),
    }
    dataset = xr.Dataset(values, coordinates).assign(seconds=time.monotonic() - begun)
    facts = run_attributes(seeds.circuit.spec, batch=BATCH, first_seed=first)
    own = {name: facts.pop(name) for name in OF_A_CIRCUIT}
    dataset = dataset.assign_coords({"case": str(case), **asdict(case), **own}).expand_dims("case")
    return dataset.assign_attrs({name: fact for name, fact in facts.items() if name not in FURTHER})


def published_rule(rule: str) -> str:
    """What stands beside a rule in figure 3: a reading of node perturbation beside the published one."""
    return "node" if rule == NODE_OR_WEIGHT else rule


def compared(found: xr.Dataset) -> Iterator[str]:
    """Lines that compare iterations to 15 degrees with the published ones, and the law with the measurement."""
    yield f"{'':36}{'N':>8}{'perturbed':>11}{'K_eff':>9}{'measured/law':>15}{'to 15 deg: law':>16}{'measured':>10}  published"
    known = published.until_15_degrees()
    for k in range(found.sizes["case"]):
        one = found.isel(case=k)
        name = str(one["case"].values)
        ratio = (one["k_eff"] / one["predicted_k_eff"]).values if "k_eff" in one else np.array([np.nan])
        ratio = ratio[np.isfinite(ratio)]
        law = f"{ratio.mean():.3f} ({len(ratio)})" if len(ratio) else ""
        until = one["degrees_15"].values if "degrees_15" in one else np.array([np.nan])
        until = until[np.isfinite(until)]
        measured = f"{np.median(until):,.0f}" if len(until) else ""
        line = (
            f"{name:36}{int(one['n_parameters']):8,}{int(one['n_perturbed']):11,}{float(one['predicted_k_eff'].median()):9,.1f}"
            f"{law:>15}{float(one['predicted_degrees_15'].median()):16,.0f}{measured:>10}"
        )
        quartiles = known.get((published_rule(str(one["rule"].values)), int(one["d"])))
        if quartiles is not None and is_plain(one):
            low, middle, high = quartiles
            ours = [float(one["predicted_degrees_15"].median()), *([np.median(until)] if len(until) else [])]
            inside = all(low / 1.15 <= n <= high * 1.15 for n in ours)
            line += f"  {low:,.0f} {middle:,.0f} {high:,.0f}: {'inside' if inside else 'OUTSIDE'}"
        yield line
    yield from slopes(found)


def slopes(found: xr.Dataset) -> Iterator[str]:
    """Exponents over N of iterations to 15 degrees and to a cosine of .95, on the published sizes."""
    cases = [found.isel(case=k) for k in range(found.sizes["case"])]
    goals = (
        ("degrees_15", "15 degrees", published.until_15_degrees()),
        ("cos_95", "cos .95", published.until_cos_95()),
    )
    for (goal, said, known), rule in itertools.product(goals, RULES):
        sizes = {d: quartiles for (of, d), quartiles in known.items() if of == published_rule(rule)}
        plain = [one for one in cases if one["rule"] == rule and is_plain(one)]
        ours = {int(one["d"]): one for one in plain if int(one["d"]) in sizes}
        if len(ours) < 2:
            continue
        n = [float(one["n_parameters"]) for one in ours.values()]
        law = exponent(n, [float(one[f"predicted_{goal}"].median()) for one in ours.values()])
        until = [float(one[goal].median()) if goal in one else np.nan for one in ours.values()]
        measured = f"{exponent(n, until):.2f}" if np.isfinite(until).all() else "not at all sizes"
        quartiles = np.array([sizes[d] for d in ours])
        low, high = exponent_interval(n, quartiles, published.SEEDS)
        theirs = exponent(n, list(quartiles[:, 1]))
        yield (
            f"{rule} to {said}: exponent of N: law {law:.2f}; measured {measured}; "
            f"published {theirs:.2f} ({low:.2f} to {high:.2f})"
        )


def finished(path: Path, seed: int, cases: Sequence[Case]) -> dict[Case, xr.Dataset]:
    """Cases that an earlier run with the same first seed and netlists has written, complete or not: they are not run again."""
    if not path.exists():
        return {}
    kept = xr.load_dataset(path)
    rows = {str(name): kept.isel(case=[k]) for k, name in enumerate(kept["case"].values)}
    found = {case: rows[str(case)] for case in cases if str(case) in rows and is_the_same(rows[str(case)], case, seed)}
    if others := len(rows) - len(found):
        print(f"{path}: {others} cases are others, or of other netlists or seeds, and will be replaced", flush=True)
    return found


def is_the_same(row: xr.Dataset, case: Case, seed: int) -> bool:
    """Whether a row of a dataset is this case."""
    named = [*asdict(case), "netlist_sha256"]
    if row.attrs.get("first_seed") != seed or any(name not in row.coords for name in named):
        return False
    netlist = run_attributes(circuit_of(case).spec)["netlist_sha256"]
    return [row[name].item() for name in named] == [*asdict(case).values(), netlist]


def joined(found: list[xr.Dataset], size: str) -> xr.Dataset:
    """All cases side by side; what one has more of than another is missing there."""
    how = {"coords": "different", "compat": "equals", "join": "outer", "data_vars": "all"}
    dataset = xr.concat(found, "case", combine_attrs="drop_conflicts", **how)
    dataset.attrs |= {key: found[0].attrs[key] for key in ("command", "machine", "versions", "started")}
    seconds = sum(float(one["seconds"].item()) for one in found)
    state = "finished" if len(found) == len(SIZES[size]) else "running"
    dataset.attrs |= {"title": "gradient convergence", "size": size, "seconds": seconds, "state": state}
    return dataset


def save(dataset: xr.Dataset, path: Path) -> None:
    """The dataset and its figure, PATH.nc and PATH.png."""
    study.write(dataset, path.with_suffix(".nc"))
    draw(dataset, path.with_suffix(".png"))


@study.command
def main(options: study.Options) -> None:
    """Measure gradient convergence, and draw the prediction beside it."""
    path = options.out / f"gradient_convergence{options.suffix}"
    cases = SIZES[options.size]
    done = finished(path.with_suffix(".nc"), options.seed, cases)
    for case in cases:
        if case not in done:
            done[case] = run(case, options.seed, options.workers)
            save(joined([done[c] for c in cases if c in done], options.size), path)
        print(f"{case}: {float(done[case]['seconds'][0]):.0f} s", flush=True)
    dataset = joined([done[c] for c in cases], options.size)
    save(dataset, path)
    print("\n".join(compared(dataset)))
    print(f"{path}.nc, .png; {dataset.attrs['seconds']:.0f} s")


if __name__ == "__main__":
    sys.exit(cli.run(main))
