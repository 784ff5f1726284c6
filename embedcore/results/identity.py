"""What makes two runs one: everything that changes a number, so that results of both may stand in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcore.errors import UsageError
from embedcore.plain import json_safe, one_line
from embedcore.results.journal import Journal, JournalContents, read_journal


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


@dataclass(frozen=True)
class Resumed:
    """An unfinished run that goes on."""

    journal: Journal
    contents: JournalContents


def find_runs(folder: Path) -> tuple[list[tuple[Path, JournalContents]], list[str]]:
    """The journals of ``folder``, the newest first, and why others were passed over.

    A journal whose process was killed before its header was whole holds nothing, and is passed over in silence.
    """
    found, passed_over = [], []
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            found.append((path, read_journal(path)))
        except UsageError as error:
            if b"\n" in path.read_bytes():
                passed_over.append(str(error))
    return found, passed_over


def resume(folder: Path, identity: Mapping[str, Any]) -> tuple[Resumed | None, list[str]]:
    """Reopen the newest unfinished run of ``folder`` with this identity; also lines to tell of what was damaged.

    None where there is none and a new run may start. Raises UsageError where the newest run of all is unfinished and
    has another identity, naming what differs, and where another process is still writing to the run. An unfinished
    run that another has followed was given up: it stands in nobody's way.
    """
    wanted = json_safe(identity)
    runs, notices = find_runs(folder)
    for path, contents in runs:
        if not contents.finished and contents.header.get("identity") == wanted:
            resumed = Resumed(*Journal.reopen(path))
            damaged = resumed.contents.damaged
            if damaged:
                notices.append(f"journal {path}: {'; '.join(damaged)}: measured again")
            return resumed, notices
    if runs and not runs[0][1].finished:
        path, contents = runs[0]
        theirs = contents.header.get("identity")
        differing = differences(theirs if isinstance(theirs, dict) else {}, wanted)
        raise UsageError(
            f"--embed-resume: the newest run ({path}) is unfinished and another one: {'; '.join(differing)}. Run with "
            f"its settings, or once without --embed-resume to give it up"
        )
    return None, notices


def _shown(value: object) -> str:
    return one_line(str(value))[:60]
