from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import records

from embedcore.results.verdicts import unpack_classes

MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k")


def test_three_models_are_measured_saved_and_ranked(run, project, saved):
    outcome = run("--benchmark-json=run.json", "--embed-report=report", "--embed-isolation=process")
    outcome.assert_outcomes(passed=3)
    text = outcome.stdout.str()
    assert "embedcore: leaderboards" in text
    assert "RANDOM WEIGHTS" in text
    data = saved()
    assert {bench["name"] for bench in data["benchmarks"]} == {f"test_model[{model}]" for model in MODELS}
    for bench in data["benchmarks"]:
        info = bench["extra_info"]
        assert bench["params"] == {"embed_model": info["model"]}
        assert info["status"] == "ok"
        assert info["weights"] == {"source": "random", "id": "seed:0"}
        assert set(info["scores"]) >= {
            "acc",
            "acc5",
            "acc5_norm",
            "hit5",
            "map_at_r",
            "r_precision",
            "knn20",
            "centroid",
        }
        assert set(info["ci95"]) == set(info["scores"])
        # pytest-benchmark's statistics are those of the measured rounds, in seconds an image.
        assert bench["stats"]["rounds"] == 2
        assert bench["stats"]["iterations"] == info["batch_size"] == 9
        assert bench["stats"]["median"] == pytest.approx(1 / info["images_per_s"]["forward"])
        assert bench["stats"]["data"] == pytest.approx([s / 9 for s in info["durations"]])
    block = data["embedcore"]
    assert block["schema"] == 1
    assert block["settings"]["weights"] == "random"
    assert block["dataset"]["classes"] == 3
    assert block["dataset"]["queries"] == block["dataset"]["references"] == 9
    assert block["excluded"] == []
    assert {entry["model"] for entry in block["ranking"]} == set(MODELS)
    assert block["ranking"][0]["rank"] == 1 and sum(entry["p_best"] for entry in block["ranking"]) == pytest.approx(1)
    versions = data["machine_info"]["embedcore"]
    assert set(versions) == {"timm", "torch", "cuda", "cudnn", "driver", "gpu", "processor", "python", "requirements"}
    rows = json.loads((project.path / "report" / "leaderboard.json").read_text())["rows"]
    assert {row["model"] for row in rows} == set(MODELS)
    assert len(list(csv.DictReader((project.path / "report" / "leaderboard.csv").open()))) == 3
    assert "RANDOM" in (project.path / "report" / "leaderboard.md").read_text()


def test_ranks_leave_out_a_class_without_a_reference(run, project, saved):
    (project.path / "images" / "alone").mkdir()
    shutil.copy(project.path / "images" / "class0" / "0.png", project.path / "images" / "alone")
    outcome = run("--benchmark-json=run.json", "-k", "test_vit or test_resnet", "--embed-isolation=none")
    outcome.assert_outcomes(passed=2)
    block = saved()["embedcore"]
    assert (block["dataset"]["lone_queries"], block["dataset"]["lone_classes"]) == (1, [0])
    assert {entry["model"] for entry in block["ranking"]} == set(MODELS[:2])
    assert "is not known" not in outcome.stdout.str()


def test_pytest_benchmark_compares_the_saved_json(run, project):
    for _ in range(2):
        run("--benchmark-save=mini", "-k", "test_vit", "--embed-isolation=none")
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare"],
        cwd=project.path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("test_model[test_vit.r160_in1k]") == 2


def test_comparing_with_an_earlier_run_warns_of_nothing(run):
    run("--benchmark-save=mini", "-k", "test_vit", "--embed-isolation=none")
    outcome = run("--benchmark-compare", "-k", "test_vit", "--embed-isolation=none")
    assert "machine_info is different" not in outcome.stdout.str() + outcome.stderr.str()


