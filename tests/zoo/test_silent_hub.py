"""A hub that is silent for a moment: requests are repeated, downloads resumed."""

from __future__ import annotations

import pytest

from embedcore.zoo.hub import Hub
from embedcore.zoo.registry import RemoteFile

REMOTE = RemoteFile("timm/a_model.a_tag", None, ("model.safetensors", "pytorch_model.bin"))
PATH = "/timm/a_model.a_tag/resolve/main/"
pytestmark = pytest.mark.usefixtures("caches")


def test_a_request_without_an_answer_is_repeated(hub_of):
    server = hub_of({f"{PATH}model.safetensors": {"content": b"safe", "late": [1.0]}})
    hub = Hub(server.address, timeout=0.3)
    assert hub.download("a_model.a_tag", REMOTE).read_bytes() == b"safe"


def test_a_slow_hub_is_waited_for(hub_of):
    server = hub_of({f"{PATH}model.safetensors": {"content": b"safe", "late": [0.5, 0.5, 0.5]}})
    hub = Hub(server.address, timeout=1.2)
    assert hub.download("a_model.a_tag", REMOTE).read_bytes() == b"safe"


def test_a_stalled_download_is_resumed(hub_of):
    content = bytes(range(256)) * 4096
    server = hub_of({f"{PATH}model.safetensors": {"content": content, "stalls": [30.0]}})
    calls: list[tuple[int, int]] = []
    hub = Hub(server.address, timeout=0.5)
    path = hub.download("a_model.a_tag", REMOTE, progress=lambda *call: calls.append(call))
    assert path.read_bytes() == content and set(calls) == {(0, 0)}
    parts = [request.partition("safetensors")[2] for request in server.requests if "GET /cdn" in request]
    assert parts == ["", f" bytes={len(content) // 2}-"]


def test_a_stalled_download_by_url_starts_again(hub_of):
    content = bytes(range(256)) * 4096
    server = hub_of({"/a.pth": {"content": content, "lfs": False, "stalls": [30.0]}})
    hub = Hub(server.address, timeout=0.5)
    assert hub.download("a_model.a_tag", RemoteFile(url=f"{server.address}/a.pth")).read_bytes() == content
