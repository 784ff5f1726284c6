"""Random effects between image sets, against published figures, closed forms and brute force."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import synthetic_runs as made
from scipy import integrate, optimize, stats

from embedcore.compare.pool import between_variance, pool, pooled
from embedcore.compare.scores import step_intervals
from embedcore.errors import UsageError
from embedcore.results.verdicts import unpack_verdicts

# Trials of the BCG vaccine (Colditz et al., JAMA 271, 1994): cases and others among the vaccinated, then the controls.
BCG = [
    (4, 119, 11, 128),
    (6, 300, 29, 274),
    (3, 228, 11, 209),
    (62, 13536, 248, 12619),
    (33, 5036, 47, 5761),
    (180, 1361, 372, 1079),
    (8, 2537, 10, 619),
    (505, 87886, 499, 87892),
    (29, 7470, 45, 7232),
    (17, 1699, 65, 1600),
    (186, 50448, 141, 27197),
    (5, 2493, 3, 2338),
    (27, 16886, 29, 17825),
]


def restricted_deviance(between, differences, errors):
    """Minus twice the log of the restricted likelihood but for a constant, the mean and its variance, by matrices."""
    ones = np.ones((len(differences), 1))
    covariance = np.diag(errors**2 + between)
    inverse = np.linalg.inv(covariance)
    information = ones.T @ inverse @ ones
    mean = np.linalg.solve(information, ones.T @ inverse @ differences)
    residual = differences - ones @ mean
    parts = np.linalg.slogdet(covariance)[1], np.linalg.slogdet(information)[1], residual @ inverse @ residual
    return float(sum(parts)), float(mean[0]), 1 / float(information[0, 0])


def below_by_quadrature(value, differences, errors):
    """The probability that a new set is below a value, integrated over tau from 0 to infinity."""

    def integrand(tau, value):
        deviance, mean, variance = restricted_deviance(tau**2, differences, errors)
        chance = 1.0 if value is None else stats.norm.cdf(value, mean, math.sqrt(tau**2 + variance))
        return math.exp(-deviance / 2) * chance

    part, whole = (integrate.quad(integrand, 0, np.inf, args=(each,), limit=200)[0] for each in (value, None))
    return part / whole


def test_the_published_analysis_of_bcg_is_reproduced():
    """Log risk ratios by restricted maximum likelihood with Hartung and Knapp's interval, as metafor prints them."""
    effects = np.array([math.log(a / (a + b)) - math.log(c / (c + d)) for a, b, c, d in BCG])
    errors = np.sqrt([1 / a - 1 / (a + b) + 1 / c - 1 / (c + d) for a, b, c, d in BCG])
    found = pooled(effects, errors)
    assert found.mean == pytest.approx(-0.7145, abs=1e-4) and found.tau**2 == pytest.approx(0.3132, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((-1.1084, -0.3206), abs=2e-4)
    assert found.p == pytest.approx(0.0019, abs=1e-4)
    assert [below_by_quadrature(end, effects, errors) for end in found.new] == pytest.approx([0.025, 0.975], abs=1e-4)
    assert found.better == pytest.approx(1 - below_by_quadrature(0.0, effects, errors), abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_sets_of_equal_error_give_the_t_test(seed):
    """If sets differ by more than their common error, the weights are equal: Student's one-sample interval."""
    differences = np.random.default_rng(seed).normal(0.02, 0.05, 7)
    found = pooled(differences, np.full(7, 0.01))
    test = stats.ttest_1samp(differences, 0)
    interval = test.confidence_interval(0.95)
    assert found.tau**2 == pytest.approx(np.var(differences, ddof=1) - 1e-4, rel=1e-5)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert found.mean == pytest.approx(differences.mean()) and found.p == pytest.approx(test.pvalue, rel=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_the_variance_maximises_the_restricted_likelihood(seed):
    rng = np.random.default_rng(seed)
    sets = int(rng.integers(2, 9))
    errors = rng.uniform(0.2, 2.0, sets)
    differences = rng.normal(0, errors) + rng.normal(0, rng.choice([0, 1, 3]), sets)

    def deviance(between):
        return restricted_deviance(between, differences, errors)[0]

    found = between_variance(differences, errors**2)
    grid = np.linspace(0, 200, 801)
    start = grid[np.argmin([deviance(each) for each in grid])]
    best = optimize.minimize_scalar(deviance, bounds=(max(0, start - 0.25), start + 0.25), method="bounded").x
    assert found == pytest.approx(best, abs=1e-4)
    assert deviance(found) <= min(deviance(best), deviance(0.0)) + 1e-9


@pytest.mark.parametrize("sets", [3, 5])
def test_a_new_set_is_predicted_by_an_average_over_tau(sets):
    rng = np.random.default_rng(sets)
    differences, errors = rng.normal(0.02, 0.02, sets), rng.uniform(0.01, 0.03, sets)
    found = pooled(differences, errors)
    shares = [below_by_quadrature(end, differences, errors) for end in (*found.new, 0.0)]
    assert shares == pytest.approx([0.025, 0.975, 1 - found.better], abs=5e-4)


@pytest.mark.parametrize("sets", [3, 7])
def test_sets_without_errors_predict_by_students_t(sets):
    differences = np.random.default_rng(sets).normal(0.02, 0.05, sets)
    found = pooled(differences, np.full(sets, 1e-6))
    squares = ((differences - differences.mean()) ** 2).sum()
    predicted = stats.t(sets - 2, differences.mean(), math.sqrt(squares / (sets - 2) * (1 + 1 / sets)))
    width = predicted.ppf(0.975) - predicted.ppf(0.025)
    assert found.new == pytest.approx((predicted.ppf(0.025), predicted.ppf(0.975)), abs=0.01 * width)
    assert found.better == pytest.approx(predicted.sf(0), abs=0.005)


def test_equal_sets_do_not_differ():
    found = pooled(np.full(4, 0.02), np.array([0.01, 0.02, 0.03, 0.04]))
    assert found.tau == 0 and found.mean == pytest.approx(0.02)
    error = (1 / np.sum(1 / np.array([0.01, 0.02, 0.03, 0.04]) ** 2)) ** 0.5  # not that of the residuals, which are 0
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 3) * error)


def test_two_sets_have_no_interval_for_a_new_one():
    found = pooled(np.array([0.1, 0.2]), np.array([0.01, 0.01]))
    assert found.new is None and found.better is None and found.low < 0 < found.mean


@pytest.mark.parametrize("sets", [4, 10])
def test_intervals_cover_the_mean_and_a_new_set(sets):
    """Simulated sets of unequal error: at least 93 % of the intervals contain the truth."""
    rng = np.random.default_rng(sets)
    held = np.zeros(2)
    for _ in range(400):
        errors = rng.uniform(0.01, 0.03, sets)
        found = pooled(rng.normal(0.03, 0.03, sets) + rng.normal(0, errors), errors)
        new = rng.normal(0.03, 0.03)
        held += (found.low <= 0.03 <= found.high, found.new[0] <= new <= found.new[1])
    assert (held / 400 > 0.93).all() and held[0] / 400 < 0.99


CLASSES = {
    "photos": np.repeat(np.arange(40), 5),
    "drawings": np.repeat(np.arange(25), 6),
    "digits": np.arange(300) % 10,
}


def dataset(name, accs):
    """A dataset with its block and measured results."""
    classes = CLASSES[name]
    results = [made.result(model, classes, made.hits_of(model, classes, acc, len(name))) for model, acc in accs.items()]
    run = made.as_run(made.saved(results, classes, dataset={"name": name, "fingerprint": name}))
    return run.dataset, list(run.results)


ALL = [
    dataset("photos", {"a.x": 0.6, "b.x": 0.5, "c.x": 0.9}),
    dataset("drawings", {"b.x": 0.4, "a.x": 0.7, "d.x": 0.3}),
    dataset("digits", {"a.x": 0.8, "b.x": 0.8, "d.x": 0.2}),
]


def swapped(results):
    """The results, the first two with the verdicts of each other."""
    one, other, *rest = results
    return [
        msgspec.structs.replace(one, verdicts=other.verdicts),
        msgspec.structs.replace(other, verdicts=one.verdicts),
        *rest,
    ]


def test_differences_are_paired_and_clustered():
    found = pool(ALL)
    assert found.reference == "a.x" and [model.model for model in found.models] == ["b.x", "d.x"]
    assert found.left_out == ("c.x",)
    b, d = found.models
    assert [*b.differences] == [0, 1, 2] and [*d.differences] == [1, 2]
    for number, name in enumerate(("photos", "drawings", "digits")):
        results = {result.model: result for result in ALL[number][1]}
        step = np.subtract(*(unpack_verdicts(results[m].verdicts).first.astype(int) for m in ("b.x", "a.x")))
        classes = len(np.unique(CLASSES[name]))
        paired = step_intervals(step[None], CLASSES[name], classes)
        difference, error = b.differences[number]
        units = len(step) if classes < 20 else classes
        assert difference == pytest.approx(paired.difference[0])
        half = stats.t.ppf(0.975, units - 1) * error
        assert (difference - half, difference + half) == pytest.approx((paired.low[0], paired.high[0]))
        assert found.accs[number] == pytest.approx(results["a.x"].scores["acc"])
    alone = pooled(*(np.array(column) for column in zip(*b.differences.values(), strict=True)))
    assert (b.pooled.mean, b.pooled.tau, b.pooled.new) == (alone.mean, alone.tau, alone.new)
    assert b.pooled.p >= alone.p and d.pooled.new is None


def test_equal_verdicts_have_the_error_of_one_query():
    block, (a, b, _) = ALL[0]

    twin = msgspec.structs.replace(b, verdicts=a.verdicts, scores=a.scores)
    found = pool([(block, [a, twin]), ALL[1]])
    assert found.models[0].differences[0] == (0.0, 1 / 200)


def test_another_reference():
    found = pool(ALL, "b.x")
    assert found.reference == "b.x" and {model.model for model in found.models} == {"a.x", "d.x"}
    back = next(model for model in pool(ALL).models if model.model == "b.x")
    there = next(model for model in found.models if model.model == "a.x")
    assert there.pooled.mean == pytest.approx(-back.pooled.mean)
    assert there.pooled.better == pytest.approx(1 - back.pooled.better)


@pytest.mark.parametrize(
    ("datasets", "reference", "message"),
    [
        (ALL[:1], None, "one image set cannot be pooled"),
        (ALL, "c.x", "reference c.x was measured on fewer than two of the 3 image sets"),
        ([ALL[0], dataset("digits", {"z.x": 0.5})], None, "no model was measured on all image sets"),
        ([dataset(name, {"a.x": 0.5}) for name in ("photos", "digits")], None, "no other model was measured on two"),
        ([(ALL[0][0], swapped(ALL[0][1])), ALL[1]], None, "a.x: its verdicts do not match its acc"),
        ([({**ALL[0][0], "query_classes": None}, ALL[0][1]), ALL[1]], None, "classes of the queries are not saved"),
    ],
)
def test_what_cannot_be_pooled(datasets, reference, message):
    with pytest.raises(UsageError, match=message):
        pool(datasets, reference)
