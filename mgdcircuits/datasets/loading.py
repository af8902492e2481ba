"""Data sets by name, and whatever a user may hand over as one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mgdcircuits.datasets import fashion_mnist as fashion
from mgdcircuits.datasets.csv_file import read_csv
from mgdcircuits.datasets.dataset import Dataset, from_arrays, select_classes, split_validation
from mgdcircuits.datasets.small import digits, letters, parity
from mgdcircuits.errors import DatasetError


def _xor(**options: Any) -> Dataset:
    return parity(2, name="xor", **options)


LOADERS: dict[str, Callable[..., Dataset]] = {
    "fashion_mnist": fashion.fashion_mnist,
    "digits": digits,
    "letters": letters,
    "parity": parity,
    "xor": _xor,
    "csv": read_csv,
}
NAMES = tuple(LOADERS)
COMMON = ("validation", "classes")
# What from_arrays and a given Dataset's fields are called in a dictionary.
ARRAY_KEYS = {"x_train": "x", "y_train": "y"}


def load(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    validation: int = 0,
    classes: Sequence[int | str] | None = None,
    **options: Any,
) -> Dataset:
    """A data set by its name, or a CSV file by its path.

    Parameters
    ----------
    name
        "fashion_mnist", "digits", "letters" (options n, n_test, noise, flips, shift, seed), "parity" (option n),
        "xor", "csv" (options path, x, y, kind, test), or a path that ends in .csv (same options without path).
    data_dir
        Where downloaded sets are looked for first and stored; default: MGDCIRCUITS_DATA, else the user's cache.
        A relative CSV path that does not exist is looked for there, too.
    validation
        Number of training samples to hold out: the last ones of a keyed shuffle that does not depend on any seed.
    classes
        Keep only these classes (indices or names), relabelled 0, 1, ... in this order.

    Raises
    ------
    DatasetError
        An unknown name or option, data that cannot be found, read or trusted.
    """
    key = str(name)
    if key.lower().endswith(".csv"):
        options, key = {"path": name, **options}, "csv"
    if key not in LOADERS:
        raise _unknown(key)
    loader = LOADERS[key]
    _check_options(key, loader, options)
    if loader is fashion.fashion_mnist:
        options["data_dir"] = data_dir
    if loader is read_csv:
        options["path"] = _csv_path(options["path"], data_dir)
    return loader(validation=validation, classes=classes, **options)


def fetch(name: str, data_dir: str | Path | None = None) -> Path:
    """Make sure that a data set lies on this machine; the folder it lies in.

    Raises
    ------
    DatasetError
        If it could not be fetched, or is built in and has no folder.
    """
    if name not in LOADERS:
        raise _unknown(name)
    if name != "fashion_mnist":
        raise DatasetError(f"{name} needs no fetching: it is computed, comes with a package, or is your own file")
    return fashion.obtain(data_dir)[0]


def as_dataset(obj: Any, **options: Any) -> Dataset:
    """What the user gave as data, as a `Dataset`.

    Parameters
    ----------
    obj
        A name or path for `load`; a `Dataset`; a tuple (x, y), (x, y, x_test, y_test) or ((x, y), (x_test, y_test));
        or a mapping with x, y (or x_train, y_train) and optionally x_test, y_test, x_validation, y_validation.
    options
        Passed on to `load` or `from_arrays`; for a `Dataset` only `classes` and `validation`.

    Raises
    ------
    DatasetError
        Anything else, and all errors of `load` and `from_arrays`.
    """
    if isinstance(obj, (str, Path)):
        return load(obj, **options)
    # Where the data came with its own place, the place for downloads has no meaning.
    options.pop("data_dir", None)
    if isinstance(obj, Dataset):
        if unknown := set(options) - set(COMMON):
            raise DatasetError(f"option {min(unknown)} with a Dataset; expected {' or '.join(COMMON)}")
        return split_validation(select_classes(obj, options.get("classes")), options.get("validation", 0))
    _check_options("arrays", from_arrays, options)
    if isinstance(obj, Mapping):
        arrays = {ARRAY_KEYS.get(str(key), str(key)): values for key, values in obj.items()}
        _check_options("a mapping of arrays", from_arrays, arrays)
        if not {"x", "y"} <= set(arrays) or set(arrays) & set(options):
            raise DatasetError(f"a mapping with {', '.join(map(str, obj))}; expected x and y, and each option once")
        return from_arrays(**arrays, **options)
    if isinstance(obj, (tuple, list)):
        parts = tuple(obj)
        if len(parts) == 2 and all(isinstance(part, (tuple, list)) and len(part) == 2 for part in parts):
            if any(hasattr(array, "shape") for part in parts for array in part):
                parts = (*parts[0], *parts[1])
        if len(parts) in (2, 4):
            return from_arrays(*parts, **options)
        raise DatasetError(f"{len(parts)} arrays as data; expected (x, y) or (x, y, x_test, y_test)")
    raise DatasetError(
        f"{type(obj).__name__} as data; expected a name ({', '.join(NAMES)}), a CSV path, a Dataset, (x, y) arrays or "
        "a mapping with x and y"
    )


def _unknown(name: str) -> DatasetError:
    near = get_close_matches(name.replace("-", "_").lower(), NAMES, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return DatasetError(f"unknown data set {name!r}; expected {', '.join(NAMES)} or a file that ends in .csv{hint}")


def _check_options(name: str, loader: Callable[..., Dataset], options: Mapping[str, Any]) -> None:
    """Unknown options by name, before Python would complain in its own words."""
    parameters = inspect.signature(loader).parameters.values()
    known = [item.name for item in parameters if item.kind is not inspect.Parameter.VAR_KEYWORD]
    if loader is not from_arrays:
        known = [item for item in known if item not in ("data_dir", "name")]
    unknown = [option for option in options if option not in known]
    if unknown:
        near = get_close_matches(str(unknown[0]), known, 1)
        allowed = ", ".join(item for item in known if item not in COMMON) or "none of its own"
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DatasetError(f"{name} has no option {unknown[0]}; expected {allowed}{hint}")
    if loader is read_csv and "path" not in options:
        raise DatasetError("data set csv without a path; expected path=... or a name that ends in .csv")


def _csv_path(path: str | Path, data_dir: str | Path | None) -> Path:
    chosen = Path(path).expanduser()
    if data_dir is not None and not chosen.exists() and (Path(data_dir) / chosen).exists():
        return Path(data_dir) / chosen
    return chosen
