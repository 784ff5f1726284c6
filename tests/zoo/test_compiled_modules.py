"""Factories that return TorchScript, frozen, exported, compiled or quantized modules."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from embedcore.embed.device import place
from embedcore.embed.precision import autocast
from embedcore.errors import UnsupportedModel
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.factory import content_of
from embedcore.zoo.own_models import OwnModel

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, which deprecates some of these

SOURCE = """
import torch
from torch import nn

EXAMPLE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

def plain(train=False, scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.mul_(scale)
    return model.train(train)

class Nested(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.inner(x))

def exported(model, **options):
    return torch.export.export(model, (EXAMPLE,), **options)

def dynamic(model):
    return exported(model, dynamic_shapes=({0: torch.export.Dim("b", min=1)},))

def scripted(): return torch.jit.script(plain(train=True))
def traced(): return torch.jit.trace(plain(), EXAMPLE)
def frozen(): return torch.jit.freeze(torch.jit.script(plain()))
def frozen_trace(): return torch.jit.freeze(torch.jit.trace(plain(), EXAMPLE))
def program(): return dynamic(plain())
def export(): return dynamic(plain()).module()
def export_in_a_module(): return Nested(dynamic(plain()).module())
def script_in_a_module(): return Nested(torch.jit.script(plain()))
def compiled(): return torch.compile(plain(train=True), backend="eager")
def symbolic(): return torch.fx.symbolic_trace(plain())
def fixed(): return exported(plain()).module()
def traced_in_training(): return torch.jit.trace(plain(train=True), EXAMPLE, check_trace=False)
def exported_in_training(): return dynamic(plain(train=True)).module()
"""
FORMS = (
    *("scripted", "traced", "frozen", "frozen_trace", "program", "export", "export_in_a_module"),
    *("script_in_a_module", "compiled", "symbolic"),
)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """made(function) is the own model with that factory."""
    (tmp_path / "compiled_factories.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "compiled_factories", raising=False)
    return lambda name: OwnModel(name="ours", factory=f"compiled_factories:{name}", folders=(str(tmp_path),))


@pytest.mark.parametrize("form", FORMS)
def test_they_embed_as_the_plain_module_does(made, form):
    plain, backbone = load_backbone(made("plain")), load_backbone(made(form))
    x = torch.rand(3, 3, 8, 8)
    cpu = torch.device("cpu")
    for channels_last in (True, False):
        place(backbone.module, cpu, channels_last=channels_last)
        for images in (x, x[:1]):
            assert torch.allclose(backbone.embed(images), plain.embed(images), atol=1e-6)
    with autocast("bf16", cpu, backbone.module):
        assert torch.allclose(backbone.embed(x).float(), plain.embed(x).float(), atol=0.02)
    assert backbone.device == cpu and not any(p.requires_grad for p in backbone.module.parameters())
    frozen = form.startswith("frozen")
    assert frozen or backbone.params_m == plain.params_m
    if "in_a_module" not in form and not frozen:
        assert backbone.weights.id == plain.weights.id


@pytest.mark.parametrize("form", ["frozen", "frozen_trace"])
def test_the_constants_of_a_frozen_module_are_its_weights(made, form):
    first = load_backbone(made(form)).weights.id
    assert first == load_backbone(made(form)).weights.id
    factories = sys.modules["compiled_factories"]
    other = torch.jit.freeze(torch.jit.script(factories.plain(scale=2.0)))
    assert content_of(other) not in (first, content_of(nn.Flatten()))


def test_quantized_weights_are_part_of_the_id():
    def quantized(scale: float) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
        with torch.no_grad():
            model[1].weight.mul_(scale)
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)

    assert content_of(quantized(1.0)) == content_of(quantized(1.0)) != content_of(quantized(2.0))


def test_a_frozen_module_is_not_moved(made):
    module = load_backbone(made("frozen")).module
    with pytest.raises(UnsupportedModel, match="frozen TorchScript module cannot be moved from cpu to meta: freeze it"):
        place(module, torch.device("meta"))


@pytest.mark.parametrize("form", ["traced_in_training", "exported_in_training"])
def test_a_graph_recorded_in_training_mode_is_refused(made, form):
    with pytest.raises(UnsupportedModel, match=r"^ours: factory .* traced or exported in training mode: call eval\(\)"):
        load_backbone(made(form))


def test_an_export_of_one_batch_size_is_reported(made):
    backbone = load_backbone(made("fixed"))
    assert backbone.embed(torch.rand(2, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(UnsupportedModel, match=r"^ours: exported for other inputs than \(1, 3, 8, 8\) .*dynamic batch"):
        backbone.embed(torch.rand(1, 3, 8, 8))
