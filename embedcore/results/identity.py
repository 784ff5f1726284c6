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


def find_runs(folder: Path) -> list[tuple[Path, JournalContents]]:
    """The journals of ``folder``, the newest first; other files are passed over."""
    found = []
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            contents = read_journal(path)
        except UsageError:  # killed before its header was whole, or damaged: nothing to continue
            continue
        found.append((path, contents))
    return found


def resume(folder: Path, identity: Mapping[str, Any]) -> tuple[Journal, Sequence[Any]] | None:
    """Reopen the newest unfinished run of ``folder`` with this identity; gives its journal and its results.

    None where there is none and a new run may start. Raises UsageError where the newest run of all is unfinished and
    has another identity, naming what differs, and where another process is still writing to the run. An unfinished
    run that another has followed was given up: it stands in nobody's way.
    """
    wanted = json_safe(identity)
    runs = find_runs(folder)
    for path, contents in runs:
        if not contents.finished and contents.header.get("identity") == wanted:
            journal, contents = Journal.reopen(path)
            return journal, contents.results
    if runs and not runs[0][1].finished:
        path, contents = runs[0]
        theirs = contents.header.get("identity")
        differing = differences(theirs if isinstance(theirs, dict) else {}, wanted)
        raise UsageError(
            f"--embed-resume: the newest run ({path}) is unfinished and another one: {'; '.join(differing)}. Run with "
            f"its settings, or once without --embed-resume to give it up"
        )
    return None


def _shown(value: object) -> str:
    return one_line(str(value))[:60]
