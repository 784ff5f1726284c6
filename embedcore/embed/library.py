"""Embed images in one call, for use outside pytest."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcore.embed.device import use_device
from embedcore.embed.embedder import auto_batch_size, choose_settings, embed_pixels
from embedcore.errors import EmbedcoreError, UsageError, whole_number
from embedcore.files import user_path
from embedcore.images.geometry import geometry_of
from embedcore.images.load_dataset import as_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.progress import Progress
from embedcore.zoo.backbone import Backbone, load_backbone
from embedcore.zoo.own_models import OwnModel


def embed_dataset(
    backbone: Backbone | OwnModel | str,
    images: Any,
    *,
    protocol: str = "native",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return the embeddings of all images, in order: float32 [n, dim], rows of length 1.

    ``backbone``: what :func:`load_backbone` returns, or the name of a model, which it then loads.
    ``images``: a Dataset, or anything that :func:`as_dataset` takes: a folder, a DataFrame or csv file with a column
    path, a list of paths, PIL images or arrays. Labels are not needed; ``as_dataset(images).names`` are the names of
    the rows. Images are decoded once per geometry into the folder ``cache`` (default: a temporary folder). A CUDA
    device becomes torch's current device.

    Raises UsageError for a missing device, an image that cannot be read and arguments of another type, and
    EmbedcoreError for embeddings that are zero or not finite.
    """
    if not isinstance(backbone, str | OwnModel) and not hasattr(backbone, "data_config"):
        raise UsageError(f"a {type(backbone).__name__} is not a backbone: give a name, or load_backbone(NAME)")
    if batch_size != "auto":
        batch_size = whole_number(batch_size, "batch_size", 1)
    target = use_device(device)
    dataset = as_dataset(images)
    backbone = load_backbone(backbone) if isinstance(backbone, str | OwnModel) else backbone
    with tempfile.TemporaryDirectory(prefix="embedcore-") as scratch:
        store = user_path(cache or scratch)
        pixels = open_pixel_store(dataset, geometry_of(backbone.data_config, protocol), store)
        size = auto_batch_size(batch_size, target, len(pixels))
        settings, size = choose_settings(backbone, pixels, target, precision, size)
        embedded = embed_pixels(backbone, pixels, settings, batch_size=size, progress=progress)
    if not embedded.finite:
        name, precision = backbone.name, settings.precision
        raise EmbedcoreError(f"{name}: embeddings in {precision} contain NaN, infinity or zero vectors")
    return embedded.embeddings
