"""What a data set is, and the operations that every data set has: class subsets and the validation split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgdcircuits.errors import DatasetError
from mgdcircuits.storage import fingerprint


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test samples.

    Attributes
    ----------
    name
        What the set is called in a recorded run.
    x_train, x_validation, x_test
        Inputs, C-contiguous (n, *shape); uint8 (images) or float32. The value presented is ``x*scale``.
    y_train, y_validation, y_test
        int64 class indices (n,), or float32 targets (n, k).
    scale
        Factor on x: 1/255 for 8-bit images, 1 for floats.
    classes
        Names of the classes, position = class index; empty when the targets are floats.
    n_classes
        ``len(classes)``.
    columns
        For CSV files: every named column group over the *training* rows, aligned with `x_train`; (n,) for a plain
        name, (n, k) for numbered names; float64, or text. Empty for other sets.
    """

    name: str
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_validation: NDArray[Any]
    y_validation: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    scale: float
    classes: tuple[str, ...]
    n_classes: int
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x_train.shape[1:])

    @property
    def digest(self) -> str:
        """SHA-256 of the samples that are learned from and of those of the test, as they are presented."""
        return fingerprint(self.x_train, self.y_train, self.x_test, self.y_test, also=repr(float(self.scale)))

    def __repr__(self) -> str:
        counts = f"train={len(self.x_train)}, validation={len(self.x_validation)}, test={len(self.x_test)}"
        return f"Dataset({self.name!r}, shape={self.shape}, {counts}, n_classes={self.n_classes})"


def keyed_bits(n: int, key: str) -> NDArray[np.uint64]:
    """n 64-bit numbers that depend on the text `key` only.

    The raw output of Philox4x64 keyed with the first 128 bits of SHA-256(key). NumPy promises the raw output of its
    bit generators for ever, but not that of ``shuffle`` or ``standard_normal``.
    """
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(n)


def keyed_permutation(n: int, key: str) -> NDArray[np.int64]:
    """A permutation of 0..n-1 that depends on n and `key` only: the stable argsort of `keyed_bits`."""
    return np.argsort(keyed_bits(n, key), kind="stable")


def from_arrays(
    x: ArrayLike,
    y: ArrayLike,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    x_validation: ArrayLike | None = None,
    y_validation: ArrayLike | None = None,
    *,
    name: str = "arrays",
    scale: float | None = None,
    class_names: Sequence[str] | None = None,
    classes: Sequence[int | str] | None = None,
    validation: int = 0,
    columns: Mapping[str, NDArray[Any]] | None = None,
) -> Dataset:
    """A data set from the user's own arrays.

    Parameters
    ----------
    x, y
        Training inputs (n, *shape) and class indices (n,) of integer or bool type, or float targets (n,) or (n, k).
    x_test, y_test
        Test samples, both or neither; without them the test set is the whole training set, validation included.
    x_validation, y_validation
        Validation samples, both or neither; not together with `validation`.
    scale
        Factor from x to the presented value. Default 1/255 for uint8, otherwise 1. Only uint8 is kept as it is; every
        other type becomes float32.
    class_names
        Names by class index; default "0", "1", ... up to the largest index.
    classes, validation
        See `select_classes` and `split_validation`.

    Raises
    ------
    DatasetError
        Shapes or lengths that do not fit, values that are infinite or not a number, negative class indices.
    """
    train = _pair(x, y, "x", "y")
    test = train if x_test is None and y_test is None else _pair(x_test, y_test, "x_test", "y_test")
    if x_validation is None and y_validation is None:
        held = train[0][:0], train[1][:0]
    elif validation:
        raise DatasetError("x_validation and validation=... are both given; give one of them")
    else:
        held = _pair(x_validation, y_validation, "x_validation", "y_validation")
    for label, (other_x, other_y) in {"x_test": test, "x_validation": held}.items():
        if other_x.shape[1:] != train[0].shape[1:] or other_x.dtype != train[0].dtype:
            raise DatasetError(
                f"{label} holds {other_x.dtype} samples of shape {other_x.shape[1:]}; expected those of x, "
                f"{train[0].dtype} of shape {train[0].shape[1:]}"
            )
        if other_y.shape[1:] != train[1].shape[1:] or other_y.dtype.kind != train[1].dtype.kind:
            raise DatasetError(f"the targets that go with {label} are of another kind than y; expected the same kind")
    names = _class_names((train[1], held[1], test[1]), class_names)
    is_image = train[0].dtype == np.uint8
    dataset = Dataset(
        name=name,
        x_train=train[0],
        y_train=train[1],
        x_validation=held[0],
        y_validation=held[1],
        x_test=test[0],
        y_test=test[1],
        scale=(1 / 255 if is_image else 1.0) if scale is None else float(scale),
        classes=names,
        n_classes=len(names),
        columns=dict(columns or {}),
    )
    return split_validation(select_classes(dataset, classes), validation)


