"""How far the session is, told while it runs: a line below pytest's own on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from embedcore.plain import printable_lines
from embedcore.plugin import summary
from embedcore.plugin.stash import COLLECTOR, ON_REPORTS
from embedcore.progress import Stages
from embedcore.report.board.columns import cut_middle, figure, images_per_s, score
from embedcore.results.estimate import show_duration, show_range
from embedcore.results.leaderboard import rank
from embedcore.results.result import Result

if TYPE_CHECKING:
    from collections.abc import Iterable

QUIET_S = 2.0
"""What is done sooner shows no line on a terminal."""
REDRAWN_S = 0.1

SLOW_S = 10.0
"""A case that took longer has a line in a log when it ends."""
LOG_EVERY_S = 60.0
"""How often a log hears of the session at least, also within a case."""

_SHORTEST_NAME = 16


@dataclass(frozen=True)
class Position:
    """Where the session stands as something begins, a case or what comes before the first."""

    what: str
    """The model."""
    place: int = 0
    cases: int = 0
    """It is number ``place`` of so many; 0 where it is no case."""
    left_s: tuple[float, float] | None = None
    """Least and most seconds that this and all that follow are expected to take."""
    leader: Result | None = None


def leader_of(results: Iterable[Result], dataset: str | None) -> Result | None:
    """The best so far on that dataset; None without any that was measured."""
    rows = rank((result for result in results if result.ok and result.dataset == dataset), "acc", "acc5")
    return rows[0].result if rows else None


def stage_words(stage: str, done: int, total: int, *, rate: float = 0.0, seconds: float = 0.0) -> str:
    """A stage in words, after so many ``seconds`` in it, at a ``rate`` of images a second, where that is known.

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


def live_line(position: Position, stage: str, width: int, *, elapsed_s: float = 0.0) -> str:
    """At most ``width`` characters: number of the case, model, stage, time left and leader.

    Where room is short models are shortened in the middle, then the leader goes, then the time left.
    """
    number = f"[{position.place}/{position.cases}] " if position.cases else ""
    left = time_left(position, elapsed_s)
    tail = f": {stage}, {left} left" if left else f": {stage}"
    shortest = min(len(position.what), _SHORTEST_NAME)
    if len(number) + shortest + len(tail) > width:
        tail = f": {stage}"
    best = "" if position.leader is None else f", best {score(position.leader, 'acc')} "
    least = min(len(position.leader.model), _SHORTEST_NAME) if position.leader is not None else 0
    if len(number) + shortest + len(tail) + len(best) + least > width:
        best, least = "", 0
    line = number + cut_middle(position.what, width - len(number) - len(tail) - len(best) - least, "..") + tail + best
    if best and position.leader is not None:
        line += cut_middle(position.leader.model, width - len(line), "..")
    return line[:width]


def time_left(position: Position, elapsed_s: float = 0.0) -> str:
    """The time that is left, such as ``12 to 15 min``; "" where it is not known."""
    if position.left_s is None:
        return ""
    low, high = (max(0.0, seconds - elapsed_s) for seconds in position.left_s)
    return show_range(low, high)


def result_words(result: Result, leader: Result | None, width: int = 200) -> str:
    """What a case gave, in one line: scores, speed and the best so far, whose name is shortened to fit; its status
    where it could not be measured."""
    if result.ok:
        scores = (f"{metric} {score(result, metric)}" for metric in ("acc", "acc5"))
        words = ", ".join([*scores, f"{images_per_s(result)} images/s"])
        words += " (busy)" if result.disturbed else ""
    else:
        words = result.status
    if leader is None:
        return words
    if leader.model == result.model:
        return f"{words}; the best so far"
    words += f"; best {score(leader, 'acc')} "
    return words + cut_middle(leader.model, max(_SHORTEST_NAME, width - len(words)), "..")


class LiveLine:
    """A line of its own below the one that pytest is writing, which is left as it is, with the cursor where it was."""

    # Index moves down and scrolls at the last line, and unlike a line feed keeps the column; up again, save the cursor,
    # down. Lines are not wrapped meanwhile, should the terminal have become narrower.
    _BELOW = "\x1bD\x1b[A\x1b7\x1b[B\r\x1b[?7l"
    _BACK = "\x1b[K\x1b[?7h\x1b8"

    def __init__(self, config: pytest.Config) -> None:
        capture = config.pluginmanager.getplugin("capturemanager")
        self._reveal = capture.global_and_fixture_disabled if capture else contextlib.nullcontext
        self._config = config
        self._shown = False
        with self._reveal():
            quiet = config.get_verbosity() < 0 or config.pluginmanager.get_plugin("terminalreporter") is None
            # Live logs of pytest would be written over the line.
            logs = config.pluginmanager.has_plugin("logging-plugin") and (
                config.getini("log_cli") or config.getoption("log_cli_level") is not None
            )
            self.possible = not (quiet or logs) and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def width(self) -> int:
        with self._reveal():
            return os.get_terminal_size(sys.stdout.fileno()).columns - 1

    def show(self, text: str) -> None:
        columns = self.width() + 1
        written = self._config.get_terminal_writer().width_of_current_line
        if written and written % columns == 0:
            return  # the cursor stands beyond the last column, where no terminal can put it back
        self._write(text)
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            self._write("")
            self._shown = False

    def _write(self, text: str) -> None:
        with self._reveal():
            encoding = sys.stdout.encoding or "ascii"
            plain = printable_lines(text).encode(encoding, "replace").decode(encoding)
            sys.stdout.write(f"{self._BELOW}{plain}{self._BACK}")
            sys.stdout.flush()


