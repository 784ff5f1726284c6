"""Measure how often the race loses the best models, and what it saves. Prints a Markdown table; reproducible by seed.

    python benchmarks/harness/race.py --cache FOLDER emoji vendors=csv:FILE [--runs 200] [--models N]

Each dataset is embedded once by the models on this machine, at several input sizes and depths. Truncated, noisy and
concatenated embeddings serve as further models, as do slightly noisy copies of the best one. Each run is a race of all
these with another order of the classes; it is judged against the accuracies on all classes: whether the best models are
left, and how many of the upper limits (`at_most`) of the others hold.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from tabulate import tabulate

from embedcore.embed.normalise import Normaliser, as_tensor
from embedcore.images.dataset import Dataset
from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.retrieval.gallery_size import Ahead
from embedcore.retrieval.race import Evidence, Race, Rules, evidence_from, stages
from embedcore.zoo.backbone import Backbone, load_backbone
from embedcore.zoo.registry import known_gmacs
from embedcore.zoo.tags import local_tags

EDGES = (96, 64)
"""Input sizes, in pixels."""
GEOMETRY = Geometry(224, 224, "bicubic", 0.875, "center")
"""The same for all models, so that the images are decoded once."""
DEPTHS = (3, 5)
"""Stages of the backbone whose mean over positions is another embedding."""
WIDTHS = (256, 64, 16)
"""First columns that make a truncated embedding."""
NOISES = (0.5, 1.0, 2.0)
"""Length of the noise that is added to an embedding of length 1."""
NEAR_TIES = 4
RULES = {
    "best": Rules(),
    "best three": Rules(top=3),
    "best, or .5 points less": Rules(margin=0.005),
}
LEVEL, COST = 0.95, 0.2
"""At least this share of the races must keep the best models, for at most this median cost."""


def batches(dataset: Dataset, backbone: Backbone, edge: int, cache: Path) -> Iterator[torch.Tensor]:
    """Yield the normalised images of a dataset at an input size, float32 [b, 3, edge, edge]."""
    pixels = open_pixel_store(dataset, GEOMETRY, cache)
    normalise = Normaliser(backbone.data_config.mean, backbone.data_config.std)
    for start in range(0, len(pixels), 16):
        batch = normalise(as_tensor(pixels.read(start, min(start + 16, len(pixels)))))
        if edge < GEOMETRY.height:
            batch = functional.interpolate(batch, [edge, edge], mode="bilinear", antialias=True)
        yield batch


def embedded(dataset: Dataset, tag: str, edge: int, cache: Path) -> dict[str, np.ndarray]:
    """Return the embeddings of a model at an input size: its own (``""``) and those of `DEPTHS`; computed once."""
    path = cache / "race" / f"{dataset.fingerprint[:16]}-{tag}-{edge}.npz"
    if not path.is_file():
        backbone = load_backbone(tag)
        module = backbone.module.eval().to(memory_format=torch.channels_last)
        rows: dict[str, list[np.ndarray]] = {"": [], **{str(depth): [] for depth in DEPTHS}}
        for depth in DEPTHS:
            keep = rows[str(depth)].append
            module.blocks[depth].register_forward_hook(
                lambda _, __, maps, keep=keep: keep(maps.mean(dim=(2, 3)).numpy())
            )
        for batch in batches(dataset, backbone, edge, cache):
            rows[""].append(backbone.embed(batch).numpy())
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{f"rows{name}": np.concatenate(each) for name, each in rows.items()})
    with np.load(path) as saved:
        return {name.removeprefix("rows"): saved[name] for name in saved.files}


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1; of the first columns alone some are zero, and stay so."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def noisy(rows: np.ndarray, length: float, seed: int) -> np.ndarray:
    added = np.random.default_rng([1, seed]).standard_normal(rows.shape)
    return unit(rows + length * unit(added))


def models_of(dataset: Dataset, cache: Path) -> Iterator[tuple[str, float, np.ndarray]]:
    """Yield name, cost in GMACs and embeddings [n, dim] of each model, without near-ties."""
    whole = {}
    for tag, edge in itertools.product(local_tags(), EDGES):
        cost = (known_gmacs(tag) or 0.3) * (edge / 224) ** 2
        for depth, rows in embedded(dataset, tag, edge, cache).items():
            name = f"{tag} at {edge}{f' stage {depth}' * bool(depth)}"
            yield name, cost * (int(depth) / 7 if depth else 1), unit(rows)
            if not depth:
                whole[tag, edge] = cost, unit(rows)
                yield from ((f"{name}, {width} columns", cost, unit(rows[:, :width])) for width in WIDTHS)
    best = {tag: each for (tag, edge), each in whole.items() if edge == max(EDGES)}
    for place, (tag, (cost, rows)) in enumerate(best.items()):
        yield from ((f"{tag} + noise {length}", cost, noisy(rows, length, place)) for length in NOISES)
    for (one, (cost, rows)), (other, (more, others)) in itertools.combinations(best.items(), 2):
        yield f"{one} + {other}", cost + more, unit(np.concatenate([rows, others], axis=1))


class Model:
    """A model's cost, and which classes are nearer to each query than its own, bool [queries, classes]."""

    def __init__(self, name: str, cost: float, rows: np.ndarray, dataset: Dataset, queries: np.ndarray) -> None:
        """``queries``: indices of the scored queries."""
        self.name, self.cost = name, cost
        references = np.flatnonzero(dataset.is_reference)
        references = references[np.argsort(dataset.labels[references], kind="stable")]
        products = rows[queries] @ rows[references].T
        if dataset.leave_one_out:
            products[queries[:, None] == references] = -np.inf
        classes, starts = np.unique(dataset.labels[references], return_index=True)
        best = np.full((len(queries), len(dataset.classes)), -np.inf, np.float32)
        best[:, classes] = np.maximum.reduceat(products, starts, axis=1)
        own = best[np.arange(len(queries)), dataset.labels[queries]]
        self.nearer = best > own[:, None]
        self.acc = float((~self.nearer.any(axis=1)).mean())


