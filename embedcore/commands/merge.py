"""``embedcore merge``: join the saved runs of shards, or of sessions with different models, into one."""

from __future__ import annotations

import argparse
from pathlib import Path

from embedcore.commands.arguments import print_notes
from embedcore.errors import UsageError
from embedcore.files import STORAGE
from embedcore.plain import counted
from embedcore.results.merge import merge, write_run
from embedcore.results.reading import read_parts


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "merge",
        help="join the saved runs of shards into one",
        description="Join saved runs of the same settings, dataset, versions and machine into one pytest-benchmark "
        "JSON. Exit code 2: the runs do not belong together, or a shard is missing.",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help=f"a file, a folder of files or of --embed-claim, or a name in {STORAGE}"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", required=True, help="the JSON to write")
    parser.add_argument("--allow-missing", action="store_true", help="merge even if shards are missing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    output: Path = arguments.output
    parts = dict(part for name in arguments.runs for part in read_parts(name, lambda line: print_notes([line])))
    if any(output.exists() and output.samefile(path) for path in parts):
        raise UsageError(f"--output: {output} is one of the runs to merge: write to another file")
    merged = merge(list(parts.items()), allow_missing=arguments.allow_missing)
    print_notes(merged.notes)
    if unreached := merged.data["embedcore"]["unreached"]:
        print_notes([f"{counted(len(unreached), 'model')} not reached"])
    write_run(merged.data, output, "--output")
    benchmarks, excluded = merged.data["benchmarks"], merged.data["embedcore"]["excluded"]
    print(f"{output}: {counted(len(benchmarks), 'benchmark')} and {counted(len(excluded), 'excluded model')}")
    return 0
