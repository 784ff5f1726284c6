"""The outcome of a score for each query: right answers out of a fixed number of tries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedcore.retrieval.tiles import DoubleArray

SHOTS = (1, 2, 5, 10)
"""References of each class in the few-shot curve."""

PROBES = ("probe_ridge", "probe_logistic", *(f"few_shot_{shots}" for shots in SHOTS))
"""The scores of probes, which are measured on request."""


class Outcomes(NamedTuple):
    """`right` uint8 or bool [n_queries], at most `tries`, 0 for queries that are not judged; `judged` bool [n_queries],
    or None for all queries. A query's score is ``right / tries``."""

    right: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
    tries: int
    judged: npt.NDArray[np.bool_] | None = None

    def per_query(self) -> DoubleArray:
        """Return the scores of the judged queries, fractions 0-1.

        >>> Outcomes(np.array([3, 0, 10], np.uint8), 10, np.array([True, False, True])).per_query().tolist()
        [0.3, 1.0]
        """
        right = self.right if self.judged is None else self.right[self.judged]
        return np.asarray(right / self.tries)
