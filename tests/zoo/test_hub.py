from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pickle
import threading
import time
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from embedcore.errors import HubUnreachable, WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.zoo import hub as hub_
from embedcore.zoo.hub import Hub, find_cached
from embedcore.zoo.registry import RemoteFile

REMOTE = RemoteFile("timm/a_model.a_tag", None, ("model.safetensors", "pytorch_model.bin"))
PATH = "/timm/a_model.a_tag/resolve/main/"
pytestmark = pytest.mark.usefixtures("caches")


def test_a_refused_connection_is_noticed_once_for_all_models(closed_port, monkeypatch):
    hub = Hub(closed_port)
    reason = hub.why_unreachable(REMOTE)
    assert reason is not None and closed_port.removeprefix("http://") in reason
    monkeypatch.setattr(hub_, "_probe", lambda address, timeout: pytest.fail("probed twice"))
    assert hub.why_unreachable(RemoteFile("timm/other", None, ("model.safetensors",))) == reason


def test_a_silent_host_costs_one_time_out(silent_server):
    address, listener = silent_server
    hub = Hub(address, timeout=0.3)
    reason = hub.why_unreachable(REMOTE)
    assert reason is not None and "cannot be reached: " in reason and "timed out" in reason
    listener.settimeout(1.0)
    listener.accept()[0].close()  # it was really asked …
    hub.why_unreachable(REMOTE)
    listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listener.accept()  # … and only once


def test_a_child_process_does_not_probe_again(closed_port, monkeypatch):
    hub = Hub(closed_port)
    reason = hub.why_unreachable(REMOTE)
    child: Hub = pickle.loads(pickle.dumps(hub))
    monkeypatch.setattr(hub_, "_probe", lambda address, timeout: pytest.fail("probed twice"))
    assert child.why_unreachable(REMOTE) == reason


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


def test_a_gated_repository_is_reported_with_its_address(fake_hub):
    address, _ = fake_hub({f"{PATH}model.safetensors": 403})
    with pytest.raises(WeightsGated, match=r"accept the terms at http://127.*/timm/a_model\.a_tag.*log in"):
        Hub(address).download("a_model.a_tag", REMOTE)


def test_a_repository_without_weights_is_reported(fake_hub):
    address, _ = fake_hub({})
    with pytest.raises(WeightsUnavailable, match=r"no model\.safetensors nor pytorch_model\.bin"):
        Hub(address).download("a_model.a_tag", REMOTE)


@pytest.mark.parametrize("by_url", [False, True])
def test_a_download_leaves_room_on_the_disk(fake_hub, monkeypatch, by_url):
    address, requests = fake_hub({f"{PATH}model.safetensors": b"safe", "/a.pth": b"safe"})
    remote = RemoteFile(url=f"{address}/a.pth") if by_url else REMOTE
    monkeypatch.setattr(hub_, "free_bytes", lambda folder: hub_.SPARE_BYTES + 3)
    with pytest.raises(WeightsUnavailable, match=r"needs 4 B and leaves 1\.00 GB free, but .* has 1\.00 GB free"):
        Hub(address).download("a_model.a_tag", remote)
    assert not [request for request in requests if request.startswith("GET")]
    monkeypatch.setattr(hub_, "free_bytes", lambda folder: hub_.SPARE_BYTES + 4)
    assert Hub(address).download("a_model.a_tag", remote).read_bytes() == b"safe"


def test_download_by_url_lands_in_torchs_cache(fake_hub, monkeypatch):
    digest = hashlib.sha256(b"content").hexdigest()[:8]
    address, _ = fake_hub({f"/weights/a-{digest}.pth": b"content"})
    remote = RemoteFile(url=f"{address}/weights/a-{digest}.pth")
    path = Hub(address).download("a_model.a_tag", remote)
    assert path.read_bytes() == b"content" and path.parent == hub_.cache_folder(remote)
    monkeypatch.setattr(hub_, "remote_file", lambda model: remote)
    assert find_cached("a_model.a_tag") == path


def test_a_url_whose_content_is_not_what_its_name_says_is_damaged(fake_hub, caches):
    address, _ = fake_hub({"/a-12345678.pth": b"content", "/b-12345678.pth": 404, "/c-12345678.pth": 503})
    hub = Hub(address)
    with pytest.raises(WeightsDamaged, match=r"a_model\.a_tag: the file downloaded from .*/a-12345678\.pth is damaged"):
        hub.download("a_model.a_tag", RemoteFile(url=f"{address}/a-12345678.pth"))
    with pytest.raises(WeightsUnavailable, match="404") as caught:
        hub.download("a_model.a_tag", RemoteFile(url=f"{address}/b-12345678.pth"))
    assert not isinstance(caught.value, HubUnreachable)
    with pytest.raises(HubUnreachable, match="503"):
        hub.download("a_model.a_tag", RemoteFile(url=f"{address}/c-12345678.pth"))
    assert not list((caches / "torch").rglob("*.pth"))