class Field:
    """All models on a dataset, and their races."""

    def __init__(self, dataset: Dataset, cache: Path, most: int | None) -> None:
        references = dataset.labels[dataset.is_reference]
        counts = np.bincount(references, minlength=len(dataset.classes))[dataset.labels] - dataset.leave_one_out
        queries = np.flatnonzero(dataset.is_query & (counts > 0))
        self.labels, self.classes = dataset.labels[queries], len(dataset.classes)
        self.images = np.bincount(dataset.labels, minlength=self.classes)
        self.models: list[Model] = []
        leader, of_leader = None, np.zeros(0)
        for name, cost, rows in itertools.islice(models_of(dataset, cache), most):
            model = Model(name, cost, rows, dataset, queries)
            self.models.append(model)
            if leader is None or model.acc > leader.acc:
                leader, of_leader = model, rows
        for seed in range(NEAR_TIES):
            rows = noisy(of_leader, 0.1 + 0.05 * seed, 100 + seed)
            self.models.append(Model(f"near-tie {seed}", leader.cost, rows, dataset, queries))

    def races(self, seed: int) -> Iterator[tuple[str, list[int], float, float, tuple[int, int]]]:
        """Yield name of the rules, models left, the cost by images and by GMACs, as shares of the full sweep, and how
        many of the limits hold, of how many.
        """
        order = np.random.default_rng([2, seed]).permutation(self.classes)
        place = np.empty(self.classes, np.int64)
        place[order] = np.arange(self.classes)
        drawn = place[self.labels]
        queries = np.bincount(drawn, minlength=self.classes)
        images = np.cumsum(self.images[order])
        known: dict[tuple[int, int], Evidence] = {}

        def evidence(model: int, classes: int) -> Evidence:
            if (model, classes) not in known:
                rows = np.flatnonzero(drawn < classes)
                nearer = self.models[model].nearer[np.ix_(rows, order[:classes])]
                before = (nearer & (np.arange(classes) < drawn[rows, None])).sum(axis=1)
                known[model, classes] = evidence_from(Ahead(nearer.sum(axis=1), before), drawn[rows], classes)
            return known[model, classes]

        for name, rules in RULES.items():
            race, racing = Race(queries, rules), list(range(len(self.models)))
            embedded = np.zeros(len(self.models))
            limits = []
            for classes in stages(self.classes):
                embedded[racing] = images[classes - 1]
                out = race.judge({str(model): evidence(model, classes) for model in racing})
                for model, lost in out.items():
                    ratio = self.models[int(model)].acc / self.models[int(lost.against)].acc
                    limits.append(ratio <= lost.at_most)
                racing = [model for model in racing if str(model) not in out]
                if len(racing) <= rules.top:
                    break
            embedded[racing] = images[-1]  # without the images of the stages
            costs = np.array([model.cost for model in self.models])
            shares = embedded / images[-1]
            by_gmacs = float(shares @ costs / costs.sum())
            yield name, racing, float(shares.mean()), by_gmacs, (sum(limits), len(limits))

    def keeps(self, rules: Rules, left: list[int]) -> bool:
        """Return whether the models left have what the rules promise."""
        accs = np.array([model.acc for model in self.models])
        best = np.sort(accs)[::-1][: rules.top]
        found = np.sort(accs[left])[::-1][: rules.top]
        return len(found) == len(best) and bool((found >= best - rules.margin).all())


