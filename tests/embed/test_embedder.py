from __future__ import annotations

import threading

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from embedcore.embed import embedder
from embedcore.embed.cost import count_gmacs
from embedcore.embed.device import place
from embedcore.embed.embedder import ForwardSettings, auto_batch_size, choose_settings, embed_pixels, first_batch
from embedcore.embed.pipeline import HostLane
from embedcore.embed.precision import CANARY_ROUNDS, canary_cosine
from embedcore.embed.timing import time_forward
from embedcore.images.geometry import geometry_of
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.zoo.backbone import Backbone, load_backbone

CPU = torch.device("cpu")
ON_CPU = ForwardSettings(CPU)
MODELS = [
    "test_resnet.r160_in1k",
    "test_vit.r160_in1k",
    "test_efficientnet.r160_in1k",
    "test_byobnet.r160_in1k",
    "test_convnext.r160_in1k",
    "test_nfnet.r160_in1k",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten photos-like images of many shapes: smooth colour fields with noise."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    for number in range(10):
        small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        image = small.resize((int(rng.integers(90, 400)), int(rng.integers(90, 400))), Image.Resampling.BICUBIC)
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    return folder


def plain_timm_loop(tag, folder):
    """Embed as a careful user of timm would: create_transform, PIL, model, normalise; one image at a time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(tag, pretrained=False).eval()
    config = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**config)
    rows = []
    for path in sorted(folder.glob("*/*.png")):
        with torch.inference_mode():
            features = model.forward_features(transform(Image.open(path).convert("RGB"))[None])
            rows.append(torch.nn.functional.normalize(model.forward_head(features, pre_logits=True)))
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("tag", MODELS)
def test_equals_a_plain_timm_loop(folder, tmp_path, tag, batch_size):
    backbone = load_backbone(tag, weights="random", seed=0)
    place(backbone.module, CPU)
    dataset = load_dataset(str(folder))
    store = open_pixel_store(dataset, geometry_of(backbone.data_config, "native"), tmp_path)
    progress = []
    embedded = embed_pixels(
        backbone, store, ON_CPU, batch_size=batch_size, progress=lambda done, total: progress.append((done, total))
    )
    cosines = (embedded.embeddings * plain_timm_loop(tag, folder)).sum(axis=1)
    assert embedded.embeddings.dtype == np.float32
    assert np.abs(1 - cosines).max() < 1e-5
    assert embedded.finite
    assert embedded.batch_size == batch_size
    assert [done for done, _ in progress] == [*range(batch_size, 10, batch_size), 10]


class Grey:
    """Plain pixels in memory."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def read(self, start, stop):
        return np.arange(start, stop, dtype=np.uint8).repeat(8 * 8 * 3).reshape(-1, 8, 8, 3)


class Small:
    """A backbone with memory for ``room`` images; raises ``failure`` for more."""

    def __init__(self, room, failure, dim=4):
        self.room, self.failure, self.dim = room, failure, dim
        self.data_config = load_config()
        self.module = torch.nn.Identity()
        self.seen = []

    def embed(self, batch):
        if len(batch) > self.room:
            raise self.failure
        self.seen.append(len(batch))
        return batch.mean(dim=(2, 3)) @ torch.ones(3, self.dim) + torch.arange(float(self.dim))


def load_config():
    from embedcore.zoo.transforms import DataConfig

    return DataConfig((3, 8, 8), "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, "center")


FAILURES = [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError()]


@pytest.mark.parametrize("failure", FAILURES, ids=["device", "host"])
def test_exhausted_memory_halves_the_batch_and_loses_no_image(failure):
    backbone = Small(3, failure)
    embedded = embed_pixels(backbone, Grey(21), ON_CPU, batch_size=16)
    roomy = embed_pixels(Small(100, failure), Grey(21), ON_CPU, batch_size=16)
    assert embedded.batch_size == 2
    assert sum(backbone.seen) == 21
    assert roomy.batch_size == 16
    np.testing.assert_allclose(embedded.embeddings, roomy.embeddings, rtol=1e-6)


def test_exhausted_memory_with_one_image_is_raised():
    with pytest.raises(torch.cuda.OutOfMemoryError):
        embed_pixels(Small(0, FAILURES[0]), Grey(4), ON_CPU, batch_size=4)


def test_other_errors_are_raised_at_once():
    backbone = Small(3, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        embed_pixels(backbone, Grey(8), ON_CPU, batch_size=4)
    assert backbone.seen == []


def test_embeddings_that_are_not_finite_are_detected():
    class Broken(Small):
        def embed(self, batch):
            out = super().embed(batch)
            out[0, 0] = torch.nan
            return out

    class Dead(Small):
        def embed(self, batch):
            return super().embed(batch) * 0

    for kind in (Broken, Dead):
        assert not embed_pixels(kind(9, MemoryError()), Grey(3), ON_CPU, batch_size=2).finite


def test_no_images():
    with pytest.raises(ValueError, match="no images"):
        embed_pixels(Small(1, MemoryError()), Grey(0), ON_CPU)


def test_first_batch_equals_the_pipelines():
    backbone = Small(9, MemoryError())
    batch = first_batch(backbone, Grey(5), 3, ON_CPU)
    assert batch.shape == (3, 3, 8, 8)
    assert torch.equal(batch[2], torch.full((3, 8, 8), 2 / 255))


@pytest.mark.parametrize(("spec", "n", "expected"), [("auto", 100, 16), ("auto", 5, 5), (64, 100, 64), (64, 10, 10)])
def test_auto_batch_size(spec, n, expected):
    assert auto_batch_size(spec, CPU, n) == expected


class AheadLane(HostLane):
    """The CPU as a lane that reads ahead in a thread, as other devices do."""

    def __init__(self, device, read, normalise, forward, batch_size):
        super().__init__(device, read, normalise, forward)
        self.slots, self.flying = 3, 2


class CardLane(AheadLane):
    """A lane with batches of equal size, as on cards."""

    equal = True


@pytest.mark.parametrize("lane_of", [AheadLane, CardLane])
@pytest.mark.parametrize("failure", [*FAILURES, RuntimeError("GET was unable to find an engine to execute this")])
def test_halving_with_batches_on_their_way_loses_and_repeats_no_row(failure, lane_of):
    backbone, progress = Small(5, failure), []

    def reported(done, total):
        progress.append(done)
        if done >= 32:
            backbone.room = 2

    embedded = embed_pixels(backbone, Grey(61), ON_CPU, batch_size=16, progress=reported, lane_of=lane_of)
    plain = embed_pixels(Small(100, failure), Grey(61), ON_CPU, batch_size=16)
    assert embedded.batch_size == 2
    np.testing.assert_allclose(embedded.embeddings, plain.embeddings, rtol=1e-6)
    assert progress == sorted(set(progress)) and progress[-1] == 61
    if lane_of is CardLane:  # no other shape, for which cuDNN would try algorithms
        assert set(backbone.seen) == {4, 2}


def test_an_exception_of_progress_ends_the_pass_and_its_thread():
    class SpentError(Exception):
        pass

    def spent(done, total):
        assert threading.current_thread() is threading.main_thread()
        raise SpentError

    with pytest.raises(SpentError):
        embed_pixels(Small(9, MemoryError()), Grey(61), ON_CPU, batch_size=4, progress=spent, lane_of=AheadLane)
    assert not [thread for thread in threading.enumerate() if thread.name == "embedcore-reader"]


def test_an_exception_of_reading_reaches_the_caller_with_its_traceback():
    class Lost(Grey):
        def read(self, start, stop):
            if start >= 20:
                raise OSError(5, "the disk has gone")
            return super().read(start, stop)

    with pytest.raises(OSError, match="the disk has gone") as caught:
        embed_pixels(Small(9, MemoryError()), Lost(61), ON_CPU, batch_size=4, lane_of=AheadLane)
    assert "raise OSError" in str(caught.getrepr())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_backbone_can_be_used_outside_the_harness_afterwards(precision):
    """convit keeps a tensor that it made in its first forward pass."""
    backbone = load_backbone("convit_tiny.fb_in1k", weights="random", seed=0)
    place(backbone.module, CPU)
    size = backbone.data_config.input_size[1]
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)

    class Two(Grey):
        def read(self, start, stop):
            return pixels[start:stop]

    embedded = embed_pixels(backbone, Two(2), ForwardSettings(CPU, precision), batch_size=2)
    assert embedded.finite
    backbone.module.requires_grad_(True)
    backbone.module(torch.zeros(1, 3, size, size)).sum().backward()
    assert any(weight.grad is not None for weight in backbone.module.parameters())


def test_cudnn_tries_algorithms_only_for_repeated_passes(monkeypatch):
    """On a card this took seconds per shape, more than the rest of a case."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    backbone = load_backbone("test_resnet.r160_in1k", weights="random")
    embed, tried = backbone.embed, []
    monkeypatch.setattr(
        type(backbone), "embed", lambda self, x: (tried.append(torch.backends.cudnn.benchmark), embed(x))[1]
    )
    count_gmacs(backbone)
    canary_cosine(backbone, torch.zeros(2, 3, 160, 160), "bf16")
    assert tried == [False] * 3
    time_forward(backbone.embed, torch.zeros(2, 3, 160, 160), 1)
    assert tried[3:] and all(tried[3:])
    assert torch.backends.cudnn.benchmark


def test_the_forward_settings_are_those_requested():
    assert choose_settings(Small(100, FAILURES[0]), Grey(61), CPU, "fp32", 50) == (ON_CPU, 50)
    assert choose_settings(Small(100, FAILURES[0]), Grey(61), CPU, "bf16", 50) == (ForwardSettings(CPU, "bf16"), 50)


def test_layouts_are_compared_without_trials_of_cudnn(folder, tmp_path, monkeypatch):
    """In fp32 on a card both layouts are timed, and each would begin with seconds of trials."""
    seen, embed = [], Backbone.embed

    def looking(self, x):
        seen.append(torch.backends.cudnn.benchmark)
        return embed(self, x)

    monkeypatch.setattr(Backbone, "embed", looking)
    monkeypatch.setattr(embedder, "choose_channels_last", lambda device, precision, seconds: seconds(True) < 0)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    backbone = load_backbone(MODELS[0], weights="random")
    pixels = open_pixel_store(load_dataset(str(folder)), geometry_of(backbone.data_config, "native"), tmp_path)
    settings, _ = choose_settings(backbone, pixels, CPU, "fp32", 2)
    assert len(seen) >= CANARY_ROUNDS and set(seen) == {False}
    assert torch.backends.cudnn.benchmark and not settings.channels_last
