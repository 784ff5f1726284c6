"""The workflows are valid, and their steps end with the right exit codes on synthetic runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic_runs as made
import yaml

from embedcore.commands.init import TEMPLATES

TEMPLATE = TEMPLATES / "benchmark.yml"
WORKFLOWS = Path(__file__).parents[1] / ".github" / "workflows"
OURS, TESTS, DOCS = (WORKFLOWS / name for name in ("benchmark.yml", "tests.yml", "docs.yml"))

CLASSES = np.repeat(np.arange(100), 10)
MODELS = ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "resnet18.a1_in1k")

JOBS = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))["jobs"]
STEPS = {step["name"]: step for job in JOBS.values() for step in job["steps"] if "name" in step}


@pytest.mark.parametrize("workflow", [TEMPLATE, OURS, TESTS, DOCS], ids=["template", "ours", "tests", "docs"])
def test_the_workflow_fits_the_schema_of_github(workflow):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is not installed")
def test_actionlint_finds_nothing():
    done = subprocess.run(["actionlint", TEMPLATE, OURS, TESTS, DOCS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_run_the_ci_script_on_every_push():
    workflow = yaml.safe_load(TESTS.read_text(encoding="utf-8"))
    assert "push" in workflow[True]  # YAML 1.1 reads the key `on` as true
    (job,) = workflow["jobs"].values()
    script = WORKFLOWS.parents[1] / job["steps"][-1]["run"]
    assert script.name == "run" and os.access(script, os.X_OK)
    assert workflow["permissions"] == {"contents": "read"} and "timeout-minutes" in job


def test_our_workflow_is_the_template_started_manually():
    theirs, ours = (path.read_text(encoding="utf-8").partition("  workflow_dispatch:\n") for path in (TEMPLATE, OURS))
    assert ours[1:] == theirs[1:]
    assert ours[0].partition("on:\n")[0] == theirs[0].partition("on:\n")[0]
    assert list(yaml.safe_load("".join(ours))[True]) == ["workflow_dispatch"]  # YAML 1.1 reads the key `on` as true


def test_scripts_contain_no_inputs_and_permissions_are_minimal():
    workflow = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read", "actions": "read"}
    assert [name for name, job in JOBS.items() if "permissions" in job] == ["comment"]
    assert JOBS["comment"]["permissions"] == {"pull-requests": "write"} and "EMBED_COMMENT" in JOBS["comment"]["if"]
    assert all("timeout-minutes" in job for job in JOBS.values())
    scripts = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    assert scripts and not any("${{" in script for script in scripts)


def test_time_limits_are_those_of_the_hosts():
    """GitHub ends a job on its own runners after 6 hours."""
    limits = {name: job["timeout-minutes"] for name, job in JOBS.items()}
    assert limits.pop("measure") == "${{ fromJSON(vars.EMBED_MINUTES || '360') }}"
    assert max(limits.values()) <= 360


def test_packages_are_cached_and_actions_are_pinned():
    steps = [step for job in JOBS.values() for step in job["steps"]]
    python = [step["with"] for step in steps if step.get("uses", "").startswith("actions/setup-python@")]
    assert len(python) == 2 and all("'pip'" in given["cache"] for given in python)
    assert {given["cache-dependency-path"] for given in python} == {"benchmarks/requirements.txt"}
    for workflow in (TEMPLATE, OURS, TESTS, DOCS):
        used = re.findall(r"uses: (\S+)", workflow.read_text(encoding="utf-8"))
        assert used and all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in used)


@pytest.fixture
def step(tmp_path, monkeypatch):
    """Run the script of a step as GitHub does; return its exit code and output. `bin/` is first on the PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), "/usr/bin:/bin"])
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_REPOSITORY", "me/mine")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        (tmp_path / name).touch()
        monkeypatch.setenv(name, str(tmp_path / name))

    def step(name, **environment):
        Path("script").write_text(STEPS[name]["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "script"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return step


def command(name, script):
    path = Path("bin", name)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def save(path, models, *, shard=None, worse=False):
    results = []
    for model in models:
        hits = made.hits_of(model, CLASSES, 0.6)
        if worse:
            hits = np.where(np.arange(len(hits)) % 10 == 0, 0, hits).astype(np.uint8)
        results.append(made.result(model, CLASSES, hits))
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(json.dumps(made.saved(results, CLASSES, selection={"shard": shard})))


def save_shards(*, worse=False):
    for number, model in enumerate(MODELS, 1):
        save(f"shards/shard-{number}.json", [model], shard=f"{number}/2", worse=worse and number == 2)


def test_shards_are_named(step):
    assert step("Name the shards", SHARDS="3")[0] == 0
    assert Path("GITHUB_OUTPUT").read_text() == "shards=[1,2,3]\n"
    for wrong in ("0", "x", "1000", "2; rm -rf /"):
        assert step("Name the shards", SHARDS=wrong)[0] == 1


@pytest.mark.parametrize(("pytest_gives", "expected"), [(0, 0), (1, 0), (5, 0), (2, 1), (3, 1), (4, 1)])
def test_a_shard_passes_failed_cases_to_the_gate(step, pytest_gives, expected):
    command(
        "pytest", f'printf "%s\\n" "$@" "$HF_HOME" > arguments; echo "{{}}" > out/shard-2.json; exit {pytest_gives}'
    )
    code, shown = step("Measure", SELECT="vit and not clip", SHARD="2", SHARDS="8", STORE="kept")
    assert code == expected
    assert ("::warning::" in shown) == (pytest_gives == 1)
    arguments = Path("arguments").read_text().splitlines()
    assert arguments[:5] == ["benchmarks", "-k", "vit and not clip", "--embed-shard", "2/8"]
    assert arguments[-1] == str(Path("kept", "weights").resolve())


def test_a_shard_without_a_saved_run_fails(step):
    command("pytest", "exit 0")
    assert step("Measure", SELECT="", SHARD="1", SHARDS="1", STORE="kept")[0] == 1


def clear():
    """Whether the run may become the rolling baseline."""
    return Path("GITHUB_OUTPUT").read_text().splitlines()[-1] == "clear=true"


def test_a_first_run_passes_with_a_note_and_becomes_the_baseline(step):
    save_shards()
    assert step("Merge the shards")[0] == 0
    Path("baseline").mkdir()
    code, shown = step("Compare")
    assert code == 0 and "no baseline" in shown and clear()


def test_a_regression_fails_the_job_and_is_in_the_summary(step):
    save("baseline/run.json", MODELS)
    save_shards(worse=True)
    assert step("Merge the shards")[0] == 0
    code, shown = step("Compare")
    assert code == 1 and "1 worse than the limits allow" in shown and "::error" in shown and not clear()
    assert "FAILED" in Path("GITHUB_STEP_SUMMARY").read_text()
    assert "FAILED" in Path("comparison-rolling.md").read_text()
    accept = ["embedcore", "accept", "run.json", MODELS[1], "--because", "other crop"]
    assert subprocess.run(accept, capture_output=True).returncode == 0
    assert step("Compare")[0] == 0 and clear()


def test_a_run_is_also_compared_with_the_fixed_baseline(step):
    save("run.json", MODELS)
    accept = ["embedcore", "accept", "--baseline", "run.json"]
    assert subprocess.run(accept, capture_output=True).returncode == 0
    save_shards(worse=True)
    assert step("Merge the shards")[0] == 0
    shutil.copytree("shards", "baseline")  # the rolling one is as bad
    assert step("Compare")[0] == 1 and not clear()
    assert "FAILED" in Path("comparison-fixed.md").read_text()
    assert "FAILED" not in Path("comparison-rolling.md").read_text()


def test_shards_of_unlike_machines_pass_without_a_judgement_of_speed(step):
    save_shards()
    other = json.loads(Path("shards/shard-2.json").read_text())
    other["machine_info"]["embedcore"]["processor"] = "another CPU, 2 threads"
    Path("shards/shard-2.json").write_text(json.dumps(other))
    save("baseline/run.json", MODELS)
    code, shown = step("Merge the shards")
    assert code == 0 and "the files are of 2 machines" in shown
    code, shown = step("Compare")
    assert code == 0 and "::warning::rolling baseline: a speed or memory is undecided" in shown and not clear()
    assert "another machine" in Path("comparison-rolling.md").read_text()


def test_a_baseline_moves_forward_from_a_clear_run_of_the_default_branch_only():
    upload = next(step for step in JOBS["gate"]["steps"] if step.get("with", {}).get("name") == "embedcore-baseline")
    for part in ("steps.compare.outputs.clear == 'true'", "github.ref_name == steps.fetch.outputs.branch"):
        assert part in upload["if"]
    triggers = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))[True]
    assert triggers["push"]["paths"] == triggers["pull_request"]["paths"] and triggers["push"]["branches"]


