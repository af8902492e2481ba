"""Data sets: contents and splits against independent counts, and every way in which fetching can go wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import shutil
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgdcircuits import datasets
from mgdcircuits.datasets import fashion_mnist as fashion
from mgdcircuits.datasets import files
from mgdcircuits.datasets.dataset import keyed_bits, keyed_permutation
from mgdcircuits.errors import DatasetError, NetlistError, Problem

# --- errors ---------------------------------------------------------------------------------------------------------


def test_problem_reads_found_expected_mend():
    assert str(Problem("a.yaml", 3, "unknown key popul", "populations", "rename it")) == (
        "a.yaml:3: unknown key popul; expected populations; rename it"
    )
    assert str(Problem(Path("a.yaml"), 3, "a cycle")) == "a.yaml:3: a cycle"


def test_netlist_error_survives_pickling():
    error = NetlistError([Problem("a.yaml", 1, "x"), Problem("a.yaml", 2, "y")])
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems and str(again) == "a.yaml:1: x\na.yaml:2: y"
    assert again.exit_status == 2


# --- keyed numbers --------------------------------------------------------------------------------------------------


def philox4x64(key: int, counter: int) -> list[int]:
    """One block of Philox4x64-10, from Salmon et al. 2011, figure 2 and table 2, in plain integers."""
    word = 2**64 - 1
    k0, k1 = key & word, key >> 64
    x = [counter >> 64 * i & word for i in range(4)]
    for _ in range(10):
        low, high = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
        x = [high >> 64 ^ x[1] ^ k0, high & word, low >> 64 ^ x[3] ^ k1, low & word]
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & word, k1 + 0xBB67AE8584CAA73B & word
    return x


def test_keyed_numbers_are_philox_and_never_change():
    key = int.from_bytes(hashlib.sha256(b"some key").digest()[:16], "little")
    bits = keyed_bits(8, "some key").tolist()
    assert bits == philox4x64(key, 1) + philox4x64(key, 2)
    assert keyed_permutation(8, "some key").tolist() == sorted(range(8), key=bits.__getitem__)


@given(st.integers(1, 300), st.text(max_size=8))
def test_keyed_permutation_is_one(n, key):
    assert sorted(keyed_permutation(n, key).tolist()) == list(range(n))


# --- built-in sets --------------------------------------------------------------------------------------------------


def test_xor():
    xor = datasets.load("xor")
    assert [(tuple(x), y[0]) for x, y in zip(xor.x_train.tolist(), xor.y_train.tolist(), strict=True)] == [
        ((0, 0), 0),
        ((1, 0), 1),
        ((0, 1), 1),
        ((1, 1), 0),
    ]
    assert xor.name == "xor" and xor.n_classes == 0 and xor.scale == 1
    assert xor.x_train.dtype == xor.y_train.dtype == np.float32


def test_parity_counts_bits():
    parity = datasets.load("parity", n=5)
    assert parity.x_train.shape == (32, 5) and len(np.unique(parity.x_train, axis=0)) == 32
    assert np.array_equal(parity.y_train[:, 0], parity.x_train.sum(axis=1) % 2)
    assert np.array_equal(parity.x_test, parity.x_train)


@pytest.mark.parametrize("n", [0, 21, 2.5, "3", True])
def test_parity_refuses(n):
    with pytest.raises(DatasetError, match="expected"):
        datasets.load("parity", n=n)


def test_letters_are_the_published_number_of_distinct_patterns():
    letters = datasets.load("letters")
    patterns = np.concatenate([letters.x_train, letters.x_test])
    assert len(patterns) == 44136 and set(np.unique(patterns)) == {0, 1}
    assert letters.classes == ("N", "I", "S", "T") and letters.shape == (49,)
    assert np.bincount(letters.y_train).min() > 9000


def test_letters_differ_from_a_clean_glyph_by_the_flips_only():
    clean = datasets.load("letters", flips=0)
    assert len(clean.x_train) == 4 * 9 and np.array_equal(np.sort(clean.y_train), np.repeat(np.arange(4), 9))
    noisy = datasets.load("letters", n=200, n_test=50)
    distance = np.abs(noisy.x_train[:, None] - clean.x_train[None]).sum(axis=2)
    own = noisy.y_train[:, None] == clean.y_train[None]
    assert (np.where(own, distance, 99).min(axis=1) <= 2).all()


def test_letters_noise_is_gaussian_and_repeatable():
    plain, noisy = datasets.load("letters", n=2000), datasets.load("letters", n=2000, noise=0.3)
    noise = noisy.x_train - plain.x_train
    assert abs(noise.std() - 0.3) < 0.005 and abs(noise.mean()) < 0.005
    # P(|z| < 1) tells a normal from a uniform or a Laplace distribution.
    assert abs((np.abs(noise) < 0.3).mean() - 0.6827) < 0.01
    assert np.array_equal(noisy.x_train, datasets.load("letters", n=2000, noise=0.3).x_train)
    assert not np.array_equal(noisy.x_train, datasets.load("letters", n=2000, noise=0.3, seed=1).x_train)


def test_letters_train_and_test_share_no_pattern():
    letters = datasets.load("letters", n=3000, n_test=1000)
    train = {x.tobytes() for x in letters.x_train}
    assert not train & {x.tobytes() for x in letters.x_test}


def test_digits():
    digits = datasets.load("digits")
    assert digits.x_train.shape == (1437, 64) and digits.x_test.shape == (360, 64)
    assert digits.x_train.dtype == np.uint8 and digits.x_train.max() == 16 and digits.scale == 1 / 16
    assert digits.n_classes == 10 and np.bincount(digits.y_test).min() >= 20


# --- splits ---------------------------------------------------------------------------------------------------------


def test_validation_split_is_a_partition_and_always_the_same():
    whole, split = datasets.load("digits"), datasets.load("digits", validation=400)
    again = datasets.as_dataset(whole, validation=400)
    rows = np.concatenate([split.x_train, split.x_validation])
    assert len(split.x_validation) == len(split.y_validation) == 400
    assert sorted(map(bytes, rows)) == sorted(map(bytes, whole.x_train))
    assert np.array_equal(again.x_validation, split.x_validation) and np.array_equal(again.y_train, split.y_train)
    assert split.x_train.flags.c_contiguous


def test_class_subset_relabels_in_the_order_given():
    whole, pair = datasets.load("digits"), datasets.load("digits", classes=[8, 3], validation=20)
    assert pair.classes == ("8", "3") and pair.n_classes == 2
    assert np.array_equal(pair.x_test[pair.y_test == 0], whole.x_test[whole.y_test == 8])
    assert len(pair.x_train) + 20 == np.isin(whole.y_train, [3, 8]).sum()
    assert datasets.load("letters", classes=["T", "N"], n=50).classes == ("T", "N")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1437}, "validation=1437: expected a number of samples between 0 and 1436"),
        ({"validation": -1}, "validation=-1"),
        ({"classes": [3, 11]}, "digits has no class 11; expected 0 to 9"),
        ({"classes": ["three"]}, "digits has no class 'three'; expected one of 0, 1, 2"),
        ({"classes": [3, 3]}, "none twice"),
        ({"classes": []}, "at least one class"),
        ({"n": 3}, "digits has no option n; expected none of its own"),
    ],
)
def test_digits_refuses(options, message):
    with pytest.raises(DatasetError, match=message):
        datasets.load("digits", **options)


def test_float_targets_have_no_classes():
    with pytest.raises(DatasetError, match="xor has float targets and no classes"):
        datasets.load("xor", classes=[0])


def test_unknown_names_are_met_with_the_nearest():
    with pytest.raises(DatasetError, match="unknown data set 'letter'.*did you mean letters"):
        datasets.load("letter")
    with pytest.raises(DatasetError, match="letters has no option nois;.*did you mean noise"):
        datasets.load("letters", nois=1)
    with pytest.raises(DatasetError, match="digits needs no fetching"):
        datasets.fetch("digits")
    with pytest.raises(DatasetError, match="unknown data set 'mnist'"):
        datasets.fetch("mnist")


# --- arrays ---------------------------------------------------------------------------------------------------------


def test_arrays_in_every_form():
    x, y = np.random.default_rng(0).random((6, 2, 3)), np.array([0, 1, 2, 0, 1, 2])
    forms = [
        (x, y),
        [x, y],
        (x, y, x[:2], y[:2]),
        ((x, y), (x[:2], y[:2])),
        {"x": x, "y": y},
        {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:2]},
        datasets.from_arrays(x, y),
    ]
    for form in forms:
        dataset = datasets.as_dataset(form)
        assert dataset.x_train.dtype == np.float32 and dataset.shape == (2, 3)
        assert dataset.y_train.dtype == np.int64 and dataset.n_classes == 3
        assert len(dataset.x_test) in (2, 6) and dataset.x_validation.shape == (0, 2, 3)


def test_bytes_stay_bytes_and_columns_of_floats_stay_targets():
    dataset = datasets.from_arrays(np.full((3, 4), 255, np.uint8), [0.5, 1.5, 2.0])
    assert dataset.x_train.dtype == np.uint8 and np.isclose(dataset.x_train[0, 0] * dataset.scale, 1)
    assert dataset.y_train.shape == (3, 1) and dataset.y_train.dtype == np.float32


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([[1.0], [2.0]], [0, 1, 0]), "x has 2 samples and y 3"),
        (([1.0, 2.0], [0, 1]), r"x has shape \(2,\)"),
        (([[1.0], [np.nan]], [0, 1]), "not a number"),
        (([[1e300], [1]], [0, 1]), "infinite"),
        (([[1.0], [2.0]], [0, -1]), "class index -1"),
        (([[1.0], [2.0]], [0, 10**7]), "class index 10000000"),
        (([[1.0], [2.0, 3.0]], [0, 1]), "rows of equal length"),
        (([["a"], ["b"]], [0, 1]), "expected real numbers"),
        (([[1.0]], [0], [[1.0, 2.0]], [0]), "x_test holds float32 samples of shape"),
        (([[1.0]], [0], [[1.0]], [0.5]), "another kind than y"),
        (([[1.0]],), "1 arrays as data"),
        ({"x": [[1.0]]}, "expected x and y"),
        ({"x": [[1.0]], "y": [0], "z": 1}, "a mapping of arrays has no option z"),
        (3.5, "float as data; expected a name"),
        ((np.zeros((0, 2)), []), "no samples"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_arrays_refused(data, message):
    with pytest.raises(DatasetError, match=message):
        datasets.as_dataset(data)


# --- CSV ------------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_csv_of_features(tmp_path):
    path = write(tmp_path / "features.csv", "# a comment\nx0,x1,y\n0.5,1,0\n\n2,3e-1,2\n")
    dataset = datasets.load(str(path))
    assert dataset.name == "features" and dataset.x_train.tolist() == [[0.5, 1], [2, np.float32(0.3)]]
    assert dataset.y_train.tolist() == [0, 2] and dataset.classes == ("0", "1", "2")
    assert datasets.load("features.csv", data_dir=tmp_path).x_train.shape == (2, 2)
    assert datasets.load("csv", path=path).x_train.shape == (2, 2)


def test_csv_of_cues(tmp_path):
    path = write(tmp_path / "cues.csv", "name,pattern2,pattern1,side\nleft,0,1,-1\nright,1,0,1\n")
    dataset = datasets.load(path, x="pattern")
    assert dataset.x_train.tolist() == [[1, 0], [0, 1]], "numbered columns come in the order of their numbers"
    assert dataset.y_train.tolist() == [[-1], [1]] and dataset.n_classes == 0
    assert dataset.columns["side"].tolist() == [-1, 1] and dataset.columns["name"].tolist() == ["left", "right"]
    assert dataset.columns["pattern"].shape == (2, 2)
    held = datasets.load(path, x="pattern", validation=1)
    assert len(held.columns["name"]) == 1 and held.columns["pattern"].tolist() == held.x_train.tolist()


def test_csv_with_text_classes_and_a_test_file(tmp_path):
    train = write(tmp_path / "train.csv", "a,b,kind\n1,2,dog\n3,4,cat\n")
    test = write(tmp_path / "test.csv", "a,b,kind\n5,6,cat\n")
    dataset = datasets.load(train, test=test)
    assert dataset.classes == ("cat", "dog") and dataset.y_train.tolist() == [1, 0]
    assert dataset.x_test.tolist() == [[5, 6]] and dataset.y_test.tolist() == [0]
    many = write(tmp_path / "many.csv", "x,y\n" + "".join(f"{i},{i / 7}\n" for i in range(30)))
    split = datasets.load(many, test=10)
    assert sorted(split.x_train[:, 0].tolist() + split.x_test[:, 0].tolist()) == list(range(30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.csv:1: no header; expected a line of column names"),
        ("x0,y\n", "f.csv:1: a header and no rows"),
        ("1,2\n3,4\n", "f.csv:1: '1' in column 1; expected a name.*add a header line"),
        ("x0,x0,y\n1,2,3\n", "f.csv:1: the column x0 twice"),
        ("x0,x2,y\n1,2,3\n", "f.csv:1: columns x0 .. x2 with a gap"),
        ("x,x1,y\n1,2,3\n", "f.csv:1: both x and x1"),
        ("x0,y\n1,0\n\n2\n3,1,4\n", "f.csv:4: 1 values; expected 2.*\nf.csv:5: 3 values"),
        ("x0,y\n1,0\nabc,1\n,1\nnan,0\n", "f.csv:3: 'abc' in column x0.*\nf.csv:4: nothing in.*\nf.csv:5: 'nan'"),
        ("x0,y\n1,0.5\n2,\n", "f.csv:3: nothing in column y; expected a finite number"),
        ("x0,y\n1,cat\n2,\n", "f.csv:3: nothing in column y; expected a class"),
        ("y\n1\n", "f.csv:1: only the column y"),
        ('x0,y\n1,"2\n', "f.csv:[12]: not a CSV line"),
    ],
)
def test_csv_problems_name_their_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "f.csv", text)
    with pytest.raises(DatasetError, match=message):
        datasets.load("f.csv")


def test_csv_options_refused(tmp_path):
    path = write(tmp_path / "f.csv", "x0,y\n1,0.5\n2,1\n")
    for options, message in [
        ({"y": "z"}, "no column z"),
        ({"x": "z"}, "no column z; expected one of x, y"),
        ({"test": 2}, "rows from 1 to 1"),
        ({"kind": "class"}, "expected class indices or text"),
        ({"kind": "colour"}, "expected 'class' or 'float'"),
    ]:
        with pytest.raises(DatasetError, match=message):
            datasets.load(path, **options)
    with pytest.raises(DatasetError, match="absent.csv: cannot be read"):
        datasets.load(tmp_path / "absent.csv")
    (tmp_path / "bytes.csv").write_bytes(b"x0,y\n\xff\xfe,1\n")
    with pytest.raises(DatasetError, match="bytes.csv:.*not a CSV line"):
        datasets.load(tmp_path / "bytes.csv")


@given(st.text(alphabet='xy01,\n".#ä-', max_size=40))
def test_csv_garbage_gives_a_dataset_or_a_sentence(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "garbage.csv"
    path.write_text(text)
    try:
        assert len(datasets.load(path).x_train)
    except DatasetError as error:
        assert "garbage.csv" in str(error) or "class index" in str(error)


# --- fetching, with four tiny files in place of the real ones -------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Ten training and five test images, an empty cache, no system folder, no apt; returns the four gzipped files."""
    contents = {
        fashion.TRAIN_IMAGES.name: bytes(16) + bytes(range(10)) * 784,
        fashion.TRAIN_LABELS.name: bytes(8) + bytes(range(10)),
        fashion.TEST_IMAGES.name: bytes(16) + bytes(5 * 784),
        fashion.TEST_LABELS.name: bytes(8) + bytes(range(5)),
    }
    for variable in ("TRAIN_IMAGES", "TRAIN_LABELS", "TEST_IMAGES", "TEST_LABELS"):
        name = getattr(fashion, variable).name
        known = files.KnownFile(name, hashlib.sha256(contents[name]).hexdigest(), len(contents[name]))
        monkeypatch.setattr(fashion, variable, known)
    known_files = (fashion.TRAIN_LABELS, fashion.TEST_LABELS, fashion.TEST_IMAGES, fashion.TRAIN_IMAGES)
    monkeypatch.setattr(fashion, "FILES", known_files)
    monkeypatch.setattr(fashion, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(fashion, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(files.shutil, "which", lambda name: None)
    monkeypatch.setattr(files, "_require_resolvable", lambda host: None)
    monkeypatch.delenv(fashion.VARIABLE, raising=False)
    return {name: gzip.compress(data) for name, data in contents.items()}


class Answer(io.BytesIO):
    """What urlopen returns, as far as a download looks at it; may promise more than it sends."""

    def __init__(self, data: bytes, promised: int | None = None) -> None:
        super().__init__(data)
        self.headers = {"Content-Length": str(len(data) if promised is None else promised)}


def serve(monkeypatch, answer):
    """Let every download call answer(file name) instead of the network; returns the addresses asked for."""
    asked: list[str] = []

    def urlopen(address, timeout):
        assert timeout <= 10
        asked.append(address)
        return answer(address.rsplit("/", 1)[1])

    monkeypatch.setattr(files.urllib.request, "urlopen", urlopen)
    return asked


def offline(name):
    raise urllib.error.URLError("Name or service not known")


def put(folder: Path, tiny: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, data in tiny.items():
        (folder / name).write_bytes(data)


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def test_download_verifies_and_stores(tiny, tmp_path, monkeypatch):
    asked = serve(monkeypatch, lambda name: Answer(tiny[name]))
    dataset = datasets.load("fashion_mnist")
    assert dataset.x_train.shape == (10, 1, 28, 28) and dataset.y_test.tolist() == [0, 1, 2, 3, 4]
    assert len(asked) == 4 and all(address.startswith(fashion.MIRRORS[0]) for address in asked)
    assert left_in(tmp_path / "cache" / "fashion_mnist") == set(tiny)
    datasets.load("fashion_mnist")
    assert len(asked) == 4, "the second time comes from the cache"


@pytest.mark.parametrize("folder", ["given/fashion_mnist", "given", "given/FashionMNIST/raw", "system"])
def test_copies_on_this_machine_are_found_without_network(tiny, tmp_path, monkeypatch, folder):
    asked = serve(monkeypatch, offline)
    put(tmp_path / folder, tiny)
    monkeypatch.setenv(fashion.VARIABLE, str(tmp_path / "given"))
    assert datasets.fetch("fashion_mnist").resolve() == (tmp_path / folder).resolve()
    assert not asked


def test_uncompressed_copies_serve_too(tiny, tmp_path, monkeypatch):
    serve(monkeypatch, offline)
    put(tmp_path / "given", {name.removesuffix(".gz"): gzip.decompress(data) for name, data in tiny.items()})
    assert len(datasets.load("fashion_mnist", data_dir=tmp_path / "given").x_train) == 10


def test_fetch_goes_to_the_folder_named(tiny, tmp_path, monkeypatch):
    serve(monkeypatch, lambda name: Answer(tiny[name]))
    assert datasets.fetch("fashion_mnist", tmp_path / "here") == tmp_path / "here" / "fashion_mnist"
    assert left_in(tmp_path / "here" / "fashion_mnist") == set(tiny) and not (tmp_path / "cache").exists()


def test_interrupted_download_falls_through_and_leaves_nothing_broken(tiny, tmp_path, monkeypatch):
    big = fashion.TRAIN_IMAGES.name

    def answer(name):
        data = tiny[name]
        return Answer(data[: len(data) // 2], promised=len(data)) if name == big else Answer(data)

    asked = serve(monkeypatch, answer)
    with pytest.raises(DatasetError, match="no complete answer from .*interrupted after .*not a Debian or Ubuntu"):
        datasets.load("fashion_mnist")
    assert {address.split("/")[2] for address in asked} == {base.split("/")[2] for base in fashion.MIRRORS}
    folder = tmp_path / "cache" / "fashion_mnist"
    assert left_in(folder) == set(tiny) - {big}
    asked = serve(monkeypatch, lambda name: Answer(tiny[name]))
    assert len(datasets.load("fashion_mnist").x_train) == 10
    assert [address.rsplit("/", 1)[1] for address in asked] == [big], "what had arrived is not fetched again"


def test_killed_download_leaves_nothing_broken(tiny, tmp_path, monkeypatch):
    class Killed(Answer):
        def read(self, *args):
            raise KeyboardInterrupt

    serve(monkeypatch, lambda name: Killed(tiny[name]))
    with pytest.raises(KeyboardInterrupt):
        datasets.load("fashion_mnist")
    folder = tmp_path / "cache" / "fashion_mnist"
    assert left_in(folder) == set()
    (folder / ".train-images-idx3-ubyte.gz.abc.part").write_bytes(b"left by kill -9")
    serve(monkeypatch, lambda name: Answer(tiny[name]))
    datasets.load("fashion_mnist")
    assert left_in(folder) == set(tiny)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "longer"])
def test_damaged_cache_is_named_and_fetched_again(tiny, tmp_path, monkeypatch, damage):
    folder, name = tmp_path / "cache" / "fashion_mnist", fashion.TEST_IMAGES.name
    put(folder, tiny)
    data = gzip.decompress(tiny[name])
    bad = {
        "truncated": tiny[name][:-9],
        "flipped": gzip.compress(data[:-1] + bytes([data[-1] ^ 1])),
        "text": b"<html>Sign in</html>",
        "longer": gzip.compress(data + b"0"),
    }
    (folder / name).write_bytes(bad[damage])
    asked = serve(monkeypatch, lambda name: Answer(tiny[name]))
    with pytest.warns(UserWarning, match=f"{name} is damaged"):
        datasets.load("fashion_mnist")
    assert len(asked) == 1 and (folder / name).read_bytes() == tiny[name]


def test_wrong_contents_from_a_mirror_are_never_stored(tiny, tmp_path, monkeypatch):
    serve(monkeypatch, lambda name: Answer(gzip.compress(b"something else")))
    with pytest.raises(DatasetError, match="sent something else"):
        datasets.load("fashion_mnist")
    assert left_in(tmp_path / "cache" / "fashion_mnist") == set()


def test_failure_says_what_was_tried_and_how_to_mend_it(tiny, tmp_path, monkeypatch):
    serve(monkeypatch, offline)
    with pytest.raises(DatasetError) as caught:
        datasets.load("fashion_mnist", data_dir=tmp_path / "given")
    text = str(caught.value)
    assert "\n" not in text
    hosts = [base.split("/")[2] for base in fashion.MIRRORS]
    for part in [str(tmp_path / "given"), str(tmp_path / "cache"), *hosts, fashion.PACKAGE, "--data-dir"]:
        assert part in text


def test_a_folder_that_cannot_be_written_gives_way_to_the_cache(tiny, tmp_path, monkeypatch):
    serve(monkeypatch, lambda name: Answer(tiny[name]))
    (tmp_path / "given").write_text("a file where a folder should be stops root, too")
    assert datasets.fetch("fashion_mnist", tmp_path / "given") == tmp_path / "cache" / "fashion_mnist"


def test_debian_package_is_unpacked_without_root(tiny, tmp_path, monkeypatch):
    """apt-get and dpkg-deb are played by scripts; the first download fails for want of package lists."""
    tools = tmp_path / "bin"
    put(tmp_path / "package", tiny)
    tools.mkdir()
    scripts = {
        "apt-get": 'case "$*" in *Lists=*" download "*) touch dataset-fashion-mnist_1_all.deb;; *" update") ;; '
        '*) echo "E: Unable to locate package" >&2; exit 100;; esac',
        "dpkg-deb": f'mkdir -p "$3/{fashion.INSIDE_PACKAGE}"; cp {tmp_path}/package/* "$3/{fashion.INSIDE_PACKAGE}"',
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(files.shutil, "which", lambda name: str(tools / name))
    serve(monkeypatch, offline)
    assert len(datasets.load("fashion_mnist").x_train) == 10
    assert left_in(tmp_path / "cache" / "fashion_mnist") == set(tiny)


def test_apt_that_fails_is_quoted(tiny, tmp_path, monkeypatch):
    tool = write(tmp_path / "apt-get", '#!/bin/sh\necho "E: Unable to locate package" >&2; exit 100\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(files.shutil, "which", lambda name: name)
    serve(monkeypatch, offline)
    with pytest.raises(DatasetError, match="apt-get failed .E: Unable to locate package"):
        datasets.load("fashion_mnist")


def test_real_fashion_mnist():
    """Fetches it once into the user's cache, by whatever way works on this machine."""
    try:
        dataset = datasets.load("fashion_mnist", validation=5000)
    except DatasetError as error:
        if os.environ.get("CI") or shutil.which("apt-get"):
            raise
        pytest.skip(str(error))
    assert dataset.x_train.shape == (55000, 1, 28, 28) and dataset.x_test.shape == (10000, 1, 28, 28)
    assert dataset.x_train.dtype == np.uint8 and dataset.x_train.flags.c_contiguous and dataset.scale == 1 / 255
    labels = np.concatenate([dataset.y_train, dataset.y_validation])
    assert np.bincount(labels).tolist() == [6000] * 10 and np.bincount(dataset.y_test).tolist() == [1000] * 10
    # Mean and spread of the training images as published with the data set: 0.2860, 0.3530.
    x = np.concatenate([dataset.x_train, dataset.x_validation])
    assert abs(x.mean() / 255 - 0.2860) < 1e-4 and abs(x.std() / 255 - 0.3530) < 1e-4
