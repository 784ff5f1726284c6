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
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedcore.cli import main
from embedcore.commands.cache import entries_of
from embedcore.files import PARTIAL
from embedcore.forkserver import forkserver_context
from embedcore.images import pixel_store, unfinished_store
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import StoredPixels, StreamedPixels, open_pixel_store
from embedcore.images.store_files import hold
from embedcore.images.unfinished_store import created, taken_over
from embedcore.images.workers import PixelReader

GEOMETRY = Geometry(40, 40, "bicubic", 0.9, "center")

# Run in a child. `stall` names where it stops and reports it, until it is killed.
BUILD = textwrap.dedent("""
    import time
    from embedcore.images import pixel_store
    from embedcore.images.pixel_store import open_pixel_store
    from embedcore.images.workers import PixelReader

    calls = []

    def stop(*args, **kwargs):
        connection.send("stalled")
        time.sleep(600)

    def progress(done, total):
        calls.append(done)
        if (stall == "blocks" and done > 64) or (stall == "whole" and done == total):
            stop()
        time.sleep(pause)

    if stall.endswith(".png"):
        pixels = PixelReader.pixels
        PixelReader.pixels = lambda self, row: stop() if self.source.name(row) == stall else pixels(self, row)
    elif stall not in ("", "blocks", "whole"):
        setattr(pixel_store, stall, stop)
    connection.send("started")
    store = open_pixel_store(dataset, geometry, cache, workers=workers, progress=progress)
    connection.send((len(calls), store.read(0, len(store)).sum()))
""")