def test_models_without_weights_are_skipped_with_a_reason_and_kept(run, project, saved):
    project.path.joinpath("roster.txt").write_text("resnet18.a1_in1k\ntest_vit.r160_in1k\n")
    outcome = run("--benchmark-json=run.json", "--embed-report=report", "-rs", weights="auto")
    outcome.assert_outcomes(skipped=2)
    assert "no-weights" in outcome.stdout.str()
    report = json.loads((project.path / "report" / "leaderboard.json").read_text())
    expected = {("resnet18.a1_in1k", "no-weights"), ("test_vit.r160_in1k", "no-weights")}
    assert {(row["model"], row["status"]) for row in report["excluded"]} == expected
    assert {(row["model"], row["status"]) for row in saved()["embedcore"]["excluded"]} == expected


def test_a_failure_before_the_child_starts_is_a_result_too(run, project, saved, monkeypatch):
    from embedcore.errors import EmbedcoreError
    from embedcore.measure import bench

    build = bench.open_pixel_store
    calls = []

    def fails_once(*arguments, **settings):
        calls.append(1)
        if len(calls) == 1:
            raise EmbedcoreError("a worker died")
        return build(*arguments, **settings)

    monkeypatch.setattr(bench, "open_pixel_store", fails_once)
    outcome = run("--benchmark-json=run.json", "--embed-isolation=none")
    outcome.assert_outcomes(passed=2, failed=1)
    (excluded,) = saved()["embedcore"]["excluded"]
    assert (excluded["status"], excluded["reason"]) == ("error", "a worker died")


def test_too_large_and_ok_are_both_in_the_json(run, project, saved):
    project.path.joinpath("roster.txt").write_text("resnet18.a1_in1k\ntest_vit.r160_in1k\n")
    outcome = run("--benchmark-json=run.json", "--embed-max-params=1")
    outcome.assert_outcomes(passed=1, skipped=1)
    (excluded,) = saved()["embedcore"]["excluded"]
    assert excluded["model"] == "resnet18.a1_in1k"
    assert excluded["family"] == "resnet"
    assert excluded["status"] == "too-large"
    assert excluded["reason"] == "more than 1 million parameters (--embed-max-params / max_params)"


def test_a_case_that_fails_is_a_failed_test_and_the_next_one_runs(run, project, saved, monkeypatch):
    from embedcore.zoo.backbone import Backbone

    embed = Backbone.embed

    def breaks(self, x):
        if self.name.startswith("test_resnet"):
            raise ZeroDivisionError("by design")
        return embed(self, x)

    monkeypatch.setattr(Backbone, "embed", breaks)
    outcome = run("--benchmark-json=run.json", "--embed-isolation=none")
    outcome.assert_outcomes(passed=2, failed=1)
    text = outcome.stdout.str()
    assert "error: ZeroDivisionError: by design" in text
    assert "in breaks" in text  # the traceback is there
    assert [entry["status"] for entry in saved()["embedcore"]["excluded"]] == ["error"]


def test_a_report_that_cannot_be_written_loses_nothing(run, project, saved, monkeypatch):
    from embedcore.errors import UsageError
    from embedcore.report import report_folder as files

    def full(*arguments, **settings):
        raise UsageError("report: no space left on device")

    monkeypatch.setattr(files, "write_report", full)
    outcome = run("--embed-isolation=none", "-k", "test_vit", "--embed-report=report", "--benchmark-json=run.json")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stdout.fnmatch_lines(["ERROR: report: no space left on device"])
    assert len(saved()["benchmarks"]) == 1


def test_every_result_is_in_the_journal(run, project):
    run("--embed-isolation=none", "--benchmark-disable")
    (journal,) = (project.path / "cache" / "runs").glob("*.jsonl")
    contents = records.read(journal)
    assert set(records.models(contents)) == set(MODELS)
    assert records.finished(contents)
    assert [block["classes"] for block in contents.datasets.values()] == [3]


