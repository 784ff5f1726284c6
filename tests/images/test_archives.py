"""Zip and tar files of folders: what is read from them, and what they cannot do."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from embedcore.commands.cache import choose_to_remove, entries_of
from embedcore.errors import UsageError
from embedcore.images import archives
from embedcore.images.dataset import Dataset
from embedcore.images.load_dataset import load_dataset
from embedcore.images.specification import check_exists
from embedcore.images.store_files import IN_USE, remove_unused

SUFFIXES = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".TGZ"]


def pack(folder: Path, suffix: str, *, inside: str = "") -> Path:
    """Write an archive of a folder's files, below the folder `inside` in it."""
    archive = folder.with_name(f"{folder.name}{suffix}")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            for path in files:
                opened.write(path, inside + path.relative_to(folder).as_posix())
    else:
        kind = {".tar": "", ".tgz": "gz"}.get(suffix.lower(), suffix.rpartition(".")[2])
        with tarfile.open(archive, f"w:{kind}") as opened:
            for path in files:
                opened.add(path, inside + path.relative_to(folder).as_posix())
    return archive


@pytest.fixture
def load(tmp_path: Path):
    return lambda archive, **options: load_dataset(archive, cache_dir=tmp_path / "cache", **options)


@pytest.fixture
def root(make_folder) -> Path:
    return make_folder({"cat": 3, "dog": 2})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("inside", ["", "photos/", "a/b/"])
def test_an_archive_is_read_as_the_folder_in_it(root: Path, load, suffix: str, inside: str) -> None:
    archive = pack(root, suffix, inside=inside)
    check_exists(str(archive))
    dataset: Dataset = load(str(archive))
    expected = load_dataset(root)
    assert (dataset.fingerprint, dataset.names, dataset.name) == (expected.fingerprint, expected.names, "photos")
    assert load(archive).fingerprint == expected.fingerprint


def test_splits_metadata_and_folders_of_systems_work(root: Path, load, make_image) -> None:
    for number, side in enumerate(("train", "val") * 2):
        make_image(root.parent / "sides" / side / "ab"[number // 2] / f"{number}.png", seed=number)
    (root.parent / "sides" / "__MACOSX").mkdir()
    (root.parent / "sides" / "__MACOSX" / "._0.png").write_bytes(b"x")
    archive = pack(root.parent / "sides", ".zip")
    assert load(archive).is_query.sum() == 2 and load(archive, split="val:train").is_query.sum() == 2
    for number in range(4):
        make_image(root.parent / "flat" / f"{number}.png", seed=number)
    rows = "".join(f"{number}.png,{'ab'[number // 2]}\n" for number in range(4))
    (root.parent / "flat" / "metadata.csv").write_text(f"file_name,label\n{rows}")
    assert load(pack(root.parent / "flat", ".tgz")).classes == ("a", "b")


def test_it_is_unpacked_once_and_by_content(root: Path, load, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(root, ".zip")
    load(archive)
    os.utime(archive, (0, 0))
    monkeypatch.setattr(archives, "_unpack", lambda *paths: pytest.fail("unpacked again"))
    assert len(load(archive)) == 5
    monkeypatch.undo()
    (root / "cat" / "000.png").unlink()
    pack(root, ".zip")
    assert len(load(archive)) == 4


def test_an_interrupted_unpacking_starts_again(root: Path, load, tmp_path: Path, monkeypatch) -> None:
    archive = pack(root, ".tar")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            load(archive)
    (folder,) = {path.name.removesuffix(".lock") for path in (tmp_path / "cache" / "archives").iterdir()}
    killed = tmp_path / "cache" / "archives" / f"{folder}.partial"
    killed.mkdir()
    (killed / "rest.png").touch()
    assert len(load(archive)) == 5 and not killed.exists()


def zip_with(path: Path, name: str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(name, content)
    return path


def tar_with(path: Path, name: str, **fields: object) -> Path:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    with tarfile.open(path, "w") as opened:
        opened.addfile(member, io.BytesIO(b"x" * member.size))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: zip_with(path / "x.zip", "../out.png"), "'../out.png' would be outside of its folder"),
        (lambda path: zip_with(path / "x.zip", "/out.png"), "'/out.png' would be outside"),
        (lambda path: zip_with(path / "x.zip", "a/../../out.png"), "would be outside"),
        (lambda path: tar_with(path / "x.tar", "../out.png", size=1), "outside"),
        (lambda path: tar_with(path / "x.tar", "a", type=tarfile.SYMTYPE, linkname="../.."), "outside"),
        (lambda path: tar_with(path / "x.tar", "a", type=tarfile.SYMTYPE, linkname="/etc"), "absolute"),
        (lambda path: tar_with(path / "x.tar", "a", type=tarfile.CHRTYPE), "special file"),
    ],
)
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, load, make, message: str) -> None:
    archive = make(tmp_path)
    with pytest.raises(UsageError, match=f"x.(zip|tar) cannot be unpacked: .*{message}") as caught:
        load(archive)
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.rglob("out.png")] and not [path for path in tmp_path.rglob("archives/*") if path.is_dir()]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_bomb_is_stopped_by_the_free_space(root: Path, load, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    (root / "cat" / "zeros.png").write_bytes(bytes(10**6))
    archive = pack(root, suffix)
    monkeypatch.setattr(archives, "free_bytes", lambda folder: archives.SPARE_BYTES + 10**6)
    with pytest.raises(UsageError, match=r"cannot be unpacked: its files take more than the 1\.00 MB that may be used"):
        load(archive)
    monkeypatch.setattr(archives, "free_bytes", lambda folder: archives.SPARE_BYTES + 2 * 10**6)
    assert len(load(archive, bad_images="skip")) == 5


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize("damage", ["empty", "half", "text", "noise"])
def test_a_damaged_archive_is_one_line(root: Path, load, suffix: str, damage: str) -> None:
    archive = pack(root, suffix)
    content = archive.read_bytes()
    half = content[: len(content) // 2]
    archive.write_bytes({"empty": b"", "half": half, "text": b"404 Not Found", "noise": os.urandom(4000)}[damage])
    with pytest.raises(UsageError, match=r"cannot be unpacked|no images under") as caught:
        load(archive)
    assert "\n" not in str(caught.value)


def test_an_archive_without_images_and_a_missing_one(tmp_path: Path, load) -> None:
    with pytest.raises(UsageError, match=r"no images under .*x\.zip"):
        load(zip_with(tmp_path / "x.zip", "notes.txt"))
    with pytest.raises(
        UsageError, match=r"no such folder of images: .*gone\.zip; a dataset is emoji, .* a zip or tar file of one"
    ):
        load(str(tmp_path / "gone.zip"))


def test_the_cache_command_lists_and_removes_it(root: Path, load, tmp_path: Path) -> None:
    load(pack(root, ".zip"))
    (entry,) = [entry for entry in entries_of(tmp_path / "cache") if entry.kind == "archive"]
    assert entry.name == "photos.zip" and entry.bytes > 1000 and entry.can_be_recreated
    assert entry in choose_to_remove([entry], entry.used + 10, older_than_s=5)
    assert remove_unused(entry.files, entry.locks) == IN_USE
    os.close(archives._held.pop(entry.files[0]))
    assert remove_unused(entry.files, entry.locks) == "" and not entry.files[0].exists()
