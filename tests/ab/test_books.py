"""The books of a comparison: what is in them is not measured again."""

from __future__ import annotations

import pytest

from embedcore.ab.books import Books
from embedcore.ab.noise import Noise, store_noise, stored_noise
from embedcore.errors import UsageError
from embedcore.results.result import Result

RESULT = Result.make("a.b", family="f", status="ok", scores={"acc": 0.5, "acc5": 0.5}, durations=(1.0, 2.0))
KEY = ("a.b", "A", "{}", 0)


def test_goes_on_with_what_is_there(tmp_path):
    with Books(tmp_path, {"a": 1}) as books:
        books.keep(KEY, RESULT)
    with Books(tmp_path, {"a": 1}) as books:
        assert books.results == {KEY: RESULT}
    with Books(tmp_path, {"a": 2}) as books:
        assert not books.results
    with Books(tmp_path, {"a": 1}, fresh=True) as books:
        assert not books.results


def test_torn_and_damaged_lines_are_measured_again(tmp_path):
    with Books(tmp_path, {}) as books:
        for number in range(3):
            books.keep((*KEY[:3], number), RESULT)
    lines = books.path.read_bytes().splitlines(keepends=True)
    books.path.write_bytes(lines[0] + lines[1] + lines[2].replace(b"a.b", b"a.c", 1) + lines[3][:-20])
    for _ in range(2):
        with Books(tmp_path, {}) as books:
            assert list(books.results) == [KEY]


def test_a_finished_one_starts_anew(tmp_path):
    with Books(tmp_path, {}) as books:
        books.keep(KEY, RESULT)
        books.finish()
    with Books(tmp_path, {}) as books:
        assert not books.results


def test_two_processes_do_not_share_one(tmp_path):
    with Books(tmp_path, {}), pytest.raises(UsageError, match="in use by another process"):
        Books(tmp_path, {})
    with Books(tmp_path, {}):
        pass


def test_noise_is_kept_for_each_machine(tmp_path):
    assert stored_noise(tmp_path, "one") is None
    store_noise(tmp_path, "one", Noise(0.01, 0.02), 24)
    assert stored_noise(tmp_path, "one") == (0.01, 0.02)
    assert stored_noise(tmp_path, "another") is None
    next((tmp_path / "noise").iterdir()).write_text("[]")
    assert stored_noise(tmp_path, "one") is None
