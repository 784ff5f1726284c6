from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcore.errors import UsageError
from embedcore.files import sealed
from embedcore.results import books as books_module
from embedcore.results.books import Books, Place, differences, find_runs, find_unfinished, runs_in_use
from embedcore.results.journal import Journal, outline, read_journal, read_journals
from embedcore.results.result import STATUSES, Result

Make = Callable[..., Result]
OURS = {"dataset": "abc", "seed": 0, "weights": "auto", "timm": "1.0.31"}
HERE = Place("new")


def _journal(
    folder: Path, name: str, identity: dict[str, Any], results: list[Result], models: tuple[str, ...] = ("z.x",)
) -> Path:
    """A journal of `results`; unfinished, unless `models` are all of them."""
    path = folder / f"{name}.jsonl"
    journal = Journal(path, {"identity": identity}, planned={model: model for model in models})
    for result in results:
        journal.append(result)
    journal.close()
    stamp = 1_000_000_000 + len(list(folder.glob("*.jsonl")))
    os.utime(path, (stamp, stamp))
    return path


def _books(folder: Path, models: list[str], place: Place = HERE, *, resume: bool = True) -> Books:
    return Books(folder, {"identity": OURS}, {model: model for model in models}, place, resume=resume)


def _models(contents: Any) -> list[str]:
    return [result.model for result in contents.results]


def test_the_newest_unfinished_run_of_the_same_identity_is_continued(tmp_path: Path, result_of: Make) -> None:
    _journal(tmp_path, "old", OURS, [result_of("a.x")])
    newest = _journal(tmp_path, "newest", OURS, [result_of("b.x"), result_of("c.x")])
    _journal(tmp_path, "done", OURS, [result_of("d.x")], models=("d.x",))
    _journal(tmp_path, "other", OURS | {"seed": 1}, [result_of("e.x")])
    books = _books(tmp_path, ["b.x", "c.x", "f.x"])
    assert [model for model, _ in books.results] == ["b.x", "c.x"]
    assert books.notices == ["resumed: 2 of 3 results are from before"]
    books.keep(result_of("f.x"))
    books.close()
    assert _models(read_journal(newest)) == ["b.x", "c.x", "f.x"]


def test_another_identity_is_refused_with_what_differs(tmp_path: Path, result_of: Make) -> None:
    _journal(tmp_path, "other", OURS | {"seed": 1, "timm": "1.0.15"}, [result_of("a.x")])
    with pytest.raises(UsageError, match=r"seed 1, now 0; timm 1\.0\.15, now 1\.0\.31") as caught:
        find_unfinished(tmp_path, OURS, HERE)
    assert "weights" not in str(caught.value)


def test_an_unfinished_run_that_another_has_followed_is_in_nobodys_way(tmp_path: Path, result_of: Make) -> None:
    old = OURS | {"timm": "1.0.15"}
    _journal(tmp_path, "given-up", old, [result_of("a.x")])
    _journal(tmp_path, "done", OURS, [result_of("b.x")], models=("b.x",))
    assert find_unfinished(tmp_path, OURS, HERE) == (None, [])
    found, _ = find_unfinished(tmp_path, old, HERE)  # with its own settings it still goes on
    assert found is not None and found[0] == "given-up"


def test_nothing_unfinished_is_nothing_to_resume(tmp_path: Path, result_of: Make) -> None:
    assert find_unfinished(tmp_path / "missing", OURS, HERE) == (None, [])
    _journal(tmp_path, "done", OURS, [result_of("d.x")], models=("d.x",))
    (tmp_path / "torn.jsonl").write_text('{"journal": 2, "iden')
    (tmp_path / "not.jsonl").write_text("hello\nworld\n")
    runs, passed_over = find_runs(tmp_path)
    assert list(runs) == ["done"]
    (line,) = passed_over  # one with half a header holds nothing
    assert "not.jsonl is not a journal of embedcore, or is damaged: line 1 has no checksum" in line
    assert find_unfinished(tmp_path, OURS, HERE) == (None, passed_over)


def test_a_run_that_is_being_written_is_refused(tmp_path: Path, result_of: Make) -> None:
    books = _books(tmp_path, ["a.x", "b.x"], Place("run"))
    books.keep(result_of("a.x"))
    assert runs_in_use(tmp_path) == {"run"}
    with pytest.raises(UsageError, match="in use by another process"):
        _books(tmp_path, ["a.x", "b.x"])
    with pytest.raises(UsageError, match="in use by another process"):
        _books(tmp_path, ["a.x", "b.x"], Place("new", "gw0", runs_in_use(tmp_path)))
    books.close()
    assert runs_in_use(tmp_path) == set()
    _books(tmp_path, ["a.x", "b.x"]).close()


