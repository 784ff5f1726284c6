"""Merging saved runs, and the errors for runs that cannot be merged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.cli import main
from embedcore.errors import UsageError
from embedcore.results.merge import merge
from embedcore.results.ranking import ranking_block
from embedcore.results.reading import read_run
from embedcore.results.run import machine_of, run_of

CLASSES = np.repeat(np.arange(4), 5)
A, B, C, D = Path("a.json"), Path("b.json"), Path("c.json"), Path("d.json")


def info(model, **changes):
    return made.result(model, CLASSES, made.hits_of(model, CLASSES, 0.6), **changes)


def part(*models, shard=None, excluded=(), selection=None, **block):
    chosen = {"roster": "all", "family": [], "keyword": "", "shard": shard} | (selection or {})
    listed = [{"model": model, "family": "vit", "status": status, "reason": "why"} for model, status in excluded]
    return made.saved(list(map(info, models)), CLASSES, excluded=listed, selection=chosen, **block)


def empty(shard):
    block = {"schema": 1, "settings": {}, "dataset": {}, "excluded": [], "selection": {"shard": shard}}
    return {"machine_info": {}, "benchmarks": [], "datetime": "2026-11-24T13:00:00+00:00", "embedcore": block}


def names(data):
    return [bench["extra_info"]["model"] for bench in data["benchmarks"]]


def test_shards_become_the_run_that_one_session_would_have_saved():
    whole = part("x.a", "y.a", "z.a", excluded=[("big.a", "oom")])
    parts = [(A, part("x.a", "z.a", shard="1/3")), (B, part("y.a", excluded=[("big.a", "oom")], shard="2/3"))]
    merged = merge([*parts, (C, empty("3/3"))])
    assert merged.notes == ()
    one, other = run_of(merged.data, A), run_of(whole, A)
    assert {result.model: result for result in one.results} == {result.model: result for result in other.results}
    assert (one.excluded, one.settings, one.dataset) == (other.excluded, other.settings, other.dataset)
    assert (one.selection, one.unreached, one.datetime) == (other.selection, frozenset(), "2026-11-24T13:00:00+00:00")
    assert json.loads(json.dumps(merged.data, allow_nan=False)) == merged.data


def test_sessions_over_different_models_are_joined():
    vit = part("vit.a", settings={"roster": "vit*"}, selection={"roster": "vit*", "keyword": "x", "family": ["vit"]})
    net = part("net.a", settings={"roster": "net*"}, selection={"roster": "net*", "keyword": "x", "family": ["net"]})
    data = merge([(A, vit), (B, net)]).data
    assert names(data) == ["vit.a", "net.a"]
    chosen = {"roster": "vit*, net*", "family": ["net", "vit"], "keyword": "x", "shard": None}
    assert data["embedcore"]["selection"] == chosen
    assert data["embedcore"]["settings"]["roster"] == "vit*, net*"


def test_a_case_measured_in_one_run_is_not_unreached():
    first = part("x.a", unreached=["y.a", "z.a"], renamed={"old": "x.a"}, noise=0.01)
    data = merge([(A, first), (B, part("y.a", renamed={"older": "y.a"}, noise=0.02))]).data["embedcore"]
    assert (data["unreached"], data["renamed"], data["noise"]) == (["z.a"], {"old": "x.a", "older": "y.a"}, 0.02)


@pytest.mark.parametrize("status", ["oom", "timeout", "crashed", "error", "gated", "no-weights"])
def test_a_measurement_is_preferred_to_a_failure(status):
    failed, measured = part(excluded=[("x.a", status)]), part("x.a")
    for parts in ([(A, failed), (B, measured)], [(B, measured), (A, failed)]):
        merged = merge(parts)
        assert names(merged.data) == ["x.a"] and merged.data["embedcore"]["excluded"] == []
        assert merged.notes == (f"x.a: kept ok from b.json, dropped {status} from a.json",)


def test_the_first_of_two_failures_is_kept():
    merged = merge([(A, part(excluded=[("x.a", "oom")])), (B, part(excluded=[("x.a", "timeout")]))])
    assert [entry["status"] for entry in merged.data["embedcore"]["excluded"]] == ["oom"]
    assert merged.notes == ("x.a: kept oom from a.json, dropped timeout from b.json",)


def test_a_users_other_benchmark_is_kept_once():
    own = {"name": "test_own", "fullname": "test_it.py::test_own", "extra_info": {"n": 1}}
    first, second = part("x.a"), part("y.a")
    first["benchmarks"].append(own)
    second["benchmarks"].append(own)
    assert sum(bench["name"] == "test_own" for bench in merge([(A, first), (B, second)]).data["benchmarks"]) == 1


def test_on_several_datasets_a_model_is_measured_once_on_each():
    datasets = [{"fingerprint": "f00d"}, {"fingerprint": "beef"}]
    first, second = (
        made.saved([info("x.a", dataset=of)], CLASSES, excluded=[other], datasets=datasets)
        for of, other in (
            ("f00d", {"model": "y.a", "family": "y", "status": "oom", "dataset": "f00d"}),
            ("beef", {"model": "y.a", "family": "y", "status": "oom", "dataset": "beef"}),
        )
    )
    data = merge([(A, first), (B, second)]).data
    assert len(data["benchmarks"]) == len(data["embedcore"]["excluded"]) == 2
    with pytest.raises(UsageError, match=r"x\.a was measured twice"):
        merge([(A, first), (B, first)])


def machine(**changes):
    return {"machine": made.MACHINE | changes}


@pytest.mark.parametrize("other", [{"gpu": "H100"}, {"driver": "570"}, {"processor": "another CPU"}])
def test_shards_of_unlike_machines_are_joined_and_each_result_names_its_own(other):
    shards = [(A, part("x.a", shard="1/2")), (B, part("y.a", shard="2/2", **machine(**other)))]
    merged = merge(shards)
    ours, theirs = (machine_of(made.MACHINE | changes) for changes in ({}, other))
    assert len(merged.notes) == 1 and ours in merged.notes[0] and theirs in merged.notes[0]
    run = run_of(merged.data, A)
    assert run.unlike and {r.model: r.processor for r in run.results} == {"x.a": ours, "y.a": theirs}
    assert run.processor == "; ".join(sorted((ours, theirs)))
    again = run_of(merge([(A, merged.data), (C, part("z.a"))]).data, A)
    assert {r.model: r.processor for r in again.results} == {"x.a": ours, "y.a": theirs, "z.a": ours}
    assert not run_of(shards[0][1], A).unlike


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (part("y.a", settings={"protocol": "square224"}), "another setting: protocol native, now square224"),
        (part("y.a", settings={"seed": 1}), "another setting: seed None, now 1"),
        (part("y.a", dataset={"fingerprint": "beef"}), "another dataset: fingerprint ['f00d'], now ['beef']"),
        (part("y.a", **machine(timm="1.0.31")), "another version: timm 1.0.20, now 1.0.31"),
        (part("y.a", **machine(torch="2.15")), "another version: torch 2.14.1, now 2.15"),
        (part("x.a"), "x.a was measured twice: ok in a.json and ok in b.json"),
        (part(excluded=[("x.a", "nan")]), "x.a was measured twice: ok in a.json and nan in b.json"),
        (part("y.a", shard="2/3"), "shard 1/3, 3/3 are missing; --allow-missing merges the others"),
        (part("y.a", shard="1/2"), "shard 2/2 is missing"),
        (part("y.a", shard="two"), "b.json: shard 'two' does not have the form 2/8"),
        (part("y.a", schema=9), "b.json has embedcore schema 9"),
        ({"machine_info": {}}, "b.json is not a run saved by pytest-benchmark"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused_in_one_line(other, message):
    with pytest.raises(UsageError) as caught:
        merge([(A, part("x.a")), (B, other)])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_shards_of_two_divisions_are_refused():
    with pytest.raises(UsageError, match=r"b\.json is shard 2/3, and a\.json is one of 2"):
        merge([(A, part("x.a", shard="1/2")), (B, part("y.a", shard="2/3"))])


def test_empty_input_is_refused():
    with pytest.raises(UsageError, match=r"nothing to merge: a\.json without results"):
        merge([(A, empty("1/1"))])
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([])


def test_missing_shards_can_be_allowed_and_come_later():
    merged = merge([(A, part("x.a", shard="1/3")), (B, part("z.a", shard="3/3"))], allow_missing=True)
    assert merged.notes == ("shard 2/3 is missing",)
    assert merged.data["embedcore"]["selection"]["shard"] == "1+3/3"
    whole = merge([(C, merged.data), (D, part("y.a", shard="2/3"))]).data
    assert whole["embedcore"]["selection"]["shard"] is None
    assert sorted(names(whole)) == ["x.a", "y.a", "z.a"]


# Files and folders.


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_the_command_writes_one_file_that_pytest_benchmark_compares(tmp_path, capsys):
    figures = dict.fromkeys(
        ["min", "max", "mean", "stddev", "median", "iqr", "q1", "q3", "ops", "total", "ld15iqr", "hd15iqr"], 1.0
    )
    counts = {"rounds": 2, "iterations": 1, "iqr_outliers": 0, "stddev_outliers": 0, "outliers": "0;0"}
    files = []
    for number, model in enumerate(["x.a", "y.a"], start=1):
        data = part(model, shard=f"{number}/2")
        data["embedcore"]["ranking"] = ranking_block(run_of(data, A).rankings())
        data["benchmarks"][0] |= {"fullname": f"t.py::test_model[{model}]", "group": "ViT", "stats": figures | counts}
        files.append(write(tmp_path / f"{number}.json", data))
    assert main(["merge", *map(str, files), "-o", str(tmp_path / "all.json")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'all.json'}: 2 benchmarks and 0 excluded models\n"
    merged = read_run(tmp_path / "all.json")
    assert [result.model for result in merged.results] == ["x.a", "y.a"]
    assert {(model_rank.model, model_rank.rank95) for model_rank in merged.ranking} == {
        ("x.a", (1, 2)),
        ("y.a", (1, 2)),
    }
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(tmp_path / "all.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "test_model[x.a]" in done.stdout and "test_model[y.a]" in done.stdout


def test_the_command_reports_errors_and_writes_nothing(tmp_path, capsys):
    first = write(tmp_path / "1.json", part("x.a", shard="1/2"))
    before = first.read_bytes()
    output = tmp_path / "all.json"
    assert main(["merge", str(first), "-o", str(output)]) == 2
    assert capsys.readouterr().err == "embedcore: shard 2/2 is missing; --allow-missing merges the others\n"
    assert main(["merge", str(first), "--allow-missing", "-o", str(tmp_path / "." / "1.json")]) == 2
    assert "is one of the runs to merge" in capsys.readouterr().err
    assert main(["merge", str(first), "--allow-missing", "-o", str(tmp_path / "no" / "all.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "none.json"), "-o", str(output)]) == 2
    assert main(["merge", str(first)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["1.json"] and first.read_bytes() == before
    capsys.readouterr()
    assert main(["merge", str(first), "--allow-missing", "-o", str(output)]) == 0
    assert "shard 2/2 is missing" in capsys.readouterr().err
    assert main(["merge", str(tmp_path), "--allow-missing", "-o", str(output)]) == 2  # it contains the earlier output
    assert "is one of the runs" in capsys.readouterr().err


def test_a_folder_is_the_run_of_all_its_files(tmp_path):
    write(tmp_path / "shard-1" / "run.json", part("x.a", shard="1/2"))
    write(tmp_path / "shard-2" / ".benchmarks" / "Linux" / "0001_run.json", part("y.a", shard="2/2"))
    write(tmp_path / "shard-1" / "report" / "leaderboard.json", {"schema": 1, "rows": []})
    write(tmp_path / "other.json", [1, 2])
    run = read_run(tmp_path)
    assert [result.model for result in run.results] == ["x.a", "y.a"]
    assert (run.path, run.name, run.selection["shard"]) == (tmp_path, tmp_path.name, None)


def test_a_folder_that_is_no_run_gets_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"contains no run saved with embedcore: it contains no \.json file"):
        read_run(tmp_path)
    write(tmp_path / "leaderboard.json", {"schema": 1, "rows": []})
    with pytest.raises(UsageError, match=r"none of its 1 \.json files is one"):
        read_run(tmp_path)
    write(tmp_path / "run.json", json.dumps(part("x.a"))[:-9])
    with pytest.raises(UsageError, match=r"run\.json is not JSON"):
        read_run(tmp_path)


def test_pytest_benchmarks_storage_is_many_runs_and_not_one(tmp_path):
    storage = tmp_path / ".benchmarks"
    write(storage / "py310" / "0001_old.json", part("x.a"))
    assert [result.model for result in read_run(storage / "py310").results] == ["x.a"]
    write(storage / "py311" / "0001_old.json", part("y.a"))
    write(storage / "py310" / "0002_new.json", part("x.a"))
    for folder, count in ((storage, 3), (storage / "py310", 2), (tmp_path, 2)):
        with pytest.raises(UsageError, match=f"contains {count} runs saved by pytest-benchmark: name one, such as 000"):
            read_run(folder)


def test_the_timing_processes_of_a_case_survive():
    processes = [{"started": 10.0, "durations": [0.1]}, {"started": 90.0, "durations": [0.2]}]
    data = part("x.a", shard="1/2")
    data["benchmarks"][0]["extra_info"]["processes"] = processes
    merged = run_of(merge([(A, data), (B, part("y.a", shard="2/2"))]).data, A)
    assert [result.model for result in merged.results] == ["x.a", "y.a"]
    assert [process.started for process in merged.results[0].processes] == [10.0, 90.0]
