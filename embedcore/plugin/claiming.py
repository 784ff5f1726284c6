"""``--embed-claim``: sessions without a controller take the cases of one run from a shared folder."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from embedcore.errors import EmbedcoreError
from embedcore.plain import counted, printable_lines
from embedcore.plugin import summary
from embedcore.plugin.budget import Budget
from embedcore.plugin.cases import is_case
from embedcore.plugin.options import Options
from embedcore.results.claims import LEASE_S, Claims, agree, name_of_worker, next_case
from embedcore.results.merge import must_agree
from embedcore.results.record import Record


def join(folder: Path, header: Mapping[str, Any], run: str) -> Claims:
    """Join the run in a shared folder; `header`: of this session's record; `run`: name of the run if it is new.

    Raises UsageError if its images, settings or versions differ from those of this session. The machine may differ.
    """
    identity = {name: value for name, value in header["identity"].items() if name != "machine"}
    name = agree(folder, run, {**must_agree(header["settings"], header["machine"]), **identity})
    return Claims(folder, name, name_of_worker(), LEASE_S)


class Claiming:
    """A plugin whose loop runs the tests in place of pytest's: cases as it claims them, other tests in their order."""

    def __init__(
        self, claims: Claims, record: Record, budget: Budget, options: Options, say: Callable[[str], None]
    ) -> None:
        self._claims, self._record, self._budget, self._options, self._say = claims, record, budget, options, say
        self._tests: dict[str, str] = {}
        """Planned tests: id to model."""
        self._cases: dict[str, pytest.Item] = {}
        """By test id, in the session's order."""
        self._before: deque[pytest.Item] = deque()
        self._after: deque[pytest.Item] = deque()
        """Other tests before and after the first case."""
        self._ours: set[str] = set()
        """Ids of the claimed cases."""
        self._exhausted = False
        self.no_cases = ""
        """Message of a session that has claimed no case."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None  # pytest's own loop ends the session
        try:
            with self._claims:
                self._loop(session)
        except EmbedcoreError as error:
            pytest.exit(printable_lines(str(error)), returncode=pytest.ExitCode.USAGE_ERROR)
        finally:
            self._leave(session)
        if self._cases and not self._ours:
            self.no_cases = f"--embed-claim: no case is left: all {len(self._cases)} are done or claimed elsewhere"
        return True

    def _loop(self, session: pytest.Session) -> None:
        self._tests = dict(self._record.planned)
        for each in session.items:
            if is_case(each):
                self._cases[each.nodeid] = each
            else:
                (self._after if self._cases else self._before).append(each)
        if elsewhere := len(self._cases) - len(self._claims.overview(self._cases).free):
            self._say(f"{elsewhere} of {counted(len(self._cases), 'case')} are done or claimed elsewhere")
        item = self._next(session)
        while item is not None:
            # pytest needs the next test to tear fixtures down; its process also starts ahead.
            following = self._next(session, ahead=True)
            self._run(session, item, following)
            item = following or self._next(session)

    def _next(self, session: pytest.Session, *, ahead: bool = False) -> pytest.Item | None:
        """Return the next test; with `ahead` also None if that is not decided yet."""
        if self._before:
            return self._before.popleft()
        if not self._exhausted:
            case = self._claim(session, ahead=ahead)
            if case is not None or ahead:
                return case
            self._exhausted = True
        return self._after.popleft() if self._after else None

    def _claim(self, session: pytest.Session, *, ahead: bool) -> pytest.Item | None:
        """Claim a case; return None if none is left.

        Without `ahead`, wait for the cases of other workers until they are done, or free again, or their workers have
        shown that they live.
        """
        costs = self._record.header.get("costs", {})
        since: float | None = None
        lost: set[str] = set()  # another worker was faster
        while self._record.journal_whole:
            view = self._claims.overview(test for test in self._cases if test not in self._ours)
            free = {test: generation for test, generation in view.free.items() if test not in lost}
            expected = free.keys() | self._ours
            self._record.planned = {test: model for test, model in self._tests.items() if test in expected}
            of_free = {test: costs.get(self._tests[test]) for test in free}
            chosen = next_case(of_free, view.workers, self._fits, ahead=ahead)
            if chosen is not None:
                if self._claims.claim(chosen, free[chosen]):
                    self._ours.add(chosen)
                    return self._cases[chosen]
                lost.add(chosen)
            elif ahead:
                return None
            elif free:
                raise session.Interrupted(summary.budget_message(self._budget, self._record, self._options))
            else:
                since = self._waiting(len(view.held)) if since is None else since
                if all(beat > since for beat in view.held.values()):
                    return None
                time.sleep(self._claims.lease_s / 30)
        return None

    def _waiting(self, held: int) -> float:
        """Return the time now; if other workers hold cases, say that this one waits for them."""
        if held:
            lease = f"{self._claims.lease_s:.0f} s"
            self._say(f"waiting up to {lease} for the workers that have the last {counted(held, 'case')}")
        return self._claims.now()

    def _fits(self, test: str) -> bool:
        return self._budget.left() > (self._record.expected_s(test) or 0.0)

    def _run(self, session: pytest.Session, item: pytest.Item, following: pytest.Item | None) -> None:
        ended = False
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            ended = True
        finally:
            if item.nodeid in self._ours:
                self._finish(item.nodeid, ended=ended)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)

    def _finish(self, test: str, *, ended: bool) -> None:
        """Mark a case as done if its result is in the journal, or if it `ended` without one."""
        results = self._record.results_of(test)
        if self._record.journal_whole and (results or ended):
            self._claims.finish(test, final=bool(results) and all(result.final for result in results.values()))

    def _leave(self, session: pytest.Session) -> None:
        """Leave the cases of other workers out of the session's results."""
        done = {entry.test for entry in self._record.entries}
        self._record.planned = {test: model for test, model in self._tests.items() if test in done}
        others = [item for test, item in self._cases.items() if test not in self._ours]
        if others:
            session.config.hook.pytest_deselected(items=others)
        models = {self._tests[item.nodeid] for item in others} - set(self._record.planned.values())
        selection = self._record.header.get("selection") or {}
        self._record.header["selection"] = {**selection, "other_shards": sorted(models)}