def test_asking_which_runs_are_in_use_makes_no_files(tmp_path: Path, result_of: Make) -> None:
    for number in range(3):
        (tmp_path / f"run{number}.jsonl").write_bytes(sealed({"journal": 2}))
    before = sorted(tmp_path.iterdir())
    assert runs_in_use(tmp_path) == set() and sorted(tmp_path.iterdir()) == before


def test_a_torn_line_is_cut_off_before_more_is_written(tmp_path: Path, result_of: Make) -> None:
    path = _journal(tmp_path, "run", OURS, [result_of("a.x"), result_of("b.x")])
    path.write_bytes(path.read_bytes()[:-7])
    books = _books(tmp_path, ["a.x", "b.x", "c.x"])
    assert [model for model, _ in books.results] == ["a.x"]
    books.keep(result_of("c.x"))
    books.close()
    contents = read_journal(path)
    assert _models(contents) == ["a.x", "c.x"]
    assert contents.whole_bytes == path.stat().st_size
    assert not contents.finished


def test_a_damaged_line_is_told_and_its_case_has_no_result(tmp_path: Path, result_of: Make) -> None:
    path = _journal(tmp_path, "run", OURS, [result_of("a.x", acc=0.5), result_of("b.x")], models=("a.x", "b.x"))
    path.write_bytes(path.read_bytes().replace(b'"acc": 0.5', b'"acc": 0.1', 1))
    books = _books(tmp_path, ["a.x", "b.x"])
    assert [model for model, _ in books.results] == ["b.x"]
    assert books.notices[0] == f"run {tmp_path / 'run'}: line 2 does not fit its checksum: measured again"
    books.keep(result_of("a.x"))
    books.close()
    assert read_journal(path).finished


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
def test_what_another_try_may_better_is_tried_again(
    tmp_path: Path, result_of: Make, status: str, unreachable: bool, final: bool
) -> None:
    failed = Result.make("b.x", family="vit", status=status, reason="so it is", unreachable=unreachable)
    path = _journal(tmp_path, "run", OURS, [result_of("a.x"), failed], models=("a.x", "b.x"))
    assert read_journal(path).finished == final
    if final:
        assert find_unfinished(tmp_path, OURS, HERE) == (None, [])
        return
    books = _books(tmp_path, ["a.x", "b.x"])
    assert [model for model, _ in books.results] == ["a.x"]
    assert books.notices == [f"resumed: 1 of 2 results are from before, 1 is tried again (1 {status})"]
    books.keep(result_of("b.x"))
    books.close()
    assert read_journal(path).finished


def test_workers_keep_a_journal_each_and_any_number_of_processes_goes_on(tmp_path: Path, result_of: Make) -> None:
    models = [f"{name}.x" for name in "abcdef"]
    workers = [_books(tmp_path, models, Place("run", f"gw{n}", frozenset()), resume=False) for n in range(3)]
    for number, books in enumerate(workers):
        books.keep(result_of(models[number]))
        books.close()
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == [f"run.gw{n}.jsonl" for n in range(3)]
    assert list(find_runs(tmp_path)[0]) == ["run"]
    two = [_books(tmp_path, models, Place("next", f"gw{n}", frozenset())) for n in range(2)]
    assert all(len(books.results) == 3 for books in two)
    two[0].keep(result_of(models[3]))
    two[1].keep(result_of(models[4]))
    for books in two:
        books.close()
    alone = _books(tmp_path, models)
    assert len(alone.results) == 5
    alone.keep(result_of(models[5]))
    alone.close()
    (contents,) = find_runs(tmp_path)[0].values()
    assert _models(contents) == models  # in the order in which they were written, whoever did
    assert contents.finished


