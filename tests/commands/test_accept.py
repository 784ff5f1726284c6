"""``embedcore accept --baseline``: a run becomes the fixed baseline, whole and readable by compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.cli import main
from embedcore.commands.accept import BASELINE
from embedcore.results.reading import read_run

CLASSES = np.repeat(np.arange(20), 5)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(name, *models, **block):
    results = [made.result(model, CLASSES, made.hits_of(model, CLASSES, 0.6)) for model in models]
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(json.dumps(made.saved(results, CLASSES, **block)))


def test_a_run_becomes_the_fixed_baseline(capsys):
    save(".benchmarks/run.json", "vit.a", "resnet.a")
    assert main(["accept", "--baseline", ".benchmarks/run.json"]) == 0
    assert capsys.readouterr().out == f"{BASELINE}: run is the fixed baseline, with 2 models\n"
    assert read_run(BASELINE).results == read_run(".benchmarks/run.json").results
    save("next.json", "vit.a")
    assert main(["accept", "next.json", "--baseline", "--file", "other.json"]) == 0
    assert len(read_run("other.json").results) == 1 and len(read_run(BASELINE).results) == 2


def test_a_folder_of_shards_is_joined(capsys):
    save("shards/1.json", "vit.a", selection={"shard": "1/2"})
    save("shards/2.json", "resnet.a", selection={"shard": "2/2"})
    assert main(["accept", "--baseline", "shards"]) == 0
    assert {result.model for result in read_run(BASELINE).results} == {"vit.a", "resnet.a"}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"selection": {"shard": "1/2"}}, "is shard 1/2: join the shards with embedcore merge first"),
        ({"unreached": ["x.a"]}, "was interrupted: 1 of its models were not reached"),
    ],
)
def test_a_part_of_a_run_is_refused(capsys, block, message):
    save("run.json", "vit.a", **block)
    assert main(["accept", "--baseline", "run.json"]) == 2
    assert message in capsys.readouterr().err and not BASELINE.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run.json"], "needs at least one MODEL, and --because WHY"),
        (["run.json", "vit.a"], "needs at least one MODEL, and --because WHY"),
        (["run.json", "vit.a", "--baseline"], "takes a run only"),
        (["run.json", "--baseline", "--because", "x"], "takes a run only"),
        (["none.json", "--baseline"], "no saved run none.json"),
        (["empty.json", "--baseline"], "no model was measured"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(capsys, arguments, message):
    save("run.json", "vit.a")
    save("empty.json")
    assert main(["accept", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not BASELINE.exists()
