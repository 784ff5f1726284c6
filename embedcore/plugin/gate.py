"""``--embed-compare``: compare this session with a saved run when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedcore.compare.comparison import Comparison, compare
from embedcore.compare.limits import read_limits
from embedcore.compare.verdict import Verdict, judge, why_no_answer
from embedcore.errors import UsageError
from embedcore.interrupts import terminations_as_interrupts
from embedcore.plugin.options import Options
from embedcore.results.reading import is_first_run, read_baseline
from embedcore.results.run import Run

EXIT_UNJUDGED = 2
"""Exit code of a session whose scores, drift or status cannot be compared with the baseline; as of `compare`."""

EXIT_UNDECIDED = 3
"""Exit code of a session with an undecided speed or memory, if `--embed-undecided fail` asks for it."""


class Gate:
    """The comparison of a session with a saved run."""

    def __init__(self, options: Options, *, storage: Path, folder: Path) -> None:
        """Read the baseline and the limits, before anything is measured so that mistakes are reported early.

        `storage`: pytest-benchmark's folder of saved runs; `folder`: the one that relative paths of limits refer to.
        Raises UsageError.
        """
        assert options.compare is not None
        self._options = options
        self._limits = read_limits(options.fail_on, folder)
        self._base: Run | None = None
        if not (options.allow_no_baseline and is_first_run(options.compare, storage=storage)):
            self._base = read_baseline(options.compare, option="--embed-allow-no-baseline", storage=storage)
        self._comparison: Comparison | None = None
        self._verdict: Verdict | None = None

    def judge(self, new: Run, *, settles: bool, seconds: float, write_line: Callable[[str], None]) -> None:
        """Compare the session's run with the saved one, if there is one.

        `settles`: measure suspect speeds again, interleaved, for at most `seconds`. Raises UsageError if interrupted.
        """
        if self._base is None:
            return
        self._comparison = compare(self._base, new)
        self._verdict = judge(self._comparison, self._limits)
        if not settles:
            return
        from embedcore.ab.confirm import ConfirmationLines, settle

        cache, progress = self._options.cache_folder, ConfirmationLines(write_line)
        try:
            with terminations_as_interrupts():
                self._verdict = settle(self._comparison, self._verdict, cache=cache, seconds=seconds, progress=progress)
        except KeyboardInterrupt:
            raise UsageError("--embed-compare: interrupted while suspect speeds were measured again") from None

    @property
    def exit_code(self) -> int:
        """Exit code of a session without other failures."""
        if self._verdict is None:
            return pytest.ExitCode.OK
        if self._verdict.failed:
            return pytest.ExitCode.TESTS_FAILED
        if self.unjudged:
            return EXIT_UNJUDGED
        fails = self._verdict.undecided and self._options.undecided == "fail"
        return EXIT_UNDECIDED if fails else pytest.ExitCode.OK

    @property
    def unjudged(self) -> str:
        """Why there is neither a regression nor a reason to pass, "" if there is one; see `why_no_answer`."""
        if self._comparison is None or self._verdict is None or self._verdict.failed:
            return ""
        why = why_no_answer(self._comparison, self._verdict)
        return why and f"--embed-compare: this session and {self._comparison.base.path} cannot be compared: {why}"

    def lines(self, width: int) -> Iterator[str]:
        """Yield the text of the comparison, and write it to GitHub's step summary and annotations."""
        from embedcore.report.gate.comparison_export import report_to_github
        from embedcore.report.gate.comparison_text import text

        if self._base is None:
            yield f"no baseline: nothing is saved at {self._options.compare} yet"
        if self._comparison is not None and self._verdict is not None:
            yield text(self._comparison, self._verdict, width=width)
            report_to_github(self._comparison, self._verdict)
