"""What every point of a sweep would refuse, found before the first one starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mgdcircuits.arguments import check_choices
from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.datasets import NAMES, Dataset, as_dataset, from_arrays
from mgdcircuits.datasets.of_task import dataset_of
from mgdcircuits.errors import RecordError
from mgdcircuits.recording import Recorder
from mgdcircuits.rows import Rows
from mgdcircuits.session import Session
from mgdcircuits.stopping import Condition
from mgdcircuits.sweeps.grid import DATA
from mgdcircuits.sweeps.plan import Plan
from mgdcircuits.sweeps.results import STATE
from mgdcircuits.sweeps.worker import resolved


def check(plan: Plan, data: Any, data_dir: str | Path | None, local: bool) -> list[Dataset | None]:
    """Lay out each structure as a session of one sample, without a compiler, and read the options with it.

    Parameters
    ----------
    plan
        What is to run.
    data
        Of points whose data are not swept: a name, a `Dataset`, or None for the netlist's.
    data_dir
        Where downloaded data lies.
    local
        Whether the workers find the same data as this process.

    Returns
    -------
    list
        What the points learn from, one for each swept data set. Where only the workers may have it, a sample in its place.

    Raises
    ------
    MgdError
        What `train` would say.
    """
    options = plan.options
    swept = next((axis.values for axis in plan.grid.axes if axis.name == DATA), (data,))
    samples = [_samples(plan.circuit, chosen, data_dir, local) for chosen in swept]
    for circuit in plan.structures:
        check_choices(circuit, options["target"], options["on_nan"])
        recorded = circuit.spec.record if options["record"] is None else options["record"]
        session = Session(circuit.recording(recorded), batch=1, dtype=options["dtype"], target="numpy")
        recorder = Recorder(session, session.circuit.spec.record)
        rows = Rows(session, samples[0], recorder, options["gradient"] or recorder.wants_gradient)
        if options["until"] is not None:
            Condition(options["until"], rows.scalars)
        taken = {STATE, *(declared.name for declared in rows.schema()[0])}
        for name in taken.intersection(plan.grid.names):
            raise RecordError(f"{name} is swept, and a run has a variable {name} too; give the parameter another name")
    return samples


def _samples(circuit: Circuit, data: Any, data_dir: str | Path | None, local: bool) -> Dataset | None:
    """What a point learns from; where only the workers may have it, a sample in its place if its name is possible."""
    task = circuit.spec.task
    name = data if data is not None else task and task.data
    if local or not isinstance(name, str | Path) or task is None:
        return dataset_of(circuit, resolved(data) if isinstance(data, str | Path) else data, data_dir)
    if str(name) not in NAMES and not str(name).lower().endswith(".csv"):
        as_dataset(name)  # says that it is unknown
    return from_arrays(np.zeros((1, *circuit.input_shape)), np.zeros(1))
