"""The Hugging Face hub and its cache: what is here, whether the hub can be reached, downloads by its own library."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import huggingface_hub
import torch
from huggingface_hub import HfFileMetadata, constants, errors

from embedcore.errors import HubUnreachable, WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.files import sha256_of
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

# A hub that never answers costs a run one probe before the first pause, and one more after each pause; a pause lasts a
# minute or more. A hub that falls silent later costs STALL_SECONDS, in which it is asked several times.
PROBE_SECONDS = 6.0  # longest wait for one host; looking up a name can block for longer than any socket timeout
TOTAL_SECONDS = 8.0  # longest wait for the first answers of all hosts together
STALL_SECONDS = 30.0  # longest silence in a question or a download
RETRIES = (1 / 6, 1 / 3, 1 / 2)  # of STALL_SECONDS: a request is made anew after 5 s of silence, then after 10, then 15
POLL_SECONDS = 0.25  # how often a download is looked at
TRUST_SECONDS = 60.0  # a host that answered is asked again after this
SHORTEST_PAUSE, LONGEST_PAUSE = 60.0, 1800.0  # seconds
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}
OFFLINE = "HF_HUB_OFFLINE is set"
T = TypeVar("T")


class Loss(NamedTuple):
    """That a host could not be reached: why, and for how long and until when by the hub's clock it is left alone."""

    why: str
    pause: float
    until: float


