"""``embedcore deploy``: models on several engines and precisions, in one table."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence

from embedcore.commands.arguments import width
from embedcore.embed.engines.names import ENGINES, PRECISIONS, check_installed, kind_of, parse_engine
from embedcore.errors import UsageError

_PRECISIONS = tuple(dict.fromkeys(name for names in PRECISIONS.values() for name in names))


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "deploy",
        help="run models on several engines: does deployment keep accuracy and ranking?",
        description="Measure models on each engine in each precision that it has, as cases with a journal: acc with "
        "its paired difference to eager fp32, drift, speed, latency of one image, size and memory. An interrupted "
        "command continues when it is run again. Arguments after -- go to pytest, such as --embed-dataset or "
        "--embed-rounds. Exit code 1 if nothing could be measured.",
    )
    parser.add_argument("models", metavar="MODEL", nargs="+", help="as for --embed-roster: tags, globs, roster files")
    parser.add_argument(
        "--engines", metavar="LIST", default=",".join(ENGINES), help="separated by commas (default: %(default)s)"
    )
    parser.add_argument(
        "--precisions", metavar="LIST", default="fp32", help=f"of {','.join(_PRECISIONS)} (default: %(default)s)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: text)")
    parser.add_argument("arguments", nargs="*", metavar="-- PYTEST_ARGUMENTS", help="arguments for pytest")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    ways = [*_ways(_listed(parsed.engines), _listed(parsed.precisions))]

    from embedcore.compare.deployment import USUAL, Way, deployed
    from embedcore.notebook.benchmark import SETTINGS, benchmark
    from embedcore.plugin.side import collect
    from embedcore.report.deployment_text import as_json, as_text

    roster = ",".join(parsed.models)
    options, _ = collect([*parsed.arguments, f"--embed-roster={roster}"])
    if options.unlabelled:
        raise UsageError("deploy compares accuracies, which need labels: leave out --embed-unlabelled")
    settings = {name: getattr(options, name) for name in SETTINGS} | {"processes": 1, "latency": True}
    runs = {}
    for way in dict.fromkeys([USUAL, *(Way(*way) for way in ways)]):
        print(f"{way}:", file=sys.stderr)
        settings |= {"engine": way.engine, "precision": way.precision}
        with contextlib.redirect_stdout(sys.stderr):  # messages, also of exporters: only the table is output
            runs[way] = benchmark(roster, options.dataset, resume=True, **settings)
    rows = deployed(runs)
    if parsed.format == "json":
        print(json.dumps(as_json(rows), indent=1))
    else:
        print(as_text(rows, width()))
    return 0 if any(row.result.ok for row in rows) else 1


def _listed(text: str) -> list[str]:
    return [*filter(None, map(str.strip, text.split(",")))]


def _ways(engines: Sequence[str], precisions: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each engine with each of the precisions that it has. Raises UsageError."""
    for precision in precisions:
        if precision not in _PRECISIONS:
            raise UsageError(f"--precisions: {precision!r}: choose from {', '.join(_PRECISIONS)}")
    for text in engines:
        try:
            engine = parse_engine(text)
        except ValueError as error:
            raise UsageError(f"--engines: {text!r}: {error}") from error
        for precision in precisions:
            if precision in PRECISIONS[kind_of(engine)]:
                check_installed(engine, precision)
                yield engine, precision
