"""The page of `--embed-report` while the session runs: written anew now and then, with how far the session is."""

from __future__ import annotations

import time
import traceback
from typing import Any

import pytest

from embedcore.plain import printable_lines
from embedcore.plugin import summary
from embedcore.plugin.stash import COLLECTOR, ON_REPORTS, OPTIONS, TELLER

EVERY_S = 60.0
"""At most so often."""
SHARE = 50
"""Not again before so many times what the last one took: the page never costs more than a fiftieth of the time."""


class LivePage:
    """A pytest plugin, not of pytest-xdist's workers, that writes the page between cases; it never ends a session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._due = self._now() + EVERY_S  # a session that is sooner done has its page at the end alone
        self._told = False

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    @pytest.hookimpl(trylast=True)  # after the collector has the results
    def pytest_runtest_logreport(self, report: Any) -> None:
        begin = self._now()
        if begin < self._due or not hasattr(report, ON_REPORTS) or not self._config.stash[COLLECTOR].results:
            return
        try:
            summary.write_page(self._config, reload_s=EVERY_S)
        except OSError as error:
            self._tell(f"{error.filename or self._config.stash[OPTIONS].report}: {error.strerror or error}")
        except Exception:  # of drawing: hours of measuring are worth more than a page
            self._tell(traceback.format_exc())
        end = self._now()
        self._due = end + max(EVERY_S, SHARE * (end - begin))

    def _tell(self, why: str) -> None:
        """Once; what is written at the end says it again where it still holds."""
        if not self._told:
            said = f"embedcore: the page of the run so far could not be written, and the run goes on: {why}"
            self._config.stash[TELLER].write(printable_lines(said))
        self._told = True
