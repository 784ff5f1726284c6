"""What drives the cases of one pytest session: images, weights and budget before, the measurement, the books after."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from embedcore.ab.noise import stored_noise
from embedcore.embed.device import ARITHMETIC
from embedcore.errors import UsageError
from embedcore.images.ceilings import reference_counts
from embedcore.images.dataset import load_dataset
from embedcore.images.ledger import Ledger
from embedcore.measure.case import Case
from embedcore.measure.executors import ChildExecutor, Executor, InlineExecutor
from embedcore.measure.forecast import Forecast, forecast
from embedcore.measure.measure import Images
from embedcore.measure.outcome import failure, refusal, weights_changed
from embedcore.plugin.budget import Budget, BudgetSpent
from embedcore.plugin.cases import case_gmacs
from embedcore.plugin.machine import device_of_worker, machine, machine_in_use
from embedcore.plugin.progress import Position, leader_of
from embedcore.progress import Progress, Stages
from embedcore.results import neighbours
from embedcore.results.books import FOLDER, Books, Place
from embedcore.results.estimate import costs_left, estimate_range, estimate_seconds, measured_costs
from embedcore.results.neighbours import Shelf
from embedcore.results.result import Result
from embedcore.results.verdicts import pack_classes
from embedcore.version import VERSION
from embedcore.zoo.hub import Hub
from embedcore.zoo.registry import renamed_to
from embedcore.zoo.roster import family_of_model
from embedcore.zoo.weights import check_policy

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.plugin.options import Options
    from embedcore.zoo.own_models import OwnModel


def start_session(
    options: Options,
    cases: Mapping[str, str],
    own: Mapping[str, OwnModel],
    budget: Budget,
    place: Place,
    progress: Progress,
    origin: Mapping[str, Any],
) -> BenchmarkSession:
    """Check what can be checked, load the dataset and open the books for the ``cases``, test id to model.

    ``progress(done, total)`` is called as images are looked at. Raises UsageError for what the user has to mend, and
    BudgetSpent.
    """
    from embedcore.embed.device import choose_device

    if options.memory_limit is not None and options.isolation == "none":
        raise UsageError("--embed-memory-limit bounds a child process: it needs --embed-isolation process")
    if options.device != "auto":
        choose_device(options.device)
    check_policy(options.weights)
    if options.report is not None:  # now, so that a path that cannot be one is told before hours of measuring
        try:
            options.report.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--embed-report: {options.report} cannot be made: {error.strerror or error}") from error
    dataset = load_dataset(
        options.dataset,
        split=options.split,
        max_classes=options.max_classes,
        max_per_class=options.max_per_class,
        seed=options.seed,
        bad_images=options.bad_images,
        max_megapixels=options.max_megapixels,
        cache_dir=options.cache_folder,
        progress=budget.within(progress),
    )
    return BenchmarkSession(options, dataset, cases, own, budget, place, origin)


class BenchmarkSession:
    """Measures the session's cases one by one; each result is in the books before its test reports."""

    def __init__(
        self,
        options: Options,
        dataset: Dataset,
        cases: Mapping[str, str],
        own: Mapping[str, OwnModel],
        budget: Budget,
        place: Place,
        origin: Mapping[str, Any],
    ) -> None:
        """``cases``: the tests of this session that measure a model, id to model, in the order in which they run;
        ``own``: the user's models in the roster; ``origin``: what else the journal says of where the run comes from."""
        self.options = options
        self.own = own
        self.dataset = dataset
        self.budget = budget
        self.hub = Hub()
        self._ledger = Ledger(options.cache_folder)
        self.settings = _settings(options)
        self.machine = machine(options.device, several=bool(place.worker))
        noise = stored_noise(options.cache_folder, machine_in_use(self.machine))
        self.noise = noise.in_sequence if noise else None
        self.blocks: dict[str, Mapping[str, Any]] = {dataset.fingerprint: dataset_block(dataset)}
        """What the saved JSON says of each dataset, by fingerprint."""
        self.cases = dict(cases)
        self._beside: list[float] = []
        """Seconds of each measured case outside of its measurement: decoding, starting a process."""
        self._device = device_of_worker(options.device, place.slot) if place.worker else options.device
        identity = {
            **options.recorded("number"),
            # By name, so that a run that began on one card does not go on with another one, or on the CPU.
            "machine": machine_in_use(self.machine),
            "dataset": dataset.fingerprint,
            "embedcore": VERSION,
            "timm": self.machine["timm"],
            "torch": self.machine["torch"],
            **({"shard": str(options.shard)} if options.shard else {}),
        }
        header: dict[str, Any] = {
            "identity": identity,
            "settings": self.settings,
            "dataset": self.blocks[dataset.fingerprint],
        }
        header |= {"machine": self.machine, "noise": self.noise, **origin}  # for who reads the journal
        header["renamed"] = renamed_to(self.models)
        self.books = Books(options.cache_folder / FOLDER, header, self.cases, place, resume=options.resume)
        self.shelf = Shelf(options.cache_folder / neighbours.FOLDER, self.books.run)
        self.datasets: dict[str, Dataset] = {dataset.fingerprint: dataset}
        """All that were measured on, by fingerprint; that of the session first."""
        self.pixels: dict[str, PixelStore] = {}
        """Of each dataset the store that was opened last."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the cases, each once."""
        return tuple(dict.fromkeys(self.cases.values()))

    def case(self, model: str) -> Case:
        """The case of one model under this session's settings."""
        of_options = {item.name for item in dataclasses.fields(Case)} & vars(self.options).keys()
        values = {name: getattr(self.options, name) for name in of_options}
        own = self.own.get(model)
        family = family_of_model(model, own).slug
        return Case(**{**values, "model": model, "family": family, "own": own, "device": self._device})

    def measure(self, model: str, dataset: Dataset, stages: Stages, test: str) -> Result:
        """The result of one model on ``dataset`` in the test of that id: the one from before, or measured now.

        One from before that belongs to weights that have changed since is measured again.

        Raises BudgetSpent where ``--embed-budget`` ended the measurement.
        """
        dataset.expect_classes()
        key = model, dataset.fingerprint
        before = self.books.from_before(key, test)
        if before is not None and weights_changed(self.case(model), before, self.hub, self._ledger):
            changed = "entry, file or factory has" if model in self.own else "weights have"
            self.books.forget(key, test, f"since its {changed} changed")
            before = None
        if dataset.fingerprint not in self.blocks:
            self.blocks[dataset.fingerprint] = dataset_block(dataset)
            self.books.note_dataset(self.blocks[dataset.fingerprint])
            self.datasets[dataset.fingerprint] = dataset
        if before is not None:
            return before
        self.shelf.prune(self.books.results.values(), self.options.gallery, spare=neighbours.SPARE)
        result = self._measure(self.case(model), dataset, stages, self.shelf)
        if result.status == "no-weights":
            self.hub.doubt(result.reason)  # a hub that was lost in the child is lost for the next model too
        if result.status == "timeout" and self.budget.left() <= 0:
            raise BudgetSpent
        return msgspec.structs.replace(result, dataset=dataset.fingerprint)

    def measure_again(self, model: str, batch_size: int) -> Result:
        """A fresh measurement of a model on the session's dataset, in batches of that size, which no book keeps."""
        case = dataclasses.replace(self.case(model), batch_size=batch_size)
        return self._measure(case, self.dataset, lambda stage, done, total: None)

    def _measure(self, case: Case, dataset: Dataset, stages: Stages, shelf: Shelf | None = None) -> Result:
        refused = refusal(case, self.hub)
        if refused is not None:
            return refused
        begin = time.monotonic()
        try:
            given = case.own is not None and case.own.embeddings
            decoding = self.budget.within(functools.partial(stages, "decoding"))
            pixels = None if given else self._pixels(case, dataset, decoding)
        except (UsageError, BudgetSpent):  # of the images or the cache folder: no other case could do better
            raise
        except Exception as error:  # of this model's geometry, or of a worker that died
            return failure(case, error)
        kept: Path | None = self.options.cache_folder / "embeddings" if self.options.keep_embeddings else None
        executor: Executor = InlineExecutor()
        if self.options.isolation == "process":
            executor = ChildExecutor(max(0.0, min(self.options.timeout, self.budget.left())))
            stages = self.budget.within_stages(stages)  # the time limit of a case leaves out its download
        result = executor.run(case, Images(dataset, pixels, self.hub, kept, shelf), stages)
        if result.ok:
            self._beside.append(time.monotonic() - begin - (result.measured_s or 0.0) - (result.download_s or 0.0))
        return result

    def _pixels(self, case: Case, dataset: Dataset, progress: Progress) -> PixelStore:
        from embedcore.images.geometry import geometry_of
        from embedcore.images.pixel_store import open_pixel_store
        from embedcore.zoo.transforms import data_config

        geometry = geometry_of(data_config(case.own or case.model), case.protocol)
        limit = None if self.options.cache_limit is None else int(self.options.cache_limit * 1e9)
        store = open_pixel_store(dataset, geometry, self.options.cache_folder, progress=progress, limit=limit)
        self.pixels[dataset.fingerprint] = store
        return store

    @functools.cached_property
    def plan(self) -> Forecast:
        """What the cases without a result, as they are when first asked, are about to fetch and to keep."""
        options = self.options
        return forecast(
            {model: self.own.get(model) for model in self._models_left()},
            len(self.dataset),
            options.cache_folder,
            fingerprint=self.dataset.fingerprint,
            weights=options.weights,
            protocol=options.protocol,
            max_params=options.max_params,
        )

    @functools.cached_property
    def to_fetch(self) -> frozenset[str]:
        """The models whose weights were not on this machine as the session began."""
        return frozenset(holding.model for holding in self.plan.to_fetch)

    def exceeds_budget(self, test: str) -> bool:
        """Whether a test is expected not to be done within ``--embed-budget``; False where nothing is known yet."""
        if self.budget.seconds is None or test not in self.cases or test in self.books.done:
            return False
        seconds = estimate_seconds(self._measured(), self._costs_of([self.cases[test]]))
        return self.budget.left() <= (seconds or 0.0) + self._beside_s

    def remaining(self) -> tuple[int, tuple[float, float] | None]:
        """How many cases have no result yet, and the least and most seconds that they may take, if there is a basis."""
        left = self._models_left()
        costs = self._costs_of(left)
        found, beside = estimate_range(self._measured(), costs), len(costs) * self._beside_s
        return len(left), None if found is None else (found[0] + beside, found[1] + beside)

    def _models_left(self) -> list[str]:
        """The model of each test without a result."""
        return [model for test, model in self.cases.items() if test not in self.books.done]

    def _costs_of(self, models: Sequence[str]) -> list[float | None]:
        left = ((model, self._gmacs(model)) for model in models)
        return costs_left(left, list(self.books.results.values()), self.to_fetch)

    @property
    def _beside_s(self) -> float:
        return fmean(self._beside) if self._beside else 0.0

    def position(self, model: str, dataset: Dataset) -> Position:
        """Where the session stands before that case."""
        count, seconds = self.remaining()
        leader = leader_of(self.books.results.values(), dataset.fingerprint)
        return Position(model, len(self.cases) - count + 1, len(self.cases), seconds, leader)

    def _gmacs(self, model: str) -> float | None:
        return case_gmacs(model, self.own.get(model))

    def costs(self) -> dict[str, tuple[str, float | None]]:
        """Model and, where they are known, GMACs of each test."""
        return {test: (model, self._gmacs(model)) for test, model in self.cases.items()}

    def _measured(self) -> list[tuple[float, float]]:
        return measured_costs(self.books.results.values(), self._gmacs)


