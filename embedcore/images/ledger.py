"""What earlier sessions found out about image files: kept in the cache folder, so that it is not paid for again.

Two tables: the content digest of a file by its path and stamp, and the facts of an image by its digest. Both can always
be found out anew, so whatever is wrong with the ledger (damaged, not writable, in use) costs time only: each row
carries a checksum, and one that does not match it is passed over.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock

FILE = "embedcore-audit.sqlite"  # within the cache folder

_FORMAT = 1
_AT_ONCE = 500  # values in one query; SQLite's limit was 999 for long
_PATIENCE_S = 10.0  # for another process that writes
_TABLES = """
    CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, row BLOB, checksum INTEGER) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS facts (key BLOB PRIMARY KEY, row BLOB, checksum INTEGER) WITHOUT ROWID;
"""
_log = logging.getLogger(__name__)
_Key = TypeVar("_Key", bound=Hashable)
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file. It changes whenever the content does.

    The change time tells what the modification time may hide, which programs set at will (``cp -p``, ``rsync -t``).
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class ImageFacts:
    """What decoding an image tells. Only of images that can be decoded."""

    width: int
    """Upright, in pixels."""
    height: int
    mode: str
    format: str
    animated: bool
    perceptual_hash: int


class Ledger:
    """The ledger of one cache folder."""

    def __init__(self, cache_dir: Path) -> None:
        self.path = cache_dir / FILE
        self._damaged = False

    def digests(self, paths: Sequence[bytes]) -> dict[bytes, tuple[Stamp, str]]:
        """Stamp and digest of the files that are known, by their absolute paths."""
        return self._read("files", "path", {path: path for path in paths}, lambda row: (Stamp(*row[:4]), str(row[4])))

    def facts(self, digests: Iterable[str], decoder: str) -> dict[str, ImageFacts]:
        """Facts of the contents that ``decoder`` has decoded, by digest."""
        keys = {f"{digest} {decoder}".encode(): digest for digest in digests}
        return self._read("facts", "key", keys, lambda row: ImageFacts(*row))

    def keep(self, files: Mapping[bytes, tuple[Stamp, str]], facts: Mapping[str, ImageFacts], decoder: str) -> None:
        """Add or replace rows. A ledger that cannot be written is left as it is."""
        if not files and not facts:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(lock_file(self.path), timeout=_PATIENCE_S):
                if self._damaged:
                    self.path.unlink(missing_ok=True)
                    self._damaged = False
                self._write(files, facts, decoder)
        except (OSError, sqlite3.Error) as error:  # filelock.Timeout is an OSError
            self._damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
            _log.info("what was found out about the images is not kept in %s: %s", self.path, error)

    def _write(self, files: Mapping[bytes, tuple[Stamp, str]], facts: Mapping[str, ImageFacts], decoder: str) -> None:
        rows: dict[str, list[tuple[bytes, Any]]] = {
            "files": [(path, [*astuple(stamp), digest]) for path, (stamp, digest) in files.items()],
            "facts": [(f"{digest} {decoder}".encode(), astuple(fact)) for digest, fact in facts.items()],
        }
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE_S)) as database:
            if database.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                database.executescript("DROP TABLE IF EXISTS files; DROP TABLE IF EXISTS facts;")
                database.execute(f"PRAGMA user_version = {_FORMAT}")
            database.executescript(_TABLES)
            with database:  # one transaction
                for table, pairs in rows.items():
                    encoded = [(key, json.dumps(row).encode()) for key, row in pairs]
                    database.executemany(
                        f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",
                        [(key, row, _checksum(key, row)) for key, row in encoded],
                    )

    def _read(
        self, table: str, column: str, wanted: Mapping[bytes, _Key], parse: Callable[[list[Any]], _Row]
    ) -> dict[_Key, _Row]:
        """The sound rows among those wanted, by what the key stands for."""
        found: dict[_Key, _Row] = {}
        if not self.path.exists():
            return found
        keys = list(wanted)
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                if database.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                    return found
                for start in range(0, len(keys), _AT_ONCE):
                    some = keys[start : start + _AT_ONCE]
                    query = f"SELECT * FROM {table} WHERE {column} IN ({','.join('?' * len(some))})"
                    for key, row, checksum in database.execute(query, some):
                        if checksum == _checksum(key, row):
                            found[wanted[key]] = parse(json.loads(row))
        except sqlite3.OperationalError as error:  # in use, or no ledger of ours
            _log.info("%s is not read: %s", self.path, error)
        except (sqlite3.DatabaseError, ValueError, TypeError, LookupError) as error:
            _log.warning("%s is damaged (%s): the images are looked at again", self.path, error)
            self._damaged = True
        return found


def lock_file(path: Path) -> str:
    """The lock that guards a file of the cache folder."""
    return f"{path}.lock"


def _checksum(key: object, row: object) -> int:
    return zlib.crc32(repr((key, row)).encode())
