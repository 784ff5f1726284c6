"""``embedcore rank``: ranks of saved runs with confidence intervals, from their JSON alone."""

from __future__ import annotations

import argparse
import json
import sys

from embedcore.commands.arguments import print_notes, width
from embedcore.commands.datasets import datasets_of, with_other_weights
from embedcore.errors import UsageError
from embedcore.files import STORAGE
from embedcore.results.headline import headline_scores
from embedcore.results.ranking import RANKED, NotRanked, agree, rank_models


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "rank",
        help="rank the models of saved runs, with confidence intervals",
        description="Rank the models by a score with 95 % intervals, from the saved result of every query. Runs on one "
        "dataset are merged; for several datasets their agreement and mean ranks are shown. Exit code 2 if there is "
        "nothing to rank.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"a file, a folder of files, or a name in {STORAGE}")
    parser.add_argument(
        "--metric",
        choices=RANKED,
        metavar="SCORE",
        help=f"the score: {', '.join(RANKED)} (default: acc, or view_recall of runs without labels)",
    )
    parser.add_argument(
        "--format", choices=("text", "markdown", "json"), default="text", help="output format (default: text)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from embedcore.report.board.ranks import Ranked, report, to_json

    boards: list[Ranked] = []
    measured = []
    for path, dataset, results in datasets_of(arguments.runs):
        metric = arguments.metric or headline_scores(dataset).first
        try:
            boards.append(Ranked(dataset, rank_models(results, dataset, (metric,))[metric]))
        except NotRanked as error:
            raise UsageError(f"{path}: its models cannot be ranked: {error}") from error
        measured.append((dataset, results))
    if not boards:
        raise UsageError(f"no model was measured in {', '.join(arguments.runs)}")
    metrics = {board.ranking.metric for board in boards}
    if len(metrics) > 1:
        raise UsageError("runs with and without labels cannot be ranked together: they have no score in common")
    agreement = agree(measured, *metrics) if len(measured) > 1 else None
    others = with_other_weights([results for _, results in measured])
    print_notes(f"{model} has different weights in different runs" for model in others)
    if arguments.format == "json":
        print(json.dumps(to_json(boards, agreement), indent=2))
    else:
        markdown = arguments.format == "markdown"
        print(report(boards, agreement, width=width(sys.maxsize), markdown=markdown), end="")
    return 0
