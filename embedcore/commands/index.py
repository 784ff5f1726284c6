"""``embedcore index``: approximate indexes of a run's embeddings against the exact search."""

from __future__ import annotations

import argparse
import json

from embedcore.commands.arguments import add_kept, check_kept, width
from embedcore.errors import whole_number
from embedcore.files import cache_folder
from embedcore.results.headline import expect_labels
from embedcore.results.reading import read_run


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "index",
        help="which approximate index keeps the accuracy, and how fast is it?",
        description="Build faiss indexes (int8, HNSW, IVF-PQ) of the embeddings that a run has kept: recall@1 against "
        "the exact search, acc with its paired difference, queries per second, size and build time. The run needs "
        "--embed-keep-embeddings, the command embedcore[index]. Exit code 2 if no embeddings are found.",
    )
    add_kept(parser, default="the best one and those tied with it, at most 3")
    parser.add_argument("--k", type=int, default=5, metavar="N", help="neighbours of a search (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from embedcore.compare.indexed import index_run
    from embedcore.report.index_text import as_json, as_text
    from embedcore.retrieval.indexes import import_faiss

    k, cache = whole_number(arguments.k, "--k", 1), cache_folder(arguments.cache)
    import_faiss()
    measured = read_run(arguments.saved)
    expect_labels(measured.blocks, measured.path, "index")
    with tqdm(disable=None, leave=False, unit="model") as bar:
        parts = index_run(measured, cache, arguments.models, k, done=lambda model: bar.update())
    models = [model for part in parts for model in part.models]
    check_kept(measured.path, [(model.result.model, model.why) for model in models])
    print(json.dumps(as_json(parts, k), indent=2) if arguments.format == "json" else as_text(parts, k, width()))
    return 0
