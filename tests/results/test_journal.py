from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import records

from embedcore.errors import UsageError
from embedcore.results.journal import Journal, read_header, read_lines
from embedcore.results.record import Record, read_record
from embedcore.results.result import Result

Make = Callable[..., Result]


def _written(path: Path, results: list[Result]) -> bytes:
    with closing(Journal(path, {"settings": {"protocol": "native"}})) as journal:
        for result in results:
            journal.append(line_of(result))
    return path.read_bytes()


def line_of(result: Result) -> dict[str, object]:
    return result.to_json() | {"test": result.model, "written": 1.0}


def read(path: Path) -> Record:
    return read_record([path])


def results_in(path: Path) -> list[Result]:
    return [entry.result for entry in read(path).entries]


def _sealed(text: bytes) -> bytes:
    return b'%s, "crc32": "%08x"}' % (text[:-1], zlib.crc32(text))


def _results(result_of: Make) -> list[Result]:
    failed = Result.make("b.x", family="vgg", status="error", reason="line\u2028end", detail="Traceback\n  at \x85 …")
    return [result_of("a.x"), failed, result_of("c.x", acc=0.1)]


def test_appended_lines_are_read_back(tmp_path: Path, result_of: Make) -> None:
    results = _results(result_of)
    raw = _written(tmp_path / "new" / "run.jsonl", results)
    path = tmp_path / "new" / "run.jsonl"
    assert results_in(path) == results
    assert read_header(path) == {"journal": 3, "settings": {"protocol": "native"}}
    assert [line for _, line in read_lines(path)] == [line_of(result) for result in results]
    assert len(raw.decode("ascii").splitlines()) == 1 + len(results)


def test_a_line_is_in_the_file_before_the_journal_is_closed(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    with closing(Journal(path, {})) as journal:
        assert results_in(path) == []
        journal.append(line_of(result_of("a.x")))
        assert [result.model for result in results_in(path)] == ["a.x"]


def test_a_file_cut_anywhere_loses_at_most_its_last_line(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    results = _results(result_of)
    raw = _written(path, results)
    header_end = raw.index(b"\n") + 1
    for length in range(header_end, len(raw) + 1):
        path.write_bytes(raw[:length])
        whole = raw[:length].count(b"\n") - 1
        assert results_in(path) == results[:whole]
        Journal(path, {}).close()  # which cuts the torn line off
        assert path.read_bytes() == raw[: raw[:length].rindex(b"\n") + 1]


def test_zeros_that_a_power_cut_left_at_the_end_are_a_torn_line(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    raw = _written(path, _results(result_of))
    path.write_bytes(raw + bytes(4096))
    assert len(results_in(path)) == 3
    Journal(path, {}).close()
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops}", "line 3 has no checksum"),
        (_sealed(b"{oops}"), "line 3 is not JSON"),
        (_sealed(b'{"a": ' + b"[" * 100_000 + b"}"), "line 3 is not JSON"),
        (_sealed(b'{"model": "a.x"}'), "line 3: result of a.x: Object missing required field `family`"),
        (_sealed(b'{"tests": "a.x"}'), "line 3: 'tests' does not map test ids to models"),
        (_sealed(b'{"model": "a.x"}').replace(b"a.x", b"b.x"), "line 3 does not match its checksum"),
        (b"\xff\xfe", "line 3 has no checksum"),
    ],
)
def test_a_damaged_whole_line_is_dropped_and_reported(
    tmp_path: Path, result_of: Make, line: bytes, message: str
) -> None:
    path = tmp_path / "run.jsonl"
    lines = _written(path, _results(result_of)).splitlines(keepends=True)
    lines[2] = line + b"\n"
    path.write_bytes(b"".join(lines))
    assert [result.model for result in results_in(path)] == ["a.x", "c.x"]
    assert read(path).damaged == [message]
    assert not records.finished(read(path))


def test_any_flipped_bit_is_noticed(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    raw = _written(path, [result_of("a.x"), result_of("b.x")])
    begin, end = raw.index(b"\n") + 1, raw.rindex(b"\n", 0, -1)
    for position in range(begin, end):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        assert [result.model for result in results_in(path)] == ["b.x"], position
        assert read(path).damaged


def test_planned_tests_of_the_header_and_of_later_sessions(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    Journal(path, {"settings": {}, "tests": {"t[a]": "a.x", "t[b]": "b.x"}}).close()
    with closing(Journal(path, {"settings": {"other": 1}, "tests": {"t[d]": "d.x"}})) as journal:
        journal.append({"tests": {"t[c]": "c.x", "t[a]": "a.x"}})
    assert read(path).planned == {"t[a]": "a.x", "t[b]": "b.x", "t[c]": "c.x"}
    assert read(path).settings == {}  # the header that is there stays


def test_a_journal_without_a_whole_header_starts_again(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"journal": 3, "set')
    with closing(Journal(path, {"settings": {}})) as journal:
        journal.append(line_of(result_of("a.x")))
    assert [result.model for result in results_in(path)] == ["a.x"]


@pytest.mark.parametrize("written", [0, 10])
def test_a_full_disk_leaves_the_journal_as_it_was(
    tmp_path: Path, result_of: Make, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    path = tmp_path / "run.jsonl"
    write = os.write

    def no_room(descriptor: int, data: bytes) -> int:
        if written and data.startswith(b"{"):
            return write(descriptor, data[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(Journal(path, {})) as journal:
        journal.append(line_of(result_of("a.x")))
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", no_room)
        with pytest.raises(OSError, match="No space"):
            journal.append(line_of(result_of("b.x")))
        assert path.read_bytes() == before
        monkeypatch.undo()
        journal.append(line_of(result_of("c.x")))
    assert [result.model for result in results_in(path)] == ["a.x", "c.x"]


def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", no_room)
    with pytest.raises(UsageError, match=r"run\.jsonl cannot be written: No space"):
        Journal(tmp_path / "run.jsonl", {})
    assert not (tmp_path / "run.jsonl").exists()


@pytest.mark.parametrize(
    "raw", [b"", _sealed(b'{"journal": 3}'), b"{}\n", b'{"journal": 3}\n', _sealed(b'{"journal": 2}') + b"\n"]
)
def test_not_a_journal(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match="is not a journal"):
        read(path)


def test_missing_journal(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.jsonl cannot be read: No such file"):
        read(tmp_path / "run.jsonl")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"journal .*file"):
        Journal(tmp_path / "file" / "run.jsonl", {})


def test_every_line_is_strict_json(tmp_path: Path, result_of: Make) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    raw = _written(
        tmp_path / "run.jsonl", [result_of(gmacs=float("nan"), scores={"acc": 1, "acc5": 1, "x": float("inf")})]
    )
    for line in raw.splitlines():
        json.loads(line, parse_constant=refuse)
