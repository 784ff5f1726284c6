"""Measure many models in one call, as a session of pytest does: one case per model, with journal, cache and resume."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedcore.errors import UsageError
from embedcore.forkserver import forkserver_context, start_surely
from embedcore.images.dataset import Dataset
from embedcore.interrupts import interrupts_held
from embedcore.notebook.shown_run import Run, shown_run
from embedcore.plain import counted, one_line
from embedcore.plugin.budget import Budget
from embedcore.plugin.checks import check_options
from embedcore.plugin.measuring import Measuring
from embedcore.plugin.options import Options
from embedcore.plugin.progress import Position, position, stage_words, time_left
from embedcore.plugin.start import begin, bench_of, dataset_of, distractors_of, header_of
from embedcore.results.ranking import ranking_block
from embedcore.results.record import Record
from embedcore.results.run import run_of
from embedcore.results.runs import FOLDER, Worker
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.roster import read_roster
from embedcore.zoo.weights import check_policy

if TYPE_CHECKING:
    from embedcore.progress import Stages

_OF_DATASET = ("split", "columns", "max_classes", "max_per_class", "bad_images", "max_megapixels", "unlabelled")
"""Settings that choose images; a Dataset has them already."""
SETTINGS = (
    *_OF_DATASET,
    *("seed", "protocol", "family", "max_params", "weights", "point", "device", "precision", "engine"),
    *("channels_last", "batch_size", "throughput", "rounds", "latency", "probe", "distractors"),
    *("race", "race_top", "race_margin"),
    *("processes", "isolation", "timeout", "memory_limit", "keep_embeddings", "cache", "cache_limit", "force"),
)
"""Options of pytest that are settings of `benchmark`."""

_REDRAWN_S = 0.2


def benchmark(
    models: Any, images: Any = "emoji", *, resume: bool = False, progress: bool = True, **settings: Any
) -> Run:
    """Measure models on images and return the run, which a notebook shows as its leaderboard.

    Each model is a case in a fresh process, as with ``pytest benchmarks``: a crash costs one model, and a model that
    cannot be measured is in ``run.excluded`` with its status and the reason. Results are on disk when a case ends. An
    interrupt returns the run so far, or raises KeyboardInterrupt before the first result; ``resume=True`` continues it.

    Args:
        models: names, globs or ``OwnModel``, one or a list; or a keyword (``"local"``, ``"starter"``, ``"all"``) or a
            roster file, as for ``--embed-roster``.
        images: a Dataset, or what :func:`load_dataset` takes without labels: ``"emoji"``, a folder, ``"csv:FILE"``, a
            DataFrame.
        resume: continue the newest unfinished run with the same images and settings.
        progress: show a progress bar, and a line for each model that could not be measured.
        settings: the options of pytest by their names in Python, such as ``rounds=3``, ``device="cpu"``,
            ``max_classes=32``, ``cache="cache"``; see docs/options.md. ``processes`` is 1 by default: a quick look,
            whose speed is not compared with that of another run.

    Raises:
        UsageError: for unknown models and settings, images that cannot be used, a folder that cannot be written, and a
            disk that cannot hold the weights.

    Example::

        run = benchmark(["resnet18", "vit_tiny*"], "photos", rounds=3)
        run.plot("leaders-acc")
    """
    options = replace(Options.from_values({"processes": 1, **settings}, SETTINGS), resume=resume)
    roster = _roster(models, options)
    own_models = {name: own_model for name, own_model in roster.items() if own_model is not None}
    options = replace(options, roster=models if isinstance(models, str) else ",".join(roster))
    check_options(options)
    if options.isolation == "process":
        start_surely(forkserver_context)  # it imports torch and timm meanwhile
    bar = _Bar(len(roster), shown=progress)
    record = Record()
    try:
        dataset, options = _dataset(images, options, settings, bar)
        bench = bench_of(options, own_models)
        if options.distractors is not None:
            with bar.reporting(Position("looking at the distractors")) as stages:
                bench.distractors = distractors_of(options, lambda done, total: stages("", done, total))
        header = header_of(options, dataset, bench.distractors, _tests(roster), own_models, several_workers=False)
        costs = {model: float("inf") if cost is None else cost for model, cost in header["costs"].items()}
        header["tests"] = _tests(sorted(roster, key=costs.__getitem__))
        header["selection"] = {"roster": options.roster, "family": list(options.family)}
        plan = begin(record, bench, dataset, options, header, Worker.alone())
        bar.say([*record.warnings, *(plan.lines() if plan.notable else ())])
        said = len(record.warnings)
        try:
            _measure(Measuring(bench, {dataset.fingerprint: dataset}, options, record, Budget(None), bar), bar)
        except KeyboardInterrupt:
            if not record.results:
                raise
            bar.say([f"interrupted: {counted(len(record.left), 'model')} not measured; resume=True continues"])
        bar.say(record.warnings[said:])
    finally:
        record.close()
        bar.close()
    data = record.data()
    data["embedcore"]["ranking"] = ranking_block(record.rankings())
    return shown_run(run_of(data, Worker(record.run).journal(options.cache_folder / FOLDER, record.run)))


def _measure(measuring: Measuring, bar: _Bar) -> None:
    """Measure the planned cases and take their results into the record. Raises UsageError, KeyboardInterrupt."""
    record, dataset = measuring.record, measuring.dataset
    if measuring.options.race:
        measuring.race(lambda line: bar.say([line]))
    for test, model in record.planned.items():
        with bar.reporting(position(record, model, dataset.fingerprint)) as stages:
            measured = measuring.measure(model, dataset, test, stages)
        with interrupts_held():  # so that the journal and the run have the same cases
            record.keep(measured.result, test, measured.overhead_s)
            for line in record.unsent():
                record.take(line)
        if not measured.result.ok:
            reason = measured.result.reason.removeprefix(f"{model}: ")
            bar.say([f"{model}: {measured.result.status}: {reason}"])
        bar.advance()
    measuring.prune()
    measuring.finish()


def _tests(models: Iterable[str]) -> dict[str, str]:
    return {f"test_model[{model}]": model for model in models}


def _roster(models: Any, options: Options) -> dict[str, OwnModel | None]:
    """Return the models that a user named, own ones with their entry. Raises UsageError."""
    is_one = isinstance(models, str | os.PathLike | OwnModel) or hasattr(models, "parameters")
    roster: dict[str, OwnModel | None] = {}
    for each in [models] if is_one or not isinstance(models, Iterable) else models:
        found: Mapping[str, OwnModel | None]
        if isinstance(each, OwnModel):
            found = {each.name: each}
        elif isinstance(each, str | os.PathLike):
            found = read_roster(os.fspath(each), families=options.family, weights=check_policy(options.weights))
        else:
            raise UsageError(
                f"a {type(each).__name__} cannot be sent to the process that measures: give a name, or an OwnModel "
                "with arch and weights, or with factory='package.module:function'"
            )
        repeated = next((name for name, entry in found.items() if roster.get(name, entry) != entry), None)
        if repeated is not None:
            raise UsageError(f"two models are named {repeated!r}: rename one")
        roster |= found
    if not roster:
        raise UsageError("no model to measure: the list is empty")
    return roster


def _dataset(images: Any, options: Options, settings: Mapping[str, Any], bar: _Bar) -> tuple[Dataset, Options]:
    """Return the dataset, and the options with its name. Raises UsageError."""
    if isinstance(images, Dataset):
        chosen = next((name for name in _OF_DATASET if settings.get(name) is not None), None)
        if chosen is not None:
            raise UsageError(f"{chosen} chooses images, and {images!r} is loaded: pass it to load_dataset")
        images.expect_classes()
        return images, replace(options, dataset=images.name)
    with bar.reporting(Position("looking at the images")) as stages:
        dataset = dataset_of(replace(options, dataset=images), lambda done, total: stages("", done, total))
    is_named = isinstance(images, str | os.PathLike)
    return dataset, replace(options, dataset=os.fspath(images) if is_named else dataset.name)


class _Bar:
    """A progress bar of models, whose text is the stage of the case in progress."""

    def __init__(self, total: int, *, shown: bool) -> None:
        with warnings.catch_warnings():  # tqdm warns if ipywidgets is missing; the bar is then text
            warnings.simplefilter("ignore")
            from tqdm.asyncio import tqdm as text_bar
            from tqdm.auto import tqdm
        # Text only in a terminal (`disable=None`): in a file it would be a line for each change.
        self._shown, disable = shown, not shown or (None if tqdm is text_bar else False)
        self._bar = tqdm(total=total, unit="model", disable=disable, dynamic_ncols=True)

    @contextlib.contextmanager
    def reporting(self, position: Position) -> Iterator[Stages]:
        """Yield a callback for the stages of some work; see `plugin.progress.Reports`."""
        begin = drawn = entered = time.monotonic()
        stage, at_first = "", 0
        phase = f", process {position.process}" if position.process > 1 else ""
        phase = f", race on {position.race} classes" if position.race else phase
        self._bar.set_description_str(f"{position.what}{phase}")

        def stages(current: str, done: int, total: int) -> None:
            nonlocal drawn, stage, entered, at_first
            now = time.monotonic()
            if current != stage:
                stage, entered, at_first = current, now, done
            if now - drawn < _REDRAWN_S:
                return
            drawn = now
            rate = (done - at_first) / (now - entered) if now > entered else 0.0
            left = time_left(position, now - begin)
            words = stage_words(stage, done, total, rate=rate, seconds=now - entered)
            self._bar.set_postfix_str(f"{words}; {left} left" if left else words)

        try:
            yield stages
        finally:
            self._bar.set_postfix_str("", refresh=False)

    def advance(self) -> None:
        """Count a model as done."""
        self._bar.update()

    def say(self, lines: Iterable[str]) -> None:
        """Write lines above the bar."""
        for line in lines if self._shown else ():
            self._bar.write(one_line(line), file=getattr(self._bar, "fp", sys.stderr))  # no `fp` without a terminal

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.set_description_str("", refresh=False)
        self._bar.close()
