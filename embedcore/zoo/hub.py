"""The Hugging Face hub: what lies in its cache here, whether it can be reached at all, and downloads."""

from __future__ import annotations

import errno
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import torch
from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from embedcore.errors import WeightsGated, WeightsUnavailable
from embedcore.zoo import registry

PROBE_SECONDS = 6.0  # longest wait for one host; looking up a name can block for longer than any socket timeout
TOTAL_SECONDS = 8.0  # longest wait for all hosts together in one run
TRUST_SECONDS = 60.0  # a host that answered is asked again after this
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class RemoteFile:
    """One weight file as timm would fetch it: names, best first, in a repository of the hub, or a plain URL."""

    repo: str = ""
    revision: str | None = None
    names: tuple[str, ...] = ()
    url: str = ""

    def __str__(self) -> str:
        return f"{self.repo} ({' or '.join(self.names)})" if self.repo else self.url


def remote_file(model: str) -> RemoteFile | None:
    """Where timm would fetch a model's weights from; None where it has no address for them.

    The hub goes before a URL, safetensors before a pickle, as timm's own loader chooses.
    """
    cfg = registry.pretrained_cfg(model)
    if cfg.get("hf_hub_id"):
        repo, _, revision = str(cfg["hf_hub_id"]).partition("@")
        return RemoteFile(repo, revision or None, _names(cfg.get("hf_hub_filename") or "pytorch_model.bin"))
    if cfg.get("url"):
        url = cfg["url"]  # timm allows a pair (URL, file name)
        return RemoteFile(url=str(url[0] if isinstance(url, (list, tuple)) else url))
    return None


def _names(name: str) -> tuple[str, ...]:
    known = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
    if name in known:
        return known[name], name
    return (f"{name.removesuffix('.bin')}.safetensors", name) if name.endswith(".bin") else (name,)


def find_cached(model: str) -> Path | None:
    """The weight file of a model in the hub's cache, or in torch's for plain URLs; looks at the disk only."""
    remote = remote_file(model)
    if remote is None:
        return None
    if remote.url:
        path = _url_cache(remote.url)
        return path if path.is_file() else None
    for name in remote.names:
        found = huggingface_hub.try_to_load_from_cache(remote.repo, name, revision=remote.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def cache_folder(remote: RemoteFile) -> Path:
    """The folder that find_cached looks into."""
    return _url_cache(remote.url).parent if remote.url else Path(constants.HF_HUB_CACHE)


def _url_cache(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


@dataclass
class Hub:
    """Access to the hub for one run: knows after at most TOTAL_SECONDS in all whether hosts can be reached.

    endpoint is the hub's address, by default that of huggingface_hub (``HF_ENDPOINT``). A plain picklable value: a
    child process that is handed one does not probe again. unreachable maps hosts that did not answer to why.
    """

    endpoint: str = field(default_factory=lambda: str(constants.ENDPOINT))
    probe_seconds: float = PROBE_SECONDS
    budget_seconds: float = TOTAL_SECONDS
    unreachable: dict[str, str] = field(default_factory=dict)
    _answered: dict[str, float] = field(default_factory=dict)

    def why_unreachable(self, remote: RemoteFile) -> str | None:
        """None where the file's host can be reached, else why not, in a few words.

        A host that fails is probed once; one that answers is probed again when that is TRUST_SECONDS ago.
        """
        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set"
        address = remote.url or self.endpoint
        host = urlsplit(address).netloc
        if host not in self.unreachable and time.time() - self._answered.get(host, 0.0) > TRUST_SECONDS:
            if self.budget_seconds <= 0.0:
                self.unreachable[host] = "not tried: other hosts have used up the time for trying"
            else:
                self._probe(host, f"{urlsplit(address).scheme}://{host}/")
        reason = self.unreachable.get(host)
        return f"{host} cannot be reached: {reason}" if reason else None

    def _probe(self, host: str, address: str) -> None:
        start = time.monotonic()
        deadline = min(self.probe_seconds, self.budget_seconds)
        answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_ask, args=(address, deadline, answers), daemon=True).start()
        try:
            reason = answers.get(timeout=deadline)
        except queue.Empty:
            reason = f"no answer within {deadline:.3g} s"
        if reason:
            self.unreachable[host] = reason
            self.budget_seconds -= time.monotonic() - start
        else:
            self._answered[host] = time.time()

    def download(self, model: str, remote: RemoteFile) -> Path:
        """Fetch a file into the cache and return its path.

        Raises WeightsGated where its terms have not been accepted and WeightsUnavailable where it cannot be had.
        """
        reason = self.why_unreachable(remote)
        if reason:
            raise WeightsUnavailable(f"{model}: {remote} is not in the cache and {reason}")
        try:
            return self._download_url(remote.url) if remote.url else self._download_from_hub(remote)
        except GatedRepoError as error:
            page = f"{self.endpoint}/{remote.repo}"
            raise WeightsGated(
                f"{model}: the weights are gated; accept the terms at {page}, then log in (`hf auth login` or HF_TOKEN)"
            ) from error
        except RepositoryNotFoundError as error:
            where = f"{remote.repo} at {self.endpoint}"
            raise WeightsUnavailable(f"{model}: no repository {where}, or it is private") from error
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            raise WeightsUnavailable(f"{model}: {remote}: {self._lost(remote, error)}") from error
        except EntryNotFoundError as error:
            names = " nor ".join(remote.names)
            raise WeightsUnavailable(f"{model}: the repository has no {names}: {remote.repo}") from error
        except HfHubHTTPError as error:
            raise WeightsUnavailable(f"{model}: {remote}: {_first_line(error)}") from error
        except (OSError, _client_error()) as error:
            if getattr(error, "errno", None) in DISK_ERRORS:
                reason = f"cannot be written to {cache_folder(remote)} ({_first_line(error)})"
            else:
                reason = self._lost(remote, error)
            raise WeightsUnavailable(f"{model}: {remote}: {reason}") from error

    def _download_from_hub(self, remote: RemoteFile) -> Path:
        *alternatives, last = remote.names
        for name in alternatives:
            try:
                return self._download_name(remote, name)
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
        return self._download_name(remote, last)

    def _download_name(self, remote: RemoteFile, name: str) -> Path:
        path = huggingface_hub.hf_hub_download(remote.repo, name, revision=remote.revision, endpoint=self.endpoint)
        return Path(path)

    def _download_url(self, url: str) -> Path:
        path = _url_cache(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
        return path

    def _lost(self, remote: RemoteFile, error: BaseException) -> str:
        """Note that a host which had answered no longer does, so that the next model does not wait for it."""
        host = urlsplit(remote.url or self.endpoint).netloc
        self.unreachable[host] = _first_line(error)
        return f"{host} cannot be reached: {_first_line(error)}"


def _ask(address: str, seconds: float, answers: queue.Queue[str]) -> None:
    """Put "" where a host answers, else why it does not. The hub's own client asks: same proxy and certificates."""
    try:
        status = int(get_session().head(address, timeout=seconds).status_code)
    except (OSError, _client_error()) as error:
        answers.put(_first_line(error))
    else:
        answers.put(f"HTTP status {status}" if status >= 500 or status == 407 else "")


def _client_error() -> type[Exception]:
    """The base of the errors of the HTTP client that huggingface_hub uses: requests, or a kind of httpx."""
    client: Any = sys.modules[type(get_session()).__module__.partition(".")[0]]
    base: type[Exception] = getattr(client, "HTTPError", OSError)
    return base


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
