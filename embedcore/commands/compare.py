"""``embedcore compare``: the gate for two saved runs, from their JSON alone."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.commands.arguments import add_index, add_limits, duration, width
from embedcore.compare.limits import read_limits
from embedcore.errors import UsageError
from embedcore.files import STORAGE, cache_folder, writing
from embedcore.results.headline import expect_labels
from embedcore.results.reading import is_first_run, read_baseline, read_run

if TYPE_CHECKING:
    from embedcore.compare.comparison import Comparison
    from embedcore.compare.verdict import Verdict

EXIT_REGRESSION = 1
EXIT_UNDECIDED = 3

FORMATS = ("text", "markdown", "json", "junit")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare two saved runs and fail on a regression",
        description="Compare two saved runs, model by model. Exit code 0: no regression; 1: a model is worse than the "
        "limits allow; 2: the runs, or scores or embeddings of a model, cannot be compared; 3: a speed or memory is "
        "undecided (with --undecided fail).",
    )
    parser.add_argument(
        "base", metavar="BASE", help=f"saved run: a file, a folder of its shards, or a name in {STORAGE}"
    )
    parser.add_argument("new", metavar="NEW", help="saved run to judge")
    add_limits(parser)
    parser.add_argument(
        "--allow-no-baseline", action="store_true", help="a first run, when nothing is saved at BASE yet, passes"
    )
    parser.add_argument(
        "--across-machines", action="store_true", help="compare runs of two machines: scores and drift only"
    )
    parser.add_argument(
        "--confirm",
        action="store_true",
        help="measure suspect speeds again, both versions in turn, on the machine of both runs",
    )
    parser.add_argument("--budget", type=duration, metavar="TIME", help="time limit of --confirm, such as 30m or 2h")
    parser.add_argument(
        "--timm", action="store_true",
        help="BASE and NEW are versions of timm, or interpreters or folders that have it: compare their model "
        "configurations without running a model",
    )  # fmt: skip
    add_index(
        parser,
        "may stored embeddings of BASE be kept? Search them with queries of NEW; both runs need "
        "--embed-keep-embeddings",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="cache folder (default: the user's)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="output format (default: text)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the output to FILE, and text to the terminal"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a self-contained page")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from embedcore.compare.comparison import compare
    from embedcore.compare.verdict import judge

    if arguments.budget is not None and not arguments.confirm:
        raise UsageError("--budget needs --confirm, whose time it limits")
    if arguments.timm:
        return _run_timm(arguments)
    if arguments.index:
        return _run_index(arguments)
    if arguments.html is not None:
        from embedcore.report.html.drawing import start_scripts

        start_scripts()
    limits = read_limits(arguments.fail_on, Path())
    new = read_run(arguments.new)
    if arguments.allow_no_baseline and is_first_run(arguments.base):
        print(f"no baseline: nothing is saved at {arguments.base} yet, so there is nothing to compare with")
        return 0
    base = read_baseline(arguments.base, option="--allow-no-baseline")
    if arguments.html is not None:
        expect_labels(new.blocks, new.path, "the page of --html")
    comparison = compare(base, new, across_machines=arguments.across_machines)
    verdict = judge(comparison, limits)
    if arguments.confirm:
        from embedcore.ab.confirm import ConfirmationLines, settle

        progress = ConfirmationLines(functools.partial(print, file=sys.stderr, flush=True))
        seconds = float("inf") if arguments.budget is None else arguments.budget
        cache = cache_folder(arguments.cache)
        verdict = settle(comparison, verdict, cache=cache, seconds=seconds, progress=progress)
    _write(comparison, verdict, arguments)
    if arguments.html is not None:
        from embedcore.report.gate.comparison_page import comparison_page

        page = comparison_page(comparison, verdict, limits)
        with writing(arguments.html, "--html") as file:
            file.write(page.encode())
    return conclude(comparison, verdict, undecided_fails=arguments.undecided == "fail")


def _run_index(arguments: argparse.Namespace) -> int:
    from embedcore.compare.stored_embeddings import judge_stored
    from embedcore.report.gate.stored_text import SCHEMA, answers_json, answers_text

    _expect_text_or_json("--index", arguments)
    base, new = read_run(arguments.base), read_run(arguments.new)
    expect_labels(new.blocks, new.path, "--index")
    limits = read_limits(arguments.fail_on, Path())
    answers = judge_stored(base, new, cache_folder(arguments.cache), limits, arguments.maps)
    if not answers:
        raise UsageError(f"{base.path} and {new.path} have no measured model in common")
    forms = {
        "text": lambda: answers_text(answers, width()) + "\n",
        "json": lambda: _json({"schema": SCHEMA, "stored": answers_json(answers)}),
    }
    _put(forms, arguments)
    if all(answer.found is None for answer in answers):
        raise UsageError(f"no index can be judged: {answers[0].model}: {answers[0].why}")
    return 0


def _run_timm(arguments: argparse.Namespace) -> int:
    from embedcore.compare.configurations import compare_timm

    _expect_text_or_json("--timm", arguments)
    changes = compare_timm(arguments.base, arguments.new, cache_folder(arguments.cache))
    _put({"text": lambda: changes.text(width()) + "\n", "json": lambda: _json(changes.to_json())}, arguments)
    return 0


def _expect_text_or_json(option: str, arguments: argparse.Namespace) -> None:
    if arguments.format not in ("text", "json"):
        raise UsageError(f"{option}: format {arguments.format} is not supported; use text or json")
    if arguments.html is not None:
        raise UsageError(f"{option} cannot be combined with --html: its formats are text and json")


def conclude(comparison: Comparison, verdict: Verdict, *, undecided_fails: bool) -> int:
    """Report to GitHub if running there, and return the exit code.

    Raises UsageError if nothing was compared, or if scores or embeddings with a limit could not be judged.
    """
    from embedcore.compare.verdict import why_no_answer
    from embedcore.report.gate.comparison_export import report_to_github

    report_to_github(comparison, verdict)
    if not comparison.new.results:
        raise UsageError(f"{comparison.new.path}: no model was measured, so there is nothing to compare")
    if verdict.failed:
        return EXIT_REGRESSION
    if why := why_no_answer(comparison, verdict):
        raise UsageError(f"{comparison.base.path} and {comparison.new.path} cannot be compared: {why}")
    return EXIT_UNDECIDED if verdict.undecided and undecided_fails else 0


def _write(comparison: Comparison, verdict: Verdict, arguments: argparse.Namespace) -> None:
    from embedcore.report.gate.comparison_export import junit, to_json
    from embedcore.report.gate.comparison_text import markdown, text

    forms = {
        "text": lambda: text(comparison, verdict, width=width()) + "\n",
        "markdown": lambda: markdown(comparison, verdict),
        "json": lambda: _json(to_json(comparison, verdict)),
        "junit": lambda: junit(comparison, verdict),
    }
    _put(forms, arguments)


def _put(forms: Mapping[str, Callable[[], str]], arguments: argparse.Namespace) -> None:
    """Write the requested format to the file and text to the terminal; without a file, the format to the terminal."""
    if arguments.output is None:
        sys.stdout.write(forms[arguments.format]())
        return
    try:
        arguments.output.write_text(forms[arguments.format](), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output: {arguments.output} cannot be written: {error.strerror}") from error
    sys.stdout.write(forms["text"]())


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
