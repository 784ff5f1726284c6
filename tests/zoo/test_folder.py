from __future__ import annotations

import os

import pytest

from embedcore.errors import WeightsDamaged
from embedcore.zoo.folder import find_in_folder, names_in_folder


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
def test_anything_but_a_file_is_reported_and_never_opened(tmp_path, make, what):
    make(tmp_path / "resnet50.a1_in1k.safetensors")
    with pytest.raises(WeightsDamaged, match=rf"resnet50\.a1_in1k\.safetensors is {what}, not a file of weights"):
        find_in_folder("resnet50.a1_in1k", tmp_path)
