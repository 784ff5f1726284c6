from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from embedcore.cli import main
from embedcore.images.ledger import FILE
from embedcore.images.load_dataset import load_dataset


def picture(seed: int, edge: int = 96) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((edge, edge), Image.Resampling.BICUBIC).filter(ImageFilter.DETAIL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images of two classes."""
    root = tmp_path / "photos"
    for number, name in enumerate(("cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number, 40 * (number + 1)).save(root / name)
    return root


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """check(dataset, option, …) returns the exit code, the printed rows by label, and the whole output."""

    def run(dataset: object, *options: object) -> tuple[int, dict[str, str], str]:
        code = main(["check", str(dataset), "--cache", str(tmp_path / "cache"), *map(str, options)])
        printed = capsys.readouterr()
        text = printed.out + printed.err
        rows: dict[str, str] = {}
        label = ""
        for line in text.splitlines():
            label = line[:16].strip() or label
            rows[label] = f"{rows.get(label, '')} {line[16:].strip()}".strip()
        return code, rows, text

    return run


def test_a_clean_dataset(photos: Path, check) -> None:
    code, rows, text = check(photos)
    dataset = load_dataset(str(photos))
    assert code == 0 and text.endswith("Every image can be read.\n")
    assert rows["dataset"] == "'photos'"
    assert rows["found in"] == f"folder {photos}"
    assert rows["fingerprint"] == dataset.fingerprint
    assert rows["images"] == "5, each queries all others (leave-one-out)"
    assert rows["classes"] == "2, of 2 to 3 images (median 2.5)"
    assert rows["lone queries"].startswith("none")
    # three queries have two others of their class, two have one
    assert rows["acc5 ceiling"].startswith(f"{(3 * 2 + 2 * 1) / 5 / 5:.4f}")
    assert rows["chance acc"].startswith(f"{(3 * 2 + 2 * 1) / 5 / 4:.4f}")
    assert rows["duplicates"] == "none" and rows["near-duplicates"].startswith("none")
    assert rows["sizes"] == "shorter side 40 to 200 pixels, median 120"
    bars = {key: value.split() for key, value in rows.items() if re.fullmatch(r"\d+-\d+", key)}
    assert bars == {"32-63": ["1", "#" * 20], "64-127": ["2", "#" * 40], "128-255": ["2", "#" * 40]}
    assert rows["modes"] == "RGB 5" and rows["formats"] == "PNG 5"
    assert "animated" not in rows
    assert all(len(line) <= 80 for line in text.splitlines() if str(photos) not in line)


def test_queries_and_references(photos: Path, check, tmp_path: Path) -> None:
    root = tmp_path / "sides"
    shutil.copytree(photos, root / "query")
    shutil.copytree(photos / "cat", root / "reference" / "cat")
    picture(9).save(root / "reference" / "cat" / "new.png")
    code, rows, _ = check(root)
    assert code == 0
    assert rows["images"] == "9: 5 queries, 4 references"
    assert rows["lone queries"] == "2 without a reference of their class, such as 'dog': not scored"
    assert rows["duplicates"] == (
        "3 exact copies of earlier images: 3 of the same class, 0 of other classes only "
        "3 of 5 queries are exact copies of references, 3 of them in their own class, "
        "which inflates accuracy"
    )
    assert check(root, "--split", "loo")[1]["images"].startswith("9, each")


def test_near_duplicates(photos: Path, check) -> None:
    with Image.open(photos / "cat" / "1.png") as image:
        image.save(photos / "cat" / "again.jpg", quality=80)
        image.resize((77, 77)).save(photos / "dog" / "small.png")
    shutil.copy(photos / "cat" / "2.png", photos / "dog" / "copy.png")
    code, rows, _ = check(photos)
    assert code == 0
    assert rows["duplicates"].startswith("1 exact copy of earlier images: 0 of the same class, 1 of")
    assert "2 of 8 queries are exact copies of other images, all in other classes" in rows["duplicates"]
    assert rows["near-duplicates"].startswith(
        "3 pairs: 1 within a class, 2 across classes (perceptual hashes differ in at most 4 of 64 bits"
    )
    assert "near-duplicates" not in check(photos, "--no-near-duplicates")[1]


def test_near_duplicates_between_the_sides(photos: Path, check) -> None:
    shutil.move(photos, photos.parent / "sides/query")
    root = photos.parent / "sides"
    for file in (root / "query").rglob("*.png"):
        target = root / "reference" / file.relative_to(root / "query").with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.save(target, quality=90)
    rows = check(root)[1]
    assert rows["near-duplicates"].startswith("5 pairs: 5 within a class, 0 across classes, 5 of a query and a ref")


def test_bad_files_are_all_listed_with_reasons(photos: Path, check) -> None:
    for number in range(60):
        (photos / "cat" / f"empty {number:02}.png").touch()
    (photos / "dog" / "gone.png").symlink_to("nowhere")
    deep = "a long folder name " * 4
    (photos / deep).mkdir()
    (photos / deep / "text.png").write_text("hello")
    code, rows, text = check(photos)
    assert code == 1
    assert "62 of 67 images cannot be read (--embed-bad-images skip leaves them out):" in text
    assert text.count("the file is empty") == 60
    assert "  'dog/gone.png': No such file or directory\n" in text
    assert f"  '{deep}/text.png':\n      not an image that Pillow can read\n" in text
    assert rows["images"].startswith("5, ")  # of what can be read


def test_bad_files_are_listed_even_if_no_image_remains(photos: Path, check) -> None:
    for file in photos.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:50])
    code, _, text = check(photos)
    assert code == 1
    assert text.count("'cat/") == 3 and text.count("'dog/") == 2
    assert text.splitlines()[-1].startswith("nothing can be measured: no images are left in folder")


def test_animated_files_and_modes(photos: Path, check) -> None:
    frames = [picture(seed) for seed in range(20, 23)]
    for number in range(12):
        frames[0].save(photos / "dog" / f"moving {number:02}.gif", save_all=True, append_images=frames[1:])
    picture(30).convert("CMYK").save(photos / "dog" / "print.jpg")
    Image.fromarray(np.zeros((9, 900), np.uint16)).save(photos / "dog" / "deep.png")
    code, rows, _ = check(photos)
    assert code == 0
    assert rows["animated"].startswith("12, only first frames are used: 'dog/moving 00.gif', ")
    assert rows["animated"].endswith("'dog/moving 09.gif' and 2 more")
    assert rows["modes"].startswith("P 12, RGB 5, ") or rows["modes"].startswith("RGB 17, ")
    assert "CMYK 1" in rows["modes"] and "I;16 1" in rows["modes"]
    assert rows["formats"] == "GIF 12, PNG 6, JPEG 1"
    assert rows["8-15"].split()[0] == "1" and rows["16-31"] == "0"


def test_a_subset(photos: Path, check) -> None:
    code, rows, _ = check(photos, "--max-per-class", 2, "--seed", 3, "--max-classes", 0)
    assert code == 0 and rows["images"].startswith("4, ")
    assert rows["fingerprint"] == load_dataset(str(photos), max_per_class=2, seed=3).fingerprint


def test_emoji_are_drawn(check) -> None:
    pytest.importorskip("resvg_py")
    code, rows, _ = check("emoji", "--max-classes", 3)
    assert code == 0
    assert rows["formats"].startswith("SVG ") and rows["sizes"].startswith("shorter side 224 to 224 pixels")
    assert "queries" in rows["images"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere/at/all"], "no such folder of images: /nowhere/at/all"),
        ([], "dataset"),
        (["x", "--split", "half"], "unknown split 'half'"),
        (["emoji", "--max-classes", "-3"], "max_classes is -3"),
        (["emoji", "--max-classes", "few"], "invalid int value"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", *arguments, "--cache", str(tmp_path)]) == 4
    assert message in capsys.readouterr().err


def test_one_class_only_is_a_usage_error(photos: Path, check) -> None:
    shutil.rmtree(photos / "dog")
    code, _, text = check(photos)
    assert code == 4 and "only one class, 'cat'" in text


def test_names_cannot_control_the_terminal(photos: Path, check) -> None:
    hostile = f"\x1b[2J\u202e\n{os.fsdecode(bytes([0xE9]))}"
    root = photos.parent / f"p{hostile}"
    photos.rename(root)
    (root / hostile).mkdir()
    frames = [picture(seed) for seed in (1, 2)]
    frames[0].save(root / hostile / f"{hostile}.gif", save_all=True, append_images=frames[1:])
    (root / hostile / f"{hostile}.png").touch()
    (root / hostile / f"{hostile} {'long ' * 30}.png").touch()
    code, rows, text = check(root)
    assert (
        code == 1 and rows["animated"].startswith("1, ") and r"such as '\x1b[2J\u202e\n\udce9'" in rows["lone queries"]
    )
    assert all(line.isprintable() for line in text.splitlines())
    assert r"'\x1b[2J\u202e\n\udce9/\x1b[2J\u202e\n\udce9.png': the file is empty" in text


def test_audit_results_are_kept(photos: Path, check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcore.images.ledger._TICK_NS", -(10**12))
    first = check(photos)
    assert (tmp_path / "cache" / FILE).exists()
    monkeypatch.setattr("embedcore.images.sources.load_preview", lambda *args: pytest.fail("decoded"))
    assert check(photos) == first


def test_progress_is_shown_on_terminals_only(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = {}
    for kind in (Terminal, io.StringIO):
        shown[kind] = kind()
        monkeypatch.setattr("sys.stderr", shown[kind])
        assert main(["check", str(photos), "--cache", str(tmp_path / kind.__name__)]) == 0
    assert "auditing images: " in shown[Terminal].getvalue() and shown[io.StringIO].getvalue() == ""


def test_the_list_is_that_of_a_run(photos: Path, capsysbinary, tmp_path: Path) -> None:
    cache = ["--cache", str(tmp_path / "cache")]
    for options, settings in (
        ([], {}),
        (["--max-per-class", "2", "--seed", "7"], {"max_per_class": 2, "seed": 7}),
        (["--split", "loo", "--max-classes", "2"], {"split": "loo", "max_classes": 2}),
    ):
        assert main(["check", str(photos), "--list", *options, *cache]) == 0
        printed = capsysbinary.readouterr()
        assert printed.out.decode().splitlines() == list(load_dataset(str(photos), **settings).names)
        assert printed.err == b""
    assert (photos / printed.out.decode().splitlines()[0]).is_file()


def test_the_list_leaves_out_and_reports_bad_images_as_a_run_does(photos: Path, capsysbinary, tmp_path: Path) -> None:
    (photos / "cat" / "broken.png").write_bytes(b"not an image")
    assert main(["check", str(photos), "--list", "--cache", str(tmp_path / "cache")]) == 1
    printed = capsysbinary.readouterr()
    assert printed.out.decode().splitlines() == list(load_dataset(str(photos), bad_images="skip").names)
    assert b"broken.png" in printed.err and b"broken.png" not in printed.out


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes")
def test_the_list_has_names_as_their_bytes(photos: Path, capsysbinary, tmp_path: Path) -> None:
    strange = os.fsencode(photos) + b"/cat/\xff.png"
    shutil.copy(photos / "cat" / "1.png", strange)
    assert main(["check", str(photos), "--list", "--cache", str(tmp_path / "cache")]) == 0
    assert b"cat/\xff.png" in capsysbinary.readouterr().out.splitlines()
    os.rename(strange, os.fsencode(photos) + b"/cat/a\nb.png")  # noqa: PTH104
    assert main(["check", str(photos), "--list", "--cache", str(tmp_path / "cache")]) == 4
    assert b"line break" in capsysbinary.readouterr().err
