from __future__ import annotations

import csv
from importlib import resources

import pytest
import timm

from embedcore.zoo.registry import known_gmacs, known_params_m


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "levit_128s"])
def test_parameters_are_those_of_timms_model(architecture):
    module = timm.create_model(architecture)
    assert known_params_m(architecture) == pytest.approx(sum(p.numel() for p in module.parameters()) / 1e6, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "published"),  # GMACs in the papers
    [
        ("resnet50.a1_in1k", 4.1),
        ("vit_base_patch16_224.augreg_in1k", 17.6),
        ("swin_tiny_patch4_window7_224", 4.5),
        ("vgg16", 15.5),
    ],
)
def test_gmacs_are_the_published_ones(model, published):
    assert known_gmacs(model) == pytest.approx(published, rel=0.02)


def test_an_unknown_architecture_has_no_size():
    assert known_params_m("a_net_of_tomorrow.in1k") is None and known_gmacs("a_net_of_tomorrow.in1k") is None


def test_the_table_has_every_architecture_with_weights():
    with resources.files("embedcore.zoo").joinpath("sizes.csv").open(encoding="utf-8") as stream:
        rows = {row["architecture"]: row for row in csv.DictReader(stream)}
    if timm.__version__ == "1.0.31":
        assert set(rows) == set(timm.list_models())
    assert all(float(row["params_m"]) > 0 and float(row["gmacs"]) > 0 for row in rows.values())