# --- losing the hub: no test waits; a fake clock is set ---


class Clock:
    """A clock that advances only when set; picklable."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Results of the next probes, "" for an answer, used in order; the last one repeats."""
    answers: list[str] = []
    monkeypatch.setattr(hub_, "_probe", lambda address, timeout: answers.pop(0) if len(answers) > 1 else answers[0])
    return answers


def test_a_hub_that_cannot_be_reached_is_asked_again_after_a_pause(clock, probes):
    probes[:] = ["down"]
    hub = Hub("http://a.hub", clock=clock)
    for _ in range(3):
        until = clock.now + hub_.PAUSE_SECONDS
        again = time.strftime("%H:%M:%S", time.localtime(until))
        for moment in (clock.now, until - 0.1):
            clock.now = moment
            assert hub.why_unreachable(REMOTE) == f"a.hub cannot be reached: down; asked again after {again}"
        clock.now = until
    probes[:] = [""]
    assert hub.why_unreachable(REMOTE) is None  # it is back


def test_a_hub_that_is_lost_in_the_middle_is_asked_at_once_and_then_after_pauses(clock, probes):
    probes[:] = [""]
    hub = Hub("http://a.hub", clock=clock)
    assert hub.why_unreachable(REMOTE) is None
    hub.lose("a.hub", "reset by peer")
    assert hub.why_unreachable(REMOTE) is None  # it answers again: one broken connection costs nothing
    for _ in range(3):
        hub.lose("a.hub", "reset by peer")
        assert "reset by peer; asked again after" in (hub.why_unreachable(REMOTE) or "")
        clock.now += hub_.PAUSE_SECONDS
        assert hub.why_unreachable(REMOTE) is None
    clock.now += 2 * hub_.PAUSE_SECONDS  # it had worked for long
    hub.lose("a.hub", "reset by peer")
    assert hub.why_unreachable(REMOTE) is None


def test_offline_mode_and_a_pause_are_no_lack_of_weights(clock, probes, monkeypatch):
    probes[:] = ["down"]
    hub = Hub("http://a.hub", clock=clock)
    with pytest.raises(
        HubUnreachable, match=r"a_model\.a_tag: .* is not in the cache and a\.hub cannot be reached: down;"
    ):
        hub.ask("a_model.a_tag", REMOTE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE is set"):
        hub.download("a_model.a_tag", REMOTE)


def test_a_host_that_is_lost_later_is_not_waited_for_again(hub_of, clock):
    server = hub_of({})
    hub = Hub(server.address, clock=clock)
    assert hub.why_unreachable(REMOTE) is None
    server.close()
    with pytest.raises(HubUnreachable, match=r"127\.0\.0\.1:\d+ cannot be reached: "):
        hub.download("a_model.a_tag", REMOTE)
    assert "cannot be reached" in (hub.why_unreachable(REMOTE) or "")
    assert hub._losses[server.address.removeprefix("http://")].until == clock.now + hub_.PAUSE_SECONDS


def test_a_host_lost_in_a_child_is_probed_again_by_the_parent(hub_of, clock):
    server = hub_of({f"{PATH}model.safetensors": b"safe"})
    parent = Hub(server.address, clock=clock)
    assert parent.why_unreachable(REMOTE) is None
    child: Hub = pickle.loads(pickle.dumps(parent))
    server.close()
    with pytest.raises(HubUnreachable) as caught:
        child.download("a_model.a_tag", REMOTE)
    assert parent.why_unreachable(REMOTE) is None  # it cannot know yet
    for _ in range(3):  # reported more than once, it is still one loss
        parent.lose(caught.value.host, caught.value.why)
    assert [loss.until for loss in parent._losses.values()] == [clock.now]
    assert "cannot be reached" in (parent.why_unreachable(REMOTE) or "")


def test_a_hub_that_was_lost_elsewhere_is_asked_once_more(fake_hub):
    address, requests = fake_hub({})
    hub = Hub(address)
    hub.why_unreachable(REMOTE)
    hub.lose("other.host", "nothing came for 5 s")
    assert hub.why_unreachable(REMOTE) is None and requests == ["HEAD /"]
    hub.lose(address.removeprefix("http://"), "nothing came for 5 s")
    assert hub.why_unreachable(REMOTE) is None and requests == ["HEAD /"] * 2


def test_a_hub_that_breaks_every_download_is_not_asked_for_a_while(hub_of, clock, monkeypatch):
    hasty = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})  # the library waits 1 s between its tries
    monkeypatch.setattr("huggingface_hub.file_download.time", hasty)
    server = hub_of({f"{PATH}model.safetensors": {"content": bytes(1000), "stall": 5.0}})
    hub = Hub(server.address, timeout=0.3, clock=clock)
    for _ in range(2):
        with pytest.raises(HubUnreachable, match=r"cannot be reached: .*timed out"):
            hub.download("a_model.a_tag", REMOTE)
    requests = len(server.requests)
    assert "asked again after" in (hub.why_unreachable(REMOTE) or "") and len(server.requests) == requests


