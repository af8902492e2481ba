"""A session on disk: everything that a run needs to go on as if it had not stopped.

A checkpoint is one netCDF-4 file: every array of the program by name, and the netlist, overrides, seeds, counters and
runtime numbers as JSON in its attributes. It is written to a temporary file, synced and renamed, so that a crash leaves
either the old one or the new one.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mgdcircuits.circuit.circuit import Circuit
from mgdcircuits.errors import RunError
from mgdcircuits.netlist import load as load_spec

if TYPE_CHECKING:
    from mgdcircuits.session import Session

FORMAT = 1


def save(session: Session, path: str | Path) -> None:
    """Write a checkpoint.

    Raises
    ------
    RunError
        The file cannot be written; an earlier checkpoint at the path stays as it was.
    """
    path = Path(path)
    target = session.target
    variables = {
        f"array_{k}": xr.DataArray(
            np.ascontiguousarray(target.array(a.name)),
            dims=(f"elements_{k}", "member", f"lanes_{k}"),
            attrs={"name": a.name},
        )
        for k, a in enumerate(session.program.arrays)
    }
    spec = session.circuit.spec
    about = {
        "format": FORMAT,
        "file": str(spec.file),
        "overrides": {k: str(v) for k, v in spec.overrides.items()},
        "batch": session.batch,
        "seeds": [int(s) for s in session.seeds],
        "target": session.target_name,
        "dtype": target.dtype.name,
        "iteration": target.iteration,
        "parameters": target.parameters,
        "pinned": session.pinned,
    }
    dataset = xr.Dataset(variables, attrs={"netlist": spec.text, "checkpoint": json.dumps(about)})
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            temporary = Path(file.name)
        dataset.to_netcdf(temporary, engine="netcdf4", format="NETCDF4")
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: the checkpoint was not written: {getattr(error, 'strerror', None) or error}") from None


def resume(path: str | Path, *, threads: int = 1, data: Any = None) -> Session:
    """A session that goes on where `save` left it.

    Parameters
    ----------
    path
        Written by `save`.
    threads
        May differ from the saved session's; the results do not depend on it.
    data
        What `step` draws its samples from; needed again unless samples were pinned.

    Raises
    ------
    RunError
        A file that is damaged or no checkpoint of this version.
    """
    from mgdcircuits.session import Session

    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            dataset.load()
        about = json.loads(dataset.attrs["checkpoint"])
        text = dataset.attrs["netlist"]
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError):
        raise RunError(f"{path}: this is no readable checkpoint of mgdcircuits") from None
    if about.get("format") != FORMAT:
        raise RunError(f"{path}: a checkpoint of format {about.get('format')}; this version reads format {FORMAT}")
    source = about["file"] if Path(about["file"]).is_file() and Path(about["file"]).read_text() == text else text
    session = Session(
        Circuit(load_spec(source, about["overrides"])),
        batch=about["batch"],
        seed=about["seeds"],
        target=about["target"],
        dtype=about["dtype"],
        threads=threads,
        data=data,
    )
    saved = {variable.attrs["name"]: variable.values for variable in dataset.data_vars.values()}
    for array in session.program.arrays:
        view = session.target.array(array.name)
        if array.name not in saved or saved[array.name].shape != view.shape:
            raise RunError(f"{path}: the checkpoint does not fit the circuit ({array.name} differs)")
        view[...] = saved[array.name]
    session.target.iteration = about["iteration"]
    session.target.parameters.update(about["parameters"])
    session.pinned = about["pinned"]
    return session
