"""The bench: makes a case of a model, finds its pixels and weights, and measures it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from embedcore.embed.engines.names import FOLDER as ENGINES
from embedcore.embed.kept import FOLDER as EMBEDDINGS
from embedcore.embed.trace import Trace
from embedcore.errors import EmbedcoreError, UsageError, option
from embedcore.files import user_path
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import geometry_of
from embedcore.images.ledger import Ledger
from embedcore.images.pixel_store import PixelStore, open_pixel_store
from embedcore.measure.case import Case, CaseSettings
from embedcore.measure.distractors import Distractors
from embedcore.measure.executors import Ahead, ChildExecutor, InlineExecutor
from embedcore.measure.inputs import CaseInputs, EmbeddedParts
from embedcore.measure.outcome import failure, locate, weights_changed
from embedcore.measure.tracing import traced
from embedcore.measure.truth import GroundTruth
from embedcore.plain import counted
from embedcore.progress import Progress, Stages, StopWork
from embedcore.results.neighbours import NeighbourStore
from embedcore.results.process import TimingProcess
from embedcore.results.record import Record
from embedcore.results.result import Result
from embedcore.zoo.hub import Hub
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.roster import family_of_model
from embedcore.zoo.transforms import data_config
from embedcore.zoo.weights import Located


class Measured(NamedTuple):
    """A result, and the seconds of the case besides measurement and download; None if it is not ok."""

    result: Result
    overhead_s: float | None


class Bench:
    """Measures models under one set of settings::

        bench = Bench(CaseSettings(device="cpu"), cache="cache")
        result = bench.measure("resnet18.a1_in1k", embedcore.load_dataset("emoji"))
        result.scores["acc"], result.images_per_s["forward"]

    A model that could not be measured also has a result, with its status and the reason.
    """

    def __init__(
        self,
        settings: CaseSettings | None = None,
        *,
        cache: str | Path,
        own_models: Mapping[str, OwnModel] | None = None,
        isolation: Literal["process", "none"] = "process",
        timeout_s: float = 3600.0,
        store_limit: int | None = None,
        keep_embeddings: bool = False,
    ) -> None:
        """``cache``: folder of pixel stores and kept embeddings; ``own_models``: by name; ``store_limit``: bytes that
        all pixel stores may take.

        With ``isolation="process"`` each case runs in a fresh child process, for at most ``timeout_s`` seconds. Raises
        UsageError for an unknown isolation, and for a memory limit with ``isolation="none"``.
        """
        self.settings = settings or CaseSettings()
        self.cache = user_path(cache)
        self.own_models = dict(own_models or {})
        if isolation not in ("process", "none"):
            raise UsageError(f"isolation is {isolation!r}: it must be 'process' or 'none'")
        if isolation == "none" and self.settings.memory_limit is not None:
            raise UsageError(
                f"{option('memory_limit')} needs {option('isolation', 'process')}: it limits a child process"
            )
        self.isolation = isolation
        self.timeout_s = timeout_s
        self.store_limit = store_limit
        self.neighbours: NeighbourStore | None = None
        """Where each query's neighbours are kept; None not to keep them."""
        self.distractors: Distractors | None = None
        """References of no class, for acc in larger galleries; their embeddings are always kept."""
        self.hub = Hub()
        self.stores: dict[str, PixelStore] = {}
        """Most recently opened pixel store, by dataset fingerprint."""
        self.parts: dict[str, EmbeddedParts] = {}
        """Images that a race has embedded, by the fingerprint of their dataset."""
        self._embeddings = self.cache / EMBEDDINGS if keep_embeddings else None
        self._engines = self.cache / ENGINES
        self._ledger = Ledger(self.cache)
        self._ahead: Ahead | None = None

    def __repr__(self) -> str:
        own = f", {counted(len(self.own_models), 'own model')}" if self.own_models else ""
        return f"Bench({self.settings}, cache={str(self.cache)!r}, isolation={self.isolation!r}){own}"

    def case(self, model: str, **changes: Any) -> Case:
        """Return the case of a model under the bench's settings with ``changes``, such as ``batch_size=1``."""
        own_model = self.own_models.get(model)
        settings = vars(dataclasses.replace(self.settings, **changes))
        return Case(model=model, family=family_of_model(model, own_model).slug, own_model=own_model, **settings)

    def measure(self, model: str, dataset: Dataset, **changes: Any) -> Result:
        """Measure a model on a dataset under settings with ``changes``, such as ``batch_size=1``.

        A model that fails gives a result with a status and a reason. Raises UsageError for images that cannot
        be used, and for a cache folder that cannot be written.
        """
        if not isinstance(dataset, Dataset):
            raise UsageError(f"a {type(dataset).__name__} is not a dataset: load it with embedcore.load_dataset")
        dataset.expect_classes()
        return self.run(self.case(model, **changes), dataset).result

    def run(
        self,
        case: Case,
        dataset: Dataset,
        stages: Stages | None = None,
        *,
        limit_s: float = float("inf"),
        following: Case | None = None,
    ) -> Measured:
        """Measure a case on a dataset within ``limit_s`` seconds, if the bench's own limit is not shorter.

        ``stages`` is called as work goes on, and may raise StopWork. ``following``: the next case, if it has the same
        images; its process starts and loads the model while this one is scored. Raises UsageError as `measure` does.
        """
        stages = stages or (lambda stage, done, total: None)
        begin = time.monotonic()
        try:
            located = self._located(case)
        except EmbedcoreError as error:
            return Measured(self._of(dataset, failure(case, error)), None)
        decoding = functools.partial(stages, "decoding")
        try:
            pixels = self._pixels(case, dataset, decoding)
            distractors = self._distractors(case, dataset, decoding)
        except (UsageError, StopWork):  # from the images or the cache folder, so every other case would fail too
            raise
        except Exception as error:  # from this model's geometry, or a decoding process that died
            return Measured(self._of(dataset, failure(case, error)), None)
        inputs = dataclasses.replace(self._inputs(dataset, pixels, located), distractors=distractors)
        if self._ahead is not None and not self._ahead.is_for(case, inputs):
            self.close()
        ahead, self._ahead = self._ahead, None
        scoring = functools.partial(self._start_ahead, following, dataset)
        executor = self._executor(limit_s - (time.monotonic() - begin), ahead=ahead, scoring=scoring)
        result = self._of(dataset, executor.run(case, inputs, stages))
        if result.lost_host is not None:
            self.hub.lose(*result.lost_host)  # the next model need not find out again
        if not result.ok:
            return Measured(result, None)
        beside = (result.measured_s or 0.0) + (result.download_s or 0.0)
        return Measured(result, time.monotonic() - begin - beside)

    def _inputs(self, dataset: Dataset, pixels: PixelStore | None, located: Located | None) -> CaseInputs:
        return CaseInputs(
            GroundTruth.of(dataset),
            pixels,
            located,
            self.hub,
            embeddings_folder=self._embeddings,
            parts=self.parts.get(dataset.fingerprint),
            engines_folder=self._engines,
            ledger=self._ledger,
            neighbours=self.neighbours,
        )

    def _start_ahead(self, case: Case | None, dataset: Dataset) -> None:
        """Start a process that loads the model of the next case, if there is one."""
        if case is None or (case.own_model is not None and case.own_model.embeddings):
            return
        with contextlib.suppress(EmbedcoreError):  # the case itself will report it
            self._ahead = Ahead(case, self._inputs(dataset, None, self._located(case)))

    def connect(self, dataset: Dataset, stages: Stages) -> Sequence[Mapping[str, Any]]:
        """Connect to the machines that measure; return the facts of each (see `plugin.machine`), none for this one.

        Raises UsageError if one of them cannot measure.
        """
        return ()

    def expect(self, coming: Mapping[str, str | Result], record: Record) -> None:
        """Prepare for cases in this order: the model of each test, or for each model a result to be timed again."""

    def disconnect(self) -> None:
        """Disconnect from the machines of `connect`."""

    def close(self) -> None:
        """End the process that was started for the next case, if that case has not been measured."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def time(
        self, result: Result, dataset: Dataset, stages: Stages | None = None, *, limit_s: float = float("inf")
    ) -> TimingProcess | Result:
        """Time the case of a measured result in one more process, under the settings that it was measured with.

        A failure gives a result with a status and a reason. Raises UsageError as `measure` does.
        """
        stages = stages or (lambda stage, done, total: None)
        case = self.case(
            result.model,
            batch_size=result.batch_size or 1,
            precision=result.precision,
            channels_last=bool(result.channels_last),
        )
        try:
            located = self._located(case)
        except EmbedcoreError as error:
            return failure(case, error)
        try:
            pixels = self._pixels(case, dataset, functools.partial(stages, "decoding"))
        except (UsageError, StopWork):
            raise
        except Exception as error:  # as in `run`
            return failure(case, error)
        pinned = result.processes[0].pinned if result.processes else None
        inputs = CaseInputs(
            GroundTruth.of(dataset),
            pixels,
            located,
            self.hub,
            engines_folder=self._engines,
            pinned_images=None if pinned is None else pinned.images,
        )
        return self._executor(limit_s).time(case, inputs, stages)

    def _located(self, case: Case) -> Located | None:
        """Return what `locate` does, with a file's checksum, so that not every process has to read the file for it."""
        located = locate(case, self.hub)
        if located is None or located.path is None:
            return located
        with contextlib.suppress(OSError):  # the measuring process reports it
            return dataclasses.replace(located, sha256=self._ledger.sha256(located.path))
        return located

    def _executor(self, limit_s: float, **of_child: Any) -> InlineExecutor | ChildExecutor:
        if self.isolation == "none":
            return InlineExecutor()
        return ChildExecutor(max(0.0, min(self.timeout_s, limit_s)), **of_child)

    def trace(self, model: str, dataset: Dataset, **changes: Any) -> Trace:
        """Return the trace of a model's forward pass under settings with ``changes``. Raises EmbedcoreError."""
        case = self.case(model, **changes)
        pixels = self._pixels(case, dataset, lambda done, total: None)
        return traced(case, CaseInputs(GroundTruth.of(dataset), pixels, locate(case, self.hub), self.hub))

    def earlier(self, record: Record, model: str, dataset: Dataset, test: str) -> Result | None:
        """Return a case's result from before a resume, see `Record.earlier`; None if its weights have changed since."""
        key = model, dataset.fingerprint
        before = record.earlier(key, test)
        if before is not None and self.weights_changed(before):
            changed = "entry, file or factory has" if model in self.own_models else "weights have"
            record.discard(key, test, f"since its {changed} changed")
            return None
        return before

    def weights_changed(self, result: Result) -> bool:
        """Whether a result belongs to other weights than its model would load now; False if these are not here."""
        return weights_changed(self.case(result.model), result, self.hub, self._ledger)

    def _pixels(self, case: Case, dataset: Dataset, progress: Progress) -> PixelStore | None:
        """Open or build the pixel store of a case; None for precomputed embeddings."""
        if case.own_model is not None and case.own_model.embeddings:
            return None
        geometry = geometry_of(data_config(case.own_model or case.model), case.protocol)
        store = open_pixel_store(dataset, geometry, self.cache, progress=progress, limit=self.store_limit)
        self.stores[dataset.fingerprint] = store
        return store

    def _distractors(self, case: Case, dataset: Dataset, progress: Progress) -> CaseInputs | Path | None:
        """Return the distractors of a case, without copies of the dataset's images."""
        if self.distractors is None or self.distractors.images is None:
            return None if self.distractors is None else self.distractors.files_of(case.model)
        beside = self.distractors.beside(dataset)
        pixels = self._pixels(case, beside, progress)
        # Kept without being asked for: they are the same for every labelled dataset.
        return CaseInputs(GroundTruth.of(beside), pixels, embeddings_folder=self.cache / EMBEDDINGS)

    @staticmethod
    def _of(dataset: Dataset, result: Result) -> Result:
        return msgspec.structs.replace(result, dataset=dataset.fingerprint)
