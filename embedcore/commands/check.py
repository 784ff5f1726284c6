"""``embedcore check``: what a benchmark would find in a dataset, without measuring anything."""

from __future__ import annotations

import argparse
from pathlib import Path

import tqdm

from embedcore.commands.cache import cache_folder
from embedcore.commands.check_text import audit_lines, bad_lines
from embedcore.errors import UsageError
from embedcore.images.dataset import SPLITS, audit_dataset
from embedcore.progress import Progress

EXIT_BAD = 1


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``check``."""
    parser = commands.add_parser(
        "check",
        help="look at the images of a dataset: bad files, duplicates, what scores are possible",
        description="Look at every image of a dataset as a benchmark does before it loads a model. "
        "Exit code 1 if images cannot be read.",
    )
    parser.add_argument("dataset", help="emoji, a folder, csv:FILE, or a timm scheme hfds/ tfds/ wds/ torch/")
    parser.add_argument("--split", choices=SPLITS, default="auto", help="as --embed-split (default: auto)")
    parser.add_argument("--max-classes", type=int, metavar="N", help="as --embed-max-classes")
    parser.add_argument("--max-per-class", type=int, metavar="N", help="as --embed-max-per-class")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="as --embed-seed (default: 0)")
    parser.add_argument(
        "--near-duplicates",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="count pairs of images that look alike (default: yes)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder in which what was found out is kept for later runs (default: the user's)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the audit of a dataset; 1 if some of its images cannot be read."""
    with tqdm.tqdm(desc="looking at images", unit=" images", disable=None, leave=False) as bar:
        audited = audit_dataset(
            arguments.dataset,
            split=arguments.split,
            max_classes=arguments.max_classes,
            max_per_class=arguments.max_per_class,
            seed=arguments.seed,
            decode_all=True,
            hashes=arguments.near_duplicates,
            cache_dir=cache_folder(arguments.cache),
            progress=_shown_in(bar),
        )
    try:
        dataset = audited.dataset()
    except UsageError as error:
        print(*bad_lines(audited), "", f"nothing can be measured: {error}", sep="\n")
        return EXIT_BAD
    print(*audit_lines(audited, dataset, near_duplicates=arguments.near_duplicates), sep="\n")
    return EXIT_BAD if audited.bad else 0


def _shown_in(bar: tqdm.tqdm) -> Progress:
    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show
