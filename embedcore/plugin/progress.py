"""Progress while the session runs: a status line on a terminal, a line from time to time in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pytest

from embedcore.durations import show_duration, show_range
from embedcore.plugin.terminal import StatusLine, Terminal
from embedcore.progress import Stages
from embedcore.report.board.columns import cut_middle, figure, images_per_s, score
from embedcore.report.run_page import remaining_words
from embedcore.results.record import Record, Seconds
from embedcore.results.result import Result

SHOWN_AFTER_S = 2.0
"""Shorter work shows no status line."""
REDRAWN_S = 0.1

SLOW_S = 10.0
"""A case that took longer is logged when it ends."""
LOG_EVERY_S = 60.0
"""Maximum seconds between two lines of a log, also within a case."""

_SHORTEST_NAME = 16


@dataclass(frozen=True)
class Position:
    """Progress of the session when some work begins: a case, or the preparation of the first one."""

    what: str
    """The model."""
    number: int = 0
    cases: int = 0
    """The work is case ``number`` of ``cases``; 0 for the preparation."""
    left_s: Seconds | None = None
    """Expected duration of this and all further cases."""
    leader: Result | None = None
    process: int = 1
    """Number of the fresh process in which the case is timed."""
    race: int = 0
    """Number of classes of the stage of the race that the work belongs to; 0 for other work."""


def position(record: Record, model: str, dataset: str | None, *, done: bool = False) -> Position:
    """Return the position before the case of a model on the dataset of that fingerprint; or after it, if it is done."""
    left, seconds = record.remaining()
    cases = len(record.planned)
    return Position(model, cases - left + (not done), cases, seconds, record.leader(dataset))


def stage_words(stage: str, done: int, total: int, *, rate: float = 0.0, seconds: float = 0.0) -> str:
    """Describe a stage after ``seconds`` in it, at a ``rate`` of images per second if it is known.

    >>> stage_words("timing", 2, 10), stage_words("embedding", 96, 1164, rate=35.2), stage_words("loading", 0, 0)
    ('timing round 3/10', 'embedding 96/1164, 35.2 images/s', 'loading')
    """
    if stage == "timing" and not done:
        return "warming up"
    if stage == "timing":
        return f"timing round {min(done + 1, total)}/{total}"
    if not total:
        return f"{stage}, {show_duration(seconds)}" if seconds >= 1 else stage
    return f"{stage} {done}/{total}".lstrip() + (f", {figure(rate)} images/s" if rate else "")


def status_text(position: Position, stage: str, width: int, *, elapsed_s: float = 0.0) -> str:
    """Return number of the case, model, stage, time left and leader in at most ``width`` characters.

    If room is short, models are shortened in the middle, then the leader is left out, then the time left.
    """
    number = f"[{position.number}/{position.cases}] " if position.cases else ""
    if position.process > 1:
        number = f"timing again, process {position.process}: {number}"
    if position.race:
        number = f"race on {position.race} classes: {number}"
    left = time_left(position, elapsed_s)
    tail = f": {stage}, {left} left" if left else f": {stage}"
    shortest = min(len(position.what), _SHORTEST_NAME)
    if len(number) + shortest + len(tail) > width:
        tail = f": {stage}"
    best = "" if position.leader is None else f", best {score(position.leader, position.leader.headline.first)} "
    least = min(len(position.leader.model), _SHORTEST_NAME) if position.leader is not None else 0
    if len(number) + shortest + len(tail) + len(best) + least > width:
        best, least = "", 0
    text = number + cut_middle(position.what, width - len(number) - len(tail) - len(best) - least, "..") + tail + best
    if best and position.leader is not None:
        text += cut_middle(position.leader.model, width - len(text), "..")
    return text[:width]


def time_left(position: Position, elapsed_s: float = 0.0) -> str:
    """Return the time left, such as ``12 to 15 min``; "" if it is not known."""
    if position.left_s is None:
        return ""
    low, high = (max(0.0, seconds - elapsed_s) for seconds in position.left_s)
    return show_range(low, high)


def result_words(result: Result, leader: Result | None, width: int = 200) -> str:
    """Return a case's scores, speed and the best model so far, whose name is cut to fit; its status if not measured."""
    if result.ok:
        scores = (f"{metric} {score(result, metric)}" for metric in result.headline)
        words = ", ".join([*scores, f"{images_per_s(result)} images/s"])
        words += " (busy)" if result.disturbed else ""
    else:
        words = result.status
    if leader is None:
        return words
    if leader.model == result.model:
        return f"{words}; the best so far"
    words += f"; best {score(leader, leader.headline.first)} "
    return words + cut_middle(leader.model, max(_SHORTEST_NAME, width - len(words)), "..")


