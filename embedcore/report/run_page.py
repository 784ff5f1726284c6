"""The page of a run from its record, also while the run is in progress."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.durations import show_range
from embedcore.plain import counted, minute
from embedcore.results.leaderboard import TITLES, Leaderboard, build
from embedcore.results.record import Record, Seconds

if TYPE_CHECKING:
    from embedcore.report.board.board_page import Unfinished

EVERY_S = 60.0
"""Seconds between two updates of the page."""
MOST_RANKED = 300
"""With more models, computing how certain their ranks are takes longer than writing the page: it is left to the end."""


def leaderboards(record: Record, *, ranked: bool = True) -> list[Leaderboard]:
    """Return the leaderboard of each dataset; `ranked`: with the certainty of the ranks."""
    rankings = record.rankings() if ranked else {}
    return [
        build(record.results_on(fingerprint), dataset=block, titles=TITLES, rankings=rankings.get(fingerprint))
        for fingerprint, block in record.used_datasets.items()
    ]


def write_page(folder: Path, record: Record, reload_s: float) -> None:
    """Write the page of a run in progress, which reloads after `reload_s` seconds. Raises OSError."""
    from embedcore.report import report_folder

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
    from embedcore.report.board.board_page import Unfinished

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


def remaining_words(count: int, seconds: Seconds | None) -> str:
    """Describe the cases left, and the time they take if it is known.

    >>> remaining_words(3, (700.0, 900.0)), remaining_words(1, None)
    ('3 cases left, 12 to 15 min', '1 case left')
    """
    expected = "" if seconds is None or not count else f", {show_range(*seconds)}"
    return f"{counted(count, 'case')} left{expected}"
