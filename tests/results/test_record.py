from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcore.errors import UsageError
from embedcore.files import sealed
from embedcore.plain import differences
from embedcore.results import record as record_module
from embedcore.results import runs as runs_module
from embedcore.results.journal import Journal
from embedcore.results.reading import read_parts, read_run
from embedcore.results.record import Record, read_record
from embedcore.results.result import STATUSES, Result
from embedcore.results.runs import Worker, find_resumable, journals_of, outline, runs_in_use

Make = Callable[..., Result]
OURS = records.IDENTITY
HERE = Worker("new")


def _journal(
    folder: Path, name: str, identity: dict[str, Any], results: list[Result], models: tuple[str, ...] = ("z.x",)
) -> Path:
    """A journal of `results`; finished if they cover all `models`."""
    path = records.journal(folder, name, results, models, identity=identity)
    stamp = 1_000_000_000 + len(list(folder.glob("*.jsonl")))
    os.utime(path, (stamp, stamp))
    return path


def _begun(folder: Path, models: list[str], worker: Worker = HERE, *, resume: bool = True) -> Record:
    return records.begun(folder, models, worker, resume=resume)


def test_the_newest_unfinished_run_of_the_same_identity_is_continued(tmp_path: Path, result_of: Make) -> None:
    _journal(tmp_path, "old", OURS, [result_of("a.x")])
    newest = _journal(tmp_path, "newest", OURS, [result_of("b.x"), result_of("c.x")])
    _journal(tmp_path, "done", OURS, [result_of("d.x")], models=("d.x",))
    _journal(tmp_path, "other", OURS | {"seed": 1}, [result_of("e.x")])
    record = _begun(tmp_path, ["b.x", "c.x", "f.x"])
    assert sorted(record.done) == ["b.x", "c.x"]
    assert record.warnings == ["resumed: 2 of 3 results are from the earlier session"]
    records.keep(record, result_of("f.x"))
    record.close()
    assert records.models(records.read(newest)) == ["b.x", "c.x", "f.x"]


def test_another_identity_is_refused_with_what_differs(tmp_path: Path, result_of: Make) -> None:
    _journal(tmp_path, "other", OURS | {"seed": 1, "timm": "1.0.15"}, [result_of("a.x")])
    with pytest.raises(UsageError, match=r"seed 1, now 0; timm 1\.0\.15, now 1\.0\.31") as caught:
        find_resumable(tmp_path, OURS, HERE)
    assert "weights" not in str(caught.value)


def test_an_older_unfinished_run_is_ignored(tmp_path: Path, result_of: Make) -> None:
    old = OURS | {"timm": "1.0.15"}
    _journal(tmp_path, "given-up", old, [result_of("a.x")])
    _journal(tmp_path, "done", OURS, [result_of("b.x")], models=("b.x",))
    assert find_resumable(tmp_path, OURS, HERE) == (None, [])
    found, _ = find_resumable(tmp_path, old, HERE)  # with its own settings it is still resumed
    assert found is not None and found.name == "given-up"


def test_nothing_unfinished_is_nothing_to_resume(tmp_path: Path, result_of: Make) -> None:
    assert find_resumable(tmp_path / "missing", OURS, HERE) == (None, [])
    _journal(tmp_path, "done", OURS, [result_of("d.x")], models=("d.x",))
    (tmp_path / "torn.jsonl").write_text('{"journal": 2, "iden')
    (tmp_path / "not.jsonl").write_text("hello\nworld\n")
    found, (line,) = find_resumable(tmp_path, OURS, HERE)  # one with half a header is ignored
    assert found is None
    assert "not.jsonl is not a journal of embedcore, or is damaged: line 1 has no checksum" in line


def test_a_run_that_is_being_written_is_refused(tmp_path: Path, result_of: Make) -> None:
    record = _begun(tmp_path, ["a.x", "b.x"], Worker("run"))
    records.keep(record, result_of("a.x"))
    assert runs_in_use(tmp_path) == {"run"}
    with pytest.raises(UsageError, match="in use by another process"):
        _begun(tmp_path, ["a.x", "b.x"])
    with pytest.raises(UsageError, match="in use by another process"):
        _begun(tmp_path, ["a.x", "b.x"], Worker("new", "gw0", runs_in_use(tmp_path)))
    record.close()
    assert runs_in_use(tmp_path) == set()
    _begun(tmp_path, ["a.x", "b.x"]).close()


