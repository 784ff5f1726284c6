"""Claims: workers without a controller share the cases of one run through a folder, also over NFS.

The folder contains the journals of the run, one for each worker, and

- ``identity.json``: the name of the run, and what must be equal in all workers;
- ``workers/NAME``: a heartbeat: its time of modification is renewed while the worker lives, and is 0 once it has ended;
- ``claims/KEY.GENERATION``: the name of the worker that has the case; the key is a hash of the test id;
- ``claims/KEY.done``: a journal has a final result of the case;
- ``claims/KEY.GENERATION.retry``: this generation gave a temporary failure, such as an unreachable hub.

No file is replaced or removed, and each is created exclusively, so that exactly one worker succeeds. The worker of the
highest generation has the case while its heartbeat is younger than the lease; then the next generation may be created.
A case is never lost, and is measured twice only if a worker that was taken for dead goes on. Ages are differences of
times from one file system, so the clocks of the machines need not agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from embedcore.errors import UsageError
from embedcore.files import sealed, unfinished_name, unsealed, written_whole
from embedcore.plain import differences, json_safe
from embedcore.results.runs import Worker

LEASE_S = 60.0
"""Maximum age in seconds of a live worker's heartbeat, which is renewed four times as often."""
RUN = "identity.json"
_CLAIMS, _WORKERS = "claims", "workers"
_FILE = re.compile(r"([0-9a-f]{32})\.(?:(done)|(\d{1,9})(\.retry)?)")


class Overview(NamedTuple):
    """The cases of a run that are not done, at one moment."""

    free: dict[str, int]
    """Test id → the generation with which to claim it."""
    held: dict[str, float]
    """Test id → time of the last heartbeat of the worker that has it."""
    workers: int
    """Number of live workers, including this one."""


def agree(folder: Path, run: str, identity: Mapping[str, Any]) -> str:
    """Return the name of the run in `folder`; the first worker creates it under the name `run`.

    `identity`: what must be equal in all workers. Raises UsageError if it is not, naming the differences, or if the
    folder cannot be used.
    """
    wanted, path = json_safe(identity), folder / RUN
    with _usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        partial = unfinished_name(path)
        try:
            with written_whole(partial) as file:
                file.write(sealed({"run": run, "identity": wanted}))
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)  # unlike a rename it never replaces a file
        finally:
            partial.unlink(missing_ok=True)
    found = shared_run(folder)
    if found["identity"] != wanted:
        raise UsageError(
            f"--embed-claim: the run in {folder} has other settings: "
            f"{'; '.join(differences(found['identity'], wanted))}. Use its settings, or another folder"
        )
    return str(found["run"])


def shared_run(folder: Path) -> dict[str, Any]:
    """Return ``run`` (the name) and ``identity`` of the run in `folder`. Raises UsageError if there is none."""
    path = folder / RUN
    with _usable(folder):
        content = path.read_bytes()
    try:
        return unsealed(content)
    except ValueError as error:
        raise UsageError(f"--embed-claim: {path} {error}: damaged or not embedcore's; use another folder") from error


def is_shared(folder: Path) -> bool:
    """Whether workers share a run through `folder`."""
    return (folder / RUN).is_file() and (folder / _CLAIMS).is_dir()


def name_of_worker() -> str:
    """Return host and process id as a file name without dots."""
    return re.sub(r"[^\w-]", "_", f"{socket.gethostname()}-{os.getpid()}", flags=re.ASCII)