@dataclass
class Hub:
    """Access to the hub for one run: knows after at most TOTAL_SECONDS in all whether hosts can be reached.

    A host that was lost in the middle is probed before it is next used; where that fails, or it is lost again, it is
    left alone for a minute, then two, … at most half an hour. endpoint is the hub's address. A plain picklable value: a
    child process that is handed one does not probe again.
    """

    endpoint: str = field(default_factory=lambda: str(constants.ENDPOINT))
    probe_seconds: float = PROBE_SECONDS
    budget_seconds: float = TOTAL_SECONDS
    stall_seconds: float = STALL_SECONDS
    clock: Callable[[], float] = time.time
    _answered: dict[str, float] = field(default_factory=dict)
    _losses: dict[str, Loss] = field(default_factory=dict)

    def why_unreachable(self, remote: RemoteFile) -> str | None:
        """None where the file's host can be reached, else why not and when it is asked again, in a few words."""
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
        loss = self._losses.get(host)
        if loss is not None and self.clock() < loss.until:
            return self._cannot_reach(host)
        if self.clock() - self._answered.get(host, -TRUST_SECONDS) < TRUST_SECONDS:
            return None
        why = self._probe(host, f"{urlsplit(address).scheme}://{host}/")
        if why:
            self._lose(host, why, SHORTEST_PAUSE)
            return self._cannot_reach(host)
        self._answered[host] = self.clock()
        return None

    def doubt(self, reason: str) -> None:
        """Note what a child process said of a host that it lost, once however often it is told."""
        for host, why in _CANNOT_REACH.findall(reason):
            if host in self._answered:
                self._lose(host, why)

    def ask(self, model: str, remote: RemoteFile) -> tuple[str, HfFileMetadata]:
        """Return the name under which the hub has a file in a repository, and what it says of it, without fetching it.

        Raises WeightsGated where its terms have not been accepted, HubUnreachable where a later try may have it, and
        WeightsUnavailable where it cannot be had.
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

        ``progress(0, 0)`` is called a few times a second. Raises as ask does, and WeightsDamaged where what came is not
        what was announced. A file that grows tells a slow line from a lost one; after a silence the download goes on
        where it was (from a URL it begins again), up to ``stall_seconds``.
        """
        folder = cache or cache_folder(remote)
        tell = partial(progress, 0, 0)
        with self._explained(model, remote, folder), _bytewise(self.stall_seconds * RETRIES[0]):
            if remote.url:
                path = url_file(remote.url, cache)
                path.parent.mkdir(parents=True, exist_ok=True)
                found = torch.hub.HASH_REGEX.search(path.name)
                download: Callable[..., Any] = torch.hub.download_url_to_file
                fetch = partial(download, remote.url, str(path), found and found[1], progress=sys.stderr.isatty())
                self._patiently(fetch, partial(_bytes_in, path.parent), tell)
                return path
            name, told = self._ask(remote, tell)
            where = {"cache_dir": folder, "endpoint": self.endpoint, "revision": remote.revision}
            where["etag_timeout"] = self.stall_seconds
            fetch = partial(huggingface_hub.hf_hub_download, remote.repo, name, **where)
            blobs = folder / "--".join(["models", *remote.repo.split("/")]) / "blobs"
            path = Path(within(self.stall_seconds, fetch, partial(_bytes_in, blobs), tell))  # it retries by itself
        sha256 = sha256_of(path)
        if len(told.etag or "") == 64 and sha256 != told.etag:  # else it is git's hash, which stands for small files
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            said = f"is not what the hub announced: sha256 {sha256}, not {told.etag}"
            raise WeightsDamaged(f"{model}: what came from {remote.repo} {said}")
        return path

    def _ask(self, remote: RemoteFile, tell: Callable[[], None] = lambda: None) -> tuple[str, HfFileMetadata]:
        name, *others = remote.names
        revision = quote(remote.revision or "main", safe="")
        # hf_hub_url does not heed its endpoint argument once the library's own endpoint has been changed
        url = f"{self.endpoint}/{remote.repo}/resolve/{revision}/{quote(name)}"
        seconds = self.stall_seconds

        def asked() -> HfFileMetadata:
            token()  # raises for one that cannot be sent
            return huggingface_hub.get_hf_file_metadata(url, timeout=2 * seconds)

        try:  # the client's own timeout comes later than ours, and only ends the thread
            told = self._patiently(asked, tell=tell)
        except errors.EntryNotFoundError:
            if not others:
                raise
            return self._ask(replace(remote, names=tuple(others)), tell)
        commit, etag = told.commit_hash or "", told.etag or ""
        if not (_COMMIT.fullmatch(commit) and _ETAG.fullmatch(etag)):  # they become names of files in the cache
            said = f"{self.endpoint} does not answer as a hub does (commit {commit!r}, etag {etag!r})"
            raise WeightsUnavailable(f"{remote}: {said}")
        return name, told

    def _patiently(
        self,
        request: Callable[[], T],
        sign: Callable[[], object] = lambda: None,
        tell: Callable[[], None] = lambda: None,
    ) -> T:
        """Return what ``request`` returns; after a silence it is called again, up to ``stall_seconds`` in all."""
        for share in RETRIES[:-1]:
            with contextlib.suppress(TimeoutError):
                return within(self.stall_seconds * share, request, sign, tell)
        try:
            return within(self.stall_seconds * RETRIES[-1], request, sign, tell)
        except TimeoutError as error:
            raise TimeoutError(f"nothing came for {self.stall_seconds:.3g} s") from error

    def _probe(self, host: str, address: str) -> str:
        """Why a host does not answer; "" where it does."""
        if host in self._losses:
            return _answer(address, self.probe_seconds)
        if self.budget_seconds <= 0.0:
            return "not tried: other hosts have used up the time for trying"
        start = self.clock()
        why = _answer(address, min(self.probe_seconds, self.budget_seconds))
        self.budget_seconds -= self.clock() - start if why else 0.0
        return why

    def _lose(self, host: str, why: str, pause: float = 0.0) -> None:
        """Leave a host alone for ``pause`` seconds, longer where it had been lost a short time before."""
        now, before = self.clock(), self._losses.get(host)
        if before is not None:
            well = self._answered.get(host, 0.0) - before.until  # how long it has answered since
            if well <= max(before.pause, SHORTEST_PAUSE):
                pause = min(max(2 * before.pause, SHORTEST_PAUSE), LONGEST_PAUSE)
        self._answered.pop(host, None)
        self._losses[host] = Loss(why.replace(";", ","), pause, now + pause)

    def _cannot_reach(self, host: str) -> str:
        loss = self._losses[host]
        again = f"; asked again after {time.strftime('%H:%M:%S', time.localtime(loss.until))}" if loss.pause else ""
        return f"{host} cannot be reached: {loss.why}{again}"

    @contextlib.contextmanager
    def _explained(self, model: str, remote: RemoteFile, folder: Path | None = None) -> Iterator[None]:
        """Turn what goes wrong in asking or fetching into one line."""
        reason = self.why_unreachable(remote)
        if reason:
            raise HubUnreachable(f"{model}: {remote} is not in the cache and {reason}")
        try:
            yield
        except errors.GatedRepoError as error:
            how = f"accept the terms at {self.endpoint}/{remote.repo}, then log in (`hf auth login` or HF_TOKEN)"
            raise WeightsGated(f"{model}: the weights are gated; {how}") from error
        except SettingsError as error:
            raise HubUnreachable(f"{model}: {remote}: {error}") from error
        except getattr(errors, "DisabledRepoError", ()) as error:
            raise WeightsUnavailable(f"{model}: {self.endpoint} has disabled access to {remote.repo}") from error
        except errors.RepositoryNotFoundError as error:
            if _status(error) == 401:
                raise self._refused(model, remote, 401) from error
            said = f"no repository {remote.repo} at {self.endpoint}, or it is private"
            raise WeightsUnavailable(f"{model}: {said}") from error
        except errors.LocalEntryNotFoundError as error:  # the library's word for a hub lost between two questions
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
            raise WeightsDamaged(f"{model}: what came from {remote} is damaged: {first_line(error)}") from error
        except (OSError, _ClientError) as error:
            if getattr(error, "errno", None) in DISK_ERRORS:
                reason = f"cannot be written to {folder} ({first_line(error)})"
                raise WeightsUnavailable(f"{model}: {remote}: {reason}") from error
            raise self._lost(model, remote, error) from error

    def _refused(self, model: str, remote: RemoteFile, status: int) -> HubUnreachable:
        """Return the error for a request that the hub refused for want of rights: another token may get the file."""
        said = f"{self.endpoint} refuses {remote} (HTTP status {status})"
        if token() is None:
            how = ": no such repository, or it is private: then log in (`hf auth login` or HF_TOKEN)"
            return HubUnreachable(f"{model}: {said}, asked without a token{how if status == 401 else ''}")
        return HubUnreachable(
            f"{model}: {said} with the token of {token_source()}: it may have expired: {token_remedy()}; public models "
            "need none"
        )

    def _lost(self, model: str, remote: RemoteFile, error: BaseException) -> HubUnreachable:
        """Note that a host no longer answers; gives what to raise."""
        host = urlsplit(remote.url or self.endpoint).netloc
        self._lose(host, first_line(error))
        return HubUnreachable(f"{model}: {remote}: {self._cannot_reach(host)}")


