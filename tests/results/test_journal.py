from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from embedcore.errors import UsageError
from embedcore.results.journal import Journal, read_journal
from embedcore.results.result import Result

Make = Callable[..., Result]


def _written(path: Path, results: list[Result]) -> bytes:
    with closing(
        Journal(path, {"settings": {"protocol": "native", "cache": Path("c"), "nan": float("nan")}})
    ) as journal:
        for result in results:
            journal.append(result)
    return path.read_bytes()


def _sealed(text: bytes) -> bytes:
    return b'%s, "crc32": "%08x"}' % (text[:-1], zlib.crc32(text))


def _results(result_of: Make) -> list[Result]:
    failed = Result.make("b.x", family="vgg", status="error", reason="line\u2028end", detail="Traceback\n  at \x85 …")
    return [result_of("a.x"), failed, result_of("c.x", acc=0.1)]


def test_what_was_appended_is_read_back(tmp_path: Path, result_of: Make) -> None:
    results = _results(result_of)
    raw = _written(tmp_path / "new" / "run.jsonl", results)
    contents = read_journal(tmp_path / "new" / "run.jsonl")
    assert contents.results == tuple(results)
    assert contents.header == {"journal": 2, "settings": {"protocol": "native", "cache": "c", "nan": None}}
    assert contents.whole_bytes == len(raw)
    assert len(raw.decode("ascii").splitlines()) == 1 + len(results)


def test_a_line_is_in_the_file_before_the_journal_is_closed(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    with closing(Journal(path, {})) as journal:
        assert read_journal(path).results == ()
        journal.append(result_of("a.x"))
        assert [result.model for result in read_journal(path).results] == ["a.x"]


def test_a_file_cut_anywhere_loses_at_most_its_last_line(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    results = _results(result_of)
    raw = _written(path, results)
    header_end = raw.index(b"\n") + 1
    for length in range(header_end, len(raw) + 1):
        path.write_bytes(raw[:length])
        contents = read_journal(path)
        whole = raw[:length].count(b"\n") - 1
        assert contents.results == tuple(results[:whole])
        assert contents.whole_bytes == raw[:length].rindex(b"\n") + 1


def test_zeros_that_a_power_cut_left_at_the_end_are_a_torn_line(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    raw = _written(path, _results(result_of))
    path.write_bytes(raw + bytes(4096))
    contents = read_journal(path)
    assert len(contents.results) == 3
    assert contents.whole_bytes == len(raw)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops}", "line 3 has no checksum"),
        (_sealed(b"{oops}"), "line 3 is not JSON"),
        (_sealed(b'{"a": ' + b"[" * 100_000 + b"}"), "line 3 is not JSON"),
        (_sealed(b'{"model": "a.x"}'), "line 3: result of a.x: Object missing required field `family`"),
        (_sealed(b'{"models": "a.x"}'), "line 3 has something else than names for its tests"),
        (_sealed(b'{"model": "a.x"}').replace(b"a.x", b"b.x"), "line 3 does not fit its checksum"),
        (b"\xff\xfe", "line 3 has no checksum"),
    ],
)
def test_a_damaged_whole_line_is_dropped_and_told(tmp_path: Path, result_of: Make, line: bytes, message: str) -> None:
    path = tmp_path / "run.jsonl"
    lines = _written(path, _results(result_of)).splitlines(keepends=True)
    lines[2] = line + b"\n"
    path.write_bytes(b"".join(lines))
    contents = read_journal(path)
    assert [result.model for result in contents.results] == ["a.x", "c.x"]
    assert contents.damaged == (message,)
    assert not contents.finished


def test_any_flipped_bit_is_noticed(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    raw = _written(path, [result_of("a.x"), result_of("b.x")])
    begin, end = raw.index(b"\n") + 1, raw.rindex(b"\n", 0, -1)
    for position in range(begin, end):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        contents = read_journal(path)
        assert [result.model for result in contents.results] == ["b.x"], position
        assert contents.damaged


def test_planned_tests_of_the_header_and_of_later_sessions(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    Journal(path, {"settings": {}}, planned={"t[a]": "a.x", "t[b]": "b.x"}).close()
    Journal(path, {"settings": {"other": 1}}, planned={"t[c]": "c.x", "t[a]": "a.x"}).close()
    contents = read_journal(path)
    assert contents.planned == {"t[a]": "a.x", "t[b]": "b.x", "t[c]": "c.x"}
    assert contents.models == ("a.x", "b.x", "c.x")
    assert contents.header == {"journal": 2, "settings": {}}


def test_a_journal_without_a_whole_header_is_begun_anew(tmp_path: Path, result_of: Make) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"journal": 2, "set')
    with closing(Journal(path, {"settings": {}})) as journal:
        journal.append(result_of("a.x"))
    assert [result.model for result in read_journal(path).results] == ["a.x"]


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
        journal.append(result_of("a.x"))
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", no_room)
        with pytest.raises(OSError, match="No space"):
            journal.append(result_of("b.x"))
        assert path.read_bytes() == before
        monkeypatch.undo()
        journal.append(result_of("c.x"))
    assert [result.model for result in read_journal(path).results] == ["a.x", "c.x"]


def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", no_room)
    with pytest.raises(UsageError, match=r"run\.jsonl cannot be written: No space"):
        Journal(tmp_path / "run.jsonl", {})
    assert not (tmp_path / "run.jsonl").exists()


@pytest.mark.parametrize(
    "raw", [b"", _sealed(b'{"journal": 2}'), b"{}\n", b'{"journal": 2}\n', _sealed(b'{"journal": 1}') + b"\n"]
)
def test_not_a_journal(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match="is not a journal"):
        read_journal(path)


def test_missing_journal(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.jsonl cannot be read: No such file"):
        read_journal(tmp_path / "run.jsonl")


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
