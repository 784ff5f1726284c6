"""Where a drift began, from two sides: with real processes, and with fake ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from embedcore.ab import compare_sides, environments
from embedcore.ab.environments import Environment
from embedcore.ab.explain import UNMOVED, Explanation, as_text, explanation_of, with_origin
from embedcore.ab.outcome import Row
from embedcore.cli import main
from embedcore.compare.origin import Origin
from embedcore.embed.trace import Call, Trace, summary_of
from embedcore.errors import UsageError

CHANGES = """
import dataclasses
from timm.models import _registry, vision_transformer

initial = vision_transformer.VisionTransformer.__init__

def changed(self, *args, **kwargs):
    initial(self, *args, **kwargs)
    self.blocks[1].norm2.eps = 1e-5

vision_transformer.VisionTransformer.__init__ = changed
cfgs = _registry._model_pretrained_cfgs
cfgs["test_resnet.r160_in1k"] = dataclasses.replace(cfgs["test_resnet.r160_in1k"], crop_pct=0.7)
"""


def test_an_eps_and_a_crop_between_two_environments(tmp_path, forked_sides):
    from PIL import Image

    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3):
            image = Image.effect_noise((60, 50), 30 + 50 * number + (label == "b")).convert("RGB")
            image.save(tmp_path / "photos" / label / f"{number}.png")
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed" / "sitecustomize.py").write_text(CHANGES)
    here = Environment("here", Path(sys.executable))
    sides = {"A": here, "B": here._replace(name="changed", packages=tmp_path / "changed")}
    models = ["test_vit.r160_in1k", "test_resnet.r160_in1k", "test_vit2.r160_in1k", "resnet18.no_such_tag"]
    arguments = [
        "--embed-roster=test_*", f"--embed-dataset={tmp_path / 'photos'}", "--embed-weights=random",
        f"--embed-cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    names, found = compare_sides.explain_models(sides, arguments, models)
    assert list(names) == ["A", "B"]
    texts = [explanation.text() for explanation in found]
    crop = found[1].origin.differences[0].partition("→")[2].strip()
    assert texts[0] == "began in blocks.1.norm2 (LayerNorm): eps 1e-06 → 1e-05"
    assert (found[1].origin.name, crop) == ("input", "0.7")
    assert texts[2].startswith("began in blocks.1.norm2 (LayerNorm): eps")
    assert found[3].origin is None and "no_such_tag" in texts[3]
    assert "test_vit.r160_in1k: began in" in as_text(names, found)


def traces(value):
    """Traces in which a module's output is `value` on side B and 1 on side A."""

    def trace(side, model):
        if model == "broken":
            raise UsageError("it cannot be traced")
        outputs = summary_of(torch.full((2,), value if side == "B" else 1.0))
        call = Call("norm", "LayerNorm", {"eps": 1.0 if side == "A" else 2.0}, summary_of([]), outputs, outputs)
        pixels = summary_of(torch.ones(2))
        return Trace({}, pixels, (Call("", "Net", {"depth": len(side)}, summary_of([]), pixels, outputs), call))

    return trace


@pytest.mark.parametrize(
    ("value", "drift", "precision", "origin"),
    [(2.0, 0.1, "fp32", "Net"), (2.0, 0.01, "bf16", None), (2.0, None, "fp32", None), (2.0, 1e-6, None, None)],
)
def test_only_a_drift_beyond_rounding_is_explained(value, drift, precision, origin):
    row = Row("m", "regression", None, drift, (), ("a note",))
    found = with_origin(row, precision, traces(value))
    if origin is None:
        assert found == row
    else:
        assert found.origin.kinds == (origin, origin)
        assert found.notes == ("a note", found.origin.text())


def test_what_is_not_found_is_said():
    assert explanation_of("m", traces(1.0)).text() == UNMOVED
    assert explanation_of("broken", traces(2.0)) == Explanation("broken", None, "it cannot be traced")


@pytest.mark.parametrize(("failure", "code"), [("", 0), ("it cannot be traced", 2)])
def test_the_command(failure, code, monkeypatch, capsys):
    origin = None if failure else Origin("norm", ("LayerNorm",) * 2, ("eps 1 → 2",), float("inf"))
    asked = []
    checked = SimpleNamespace(returncode=0)  # the interpreter can import what it needs
    monkeypatch.setattr(environments, "subprocess", SimpleNamespace(run=lambda *_, **__: checked))

    def explained(environments, arguments, models):
        asked.append((list(environments), arguments, models))
        return {"A": "a", "B": "b"}, [Explanation("m", origin, failure)]

    monkeypatch.setattr(compare_sides, "explain_models", explained)
    command = ["ab", "--python-b", sys.executable, "--explain", "m", "--format"]
    assert main([*command, "text", "--", "-k", "m"]) == code
    assert asked == [(["A", "B"], ["-k", "m"], ["m"])]
    assert (failure or "m: began in norm (LayerNorm): eps 1 → 2") in capsys.readouterr().out
    main([*command, "json"])
    found = json.loads(capsys.readouterr().out)["models"][0]
    assert found["failure"] == (failure or None)
    assert (found["origin"] or {}).get("differences", []) == ([] if failure else ["eps 1 → 2"])
