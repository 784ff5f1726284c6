from __future__ import annotations

import argparse
import hashlib
import pickle
import time

import pytest
from huggingface_hub import constants

from embedcore.errors import WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.zoo import hub as hub_
from embedcore.zoo import remote as remote_
from embedcore.zoo.hub import Hub
from embedcore.zoo.remote import RemoteFile, find_cached

REMOTE = RemoteFile("timm/a_model.a_tag", None, ("model.safetensors", "pytorch_model.bin"))
PATH = "/timm/a_model.a_tag/resolve/main/"
pytestmark = pytest.mark.usefixtures("caches")


def test_a_refused_connection_is_noticed_once_for_all_models(closed_port):
    hub = Hub(closed_port)
    reason = hub.why_unreachable(REMOTE)
    assert reason is not None and closed_port.removeprefix("http://") in reason
    left = hub.budget_seconds
    assert hub.why_unreachable(RemoteFile("timm/other", None, ("model.safetensors",))) == reason
    assert hub.budget_seconds == left  # no second probe


def test_a_silent_host_costs_its_deadline_once(silent_server):
    address, listener = silent_server
    hub = Hub(address, probe_seconds=0.3)
    start = time.monotonic()
    reason = hub.why_unreachable(REMOTE)
    assert reason is not None and "cannot be reached" in reason
    assert time.monotonic() - start > 0.2
    listener.settimeout(1.0)
    listener.accept()[0].close()  # it was really asked …
    hub.why_unreachable(REMOTE)
    listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listener.accept()  # … and only once


def test_many_silent_hosts_share_one_budget(silent_server, closed_port):
    hub = Hub(silent_server[0], probe_seconds=0.3, budget_seconds=0.2)
    assert hub.why_unreachable(REMOTE) is not None
    assert hub.budget_seconds <= 0.0
    assert "not tried" in (hub.why_unreachable(RemoteFile(url=f"{closed_port}/a.pth")) or "")


def test_a_child_process_is_told_the_state(closed_port, silent_server):
    hub = Hub(closed_port)
    reason = hub.why_unreachable(REMOTE)
    child: Hub = pickle.loads(pickle.dumps(hub))
    assert child.why_unreachable(REMOTE) == reason and child.budget_seconds == hub.budget_seconds


def test_a_hub_that_answers_is_not_asked_for_every_model(fake_hub):
    address, requests = fake_hub({})
    hub = Hub(address)
    assert [hub.why_unreachable(REMOTE) for _ in range(3)] == [None] * 3
    assert requests == ["HEAD /"]


def test_a_hub_in_trouble_counts_as_unreachable(fake_hub):
    address, _ = fake_hub({"/": 503})
    assert "503" in (Hub(address).why_unreachable(REMOTE) or "")


def test_offline_mode_is_respected(monkeypatch, fake_hub):
    address, requests = fake_hub({})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Hub(address).why_unreachable(REMOTE) == "HF_HUB_OFFLINE is set"
    assert requests == []


def test_download_takes_safetensors_and_fills_the_cache(fake_hub, monkeypatch):
    address, _ = fake_hub({f"{PATH}model.safetensors": b"safe", f"{PATH}pytorch_model.bin": b"pickle"})
    path = Hub(address).download("a_model.a_tag", REMOTE)
    assert path.read_bytes() == b"safe"
    monkeypatch.setattr(remote_, "remote_file", lambda model: REMOTE)
    assert find_cached("a_model.a_tag") == path


def test_download_falls_back_to_the_pickle(fake_hub):
    address, requests = fake_hub({f"{PATH}pytorch_model.bin": b"pickle"})
    assert Hub(address).download("a_model.a_tag", REMOTE).read_bytes() == b"pickle"
    assert any("model.safetensors" in request for request in requests)


