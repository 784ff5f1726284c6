from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from embedcore.images.sources import FileSource, LabelledImages, choose

COUNTS = st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), st.integers(1, 6), min_size=1, max_size=12)


def images(counts: dict[str, int], roles: list[str] | None = None) -> LabelledImages:
    paths = [f"{name}/{index}.png" for name, count in counts.items() for index in range(count)]
    return LabelledImages("x", "x", FileSource(tuple(paths), ""), [path.partition("/")[0] for path in paths], roles)


def classes(found: LabelledImages, kept: list[int]) -> set[str]:
    return {found.class_names[index] for index in kept}


@given(COUNTS, st.integers(0, 15), st.integers(0, 5), st.integers(0, 3))
def test_bounds_and_order(counts: dict[str, int], max_classes: int, max_per_class: int, seed: int) -> None:
    found = images(counts)
    kept = choose(found, max_classes=max_classes, max_per_class=max_per_class, seed=seed)
    assert kept == sorted(set(kept))
    assert len(classes(found, kept)) == min(max_classes or len(counts), len(counts))
    sizes = Counter(found.class_names[index] for index in kept)
    assert all(size == min(max_per_class or 99, counts[name]) for name, size in sizes.items())


@given(COUNTS, st.integers(1, 8), st.integers(1, 5))
def test_the_classes_do_not_depend_on_how_many_images_there_are(counts, max_classes: int, factor: int) -> None:
    few, many = images(counts), images({name: count * factor for name, count in counts.items()})
    chosen = classes(few, choose(few, max_classes=max_classes, max_per_class=1, seed=0))
    assert chosen == classes(many, choose(many, max_classes=max_classes, max_per_class=0, seed=0))


@given(COUNTS, st.integers(1, 8))
def test_a_larger_subset_contains_the_smaller(counts, max_classes: int) -> None:
    found = images(counts)
    small, large = (
        set(choose(found, max_classes=max_classes + more, max_per_class=2 + more, seed=0)) for more in (0, 2)
    )
    assert small <= large


def test_seeds_differ() -> None:
    found = images({f"class {number}": 3 for number in range(40)})
    chosen = [tuple(choose(found, max_classes=10, max_per_class=1, seed=seed)) for seed in range(5)]
    assert len(set(chosen)) == 5


def test_with_two_sides_each_is_bounded_and_classes_with_both_come_first() -> None:
    counts = {"both": 8, "query only": 4, "reference only": 4, "both too": 6}
    sides = {"both": "qrqrqrqr", "query only": "qqqq", "reference only": "rrrr", "both too": "qrqrqr"}
    roles = ["query" if side == "q" else "reference" for name in counts for side in sides[name]]
    found = images(counts, roles)
    for seed in range(5):
        kept = choose(found, max_classes=2, max_per_class=2, seed=seed)
        assert Counter((found.class_names[index], roles[index]) for index in kept) == {
            (name, side): 2 for name in ("both", "both too") for side in ("query", "reference")
        }
