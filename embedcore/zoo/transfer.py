"""One file over HTTP: continued where an earlier try broke off, given up where nothing comes any more."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import get_session

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes that are here and those of the whole file, None where the server does not tell."""

SMALL_CHUNK = 1 << 14  # requests waits until a chunk is full, and loses the last one where a connection breaks
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
T = TypeVar("T")


class StatusError(Exception):
    """The server answers with an HTTP status that is no success."""


def transfer(
    url: str,
    partial: Path,
    *,
    headers: Mapping[str, str] | None = None,
    size: int | None = None,
    stall_seconds: float,
    progress: Progress | None = None,
) -> None:
    """Bring ``partial`` to the whole content of ``url``, beginning after the bytes that it holds already.

    A connection that breaks off is made anew as long as each brings something. ``size`` is the length in bytes where
    it is known. Raises ConnectionError, or an error of the HTTP client, where the content cannot be had in full or
    nothing comes for ``stall_seconds`` (looking up the name and connecting count too), StatusError, and OSError where
    ``partial`` cannot be written; ``partial`` keeps what came.
    """
    # The client's own timeout comes later than ours, and only ends the thread.
    receiver = _Receiver(url, partial, {"Accept-Encoding": "identity", **(headers or {})}, size, 2 * stall_seconds)
    threading.Thread(target=receiver.run, daemon=True).start()
    told = -1
    try:
        while not receiver.finished.wait(min(0.2, stall_seconds)):
            if progress is not None and receiver.here != told:
                told = receiver.here
                progress(told, receiver.size)
            if time.monotonic() - receiver.heard > stall_seconds:
                raise ConnectionError(f"nothing came for {stall_seconds:g} s")
    finally:
        receiver.stop.set()  # a thread that still waits must not write later
    if receiver.error is not None:
        raise receiver.error
    if progress is not None:
        progress(receiver.here, receiver.size)


class _Receiver:
    """The work of a transfer, in a thread of its own: looking up a name heeds no timeout."""

    def __init__(self, url: str, partial: Path, headers: Mapping[str, str], size: int | None, seconds: float) -> None:
        self.url = url
        self.partial = partial
        self.headers = headers
        self.size = size
        self.seconds = seconds
        self.here = 0
        self.heard = time.monotonic()
        self.stop = threading.Event()
        self.finished = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._receive_all()
        except BaseException as error:  # whatever it is, the waiting thread raises it
            self.error = error
        finally:
            self.finished.set()

    def _receive_all(self) -> None:
        most = -1
        while True:
            broken: Exception | None = None
            try:
                self._receive()
            except (ConnectionError, TimeoutError, client_error()) as error:
                broken = error
            if self.stop.is_set() or self.here == self.size:
                return
            if self.size is not None and self.here > self.size:
                self.partial.unlink()
                raise StatusError(f"{self.here} bytes came instead of {self.size}")
            if self.here <= most:
                whole = "" if self.size is None else f" of {self.size}"
                raise broken or ConnectionError(f"the connection broke off after {self.here}{whole} bytes")
            most = self.here

    def _receive(self) -> None:
        """Ask once for what is missing, and write what comes. ``here`` is then the length of the file."""
        descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            self.here = file.seek(0, os.SEEK_END)
            if self.size is not None and self.here == self.size:
                return
            if self.size is not None and self.here > self.size:
                self.here = file.seek(0)
                file.truncate(0)
            headers = {**self.headers, **({"Range": f"bytes={self.here}-"} if self.here else {})}
            with _get(self.url, headers, self.seconds) as (status, answer, chunks):
                self.heard = time.monotonic()
                if status == 416 or (status == 206 and _range_start(answer) != self.here):
                    self.here = file.seek(0)  # what is here is not the beginning of what there is now
                    file.truncate(0)
                    return
                if status not in (200, 206):
                    raise StatusError(f"HTTP status {status}")
                if status == 200 and self.here:  # a server that knows no ranges
                    self.here = file.seek(0)
                    file.truncate(0)
                if self.size is None:
                    length = answer.get("Content-Length")
                    self.size = self.here + int(length) if length and length.isdecimal() else None
                for chunk in chunks:
                    if self.stop.is_set():
                        return
                    file.write(chunk)
                    self.here += len(chunk)
                    self.heard = time.monotonic()
        if self.size is None:
            self.size = self.here  # the end of the connection is all that tells the end of the file


def _range_start(headers: Mapping[str, str]) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


@contextlib.contextmanager
def _get(
    url: str, headers: Mapping[str, str], seconds: float
) -> Iterator[tuple[int, Mapping[str, str], Iterator[bytes]]]:
    """Status, headers and content of an answer, by the hub's own client: same proxy and certificates."""
    session: Any = get_session()
    if callable(getattr(session, "stream", None)):  # a kind of httpx; for requests it is a flag
        request = session.stream("GET", url, headers=dict(headers), timeout=seconds, follow_redirects=True)
        with request as response:
            yield response.status_code, response.headers, response.iter_raw()
    else:
        with session.get(url, headers=dict(headers), timeout=seconds, stream=True) as response:
            yield response.status_code, response.headers, response.iter_content(SMALL_CHUNK)


def within(seconds: float, function: Callable[[], T]) -> T:
    """What ``function`` returns or raises; TimeoutError where it takes longer than ``seconds``."""
    answers: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((function(), None))
        except BaseException as error:  # raised by the waiting thread
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.3g} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def client_error() -> type[Exception]:
    """The base of the errors of the HTTP client that huggingface_hub uses: requests, or a kind of httpx."""
    client: Any = sys.modules[type(get_session()).__module__.partition(".")[0]]
    base: type[Exception] = getattr(client, "RequestException", None) or client.HTTPError
    return base
