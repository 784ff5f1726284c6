"""Measure how far the order by acc agrees with the order after the whole network is fine-tuned.

    python benchmarks/harness/finetune_trust.py --cache FOLDER digits stamps=csv:FILE [--classes N --per-class N]

The models on this machine at several input sizes are the starting points. They are trained on the references, or on a
seeded half of each class if the set has no roles, and judged on the other images. There is one recipe: AdamW, a new
linear layer with ten times the learning rate, small shifts of the images. acc is that of the frozen embeddings on the
same two halves.
Prints a Markdown table with Kendall's tau-b, and what the best acc loses against the best fine-tuned network. Each
network is trained once: the same command continues.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import torch
from race import batches, embedded, unit
from tabulate import tabulate
from torch import nn
from torch.nn import functional
from unlabelled_trust import EDGES, parser_of, set_of

from embedcore.images.dataset import Dataset
from embedcore.results.ranking import kendall_tau
from embedcore.retrieval.metrics import score
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.tags import local_tags

BATCH = 32
RATE, HEAD_RATE, DECAY = 2e-4, 2e-3, 0.05
SHIFT = 16  # images are shifted by up to 1/16 of their edge


def halves(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the images that train, and of those that are judged: of classes that have both."""
    if dataset.leave_one_out:
        rng = np.random.default_rng(0)
        train = np.zeros(len(dataset), dtype=np.bool_)
        for label in range(len(dataset.classes)):
            of_class = rng.permutation(np.flatnonzero(dataset.labels == label))
            train[of_class[: (len(of_class) + 1) // 2]] = True
        judged = ~train
    else:
        train, judged = dataset.is_reference, dataset.is_query
    judged = judged & np.isin(dataset.labels, dataset.labels[train])
    return np.flatnonzero(train), np.flatnonzero(judged)


def shifted(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return the images moved by random steps; what leaves on one side repeats the border on the other."""
    most = images.shape[-1] // SHIFT
    padded = functional.pad(images, [most] * 4, mode="replicate")
    down, right = rng.integers(0, 2 * most + 1, 2)
    return padded[..., down : down + images.shape[-2], right : right + images.shape[-1]]


def fine_tuned(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, train: np.ndarray, epochs: int
) -> nn.Module:
    """Return the timm network with a new classifier, trained on the images ``train``; in eval mode."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network.reset_classifier(int(labels.max()) + 1)
    network.requires_grad_(True).to(memory_format=torch.channels_last)
    head = {*network.get_classifier().parameters()}
    parts = [
        {"params": [each for each in network.parameters() if each not in head], "lr": RATE},
        {"params": [*head], "lr": HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(parts, weight_decay=DECAY)
    batches = max(1, len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [RATE, HEAD_RATE], total_steps=epochs * batches, pct_start=0.1, div_factor=10
    )
    network.train()
    for _ in range(epochs):
        for chosen in np.array_split(rng.permutation(train), batches):
            optimizer.zero_grad()
            outputs = network(shifted(images[chosen], rng).contiguous(memory_format=torch.channels_last))
            functional.cross_entropy(outputs, labels[chosen], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def right(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of the images that the network puts into their class."""
    found = [network(images[start : start + BATCH]).argmax(dim=1) for start in range(0, len(images), BATCH)]
    return float((torch.cat(found) == labels).double().mean())


def main() -> None:
    """Train what is not in the journal, then print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    journal = options.cache / "finetuned.jsonl"
    known = dict(map(json.loads, journal.read_text().splitlines())) if journal.is_file() else {}
    table = []
    for text in options.sets:
        name, dataset = set_of(text, options)
        (train, judged), labels = halves(dataset), torch.from_numpy(dataset.labels.astype(np.int64))
        accs, tuned = [], []
        for tag, edge in itertools.product(local_tags(), EDGES):
            rows = unit(embedded(dataset, tag, edge, options.cache)[""])
            sides = rows[judged], dataset.labels[judged], rows[train], dataset.labels[train]
            accs.append(score(*sides, resamples=1).values["acc"])
            key = f"{dataset.fingerprint[:16]} {tag} {edge} {options.epochs}"
            if key not in known:
                backbone = load_backbone(tag)
                images = torch.cat([*batches(dataset, backbone, edge, options.cache)])
                network = fine_tuned(backbone.module, images, labels, train, options.epochs)
                known[key] = right(network, images[judged], labels[judged])
                with journal.open("a") as file:
                    file.write(json.dumps([key, known[key]]) + "\n")
            tuned.append(known[key])
            print(f"  {name}: {tag} at {edge}: acc {accs[-1]:.3f}, fine-tuned {tuned[-1]:.3f}", flush=True)
        tau, best = kendall_tau(np.array(accs), np.array(tuned)), tuned[int(np.argmax(accs))]
        spans = (f"{min(each):.3f} to {max(each):.3f}" for each in (accs, tuned))
        counts = [len(train), len(judged), len(dataset.classes), len(accs)]
        table.append([name, *counts, *spans, "–" if tau is None else f"{tau:.2f}", f"{max(tuned) - best:.3f}"])
    headers = ["set", "train", "judged", "classes", "networks", "acc", "fine-tuned", "tau", "cost"]
    print(tabulate(table, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
