"""The books of one pytest session: what was measured, and where it is kept."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcore.errors import UsageError
from embedcore.measure.admission import refusal, weights_changed
from embedcore.measure.case import Case
from embedcore.measure.executors import ChildExecutor, Executor, InlineExecutor
from embedcore.measure.measure import Images, failure
from embedcore.plugin.budget import Budget, BudgetSpent
from embedcore.plugin.cost import case_gmacs
from embedcore.plugin.machine import machine, versions
from embedcore.plugin.progress import Progress
from embedcore.results.estimate import estimate_seconds, show_duration
from embedcore.results.identity import Resumed, resume
from embedcore.results.journal import Journal
from embedcore.results.result import Result
from embedcore.zoo.families import family_of
from embedcore.zoo.hub import Hub

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.plugin.options import Options

TELL_EVERY_S = 600.0
"""How often a log hears how far the sweep is."""

ProgressFor = Callable[[str], Progress]


def skipped_line(dataset: Dataset) -> str | None:
    """What a report has to say of images that ``--embed-bad-images skip`` left out; None where there are none."""
    if not dataset.skipped:
        return None
    return f"{len(dataset.skipped)} images that cannot be read were skipped, the first: {dataset.skipped[0][0]}"


class BenchmarkSession:
    """Measures the session's cases one by one and keeps each result, on disk before its test reports."""

    def __init__(self, options: Options, dataset: Dataset, models: Sequence[str], budget: Budget) -> None:
        """``models`` are the cases of this session, in the order in which they run."""
        self.options = options
        self.dataset = dataset
        self.budget = budget
        self.hub = Hub()
        self.results: dict[str, Result] = {}
        self.notices: list[str] = []
        """Lines about the journal that the summary has to show."""
        self._models = tuple(models)
        self._folder = options.cache_folder / "runs"
        self._before: set[str] = set()
        self._run_models: set[str] = set(models)
        self._told = time.monotonic()
        self._journal_whole = True
        self.journal = self._open_journal()

    def _open_journal(self) -> Journal:
        if self.options.resume:
            resumed, notices = resume(self._folder, self.identity)
            self.notices += notices
            if resumed is not None:
                return self._go_on(resumed)
        now = datetime.datetime.now(datetime.timezone.utc)
        path = self._folder / f"{now:%Y%m%dT%H%M%S%f}-{os.getpid()}.jsonl"
        header = {"identity": self.identity, "settings": self.settings, "dataset": self.dataset_block}
        return Journal.create(path, header, models=self._models)

    def _go_on(self, resumed: Resumed) -> Journal:
        contents = resumed.contents
        self.results = {result.model: result for result in contents.results}
        self._before = set(self.results)
        replayed = sum(model in self.results for model in self._models)
        self.notices.append(f"resumed: {replayed} of {len(self._models)} results are from before")
        more = [model for model in self._models if model not in contents.models]
        self._run_models.update(contents.models)
        if more:
            self._write_journal(lambda: resumed.journal.add_models(more))
        return resumed.journal

    def _write_journal(self, write: Callable[[], None]) -> None:
        """Write to the journal; where that fails the run goes on, and the summary says that it cannot be resumed."""
        try:
            write()
        except OSError as error:
            if self._journal_whole:
                self.notices.append(
                    f"the journal cannot be written ({error.strerror or error}): results are in the JSON and the "
                    "report, but --embed-resume will measure some again"
                )
            self._journal_whole = False

    @property
    def _embeddings_folder(self) -> Path | None:
        return self.options.cache_folder / "embeddings" if self.options.keep_embeddings else None

    @cached_property
    def dataset_block(self) -> Mapping[str, Any]:
        """What the saved JSON says of the dataset."""
        summary = self.dataset.summary()
        notes = (*self.dataset.notes, self.dataset.duplicates_line, skipped_line(self.dataset))
        return {
            **summary,
            "query_reference_duplicates": self.dataset.query_reference_duplicates,
            "notes": [note for note in notes if note],
        }

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What the saved JSON says of how the numbers came about."""
        options = self.options
        return {
            "dataset": options.dataset,
            "split": options.split,
            "max_classes": options.max_classes,
            "max_per_class": options.max_per_class,
            "seed": options.seed,
            "protocol": options.protocol,
            "point": options.point,
            "weights": options.weights,
            "device": options.device,
            "precision": options.precision,
            "batch_size": options.batch_size,
            "rounds": options.rounds,
            "isolation": options.isolation,
            "memory_limit": options.memory_limit,
            "max_params": options.max_params,
            "tf32": False,
            **self._selection,
        }

    @property
    def _selection(self) -> Mapping[str, Any]:
        """Settings that change which cases there are and how long they may take, but none of their numbers."""
        options = self.options
        return {
            "roster": options.roster,
            "family": list(options.family),
            "timeout": options.timeout,
            "bad_images": options.bad_images,
        }

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What must be equal for a run to be continued: content of the dataset, settings and versions."""
        numbers = {key: value for key, value in self.settings.items() if key not in self._selection}
        # By name, so that a run that began on one card does not go on with another one, or on the CPU.
        gpu = None if self.options.device == "cpu" else machine()["gpu"]
        return {**numbers, "gpu": gpu, "dataset": self.dataset.fingerprint, **versions()}

    def case(self, model: str) -> Case:
        """The case of one model under this session's settings."""
        options = self.options
        return Case(
            model=model,
            family=family_of(model).slug,
            weights=options.weights,
            protocol=options.protocol,
            point=options.point,
            device=options.device,
            precision=options.precision,
            batch_size=options.batch_size,
            rounds=options.rounds,
            seed=options.seed,
            max_params_m=options.max_params,
            memory_limit_gb=options.memory_limit,
        )

    def measure(self, model: str, dataset: Dataset, progress_for: ProgressFor) -> Result:
        """The result of one model on ``dataset``: the one that was kept, or measured now.

        One from before that belongs to weights that have changed since is measured again.

        Raises BudgetSpent where ``--embed-budget`` ended the measurement.
        """
        if model in self._before and weights_changed(self.case(model), self.results[model], self.hub):
            self.notices.append(f"{model}: measured again, since its weights have changed")
            del self.results[model]
        self._before.discard(model)
        if model in self.results:
            return self.results[model]
        changed = dataset.changed()
        if changed is not None:
            raise UsageError(f"{changed}: the dataset has changed during the run; start again, with the new content")
        result = self._measure(self.case(model), dataset, progress_for)
        if result.status == "no-weights":
            self.hub.doubt(result.reason)  # a hub that was lost in the child is lost for the next model too
        if result.status == "timeout" and self.budget.left() <= 0:
            raise BudgetSpent
        return result

    def keep(self, result: Result) -> None:
        """Write a result to the journal, unless it comes from there; when this returns, it is on disk.

        A full disk loses nothing but that: see `notices`.
        """
        if result.model not in self.results:
            self.results[result.model] = result
            self._write_journal(lambda: self.journal.append(result))

    def _measure(self, case: Case, dataset: Dataset, progress_for: ProgressFor) -> Result:
        refused = refusal(case, self.hub)
        if refused is not None:
            return refused
        try:
            pixels = self._pixels(case, dataset, self.budget.within(progress_for("decoding")))
        except (UsageError, BudgetSpent):  # of the images or the cache folder: no other case could do better
            raise
        except Exception as error:  # of this model's geometry, or of a worker that died
            return failure(case, error)
        images = Images(dataset, pixels, self.hub, self._embeddings_folder)
        return self._executor().run(case, images, progress_for(self._progress_label(case.model)))

    def _executor(self) -> Executor:
        if self.options.isolation == "none":
            return InlineExecutor()
        return ChildExecutor(max(0.0, min(self.options.timeout, self.budget.left())))

    def _pixels(self, case: Case, dataset: Dataset, progress: Progress) -> PixelStore:
        from embedcore.images.geometry import geometry_of
        from embedcore.images.pixel_store import open_pixel_store
        from embedcore.zoo.transforms import data_config

        geometry = geometry_of(data_config(case.model), case.protocol)
        return open_pixel_store(dataset, geometry, self.options.cache_folder, progress=progress)

    def exceeds_budget(self, model: str) -> bool:
        """Whether a case is expected not to be done within ``--embed-budget``; False where nothing is known yet."""
        if self.budget.seconds is None or model in self.results:
            return False
        seconds = estimate_seconds(self._measured(), [case_gmacs(model)])
        return self.budget.left() <= (seconds or 0.0)

    def progress_is_due(self) -> bool:
        """Whether it is time to tell how far the sweep is; True once in TELL_EVERY_S."""
        due = time.monotonic() - self._told >= TELL_EVERY_S
        if due:
            self._told = time.monotonic()
        return due

    def remaining(self) -> tuple[int, float | None]:
        """How many cases have no result yet, and the seconds that they are expected to take, if there is any basis."""
        left = [case_gmacs(model) for model in self._models if model not in self.results]
        return len(left), estimate_seconds(self._measured(), left)

    def _measured(self) -> list[tuple[float, float]]:
        # Cases that were refused or failed say nothing of how long a measurement takes.
        timed = ((case_gmacs(model), result.measured_s) for model, result in self.results.items() if result.ok)
        return [(cost, seconds) for cost, seconds in timed if cost is not None and seconds is not None]

    def _progress_label(self, model: str) -> str:
        left, seconds = self.remaining()
        place = f"{model} ({len(self._models) - left + 1}/{len(self._models)}"
        return f"{place})" if seconds is None else f"{place}, about {show_duration(seconds)} to go)"

    def close(self) -> None:
        """Close the journal, as finished if every case of the run has its result."""
        if self._journal_whole and all(model in self.results for model in self._run_models):
            now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            self._write_journal(lambda: self.journal.finish(now))
        self.journal.close()
