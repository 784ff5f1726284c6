from __future__ import annotations

import threading
import time

import pytest

from embedcore.zoo.transfer import StatusError, transfer, within

UNIT = 1 << 14  # with requests, what came after the last whole one is lost where a connection breaks
CONTENT = bytes(range(256)) * 64 * 10


def fetch(hub, path, **options):
    transfer(f"{hub.address}/a", path, **{"stall_seconds": 5.0} | options)
    return path.read_bytes()


@pytest.mark.parametrize("size", [None, len(CONTENT)])
@pytest.mark.parametrize("cuts", [[], [UNIT], [3 * UNIT, UNIT, 4 * UNIT]])
@pytest.mark.parametrize("ranges", [True, False])
def test_the_file_is_whole_however_often_the_connection_breaks(hub_of, tmp_path, size, cuts, ranges):
    if not ranges:
        cuts = sorted(cuts)  # each answer begins at the start: it has to bring more than the last one
    hub = hub_of({"/a": {"content": CONTENT, "cuts": list(cuts), "ranges": ranges}})
    assert fetch(hub, tmp_path / "a", size=size) == CONTENT
    assert len(hub.requests) == len(cuts) + 1


def test_an_earlier_call_is_continued(hub_of, tmp_path):
    hub = hub_of({"/a": {"content": CONTENT, "cuts": [4 * UNIT, 0]}})
    with pytest.raises(Exception, match=r"received 0 bytes|broke off after|IncompleteRead"):
        fetch(hub, tmp_path / "a", size=len(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT[: 4 * UNIT]
    assert fetch(hub, tmp_path / "a", size=len(CONTENT)) == CONTENT
    assert hub.requests == ["GET /a", f"GET /a bytes={4 * UNIT}-", f"GET /a bytes={4 * UNIT}-"]
    assert fetch(hub, tmp_path / "a", size=len(CONTENT)) == CONTENT and len(hub.requests) == 3  # nothing is missing


def test_a_longer_file_than_there_is_begins_anew(hub_of, tmp_path):
    hub = hub_of({"/a": CONTENT})
    for size in (len(CONTENT), None):
        (tmp_path / "a").write_bytes(CONTENT + b"more")
        assert fetch(hub, tmp_path / "a", size=size) == CONTENT


def test_more_than_was_announced_is_refused(hub_of, tmp_path):
    with pytest.raises(StatusError, match=f"{len(CONTENT)} bytes came instead of 100"):
        fetch(hub_of({"/a": CONTENT}), tmp_path / "a", size=100)
    assert not (tmp_path / "a").exists()


def test_a_refusal_is_told(hub_of, tmp_path):
    with pytest.raises(StatusError, match="HTTP status 503"):
        fetch(hub_of({"/a": 503}), tmp_path / "a")


def test_silence_ends_and_what_came_is_kept(hub_of, tmp_path):
    hub = hub_of({"/a": {"content": CONTENT, "stall": 1.0}})
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"nothing came for 0\.3 s"):
        fetch(hub, tmp_path / "a", stall_seconds=0.3)
    assert time.monotonic() - start < 0.9
    time.sleep(1.0)  # the server goes on; the thread that waited must not write any more
    assert (tmp_path / "a").read_bytes() == CONTENT[: len(CONTENT) // 2]


def test_a_link_in_the_place_of_the_file_is_not_followed(hub_of, tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        fetch(hub_of({"/a": CONTENT}), tmp_path / "a")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_progress_counts_what_was_here_before(hub_of, tmp_path):
    (tmp_path / "a").write_bytes(CONTENT[:100])
    reports: list[tuple[int, int | None]] = []
    fetch(hub_of({"/a": CONTENT}), tmp_path / "a", progress=lambda here, size: reports.append((here, size)))
    assert reports[-1] == (len(CONTENT), len(CONTENT)) and all(here >= 0 for here, _ in reports)


def test_within_gives_what_the_function_gives():
    assert within(5.0, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 // 0)
    gate = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        within(0.05, gate.wait)
    gate.set()