def test_a_hub_in_trouble_in_the_middle_is_no_lack_of_weights(hub_of):
    server = hub_of({f"{PATH}model.safetensors": 503})
    with pytest.raises(HubUnreachable, match="503"):
        Hub(server.address).download("a_model.a_tag", REMOTE)


def test_a_silent_hub_costs_a_download_two_time_outs(silent_server, clock):
    hub = Hub(silent_server[0], timeout=0.3, clock=clock)
    hub._answered.add(silent_server[0].removeprefix("http://"))
    with pytest.raises(HubUnreachable, match=r"cannot be reached: .*timed out"):
        hub.download("a_model.a_tag", REMOTE)


def test_a_broken_download_is_resumed(hub_of, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    content = bytes(range(256)) * 256 * 4
    server = hub_of({f"{PATH}model.safetensors": {"content": content, "cuts": [1 << 17]}})
    hub = Hub(server.address)
    with contextlib.suppress(HubUnreachable):  # a library before 1.0 resumes at the next call only
        hub.download("a_model.a_tag", REMOTE)
    assert hub.download("a_model.a_tag", REMOTE).read_bytes() == content
    parts = [request.partition("safetensors")[2] for request in server.requests if "GET /cdn" in request]
    assert parts[0] == "" and len(parts) == 2 and parts[1].startswith(" bytes=")


def test_progress_is_reported_from_the_waiting_thread_and_may_end_the_wait(monkeypatch):
    monkeypatch.setattr(hub_, "REPORT_SECONDS", 0.01)
    gate, calls = threading.Event(), []

    def progress(done: int, total: int) -> None:
        calls.append(threading.current_thread())
        if len(calls) == 3:
            gate.set()

    assert hub_._reporting(progress, lambda: gate.wait(10.0)) is True
    assert set(calls) == {threading.main_thread()}
    with pytest.raises(ZeroDivisionError):
        hub_._reporting(progress, lambda: 1 // 0)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub_._reporting(stop, lambda: gate.clear() or gate.wait(10.0))
    gate.set()


def test_the_librarys_own_settings_are_as_they_were_after_a_download(fake_hub):
    before = constants.DOWNLOAD_CHUNK_SIZE, getattr(constants, "HF_HUB_DISABLE_XET", None)
    address, _ = fake_hub({f"{PATH}model.safetensors": b"safe"})
    Hub(address).download("a_model.a_tag", REMOTE)
    assert (constants.DOWNLOAD_CHUNK_SIZE, getattr(constants, "HF_HUB_DISABLE_XET", None)) == before


def test_a_file_that_is_not_what_was_announced_is_not_kept(hub_of, caches):
    server = hub_of({f"{PATH}model.safetensors": {"content": b"other", "etag": "0" * 64}})
    with pytest.raises(WeightsDamaged, match=rf"not what the hub announced: sha256 [0-9a-f]{{64}}, not {'0' * 64}"):
        Hub(server.address).download("a_model.a_tag", REMOTE)
    assert not list(caches.rglob("model.safetensors")) and not list(caches.rglob("blobs/*"))


def test_the_token_goes_to_the_hub_and_not_to_the_host_that_it_sends_to(hub_of, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = hub_of({f"{PATH}model.safetensors": b"safe"})
    Hub(server.address).download("a_model.a_tag", REMOTE)
    sent = {
        (request.split()[1][:5], "hf_secret" in str(headers))
        for request, headers in zip(server.requests, server.headers, strict=True)
        if request != "HEAD /"
    }
    assert sent == {("/timm", True), ("/cdn/", False)}


@pytest.mark.parametrize("etag", ["../../../escaped", "..", "a/b", ""])
def test_a_server_whose_hash_is_no_hash_cannot_name_files(hub_of, caches, etag):
    server = hub_of({f"{PATH}model.safetensors": {"content": b"x", "etag": etag or '"'}})
    with pytest.raises(WeightsUnavailable, match="does not answer as a hub does"):
        Hub(server.address).download("a_model.a_tag", REMOTE)
    assert not list(caches.rglob("*escaped*"))


def test_a_missing_repository_is_reported(fake_hub):
    address, _ = fake_hub({f"{PATH}model.safetensors": "RepoNotFound"})
    with pytest.raises(WeightsUnavailable, match=r"no repository timm/a_model\.a_tag at .*private"):
        Hub(address).download("a_model.a_tag", REMOTE)


def test_a_full_disk_is_not_the_hubs_fault(hub_of, monkeypatch):
    server = hub_of({f"{PATH}model.safetensors": bytes(1000)})
    hub = Hub(server.address)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    with pytest.raises(WeightsUnavailable, match=r"cannot be written to .*No space left") as caught:
        hub.download("a_model.a_tag", REMOTE)
    assert not isinstance(caught.value, HubUnreachable) and hub.why_unreachable(REMOTE) is None
