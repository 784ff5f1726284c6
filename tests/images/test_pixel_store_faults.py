"""Pixel stores with killed processes, concurrent processes and a full disk, all real."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from embedcore.files import PARTIAL
from embedcore.forkserver import forkserver_context
from embedcore.images import pixel_store
from embedcore.images.dataset import Dataset, load_dataset
from embedcore.images.geometry import Geometry
from embedcore.images.pixel_store import StoredPixels, StreamedPixels, open_pixel_store

GEOMETRY = Geometry(40, 40, "bicubic", 0.9, "center")

# Run in a child. `stall` names where it stops and reports it, until it is killed.
BUILD = textwrap.dedent("""
    import time
    from embedcore.images import pixel_store
    from embedcore.images.pixel_store import open_pixel_store

    calls = []

    def stop(*args, **kwargs):
        connection.send("stalled")
        time.sleep(600)

    def progress(done, total):
        calls.append(done)
        if stall == "blocks" and done > 64:
            stop()
        time.sleep(pause)

    if stall not in ("", "blocks"):
        setattr(pixel_store, stall, stop)
    connection.send("started")
    store = open_pixel_store(dataset, geometry, cache, workers=workers, progress=progress)
    connection.send((len(calls), store.read(0, len(store)).sum()))
""")

STALLS = {
    "while blocks are written": "blocks",
    "when all is written": "checksums_of",
    "before the sidecar has its name": "sealed",
    "at the end": "identity_of",
}


@pytest.fixture
def dataset(make_folder) -> Dataset:
    return load_dataset(str(make_folder({"a": 60, "b": 60}, size=(37, 51))))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def build(dataset: Dataset, cache: Path) -> Iterator[Callable[..., tuple[BaseProcess, Connection]]]:
    """build(stall="", pause=0.0) starts a process that opens the store; returns it and its connection."""
    started: list[BaseProcess] = []

    def start(
        *, stall: str = "", pause: float = 0.0, workers: int = 1, of: Dataset = dataset
    ) -> tuple[BaseProcess, Connection]:
        ours, theirs = multiprocessing.Pipe()
        names = {
            "dataset": of,
            "geometry": GEOMETRY,
            "cache": cache,
            "connection": theirs,
            "stall": stall,
            "pause": pause,
            "workers": workers,
        }
        child = forkserver_context().Process(target=exec, args=(BUILD, names))
        child.start()
        started.append(child)
        assert ours.recv() == "started"
        return child, ours

    yield start
    for child in started:
        child.kill()
        child.join()


def right(dataset: Dataset) -> np.ndarray:
    return np.stack([GEOMETRY.transform()(dataset.images.load(index)) for index in range(len(dataset))])


def opened(dataset: Dataset, cache: Path) -> tuple[StoredPixels, list[int]]:
    made: list[int] = []
    store = open_pixel_store(dataset, GEOMETRY, cache, workers=1, progress=lambda done, total: made.append(done))
    assert isinstance(store, StoredPixels)
    return store, made


def assert_whole_and_alone(store: StoredPixels, dataset: Dataset) -> None:
    np.testing.assert_array_equal(store.pixels, right(dataset))
    name = store.path.name
    assert {file.name for file in store.path.parent.iterdir()} == {name, name[:-4] + ".json", name + ".lock"}


@pytest.mark.parametrize("stall", STALLS)
def test_a_process_killed_while_building_leaves_nothing_half(build, dataset: Dataset, cache: Path, stall: str) -> None:
    child, connection = build(stall=STALLS[stall])
    assert connection.recv() == "stalled"
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    store, made = opened(dataset, cache)
    assert (made == []) == (stall == "at the end")
    assert_whole_and_alone(store, dataset)


def test_a_process_killed_at_any_moment_leaves_nothing_half(build, dataset: Dataset, cache: Path) -> None:
    rng = random.Random(0)
    for _ in range(12):
        child, _ = build(pause=0.03)
        time.sleep(rng.uniform(0, 0.25))
        child.kill()  # SIGKILL, unless it has just ended
        child.join()
        store, _ = opened(dataset, cache)
        assert_whole_and_alone(store, dataset)
        shutil.rmtree(cache)


def test_workers_of_a_killed_process_write_into_no_other_store(make_folder, cache: Path, build) -> None:
    dataset = load_dataset(str(make_folder({"a": 200, "b": 200}, root="more", size=(37, 51))))
    child, connection = build(stall="blocks", workers=2, of=dataset)
    assert connection.recv() == "stalled"
    assert [file.suffix for file in (cache / "pixels").iterdir()].count(PARTIAL) == 1
    os.kill(child.pid, signal.SIGKILL)  # its workers are decoding blocks
    store, made = opened(dataset, cache)
    assert made[-1] == 400
    assert_whole_and_alone(store, dataset)


def test_processes_at_once_share_one_build(build, dataset: Dataset, cache: Path) -> None:
    builders = [build(pause=0.1) for _ in range(3)]
    answers = [connection.recv() for _, connection in builders]
    assert sorted(calls for calls, _ in answers) == [0, 0, 4]  # 120 images are 4 blocks
    assert {total for _, total in answers} == {right(dataset).sum()}


def test_a_process_that_waits_for_a_killed_build_builds(build, dataset: Dataset, cache: Path) -> None:
    child, connection = build(stall="blocks")
    assert connection.recv() == "stalled"
    found: list[tuple[StoredPixels, list[int]]] = []
    waiter = threading.Thread(target=lambda: found.append(opened(dataset, cache)))
    waiter.start()
    time.sleep(0.3)
    assert waiter.is_alive() and not found
    child.kill()
    waiter.join(60)
    ((store, made),) = found
    assert made[-1] == 120
    assert_whole_and_alone(store, dataset)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("known_before", [True, False], ids=["known before", "met while writing"])
def test_a_full_disk_streams(
    dataset: Dataset, tiny_disk: Path, known_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known_before:  # as when others fill it meanwhile
        monkeypatch.setattr(pixel_store.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**9))
    with pytest.warns(RuntimeWarning, match="no room for a pixel store"):
        store = open_pixel_store(dataset, GEOMETRY, tiny_disk, workers=1)
    assert isinstance(store, StreamedPixels)
    np.testing.assert_array_equal(store.read(0, 120), right(dataset))
    assert [file.suffix for file in (tiny_disk / "pixels").iterdir()] == [".lock"]


def test_a_disk_that_has_room_again_stores_again(dataset: Dataset, tiny_disk: Path) -> None:
    (tiny_disk / "other").write_bytes(bytes(200_000))
    few = load_dataset(str(Path(dataset.images.root)), max_per_class=12)
    with pytest.warns(RuntimeWarning, match="no room"):
        assert isinstance(open_pixel_store(few, GEOMETRY, tiny_disk), StreamedPixels)
    (tiny_disk / "other").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(open_pixel_store(few, GEOMETRY, tiny_disk), StoredPixels)


def test_a_full_disk_keeps_no_ledger(dataset: Dataset, tiny_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (tiny_disk / "other").write_bytes(bytes(400_000))
    again = load_dataset(str(Path(dataset.images.root)), cache_dir=tiny_disk)
    assert again.fingerprint == dataset.fingerprint
