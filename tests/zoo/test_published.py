"""timm's published accuracies: the table in the package, its script, and files of the user's."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from embedcore.errors import UsageError
from embedcore.zoo import published as module
from embedcore.zoo.published import SETS, published, read_top1, versions
from embedcore.zoo.registry import pretrained_tags

FILE = Path(module.__file__).with_name("published.csv")
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_published.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("make_published", SCRIPT)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_every_row_is_a_tag_with_percentages():
    table = published()
    assert set(table) <= set(SETS) and len(table["ImageNet"]) > 1000
    for of_set in table.values():
        assert all(re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)?", model) for model in of_set)
        assert all(0 <= top1 <= 100 for top1 in of_set.values())
        assert max(of_set.values()) > 50


def test_nearly_all_rows_are_tags_of_the_installed_timm():
    tags = set(pretrained_tags())
    for name, of_set in published().items():
        assert len(of_set.keys() & tags) > 0.97 * len(of_set), name


@pytest.mark.parametrize(
    ("name", "model", "top1"),
    [
        ("ImageNet", "resnet50.a1_in1k", 80.382),
        ("ImageNet", "resnet50.tv_in1k", 76.156),
        ("ImageNet", "tf_efficientnet_lite1.in1k", 76.672),
        ("ImageNet", "inception_v3.tf_adv_in1k", 77.596),
    ],
)
def test_known_numbers(name, model, top1):
    assert published()[name][model] == pytest.approx(top1, abs=1e-9)


def test_the_file_names_source_versions_and_licence():
    text = " ".join(line for line in FILE.read_text().splitlines() if line.startswith("#"))
    assert "huggingface/pytorch-image-models" in text and "Apache License, Version 2.0" in text
    lines = {
        name: re.search(rf"{name}: {SETS[name]}, commit [0-9a-f]{{40}}, timm [^:]+?, (\d+) models", text)
        for name in SETS
    }
    assert {name: int(line[1]) for name, line in lines.items() if line} == {n: len(of) for n, of in published().items()}
    assert versions().keys() == published().keys() and all(versions().values())


def save(folder, name, *rows, header="model,img_size,top1,top1_err"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_the_script_writes_what_is_read_back(tmp_path, script, monkeypatch):
    results, out = tmp_path / "results", tmp_path / "published.csv"
    save(results, SETS["ImageNet"], "b.x,288,81.5,18.5", "b.x,224,80.25,19.75", "a.x,224,70.125,29.875")
    save(results, "results-imagenet-a-clean.csv", "a.x,224,90,10")
    other = save(tmp_path / "old", SETS["ReaL"], "b.x,85.5,288", header="model,top1,img_size")
    arguments = ["--from", results, "a" * 40, "1.0.31", "--from", other, "b" * 40, "0.9.12", "--out", out]
    monkeypatch.setattr(sys, "argv", ["make_published.py", *map(str, arguments)])
    script.main()
    lines = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    assert lines == ["model,ImageNet,ReaL", "a.x,70.125,", "b.x,80.25,85.5"]
    text = out.read_text()
    monkeypatch.setattr(module, "_text", lambda: text)
    assert published.__wrapped__() == {"ImageNet": {"a.x": 70.125, "b.x": 80.25}, "ReaL": {"b.x": 85.5}}
    assert versions() == {"ImageNet": "1.0.31", "ReaL": "0.9.12"}


def test_the_script_refuses_what_is_not_timms(tmp_path, script):
    results = tmp_path / "results"
    save(results, SETS["ImageNet"], "b.x,288,81.5,18.5")
    with pytest.raises(SystemExit, match="neither one of timm's files"):
        script.table([(tmp_path, "c", "v")])
    with pytest.raises(SystemExit, match="was given twice"):
        script.table([(results, "c", "v")] * 2)


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("name,acc", "a.x,80", r"t\.csv: the columns model and top1 are needed; it has name, acc"),
        ("model,top1", "a.x,high", r"t\.csv, line 2: could not convert string to float: 'high'"),
        ("model,top1", "a.x,nan", r"t\.csv, line 2: a model and its top1 are needed"),
        ("model,top1", ",80", r"t\.csv, line 2: a model and its top1 are needed"),
        ("model,top1", "a.x", r"t\.csv, line 2: could not convert"),
    ],
)
def test_a_file_that_is_not_a_table_of_accuracies_is_one_line(tmp_path, header, row, words):
    with pytest.raises(UsageError, match=words):
        read_top1(save(tmp_path, "t.csv", row, header=header))


def test_an_empty_or_missing_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="has no row"):
        read_top1(save(tmp_path, "t.csv", header="model,top1"))
    with pytest.raises(UsageError, match=r"none\.csv cannot be read: No such file"):
        read_top1(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.csv cannot be read"):
        read_top1(tmp_path / "binary.csv")