class Teller:
    """A pytest plugin that tells how far the session is; with ``-q`` it does not."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._told = self._begun = time.monotonic()

    @contextlib.contextmanager
    def telling(self, position: Position) -> Iterator[Stages]:
        """Gives what is to be called as work goes on; on a terminal its line vanishes at the end."""
        line = LiveLine(self._config)
        begin = self._begun = time.monotonic()
        stage, entered, at_first, drawn = "", begin, 0, 0.0

        def stages(now_in: str, done: int, total: int) -> None:
            nonlocal stage, entered, at_first, drawn
            now = time.monotonic()
            changed = now_in != stage or done < at_first
            if changed:
                stage, entered, at_first = now_in, now, done
            to_draw = line.possible and now - begin >= QUIET_S and (changed or now - drawn >= REDRAWN_S)
            if not to_draw and (line.possible or now - self._told < LOG_EVERY_S or self._config.get_verbosity() < 0):
                return
            rate = (done - at_first) / (now - entered) if now > entered else 0.0
            words = stage_words(stage, done, total, rate=rate, seconds=now - entered)
            if to_draw:
                drawn = now
                line.show(live_line(position, words, line.width(), elapsed_s=now - begin))
            else:
                self._log(live_line(position, words, 200, elapsed_s=now - begin))

        try:
            yield stages
        finally:
            line.clear()

    @pytest.hookimpl(trylast=True)  # below the terminal's own line, and after the collector has the results
    def pytest_runtest_logreport(self, report: Any) -> None:
        if not self._config.pluginmanager.has_plugin("terminalreporter"):
            return
        carried = getattr(report, ON_REPORTS, {})
        if carried.get("notes"):
            self.write(summary.note_lines(self._config, carried["notes"]))
        results = [Result.from_json(fields) for fields in carried.get("results", ())]
        verbose = self._config.get_verbosity() > 0
        if not results or not (verbose or self._is_due()):
            return
        width = self._config.get_terminal_writer().fullwidth
        for result in results:
            leader = leader_of(self._config.stash[COLLECTOR].results.values(), result.dataset)
            if verbose:
                self.write(f"  {result_words(result, leader, width - 3)}")
        if self._is_due():
            said = "" if verbose else f"{results[-1].model}: {result_words(results[-1], leader)}; "
            self._log(f"{said}{summary.how_far(self._config)}")

    def _is_due(self) -> bool:
        """Whether a log is to hear of the session, since a case took long or nothing was told for long."""
        now = time.monotonic()
        slow = self._begun > self._told and now - self._begun >= SLOW_S
        due = self._config.get_verbosity() >= 0 and (slow or now - self._told >= LOG_EVERY_S)
        return due and not LiveLine(self._config).possible

    def _log(self, line: str) -> None:
        self._told = time.monotonic()
        self.write(f"embedcore: {line}")

    def write(self, line: str) -> None:
        """Write a line between those of pytest."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            summary.tell(self._config, line)


class LineOfWorkers:
    """A pytest plugin of pytest-xdist's controller: between two reports a line tells how far the session is."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._line = LiveLine(config)
        self._position: Position | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logstart(self) -> Iterator[None]:  # with -v the terminal writes here
        with self._away():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self, report: Any) -> Iterator[None]:
        with self._away():
            yield
            for fields in getattr(report, ON_REPORTS, {}).get("results", ()):
                self._position = self._position_after(Result.from_json(fields))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._line.clear()

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        """The line vanishes while others write."""
        self._line.clear()
        yield
        if self._position is not None and self._line.possible:
            self._line.show(live_line(self._position, "done", self._line.width()))

    def _position_after(self, result: Result) -> Position | None:
        collector = self._config.stash[COLLECTOR]
        left, seconds = summary.remaining(self._config)
        if not left:
            return None
        leader = leader_of(collector.results.values(), result.dataset)
        return Position(result.model, len(collector.cases) - left, len(collector.cases), seconds, leader)