class Reports(Protocol):
    """Shows the progress of some work."""

    def reporting(self, position: Position) -> contextlib.AbstractContextManager[Stages]:
        """Yield a callback for the stages of the work."""


class ProgressReporter:
    """Reports the session's progress, except with ``-q``."""

    def __init__(self, config: pytest.Config, terminal: Terminal, record: Record) -> None:
        self._config, self._terminal, self._record = config, terminal, record
        self._logged = self._begun = time.monotonic()
        self._between = StatusLine(config, terminal)  # for pytest-xdist's controller, between two reports
        self._last: Position | None = None

    @contextlib.contextmanager
    def reporting(self, position: Position) -> Iterator[Stages]:
        """Yield a callback for the stages of some work; a status line on a terminal vanishes at the end."""
        line = StatusLine(self._config, self._terminal)
        begin = self._begun = time.monotonic()
        stage, entered, at_first, drawn = "", begin, 0, 0.0

        def stages(current: str, done: int, total: int) -> None:
            nonlocal stage, entered, at_first, drawn
            now = time.monotonic()
            changed = current != stage or done < at_first
            if changed:
                stage, entered, at_first = current, now, done
            to_draw = line.possible and now - begin >= SHOWN_AFTER_S and (changed or now - drawn >= REDRAWN_S)
            if not to_draw and (line.possible or now - self._logged < LOG_EVERY_S or self._terminal.verbosity < 0):
                return
            rate = (done - at_first) / (now - entered) if now > entered else 0.0
            words = stage_words(stage, done, total, rate=rate, seconds=now - entered)
            if to_draw:
                drawn = now
                line.show(status_text(position, words, line.width(), elapsed_s=now - begin))
            else:
                self._log(status_text(position, words, 200, elapsed_s=now - begin))

        try:
            yield stages
        finally:
            line.clear()

    def show(self, results: Sequence[Result]) -> None:
        """Show a test's results: each with ``-v``; in a log, the last one from time to time."""
        if not self._terminal.exists:
            return
        verbose = self._terminal.verbosity > 0
        for result in results if verbose else ():
            words = result_words(result, self._record.leader(result.dataset), self._terminal.width - 3)
            self._terminal.write_line(f"  {words}")
        if results and self._is_due():
            last = results[-1]
            words = "" if verbose else f"{last.model}: {result_words(last, self._record.leader(last.dataset))}; "
            self._log(f"{words}{remaining_words(*self._record.remaining())}")

    def _is_due(self) -> bool:
        """Whether a log needs a line: a case took long, or nothing has been logged for long."""
        now = time.monotonic()
        slow = self._begun > self._logged and now - self._begun >= SLOW_S
        due = self._terminal.verbosity >= 0 and (slow or now - self._logged >= LOG_EVERY_S)
        return due and not StatusLine(self._config, self._terminal).possible

    def _log(self, line: str) -> None:
        self._logged = time.monotonic()
        self._terminal.write_line(f"embedcore: {line}")

    @contextlib.contextmanager
    def status_hidden(self) -> Iterator[None]:
        """Hide the controller's status line while something else is written."""
        self._between.clear()
        yield
        if self._last is not None and self._between.possible:
            self._between.show(status_text(self._last, "done", self._between.width()))

    def advance(self, results: Sequence[Result]) -> None:
        """Have the controller's status line describe the last of these results; none when no case is left."""
        for result in results:
            now = position(self._record, result.model, result.dataset, done=True)
            self._last = now if now.number < now.cases else None

    def close(self) -> None:
        """Remove the controller's status line."""
        self._last = None
        self._between.clear()
