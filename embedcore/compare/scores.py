"""The change of every score between two runs; scores with per-query verdicts are tested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedcore.compare import statistics
from embedcore.compare.limits import TESTED
from embedcore.compare.pairs import Pair
from embedcore.errors import UsageError
from embedcore.results.headline import UNLABELLED
from embedcore.results.ranking import NotRanked, outcomes_on, renumbered, scored_classes
from embedcore.results.result import Result
from embedcore.results.run import Run
from embedcore.results.verdicts import unpack_classes
from embedcore.retrieval.outcomes import PROBES, Outcomes

FEWEST_CLASSES = 20
"""Fewer classes cannot be the units of the test: with 20, the smallest p-value is 2^-19."""

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

    def of(self, outcomes: Outcomes) -> Outcomes:
        """Return the outcomes on the scored queries."""
        if self.scored is None:
            return outcomes
        judged = None if outcomes.judged is None else outcomes.judged[self.scored]
        return Outcomes(outcomes.right[self.scored], outcomes.tries, judged)


class Tested(NamedTuple):
    """The test of one score of a pair: `change` as in `Change`, with its 95 % interval."""

    metric: str
    flips: statistics.Flips
    change: float = 0.0
    low: float = 0.0
    high: float = 0.0


def score_changes(pairs: Sequence[Pair], base: Run, new: Run) -> Iterator[tuple[str, Change]]:
    """Yield case and change of every score of pairs on one dataset.

    Scores that verdicts contain, and the probes that both results have, are tested if both results have verdicts. All
    tests of all pairs are one family of hypotheses (`statistics.false_discovery`). Raises UsageError for damaged
    verdicts, and for scores that contradict them.
    """
    if not pairs:
        return
    queries = _queries(base, new)
    able = [pair for pair in pairs if queries.total and pair.base.verdicts and pair.new.verdicts]
    tests = [(pair, test) for pair in able for test in _tested(pair, base, new, queries)]
    adjusted = statistics.false_discovery([test.flips.p for _, test in tests], [test.flips.least for _, test in tests])
    for (pair, test), p in zip(tests, adjusted.tolist(), strict=True):
        old, now = pair.base.scores.get(test.metric), pair.new.scores.get(test.metric)
        real = p <= statistics.SIGNIFICANT
        yield pair.model, Change(test.metric, old, now, test.change, test.low, test.high, p, real)
    known = {(pair.model, test.metric) for pair, test in tests}
    for pair in pairs:
        for metric, score in pair.base.scores.items():
            if metric in pair.new.scores and (pair.model, metric) not in known:
                now = pair.new.scores[metric]
                yield pair.model, Change(metric, score, now, score - now, real=False)


def acc_test(pair: Pair, base: Run, new: Run) -> statistics.Flips:
    """Return the test of acc of a pair, not corrected; its results are on one dataset of each run.

    Raises UsageError as `score_changes` does.
    """
    sides = (_on(base, pair.base), _on(new, pair.new))
    return next(test.flips for test in _tested(pair, *sides, _queries(*sides)) if test.metric == "acc")


def _on(run: Run, result: Result) -> Run:
    """Return the run reduced to the dataset of one of its results."""
    block = next((each for each in run.datasets if each.get("fingerprint") == result.dataset), run.dataset)
    return run.on(block)


def _tested(pair: Pair, base: Run, new: Run, queries: Queries) -> list[Tested]:
    """Return the test of each score that verdicts contain, and of each probe that both results have."""
    metrics = UNLABELLED if pair.new.headline == UNLABELLED else TESTED
    found = _tests(pair, base, new, queries, metrics, same=pair.base.verdicts == pair.new.verdicts)
    before, after = pair.base.probe_verdicts, pair.new.probe_verdicts
    for metric in (name for name in PROBES if name in before and name in after):
        found += _tests(pair, base, new, queries, (metric,), same=before[metric] == after[metric])
    return found


def _tests(pair: Pair, base: Run, new: Run, queries: Queries, metrics: Sequence[str], *, same: bool) -> list[Tested]:
    """Return the tests of `metrics`, which are judged on the same queries; none if the two results differ in these.

    `same`: whether both results have the same verdicts.
    """
    before = _outcomes(base, pair.base, metrics, queries)
    if same:  # nearly all pairs of an upgrade: no query changed
        _check_scores(new, pair.new, before, queries)
        return [Tested(metric, statistics.NOTHING) for metric in metrics]
    after = _outcomes(new, pair.new, metrics, queries)
    steps = [after[metric].right.astype(np.int64) - before[metric].right for metric in metrics]
    which, classes = queries.which, queries.classes
    (_, tries, judged), other = before[metrics[0]], after[metrics[0]]
    if judged is not None and other.judged is not None:
        if not (tries == other.tries and np.array_equal(judged, other.judged) and judged.any()):
            return []
        steps, which = [step[judged] for step in steps], renumbered(which[judged])
        classes = int(which.max()) + 1
    scaled = np.stack([step / before[metric].tries for metric, step in zip(metrics, steps, strict=True)])
    paired = step_intervals(scaled, which, classes)
    of_falls = paired.difference, paired.high, paired.low
    return [
        Tested(metric, step_test(step, which, classes), *(-float(side[place]) for side in of_falls))
        for place, (metric, step) in enumerate(zip(metrics, steps, strict=True))
    ]


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


def _outcomes(run: Run, result: Result, metrics: Sequence[str], queries: Queries) -> dict[str, Outcomes]:
    """Return the outcomes on the scored queries. Raises UsageError if they do not fit the dataset or the scores."""
    try:
        found = outcomes_on(result, metrics, queries.total)
    except NotRanked as error:
        raise UsageError(f"{run.path}: result of {error}") from error
    scored = {metric: queries.of(outcomes) for metric, outcomes in found.items()}
    _check_scores(run, result, scored, queries)
    return scored


def _check_scores(run: Run, result: Result, found: Mapping[str, Outcomes], queries: Queries) -> None:
    """Raise UsageError if a score is not the mean of its outcomes."""
    if not queries.known:
        return
    for metric, outcomes in found.items():
        right = outcomes.right if outcomes.judged is None else outcomes.right[outcomes.judged]
        total = np.count_nonzero(right) if outcomes.tries == 1 else right.sum(dtype=np.int64)
        mean = float(total) / outcomes.tries / max(1, len(right))
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
    which = renumbered(classes)
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