def test_a_gated_repository_says_what_to_accept_where(fake_hub):
    address, _ = fake_hub({f"{PATH}model.safetensors": 403})
    with pytest.raises(WeightsGated, match=r"accept the terms at http://127.*/timm/a_model\.a_tag.*log in"):
        Hub(address).download("a_model.a_tag", REMOTE)


def test_a_repository_without_weights_is_told(fake_hub):
    address, _ = fake_hub({})
    with pytest.raises(WeightsUnavailable, match=r"no model\.safetensors nor pytorch_model\.bin"):
        Hub(address).download("a_model.a_tag", REMOTE)


def test_download_by_url_lands_in_torchs_cache(fake_hub, monkeypatch):
    address, _ = fake_hub({"/weights/a-12345678.pth": b"content"})
    remote = RemoteFile(url=f"{address}/weights/a-12345678.pth")
    path = Hub(address).download("a_model.a_tag", remote)
    assert path.read_bytes() == b"content" and path.parent == hub_.cache_folder(remote)
    monkeypatch.setattr(remote_, "remote_file", lambda model: remote)
    assert find_cached("a_model.a_tag") == path


def test_a_host_that_is_lost_later_is_not_waited_for_again(hub_of):
    server = hub_of({})
    hub = Hub(server.address)
    assert hub.why_unreachable(REMOTE) is None
    server.close()
    with pytest.raises(WeightsUnavailable, match=r"127\.0\.0\.1:\d+ cannot be reached: "):
        hub.download("a_model.a_tag", REMOTE)
    assert "cannot be reached" in (hub.why_unreachable(REMOTE) or "")
    assert server.address.removeprefix("http://") in hub.unreachable


def test_what_a_child_found_out_makes_the_parent_look_again(hub_of):
    server = hub_of({f"{PATH}model.safetensors": b"safe"})
    parent = Hub(server.address)
    assert parent.why_unreachable(REMOTE) is None
    child: Hub = pickle.loads(pickle.dumps(parent))
    server.close()
    with pytest.raises(WeightsUnavailable) as caught:
        child.download("a_model.a_tag", REMOTE)
    assert parent.why_unreachable(REMOTE) is None  # it cannot know yet
    for _ in range(3):  # told more than once, it is still one loss
        parent.doubt(f"some words first; {caught.value}")
    assert not parent.unreachable
    assert "cannot be reached" in (parent.why_unreachable(REMOTE) or "")


def test_doubt_asks_a_good_hub_once_more_and_only_where_the_reason_says_so(fake_hub):
    address, requests = fake_hub({})
    hub = Hub(address)
    hub.why_unreachable(REMOTE)
    hub.doubt("a_model.a_tag: the repository has no model.safetensors")
    assert hub.why_unreachable(REMOTE) is None and requests == ["HEAD /"]
    hub.doubt()
    assert hub.why_unreachable(REMOTE) is None and requests == ["HEAD /"] * 2
    hub.doubt("x: other.host cannot be reached: nothing came for 5 s")
    assert hub.why_unreachable(REMOTE) is None and requests == ["HEAD /"] * 2


def test_a_hub_that_answers_and_then_breaks_every_download_is_left_alone(hub_of):
    content = bytes(1000)
    server = hub_of({f"{PATH}model.safetensors": {"content": content, "stall": 5.0}})
    hub = Hub(server.address, stall_seconds=0.3)
    start = time.monotonic()
    for _ in range(2):
        with pytest.raises(WeightsUnavailable, match=r"cannot be reached: nothing came for 0\.3 s"):
            hub.download("a_model.a_tag", REMOTE)
    assert "lost 2 times" in (hub.why_unreachable(REMOTE) or "")
    assert time.monotonic() - start < 4.0


def test_the_waits_for_a_hub_that_is_lost_in_mid_run_add_up_to_ten_seconds():
    assert hub_.STALL_SECONDS + hub_.AGAIN_SECONDS <= 10
    assert hub_.STALL_SECONDS * hub_.MOST_LOSSES <= 10
    assert hub_.TOTAL_SECONDS <= 10


