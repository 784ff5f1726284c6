"""Host-to-device batches on CUDA: two pinned buffers, filled and copied while the device computes.

Everything that only a CUDA machine can run is here and in timing.py, kept small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

Reader = Callable[[int, int], NDArray[np.uint8]]


def pinned_batches(
    read: Reader, total: int, batch_size: int, image_shape: tuple[int, int, int], device: torch.device
) -> Iterator[torch.Tensor]:
    """Yield uint8 [b, h, w, 3] batches of images 0..total on ``device``.

    While the caller computes on batch i, batch i + 1 is read into the other pinned buffer and copied on a side
    stream. An event a buffer keeps it from being refilled before its copy is done; ``record_stream`` keeps the
    device memory of a batch alive until the compute stream is done with it.
    """
    stream = torch.cuda.Stream(device)
    buffers = [torch.empty((batch_size, *image_shape), dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in range(2)]

    def copy(start: int, slot: int) -> tuple[torch.Tensor, torch.cuda.Event]:
        stop = min(start + batch_size, total)
        copied[slot].synchronize()
        buffers[slot][: stop - start].numpy()[...] = read(start, stop)
        with torch.cuda.stream(stream):
            batch = buffers[slot][: stop - start].to(device, non_blocking=True)
            copied[slot].record(stream)
        return batch, copied[slot]

    starts = list(range(0, total, batch_size))
    ahead = copy(starts[0], 0) if starts else None
    for number in range(len(starts)):
        assert ahead is not None
        batch, done = ahead
        torch.cuda.current_stream(device).wait_event(done)
        batch.record_stream(torch.cuda.current_stream(device))
        yield batch
        ahead = copy(starts[number + 1], (number + 1) % 2) if number + 1 < len(starts) else None
