"""The starter roster: a small, varied and annotated selection."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import timm

from embedcore.zoo import registry
from embedcore.zoo.families import family_of
from embedcore.zoo.holdings import find_holding
from embedcore.zoo.provenance import licence
from embedcore.zoo.roster import read_roster
from embedcore.zoo.tags import starter_tags

LINES = re.findall(
    r"^([^\s#]+)\s+# ([^;]+); (\S.*)$",
    resources.files("embedcore.zoo").joinpath("starter.txt").read_text(),
    re.MULTILINE,
)


def test_every_tag_has_a_licence_and_a_reason():
    tags, missing = starter_tags()
    assert [tag for tag, *_ in LINES] == [*tags, *(tag for tag, _ in missing)]


@pytest.mark.skipif(timm.__version__ != "1.0.31", reason="the list is made for this timm")
def test_the_selection_is_small_and_varied():
    tags, missing = starter_tags()
    assert missing == [] and list(read_roster("starter")) == tags
    assert 18 <= len(tags) <= 22 and len({family_of(tag).slug for tag in tags}) >= 10
    kinds = (
        "dinov2",
        "dinov3",
        "clip",
        "siglip",
        "eva02",
        "swin",
        "convnext",
        "mobilenetv4",
        "lite0",
        "in21k",
        "in12k",
    )
    assert [kind for kind in kinds if not any(kind in tag for tag in tags)] == []
    sizes = [find_holding(tag).size for tag in tags]
    assert sum(sizes) < 5e9 and min(sizes) > 8e6 and max(sizes) < 4.2e8  # 2 to 100 M parameters of 4 bytes


@pytest.mark.skipif(timm.__version__ != "1.0.31", reason="the list is made for this timm")
@pytest.mark.parametrize(("tag", "named", "_"), LINES)
def test_the_licence_is_timms(tag, named, _):
    known = {"Apache-2.0": "apache-2.0", "MIT": "mit", "DINOv3 licence": "dinov3-license"}
    assert licence(tag) == known[named]


def test_a_tag_that_the_installed_timm_lacks_is_missing(monkeypatch):
    tags, _ = starter_tags()
    monkeypatch.setattr(registry, "pretrained_tags", lambda: tags[1:])
    assert starter_tags() == (tags[1:], [(tags[0], f"{tags[0]} is not in timm {timm.__version__}")])
