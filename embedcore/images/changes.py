"""Whether image files are still what they were when their dataset was loaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from embedcore.images.audit import stamp_of
from embedcore.images.decode import reason_of
from embedcore.images.ledger import Stamp
from embedcore.images.sources import ImageSource

LOOK_EVERY_S = 60.0

_THREADS = 8  # a network file system takes its time for each file
_RANGE = 1024  # files a thread looks at before another change, found meanwhile, stops it


class FileWatch:
    """Watches the files of a source whose contents had these digests and stamps."""

    def __init__(self, source: ImageSource, digests: Sequence[str], stamps: Sequence[Stamp | None]) -> None:
        self._source = source
        self._digests = digests
        # Numbers instead of objects: there may be a million. -1 where there is no stamp.
        rows = [(-1,) * 4 if stamp is None else astuple(stamp) for stamp in stamps]
        self._stamps: NDArray[np.int64] = np.array(rows, np.int64).reshape(-1, 4)
        self._unchanged_at: float | None = None

    def change(self, *, now: bool = False) -> str | None:
        """One line on the first image whose content is not that of its digest any more; None if there is none.

        No file is looked at within a minute of a look that has found no change, unless ``now``. Only files whose stamp
        differs are read. If their content is the same (a backup has set a time), they are not read again.
        """
        begin = time.monotonic()
        if not now and self._unchanged_at is not None and begin - self._unchanged_at < LOOK_EVERY_S:
            return None
        change = self._first_change()
        self._unchanged_at = begin if change is None else None
        return change

    def _first_change(self) -> str | None:
        with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="embedcore-changes") as pool:
            return next(filter(None, pool.map(self._change_in, range(0, len(self._digests), _RANGE))), None)

    def _change_in(self, start: int) -> str | None:
        for index in range(start, min(start + _RANGE, len(self._digests))):
            if self._stamps[index, 0] >= 0 and (change := self._change_of(index)):
                return change
        return None

    def _change_of(self, index: int) -> str | None:
        file, name = self._source.file(index), self._source.name(index)
        if file is None:
            return None
        try:
            stamp = astuple(stamp_of(file))
            if stamp == tuple(self._stamps[index].tolist()):
                return None
            if self._source.digest(index) == self._digests[index]:
                self._stamps[index] = stamp
                return None
        except OSError as error:
            return f"image {name!r} can no longer be read: {reason_of(error)}"
        return f"image {name!r} has changed since the dataset was loaded"
