"""``--embed-race``: stages before the first case, which find the models that cannot be among the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedcore.embed.kept import FOLDER as EMBEDDINGS
from embedcore.embed.kept import KeptEmbeddings
from embedcore.errors import UsageError, option
from embedcore.images.ceilings import reference_counts
from embedcore.measure.bench import Bench
from embedcore.measure.inputs import EmbeddedParts
from embedcore.measure.outcome import facts_of_case
from embedcore.plain import counted
from embedcore.plugin.budget import Budget, BudgetSpent
from embedcore.plugin.progress import Position, Reports
from embedcore.results.race_stage import RaceStage
from embedcore.results.record import Record
from embedcore.results.result import Result
from embedcore.retrieval.race import LEVEL, Evidence, Race, RacedOut, Rules, evidence_of, stages

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.plugin.options import Options

_STREAM = 22  # of the random numbers, so that the classes of a stage are not those of `--embed-max-classes`


def run_race(
    bench: Bench,
    record: Record,
    dataset: Dataset,
    options: Options,
    budget: Budget,
    progress: Reports,
    say: Callable[[str], None],
) -> dict[str, Result]:
    """Race the planned models; return the results of those that leave the race: raced out, or failed.

    `say` shows a line after each stage. The embeddings of the models that are left stay until `forget_stages`, and the
    bench uses them. Models with precomputed embeddings cost nothing and do not take part. Raises BudgetSpent, and
    UsageError for a cache folder that cannot be used.
    """
    models = list(dict.fromkeys(record.planned.values()))
    models = [model for model in models if not record.failed_before((model, dataset.fingerprint))]
    racing = [model for model in models if not getattr(bench.own_models.get(model), "embeddings", None)]
    rules = rules_of(options)
    draw = Draw.of(dataset, options.seed)
    if why := draw.obstacle(len(racing), rules.top):
        record.warnings.append(f"{option('race', True)}: {why}: every model is measured on all classes")
        return {}
    _discard_changed(bench, record)
    kept = KeptEmbeddings(bench.cache / EMBEDDINGS)
    runner = _Runner(race_bench(bench), record, budget, progress, kept, draw)

    gone: dict[str, Result] = {}
    race = Race(draw.queries, rules)
    for stage, classes in enumerate(draw.sizes):
        evidence: dict[str, Evidence] = {}
        for place, model in enumerate(racing):
            found = runner.evidence(model, stage, Position(model, place + 1, len(racing), race=classes))
            if isinstance(found, Result):
                gone[model] = found
            else:
                evidence[model] = found
        lost = race.judge(evidence)
        gone |= {model: raced_out(bench, dataset, model, how) for model, how in lost.items()}
        racing = [model for model in evidence if model not in lost]
        record.raced_out.update(lost)
        if not options.keep_embeddings:
            forget_stages(bench, record, lost)
        drawn = f"{classes:,} of {counted(len(draw.order), 'class', 'classes')}"
        say(f"race on {drawn}: {len(racing)} of {len(models)} left")
        if len(racing) <= rules.top:
            break
    images = {part.fingerprint: part.part_of[1] for part in draw.parts if part.part_of is not None}
    bench.parts[dataset.fingerprint] = EmbeddedParts(kept.folder, images)
    return gone


def rules_of(options: Options) -> Rules:
    """Return the rules of a session's race; in a shard, those that keep the best models of all shards together.

    Each of the best models is kept or lost by its own shard, so that at most as many shards as there are best models
    may lose one. They share the probability of doing so.
    """
    shards = options.shard.parts if options.shard else 1
    level = 1 - (1 - LEVEL) / min(shards, options.race_top)
    return Rules(options.race_top, options.race_margin / 100, level)


def forget_stages(bench: Bench, record: Record, models: Container[str]) -> None:
    """Remove the kept embeddings of models in the stages of the race."""
    kept = KeptEmbeddings(bench.cache / EMBEDDINGS)
    for line in record.race.values():
        if line.model in models and line.embeddings is not None:
            kept.remove(line.embeddings)


def race_bench(bench: Bench) -> Bench:
    """Return a bench like this one that only embeds and scores, and keeps the embeddings."""
    settings = dataclasses.replace(bench.settings, throughput=False, latency=False, processes=1)
    other = Bench(
        settings,
        cache=bench.cache,
        own_models=bench.own_models,
        isolation=bench.isolation,
        timeout_s=bench.timeout_s,
        store_limit=bench.store_limit,
        keep_embeddings=True,
    )
    other.hub = bench.hub  # what it has found out about unreachable hosts
    return other


def _discard_changed(bench: Bench, record: Record) -> None:
    """Remove the stages of an earlier session whose models would load other weights now."""
    lines = {line.model: line for line in record.race.values()}
    for model, line in lines.items():
        scores = dict.fromkeys(("acc", "acc5"), 0.0)
        fields = {"family": bench.case(model).family, "scores": scores, "weights": line.weights}
        if bench.weights_changed(Result.make(model, status="ok", **fields)):
            record.race = {key: other for key, other in record.race.items() if other.model != model}


def raced_out(bench: Bench, dataset: Dataset, model: str, lost: RacedOut) -> Result:
    """Return the result of a model that the race has stopped."""
    reason = (
        f"behind {lost.against} on {lost.classes:,} of {counted(len(dataset.classes), 'class', 'classes')} (acc "
        f"{lost.acc:.3f} and {lost.acc_against:.3f} there); on all of them at most {lost.at_most:.2f} times its acc, "
        "with 95 % confidence"
    )
    return Result.make(
        model,
        **facts_of_case(bench.case(model)),
        status="raced-out",
        reason=reason,
        dataset=dataset.fingerprint,
        race=dataclasses.asdict(lost),
    )


@dataclass(frozen=True, eq=False)
class Draw:
    """The classes of a dataset in a random order, and the stages of the race.

    order: [N], labels of the classes as drawn · queries: [N], scored queries of each · sizes: classes at the end of
    each stage · parts: the images that each stage adds.
    """

    dataset: Dataset
    order: NDArray[np.int64]
    queries: NDArray[np.int64]
    sizes: tuple[int, ...]
    parts: tuple[Dataset, ...]

    @classmethod
    def of(cls, dataset: Dataset, seed: int) -> Draw:
        """Draw the classes of a dataset."""
        order = np.random.default_rng([_STREAM, seed]).permutation(len(dataset.classes))
        scored = reference_counts(dataset.query_labels, dataset.reference_labels) > 0
        queries = np.bincount(dataset.query_labels[scored], minlength=len(order))[order]
        sizes = stages(len(order))
        parts = tuple(dataset.select_classes(order[start:stop]) for start, stop in pairwise((0, *sizes)))
        return cls(dataset, order, queries, sizes, parts)

    def obstacle(self, models: int, top: int) -> str:
        """Return why these models cannot race for the best ``top``, or "" if they can."""
        if models <= top:
            return f"{counted(models, 'model')} cannot race for the best {top}"
        if not self.sizes:
            return f"{counted(len(self.order), 'class', 'classes')} are too few to leave most of them out"
        if not all(self.queries[start:stop].any() for start, stop in pairwise((0, *self.sizes))):
            return "most classes have no query with a reference"
        return ""

    def evidence(self, rows: Sequence[NDArray[np.float32]]) -> Evidence:
        """Return the evidence from the embeddings of the images of the first parts."""
        images = np.concatenate([part.part_of[1] for part in self.parts[: len(rows)] if part.part_of is not None])
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        return evidence_of(
            np.concatenate(rows),
            place[self.dataset.labels[images]],
            self.dataset.is_query[images],
            self.dataset.is_reference[images],
            self.sizes[len(rows) - 1],
            leave_one_out=self.dataset.leave_one_out,
        )


@dataclass
class _Runner:
    """Embeds the images of the stages, each once for a model."""

    bench: Bench
    record: Record
    budget: Budget
    progress: Reports
    kept: KeptEmbeddings
    draw: Draw
    _results: dict[tuple[str, int], Result] = field(default_factory=dict)
    """Of a model on the images of a stage, in this session."""

    def evidence(self, model: str, stage: int, position: Position) -> Evidence | Result:
        """Return the evidence on a model after a stage, from the journal if it is there; or why there is none."""
        key = model, self.draw.dataset.fingerprint, self.draw.sizes[stage]
        if key not in self.record.race:
            rows = []
            for number in range(stage + 1):
                embedded = self._embeddings(model, number, position)
                if isinstance(embedded, Result):
                    return msgspec.structs.replace(embedded, dataset=self.draw.dataset.fingerprint)
                rows.append(embedded)
            result = self._results[model, stage]
            self.record.keep_stage(RaceStage.of(key, self.draw.evidence(rows), result.weights, result.embeddings))
        return self.record.race[key].evidence

    def _embeddings(self, model: str, stage: int, position: Position) -> NDArray[np.float32] | Result:
        """Return the embeddings of the images that a stage adds, or the result that says why there are none."""
        part = self.draw.parts[stage]
        if key := self._key(model, stage):
            rows = self.kept.read(key, len(part))
            if rows is not None:
                return rows
        if self.budget.left() <= 0:
            raise BudgetSpent
        with self.progress.reporting(position) as shown:
            case, within = self.bench.case(model), self.budget.within(shown)
            result = self.bench.run(case, part, within, limit_s=self.budget.left()).result
        if result.status == "timeout" and self.budget.left() <= 0:
            raise BudgetSpent
        if not result.ok:
            return result
        rows = None if result.embeddings is None else self.kept.read(result.embeddings, len(part))
        if rows is None:
            raise UsageError(
                f"{option('race', True)}: embeddings cannot be kept in {self.kept.folder}: make room there"
            )
        self._results[model, stage] = result
        return rows

    def _key(self, model: str, stage: int) -> str | None:
        """Return the key of the kept embeddings of a stage, of this session or of one that is resumed."""
        if (model, stage) in self._results:
            return self._results[model, stage].embeddings
        line = self.record.race.get((model, self.draw.dataset.fingerprint, self.draw.sizes[stage]))
        return None if line is None else line.embeddings
