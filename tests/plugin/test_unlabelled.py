"""A session with --embed-unlabelled: agreement of views in every output, and no accuracy."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from embedcore.cli import main
from embedcore.embed.library import embed_dataset
from embedcore.errors import UsageError
from embedcore.images.load_dataset import load_dataset
from embedcore.plugin.checks import check_options
from embedcore.plugin.options import Options
from embedcore.report.html.page import static
from embedcore.results.reading import read_run
from embedcore.results.verdicts import unpack_verdicts
from embedcore.retrieval.unlabelled import effective_rank, near_duplicates
from embedcore.zoo.backbone import load_backbone

INLINE = "--embed-isolation=none"
NEW = ("--embed-unlabelled", INLINE)


@pytest.fixture
def flat(project):
    """Three more images of the project's folder, beside those in folders; twelve in all."""
    rng = np.random.default_rng(1)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(project.path / "images" / f"{number}.png")
    return project.path / "images"


def names_acc(text):
    return re.findall(r".{0,40}(?<![a-z])acc(?:5|urate|uracy|uracies)?(?![a-z]).{0,40}", text, re.IGNORECASE)


def keys_of(value):
    """All keys of a JSON value, at any depth."""
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_of(item)


def test_a_session_orders_models_by_views_in_every_output(run, project, flat, saved, capsys):
    outcome = run(*NEW, "-v", "--benchmark-json=run.json", "--embed-report=report")
    outcome.assert_outcomes(passed=3)
    data = saved()
    assert not [key for key in keys_of(data) if key.startswith("acc") or key == "chance_acc"]
    block, dataset = data["embedcore"], load_dataset("images", unlabelled=True)
    assert block["settings"]["unlabelled"] is True and block["dataset"]["unlabelled"] is True
    assert block["dataset"]["fingerprint"] == dataset.fingerprint
    assert block["dataset"]["queries"] == block["dataset"]["references"] == 12
    infos = {bench["extra_info"]["model"]: bench["extra_info"] for bench in data["benchmarks"]}
    assert sorted(entry["rank"] for entry in block["ranking"])[0] == 1 and len(block["ranking"]) == 3
    for model, info in infos.items():
        rows = embed_dataset(load_backbone(model, weights="random"), dataset, device="cpu")
        images, views = rows[:12].astype(np.float64), rows[12:].astype(np.float64)
        places = (views @ images.T > (views * images).sum(axis=1)[:, None] + 1e-9).sum(axis=1)
        assert info["scores"] == {
            "view_recall": pytest.approx((places == 0).mean()),
            "view_recall5": pytest.approx((places < 5).mean()),
        }
        assert unpack_verdicts(info["verdicts"]).first.tolist() == (places == 0).tolist()
        assert {*info["ci95"]} == {*info["scores"]}
        assert info["unlabelled"]["effective_rank"] == pytest.approx(effective_rank(rows[:12]), rel=1e-3)
        assert info["unlabelled"]["near_duplicates"] == pytest.approx(near_duplicates(rows[:12]))
        assert info["images_per_s"]["forward"] > 0
    shown = outcome.stdout.str()
    assert names_acc(shown) == [] and "agreement of views" in shown
    outcome.stdout.fnmatch_lines(
        ["images: 12 images without labels, a view of each*", "Overall by view_recall (3 models)*"]
    )
    report = project.path / "report"
    page = re.sub(r"<(script|style)>.*?</\1>", "", (report / "index.html").read_text(), flags=re.DOTALL)
    assert names_acc(page) == [] == names_acc(static("page.js"))
    assert "a random crop finds its own image first" in page and "Would labels give this order?" in page
    assert names_acc((report / "leaderboard.md").read_text()) == []
    rows = [*csv.DictReader((report / "leaderboard.csv").open())]
    assert [row["rank"] for row in rows] and not [name for name in rows[0] if "acc" in name]
    assert {"view_recall", "view_recall_low", "rank_view_recall5", "unlabelled_effective_rank"} <= {*rows[0]}
    assert not [key for key in keys_of(json.loads((report / "leaderboard.json").read_text())) if "acc" in key]
    assert {"leaders-view_recall.svg", "leaders-view_recall5.svg"} <= {
        path.name for path in (report / "charts").iterdir()
    }
    capsys.readouterr()
    assert main(["rank", str(project.path / "run.json")]) == 0
    ranked = capsys.readouterr().out
    assert "3 models, 12 images" in ranked and "view_recall" in ranked and names_acc(ranked) == []
    assert main(["report", str(project.path / "run.json")]) == 0
    assert names_acc(capsys.readouterr().out) == []
    assert read_run(project.path / "run.json").results[0].headline.first == "view_recall"


def test_it_resumes_and_is_another_run_than_a_labelled_one(run, project, flat, saved):
    one, two = (
        ("-k", "test_vit", "--benchmark-json=run.json"),
        ("-k", "test_vit or test_res", "--benchmark-json=run.json"),
    )
    run(*NEW, *one).assert_outcomes(passed=1)
    (before,) = saved()["benchmarks"]
    outcome = run(*NEW, *two, "--embed-resume")
    outcome.stdout.fnmatch_lines(["resumed: 1 of 2 results are from the earlier session*"])
    again = {bench["extra_info"]["model"]: bench["extra_info"] for bench in saved()["benchmarks"]}
    assert again[before["extra_info"]["model"]] == before["extra_info"] and len(again) == 2
    run(INLINE, *one, "--embed-resume").assert_outcomes(passed=1)
    assert "acc" in saved()["benchmarks"][0]["extra_info"]["scores"]
    assert len([*(project.path / "cache" / "runs").glob("*.jsonl")]) == 2


def test_the_gate_compares_views_with_views_only(run, project, flat):
    one = ("-k", "test_vit")
    assert run(*NEW, *one, "--benchmark-json=base.json").ret == 0
    limits = "--embed-fail-on=view_recall:0.5pt,drift:1e-3,status"
    outcome = run(*NEW, *one, "--embed-compare=base.json", limits)
    assert outcome.ret == 0
    outcome.stdout.fnmatch_lines(["limits: view_recall 0.5 pt, drift 0.001, status*", "PASSED: 1 model compared*"])
    labelled = run(INLINE, *one, "--embed-compare=base.json", "--embed-fail-on=acc:0.5pt,drift:1e-3")
    labelled.stdout.fnmatch_lines(["CANNOT PASS*", "*another dataset: images *"])
    assert labelled.ret == 2
    outcome = run(*NEW, *one, "--embed-compare=base.json", "--embed-fail-on=acc:1pt")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stdout.fnmatch_lines(["*no limit is of a score of these runs: theirs are view_recall, view_recall5*"])


def test_a_split_is_refused_before_anything_is_measured(run):
    outcome = run(*NEW, "--embed-split=loo")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["ERROR: --embed-split loo * divides labelled images: leave it out with --embed-unl*"])


@pytest.mark.parametrize(
    ("name", "value"), [("probe", True), ("race", True), ("gallery", ("a.x",)), ("distractors", ".")]
)
def test_what_needs_labels_is_refused(name, value):
    options = Options.from_values({"unlabelled": True, name: value}, ("unlabelled", name))
    with pytest.raises(
        UsageError, match=rf"^--embed-{name} / {name} needs labels: leave it out, or --embed-unlabelled"
    ):
        check_options(options)
