"""``embedcore ab``: two versions of timm or torch measured in turn on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from embedcore.compare.limits import DEFAULT, read_limits
from embedcore.errors import UsageError
from embedcore.files import user_path
from embedcore.plain import one_line
from embedcore.results.estimate import parse_duration

EXIT_REGRESSION, EXIT_UNUSABLE = 1, 2


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``ab``."""
    parser = commands.add_parser(
        "ab",
        help="measure two versions of timm or torch in turn: speed ratio with interval, and drift",
        description="Measure two sides in pairs of fresh processes, rounds in turn, until the speed ratio is known. "
        "What follows -- goes to pytest, and means what it means there: -k, --embed-roster, --embed-weights, … "
        "The same command again goes on after an interruption. Exit code 1 where side B is worse than allowed.",
    )
    for name, side in (("baseline", "A"), ("candidate", "B")):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="SPEC",
            help=f"side {side}: the environment of today with this requirement of pip, such as timm==1.0.20 or "
            "git+file:///path@branch; repeatable; neither this nor an interpreter: as it is",
        )  # fmt: skip
        parser.add_argument(f"--python-{side.lower()}", metavar="PYTHON", help=f"side {side}: a ready interpreter")
    parser.add_argument("--aa", action="store_true", help="the baseline against itself: the noise floor, which is kept")
    parser.add_argument("--fail-on", metavar="SPEC", help=f"limits (default: {DEFAULT})")
    parser.add_argument("--budget", type=_duration, default=float("inf"), metavar="TIME", help="such as 30m or 2h")
    parser.add_argument("--fresh", action="store_true", help="do not go on where the same command was interrupted")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("arguments", nargs="*", metavar="-- PYTEST_ARGUMENTS", help="of pytest")
    parser.set_defaults(run=_run, exit_unusable=EXIT_UNUSABLE)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _run(parsed: argparse.Namespace) -> int:
    from embedcore.ab.comparing import compare_sides
    from embedcore.report.gate.ab_text import as_json, as_text

    limits = read_limits(parsed.fail_on, Path.cwd())
    sides = {"A": _side("A", parsed.baseline, parsed.python_a, parsed.arguments)}
    if parsed.aa:
        if parsed.candidate or parsed.python_b:
            raise UsageError("--aa measures the baseline against itself: it takes no candidate")
        sides["B"] = sides["A"]
    else:
        if not (parsed.baseline or parsed.python_a or parsed.candidate or parsed.python_b):
            raise UsageError("name at least one side: --baseline, --candidate, --python-a or --python-b; or --aa")
        sides["B"] = _side("B", parsed.candidate, parsed.python_b, parsed.arguments)
    try:
        outcome = compare_sides(
            sides, parsed.arguments, limits, seconds=parsed.budget, fresh=parsed.fresh, aa=parsed.aa, told=_tell
        )
    except KeyboardInterrupt:
        raise UsageError("interrupted; nothing is lost: the same command goes on from here") from None
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
    print(json.dumps(as_json(outcome), indent=1) if parsed.format == "json" else as_text(outcome))
    return 0 if outcome.passed else EXIT_REGRESSION


def _side(key: str, requirements: list[str], interpreter: str | None, arguments: list[str]) -> tuple[str, Path]:
    from embedcore.ab.environments import environment_for, ready
    from embedcore.commands.cache import cache_folder

    if requirements and interpreter:
        raise UsageError(f"side {key}: either a requirement or an interpreter")
    if interpreter:
        return interpreter, ready(interpreter)
    if requirements:
        return " ".join(requirements), environment_for(requirements, cache_folder(_cache(arguments)))
    return "this environment", Path(sys.executable)


def _cache(arguments: list[str]) -> Path | None:
    """The cache folder that the arguments of pytest name."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--embed-cache", type=user_path)
    found: Path | None = parser.parse_known_args(arguments)[0].embed_cache
    return found


def _tell(model: str, done: int, models: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{done}/{models} {one_line(model)[:60]}", end="", file=sys.stderr, flush=True)
