"""A model's own evaluation preprocessing: timm's configuration of it, and its pixel part as a function.

timm's eval transform is resize, crop, to-float, normalise. The part up to the crop yields 8-bit pixels and depends on
few settings, so many models can share it; :func:`pixel_transform` is that part, made by timm itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor

from embedcore.errors import UnsupportedModel
from embedcore.zoo import registry
from embedcore.zoo.own_models import OwnModel


@dataclass(frozen=True)
class DataConfig:
    """The input that a pretrained tag expects."""

    input_size: tuple[int, int, int]
    """Channels, height, width."""
    interpolation: str
    """timm's name of the resize filter."""
    mean: tuple[float, float, float]
    """Per channel, on the scale 0–1."""
    std: tuple[float, float, float]
    crop_pct: float
    """The edge of the crop over that of the resized image."""
    crop_mode: str
    """``center`` (resize the shorter edge, crop), ``squash`` (resize both) or ``border`` (resize the longer, pad)."""


def data_config(model: str | OwnModel) -> DataConfig:
    """Return the evaluation configuration of a tag, at its training size (timm's separate test size is not used).

    Nothing is built or downloaded. Models that take images of any size (NaFlex) have their nominal fixed size. An own
    model has the settings of its entry, then those of its architecture, then timm's defaults: 224 pixels, bicubic, crop
    .875, ImageNet's mean and std. Raises UsageError for an unknown model, UnsupportedModel for one whose input does not
    have three channels.
    """
    resolve: Callable[..., dict[str, Any]] = resolve_data_config  # untyped
    if isinstance(model, str):
        name, cfg = model, dict(registry.pretrained_cfg(model))
    else:
        defaults = registry.pretrained_cfg(model.arch) if model.arch else {"input_size": (3, 224, 224)}
        name, cfg = model.name, {**defaults, **model.overlay}
    config = resolve(pretrained_cfg=cfg)
    channels = config["input_size"][0]
    if channels != 3:
        raise UnsupportedModel(f"{name} takes images of {channels} channels; embedcore supports RGB images only")
    return msgspec.convert(config, DataConfig)


def pixel_transform(
    *, size: tuple[int, int], interpolation: str, crop_pct: float, crop_mode: str, mean: Sequence[float]
) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """Return timm's eval transform without normalisation: RGB image → uint8 [height, width, 3], C-contiguous.

    ``(pixels / 255 - mean) / std`` equals the output of timm's whole transform bit for bit. ``size`` is (height,
    width); ``mean`` matters only in crop mode ``border``, as the colour of the border. Raises UnsupportedModel for a
    filter that timm does not know.
    """
    transform = _timm_transform(
        input_size=(3, *size),
        interpolation=interpolation,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        mean=tuple(mean),
        use_prefetcher=True,  # timm then leaves scaling and normalisation to its loader: uint8 comes out
    )

    def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
        # [3, h, w]: a tensor, before timm 1.0 an array
        planes: NDArray[Any] = np.asarray(transform(image))
        pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
        if pixels.dtype != np.uint8 or pixels.shape != (*size, 3):
            raise UnsupportedModel(f"timm's transform returned {pixels.dtype} {pixels.shape}, not uint8 {(*size, 3)}")
        return pixels

    return to_pixels


def eval_transform(config: DataConfig) -> Callable[[Image.Image], Tensor]:
    """Return timm's whole eval transform: PIL image, converted to RGB by PIL → normalised float32 [3, h, w].

    Raises UnsupportedModel for a filter that timm does not know.
    """
    transform = _timm_transform(**asdict(config))
    return lambda image: transform(image.convert("RGB"))


def _timm_transform(**settings: Any) -> Callable[[Image.Image], Any]:
    create: Callable[..., Callable[[Image.Image], Any]] = create_transform  # untyped
    try:
        return create(**settings)
    except KeyError as error:
        raise UnsupportedModel(f"timm has no interpolation {settings['interpolation']!r} for evaluation") from error
