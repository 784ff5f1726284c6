"""Resumed runs after changes: other cases, other weights, a full disk."""

from __future__ import annotations

import errno
import json
import re
import sys

import msgspec
import pytest
import records
import timm
from safetensors.torch import save_file

from embedcore.measure import bench as bench_module
from embedcore.plugin import plugin as plugin_module
from embedcore.plugin import progress
from embedcore.plugin.budget import Budget
from embedcore.results.journal import Journal

MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k")
INLINE = "--embed-isolation=none"


def journals(project):
    return sorted((project.path / "cache" / "runs").glob("*.jsonl"))


def measured(path):
    return records.models(records.read(path))


@pytest.fixture
def cut_off(run, project):
    """Start a run over the whole roster that ends after its first case."""

    def begin(*arguments, **settings):
        run(INLINE, "--embed-order=roster", *arguments, **settings)
        (path,) = journals(project)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:2]))
        return path

    return begin


def test_resuming_with_fewer_cases_leaves_the_others_unfinished(run, cut_off, project):
    path = cut_off()
    outcome = run(INLINE, "--embed-resume", "-k", "test_vit")
    outcome.assert_outcomes(passed=1)
    outcome.stdout.fnmatch_lines(["resumed: 0 of 1 results are from the earlier session"])
    assert not records.finished(records.read(path))
    outcome = run(INLINE, "--embed-resume")
    outcome.assert_outcomes(passed=3)
    outcome.stdout.fnmatch_lines(["resumed: 2 of 3 results are from the earlier session"])
    assert journals(project) == [path]
    assert sorted(measured(path)) == sorted(MODELS)
    assert records.finished(records.read(path))


def test_resuming_with_more_cases_adds_them_to_the_run(run, cut_off, project):
    path = cut_off("-k", "test_resnet or test_vit")
    run(INLINE, "--embed-resume", "-k", "test_efficientnet or test_resnet")
    contents = records.read(path)
    assert set(contents.planned.values()) == set(MODELS)
    assert not records.finished(contents)  # test_vit is not measured yet
    run(INLINE, "--embed-resume", "-k", "test_vit")
    assert records.finished(records.read(path))


def test_weights_that_have_changed_are_measured_again(run, cut_off, project, saved):
    folder = project.path / "weights"
    folder.mkdir()

    def write_weights(scale):
        for model in MODELS:
            state = timm.create_model(model, pretrained=False).state_dict()
            changed = {key: value * scale if value.is_floating_point() else value for key, value in state.items()}
            save_file({key: value.contiguous() for key, value in changed.items()}, folder / f"{model}.safetensors")

    write_weights(1.0)
    path = cut_off(weights="weights")
    ((_, before),) = records.read(path).entries
    outcome = run(INLINE, "--embed-resume", "--embed-order=roster", weights="weights")
    assert "measured again" not in outcome.stdout.str()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    write_weights(0.5)
    outcome = run(INLINE, "--embed-resume", "--benchmark-json=run.json", weights="weights")
    outcome.stdout.fnmatch_lines([f"{MODELS[0]}: measured again, since its weights have changed"])
    ids = {bench["extra_info"]["model"]: bench["extra_info"]["weights"]["id"] for bench in saved()["benchmarks"]}
    assert ids[MODELS[0]] != before.weights["id"]
    assert len(ids) == 3


def test_models_without_reachable_weights_take_no_time(run, project, monkeypatch):
    folder = project.path / "weights"
    folder.mkdir()
    first, *_ = MODELS
    state = timm.create_model(first, pretrained=False).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{first}.safetensors")
    left = []
    position = plugin_module.position

    def noted(*case):
        found = position(*case)
        left.append(found.left_s)
        return found

    monkeypatch.setattr(plugin_module, "position", noted)
    outcome = run(INLINE, "--embed-order=roster", weights="weights")
    outcome.assert_outcomes(passed=1, skipped=2)
    assert left[0] is None and left[1][0] > 0  # before a request the hub is not known to be unreachable
    assert left[2] == (0.0, 0.0)


def test_a_disk_that_fills_loses_no_result(run, project, saved, monkeypatch):
    append = Journal.append
    calls = []

    def full_from_the_second_result_on(self, line):
        calls.append(line)
        if len(calls) > 2:  # the header is a line too
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, line)

    monkeypatch.setattr(Journal, "append", full_from_the_second_result_on)
    outcome = run(INLINE, "--benchmark-json=run.json", "--embed-report=report")
    outcome.assert_outcomes(passed=3)
    text = outcome.stdout.str()
    assert text.count("the journal cannot be written (No space left on device)") == 1
    assert len(saved()["benchmarks"]) == 3
    assert len(json.loads((project.path / "report" / "leaderboard.json").read_text())["rows"]) == 3
    (path,) = journals(project)
    assert not records.finished(records.read(path))


