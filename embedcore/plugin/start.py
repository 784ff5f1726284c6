"""What happens once, after collection and before the first case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedcore.embed.device import choose_device
from embedcore.errors import UsageError
from embedcore.images.dataset import load_dataset
from embedcore.plugin.budget import Budget
from embedcore.plugin.options import Options
from embedcore.plugin.progress import Progress
from embedcore.plugin.session import BenchmarkSession
from embedcore.zoo.weights import check_policy


def start_session(options: Options, models: Sequence[str], budget: Budget, progress: Progress) -> BenchmarkSession:
    """Load the dataset, check what can be checked and open the journal for the cases ``models``.

    ``progress(done, total)`` is called as images are looked at. Raises UsageError for what the user has to mend, and
    BudgetSpent.
    """
    if options.memory_limit is not None and options.isolation == "none":
        raise UsageError("--embed-memory-limit bounds a child process: it needs --embed-isolation process")
    if options.device != "auto":
        choose_device(options.device)
    check_policy(options.weights)
    if options.report is not None:
        make_report_folder(options.report)
    dataset = load_dataset(
        options.dataset,
        split=options.split,
        max_classes=options.max_classes,
        max_per_class=options.max_per_class,
        seed=options.seed,
        bad_images=options.bad_images,
        cache_dir=options.cache_folder,
        progress=budget.within(progress),
    )
    return BenchmarkSession(options, dataset, models, budget)


def make_report_folder(folder: Path) -> None:
    """Make the folder now, so that a path that cannot be one is told before hours of measuring."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--embed-report: {folder} cannot be made: {error.strerror or error}") from error