def test_a_missing_shard_fails_the_job(step):
    save("shards/shard-1.json", MODELS[:1], shard="1/2")
    code, shown = step("Merge the shards")
    assert code == 2 and "shard 2/2 is missing" in shown


ARTIFACTS = [
    {"expired": True, "workflow_run": {"id": 9, "head_branch": "main", "head_repository_id": 1, "repository_id": 1}},
    {"expired": False, "workflow_run": {"id": 8, "head_branch": "main", "head_repository_id": 7, "repository_id": 1}},
    {"expired": False, "workflow_run": {"id": 7, "head_branch": "dev", "head_repository_id": 1, "repository_id": 1}},
    {"expired": False, "workflow_run": {"id": 6, "head_branch": "main", "head_repository_id": 1, "repository_id": 1}},
    {"expired": False, "workflow_run": {"id": 5, "head_branch": "main", "head_repository_id": 1, "repository_id": 1}},
]
GH = """
case "$1 $2" in
  *artifacts*) jq -r "$4" artifacts.json ;;
  "api "*) echo '{"default_branch": "main"}' | jq -r "$4" ;;
  "run download") echo "$3" > baseline/downloaded ;;
esac
"""


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
@pytest.mark.parametrize(("artifacts", "fetched"), [(ARTIFACTS, "6\n"), (ARTIFACTS[:3], None), ([], None)])
def test_the_baseline_is_the_newest_artifact_of_the_default_branch(step, artifacts, fetched):
    command("gh", GH)
    Path("artifacts.json").write_text(json.dumps({"artifacts": artifacts}))
    code, shown = step("Fetch the last run of the default branch")
    assert code == 0, shown
    assert Path("GITHUB_OUTPUT").read_text() == "branch=main\n"
    downloaded = Path("baseline/downloaded")
    assert (downloaded.read_text() if downloaded.exists() else None) == fetched
    assert ("No baseline" in Path("GITHUB_STEP_SUMMARY").read_text()) == (fetched is None)


