"""Which weights of a training checkpoint are taken, as common trainers write them, against the state dict itself."""

from __future__ import annotations

import argparse
import itertools
import types
from collections import OrderedDict
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import timm
import torch
from checkpoints import loaded, own_model, same, trained
from torch import nn
from torch.optim.swa_utils import AveragedModel

from embedcore.errors import WeightsDamaged
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.checkpoint import ORDER, choose_state
from embedcore.zoo.own_models import OwnModel

if not timm.is_model("test_resnet"):
    pytest.skip(f"timm {timm.__version__} has no test_resnet", allow_module_level=True)
MODEL, OTHER = trained("test_resnet"), trained("test_resnet", seed=2)
STATE, THEIRS = MODEL.state_dict(), OTHER.state_dict()


def prefixed(prefix: str, state=STATE):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("key", ORDER)
def test_each_known_key_is_taken_alone_and_named(tmp_path, key):
    backbone = loaded(tmp_path, "test_resnet", {"epoch": 3, key: STATE, "optimizer": {"state": {}, "lr": 0.1}})
    assert same(backbone.module, STATE) and backbone.weights.part == key


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise(ORDER)))
def test_the_order_is_the_documented_one(first, second):
    for content in ({first: STATE, second: THEIRS}, {second: THEIRS, first: STATE}):
        part, state = choose_state(content)
        assert part == first and all(state[name] is value for name, value in STATE.items())
        part, state = choose_state(content, second)
        assert part == second and all(state[name] is value for name, value in THEIRS.items())


def averaged() -> AveragedModel:
    swa = AveragedModel(OTHER)
    swa.module.load_state_dict(STATE)
    return swa


TRAINERS = {
    "timm": ({"state_dict": THEIRS, "state_dict_ema": STATE}, "state_dict_ema"),
    "torchvision": ({"model": THEIRS, "model_ema": averaged().state_dict()}, "model_ema"),
    "swa": (averaged().state_dict(), ""),
    "swa-in-weights": ({"weights": averaged().state_dict()}, "weights"),
    "lightning": ({"state_dict": prefixed("model."), "loops": {"fit": {}}}, "state_dict"),
    "deepspeed": ({"module": STATE, "optimizer": None, "ds_config": {"a": 1}}, "module"),
    "dino": ({"student": prefixed("module.backbone.", THEIRS), "teacher": prefixed("backbone.")}, "teacher"),
    "basicsr": ({"params": THEIRS, "params_ema": STATE}, "params_ema"),
    "compiled": (prefixed("_orig_mod."), ""),
    "compiled-ddp": (prefixed("module._orig_mod."), ""),
    "compiled-inside": ({"model": prefixed("net._orig_mod.")}, "model"),
    "compiled-part": ({name.replace("layer1.", "layer1._orig_mod."): value for name, value in STATE.items()}, ""),
    "fsdp": ({name.replace(".0.", ".0._fsdp_wrapped_module."): value for name, value in STATE.items()}, ""),
    "one-unknown": ({"my_resnet": STATE, "epoch": 3, "scheduler": {"lrs": torch.ones(3)}}, "my_resnet"),
    "nested": ({"state": {"networks": {"model": STATE}}}, "state.networks.model"),
    "extra-state": (OrderedDict([*STATE.items(), ("fc._extra_state", {"amax": 1})]), ""),
}  # fmt: skip


@pytest.mark.parametrize(("content", "part"), TRAINERS.values(), ids=TRAINERS)
def test_checkpoints_of_trainers_are_loaded(tmp_path, content, part):
    backbone = loaded(tmp_path, "test_resnet", content)
    assert same(backbone.module, STATE)
    assert (backbone.weights.part, backbone.weights.classifier) == (part, "")


@pytest.mark.parametrize(
    "file", ["model_best.pth.tar", "last.ckpt", "BEST.PTH", "BEST.PTH.TAR", "BEST.SAFETENSORS", "a.safetensors"]
)
def test_names_of_common_trainers_are_read(tmp_path, file):
    content = STATE if "safetensors" in file.lower() else {"state_dict": STATE}
    own = own_model(
        tmp_path, "test_resnet", content, file=file if "safetensors" not in file.lower() else "x.safetensors"
    )
    if own.weights != file:
        (tmp_path / "x.safetensors").rename(tmp_path / file)
    assert same(load_backbone(OwnModel(**{**vars(own), "weights": file})).module, STATE)
    (tmp_path / file).rename(tmp_path / f"test_resnet{file[file.index('.') :]}")
    assert same(load_backbone("test_resnet", weights=str(tmp_path)).module, STATE)


def test_values_beside_the_tensors_do_no_harm(tmp_path):
    beside = {
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "half": np.float16(1),
        "done": np.bool_(True),
        "mean": np.ones(3, dtype=np.float32),
        "names": np.array([{"an": "object"}], dtype=object),
        "path": tmp_path,
        "windows": PureWindowsPath("C:/x"),
        "args": argparse.Namespace(output=Path("out")),
    }
    backbone = loaded(tmp_path, "test_resnet", {"model": STATE, **beside})
    assert same(backbone.module, STATE) and backbone.weights.part == "model"


