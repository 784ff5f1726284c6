"""``embedcore regret``: what choosing a model by published accuracy, size or a sample costs on the images of a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcore.commands.arguments import print_notes, width
from embedcore.errors import UsageError
from embedcore.files import STORAGE
from embedcore.results.headline import expect_labels
from embedcore.results.reading import read_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from embedcore.compare.regret import Regrets
    from embedcore.results.run import Run


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "regret",
        help="what choosing a model by published accuracy, size or a sample costs on your images",
        description="For each rule of choice (timm's published accuracies, size, other scores of the run, a run on a "
        "sample): the model that it picks, how many points of acc it loses with simultaneous 95 % intervals, and how "
        "far its order agrees with acc. From saved runs alone. Exit code 2 if there is nothing to choose from.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"a file, a folder of files, or a name in {STORAGE}")
    parser.add_argument(
        "--sample", metavar="RUN2", help="a run of the same models on a sample of the images: what picking by it costs"
    )
    parser.add_argument(
        "--published", type=Path, metavar="FILE",
        help="csv file with the columns model and top1, in place of timm's published accuracies",
    )  # fmt: skip
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: text)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from embedcore.report.regret_text import as_json, as_text

    if arguments.sample and len(arguments.runs) > 1:
        raise UsageError(f"--sample belongs to one RUN, and there are {len(arguments.runs)}")
    found = [each for name in arguments.runs for each in _of_run(read_run(name), arguments)]
    if arguments.format == "json":
        print(json.dumps([as_json(regrets, dataset) for regrets, dataset in found], indent=1))
    else:
        print("\n\n".join(as_text(regrets, dataset, width()) for regrets, dataset in found))
    return 0


def _of_run(run: Run, arguments: argparse.Namespace) -> Iterator[tuple[Regrets, Mapping[str, Any]]]:
    """Yield the regrets on each dataset of a run, with the dataset's block. Raises UsageError."""
    from embedcore.compare.regret import FEWEST, candidates, regrets, rules_of, sample_rule
    from embedcore.results.class_table import class_table
    from embedcore.zoo.published import published, read_top1

    for dataset, results in run.by_dataset():
        here = f"{run.path}: on {dataset.get('name')}" if run.datasets[1:] else f"{run.path}"
        expect_labels([dataset], here, "regret")
        table = class_table(results, dataset)
        if table is None:
            raise UsageError(f"{here}: the run has no verdicts (the results of each query), so nothing can be compared")
        measured = candidates([result for result in results if result.model in table.models])
        if len(measured) < FEWEST:
            raise UsageError(f"{here}: a choice needs at least two models with verdicts, and there is {len(measured)}")
        file: Path | None = arguments.published
        sets = published() if file is None else {"top1": read_top1(file)}
        phrase = "published {} top-1" if file is None else f"the {{}} of {file.name}"
        rules = [*rules_of(measured, sets, phrase=phrase)]
        if not any(rule.name in sets for rule in rules):
            if file is not None:
                raise UsageError(f"--published: {file} has fewer than two of the models of {run.path}")
            print_notes([f"{here}: fewer than two of its models have a published accuracy"])
        if arguments.sample:
            rules.append(sample_rule(run.on(dataset), read_run(arguments.sample)))
        if not rules:
            raise UsageError(f"{here}: no rule orders two of its models")
        yield regrets(measured, table, rules), dataset
