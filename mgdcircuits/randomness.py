"""Randomness as a function: Philox4x32-10 in numpy, the oracle of ``codegen/include/mgd/philox.hpp``.

A number is a pure function of a 64-bit *key* (seed, site, member), the *element*, the *replica* and the 64-bit *count*
of the site's own clock. Nothing is drawn from a stream, so threads, recording and resuming cannot change a bit.

One Philox call turns the counter ``(element word, replica, count low, count high)`` into four 32-bit words, dealt out
to neighbouring elements:

=====================  =================================================
``bit``                bit ``e % 32`` of word ``e//32 % 4`` of call ``e//128``
``uniform32, integer`` word ``e % 4`` of call ``e//4``
``uniform64, normal,   words ``2(e % 2)`` and ``2(e % 2) + 1`` of call
poisson``              ``e//2``
=====================  =================================================

Element, replica, count and key broadcast against each other like any numpy arrays. Bits, integers, uniforms and
permutations agree bitwise with C++; normals within 4 ulp.

References
----------
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgdcircuits.errors import RunError

SEEDS = range(2**63)
"""Possible seeds: what a dataset can hold."""

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

POISSON_MAX_MEAN = 700.0
"""Largest mean of :func:`poisson`: beyond it exp(-mean) leaves the range of normal doubles."""


def seeds_of(seed: Any, members: int = 1) -> list[int]:
    """The seed of each member: ``seed + m`` of member m, or those that are given.

    Raises
    ------
    RunError
        A seed that is not in `SEEDS`; another number of seeds than of members.
    """
    given = [as_seed(number) for number in (seed if np.ndim(seed) == 1 else [seed])]
    if np.ndim(seed) == 0:
        return [as_seed(given[0] + m) for m in range(members)]
    if not given or members not in (1, len(given)):
        raise RunError(f"{len(given)} seeds for {members} members")
    return given


def as_seed(value: Any) -> int:
    """A seed that is given.

    Raises
    ------
    RunError
        One that is not in `SEEDS`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number not in SEEDS:
        raise RunError(f"seed={value!r}: expected a whole number of at least 0, below 2**63")
    return number


def site_key(seed: int, name: str) -> int:
    """The 64-bit key of a site: the first 8 bytes of blake2b of ``"seed:name"``, little-endian.

    `name` is the site's qualified name; a member's seed or number, if it has one, is part of `seed` or `name`.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode()).digest()[:8], "little")


def _u64(values: ArrayLike) -> NDArray[np.uint64]:
    """Nonnegative integers of any size up to 64 bits as uint64 (a plain ``int`` beyond 2**63 included)."""
    if isinstance(values, int):
        return np.asarray(np.uint64(values))
    return np.asarray(values).astype(np.uint64)


def philox(key: ArrayLike, c0: ArrayLike, c1: ArrayLike, count: ArrayLike) -> tuple[NDArray[np.uint64], ...]:
    """Four words (uint64 arrays below 2**32) of Philox4x32-10 for counter (c0, c1, count low, count high)."""
    key, x0, x1, count = np.broadcast_arrays(_u64(key), _u64(c0) & _LOW, _u64(c1) & _LOW, _u64(count))
    x2, x3 = count & _LOW, count >> _32
    k0, k1 = key & _LOW, key >> _32
    for r in range(_ROUNDS):
        a, b = _MULTIPLIERS[0] * x0, _MULTIPLIERS[1] * x2
        w0, w1 = np.uint64(r * _WEYL[0] & 0xFFFFFFFF), np.uint64(r * _WEYL[1] & 0xFFFFFFFF)
        x0, x1, x2, x3 = (
            (b >> _32) ^ x1 ^ ((k0 + w0) & _LOW),
            b & _LOW,
            (a >> _32) ^ x3 ^ ((k1 + w1) & _LOW),
            a & _LOW,
        )
    return x0, x1, x2, x3


def _word(key: ArrayLike, word: NDArray[np.uint64], replica: ArrayLike, count: ArrayLike) -> NDArray[np.uint64]:
    """Word ``word % 4`` of call ``word // 4``."""
    words = philox(key, word >> np.uint64(2), replica, count)
    return np.choose((word & np.uint64(3)).astype(np.intp), words)


