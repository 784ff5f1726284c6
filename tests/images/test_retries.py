"""Temporary errors are retried, and never reported as a damaged image or a changed dataset."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from embedcore.cli import main
from embedcore.errors import EmbedcoreError, UsageError
from embedcore.images import audit, folders, pixel_store, retries
from embedcore.images.dataset import Dataset
from embedcore.images.decode import ImageUnavailable
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import StoredPixels, open_pixel_store
from embedcore.images.sources import FileSource
from embedcore.images.thumbnails import thumbnails
from embedcore.images.workers import PixelReader

GEOMETRY = Geometry(16, 16, "bicubic", 0.9, "center")
OTHER = Geometry(20, 20, "bicubic", 0.9, "center")

PASSING: dict[str, Exception] = {
    **{
        name: OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        for name in ("EIO", "EMFILE", "ENFILE", "ESTALE", "EINTR", "ENOMEM", "ETIMEDOUT")
    },
    "MemoryError": MemoryError(),
}
LASTING = {
    "EACCES": PermissionError(errno.EACCES, "Permission denied"),
    "ENOENT": FileNotFoundError(errno.ENOENT, "No such file"),
    "damaged": OSError("image file is truncated"),
    "ValueError": ValueError("no"),
}


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The recorded pauses; none is waited for."""
    taken: list[float] = []
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=taken.append))
    return taken


@pytest.fixture
def root(make_folder) -> Path:
    return make_folder({"a": 3, "b": 3})


@pytest.fixture
def dataset(root: Path) -> Dataset:
    return load_dataset(str(root))


