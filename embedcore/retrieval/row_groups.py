"""Groups of equal rows, which are searched once: a set with many copies costs no more than its distinct rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.tiles import FloatArray, Found, IntArray, position_in_runs, unfilled

_FLAT = 2**20  # expanded neighbours in memory at once


@dataclass(frozen=True)
class Groups:
    """Groups of equal rows, in the order of their first row.

    first: [g] first row of each group · of_row: [n] group of each row · members: [n] rows sorted by (group, row) ·
    start: [g + 1] index of each group's first member.
    """

    first: IntArray
    of_row: IntArray
    members: IntArray
    start: IntArray


def equal_rows(rows: FloatArray) -> Groups | None:
    """Group equal rows [n, d]; return None if all rows differ. -0.0 equals 0.0."""
    _, first, of_row = np.unique(_keys(rows), return_index=True, return_inverse=True)
    parts = [slice(start, start + 4096) for start in range(0, len(rows), 4096)]
    if len(first) < len(rows) and any((rows[part] != rows[first[of_row[part]]]).any() for part in parts):
        # Two different rows share a 64-bit key: compare whole rows instead.
        _, first, of_row = np.unique(rows + np.float32(0), axis=0, return_index=True, return_inverse=True)
        of_row = of_row.reshape(-1)  # NumPy 2.0 returns a column
    if len(first) == len(rows):
        return None
    first, of_row, sizes = np.unique(first[of_row], return_inverse=True, return_counts=True)
    return Groups(first, of_row, np.argsort(of_row, kind="stable"), np.concatenate([[0], np.cumsum(sizes)]))


def expand(groups: Groups, found: Found, k: int, leave_out: IntArray | None = None) -> Found:
    """Return neighbours [q, k] from ``found``, the nearest groups [q, m] of each query.

    A group's rows share its similarity, in the order of their indices. The ``m = min(k, groups)`` nearest groups
    suffice, since groups are ordered by their first row and each has at least one; with ``leave_out`` [q], a row that
    each query must not find, one group more.
    """
    near, values = found
    queries = len(near)
    indices, similarity = unfilled(queries, k)
    # One more than k rows of a group, since the query may be one of them.
    sizes = np.minimum(np.diff(groups.start), k + 1)
    totals = np.cumsum(sizes[near].sum(axis=1))
    top = 0
    while top < queries:
        done = int(totals[top - 1]) if top else 0
        bottom = max(top + 1, int(np.searchsorted(totals, done + _FLAT)))
        lengths = sizes[near[top:bottom]].reshape(-1)
        query = np.repeat(np.repeat(np.arange(top, bottom), near.shape[1]), lengths)
        starts = groups.start[near[top:bottom]].reshape(-1)
        member = groups.members[np.repeat(starts, lengths) + position_in_runs(lengths)]
        value = np.repeat(values[top:bottom].reshape(-1), lengths)
        if leave_out is not None:
            others = member != leave_out[query]
            query, member, value = query[others], member[others], value[others]
        order = np.lexsort((member, -value, query))
        counts = np.bincount(query - top, minlength=bottom - top)
        chosen = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
        indices[top:bottom], similarity[top:bottom] = member[chosen], value[chosen]
        top = bottom
    return indices, similarity


def _keys(rows: FloatArray) -> npt.NDArray[np.uint64]:
    """Return a 64-bit key of each row; equal rows have equal keys."""
    odd = np.random.default_rng(0).integers(0, 2**63, rows.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = np.empty(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), 512):
        # Adding zero turns -0.0 into 0.0, whose bits differ.
        bits = np.ascontiguousarray(rows[start : start + 512] + np.float32(0)).view(np.uint32)
        np.einsum("ij,j->i", bits.astype(np.uint64), odd, out=keys[start : start + 512])
    return keys