def test_asking_which_runs_are_in_use_makes_no_files(tmp_path: Path, result_of: Make) -> None:
    for number in range(3):
        (tmp_path / f"run{number}.jsonl").write_bytes(sealed({"journal": 2}))
    before = sorted(tmp_path.iterdir())
    assert runs_in_use(tmp_path) == set() and sorted(tmp_path.iterdir()) == before


def test_a_torn_line_is_cut_off_before_more_is_written(tmp_path: Path, result_of: Make) -> None:
    path = _journal(tmp_path, "run", OURS, [result_of("a.x"), result_of("b.x")])
    path.write_bytes(path.read_bytes()[:-7])
    record = _begun(tmp_path, ["a.x", "b.x", "c.x"])
    assert sorted(record.done) == ["a.x"]
    records.keep(record, result_of("c.x"))
    record.close()
    contents = records.read(path)
    assert records.models(contents) == ["a.x", "c.x"]
    assert contents.damaged == []
    assert not records.finished(contents)


def test_a_damaged_line_is_reported_and_its_case_has_no_result(tmp_path: Path, result_of: Make) -> None:
    path = _journal(tmp_path, "run", OURS, [result_of("a.x", acc=0.5), result_of("b.x")], models=("a.x", "b.x"))
    path.write_bytes(path.read_bytes().replace(b'"acc": 0.5', b'"acc": 0.1', 1))
    record = _begun(tmp_path, ["a.x", "b.x"])
    assert sorted(record.done) == ["b.x"]
    assert record.warnings[0] == f"run {tmp_path / 'run'}: line 2 does not match its checksum: measured again"
    records.keep(record, result_of("a.x"))
    record.close()
    assert records.finished(records.read(path))


@pytest.mark.parametrize(
    ("status", "unreachable", "final"),
    [
        ("no-weights", True, False),
        ("no-weights", False, True),
        ("too-large", False, True),
        ("unsupported", False, True),
        ("nan", False, True),
        *((status, False, False) for status in ("gated", "oom", "timeout", "crashed", "error")),
    ],
)
def test_temporary_failures_are_retried(
    tmp_path: Path, result_of: Make, status: str, unreachable: bool, final: bool
) -> None:
    failed = Result.make("b.x", family="vit", status=status, reason="so it is", unreachable=unreachable)
    path = _journal(tmp_path, "run", OURS, [result_of("a.x"), failed], models=("a.x", "b.x"))
    assert records.finished(records.read(path)) == final
    if final:
        assert find_resumable(tmp_path, OURS, HERE) == (None, [])
        return
    record = _begun(tmp_path, ["a.x", "b.x"])
    assert sorted(record.done) == ["a.x"]
    assert record.warnings == [f"resumed: 1 of 2 results are from the earlier session, 1 is retried (1 {status})"]
    records.keep(record, result_of("b.x"))
    record.close()
    assert records.finished(records.read(path))


def test_each_worker_has_a_journal_and_any_number_of_processes_resumes(tmp_path: Path, result_of: Make) -> None:
    models = [f"{name}.x" for name in "abcdef"]
    workers = [_begun(tmp_path, models, Worker("run", f"gw{n}", frozenset()), resume=False) for n in range(3)]
    for number, record in enumerate(workers):
        records.keep(record, result_of(models[number]))
        record.close()
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == [f"run.gw{n}.jsonl" for n in range(3)]
    assert list(journals_of(tmp_path)) == ["run"]
    two = [_begun(tmp_path, models, Worker("next", f"gw{n}", frozenset())) for n in range(2)]
    assert all(len(record.done) == 3 for record in two)
    records.keep(two[0], result_of(models[3]))
    records.keep(two[1], result_of(models[4]))
    for record in two:
        record.close()
    alone = _begun(tmp_path, models)
    assert len(alone.done) == 5
    records.keep(alone, result_of(models[5]))
    alone.close()
    (paths,) = journals_of(tmp_path).values()
    contents = records.read(*paths)
    assert records.models(contents) == models  # in the order written, by any process
    assert records.finished(contents)


