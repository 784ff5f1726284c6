from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import timm

from embedcore.errors import UsageError
from embedcore.zoo import registry
from embedcore.zoo.configurations import address_of, read_configurations

# As much of timm as its registry needs.
REGISTRY = """
import types

__version__ = "7.7.7"

def get_pretrained_cfg(model):
    architecture, _, tag = model.partition(".")
    if architecture == "bare":
        raise RuntimeError("No pretrained config exists for model bare.")
    cfg = {"architecture": architecture, "tag": tag or "a1", "crop_pct": 0.9}
    return types.SimpleNamespace(tag=cfg["tag"], to_dict=lambda: cfg)

list_models = lambda pretrained=False: ["net.a1", "net.a2"] if pretrained else ["bare", "net"]
is_model_pretrained = lambda name: name.startswith("net")
"""
MODELS = """
import types
from timm import get_pretrained_cfg

_registry = types.SimpleNamespace(get_deprecated_models=lambda: {"old_net": "net.a1", "gone": None})
"""


@pytest.fixture
def fake_timm(tmp_path: Path) -> Path:
    """A folder with a fake timm."""
    for name, text in (("__init__.py", REGISTRY), ("models.py", MODELS)):
        path = tmp_path / "fake" / "timm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "fake"


@pytest.fixture
def wheels(fake_timm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which pip finds the fake timm's wheel, without an index."""
    folder = fake_timm.parent / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "timm-7.7.7-py3-none-any.whl", "w") as wheel:
        for path in (fake_timm / "timm").iterdir():
            wheel.write(path, f"timm/{path.name}")
        wheel.writestr("timm-7.7.7.dist-info/METADATA", "Metadata-Version: 2.1\nName: timm\nVersion: 7.7.7\n")
        wheel.writestr("timm-7.7.7.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("timm-7.7.7.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.parametrize(
    ("cfg", "address"),
    [
        ({"hf_hub_id": "timm/resnet50.a1_in1k", "url": "https://host/net.pth"}, "timm/resnet50.a1_in1k"),
        ({"hf_hub_id": "a/b@v2", "hf_hub_filename": "net.bin"}, "a/b/net.bin@v2"),
        ({"url": ("https://host/net.pth", "other_name.pth")}, "https://host/net.pth"),
        ({"hf_hub_id": None, "url": ""}, ""),
    ],
)
def test_an_address_is_where_timm_looks_first(cfg, address):
    assert address_of(cfg) == address


def test_the_registry_of_the_timm_that_is_here(tmp_path):
    read = read_configurations(str(Path(timm.__file__).parents[1]), tmp_path)
    assert read.timm == timm.__version__
    assert list(read.models) == timm.list_models(pretrained=True)
    for tag, cfg in [*read.models.items()][::50]:
        own = registry.pretrained_cfg(tag)
        assert cfg == {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
    assert read.defaults == {name: registry.default_tag(name) for name in timm.list_models()}
    assert read.renamed == registry.renamed_models()


def test_a_folder_is_read_by_a_process_of_its_own(fake_timm, tmp_path):
    read = read_configurations(str(fake_timm), tmp_path)
    assert (read.timm, list(read.models)) == ("7.7.7", ["net.a1", "net.a2"])
    assert read.models["net.a2"] == {"architecture": "net", "tag": "a2", "crop_pct": 0.9}
    assert read.defaults == {"bare": "", "net": "net.a1"}
    assert read.renamed == {"old_net": "net.a1", "gone": None}
    assert sys.modules["timm"] is timm


@pytest.mark.parametrize("below", ["", "bin/python"])
def test_an_environment_is_read_by_its_own_interpreter(fake_timm, tmp_path, below):
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={fake_timm} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert read_configurations(str(tmp_path / "env" / below), tmp_path).timm == "7.7.7"


def test_a_wheel_is_fetched_and_read_once(wheels, tmp_path):
    first = read_configurations("timm==7.7.7", tmp_path / "cache")
    assert [*first.models] == ["net.a1", "net.a2"]
    (kept,) = (tmp_path / "cache" / "timm" / "7.7.7").glob("*.json")
    (wheels / "timm-7.7.7-py3-none-any.whl").unlink()
    (tmp_path / "cache" / "timm" / "7.7.7" / "timm" / "__init__.py").write_text("raise SystemExit")
    assert read_configurations("7.7.7", tmp_path / "cache") == first
    kept.write_text("{")
    with pytest.raises(UsageError, match="timm cannot be read"):
        read_configurations("7.7.7", tmp_path / "cache")


def test_a_version_that_pip_cannot_get_is_one_line(wheels, tmp_path):
    with pytest.raises(UsageError, match=r"^'timm==7\.7\.8' cannot be installed: .*timm==7\.7\.8$"):
        read_configurations("7.7.8", tmp_path)
    assert not list(tmp_path.glob("timm/*/"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'no such' >&2; echo 'ModuleNotFoundError: timm' >&2; exit 1", "ModuleNotFoundError: timm$"),
        ("", "No such"),
    ],
)
def test_an_interpreter_that_cannot_read_timm_is_one_line(tmp_path, script, reason):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    with pytest.raises(UsageError, match=f"timm cannot be read with .*{reason}"):
        read_configurations(str(python), tmp_path)


def test_anything_but_timm_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"^--timm no_such: neither a version"):
        read_configurations("no_such", tmp_path)
