"""Prepare a session for its first case: load images, make the bench and the record's header."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedcore.ab.noise import stored_noise
from embedcore.embed.calibration import cpu_gmacs_per_s
from embedcore.embed.device import ARITHMETIC, choose_device
from embedcore.embed.engines.names import EAGER
from embedcore.errors import UsageError, option
from embedcore.images.dataset import Dataset
from embedcore.images.load_dataset import load_dataset
from embedcore.measure.bench import Bench
from embedcore.measure.case import CaseSettings
from embedcore.measure.cluster_bench import ClusterBench
from embedcore.measure.distractors import Distractors, load_distractors
from embedcore.measure.forecast import Forecast, forecast
from embedcore.measure.node_worker import Site
from embedcore.measure.ray_nodes import RayNodes
from embedcore.plugin.cases import case_gmacs
from embedcore.plugin.checks import check_options
from embedcore.plugin.machine import Machine, device_of_worker, machine, machine_in_use
from embedcore.plugin.options import PROCESS, Options
from embedcore.progress import Progress
from embedcore.results import neighbours
from embedcore.results.neighbours import NeighbourStore
from embedcore.results.record import Record
from embedcore.results.run import machine_of, versions_of_machines
from embedcore.results.runs import FOLDER, Worker, earlier_costs
from embedcore.results.saved import dataset_block
from embedcore.version import VERSION
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.registry import renamed_to
from embedcore.zoo.tags import CHOSEN

NO_ROOM = (
    "select fewer models (--embed-roster starter, -k, --embed-family, --embed-max-params), make room, or skip models "
    f"that do not fit ({option('force', True)})"
)


def dataset_of(options: Options, progress: Progress | None = None, **limits: int) -> Dataset:
    """Load the images named by the options; `limits`: defaults of ``max_classes`` and ``max_per_class``.

    Raises UsageError.
    """
    return load_dataset(
        options.dataset,
        split=options.split,
        columns=options.columns,
        max_classes=limits.get("max_classes") if options.max_classes is None else options.max_classes,
        max_per_class=limits.get("max_per_class") if options.max_per_class is None else options.max_per_class,
        seed=options.seed,
        bad_images=options.bad_images,
        max_megapixels=options.max_megapixels,
        cache_dir=options.cache_folder,
        progress=progress,
        unlabelled=options.unlabelled,
    )


def distractors_of(options: Options, progress: Progress | None = None) -> Distractors | None:
    """Load the distractors named by the options; None if there are none. Raises UsageError."""
    if options.distractors is None:
        return None
    return load_distractors(
        options.distractors,
        bad_images=options.bad_images,
        max_megapixels=options.max_megapixels,
        cache_dir=options.cache_folder,
        progress=progress,
    )


def bench_of(options: Options, own_models: Mapping[str, OwnModel], worker: Worker | None = None) -> Bench:
    """Return a bench with these options, on the device of a pytest-xdist worker."""
    names = {item.name for item in dataclasses.fields(CaseSettings)} & vars(options).keys()
    settings = CaseSettings(**{name: getattr(options, name) for name in names})
    if worker is not None and worker.name:
        settings = dataclasses.replace(settings, device=device_of_worker(options.where, worker.slot))
    more: Any = {
        "cache": options.cache_folder,
        "own_models": own_models,
        "isolation": options.isolation,
        "timeout_s": options.timeout,
        "store_limit": None if options.cache_limit is None else int(options.cache_limit * 1e9),
        "keep_embeddings": options.keep_embeddings,
    }
    if options.executor == PROCESS:
        return Bench(settings, **more)
    address = "" if options.executor == "ray" else options.executor
    setup = pickle.dumps(functools.partial(site_of, options, own_models))
    nodes = functools.partial(RayNodes, address, setup, cards=options.where != "cpu")
    expected = {"embedcore": VERSION, "timm": machine("cpu")["timm"]}
    return ClusterBench(settings, nodes=nodes, expected=expected, **more)


def site_of(options: Options, own_models: Mapping[str, OwnModel]) -> Site:
    """Return what a worker on this machine needs to measure with the options of a session. Raises UsageError."""
    options = dataclasses.replace(options, executor=PROCESS, report=None)
    check_options(options)
    return Site(bench_of(options, own_models), dataset_of(options), machine(options.where))


def speed_of(options: Options) -> Callable[[], float | None] | None:
    """Return the measurement of this machine's speed in eager fp32 on the CPU; None for anything else."""
    is_cpu = options.device == "cpu" or (options.device == "auto" and choose_device().type == "cpu")
    is_usual = options.engine == EAGER and options.precision in ("auto", "fp32")
    return cpu_gmacs_per_s if is_cpu and is_usual and options.executor == PROCESS else None


