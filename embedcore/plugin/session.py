"""The books of one pytest session: what was measured, and where it is kept."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from embedcore.results.result import Result

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.measure.case import Case
    from embedcore.measure.executors import Executor
    from embedcore.plugin.options import Options
    from embedcore.results.journal import Journal
    from embedcore.zoo.hub import Hub

ProgressFor = Callable[[str], Callable[[int, int], None]]


class BenchmarkSession:
    """Measures the session's cases one by one and keeps each result, on disk before its test reports."""

    def __init__(self, options: Options, dataset: Dataset) -> None:
        self.options = options
        self.dataset = dataset

    @cached_property
    def hub(self) -> Hub:
        from embedcore.zoo.hub import Hub

        return Hub()

    @cached_property
    def executor(self) -> Executor:
        from embedcore.measure.executors import ChildExecutor, InlineExecutor

        return InlineExecutor() if self.options.isolation == "none" else ChildExecutor(self.options.timeout)

    @cached_property
    def journal(self) -> Journal:
        from embedcore.results.journal import Journal

        now = datetime.datetime.now(datetime.timezone.utc)
        path = self.options.cache_folder / "runs" / f"{now:%Y%m%dT%H%M%S}-{os.getpid()}.jsonl"
        return Journal.create(path, {"settings": self.settings, "dataset": self.dataset.summary()})

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
            "tf32": False,
        }

    def case(self, model: str) -> Case:
        """The case of one model under this session's settings."""
        from embedcore.measure.case import Case
        from embedcore.zoo.families import family_of

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
        )

    def measure(self, model: str, dataset: Dataset, progress_for: ProgressFor) -> Result:
        """The result of one model on ``dataset``, written to the journal before it is returned."""
        result = self._measure(self.case(model), dataset, progress_for)
        self.journal.append(result)
        return result

    def _measure(self, case: Case, dataset: Dataset, progress_for: ProgressFor) -> Result:
        from embedcore.measure.admission import refusal
        from embedcore.measure.measure import Images

        refused = refusal(case, self.hub)
        if refused is not None:
            return refused
        images = Images(dataset, self._pixels(case, dataset, progress_for("decoding")), self.hub)
        return self.executor.run(case, images, progress_for(case.model))

    def _pixels(self, case: Case, dataset: Dataset, progress: Callable[[int, int], None]) -> PixelStore:
        from embedcore.images.geometry import geometry_of
        from embedcore.images.pixel_store import open_pixel_store
        from embedcore.zoo.transforms import data_config

        geometry = geometry_of(data_config(case.model), case.protocol)
        return open_pixel_store(dataset, geometry, self.options.cache_folder, progress=progress)

    def close(self) -> None:
        """Close the journal, if a case has opened it."""
        if "journal" in self.__dict__:
            self.journal.close()
