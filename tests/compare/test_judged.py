"""A pass means judged: falls of speed that must be found, and what must not pass for want of a judgement."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.cli import main
from embedcore.compare.comparison import compare
from embedcore.compare.interleaved import ratio_of
from embedcore.compare.limits import DEFAULT, Accepted, Limits, parse_limits
from embedcore.compare.verdict import judge
from embedcore.report.gate.comparison_export import junit, to_json
from embedcore.report.gate.comparison_text import summary, text

CLASSES = np.repeat(np.arange(20), 5)
LIMITS = Limits(parse_limits(DEFAULT))
AUTO = {"precision": "auto", "batch_size": "auto"}


def info(number, speed=1.0, seed=0, timings=None, **changes):
    """A model whose speed is `speed` times that of the base; `timings`: arguments of `processes`."""
    name = f"net_{number}.tag"
    timed = made.processes([1 / speed], **{"seed": [seed, number], **(timings or {})})
    durations = [1 / speed] * 10
    fields = {"processes": timed, "durations": durations, "images_per_s": {"forward": 16 * speed}}
    return made.result(name, CLASSES, made.hits_of(name, CLASSES, 0.6), **{**fields, **changes})


def run(infos, **block):
    return made.as_run(made.saved(infos, CLASSES, **block), block.pop("name", "run.json"))


def judged(speeds, *, base=None, limits=LIMITS, block=None, **changes):
    """Compare models of equal speed with models of these speeds; `changes` are those of the new results."""
    old = run(base or [info(number) for number in range(len(speeds))], **(block or {}))
    new = run([info(number, speed, 1, **changes) for number, speed in enumerate(speeds)], **(block or {}))
    comparison = compare(old, new)
    return comparison, judge(comparison, limits)


def slower(verdict):
    return [int(f.model[4:-4]) for f in verdict.of("regression") if f.change.what == "images_per_s"]


@pytest.mark.parametrize(
    "speeds",
    [
        [0.7] * 5 + [1.0] * 5,
        [0.1] * 6 + [1.0] * 6,
        [1 - 0.03 * number for number in range(13)],
        [0.7] * 4 + [1.15] * 4 + [1.0] * 5,
        [0.8] * 12,
    ],
    ids=["five of ten", "six of twelve at a tenth", "graded", "falls beside gains", "all"],
)
def test_scatter_among_models_hides_no_fall(speeds):
    _, verdict = judged(speeds)
    sure = [number for number, speed in enumerate(speeds) if speed <= 0.85]
    assert set(sure) <= set(slower(verdict)) <= {number for number, speed in enumerate(speeds) if speed < 0.95}
    assert not verdict.passed
    open_speeds = next(dict(part.open) for part in verdict.judged if part.what == "speed")
    fell = {f"net_{number}.tag" for number, speed in enumerate(speeds) if speed < 0.95}
    assert fell <= {*open_speeds, *(f.model for f in verdict.of("regression"))}, "found, or said to be undecided"


def test_equal_speeds_are_clear_and_a_fall_near_the_limit_is_suspect():
    comparison, verdict = judged([1.0] * 19 + [0.95])
    assert verdict.suspects == ("net_19.tag",) and verdict.passed and not verdict.failed
    (finding,) = verdict.of("undecided")
    (why,) = finding.causes
    assert why.startswith("suspect: a fall of ") and why.endswith(" % would be certain")
    assert summary(comparison, verdict) == (
        "PASSED what was judged: scores, drift and memory of 20, speed of 19; not judged: speed of 1 (suspect)"
    )
    lines = text(comparison, verdict, width=80).splitlines()
    assert max(map(len, lines)) <= 80 and "Undecided: perhaps slower than the limits allow: 1 model" in lines


def test_processes_close_together_do_not_show_how_the_machine_drifts():
    """Rounds that scatter by 3 % are those of a machine that drifts by 2 % between sessions."""

    def sessions(apart):
        runs = []
        for seed in range(2):
            infos = [info(number, seed=seed, timings={"scatter": 0.03}) for number in range(5)]
            for each in infos:
                for place, process in enumerate(each["processes"]):
                    process["started"] = 1e9 + apart * place
            runs.append(run(infos))
        return compare(*runs)

    near, far = (sessions(apart) for apart in (30.0, 1200.0))
    widths = [
        [c.high - c.low for m in found.models for c in m.changes if c.what == "images_per_s"] for found in (near, far)
    ]
    assert len(widths[0]) == 5
    assert all(wide > 1.2 * narrow for wide, narrow in zip(*widths, strict=True))


def test_interleaved_processes_decide_a_suspect():
    comparison, _ = judged([1.0] * 19 + [0.95])
    name = "net_19.tag"
    for logs, level in (([-0.12] * 8, "regression"), ([0.0] * 8, None), ("no budget", "undecided")):
        answer = logs if isinstance(logs, str) else ratio_of(logs, models=1)
        verdict = judge(comparison, LIMITS, {name: answer})
        assert [f.level for f in verdict.findings if f.change.what == "images_per_s"] == [level] * (level is not None)
        assert verdict.suspects == () and bool(verdict.undecided) == (level == "undecided")
        if level == "undecided":
            assert verdict.findings[0].causes[0] == "not confirmed: no budget"
            assert "not judged: speed of 1 (not confirmed)" in summary(comparison, verdict)


def test_interleaved_processes_decide_a_speed_that_two_sessions_bar():
    other = made.MACHINE | {"processor": "another"}
    comparison = compare(run([info(0)]), run([info(0, 0.5, 1)], machine=other))
    assert judge(comparison, LIMITS).suspects == ("net_0.tag",)
    verdict = judge(comparison, LIMITS, {"net_0.tag": ratio_of([-0.7] * 6, models=1)})
    assert slower(verdict) == [0] and not any(part.what == "speed" for part in verdict.undecided)


def test_an_accepted_speed_is_no_suspect():
    now = run([info(0, 0.8, 1)]).results[0]
    accepted = Limits(LIMITS.overall, (), {"net_0.tag": Accepted(now, "known")})
    _, verdict = judged([0.8], limits=accepted)
    assert verdict.suspects == () and [f.level for f in verdict.findings] == ["accepted"]


def crowd(timed):
    return [{**p, "crowded": 0.5, "pinned": {**p["pinned"], "crowded": 0.5}} for p in timed]


def test_speeds_beside_other_work_are_not_judged():
    """All at half the speed, which may be the other work: nothing sure, and the headline says so."""
    busy = [info(number, 0.5, 1) for number in range(13)]
    for each in busy:
        each["processes"] = crowd(each["processes"])
    comparison = compare(run([info(number) for number in range(13)]), run(busy))
    verdict = judge(comparison, LIMITS)
    assert verdict.passed and len(verdict.suspects) == 13 and len(verdict.of("undecided")) == 13
    assert summary(comparison, verdict) == (
        "PASSED what was judged: scores, drift and memory of 13; not judged: speed of 13 (beside other work)"
    )
    suite = ElementTree.fromstring(junit(comparison, verdict))
    assert (suite.get("skipped"), suite.get("failures")) == ("13", "0")
    assert suite[0][0].get("message") == "speed not judged: beside other work (new)"
    parts = {part["what"]: part for part in to_json(comparison, verdict)["judged"]}
    assert parts["speed"]["judged"] == 0 and parts["memory"]["judged"] == 13


def test_one_crowded_process_of_three_is_left_out():
    timed = made.processes([1.0], 3, seed=7)
    timed[1] = {**crowd(timed)[1], "durations": [9.0] * 10}
    comparison, verdict = judged([1.0], timings={}, processes=timed)
    assert not verdict.findings and not verdict.undecided and len(comparison.speeds.falls) == 1


LOST = {
    "verdicts": ({"verdicts": None}, "scores", "no verdicts (new)"),
    "sketch": ({"sketch": None}, "drift", "no sketch (new)"),
    "memory": ({"peak_memory_mb": float("nan")}, "memory", "no figure (new)"),
    "timings": ({"processes": [], "durations": [float("nan")] * 10}, "speed", "not timed (new)"),
    "second process": ({"processes": []}, "speed", "timed in one process (new)"),
    "rounds": (
        {"processes": [{"started": 1.0}, {"started": 2.0, "durations": [float("nan")]}]},
        "speed",
        "timed in one process (new)",
    ),
}


@pytest.mark.parametrize("lost", LOST)
def test_what_one_model_lost_is_not_judged(lost):
    changes, what, why = LOST[lost]
    new = [info(0, seed=1), info(1, seed=1, **changes)]
    comparison = compare(run([info(0), info(1)]), run(new))
    verdict = judge(comparison, LIMITS)
    assert {part.what: dict(part.open) for part in verdict.judged if part.open} == {what: {"net_1.tag": why}}
    assert verdict.passed == (what in ("memory", "speed"))
    assert why in " ".join(text(comparison, verdict).split())


def test_scores_without_verdicts_never_pass(tmp_path, capsys):
    """Not even if all of them are 0."""
    new = info(0, seed=1, verdicts=None, scores={"acc": 0.0, "acc5": 0.0, "hit5": 0.0})
    paths = save(tmp_path, [info(0)], [new])
    assert main(["compare", *paths]) == 2
    out = capsys.readouterr()
    assert "cannot be compared: scores of net_0.tag: no verdicts (new)" in out.err
    assert out.out.splitlines()[-2].startswith("CANNOT PASS: judged: drift, memory and speed of 1; not judged: scores")
    assert main(["compare", *paths, "--fail-on", "images_per_s:5%"]) == 0, "a limit that is absent needs no judging"


def save(folder, base, new, base_block=None, new_block=None):
    paths = []
    for name, infos, block in (("base", base, base_block), ("new", new, new_block)):
        (folder / f"{name}.json").write_text(json.dumps(made.saved(infos, CLASSES, **(block or {}))))
        paths.append(str(folder / f"{name}.json"))
    return paths


def test_exit_codes(tmp_path, capsys):
    suspect = save(tmp_path, [info(0)], [info(0, 0.95, 1)])
    assert main(["compare", *suspect]) == 0
    assert main(["compare", *suspect, "--undecided", "fail"]) == 3
    assert main(["compare", *suspect, "--undecided", "fail", "--fail-on", "default,images_per_s:off"]) == 0
    equal = save(tmp_path, [info(0)], [info(0, seed=1)])
    assert main(["compare", *equal, "--undecided", "fail"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "PASSED: 1 model compared"
    other_images = save(tmp_path, [info(0)], [info(0, seed=1)], None, {"dataset": {"fingerprint": "beef"}})
    assert main(["compare", *other_images]) == 2
    assert "cannot be compared: scores and drift of net_0.tag: another dataset" in capsys.readouterr().err
    slow = save(tmp_path, [info(0)], [info(0, 0.5, 1)], None, {"dataset": {"fingerprint": "beef"}})
    assert main(["compare", *slow]) == 1


def test_half_precision_given_up_is_a_finding():
    """bf16 to fp32 under `auto`, at less than half the speed, twice the memory, and with every query lost."""
    card = {"device": "cuda:0"}
    zero = made.hits_of("net_0.tag", CLASSES, 0.0) * 0
    base, new = info(0, precision="bf16", **card), info(0, 0.4, 1, precision="fp32", peak_memory_mb=1000.0, **card)
    lost = {**new, **{key: made.result("net_0.tag", CLASSES, zero)[key] for key in ("scores", "verdicts")}}
    for result, more in ((new, set()), (lost, {"acc", "acc5"})):
        verdict = judge(compare(run([base], settings=AUTO), run([result], settings=AUTO)), LIMITS)
        assert {f.change.what for f in verdict.of("regression")} == {"degraded", "images_per_s", "memory"} | more
    assert verdict.of("regression")[0].change.base == "bf16"
    asked = judge(compare(run([base], settings=AUTO), run([new], settings={**AUTO, "precision": "fp32"})), LIMITS)
    assert not asked.passed and not asked.failed, "another setting: not comparable"
    gained = compare(run([new], settings=AUTO), run([base], settings=AUTO))
    assert judge(gained, LIMITS).passed and gained.models[0].barriers == {}


@pytest.mark.parametrize("change", ["card", "processor"])
def test_another_precision_on_another_processor_cannot_be_compared(change):
    """Some processors multiply bf16, others do not: `auto` then differs without any fault of the new run."""
    name, device = ("gpu", "cuda:0") if change == "card" else ("processor", "cpu")
    runs = [
        run([info(0, precision=precision, device=device)], machine=made.MACHINE | {name: machine}, settings=AUTO)
        for precision, machine in (("bf16", "one"), ("fp32", "other"))
    ]
    comparison = compare(*runs)
    verdict = judge(comparison, LIMITS)
    assert verdict.failed == (change == "card")
    if change == "processor":
        assert not verdict.passed and comparison.models[0].barriers["scores"] == "another precision: bf16, now fp32"


@pytest.mark.parametrize("models", [3, 13])
def test_a_batch_that_memory_halved_is_a_finding(models):
    smaller = {"batch_size": 8, "batch_decayed": True, "peak_memory_mb": 1600.0}
    base = run([info(number) for number in range(13)], settings=AUTO)
    halved = [info(number, 0.5, 1, **(smaller if number < models else {})) for number in range(models)]
    new = run([*halved, *(info(number, seed=1) for number in range(models, 13))], settings=AUTO)
    comparison = compare(base, new)
    verdict = judge(comparison, LIMITS)
    found = {(f.change.what, f.model) for f in verdict.of("regression")}
    assert {what for what, _ in found} == {"degraded", "images_per_s", "memory"} and len(found) == 3 * models
    assert summary(comparison, verdict).startswith(f"FAILED: 13 models compared: {models} worse")


def test_fewer_threads_on_the_same_processor_are_a_finding():
    one = made.MACHINE | {"processor": "a CPU, 1 thread"}
    models = [info(number) for number in range(6)]
    half = [info(number, 0.5, 1, timings={"pinned": False}) for number in range(6)]
    comparison = compare(run(models), run(half, machine=one))
    verdict = judge(comparison, LIMITS)
    first, *_ = verdict.of("regression")
    assert (first.model, first.change.base, first.change.new) == ("all models", "2 threads", "1 thread")
    assert set(verdict.suspects) | {f.model for f in verdict.of("regression")} >= {f"net_{n}.tag" for n in range(6)}
    assert text(comparison, verdict).splitlines()[-1].startswith("FAILED")
    assert "another machine" in compare(run(half, machine=one), run(models)).barriers["speed"], "more threads"
