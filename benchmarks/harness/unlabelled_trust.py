"""Measure how far the order of --embed-unlabelled agrees with the order by labels, on sets that have labels.

    python benchmarks/harness/unlabelled_trust.py --cache FOLDER emoji stamps=csv:FILE [--classes N --per-class N]

The models on this machine embed each set and the views of its images at several input sizes; the output and the mean of
two earlier stages are three embeddings. Prints a Markdown table with Kendall's tau-b of view_recall and acc, and the
values for `embedcore/report/board/unlabelled_trust.py`. `digits` are those of scikit-learn, written to the cache.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from race import embedded, unit
from tabulate import tabulate

from embedcore.images.dataset import Dataset
from embedcore.images.load_dataset import load_dataset
from embedcore.report.board.unlabelled_trust import FAILED, Agreement
from embedcore.results.ranking import kendall_tau
from embedcore.retrieval.metrics import score
from embedcore.retrieval.unlabelled import found_by_views
from embedcore.zoo.tags import local_tags

EDGES = (160, 96, 64)
"""Input sizes, in pixels."""
DIGIT_EDGE = 64  # pixels; the digits have 8


def digits(folder: Path) -> Path:
    """Write scikit-learn's digits as PNG, a folder for each class."""
    from sklearn.datasets import load_digits

    found = load_digits()
    for number, (levels, label) in enumerate(zip(found.images, found.target, strict=True)):
        path = folder / "digits" / str(label) / f"{number:04}.png"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(np.rint(levels * 255 / 16).astype(np.uint8))
            image.resize((DIGIT_EDGE, DIGIT_EDGE), Image.Resampling.BICUBIC).save(path)
    return folder / "digits"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the sets, and of how much of them is used."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="NAME[=SPEC]", help="SPEC as for --embed-dataset")
    parser.add_argument("--cache", type=Path, required=True, help="folder for pixels and embeddings")
    parser.add_argument("--classes", type=int, default=256, help="classes of each set (0: all)")
    parser.add_argument("--per-class", type=int, default=0, help="images of each class and side (0: all)")
    return parser


def set_of(text: str, options: argparse.Namespace) -> tuple[str, Dataset]:
    """Return the name and the images of ``NAME[=SPEC]``."""
    name, _, spec = text.partition("=")
    spec = str(digits(options.cache)) if text == "digits" else spec or name
    return name, load_dataset(
        spec, max_classes=options.classes, max_per_class=options.per_class, cache_dir=options.cache
    )


def both_scores(rows: np.ndarray, views: Dataset, labelled: Dataset) -> tuple[float, float]:
    """Return view_recall and acc of the embeddings [2 n, dim] of n images and their views."""
    images, crops = rows[views.is_reference], rows[views.is_query]
    place = {digest: row for row, digest in enumerate(views.digests[: len(images)])}
    own = images[[place[digest] for digest in labelled.digests]]
    sides = [own[labelled.is_query], labelled.query_labels]
    if not labelled.leave_one_out:
        sides += [own[labelled.is_reference], labelled.reference_labels]
    return float(found_by_views(crops, images).first.mean()), score(*sides, resamples=1).values["acc"]


def main() -> None:
    """Print the table and the values."""
    parser = parser_of(__doc__)
    parser.add_argument("--verbose", action="store_true", help="list both scores of each embedding")
    options = parser.parse_args()
    tags, measured, table = local_tags(), [], []
    for text in options.sets:
        name, labelled = set_of(text, options)
        views = labelled.with_views()
        found = {}
        with torch.inference_mode():
            for tag, edge in itertools.product(tags, EDGES):
                for depth, rows in embedded(views, tag, edge, options.cache).items():
                    model = f"{tag} at {edge}{f' stage {depth}' * bool(depth)}"
                    found[model] = both_scores(unit(rows), views, labelled)
        recalls, accs = np.array([*found.values()]).T
        tau = kendall_tau(recalls, accs)
        assert tau is not None
        measured.append(Agreement(name, len(found), len(tags), round(tau, 2)))
        spans = (f"{scores.min():.3f} to {scores.max():.3f}" for scores in (accs, recalls))
        table.append([name, len(views) // 2, len(labelled.classes), len(found), *spans, f"{tau:.2f}"])
        for model, scores in sorted(found.items(), key=lambda item: -item[1][1]) if options.verbose else ():
            print("  {}: view_recall {:.3f}, acc {:.3f}".format(model, *scores), flush=True)
    headers = ["set", "images", "classes", "embeddings", "acc", "view_recall", "tau"]
    print(tabulate(table, headers, tablefmt="github", disable_numparse=True))
    print(f"fails (tau below {FAILED}): {', '.join(each.images for each in measured if each.tau < FAILED) or 'none'}")
    print("MEASURED =", tuple(sorted(measured, key=lambda each: -each.tau)))


if __name__ == "__main__":
    main()