def _two_words(
    key: ArrayLike, element: ArrayLike, replica: ArrayLike, count: ArrayLike
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    element = _u64(element)
    words = philox(key, element >> np.uint64(1), replica, count)
    odd = (element & np.uint64(1)).astype(bool)
    return np.where(odd, words[2], words[0]), np.where(odd, words[3], words[1])


def bit(key: ArrayLike, element: ArrayLike, replica: ArrayLike, count: ArrayLike) -> NDArray[np.uint8]:
    """0 or 1, each with probability 1/2."""
    element = _u64(element)
    words = _word(key, element >> np.uint64(5), replica, count)
    return ((words >> (element & np.uint64(31))) & np.uint64(1)).astype(np.uint8)


def sign(key: ArrayLike, element: ArrayLike, replica: ArrayLike, count: ArrayLike, dtype: type = np.float32) -> NDArray:
    """+1 where :func:`bit` is 1, else -1."""
    return (2 * bit(key, element, replica, count).astype(np.int8) - 1).astype(dtype)


def uniform32(key: ArrayLike, element: ArrayLike, replica: ArrayLike, count: ArrayLike) -> NDArray[np.float32]:
    """Uniform in [0, 1), in steps of 2**-24."""
    word = _word(key, _u64(element), replica, count)
    return (word >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)


def uniform64(key: ArrayLike, element: ArrayLike, replica: ArrayLike, count: ArrayLike) -> NDArray[np.float64]:
    """Uniform in [0, 1), in steps of 2**-53."""
    w0, w1 = _two_words(key, element, replica, count)
    return (((w0 >> np.uint64(5)) << np.uint64(26)) | (w1 >> np.uint64(6))).astype(np.float64) * 2.0**-53


def normal(
    key: ArrayLike, element: ArrayLike, replica: ArrayLike, count: ArrayLike, dtype: type = np.float64
) -> NDArray:
    """Standard normal: the cosine branch of Box-Muller in double, rounded to `dtype`; never beyond 6.67."""
    w0, w1 = _two_words(key, element, replica, count)
    u1 = (w0 + np.uint64(1)).astype(np.float64) * 2.0**-32
    # The angle 2*pi*w1/2**32 minus the nearest quarter turn, exactly: near a zero of the cosine nothing is lost.
    quarter = (w1.astype(np.int64) + 2**29) >> 30
    angle = (w1.astype(np.int64) - (quarter << 30)).astype(np.float64) * (2 * np.pi / 2**32)
    cosine = np.choose(quarter & 3, (np.cos(angle), -np.sin(angle), -np.cos(angle), np.sin(angle)))
    return (np.sqrt(-2.0 * np.log(u1)) * cosine).astype(dtype)


def integer(
    key: ArrayLike, element: ArrayLike, replica: ArrayLike, count: ArrayLike, n: ArrayLike
) -> NDArray[np.int64]:
    """0 ... n - 1 with 1 <= n <= 2**32; the bias of any value is below n/2**32."""
    return ((_word(key, _u64(element), replica, count) * _u64(n)) >> _32).astype(np.int64)


def poisson(
    key: ArrayLike, element: ArrayLike, replica: ArrayLike, count: ArrayLike, mean: ArrayLike
) -> NDArray[np.float64]:
    """Poisson by inversion of :func:`uniform64`, as a float; nan unless 0 <= mean <= POISSON_MAX_MEAN.

    Takes O(mean) steps. C++ may differ by one when the uniform falls within rounding of a boundary: about 1e-15 a draw.
    """
    u, mean = np.broadcast_arrays(uniform64(key, element, replica, count), np.asarray(mean, np.float64))
    allowed = (mean >= 0) & (mean <= POISSON_MAX_MEAN)
    lam = np.where(allowed, mean, 0.0)
    probability = np.exp(-lam)
    below = probability.copy()
    k = np.zeros_like(u)
    going = u >= below
    while going.any():
        k = np.where(going, k + 1, k)
        probability = np.where(going, probability * (lam / np.maximum(k, 1)), probability)
        below = np.where(going, below + probability, below)
        going &= (u >= below) & (probability > 0)
    return np.where(allowed, k, np.nan)


def permutation(key: ArrayLike, index: ArrayLike, n: int, count: ArrayLike = 0) -> NDArray[np.int64]:
    """Where each `index` of ``range(n)`` goes under a keyed bijection of ``range(n)``; `count` numbers the bijections.

    An 8-round Feistel network on the next power of four above `n`, repeated until the value falls below `n`
    (J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
    """
    if not 1 <= n <= 2**62:
        raise ValueError(f"permutation of range({n}): n must lie between 1 and 2**62")
    index = np.asarray(index)
    if index.size and not (index.min() >= 0 and index.max() < n):
        raise ValueError(f"permutation of range({n}): an index lies outside, between {index.min()} and {index.max()}")
    key, x, count = (a.copy() for a in np.broadcast_arrays(_u64(key), _u64(index), _u64(count)))
    if n == 1:
        return np.zeros(x.shape, np.int64)
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    outside = np.ones(x.shape, bool)
    while outside.any():
        left, right = x[outside] >> shift, x[outside] & mask
        for r in range(8):
            left, right = right, left ^ (philox(key[outside], right, r, count[outside])[0] & mask)
        x[outside] = (left << shift) | right
        outside = x >= np.uint64(n)
    return x.astype(np.int64)
