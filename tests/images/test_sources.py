from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest

from embedcore.errors import UsageError
from embedcore.images.sources import FileSource, Selection, describe_bad_images, digests_of, select


@pytest.fixture
def source(tmp_path: Path, make_image) -> FileSource:
    paths = tuple(f"{number}.png" for number in range(4))
    for number, path in enumerate(paths):
        make_image(tmp_path / path, seed=number)
    return FileSource(str(tmp_path), paths)


def test_digests_are_those_of_the_files(source: FileSource, tmp_path: Path) -> None:
    expected = [hashlib.sha256((tmp_path / path).read_bytes()).hexdigest() for path in source.paths]
    assert list(digests_of(source)) == expected


def test_all_unreadable_files_are_counted(source: FileSource, tmp_path: Path) -> None:
    (tmp_path / "1.png").unlink()
    (tmp_path / "3.png").unlink()
    (tmp_path / "3.png").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"2 of 4 images cannot be read: '1\.png' \(No such file.*\), '3\.png' \("):
        digests_of(source)


def test_a_selection_is_the_images_in_the_order_asked_for(source: FileSource) -> None:
    chosen = select(source, [2, 0])
    assert isinstance(chosen, Selection) and len(chosen) == 2
    assert [chosen.name(0), chosen.digest(1)] == ["2.png", source.digest(0)]
    assert chosen.load(0).tobytes() == source.load(2).tobytes()
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert select(source, range(4)) is source


def test_a_long_list_of_bad_images_is_cut() -> None:
    line = describe_bad_images([(f"{number}.png", "empty") for number in range(30)], 90)
    assert line.startswith("30 of 90 images") and "and 25 more" in line and len(line) < 300
