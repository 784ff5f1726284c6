from __future__ import annotations

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
from PIL import Image

from embedcore.errors import UsageError
from embedcore.images.geometry import Geometry, geometry_of
from embedcore.zoo.transforms import DataConfig, data_config

CONFIG = DataConfig((3, 64, 96), "bicubic", (0.5, 0.25, 0.1), (0.2, 0.2, 0.2), 0.875, "center")


def picture(height: int = 90, width: int = 70) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


def test_normalisation_does_not_affect_the_geometry() -> None:
    assert geometry_of(CONFIG) == geometry_of(replace(CONFIG, mean=(0.1, 0.1, 0.1), std=(1.0, 1.0, 1.0)))


def test_the_mean_affects_the_geometry_if_it_colours_the_border() -> None:
    dark, bright = (geometry_of(replace(CONFIG, crop_mode="border", mean=(m, m, m))) for m in (0.1, 0.9))
    assert dark != bright and dark.key != bright.key
    wide = picture(10, 100)
    assert (dark.transform()(wide)[0] == round(255 * 0.1)).all()
    assert (bright.transform()(wide)[0] == round(255 * 0.9)).all()


@pytest.mark.parametrize("protocol", ["native", "square224"])
def test_geometries_of_all_tags_have_keys_of_their_own_fit_for_file_names(protocol: str) -> None:
    geometries = {geometry_of(data_config(tag), protocol) for tag in timm.list_models(pretrained=True)}
    keys = {geometry.key for geometry in geometries}
    assert len(keys) == len(geometries) < 200
    assert all(re.fullmatch(r"[a-z0-9.\-]{8,80}", key) for key in keys)


def test_whatever_changes_the_pixels_changes_key_and_behaviour() -> None:
    base = Geometry(64, 64, "bicubic", 0.875, "center")
    others = [
        replace(base, width=65),
        replace(base, height=65),
        replace(base, interpolation="bilinear"),
        replace(base, crop_pct=1.0),
        replace(base, crop_mode="squash"),
        replace(base, square=224),
        replace(base, crop_mode="border", border=(1, 2, 3)),
        replace(base, crop_mode="border", border=(1, 2, 4)),
    ]
    everyone = [base, *others]
    assert len({geometry.key for geometry in everyone}) == len(everyone)
    assert len({geometry.behaviour() for geometry in everyone}) == len(everyone)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("edges", [(224, 224), (96, 96), (288, 240)])
def test_square224_scales_twice_and_crops_nothing(interpolation: str, edges: tuple[int, int]) -> None:
    height, width = edges
    geometry = geometry_of(replace(CONFIG, input_size=(3, height, width), interpolation=interpolation), "square224")
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    expected = picture().resize((224, 224), Image.Resampling.BICUBIC).resize((width, height), resample)
    np.testing.assert_array_equal(geometry.transform()(picture()), np.asarray(expected))


def test_under_square224_all_models_of_224_share_one_geometry() -> None:
    configs = (replace(CONFIG, input_size=(3, 224, 224), interpolation=name) for name in ("bicubic", "bilinear"))
    assert len({geometry_of(config, "square224") for config in configs}) == 1


def test_a_geometry_is_picklable_after_use() -> None:
    geometry = geometry_of(CONFIG)
    geometry.transform()(picture())
    again = pickle.loads(pickle.dumps(geometry))
    np.testing.assert_array_equal(again.transform()(picture()), geometry.transform()(picture()))


def test_unknown_protocol() -> None:
    with pytest.raises(UsageError, match="'square': one of native, square224"):
        geometry_of(CONFIG, "square")
