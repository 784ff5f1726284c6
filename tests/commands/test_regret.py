from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.cli import main
from embedcore.zoo.published import published

CLASSES = np.repeat(np.arange(30), 4)
TAGS = sorted(published()["ImageNet"])[:4]
ACCS = dict(zip(TAGS, (0.9, 0.6, 0.58, 0.1), strict=True))
NAMES = [f"class {n}" for n in range(30)]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def save(path, accs=ACCS, classes=CLASSES, *, dataset=None, **changes):
    results = [
        made.result(m, classes, made.hits_of(m, classes, acc), params_m=5.0 + n, **changes)
        for n, (m, acc) in enumerate(accs.items())
    ]
    dataset = {"class_names": NAMES[: classes.max() + 1], **(dataset or {})}
    path.write_text(json.dumps(made.saved(results, classes, dataset=dataset)))
    return str(path)


def shown(capsys, *arguments, code=0):
    assert main(["regret", *map(str, arguments)]) == code
    return capsys.readouterr()


def test_one_run(tmp_path, capsys):
    out, err = shown(capsys, save(tmp_path / "a.json"))
    assert max(map(len, out.splitlines())) <= 80 and err == ""
    assert out.startswith(f"photos: 4 models, 30 classes; best by acc: {TAGS[0]}")
    joined = " ".join(out.split())
    assert "Had you picked by published ImageNet top-1, you would lose" in joined
    assert re.search(rf"size picks? {re.escape(TAGS[3])} \(acc", joined)


def test_several_runs_are_shown_in_turn(tmp_path, capsys):
    runs = [save(tmp_path / "a.json"), save(tmp_path / "b.json", dataset={"name": "drawings", "fingerprint": "beef"})]
    out = shown(capsys, *runs).out
    assert out.index("photos: 4 models") < out.index("drawings: 4 models")
    data = json.loads(shown(capsys, *runs, "--format", "json").out)
    assert [board["dataset"] for board in data] == ["photos", "drawings"]
    assert {"ImageNet", "size", "acc5"} <= {rule["rule"] for rule in data[0]["rules"]}


def test_a_sample_is_a_rule(tmp_path, capsys):
    run = save(tmp_path / "a.json")
    few = np.repeat(np.arange(12), 4)
    sample = save(tmp_path / "s.json", ACCS, few, dataset={"fingerprint": "beef"})
    joined = " ".join(shown(capsys, run, "--sample", sample).out.split())
    assert "; by a sample of 48 of 120 queries 0.0 (0.0 to " in joined
    assert "--sample belongs to one RUN, and there are 2" in shown(capsys, run, run, "--sample", sample, code=2).err
    other = save(tmp_path / "o.json", {"x.y": 0.5, "z.y": 0.4}, few)
    assert "it has 0 of the models" in shown(capsys, run, "--sample", other, code=2).err


def test_a_table_of_the_user_replaces_timms(tmp_path, capsys):
    run = save(tmp_path / "a.json", {"a.x": 0.9, "b.x": 0.2})
    out, err = shown(capsys, run)
    assert "fewer than two of its models have a published accuracy" in err and "Had you picked by size" in out
    (tmp_path / "others.csv").write_text("model,top1\na.x,10\nb.x,20\n")
    out, err = shown(capsys, run, "--published", tmp_path / "others.csv")
    assert "Had you picked by the top1 of others.csv, you would lose" in " ".join(out.split()) and err == ""
    assert re.search(r"top1( and size)? picks? b\.x \(acc", out) and "Published accuracies" not in out
    (tmp_path / "others.csv").write_text("model,top1\na.x,10\n")
    error = shown(capsys, run, "--published", tmp_path / "others.csv", code=2).err
    assert "others.csv has fewer than two of the models of" in error and error.count("\n") == 1


def test_runs_without_a_choice_are_one_line(tmp_path, capsys):
    for path, words in [
        (save(tmp_path / "one.json", {"a.x": 0.9}), "a choice needs at least two models with verdicts, and there is 1"),
        (save(tmp_path / "no.json", ACCS, verdicts=None), "no verdicts"),
        (save(tmp_path / "classless.json", ACCS, dataset={"query_classes": None}), "no verdicts"),
        ("nowhere", "no saved run nowhere"),
    ]:
        out, err = shown(capsys, path, code=2)
        assert out == "" and words in err and err.count("\n") == 1
    assert main(["regret"]) == 2


def test_nothing_heavy_is_imported(tmp_path):
    path = save(tmp_path / "a.json")
    code = f"import sys; from embedcore.cli import main; main(['regret', {path!r}])"
    code += "; print({'torch', 'timm', 'scipy.stats'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