def test_a_crafted_dtype_is_never_made(tmp_path, monkeypatch):
    """numpy's own unpickling would trust a state that makes any bytes an object."""

    def called(*args: object) -> None:
        raise AssertionError("numpy unpickled something")

    torch.save({"model": STATE, "best": np.float64(0.5)}, tmp_path / "a.pth")
    monkeypatch.setattr(f"{np.float64(0).__reduce__()[0].__module__}.scalar", called)
    assert same(load_backbone(OwnModel(name="ours", arch="test_resnet", weights=str(tmp_path / "a.pth"))).module, STATE)


def test_all_other_objects_are_named_at_once(tmp_path):
    content = {"model": STATE, "cfg": types.SimpleNamespace(lr=1), "hook": nn.ReLU()}
    with pytest.raises(WeightsDamaged) as caught:
        loaded(tmp_path, "test_resnet", content)
    shown = str(caught.value)
    assert (
        "it contains torch.nn.modules.activation.ReLU, types.SimpleNamespace, which is code and is never run" in shown
    )
    assert shown.startswith("ours: ") and "set trust = true in its entry" in shown and "\n" not in shown
    backbone = loaded(tmp_path, "test_resnet", content, trust=True)
    assert same(backbone.module, STATE) and backbone.weights.part == "model"


AMBIGUOUS = {
    "gan": ({"generator": STATE, "discriminator": THEIRS}, "generator, discriminator", "generator"),
    "parts": ({"model": {"encoder": STATE, "decoder": THEIRS}}, "model.encoder, model.decoder", "model.encoder"),
}


@pytest.mark.parametrize(("content", "listed", "first"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_several_unknown_parts_are_listed_and_one_can_be_chosen(tmp_path, content, listed, first):
    with pytest.raises(WeightsDamaged) as caught:
        loaded(tmp_path, "test_resnet", content)
    assert (
        f'best.pth contains several sets of weights: {listed}; choose one, such as checkpoint_key = "{first}"'
        in str(caught.value)
    )
    backbone = loaded(tmp_path, "test_resnet", content, checkpoint_key=first)
    assert same(backbone.module, STATE) and backbone.weights.part == first


@pytest.mark.parametrize("inside", ["", "state_dict"])
def test_the_beginning_of_names_can_be_chosen_too(tmp_path, inside):
    both = prefixed("module.encoder_q.") | prefixed("module.encoder_k.", THEIRS)
    content = {inside: both, "epoch": 3} if inside else both
    with pytest.raises(WeightsDamaged, match=r"contains the model more than once, .*checkpoint_key = \"encoder_q\""):
        loaded(tmp_path, "test_resnet", content)
    keys = ["encoder_q", "module.encoder_q", *([f"{inside}.encoder_q", f"{inside}.module.encoder_q"] if inside else [])]
    for key in keys:
        backbone = loaded(tmp_path, "test_resnet", content, checkpoint_key=key)
        assert same(backbone.module, STATE) and backbone.weights.part.endswith("encoder_q")


def test_a_missing_key_is_reported_with_the_existing_ones(tmp_path):
    for key in ("ema", "model_ema.x", "mod"):
        with pytest.raises(WeightsDamaged, match=rf"checkpoint_key = '{key}'; its sets of weights: model, model_ema$"):
            loaded(tmp_path, "test_resnet", {"model": STATE, "model_ema": THEIRS}, checkpoint_key=key)


def test_an_unmerged_adapter_is_refused(tmp_path):
    adapter = {"base_model.model.blocks.0.attn.qkv.lora_A.default.weight": torch.ones(4, 8)}
    for content in (adapter, {"state_dict": STATE | adapter}):
        with pytest.raises(
            WeightsDamaged, match=r"best\.pth contains the weights of a LoRA adapter .*merge the adapter first"
        ):
            loaded(tmp_path, "test_resnet", content)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    with pytest.raises(WeightsDamaged, match=r"contains one tensor twice: fc\.weight and _orig_mod\.fc\.weight"):
        loaded(tmp_path, "test_resnet", STATE | {"_orig_mod.fc.weight": torch.ones(7, 64)})


def test_a_folder_names_the_part_too(tmp_path):
    torch.save({"model": THEIRS, "model_ema": STATE}, tmp_path / "test_resnet.pth")
    backbone = load_backbone("test_resnet", weights=str(tmp_path))
    assert same(backbone.module, STATE) and backbone.weights.part == "model_ema"


def test_the_keys_are_part_of_an_entrys_state():
    plain = OwnModel(name="ours", arch="test_resnet", weights="best.pth")
    others = [OwnModel(**{**vars(plain), **change}) for change in ({"checkpoint_key": "model"}, {"resample": True})]
    assert len({own.state("content") for own in (plain, *others)}) == 3
