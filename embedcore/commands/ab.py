"""``embedcore ab``: compare the speed and the embeddings of two versions of timm or torch on this machine."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from embedcore.commands.arguments import add_index, add_limits, duration
from embedcore.compare.limits import read_limits
from embedcore.errors import UsageError
from embedcore.files import cache_folder, user_path
from embedcore.plain import one_line

if TYPE_CHECKING:
    from embedcore.ab.environments import Environment

EXIT_REGRESSION = 1
EXIT_NOTHING_JUDGED = 2
EXIT_UNDECIDED = 3


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "ab",
        help="compare the speed and embeddings of two versions of timm or torch",
        description="Measure two sides in pairs of fresh processes that alternate their timing rounds, until each "
        "speed ratio is known with its 95 % interval, and compare the embeddings. For a model whose embeddings moved, "
        "name the first module whose output differs. Arguments after -- go to pytest, such as -k, --embed-roster or "
        "--embed-weights. An interrupted command continues when it is run again. Exit code 1: side B is worse than the "
        "limits allow; 2: the sides cannot be compared, or nothing could be judged; 3: with "
        "--undecided fail, a speed with a limit could not be judged.",
    )
    for name, side in (("baseline", "A"), ("candidate", "B")):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="SPEC",
            help=f"side {side}: this environment with another version, as a pip requirement such as timm==1.0.20 or "
            "git+file:///path@branch (repeatable; default: this environment as it is)",
        )  # fmt: skip
        parser.add_argument(f"--python-{side.lower()}", metavar="PYTHON", help=f"side {side}: another interpreter")
    parser.add_argument(
        "--pythonpath", action="store_true", help="keep PYTHONPATH on both sides (default: it is left out)"
    )
    parser.add_argument(
        "--explain", action="append", default=[], metavar="MODEL",
        help="measure nothing: name the first module whose output differs between the sides (repeatable)",
    )  # fmt: skip
    parser.add_argument("--aa", action="store_true", help="measure the noise floor: both sides are the baseline")
    add_limits(parser)
    parser.add_argument("--budget", type=duration, default=math.inf, metavar="TIME", help="time limit: 30m, 2h")
    parser.add_argument("--fresh", action="store_true", help="do not continue an interrupted command")
    add_index(parser, "also: may embeddings that side A has stored be kept? Both sides embed all images")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: text)")
    parser.add_argument("arguments", nargs="*", metavar="-- PYTEST_ARGUMENTS", help="arguments for pytest")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    from tqdm import tqdm

    from embedcore.ab.compare_sides import compare_sides
    from embedcore.report.gate.ab_text import as_json, as_text

    limits = read_limits(parsed.fail_on, Path.cwd())
    if parsed.aa and (parsed.candidate or parsed.python_b):
        raise UsageError("--aa measures the baseline against itself: it takes no candidate")
    if not (parsed.aa or parsed.baseline or parsed.python_a or parsed.candidate or parsed.python_b):
        raise UsageError("name at least one side: --baseline, --candidate, --python-a or --python-b; or --aa")
    path = os.environ.get("PYTHONPATH", "") if parsed.pythonpath else ""
    baseline = _side("A", parsed.baseline, parsed.python_a, parsed.arguments, path)
    candidate = baseline if parsed.aa else _side("B", parsed.candidate, parsed.python_b, parsed.arguments, path)
    if parsed.explain:
        return _explain({"A": baseline, "B": candidate}, parsed)
    with tqdm(disable=None, leave=False, unit="model") as bar:

        def progress(model: str, done: int, models: int) -> None:
            bar.total, bar.n = models, done
            bar.set_description(one_line(model)[:40])

        try:
            outcome = compare_sides(
                {"A": baseline, "B": candidate},
                parsed.arguments,
                limits,
                seconds=parsed.budget,
                fresh=parsed.fresh,
                aa=parsed.aa,
                maps=parsed.maps if parsed.index else None,
                progress=progress,
            )
        except KeyboardInterrupt:
            raise UsageError("interrupted: run the same command again to continue") from None
    print(json.dumps(as_json(outcome), indent=1) if parsed.format == "json" else as_text(outcome))
    if any(row.level == "regression" for row in outcome.rows):
        return EXIT_REGRESSION
    if not outcome.passed:
        return EXIT_NOTHING_JUDGED
    return EXIT_UNDECIDED if outcome.undecided and parsed.undecided == "fail" else 0


def _explain(environments: dict[str, Environment], parsed: argparse.Namespace) -> int:
    from embedcore.ab.compare_sides import explain_models
    from embedcore.ab.explain import as_json, as_text

    sides, found = explain_models(environments, parsed.arguments, parsed.explain)
    print(json.dumps(as_json(sides, found), indent=1) if parsed.format == "json" else as_text(sides, found))
    return EXIT_NOTHING_JUDGED if any(explanation.failure for explanation in found) else 0


def _side(key: str, requirements: list[str], python: str | None, arguments: list[str], path: str) -> Environment:
    from embedcore.ab.environments import Environment, environment_for, interpreter

    if requirements and python:
        raise UsageError(f"side {key}: name a requirement or an interpreter, not both")
    if python:
        return interpreter(python, path)
    if requirements:
        return environment_for(requirements, cache_folder(_cache(arguments)), pythonpath=path)
    return Environment("this environment", Path(sys.executable), pythonpath=path)


def _cache(arguments: list[str]) -> Path | None:
    """Return the cache folder named in pytest's arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--embed-cache", type=user_path)
    found: Path | None = parser.parse_known_args(arguments)[0].embed_cache
    return found
