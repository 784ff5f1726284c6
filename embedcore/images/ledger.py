"""The ledger: digests of files, facts of images and outcomes of trials from earlier sessions, in the cache folder.

One table has the content digest of a file by its path and stamp, the facts of an image by its digest, and the outcome
of a trial by a key of the caller. All of them can be computed again, so a ledger that is damaged, not writable or in
use only costs time. Each row is a line that repeats its key and has a checksum; damaged rows are ignored.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import filelock

from embedcore.files import sealed, sha256_of, unsealed
from embedcore.images.decode import ImageFacts

FILE = "embedcore-audit.sqlite"  # within the cache folder

_AT_ONCE = 500  # values in one query; older SQLite allows 999
_LOCK_S = 10.0  # to wait for another process that writes

# A file that changes twice within a tick of its file system's clock may keep its stamp. FAT's tick is the longest, 2 s.
_TICK_NS = 3_000_000_000

_INT64 = 2**63 - 1
_log = logging.getLogger(__name__)
_Row = TypeVar("_Row")


class Stamp(NamedTuple):
    """File metadata that changes whenever the content does.

    The change time is included since programs may set the modification time (``cp -p``, ``rsync -t``).
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def is_settled(self, now_ns: int) -> bool:
        """Return whether the last change is long enough ago for another change to have changed the stamp."""
        return max(self.mtime_ns, self.ctime_ns) < now_ns - _TICK_NS


def stamp_of(file: Path) -> Stamp:
    """Return the stamp of a file. Raises OSError."""
    status = file.stat()
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _INT64)


class Ledger:
    """The ledger of one cache folder; without a folder it is empty and keeps nothing."""

    def __init__(self, cache_dir: Path | None) -> None:
        self.path = None if cache_dir is None else cache_dir / FILE
        self._damaged = False

    def digests(self, paths: Sequence[bytes]) -> dict[bytes, tuple[Stamp, str]]:
        """Return stamp and digest of known files by absolute path."""
        return self._read(paths, lambda row: (Stamp(*row[:4]), str(row[4])))

    def facts(self, digests: Iterable[str], decoder: str) -> dict[str, ImageFacts]:
        """Return the facts of contents decoded by ``decoder``, by digest."""
        keys = {f"{digest} {decoder}".encode(): digest for digest in digests}
        return {keys[key]: facts for key, facts in self._read(list(keys), lambda row: ImageFacts(*row)).items()}

    def sha256(self, file: Path) -> str:
        """Return the SHA-256 (hex) of a file, which is read only if its stamp has changed. Raises OSError."""
        path, now_ns, stamp = os.fsencode(file.absolute()), time.time_ns(), stamp_of(file)
        known = self.digests([path]).get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        digest = sha256_of(file)
        if stamp.is_settled(now_ns):
            self.keep({path: (stamp, digest)}, {}, "")
        return digest

    def keep(self, files: Mapping[bytes, tuple[Stamp, str]], facts: Mapping[str, ImageFacts], decoder: str) -> None:
        """Add or replace rows. A ledger that cannot be written stays as it is."""
        rows: dict[bytes, list[Any]] = {path: [*stamp, digest] for path, (stamp, digest) in files.items()}
        rows |= {f"{digest} {decoder}".encode(): list(astuple(fact)) for digest, fact in facts.items()}
        self._write(rows)

    def trial(self, key: str) -> list[Any] | None:
        """Return what `keep_trial` has kept under a key; None if nothing."""
        return self._read([key.encode()], lambda row: row).get(key.encode())

    def keep_trial(self, key: str, outcome: list[Any]) -> None:
        """Keep the outcome of a trial, JSON values, as `keep` does."""
        self._write({key.encode(): outcome})

    def _write(self, rows: Mapping[bytes, list[Any]]) -> None:
        if self.path is None or not rows:
            return
        lines = [(key, sealed({"key": os.fsdecode(key), "row": row})) for key, row in rows.items()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{self.path}.lock", timeout=_LOCK_S):
                if self._damaged:
                    self.path.unlink(missing_ok=True)
                    self._damaged = False
                with closing(sqlite3.connect(self.path, timeout=_LOCK_S)) as database, database:  # one transaction
                    database.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, row BLOB) WITHOUT ROWID")
                    database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", lines)
        except (OSError, sqlite3.Error) as error:  # filelock.Timeout is an OSError
            self._damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
            _log.info("the ledger %s cannot be written: %s", self.path, error)

    def _read(self, keys: Sequence[bytes], parse: Callable[[list[Any]], _Row]) -> dict[bytes, _Row]:
        """Return the undamaged rows with these keys."""
        found: dict[bytes, _Row] = {}
        if self.path is None or not self.path.exists():
            return found
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                for start in range(0, len(keys), _AT_ONCE):
                    some = keys[start : start + _AT_ONCE]
                    query = f"SELECT * FROM rows WHERE key IN ({','.join('?' * len(some))})"
                    for key, line in database.execute(query, some):
                        with contextlib.suppress(ValueError, TypeError, LookupError):
                            content = unsealed(line)
                            if content["key"] == os.fsdecode(key):
                                found[key] = parse(content["row"])
        except sqlite3.OperationalError as error:  # in use, or without our table
            _log.info("the ledger %s cannot be read: %s", self.path, error)
        except sqlite3.DatabaseError as error:
            _log.warning("the ledger %s is damaged (%s): its contents are computed again", self.path, error)
            self._damaged = True
        return found