def test_a_disk_that_is_full_at_the_start_is_one_line(run, project, monkeypatch):
    def full(self, line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    outcome = run(INLINE)
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: journal *: No space left on device*"])


def test_the_budget_covers_the_audit(run, monkeypatch):
    monkeypatch.setattr(Budget, "left", lambda self: -1.0)
    outcome = run(INLINE, "--embed-budget=1h")
    assert outcome.ret == pytest.ExitCode.INTERRUPTED
    assert "--embed-budget of 1 h is used up before the first case" in outcome.stdout.str()


def test_the_budget_covers_decoding(run, project, monkeypatch):
    decoding = []
    build = bench_module.open_pixel_store

    def begin(*arguments, **settings):
        decoding.append(True)
        return build(*arguments, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(bench_module, "open_pixel_store", begin)
        patched.setattr(Budget, "left", lambda self: -1.0 if decoding else 100.0)
        outcome = run(INLINE, "--embed-budget=1h")
    assert outcome.ret == pytest.ExitCode.INTERRUPTED
    assert "is used up: 3 cases left; continue with --embed-resume" in outcome.stdout.str()
    (path,) = journals(project)
    assert measured(path) == []
    run(INLINE, "--embed-resume").assert_outcomes(passed=3)
    assert journals(project) == [path]


def test_a_long_sweep_logs_its_progress(run, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    outcome = run(INLINE)
    text = outcome.stdout.str()
    for left in ("2 cases left, *", "1 case left, *", "0 cases left"):
        outcome.stdout.fnmatch_lines([f"embedcore: test_*: acc ?.???, acc5 ?.???, * images/s*; *best *; {left}"])
    assert "embedcore: [1/3] test_" in text
    assert "warming up" in text and "timing round 2/2" in text and "embedding 9/9" in text
    assert not re.search(r"^\S+embedcore: ", text, re.MULTILINE)
    assert not re.search("^embedcore: ", run(INLINE, "-q").stdout.str(), re.MULTILINE)


def test_a_log_reports_long_cases_only(run, monkeypatch):
    monkeypatch.setattr(progress, "SLOW_S", 600.0)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 3600.0)
    assert "; the best so far" not in run(INLINE).stdout.str()
    monkeypatch.setattr(progress, "SLOW_S", 0.0)
    text = run(INLINE).stdout.str()
    assert len(re.findall(r"^embedcore: test_.*; (?:the )?best .*left", text, re.MULTILINE)) == 3
    assert "timing round" not in text


def test_verbose_shows_each_models_scores_and_the_leader(run):
    lines = run(INLINE, "-v").stdout.lines
    for model in MODELS:
        case = f"test_models.py::test_model[{model}]"
        (place,) = (place for place, line in enumerate(lines) if line.startswith(case))
        assert " PASSED " in lines[place]
        assert re.match(r"  acc [01]\.\d{3}, acc5 [01]\.\d{3}, [\d.]+!? images/s.*; (the )?best ", lines[place + 1])
        assert len(lines[place + 1]) <= 100


def test_a_smaller_batch_is_in_a_table_of_its_own(run, saved, monkeypatch):
    run_case = bench_module.InlineExecutor.run

    def decays(self, case, inputs, stages=None):
        result = run_case(self, case, inputs, stages)
        if case.model == MODELS[0]:
            return msgspec.structs.replace(result, batch_decayed=True)
        return result

    monkeypatch.setattr(bench_module.InlineExecutor, "run", decays)
    run(INLINE, "--benchmark-json=run.json").assert_outcomes(passed=3)
    groups = {bench["extra_info"]["model"]: bench["group"] for bench in saved()["benchmarks"]}
    assert groups[MODELS[0]].endswith(", in a smaller batch than asked for")
    assert not any("smaller" in groups[model] for model in MODELS[1:])


def test_a_memory_limit_needs_a_child(run):
    outcome = run(INLINE, "--embed-memory-limit=2")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: --embed-memory-limit / memory_limit needs --embed-isolation process*"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="every instruction has a line there")
def test_an_interrupt_at_an_instruction_without_a_line_still_ends_in_a_summary(pytester):
    pytester.makepyfile(
        """
        def test_that_makes_this_a_session_of_ours(embed_replay):
            pass

        def interrupted():
            raise KeyboardInterrupt

        def test_interrupted():
            code = interrupted.__code__
            # Entries of the location table that mean: eight code units without a line.
            exec(code.replace(co_linetable=bytes([0xFF]) * (len(code.co_code) // 16 + 1)))
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
