"""The gate on synthetic runs: what is compared, what is significant, what passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.compare.comparison import compare
from embedcore.compare.limits import DEFAULT, Accepted, Limits, parse_limits
from embedcore.compare.verdict import judge
from embedcore.errors import UsageError
from embedcore.results.ranking import ranking_block
from embedcore.results.result import Result

CLASSES = np.repeat(np.arange(200), 10)
LIMITS = Limits(parse_limits(DEFAULT))
MODEL = "vit_tiny.in1k"


def info(model=MODEL, hits=None, **changes):
    return made.result(model, CLASSES, made.hits_of(model, CLASSES, 0.6) if hits is None else hits, **changes)


def run(*results, **block):
    return made.as_run(made.saved(list(results) or [info()], CLASSES, **block))


def findings(base, new, limits=LIMITS, **options):
    return judge(compare(base, new, **options), limits).findings


def worse(share):
    """Hits in which a share of the queries has lost all."""
    hits = made.hits_of(MODEL, CLASSES, 0.6)
    return np.where(np.random.default_rng(1).random(len(hits)) < share, 0, hits).astype(np.uint8)


def test_equal_runs_have_no_finding():
    comparison = compare(run(), run())
    assert judge(comparison, LIMITS).findings == () and comparison.compared == 1
    assert {change.what for change in comparison.models[0].changes} == {
        "acc", "acc5", "hit5", "images_per_s", "memory", "drift",
    }  # fmt: skip


def test_a_real_fall_of_scores_is_a_regression_with_its_test():
    found = findings(run(), run(info(hits=worse(0.05))))
    assert [(f.level, f.change.what) for f in found] == [
        ("regression", "acc"), ("regression", "acc5"), ("change", "hit5"),
    ]  # fmt: skip
    acc = found[0].change
    assert acc.low < acc.change < acc.high and acc.p < 1e-3 and acc.change == pytest.approx(acc.base - acc.new)


def test_insignificant_falls_and_falls_within_the_limit_pass():
    hits = made.hits_of(MODEL, CLASSES, 0.6)
    flipped = np.random.default_rng(2).choice(len(hits), 60, replace=False)
    noisy = hits.copy()
    noisy[flipped] = np.random.default_rng(3).permutation(hits[flipped])
    assert findings(run(), run(info(hits=noisy))) == ()
    wide = Limits(parse_limits("acc:10pt,acc5:10pt"))
    assert {f.level for f in findings(run(), run(info(hits=worse(0.05))), wide)} == {"change"}


def test_improvements_are_reported_and_never_fail():
    found = findings(run(info(hits=worse(0.05))), run())
    assert {f.level for f in found} == {"improvement"}
    slow = info(durations=[2.0] * 10, images_per_s={"forward": 8.0})
    assert [(f.level, f.change.what) for f in findings(run(slow), run())] == [("improvement", "images_per_s")]


def test_slower_beyond_the_limit_and_the_noise_is_a_regression():
    slow = info(durations=[1.2] * 10, images_per_s={"forward": 13.3})
    found = findings(run(), run(slow))
    assert [(f.level, f.change.what) for f in found] == [("regression", "images_per_s")]
    assert found[0].change.change == pytest.approx(1 - 1 / 1.2, abs=0.01)


def test_more_memory_and_moved_embeddings_are_regressions():
    assert [f.change.what for f in findings(run(), run(info(peak_memory_mb=1100.0)))] == ["memory"]
    assert findings(run(), run(info(peak_memory_mb=727.0))) == (), "the growth of a process"
    assert findings(run(info(peak_memory_mb=50.0)), run(info(peak_memory_mb=80.0))) == (), "an allocator's rounding"
    on_card = [info(device="cuda", peak_memory_mb=mb) for mb in (500.0, 560.0)]
    assert [f.change.what for f in findings(*map(run, on_card))] == ["memory"]
    moved = info(sketch=info("other.model")["sketch"])
    found = findings(run(), run(moved, machine=made.MACHINE | {"timm": "1.0.31"}))
    assert [(f.level, f.change.what) for f in found] == [("regression", "drift")]
    assert found[0].causes == (
        f"same weights and settings, embeddings moved {found[0].change.change:.2g}: code (timm 1.0.20 → 1.0.31)",
    )
    assert findings(run(), run(info(dim=384)))[0].change.change == math.inf


def test_half_precision_may_round_but_not_move():
    moved = np.frombuffer(__import__("base64").b64decode(info()["sketch"]), "<f4").reshape(8, 64) * 1.01
    half = {"precision": "bf16"}
    rounded = info(sketch=made.pack_sketch(moved), **half)
    assert findings(run(info(**half)), run(rounded)) == ()
    assert [f.change.what for f in findings(run(), run(info(sketch=made.pack_sketch(moved))))] == ["drift"]


def test_a_lost_case_fails_and_a_recovered_one_is_an_improvement():
    oom = {"model": MODEL, "family": "vit", "status": "oom", "reason": "no memory"}
    other = info("other.model")
    found = findings(run(info(), other), run(other, excluded=[oom]))
    assert [(f.level, f.change.what, f.change.new) for f in found] == [("regression", "status", "oom")]
    assert [f.level for f in findings(run(other, excluded=[oom]), run(info(), other))] == ["improvement"]


def test_a_changed_failure_is_reported():
    failures = [{"model": MODEL, "family": "vit", "status": status, "reason": ""} for status in ("oom", "nan")]
    found = findings(*(run(info("other.model"), excluded=[failure]) for failure in failures))
    assert [(f.level, f.change.base, f.change.new) for f in found] == [("change", "oom", "nan")]


def test_findings_are_grouped_by_model_worst_first():
    names = ["a.b", "c.d"]
    base = [info(name) for name in names]
    falls = [np.where(np.arange(len(CLASSES)) % step == 0, 0, 3).astype(np.uint8) for step in (20, 5)]
    new = [info(name, hits) for name, hits in zip(names, falls, strict=True)]
    models = [f.model for f in findings(run(*base), run(*new)) if f.level == "regression"]
    assert models == sorted(models, reverse=True) and len(models) > len(set(models)) == 2


def test_missing_unreached_and_deselected_models_are_distinguished():
    other = info("other.model")
    base = run(info(), other)
    assert [(f.level, f.change.new) for f in findings(base, run(other))] == [("regression", "missing")]
    assert [(f.level, f.change.new) for f in findings(base, run(other, unreached=[MODEL]))] == [
        ("regression", "not reached")
    ]
    comparison = compare(base, run(other, selection={"keyword": "other"}))
    assert judge(comparison, LIMITS).findings == () and [r.model for r in comparison.pairing.deselected] == [MODEL]
    added = compare(run(other), base).pairing.added
    assert [result.model for result in added] == [MODEL]


def test_renamed_models_and_new_default_tags_are_matched():
    old, new = info("vit_old.in1k"), info("vit_new.in1k", sketch=info("vit_old.in1k")["sketch"])
    comparison = compare(run(old), run(new, renamed={"vit_old.in1k": "vit_new.in1k"}))
    assert comparison.models[0].causes[0] == "vit_old.in1k was renamed to vit_new.in1k"
    siglip, v2 = info("siglip.webli"), info("siglip.v2_webli")
    found = findings(run(siglip), run(v2))
    assert found[0].causes[0] == "the default tag of siglip is now v2_webli: another model"
    assert findings(run(siglip), run(info("siglip.v2_webli", default_tag="webli"))), "not a default: missing"


CAUSES = {
    "crop 0.875 → 1.0": {"transform": info()["transform"] | {"crop_pct": 1.0}},
    "interpolation bicubic → bilinear": {"transform": info()["transform"] | {"interpolation": "bilinear"}},
    "input size 224×224 → 256×256": {"input_size": [3, 256, 256]},
    "other weights file: hub:timm/vit_tiny.in1k → hub:new": {
        "weights": {"source": "hub", "id": "sha256:new", "address": "hub:new"}
    },
    "other weights file at the same address (hub:timm/vit_tiny.in1k)": {
        "weights": info()["weights"] | {"id": "sha256:new"},
    },
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_is_named(cause):
    moved = info(sketch=info("other.model")["sketch"], **CAUSES[cause])
    assert cause in findings(run(), run(moved))[0].causes


BARRIERS = {
    "another dataset": ({"dataset": {"fingerprint": "beef"}}, {}, {"acc", "drift"}),
    "another protocol": ({"settings": {"protocol": "square224"}}, {}, {"acc", "drift"}),
    "another machine": ({"machine": made.MACHINE | {"processor": "another"}}, {}, {"images_per_s", "memory"}),
    "another precision": ({}, {"precision": "bf16"}, {"acc", "images_per_s", "drift"}),
    "another device": ({}, {"device": "cuda"}, {"acc", "images_per_s", "drift"}),
    "another batch size": ({}, {"batch_size": 8}, {"images_per_s", "memory"}),
    "smaller batch than asked for": ({}, {"batch_size": 8, "batch_decayed": True}, {"images_per_s", "memory"}),
    "random": ({}, {"weights": {"source": "random", "id": "seed:0"}}, {"acc", "images_per_s", "drift"}),
}


@pytest.mark.parametrize("why", BARRIERS)
def test_incomparable_results_are_listed_with_the_reason(why):
    block, changes, absent = BARRIERS[why]
    comparison = compare(run(), run(info(**changes), **block))
    assert not absent & {change.what for change in comparison.models[0].changes}
    output = {**comparison.barriers, **comparison.models[0].barriers}
    assert any(why in text for text in output.values()), output


def test_across_machines_scores_and_drift_are_compared():
    other = run(machine=made.MACHINE | {"processor": "another"})
    whats = {change.what for change in compare(run(), other, across_machines=True).models[0].changes}
    assert {"acc", "drift"} <= whats and not {"images_per_s", "memory"} & whats


def test_an_accepted_change_passes_until_it_gets_worse():
    moved = info(hits=worse(0.05), sketch=info("other.model")["sketch"])
    state = Result.from_json(moved)
    limits = Limits(LIMITS.overall, (), {MODEL: Accepted(state, "a better transform")})
    found = findings(run(), run(moved), limits)
    assert {f.level for f in found} == {"accepted", "change"} and found[0].because == "a better transform"
    assert "regression" in {f.level for f in findings(run(), run(info(hits=worse(0.2))), limits)}
    gone = Limits(LIMITS.overall, (), {MODEL: Accepted(None, "dropped")})
    other = info("other.model")
    assert [f.level for f in findings(run(info(), other), run(other), gone)] == ["accepted"]


def test_false_alarms_over_many_models_are_rare():
    rng = np.random.default_rng(0)
    names = [f"vit_{n}.in1k" for n in range(100)]
    first, second = [], []
    for name in names:
        hits = made.hits_of(name, CLASSES, 0.6)
        for side in (first, second):
            flipped = np.where(rng.random(len(hits)) < 0.05, rng.integers(0, 6, len(hits)), hits).astype(np.uint8)
            durations = np.exp(rng.normal(rng.normal(0, 0.014), 0.01, 10))
            side.append(info(name, flipped, durations=durations.tolist()))
    verdict = judge(compare(run(*first), run(*second)), LIMITS)
    alarms = [f for f in verdict.of("regression") if f.change.what in ("acc", "acc5", "images_per_s")]
    assert len(alarms) <= 1


def test_ranks_that_left_both_intervals_are_reported():
    def ranked(results):
        return run(*results, ranking=ranking_block(run(*results).rankings()))

    names = [f"vit_{n}.in1k" for n in range(6)]
    base = [info(name, made.hits_of(name, CLASSES, 0.3 + 0.1 * n)) for n, name in enumerate(names)]
    new = [*base[:-1], info(names[-1], made.hits_of(names[-1], CLASSES, 0.2))]
    assert compare(ranked(base), ranked(base)).ranks == ()
    moved = {rank.model: rank for rank in compare(ranked(base), ranked(new)).ranks}
    assert moved[names[-1]].base == (1, 1, 1) and moved[names[-1]].new == (6, 6, 6)
    assert compare(run(*base), run(*new)).ranks == ()  # saved without rankings
    # A rank of 6 is no change behind five added models, but it is before them.
    more = [info(f"net_{n}.in1k", made.hits_of(f"net_{n}.in1k", CLASSES, 0.95)) for n in range(5)]
    assert compare(ranked(base), ranked([*base, *more])).ranks == ()
    assert compare(ranked([*base, *more]), ranked(base)).ranks == ()
    assert [rank.model for rank in compare(ranked(base), ranked([*new, *more[:2]])).ranks] == [names[-1]]
    assert [rank.model for rank in compare(ranked([*new, *more[:2]]), ranked(base)).ranks] == [names[-1]]


@pytest.mark.parametrize(
    "changes",
    [
        {"verdicts": "nonsense"},
        {"verdicts": made.pack_verdicts([1, 2], [True, False])},
        {"sketch": "AAAA"},
        {"sketch": made.pack_sketch(np.ones((2, 64)))},
    ],
)
def test_damaged_verdicts_and_sketches_are_one_line(changes):
    with pytest.raises(UsageError, match=f"run.json.*{MODEL}"):
        compare(run(), run(info(**changes)))


def test_a_run_without_query_classes_is_compared_by_query():
    data = made.saved([info()], CLASSES)
    del data["embedcore"]["dataset"]["query_classes"]
    worse_run = made.saved([info(hits=worse(0.05))], CLASSES)
    found = findings(made.as_run(data), made.as_run(worse_run))
    assert found[0].change.what == "acc" and found[0].level == "regression"
