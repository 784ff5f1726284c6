from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

from embedcore.errors import EmbedcoreError, UsageError
from embedcore.forkserver import StartError, forkserver_context, start_surely
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import StoredPixels, open_pixel_store
from embedcore.images.sources import FileSource
from embedcore.images.store_files import blocks_of
from embedcore.images.unfinished_store import UnfinishedStore
from embedcore.images.workers import PixelReader, WrittenBlock, write_blocks

GEOMETRY = Geometry(32, 32, "bicubic", 0.9, "center")


def reader_of(root: Path) -> PixelReader:
    dataset = load_dataset(str(root))
    return PixelReader(dataset.images, dataset.digests, GEOMETRY)


def store_of(path: Path, images: int = 32) -> UnfinishedStore:
    return UnfinishedStore(path, (images, 32, 32, 3))


def workers_of_this_process() -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child.name == "embedcore-pixels"]


def test_workers_make_the_same_store_as_one_process(make_folder, tmp_path: Path) -> None:
    dataset = load_dataset(str(make_folder({"a": 150, "b": 150})))
    seen: list[tuple[int, int]] = []
    stores = [
        open_pixel_store(dataset, GEOMETRY, tmp_path / "two", workers=2, progress=lambda *call: seen.append(call)),
        open_pixel_store(dataset, GEOMETRY, tmp_path / "one", workers=1),
    ]
    assert all(isinstance(store, StoredPixels) for store in stores)
    np.testing.assert_array_equal(stores[0].read(0, 300), stores[1].read(0, 300))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1] == (300, 300)
    assert workers_of_this_process() == []


def test_bad_images_of_all_workers_are_named(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 150, "b": 150})
    dataset = load_dataset(str(root))
    for name in ("a/003.png", "b/055.png"):
        (root / name).write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"(?s)2 of 300 images cannot be read:\n  'a/003\.png': .*'b/055\.png'"):
        open_pixel_store(dataset, GEOMETRY, tmp_path / "cache", workers=2)


def test_a_worker_that_is_killed_is_reported_with_its_images(make_folder, tmp_path: Path) -> None:
    dataset = load_dataset(str(make_folder({"a": 150, "b": 150}, size=(200, 200))))

    def kill(done: int, total: int) -> None:
        for child in workers_of_this_process():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(
        EmbedcoreError, match=r"a worker was killed by SIGKILL while decoding images \d+ to \d+ \('[ab]/"
    ):
        open_pixel_store(dataset, GEOMETRY, tmp_path / "cache", workers=2, progress=kill)
    assert workers_of_this_process() == []
    seen: list[int] = []
    store = open_pixel_store(
        dataset, GEOMETRY, tmp_path / "cache", workers=1, progress=lambda *call: seen.append(call[0])
    )
    assert isinstance(store, StoredPixels) and seen[0] >= 32  # it goes on


def killed_while_it_starts_a_worker() -> threading.Thread:
    """Kill the forkserver when the next worker has been asked of it."""
    victim = forkserver._forkserver._forkserver_pid
    os.kill(victim, signal.SIGSTOP)  # so that a request gets no answer

    def kill() -> None:
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.skipif(sys.platform != "linux", reason="looks into multiprocessing")
def test_the_death_of_the_forkserver_is_survived(make_folder, tmp_path: Path) -> None:
    dataset = load_dataset(str(make_folder({"a": 150, "b": 150})))
    forkserver_context()
    victim = forkserver._forkserver._forkserver_pid
    thread = killed_while_it_starts_a_worker()
    store = open_pixel_store(dataset, GEOMETRY, tmp_path / "cache", workers=2)
    thread.join()
    assert isinstance(store, StoredPixels) and store.shape == (300, 32, 32, 3)
    assert forkserver._forkserver._forkserver_pid != victim
    assert workers_of_this_process() == []


def test_a_start_is_tried_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcore.forkserver._START_PAUSE_S", 0)
    errors: list[Exception] = [EOFError(), ConnectionRefusedError(111, "Connection refused")]

    def start() -> str:
        if errors:
            raise errors.pop(0)
        return "started"

    assert start_surely(start) == "started"
    errors += [EOFError(), EOFError(), BrokenPipeError(32, "Broken pipe"), EOFError()]
    with pytest.raises(StartError, match=r"no child process can be started: BrokenPipeError: .*Broken pipe"):
        start_surely(start)
    assert len(errors) == 1
    errors[:] = [ValueError("no fault of the forkserver")]
    with pytest.raises(ValueError, match="no fault"):
        start_surely(start)


def test_a_failure_inside_a_worker_arrives_with_its_traceback(tmp_path: Path) -> None:
    reader = PixelReader(FileSource(tuple(map(str, range(40))), ""), tuple(map(str, range(40))), None)
    with pytest.raises(
        EmbedcoreError, match=r"(?s)a worker failed while decoding images 0 to 31 .*Traceback.*AttributeError"
    ):
        next(write_blocks(reader, store_of(tmp_path / "rows", 40), [(0, 32)], 1))


