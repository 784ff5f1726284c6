"""embed_dataset: arguments of ordinary types work as expected, or are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from embedcore.embed.library import embed_dataset
from embedcore.errors import EmbedcoreError, UsageError
from embedcore.zoo.backbone import Backbone, load_backbone

IMAGES = [np.full((20, 24, 3), 40 * level, np.uint8) for level in range(3)]


@pytest.fixture
def backbone() -> Backbone:
    return load_backbone("test_resnet.r160_in1k", weights="random")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"batch_size": size}, "batch_size is .*: it must be a whole number of at least 1")
            for size in ("big", 0, -3, 2.5, None)
        ),
        *(({"device": device}, f"device {device!r}") for device in (None, "tpu", "cuda:99")),
        *(({"precision": precision}, f"unknown precision {precision!r}") for precision in (None, "fp8")),
        ({"protocol": None}, "unknown protocol None"),
    ],
)
def test_options(backbone: Backbone, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        embed_dataset(backbone, IMAGES, **options)


def test_anything_but_a_backbone_is_refused(backbone: Backbone) -> None:
    for images in (backbone.module, None):
        with pytest.raises(UsageError, match=f"a {type(images).__name__} is not a backbone: give a name, or load_back"):
            embed_dataset(images, IMAGES)


def test_a_name_in_place_of_a_backbone(tmp_path: Path) -> None:
    paths = []
    for level, image in enumerate(IMAGES):
        (tmp_path / f"{level}.png").parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"{level}.png")
        paths.append(str(tmp_path / f"{level}.png"))
    expected = embed_dataset(load_backbone("tf_efficientnet_lite0.in1k"), IMAGES)
    for images in (tmp_path, paths, pandas.DataFrame({"weight": [1, 2, 3], "File": paths}), pandas.Series(paths)):
        np.testing.assert_allclose(embed_dataset("tf_efficientnet_lite0", images), expected, atol=1e-5)
    np.testing.assert_allclose(embed_dataset("tf_efficientnet_lite0", paths[1]), expected[1:2], atol=1e-5)


def test_a_wrong_name_and_a_frame_without_paths_are_one_line(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="unknown model 'resnet5O'"):
        embed_dataset("resnet5O", IMAGES)
    with pytest.raises(UsageError, match="the DataFrame: no column 'path'"):
        embed_dataset(backbone, pandas.DataFrame({"weight": [1]}))


def test_paths_as_text_and_numbers_of_numpy(backbone: Backbone, tmp_path: Path) -> None:
    expected = embed_dataset(backbone, IMAGES, batch_size=2)
    found = embed_dataset(backbone, IMAGES, cache=str(tmp_path / "cache"), batch_size=np.int64(2))
    np.testing.assert_array_equal(found, expected)
    assert [*(tmp_path / "cache").rglob("*.npy")]


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_zero_embeddings_are_refused(backbone: Backbone, value: float) -> None:
    with torch.no_grad():
        for weight in backbone.module.parameters():
            weight.fill_(value)
    with pytest.raises(EmbedcoreError, match=r"test_resnet\.r160_in1k: embeddings in fp32 contain NaN"):
        embed_dataset(backbone, IMAGES)
