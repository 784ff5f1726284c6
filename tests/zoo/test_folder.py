from __future__ import annotations

import os

import pytest

from embedcore.errors import WeightsDamaged
from embedcore.zoo.folder import MANIFEST, Entry, find_in_folder, names_in_folder, read_manifest, write_manifest

ENTRY = Entry("a" * 64, 12, "timm/x@c0ffee")


def test_the_tag_goes_before_the_architecture_and_safetensors_before_pickles(tmp_path):
    for name in ("resnet50.pth", "resnet50.safetensors", "resnet50.a1_in1k.bin", "resnet50.a1_in1k.pth"):
        (tmp_path / name).touch()
        assert find_in_folder("resnet50.a1_in1k", tmp_path) == tmp_path / name
    assert find_in_folder("resnet18.a1_in1k", tmp_path) is None
    assert names_in_folder(tmp_path) == {"resnet50", "resnet50.a1_in1k"}


def test_a_link_to_a_file_is_a_file(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"x")
    (tmp_path / "resnet50.pth").symlink_to("elsewhere")
    assert find_in_folder("resnet50.a1_in1k", tmp_path) == tmp_path / "resnet50.pth"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a pipe or a device"),
        (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
        (lambda path: path.symlink_to(path.name), "a link that leads nowhere"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
        (lambda path: path.symlink_to("."), "a folder"),
    ],
    ids=["folder", "fifo", "dangling", "loop", "device", "link-to-folder"],
)
def test_what_is_no_file_is_told_and_never_opened(tmp_path, make, what):
    make(tmp_path / "resnet50.a1_in1k.safetensors")
    with pytest.raises(WeightsDamaged, match=rf"resnet50\.a1_in1k\.safetensors is {what}, not a file of weights"):
        find_in_folder("resnet50.a1_in1k", tmp_path)


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    assert read_manifest(tmp_path) == {}
    write_manifest(tmp_path, {"b.pth": ENTRY, "a.pth": ENTRY})
    assert read_manifest(tmp_path) == {"a.pth": ENTRY, "b.pth": ENTRY}
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_a_planted_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / MANIFEST).symlink_to("precious")
    write_manifest(tmp_path, {"a.pth": ENTRY})
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / MANIFEST).is_symlink()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "files": {}}',
        '{"format": 1, "files": []}',
        '{"format": 1, "files": 5}',
        '{"format": 1, "files": {"a": 1}}',
        '{"format": 1, "files": {"a": {"sha256": "short", "size": 1, "source": ""}}}',
        '{"format": 1, "files": {"\\u001b[31m": {"sha256": 5, "size": 1, "source": ""}}}',
        "[" * 100_000,
        "\xff\xfe",
    ],
)
def test_a_bad_manifest_is_told_in_one_line(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content, encoding="latin-1")
    with pytest.raises(WeightsDamaged, match=r"cannot be read .*delete it and fetch again") as caught:
        read_manifest(tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_a_failed_write_keeps_the_old_manifest(tmp_path, monkeypatch):
    write_manifest(tmp_path, {"a.pth": ENTRY})

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_manifest(tmp_path, {})
    assert read_manifest(tmp_path) == {"a.pth": ENTRY} and len(list(tmp_path.iterdir())) == 1
