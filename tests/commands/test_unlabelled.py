"""Commands that need labels refuse a run without them in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.cli import main

IMAGES = 60


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """run.json, without labels, and labelled.json in an empty folder."""
    monkeypatch.chdir(tmp_path)
    infos = [made.by_views(model, IMAGES, recall) for model, recall in (("a.x", 0.7), ("b.x", 0.4))]
    (tmp_path / "run.json").write_text(json.dumps(made.saved_by_views(infos, IMAGES)))
    classes = np.arange(IMAGES) % 12
    infos = [made.result(model, classes, made.hits_of(model, classes, 0.5)) for model in ("a.x", "b.x")]
    data = made.saved(infos, classes, dataset={"fingerprint": "beef"})
    (tmp_path / "labelled.json").write_text(json.dumps(data))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["squeeze", "run.json"], "squeeze"),
        (["regret", "run.json"], "regret"),
        (["pool", "run.json", "labelled.json"], "pool"),
        (["history", "run.json"], "history"),
        (["compare", "run.json", "run.json", "--index"], "--index"),
        (["compare", "run.json", "run.json", "--html", "page.html"], "the page of --html"),
    ],
)
def test_refusals(saved, capsys, arguments, what):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"run.json: measured with --embed-unlabelled / unlabelled=True, and {what} needs labels")
    assert not (saved / "page.html").exists()


def test_deploy_is_refused(saved, capsys):
    assert main(["deploy", "test_vit", "--", "--embed-unlabelled"]) == 4
    assert "deploy compares accuracies, which need labels" in capsys.readouterr().err


def test_runs_with_and_without_labels_are_not_ranked_together(saved, capsys):
    assert main(["rank", "run.json", "labelled.json"]) == 2
    assert "runs with and without labels cannot be ranked together" in capsys.readouterr().err
    assert main(["rank", "run.json", "--metric", "acc"]) == 2
    assert "a.x has no acc: its headline score is view_recall" in capsys.readouterr().err
    assert main(["rank", "run.json", "--metric", "view_recall5", "--format", "json"]) == 0
    assert "view_recall5" in json.loads(capsys.readouterr().out)["datasets"][0]["ranking"][0]