def test_the_later_of_two_results_counts_whichever_journal_it_is_in(tmp_path: Path, result_of: Make) -> None:
    models = ["a.x", "b.x"]
    first = _begun(tmp_path, models, Worker("run", "gw1", frozenset()), resume=False)
    records.keep(first, result_of("a.x", acc=0.1))
    first.close()
    second = _begun(tmp_path, models, Worker("other", "gw0", frozenset()))
    assert second.earlier(("a.x", None), "a.x") is not None
    assert second.earlier(("a.x", None), "a.x") is None
    second.discard(("a.x", None), "a.x", "since its weights have changed")
    records.keep(second, result_of("a.x", acc=0.2))
    second.close()
    third = _begun(tmp_path, models)
    before = third.earlier(("a.x", None), "a.x")
    assert before is not None and before.scores["acc"] == 0.2
    third.close()


def test_results_of_two_datasets_are_two_results(tmp_path: Path, result_of: Make) -> None:
    record = _begun(tmp_path, ["a.x"], Worker("run"), resume=False)
    records.keep(record, result_of("a.x", dataset="one", acc=0.1))
    records.keep(record, result_of("a.x", dataset="two", acc=0.2))
    record.close()
    contents = records.read(tmp_path / "run.jsonl")
    assert [(result.dataset, result.scores["acc"]) for _, result in contents.entries] == [("one", 0.1), ("two", 0.2)]


def test_differences_name_what_only_one_side_has() -> None:
    assert differences({"a": 1}, {"b": 2}) == ["a 1, now None", "b None, now 2"]
    assert differences(OURS, dict(OURS)) == []


def test_a_finished_run_is_continued_for_new_models_only(tmp_path: Path, result_of: Make) -> None:
    done = _journal(tmp_path, "done", OURS, [result_of("a.x"), result_of("b.x")], models=("a.x", "b.x"))
    record = _begun(tmp_path, ["a.x", "b.x"], Worker("new"))
    assert not record.done
    (line,) = record.warnings
    assert "is finished and contains all these models; all are measured again" in line
    assert line.endswith(f"embedcore report {done}")
    record.close()
    (tmp_path / "new.jsonl").unlink()
    record = _begun(tmp_path, ["a.x", "b.x", "c.x"], Worker("new"))
    assert sorted(record.done) == ["a.x", "b.x"]
    assert record.warnings == ["resumed: 2 of 3 results are from the earlier session, which was finished"]
    records.keep(record, result_of("c.x"))
    record.close()
    assert records.models(records.read(done)) == ["a.x", "b.x", "c.x"] and records.finished(records.read(done))
    assert not _begun(tmp_path, ["d.x", "e.x"], Worker("others")).done  # none of these is in it


