"""Normalise uint8 pixels to a backbone's float input, with the arithmetic of timm's own transform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


class Normaliser:
    """Converts uint8 [b, h, w, 3] to float32 [b, 3, h, w], channels-last or not: ``(pixel / 255 - mean) / std``.

    The operations and their order in float32 are those of torchvision's ToTensor and Normalize: on the CPU the result
    equals timm's transform bit for bit.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | None = None,
        *,
        channels_last: bool = True,
    ) -> None:
        self.channels_last = channels_last
        self.mean, self.std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (mean, std))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """``pixels`` uint8 [b, h, w, 3] on this normaliser's device."""
        out = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
        # Row by row with mean and std repeated along the row: broadcasting over 3 channels takes 8 times as long.
        width = pixels.shape[2]
        mean, std = self.mean.repeat(width), self.std.repeat(width)
        rows, target = pixels.flatten(2), out.flatten(2)
        # On the CPU image by image, which keeps an image in the cache for all passes.
        for i in range(len(rows)) if pixels.device.type == "cpu" else [slice(None)]:
            target[i].copy_(rows[i]).div_(255).sub_(mean).div_(std)
        images = out.permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous()


def as_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Return a uint8 batch as a tensor, without a copy if the array is writable."""
    array = np.ascontiguousarray(pixels)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
