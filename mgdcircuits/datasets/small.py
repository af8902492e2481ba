"""Data sets that need no download: parity and XOR, 7×7 letters, scikit-learn's digits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgdcircuits.datasets.dataset import Dataset, from_arrays, keyed_bits, keyed_permutation
from mgdcircuits.errors import DatasetError

DIGITS_TEST = 360

# Drawn on 5×5, so that each has nine places on 7×7.
LETTERS = {
    "N": ("#...#", "##..#", "#.#.#", "#..##", "#...#"),
    "I": (".###.", "..#..", "..#..", "..#..", ".###."),
    "S": (".####", "#....", ".###.", "....#", "####."),
    "T": ("#####", "..#..", "..#..", "..#..", "..#.."),
}


def parity(n: int = 2, *, name: str = "parity", **options: Any) -> Dataset:
    """All 2**n patterns of n bits and whether an odd number of them is set; n = 2 is XOR.

    x (2**n, n) is 0 or 1, bit i of pattern p is ``(p >> i) & 1``; y (2**n, 1) is 0.0 or 1.0. Training and test set are
    the same.

    Raises
    ------
    DatasetError
        n outside 1..20.
    """
    n = _whole(f"{name} n", n)
    if n > 20:
        raise DatasetError(f"{name} with n={n}: expected 1 to 20 bits")
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    odd = bits.sum(axis=1, keepdims=True) % 2
    return from_arrays(bits.astype(np.float32), odd.astype(np.float32), name=name, **options)


def letters(
    n: int | None = None,
    *,
    n_test: int | None = None,
    noise: float = 0.0,
    flips: int = 2,
    shift: int = 1,
    seed: int = 0,
    **options: Any,
) -> Dataset:
    """Noisy letters N, I, S, T on 7×7 pixels: x (n, 49), row by row, 0 off and 1 on; four classes.

    McCaughan 2023 reads its letters from a file that we do not have. The number of samples quoted for it, 44,136, is
    exactly 4 letters × 9 places of a 5×5 glyph on 7×7 × (1 + 49 + 1176) ways to flip up to two pixels, which we take
    for its recipe (an inference). This is what is built here, with glyphs of our own, so numbers are comparable in
    kind but not digit by digit. Because of the nine places no linear classifier solves it (logistic regression: 95 %
    of the test samples).

    Parameters
    ----------
    n, n_test
        Numbers of training and test samples. By default a tenth of the distinct patterns is for the test and the rest
        for training. The patterns are put into the order of ``keyed_permutation(..., "mgdcircuits letters <seed>")``;
        training takes the first, the test the next ones, so they share none, unless more are asked for than there are:
        then the order is walked through again.
    noise
        Standard deviation of Gaussian noise added to every pixel, drawn once per sample, not clipped.
    flips
        Up to this many pixels are inverted (0, 1 or 2), every choice once.
    shift
        The glyph lies up to this far from the middle (0 or 1) in both directions, every place once.
    seed
        Another seed, another order and other noise.

    Raises
    ------
    DatasetError
        An option outside its range.
    """
    if flips not in (0, 1, 2) or shift not in (0, 1) or not isinstance(noise, (int, float)) or not 0 <= noise < 1e6:
        raise DatasetError(f"letters with flips={flips}, shift={shift}, noise={noise}: expected 0..2, 0..1 and >= 0")
    patterns, labels = _letter_patterns(flips, shift)
    total = len(patterns)
    few = total < 40  # without flips there is nothing to hold out: the test repeats the patterns
    n_test = (total if few else total // 10) if n_test is None else _whole("letters n_test", n_test)
    n = (total if few else max(total - n_test, 1)) if n is None else _whole("letters n", n)
    order = keyed_permutation(total, f"mgdcircuits letters {seed}")
    chosen = order[np.arange(n + n_test) % total]
    x = patterns[chosen].astype(np.float32)
    if noise:
        x += np.float32(noise) * _gaussian(x.size, f"mgdcircuits letters noise {seed}").reshape(x.shape)
    y = labels[chosen]
    return from_arrays(x[:n], y[:n], x[n:], y[n:], name="letters", class_names=tuple(LETTERS), **options)


def digits(**options: Any) -> Dataset:
    """scikit-learn's 8×8 handwritten digits: x (n, 64), uint8 0..16, scale 1/16; 1437 to train on and 360 to test.

    The test set is the last 360 of ``keyed_permutation(1797, "mgdcircuits digits")``; both parts keep scikit-learn's
    order. (scikit-learn's own order has the writers in blocks, so a cut through it tests on other hands.)
    """
    from sklearn.datasets import load_digits  # a second of import that other data sets need not pay

    pixels, labels = load_digits(return_X_y=True)
    order = keyed_permutation(len(pixels), "mgdcircuits digits")
    train, test = np.sort(order[:-DIGITS_TEST]), np.sort(order[-DIGITS_TEST:])
    x = pixels.astype(np.uint8)
    return from_arrays(x[train], labels[train], x[test], labels[test], name="digits", scale=1 / 16, **options)


def _letter_patterns(flips: int, shift: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Every distinct drawing: (patterns, 49) and its letter (patterns,)."""
    masks = [np.zeros(49, bool)]
    for count in range(1, flips + 1):
        for pixels in itertools.combinations(range(49), count):
            mask = np.zeros(49, bool)
            mask[list(pixels)] = True
            masks.append(mask)
    flipped = np.array(masks)
    patterns, labels = [], []
    for label, rows in enumerate(LETTERS.values()):
        glyph = np.array([[pixel == "#" for pixel in row] for row in rows])
        for dy, dx in itertools.product(range(1 - shift, 2 + shift), repeat=2):
            page = np.zeros((7, 7), bool)
            page[dy : dy + 5, dx : dx + 5] = glyph
            patterns.append(page.ravel() ^ flipped)
            labels.append(np.full(len(flipped), label))
    return np.concatenate(patterns), np.concatenate(labels)


def _whole(label: str, value: Any) -> int:
    # Options may come from a netlist or a command line: text must not get as far as numpy.
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer)) or value != int(value) or value < 1:
        raise DatasetError(f"{label}={value!r}: expected a whole number from 1 on")
    return int(value)


def _gaussian(n: int, key: str) -> NDArray[np.float32]:
    """n standard normal numbers by the Box-Muller transform of `keyed_bits`."""
    bits = keyed_bits(2 * n, key)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return (np.sqrt(-2 * np.log(uniform[:n])) * np.cos(2 * np.pi * uniform[n:])).astype(np.float32)