STALLS = {
    "while blocks are written": "blocks",
    "when all is written": "whole",
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


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that this process decodes."""
    names: list[str] = []
    pixels = PixelReader.pixels

    def counting(reader: PixelReader, row: int) -> np.ndarray:
        names.append(reader.source.name(row))
        return pixels(reader, row)

    monkeypatch.setattr(PixelReader, "pixels", counting)
    return names


def killed_halfway(build, cache: Path, image: str = "b/010.png") -> Path:
    """Kill a process that decodes an image, by default of the third of four blocks; return the file that it leaves."""
    child, connection = build(stall=image)
    assert connection.recv() == "stalled"
    child.kill()
    child.join()
    (partial,) = (cache / "pixels").glob(f"*{PARTIAL}")
    return partial


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(("complete", "reports"), [(64, [64, 96, 120]), (96, [96, 120])])
def test_a_killed_build_goes_on(
    build, dataset: Dataset, cache: Path, decoded: list[str], complete: int, reports: list[int]
) -> None:
    killed_halfway(build, cache, dataset.names[complete + 10])
    store, made = opened(dataset, cache)
    assert made == reports and decoded == [*dataset.names[complete:]]
    assert_whole_and_alone(store, dataset)


@pytest.mark.parametrize(
    "place", [200, 40 * 40 * 3 * 40, -4 * 8 + 2], ids=["first block", "second block", "first note"]
)
def test_a_damaged_block_is_decoded_again(build, dataset: Dataset, cache: Path, decoded: list[str], place: int) -> None:
    flip(killed_halfway(build, cache), place)
    store, made = opened(dataset, cache)
    again = dataset.names[32:64] if place > 10**5 else dataset.names[:32]
    assert sorted(decoded) == sorted([*again, *dataset.names[64:]]) and made[-1] == 120
    assert_whole_and_alone(store, dataset)


def test_an_interrupted_build_goes_on(dataset: Dataset, cache: Path, decoded: list[str]) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_pixel_store(dataset, GEOMETRY, cache, workers=1, progress=interrupt)
    store, made = opened(dataset, cache)
    assert made[0] >= 32 and {*decoded} == {*dataset.names}
    assert_whole_and_alone(store, dataset)


def test_what_is_left_of_other_pixels_is_not_used(build, dataset: Dataset, cache: Path, decoded: list[str]) -> None:
    partial = killed_halfway(build, cache)
    other = Geometry(40, 40, "bilinear", 0.9, "center")
    path = open_pixel_store(dataset, other, cache).path
    assert len(decoded) == 120 and partial.exists()
    decoded.clear()
    path.unlink()
    partial.rename(path.with_name(f"{path.name}.1-ab{PARTIAL}")).write_bytes(b"x" * 1000)
    assert isinstance(open_pixel_store(dataset, other, cache), StoredPixels) and len(decoded) == 120
    assert not [*path.parent.glob(f"*{PARTIAL}")]


def test_a_worker_cannot_write_into_a_file_that_was_taken_over(tmp_path: Path) -> None:
    path, rows = tmp_path / "x.npy", np.ones((32, 2, 2, 3), np.uint8)
    old = created(path, (40, 2, 2, 3))
    old.write(0, rows)
    new = taken_over(path, old.shape)
    assert new is not None and new.path != old.path
    with pytest.raises(FileNotFoundError):
        old.write(32, rows[:8])
    assert new.checksums().keys() == {0}
    new.write(32, rows[:8])
    new.finish(path)
    assert np.array_equal(np.load(path), np.ones((40, 2, 2, 3))) and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("ends", [True, False])
def test_a_worker_that_is_writing_is_waited_for(tmp_path: Path, ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npy"
    held = hold(created(path, (40, 2, 2, 3)).path)
    monkeypatch.setattr(unfinished_store, "_LONGEST_WRITE_S", 20.0 if ends else 0.1)
    timer = threading.Timer(0.3 if ends else 0.6, os.close, [held])
    timer.start()
    assert (taken_over(path, (40, 2, 2, 3)) is not None) == ends
    timer.join()
    assert len([*tmp_path.iterdir()]) == ends


def test_the_room_that_an_unfinished_store_has_is_not_needed_again(build, dataset: Dataset, cache: Path) -> None:
    killed_halfway(build, cache)
    with pytest.warns(RuntimeWarning, match="within the limit"):
        open_pixel_store(dataset, GEOMETRY, cache, limit=120 * 40 * 40 * 3)
    assert not [*(cache / "pixels").glob(f"*{PARTIAL}")]
    killed_halfway(build, cache)
    assert isinstance(open_pixel_store(dataset, GEOMETRY, cache, limit=120 * 40 * 40 * 3 + 10_000), StoredPixels)


def test_the_cache_command_tells_how_far_it_is(build, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    partial = killed_halfway(build, cache)
    (entry,) = (entry for entry in entries_of(cache) if entry.kind == "pixels")
    assert entry.name == "(unfinished: 50%) 40x40-center0.9-bicubic" and entry.can_be_recreated
    assert entry.bytes <= partial.stat().st_blocks * 512
    assert main(["cache", "prune", "--all", "--cache", str(cache)]) == 0
    assert not partial.exists() and "removed: pixels (unfinished: 50%)" in capsys.readouterr().out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, bytes, Path]:
    """A dataset of three blocks, the file of its store, and the store's path."""
    folder = tmp_path_factory.mktemp("small")
    for number in range(70):
        path = folder / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((9, 9), 50 + number).convert("RGB").save(path)
    dataset = load_dataset(str(folder / "photos"))
    store = open_pixel_store(dataset, Geometry(4, 4, "bicubic", 0.9, "center"), folder / "cache", workers=1)
    assert isinstance(store, StoredPixels)
    return dataset, store.path.read_bytes(), store.path


@settings(max_examples=40, deadline=None)
@given(
    complete=st.sets(st.integers(0, 2)),
    flips=st.lists(st.tuples(st.integers(0, 3600), st.integers(1, 255)), max_size=3),
    cut=st.none() | st.integers(0, 3600),
)
def test_whatever_a_killed_process_leaves_gives_the_same_store(
    small: tuple[Dataset, bytes, Path], complete: set[int], flips: list[tuple[int, int]], cut: int | None
) -> None:
    dataset, whole, path = small
    path.unlink(missing_ok=True)
    left = created(path, (70, 4, 4, 3))
    rows = np.frombuffer(whole[-70 * 48 :], np.uint8).reshape(70, 4, 4, 3)
    for block in complete:
        left.write(32 * block, rows[32 * block : 32 * block + 32])
    content = bytearray(left.path.read_bytes())
    for place, change in flips:
        content[place % len(content)] ^= change
    left.path.write_bytes(content[:cut])
    store = open_pixel_store(dataset, Geometry(4, 4, "bicubic", 0.9, "center"), path.parents[1], workers=1)
    assert isinstance(store, StoredPixels) and store.path.read_bytes() == whole


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