def _settings(options: Options) -> Mapping[str, Any]:
    """What the saved JSON says of how the numbers came about."""
    settings: dict[str, Any] = {**options.recorded("number", "choice"), **ARITHMETIC}
    if "article" in options.roster.split(","):
        from embedcore.zoo.tags import article_tags

        settings["roster_missing"] = article_tags()[1]
    return settings


def dataset_block(dataset: Dataset) -> Mapping[str, Any]:
    """What the saved JSON says of a dataset."""
    notes = [note for note in (*dataset.notes, dataset.duplicates_line) if note]
    if dataset.skipped:
        first = dataset.skipped[0][0]
        notes.append(f"{len(dataset.skipped)} images that cannot be read were skipped, the first: {first}")
    references = reference_counts(dataset.query_labels, dataset.reference_labels)
    of_class = np.zeros(len(dataset.classes), dtype=np.int64)
    of_class[dataset.query_labels] = references  # equal for all queries of a class
    return {
        **dataset.summary(),
        "query_reference_duplicates": dataset.query_reference_duplicates,
        "notes": notes,
        "credits": list(dataset.credits),
        "query_classes": pack_classes(dataset.query_labels),
        "lone_classes": np.unique(dataset.query_labels[references == 0]).tolist(),
        "class_names": list(dataset.classes),
        "class_references": of_class.tolist(),
    }