def test_a_baseline_that_cannot_be_fetched_fails_the_job(step):
    command("gh", "exit 1")
    assert step("Fetch the last run of the default branch")[0] == 1


COMMENTS = """
echo "$*" >> asked
case "$*" in
  *--jq*) cat earlier ;;
esac
"""


@pytest.mark.parametrize(
    ("earlier", "method"), [("", "POST repos/me/mine/issues/7"), ("11\n12\n", "PATCH repos/me/mine/issues")]
)
def test_a_comment_is_written_once_and_then_replaced(step, earlier, method):
    command("gh", COMMENTS)
    Path("earlier").write_text(earlier)
    Path("comparison-rolling.md").write_text("PASSED\n" * 20_000)
    code, shown = step("Comment", NUMBER="7", RUN="https://host/run")
    assert code == 0, shown
    assert f"--method {method}/comments{'/12' if earlier else ''} -F body=@comment.md" in Path("asked").read_text()
    body = Path("comment.md").read_text()
    assert body.startswith("<!-- embedcore -->\nPASSED\n") and body.endswith("[Run and report](https://host/run)\n")
    assert len(body) < 65_536


def test_without_a_comparison_there_is_no_comment(step):
    command("gh", COMMENTS)
    code, shown = step("Comment", NUMBER="7", RUN="https://host/run")
    assert code == 0 and "::warning::no comparison" in shown and not Path("asked").exists()
