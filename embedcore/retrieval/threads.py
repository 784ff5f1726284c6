"""A thread pool in which each thread multiplies on its share of the cores.

Tiles in parallel are faster than one product on all cores: no core waits for others at the end of each product, and
comparing and sorting overlap with products.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MOST = 16  # more tiles at once are hardly faster, and each needs its buffer


class Workers(ThreadPoolExecutor):
    """A thread pool with a known size, each worker with ``threads`` of torch's threads."""

    def __init__(self, count: int, threads: int) -> None:
        import torch

        super().__init__(count, initializer=torch.set_num_threads, initargs=(threads,))
        self.count = count


@contextmanager
def tile_workers() -> Iterator[Workers]:
    """Provide up to 16 workers that share torch's number of threads."""
    import torch

    threads = torch.get_num_threads()
    count = min(threads, _MOST)
    # The caller's inference mode would hold in its own thread alone.
    with torch.inference_mode(False), Workers(count, threads // count) as pool:
        try:
            yield pool
        finally:
            # set_num_threads in a worker also sets the default of later threads.
            torch.set_num_threads(threads)


class Scratch(threading.local):
    """A flat ``tensor`` per thread, reused by each tile: new pages would cost a fifth of a tile's time."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        import torch

        self.tensor = torch.empty(size, dtype=dtype)
