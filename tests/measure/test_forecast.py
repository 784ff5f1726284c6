from __future__ import annotations

from pathlib import Path

import pytest

from embedcore.measure import forecast as module
from embedcore.measure.forecast import forecast
from embedcore.zoo.registry import known_params_m

MODELS = ["resnet18.a1_in1k", "resnet18.a2_in1k", "vgg11.tv_in1k"]  # two geometries: of resnet18's tags one


def test_weights_and_pixels_are_estimated(caches: Path) -> None:
    found = forecast(dict.fromkeys(MODELS), 1000, caches / "cache")
    assert (found.models, found.too_large, found.geometries) == (3, 0, 2)
    assert len(found.to_fetch) == 3 and not found.here
    assert found.fetched_bytes == pytest.approx(sum(4e6 * (known_params_m(model) or 0) for model in MODELS))
    assert found.pixels == 2 * 1000 * 224 * 224 * 3
    weights, pixels = found.lines()
    assert weights.startswith(f"weights: 3 models to fetch, about 625 MB, into {caches / 'hub'} (")
    assert pixels.startswith("pixels: up to 301 MB, for 1,000 images in 2 input geometries, in ")


def test_excluded_models_are_not_counted(caches: Path) -> None:
    found = forecast(dict.fromkeys(MODELS), 1000, caches / "cache", max_params=50)
    assert (found.models, found.too_large, found.geometries, len(found.to_fetch)) == (3, 1, 1, 2)
    random = forecast(dict.fromkeys(MODELS), 1000, caches / "cache", weights="random")
    assert not random.to_fetch and random.geometries == 2 and len(random.lines()) == 1


def test_without_a_network_nothing_is_fetched_nor_decoded(caches: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = forecast(dict.fromkeys(MODELS), 1000, caches / "cache")
    assert found.lines() == ["weights: 3 models not on this machine, and HF_HUB_OFFLINE is set: skipped"]


def test_existing_stores_are_not_counted(caches: Path) -> None:
    folder = caches / "cache" / "pixels"
    folder.mkdir(parents=True)
    (folder / f"{'f' * 16}-224x224-center0.875-bilinear-01234567.npy").touch()
    found = forecast({"vgg11.tv_in1k": None}, 10, caches / "cache", fingerprint="f" * 64, weights="random")
    assert found.pixels_made == found.pixels and found.lines() == []
    other = forecast({"vgg11.tv_in1k": None}, 10, caches / "cache", fingerprint="e" * 64, weights="random")
    assert other.pixels_made == 0


def test_too_little_room_is_reported(caches: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda folder: 10_000_000)
    assert all(
        line.endswith("(10.0 MB free: NOT ENOUGH)") for line in forecast(dict.fromkeys(MODELS), 1000, caches).lines()
    )


@pytest.mark.parametrize(("free", "lacks"), [(1_624_000_000, True), (1_626_000_000, False), (None, False)])
def test_the_weights_must_leave_a_gigabyte(caches: Path, monkeypatch, free, lacks) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda folder: free)
    found = forecast(dict.fromkeys(MODELS), 1000, caches)
    assert bool(found.lacking) is lacks
    if lacks:
        wanted = f"the weights of 3 models take about 625 MB, and {caches / 'hub'} has 1.62 GB free"
        assert found.lacking == wanted
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not forecast(dict.fromkeys(MODELS), 1000, caches).lacking


def test_the_time_is_that_of_an_earlier_run(caches: Path) -> None:
    costs = dict.fromkeys(MODELS, 2.0)
    known = forecast(dict.fromkeys(MODELS), 10, caches, weights="random", costs=costs, earlier=[(2.0, 600.0)] * 20)
    low, high = known.seconds or (0.0, 0.0)
    assert low < 1800 < high and known.notable
    assert known.lines()[-1].startswith("time: about ") and known.lines()[-1].endswith("earlier run on this machine")
    assert forecast(dict.fromkeys(MODELS), 10, caches, weights="random", costs=costs).seconds is None


def test_a_long_first_run_has_a_rough_time(caches: Path) -> None:
    costs = dict.fromkeys(MODELS, 2.0)
    found = forecast(
        dict.fromkeys(MODELS), 100_000, caches, weights="random", costs=costs, speed=lambda: 100.0, processes=2
    )
    low, high = found.seconds or (0.0, 0.0)
    assert low < 3 * 100_000 * 2 / 100 < high and found.is_rough and found.notable
    assert found.lines()[-1].startswith("time: roughly ") and "no run is known" in found.lines()[-1]


@pytest.mark.parametrize(
    ("images", "earlier", "speed", "asked"),
    [(100_000, [(2.0, 600.0)], 100.0, 0), (800, [], 100.0, 0), (100_000, [], None, 1)],
)
def test_the_speed_is_measured_only_if_it_tells_more(caches: Path, images, earlier, speed, asked) -> None:
    calls: list[int] = []
    found = forecast(
        dict.fromkeys(MODELS),
        images,
        caches,
        weights="random",
        costs=dict.fromkeys(MODELS, 2.0),
        earlier=earlier,
        speed=lambda: calls.append(1) or speed,
    )
    assert len(calls) == asked and not found.is_rough and bool(found.seconds) == bool(earlier)
