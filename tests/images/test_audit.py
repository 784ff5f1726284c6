from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from embedcore.errors import UsageError
from embedcore.images import audit as audit_module
from embedcore.images import ledger as ledger_module
from embedcore.images.audit import audit
from embedcore.images.dataset import load_dataset
from embedcore.images.ledger import FILE
from embedcore.images.sources import FileSource

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")


def source_of(*paths: Path) -> FileSource:
    return FileSource("/", tuple(str(path) for path in paths))


class CountingSource(FileSource):
    """Remembers which images were read and decoded."""

    read: ClassVar[list[int]] = []
    decoded: ClassVar[list[int]] = []

    def digest(self, index: int) -> str:
        self.read.append(index)
        return super().digest(index)

    def preview(self, index: int):
        self.decoded.append(index)
        return super().preview(index)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CountingSource]]:
    """Folders are read through this class; its lists begin empty."""
    monkeypatch.setattr("embedcore.images.folders.FileSource", CountingSource)
    CountingSource.read, CountingSource.decoded = [], []
    return CountingSource


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files changed a moment ago count as old enough for their stamp to be relied upon."""
    monkeypatch.setattr(audit_module, "_TICK_NS", -(10**12))


def test_each_of_40_damaged_files_is_bad_with_one_plain_line(damaged_file) -> None:
    (finding,) = audit(source_of(damaged_file.path))
    assert finding.facts is None
    assert re.search(damaged_file.reason, finding.reason), finding.reason
    assert finding.reason.isprintable() and str(damaged_file.path) not in finding.reason


def test_all_of_them_are_named_at_once(make_folder, damage_all) -> None:
    root = make_folder({"a": 3, "b": 3})
    reasons = damage_all(root / "a")
    assert len(reasons) >= 40
    with pytest.raises(UsageError) as caught:
        load_dataset(str(root))
    head, *lines = str(caught.value).splitlines()
    assert head == f"{len(reasons)} of {len(reasons) + 6} images of folder {root} cannot be read:"
    assert len(lines) == len(reasons)
    for name, reason in reasons.items():
        assert any(re.fullmatch(rf"  'a/{re.escape(name)}': .*({reason}).*", line) for line in lines), name


def test_all_of_them_are_left_out_if_asked(make_folder, damage_all, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    sound = load_dataset(str(root))
    reasons = damage_all(root / "a")
    dataset = load_dataset(str(root), bad_images="skip", cache_dir=tmp_path / "cache")
    assert dataset.fingerprint == sound.fingerprint and len(dataset.images) == 6
    assert {name for name, _ in dataset.skipped} == {f"a/{name}" for name in reasons}
    assert sound.skipped == ()
    assert [dataset.images.name(index) for index in range(6)] == [sound.images.name(index) for index in range(6)]


def test_a_long_list_is_whole(make_folder) -> None:
    root = make_folder({"a": 1, "b": 2})
    for number in range(70):
        (root / "a" / f"{number:02}.gif").touch()
    with pytest.raises(UsageError) as caught:
        load_dataset(str(root))
    lines = str(caught.value).splitlines()
    assert lines[1:] == [f"  'a/{number:02}.gif': the file is empty" for number in range(70)]


def test_a_class_all_of_whose_images_are_bad_vanishes(make_folder) -> None:
    root = make_folder({"a": 2, "b": 2, "c": 1})
    (root / "c" / "000.png").write_bytes(b"")
    assert load_dataset(str(root), bad_images="skip").classes == ("a", "b")
    for name in ("000.png", "001.png"):
        (root / "b" / name).write_bytes(b"")
    with pytest.raises(UsageError, match=r"one class only is left of folder .*photos, 3 bad images left out"):
        load_dataset(str(root), bad_images="skip")
    for name in ("000.png", "001.png"):
        (root / "a" / name).write_bytes(b"")
    with pytest.raises(UsageError, match=r"no images are left in folder .*photos, 5 bad images left out"):
        load_dataset(str(root), bad_images="skip")


def test_another_value_of_bad_images(make_folder) -> None:
    with pytest.raises(UsageError, match="bad_images is 'ignore': one of fail, skip"):
        load_dataset(str(make_folder({"a": 2, "b": 2})), bad_images="ignore")


def test_missing_files_of_a_csv_are_bad_images(make_folder) -> None:
    root = make_folder({"a": 2, "b": 2})
    rows = ["a/000.png,a", "a/001.png,a", "a/9.png,a", "b/000.png,b", "b/001.png,b", "b/x\0y.png,b"]
    (root / "list.csv").write_text("path,label\n" + "\n".join(rows))
    try:
        dataset = load_dataset(f"csv:{root / 'list.csv'}", bad_images="skip")
    except UsageError as error:  # Python 3.10's csv reads no NUL
        assert "line contains NUL" in str(error)
        return
    assert len(dataset) == 4
    assert dict(dataset.skipped) == {
        "a/9.png": "No such file or directory",
        "b/x\0y.png": "ValueError: embedded null byte",
    }


def test_facts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (5, 7)).save(tmp_path / "print.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (5, 7)).save(tmp_path / "turned.png", exif=exif)
    found = audit(source_of(*(tmp_path / name for name in ("moving.gif", "pages.tif", "print.jpg", "turned.png"))))
    facts = [finding.facts for finding in found]
    assert [(fact.width, fact.height) for fact in facts] == [(6, 4), (6, 4), (5, 7), (7, 5)]
    assert [fact.mode for fact in facts] == ["P", "RGB", "CMYK", "L"]
    assert [fact.format for fact in facts] == ["GIF", "TIFF", "JPEG", "PNG"]
    assert [fact.animated for fact in facts] == [True, False, False, False]


def test_an_animation_cut_after_its_first_frame_is_good(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 40), np.uint8)) for n in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content[: len(content) * 3 // 5])
    (finding,) = audit(source_of(tmp_path / "a.gif"))
    assert finding.reason == "" and finding.facts.animated


@pytest.mark.filterwarnings("error")
def test_warnings_made_errors_do_not_stop_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*args: object) -> None:
        warnings.warn("half of it is missing", stacklevel=2)

    Image.new("L", (100, 100)).save(tmp_path / "odd.png")
    monkeypatch.setattr(PngImageFile, "load_end", warn)
    (finding,) = audit(source_of(tmp_path / "odd.png"))
    assert finding.reason == "UserWarning: half of it is missing"


def test_strange_names_load_and_are_fingerprinted(tmp_path: Path, make_image) -> None:
    strange = [
        "with space",
        "new\nline",
        "emoji \N{SLIGHTLY SMILING FACE}",
        os.fsdecode(b"latin-\xe9"),
        "\x1b[31mred",
        "-",
    ]
    root = tmp_path / "photos"
    for seed, name in enumerate(strange):
        make_image(root / name / f"{name} 1.png", seed=seed)
        make_image(root / name / f"{name} 2.png", seed=100 + seed)
        (root / name / f"{name} bad.png").touch()
    dataset = load_dataset(str(root), bad_images="skip", cache_dir=tmp_path / "cache")
    assert set(dataset.classes) == set(strange) and len(dataset) == 2 * len(strange)
    assert {name for name, _ in dataset.skipped} == {f"{name}/{name} bad.png" for name in strange}
    assert load_dataset(str(root), bad_images="skip", cache_dir=tmp_path / "cache").fingerprint == dataset.fingerprint
    with pytest.raises(UsageError) as caught:
        load_dataset(str(root))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + len(strange) and all(line.isprintable() for line in lines)


def test_4000_classes_in_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "many"
    for number in range(4000):
        folder = root / f"class {number}"
        folder.mkdir(parents=True)
        for image in range(2):
            (folder / f"{image}.ppm").write_bytes(b"P6 1 1 255\n" + (2 * number + image).to_bytes(3, "big"))
    (root / "class 7" / "bad.ppm").write_bytes(b"P6 1")
    dataset = load_dataset(str(root), bad_images="skip")
    assert len(dataset.classes) == 4000 and len(dataset) == len(set(dataset.digests)) == 8000
    assert [name for name, _ in dataset.skipped] == ["class 7/bad.ppm"]
    assert dataset.summary()["lone_queries"] == 0 and dataset.changed() is None


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """What follows runs without root's right to read everything."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError as error:
        pytest.skip(f"root that cannot become another user: {error}")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter, which tmp_path is not."""
    with tempfile.TemporaryDirectory(prefix="embedcore-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def forbidden(public_folder: Path, make_image) -> Path:
    """A folder of two classes in which one file may not be read."""
    for number, name in enumerate(("a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png")):
        make_image(public_folder / "photos" / name, seed=number)
    load_dataset(str(public_folder / "photos"))  # imports what it needs while it may
    (public_folder / "photos" / "b" / "2.png").chmod(0)
    return public_folder / "photos"


def test_a_file_without_permission_is_bad(forbidden: Path, as_nobody: None) -> None:
    with pytest.raises(UsageError, match=r"1 of 5 images .*:\n  'b/2\.png': Permission denied$"):
        load_dataset(str(forbidden))
    dataset = load_dataset(str(forbidden), bad_images="skip")
    assert dataset.skipped == (("b/2.png", "Permission denied"),) and len(dataset) == 4


def test_a_known_digest_does_not_hide_a_missing_permission(
    public_folder: Path, make_image, settled: None, request: pytest.FixtureRequest
) -> None:
    root = public_folder / "photos"
    for number, name in enumerate(("a/1.png", "a/2.png", "b/1.png", "b/2.png")):
        make_image(root / name, seed=number)
    (root / "b" / "2.png").chmod(0)
    if os.geteuid() == 0:  # root can read it, and notes its digest in a ledger that others use too
        load_dataset(str(root), cache_dir=public_folder / "cache")
    request.getfixturevalue("as_nobody")
    with pytest.raises(UsageError, match=r"'b/2\.png': Permission denied"):
        load_dataset(str(root), cache_dir=public_folder / "cache")


# The ledger.


def test_an_unchanged_dataset_is_not_looked_at_again(make_folder, tmp_path: Path, looked_at, settled: None) -> None:
    root = make_folder({"a": 4, "b": 4})
    first = load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert sorted(looked_at.read) == sorted(looked_at.decoded) == list(range(8))
    looked_at.read.clear()
    looked_at.decoded.clear()
    again = load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert again.fingerprint == first.fingerprint
    assert looked_at.read == looked_at.decoded == []


def test_a_changed_file_is_read_and_decoded_alone(
    make_folder, make_image, tmp_path: Path, looked_at, settled: None
) -> None:
    root = make_folder({"a": 4, "b": 4})
    first = load_dataset(str(root), cache_dir=tmp_path / "cache")
    looked_at.read.clear()
    looked_at.decoded.clear()
    make_image(root / "a" / "002.png", seed=99)
    again = load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert looked_at.read == looked_at.decoded == [2]
    assert [one == other for one, other in zip(first.digests, again.digests, strict=True)].count(False) == 1
    assert again.fingerprint == load_dataset(str(root)).fingerprint != first.fingerprint


def test_content_changed_behind_an_old_time_is_noticed(make_folder, tmp_path: Path, settled: None) -> None:
    root = make_folder({"a": 2, "b": 2})
    file = root / "a" / "000.png"
    first = load_dataset(str(root), cache_dir=tmp_path / "cache")
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # in the checksum of the end mark, which no decoder looks at
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load_dataset(str(root), cache_dir=tmp_path / "cache").fingerprint != first.fingerprint


def test_files_changed_a_moment_ago_are_not_relied_upon(make_folder, tmp_path: Path, looked_at) -> None:
    root = make_folder({"a": 2, "b": 2})
    for _ in range(2):
        looked_at.read.clear()
        load_dataset(str(root), cache_dir=tmp_path / "cache")
        assert len(looked_at.read) == 4  # within one tick of the clock a change would leave no trace
    assert len(looked_at.decoded) == 4  # but what a content decodes to does not change


def test_equal_content_is_decoded_once(make_folder, tmp_path: Path, looked_at) -> None:
    root = make_folder({"a": 2, "b": 2})
    for number in range(5):
        (root / "b" / f"copy {number}.png").write_bytes((root / "a" / "000.png").read_bytes())
        (root / "b" / f"empty {number}.png").touch()
    dataset = load_dataset(str(root), bad_images="skip")
    assert len(looked_at.decoded) == 5
    assert len(dataset) == 9 and len(dataset.skipped) == 5


def test_bad_images_are_looked_at_again(make_folder, tmp_path: Path, looked_at, settled: None) -> None:
    root = make_folder({"a": 2, "b": 2})
    (root / "a" / "bad.png").write_bytes(b"no image")
    for _ in range(2):
        looked_at.decoded.clear()
        assert len(load_dataset(str(root), bad_images="skip", cache_dir=tmp_path / "cache").skipped) == 1
    assert looked_at.decoded == [2]


def test_another_decoder_decodes_again(
    make_folder, tmp_path: Path, looked_at, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"a": 2, "b": 2})
    load_dataset(str(root), cache_dir=tmp_path / "cache")
    monkeypatch.setattr("embedcore.images.sources.pillow_decoder", lambda: "Pillow 99")
    load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert len(looked_at.decoded) == 8 and len(looked_at.read) == 4


def test_an_interrupted_audit_goes_on_where_it_was(
    make_folder, tmp_path: Path, looked_at, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "CHUNK", 4)
    root = make_folder({"a": 6, "b": 6})

    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset(str(root), cache_dir=tmp_path / "cache", progress=interrupt)
    looked_at.decoded.clear()
    seen: list[tuple[int, int]] = []
    load_dataset(str(root), cache_dir=tmp_path / "cache", progress=lambda *call: seen.append(call))
    assert sorted(looked_at.decoded) == list(range(4, 12))
    assert seen[-1] == (12, 12) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_several_audits_share_a_ledger(make_folder, tmp_path: Path, settled: None, looked_at) -> None:
    root = make_folder({"a": 6, "b": 6})
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load_dataset(str(root), cache_dir=tmp_path / "cache"), range(8)))
    assert len({dataset.fingerprint for dataset in loaded}) == 1
    looked_at.read.clear()
    load_dataset(str(root), cache_dir=tmp_path / "cache")
    assert looked_at.read == []


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2000:] = np.random.default_rng(0).bytes(len(content) - 2000)
    path.write_bytes(content)


def edit_rows(path: Path) -> None:
    """Digests of other content, as sound as a database goes."""
    with sqlite3.connect(path) as database:
        for key, row in database.execute("SELECT path, row FROM files").fetchall():
            database.execute("UPDATE files SET row = ? WHERE path = ?", (row.replace(b'"', b'"0')[:-3] + b'"]', key))
    database.close()


def odd_rows(path: Path) -> None:
    """Rows with the right checksum and nothing that is a row."""
    with sqlite3.connect(path) as database:
        for (key,) in database.execute("SELECT path FROM files").fetchall():
            row = b'{"a": [1]}'
            checksum = ledger_module._checksum(key, row)
            database.execute("UPDATE files SET row = ?, checksum = ? WHERE path = ?", (row, checksum, key))
    database.close()


def other_tables(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE files")
    database.close()


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "not a database": lambda path: path.write_bytes(b"x" * 5000),
    "truncated": truncate,
    "scribbled over": scribble,
    "edited": edit_rows,
    "odd rows": odd_rows,
    "no table": other_tables,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_ledger_costs_time_only(make_folder, tmp_path: Path, looked_at, settled: None, kind: str) -> None:
    root = make_folder({"a": 6, "b": 6})
    cache = tmp_path / "cache"
    first = load_dataset(str(root), cache_dir=cache)
    DAMAGES[kind](cache / FILE)
    assert load_dataset(str(root), cache_dir=cache).fingerprint == first.fingerprint
    if kind != "a folder":
        looked_at.read.clear()
        looked_at.decoded.clear()
        assert load_dataset(str(root), cache_dir=cache).fingerprint == first.fingerprint
        assert looked_at.read == looked_at.decoded == []  # it was mended


def test_a_cache_that_cannot_be_written_costs_time_only(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 2, "b": 2})
    (tmp_path / "file").touch()
    assert len(load_dataset(str(root), cache_dir=tmp_path / "file" / "cache")) == 4
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.joinpath(FILE + ".lock").mkdir()
    assert len(load_dataset(str(root), cache_dir=cache)) == 4


def test_a_trusted_source_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcore.images.emoji.render_svg", lambda *args: pytest.fail("drawn"))
    assert len(load_dataset("emoji", max_classes=4, cache_dir=tmp_path)) >= 8
