"""Further timing processes of a case in the record of a run."""

from __future__ import annotations

import msgspec
import pytest
import records

from embedcore.results.process import TimingProcess
from embedcore.results.record import Record
from embedcore.results.result import InvalidResultError
from embedcore.results.runs import Worker, find_resumable


def process(started):
    return msgspec.to_builtins(TimingProcess(started=started, durations=(0.1,)))


def timed(result, started):
    return {"timed": [result.model, result.dataset], "process": process(started)}


@pytest.fixture
def first(result_of):
    return result_of("a.x", dataset="d1", processes=[process(10.0)])


def starts(result):
    return [each.started for each in result.processes]


def test_a_case_collects_its_processes_and_the_journal_keeps_them(tmp_path, first, result_of):
    record = records.begun(tmp_path, ["a.x", "b.x"])
    records.keep(record, first, result_of("b.x", dataset="d1", processes=[process(11.0)]))
    for line in (timed(first, 20.0), timed(first, 30.0)):
        record.add(line)
    assert starts(record.results["a.x", "d1"]) == starts(record.entries[0].result) == [10.0, 20.0, 30.0]
    assert starts(record.results["b.x", "d1"]) == [11.0]
    assert [line["timed"] for line in record.unsent()] == [["a.x", "d1"]] * 2  # for the controller of the workers
    record.close()
    (path,) = tmp_path.glob("*.jsonl")
    read = records.read(path)
    assert starts(read.results["a.x", "d1"]) == [10.0, 20.0, 30.0]
    info = read.data()["benchmarks"][0]["extra_info"]
    assert [each["started"] for each in info["processes"]] == [10.0, 20.0, 30.0]
    settings = {"processes": 4}
    again = records.begun(tmp_path, ["a.x", "b.x"], "later", resume=True, settings=settings)
    assert starts(again.earlier(("a.x", "d1"), "a.x")) == [10.0, 20.0, 30.0]


def test_processes_may_be_read_before_the_result_of_another_worker(first):
    record = Record()
    record.take(timed(first, 20.0))
    record.take(first.to_json() | {"test": "t"})
    assert starts(record.results["a.x", "d1"]) == [10.0, 20.0]


def test_processes_of_an_earlier_measurement_are_not_of_the_new_one(first):
    record = Record()
    for line in (first.to_json(), timed(first, 20.0), first.to_json() | {"processes": [process(25.0)]}):
        record.take(line)
    assert starts(record.results["a.x", "d1"]) == [25.0]
    assert starts(record.entries[0].result) == [10.0, 20.0]
    record.take(timed(first, 40.0))
    assert starts(record.results["a.x", "d1"]) == [25.0, 40.0]


@pytest.mark.parametrize("damaged", [{"timed": "a.x"}, {"timed": ["a.x", "d1"], "process": {"started": "soon"}}])
def test_a_damaged_line_is_refused(damaged):
    with pytest.raises(InvalidResultError, match="a timing process"):
        Record().take(damaged)


@pytest.mark.parametrize(("processes", "resumed"), [(1, False), (2, False), (3, True)])
def test_a_run_with_too_few_processes_is_unfinished(tmp_path, first, result_of, processes, resumed):
    precomputed = result_of("b.x", dataset="d1", processes=[])
    record = records.begun(tmp_path, ["a.x", "b.x"], "old")
    records.keep(record, first, precomputed)
    record.add(timed(first, 20.0))
    record.close()
    found, _ = find_resumable(tmp_path, records.IDENTITY, Worker("new"), ["a.x", "b.x"], processes)
    assert (found is not None) == resumed
