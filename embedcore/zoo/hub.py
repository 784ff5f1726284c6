"""The Hugging Face hub: whether it can be reached at all, what it says of a file, and downloads."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import filelock
import huggingface_hub
from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from embedcore.errors import WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.zoo import hub_cache
from embedcore.zoo.content import file_hash, matches
from embedcore.zoo.remote import RemoteContent, RemoteFile, cache_folder
from embedcore.zoo.transfer import Progress, StatusError, client_error, transfer, within

# An unreachable hub may cost a run ten seconds in all: one probe where it never answered; where it is lost in the
# middle, what a download waits for the next byte and then one shorter probe.
PROBE_SECONDS = 6.0  # longest wait for one host; looking up a name can block for longer than any socket timeout
TOTAL_SECONDS = 8.0  # longest wait for all hosts together
AGAIN_SECONDS = 3.0  # longest wait for a host that had answered before
STALL_SECONDS = 5.0  # longest wait for an answer or the next byte of a download
TRUST_SECONDS = 60.0  # a host that answered is asked again after this
MOST_LOSSES = 2  # a host whose connections broke so often is left alone, though it answers probes
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}
OFFLINE = "HF_HUB_OFFLINE is set"


@dataclass
class Hub:
    """Access to the hub for one run: knows after at most TOTAL_SECONDS in all whether hosts can be reached.

    endpoint is the hub's address, by default that of huggingface_hub (``HF_ENDPOINT``). A plain picklable value: a
    child process that is handed one does not probe again. unreachable maps hosts that did not answer to why.
    """

    endpoint: str = field(default_factory=lambda: str(constants.ENDPOINT))
    probe_seconds: float = PROBE_SECONDS
    budget_seconds: float = TOTAL_SECONDS
    stall_seconds: float = STALL_SECONDS
    unreachable: dict[str, str] = field(default_factory=dict)
    _answered: dict[str, float] = field(default_factory=dict)
    _losses: dict[str, int] = field(default_factory=dict)

    def why_unreachable(self, remote: RemoteFile) -> str | None:
        """None where the file's host can be reached, else why not, in a few words.

        A host that fails is probed once; one that answers is probed again when that is TRUST_SECONDS ago.
        """
        if is_offline():
            return OFFLINE
        address = remote.url or self.endpoint
        host = urlsplit(address).netloc
        if host not in self.unreachable and time.time() - self._answered.get(host, 0.0) > TRUST_SECONDS:
            if self.budget_seconds <= 0.0:
                self.unreachable[host] = "not tried: other hosts have used up the time for trying"
            else:
                self._probe(host, f"{urlsplit(address).scheme}://{host}/")
        reason = self.unreachable.get(host)
        return _cannot_reach(host, reason) if reason else None

    def doubt(self, reason: str = "") -> None:
        """Forget that hosts answered, so that each is probed before it is next used.

        For the process that runs children, after one of them had no weights: what a child learns of the hub is lost
        with it. reason is what the child said; where it names a host that could not be reached only that one is
        doubted, and a host that was lost MOST_LOSSES times is left alone; another reason changes nothing. Without a
        reason all hosts are doubted.
        """
        if not reason:
            self._answered.clear()
        for host, why in _CANNOT_REACH.findall(reason):
            self._doubt(host, why)

    def ask(self, model: str, remote: RemoteFile) -> RemoteContent:
        """What the hub says of a file, without fetching it; a plain URL is not asked.

        Raises WeightsGated where its terms have not been accepted and WeightsUnavailable where it cannot be had.
        """
        with self._explained(model, remote):
            return self._ask(remote)

    def download(self, model: str, remote: RemoteFile) -> Path:
        """Fetch a file into the cache and return its path there.

        Raises as ask does, and WeightsDamaged where what came is not what the hub announced.
        """
        with self._explained(model, remote):
            content = self._ask(remote)
            if remote.url:
                path = hub_cache.url_file(remote.url)
                self.fetch(model, remote, content, path)
                return path
            blob = hub_cache.blob_file(remote.repo, content.etag)
            lock = hub_cache.lock_file(remote.repo, content.etag)
            lock.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(lock):
                if not blob.is_file():
                    self.fetch(model, remote, content, blob)
            return hub_cache.enter(
                remote.repo, content.name, etag=content.etag, commit=content.commit, revision=remote.revision
            )

    def fetch(
        self, model: str, remote: RemoteFile, content: RemoteContent, path: Path, progress: Progress | None = None
    ) -> str:
        """Fetch a file to ``path``, which then is whole and of the announced hash; gives its SHA-256.

        What a broken connection leaves in ``<path>.incomplete`` is where the next call goes on. Raises as download.
        """
        partial = path.with_name(f"{path.name}.incomplete")
        with self._explained(model, remote, path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            resumed = partial.exists()
            sha256 = self._transfer(remote, content, partial, progress)
            if resumed and not matches(partial, content.etag, sha256):
                partial.unlink()  # the beginning was of another content: the hub's has changed since
                sha256 = self._transfer(remote, content, partial, progress)
            if not matches(partial, content.etag, sha256):
                partial.unlink()
                raise WeightsDamaged(
                    f"{model}: what came from {remote.repo} is not what the hub announced: "
                    f"sha256 {sha256}, not {content.etag}"
                )
            partial.replace(path)
        return sha256

    def _transfer(self, remote: RemoteFile, content: RemoteContent, partial: Path, progress: Progress | None) -> str:
        here = partial.stat().st_size if partial.exists() else 0
        if content.size is not None and shutil.disk_usage(partial.parent).free < content.size - here:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        headers = {} if remote.url else build_hf_headers()
        seconds = self.stall_seconds
        transfer(content.url, partial, headers=headers, size=content.size, stall_seconds=seconds, progress=progress)
        return file_hash(partial)

    def _ask(self, remote: RemoteFile) -> RemoteContent:
        if remote.url:
            return RemoteContent(Path(urlsplit(remote.url).path).name, remote.url)
        *alternatives, last = remote.names
        for name in alternatives:
            try:
                return self._ask_name(remote, name)
            except EntryNotFoundError:
                continue
        return self._ask_name(remote, last)

    def _ask_name(self, remote: RemoteFile, name: str) -> RemoteContent:
        url = self._url(remote.repo, remote.revision or hub_cache.MAIN, name)
        seconds = self.stall_seconds
        # the client's own timeout comes later than ours, and only ends the thread
        told = within(seconds, lambda: huggingface_hub.get_hf_file_metadata(url, timeout=2 * seconds))
        commit, etag = told.commit_hash or "", told.etag or ""
        if not (_COMMIT.fullmatch(commit) and _ETAG.fullmatch(etag)):  # they become names of files in the cache
            raise _NotAHubError(f"{self.endpoint} does not answer as a hub does (commit {commit!r}, etag {etag!r})")
        return RemoteContent(name, self._url(remote.repo, commit, name), told.size, etag, commit)

    def _url(self, repo: str, revision: str, name: str) -> str:
        # hf_hub_url does not heed its endpoint argument once the library's own endpoint has been changed
        return f"{self.endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(name)}"

    def _probe(self, host: str, address: str) -> None:
        start = time.monotonic()
        longest = AGAIN_SECONDS if host in self._losses else self.probe_seconds
        deadline = min(longest, self.probe_seconds, self.budget_seconds)
        try:
            reason = within(deadline, lambda: _answer(address, 2 * deadline))
        except (OSError, client_error()) as error:
            reason = _first_line(error)
        if reason:
            self.unreachable[host] = reason
            self.budget_seconds -= time.monotonic() - start
        else:
            self._answered[host] = time.time()

    def _doubt(self, host: str, why: str) -> None:
        if self._answered.pop(host, None) is None:
            return  # doubted already: one loss may be told twice
        self._losses[host] = self._losses.get(host, 0) + 1
        if self._losses[host] >= MOST_LOSSES:
            self.unreachable[host] = f"lost {self._losses[host]} times, last: {why}"

    @contextlib.contextmanager
    def _explained(self, model: str, remote: RemoteFile, folder: Path | None = None) -> Iterator[None]:
        """Turn what goes wrong in asking or fetching into one line."""
        reason = self.why_unreachable(remote)
        if reason:
            raise WeightsUnavailable(f"{model}: {remote} is not in the cache and {reason}")
        try:
            yield
        except GatedRepoError as error:
            page = f"{self.endpoint}/{remote.repo}"
            raise WeightsGated(
                f"{model}: the weights are gated; accept the terms at {page}, then log in (`hf auth login` or HF_TOKEN)"
            ) from error
        except RepositoryNotFoundError as error:
            where = f"{remote.repo} at {self.endpoint}"
            raise WeightsUnavailable(f"{model}: no repository {where}, or it is private") from error
        except EntryNotFoundError as error:
            names = " nor ".join(remote.names)
            raise WeightsUnavailable(f"{model}: the repository has no {names}: {remote.repo}") from error
        except (HfHubHTTPError, StatusError, _NotAHubError) as error:
            raise WeightsUnavailable(f"{model}: {remote}: {_first_line(error)}") from error
        except (OSError, client_error()) as error:
            if getattr(error, "errno", None) in DISK_ERRORS:
                reason = f"cannot be written to {folder or cache_folder(remote)} ({_first_line(error)})"
            else:
                reason = self._lost(remote, error)
            raise WeightsUnavailable(f"{model}: {remote}: {reason}") from error

    def _lost(self, remote: RemoteFile, error: BaseException) -> str:
        """Note that a host which had answered no longer does, so that it is probed before the next use."""
        host = urlsplit(remote.url or self.endpoint).netloc
        self._doubt(host, _first_line(error))
        return _cannot_reach(host, _first_line(error))


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` (or ``TRANSFORMERS_OFFLINE``, as huggingface_hub takes it) forbids the network."""
    return bool(constants.HF_HUB_OFFLINE)


class _NotAHubError(Exception):
    """A server answers, and lacks what a hub's answer has."""


_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9A-Za-z_-]{1,128}")
_CANNOT_REACH = re.compile(r"(\S+) cannot be reached: ([^;]*)")


def _cannot_reach(host: str, why: str) -> str:
    return f"{host} cannot be reached: {why}"


def _answer(address: str, seconds: float) -> str:
    """ "" where a host answers, else why that answer is none. The hub's own client asks: same proxy, certificates."""
    status = int(get_session().head(address, timeout=seconds).status_code)
    return f"HTTP status {status}" if status >= 500 or status == 407 else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