def select_classes(dataset: Dataset, classes: Sequence[int | str] | None) -> Dataset:
    """Only the samples of some classes, relabelled 0, 1, ... in the order given (indices or names).

    Raises
    ------
    DatasetError
        An unknown or repeated class, or a data set without classes.
    """
    if classes is None:
        return dataset
    if not dataset.n_classes:
        raise DatasetError(f"{dataset.name} has float targets and no classes; leave out classes=...")
    wanted = [_class_index(dataset, entry) for entry in classes]
    if len(wanted) < 1 or len(set(wanted)) != len(wanted):
        raise DatasetError(f"classes={list(classes)}: expected at least one class and none twice")
    new_index = np.full(dataset.n_classes, -1, np.int64)
    new_index[wanted] = np.arange(len(wanted))

    def part(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        relabelled = new_index[y]
        keep = relabelled >= 0
        return x[keep], relabelled[keep], keep

    x_train, y_train, kept = part(dataset.x_train, dataset.y_train)
    if not len(x_train):
        raise DatasetError(f"{dataset.name} has no training sample of the classes {list(classes)}")
    x_validation, y_validation, _ = part(dataset.x_validation, dataset.y_validation)
    x_test, y_test, _ = part(dataset.x_test, dataset.y_test)
    return replace(
        dataset,
        x_train=x_train,
        y_train=y_train,
        x_validation=x_validation,
        y_validation=y_validation,
        x_test=x_test,
        y_test=y_test,
        classes=tuple(dataset.classes[index] for index in wanted),
        n_classes=len(wanted),
        columns={name: values[kept] for name, values in dataset.columns.items()},
    )


def split_validation(dataset: Dataset, validation: int) -> Dataset:
    """Hold out `validation` training samples: the last ones of a keyed shuffle.

    The shuffle is ``keyed_permutation(n_train, "mgdcircuits validation")``, the same for every seed, and only chooses:
    both parts keep the order of the file. It comes after the choice of classes.

    Raises
    ------
    DatasetError
        A number below 0 or with no training sample left, or a data set that is split already.
    """
    n = len(dataset.x_train)
    if not validation:
        return dataset
    if isinstance(validation, bool) or int(validation) != validation or not 0 < validation < n:
        raise DatasetError(f"validation={validation}: expected a number of samples between 0 and {n - 1}")
    if len(dataset.x_validation):
        raise DatasetError(f"{dataset.name} has validation samples already; leave out validation=...")
    order = keyed_permutation(n, "mgdcircuits validation")
    kept, held = np.sort(order[: n - int(validation)]), np.sort(order[n - int(validation) :])
    return replace(
        dataset,
        x_train=dataset.x_train[kept],
        y_train=dataset.y_train[kept],
        x_validation=dataset.x_train[held],
        y_validation=dataset.y_train[held],
        columns={name: values[kept] for name, values in dataset.columns.items()},
    )


def _class_index(dataset: Dataset, entry: int | str) -> int:
    if isinstance(entry, str) and entry in dataset.classes:
        return dataset.classes.index(entry)
    if isinstance(entry, str) and not entry.isdecimal():
        raise DatasetError(f"{dataset.name} has no class {entry!r}; expected one of {', '.join(dataset.classes)}")
    if isinstance(entry, (bool, np.bool_)) or int(entry) != entry and not isinstance(entry, str):
        raise DatasetError(f"class {entry!r}: expected an index or a name")
    index = int(entry)
    if not 0 <= index < dataset.n_classes:
        raise DatasetError(f"{dataset.name} has no class {index}; expected 0 to {dataset.n_classes - 1}")
    return index


def _pair(x: Any, y: Any, x_label: str, y_label: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both arrays in the types that `Dataset` promises."""
    if x is None or y is None:
        raise DatasetError(f"{x_label} and {y_label} belong together; only one of them is given")
    inputs, targets = _array(x, x_label), _array(y, y_label)
    if inputs.ndim < 2:
        raise DatasetError(f"{x_label} has shape {inputs.shape}; expected (samples, *shape of one input)")
    if targets.ndim not in (1, 2):
        raise DatasetError(f"{y_label} has shape {targets.shape}; expected (samples,) or (samples, targets)")
    if len(inputs) != len(targets):
        raise DatasetError(f"{x_label} has {len(inputs)} samples and {y_label} {len(targets)}; expected as many")
    if not len(inputs):
        raise DatasetError(f"{x_label} has no samples; expected at least one")
    inputs = np.ascontiguousarray(inputs, np.uint8 if inputs.dtype == np.uint8 else np.float32)
    if inputs.dtype != np.uint8 and not np.isfinite(inputs).all():
        raise DatasetError(f"{x_label} holds values that are infinite or not a number (as float32); mend the data")
    if targets.dtype.kind in "biu" and targets.ndim == 1:
        targets = np.ascontiguousarray(targets, np.int64)
        if targets.min() < 0:
            raise DatasetError(f"{y_label} holds the class index {targets.min()}; expected 0, 1, ... or float targets")
        return inputs, targets
    targets = np.ascontiguousarray(targets.reshape(len(targets), -1), np.float32)
    if not np.isfinite(targets).all():
        raise DatasetError(f"{y_label} holds values that are infinite or not a number (as float32); mend the data")
    return inputs, targets


def _array(values: Any, label: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DatasetError(f"{label} is not an array ({error}); expected rows of equal length") from None
    if array.dtype.kind not in "biuf":
        raise DatasetError(f"{label} holds {array.dtype}; expected real numbers")
    return array


def _class_names(targets: Sequence[NDArray[Any]], given: Sequence[str] | None) -> tuple[str, ...]:
    if targets[0].dtype.kind == "f":
        return ()
    n = 1 + max(int(part.max()) for part in targets if len(part))
    if given is None:
        # A class index is also a size (one-hot targets), so one stray label must not ask for terabytes.
        if n > 1_000_000:
            raise DatasetError(f"y holds the class index {n - 1}; expected consecutive indices 0, 1, ...")
        return tuple(str(index) for index in range(n))
    if n > len(given):
        raise DatasetError(f"y holds the class index {n - 1}, but there are {len(given)} class names")
    return tuple(given)
