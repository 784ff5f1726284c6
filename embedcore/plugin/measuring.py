"""Measure the cases of a session: the race before the first case, each case, and the timing passes after the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from embedcore.errors import UsageError
from embedcore.forkserver import renew_forkserver
from embedcore.images.dataset import Dataset
from embedcore.measure.bench import Bench, Measured
from embedcore.plain import counted, printable_lines
from embedcore.plugin.budget import Budget, BudgetSpent
from embedcore.plugin.options import Options
from embedcore.plugin.progress import Position, Reports
from embedcore.plugin.race import forget_stages, run_race
from embedcore.progress import Stages
from embedcore.results import neighbours
from embedcore.results.process import TimingProcess
from embedcore.results.record import Record
from embedcore.results.result import Result
from embedcore.results.saved import dataset_block


@dataclass
class Measuring:
    """Measures the cases of a session or of a notebook; knows nothing of pytest."""

    bench: Bench
    datasets: dict[str, Dataset]
    """By fingerprint, the session's own first."""
    options: Options
    record: Record
    budget: Budget
    progress: Reports
    following: str | None = None
    """The model of the next test, if that has no result yet."""
    _left_race: dict[tuple[str, str], Result] = field(default_factory=dict)
    """Results of the models that left the race, by model and dataset."""

    @property
    def dataset(self) -> Dataset:
        """The session's own dataset."""
        return next(iter(self.datasets.values()))

    def race(self, say: Callable[[str], None]) -> None:
        """Find the models that cannot be among the best. Raises UsageError, BudgetSpent; ``say`` shows a line."""
        self.dataset.expect_classes()
        found = run_race(self.bench, self.record, self.dataset, self.options, self.budget, self.progress, say)
        self._left_race = {(model, self.dataset.fingerprint): result for model, result in found.items()}

    def measure(self, model: str, dataset: Dataset, test: str, stages: Stages) -> Measured:
        """Measure a case, or return its result from before the resume or from the race.

        Raises BudgetSpent, and UsageError if the images or the cache folder cannot be used.
        """
        dataset.expect_classes()
        before = self.bench.earlier(self.record, model, dataset, test)
        if dataset.fingerprint not in self.datasets:
            self.datasets[dataset.fingerprint] = dataset
            self.record.add({"datasets": [dataset_block(dataset)]})
        if before := before or self._left_race.get((model, dataset.fingerprint)):
            return Measured(before, None)
        self.prune(neighbours.SPARE)
        following = None
        if self.following is not None and (self.following, dataset.fingerprint) not in self._left_race:
            following = self.bench.case(self.following)
        left = self.budget.left()
        measured = self.bench.run(self.bench.case(model), dataset, stages, limit_s=left, following=following)
        if measured.result.status == "timeout" and self.budget.left() <= 0:
            raise BudgetSpent
        return measured

    def prune(self, spare: int = 0) -> None:
        """Remove the neighbours of models that no report would show; see `NeighbourStore.prune`."""
        assert self.bench.neighbours is not None  # from `start.begin` on
        self.bench.neighbours.prune(self.record.results.values(), self.options.gallery, spare=spare)

    def finish(self) -> None:
        """Delete the race's embeddings, and time the cases in further processes."""
        if self.options.race and not self.options.keep_embeddings:
            forget_stages(self.bench, self.record, self.record.planned.values())
        if not self.options.is_quick_look:
            self._time_again()

    def _time_again(self) -> None:
        """Time each measured case in further processes, one pass over all cases after the other.

        A case that cannot be timed again, for lack of time for example, keeps its timings, with a warning.
        """
        processes = self.options.processes
        for number in range(2, processes + 1):
            due = [result for result in self.record.results.values() if _is_due(result, number)]
            renew_forkserver()
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
