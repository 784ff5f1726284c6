"""A pool of threads that each multiply on their own share of the cores.

Whole tiles side by side beat one product spread over all cores: no core waits for another at the end of each product,
and what is not a product (comparing, sorting) runs beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MOST = 16  # more tiles at once gain little and each needs its buffer


class Workers(ThreadPoolExecutor):
    """A pool that knows its size, each worker with ``threads`` of torch's threads."""

    def __init__(self, count: int, threads: int) -> None:
        import torch

        super().__init__(count, initializer=torch.set_num_threads, initargs=(threads,))
        self.count = count


@contextmanager
def tile_workers() -> Iterator[Workers]:
    """Up to 16 workers, with torch's number of threads shared out among them."""
    import torch

    threads = torch.get_num_threads()
    count = min(threads, _MOST)
    with Workers(count, threads // count) as pool:
        try:
            yield pool
        finally:
            # set_num_threads in a worker also sets what threads started later begin with.
            torch.set_num_threads(threads)


class Scratch(threading.local):
    """A flat ``tensor`` for each thread, used again by tile after tile: fresh pages would cost a fifth of a tile."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        import torch

        self.tensor = torch.empty(size, dtype=dtype)
