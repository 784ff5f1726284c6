"""The index of runs: each journal is read once, and again when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import records

from embedcore.errors import UsageError
from embedcore.files import sealed
from embedcore.results import run_index, runs
from embedcore.results.runs import Resumed, Worker, find_resumable
from embedcore.version import VERSION

HERE = Worker("new")
OTHER = records.IDENTITY | {"seed": 1}


@pytest.fixture
def folder(tmp_path, result_of):
    """An unfinished run, and two finished ones that followed it, one with another identity."""
    for number, (name, identity, planned) in enumerate(
        [
            ("begun", records.IDENTITY, ("a.x", "z.x")),
            ("done", records.IDENTITY, ("a.x",)),
            ("other", OTHER, ("a.x",)),
        ]
    ):
        path = records.journal(tmp_path, name, [result_of("a.x")], planned, identity=identity)
        os.utime(path, (10**9 + number, 10**9 + number))
    return tmp_path


@pytest.fixture
def read(monkeypatch):
    """The names of the journals that are read, by header or in full."""
    seen, header, outline = [], run_index.read_header, runs.outline

    def reading(path):
        seen.append(path.stem)
        return header(path)

    def outlining(paths):
        seen.extend(path.stem for path in paths)
        return outline(paths)

    monkeypatch.setattr(run_index, "read_header", reading)
    monkeypatch.setattr(runs, "outline", outlining)
    return seen


def found(folder, identity=records.IDENTITY):
    resumed, warnings = find_resumable(folder, identity, HERE, ["a.x", "z.x"])
    assert not warnings
    return resumed


def test_a_journal_is_read_once(folder, read):
    begun = Resumed("begun", (folder / "begun.jsonl",), finished=False)
    assert found(folder) == begun
    assert sorted(read) == ["begun", "begun", "done", "done", "other"]
    read.clear()
    assert found(folder) == begun and read == []


def test_a_journal_that_has_changed_is_read_again(folder, read, result_of):
    found(folder)
    record = records.begun(folder, ["a.x", "z.x"], "begun")
    records.keep(record, result_of("z.x"))
    record.close()
    read.clear()
    assert find_resumable(folder, records.IDENTITY, HERE, ["q.x"]) == (None, [])
    assert set(read) == {"begun"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}\n",
        b'{"embedcore": 1, "runs": {"begun": 3}}\n',
        sealed({"other": 1}),
        sealed({"embedcore": VERSION, "runs": {"begun": 3}}),
        None,
    ],
)
def test_a_damaged_index_costs_time_only(folder, read, content):
    before = found(folder)
    path = folder / run_index.FILE
    path.write_bytes(path.read_bytes().replace(b"begun", b"other") if content is None else content)
    read.clear()
    assert found(folder) == before
    assert "begun" in read


def test_a_removed_run_leaves_the_index(folder, read):
    found(folder)
    (folder / "done.jsonl").unlink()
    (folder / "begun.jsonl").touch()
    found(folder)
    assert b'"done"' not in (folder / run_index.FILE).read_bytes()


def test_what_differs_is_named_from_the_index_too(folder, result_of):
    records.journal(folder, "newest", [result_of("a.x")], ("a.x", "z.x"), identity=OTHER)
    for _ in range(2):
        with pytest.raises(UsageError, match="seed 1, now 2"):
            find_resumable(folder, records.IDENTITY | {"seed": 2}, HERE, ["a.x"])


def test_a_folder_that_cannot_be_written_is_read(folder, monkeypatch):
    def full(path):
        raise OSError("no space left on device")

    monkeypatch.setattr(run_index, "written_whole", full)
    assert found(folder) == found(folder) and not (folder / run_index.FILE).exists()


def test_a_missing_folder_stays_missing(tmp_path: Path):
    assert find_resumable(tmp_path / "missing", records.IDENTITY, HERE) == (None, [])
    assert not (tmp_path / "missing").exists()
