"""The first difference of two traces: real modules with one planted change each."""

from __future__ import annotations

import copy
import dataclasses
import json

import msgspec
import pytest
import torch
from timm.layers import QuickGELU
from torch import nn

from embedcore.compare.origin import Origin, drift_of, matched, origin_of
from embedcore.embed.trace import Call, Summary, Trace, summary_of, trace
from embedcore.zoo.backbone import load_backbone

TRANSFORM = {"crop_pct": 0.9, "interpolation": "bicubic", "mean": 0.5}


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["test_vit.r160_in1k", "test_resnet.r160_in1k", "test_convnext.r160_in1k"])
def backbone(request):
    return load_backbone(request.param, weights="random")


@pytest.fixture(scope="module")
def vit():
    return load_backbone("test_vit.r160_in1k", weights="random")


def changed(backbone, change):
    module = copy.deepcopy(backbone.module)
    change(module)
    return dataclasses.replace(backbone, module=module)


def origin(backbone, change, pixels):
    base, new = (trace(b, pixels, TRANSFORM) for b in (backbone, changed(backbone, change)))
    assert msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(base))), Trace) == base
    return origin_of(base, new)


def test_nothing_moved(backbone, pixels):
    assert origin(backbone, lambda module: None, pixels) is None


def test_the_eps_of_a_norm(backbone, pixels):
    norms = [(n, m) for n, m in backbone.module.named_modules() if hasattr(m, "eps")]
    name, norm = norms[len(norms) // 2]
    found = origin(backbone, lambda module: setattr(module.get_submodule(name), "eps", norm.eps * 10), pixels)
    assert found.name == name
    assert found.differences == (f"eps {norm.eps} → {norm.eps * 10}",)
    assert found.text() == f"began in {name} ({type(norm).__name__}): eps {norm.eps} → {norm.eps * 10}"


def test_the_first_of_all_norms(backbone, pixels):
    def change(module):
        for part in module.modules():
            if hasattr(part, "eps"):
                part.eps *= 10

    first = next(c.name for c in trace(backbone, pixels, {}).calls if "eps" in c.settings)
    assert origin(backbone, change, pixels).name == first


def test_quick_gelu_for_gelu(vit, pixels):
    def change(module):
        module.blocks[3].mlp.act = QuickGELU()

    found = origin(vit, change, pixels)
    assert (found.name, found.kinds) == ("blocks.3.mlp.act", ("GELU", "QuickGELU"))
    assert found.text().startswith("began in blocks.3.mlp.act (GELU → QuickGELU): another class")


def test_another_pooling_of_tokens(vit, pixels):
    found = origin(vit, lambda module: setattr(module, "global_pool", "avg"), pixels)
    assert found.name == ""
    assert found.differences == ("global pool token → avg",)
    assert found.text() == (
        "began in the model's own code (VisionTransformer), around its modules: global pool token → avg"
    )


def test_code_between_the_modules_inside(vit, pixels):
    """The innermost module around the code is named."""

    def change(module):
        block = module.blocks[2]
        block.forward = lambda x: x + block.attn(block.norm1(x)) + 1.001 * block.mlp(block.norm2(x))

    found = origin(vit, change, pixels)
    assert found.name == "blocks.2"
    assert found.text().endswith("same settings, other code")


def test_other_weights(backbone, pixels):
    name = [n for n, m in backbone.module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][2]
    found = origin(backbone, lambda module: module.get_submodule(name).weight.data.mul_(1.01), pixels)
    assert (found.name, found.differences) == (name, ("other weights",))


def test_a_changed_crop_comes_before_all_modules(vit, pixels):
    base = trace(vit, pixels, TRANSFORM)
    found = origin_of(base, trace(vit, pixels.roll(1, 2), TRANSFORM | {"crop_pct": 1.0}))
    assert found.text() == "began in the input: crop 0.9 → 1.0"
    found = origin_of(base, trace(vit, pixels.roll(1, 2), TRANSFORM))
    assert found.text() == "began in the input: same settings, other pixels"
    assert json.loads(json.dumps(found.to_json()))["module"] == "input"


def test_renamed_modules_are_matched_by_order(vit, pixels):
    base = trace(vit, pixels, {})
    new = changed(vit, lambda module: setattr(module.blocks[4].norm2, "eps", 1e-4))
    renamed = trace(new, pixels, {})
    calls = tuple(msgspec.structs.replace(c, name=c.name.replace("blocks", "layers")) for c in renamed.calls)
    found = origin_of(base, msgspec.structs.replace(renamed, calls=calls))
    assert (found.name, found.renamed, found.differences) == (
        "blocks.4.norm2", "layers.4.norm2", ("eps 1e-06 → 0.0001",),
    )  # fmt: skip


def test_wrappers_and_modules_that_pass_their_input_do_not_matter(vit, pixels):
    def change(module):
        for block in module.blocks:
            block.mlp.act = nn.Sequential(nn.Identity(), block.mlp.act, nn.Dropout()).eval()
        module.blocks[1].attn.proj_drop = nn.Identity()
        module.norm.eps = 1e-3

    found = origin(vit, change, pixels)
    assert found.text() == "began in norm (LayerNorm): eps 1e-06 → 0.001"


def call(name, kind="Linear", value=1.0):
    return Call(name, kind, {}, summary_of([]), summary_of(torch.ones(3)), summary_of(torch.full((3,), 2 * value)))


def test_calls_of_one_side_are_left_out():
    base = [call("a"), call("b"), call("gone", "Norm"), call("c"), call("")]
    new = [call("a"), call("x"), call("new", "Act"), call("also", "Act"), call("c"), call("")]
    assert [(old.name, now.name) for old, now in matched(base, new)] == [
        ("a", "a"), ("b", "x"), ("c", "c"), ("", ""),
    ]  # fmt: skip


def test_another_layout_is_no_move_but_another_shape_is():
    x = torch.randn(2, 8, 5, 5)
    assert drift_of(summary_of(x), summary_of(x.permute(0, 2, 3, 1))) == 0
    assert drift_of(summary_of(x), summary_of(x[:1])) == float("inf")
    assert drift_of(summary_of(x), summary_of(2 * x.flatten())) == float("inf")
    assert drift_of(summary_of([]), summary_of([])) == 0
    zero = Summary(((2,),), 0.0, (0.0,) * 32)
    assert drift_of(zero, zero) == 0


def test_a_shape_that_differs_is_told():
    text = Origin("head", ("Linear", "Linear"), (), float("inf")).text()
    assert text == "began in head (Linear): same settings, other code"
