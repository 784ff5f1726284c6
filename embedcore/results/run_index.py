"""The index of the runs in a cache folder: identity and progress of each, so that a journal is read once."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import msgspec

from embedcore.files import sealed, unsealed, written_whole
from embedcore.results.journal import read_header
from embedcore.version import VERSION

FILE = "index.json"
"""In the folder of the journals. It can be computed again, so a damaged one only costs time."""


class IndexedRun(msgspec.Struct):
    """The index's entry of a run, valid while its journals have these states."""

    files: list[tuple[str, int, int]]
    """Name, size and time of modification (ns) of each journal."""
    journals: list[str]
    """Names of the journals that have a header."""
    identity: dict[str, Any]
    finished: bool | None = None
    """None until it has been asked."""
    processes: int | None = None
    """See `Outline.processes`."""

    def is_complete(self, processes: int) -> bool:
        """Whether it is finished, and each case has been timed in this many processes."""
        return bool(self.finished) and (self.processes is None or self.processes >= processes)


class RunIndex:
    """The index of a folder of journals. It never trusts an entry whose journals have changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs: dict[str, IndexedRun] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError, LookupError, msgspec.ValidationError):
            content = unsealed((folder / FILE).read_bytes())
            if content["embedcore"] == VERSION:
                self._runs = msgspec.convert(content["runs"], dict[str, IndexedRun])

    def run(self, name: str, paths: Iterable[Path]) -> IndexedRun:
        """Return the entry of a run with these journals. Raises UsageError as `read_header` does."""
        paths = sorted(paths)
        files = [(path.name, (status := path.stat()).st_size, status.st_mtime_ns) for path in paths]
        known = self._runs.get(name)
        if known is not None and known.files == files:
            return known
        headers = {path.name: header for path in paths if (header := read_header(path)) is not None}
        identity = next(iter(headers.values()), {}).get("identity")
        self._runs[name] = IndexedRun(files, [*headers], identity if isinstance(identity, dict) else {})
        self._changed = True
        return self._runs[name]

    def note(self, run: IndexedRun, finished: bool, processes: int | None) -> None:
        """Note the progress of a run."""
        run.finished, run.processes = finished, processes
        self._changed = True

    def keep(self, names: Container[str]) -> None:
        """Write the entries of these runs, if any is new. A folder that cannot be written stays as it is."""
        if not self._changed:
            return
        runs = {name: msgspec.to_builtins(run) for name, run in self._runs.items() if name in names}
        with contextlib.suppress(OSError), written_whole(self.folder / FILE) as file:
            file.write(sealed({"embedcore": VERSION, "runs": runs}))
