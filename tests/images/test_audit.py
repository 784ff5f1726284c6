from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from embedcore.errors import UsageError
from embedcore.images.audit import audit
from embedcore.images.load_dataset import load_dataset
from embedcore.images.sources import FileSource

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")


def source_of(*paths: Path) -> FileSource:
    return FileSource(tuple(str(path) for path in paths), "/")


def test_each_of_40_damaged_files_is_bad_with_one_plain_line(damaged_file) -> None:
    (finding,) = audit(source_of(damaged_file.path))
    assert finding.facts is None
    assert re.search(damaged_file.reason, finding.reason), finding.reason
    assert finding.reason.isprintable() and str(damaged_file.path) not in finding.reason


def test_all_bad_images_are_named_at_once(make_folder, damage_all) -> None:
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


def test_all_bad_images_are_left_out_on_request(make_folder, damage_all, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    sound = load_dataset(str(root))
    reasons = damage_all(root / "a")
    dataset = load_dataset(str(root), bad_images="skip", cache_dir=tmp_path / "cache")
    assert dataset.fingerprint == sound.fingerprint and len(dataset.images) == 6
    assert {name for name, _ in dataset.skipped} == {f"a/{name}" for name in reasons}
    assert sound.skipped == ()
    assert [dataset.images.name(index) for index in range(6)] == [sound.images.name(index) for index in range(6)]


def test_a_long_list_is_complete(make_folder) -> None:
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
    with pytest.raises(UsageError, match=r"only one class is left of folder .*photos, 3 bad images left out"):
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
    rows = ["a/000.png,a", "a/001.png,a", "a/9.png,a", "b/000.png,b", "b/001.png,b"]
    (root / "list.csv").write_text("path,label\n" + "\n".join(rows))
    dataset = load_dataset(f"csv:{root / 'list.csv'}", bad_images="skip")
    assert len(dataset) == 4
    assert dict(dataset.skipped) == {"a/9.png": "No such file or directory"}


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
    assert dataset.summary()["lone_queries"] == 0


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Run the block without root's right to read everything."""
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
    """A folder that every user may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="embedcore-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def forbidden(public_folder: Path, make_image) -> Path:
    """A folder of two classes in which one file may not be read."""
    for number, name in enumerate(("a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png")):
        make_image(public_folder / "photos" / name, seed=number)
    load_dataset(str(public_folder / "photos"))  # imports modules while they are readable
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
