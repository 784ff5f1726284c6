"""Images that are in a dataset more than once: byte for byte, or nearly."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 4  # bits of 64 in which the perceptual hashes of near-duplicates differ at most

_BITS = 64


@dataclass(frozen=True)
class Copies:
    """Images whose content equals that of an earlier image."""

    within_classes: int
    """Of an earlier image of the same class."""
    across_classes: int
    """Of earlier images of other classes only: one of the labels is wrong, or both are true."""


def count_copies(digests: Sequence[str], labels: NDArray[np.int64]) -> Copies:
    """Exact duplicates, each counted once.

    >>> count_copies(["x", "x", "y", "x"], np.array([0, 0, 1, 1]))
    Copies(within_classes=1, across_classes=1)
    """
    distinct = len(set(digests))
    in_classes = len(set(zip(digests, labels.tolist(), strict=True)))
    return Copies(within_classes=len(digests) - in_classes, across_classes=in_classes - distinct)


def queries_among_references(
    images: Sequence[Hashable], is_query: NDArray[np.bool_], is_reference: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether each query's equal among ``images`` [n] is also a reference, other than the query itself: [n_queries].

    >>> queries_among_references("xxy", np.ones(3, np.bool_), np.ones(3, np.bool_)).tolist()
    [True, True, False]
    """
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
    contents = np.unique(np.array(digests), return_inverse=True)[1].reshape(-1).astype(np.int64)

    def near(groups: NDArray[np.int64]) -> int:
        return count_near_pairs(hashes, groups) - _equal_pairs(contents, groups)

    total = near(np.zeros_like(labels))
    between = None if is_query is None else total - near(is_query.astype(np.int64))
    return NearDuplicates(pairs=total, within_classes=near(labels), between_sides=between)


def count_near_pairs(hashes: NDArray[np.uint64], groups: NDArray[np.int64], distance: int = NEAR) -> int:
    """How many pairs of the uint64 ``hashes`` [n] of one group [n] differ in at most ``distance`` bits.

    The 64 bits are cut into ``distance + 1`` parts. Two hashes that differ in at most ``distance`` bits agree in at
    least one part, so that only those which share a part are compared: sorted by it, each with the next, the next but
    one, and so on while the part is the same. Memory is O(n).

    >>> count_near_pairs(np.array([0, 1, 31, 2**64 - 1], np.uint64), np.zeros(4, np.int64))
    2
    """
    pairs = _equal_pairs(hashes, groups)
    hashes, groups, counts = _distinct(hashes, groups)
    edges = [_BITS * part // (distance + 1) for part in range(distance + 2)]
    masks = [np.uint64((1 << stop) - (1 << start)) for start, stop in itertools.pairwise(edges)]
    for number, mask in enumerate(masks):
        order = np.lexsort((hashes & mask, groups))
        words, owners, weights = hashes[order], groups[order], counts[order]
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


def _distinct(
    words: NDArray[np.uint64] | NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[Any, NDArray[np.int64], NDArray[np.int64]]:
    """The distinct (word, group), and how often each occurs."""
    order = np.lexsort((words, groups))
    words, groups = words[order], groups[order]
    new = np.ones(len(words), np.bool_)
    new[1:] = (words[1:] != words[:-1]) | (groups[1:] != groups[:-1])
    starts = np.flatnonzero(new)
    return words[starts], groups[starts], np.diff(starts, append=len(words)).astype(np.int64)


def _equal_pairs(words: NDArray[np.uint64] | NDArray[np.int64], groups: NDArray[np.int64]) -> int:
    counts = _distinct(words, groups)[2]
    return int((counts * (counts - 1) // 2).sum())


def _ones(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many bits are set in each uint64: summed in pairs, nibbles, bytes (numpy has this from 2.0 on)."""
    words = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    words = (words & np.uint64(0x3333333333333333)) + ((words >> np.uint64(2)) & np.uint64(0x3333333333333333))
    words = (words + (words >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (words * np.uint64(0x0101010101010101)) >> np.uint64(56)