def test_the_json_has_the_class_of_each_query(run, saved):
    run("--benchmark-json=run.json", "-k", "test_vit", "--embed-isolation=none")
    dataset = saved()["embedcore"]["dataset"]
    assert dataset["class_names"] == ["class0", "class1", "class2"]
    assert unpack_classes(dataset["query_classes"]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_every_report_names_machine_versions_and_precision(run, project, saved):
    outcome = run("--benchmark-json=run.json", "--embed-report=report", "-k", "test_vit", "--embed-isolation=none")
    machine = saved()["machine_info"]["embedcore"]
    assert re.fullmatch(r".+, \d+ threads?", machine["processor"])
    folder = project.path / "report"
    texts = [" ".join(outcome.stdout.str().split()), (folder / "leaderboard.md").read_text()]
    (row,) = csv.DictReader((folder / "leaderboard.csv").open())
    texts += [",".join(row.values()), (folder / "leaderboard.json").read_text()]
    for text in texts:
        for fact in (machine["processor"], machine["timm"], machine["torch"], "fp32", "cpu"):
            assert fact in text.replace("\\", ""), (fact, text)


def test_three_classes_are_too_few_for_an_interval(run):
    text = run("-k", "test_vit", "--embed-isolation=none").stdout.str()
    assert "only 3 classes" in text
    assert "±." not in text


def test_fixtures_work_in_tests_without_the_others(run, project, saved):
    project.makepyfile(
        test_models="""
        def test_images_alone(embed_images):
            assert len(embed_images) == 9

        def test_one_model(embed_images, embed_measure, embed_replay):
            embed_replay(embed_measure("test_vit.r160_in1k", embed_images))

        def test_model_alone(embed_model):
            assert embed_model
        """
    )
    run("--embed-isolation=none", "--benchmark-json=run.json", "--embed-budget=1h").assert_outcomes(passed=5)
    (bench,) = saved()["benchmarks"]
    assert bench["stats"]["median"] == pytest.approx(1 / bench["extra_info"]["images_per_s"]["forward"])


@pytest.mark.parametrize(
    ("arguments", "shown"), [([], False), (["-v"], True), (["--benchmark-columns=median"], True)], ids=str
)
def test_a_long_table_of_pytest_benchmark_is_shown_only_if_asked_for(run, monkeypatch, arguments, shown):
    from embedcore.plugin import summary

    monkeypatch.setattr(summary, "MOST_ROWS", 1)
    text = run("--embed-isolation=none", "-k", "test_vit or test_resnet", *arguments).stdout.str()
    assert ("Name (time in" in text) == shown
    assert ("pytest-benchmark's table of 2 rows is left out: -v shows it" in text) != shown


def test_credits_of_images_are_in_every_report(run, project, saved, monkeypatch):
    from embedcore.plugin import start

    block = start.dataset_block
    monkeypatch.setattr(start, "dataset_block", lambda dataset: {**block(dataset), "credits": ["drawn by Ada"]})
    outcome = run("--embed-report=report", "-k", "test_vit", "--embed-isolation=none")
    assert "drawn by Ada" in outcome.stdout.str()
    for name in ("leaderboard.md", "leaderboard.json"):
        assert "drawn by Ada" in (project.path / "report" / name).read_text()


def test_equal_skips_are_one_line_and_name_the_remedy(run, project):
    (project.path / "several.txt").write_text("resnet18.a1_in1k\nresnet34.a1_in1k\nvgg11.tv_in1k\n")
    outcome = run("-rs", weights="auto", roster="several.txt")
    text = outcome.stdout.str()
    (line,) = [line for line in text.splitlines() if line.startswith("SKIPPED")]
    assert line.startswith("SKIPPED [3] test_models.py:")
    assert "no-weights: no weights: " in line and "HF_HUB_OFFLINE" in line
    assert "embedcore weights fetch" in line and "--embed-roster local" in line
    assert "resnet18.a1_in1k, resnet34.a1_in1k, vgg11.tv_in1k" in " ".join(text.split())


def test_a_terminal_without_our_characters_shows_the_leaderboards_line_by_line(project):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--embed-dataset=images"]
    command += ["--embed-roster=test_vit.r160_in1k", "--embed-weights=random", "--embed-cache=cache"]
    done = subprocess.run(
        [*command, "--embed-rounds=2", "--embed-processes=1", "--embed-isolation=none"],
        cwd=project.path,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )
    lines = done.stdout.decode("ascii").splitlines()
    assert done.returncode == 0
    assert "\\u" not in done.stdout.decode()
    assert any(line.startswith("Overall by acc (1 model)") for line in lines)
    ours = lines[next(i for i, line in enumerate(lines) if "embedcore: leaderboards" in line) :]
    assert max(map(len, ours)) <= 100 and len(ours) > 5


@pytest.mark.parametrize(
    ("keyword", "hint"), [("resnet18_a", ""), ("tf_efficientnet_b0_ns", "tf_efficientnet_b0.ns_jft_in1k")]
)
def test_an_empty_selection_is_reported(run, keyword, hint):
    outcome = run("-k", keyword)
    assert outcome.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    output = " ".join(outcome.stdout.str().split())
    assert f"embedcore: none of 3 cases matches -k {keyword!r}{f'; close: {hint}' if hint else ''}" in output


def test_a_regression_that_pytest_benchmark_finds_leaves_the_leaderboards(run, project):
    run("--benchmark-save=base", "-k", "test_vit", "--embed-isolation=none")
    (saved,) = project.path.glob(".benchmarks/*/*_base.json")
    data = json.loads(saved.read_text())
    data["benchmarks"][0]["stats"]["median"] = 1e-9
    saved.write_text(json.dumps(data))
    fail = ("--benchmark-compare", "--benchmark-compare-fail=median:5%", "-k", "test_vit", "--embed-isolation=none")
    outcome = run(*fail, "--benchmark-json=run.json", "--embed-report=report")
    assert outcome.ret == pytest.ExitCode.TESTS_FAILED
    text = outcome.stdout.str()
    assert "embedcore: leaderboards" in text and "Overall by acc (1 model)" in text
    assert "ERROR: --benchmark-compare-fail: Performance has regressed." in text
    assert "Field 'median' has failed" in outcome.stderr.str()
    assert "Traceback" not in text + outcome.stderr.str() and "INTERNALERROR" not in text
    assert (project.path / "run.json").is_file() and (project.path / "report" / "leaderboard.md").is_file()


AROUND = """
import pytest

@pytest.fixture
def before(embed_images, embed_measure):
    embed_measure("test_vit.r160_in1k", embed_images)
    pytest.fail("after the measurement")

@pytest.fixture
def after(embed_images, embed_measure):
    yield
    embed_measure("test_resnet.r160_in1k", embed_images)

def test_before(before): ...

def test_after(after): ...

def test_replayed(embed_images, embed_measure, embed_replay):
    embed_replay(embed_measure("test_efficientnet.r160_in1k", embed_images))
"""


def test_what_a_fixture_measures_before_or_after_its_test_is_reported_and_saved(run, project, saved):
    """Without a call of ``embed_replay`` pytest-benchmark knows nothing of a result."""
    project.makepyfile(test_around=AROUND)
    outcome = run("test_around.py", "--embed-isolation=none", "--benchmark-json=run.json", "--benchmark-save=run")
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.stdout.fnmatch_lines(["Overall by acc (3 models)*"])
    for data in (saved(), json.loads(next((project.path / ".benchmarks").glob("*/*_run.json")).read_text())):
        models = [bench["extra_info"]["model"] for bench in data["benchmarks"]]
        assert sorted(models) == ["test_efficientnet.r160_in1k", "test_resnet.r160_in1k", "test_vit.r160_in1k"]
