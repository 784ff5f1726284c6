from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from embedcore.errors import FactoryError, UnsupportedModel, UsageError
from embedcore.measure.outcome import detail_of, reason_of, status_of
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.factory import content_of, content_under_another_seed
from embedcore.zoo.own_models import OwnModel

MODULE = '''
import torch
from torch import nn

class Gives(nn.Module):
    """Mean colour, returned in one of several forms."""
    def __init__(self, form):
        super().__init__()
        self.form = form
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        maps = x * self.scale[:, None, None]
        tokens = maps.flatten(2).transpose(1, 2)
        return {
            "vectors": lambda: maps.mean((2, 3)),
            "tokens": lambda: tokens,
            "map": lambda: maps,
            "list": lambda: [maps[:, :2], maps],
            "tuple": lambda: (tokens[:, :1], tokens),
            "dict": lambda: {"x": maps},
            "empty": lambda: [],
            "sum": lambda: maps.sum((1, 2, 3)),
            "one": lambda: maps.mean((0, 2, 3))[None],
        }[self.form]()

def chance():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))

def seeded():
    torch.manual_seed(5)
    return chance()

def raises():
    raise ValueError("no such\\n  checkpoint")

def no_module():
    return [1, 2]

constant = 3
'''


@pytest.fixture
def made(tmp_path, monkeypatch, request):
    """made(function) is the own model with that factory; each test has its own module."""
    name = f"factories_{abs(hash(request.node.name))}"
    source = MODULE + "".join(
        f"\ndef {form}(): return Gives({form!r})\n"
        for form in ("vectors", "tokens", "map", "list", "tuple", "dict", "empty", "sum", "one")
    )
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return lambda function: OwnModel(name="ours", factory=f"{name}:{function}", folders=(str(tmp_path),))


@pytest.mark.parametrize("form", ["vectors", "tokens", "map", "list", "tuple"])
def test_vectors_tokens_maps_and_lists_give_vectors(made, form):
    own = made(form)
    backbone = load_backbone(own)
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(backbone.embed(x), x.mean((2, 3)), atol=1e-6)
    assert (backbone.point, backbone.params_m, backbone.token_mean) == ("output", 3e-6, form != "vectors")
    assert (backbone.weights.source, backbone.weights.path) == (own.source, None)
    assert not backbone.module.training and not any(p.requires_grad for p in backbone.module.parameters())


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("dict", "returns a dict instead of one tensor"),
        ("empty", "returns a list instead of one tensor"),
        ("sum", r"returns \(2,\) for 2 images"),
        ("one", r"returns \(1, 3\) for 2 images"),
    ],
)
def test_anything_else_is_unsupported(made, form, message):
    with pytest.raises(UnsupportedModel, match=f"^ours: {message}"):
        load_backbone(made(form)).embed(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("raises", FactoryError, r"raised: ValueError: no such checkpoint$"),
        ("no_module", UnsupportedModel, r"returns a list, not a torch\.nn\.Module"),
        ("vector", FactoryError, r"has no function 'vector'; did you mean 'vectors'\?"),
        ("constant", FactoryError, r"has no function 'constant'"),
    ],
)
def test_a_factory_without_a_module_is_one_line(made, function, kind, message):
    with pytest.raises(kind, match=message) as caught:
        load_backbone(made(function))
    assert str(caught.value).startswith("ours: factory ") and "\n" not in reason_of(caught.value)
    assert status_of(caught.value) == ("error" if kind is FactoryError else "unsupported")
    assert ("in raises" in detail_of(caught.value)) == (function == "raises")


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "broken_factory.py").write_text("import package_that_is_not_there\n")
    for name, message in (
        ("broken_factory", "No module named 'package_that_is_not_there'"),
        ("no_such_factory", "No module named 'no_such_factory'"),
    ):
        with pytest.raises(
            FactoryError, match=f"^ours: factory {name}:f cannot be imported: Module.*{message}"
        ) as caught:
            load_backbone(OwnModel(name="ours", factory=f"{name}:f", folders=(str(tmp_path),)))
        assert name in detail_of(caught.value)


def test_a_lack_of_memory_is_passed_on(made, monkeypatch):
    def fail(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(MemoryError):
        load_backbone(made("vectors"))


def test_its_id_is_that_of_its_weights(made):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = load_backbone(made("chance")), load_backbone(made("chance"))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.weights.id == second.weights.id == content_of(first.module)
    with torch.no_grad():
        first.module[2].bias[0] += 1
    assert content_of(first.module) != second.weights.id
    assert content_of(nn.Flatten()).startswith("sha256:")


def test_random_weights_differ_under_another_seed(made):
    for function, random in (("chance", True), ("seeded", False), ("vectors", False)):
        own = made(function)
        assert (content_under_another_seed(own) != load_backbone(own).weights.id) == random, function
    assert content_under_another_seed(None) == content_under_another_seed(OwnModel(name="x", arch="test_vit")) == ""


def test_precomputed_embeddings_cannot_be_loaded_as_a_model(tmp_path):
    (tmp_path / "clip.npy").touch()
    with pytest.raises(UsageError, match="has embeddings only"):
        load_backbone(OwnModel(name="clip", embeddings="clip.npy", folders=(str(tmp_path),)))
    with pytest.raises(UsageError, match="an own model has arch and weights, or factory, or embeddings"):
        load_backbone(OwnModel(name="half", arch="resnet18"))


def test_a_module_without_parameters_is_accepted(tmp_path, monkeypatch):
    from embedcore.embed.cost import count_gmacs

    monkeypatch.setattr(sys, "path", [*sys.path])
    Path(tmp_path / "flat_factory.py").write_text("from torch.nn import AdaptiveAvgPool2d as f\n")
    Path(tmp_path / "flat_factory.py").write_text(
        "from torch import nn\ndef f(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    backbone = load_backbone(OwnModel(name="flat", factory="flat_factory:f", folders=(str(tmp_path),)))
    assert backbone.params_m == 0 and count_gmacs(backbone) == 0
