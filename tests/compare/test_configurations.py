from __future__ import annotations

import json

import pytest

from embedcore.compare.configurations import KINDS, compare_configurations, compare_timm
from embedcore.errors import UsageError
from embedcore.zoo import configurations
from embedcore.zoo.configurations import Configurations


def cfg(**changes):
    usual = {"input_size": [3, 224, 224], "crop_pct": 0.9, "mean": [0.5, 0.5, 0.5], "hf_hub_id": "timm/net"}
    return usual | changes


BASE = Configurations(
    "1.0",
    {
        "net.a": cfg(),
        "net.b": cfg(),
        "same.a": cfg(license="mit"),
        "old.a": cfg(),
        "gone.a": cfg(),
        **{f"many{n}.with_a_long_name_for_a_tag": cfg(hf_hub_id="a/b", hf_hub_filename="c.bin") for n in range(20)},
    },
    {"net": "net.a", "same": "same.a", "old": "old.a", "gone": "gone.a", "late": ""},
    {},
)
NEW = Configurations(
    "1.1",
    {
        "net.a": cfg(crop_pct=0.875, mean=[0.5, 0.5, 0.4], test_input_size=[3, 288, 288]),
        "net.b": cfg(crop_pct=0.875, input_size=[3, 256, 256], license="mit", num_classes=0),
        "same.a": cfg(license="mit"),
        "new.a": cfg(),
        "late.a": cfg(),
        **{f"many{n}.with_a_long_name_for_a_tag": cfg() for n in range(20)},
    },
    {"net": "net.b", "same": "same.a", "new": "new.a", "late": "late.a"},
    {"old": "new.a", "old.a": "new.a"},
)


def test_every_kind_of_change_is_found_with_its_cause():
    changes = compare_configurations(BASE, NEW)
    found = {(group.kind, group.cause): list(group.models) for group in changes.groups}
    many = [f"many{n}.with_a_long_name_for_a_tag" for n in range(20)]
    assert found == {
        ("removed", "removed, without a successor in timm's table of renamed models"): ["gone.a"],
        ("default", "the default tag is now b, was a: another model"): ["net"],
        ("default", "no default tag any more, was a"): ["gone"],
        ("transform", "crop 0.9 → 0.875"): ["net.a", "net.b"],
        ("transform", "mean 0.5 → 0.5 0.5 0.4"): ["net.a"],
        ("transform", "input size 224×224 → 256×256"): ["net.b"],
        ("weights", "other weights file"): many,
        ("renamed", "renamed by timm"): ["old.a"],
        ("structure", "num classes none → 0"): ["net.b"],
        ("test size", "test input size none → 288×288"): ["net.a"],
        ("licence", "licence now recorded"): ["net.b"],
        ("added", "added"): ["late.a"],
        ("added", "architectures that had no weights now have a default tag"): ["late"],
    }
    assert changes.of("weights")[0].models[many[3]] == "a/b/c.bin → timm/net"
    assert changes.of("renamed")[0].models == {"old.a": "now new.a"}
    kinds = [group.kind for group in changes.groups]
    assert kinds == sorted(kinds, key=KINDS.index)
    assert json.loads(json.dumps(changes.to_json()))["groups"][0]["models"] == {"gone.a": ""}


def test_text_counts_and_names_within_the_width():
    text = compare_configurations(BASE, NEW).text(60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.startswith("timm 1.0 → 1.1: 25 pretrained tags, now 25")
    assert "   20  other weights file\n       many0.with_a_long_name_for_a_tag,\n" in text
    assert text.count("with_a_long_name") == 3 and text.count(" …\n") == 1  # once more as the example
    assert "a/b/c.bin → timm/net" in " ".join(text.split())
    assert "       old.a: now new.a\n" in text


def test_equal_registries_have_no_difference():
    assert "no configuration differs" in compare_configurations(BASE, BASE).text()


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Compare two releases of timm from their wheels; skipped if pip cannot install them."""
    cache = tmp_path_factory.mktemp("cache")

    def compared(base, new):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(configurations, "PIP_SECONDS", 20.0)
            try:
                return compare_timm(base, new, cache)
            except UsageError as error:
                if "cannot be installed" not in str(error):
                    raise
                pytest.skip(str(error))

    return compared


def test_real_releases_efficientnet_crop(releases):
    (group,) = releases("1.0.3", "1.0.9").of("transform")
    assert group.cause == "crop 1.0 → 0.875"
    assert [tag.partition(".")[0] for tag in group.models] == [f"efficientnet_b{n}" for n in (1, 2, 3, 4)]


def test_real_releases_bare_names_and_weights_files(releases):
    changes = releases("1.0.9", "1.0.15")
    (weights,) = changes.of("weights")
    assert (weights.cause, len(weights.models)) == ("other weights file", 79)
    siglip = changes.of("default")[0]
    assert siglip.cause == "the default tag is now v2_webli, was webli: another model"
    assert len(siglip.models) == 14 and "vit_base_patch16_siglip_224" in siglip.models
    # The other architectures whose bare name is another tag now: CLIP with QuickGELU, and SAM 2.
    rest = [name for group in changes.of("default")[1:] for name in group.models]
    assert sorted(rest) == [
        "sam2_hiera_base_plus",
        "sam2_hiera_large",
        "sam2_hiera_small",
        "sam2_hiera_tiny",
        "vit_base_patch32_clip_quickgelu_224",
    ]
    assert len(changes.of("removed")[0].models) == 5
