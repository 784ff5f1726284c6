"""``embedcore plan``: what a benchmark run would download, store and cost, without running it."""

from __future__ import annotations

import argparse

from embedcore.commands.arguments import duration, print_wrapped, width
from embedcore.errors import UsageError
from embedcore.files import STORAGE
from embedcore.plain import bytes_text
from embedcore.results.reading import read_parts
from embedcore.results.run import run_of
from embedcore.results.runs import FOLDER

LARGEST = 5


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "plan",
        help="show what a run would download and store, and its hours by machine",
        description="Show what `pytest benchmarks ARGUMENTS` would download and store on disk, and how many hours it "
        "would take on each card or processor on which something was measured. The other arguments are pytest's: -k, "
        "--embed-roster, --embed-dataset, … Nothing is downloaded, decoded or measured.",
        usage="embedcore plan [ARGUMENT ...] [--speeds RUN ...] [--within TIME]",
        allow_abbrev=False,  # of pytest's options
    )
    parser.add_argument(
        "--speeds", metavar="RUN", nargs="+", action="extend", default=[],
        help=f"saved runs whose speeds are used besides those of the cache folder: files, folders, names in {STORAGE}",
    )  # fmt: skip
    parser.add_argument(
        "--within", metavar="TIME", type=duration, default=86400.0, help="time for all workers to end (default: 24h)"
    )
    parser.set_defaults(run=run, takes_pytest_arguments=True)


def run(arguments: argparse.Namespace) -> int:
    from embedcore.images.load_dataset import count_images
    from embedcore.plugin.machine import machine, machine_in_use
    from embedcore.plugin.side import collect
    from embedcore.plugin.start import forecast_of, processes_of
    from embedcore.report.cost_text import as_text
    from embedcore.results.costs import costs_by_setup, machine_costs
    from embedcore.zoo.roster import own_models

    speeds = [run_of(data, path) for name in arguments.speeds for path, data in read_parts(name, several=True)]
    options, models = collect(arguments.arguments)
    if not models:
        raise UsageError("plan: no case is selected by these arguments")
    images = count_images(
        options.dataset,
        split=options.split,
        columns=options.columns,
        max_classes=options.max_classes,
        max_per_class=options.max_per_class,
        seed=options.seed,
        cache_dir=options.cache_folder,
        unlabelled=options.unlabelled,
    )
    user_models = own_models(options.roster)
    in_use = machine_in_use(machine(options.where))
    plan = forecast_of(options, {model: user_models.get(model) for model in models}, images, in_use)
    there = f"{len(plan.here):,} with weights here ({bytes_text(sum(h.size or 0 for h in plan.here))})"
    parts = ["with random weights" if options.weights == "random" else there]
    parts += [f"{len(plan.to_fetch):,} to fetch"] if plan.to_fetch else []
    others = len(plan.holdings) - len(plan.here) - len(plan.to_fetch)
    parts += [f"{others:,} without"] if others else []
    parts += [f"{plan.too_large:,} larger than --embed-max-params"] if plan.too_large else []
    print_wrapped(f"models: {plan.models:,}, {', '.join(parts)}")
    for line in plan.lines() or ["nothing to download or decode"]:
        print_wrapped(line)
    largest = sorted(plan.to_fetch, key=lambda holding: -(holding.size or 0))[:LARGEST]
    if len(plan.to_fetch) > LARGEST:
        print_wrapped("largest: " + ", ".join(f"{holding.model} {bytes_text(holding.size)}" for holding in largest))
    if plan.to_fetch or plan.pixels_to_make:
        smaller = [] if options.roster == "starter" else ["--embed-roster starter"]
        smaller += ["-k", "--embed-family", "--embed-max-params", "--embed-cache-limit"]
        print_wrapped(f"to reduce this: {', '.join(smaller)}")
    if plan.gmacs:
        measured = costs_by_setup(speeds, options.cache_folder / FOLDER, images, processes_of(options))
        costs = machine_costs(measured, plan.gmacs, arguments.within)
        print(as_text(costs, len(plan.gmacs), images, arguments.within, width()))
    return 0
