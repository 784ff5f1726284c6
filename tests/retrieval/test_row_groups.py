from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcore.retrieval import row_groups
from embedcore.retrieval.row_groups import equal_rows
from embedcore.retrieval.search import nearest

ROWS = st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, 0.5]), min_size=2, max_size=2), min_size=1, max_size=30)


@settings(deadline=None)
@given(ROWS, st.booleans())
def test_groups_are_those_of_comparing_all_rows(rows, colliding):
    array = np.array(rows, dtype=np.float32)
    keys = row_groups._keys
    if colliding:  # as if all rows had the same key: whole rows must then decide
        row_groups._keys = lambda rows: np.zeros(len(rows), dtype=np.uint64)
    try:
        groups = equal_rows(array)
    finally:
        row_groups._keys = keys
    first = [next(j for j in range(len(array)) if (array[j] == row).all()) for row in array]
    if len(set(first)) == len(array):
        assert groups is None
        return
    assert groups is not None
    assert groups.first.tolist() == sorted(set(first))
    assert groups.first[groups.of_row].tolist() == first
    for number, start in enumerate(groups.start[:-1]):
        members = groups.members[start : groups.start[number + 1]].tolist()
        assert members == [j for j, f in enumerate(first) if f == groups.first[number]]


def test_expansion_in_pieces_is_the_same(embeddings, monkeypatch):
    rows = np.repeat(embeddings(40, 6), 5, axis=0)[np.random.default_rng(0).permutation(200)]
    whole = nearest(rows, None, 17)
    monkeypatch.setattr(row_groups, "_FLAT", 100)
    pieces = nearest(rows, None, 17)
    assert (pieces.indices == whole.indices).all()
    assert (pieces.similarities == whole.similarities).all()
