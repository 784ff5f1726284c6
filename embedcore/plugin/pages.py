"""``--embed-report``: the report folder at the end of the session, and its page while the session runs."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.plain import minute, printable_lines
from embedcore.plugin.progress import remaining_words
from embedcore.plugin.summary import leaderboards
from embedcore.report import report_folder
from embedcore.report.board.board_page import Unfinished
from embedcore.results.record import Record

if TYPE_CHECKING:
    from embedcore.report.gallery.gallery import Gallery
    from embedcore.results.leaderboard import Leaderboard

EVERY_S = 60.0
"""Minimum seconds between two page updates."""
SHARE = 50
"""Minimum time between two updates, as a multiple of the last update's duration: at most 2 % of the session."""
MOST_RANKED = 300
"""With more models, computing how certain their ranks are takes longer than the page, so it is left to the end."""


def write_report(
    folder: Path, record: Record, gallery_of: Callable[[Leaderboard], Gallery | None], asked: Sequence[str]
) -> None:
    """Write the report of a session that has ended; `asked`: models of the gallery besides the leaders.

    Raises UsageError if it cannot be written.
    """
    boards = leaderboards(record)
    report_folder.write_report(
        folder,
        boards,
        settings=record.settings,
        machine=record.machine,
        when=record.when,
        unfinished=unfinished(record),
        galleries=[gallery_of(board) for board in boards],
        asked=asked,
    )


def write_page(folder: Path, record: Record, reload_s: float) -> None:
    """Write the page of a running session, which reloads after `reload_s` seconds. Raises OSError."""
    ranked = len(record.results) <= MOST_RANKED
    state = unfinished(record, reload_s)
    if state is not None and not ranked:
        state = replace(state, words=f"{state.words} The certainty of the ranks is computed at the end.")
    pages = report_folder.pages(
        leaderboards(record, ranked=ranked),
        settings=record.settings,
        machine=record.machine,
        when=record.when,
        unfinished=state,
    )
    report_folder.put(folder, pages)


def unfinished(record: Record, reload_s: float | None = None) -> Unfinished | None:
    """Return what the page shows of an unfinished run; None if all cases are done."""
    cases = len(record.planned)
    done = cases - len(record.unreached)
    if done >= cases and reload_s is None:
        return None
    words = f"{done:,} of {cases:,} cases are done"
    if reload_s is None:
        return Unfinished(done, cases, f"Not finished: {words}.")
    clock = minute(record.when)[11:]
    left = remaining_words(*record.remaining())
    return Unfinished(
        done, cases, f"This run is in progress: {words}; {left}. As of {clock} UTC; this page reloads itself.", reload_s
    )


class LivePage:
    """Updates the page between cases; never ends a session."""

    def __init__(self, folder: Path, record: Record, warn: Callable[[str], None]) -> None:
        self._folder, self._record, self._warn = folder, record, warn
        self._due = self._now() + EVERY_S  # shorter sessions write the page only at the end
        self._warned = False

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    def update(self) -> None:
        """Write the page if it is due."""
        begin = self._now()
        if begin < self._due or not self._record.results:
            return
        try:
            write_page(self._folder, self._record, reload_s=EVERY_S)
        except OSError as error:
            self._warn_once(f"{error.filename or self._folder}: {error.strerror or error}")
        except Exception:  # from drawing; hours of measuring are worth more than a page
            self._warn_once(traceback.format_exc())
        end = self._now()
        self._due = end + max(EVERY_S, SHARE * (end - begin))

    def _warn_once(self, why: str) -> None:
        """Warn about the first failure only; the report at the end raises the error if it persists."""
        if not self._warned:
            self._warn(printable_lines(f"embedcore: the page could not be updated; the run continues: {why}"))
        self._warned = True
