from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest

from embedcore.images.decode import BadImageError
from embedcore.images.sources import FileSource, describe_bad_images


@pytest.fixture
def source(tmp_path: Path, make_image) -> FileSource:
    paths = tuple(f"{number}.png" for number in range(4))
    for number, path in enumerate(paths):
        make_image(tmp_path / path, seed=number)
    return FileSource(paths, str(tmp_path))


def test_digests_are_those_of_the_files(source: FileSource, tmp_path: Path) -> None:
    expected = [hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() for path in source.items]
    assert [source.digest(index) for index in range(4)] == expected
    assert [source.file(index) for index in range(4)] == [tmp_path / path for path in source.items]


@pytest.mark.parametrize("name", ["device", "folder", "nowhere"])
def test_anything_but_a_file_has_no_digest(tmp_path: Path, name: str) -> None:
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"not a regular file|No such file"):
        FileSource((name,), str(tmp_path)).digest(0)


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_289
    (tmp_path / "x").write_bytes(content)
    assert FileSource(("x",), str(tmp_path)).digest(0) == hashlib.sha256(content).hexdigest()


def test_a_selection_is_the_images_in_the_order_asked_for(source: FileSource) -> None:
    chosen = source.select([2, 0])
    assert len(chosen) == 2
    assert [chosen.name(0), chosen.digest(1), chosen.file(1)] == ["2.png", source.digest(0), source.file(0)]
    assert chosen.load(0).tobytes() == source.load(2).tobytes()
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert source.select(range(4)) is source


def test_with_a_digest_only_that_content_is_loaded(source: FileSource) -> None:
    chosen = source.select([2, 0])
    assert chosen.load(0, source.digest(2)).tobytes() == source.load(2).tobytes()
    with pytest.raises(BadImageError, match=r"'2\.png': its content has changed since the dataset was loaded"):
        chosen.load(0, source.digest(0))


@pytest.mark.parametrize("name", ["device", "folder", "nowhere", "nu\0ll"])
def test_anything_but_a_file_is_a_bad_image(tmp_path: Path, name: str) -> None:
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadImageError, match=r"not a regular file|No such file|null byte"):
        FileSource((name,), str(tmp_path)).load(0)


def test_a_name_or_reason_cannot_control_the_terminal() -> None:
    lines = describe_bad_images([("a/\x1b[2J\n\u202e.png", "empty"), ("\udce9", "gone")], 2).splitlines()
    assert lines == ["2 of 2 images cannot be read:", r"  'a/\x1b[2J\n\u202e.png': empty", r"  '\udce9': gone"]