def main() -> int:
    """Print a row for each dataset and rules; the exit code is 1 if one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="NAME[=SPEC]", help="SPEC as for --embed-dataset")
    parser.add_argument("--cache", type=Path, required=True, help="folder for pixels and embeddings")
    parser.add_argument("--classes", type=int, default=1024, help="classes of each dataset (0: all), one image a side")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--models", type=int, default=None, help="only the first N models")
    parser.add_argument("--verbose", action="store_true", help="list the models and each loss")
    options = parser.parse_args()
    rows, failed = [], False
    for text in options.datasets:
        set_name, _, spec = text.partition("=")
        dataset = load_dataset(spec or set_name, max_classes=options.classes, max_per_class=1, cache_dir=options.cache)
        with torch.inference_mode():
            field = Field(dataset, options.cache, options.models)
        accs = np.sort([model.acc for model in field.models])[::-1]
        print(f"{dataset}: {len(field.models)} models, acc " + ", ".join(f"{acc:.3f}" for acc in accs), flush=True)
        if options.verbose:
            for model in sorted(field.models, key=lambda model: -model.acc):
                print(f"  {model.acc:.3f} {model.cost:.2f} {model.name}", file=sys.stderr)
        found: dict[str, list[tuple[bool, int, float, float, tuple[int, int]]]] = {name: [] for name in RULES}
        for seed in range(options.runs):
            for name, left, by_images, by_gmacs, limits in field.races(seed):
                kept = field.keeps(RULES[name], left)
                found[name].append((kept, len(left), by_images, by_gmacs, limits))
                if options.verbose and not kept:
                    print(f"  run {seed}, {name}: left {[field.models[each].name for each in left]}", file=sys.stderr)
        for name, outcomes in found.items():
            kept, left, by_images, by_gmacs, limits = map(np.array, zip(*outcomes, strict=True))
            failed |= bool(kept.mean() < LEVEL or np.median(by_images) > COST)
            high = np.quantile(by_images, 0.95)
            sizes = set_name, len(dataset.classes), len(field.models)
            costs = f"{np.median(by_images):.3f} ({high:.3f})", f"{np.median(by_gmacs):.3f}"
            held = f"{limits[:, 0].sum() / limits[:, 1].sum():.4f}"
            rows.append([*sizes, name, f"{kept.sum()} of {len(kept)}", f"{np.median(left):g}", *costs, held])
    headers = ["images", "classes", "models", "promise", "kept", "left", "cost, images (95 %)", "cost, GMACs", "limits"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
