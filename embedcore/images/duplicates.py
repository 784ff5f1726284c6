"""Exact and near-duplicate images of a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedcore.images.digests import numbered

NEAR = 4  # largest number of differing bits, of 64, between the perceptual hashes of near-duplicates

_BITS = 64
_EDGE = 32  # pixels of the grey square that is hashed
_LOW = 8  # frequencies kept in each direction


def perceptual_hash(image: Image.Image) -> int:
    """Return the 64-bit "pHash" of an RGB image, 0 to 2**64 - 1; rescaling or recompressing changes few bits of it.

    The image is scaled to a grey square of 32×32. Each of the 8×8 lowest frequencies of its cosine transform (DCT-II)
    gives a bit: whether it is above the median of all of them but the mean level. The mean level's bit is 0. Images
    without structure have hash 0. (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010,
    section 3.2.1)
    """
    square = image.resize((_EDGE, _EDGE), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    cosines = np.cos(np.pi / _EDGE * np.arange(_LOW)[:, None] * (np.arange(_EDGE) + 0.5))
    # Rounding removes the errors of an image without structure; one grey level is thousands of times more.
    low = (cosines @ np.asarray(square, np.float64) @ cosines.T).round(6).reshape(-1)
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@dataclass(frozen=True)
class Copies:
    """Number of images whose content equals that of an earlier image."""

    within_classes: int
    """An earlier image of the same class."""
    across_classes: int
    """Earlier images of other classes only: one of the labels is wrong, or both apply."""


def count_copies(digests: Sequence[str], labels: NDArray[np.int64]) -> Copies:
    """Count exact duplicates, each once."""
    contents = numbered(digests)
    in_classes = len(np.unique(np.stack([contents, labels], 1), axis=0))
    return Copies(len(digests) - in_classes, in_classes - len(np.unique(contents)))


def queries_among_references(
    contents: NDArray[np.int64], is_query: NDArray[np.bool_], is_reference: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return for each query whether another image with equal ``contents`` [n] is a reference: [n_queries]."""
    places = np.unique(contents, return_inverse=True)[1].reshape(-1)
    references = np.bincount(places[is_reference], minlength=len(places))
    return references[places[is_query]] > is_reference[is_query]


@dataclass(frozen=True)
class NearDuplicates:
    """Number of pairs of near-duplicates."""

    pairs: int
    within_classes: int
    """Pairs within a class."""
    between_sides: int | None
    """Pairs of a query and a reference; None for leave-one-out."""


def count_near_duplicates(
    hashes: NDArray[np.uint64], digests: Sequence[str], labels: NDArray[np.int64], is_query: NDArray[np.bool_] | None
) -> NearDuplicates:
    """Count near-duplicates among images [n] with perceptual ``hashes``. ``is_query`` None: leave-one-out.

    Exact duplicates, whose hashes are equal, are not counted as near-duplicates of each other.
    """
    contents = numbered(digests).astype(np.uint64)

    def near(groups: NDArray[np.int64]) -> int:
        return count_near_pairs(hashes, groups) - count_near_pairs(contents, groups, 0)

    total = near(np.zeros_like(labels))
    between = None if is_query is None else total - near(is_query.astype(np.int64))
    return NearDuplicates(pairs=total, within_classes=near(labels), between_sides=between)


def count_near_pairs(hashes: NDArray[np.uint64], groups: NDArray[np.int64], distance: int = NEAR) -> int:
    """Count pairs of uint64 ``hashes`` [n] in the same group [n] that differ in at most ``distance`` bits.

    The 64 bits are cut into ``distance + 1`` parts. Two hashes that differ in at most ``distance`` bits agree in at
    least one part, so only hashes that share a part are compared: sorted by the part, each with the next, the next but
    one, and so on while the part is the same. Memory is O(n).
    """
    rows, counts = np.unique(np.stack([hashes, groups.astype(np.uint64)], 1), axis=0, return_counts=True)
    pairs = int((counts * (counts - 1) // 2).sum())
    if distance == 0:
        return pairs
    edges = [_BITS * part // (distance + 1) for part in range(distance + 2)]
    masks = [np.uint64((1 << stop) - (1 << start)) for start, stop in itertools.pairwise(edges)]
    for number, mask in enumerate(masks):
        order = np.lexsort((rows[:, 0] & mask, rows[:, 1]))
        (words, owners), weights = rows[order].T, counts[order]
        parts = words & mask
        first = np.arange(len(words))
        for step in itertools.count(1):
            first = first[first + step < len(words)]
            other = first + step
            alike = (parts[first] == parts[other]) & (owners[first] == owners[other])
            first, other = first[alike], other[alike]
            if not len(first):
                break
            differing = words[first] ^ words[other]
            near = np.unpackbits(differing.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1) <= distance
            for earlier in masks[:number]:  # pairs that agree in an earlier part are already counted
                near &= (differing & earlier) != 0
            pairs += int((weights[first[near]] * weights[other[near]]).sum())
    return pairs