class Claims:
    """The claims of one worker; as a context manager it renews the worker's heartbeat."""

    def __init__(self, folder: Path, run: str, name: str, lease_s: float = LEASE_S) -> None:
        """Join the run in `folder` as `name`; as ``name-2``, …, if a worker had that name. Raises UsageError."""
        self._claims, self._workers, self.lease_s = folder / _CLAIMS, folder / _WORKERS, lease_s
        self._folder = folder
        self._generations: dict[str, int] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="embedcore-heartbeat", daemon=True)
        with _usable(folder):
            for subfolder in (self._claims, self._workers):
                subfolder.mkdir(exist_ok=True)
            self._heartbeat = _new_file(self._workers, name)
            self._retried = self._files()[2]
            """Temporary failures from before this worker joined, which it tries again."""
        self.worker = Worker(run, self._heartbeat.name)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the heartbeat, which frees this worker's unfinished cases."""
        self._ending.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # the cases are free after the lease
            os.utime(self._heartbeat, (0, 0))

    def _beat(self) -> None:
        while not self._ending.wait(self.lease_s / 4):
            with contextlib.suppress(OSError):  # if it persists, other workers take over the cases
                os.utime(self._heartbeat)

    def overview(self, tests: Iterable[str]) -> Overview:
        """Return which of these tests are free, and which are held. Raises UsageError."""
        free, held = {}, {}
        with _usable(self._folder):
            generations, done, failed = self._files()
            now = self.now()
            for test in tests:
                key = _key(test)
                last = generations.get(key, -1)
                if key in done or ((key, last) in failed and (key, last) not in self._retried):
                    continue
                beat = self._beat_of(key, last) if last >= 0 and (key, last) not in failed else 0.0
                if now - beat < self.lease_s:
                    held[test] = beat
                else:
                    free[test] = last + 1
            alive = sum(now - _modified(path) < self.lease_s for path in self._workers.iterdir())
        return Overview(free, held, alive)

    def claim(self, test: str, generation: int) -> bool:
        """Claim a free test; return False if another worker was faster. Raises UsageError."""
        key = _key(test)
        with _usable(self._folder):
            try:
                with (self._claims / f"{key}.{generation}").open("x") as file:
                    file.write(self.worker.name)
            except FileExistsError:
                return False
            self._generations[test] = generation
            return not (self._claims / f"{key}.done").exists()  # by a worker that ended after the overview

    def finish(self, test: str, *, final: bool) -> None:
        """Mark a claimed test as done once its result is in the journal. Raises UsageError.

        If the result is not `final`, workers that join later retry the test.
        """
        mark = "done" if final else f"{self._generations[test]}.retry"
        with _usable(self._folder):
            (self._claims / f"{_key(test)}.{mark}").touch()

    def now(self) -> float:
        """Renew the heartbeat and return its time, by the clock of the file system. Raises UsageError."""
        with _usable(self._folder):
            os.utime(self._heartbeat)
            return self._heartbeat.stat().st_mtime

    def _files(self) -> tuple[dict[str, int], set[str], set[tuple[str, int]]]:
        """Return the highest generation of each key, the keys that are done, and generations that failed."""
        generations: dict[str, int] = {}
        done, failed = set(), set()
        for match in filter(None, (_FILE.fullmatch(path.name) for path in self._claims.iterdir())):
            key, is_done, number, is_retry = match.groups()
            if is_done:
                done.add(key)
            elif is_retry:
                failed.add((key, int(number)))
            else:
                generations[key] = max(int(number), generations.get(key, 0))
        return generations, done, failed

    def _beat_of(self, key: str, generation: int) -> float:
        """Return the time of the last heartbeat of a claim's worker."""
        claim = self._claims / f"{key}.{generation}"
        name = claim.read_text()
        # A worker that was killed before it wrote its name has the time of the claim itself.
        return _modified(self._workers / name if name else claim)


def next_case(
    costs: Mapping[str, float | None], workers: int, fits: Callable[[str], bool], *, ahead: bool = False
) -> str | None:
    """Return the case to claim next; None if none `fits` into the time left. `costs`: in the session's order.

    It is the first case at the beginning, and the costliest one near the end: as soon as its cost times `workers` is at
    least half of the sum. All workers then end within 1.5 times the shortest possible time: a case claimed at the
    beginning costs less than half of each worker's share, and the others follow Graham's LPT rule (4/3). Unknown costs
    count as the mean.

    `ahead`: the case has to wait for another one of the same worker, so it is None near the end (factor 2, not 1.5).

    >>> def last(left): return next_case(left, 2, lambda case: True)
    >>> last({"a": 1.0, "b": 2.0, "c": 9.0, "d": 9.0, "e": 9.0, "f": 9.0}), last({"a": 1.0, "b": 2.0, "c": 9.0})
    ('a', 'c')
    """
    known = [cost for cost in costs.values() if cost is not None]
    mean = sum(known) / len(known) if known else 1.0
    filled = {case: mean if cost is None else cost for case, cost in costs.items()}
    near_end = 2 * workers * max(filled.values(), default=0.0) >= sum(filled.values())
    if ahead and (near_end or len(filled) <= 2 * workers):
        return None
    order = sorted(filled, key=filled.__getitem__, reverse=True) if near_end else filled
    return next(filter(fits, order), None)


def _key(test: str) -> str:
    return hashlib.sha256(test.encode()).hexdigest()[:32]


def _new_file(folder: Path, name: str) -> Path:
    """Create an empty file with this name, or ``name-2``, …"""
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
        number += 1


def _modified(path: Path) -> float:
    """Return the time of modification of a file; 0 if it does not exist. Opened, since NFS caches it otherwise."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return 0.0


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"--embed-claim: {error.filename or folder} cannot be used: {error.strerror or error}"
        ) from error
