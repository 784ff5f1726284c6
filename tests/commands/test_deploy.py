from __future__ import annotations

import json

import pytest
import quick_sessions  # noqa: F401
from safetensors.torch import save_file

from embedcore.cli import main
from embedcore.embed.engines.names import FOLDER as ENGINES
from embedcore.zoo.backbone import load_backbone

# Batches have one image, as the measurement of latency has: an engine prepares each shape.
QUICK = ["--embed-weights=random", "--embed-max-classes=6", "--embed-rounds=2", "--embed-batch-size=1"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """The folder of exported models, which are kept for the next test."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def deploy(tmp_path, monkeypatch, caches, capsys, engines):
    """Run the command in an empty folder; return its exit code, output and errors."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / ENGINES).symlink_to(engines)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def deploy(*arguments):
        given = [*QUICK, f"--embed-cache={cache}", "--embed-isolation=none"]  # a process would import the engines again
        return main(["deploy", *arguments, "--", *given]), *capsys.readouterr()

    return deploy


def test_models_are_measured_on_each_engine_in_each_precision_that_it_has(deploy):
    arguments = ["test_vit.*", "--engines", "openvino,onnxruntime", "--precisions", "fp32,bf16,int8"]
    code, out, _ = deploy(*arguments, "--format", "json")
    rows = json.loads(out)
    ways = [(row["engine"], row["precision"]) for row in rows]
    others = [("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")]
    assert code == 0 and {*ways} == {("eager", "fp32"), *others, ("onnxruntime", "fp32"), ("onnxruntime", "int8")}
    assert all(row["status"] == "ok" for row in rows)
    by_way = dict(zip(ways, rows, strict=True))
    usual = by_way["eager", "fp32"]
    assert usual["drift"] is None and "change" not in usual and usual["speedup"] == 1
    assert by_way["openvino", "fp32"]["drift"] < 1e-4 < by_way["openvino", "int8"]["drift"]
    for way in others:
        row = by_way[way]
        assert row["change"] == pytest.approx(row["acc"] - usual["acc"])
        assert row["speedup"] == pytest.approx(row["images_per_s"] / usual["images_per_s"])
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"] and row["compile_s"] > 0
    assert by_way["openvino", "int8"]["weights_mb"] < usual["weights_mb"]


def test_the_table_fits_a_terminal_and_names_the_best_model(deploy):
    code, out, error = deploy("test_vit.*", "test_resnet.*", "--engines", "openvino")
    lines = out.splitlines()
    assert code == 0 and max(map(len, lines)) <= 80
    assert "RANDOM WEIGHTS" in out
    assert len([line for line in lines if line.startswith("openvino fp32")]) == 2
    assert "The best model" in out and "eager fp32:" in error


def test_own_models_of_a_roster_file_take_part(deploy, tmp_path):
    weights = load_backbone("test_vit", weights="random").module.state_dict()
    save_file(weights, tmp_path / "ours.safetensors")
    (tmp_path / "ours.toml").write_text('[[model]]\nname = "ours"\narch = "test_vit"\nweights = "ours.safetensors"\n')
    code, out, _ = deploy("ours.toml", "--engines", "openvino", "--format", "json")
    rows = json.loads(out)
    assert code == 0 and [(row["model"], row["engine"]) for row in rows] == [("ours", "eager"), ("ours", "openvino")]
    assert [row["status"] for row in rows] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["test_vit", "--engines", "tensorrt"], "--engines: 'tensorrt': choose from eager"),
        (["test_vit", "--precisions", "fp8"], "--precisions: 'fp8': choose from"),
        (["no_such_model"], "no_such_model"),
    ],
)
def test_a_mistake_is_one_line(deploy, arguments, words):
    code, out, error = deploy(*arguments)
    assert code == 4 and out == "" and words in error and error.count("\n") == 1
