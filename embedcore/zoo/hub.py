"""The Hugging Face hub and its cache: find cached files, find out whether a host answers, download."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import huggingface_hub
import torch
from huggingface_hub import HfFileMetadata, constants, errors

from embedcore.errors import HubUnreachable, WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.files import SPARE_BYTES, free_bytes, sha256_of
from embedcore.plain import bytes_text
from embedcore.progress import Progress
from embedcore.zoo.credentials import (
    SettingsError,
    first_line,
    http_client,
    is_http,
    through_proxy,
    token,
    token_remedy,
    token_source,
)
from embedcore.zoo.registry import RemoteFile, remote_file

TIMEOUT_SECONDS = 10.0  # longest silence of a host; huggingface_hub then resumes a download up to five times
PAUSE_SECONDS = 300.0  # pause before a host that could not be reached is asked again
REPORT_SECONDS = 0.25  # between two progress reports of a download
OFFLINE = "HF_HUB_OFFLINE is set"
T = TypeVar("T")

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}
_TRY_LATER = (407, 408, 425, 429)  # a proxy that wants a login, a time-out, too early, too many requests
# The base class of the errors of huggingface_hub's HTTP client: httpx's, before its 1.0 requests', which are OSErrors.
_ClientError: Any = errors.HfHubHTTPError.__bases__[0]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9A-Za-z_-]{1,128}")


class Loss(NamedTuple):
    """Why a host could not be reached, and until when (on the hub's clock) it is not asked again."""

    why: str
    until: float


@dataclass
class Hub:
    """Access to the hub for one run, which remembers the hosts that cannot be reached.

    A host is probed once before its first file is fetched. If it does not answer, all its files are refused at once for
    PAUSE_SECONDS, then it is probed again. A host that is lost later is probed before its next file. Picklable: a child
    process that gets a copy does not probe again.
    """

    endpoint: str = field(default_factory=lambda: str(constants.ENDPOINT))
    timeout: float = TIMEOUT_SECONDS
    clock: Callable[[], float] = time.time
    _answered: set[str] = field(default_factory=set)
    _losses: dict[str, Loss] = field(default_factory=dict)

    def why_unreachable(self, remote: RemoteFile) -> str | None:
        """Return why the file's host cannot be reached and when it is asked again, None if it can be reached."""
        if is_offline():
            return OFFLINE
        try:
            http_client()
        except SettingsError as error:
            return str(error)
        address = remote.url or self.endpoint
        if not is_http(address):
            return f"{'' if remote.url else 'HF_ENDPOINT='}{address} is not of the form https://HOST"
        host = urlsplit(address).netloc
        if host in self._answered:
            return None
        loss = self._losses.get(host)
        if loss is None or self.clock() >= loss.until:
            why = _probe(f"{urlsplit(address).scheme}://{host}/", self.timeout)
            if not why:
                self._answered.add(host)
                return None
            self._losses[host] = Loss(why, self.clock() + PAUSE_SECONDS)
        return self._cannot_reach(host)

    def lose(self, host: str, why: str) -> None:
        """Note that a host that had answered was lost, here or in a child process.

        It is probed before its next use; if it was lost shortly before, it is not asked for PAUSE_SECONDS first.
        """
        if host in self._answered:
            self._answered.remove(host)
            now = self.clock()
            again = host in self._losses and now - self._losses[host].until < PAUSE_SECONDS
            self._losses[host] = Loss(why, now + PAUSE_SECONDS if again else now)

    def ask(self, model: str, remote: RemoteFile) -> tuple[str, HfFileMetadata]:
        """Return the name under which a repository has a file, and the file's metadata, without downloading it.

        Raises WeightsGated if its terms have not been accepted, HubUnreachable if a later try may succeed, and
        WeightsUnavailable if there is no such file.
        """
        with self._explained(model, remote):
            return self._ask(remote)

    def download(
        self,
        model: str,
        remote: RemoteFile,
        cache: Path | None = None,
        *,
        progress: Progress = lambda done, total: None,
    ) -> Path:
        """Download a file into the hub's cache, torch's for a URL, or another folder of that layout; return its path.

        ``progress(0, 0)`` is called a few times a second. After a silence the download resumes where it was (from a URL
        it starts again). Raises as `ask` does, and WeightsDamaged if the content is not what was announced.
        """
        folder = cache or cache_folder(remote)
        with self._explained(model, remote, folder), _library_settings(self.timeout):
            if remote.url:
                path = url_file(remote.url, cache)
                size = _reporting(progress, partial(_size_at, remote.url, self.timeout))
                _check_room(f"{model}: {remote}", folder, size)
                path.parent.mkdir(parents=True, exist_ok=True)
                digest = torch.hub.HASH_REGEX.search(path.name)
                download: Callable[..., Any] = torch.hub.download_url_to_file
                fetch = partial(download, remote.url, str(path), digest and digest[1], progress=sys.stderr.isatty())
                _reporting(progress, lambda: _twice(fetch))
                return path
            name, metadata = _reporting(progress, lambda: self._ask(remote))
            _check_room(f"{model}: {remote}", folder, metadata.size or 0)
            options: dict[str, Any] = {"cache_dir": folder, "endpoint": self.endpoint, "revision": remote.revision}
            options["etag_timeout"] = self.timeout
            path = Path(_reporting(progress, lambda: huggingface_hub.hf_hub_download(remote.repo, name, **options)))
        sha256, etag = sha256_of(path), metadata.etag or ""
        if len(etag) == 64 and sha256 != etag:  # else it is git's hash, of a small file
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            fault = f"is not what the hub announced: sha256 {sha256}, not {etag}"
            raise WeightsDamaged(f"{model}: the file downloaded from {remote.repo} {fault}")
        return path

    def _ask(self, remote: RemoteFile) -> tuple[str, HfFileMetadata]:
        name, *others = remote.names
        revision = quote(remote.revision or "main", safe="")
        # hf_hub_url ignores its endpoint argument once the library's own endpoint has been changed
        url = f"{self.endpoint}/{remote.repo}/resolve/{revision}/{quote(name)}"
        token()  # raises for one that cannot be sent
        try:
            metadata = _twice(partial(huggingface_hub.get_hf_file_metadata, url, timeout=self.timeout))
        except errors.EntryNotFoundError:
            if not others:
                raise
            return self._ask(replace(remote, names=tuple(others)))
        commit, etag = metadata.commit_hash or "", metadata.etag or ""
        if not (_COMMIT.fullmatch(commit) and _ETAG.fullmatch(etag)):  # they become file names in the cache
            fault = f"{self.endpoint} does not answer as a hub does (commit {commit!r}, etag {etag!r})"
            raise WeightsUnavailable(f"{remote}: {fault}")
        return name, metadata

    def _cannot_reach(self, host: str) -> str:
        loss = self._losses[host]
        again = time.strftime("%H:%M:%S", time.localtime(loss.until))
        return f"{host} cannot be reached: {loss.why}" + (f"; asked again after {again}" * (loss.until > self.clock()))

    @contextlib.contextmanager
    def _explained(self, model: str, remote: RemoteFile, folder: Path | None = None) -> Iterator[None]:
        """Convert the errors of a request or a download to embedcore's, with messages of one line."""
        reason = self.why_unreachable(remote)
        if reason:
            raise HubUnreachable(f"{model}: {remote} is not in the cache and {reason}")
        try:
            yield
        except errors.GatedRepoError as error:
            remedy = f"accept the terms at {self.endpoint}/{remote.repo}, then log in (`hf auth login` or HF_TOKEN)"
            raise WeightsGated(f"{model}: the weights are gated; {remedy}") from error
        except SettingsError as error:
            raise HubUnreachable(f"{model}: {remote}: {error}") from error
        except getattr(errors, "DisabledRepoError", ()) as error:
            raise WeightsUnavailable(f"{model}: {self.endpoint} has disabled access to {remote.repo}") from error
        except errors.RepositoryNotFoundError as error:
            if _status(error) == 401:
                raise self._refused(model, remote, 401) from error
            fault = f"no repository {remote.repo} at {self.endpoint}, or it is private"
            raise WeightsUnavailable(f"{model}: {fault}") from error
        except errors.LocalEntryNotFoundError as error:  # raised by the library if the hub is lost after a first answer
            raise self._lost(model, remote, error.__cause__ or error) from error
        except errors.EntryNotFoundError as error:
            names = " nor ".join(remote.names)
            raise WeightsUnavailable(f"{model}: the repository has no {names}: {remote.repo}") from error
        except (errors.HfHubHTTPError, urllib.error.HTTPError) as error:
            if _status(error) in _TRY_LATER or _status(error) >= 500:
                raise self._lost(model, remote, error) from error
            if _status(error) in (401, 403) and remote.repo:
                raise self._refused(model, remote, _status(error)) from error
            raise WeightsUnavailable(f"{model}: {remote}: {first_line(error)}") from error
        except RuntimeError as error:
            if not remote.url:
                raise
            # torch's, for a file whose hash is not the one in its name
            raise WeightsDamaged(
                f"{model}: the file downloaded from {remote} is damaged: {first_line(error)}"
            ) from error
        except (OSError, _ClientError) as error:
            if getattr(error, "errno", None) in _DISK_ERRORS:
                reason = f"cannot be written to {folder} ({first_line(error)})"
                raise WeightsUnavailable(f"{model}: {remote}: {reason}") from error
            raise self._lost(model, remote, error) from error

    def _refused(self, model: str, remote: RemoteFile, status: int) -> HubUnreachable:
        """Return the error for a request that the hub refused for lack of rights: another token may get the file."""
        fault = f"{model}: {self.endpoint} refuses {remote} (HTTP status {status})"
        if token() is None:
            remedy = ": no such repository, or it is private: then log in (`hf auth login` or HF_TOKEN)"
            return HubUnreachable(f"{fault}, asked without a token{remedy if status == 401 else ''}")
        remedy = f"it may have expired: {token_remedy()}; public models need none"
        return HubUnreachable(f"{fault} with the token of {token_source()}: {remedy}")

    def _lost(self, model: str, remote: RemoteFile, error: BaseException) -> HubUnreachable:
        """Note that a host no longer answers; return the error to raise."""
        host = urlsplit(remote.url or self.endpoint).netloc
        self.lose(host, first_line(error))
        return HubUnreachable(f"{model}: {remote}: {self._cannot_reach(host)}", host, self._losses[host].why)


def find_cached(model: str, folder: Path | None = None) -> Path | None:
    """Return the weight file of a model in the hub's cache, torch's for a URL, or another folder of that layout."""
    remote = remote_file(model)
    if remote is None:
        return None
    if remote.url:
        path = url_file(remote.url, folder)
        return path if path.is_file() else None
    find = partial(huggingface_hub.try_to_load_from_cache, remote.repo, cache_dir=folder, revision=remote.revision)
    return next((Path(path) for path in map(find, remote.names) if isinstance(path, str)), None)


def url_file(url: str, folder: Path | None = None) -> Path:
    """Return the path of a URL's file in torch's cache or another folder."""
    return (folder or Path(torch.hub.get_dir()) / "checkpoints") / Path(urlsplit(url).path).name


def cache_folder(remote: RemoteFile) -> Path:
    """Return the cache folder for a file: torch's for a URL, else the hub's."""
    return url_file(remote.url).parent if remote.url else Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Return whether ``HF_HUB_OFFLINE`` (or ``TRANSFORMERS_OFFLINE``, as huggingface_hub takes it) is set."""
    return bool(constants.HF_HUB_OFFLINE)


def _check_room(what: str, folder: Path, size: int) -> None:
    free = free_bytes(folder)
    if free is not None and free < size + SPARE_BYTES:
        needs = f"needs {bytes_text(size)} and leaves {bytes_text(SPARE_BYTES)} free"
        raise WeightsUnavailable(f"{what} {needs}, but {folder} has {bytes_text(free)} free: delete something there")


def _size_at(url: str, timeout: float) -> int:
    """Return the bytes of a URL's file as its server states them; 0 if it does not, or cannot be asked."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout) as answer:
            return int(answer.headers.get("Content-Length", 0))
    except (OSError, HTTPException, ValueError):  # the download reports what is wrong
        return 0


def _reporting(progress: Progress, work: Callable[[], T]) -> T:
    """Return what ``work`` returns. It runs in a daemon thread, so that ``progress`` runs in this one and may raise."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # raised by the waiting thread
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([answer], REPORT_SECONDS).done:
        progress(0, 0)
    return answer.result()


def _twice(request: Callable[[], T]) -> T:
    """Return what ``request`` returns; it is repeated once after a time-out."""
    try:
        return request()
    except (OSError, _ClientError) as error:
        if "timeout" not in type(error).__name__.lower():
            raise
    return request()


@contextlib.contextmanager
def _library_settings(timeout: float) -> Iterator[None]:
    """Set the time-out of downloads, and write what arrives at once, so that a resumed download loses little.

    The library's pieces of 10 MB, and those of its Xet client, can take minutes on a slow line.
    """
    settings = {"DOWNLOAD_CHUNK_SIZE": 1 << 16, "HF_HUB_DISABLE_XET": True, "HF_HUB_DOWNLOAD_TIMEOUT": timeout}
    before = {name: getattr(constants, name, None) for name in settings}
    socket_timeout = socket.getdefaulttimeout()
    vars(constants).update(settings)
    socket.setdefaulttimeout(timeout)  # for torch's downloader, which sets none
    try:
        yield
    finally:
        vars(constants).update(before)
        socket.setdefaulttimeout(socket_timeout)


def _probe(address: str, timeout: float) -> str:
    """Return why a host does not answer, "" if it does. Asked by the hub's own client: same proxy and certificates."""
    try:
        status = int(http_client().head(address, timeout=timeout).status_code)
    except Exception as error:  # each HTTP library has its own
        return first_line(error) + through_proxy(address)
    return f"HTTP status {status}{through_proxy(address)}" if status >= 500 or status == 407 else ""


def _status(error: Exception) -> int:
    return int(getattr(getattr(error, "response", error), "status_code", getattr(error, "code", 0)))
