"""Measure how far the order by acc agrees with the order by classifiers that are trained on the same embeddings.

    python benchmarks/harness/probe_trust.py --cache FOLDER emoji stamps=csv:FILE [--classes N --per-class N]

The embeddings are those of `unlabelled_trust.py`: the models on this machine at several input sizes and depths. Prints
a Markdown table for each classifier: Kendall's tau-b with acc over all embeddings and over the models' own outputs, and
the share of images that the classifier loses on the embedding with the best acc, compared with its own best one.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from race import embedded, unit
from tabulate import tabulate
from unlabelled_trust import EDGES, parser_of, set_of

from embedcore.images.dataset import Dataset
from embedcore.results.ranking import kendall_tau
from embedcore.retrieval.metrics import score
from embedcore.retrieval.probes import probe
from embedcore.zoo.tags import local_tags

CLASSIFIERS = ("probe_ridge", "probe_logistic", "few_shot_5")


def scores_of(rows: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """Return acc and the scores of the classifiers of embeddings [n, dim]."""
    sides = [rows[dataset.is_query], dataset.query_labels]
    if not dataset.leave_one_out:
        sides += [rows[dataset.is_reference], dataset.reference_labels]
    return {"acc": score(*sides, resamples=1).values["acc"], **probe(*sides, resamples=1).values}


def main() -> None:
    """Print the table."""
    options = parser_of(__doc__).parse_args()
    table = []
    for text in options.sets:
        name, dataset = set_of(text, options)
        found, own = [], []
        with torch.inference_mode():
            for tag, edge in itertools.product(local_tags(), EDGES):
                for depth, rows in embedded(dataset, tag, edge, options.cache).items():
                    found.append(scores_of(unit(rows), dataset))
                    own.append(not depth)
        accs, outputs = np.array([each["acc"] for each in found]), np.array(own)
        for classifier in CLASSIFIERS:
            if classifier not in found[0]:
                continue
            values = np.array([each[classifier] for each in found])
            taus = kendall_tau(accs, values), kendall_tau(accs[outputs], values[outputs])
            lost = values.max() - values[accs.argmax()]
            spans = (f"{each.min():.3f} to {each.max():.3f}" for each in (accs, values))
            table.append([name, len(dataset), len(dataset.classes), classifier, len(found), *spans])
            table[-1] += ["–" if tau is None else f"{tau:.2f}" for tau in taus] + [f"{lost:.3f}"]
    headers = [
        "set",
        "images",
        "classes",
        "classifier",
        "embeddings",
        "acc",
        "its score",
        "tau",
        "tau, outputs",
        "lost",
    ]
    print(tabulate(table, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