def find_cached(model: str) -> Path | None:
    """The weight file of a model in the hub's cache, or in torch's for plain URLs; looks at the disk only."""
    remote = remote_file(model)
    if remote is None:
        return None
    if remote.url:
        path = url_file(remote.url)
        return path if path.is_file() else None
    look = partial(huggingface_hub.try_to_load_from_cache, remote.repo, revision=remote.revision)
    return next((Path(path) for path in map(look, remote.names) if isinstance(path, str)), None)


def url_file(url: str, folder: Path | None = None) -> Path:
    """Where torch keeps the file of a plain URL, or its place in another folder."""
    return (folder or Path(torch.hub.get_dir()) / "checkpoints") / Path(urlsplit(url).path).name


def cache_folder(remote: RemoteFile) -> Path:
    """The folder that find_cached looks into."""
    return url_file(remote.url).parent if remote.url else Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` (or ``TRANSFORMERS_OFFLINE``, as huggingface_hub takes it) forbids the network."""
    return bool(constants.HF_HUB_OFFLINE)


def within(
    seconds: float,
    function: Callable[[], T],
    sign: Callable[[], object] = lambda: None,
    tell: Callable[[], None] = lambda: None,
) -> T:
    """Return or raise what ``function`` does.

    Raises TimeoutError where ``seconds`` pass without its end or a change of ``sign``. The function runs in a thread,
    which is left alone then: looking up a name heeds no timeout. ``tell`` is called at each look.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:  # raised by the waiting thread
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    seen, since = sign(), time.monotonic()
    while not wait([answer], min(seconds, POLL_SECONDS)).done:
        tell()
        now = sign()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since >= seconds:
            raise TimeoutError(f"nothing came for {seconds:.3g} s")
    return answer.result()


# The base of the errors of huggingface_hub's HTTP client, a kind of httpx; before it requests, whose are OSErrors too.
_ClientError: Any = errors.HfHubHTTPError.__bases__[0]
_TRY_LATER = (407, 408, 425, 429)  # a proxy that wants a login, a time-out, too early, too many requests
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9A-Za-z_-]{1,128}")
_CANNOT_REACH = re.compile(r"(\S+) cannot be reached: ([^;]*)")


@contextlib.contextmanager
def _bytewise(stall_seconds: float) -> Iterator[None]:
    """Make huggingface_hub write what comes at once, since its pieces of 10 MB, and its Xet client's, can take minutes,
    and make it ask again for the rest of a file after ``stall_seconds`` without a byte."""
    wanted = {"DOWNLOAD_CHUNK_SIZE": 1 << 16, "HF_HUB_DISABLE_XET": True, "HF_HUB_DOWNLOAD_TIMEOUT": stall_seconds}
    before = {name: getattr(constants, name, None) for name in wanted}
    vars(constants).update(wanted)
    try:
        yield
    finally:
        vars(constants).update(before)


def _bytes_in(folder: Path) -> int:
    try:
        return sum(path.lstat().st_size for path in folder.glob("*"))
    except FileNotFoundError:  # a file got its final name meanwhile
        return -1


def _answer(address: str, seconds: float) -> str:
    """Return why a host does not answer, "" where it does. The hub's own client asks: same proxy, certificates."""
    try:
        status = within(seconds, lambda: int(http_client().head(address, timeout=2 * seconds).status_code))
    except Exception as error:  # each HTTP library has its own, also for a host that no name stands for
        return first_line(error) + through_proxy(address)
    return f"HTTP status {status}{through_proxy(address)}" if status >= 500 or status == 407 else ""


def _status(error: Exception) -> int:
    return int(getattr(getattr(error, "response", error), "status_code", getattr(error, "code", 0)))
