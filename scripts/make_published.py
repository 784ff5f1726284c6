"""Write embedcore/zoo/published.csv: the top-1 accuracies that timm publishes, one model a row.

    git clone https://github.com/huggingface/pytorch-image-models
    python scripts/make_published.py --from pytorch-image-models/results COMMIT VERSION

COMMIT and VERSION are those of the clone (`git log -1`, timm/version.py) and are written into the file. A PATH is the
folder `results` or one of its csv files with its own name; `--from` may be repeated for files of several commits. It
needs neither the network nor timm. If a model has several image sizes, the smallest is kept. Names are in lower case:
older files have SelecSls60, newer ones and timm itself selecsls60.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from embedcore.zoo.published import SETS, read_top1

OUT = Path(__file__).resolve().parent.parent / "embedcore" / "zoo" / "published.csv"
HEADER = (
    "Top-1 accuracies in percent from the folder results of timm's repository, huggingface/pytorch-image-models.",
    "Copyright Ross Wightman. Licensed under the Apache License, Version 2.0.",
    "Changed: the column top1 of the files below, joined by model; of several image sizes of a model the smallest;"
    " names in small letters.",
    "Written by scripts/make_published.py.",
)


def found_in(path: Path) -> dict[str, Path]:
    """Return the test sets whose results a folder has, or the one of a file, with their paths."""
    files = {name: path / file if path.is_dir() else path for name, file in SETS.items()}
    return {name: file for name, file in files.items() if file.is_file() and file.name == SETS[name]}


def table(sources: Sequence[tuple[Path, str, str]]) -> str:
    """Return the text of the table; `sources`: path, commit and version. Raises SystemExit and UsageError."""
    columns: dict[str, dict[str, float]] = {}
    lines = [*HEADER]
    for path, commit, version in sources:
        files = found_in(path)
        if not files:
            raise SystemExit(f"{path}: neither one of timm's files of results nor a folder with one")
        for name, file in files.items():
            if name in columns:
                raise SystemExit(f"{path}: {SETS[name]} was given twice")
            columns[name] = {model.lower(): top1 for model, top1 in read_top1(file).items()}
            lines.append(f"{name}: {SETS[name]}, commit {commit}, timm {version}, {len(columns[name])} models")
    names = [name for name in SETS if name in columns]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", *names])
    for model in sorted(set().union(*columns.values())):
        writer.writerow([model, *(f"{columns[name][model]:g}" if model in columns[name] else "" for name in names)])
    return "".join(f"# {line}\n" for line in lines) + stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="sources", nargs=3, action="append", metavar=("PATH", "COMMIT", "VERSION"))
    parser.add_argument("--out", type=Path, default=OUT, help="(default: %(default)s)")
    arguments = parser.parse_args()
    text = table([(Path(path), commit, version) for path, commit, version in arguments.sources or ()])
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