def begin(
    record: Record,
    bench: Bench,
    dataset: Dataset,
    options: Options,
    header: Mapping[str, Any],
    worker: Worker,
    *,
    workers: int = 1,
) -> Forecast:
    """Open the record and the bench's store of neighbours; return the forecast of the cases that are left.

    Raises UsageError as `Record.begin` does, and if the disk cannot hold the weights.
    """
    record.begin(options.claim or options.cache_folder / FOLDER, header, worker, resume=options.resume)
    models, in_use = {model: bench.own_models.get(model) for model in record.left}, header["identity"]["machine"]
    distractors = bench.distractors.images if bench.distractors else None
    images = len(dataset) + len(distractors or ())
    plan = forecast_of(options, models, images, in_use, fingerprint=dataset.fingerprint, workers=workers)
    if plan.lacking and not options.force and options.executor == PROCESS:
        raise UsageError(f"{plan.lacking}: {NO_ROOM}")
    record.announce({"to_fetch": sorted(holding.model for holding in plan.to_fetch)})
    bench.neighbours = NeighbourStore(options.cache_folder / neighbours.FOLDER, record.run)
    done = record.done
    bench.expect({test: model for test, model in record.planned.items() if test not in done}, record)
    return plan


def processes_of(options: Options) -> int:
    """Return in how many processes each case is timed."""
    return 1 if options.is_quick_look else options.processes


def forecast_of(
    options: Options,
    models: Mapping[str, OwnModel | None],
    images: int,
    in_use: str | None,
    *,
    fingerprint: str = "",
    workers: int = 1,
) -> Forecast:
    """Return the forecast of these models, own ones with their entry, on `images` images.

    `in_use`: see `machine_in_use`; `fingerprint`: the dataset's, if known. Raises UsageError.
    """
    processes = processes_of(options)
    like = {"machine": in_use, "engine": options.engine, "precision": options.precision}
    earlier = earlier_costs(options.cache_folder / FOLDER, like, images, processes)
    return forecast(
        models,
        images,
        options.cache_folder,
        fingerprint=fingerprint,
        weights=options.weights,
        protocol=options.protocol,
        max_params=options.max_params,
        costs={model: case_gmacs(model, own_model) for model, own_model in models.items()},
        earlier=[(gmacs, seconds / workers) for gmacs, seconds in earlier],
        speed=speed_of(options) if workers == 1 else None,
        processes=processes,
    )


def header_of(
    options: Options,
    dataset: Dataset,
    distractors: Distractors | None,
    tests: Mapping[str, str],
    own_models: Mapping[str, OwnModel],
    *,
    several_workers: bool,
    machines: Sequence[Machine] = (),
) -> dict[str, Any]:
    """Return the first line of the session's record.

    `tests`: id to model, of each test that measures one; `machines`: facts of those that measure, if not this one.
    """
    if machines:
        facts: Machine = versions_of_machines(machines[0], {machine_of(each) for each in machines})
    else:
        facts = machine(options.where, several=several_workers)
    in_use = machine_in_use(facts)
    noise = stored_noise(options.cache_folder, in_use)
    models = tuple(dict.fromkeys(tests.values()))
    settings: dict[str, Any] = {**options.recorded("number", "choice"), **ARITHMETIC}
    words = map(str.strip, options.roster.split(","))
    missing = [gone for word in words if word in CHOSEN for gone in CHOSEN[word]()[1]]
    if missing:
        settings["roster_missing"] = missing
    block = dataset_block(dataset)
    if distractors is not None:
        block["notes"].append(distractors.note(dataset))
    return {
        "identity": {
            **options.recorded("number"),
            "machine": in_use,  # by name, so that a run does not continue on another card or on the CPU
            "dataset": dataset.fingerprint,
            "distractors": None if distractors is None else distractors.fingerprint,
            "embedcore": VERSION,
            "timm": facts["timm"],
            "torch": facts["torch"],
            **({"shard": str(options.shard)} if options.shard else {}),
        },
        "settings": settings,
        "datasets": [block],
        "machine": facts,
        "noise": noise.in_sequence if noise else None,
        "renamed": renamed_to(models),
        "tests": dict(tests),
        "costs": {model: case_gmacs(model, own_models.get(model)) for model in models},
    }
