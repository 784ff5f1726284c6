"""`embedcore init`: which files it writes and keeps, and that pytest and the gate read them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from embedcore.cli import main
from embedcore.commands.init import TEMPLATES, WRITTEN, requirements
from embedcore.compare.limits import DEFAULT, GATE_FILE, parse_limits, read_limits

ROOT = Path(__file__).parents[2]


def test_the_template_equals_the_case_of_this_repository():
    template = (TEMPLATES / WRITTEN["benchmarks/test_models.py"]).read_text(encoding="utf-8")
    assert template == (ROOT / "benchmarks" / "test_models.py").read_text(encoding="utf-8")


def test_everything_is_written_and_named(tmp_path, capsys):
    assert main(["init", str(tmp_path / "new" / "repository")]) == 0
    output = capsys.readouterr().out
    for name in WRITTEN:
        assert (tmp_path / "new" / "repository" / name).is_file()
        assert f"written        {tmp_path / 'new' / 'repository' / name}\n" in output
    assert output.endswith("\nNext: pytest benchmarks --benchmark-save=before\n")


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


@pytest.mark.parametrize(
    ("direct_url", "expected"),
    [
        (None, "embedcore[demo]==9.9"),
        ({"url": "file:///home/me/embedcore", "dir_info": {"editable": True}}, "embedcore[demo]==9.9"),
        (
            {"url": "https://host/embedcore.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "embedcore[demo] @ git+https://host/embedcore.git@c0ffee",
        ),
    ],
)
def test_the_requirements_are_the_installed_versions(monkeypatch, direct_url, expected):
    class Installed:
        version = "9.9"

        def read_text(self, name):
            assert name == "direct_url.json"
            return json.dumps(direct_url) if direct_url else None

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0.20")
    assert requirements() == [expected, "timm==1.0.20"]
