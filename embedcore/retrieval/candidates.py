"""Candidate lists of a block of rows: everything seen so far that can still be among a row's k nearest."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.operands import Margin
from embedcore.retrieval.tiles import FloatArray

IntArray = npt.NDArray[np.int64]


def capacity(k: int) -> int:
    """How many candidates a row may hold: room for the k best, for the margin and for what one tile brings."""
    return 3 * k + 96


class CandidateBlock:
    """Up to ``capacity(k)`` candidates for each of ``rows`` rows.

    A row keeps what reaches its ``cut``, the margin below the k-th best that it has seen. A row with more
    candidates inside the margin than it can hold is ``overfull``: it takes no more and must be searched another way.
    """

    def __init__(self, rows: int, k: int, margin: Margin) -> None:
        self.k = k
        self.margin = margin
        self.cut: FloatArray = np.full(rows, -np.inf, dtype=np.float32)
        self.count: IntArray = np.zeros(rows, dtype=np.int64)
        self.overfull: npt.NDArray[np.bool_] = np.zeros(rows, dtype=bool)
        self.ids: npt.NDArray[np.int32] = np.empty((rows, capacity(k)), dtype=np.int32)
        self._scores: FloatArray = np.empty((rows, capacity(k)), dtype=np.float32)
        self._added = 0
        self._lock = threading.Lock()

    def raise_cut(self, kth_bound: FloatArray) -> None:
        """Take lower bounds [rows] of the k-th best, known from elsewhere, into the cuts."""
        with self._lock:
            np.maximum(self.cut, self.margin.cut(kth_bound), out=self.cut)

    def add(self, rows: IntArray, ids: IntArray, scores: FloatArray) -> None:
        """Add candidates, sorted by row; those under the cut of their row are dropped."""
        with self._lock:
            self._add(rows, ids, scores)
            self._added += len(rows)
            # Tightening costs about as much as adding k/2 a row saves later.
            if 2 * self._added >= self.k * len(self.cut):
                self._tighten(np.arange(len(self.cut)))
                self._added = 0

    def finish(self) -> None:
        """Drop what the last cuts no longer allow."""
        with self._lock:
            self._tighten(np.arange(len(self.cut)))

    def _add(self, rows: IntArray, ids: IntArray, scores: FloatArray) -> None:
        rows, ids, scores = self._under_no_cut(rows, ids, scores)
        starts, lengths = _runs(rows)
        crowded = self.count[rows[starts]] + lengths > self.ids.shape[1]
        if crowded.any():
            self._tighten(rows[starts][crowded])
            rows, ids, scores = self._under_no_cut(rows, ids, scores)
            starts, lengths = _runs(rows)
            crowded = self.count[rows[starts]] + lengths > self.ids.shape[1]
            for start, length in zip(starts[crowded], lengths[crowded], strict=True):
                self._merge(int(rows[start]), ids[start : start + length], scores[start : start + length])
            if crowded.any():
                rest = ~np.repeat(crowded, lengths)
                rows, ids, scores = rows[rest], ids[rest], scores[rest]
                starts, lengths = starts[:0], lengths[:0]
                starts, lengths = _runs(rows)
        slots = self.count[rows] + _position_in_run(starts, lengths)
        self.ids[rows, slots] = ids
        self._scores[rows, slots] = scores
        self.count[rows[starts]] += lengths

    def _under_no_cut(self, rows: IntArray, ids: IntArray, scores: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
        keep = scores >= self.cut[rows]
        return (rows, ids, scores) if keep.all() else (rows[keep], ids[keep], scores[keep])

    def _merge(self, row: int, ids: IntArray, scores: FloatArray) -> None:
        held = int(self.count[row])
        all_ids = np.concatenate([self.ids[row, :held].astype(np.int64), ids])
        all_scores = np.concatenate([self._scores[row, :held], scores])
        kth = np.partition(all_scores, len(all_scores) - self.k)[len(all_scores) - self.k]
        self.cut[row] = max(self.cut[row], self.margin.cut(np.array([kth], dtype=np.float32))[0])
        keep = all_scores >= self.cut[row]
        kept = int(keep.sum())
        if kept > self.ids.shape[1]:
            self.overfull[row] = True
            self.cut[row] = np.inf
            kept = 0
            keep[:] = False
        self.ids[row, :kept] = all_ids[keep]
        self._scores[row, :kept] = all_scores[keep]
        self.count[row] = kept

    def _tighten(self, rows: IntArray) -> None:
        rows = rows[self.count[rows] >= self.k]
        if len(rows) == 0:
            return
        width = int(self.count[rows].max())
        scores = self._scores[rows, :width]
        scores[np.arange(width) >= self.count[rows, None]] = -np.inf
        kth = np.partition(scores, width - self.k, axis=1)[:, width - self.k]
        self.cut[rows] = np.maximum(self.cut[rows], self.margin.cut(kth))
        keep = scores >= self.cut[rows, None]
        kept = keep.sum(axis=1)
        row, column = np.nonzero(keep)
        slots = _position_in_run(np.cumsum(kept) - kept, kept)
        target = rows[row]
        moved_ids, moved_scores = self.ids[target, column], scores[row, column]
        self.ids[target, slots] = moved_ids
        self._scores[target, slots] = moved_scores
        self.count[rows] = kept


def _runs(rows: IntArray) -> tuple[IntArray, IntArray]:
    """Where the runs of equal values of a sorted array start, and how long they are."""
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    starts = np.concatenate([[0], np.flatnonzero(rows[1:] != rows[:-1]) + 1])
    return starts, np.diff(np.concatenate([starts, [len(rows)]]))


def _position_in_run(starts: IntArray, lengths: IntArray) -> IntArray:
    """0, 1, 2, … within each run: ``[0, 3], [3, 2]`` gives ``[0, 1, 2, 0, 1]``."""
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
