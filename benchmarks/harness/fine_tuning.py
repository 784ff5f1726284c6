"""Measure whether scores of frozen backbones predict accuracy after fine-tuning. Prints Markdown tables.

    python benchmarks/harness/fine_tuning.py --folder FOLDER CLIPART VENDORS

Each dataset has folders query/ and reference/. The models with weights on this machine are scored as in `VARIANTS`,
then fine-tuned on the references with one recipe, all parameters, and evaluated on the queries: the share that the
classifier recognises. Each outcome is a line in a journal of the folder; the same command continues it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from scipy.stats import kendalltau
from tabulate import tabulate
from torch import Tensor, nn
from torchvision.transforms import v2

from embedcore.embed.normalise import Normaliser, as_tensor
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.retrieval.metrics import score
from embedcore.retrieval.probes import probe
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.published import published
from embedcore.zoo.tags import local_tags

VARIANTS = ((64, None), (48, None), (64, 5))
"""Input size in pixels, and the last stage of a model; None: the whole model."""
EPOCHS, BATCH = 10, 32
RATES = {"backbone": 5e-4, "classifier": 5e-3}
"""Highest learning rates."""


class Shortened(nn.Module):
    """A backbone that ends after a stage, with the mean over positions, or whole."""

    def __init__(self, module: nn.Module, depth: int | None) -> None:
        super().__init__()
        self.module, self.depth = module, depth

    def forward(self, x: Tensor) -> Tensor:
        if self.depth is None:
            whole: Tensor = self.module.forward_head(self.module.forward_features(x), pre_logits=True)
            return whole
        x = self.module.bn1(self.module.conv_stem(x))
        for stage in self.module.blocks[: self.depth + 1]:
            x = stage(x)
        return x.mean(dim=(2, 3))


def batches(images: Tensor, order: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Yield images and their rows, in this order."""
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield images[rows], rows


def embeddings(model: nn.Module, normalise: Normaliser, images: Tensor) -> np.ndarray:
    """Return embeddings of uint8 images [n, h, w, 3], float32 [n, dim], rows of length 1."""
    with torch.inference_mode():
        rows = [model(normalise(part)) for part, _ in batches(images, np.arange(len(images)))]
    return functional.normalize(torch.cat(rows)).numpy()


def fine_tuned(model: nn.Module, normalise: Normaliser, images: Tensor, dataset: Dataset, seed: int) -> float:
    """Fine-tune a model on the references; return the share of queries that it then recognises."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    train, test = np.flatnonzero(dataset.is_reference), np.flatnonzero(dataset.is_query)
    labels = torch.from_numpy(dataset.labels)
    with torch.inference_mode():
        width = model(normalise(images[:1])).shape[1]
    classifier = nn.Linear(width, len(dataset.classes))
    groups = [{"params": model.parameters(), "lr": RATES["backbone"]}]
    groups += [{"params": classifier.parameters(), "lr": RATES["classifier"]}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = EPOCHS * math.ceil(len(train) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, list(RATES.values()), total_steps=steps, pct_start=0.1)
    crop = v2.RandomResizedCrop(images.shape[1], scale=(0.6, 1.0), antialias=True)
    model.train()
    for _ in range(EPOCHS):
        for part, rows in batches(images, rng.permutation(train)):
            crops = torch.stack([crop(image.permute(2, 0, 1)).permute(1, 2, 0) for image in part])
            logits = classifier(model(normalise(crops)))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        right = [classifier(model(normalise(p))).argmax(dim=1).eq(labels[rows]) for p, rows in batches(images, test)]
    return float(torch.cat(right).float().mean())


def measure(dataset: Dataset, tag: str, edge: int, depth: int | None, cache: Path) -> dict[str, float]:
    """Return the scores of a frozen model and its accuracy after fine-tuning."""
    backbone = load_backbone(tag)
    pixels = open_pixel_store(dataset, Geometry(edge, edge, "bicubic", 1.0, "center"), cache)
    images = as_tensor(pixels.read(0, len(pixels)))
    normalise = Normaliser(backbone.data_config.mean, backbone.data_config.std)
    model = Shortened(backbone.module.eval(), depth).to(memory_format=torch.channels_last)
    rows = embeddings(model, normalise, images)
    sides = rows[dataset.is_query], dataset.query_labels, rows[dataset.is_reference], dataset.reference_labels
    scores = score(*sides).values | probe(*sides).values
    model.requires_grad_(requires_grad=True)
    return scores | {"fine_tuned": fine_tuned(model, normalise, images, dataset, seed=0)}


def table(outcomes: list[dict], names: list[str]) -> str:
    """Return how well each score predicts fine-tuned accuracy: Kendall's tau-b, and points lost by picking by it."""
    rows = []
    top1 = published()["ImageNet"]
    for name, rule in itertools.product(names, ("acc", "probe_ridge", "probe_logistic", "ImageNet top-1")):
        models = [each for each in outcomes if each["dataset"] == name]
        if rule == "ImageNet top-1":
            models = [
                each | {rule: top1[each["model"]]} for each in models if each["model"] in top1 and not each["depth"]
            ]
        tuned, values = (np.array([each[key] for each in models]) for key in ("fine_tuned", rule))
        loss = 100 * (tuned.max() - tuned[values == values.max()].mean())
        tau = kendalltau(values, tuned).statistic
        rows.append([name, len(models), rule, f"{tau:.2f}", f"{loss:.1f}"])
    return tabulate(rows, ["images", "models", "score", "tau", "loss"], tablefmt="github", disable_numparse=True)


def main() -> None:
    """Measure what the journal lacks, and print the table of all datasets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="as for --embed-dataset")
    parser.add_argument("--folder", type=Path, required=True, help="folder for pixels and outcomes")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    journal = options.folder / "outcomes.jsonl"
    outcomes = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    done = {(each["fingerprint"], each["model"], each["edge"], each["depth"]) for each in outcomes}
    names = []
    for spec in options.datasets:
        dataset = load_dataset(spec, cache_dir=options.folder)
        names.append(dataset.name)
        print(dataset, flush=True)
        for tag, (edge, depth) in itertools.product(local_tags(), VARIANTS):
            if (dataset.fingerprint, tag, edge, depth) in done:
                continue
            begin = time.perf_counter()
            facts = {"dataset": dataset.name, "fingerprint": dataset.fingerprint, "model": tag, "edge": edge}
            outcome = facts | {"depth": depth} | measure(dataset, tag, edge, depth, options.folder)
            outcomes.append(outcome | {"seconds": time.perf_counter() - begin})
            with journal.open("a") as lines:
                lines.write(json.dumps(outcomes[-1]) + "\n")
            found = ", ".join(f"{name} {outcome[name]:.3f}" for name in ("acc", "probe_ridge", "fine_tuned"))
            print(f"  {tag} at {edge}, depth {depth}: {found}, {outcomes[-1]['seconds']:.0f} s", flush=True)
    print(table(outcomes, names))


if __name__ == "__main__":
    main()
