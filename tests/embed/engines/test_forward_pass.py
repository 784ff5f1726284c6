"""Each engine against eager mode, on random weights of small models."""

from __future__ import annotations

import errno
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from embedcore.embed.embedder import ForwardSettings, calibration_batches, embed_pixels, first_batch
from embedcore.embed.engines.exported import EngineInputs
from embedcore.embed.engines.forward_pass import ForwardPass
from embedcore.embed.engines.names import in_torch
from embedcore.errors import UnsupportedModel
from embedcore.zoo.backbone import load_backbone

CPU = torch.device("cpu")
# The lowest cosine between an embedding and that in eager fp32.
AGREEMENT = {"fp32": 0.999999, "bf16": 0.995, "int8": 0.97}
WAYS = [
    ("test_vit", "eager", "bf16"),
    *((model, "onnxruntime", "fp32") for model in ("test_resnet", "test_vit", "test_efficientnet", "test_convnext")),
    *((model, "openvino", "fp32") for model in ("test_resnet", "test_vit", "test_efficientnet", "test_convnext")),
    *(("test_resnet", "onnxruntime", "int8"), ("test_vit", "openvino", "bf16"), ("test_resnet", "openvino", "int8")),
]


class Noise:
    """Images of smooth random colours."""

    def __init__(self, images: int) -> None:
        small = torch.rand(images, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        smooth = F.interpolate(small, (160, 160), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)
        self.pixels = (smooth * 255).round().to(torch.uint8).numpy()

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.pixels[start:stop]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


def forward_pass_of(backbone, engine, precision, pixels, folder=None):
    settings = ForwardSettings(CPU, precision, channels_last=in_torch(engine), engine=engine)

    def calibration(size):
        return calibration_batches(backbone, pixels, settings, np.arange(len(pixels)), size)

    facts = {"model": backbone.name, "weights": backbone.weights.id}
    return settings, ForwardPass(backbone, engine, precision, EngineInputs(folder, facts, calibration))


@pytest.mark.parametrize(("model", "engine", "precision"), WAYS)
def test_embeddings_agree_with_eager_mode_in_fp32(model, engine, precision, folder):
    pixels = Noise(13)
    usual = load_backbone(model, weights="random")
    expected = embed_pixels(usual, pixels, ForwardSettings(CPU), batch_size=5).embeddings
    backbone = load_backbone(model, weights="random")
    settings, forward_pass = forward_pass_of(backbone, engine, precision, pixels, folder)
    embedded = embed_pixels(backbone, pixels, settings, batch_size=5, forward_pass=forward_pass)
    assert (embedded.embeddings * expected).sum(axis=1).min() > AGREEMENT[precision]
    assert (forward_pass.compile_s is None) == (engine == "eager")
    assert forward_pass.weights_mb() > 0
    assert backbone.token_mean == usual.token_mean


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_is_smaller_and_differs(engine, folder):
    sizes, rows = {}, {}
    for precision in ("fp32", "int8"):
        backbone, pixels = load_backbone("test_resnet", weights="random"), Noise(8)
        settings, forward_pass = forward_pass_of(backbone, engine, precision, pixels, folder)
        with settings.context(backbone):
            rows[precision] = forward_pass(first_batch(backbone, pixels, 8, settings))
        sizes[precision] = forward_pass.weights_mb()
    assert sizes["int8"] < 0.5 * sizes["fp32"]
    assert not torch.equal(rows["int8"], rows["fp32"])


@pytest.mark.parametrize(
    ("engine", "exporter"), [("onnxruntime", "torch.onnx.export"), ("openvino", "openvino.convert_model")]
)
def test_an_exported_model_is_kept(engine, exporter, tmp_path, monkeypatch):
    def embeddings():
        backbone, pixels = load_backbone("test_vit", weights="random", point="avg"), Noise(4)
        settings, forward_pass = forward_pass_of(backbone, engine, "fp32", pixels, tmp_path)
        rows = embed_pixels(backbone, pixels, settings, batch_size=2, forward_pass=forward_pass).embeddings
        assert backbone.token_mean  # also where the model is not traced
        return rows

    first = embeddings()
    monkeypatch.setattr(exporter, lambda *arguments, **options: pytest.fail("exported again"))
    assert np.array_equal(embeddings(), first)
    assert [path for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


@pytest.mark.parametrize(
    "engine", ["onnxruntime", "openvino"]
)  # torch.compile leaves to eager mode what it cannot take
def test_a_model_that_an_engine_cannot_take_is_unsupported(engine, tmp_path):
    backbone = load_backbone("test_resnet", weights="random")
    usual = backbone._forward

    def refuses(x):
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            raise NotImplementedError("no engine has this operation")
        return usual(x)

    backbone._forward = refuses
    settings, forward_pass = forward_pass_of(backbone, engine, "fp32", Noise(4), tmp_path)
    level = logging.getLogger().level
    with pytest.raises(UnsupportedModel, match=f"test_resnet.*: the engine {engine} cannot run it: .*"):
        forward_pass(first_batch(backbone, Noise(4), 4, settings))
    assert list(tmp_path.iterdir()) == [] and logging.getLogger().level == level


def test_a_full_disk_is_not_a_fault_of_the_model(tmp_path, monkeypatch):
    """An unsupported model would not be tried again on resume."""

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    _, forward_pass = forward_pass_of(
        load_backbone("test_resnet", weights="random"), "onnxruntime", "fp32", Noise(2), tmp_path
    )
    with pytest.raises(OSError, match="No space left"):
        forward_pass(torch.zeros(2, 3, 160, 160))
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_model_is_not_one_of_the_engine():
    backbone = load_backbone("test_resnet", weights="random")
    backbone._forward = lambda x: (_ for _ in ()).throw(ZeroDivisionError("a fault"))
    _, forward_pass = forward_pass_of(backbone, "onnxruntime", "fp32", Noise(2))
    with pytest.raises(ZeroDivisionError):
        forward_pass(torch.zeros(2, 3, 160, 160))


def test_each_shape_and_number_of_threads_is_prepared_once(monkeypatch):
    backbone = load_backbone("test_resnet", weights="random")
    _, forward_pass = forward_pass_of(backbone, "compile", "fp32", Noise(4))
    prepared = []
    monkeypatch.setattr(forward_pass, "_compiled", lambda: prepared.append(torch.get_num_threads()) or backbone.embed)
    before = torch.get_num_threads()
    try:
        for threads, images in [(2, 4), (2, 4), (2, 3), (1, 4), (2, 3)]:
            torch.set_num_threads(threads)
            forward_pass(torch.zeros(images, 3, 160, 160))
    finally:
        torch.set_num_threads(before)
    assert prepared == [2, 2, 1]