class Fault:
    """Makes calls of a method fail a number of times for the second image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
        self.left, self.error = 0, Exception()
        original = getattr(owner, method)

        def failing(source: FileSource, index: int, *arguments: object) -> object:
            if self.left and index == 1:
                self.left -= 1
                raise self.error
            return original(source, index, *arguments)

        monkeypatch.setattr(owner, method, failing)

    def fail(self, error: Exception, times: int) -> None:
        self.left, self.error = times, error


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> Fault:
    """Faults while the bytes of an image are read."""
    return Fault(monkeypatch, FileSource, "content")


def raised_by(action: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


@pytest.mark.parametrize("name", PASSING)
def test_temporary_errors_are_retried(name: str, naps: list[float]) -> None:
    errors = [PASSING[name]] * 3

    def action() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert retries.retried(action) == "done" and naps == list(retries.PAUSES_S)


@pytest.mark.parametrize("name", PASSING)
def test_permanent_errors_are_raised_after_four_tries(name: str, naps: list[float]) -> None:
    tried = []

    def action() -> None:
        tried.append(1)
        raise PASSING[name]

    assert raised_by(lambda: retries.retried(action)) is PASSING[name] and len(tried) == 4


@pytest.mark.parametrize("name", LASTING)
def test_other_errors_are_raised_at_once(name: str, naps: list[float]) -> None:
    def action() -> None:
        raise LASTING[name]

    assert raised_by(lambda: retries.retried(action)) is LASTING[name] and naps == []


@pytest.mark.parametrize("name", PASSING)
def test_pixels_survive_temporary_errors(name: str, dataset: Dataset, content: Fault, naps: list[float]) -> None:
    reader = PixelReader(dataset.images, dataset.digests, GEOMETRY)
    right = reader.pixels(1)
    content.fail(PASSING[name], 3)
    np.testing.assert_array_equal(reader.pixels(1), right)
    assert content.left == 0 and len(naps) == 3


@pytest.mark.parametrize("name", PASSING)
def test_a_lasting_error_fails_one_geometry_and_not_the_next(
    name: str, dataset: Dataset, content: Fault, naps: list[float], tmp_path: Path
) -> None:
    content.fail(PASSING[name], 4)
    error = raised_by(lambda: open_pixel_store(dataset, GEOMETRY, tmp_path / "cache"))
    assert isinstance(error, ImageUnavailable) and not isinstance(error, UsageError) and error.status == "error"
    assert str(error).startswith("image 'a/001.png' could not be read in 4 tries: ")
    assert "\n" not in str(error) and "damaged" not in str(error)
    assert isinstance(open_pixel_store(dataset, OTHER, tmp_path / "cache"), StoredPixels)


def test_a_damaged_image_still_ends_the_session(
    root: Path, dataset: Dataset, naps: list[float], tmp_path: Path
) -> None:
    (root / "a" / "001.png").write_bytes(b"no image")
    assert isinstance(raised_by(lambda: open_pixel_store(dataset, GEOMETRY, tmp_path / "cache")), UsageError)
    assert naps == []


def test_too_little_memory_to_scale_fails_the_case(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    monkeypatch.setattr(Geometry, "transform", lambda self: lambda image: raise_memory_error())
    error = raised_by(lambda: PixelReader(dataset.images, dataset.digests, GEOMETRY).pixels(1))
    assert isinstance(error, ImageUnavailable) and error.reason == "MemoryError" and len(naps) == 3


def raise_memory_error() -> None:
    raise MemoryError


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("times", [3, 4])
def test_the_audit_does_not_report_sound_images_as_damaged(
    name: str, times: int, root: Path, content: Fault, naps: list[float]
) -> None:
    sound = load_dataset(str(root)).fingerprint
    content.fail(PASSING[name], times)
    if times == 3:
        assert load_dataset(str(root), bad_images="skip").fingerprint == sound
        return
    error = raised_by(lambda: load_dataset(str(root), bad_images="skip"))  # not left out silently
    assert isinstance(error, ImageUnavailable) and "'a/001.png'" in str(error)


@pytest.mark.parametrize("name", PASSING)
def test_the_audit_tries_again_to_read_a_digest(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    sound = load_dataset(str(root)).fingerprint
    errors = [PASSING[name]] * 3
    original = audit.stamp_of
    monkeypatch.setattr(audit, "stamp_of", lambda path: raise_next(errors) if errors else original(path))
    assert load_dataset(str(root)).fingerprint == sound
    errors += [PASSING[name]] * 100
    error = raised_by(lambda: load_dataset(str(root), bad_images="skip"))
    assert isinstance(error, ImageUnavailable)


def raise_next(errors: list[Exception]) -> None:
    raise errors.pop()


def test_check_reports_a_transient_error_in_one_line(
    root: Path, content: Fault, naps: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content.fail(PASSING["EIO"], 4)
    assert main(["check", str(root), "--cache", str(tmp_path / "cache")]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("embedcore: image 'a/001.png' could not be read in 4 tries: Input/output error; the image")


def test_a_lost_file_server_is_waited_for_once(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    monkeypatch.setattr(FileSource, "content", lambda source, index: raise_next([PASSING["ESTALE"]]))
    assert list(thumbnails(dataset, [0] * 200)) == []
    assert len(naps) <= 3 * 8  # of the running threads


def test_a_folder_that_cannot_be_listed_for_a_moment(
    root: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    errors, original = [PASSING["ESTALE"]] * 3, os.scandir

    def scandir(path: object) -> object:
        if errors:
            raise errors.pop()
        return original(path)

    monkeypatch.setattr(folders.os, "scandir", scandir)
    assert len(folders.scan_folder(root, split="auto").source) == 6 and not errors


def test_a_sound_store_that_cannot_be_read_now_is_not_built_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_pixel_store(dataset, GEOMETRY, tmp_path / "cache")
    assert isinstance(store, StoredPixels)
    before = store.path.stat()
    pixel_store._sound_files.clear()

    def checksums(*file: object) -> list[int]:
        raise PASSING["EIO"]

    with monkeypatch.context() as patched:
        patched.setattr(pixel_store, "checksums_of", checksums)
        error = raised_by(lambda: open_pixel_store(dataset, GEOMETRY, tmp_path / "cache"))
    assert isinstance(error, EmbedcoreError) and not isinstance(error, UsageError)
    assert "cannot be written or read now: Input/output error" in str(error)
    open_pixel_store(dataset, GEOMETRY, tmp_path / "cache")
    assert store.path.stat() == before


def test_too_many_open_files_pass_when_others_close_theirs(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PixelReader(dataset.images, dataset.digests, GEOMETRY)
    right = reader.pixels(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow = [1]

    def sleep(seconds: float) -> None:
        allow.clear()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=sleep))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        pixels = reader.pixels(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    np.testing.assert_array_equal(pixels, right)
    assert not allow  # the limit was reached


def test_an_image_in_memory_meets_the_same_rule(naps: list[float]) -> None:
    images = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in range(4)]
    loaded = load_dataset(images, ["a", "a", "b", "b"])
    errors = [MemoryError()] * 3
    original = Image.Image.convert

    def convert(image: Image.Image, *arguments: object) -> Image.Image:
        if errors:
            raise errors.pop()
        return original(image, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Image.Image, "convert", convert)
        assert loaded.images.load(2, loaded.digests[2]).getpixel((0, 0)) == (2, 0, 0)
    assert not errors and len(naps) == 3
