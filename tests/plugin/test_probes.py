"""A session with --embed-probe: scores, intervals and outcomes in the JSON, the tables and the ranks."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from embedcore.cli import main
from embedcore.compare.comparison import compare
from embedcore.results.ranking import rank_models
from embedcore.results.reading import read_run
from embedcore.results.verdicts import unpack_outcomes

NAMES = ["probe_ridge", "probe_logistic", "few_shot_1", "few_shot_2"]


def test_probes_are_saved_shown_and_ranked(run, project, saved, capsys):
    # A fourth class of one image, which is no query with a reference.
    (project.path / "images" / "alone").mkdir()
    Image.new("RGB", (40, 50), (200, 200, 20)).save(project.path / "images" / "alone" / "0.png")
    arguments = ("--embed-probe", "--embed-isolation=none", "-k", "test_vit or test_resnet")
    outcome = run(*arguments, "--benchmark-json=run.json", "--embed-report=report")
    outcome.assert_outcomes(passed=2)
    data = saved()
    assert data["embedcore"]["settings"]["probe"] is True
    for bench in data["benchmarks"]:
        info = bench["extra_info"]
        assert list(info["probe_verdicts"]) == NAMES
        assert set(info["ci95"]) == set(info["scores"]) >= {*NAMES, *(f"{name}_macro" for name in NAMES)}
        for name, text in info["probe_verdicts"].items():
            found = unpack_outcomes(text)
            assert found.tries == (10 if name.startswith("few_shot") else 1)
            assert found.judged.sum() == 9 and len(found.judged) == 10
            assert info["scores"][name] == pytest.approx(found.per_query().mean())
    read = read_run(project.path / "run.json")
    ranking = {entry["model"]: entry["probes"] for entry in data["embedcore"]["ranking"]}
    for name in NAMES:
        expected = rank_models(read.results, read.dataset, (name,))[name].model_ranks()
        assert len(expected) == 2
        assert {model: ranks[name]["rank95"] for model, ranks in ranking.items()} == {
            model: list(each.rank95) for model, each in expected.items()
        }
    capsys.readouterr()
    assert main(["rank", str(project.path / "run.json"), "--metric", "probe_ridge"]) == 0
    assert "probe_ridge" in capsys.readouterr().out
    changes = {change.what: change for change in compare(read, read).models[0].changes}
    assert changes["probe_ridge"].p == changes["few_shot_2"].p == 1
    assert "probe_ridge" in (project.path / "report" / "leaderboard.md").read_text()
    rows = [*csv.DictReader((project.path / "report" / "leaderboard.csv").open())]
    assert all(0 <= float(row["probe_ridge"]) <= 1 and row["probe_ridge_low"] for row in rows)
    for row in rows:
        of_ridge = ranking[row["model"]]["probe_ridge"]
        assert int(row["rank_probe_ridge"]) == of_ridge["rank"]
        assert [int(row[f"rank95_probe_ridge_{end}"]) for end in ("low", "high")] == of_ridge["rank95"]
    page = (project.path / "report" / "index.html").read_text()
    assert "few_shot_2" in page and "95 % ranks by ridge" in page


def test_probes_are_left_out_by_default_and_part_of_a_runs_identity(run, project, saved):
    first = run("--benchmark-json=run.json", "--embed-isolation=none", "-k", "test_vit")
    first.assert_outcomes(passed=1)
    (bench,) = saved()["benchmarks"]
    assert bench["extra_info"]["probe_verdicts"] == {} and "probe_ridge" not in bench["extra_info"]["scores"]
    (journal,) = (project.path / "cache").rglob("*.jsonl")
    assert json.loads(journal.read_text().splitlines()[0])["identity"]["probe"] is False


def test_the_ini_key_asks_for_probes(run, project, saved):
    project.makeini("[pytest]\nembed_probe = true")
    run("--benchmark-json=run.json", "--embed-isolation=none", "-k", "test_vit").assert_outcomes(passed=1)
    (bench,) = saved()["benchmarks"]
    assert list(bench["extra_info"]["probe_verdicts"]) == NAMES
