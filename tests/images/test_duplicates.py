from __future__ import annotations

import shutil
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.images.duplicates import (
    Copies,
    count_copies,
    count_near_duplicates,
    count_near_pairs,
)
from embedcore.images.load_dataset import load_dataset

# Few words with few bits changed, so that pairs of every small distance occur, across the edges of the parts too.
hashes = st.lists(
    st.builds(
        lambda word, bits: word ^ sum(1 << bit for bit in bits),
        st.sampled_from([0, 2**64 - 1, 0x0F0F_3C3C_5A5A_9966]),
        st.sets(st.integers(0, 63), max_size=4),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(hashes, st.integers(0, 8), st.randoms(use_true_random=False))
def test_near_pairs_are_those_of_brute_force(words: list[int], distance: int, random) -> None:
    groups = [random.randrange(3) for _ in words]
    expected = sum(
        groups[i] == groups[j] and (words[i] ^ words[j]).bit_count() <= distance
        for i, j in combinations(range(len(words)), 2)
    )
    assert count_near_pairs(np.array(words, np.uint64), np.array(groups, np.int64), distance) == expected


def test_many_hashes_need_little_memory() -> None:
    words = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)
    words[5000:5100] = words[:100] ^ np.uint64(0b1011)
    words[7000:7010] = words[6000]
    pairs = count_near_pairs(words, np.zeros(len(words), np.int64))
    assert pairs == 100 + 11 * 10 // 2


def test_a_large_group_of_equal_hashes_is_not_enumerated() -> None:
    words = np.zeros(200_000, np.uint64)
    words[0] = 1
    assert count_near_pairs(words, np.zeros(len(words), np.int64)) == 200_000 * 199_999 // 2


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2)), min_size=1, max_size=20))
def test_copies_are_counted_once_each(images: list[tuple[str, int]]) -> None:
    copies = count_copies([digest for digest, _ in images], np.array([label for _, label in images]))
    within = sum(image in images[:position] for position, image in enumerate(images))
    earlier = [[digest for digest, _ in images[:position]] for position in range(len(images))]
    total = sum(digest in before for (digest, _), before in zip(images, earlier, strict=True))
    assert copies == Copies(within, total - within)


def test_near_duplicates_leave_out_exact_ones() -> None:
    words = np.array([0, 0, 1, 2**63, 2**64 - 1], np.uint64)
    digests = ["a", "a", "b", "c", "d"]
    labels = np.array([0, 1, 0, 1, 1])
    # a-a is an exact duplicate. Near: both a with b and with c, and b with c.
    near = count_near_duplicates(words, digests, labels, np.array([True, False, False, True, True]))
    assert (near.pairs, near.within_classes, near.between_sides) == (5, 2, 3)
    assert count_near_duplicates(words, digests, labels, None).between_sides is None


def test_queries_that_are_references_too(make_folder) -> None:
    root = make_folder({"query/a": 3, "query/b": 2, "reference/a": 2, "reference/b": 2})
    assert load_dataset(str(root)).duplicates_line is None
    shutil.copy(root / "query" / "a" / "000.png", root / "reference" / "a" / "copy.png")
    shutil.copy(root / "query" / "a" / "000.png", root / "reference" / "b" / "copy.png")
    shutil.copy(root / "query" / "a" / "001.png", root / "query" / "a" / "copy.png")  # on one side: nothing to find
    dataset = load_dataset(str(root))
    assert dataset.query_reference_duplicates == 1
    assert dataset.duplicates_line == (
        "1 of 6 queries are exact copies of references, 1 of them in their own class, which inflates accuracy"
    )
    assert load_dataset(str(root), split="loo").query_reference_duplicates == 5


def test_duplicates_of_leave_one_out(make_folder) -> None:
    root = make_folder({"a": 3, "b": 2})
    shutil.copy(root / "a" / "000.png", root / "b" / "copy.png")
    dataset = load_dataset(str(root))
    assert dataset.query_reference_duplicates == 2
    assert dataset.duplicates_line == "2 of 6 queries are exact copies of other images, all in other classes"
    shutil.copy(root / "a" / "000.png", root / "a" / "copy.png")
    assert "3 of 7 queries are exact copies of other images, 2 of them in their own" in str(
        load_dataset(str(root)).duplicates_line
    )
