from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.cli import main

CLASSES = np.repeat(np.arange(30), 4)
ACCS = {"a.x": 0.9, "b.x": 0.6, "c.x": 0.58, "d.x": 0.1}


def save(path, accs, classes=CLASSES, *, weights="one", **changes):
    results = [
        made.result(m, classes, made.hits_of(m, classes, acc), weights={"id": weights}) for m, acc in accs.items()
    ]
    path.write_text(json.dumps(made.saved(results, classes, **changes)))
    return str(path)


def shown(capsys, *arguments, code=0):
    assert main(["rank", *arguments]) == code
    return capsys.readouterr()


def test_one_run_shows_ranks_with_intervals(tmp_path, capsys):
    out, err = shown(capsys, save(tmp_path / "a.json", ACCS))
    lines = [line.split() for line in out.splitlines()]
    assert ["1", "1", "1.00", "a.x"] in [[*line[:2], *line[3:]] for line in lines]
    assert [line[1] for line in lines if line[-1:] == ["b.x"]] == ["2–3"]
    assert "photos: 4 models, 30 classes" in out and "a.x is significantly better than all others" in out
    assert "Kendall" not in out and err == ""


def test_the_lead_may_be_tied(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    narrow, _ = shown(capsys, save(tmp_path / "a.json", {"b.x": 0.64, "c.x": 0.58}))
    assert max(map(len, narrow.splitlines())) <= 80
    out = " ".join(narrow.split())
    assert "2 of 2 models are tied for first: " in out
    assert "classes like these would separate the two best; there are 30" in out
    assert out.count("1–2") == 2 and "1≈" in out


def test_shards_and_sessions_on_one_dataset_are_joined(tmp_path, capsys):
    first = save(tmp_path / "a.json", {"a.x": 0.9, "b.x": 0.6}, selection={"shard": "1/2"})
    second = save(tmp_path / "b.json", {"c.x": 0.58, "d.x": 0.1}, selection={"shard": "2/2"})
    whole = save(tmp_path / "whole.json", ACCS)
    assert shown(capsys, first, second).out == shown(capsys, whole).out == shown(capsys, whole, whole).out
    assert shown(capsys, first).err == "embedcore: shard 2/2 is missing\n"


def test_several_datasets_agree_or_not(tmp_path, capsys):
    other = np.repeat(np.arange(25), 5)
    runs = [save(tmp_path / "a.json", ACCS)]
    runs.append(
        save(
            tmp_path / "b.json",
            {"d.x": 0.9, "b.x": 0.5, "a.x": 0.1, "e.x": 0.5},
            other,
            weights="two",
            dataset={"fingerprint": "beef", "name": "drawings|x"},
        )
    )
    out, err = shown(capsys, *runs)
    assert "agreement on the 3 models of all datasets" in out and "-1.00" in out
    assert err.splitlines() == [
        f"embedcore: {m} has different weights in different runs" for m in ("a.x", "b.x", "d.x")
    ]
    found = json.loads(shown(capsys, *runs, "--format", "json").out)
    assert [board["name"] for board in found["datasets"]] == ["photos", "drawings|x"]
    assert found["datasets"][1]["ranking"][0]["model"] == "d.x"
    assert list(found["datasets"][0]["ranking"][0]) == ["model", "rank", "rank95", "p_best", "tied_with_leader", "acc"]
    assert found["agreement"] == [{"datasets": ["photos", "drawings|x"], "models": 3, "kendall_tau": -1.0}]
    assert {row["model"]: row["mean"] for row in found["mean_rank"]} == {"a.x": 2.0, "b.x": 2.0, "d.x": 2.0}
    markdown = shown(capsys, *runs, "--format", "markdown").out
    assert "| drawings\\|x" in markdown and "|----" in markdown.replace(":", "-")


def test_datasets_without_a_common_model_are_reported(tmp_path, capsys):
    runs = [save(tmp_path / "a.json", ACCS)]
    runs.append(save(tmp_path / "b.json", {"z.x": 0.5}, dataset={"fingerprint": "beef"}))
    assert "the datasets have no model in common" in shown(capsys, *runs).out


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"dataset": {"query_classes": None}},
            "a.json: its models cannot be ranked: the classes of the queries are not saved",
        ),
        ({"ranking": [1]}, "a.json: 'ranking' of the embedcore block: Expected"),
    ],
)
def test_bad_runs_are_one_line(tmp_path, capsys, change, line):
    out, err = shown(capsys, save(tmp_path / "a.json", ACCS, **change), code=2)
    assert out == "" and line in err and err.count("\n") == 1


def test_unrankable_runs_are_one_line(tmp_path, capsys):
    nothing = save(tmp_path / "empty.json", {})
    assert "no model was measured in" in shown(capsys, nothing, code=2).err
    twice = [save(tmp_path / "a.json", {"a.x": 0.9}), save(tmp_path / "b.json", {"a.x": 0.9, "b.x": 0.5})]
    assert "a.x was measured twice" in shown(capsys, *twice, code=2).err
    assert "no saved run nowhere" in shown(capsys, "nowhere", code=2).err
    assert main(["rank"]) == 2
    (tmp_path / "c.json").write_text("{}")
    assert "is not a run saved by pytest-benchmark" in shown(capsys, str(tmp_path / "c.json"), code=2).err


def test_nothing_heavy_is_imported(tmp_path):
    import subprocess
    import sys

    path = save(tmp_path / "a.json", ACCS)
    code = f"import sys; from embedcore.cli import main; main(['rank', {path!r}])"
    code += "; print({'torch', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_probe_is_ranked_on_request(tmp_path, capsys):
    rng = np.random.default_rng(0)
    infos = [made.result(m, CLASSES, made.hits_of(m, CLASSES, acc)) for m, acc in ACCS.items()]
    probes = {"a.x": 0.1, "b.x": 0.9, "c.x": 0.5, "d.x": 0.3}
    infos = [made.probed(each, "probe_ridge", rng.random(len(CLASSES)) < probes[each["model"]]) for each in infos]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(made.saved(infos, CLASSES)))
    out, _ = shown(capsys, str(path), "--metric", "probe_ridge")
    assert "probe_ridge" in out and "b.x is significantly better than all others" in out
    (board,) = json.loads(shown(capsys, str(path), "--metric", "probe_ridge", "--format", "json").out)["datasets"]
    assert [row["model"] for row in board["ranking"]] == ["b.x", "c.x", "d.x", "a.x"]
    assert board["ranking"][0]["probe_ridge"] == pytest.approx(infos[1]["scores"]["probe_ridge"])
    err = shown(capsys, str(path), "--metric", "few_shot_5", code=2).err
    assert "a.x has no few_shot_5: --embed-probe" in err and err.count("\n") == 1
    assert main(["rank", str(path), "--metric", "knn20"]) == 2
