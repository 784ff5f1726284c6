from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

from embedcore.errors import UsageError
from embedcore.results.books import Books, Place
from embedcore.results.from_journal import last_run, stats_of
from embedcore.results.merge import read_parts
from embedcore.results.result import Result
from embedcore.results.run import read_run

Make = Callable[..., Result]
HEADER = {
    "identity": {"timm": "1.0.31"},
    "settings": {"seed": 3},
    "dataset": {"fingerprint": "one", "name": "photos"},
    "machine": {"timm": "1.0.31", "processor": "a chip"},
    "selection": {"roster": "all"},
    "renamed": {"old": "a.x"},
    "noise": 0.03,
    "commit_info": {"id": "a" * 40},
}


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=23))
def test_statistics_are_those_of_pytest_benchmark(seconds: list[float]) -> None:
    stats = Stats()
    for value in seconds:
        stats.update(value)
    found = stats_of(seconds)
    assert found.pop("data") == seconds
    assert {*found} == {*Stats.fields}
    for name, value in stats.as_dict().items():
        if name in ("outliers", "iqr_outliers", "stddev_outliers"):
            continue  # at the very limit rounding decides
        assert found[name] == pytest.approx(value), name


def _measured(folder: Path, results: list[Result], models: list[str], worker: str = "", **header: Any) -> Path:
    place = Place("20260101T000000-1", worker)
    planned = {f"bench/test_models.py::test_model[{model}]": model for model in models}
    books = Books(folder, HEADER | header, planned, place)
    for result in results:
        books.keep(result, f"bench/test_models.py::test_model[{result.model}]")
    books.close()
    return place.journal(folder, place.new_run)


def test_a_journal_reads_as_the_run_that_its_session_would_have_saved(tmp_path: Path, result_of: Make) -> None:
    failed = Result.make("c.x", family="vit", status="oom", reason="no room", dataset="one")
    measured = [result_of("a.x", dataset="one"), result_of("b.x", dataset="one", batch_decayed=True), failed]
    path = _measured(tmp_path, measured, ["a.x", "b.x", "c.x", "d.x"])
    run = read_run(path)
    assert [result.model for result in run.results] == ["a.x", "b.x"]
    assert run.results[0].scores == measured[0].scores and run.results[0].verdicts == measured[0].verdicts
    assert [(result.model, result.reason) for result in run.excluded] == [("c.x", "no room")]
    assert run.unreached == {"d.x"}
    assert (run.settings, run.dataset, run.selection) == (HEADER["settings"], HEADER["dataset"], HEADER["selection"])
    assert (run.timm, run.processor, run.noise, run.renamed) == ("1.0.31", "a chip", 0.03, {"old": "a.x"})
    assert run.commit == "a" * 40
    ((_, data),) = read_parts(path)
    first, second = data["benchmarks"]
    assert first["fullname"] == "bench/test_models.py::test_model[a.x]" and first["name"] == "test_model[a.x]"
    assert first["params"] == {"embed_model": "a.x"} and first["group"] == "ViT"
    assert second["group"] == "ViT, in a smaller batch than asked for"
    images = measured[0].batch_size or 1
    assert first["stats"]["data"] == [seconds / images for seconds in measured[0].durations]
    assert first["stats"]["iterations"] == images
    json.dumps(data, allow_nan=False)


def test_the_later_result_of_a_model_stands_whichever_worker_had_it(tmp_path: Path, result_of: Make) -> None:
    first = _measured(tmp_path, [result_of("a.x", acc=0.1), result_of("b.x")], ["a.x", "b.x", "c.x"], "gw0")
    second = _measured(tmp_path, [result_of("a.x", acc=0.2)], ["a.x", "b.x", "c.x"], "gw1")
    for path in (first, second):
        run = read_run(path)
        assert {result.model: result.scores["acc"] for result in run.results}["a.x"] == 0.2
        assert len(run.results) == 2 and run.unreached == {"c.x"}


def test_several_datasets_are_told_apart(tmp_path: Path, result_of: Make) -> None:
    books = Books(tmp_path, HEADER, {"t[a]": "a.x", "u[a]": "a.x"}, Place("run"))
    books.keep(result_of("a.x", dataset="one", acc=0.1), "t[a]")
    books.note_dataset({"fingerprint": "two", "name": "sketches"})
    books.keep(result_of("a.x", dataset="two", acc=0.2), "u[a]")
    books.close()
    ((_, data),) = read_parts(tmp_path / "run.jsonl")
    assert [block["name"] for block in data["embedcore"]["datasets"]] == ["photos", "sketches"]
    assert [bench["extra_info"]["dataset"] for bench in data["benchmarks"]] == ["one", "two"]
    assert [bench["fullname"] for bench in data["benchmarks"]] == ["t[a]", "u[a]"]


def test_the_last_run_is_the_one_last_written_to(tmp_path: Path, result_of: Make) -> None:
    with pytest.raises(UsageError, match=r"no run has been measured with the cache folder .*: .*runs has no journal"):
        last_run(tmp_path / "runs")
    path = _measured(tmp_path / "runs", [result_of("a.x")], ["a.x"])
    assert last_run(tmp_path / "runs") == path
    for name, content in (("torn.jsonl", '{"journal": 2, "iden'), ("not.jsonl", "hello\nworld\n")):
        (tmp_path / "runs" / name).write_text(content)
        with pytest.raises(UsageError, match=name):
            read_run(tmp_path / "runs" / name)
    assert last_run(tmp_path / "runs") == path
