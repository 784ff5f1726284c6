from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from embedcore.errors import UnsupportedModel, UsageError
from embedcore.zoo.registry import pretrained_cfg
from embedcore.zoo.transforms import DataConfig, data_config, pixel_transform

ODD_SIZES = [(97, 131), (131, 97), (333, 50), (1, 1), (224, 224), (257, 255)]


def all_configs() -> dict[str, DataConfig]:
    return {tag: data_config(tag) for tag in timm.list_models(pretrained=True)}


def one_tag_of_each_kind() -> list[str]:
    """The smallest input among the tags of each (mode, filter, square?, 224?, crop fraction in steps of 0.05)."""
    kinds: dict[tuple[Any, ...], str] = {}
    configs = all_configs()
    for tag, config in sorted(configs.items(), key=lambda item: math.prod(item[1].input_size)):
        _, height, width = config.input_size
        bucket = round(config.crop_pct * 20)
        kind = (config.crop_mode, config.interpolation, height == width, height == 224, bucket)
        kinds.setdefault(kind, tag)
    return sorted(kinds.values())


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8))


def timm_input(config: DataConfig, image: Image.Image) -> torch.Tensor:
    """Return the input that timm feeds to the model."""
    whole = create_transform(
        input_size=config.input_size,
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
        crop_pct=config.crop_pct,
        crop_mode=config.crop_mode,
    )
    return whole(image)


@pytest.mark.parametrize("tag", one_tag_of_each_kind())
def test_normalised_pixels_are_timms_input_bit_for_bit(tag: str) -> None:
    config = data_config(tag)
    to_pixels = pixel_transform(
        size=config.input_size[1:],
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
        crop_mode=config.crop_mode,
        mean=config.mean,
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    for size in ODD_SIZES:
        pixels = to_pixels(picture(*size))
        assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.shape == (*config.input_size[1:], 3)
        normalised = (torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32) / 255 - mean) / std
        assert torch.equal(normalised, timm_input(config, picture(*size)))


def test_the_kinds_cover_the_crop_modes_and_filters_of_this_timm() -> None:
    covered = {(config.crop_mode, config.interpolation) for config in map(data_config, one_tag_of_each_kind())}
    assert covered == {(config.crop_mode, config.interpolation) for config in all_configs().values()}
    assert {"center", "squash"} <= {mode for mode, _ in covered}


def test_data_config_is_timms_own_at_the_training_size() -> None:
    for tag in timm.list_models(pretrained=True)[::50]:
        config = data_config(tag)
        expected = resolve_data_config(pretrained_cfg=dict(pretrained_cfg(tag)), use_test_size=False)
        assert {name: getattr(config, name) for name in expected} == {
            name: tuple(value) if isinstance(value, (tuple, list)) else value for name, value in expected.items()
        }


def test_a_known_tag() -> None:
    config = data_config("tf_efficientnet_lite1.in1k")
    assert config == DataConfig((3, 240, 240), "bicubic", (0.5,) * 3, (0.5,) * 3, 0.882, "center")


def test_unknown_model_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="resnet5000"):
        data_config("resnet5000.a1_in1k")


def test_unknown_filter_is_unsupported() -> None:
    with pytest.raises(UnsupportedModel, match="interpolation 'random'"):
        pixel_transform(size=(224, 224), interpolation="random", crop_pct=1.0, crop_mode="center", mean=(0, 0, 0))
