"""The page of `--embed-report` while the session runs."""

from __future__ import annotations

import errno
import json
import re
from types import SimpleNamespace

import pytest

from embedcore.plugin import pages
from embedcore.report import report_folder as files

INLINE = "--embed-isolation=none"


class Clock:
    """A clock that is set by hand and advances at each reading."""

    now = step = 0.0

    def read(self):
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pages.LivePage, "_now", staticmethod(clock.read))
    return clock


def test_the_page_is_there_in_the_middle_marked_unfinished_and_finished_at_the_end(run, clock, monkeypatch):
    clock.step = pages.EVERY_S
    written, put = [], files.put

    def kept(directory, contents):
        put(directory, contents)
        written.append((directory / "index.html").read_text(encoding="utf-8"))

    monkeypatch.setattr(files, "put", kept)
    run(INLINE, "--embed-report=report", "--embed-order=roster", "-k", "test_vit or test_resnet").assert_outcomes(
        passed=2
    )
    first, *_, last = written
    assert 'data-reload="60"' in first and '<noscript><meta http-equiv="refresh" content="60">' in first
    assert "This run is in progress: 1 of 2 cases are done; 1 case left" in first
    assert [row["model"] for row in models(first)] == ["test_resnet.r160_in1k"]
    assert 'href="leaderboard.md"' not in first  # which does not exist yet
    assert "<title>50\u00a0% · images: " in first
    assert "data-reload" not in last and "in progress" not in last and 'http-equiv="refresh"' not in last
    assert len(models(last)) == 2 and 'href="leaderboard.md"' in last


def models(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["models"]


def test_a_stopped_run_shows_its_progress(project, run):
    (project.path / "conftest.py").write_text(
        "def pytest_runtest_teardown(item):\n    item.session.shouldstop = 'now'\n"
    )
    run(INLINE, "--embed-report=report", "--embed-order=roster")
    page = (project.path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Not finished: 1 of 3 cases are done." in page and "data-reload" not in page


class Session:
    """A fake session in which a case reports every second; writing a page takes a number of seconds."""

    def __init__(self, clock, monkeypatch, *, takes=0.0, error=None):
        self.clock, self.output, self.written = clock, [], []
        self.takes, self.error = takes, error
        self.page = pages.LivePage("report", SimpleNamespace(results={"f00d": {}}), self.output.append)
        monkeypatch.setattr(pages, "write_page", self.write)

    def write(self, folder, record, reload_s):
        self.written.append(self.clock.now)
        self.clock.now += self.takes
        if self.error is not None:
            raise self.error

    def run(self, seconds):
        while self.clock.now < seconds:
            self.clock.now += 1
            self.page.update()
        return self


def test_the_page_is_written_at_most_once_a_minute_and_not_in_the_first(clock, monkeypatch):
    assert Session(clock, monkeypatch).run(59).written == []
    clock.now = 0
    assert Session(clock, monkeypatch).run(200).written == [60, 120, 180]


@pytest.mark.parametrize("takes", [0.5, 3, 30])
def test_updates_take_at_most_a_fiftieth_of_the_time(clock, monkeypatch, takes):
    session = Session(clock, monkeypatch, takes=takes).run(20_000)
    assert len(session.written) >= 2
    gaps = [later - first - takes for first, later in zip(session.written, session.written[1:], strict=False)]
    assert all(max(60, 50 * takes) <= gap <= max(60, 50 * takes) + 1 for gap in gaps)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "report/index.html"),
            "report/index.html: No space left on device",
        ),
        (RuntimeError("drawing failed"), "RuntimeError: drawing failed"),
    ],
)
def test_a_failed_update_is_reported_once_and_the_run_continues(clock, monkeypatch, error, reason):
    session = Session(clock, monkeypatch, error=error).run(400)
    assert len(session.written) == 6, "it is tried again: a disk may have room later"
    (output,) = session.output
    assert "could not be updated; the run continues" in output and output.endswith(reason)
