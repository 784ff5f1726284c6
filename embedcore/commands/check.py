"""``embedcore check``: audit a dataset without measuring anything.

Lines have at most 80 characters unless a name is longer.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm

from embedcore.errors import UsageError
from embedcore.files import cache_folder
from embedcore.images.ceilings import reference_counts
from embedcore.images.dataset import Dataset
from embedcore.images.decode import MAX_MEGAPIXELS, ImageFacts
from embedcore.images.duplicates import NEAR, count_copies, count_near_duplicates
from embedcore.images.load_dataset import AuditedDataset, audit_dataset
from embedcore.plain import counted, one_line

EXIT_BAD = 1

_LINE = 80
_LABEL = 16  # width of the left column
_BAR = 40
_ANIMATED_NAMED = 10


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="audit a dataset: bad files, duplicates, possible scores",
        description="Audit every image of a dataset as a benchmark does before it loads a model. Exit code 1 if images "
        "cannot be read.",
    )
    parser.add_argument(
        "dataset",
        help="emoji, a folder, a zip or tar file, a folder of shards, hf://datasets/NAME, csv:FILE, or a timm scheme "
        "hfds/ tfds/ wds/ torch/",
    )
    parser.add_argument(
        "--list", action="store_true",
        help="only print the names of the images, one per line, in the order of a run with the same options: the order "
        "of precomputed embeddings",
    )  # fmt: skip
    parser.add_argument("--split", default="auto", metavar="SPLIT", help="as --embed-split (default: auto)")
    parser.add_argument("--columns", metavar="NAMES", help="as --embed-columns: path=image,label=class")
    parser.add_argument("--max-classes", type=int, metavar="N", help="as --embed-max-classes")
    parser.add_argument("--max-per-class", type=int, metavar="N", help="as --embed-max-per-class")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="as --embed-seed (default: 0)")
    parser.add_argument(
        "--max-megapixels", type=float, default=MAX_MEGAPIXELS, metavar="MP",
        help="as --embed-max-megapixels (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--near-duplicates", action=argparse.BooleanOptionalAction, default=True,
        help="count pairs of images that look alike (default: yes)",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, metavar="DIR",
        help="cache folder for the results of the audit (default: the user's)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    with tqdm.tqdm(desc="auditing images", unit=" images", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        audited = audit_dataset(
            arguments.dataset,
            split=arguments.split,
            columns=arguments.columns,
            max_classes=arguments.max_classes,
            max_per_class=arguments.max_per_class,
            seed=arguments.seed,
            decode_all=not arguments.list,
            max_megapixels=arguments.max_megapixels,
            hashes=arguments.near_duplicates and not arguments.list,
            cache_dir=cache_folder(arguments.cache),
            progress=show,
        )
    if arguments.list:
        return _list(audited)
    try:
        dataset = audited.dataset()
    except UsageError as error:
        print(*bad_lines(audited), "", f"nothing can be measured: {error}", sep="\n")
        return EXIT_BAD
    print(*audit_lines(audited, dataset, near_duplicates=arguments.near_duplicates), sep="\n")
    return EXIT_BAD if audited.bad else 0


def _list(audited: AuditedDataset) -> int:
    """Print the names of the images that can be read, and the errors of the others to standard error."""
    names = audited.dataset().names
    broken = next((name for name in names if "\n" in name), None)
    if broken is not None:
        raise UsageError(f"{broken!r}: a name with a line break cannot be listed")
    # As bytes, since file names need not be UTF-8.
    sys.stdout.buffer.write(b"".join(os.fsencode(name) + b"\n" for name in names))
    sys.stdout.flush()
    if audited.bad:
        print(*bad_lines(audited), sep="\n", file=sys.stderr)
    return EXIT_BAD if audited.bad else 0


def audit_lines(audited: AuditedDataset, dataset: Dataset, *, near_duplicates: bool = True) -> Iterator[str]:
    """Yield the lines on a dataset, which has the images of ``audited`` that can be read."""
    facts = [finding.facts for finding in audited.good if finding.facts is not None]
    yield from _counts(audited, dataset)
    yield ""
    yield from _duplicates(dataset, facts if near_duplicates else [])
    yield ""
    yield from _sizes(facts)
    yield from _row("modes", _tally(fact.mode for fact in facts))
    yield from _row("formats", _tally(fact.format for fact in facts))
    yield from _animated(dataset, facts)
    yield ""
    yield from bad_lines(audited)


def bad_lines(audited: AuditedDataset) -> Iterator[str]:
    """Yield a line for each image that cannot be read, with the reason."""
    if not audited.bad:
        yield "Every image can be read."
        return
    count = f"{len(audited.bad):,} of {len(audited.findings):,} images"
    yield f"{count} cannot be read (--embed-bad-images skip leaves them out):"
    for name, reason in audited.bad:
        line = f"  {name!r}: {reason}"
        if len(line) <= _LINE:
            yield line
        else:
            yield f"  {name!r}:"
            yield from textwrap.wrap(reason, _LINE, initial_indent="      ", subsequent_indent="      ")


def _counts(audited: AuditedDataset, dataset: Dataset) -> Iterator[str]:
    summary = dataset.summary()
    sizes = np.bincount(dataset.labels)
    yield from _row("dataset", repr(dataset.name))
    yield from _row("found in", one_line(audited.found.where))
    yield from _row("fingerprint", summary["fingerprint"])
    for note in audited.found.notes:
        yield from _row("note", one_line(note))
    if dataset.leave_one_out:
        yield from _row("images", f"{len(dataset):,}, each queries all others (leave-one-out)")
    else:
        yield from _row(
            "images", f"{len(dataset):,}: {summary['queries']:,} queries, {summary['references']:,} references"
        )
    spread = f"{sizes.min():,} to {sizes.max():,}" if sizes.min() < sizes.max() else f"{sizes.min():,}"
    yield from _row("classes", f"{len(dataset.classes):,}, of {spread} images (median {np.median(sizes):g})")
    yield from _row("lone queries", _lone_queries(dataset, summary["lone_queries"]))
    yield from _row("acc5 ceiling", f"{summary['acc5_ceiling']:.4f}: the acc5 of a perfect embedding")
    yield from _row("chance acc", f"{summary['chance_acc']:.4f}: the acc of a random reference as the nearest")


def _lone_queries(dataset: Dataset, lone: int) -> str:
    if not lone:
        return "none: every query has a reference of its class"
    counts = reference_counts(dataset.query_labels, dataset.reference_labels)
    first = dataset.titles[dataset.query_labels[np.flatnonzero(counts == 0)[0]]]
    return f"{lone:,} without a reference of their class, such as {first!r}: not scored"


def _duplicates(dataset: Dataset, facts: Sequence[ImageFacts]) -> Iterator[str]:
    copies = count_copies(dataset.digests, dataset.labels)
    total = copies.within_classes + copies.across_classes
    text = (
        f"{counted(total, 'exact copy', 'exact copies')} of earlier images: {copies.within_classes:,} of the same "
        f"class, {copies.across_classes:,} of other classes only"
    )
    yield from _row("duplicates", text if total else "none")
    if line := dataset.duplicates_line:
        yield from _row("", line)
    hashes = [fact.perceptual_hash for fact in facts if fact.perceptual_hash is not None]
    if not hashes:
        return
    sides = None if dataset.leave_one_out else dataset.is_query
    near = count_near_duplicates(np.array(hashes, np.uint64), dataset.digests, dataset.labels, sides)
    between = "" if near.between_sides is None else f", {near.between_sides:,} of a query and a reference"
    yield from _row(
        "near-duplicates",
        f"{counted(near.pairs, 'pair')}: {near.within_classes:,} within a class, "
        f"{near.pairs - near.within_classes:,} across classes{between} "
        f"(perceptual hashes differ in at most {NEAR} of 64 bits)"
        if near.pairs
        else f"none (no perceptual hashes differ in at most {NEAR} of 64 bits)",
    )


def _sizes(facts: Sequence[ImageFacts]) -> Iterator[str]:
    """Yield a histogram of the shorter sides, in powers of two."""
    shorter = [min(fact.width, fact.height) for fact in facts]
    octaves = Counter(side.bit_length() for side in shorter)
    most = max(octaves.values())
    yield from _row("sizes", f"shorter side {min(shorter):,} to {max(shorter):,} pixels, median {np.median(shorter):g}")
    for octave in range(min(octaves), max(octaves) + 1):
        count = octaves[octave]
        bar = "#" * max(round(_BAR * count / most), count > 0)
        yield f"{f'{2 ** (octave - 1)}-{2**octave - 1}':>{_LABEL - 2}}  {count:>9,}  {bar}".rstrip()


def _animated(dataset: Dataset, facts: Sequence[ImageFacts]) -> Iterator[str]:
    animated = [dataset.images.name(index) for index, fact in enumerate(facts) if fact.animated]
    if not animated:
        return
    named = ", ".join(repr(name) for name in animated[:_ANIMATED_NAMED])
    more = f" and {len(animated) - _ANIMATED_NAMED:,} more" if len(animated) > _ANIMATED_NAMED else ""
    yield from _row("animated", f"{len(animated):,}, only first frames are used: {named}{more}")


def _tally(values: Iterable[str]) -> str:
    return ", ".join(f"{one_line(value)} {count:,}" for value, count in Counter(values).most_common())


def _row(label: str, text: str) -> list[str]:
    wrapped = textwrap.TextWrapper(_LINE - _LABEL, break_long_words=False, break_on_hyphens=False).wrap(text)
    return [f"{first:<{_LABEL}}{line}" for first, line in zip([label, *[""] * len(wrapped)], wrapped, strict=False)]
