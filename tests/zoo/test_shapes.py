"""Tensors of a user's file reach the model as they are, or the file is refused with both shapes."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from checkpoints import loaded, own_model, same, trained
from safetensors.torch import save_file

from embedcore.errors import WeightsDamaged
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.loading import load_model
from embedcore.zoo.weights import Weights

pytestmark = pytest.mark.skipif(not timm.is_model("test_vit"), reason="timm before 1.0.17 has no test_vit")
SWIN, CLIP = "swin_tiny_patch4_window7_224", "vit_xsmall_patch16_clip_224"


def refused(folder, architecture, state, **keys) -> str:
    with pytest.raises(WeightsDamaged, match=r"^ours: .*/best\.pth does not fit: ") as caught:
        loaded(folder, architecture, state, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value).partition("does not fit: ")[2]


@pytest.mark.parametrize(("trained_at", "at", "grids"), [(96, 160, (36, 100)), (224, 160, (196, 100))])
def test_positions_of_another_input_size_are_refused_with_the_size_that_fits(tmp_path, trained_at, at, grids):
    state = trained("test_vit", img_size=trained_at).state_dict()
    ours, theirs = (f"[1, {grid + 1}, 64]" for grid in grids)
    assert refused(tmp_path, "test_vit", state) == (
        f"1 wrong shape (pos_embed is {ours} in the file, {theirs} in the model): input_size = {trained_at}? "
        "(or resample = true in its entry of a roster file, to let timm resize them)"
    )
    assert f"input_size = {trained_at}?" in refused(tmp_path, "test_vit", state, input_size=at + 32)
    backbone = loaded(tmp_path, "test_vit", state, input_size=trained_at)
    assert same(backbone.module, state) and backbone.weights.resampled == ""
    allowed = loaded(tmp_path, "test_vit", state, resample=True)
    assert allowed.weights.resampled == f"pos_embed {ours} → {theirs}"
    assert allowed.embed(torch.zeros(1, 3, at, at)).shape == (1, 64)


@pytest.mark.parametrize("architecture", ["test_vit", "eva02_tiny_patch14_224"])
def test_positions_of_a_non_square_grid_are_loaded_unchanged(tmp_path, architecture):
    """timm takes the positions of a file for a square's: of the same number it makes others for eva02."""
    patch = 14 if "14" in architecture else 16
    wide = trained(architecture, img_size=(5 * patch, 20 * patch)).state_dict()
    assert same(loaded(tmp_path, architecture, wide, input_size=(5 * patch, 20 * patch)).module, wide)


def test_patch_kernels_of_another_size_are_refused(tmp_path):
    message = refused(tmp_path, "test_vit", trained("test_vit", patch_size=32).state_dict())
    assert "patch_embed.proj.weight is [64, 3, 32, 32] in the file, [64, 3, 16, 16] in the model" in message
    assert "an arch with patches of 32×32?" in message


def test_windows_of_another_size_are_refused_though_half_of_the_tables_fit(tmp_path):
    state = trained(SWIN, img_size=192, window_size=6).state_dict()
    message = refused(tmp_path, SWIN, state)
    assert re.search(
        r"^1\d wrong shapes \(layers\.0\S+relative_position_bias_table is \[121, 3\] in the file, \[169, 3", message
    )
    assert "an arch of another window or input size?" in message
    assert "relative_position_bias_table [121, 3] → [169, 3]" in (
        loaded(tmp_path, SWIN, state, resample=True).weights.resampled
    )


