"""Images that are in a dataset more than once: byte for byte, or nearly."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 4  # bits of 64 in which the perceptual hashes of near-duplicates differ at most

_BITS = 64
_EDGE = 32  # pixels of the grey square that a perceptual hash is of
_LOW = 8  # frequencies that it keeps in each direction


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit "pHash" of an RGB image, 0 to 2**64 - 1: (almost) the same when it is scaled, recompressed, retouched.

    The image becomes a grey square of 32×32; of its cosine transform (DCT-II) the 8×8 lowest frequencies each give a
    bit, namely whether they lie above the median of all but the mean level, which gives no bit of its own (Zauner,
    2010, Implementation and Benchmarking of Perceptual Image Hash Functions, section 3.2.1). Images without structure
    have 0.
    """
    square = image.resize((_EDGE, _EDGE), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    cosines = np.cos(np.pi / _EDGE * np.arange(_LOW)[:, None] * (np.arange(_EDGE) + 0.5))
    low = cosines @ np.asarray(square, np.float64) @ cosines.T
    # Without any structure a coefficient is not exactly 0 but a rounding error; one grey level makes it thousands of
    # times larger.
    low = low.round(6).reshape(-1)
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@dataclass(frozen=True)
class Copies:
    """Images whose content equals that of an earlier image."""

    within_classes: int
    """Of an earlier image of the same class."""
    across_classes: int
    """Of earlier images of other classes only: one of the labels is wrong, or both are true."""


def count_copies(digests: Sequence[str], labels: NDArray[np.int64]) -> Copies:
    """Exact duplicates, each counted once."""
    in_classes = len(set(zip(digests, labels.tolist(), strict=True)))
    return Copies(within_classes=len(digests) - in_classes, across_classes=in_classes - len(set(digests)))


def queries_among_references(
    images: Sequence[Hashable], is_query: NDArray[np.bool_], is_reference: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether each query's equal among ``images`` [n] is also a reference, other than the query itself: [n_queries]."""
    references = Counter(itertools.compress(images, is_reference))
    queries = zip(itertools.compress(images, is_query), is_reference[is_query], strict=True)
    return np.array([references[image] > itself for image, itself in queries], np.bool_)


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of images whose perceptual hashes differ in a few bits."""

    pairs: int
    within_classes: int
    """Pairs of one class."""
    between_sides: int | None
    """Pairs of a query and a reference; None for leave-one-out."""


def count_near_duplicates(
    hashes: NDArray[np.uint64], digests: Sequence[str], labels: NDArray[np.int64], is_query: NDArray[np.bool_] | None
) -> NearDuplicates:
    """Near-duplicates among images [n] with perceptual ``hashes``. ``is_query`` None: leave-one-out.

    Two exact duplicates are no near-duplicates, though their hashes are equal: their pairs are taken off.
    """
    contents = np.unique(np.array(digests), return_inverse=True)[1].reshape(-1).astype(np.uint64)

    def near(groups: NDArray[np.int64]) -> int:
        return count_near_pairs(hashes, groups) - count_near_pairs(contents, groups, 0)

    total = near(np.zeros_like(labels))
    between = None if is_query is None else total - near(is_query.astype(np.int64))
    return NearDuplicates(pairs=total, within_classes=near(labels), between_sides=between)


def count_near_pairs(hashes: NDArray[np.uint64], groups: NDArray[np.int64], distance: int = NEAR) -> int:
    """How many pairs of the uint64 ``hashes`` [n] of one group [n] differ in at most ``distance`` bits.

    The 64 bits are cut into ``distance + 1`` parts. Two hashes that differ in at most ``distance`` bits agree in at
    least one part, so that only those which share a part are compared: sorted by it, each with the next, the next but
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
            near = _ones(differing) <= distance
            for earlier in masks[:number]:  # pairs that agree in an earlier part too were counted there
                near &= (differing & earlier) != 0
            pairs += int((weights[first[near]] * weights[other[near]]).sum())
    return pairs


def _ones(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many bits are set in each uint64: summed in pairs, nibbles, bytes (numpy has this from 2.0 on)."""
    words = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    words = (words & np.uint64(0x3333333333333333)) + ((words >> np.uint64(2)) & np.uint64(0x3333333333333333))
    words = (words + (words >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (words * np.uint64(0x0101010101010101)) >> np.uint64(56)
