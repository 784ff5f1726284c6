"""Families: the architecture groups of the leaderboards, derived from timm's module of an architecture."""

from __future__ import annotations

import difflib
import fnmatch
import functools
from dataclasses import dataclass

from embedcore.errors import UsageError


@dataclass(frozen=True)
class Family:
    """One architecture group: slug is what a user types, title what a table shows."""

    slug: str
    title: str


# One row a family, in leaderboard order: slug, title, what belongs to it. A word is a module of timm, which the family
# takes whole, or `module:pattern`, a part of a module by architecture name (fnmatch). A part goes before the whole, a
# longer pattern before a shorter one, so a row may take from what another row has. What no row takes is "other", as is
# every module that timm adds later.
# Rows 1 to 15 and the last are the groups of the 2022 study.
_TABLE = """
vgg            | VGG                                | vgg  byobnet:repvgg*
densenet       | DenseNet                           | densenet  rdnet
resnet         | ResNet                             | resnet  resnetv2  senet  sknet  tresnet  byobnet
resnext        | ResNeXt                            | resnet:*resnext*  senet:*resnext*  sknet:*resnext*  byobnet:*resnext*
rexnet         | ReXNet / ResNeSt / Res2Net         | rexnet  resnest  res2net
regnet         | RegNet                             | regnet  byobnet:regnetz*
inception      | Inception / Xception               | inception_v3  inception_v4  inception_resnet_v2  xception  xception_aligned
nasnet         | MNASNet / NASNet / PNASNet / SelecSLS / DLA / DPN | nasnet  pnasnet  selecsls  dla  dpn  efficientnet:*mnasnet*  efficientnet:spnasnet*
mobilenet      | MobileNet / MixNet / HardCoRe-NAS  | mobilenetv3  mobilenetv5  hardcorenas  efficientnet:*mobilenet*  efficientnet:*mixnet*  efficientnet:fbnet*
deit           | BeiT / CaiT / DeiT / PiT / CoaT / LeViT / ConViT / Twins | beit  cait  deit  pit  coat  levit  convit  twins  vision_transformer:beit3*
vit            | ViT                                | vision_transformer  vision_transformer_hybrid  vision_transformer_relpos  vision_transformer_sam  naflexvit  eva:vit_*
convnext       | ConvNeXt                           | convnext
mlp            | ResMLP / MLP-Mixer                 | mlp_mixer
nfnet          | NFNet                              | nfnet
efficientnet   | EfficientNet                       | efficientnet
swin           | Swin                               | swin_transformer  swin_transformer_v2  swin_transformer_v2_cr
eva            | EVA                                | eva  vision_transformer:eva*
clip           | CLIP / SigLIP / Perception Encoder | vision_transformer:*_clip_*  vision_transformer:*_siglip_*  vision_transformer:*_tipsv2*  vision_transformer_hybrid:*_mci_*  naflexvit:*_siglip*  eva:vit_pe_*  byobnet:*_clip  byobnet:*_clip_gap
dino           | DINOv2 / DINOv3                    | vision_transformer:*_dinov2*  eva:*_dinov3*
radio          | RADIO                              | vision_transformer:*_radio_*  naflexvit:*_radio_*
aimv2          | AIMv2                              | vision_transformer:aimv2_*
vitamin        | ViTamin                            | vitamin
vlm            | Encoders of language models        | qwen3_vit  gemma4_vit  deepseek_vit
maxvit         | MaxViT / CoAtNet                   | maxxvit
hiera          | Hiera / SAM 2                      | hiera  hieradet_sam2
metaformer     | MetaFormer / PoolFormer            | metaformer
xcit           | XCiT                               | xcit
volo           | VOLO                               | volo
crossvit       | CrossViT                           | crossvit
mvit           | MViTv2                             | mvitv2
pvt            | PVTv2                              | pvt_v2
focalnet       | FocalNet                           | focalnet
davit          | DaViT                              | davit
gcvit          | GC ViT                             | gcvit
nextvit        | Next-ViT                           | nextvit
tinyvit        | TinyViT                            | tiny_vit
mambaout       | MambaOut                           | mambaout
inceptionnext  | InceptionNeXt                      | inception_next
hgnet          | HGNet                              | hgnet
cspnet         | CSPNet / DarkNet / CSPNeXt         | cspnet  cspnext
botnet         | BoTNet / HaloNet / LambdaNet       | byoanet
efficientvit   | EfficientViT                       | efficientvit_mit  efficientvit_msra
efficientformer| EfficientFormer                    | efficientformer  efficientformer_v2
efficientvim   | EfficientViM                       | efficientvim
fastvit        | FastViT                            | fastvit
mobilevit      | MobileViT                          | mobilevit
mobileone      | MobileOne                          | byobnet:mobileone*
repvit         | RepViT                             | repvit
edgenext       | EdgeNeXt                           | edgenext
ghostnet       | GhostNet / RepGhost                | ghostnet  repghost
lcnet          | PP-LCNet                           | lcnetv2  mobilenetv3:lcnet*
fasternet      | FasterNet                          | fasternet
starnet        | StarNet                            | starnet
swiftformer    | SwiftFormer                        | swiftformer
shvit          | SHViT                              | shvit
iformer        | iFormer                            | iformer
lowformer      | LowFormer / CPUBone                | lowformer  cpubone
other          | Other                              | vovnet  hrnet  byobnet:gernet*  byobnet:test_*
"""  # noqa: E501  (one row a line is what makes the table readable)


_ROWS = [[cell.strip() for cell in row.split("|")] for row in _TABLE.strip().splitlines()]
FAMILIES = tuple(Family(slug, title) for slug, title, _ in _ROWS)
OTHER = FAMILIES[-1]
_MEMBERS = sorted(
    (
        (*member.partition(":")[::2], family)
        for family, (_, _, members) in zip(FAMILIES, _ROWS, strict=True)
        for member in members.split()
    ),
    key=lambda member: -len(member[1]),
)


def family_of(model: str) -> Family:
    """The family of a tag or architecture; OTHER for what the table does not know."""
    return _family_of_architecture(model.partition(".")[0])


@functools.cache
def _family_of_architecture(architecture: str) -> Family:
    from embedcore.zoo import registry  # here, so that reports can name families without importing timm

    return family_in_module(registry.module_of(architecture), architecture)


def family_in_module(module: str, architecture: str) -> Family:
    """The family of an architecture that a module of timm defines.

    >>> family_in_module("byobnet", "repvgg_b0").slug, family_in_module("byobnet", "resnet61q").slug
    ('vgg', 'resnet')
    """
    fits = (
        family for name, part, family in _MEMBERS if name == module and fnmatch.fnmatchcase(architecture, part or "*")
    )
    return next(fits, OTHER)


def family_by_slug(slug: str) -> Family:
    """The family that a user names; raises UsageError with the close and the known slugs where there is none."""
    slugs = {family.slug: family for family in FAMILIES}
    wanted = slug.strip().lower()
    if wanted in slugs:
        return slugs[wanted]
    close = difflib.get_close_matches(wanted, slugs, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"unknown family {slug!r}{hint} (families: {', '.join(slugs)})")
