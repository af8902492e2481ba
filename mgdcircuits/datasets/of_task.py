"""The data that a circuit learns from: what its task names, or what a user gives instead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgdcircuits.datasets.dataset import Dataset
from mgdcircuits.datasets.loading import as_dataset
from mgdcircuits.errors import RunError

if TYPE_CHECKING:
    from mgdcircuits.circuit.circuit import Circuit


def dataset_of(circuit: Circuit, data: Any, data_dir: str | Path | None = None) -> Dataset | None:
    """The samples to learn from; none for a circuit without a task.

    Options and validation samples are those of the task, the former where the data is the one that it names.

    Raises
    ------
    DatasetError
        Data that cannot be found or read.
    RunError
        A task that names no data; data for a circuit without a task.
    """
    task = circuit.spec.task
    options: dict[str, Any] = {}
    if data is None:
        if task is None or task.data is None:
            if task is not None and task.inputs:
                raise RunError(f"{circuit.name}: the task names no data; expected --data NAME, or arrays in Python")
            return None
        data = task.data
    elif task is None:
        raise RunError(f"{circuit.name}: the netlist has no task, so no data can be shown to it")
    if task is not None:
        if task.data is not None and str(data) == task.data:
            options |= dict(task.options)
            if str(data).endswith(".csv") and not Path(str(data)).exists():
                data = Path(circuit.spec.file).parent / str(data)
        if task.validation and "validation" not in options:
            options["validation"] = task.validation
    if isinstance(data, str | Path):
        options["data_dir"] = data_dir
    return as_dataset(data, **options)
