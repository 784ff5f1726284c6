"""Pixels made when asked for, for want of room to store them: decoded by threads, ahead of the reader."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from embedcore.images.pixel_rows import PixelReader


class PixelStream:
    """Reads ranges of images in a dataset's order, as fast as ``workers`` threads decode them.

    While the caller works on one range, as many images after it are being made. At most two ranges are held in memory.
    Pillow releases the interpreter lock where it decodes and resizes, so that threads do. Not safe for several readers
    at once.
    """

    def __init__(self, reader: PixelReader, workers: int) -> None:
        self._reader = reader
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="embedcore-pixels")
        self._ahead: dict[int, Future[NDArray[np.uint8]]] = {}

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """uint8 [stop - start, h, w, 3]. Raises BadImageError."""
        total = len(self._reader)
        wanted = {index: self._take(index) for index in range(start, stop)}
        for stale in self._ahead.values():  # the reader jumped
            stale.cancel()
        self._ahead = {index: self._submit(index) for index in range(stop, min(2 * stop - start, total))}
        rows = np.empty((stop - start, *self._reader.shape), np.uint8)
        for index, future in wanted.items():
            rows[index - start] = future.result()
        return rows

    def _take(self, index: int) -> Future[NDArray[np.uint8]]:
        return self._ahead.pop(index) if index in self._ahead else self._submit(index)

    def _submit(self, index: int) -> Future[NDArray[np.uint8]]:
        return self._pool.submit(self._reader.pixels, index)

    def close(self) -> None:
        """Drop what is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()
