"""Comparisons as DataFrames: signs, intervals and p are those of the gate."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from notebook_runs import CLASSES, results, run_of
from synthetic_runs import saved

from embedcore import UsageError, compare, load_dataset, score
from embedcore.compare.comparison import compare as compare_runs


def unit_rows(noise, seed=0, classes=CLASSES):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((classes.max() + 1, 16))[classes] + noise * rng.standard_normal((len(classes), 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_what(frame):
    return {row["what"]: row for row in frame.to_dict("records")}


def test_two_runs_are_compared_as_by_the_gate(tmp_path):
    old, new = run_of(), run_of(seed=5, durations=[2.0 + 0.01 * n for n in range(10)], peak_memory_mb=600.0)
    frame = compare(old, new)
    expected = {
        (model.model, change.what): change for model in compare_runs(old, new).models for change in model.changes
    }
    assert set(expected) <= set(zip(frame["model"], frame["what"], strict=True))
    for row in frame[frame["what"].isin(["acc", "acc5", "hit5"])].to_dict("records"):
        change = expected[row["model"], row["what"]]
        assert row["change"] == pytest.approx(row["b"] - row["a"]) == pytest.approx(-change.change)
        assert row["low"] <= row["change"] <= row["high"] and row["p"] == change.p
        assert row["significant"] == change.real
    speed, memory = (frame[frame["what"] == what].iloc[0] for what in ("images_per_s", "memory"))
    assert speed["change"] == pytest.approx(-0.5, abs=0.05) and memory["change"] == pytest.approx(0.2)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(saved(results(), CLASSES)))
    assert compare(path, str(path))["change"].abs().max() == 0


def test_models_of_one_run_only_and_what_is_not_compared_have_a_note():
    old, new = run_of("vit_good.a", "vgg_poor.a"), run_of("vit_good.a", "resnet_fair.a", settings={"protocol": "x"})
    notes = {(row["model"], row["what"]): row["note"] for row in compare(old, new).to_dict("records")}
    assert notes["vgg_poor.a", "status"] == "only in a" and notes["resnet_fair.a", "status"] == "only in b"
    assert notes["vit_good.a", "scores"] == "not compared: another protocol: native, now x"


def test_two_models_of_a_run():
    frame = compare("vgg_poor.a", "vit_good.a", on=run_of())
    acc = by_what(frame)["acc"]
    assert acc["change"] > 0.4 and acc["p"] < 1e-6 and acc["significant"] and acc["low"] > 0.3
    back = by_what(compare("vit_good.a", "vgg_poor.a", on=run_of()))["acc"]
    assert (back["change"], back["low"], back["p"]) == (-acc["change"], -acc["high"], acc["p"])
    assert by_what(frame)["images_per_s"]["change"] == 0


def test_two_embeddings_of_labelled_images():
    worse, better = unit_rows(1.5), unit_rows(0.8)
    frame = by_what(compare(worse, better, on=CLASSES))
    a, b = score(worse, CLASSES), score(better, CLASSES)
    assert list(frame) == [*a.per_query]
    for metric, row in frame.items():
        assert (row["a"], row["b"]) == (a.values[metric], b.values[metric])
        assert row["change"] == pytest.approx(row["b"] - row["a"]) and row["low"] <= row["change"] <= row["high"]
    assert frame["acc"]["significant"] and frame["acc"]["p"] < 0.01 and np.isnan(frame["map_at_r"]["p"])
    assert compare(a, b).equals(compare(worse, better, on=CLASSES))
    same = by_what(compare(a, a))["acc"]
    assert (same["change"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)


@pytest.mark.parametrize("roles", [None, [*"qrqrqrqrqrqr"]])
def test_embeddings_of_a_dataset_with_few_classes(images, roles):
    labels = [images.classes[label] for label in images.labels]
    arrays = [np.full((8, 8, 3), 9 * number, np.uint8) for number in range(12)]
    words = {"q": "query", "r": "reference"}
    dataset = load_dataset(arrays, labels, roles=roles and [words[role] for role in roles])
    frame = by_what(compare(unit_rows(3, 1, dataset.labels), unit_rows(0.1, 2, dataset.labels), on=dataset))
    assert frame["acc"]["b"] == 1 and frame["acc"]["change"] >= 0 and not np.isnan(frame["acc"]["p"])
    with pytest.raises(UsageError, match=r"^a has 3 embeddings, and Dataset 'images': .* has 12 images: one for each$"):
        compare(np.eye(3), np.eye(12), on=dataset)


@pytest.mark.parametrize(
    ("arguments", "on", "message"),
    [
        ((1, 2), None, "a int and a int cannot be compared: compare two runs, two scores"),
        (("a", "b"), [0, 1], "a str and a str cannot be compared on this: compare two runs"),
        (("no.a", "vit_good.a"), run_of(), r"'no\.a' was not measured in run 'run': its models are vit_good\.a, "),
    ],
)
def test_anything_else_is_one_line(arguments, on, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        compare(*arguments, on=on)


def test_scores_of_other_images_are_refused():
    with pytest.raises(UsageError, match=r"^the two scores are not of the same queries: their labels differ$"):
        compare(score(unit_rows(1), CLASSES), score(unit_rows(1), CLASSES[::-1]))


def test_the_folder_of_the_same_name_does_not_hide_the_function():
    code = "import embedcore.compare.verdict, embedcore; from embedcore import compare; print(compare.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "compare"
