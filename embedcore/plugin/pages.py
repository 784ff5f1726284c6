"""``--embed-report``: the report folder at the end of the session, and its page while the session runs."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.plain import printable_lines
from embedcore.report import report_folder
from embedcore.report.run_page import EVERY_S, leaderboards, unfinished, write_page
from embedcore.results.record import Record

if TYPE_CHECKING:
    from embedcore.plugin.measuring import Measuring
    from embedcore.plugin.options import Options
    from embedcore.report.gallery.gallery import Gallery
    from embedcore.results.leaderboard import Leaderboard

SHARE = 50
"""Minimum time between two updates, as a multiple of the last update's duration: at most 2 % of the session."""


def write_report(options: Options, record: Record, measuring: Measuring | None) -> None:
    """Write the report of a session that has ended; `measuring`: None in a controller of pytest-xdist.

    Raises UsageError if it cannot be written.
    """
    assert options.report is not None
    boards = leaderboards(record)
    report_folder.write_report(
        options.report,
        boards,
        settings=record.settings,
        machine=record.machine,
        when=record.when,
        unfinished=unfinished(record),
        galleries=[_gallery(board, options, record, measuring) for board in boards],
        asked=options.gallery,
    )


def _gallery(board: Leaderboard, options: Options, record: Record, measuring: Measuring | None) -> Gallery | None:
    """Return what the models of a board retrieve; a pytest-xdist controller has to load the dataset for it."""
    from embedcore.report.gallery.gallery import dataset_of, gallery_of

    cache, asked = options.cache_folder, options.gallery
    if measuring is None:
        return gallery_of(board, cache, lambda: dataset_of(record.settings, cache), asked)
    fingerprint = str(board.dataset.get("fingerprint"))
    stores = measuring.bench.stores.get(fingerprint)
    return gallery_of(board, cache, lambda: measuring.datasets.get(fingerprint), asked, stores)


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
