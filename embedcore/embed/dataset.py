"""Embedding a dataset in one call, for use outside pytest."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from embedcore.embed.device import choose_device, pin_tf32, place
from embedcore.embed.embedder import auto_batch_size, embed_pixels, first_batch
from embedcore.embed.precision import CANARY_IMAGES, choose_precision
from embedcore.images.geometry import geometry_of
from embedcore.images.pixel_store import open_pixel_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embedcore.embed.embedder import Progress
    from embedcore.images.dataset import Dataset
    from embedcore.zoo.backbone import Backbone


def embed_dataset(
    backbone: Backbone,
    dataset: Dataset,
    *,
    protocol: str = "native",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The embeddings of all images of a dataset: float32 [n, dim], rows of length 1, in the dataset's order.

    Images are decoded once for each geometry and kept in ``cache``; without one they go into a temporary folder which
    is gone afterwards. Raises UsageError for a device that is not here or an image that cannot be read.
    """
    pin_tf32()
    where = choose_device(device)
    place(backbone.module, where)
    with tempfile.TemporaryDirectory(prefix="embedcore-") as scratch:
        geometry = geometry_of(backbone.data_config, protocol)
        pixels = open_pixel_store(dataset, geometry, cache or Path(scratch))
        images = auto_batch_size(batch_size, where, len(pixels))
        with torch.inference_mode():
            few = first_batch(backbone, pixels, min(images, CANARY_IMAGES), where)
            chosen = choose_precision(precision, backbone.embed, few)
        return embed_pixels(
            backbone, pixels, device=where, precision=chosen, batch_size=images, progress=progress
        ).embeddings