def openai_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A vision tower of timm by the names of OpenAI's CLIP, which timm's own conversion takes apart."""
    pairs = [
        (r"^patch_embed\.proj\.", "conv1."),
        (r"^pos_embed$", "positional_embedding"),
        (r"^cls_token$", "class_embedding"),
        (r"^norm_pre\.", "ln_pre."),
        (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."),
        (r"\.norm(\d)\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    ]
    found = {}
    for name, value in state.items():
        if name.startswith("head."):
            continue
        for pattern, new in pairs:
            name = re.sub(pattern, new, name)
        found[f"visual.{name}"] = (
            value[0] if name == "positional_embedding" else value.flatten() if "class_e" in name else value
        )
    return found


def test_names_that_only_timm_knows_hide_no_resampling(tmp_path):
    model = trained(CLIP, classes=0)
    named = openai_names(model.state_dict())
    backbone = loaded(tmp_path, CLIP, named)
    assert backbone.weights.resampled == "" and same(backbone.module, model.state_dict())
    larger = openai_names(trained(CLIP, classes=0, img_size=288).state_dict())
    message = refused(tmp_path, CLIP, larger)
    assert message.startswith(
        "1 wrong shape (pos_embed is [325, 256] in the file, [1, 197, 256] in the model): input_size = 288?"
    )
    assert same(
        loaded(tmp_path, CLIP, larger, input_size=288).module, trained(CLIP, classes=0, img_size=288).state_dict()
    )
    coarse = openai_names(trained(CLIP, classes=0, patch_size=32).state_dict())
    assert "patch_embed.proj.weight is [256, 3, 32, 32] in the file" in refused(tmp_path, CLIP, coarse)


def test_reshaped_half_precision_and_renamed_tensors_are_no_resampling(tmp_path):
    model = trained("test_vit")
    state = {name: value.half() for name, value in model.state_dict().items()}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    backbone = loaded(tmp_path, "test_vit", state)
    rounded = {name: value.half().float() for name, value in model.state_dict().items()}
    assert same(backbone.module, rounded) and backbone.weights.resampled == ""


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int32])
@pytest.mark.parametrize("which", ["all", "kernel", "pos_embed"])
def test_integers_in_the_place_of_floats_are_refused(tmp_path, dtype, which):
    state = trained("test_vit").state_dict()
    names = {"all": [*state], "kernel": ["patch_embed.proj.weight"], "pos_embed": ["pos_embed"]}[which]
    state |= {name: (state[name] * 100).to(dtype) for name in names}
    with pytest.raises(WeightsDamaged, match=rf"^ours: .*best\.pth .*{str(dtype)[6:]}.*float"):
        loaded(tmp_path, "test_vit", state, resample=True)


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_file_of_zeros_is_refused(tmp_path, value, prefix):
    state = {
        prefix + name: torch.full_like(x, value)
        for name, x in trained("test_resnet").state_dict().items()
        if x.is_floating_point()
    }
    with pytest.raises(WeightsDamaged, match=r"^ours: .*best\.pth contains (only zeros|no finite weight): all weights"):
        loaded(tmp_path, "test_resnet", state)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_one_weight_that_is_not_finite_is_named(tmp_path, value):
    state = trained("test_resnet").state_dict()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    with pytest.raises(WeightsDamaged, match=r"best\.pth contains NaN or infinity in layer2\.0\.conv1\.weight$"):
        loaded(tmp_path, "test_resnet", state)


def test_timms_own_files_may_be_converted_and_those_of_a_folder_may_not(tmp_path):
    path = tmp_path / "test_vit.r160_in1k.safetensors"
    save_file(trained("test_vit", classes=1000, img_size=96).state_dict(), path)
    module, weights = load_model("test_vit.r160_in1k", Weights("hub", "", path))
    assert module.pos_embed.shape == (1, 101, 64) and weights.resampled == ""
    with pytest.raises(WeightsDamaged, match=r"^test_vit\.r160_in1k: .*input_size = 96\?"):
        load_backbone("test_vit.r160_in1k", weights=str(tmp_path))


@pytest.mark.parametrize(
    "architecture",
    [
        *("test_convnext", "test_efficientnet", "test_byobnet", "test_nfnet", "levit_128s", "tiny_vit_5m_224"),
        *("eva02_tiny_patch14_224", "mvitv2_tiny", "efficientvit_m0", "vit_relpos_small_patch16_224", "dla46x_c"),
        *(
            "crossvit_tiny_240",
            "maxvit_rmlp_pico_rw_256",
            "swinv2_tiny_window8_256",
            "hiera_tiny_224",
            "xcit_nano_12_p16_224",
        ),
    ],
)
def test_weights_saved_by_timm_load_unchanged(tmp_path, architecture):
    if not timm.is_model(architecture):
        pytest.skip(f"timm {timm.__version__} has no {architecture}")
    state = trained(architecture).state_dict()
    backbone = load_backbone(own_model(tmp_path, architecture, {"model": state}))
    assert same(backbone.module, state) and backbone.weights.resampled == ""


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("cait_xxs24_224", r"1 wrong shape \(pos_embed is \[1, 784, 192\] in the file, \[1, 196, 192\] in the model"),
        ("levit_128s", r"1\d wrong shapes \(\S+attention_biases is \[4, 784\] in the file, \[4, 196\] in the model"),
        ("efficientvit_m0", r"3 wrong shapes \(\S+attention_biases is \[4, 49\] in the file, \[4, 16\] in the model"),
    ],
)
def test_the_size_is_also_found_if_timm_would_not_resize_or_values_are_zero(tmp_path, architecture, message):
    state = {f"net.{name}": value for name, value in trained(architecture, img_size=448).state_dict().items()}
    assert re.search(rf"^{message}.*\): input_size = 448\?", refused(tmp_path, architecture, state))
    backbone = loaded(tmp_path, architecture, state, input_size=448)
    assert same(backbone.module, {name.removeprefix("net."): value for name, value in state.items()})