def test_a_disk_without_room_for_more_cases_is_one_line(
    tmp_path: Path, result_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, line: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    _journal(tmp_path, "done", OURS, [result_of("a.x")], models=("a.x",))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        with pytest.raises(UsageError, match=r"done\.jsonl cannot be written: No space left on device"):
            _begun(tmp_path, ["a.x", "b.x"], Worker("new"))
    assert _begun(tmp_path, ["a.x", "b.x"], Worker("new")).done == {"a.x"}  # the lock was released


TWO = {"here[a]": "a.x", "there[a]": "a.x"}
"""Two tests that measure one model, each on a dataset of its own."""


def _two(folder: Path, *, resume: bool = True) -> Record:
    return records.begun(folder, TWO, resume=resume)


def test_a_model_on_a_second_dataset_is_a_case_of_its_own(tmp_path: Path, result_of: Make) -> None:
    record = _two(tmp_path, resume=False)
    records.keep(record, result_of("a.x", dataset="one", acc=0.1), test="here[a]")
    assert sorted(record.done) == ["here[a]"]
    record.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert not records.finished(records.read(path)) and not outline([path]).finished
    record = records.begun(tmp_path, TWO, Worker("newer"), resume=True)
    assert record.run == "new" and record.warnings == ["resumed: 1 of 2 results are from the earlier session"]
    before = record.earlier(("a.x", "one"), "here[a]")
    assert before is not None and before.scores["acc"] == 0.1
    assert record.earlier(("a.x", "two"), "there[a]") is None
    records.keep(record, before, test="here[a]")
    records.keep(record, result_of("a.x", dataset="two", acc=0.2), test="there[a]")
    assert sorted(record.done) == sorted(TWO)
    record.close()
    contents = records.read(path)
    assert records.finished(contents) and outline([path]).finished
    assert [entry.test for entry in contents.entries] == ["here[a]", "there[a]"]


def test_a_test_that_runs_twice_has_two_results(tmp_path: Path, result_of: Make) -> None:
    """As with ``--count 2``: the same case in two tests."""
    record = _two(tmp_path, resume=False)
    records.keep(record, result_of("a.x", dataset="one", acc=0.1), test="here[a]")
    records.keep(record, result_of("a.x", dataset="one", acc=0.2), test="there[a]")
    assert record.results["a.x", "one"].scores["acc"] == 0.2
    record.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert records.finished(records.read(path))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    record = records.begun(tmp_path, TWO, Worker("newer"), resume=True)
    assert record.warnings == ["resumed: 1 of 2 results are from the earlier session"]
    assert record.earlier(("a.x", "one"), "there[a]") is None  # which must be measured separately
    assert record.earlier(("a.x", "one"), "here[a]") is not None
    assert record.earlier(("a.x", "one"), "here[a]") is None  # once: a test that runs again measures again
    record.close()


def test_a_test_that_failed_and_ran_again_is_done(tmp_path: Path, result_of: Make) -> None:
    """As with ``--reruns 2``."""
    record = records.begun(tmp_path, {"t[a]": "a.x"}, Worker("new"))
    records.keep(
        record, Result.make("a.x", family="vit", status="error", reason="for a moment", dataset="one"), test="t[a]"
    )
    record.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert not records.finished(records.read(path)) and not outline([path]).finished
    record = records.begun(tmp_path, {"t[a]": "a.x"}, Worker("new"))
    records.keep(record, result_of("a.x", dataset="one"), test="t[a]")
    record.close()
    assert records.finished(records.read(path)) and outline([path]).finished


def test_a_renamed_test_keeps_its_result(tmp_path: Path, result_of: Make) -> None:
    record = records.begun(tmp_path, {"old[a]": "a.x", "old[b]": "b.x"}, Worker("new"))
    records.keep(record, result_of("a.x", dataset="one"), test="old[a]")
    record.close()
    planned = {"t[a]": "a.x", "t[b]": "b.x"}
    record = records.begun(tmp_path, planned, Worker("newer"), resume=True)
    assert record.warnings == ["resumed: 1 of 2 results are from the earlier session"] and sorted(record.done) == [
        "t[a]"
    ]
    before = record.earlier(("a.x", "one"), "t[a]")
    assert before is not None
    records.keep(record, before, test="t[a]")
    record.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert [entry.test for entry in records.read(path).entries] == ["old[a]", "t[a]"]  # under both names


def test_other_runs_are_read_only_to_see_if_they_are_finished(
    tmp_path: Path, result_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        _journal(tmp_path, f"done{number}", OURS, [result_of("d.x")], models=("d.x",))
        _journal(tmp_path, f"other{number}", OURS | {"seed": 1}, [result_of("d.x")], models=("d.x",))
    newest = _journal(tmp_path, "newest", OURS, [result_of("b.x")])
    whole: list[Path] = []
    monkeypatch.setattr(record_module, "read_record", lambda paths: whole.extend(paths) or read_record(paths))
    looked: list[Path] = []
    monkeypatch.setattr(runs_module, "outline", lambda paths: looked.extend(paths) or outline(paths))
    record = _begun(tmp_path, ["b.x"])
    record.close()
    assert record.run == "newest"
    assert whole == [newest] and looked == [newest]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(list(STATUSES))), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_finished_is_equal_in_the_outline_and_the_record(tmp_path: Path, written: list[tuple[str, str, str]]) -> None:
    path = tmp_path / "run.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path, {"datasets": [{"name": "photos"}], "tests": {"t[a]": "a.x", "t[b]": "b.x"}})
    for model, dataset, status in written:
        scores = {"scores": {"acc": 0.5, "acc5": 0.5}} if status == "ok" else {}
        result = Result.make(f"{model}.x", family="vit", status=status, dataset=dataset, **scores)
        journal.append(result.to_json() | {"test": f"t[{model}]", "written": 1.0})
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"model": "torn')
    contents, found = records.read(path), outline([path])
    assert found.finished == records.finished(contents)
    assert found.cases == len(contents.results)


HEADER = {
    "identity": {"timm": "1.0.31"},
    "settings": {"seed": 3},
    "datasets": [{"fingerprint": "one", "name": "photos"}],
    "machine": {"timm": "1.0.31", "processor": "a chip"},
    "selection": {"roster": "all"},
    "renamed": {"old": "a.x"},
    "noise": 0.03,
    "commit_info": {"id": "a" * 40},
}


def _measured(folder: Path, results: list[Result], models: list[str], worker: str = "", **header: Any) -> Path:
    place = Worker("20260101T000000-1", worker)
    planned = {f"bench/test_models.py::test_model[{model}]": model for model in models}
    record = records.begun(folder, planned, place, **HEADER | header)
    for result in results:
        records.keep(record, result, test=f"bench/test_models.py::test_model[{result.model}]")
    record.close()
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
    assert (run.settings, run.dataset, run.selection) == (
        HEADER["settings"],
        HEADER["datasets"][0],
        HEADER["selection"],
    )
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


def test_the_later_result_of_a_model_counts_from_any_worker(tmp_path: Path, result_of: Make) -> None:
    first = _measured(tmp_path, [result_of("a.x", acc=0.1), result_of("b.x")], ["a.x", "b.x", "c.x"], "gw0")
    second = _measured(tmp_path, [result_of("a.x", acc=0.2)], ["a.x", "b.x", "c.x"], "gw1")
    for path in (first, second):
        run = read_run(path)
        assert {result.model: result.scores["acc"] for result in run.results}["a.x"] == 0.2
        assert len(run.results) == 2 and run.unreached == {"c.x"}


def test_several_datasets_are_distinguished(tmp_path: Path, result_of: Make) -> None:
    record = records.begun(tmp_path, {"t[a]": "a.x", "u[a]": "a.x"}, "run", **HEADER)
    records.keep(record, result_of("a.x", dataset="one", acc=0.1), test="t[a]")
    record.add({"datasets": [{"fingerprint": "two", "name": "sketches"}]})
    records.keep(record, result_of("a.x", dataset="two", acc=0.2), test="u[a]")
    record.close()
    ((_, data),) = read_parts(tmp_path / "run.jsonl")
    assert [block["name"] for block in data["embedcore"]["datasets"]] == ["photos", "sketches"]
    assert [bench["extra_info"]["dataset"] for bench in data["benchmarks"]] == ["one", "two"]
    assert [bench["fullname"] for bench in data["benchmarks"]] == ["t[a]", "u[a]"]


def test_results_of_workers_reach_the_controller(tmp_path: Path, result_of: Make) -> None:
    """Reports carry lines as plain values, which is what pytest-xdist sends; the header goes with the first one."""
    planned = {"t[a]": "a.b", "t[c]": "c.d", "t[e]": "e.f"}
    header = HEADER | {"costs": {"a.b": 1.0, "c.d": None, "e.f": 1.0}, "noise": 0.02}
    controller = Record()
    for number, (test, result) in enumerate(
        {
            "t[a]": result_of("a.b", dataset="one", measured_s=10.0),
            "t[c]": Result.make("c.d", family="resnet", dataset="one", status="oom", reason="memory"),
        }.items()
    ):
        worker = records.begun(tmp_path, planned, Worker("run", f"gw{number}", frozenset()), **header)
        worker.announce({"to_fetch": ["e.f"]})
        worker.keep(result, test, 0.0)
        lines = json.loads(json.dumps(worker.unsent(), allow_nan=False))
        assert ["tests" in line for line in lines] == [True, False, False, False] and worker.unsent() == []
        for line in lines:
            controller.take(line, f"gw{number}")
        worker.close()
    assert list(controller.results) == [("a.b", "one"), ("c.d", "one")] and controller.planned == planned
    block = controller.block({"keyword": "x"})
    assert block["dataset"] == HEADER["datasets"][0] and block["selection"] == {"keyword": "x"}
    assert block["unreached"] == ["e.f"] and block["noise"] == 0.02
    assert controller.machine == HEADER["machine"] and controller.run == "run"
    left, seconds = controller.remaining()
    assert seconds is not None
    assert left == 1 and 2 < seconds[0] < 5 < seconds[1] < 12
