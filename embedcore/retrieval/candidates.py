"""Candidates of a block of rows: the references seen so far that can be among a row's k nearest."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.operands import Margin
from embedcore.retrieval.tiles import FloatArray, IntArray, position_in_runs

IdArray = npt.NDArray[np.int32]


def capacity(k: int) -> int:
    """Return the maximum number of candidates of a row: the k best, and those within the margin of the k-th."""
    return 3 * k + 96


class CandidateBlock:
    """The candidates of each of ``rows`` rows, as one flat list that is sorted occasionally.

    A row keeps candidates that reach its ``cut``, the margin below its k-th best so far. A row with more than
    ``capacity(k)`` of them is ``overfull``: it takes no more and must be searched in another way.
    """

    def __init__(self, rows: int, k: int, margin: Margin) -> None:
        self.k = k
        self.margin = margin
        self.cut: FloatArray = np.full(rows, -np.inf, dtype=np.float32)
        self.overfull: npt.NDArray[np.bool_] = np.zeros(rows, dtype=bool)
        self._parts: list[tuple[IdArray, IdArray, FloatArray]] = []  # rows, ids, scores
        self._added = 0
        self._lock = threading.Lock()

    def raise_cut(self, kth_bound: FloatArray) -> None:
        """Raise the cuts by lower bounds [rows] of the k-th best; before any other call."""
        np.maximum(self.cut, self.margin.cut(kth_bound), out=self.cut)

    def add(self, rows: IntArray, ids: IntArray, scores: FloatArray) -> None:
        """Add candidates, in any order."""
        with self._lock:
            self._parts.append((rows.astype(np.int32), ids.astype(np.int32), scores))
            self._added += len(rows)
            # Tightening costs about as much as it saves after k more candidates per row.
            if self._added >= self.k * len(self.cut):
                self._tighten()

    def finish(self) -> tuple[IdArray, IntArray]:
        """Return ids [rows, k or more] and ``count`` [rows]: each row's first ``count`` ids are its candidates."""
        rows, ids = self._tighten()
        count = np.bincount(rows, minlength=len(self.cut))
        table = np.zeros((len(count), max(self.k, int(count.max()))), dtype=np.int32)
        table[rows, position_in_runs(count)] = ids
        return table, count

    def _tighten(self) -> tuple[IdArray, IdArray]:
        """Raise the cuts and drop candidates below them; return the rows and ids that are kept."""
        rows, ids, scores = (np.concatenate(columns) for columns in zip(*self._parts, strict=True))
        keep = scores >= self.cut[rows]
        rows, ids, scores = rows[keep], ids[keep], scores[keep]
        order = np.argsort(_keys(rows, scores))
        rows, ids, scores = rows[order], ids[order], scores[order]
        count = np.bincount(rows, minlength=len(self.cut))
        enough = count >= self.k
        kth = (np.cumsum(count) - count)[enough] + self.k - 1
        self.cut[enough] = np.maximum(self.cut[enough], self.margin.cut(scores[kth]))
        keep = scores >= self.cut[rows]
        full = np.bincount(rows[keep], minlength=len(self.cut)) > capacity(self.k)
        self.overfull |= full
        self.cut[full] = np.inf
        keep &= ~full[rows]
        self._parts = [(rows[keep], ids[keep], scores[keep])]
        self._added = 0
        return self._parts[0][:2]


def _keys(rows: IdArray, scores: FloatArray) -> IntArray:
    """Return integer sort keys for (row ascending, score descending)."""
    bits = scores.view(np.int32)
    ordered = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return (rows.astype(np.int64) << 32) - ordered
