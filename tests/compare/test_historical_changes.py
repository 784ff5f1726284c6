"""Historical changes of timm, patched into small models and measured before and after: found with their cause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.layers import LayerNorm, RmsNorm, fast_norm
from torch import nn

from embedcore.compare.comparison import compare
from embedcore.compare.limits import read_limits
from embedcore.compare.verdict import judge
from embedcore.images.geometry import geometry_of
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.measure.case import Case
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.measure import attempt
from embedcore.measure.truth import GroundTruth
from embedcore.results.run import Run
from embedcore.zoo import transforms
from embedcore.zoo.transforms import data_config

if not timm.is_model("test_vit4"):
    pytest.skip("this timm has no such small models", allow_module_level=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two classes of four smooth images."""
    folder = tmp_path_factory.mktemp("smooth")
    rng = np.random.default_rng(0)
    for number in range(8):
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (12, 14, 3), np.uint8))
        small.resize((260, 240), Image.Resampling.BICUBIC).save(path)
    return load_dataset(str(folder))


@pytest.fixture
def measured(dataset, tmp_path):
    """Measure a model with weights from a folder and return its run, which names `timm_version`."""

    def measure(model: str, timm_version: str, *, seed: int = 0, trained: bool = False) -> Run:
        torch.manual_seed(seed)
        state = timm.create_model(model).state_dict()
        if trained:  # blocks with fresh weights have little effect, so a change of the norms would hardly matter
            torch.manual_seed(1)
            state = {k: v + torch.randn_like(v) if v.ndim == 1 else 5 * v for k, v in state.items()}
        save_file(state, tmp_path / f"{model}.safetensors")
        pixels = open_pixel_store(dataset, geometry_of(data_config(model)), tmp_path / "cache")
        case = Case(model=model, family="mini", weights=str(tmp_path), rounds=1)
        result = attempt(case, CaseInputs(GroundTruth.of(dataset), pixels))
        assert result.ok, result.reason
        return Run(
            path=tmp_path / f"{timm_version}.json",
            results=(result,),
            excluded=(),
            settings={"protocol": "native"},
            dataset={"fingerprint": dataset.fingerprint, "queries": 8, "name": "smooth"},
            machine={"embedcore": {"timm": timm_version, "processor": "here"}},
            datetime=None,
        )

    return measure


def alarm(base: Run, new: Run, folder: Path) -> tuple[float, tuple[str, ...]]:
    """The drift that fails the gate, and its causes."""
    findings = judge(compare(base, new), read_limits(None, folder)).of("regression")
    (found,) = [finding for finding in findings if finding.change.what == "drift"]
    return found.change.change, found.causes


def code(drift: float, old: str, new: str) -> tuple[str, ...]:
    return (f"same weights and settings, embeddings moved {drift:.2g}: code (timm {old} → {new})",)


def test_equal_code_has_no_finding(measured, tmp_path):
    comparison = compare(measured("test_vit.r160_in1k", "1.0.9"), measured("test_vit.r160_in1k", "1.0.15"))
    (model,) = comparison.models
    assert model.causes == ()
    assert [change.change for change in model.changes if change.what == "drift"] == [0.0]


def test_openai_clip_with_gelu_for_quick_gelu(measured, tmp_path, monkeypatch):
    """timm issue 2031."""
    base = measured("test_vit.r160_in1k", "0.9.2")
    monkeypatch.setattr(nn.GELU, "forward", lambda self, x: x * torch.sigmoid(1.702 * x))
    drift, causes = alarm(base, measured("test_vit.r160_in1k", "0.9.16"), tmp_path)
    assert causes == code(drift, "0.9.2", "0.9.16")


def test_rms_norm_that_used_the_variance(measured, tmp_path, monkeypatch):
    """timm issue 2380: `simple_norm` is what `rms_norm` was."""
    base = measured("test_vit4.r160_in1k", "1.0.14", trained=True)

    def forward(self, x):
        return fast_norm.simple_norm(x, self.normalized_shape, self.weight, self.eps)

    monkeypatch.setattr(RmsNorm, "forward", forward)
    drift, causes = alarm(base, measured("test_vit4.r160_in1k", "1.0.15", trained=True), tmp_path)
    assert causes == code(drift, "1.0.14", "1.0.15")


def test_weights_changed_at_the_same_address(measured, tmp_path):
    """timm issue 825, of SAM's first weights."""
    base = measured("test_vit.r160_in1k", "0.4.12")
    _, causes = alarm(base, measured("test_vit.r160_in1k", "0.4.12", seed=1), tmp_path)
    assert causes == ("other weights file at the same address (timm/test_vit.r160_in1k)",)


def test_a_wrong_epsilon_in_the_norm_layers(measured, tmp_path, monkeypatch):
    """As in CLIP's convnext_xxlarge (1e-6 for 1e-5) and EfficientViT-L; in a ViT, since random weights of a ConvNeXt
    hide it: before the norms their activations are too large for a tenfold epsilon to matter."""
    base = measured("test_vit.r160_in1k", "0.9.16")

    def forward(self, x):
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, 10 * self.eps)

    monkeypatch.setattr(LayerNorm, "forward", forward)
    drift, causes = alarm(base, measured("test_vit.r160_in1k", "1.0.3"), tmp_path)
    assert causes == code(drift, "0.9.16", "1.0.3")


def test_the_embedding_point_had_another_width(measured, tmp_path, monkeypatch):
    """timm issue 2194: before it some models left layers of their head out."""

    def forward_head(self, x, pre_logits=False):
        return self.global_pool(x).flatten(1)

    with monkeypatch.context() as patch:
        patch.setattr(timm.models.mobilenetv3.MobileNetV3, "forward_head", forward_head)
        base = measured("mobilenetv3_small_050.lamb_in1k", "1.0.3")
    drift, causes = alarm(base, measured("mobilenetv3_small_050.lamb_in1k", "1.0.9"), tmp_path)
    assert drift == np.inf
    assert causes[0] == "dim 288 → 1024"


def test_the_embedding_point_had_other_values(measured, tmp_path, monkeypatch):
    """The same where the layer that was left out keeps the width."""
    with monkeypatch.context() as patch:
        patch.setattr(
            timm.layers.NormMlpClassifierHead, "forward", lambda self, x, pre_logits: self.global_pool(x).flatten(1)
        )
        base = measured("test_convnext.r160_in1k", "1.0.3")
    drift, causes = alarm(base, measured("test_convnext.r160_in1k", "1.0.9"), tmp_path)
    assert causes == code(drift, "1.0.3", "1.0.9")


def test_another_crop(measured, tmp_path, monkeypatch):
    """As efficientnet_b1 … b4 had between timm 1.0.3 and 1.0.9."""
    base = measured("test_efficientnet.r160_in1k", "1.0.9")
    cfg = transforms.registry.pretrained_cfg
    monkeypatch.setattr(transforms.registry, "pretrained_cfg", lambda model: {**cfg(model), "crop_pct": 0.875})
    _, causes = alarm(base, measured("test_efficientnet.r160_in1k", "1.0.15"), tmp_path)
    assert causes == ("crop 0.95 → 0.875",)
