"""Weight folders, and hubs on the loopback interface: one that answers, one that refuses, one that says nothing."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

MINI = "test_resnet.r160_in1k" if timm.is_model("test_resnet") else "resnet18.a1_in1k"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are slower with threads than without, much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mini() -> str:
    """The tag of a small model with a classifier."""
    return MINI


@pytest.fixture(scope="session")
def mini_state() -> dict[str, torch.Tensor]:
    """A state dict for `mini` that differs from every seeded one."""
    torch.manual_seed(4711)
    return dict(timm.create_model(MINI).state_dict())


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of torch, so that no test sees what this machine has."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture
def closed_port() -> str:
    """An address on this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def silent_server() -> Iterator[tuple[str, socket.socket]]:
    """An address that takes connections and never answers, and its listening socket."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


@pytest.fixture
def fake_hub() -> Iterator[Callable[[dict[str, bytes | int]], tuple[str, list[str]]]]:
    """Start a small hub: `fake_hub({path: content or status})` gives its address and the list of requests it gets.

    A path is `/REPO/resolve/main/FILE`; status 401 and 403 come with the hub's code for a gated repository.
    """
    servers = []

    def start(files: dict[str, bytes | int]) -> tuple[str, list[str]]:
        requests: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                requests.append(f"{self.command} {self.path}")
                found = files.get(self.path, 404 if self.path != "/" else b"hub")
                content = found if isinstance(found, bytes) else b""
                self.send_response(200 if isinstance(found, bytes) else found)
                self.send_header("Content-Length", str(len(content)))
                if isinstance(found, bytes):
                    self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                    self.send_header("X-Repo-Commit", "c" * 40)
                elif found in (401, 403):
                    self.send_header("X-Error-Code", "GatedRepo")
                elif found == 404:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}", requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