def test_the_later_of_two_results_counts_whichever_journal_it_is_in(tmp_path: Path, result_of: Make) -> None:
    models = ["a.x", "b.x"]
    first = _books(tmp_path, models, Place("run", "gw1", frozenset()), resume=False)
    first.keep(result_of("a.x", acc=0.1))
    first.close()
    second = _books(tmp_path, models, Place("other", "gw0", frozenset()))
    assert second.from_before(("a.x", None), "a.x") is not None
    assert second.from_before(("a.x", None), "a.x") is None
    second.forget(("a.x", None), "a.x", "since its weights have changed")
    second.keep(result_of("a.x", acc=0.2))
    second.close()
    third = _books(tmp_path, models)
    assert third.results["a.x", None].scores["acc"] == 0.2
    third.close()


def test_results_of_two_datasets_are_two_results(tmp_path: Path, result_of: Make) -> None:
    books = _books(tmp_path, ["a.x"], Place("run"), resume=False)
    books.keep(result_of("a.x", dataset="one", acc=0.1))
    books.keep(result_of("a.x", dataset="two", acc=0.2))
    books.close()
    contents = read_journal(tmp_path / "run.jsonl")
    assert [(result.dataset, result.scores["acc"]) for result in contents.results] == [("one", 0.1), ("two", 0.2)]


def test_differences_name_what_only_one_side_has() -> None:
    assert differences({"a": 1}, {"b": 2}) == ["a 1, now None", "b None, now 2"]
    assert differences(OURS, dict(OURS)) == []


def test_a_finished_run_goes_on_where_there_are_new_models_only(tmp_path: Path, result_of: Make) -> None:
    done = _journal(tmp_path, "done", OURS, [result_of("a.x"), result_of("b.x")], models=("a.x", "b.x"))
    books = _books(tmp_path, ["a.x", "b.x"], Place("new"))
    assert not books.results
    (line,) = books.notices
    assert "is finished and has all these models, so all are measured anew" in line
    assert line.endswith(f"embedcore report {done}")
    books.close()
    (tmp_path / "new.jsonl").unlink()
    books = _books(tmp_path, ["a.x", "b.x", "c.x"], Place("new"))
    assert [model for model, _ in books.results] == ["a.x", "b.x"]
    assert books.notices == ["resumed: 2 of 3 results are from before, from a run that was finished"]
    books.keep(result_of("c.x"))
    books.close()
    assert _models(read_journal(done)) == ["a.x", "b.x", "c.x"] and read_journal(done).finished
    assert not _books(tmp_path, ["d.x", "e.x"], Place("others")).results  # none of these is in it


TWO = {"here[a]": "a.x", "there[a]": "a.x"}
"""Two tests that measure one model, each on a dataset of its own."""


def _two(folder: Path, *, resume: bool = True) -> Books:
    return Books(folder, {"identity": OURS}, TWO, Place("new"), resume=resume)


def test_a_model_on_a_second_dataset_is_a_case_of_its_own(tmp_path: Path, result_of: Make) -> None:
    books = _two(tmp_path, resume=False)
    books.keep(result_of("a.x", dataset="one", acc=0.1), "here[a]")
    assert books.done == {"here[a]"}
    books.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert not read_journal(path).finished and not outline([path]).finished
    books = Books(tmp_path, {"identity": OURS, "dataset": {"name": "x"}}, TWO, Place("newer"), resume=True)
    assert books.run == "new" and books.notices == ["resumed: 1 of 2 results are from before"]
    before = books.from_before(("a.x", "one"), "here[a]")
    assert before is not None and before.scores["acc"] == 0.1
    assert books.from_before(("a.x", "two"), "there[a]") is None
    books.keep(before, "here[a]")
    books.keep(result_of("a.x", dataset="two", acc=0.2), "there[a]")
    assert books.done == TWO.keys()
    books.close()
    contents = read_journal(path)
    assert contents.finished and outline([path]).finished
    assert contents.tests == ("here[a]", "there[a]")


def test_a_test_that_runs_twice_has_two_results(tmp_path: Path, result_of: Make) -> None:
    """As with ``--count 2``: the same case in two tests."""
    books = _two(tmp_path, resume=False)
    books.keep(result_of("a.x", dataset="one", acc=0.1), "here[a]")
    books.keep(result_of("a.x", dataset="one", acc=0.2), "there[a]")
    assert books.results["a.x", "one"].scores["acc"] == 0.2
    books.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert read_journal(path).finished
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    books = Books(tmp_path, {"identity": OURS}, TWO, Place("newer"), resume=True)
    assert books.notices == ["resumed: 1 of 2 results are from before"]
    assert books.from_before(("a.x", "one"), "there[a]") is None  # which has to measure for itself
    assert books.from_before(("a.x", "one"), "here[a]") is not None
    assert books.from_before(("a.x", "one"), "here[a]") is None  # once: a test that runs again measures again
    books.close()


