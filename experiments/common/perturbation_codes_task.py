"""The circuits of perturbation_codes.py, with any code and any way to measure the change of the cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

import mgdcircuits as mgd
from common import study
from mgdcircuits.analysis.codes import drawn, joined
from mgdcircuits.analysis.moments import BERNOULLI, GAUSSIAN, Law, sparse_bernoulli
from mgdcircuits.circuit.clocks import resolve

# One circuit measures all schemes: they differ in the passes that they read, and evaluations are counted for each by itself.
TEXT = """
include: {netlist}
circuit: perturbation_codes
parameters: {{norm: 0.05, delta: norm/sqrt(K), noise: 0, scheme: 0}}
clocks: {{tau_theta: 1e9*iteration}}
learning:
  {replaced}: none
  codes:
    perturb: {{theta_w: "delta*{code}", theta_b: "delta*{code}", every: tau_p}}
    passes: {{clean: 0, plus: 1, minus: -1}}
    signals:
      held: where(n_p < 1, C.clean, held)
      change: where(scheme < 1, C.plus - C.clean, where(scheme < 2, C.plus - held, (C.plus - C.minus)/2))
    estimate: change*theta/delta**2
    update: {{request: -G, every: tau_theta}}
hardware: {{measurement: {{noise: noise}}}}
record: []
"""
SPARSITY = 50
CODES: dict[str, tuple[str, Law | None]] = {
    "sequential": ("sqrt(K)*sequential()", None),
    "walsh": ("walsh()", None),
    "walsh alternating": ("walsh_alternating()", None),
    "sinusoid": ("sinusoid({spacing!r}*Hz)", None),
    "bernoulli": ("bernoulli()", BERNOULLI),
    "sparse bernoulli": (f"bernoulli_power({SPARSITY})", sparse_bernoulli(SPARSITY)),
    "gaussian": ("gaussian()", GAUSSIAN),
}
IMAGES = 12


class Task:
    """A circuit, its images, and codes for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        files = {"letters": "letters.yaml", "digits": "digits_mlp.yaml"}
        self.netlist = study.NETLISTS / files[name]
        self.replaced = {"letters": "mgd", "digits": "wp"}[name]
        self.sizes = {"digits": {"h": 16}}.get(name, {})
        data = mgd.datasets.load(name)
        self.x, self.y = data.x_train[:IMAGES] * np.float32(data.scale), data.y_train[:IMAGES]

    @cached_property
    def k(self) -> int:
        """Parameters."""
        return self.circuit("bernoulli").n_parameters

    def cycle(self, code: str) -> int:
        """Draws after which a code that is not random is orthogonal; K of one that is."""
        if code.startswith("walsh"):
            return 1 << self.k.bit_length()
        return self.k + 1 if code == "sinusoid" else self.k  # sines are orthogonal over half a period of the slowest

    def period(self, code: str) -> int:
        """Draws after which a code that is not random begins anew."""
        return (2 if code in ("sinusoid", "walsh alternating") else 1) * self.cycle(code)

    def circuit(self, code: str) -> mgd.Circuit:
        """With a code that drives all parameters."""
        text = CODES[code][0]
        if code == "sinusoid":
            iteration = resolve(self.circuit("bernoulli")).iteration  # seconds
            text = text.format(spacing=1 / (self.period(code) * iteration))
        return mgd.load(TEXT.format(netlist=self.netlist, replaced=self.replaced, code=text), **self.sizes)

    def session(self, circuit: mgd.Circuit, seed: Sequence[int], target: str, start: np.ndarray | None = None):
        """Seeds side by side that are shown the images; with their own initial parameters, or all with `start`."""
        session = mgd.Session(circuit, batch=IMAGES, seed=seed, target=target, dtype="float64")
        if start is not None:
            write(session, np.broadcast_to(start, (session.members, len(start))))
        session.present(self.x, self.y)
        return session


def flat(values: dict[str, np.ndarray], members: int) -> np.ndarray:
    """(member, K)."""
    return np.concatenate([part.reshape(members, -1) for part in values.values()], axis=1)


def write(session: mgd.Session, points: np.ndarray) -> None:
    """Set the parameters of all members, (member, K)."""
    begin = 0
    for values in session.parameters.values():
        n = values.size // session.members
        values[...] = points[:, begin : begin + n].reshape(values.shape)
        begin += n


def drawn_codes(circuit: mgd.Circuit, n: int) -> np.ndarray:
    """The first n codes, divided by delta, in the order of the parameters."""
    (block,) = drawn(circuit, n)
    of = {site.theta: site.parameter for site in circuit.spec.learning[0].sites}
    by_parameter = {of[name]: values for name, values in block.items()}
    codes = joined({name: by_parameter[name] for name in circuit.plastic})
    return codes / circuit.spec.parameters["norm"] * codes.shape[1] ** 0.5
