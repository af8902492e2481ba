"""What stands in the way of learning: worn devices, requests that come to nothing, noise, circuits that have not settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mgdcircuits.circuit.measuring import quiet
from mgdcircuits.circuit.outcomes import CLIPPED, REQUESTED, ROUNDED, STUCK
from mgdcircuits.comparison import squeeze

if TYPE_CHECKING:
    import xarray as xr

    from mgdcircuits.session import Session

OUTCOMES = {"requests_rounded": ROUNDED, "requests_clipped": CLIPPED, "requests_stuck": STUCK}
"""Variables of the dataset, and the counters that they come from."""
LEARNED = 0.02
"""Part of the cost, or points of accuracy, by which a run must get better to have learned something."""


class Difficulties:
    """Reads of a session what may explain that it does not learn.

    Parameters
    ----------
    session
    groups
        Qualified names of its plastic parameters, in the order of the dataset.
    """

    def __init__(self, session: Session, groups: Sequence[str]) -> None:
        self._session = session
        self._groups = groups
        self._arrays = {a.name for a in session.program.arrays}
        self._change = _change(session, self._arrays)
        # since the last row: squares of the change, its signal and noise, (3, member)
        self.noted: list[np.ndarray] = []

    @property
    def names(self) -> list[str]:
        """Variables of the dataset."""
        spec, found = self._session.circuit.spec, list[str]()
        if spec.hardware.endurance:
            found += ["wear", "worn"]
        if any(f"{g}:{REQUESTED}" in self._arrays for g in self._groups):
            found += list(OUTCOMES)
        if self._change:
            found.append("cost_change")
            found += ["cost_change_snr"] if len(self._change) == 4 else []
        if self._settles:
            found.append("settling_residual")
        return found

    @property
    def _settles(self) -> bool:
        circuit = self._session.circuit
        return circuit.is_continuous and not circuit.is_spiking and circuit.spec.trial is None and bool(self._change)

    def note(self) -> None:
        """Let the change of the cost of the iteration just done count."""
        if not self._change:
            return
        plus, clean, *without = (self._mean(name) for name in self._change)
        with np.errstate(all="ignore"):  # of a run that diverges, which is told elsewhere
            change = plus - clean
            signal = without[0] - without[1] if without else change
            self.noted.append(np.array([change**2, signal**2, (change - signal) ** 2]))

    def _mean(self, name: str) -> np.ndarray:
        return self._session.target.array(name)[0].mean(1)

    def read(self) -> dict[str, np.ndarray]:
        """The values of a row; changes of the cost are averaged from here on anew."""
        names = self.names
        found: dict[str, np.ndarray] = {}
        if "wear" in names:
            found |= self._wear()
        if "requests_rounded" in names:
            found |= {name: self._fraction(counter) for name, counter in OUTCOMES.items()}
        if "cost_change" in names:
            nothing = np.full((3, self._session.members), np.nan)
            change, signal, noise = np.mean(self.noted, axis=0) if self.noted else nothing
            found["cost_change"] = squeeze(np.sqrt(change))
            if "cost_change_snr" in names:
                with np.errstate(all="ignore"):
                    found["cost_change_snr"] = squeeze(np.sqrt(signal / noise))
            self.noted.clear()
        if "settling_residual" in names:
            unknown = squeeze(np.full(self._session.members, np.nan))  # nothing was shown yet
            found["settling_residual"] = self._session.settling_residual() if self._session.iteration else unknown
        return found

    def _wear(self) -> dict[str, np.ndarray]:
        """The largest part of its endurance that a device has used, and the part of devices that are stuck."""
        used, stuck = np.full((2, self._session.members, len(self._groups)), np.nan)
        for k, name in enumerate(self._groups):
            endurance = self._session.endurance(name) if f"{name}:writes" in self._arrays else None
            if endurance is not None:
                # An endurance that was drawn below 0 is used up from the start.
                part: np.ndarray = np.ones(endurance.shape)
                np.divide(self._session.writes(name), endurance, out=part, where=endurance > 0)
                part = part.reshape(self._session.members, -1)
                used[:, k], stuck[:, k] = part.max(1), (part >= 1).mean(1)
        return {"wear": squeeze(used), "worn": squeeze(stuck)}

    def _fraction(self, counter: str) -> np.ndarray:
        """Part of all requests so far."""
        members = self._session.members
        found = np.full((members, len(self._groups)), np.nan)
        for k, name in enumerate(self._groups):
            if f"{name}:{REQUESTED}" in self._arrays:
                asked = np.asarray(self._session.view(f"{name}:{REQUESTED}")).reshape(members, -1).sum(1)
                lost = np.zeros(members)
                if f"{name}:{counter}" in self._arrays:
                    lost = np.asarray(self._session.view(f"{name}:{counter}")).reshape(members, -1).sum(1)
                found[:, k] = np.where(asked > 0, lost / np.maximum(asked, 1), np.nan)
        return squeeze(found)


def _change(session: Session, arrays: set[str]) -> list[str]:
    """Arrays of the cost of a perturbed pass and of the one that it is compared with, and of both without noise.

    Of several blocks it is the change of the last one.
    """
    cost = session.circuit.spec.cost
    for system in session.circuit.spec.learning if cost is not None else ():
        assert cost is not None
        passes = sorted(system.passes, key=lambda p: (p[1] == 0, -p[1]))  # perturbed ones first
        if len(passes) < 2:
            continue
        pair = (passes[0][0], passes[-1][0])
        found = [f"{system.name}.{cost.name}.{name}" for name in pair]
        without = [f"{system.name}.{quiet(cost.name)}.{name}" for name in pair]
        if all(name in arrays for name in found):
            return found + (without if all(name in arrays for name in without) else [])
    return []


def explain(run: xr.Dataset) -> str | None:
    """Why nothing was learned, or nothing more, in a sentence; None where something was, or where the run does not show why.

    Of a run with members it is that of all together.
    """
    rows = run.sizes["iteration"]
    if rows < 2:
        return None
    if _has_learned(run):
        return _worn_out(run)
    last = {str(n): v.isel(iteration=-1) for n, v in run.data_vars.items() if v.dims[:1] == ("iteration",)}
    causes = []
    for name, text in (
        ("worn", "of the devices are worn out"),
        ("requests_stuck", "of the requests for writes met devices that are worn out"),
        ("requests_rounded", "of the requests for writes were too small to move a device, or met one that never moves"),
        ("requests_clipped", "of the requests for writes went beyond what a device takes"),
    ):
        lost = _most(last[name]) if name in last else 0.0
        causes.append((lost, f"{lost:.0%} {text}"))
    if "cost_change_snr" in last:
        snr = float(np.nanmean(run["cost_change_snr"].values[1:]))
        text = f"the noise of a measured change of the cost is {1 / max(snr, 1e-12):.3g} times the change"
        causes.append((1 - snr if np.isfinite(snr) else 0.0, text))
    if "settling_residual" in last:
        residual, change = float(last["settling_residual"].mean()), float(np.nanmean(run["cost_change"].values[1:]))
        text = f"the cost moves by {residual:.3g} while the circuit settles, and by {change:.3g} under perturbation"
        causes.append((1 - change / residual if residual > 0 else 0.0, text))
    strength, text = max(causes, default=(0.0, ""))
    return f"nothing was learned: {text}" if strength >= 0.5 else None


def _worn_out(run: xr.Dataset) -> str | None:
    """From where on most devices are worn out, in a sentence, if nothing was learned from there on."""
    if "worn" not in run:
        return None
    worn = [_most(run["worn"].isel(iteration=k)) for k in range(run.sizes["iteration"])]
    since = run.isel(iteration=[k for k, part in enumerate(worn) if part >= 0.5])
    if since.sizes["iteration"] < 2 or _has_learned(since):
        return None
    first = int(since["iteration"][0])
    return f"nothing more is learned: {worn[-1]:.0%} of the devices are worn out, most by iteration {first}"


def _most(values: xr.DataArray) -> float:
    """Of the groups, weighted by their sizes; not a number where no group has it."""
    sizes = values["parameter_size"] if "parameter_size" in values.coords else None
    known = values.dropna("parameter", how="all")
    if not known.size:
        return 0.0
    mean = known.weighted(sizes.sel(parameter=known["parameter"])).mean() if sizes is not None else known.mean()
    return float(mean)


def _has_learned(run: xr.Dataset) -> bool:
    if "accuracy_test" in run:
        values = run["accuracy_test"].values
        return bool(np.nanmax(values[1:]) > np.nanmean(values[0]) + LEARNED)
    if "cost_test" in run:
        values = run["cost_test"].values
        return bool(np.nanmin(values[1:]) < np.nanmean(values[0]) * (1 - LEARNED))
    return True