def test_a_test_that_failed_and_ran_again_is_done(tmp_path: Path, result_of: Make) -> None:
    """As with ``--reruns 2``."""
    books = Books(tmp_path, {"identity": OURS}, {"t[a]": "a.x"}, Place("new"))
    books.keep(Result.make("a.x", family="vit", status="error", reason="for a moment", dataset="one"), "t[a]")
    books.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert not read_journal(path).finished and not outline([path]).finished
    books = Books(tmp_path, {"identity": OURS}, {"t[a]": "a.x"}, Place("new"))
    books.keep(result_of("a.x", dataset="one"), "t[a]")
    books.close()
    assert read_journal(path).finished and outline([path]).finished


def test_a_renamed_test_keeps_what_was_measured(tmp_path: Path, result_of: Make) -> None:
    books = Books(tmp_path, {"identity": OURS}, {"old[a]": "a.x", "old[b]": "b.x"}, Place("new"))
    books.keep(result_of("a.x", dataset="one"), "old[a]")
    books.close()
    planned = {"t[a]": "a.x", "t[b]": "b.x"}
    books = Books(tmp_path, {"identity": OURS}, planned, Place("newer"), resume=True)
    assert books.notices == ["resumed: 1 of 2 results are from before"] and books.done == {"t[a]"}
    before = books.from_before(("a.x", "one"), "t[a]")
    assert before is not None
    books.keep(before, "t[a]")
    books.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert read_journal(path).tests == ("old[a]", "t[a]")  # under both names


def test_a_journal_of_before_this_version_goes_on(tmp_path: Path, result_of: Make) -> None:
    """Its header names models, not tests."""
    path = tmp_path / "run.jsonl"
    lines = [{"journal": 2, "identity": OURS, "models": ["a.x"]}, {"models": ["b.x"]}]
    lines.append(result_of("a.x", dataset="one").to_json() | {"written": 1.0, "test": "t[a]"})
    path.write_bytes(b"".join(map(sealed, lines)))
    contents = read_journal(path)
    assert contents.models == ("a.x", "b.x") and not contents.finished and not outline([path]).finished
    planned = {"t[a]": "a.x", "t[b]": "b.x"}
    books = Books(tmp_path, {"identity": OURS}, planned, Place("new"), resume=True)
    assert books.run == "run" and books.notices == ["resumed: 1 of 2 results are from before"]
    books.close()
    path.write_bytes(b"".join(map(sealed, [*lines, result_of("b.x", dataset="one").to_json() | {"written": 2.0}])))
    assert read_journal(path).finished and outline([path]).finished


def test_of_other_runs_no_more_is_read_than_tells_whether_they_are_finished(
    tmp_path: Path, result_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        _journal(tmp_path, f"done{number}", OURS, [result_of("d.x")], models=("d.x",))
        _journal(tmp_path, f"other{number}", OURS | {"seed": 1}, [result_of("d.x")], models=("d.x",))
    newest = _journal(tmp_path, "newest", OURS, [result_of("b.x")])
    whole: list[Path] = []
    monkeypatch.setattr(books_module, "read_journals", lambda paths: whole.extend(paths) or read_journals(paths))
    looked: list[Path] = []
    monkeypatch.setattr(books_module, "outline", lambda paths: looked.extend(paths) or outline(paths))
    found, _ = find_unfinished(tmp_path, OURS, HERE)
    assert found is not None and found[0] == "newest"
    assert whole == [newest] and looked == [newest]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(list(STATUSES))), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whether_a_run_is_finished_is_the_same_read_whole_or_in_part(
    tmp_path: Path, written: list[tuple[str, str, str]]
) -> None:
    path = tmp_path / "run.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path, {"dataset": {"name": "photos"}}, planned={"t[a]": "a.x", "t[b]": "b.x"})
    for model, dataset, status in written:
        scores = {"scores": {"acc": 0.5, "acc5": 0.5}} if status == "ok" else {}
        result = Result.make(f"{model}.x", family="vit", status=status, dataset=dataset, **scores)
        journal.append(result, f"t[{model}]")
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"model": "torn')
    contents, found = read_journal(path), outline([path])
    assert found.finished == contents.finished
    assert found.results == len({(result.model, result.dataset) for result in contents.results})
