"""Exact requirements of this environment, against importlib.metadata, and of environments made by hand."""

from __future__ import annotations

import importlib.metadata
import json
import sys

import pytest

from embedcore.files import code_hash
from embedcore.requirements import (
    distributions,
    installed_requirements,
    is_fixed,
    name_of,
    normalised,
    shadowing,
)


def install(folder, name, version, direct_url=None):
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if direct_url:
        (metadata / "direct_url.json").write_text(json.dumps(direct_url))


def test_names_and_versions_are_those_of_importlib_metadata():
    expected: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        if str(distribution._path).endswith(".dist-info"):
            expected.setdefault(normalised(distribution.metadata["Name"]), distribution.version)
    assert {name: each.version for name, each in distributions().items()} == expected
    assert f"numpy=={importlib.metadata.version('numpy')}" in installed_requirements()


def test_origins_other_than_an_index_are_recorded(tmp_path, monkeypatch):
    source = tmp_path / "clone"
    (source / "timm").mkdir(parents=True)
    (source / "timm" / "__init__.py").write_text("")
    site = tmp_path / "site"
    install(site, "from_index", "1.0")
    commit = {"vcs": "git", "commit_id": "a" * 40}
    install(site, "from_git", "1.0", {"url": "https://user:secret@host/x", "vcs_info": commit})
    install(site, "from_url", "1.0", {"url": "https://host/x.whl", "archive_info": {}})
    install(site, "from_folder", "1.0", {"url": "file:///somewhere", "dir_info": {}})
    install(site, "timm", "9.0", {"url": f"file://{source}", "dir_info": {"editable": True}})
    (site / "damaged-1.0.dist-info").mkdir()
    (site / "damaged-1.0.dist-info" / "direct_url.json").write_text("[")
    monkeypatch.setattr(sys, "path", [str(site), str(source)])
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    before = installed_requirements()
    assert [each for each in before[:-1] if name_of(each) != "embedcore"] == [
        "damaged==1.0",
        *["from-folder @ file:///somewhere", f"from-git @ git+https://host/x@{'a' * 40}", "from-index==1.0"],
        "from-url @ https://host/x.whl",
    ]
    digest = code_hash(source / "timm", (source / "timm").rglob("*.py"))[:16]
    assert before[-1] == f"timm @ file://{source}#sha256={digest}"
    assert shadowing("timm") is None
    (source / "timm" / "__init__.py").write_text("changed = 1")
    assert installed_requirements()[-1] != before[-1]


def test_a_package_in_front_of_the_installed_one_is_seen(tmp_path, monkeypatch):
    (tmp_path / "clone" / "timm").mkdir(parents=True)
    (tmp_path / "clone" / "timm" / "__init__.py").write_text("")
    install(tmp_path / "site", "timm", "1.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "clone"), str(tmp_path / "site")])
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    assert shadowing("timm") == tmp_path / "clone"
    (found,) = (each for each in installed_requirements() if name_of(each) == "timm")
    assert found.startswith(f"timm @ file://{tmp_path}/clone#sha256=")


def test_an_editable_installation_in_a_folder_with_a_space_is_not_hidden(tmp_path, monkeypatch):
    source = tmp_path / "my clone"
    (source / "timm").mkdir(parents=True)
    (source / "timm" / "__init__.py").write_text("")
    install(tmp_path / "site", "timm", "1.0", {"url": source.as_uri(), "dir_info": {"editable": True}})
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), str(source)])
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    assert distributions()["timm"].folder == source and shadowing("timm") is None


@pytest.mark.parametrize(
    ("requirement", "fixed"),
    [
        ("timm==1.0.20", True),
        ("timm[all]==1.0", True),
        ("timm", False),
        ("timm>=1.0", False),
        ("timm==1.*", False),
        ("git+file:///timm@main", False),
        (f"timm @ git+https://host/timm@{'0' * 40}", True),
        ("/clone/of/timm", False),
    ],
)
def test_a_requirement_is_fixed_if_it_always_names_the_same_code(requirement, fixed):
    assert is_fixed(requirement) == fixed
