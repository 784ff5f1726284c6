"""The change of every score between two runs; scores with per-query verdicts are tested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedcore.compare import statistics
from embedcore.compare.limits import TESTED
from embedcore.compare.pairs import Pair
from embedcore.errors import UsageError
from embedcore.results.ranking import NotRanked, scored_classes, verdicts_on
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import NEAREST, Verdicts, unpack_classes

FEWEST_CLASSES = 20
"""Fewer classes cannot be the units of the test: with 20, the smallest p-value is 2^-19."""

_UNITS = {"acc": 1.0, "acc5": 1 / NEAREST, "hit5": 1.0}
"""Value of one unit in `_counted`."""
_SAME = 1e-6  # tolerance between saved scores and their verdicts


@dataclass(frozen=True)
class Change:
    """One quantity of one model, before and after."""

    what: str
    """A score, ``images_per_s``, ``memory``, ``drift``, ``status`` or ``degraded``."""
    base: float | str | None
    new: float | str | None
    change: float
    """The value that limits apply to, positive if worse: the fall of a score (fraction of 1), 1 - ratio of speeds,
    ratio - 1 of memory, or the drift."""
    low: float | None = None
    high: float | None = None
    """95 % interval of `change`."""
    p: float | None = None
    """Adjusted for the number of models; None without a test."""
    real: bool = True
    """Whether the change is larger than chance explains."""
    sure: float | None = None
    """Lower bound of the fall of a speed at 1 %, simultaneous for all models."""


@dataclass(frozen=True)
class Queries:
    """The queries of a dataset: `total` of them; `scored` bool [total] or None for all; `which` [n], the class of each
    scored one, below `classes`; `known`: whether the scores of a result are the means over these."""

    total: int
    scored: NDArray[np.bool_] | None
    which: NDArray[np.int64]
    classes: int
    known: bool

    def of(self, values: Verdicts) -> Verdicts:
        """Return the verdicts on the scored queries."""
        return values if self.scored is None else Verdicts(values.hits[self.scored], values.first[self.scored])


def score_changes(pairs: Sequence[Pair], base: Run, new: Run) -> Iterator[tuple[str, Change]]:
    """Yield case and change of every score of pairs on one dataset.

    Those in `TESTED` are tested if both results have verdicts. All tests of all pairs are one family of hypotheses
    (`statistics.false_discovery`). Raises UsageError for damaged verdicts, and for scores that contradict them.
    """
    queries = _queries(base, new) if pairs else None
    tested = [pair for pair in pairs if queries and queries.total and pair.base.verdicts and pair.new.verdicts]
    found = [_tested(pair, base, new, queries) for pair in tested if queries]
    adjusted = statistics.false_discovery(
        [flips.p for tests, _ in found for flips in tests], [flips.least for tests, _ in found for flips in tests]
    ).reshape(-1, len(TESTED))
    for pair, (_, paired), row in zip(tested, found, adjusted.tolist(), strict=True):
        for place, (metric, p) in enumerate(zip(TESTED, row, strict=True)):
            change, low, high = (-float(side[place]) for side in (paired.difference, paired.high, paired.low))
            old, now = pair.base.scores.get(metric), pair.new.scores.get(metric)
            yield pair.model, Change(metric, old, now, change, low, high, p, p <= statistics.SIGNIFICANT)
    known = {pair.model for pair in tested}
    for pair in pairs:
        for metric, score in pair.base.scores.items():
            if metric in pair.new.scores and not (metric in TESTED and pair.model in known):
                now = pair.new.scores[metric]
                yield pair.model, Change(metric, score, now, score - now, real=False)


def acc_test(pair: Pair, base: Run, new: Run) -> statistics.Flips:
    """Return the test of acc of a pair, not corrected; its results are on one dataset of each run.

    Raises UsageError as `score_changes` does.
    """
    sides = (_on(base, pair.base), _on(new, pair.new))
    return _tested(pair, *sides, _queries(*sides))[0][TESTED.index("acc")]


def _on(run: Run, result: Result) -> Run:
    """Return the run reduced to the dataset of one of its results."""
    block = next((each for each in run.datasets if each.get("fingerprint") == result.dataset), run.dataset)
    return run.on(block)


def _tested(pair: Pair, base: Run, new: Run, queries: Queries) -> tuple[list[statistics.Flips], statistics.Paired]:
    """Return the test and the interval of each score in `TESTED`."""
    old = _verdicts(base, pair.base, queries)
    if pair.base.verdicts == pair.new.verdicts:  # nearly all pairs of an upgrade: no query changed
        _check_scores(new, pair.new, old, queries)
        nothing = np.zeros(len(TESTED))
        return [statistics.NOTHING] * len(TESTED), statistics.Paired(nothing, nothing, nothing)
    before, after = _counted(old), _counted(_verdicts(new, pair.new, queries))
    steps = [after[metric] - before[metric] for metric in TESTED]
    tests = [step_test(step, queries.which, queries.classes) for step in steps]
    return tests, step_intervals(
        np.stack([step * _UNITS[metric] for metric, step in zip(TESTED, steps, strict=True)]),
        queries.which,
        queries.classes,
    )


def step_test(step: NDArray[np.int64], which: NDArray[np.int64], classes: int) -> statistics.Flips:
    """Return the test of paired differences of queries.

    Args:
        step: integers [n], the difference of each query.
        which: [n], the class of each query, below `classes`.
    """
    of_class = np.bincount(which, step, classes).astype(np.int64)
    if 1 < classes < FEWEST_CLASSES:
        return _flips_of_queries(step, of_class, which)
    return statistics.sign_flips(of_class)


def step_intervals(steps: NDArray[np.floating], which: NDArray[np.int64], classes: int) -> statistics.Paired:
    """Return the mean of each row of `steps` [m, n] with its interval; `which`, `classes` as in `step_test`."""
    if 1 < classes < FEWEST_CLASSES:
        return statistics.paired_by_class(steps, np.ones_like(which))
    sums = np.stack([np.bincount(which, step, classes) for step in steps]).astype(np.float64)
    return statistics.paired_by_class(sums, np.bincount(which, minlength=classes))


def _flips_of_queries(
    step: NDArray[np.int64], of_class: NDArray[np.int64], which: NDArray[np.int64]
) -> statistics.Flips:
    """Test queries instead of classes; the change must be significant without the class that changed most, too.

    Near-copies in one class therefore cannot make a change significant.
    """
    everything = statistics.sign_flips(step)
    most = np.argmax(of_class * np.sign(of_class.sum()))
    others = statistics.sign_flips(step[which != most])
    return statistics.Flips(max(everything.p, others.p), everything.least)


def _counted(verdicts: Verdicts) -> dict[str, NDArray[np.int64]]:
    """Return what each score in `TESTED` is the mean of, as integers [n], in the units of `_UNITS`."""
    hits = verdicts.hits.astype(np.int64)
    return {"acc": verdicts.first.astype(np.int64), "acc5": hits, "hit5": (hits > 0).astype(np.int64)}


def _verdicts(run: Run, result: Result, queries: Queries) -> Verdicts:
    """Return the verdicts on the scored queries. Raises UsageError if they do not fit the dataset or the scores."""
    try:
        scored = queries.of(verdicts_on(result, queries.total))
    except NotRanked as error:
        raise UsageError(f"{run.path}: result of {error}") from error
    _check_scores(run, result, scored, queries)
    return scored


def _check_scores(run: Run, result: Result, verdicts: Verdicts, queries: Queries) -> None:
    """Raise UsageError if a score is not the mean of the verdicts."""
    if not queries.known:
        return
    hits = verdicts.hits
    sums = {"acc": np.count_nonzero(verdicts.first), "acc5": hits.sum(dtype=np.int64), "hit5": np.count_nonzero(hits)}
    for metric, total in sums.items():
        mean = float(total) * _UNITS[metric] / len(hits)
        score = result.scores.get(metric, mean)
        if abs(score - mean) > _SAME:
            raise UsageError(
                f"{run.path}: result of {result.model}: its {metric} is {score:.4f}, and its verdicts give {mean:.4f}"
            )


def _queries(base: Run, new: Run) -> Queries:
    """Return the queries of two runs on one dataset; a class for each query if neither records the classes.

    Raises UsageError for damaged classes.
    """
    for run in (base, new):
        try:
            which, scored = scored_classes(run.dataset)
        except NotRanked:
            continue
        return Queries(len(scored), None if scored.all() else scored, which, int(which.max()) + 1, known=True)
    classes = _classes(base)
    which = np.unique(classes, return_inverse=True)[1].reshape(-1).astype(np.int64)
    lone = base.dataset.get("lone_queries") or 0
    return Queries(len(which), None, which, int(which.max(initial=-1)) + 1, known=lone == 0)


def _classes(run: Run) -> NDArray[np.uint32]:
    """Return the class of each query; one class per query if the run does not record them."""
    text, queries = run.dataset.get("query_classes"), run.dataset.get("queries")
    try:
        if isinstance(text, str):
            return unpack_classes(text)
    except ValueError as error:
        raise UsageError(f"{run.path}: query_classes: {error}") from error
    return np.arange(queries if isinstance(queries, int) and 0 <= queries < 10**8 else 0, dtype=np.uint32)
