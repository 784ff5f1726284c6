"""`embedcore squeeze` and `index` of a session that has kept its embeddings."""

from __future__ import annotations

import json

from embedcore.cli import main


def test_a_session_is_squeezed_and_indexed(run, project, saved, capsys):
    result = run(
        "--embed-keep-embeddings", "--embed-isolation=none", "--benchmark-json=run.json", "-k", "resnet or efficientnet"
    )
    assert result.ret == 0
    capsys.readouterr()
    cache = str(project.path / "cache")
    assert main(["squeeze", "run.json", "--cache", cache, "--format", "json"]) == 0
    (part,) = json.loads(capsys.readouterr().out)["datasets"]
    accs = {bench["extra_info"]["model"]: bench["extra_info"]["scores"]["acc"] for bench in saved()["benchmarks"]}
    assert {model["model"]: model["forms"][0]["acc"] for model in part["models"]} == accs and len(accs) == 2
    assert [len(each["models"]) for each in part["ensembles"]["found"]] == [1, 2]
    assert part["ensembles"]["found"][1]["seconds"] > part["ensembles"]["found"][0]["seconds"] > 0
    assert main(["index", "run.json", "--cache", cache, "--format", "json", "--models", "*"]) == 0
    (part,) = json.loads(capsys.readouterr().out)["datasets"]
    assert {each["model"]: each["acc"] for each in part["indexes"] if each["form"] == "exact"} == accs
