"""What makes two runs one: everything that changes a number, so that results of both may stand in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.results.journal import Journal, JournalContents, read_journal
from embedcore.results.plain import json_safe, one_line


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """One phrase for each entry in which two identities differ.

    >>> differences({"timm": "1.0.15", "seed": 0}, {"timm": "1.0.31", "seed": 0})
    ['timm 1.0.15, now 1.0.31']
    """
    keys = dict.fromkeys([*theirs, *ours])
    return [
        f"{key} {_shown(theirs.get(key))}, now {_shown(ours.get(key))}"
        for key in keys
        if theirs.get(key) != ours.get(key)
    ]


def find_unfinished(folder: Path) -> list[tuple[Path, JournalContents]]:
    """The journals of ``folder`` whose run has not finished, the newest first; other files are passed over."""
    found = []
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            contents = read_journal(path)
        except UsageError:  # killed before its header was whole, or damaged: nothing to continue
            continue
        if not contents.finished:
            found.append((path, contents))
    return found


def resume(folder: Path, identity: Mapping[str, Any]) -> tuple[Journal, Sequence[Any]] | None:
    """Reopen the newest unfinished run of ``folder`` with this identity; gives its journal and its results.

    None where no run is unfinished. Raises UsageError where there are some but none with this identity, naming what
    differs in the newest, and where another process is still writing to it.
    """
    wanted = json_safe(identity)
    unfinished = find_unfinished(folder)
    for path, contents in unfinished:
        if contents.header.get("identity") == wanted:
            journal, contents = Journal.reopen(path)
            return journal, contents.results
    if unfinished:
        path, contents = unfinished[0]
        theirs = contents.header.get("identity")
        differing = differences(theirs if isinstance(theirs, dict) else {}, wanted)
        raise UsageError(
            f"--embed-resume: the newest unfinished run ({path}) is another one: {'; '.join(differing)}. Run with its "
            f"settings, or without --embed-resume"
        )
    return None


def _shown(value: object) -> str:
    return one_line(str(value))[:60]
