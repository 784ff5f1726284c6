"""Compact text for the results of each query (verdicts) and a projection of the embeddings (sketch) in a saved run."""

from __future__ import annotations

import base64
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedcore.embed.sketch import SKETCH_DIM, SKETCH_IMAGES
from embedcore.retrieval.outcomes import Outcomes

NEAREST = 5
"""Number of neighbours among which a verdict counts hits."""

# Limit on unpacking, since a few kilobytes of zlib can expand to gigabytes.
_MOST_QUERIES = 50_000_000
_HITS, _FIRST = 0b0111, 0b1000
# Without the nearest 0 to 4 hits, with it 1 to 5.
_POSSIBLE = bytes([*range(NEAREST), *(_FIRST | hits for hits in range(1, NEAREST + 1))])
_NOT_JUDGED = 255  # in packed outcomes


class Verdicts(NamedTuple):
    """`hits` uint8 [n_queries]: how many of the 5 nearest are of the query's class; `first` bool [n_queries]: whether
    the nearest is."""

    hits: NDArray[np.uint8]
    first: NDArray[np.bool_]


def pack_verdicts(hits: ArrayLike, first: ArrayLike) -> str:
    """Return verdicts as text: one byte a query (hits in bits 0-2, first in bit 3), zlib, base64.

    `hits` integers [n_queries], 0-5; `first` bool [n_queries]. Raises ValueError for anything else, and if the two are
    inconsistent.

    >>> unpack_verdicts(pack_verdicts([5, 0, 2], [True, False, False])).hits.tolist()
    [5, 0, 2]
    """
    hit_array, first_array = np.asarray(hits), np.asarray(first)
    if hit_array.ndim != 1 or first_array.shape != hit_array.shape:
        raise ValueError(f"hits and first must be [n_queries], not {hit_array.shape} and {first_array.shape}")
    if hit_array.size and (hit_array.dtype.kind not in "iu" or first_array.dtype.kind != "b"):
        raise ValueError(f"hits must be integers and first bool, not {hit_array.dtype} and {first_array.dtype}")
    first_bits = first_array.astype(np.uint8)
    _check(hit_array, first_bits)
    return base64.b64encode(zlib.compress((hit_array.astype(np.uint8) | first_bits << 3).tobytes(), 9)).decode()


def unpack_verdicts(text: str) -> Verdicts:
    """Return the inverse of `pack_verdicts`. Raises ValueError for other text."""
    raw = _inflated(text, _MOST_QUERIES, "verdicts")
    packed = np.frombuffer(raw, dtype=np.uint8)
    if raw.translate(None, _POSSIBLE):  # one pass of a byte table, since whole runs are read in seconds
        if packed.max() > (_HITS | _FIRST):
            raise ValueError("verdicts have an unknown bit")
        _check(packed & np.uint8(_HITS), packed >> np.uint8(3))
    return Verdicts(packed & np.uint8(_HITS), (packed >> np.uint8(3)).view(np.bool_))


def _check(hits: NDArray[np.integer], first: NDArray[np.uint8]) -> None:
    """Raise ValueError unless 0 <= hits <= 5, with a hit at rank 1 counted and five hits including it."""
    if hits.size and (hits.min() < 0 or hits.max() > NEAREST):
        raise ValueError(f"hits among the {NEAREST} nearest must be 0-{NEAREST}")
    if ((first == 1) & (hits == 0)).any() or ((first == 0) & (hits == NEAREST)).any():
        raise ValueError("hits and first are inconsistent: the nearest is one of the five")


def pack_outcomes(outcomes: Outcomes) -> str:
    """Return outcomes as text: the number of tries, one byte a query (right tries, or 255 if not judged), zlib, base64.

    >>> unpack_outcomes(pack_outcomes(Outcomes(np.array([True, False]), 1))).right.tolist()
    [1, 0]
    """
    right = outcomes.right.astype(np.uint8)
    if outcomes.judged is not None:
        right = np.where(outcomes.judged, right, np.uint8(_NOT_JUDGED))
    return base64.b64encode(zlib.compress(bytes([outcomes.tries]) + right.tobytes(), 9)).decode()


def unpack_outcomes(text: str) -> Outcomes:
    """Return the inverse of `pack_outcomes`. Raises ValueError for other text."""
    packed = np.frombuffer(_inflated(text, 1 + _MOST_QUERIES, "outcomes"), dtype=np.uint8)
    tries, right = int(packed[0]) if len(packed) else 0, packed[1:]
    judged = right != _NOT_JUDGED
    right = np.where(judged, right, np.uint8(0))
    if not 1 <= tries < _NOT_JUDGED or right.max(initial=0) > tries:
        raise ValueError("outcomes have more right answers than tries")
    if not judged.any():
        raise ValueError("outcomes judge no query")
    return Outcomes(right, tries, judged)


def pack_classes(classes: ArrayLike) -> str:
    """Return integers [n_queries], such as the class index of each query, as text: uint32 little-endian, zlib, base64.

    >>> unpack_classes(pack_classes([0, 0, 7])).tolist()
    [0, 0, 7]
    """
    return base64.b64encode(zlib.compress(np.asarray(classes).astype("<u4").tobytes(), 9)).decode()


def unpack_classes(text: str) -> NDArray[np.uint32]:
    """Return the inverse of `pack_classes`, uint32 [n_queries]. Raises ValueError for other text."""
    raw = _inflated(text, 4 * _MOST_QUERIES, "query classes")
    if len(raw) % 4:
        raise ValueError(f"query classes are truncated: {len(raw)} bytes")
    return np.frombuffer(raw, dtype="<u4").astype(np.uint32)


def _inflated(text: str, most: int, what: str) -> bytes:
    """Return the bytes behind base64 and zlib, at most `most`. Raises ValueError for damaged text."""
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(base64.b64decode(text, validate=True), most)
    except (zlib.error, ValueError) as error:
        raise ValueError(f"{what} cannot be unpacked: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError(f"{what} are truncated, have trailing data, or are of more than {_MOST_QUERIES} queries")
    return raw


def pack_sketch(sketch: ArrayLike) -> str:
    """Return a sketch as text: base64 of little-endian float32 [m, 64]; m is 8, or fewer for a tiny dataset.

    Raises ValueError for another shape and for values that are not finite.
    """
    array = np.asarray(sketch, dtype="<f4")
    _check_sketch(array)
    return base64.b64encode(array.tobytes()).decode()


def unpack_sketch(text: str) -> NDArray[np.float32]:
    """Return the inverse of `pack_sketch`, float32 [m, 64]. Raises ValueError for other text."""
    try:
        array = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").reshape(-1, SKETCH_DIM)
    except ValueError as error:
        raise ValueError(f"sketch cannot be unpacked: {error}") from error
    _check_sketch(array)
    return array.astype(np.float32)


def _check_sketch(array: NDArray[np.float32]) -> None:
    if array.ndim != 2 or not 1 <= array.shape[0] <= SKETCH_IMAGES or array.shape[1] != SKETCH_DIM:
        raise ValueError(f"a sketch must be [1-{SKETCH_IMAGES}, {SKETCH_DIM}], not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError("a sketch must be finite")
