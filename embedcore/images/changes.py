"""Whether image files are still what they were when their dataset was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from embedcore.images.audit import stamp_of
from embedcore.images.decode import reason_of
from embedcore.images.ledger import Stamp
from embedcore.images.sources import ImageSource

_THREADS = 8  # a network file system takes its time for each file
_RANGE = 1024  # files a thread looks at before another change, found meanwhile, stops it


def stamp_table(stamps: Sequence[Stamp | None]) -> NDArray[np.int64]:
    """Stamps as rows int64 [n, 4], of -1 where there is none."""
    return np.array([(-1,) * 4 if stamp is None else astuple(stamp) for stamp in stamps], np.int64).reshape(-1, 4)


def first_change(source: ImageSource, digests: Sequence[str], stamps: NDArray[np.int64]) -> str | None:
    """One line on the first image whose content is not that of its digest any more; None if there is none.

    Only files whose stamp differs are read. If their content is the same (a backup has set a time), their new stamp is
    put into ``stamps`` [n, 4], so that they are not read again.
    """

    def change_in(start: int) -> str | None:
        for index in range(start, min(start + _RANGE, len(digests))):
            if stamps[index, 0] >= 0 and (change := _change_of(source, index, digests[index], stamps)):
                return change
        return None

    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="embedcore-changes") as pool:
        futures = [pool.submit(change_in, start) for start in range(0, len(digests), _RANGE)]
        for future in futures:
            change = future.result()
            if change is not None:
                for later in futures:
                    later.cancel()
                return change
    return None


def _change_of(source: ImageSource, index: int, digest: str, stamps: NDArray[np.int64]) -> str | None:
    file = source.file(index)
    if file is None:
        return None
    name = source.name(index)
    try:
        stamp = astuple(stamp_of(file))
        if stamp == tuple(stamps[index].tolist()):
            return None
        if source.digest(index) == digest:
            stamps[index] = stamp
            return None
    except OSError as error:
        return f"image {name!r} can no longer be read: {reason_of(error)}"
    return f"image {name!r} has changed since the dataset was loaded"
