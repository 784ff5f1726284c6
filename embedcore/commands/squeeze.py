"""``embedcore squeeze``: smaller forms of a run's embeddings, and ensembles of its models."""

from __future__ import annotations

import argparse
import json

from embedcore.commands.arguments import add_kept, check_kept, width
from embedcore.files import cache_folder
from embedcore.results.headline import expect_labels
from embedcore.results.reading import read_run


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "squeeze",
        help="how small may embeddings be, and which ensembles are better?",
        description="Score smaller forms of the embeddings that a run has kept (centred, whitened, fewer dimensions, "
        "int8, binary) with their paired difference to the full ones, and the best concatenations of two and three "
        "models. The run needs --embed-keep-embeddings. Exit code 2 if no embeddings are found.",
    )
    add_kept(parser, default="all")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from embedcore.compare.squeezed import squeeze_run
    from embedcore.report.squeeze_text import as_json, as_text

    measured = read_run(arguments.saved)
    expect_labels(measured.blocks, measured.path, "squeeze")
    with tqdm(disable=None, leave=False, unit="model") as bar:
        parts = squeeze_run(measured, cache_folder(arguments.cache), arguments.models, done=lambda model: bar.update())
    models = [model for part in parts for model in part.models]
    check_kept(measured.path, [(model.result.model, model.why) for model in models])
    print(json.dumps(as_json(parts), indent=2) if arguments.format == "json" else as_text(parts, width()))
    return 0
