"""Perturbation codes of McCaughan et al. 2023 (arXiv 2303.03986): how soon, how large, and measured from one side or two.

python experiments/perturbation_codes.py --quick
python experiments/perturbation_codes.py --full --out experiments/results

A circuit with some images that stay; nothing is updated, and the accumulated estimate is compared with the exact gradient.
All codes have mean square 1 and are scaled by delta = norm/sqrt(K), so that they have equal power: the sum of the squares of
all perturbations is norm**2 on average.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

import mgdcircuits as mgd
from common import study
from common.perturbation_codes_figure import best_norm, degrees, draw
from common.perturbation_codes_task import CODES, IMAGES, Task, drawn_codes, flat, write
from mgdcircuits import cli
from mgdcircuits.analysis.amplitude import (
    ANTITHETIC,
    HELD,
    ONE_SIDED,
    Along,
    Scheme,
    SquaredError,
    along,
    given_codes,
    independent_signs,
    taylor,
)
from mgdcircuits.analysis.codes import simulate
from mgdcircuits.analysis.convergence import Accumulated
from mgdcircuits.analysis.theory import weight_perturbation

SCHEMES = (ONE_SIDED, HELD, ANTITHETIC)  # in the order of the netlist's `scheme`
SMALL = 1e-3  # a norm at which the cost is linear
WHOLE = 4
"""Cycles after which angles are compared."""


@dataclass(frozen=True)
class Size:
    """What is measured: circuits with seeds and cycles; codes, norms, noises, seeds, cycles and points of the amplitudes."""

    circuits: dict[str, tuple[int, float]]
    amplitude_codes: tuple[str, ...]
    norms: tuple[float, ...]
    noises: tuple[float, ...]
    seeds: int
    cycles: int
    trained: tuple[int, ...]
    target: str


SIZES = {
    "quick": Size(
        {"letters": (4, 1.5)},
        ("walsh", "walsh alternating", "bernoulli"),
        (0.02, 0.2, 2.0),
        (0, 1e-3),
        4,
        2,
        (0,),
        "numpy",
    ),
    "full": Size(
        {"letters": (10, 4), "digits": (5, 4)},
        ("sequential", "walsh", "walsh alternating", "sinusoid", "bernoulli"),
        tuple(float(x) for x in np.geomspace(0.01, 10, 13)),
        (0, 1e-4, 1e-3, 1e-2),
        8,
        4,
        (0, 100_000),
        "cpp",
    ),
}


def rows(cycle: int, n: int) -> np.ndarray:
    """Numbers of draws to compare at: evenly on a logarithmic scale, and whole cycles."""
    whole = cycle * np.arange(1, WHOLE + 1)
    return np.sort(np.concatenate([np.geomspace(8, n, 40).astype(int), np.minimum(whole, n)]))


def convergence(task: Task, seeds: Sequence[int], cycles: float, target: str) -> xr.Dataset:
    """Cosine against draws, measured and predicted: (code, row, seed)."""
    found = []
    for code, (_, law) in CODES.items():
        circuit, cycle = task.circuit(code), task.cycle(code)
        session = task.session(circuit, seeds, target)
        session.set(norm=SMALL)
        exact = flat(task.session(circuit, seeds, "numpy").exact_gradient(), len(seeds))
        counts = rows(cycle, int(cycles * cycle))
        measured = Accumulated([exact])
        for n in counts:
            session.step(int(n) - session.iteration)
            measured.add(int(n), [flat(session.gradient_estimate(), len(seeds))])
        if law is None:
            codes = drawn_codes(circuit, int(counts[-1]))
            predicted = np.stack([simulate([(g, codes)], counts).cosine for g in exact], axis=1)
        else:
            predicted = np.stack([weight_perturbation(g, law).cosine(counts) for g in exact], axis=1)
        one = {"n": ("row", counts), "cosine": (("row", "seed"), measured.cosine()), "cycle": cycle}
        found.append(xr.Dataset(one | {"predicted_cosine": (("row", "seed"), predicted)}))
    return xr.concat(found, xr.DataArray(list(CODES), dims="code", name="code")).assign_coords(seed=list(seeds))


class Point:
    """Parameters around which amplitudes are studied: the derivatives of the cost, and what they predict."""

    def __init__(self, task: Task, seed: int, trained: int) -> None:
        self.task = task
        self.circuit = task.circuit("bernoulli")
        learner = mgd.load(task.netlist, **task.sizes)
        target = "cpp" if trained else "numpy"
        learner = mgd.Session(learner, seed=seed, data=task.name, dtype="float64", target=target)
        learner.step(trained)
        self.start = flat(learner.parameters, 1)[0].copy()
        one = task.session(self.circuit, [seed], "numpy", self.start)
        self.cost, self.accuracy = float(one.cost().mean()), float(one.accuracy().mean())
        self.taylor = taylor(self.gradient, self.start)
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(4 * task.k, task.k))
        self.third_square = float((along(self.gradient, self.start, signs).third ** 2).mean())
        self._given: dict[str, tuple[np.ndarray, Along]] = {}

    @property
    def square(self) -> float:
        """|gradient|**2."""
        return float(self.taylor.gradient @ self.taylor.gradient)

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """Exact, at many points side by side."""
        session = self.task.session(self.circuit, list(range(len(points))), "numpy")
        write(session, points)
        return flat(session.exact_gradient(), len(points))

    def predict(self, code: str, draws: int, scheme: Scheme, sigma: float) -> SquaredError:
        """E|G - gradient|**2 after so many draws."""
        if code == "bernoulli":
            return independent_signs(self.taylor, scheme, sigma, draws, self.third_square)
        if code not in self._given:
            codes = drawn_codes(self.task.circuit(code), self.task.period(code))
            self._given[code] = codes, along(self.gradient, self.start, codes)
        codes, derivatives = self._given[code]
        return given_codes(codes, derivatives, self.taylor.gradient, scheme, sigma, draws // len(codes))


def draws_of(task: Task, code: str, scheme: Scheme, cycles: int) -> int:
    """As many as two evaluations a draw of so many cycles allow; the clean evaluation that is held counts for nothing."""
    cycle = task.cycle(code) if CODES[code][1] is None else task.cycle("walsh")
    return cycles * cycle * (2 if scheme is HELD else 1)


def amplitudes(task: Task, point: Point, size: Size, seeds: list[int]) -> xr.Dataset:
    """|G - gradient|**2/|gradient|**2 at equal numbers of evaluations: (code, scheme, sigma, norm, seed), and predicted."""
    shape = (len(size.amplitude_codes), len(SCHEMES), len(size.noises))
    measured = np.empty((*shape, len(size.norms), len(seeds)))
    predicted, best, least = np.empty((*shape, len(size.norms))), np.empty(shape), np.empty(shape)
    exact, root = point.taylor.gradient, task.k**0.5
    draws = np.empty(shape[:2], int)

    for i, code in enumerate(size.amplitude_codes):
        circuit = task.circuit(code)

        def error(norm: float, scheme: int, sigma: float, n: int, circuit: mgd.Circuit = circuit) -> np.ndarray:
            session = task.session(circuit, seeds, size.target, point.start)
            one_image = sigma * IMAGES**0.5  # the noise of their mean is sigma
            session.set(norm=norm, scheme=scheme, noise=one_image)
            session.step(n)
            return ((flat(session.gradient_estimate(), len(seeds)) - exact) ** 2).sum(1) / point.square

        for j, scheme in enumerate(SCHEMES):
            n = draws[i, j] = draws_of(task, code, scheme, size.cycles)
            for k, sigma in enumerate(size.noises):
                law = point.predict(code, n, scheme, sigma)
                best[i, j, k], least[i, j, k] = law.best() * root, law.least() / point.square
                predicted[i, j, k] = law(np.array(size.norms) / root) / point.square
                measured[i, j, k] = [error(norm, j, sigma, n) for norm in size.norms]
    axes = ("code", "scheme", "sigma")
    return xr.Dataset(
        {
            "error": ((*axes, "norm", "member"), measured),
            "predicted_error": ((*axes, "norm"), predicted),
            "predicted_best": (axes, best),
            "predicted_least": (axes, least),
            "draws": (axes[:2], draws),
            "cost": point.cost,
            "accuracy": point.accuracy,
            "gradient_square": point.square,
        },
        {
            "code": list(size.amplitude_codes),
            "scheme": [s.name for s in SCHEMES],
            "sigma": list(size.noises),
            "norm": list(size.norms),
        },
    )


def kept(part: str, task: Task, options: study.Options, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """A part of the measurement, read if an earlier call has finished it."""
    made_with = [[study.facts_of(task.circuit(code)) for code in CODES], asdict(SIZES[options.size])]
    return study.kept_part(f"perturbation_codes_{options.size}_{part}", made_with, options, make)


def measure(options: study.Options) -> xr.Dataset:
    """Convergence of all circuits, and amplitudes of the first at each of its points."""
    size, first = SIZES[options.size], options.seed
    tasks = {name: Task(name) for name in size.circuits}
    parts = [
        kept(
            name,
            tasks[name],
            options,
            lambda n=name, s=seeds, c=cycles: convergence(tasks[n], range(first, first + s), c, size.target),
        )
        for name, (seeds, cycles) in size.circuits.items()
    ]
    names = xr.DataArray(list(tasks), dims="circuit", name="circuit")
    found = [xr.concat(parts, names, join="outer").assign(parameters=("circuit", [t.k for t in tasks.values()]))]
    task, seeds = next(iter(tasks.values())), list(range(first, first + size.seeds))
    points = [
        kept(f"trained_{n}", task, options, lambda n=n: amplitudes(task, Point(task, first, n), size, seeds))
        for n in size.trained
    ]
    found.append(xr.concat(points, xr.DataArray(list(size.trained), dims="trained", name="trained")))
    return xr.merge(found, join="outer").sel(code=list(CODES))


def table(found: xr.Dataset) -> Iterator[str]:
    """What was found, in lines."""
    for name in found["circuit"].values:
        for code in found["code"].values:
            one = found.sel(circuit=name, code=code)
            cycle = int(one["cycle"])
            near = int(np.argmin(abs(one["n"].values - cycle)))
            measured, predicted = (
                float(degrees(one[v].isel(row=near)).median()) for v in ("cosine", "predicted_cosine")
            )
            apart = float(abs(one["cosine"] - one["predicted_cosine"]).max())
            yield (
                f"{name}, {code}: after {int(one['n'][near])} draws {measured:.2f} degrees, predicted {predicted:.2f}; "
                f"cosines differ by {apart:.2g} at most"
            )
    for trained in found["trained"].values:
        at = found.sel(trained=trained)
        length = float(at["gradient_square"]) ** 0.5
        yield f"after {trained} iterations of training: cost {float(at['cost']):.3f}, |gradient| {length:.3f}"
        for code in [str(c) for c in found["code"].values if bool(at["draws"].sel(code=c).notnull().any())]:
            for scheme in found["scheme"].values:
                for sigma in found["sigma"].values[found["sigma"].values > 0]:
                    one = at.sel(code=code, scheme=scheme, sigma=sigma)
                    measured, best = one["error"].mean("member"), best_norm(one)
                    where = f"{best:.3g}" if np.isfinite(best) else "at an end of those tried"
                    yield (
                        f"  {code}, {scheme}, noise {sigma:g}: best norm {where}, "
                        f"predicted {float(one['predicted_best']):.3g}; error there {float(measured.min()) ** 0.5:.3g}, "
                        f"predicted {float(one['predicted_least']) ** 0.5:.3g}"
                    )


@study.command
def main(options: study.Options) -> None:
    """Measure codes and amplitudes, and draw the predictions beside them."""
    found = measure(options)
    path = study.keep(found, "perturbation_codes", Task("letters").circuit("bernoulli").spec, options)
    draw(found, path.with_suffix(".png"))
    print("\n".join(table(found)))


if __name__ == "__main__":
    sys.exit(cli.run(main))
