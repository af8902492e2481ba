"""Fashion-MNIST: where it may lie on this machine, where it comes from, and how its files are read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mgdcircuits.datasets.dataset import Dataset, from_arrays
from mgdcircuits.datasets.files import KnownFile, Unavailable, progress_bar, unpack_debian_package
from mgdcircuits.errors import DatasetError

VARIABLE = "MGDCIRCUITS_DATA"
PACKAGE = "dataset-fashion-mnist"
INSIDE_PACKAGE = "usr/share/datasets/fashion-mnist"
SYSTEM_FOLDER = Path("/") / INSIDE_PACKAGE
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
# Folder names in use inside a data folder: ours, Debian's, torchvision's; or the files lie in it directly.
SUBFOLDERS = ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", ".")
LOCK_SECONDS = 600.0

# SHA-256 and size of the decompressed files, computed from Debian's package 0.0~git20200523.55506a9-1.
TRAIN_IMAGES = KnownFile(
    "train-images-idx3-ubyte.gz", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47_040_016
)
TRAIN_LABELS = KnownFile(
    "train-labels-idx1-ubyte.gz", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60_008
)
TEST_IMAGES = KnownFile(
    "t10k-images-idx3-ubyte.gz", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7_840_016
)
TEST_LABELS = KnownFile(
    "t10k-labels-idx1-ubyte.gz", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10_008
)
FILES = (TRAIN_LABELS, TEST_LABELS, TEST_IMAGES, TRAIN_IMAGES)  # small ones first: a bad mirror shows early

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

Contents = dict[str, bytes]


def fashion_mnist(*, data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """60,000 training and 10,000 test images: x (n, 1, 28, 28) uint8, scale 1/255; ten classes (Xiao et al. 2017).

    Parameters
    ----------
    data_dir
        Folder to look in first, and to download to; default: the environment variable MGDCIRCUITS_DATA.
    options
        `classes` and `validation` as in `mgdcircuits.datasets.load`.

    Raises
    ------
    DatasetError
        If no source has the files; says what was tried.
    """
    _, contents = obtain(data_dir)
    return from_arrays(
        _images(contents[TRAIN_IMAGES.name]),
        _labels(contents[TRAIN_LABELS.name]),
        _images(contents[TEST_IMAGES.name]),
        _labels(contents[TEST_LABELS.name]),
        name="fashion_mnist",
        class_names=CLASSES,
        **options,
    )


def obtain(data_dir: str | Path | None = None) -> tuple[Path, Contents]:
    """Find or fetch the four files; the folder they lie in and their verified contents.

    In this order: `data_dir` or MGDCIRCUITS_DATA, the user's cache, Debian's folder, the public mirrors, Debian's or
    Ubuntu's package. What has to be fetched goes to `data_dir` (or the variable's folder), else to the cache.

    Raises
    ------
    DatasetError
        One sentence with what was tried and how to mend it.
    """
    tried: list[str] = []
    if (found := _search(data_dir, tried)) is not None:
        return found
    folder = _destination(data_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            # Another process may have fetched the files while this one waited for the lock.
            if (contents := _read(folder, [])) is not None:
                return folder, contents
            for leftover in folder.glob(".*.part"):  # of a process that was killed; the lock says nobody writes it
                leftover.unlink(missing_ok=True)
            _fetch_into(folder, tried)
            contents = _read(folder, tried)
    except Timeout:
        raise DatasetError(f"another process has been fetching {folder} for {LOCK_SECONDS:.0f} s; end it") from None
    except OSError as error:
        raise DatasetError(
            f"Fashion-MNIST cannot be stored in {folder} ({error.strerror or error}): name a writable folder with "
            f"--data-dir or {VARIABLE}"
        ) from None
    if contents is None:
        raise _not_found(tried)
    return folder, contents


def user_cache() -> Path:
    """The user's cache folder for data; platformdirs honours XDG_CACHE_HOME."""
    return Path(platformdirs.user_cache_dir("mgdcircuits")) / "data"


def _given_folder(data_dir: str | Path | None) -> Path | None:
    chosen = data_dir or os.environ.get(VARIABLE) or None
    return None if chosen is None else Path(chosen).expanduser()


def _destination(data_dir: str | Path | None) -> Path:
    """Where to store what is fetched: the folder the user named, unless it cannot be written to."""
    cache = user_cache() / SUBFOLDERS[0]
    given = _given_folder(data_dir)
    if given is None:
        return cache
    try:
        (given / SUBFOLDERS[0]).mkdir(parents=True, exist_ok=True)
    except OSError:
        return cache
    return given / SUBFOLDERS[0] if os.access(given / SUBFOLDERS[0], os.W_OK) else cache


def _places(data_dir: str | Path | None) -> list[Path]:
    given = _given_folder(data_dir)
    named = [] if given is None else [given / name for name in SUBFOLDERS]
    return [*named, user_cache() / SUBFOLDERS[0], SYSTEM_FOLDER]


def _search(data_dir: str | Path | None, tried: list[str]) -> tuple[Path, Contents] | None:
    """The first place on this machine that has all four files, undamaged."""
    damaged: list[str] = []
    for folder in _places(data_dir):
        here: list[str] = []
        contents = _read(folder, here)
        if contents is not None:
            return folder, contents
        for sentence in here:
            warnings.warn(f"{sentence}; taking Fashion-MNIST from elsewhere", UserWarning, stacklevel=3)
        damaged += here
    given = _given_folder(data_dir)
    looked = [*([] if given is None else [given]), user_cache(), SYSTEM_FOLDER]
    tried += [*damaged, "no complete copy in " + ", ".join(map(str, looked))]
    return None


def _read(folder: Path, damaged: list[str]) -> Contents | None:
    """The four contents, or None; a file that exists and is damaged is named in `damaged`."""
    contents: Contents = {}
    for file in FILES:
        copies = [folder / file.name, folder / file.name.removesuffix(".gz")]
        for path in copies:
            if not path.is_file():
                continue
            try:
                contents[file.name] = file.read(path)
                break
            except Unavailable as problem:
                damaged.append(str(problem))
    return contents if len(contents) == len(FILES) else None


def _fetch_into(folder: Path, tried: list[str]) -> None:
    """Mirrors, then the distribution's package; whichever gives all four files ends the search."""
    sources: list[Callable[[], None]] = [partial(_download, base, folder) for base in MIRRORS]
    sources.append(partial(unpack_debian_package, PACKAGE, INSIDE_PACKAGE, FILES, folder))
    for source in sources:
        try:
            source()
            return
        except Unavailable as problem:
            tried.append(str(problem))


def _download(base: str, folder: Path) -> None:
    for file in FILES:
        try:
            file.read(folder / file.name)  # left by an earlier download that was interrupted
            continue
        except Unavailable:
            pass
        with progress_bar(f"Fashion-MNIST: {file.name}") as progress:
            file.download(base, folder, progress)


def _not_found(tried: list[str]) -> DatasetError:
    return DatasetError(
        "Fashion-MNIST was not found and could not be fetched; tried: "
        + "; ".join(dict.fromkeys(tried))
        + f"; connect to the network, or install Debian's {PACKAGE}, or put the four files "
        + f"({', '.join(file.name for file in FILES)}) into a folder and name it with --data-dir or {VARIABLE}"
    )


def _images(data: bytes) -> NDArray[np.uint8]:
    # IDX: magic number, three sizes (big-endian 32 bit), bytes row by row. The hash has vouched for the header.
    return np.frombuffer(data, np.uint8, offset=16).reshape(-1, 1, 28, 28).copy()


def _labels(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8, offset=8)
