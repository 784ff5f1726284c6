"""``embedcore pool``: models on several image sets, and what to expect on a new one."""

from __future__ import annotations

import argparse
import json

from embedcore.commands.arguments import print_notes, width
from embedcore.commands.datasets import datasets_of, with_other_weights
from embedcore.files import STORAGE
from embedcore.results.headline import expect_labels


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "pool",
        help="which model for image sets that were not measured?",
        description="Pool the paired differences of acc between models over runs on several image sets, with random "
        "effects between the sets: the mean difference to a reference model, and the interval of the difference on a "
        "new set, from three sets on. Only the JSON of the runs is read. Exit code 2 if there is nothing to pool.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"a file, a folder of files, or a name in {STORAGE}")
    parser.add_argument(
        "--reference", metavar="MODEL", help="model to compare with (default: the best on average of those on all sets)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output format (default: text)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from embedcore.compare.pool import pool
    from embedcore.report.board.columns import random_notice
    from embedcore.report.pool_text import as_json, as_text
    from embedcore.results.leaderboard import Row

    datasets = []
    for path, dataset, results in datasets_of(arguments.runs):
        expect_labels([dataset], path, "pool")
        datasets.append((dataset, results))
    found = pool(datasets, arguments.reference)
    others = with_other_weights([results for _, results in datasets])
    print_notes(f"{model} has different weights in different runs" for model in others)
    if arguments.format == "json":
        print(json.dumps(as_json(found), indent=2))
        return 0
    notice = random_notice([Row(1, result) for _, results in datasets for result in results])
    print("\n\n".join(filter(None, (notice, as_text(found, width())))))
    return 0