class RunsInTheWorker:
    """Runs a statement in each process that unpickles it."""

    def __init__(self, statement: str) -> None:
        self.statement = statement

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (self.statement, {})


SABOTAGE = """
import os, pickle, time
from embedcore.images import workers

class Evil:
    def __reduce__(self):
        return os.mkdir, ({folder!r},)

def send(descriptor, message):
    os.write(descriptor, {sent})
    {then}

workers.write_block = lambda *block: Evil()  # of what multiprocessing's own send makes a pickle
if hasattr(workers, "send"):
    workers.write_block = lambda *block: workers.WrittenBlock(0, 32, ())
    workers.send = send
"""


@pytest.mark.parametrize(
    ("sent", "then", "text"),
    [
        ("pickle.dumps(Evil()) + b'\\n'", "", "sent an invalid message"),
        ("len(pickle.dumps(Evil())).to_bytes(4, 'big') + pickle.dumps(Evil()) + b'\\n'", "", "sent an invalid message"),
        ("b'{}\\n{}\\n'", "", "sent an invalid message"),
        ("b'[]\\n'", "", "sent an invalid message"),
        (
            'b\'{"written": {"start": 0, "stop": 31, "bad": []}}\\n\'',
            "",
            "about another block",
        ),
        ('b\'{"written": {"start": 0, "stop": "x", "bad": []}}\\n\'', "", "sent an invalid message"),
        ('b\'{"written": 3, "unknown": 4}\\n\'', "", "sent an invalid message"),
        ('b\'{"written": {"sta\'', "os._exit(3)", "ended with exit code 3"),
    ],
)
def test_data_from_a_worker_is_not_executed(tmp_path: Path, sent: str, then: str, text: str) -> None:
    code = SABOTAGE.format(folder=str(tmp_path / "was run"), sent=sent, then=then or "pass")
    reader = PixelReader(
        FileSource(tuple(map(str, range(32))), RunsInTheWorker(code)), tuple(map(str, range(32))), GEOMETRY
    )
    with pytest.raises(EmbedcoreError, match=rf"a worker .*{text}"):
        list(write_blocks(reader, store_of(tmp_path / "rows"), [(0, 32)], 1))
    assert not (tmp_path / "was run").exists()
    assert workers_of_this_process() == []


def test_an_answer_in_pieces_is_put_together(tmp_path: Path) -> None:
    whole = '{"written": {"start": 0, "stop": 32, "bad": [["a\\udce9", "empty"]]}}'
    sent = f"{whole[:20]!r}.encode()); time.sleep(0.3); os.write(descriptor, {whole[20:] + chr(10)!r}.encode()"
    code = SABOTAGE.format(folder="", sent=sent, then="pass")
    reader = PixelReader(
        FileSource(tuple(map(str, range(32))), RunsInTheWorker(code)), tuple(map(str, range(32))), GEOMETRY
    )
    (written,) = write_blocks(reader, store_of(tmp_path / "rows"), [(0, 32)], 1)
    assert written == WrittenBlock(0, 32, (("a\udce9", "empty"),))


def test_a_size_that_a_geometry_cannot_scale_fails_that_geometry_alone(make_folder, make_image, tmp_path: Path) -> None:
    root = make_folder({"a": 150, "b": 150})
    make_image(root / "a" / "200.png", size=(2, 400))
    dataset = load_dataset(str(root))
    border = Geometry(64, 64, "bicubic", 1.0, "border", (0, 0, 0))
    for workers in (1, 2):
        with pytest.raises(
            EmbedcoreError, match=r"^image 'a/200.png' of 400 x 2 pixels cannot be scaled .*\n?"
        ) as caught:
            open_pixel_store(dataset, border, tmp_path / "cache", workers=workers)
        assert not isinstance(caught.value, UsageError) and "\n" not in str(caught.value)
    assert isinstance(open_pixel_store(dataset, GEOMETRY, tmp_path / "cache", workers=2), StoredPixels)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_arrives_as_oserror(make_folder) -> None:
    reader = reader_of(make_folder({"a": 40, "b": 40}))
    with pytest.raises(OSError) as caught:
        list(write_blocks(reader, store_of(Path("/dev/full"), 80), blocks_of(80), 2))
    assert caught.value.errno == errno.ENOSPC
    assert workers_of_this_process() == []


def test_a_script_without_a_main_guard_is_not_run_again_in_each_worker(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 150, "b": 150})
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            from pathlib import Path
            from embedcore.images.load_dataset import load_dataset
            from embedcore.images.geometry import Geometry
            from embedcore.images.pixel_store import open_pixel_store

            print("started")
            dataset = load_dataset({str(root)!r})
            geometry = Geometry(32, 32, "bicubic", 0.9, "center")
            store = open_pixel_store(dataset, geometry, Path({str(tmp_path / "cache")!r}), workers=2)
            print(store.shape)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.splitlines() == ["started", "(300, 32, 32, 3)"], done.stderr
