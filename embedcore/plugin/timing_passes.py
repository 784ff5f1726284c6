"""Further passes over the measured cases, which only time them, each in another fresh process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from embedcore.errors import UsageError
from embedcore.plain import counted, printable_lines
from embedcore.plugin.budget import Budget, BudgetSpent
from embedcore.plugin.progress import Position, Reports
from embedcore.results.process import TimingProcess
from embedcore.results.record import Record
from embedcore.results.result import Result

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.measure.bench import Bench


@dataclass(frozen=True)
class TimingPasses:
    """The passes of a session: its bench, record, budget and progress."""

    bench: Bench
    record: Record
    datasets: Mapping[str, Dataset]
    """By fingerprint."""
    budget: Budget
    progress: Reports

    def run(self, processes: int) -> None:
        """Time each measured case until it has been timed in ``processes`` processes, one pass after the other.

        A case that cannot be timed again, for lack of time for example, keeps what it has; a warning says so.
        """
        for number in range(2, processes + 1):
            due = [result for result in self.record.results.values() if _is_due(result, number)]
            self.bench.expect({result.model: result for result in due}, self.record)
            for place, result in enumerate(due):
                try:
                    why = self._time(result, Position(result.model, place + 1, len(due), process=number))
                except BudgetSpent:
                    cases = counted(len(due) - place, "case")
                    self.record.warnings.append(
                        f"the budget was used up before {cases} could be timed in {processes} processes: these speeds "
                        "will not be compared with another run"
                    )
                    return
                if why:
                    self.record.warnings.append(f"{result.model}: not timed in process {number}: {why}")

    def _time(self, result: Result, position: Position) -> str:
        """Time a case once more; return why that failed, or "". Raises BudgetSpent."""
        if self.budget.left() <= 0:
            raise BudgetSpent
        dataset = self.datasets[str(result.dataset)]
        with self.progress.reporting(position) as stages:
            try:
                timed = self.bench.time(result, dataset, self.budget.within(stages), limit_s=self.budget.left())
            except UsageError as error:  # from the cache folder
                return printable_lines(str(error))
        if isinstance(timed, TimingProcess):
            process = msgspec.to_builtins(timed)
            self.record.add({"timed": [result.model, result.dataset], "process": process})
            return ""
        if timed.status == "timeout" and self.budget.left() <= 0:
            raise BudgetSpent
        return f"{timed.status}: {timed.reason}"


def _is_due(result: Result, number: int) -> bool:
    """Whether a result has been timed, in fewer processes than ``number``."""
    return result.ok and bool(result.durations) and len(result.processes) < number
