"""Check that options can be combined, and that what they need is installed."""

from __future__ import annotations

from embedcore.embed.device import choose_device
from embedcore.embed.engines.names import check_engine, check_installed
from embedcore.errors import UsageError, option
from embedcore.measure.ray_nodes import check_ray
from embedcore.plugin.options import PROCESS, Options
from embedcore.zoo.weights import check_policy


def check_options(options: Options, *, several_workers: bool = False) -> None:
    """Raise UsageError for options that cannot work, before images are read; create the report's folder.

    `several_workers`: whether this is a worker of pytest-xdist.
    """
    is_here = options.executor == PROCESS  # else the nodes check theirs
    if options.device != "auto" and is_here:
        choose_device(options.device)
    check_engine(options.engine, options.precision, options.channels_last, options.device)
    if is_here:
        check_installed(options.engine, options.precision)
    check_policy(options.weights)
    for name in ("probe", "race", "gallery", "distractors"):
        if options.unlabelled and getattr(options, name):
            raise UsageError(f"{option(name)} needs labels: leave it out, or {option('unlabelled', True)}")
    _check_race(options, several_workers)
    _check_claim(options, several_workers)
    _check_executor(options, several_workers)
    if options.report is not None:
        try:
            options.report.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--embed-report: {options.report} cannot be created: {error.strerror or error}"
            ) from error


def _check_race(options: Options, several_workers: bool) -> None:
    """Raise UsageError for options that cannot be combined with the race, and for its options without it."""
    if not options.race:
        if options.race_top != 1 or options.race_margin:
            name = option("race_top") if options.race_top != 1 else option("race_margin")
            raise UsageError(f"{name} needs {option('race', True)}")
        return
    if several_workers:
        raise UsageError(
            f"{option('race', True)} compares the models in one process: run it without pytest-xdist's -n, or divide "
            f"them by {option('shard')}"
        )
    if options.distractors is not None:
        raise UsageError(f"{option('race', True)} has no distractors: run it without {option('distractors')}")


def _check_claim(options: Options, several_workers: bool) -> None:
    """Raise UsageError for options that cannot be combined with ``--embed-claim``."""
    refused = (
        ("pytest-xdist's -n", several_workers, "each worker is a session of its own: start several"),
        ("--embed-shard", options.shard, "the workers divide the cases"),
        ("--embed-race", options.race, "a race compares all models in one process"),
        ("--embed-resume", options.resume, "a worker that joins the folder already resumes its run"),
    )
    for name, is_used, why in refused if options.claim is not None else ():
        if is_used:
            raise UsageError(f"--embed-claim: run it without {name}: {why}")


def _check_executor(options: Options, several_workers: bool) -> None:
    """Raise UsageError for options that cannot be combined with the executor, and if it is not installed."""
    if options.executor == PROCESS:
        return
    others = [f"--embed-{name}" for name in ("race", "claim", "distractors") if getattr(options, name)]
    others += ["pytest-xdist's -n"] if several_workers else []
    others += [f"--embed-isolation {options.isolation}"] if options.isolation == "none" else []
    others += [f"--embed-device {options.device}"] if options.device not in ("auto", "cpu", "cuda") else []
    if others:
        raise UsageError(f"--embed-executor {options.executor} has workers of its own: run it without {others[0]}")
    check_ray()