def test_a_silent_hub_costs_a_download_its_patience(silent_server):
    hub = Hub(silent_server[0], stall_seconds=0.3)
    hub._answered[silent_server[0].removeprefix("http://")] = time.time()
    with pytest.raises(WeightsUnavailable, match="cannot be reached: no answer within 0\\.3 s"):
        hub.download("a_model.a_tag", REMOTE)


def test_a_broken_connection_is_taken_up_again(hub_of, monkeypatch):
    content = bytes(range(256)) * 64 * 4
    server = hub_of({f"{PATH}model.safetensors": {"content": content, "cuts": [1 << 14, 1 << 15]}})
    path = Hub(server.address).download("a_model.a_tag", REMOTE)
    assert path.read_bytes() == content
    parts = [request.partition("safetensors")[2] for request in server.requests if "GET /cdn" in request]
    assert parts == ["", " bytes=16384-", " bytes=49152-"]


def test_a_file_that_is_not_what_was_announced_is_not_kept(hub_of, caches):
    server = hub_of({f"{PATH}model.safetensors": {"content": b"other", "etag": "0" * 64}})
    with pytest.raises(WeightsDamaged, match=rf"not what the hub announced: sha256 [0-9a-f]{{64}}, not {'0' * 64}"):
        Hub(server.address).download("a_model.a_tag", REMOTE)
    assert not [path for path in caches.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_the_token_goes_to_the_hub_and_not_to_the_host_that_it_sends_to(hub_of, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = hub_of({f"{PATH}model.safetensors": b"safe"})
    Hub(server.address).download("a_model.a_tag", REMOTE)
    sent = {
        request.split()[1][:5]: "hf_secret" in str(headers)
        for request, headers in zip(server.requests, server.headers, strict=True)
        if request.startswith("GET")
    }
    assert sent == {"/timm": True, "/cdn/": False}


@pytest.mark.parametrize("etag", ["../../../escaped", "..", "a/b", ""])
def test_a_server_whose_hash_is_no_hash_cannot_name_files(hub_of, caches, etag):
    server = hub_of({f"{PATH}model.safetensors": {"content": b"x", "etag": etag or '"'}})
    with pytest.raises(WeightsUnavailable, match="does not answer as a hub does"):
        Hub(server.address).download("a_model.a_tag", REMOTE)
    assert not list(caches.rglob("*escaped*"))


def test_a_missing_repository_is_told(fake_hub):
    address, _ = fake_hub({f"{PATH}model.safetensors": "RepoNotFound"})
    with pytest.raises(WeightsUnavailable, match=r"no repository timm/a_model\.a_tag at .*private"):
        Hub(address).download("a_model.a_tag", REMOTE)


def test_small_files_are_compared_with_gits_hash(hub_of, caches):
    content = b"small"
    etag = hashlib.sha1(b"blob 5\0" + content, usedforsecurity=False).hexdigest()
    server = hub_of({f"{PATH}model.safetensors": {"content": content, "etag": etag, "lfs": False}})
    assert Hub(server.address).download("a_model.a_tag", REMOTE).read_bytes() == content
    server.files[f"{PATH}model.safetensors"].content = b"Small"
    with pytest.raises(WeightsDamaged, match="not what the hub announced"):
        hub = Hub(server.address)
        hub.fetch("a_model.a_tag", REMOTE, hub.ask("a_model.a_tag", REMOTE), caches / "b.safetensors")


def test_a_full_disk_is_not_the_hubs_fault(hub_of, monkeypatch):
    server = hub_of({f"{PATH}model.safetensors": bytes(1000)})
    hub = Hub(server.address)
    monkeypatch.setattr(hub_.shutil, "disk_usage", lambda folder: argparse.Namespace(free=999))
    with pytest.raises(WeightsUnavailable, match=r"cannot be written to .*No space left"):
        hub.download("a_model.a_tag", REMOTE)
    assert hub.why_unreachable(REMOTE) is None
