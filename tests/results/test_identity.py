from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcore.errors import UsageError
from embedcore.results.identity import differences, find_runs, resume
from embedcore.results.journal import Journal, read_journal
from embedcore.results.result import Result

Make = Callable[..., Result]
OURS = {"dataset": "abc", "seed": 0, "weights": "auto", "timm": "1.0.31"}


def _journal(
    folder: Path, name: str, identity: dict[str, object], results: list[Result], finished: bool = False
) -> Path:
    path = folder / f"{name}.jsonl"
    with Journal.create(path, {"identity": identity}) as journal:
        for result in results:
            journal.append(result)
        if finished:
            journal.finish("today")
    stamp = 1_000_000_000 + len(list(folder.glob("*.jsonl")))
    os.utime(path, (stamp, stamp))
    return path


def test_the_newest_unfinished_run_of_the_same_identity_is_continued(tmp_path: Path, result_of: Make) -> None:
    _journal(tmp_path, "old", OURS, [result_of("a.x")])
    newest = _journal(tmp_path, "newest", OURS, [result_of("b.x"), result_of("c.x")])
    _journal(tmp_path, "done", OURS, [result_of("d.x")], finished=True)
    _journal(tmp_path, "other", OURS | {"seed": 1}, [result_of("e.x")])
    found, notices = resume(tmp_path, OURS)
    assert found is not None and notices == []
    assert [result.model for result in found.contents.results] == ["b.x", "c.x"]
    found.journal.append(result_of("f.x"))
    found.journal.close()
    assert [result.model for result in read_journal(newest).results] == ["b.x", "c.x", "f.x"]


def test_another_identity_is_refused_with_what_differs(tmp_path: Path, result_of: Make) -> None:
    _journal(tmp_path, "other", OURS | {"seed": 1, "timm": "1.0.15"}, [result_of("a.x")])
    with pytest.raises(UsageError, match=r"seed 1, now 0; timm 1\.0\.15, now 1\.0\.31") as caught:
        resume(tmp_path, OURS)
    assert "weights" not in str(caught.value)


def test_an_unfinished_run_that_another_has_followed_is_in_nobodys_way(tmp_path: Path, result_of: Make) -> None:
    _journal(tmp_path, "given-up", OURS | {"timm": "1.0.15"}, [result_of("a.x")])
    _journal(tmp_path, "done", OURS, [result_of("b.x")], finished=True)
    assert resume(tmp_path, OURS) == (None, [])
    found, _ = resume(tmp_path, OURS | {"timm": "1.0.15"})  # with its own settings it still goes on
    assert found is not None
    found.journal.close()


def test_nothing_unfinished_is_nothing_to_resume(tmp_path: Path, result_of: Make) -> None:
    assert resume(tmp_path / "missing", OURS) == (None, [])
    _journal(tmp_path, "done", OURS, [result_of("d.x")], finished=True)
    (tmp_path / "torn.jsonl").write_text('{"journal": 1, "iden')
    (tmp_path / "not.jsonl").write_text("hello\nworld\n")
    runs, passed_over = find_runs(tmp_path)
    assert [path.name for path, _ in runs] == ["done.jsonl"]
    (line,) = passed_over  # one with half a header holds nothing
    assert "not.jsonl is not a journal of embedcore, or is damaged: line 1 has no checksum" in line
    assert resume(tmp_path, OURS) == (None, passed_over)


def test_a_journal_that_is_being_written_is_refused(tmp_path: Path, result_of: Make) -> None:
    with Journal.create(tmp_path / "run.jsonl", {"identity": OURS}) as journal:
        journal.append(result_of("a.x"))
        with pytest.raises(UsageError, match="in use by another process"):
            resume(tmp_path, OURS)
    found, _ = resume(tmp_path, OURS)
    assert found is not None
    found.journal.close()


def test_a_torn_line_is_cut_off_before_more_is_written(tmp_path: Path, result_of: Make) -> None:
    path = _journal(tmp_path, "run", OURS, [result_of("a.x"), result_of("b.x")])
    path.write_bytes(path.read_bytes()[:-7])
    found, _ = resume(tmp_path, OURS)
    assert found is not None
    assert [result.model for result in found.contents.results] == ["a.x"]
    found.journal.append(result_of("c.x"))
    found.journal.close()
    contents = read_journal(path)
    assert [result.model for result in contents.results] == ["a.x", "c.x"]
    assert not contents.torn
    assert not contents.finished


def test_a_damaged_line_is_told_and_its_case_has_no_result(tmp_path: Path, result_of: Make) -> None:
    path = _journal(tmp_path, "run", OURS, [result_of("a.x", acc=0.5), result_of("b.x")], finished=True)
    path.write_bytes(path.read_bytes().replace(b'"acc": 0.5', b'"acc": 0.1', 1))
    found, notices = resume(tmp_path, OURS)
    assert found is not None
    found.journal.close()
    assert [result.model for result in found.contents.results] == ["b.x"]
    assert notices == [f"journal {path}: line 2 does not fit its checksum: measured again"]


def test_differences_name_what_only_one_side_has() -> None:
    assert differences({"a": 1}, {"b": 2}) == ["a 1, now None", "b None, now 2"]
    assert differences(OURS, dict(OURS)) == []
