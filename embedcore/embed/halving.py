"""Trying with half the batch when memory runs out, or the kernels cannot count so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from embedcore.embed.memory import fits_if_smaller, release_memory

T = TypeVar("T")


def halving(batch_size: int, device: torch.device, step: Callable[[int], T]) -> tuple[T, int]:
    """``step(batch_size)``, or with half of it as often as that is too much; gives its value and the size that fitted.

    With one image the error is raised, as is every other error at once.

    >>> def step(size):
    ...     if size > 3:
    ...         raise MemoryError
    ...     return "done"
    >>> halving(16, torch.device("cpu"), step)
    ('done', 2)
    """
    while True:
        try:
            return step(batch_size), batch_size
        except (RuntimeError, MemoryError, OSError) as error:
            if batch_size == 1 or not fits_if_smaller(error):
                raise
        # Out here the error, and with it every tensor of the step's frames, is gone.
        batch_size //= 2
        release_memory(device)
