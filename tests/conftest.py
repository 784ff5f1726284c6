"""One thread for each process. Hubs on the loopback interface: one that answers, one that refuses, one that is silent.

No test asks a real hub.
"""

from __future__ import annotations

import atexit
import hashlib
import http.server
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import pytest

from embedcore.forkserver import PRELOAD

COMMIT = "c" * 40

# Small models are slower with several threads, many times so if other tests run. torch reads it when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# fp32 is then the precision `auto` on processors that multiply bf16, too.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")

# Sessions that tests start in children of the forkserver (tests/support/forked.py) need not import these.
PRELOAD.append("session_imports")

# A cache folder of the user for all processes, since the scripts of charts take seconds to bundle.
if "XDG_CACHE_HOME" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="embedcore-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# A worker's timings need not wait for those of another worker: the lock is in the folder for temporary files.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="embedcore-")
    Path(tempfile.tempdir).chmod(0o711)  # for tests that become another user
    # After multiprocessing's own folder in it, whose priority is -100.
    Finalize(None, shutil.rmtree, (tempfile.tempdir, True), exitpriority=-200)

# If the suite runs under pytest-xdist, sessions started by a test are not its workers.
for _name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
    os.environ.pop(_name, None)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of torch, so that no test sees this machine's."""
    from huggingface_hub import constants

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
    """An address that accepts connections and never answers, and its listening socket."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


@dataclass
class Served:
    """A file as the fake hub serves it."""

    content: bytes
    etag: str | None = None
    """What is announced; the content's SHA-256 if None."""
    lfs: bool = True
    """As the hub does it with large files: redirected to another host, hash and length in headers of their own."""
    ranges: bool = True
    """Whether a request for a part gets it; else it gets all."""
    cuts: list[int] = field(default_factory=list)
    """Each answer breaks off after so many bytes, the first one after the first of these, …; then none does."""
    stall: float = 0.0
    """Seconds of silence after the first half."""
    stalls: list[float] = field(default_factory=list)
    """The same for the first answer with a body, the second one, …; for those that follow it is ``stall``."""
    late: list[float] = field(default_factory=list)
    """Seconds of silence before the first answer, the second one, …; then none."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: paths ``/REPO/resolve/REVISION/FILE``, and ``/cdn/…`` on the second server."""

    server: Any

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.server.hub
        part = self.headers.get("Range", "")
        hub.requests.append(f"{self.command} {self.path}" + (f" {part}" if part else ""))
        hub.headers.append(dict(self.headers))
        path = self.path.removeprefix("/cdn").replace(f"/resolve/{COMMIT}/", "/resolve/main/")
        found = hub.files.get(path, 404 if path != "/" else Served(b"hub", lfs=False))
        if isinstance(found, Served) and found.late:
            time.sleep(found.late.pop(0))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token == hub.expired and "/resolve/" in self.path and not self.path.startswith("/cdn"):
            self._refuse(401)  # public files too
        elif isinstance(found, int):
            self._refuse(found, {401: "GatedRepo", 403: "GatedRepo", 404: "EntryNotFound"}.get(found))
        elif isinstance(found, str):
            self._refuse(404, found)
        elif isinstance(found, tuple):
            self._refuse(*found)
        elif found.lfs and "/resolve/" in self.path and not self.path.startswith("/cdn"):
            self._redirect(found)
        else:
            self._serve(found, part, body=body)

    def _refuse(self, status: int, code: str | None = None, message: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        self.end_headers()

    def _redirect(self, file: Served) -> None:
        self.send_response(302)
        self.send_header("Location", f"{self.server.hub.cdn}/cdn{self.path}")
        self.send_header("Content-Length", "0")
        self.send_header("ETag", '"of-the-pointer"')
        self.send_header("X-Linked-Etag", f'"{file.etag or hashlib.sha256(file.content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(file.content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def _serve(self, file: Served, part: str, *, body: bool) -> None:
        start = int(part.removeprefix("bytes=").rstrip("-")) if part and file.ranges else 0
        if start >= len(file.content) > 0:
            self._refuse(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(file.content) - 1}/{len(file.content)}")
        self.send_header("Content-Length", str(len(file.content) - start))
        self.send_header("ETag", f'"{file.etag or hashlib.sha256(file.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not body:
            return
        stop = start + file.cuts.pop(0) if file.cuts else len(file.content)
        stall = file.stalls.pop(0) if file.stalls else file.stall
        if stall:
            half = len(file.content) // 2
            self.wfile.write(file.content[start:half])
            self.wfile.flush()
            time.sleep(stall)
            start = max(start, half)
        self.wfile.write(file.content[start:stop])

    def log_message(self, *args: object) -> None:
        pass


File = bytes | int | str | tuple[int, str] | tuple[int, str, str] | dict[str, Any]


def _served(value: File) -> Any:
    if isinstance(value, (int, str, tuple)):
        return value
    return Served(**value) if isinstance(value, dict) else Served(value)


class Hub:
    """Two servers, the hub and the host that it sends to for large files, and the requests to both."""

    def __init__(self, files: Mapping[str, File]) -> None:
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.expired = ""
        """A token that is refused, whatever it asks for."""
        self.files: dict[str, Any] = {path: _served(value) for path, value in files.items()}
        self.servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in self.servers:
            server.hub = self  # type: ignore[attr-defined]
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.address, self.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in self.servers)

    def close(self) -> None:
        """From now on connections are refused."""
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.servers = []


@pytest.fixture
def hub_of() -> Iterator[Callable[[dict[str, Any]], Hub]]:
    """Start a hub: `hub_of({path: content, status, or fields of Served})`; it has .address .requests .files .close().

    A path is `/REPO/resolve/main/FILE`; statuses 401 and 403 come with the hub's code for a gated repository, 404 with
    the one for a missing file; text is another code, with status 404; a tuple is a status, code and perhaps message.
    """
    hubs: list[Hub] = []

    def start(files: dict[str, Any]) -> Hub:
        hubs.append(Hub(files))
        return hubs[-1]

    yield start
    for hub in hubs:
        hub.close()


@pytest.fixture
def fake_hub(hub_of: Callable[[dict[str, Any]], Hub]) -> Callable[[dict[str, Any]], tuple[str, list[str]]]:
    """A hub's address and the list of requests that it gets."""

    def start(files: dict[str, Any]) -> tuple[str, list[str]]:
        hub = hub_of(files)
        return hub.address, hub.requests

    return start
