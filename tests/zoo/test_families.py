from __future__ import annotations

from collections import Counter

import pytest
import timm

from embedcore.errors import UsageError
from embedcore.zoo import families, registry
from embedcore.zoo.families import FAMILIES, OTHER, family_by_slug, family_in_module, family_of

STUDY = [
    "vgg",
    "densenet",
    "resnet",
    "resnext",
    "rexnet",
    "regnet",
    "inception",
    "nasnet",
    "mobilenet",
    "deit",
    "vit",
    "convnext",
    "mlp",
    "nfnet",
    "efficientnet",
    "other",
]

# Architectures that the study names, and some look-alikes, with the family that each must have.
NAMED = {
    "vgg": "vgg11 vgg19_bn repvgg_b0 repvgg_a2",
    "densenet": "densenet121 densenetblur121d",
    "resnet": "resnet18 resnet26d resnetv2_50 resnetv2_152x4_bit seresnet50 ecaresnet50d legacy_senet154 resnet51q "
    "wide_resnet50_2",
    "resnext": "resnext50_32x4d seresnext101_32x8d legacy_seresnext50_32x4d skresnext50_32x4d gcresnext26ts",
    "rexnet": "rexnet_130 resnest50d res2net50_26w_4s res2next50",
    "regnet": "regnetx_032 regnety_160 regnetz_040 regnetz_c16",
    "inception": "inception_v3 inception_v4 inception_resnet_v2 xception65 xception41p legacy_xception",
    "nasnet": "mnasnet_100 semnasnet_075 spnasnet_100 nasnetalarge pnasnet5large selecsls60b dla34 dla60_res2net dpn68",
    "mobilenet": "mobilenetv2_140 mobilenetv3_large_100 tf_mobilenetv3_small_075 mixnet_l tf_mixnet_s hardcorenas_a",
    "deit": "beit_base_patch16_224 beitv2_base_patch16_224 cait_s24_224 deit_tiny_patch16_224 deit3_base_patch16_224 "
    "pit_s_224 coat_tiny levit_128 convit_base twins_svt_small",
    "vit": "vit_base_patch16_224 vit_small_r26_s32_224 vit_relpos_small_patch16_224 flexivit_base",
    "convnext": "convnext_tiny convnextv2_base",
    "mlp": "resmlp_12_224 mixer_b16_224 gmlp_s16_224",
    "nfnet": "dm_nfnet_f0 eca_nfnet_l0 nf_resnet50 nf_regnet_b1",
    "efficientnet": "efficientnet_b0 efficientnetv2_rw_s tf_efficientnetv2_xl tf_efficientnet_lite0 efficientnet_es",
    "swin": "swin_tiny_patch4_window7_224 swinv2_base_window8_256",
    "eva": "eva02_base_patch14_224 eva_large_patch14_196 eva02_base_patch16_clip_224",
    "clip": "vit_base_patch16_clip_224 vit_base_patch16_siglip_224",
    "dino": "vit_small_patch14_dinov2 vit_base_patch14_reg4_dinov2",
    "other": "ese_vovnet39b hrnet_w18",
}
# Architectures that timm 0.9.16 does not have yet.
NEWER = {
    "mobilenet": "mobilenetv1_100 mobilenetv4_conv_small mobilenetv5_300m mobilenet_edgetpu_v2_m",
    "vit": "vit_base_patch16_rope_224",
    "dino": "vit_base_patch16_dinov3",
    "clip": "resnet50_clip resnet50_clip_gap vit_pe_core_base_patch16_224 naflexvit_base_patch16_siglip "
    "vit_base_mci_224",
    "radio": "vit_base_patch16_radio_v3 naflexvit_base_patch16_radio_v3",
    "vlm": "qwen3_vit_88m gemma4_vit_167m",
    "hiera": "sam2_hiera_tiny",
}


def pairs(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(slug, name) for slug, names in table.items() for name in names.split()]


@pytest.mark.parametrize(("slug", "architecture"), pairs(NAMED))
def test_an_architecture_of_the_study_is_in_its_group(slug, architecture):
    assert timm.is_model(architecture)
    assert family_of(architecture).slug == slug == family_of(f"{architecture}.any_tag").slug


@pytest.mark.parametrize(("slug", "architecture"), pairs(NEWER))
def test_a_newer_architecture_is_in_its_family(slug, architecture):
    if not timm.is_model(architecture):
        pytest.skip(f"timm {timm.__version__} has no {architecture}")
    assert family_of(architecture).slug == slug


def test_retired_names_have_the_family_of_their_successor():
    assert family_of("tv_resnet50").slug == "resnet"
    assert family_of("swsl_resnext50_32x4d").slug == "resnext"
    assert family_of("adv_inception_v3").slug == family_of("xception").slug == "inception"


def test_the_studys_groups_come_in_its_order_with_other_last():
    slugs = [family.slug for family in FAMILIES]
    assert [slug for slug in slugs if slug in STUDY] == STUDY
    assert slugs[:15] == STUDY[:15] and slugs[-1] == "other" and FAMILIES[-1] is OTHER
    assert len(set(slugs)) == len(slugs) and len({family.title for family in FAMILIES}) == len(slugs)


def test_few_tags_are_in_other_and_every_newer_family_is_worth_a_leaderboard():
    tags = registry.pretrained_tags()
    counts = Counter(family_of(tag).slug for tag in tags)
    assert counts["other"] <= 0.03 * len(tags)
    if timm.__version__ == "1.0.31":
        assert len(tags) == 1826
        assert not {f.slug for f in FAMILIES if counts[f.slug] < 3 and f.slug not in (*STUDY, "own")}


def test_every_module_and_pattern_of_the_table_is_used():
    modules = set(timm.list_modules())
    if timm.__version__ != "1.0.31":
        pytest.skip("the table is written for timm 1.0.31")
    assert {module for module, _, _ in families._MEMBERS} <= modules
    for module, pattern, family in families._MEMBERS:
        names = timm.list_models(pattern, module=module)
        assert any(family_of(name) is family for name in names), (module, pattern)


def test_a_future_module_is_other(monkeypatch):
    assert family_in_module("hyper_vit", "hyper_vit_tiny") is OTHER
    assert family_of("an_architecture_nobody_knows.yet") is OTHER


def test_every_slug_leads_to_its_family():
    assert all(family_by_slug(f" {family.slug.upper()} ") is family for family in FAMILIES)


def test_an_unknown_slug_is_reported_with_a_close_one():
    output = r"unknown family 'mobilnet'; did you mean 'mobilenet'\? \(families: vgg, densenet, .*other\)"
    with pytest.raises(UsageError, match=output):
        family_by_slug("mobilnet")
