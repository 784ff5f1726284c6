"""Measure one case: from a model and pixels to a result."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.device import changed_arithmetic, device_lock, place, set_arithmetic, use_device
from embedcore.embed.embedder import ForwardSettings, auto_batch_size, embed_pixels, first_batch
from embedcore.embed.engines.forward_pass import ForwardPass
from embedcore.embed.interleaving import Interleaving
from embedcore.embed.kept import KeptEmbeddings
from embedcore.embed.kept import key_of as embeddings_key
from embedcore.embed.memory import PeakMemory, halving
from embedcore.embed.pinned import images_of_round
from embedcore.embed.reference import reference_on
from embedcore.embed.sketch import sketch_of
from embedcore.embed.timing import Timed, latencies, time_forward
from embedcore.errors import UsageError
from embedcore.images.geometry import geometry_of
from embedcore.images.pixel_store import SelectedPixels, StoredPixels
from embedcore.measure.case import Case
from embedcore.measure.distractors import score_distractors
from embedcore.measure.forward import facts_of, forward_pass_of
from embedcore.measure.inputs import CaseInputs, EmbeddedParts, fetched_weights
from embedcore.measure.outcome import NotFiniteError, check_size, facts_of_case, failure, status_of
from embedcore.measure.precomputed import read_precomputed
from embedcore.measure.timing_process import process_of, time_pinned
from embedcore.measure.trials import tried
from embedcore.measure.truth import GroundTruth
from embedcore.progress import Progress, Stages, StopWork
from embedcore.results.headline import UNLABELLED
from embedcore.results.neighbours import KeptNeighbours, key_of
from embedcore.results.process import TimingProcess
from embedcore.results.result import Result
from embedcore.results.verdicts import pack_outcomes, pack_sketch, pack_verdicts
from embedcore.retrieval.metrics import score
from embedcore.retrieval.probes import probe
from embedcore.retrieval.resampling import summary
from embedcore.retrieval.unlabelled import effective_rank, found_by_views, near_duplicates
from embedcore.version import VERSION
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.configurations import address_of
from embedcore.zoo.factory import content_under_another_seed
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.provenance import licence, pretraining_data
from embedcore.zoo.registry import default_tag, pretrained_cfg, split_tag
from embedcore.zoo.transforms import DataConfig
from embedcore.zoo.weights import Weights, is_timms


def attempt(case: Case, inputs: CaseInputs, stages: Stages | None = None) -> Result:
    """Run `measure`, and turn every failure into a result with a status and a reason. Raises StopWork."""
    begin = time.perf_counter()
    memory = PeakMemory()
    try:
        with memory:
            if case.own_model is not None and case.own_model.embeddings:
                return score_precomputed(case, case.own_model, inputs)
            return measure(case, inputs, stages or (lambda stage, done, total: None), memory)
    except StopWork:
        raise
    except Exception as error:  # whatever a model, its weights or its kernels raise ends this case, not the run
        peak = memory.mb if status_of(error) == "oom" else None
        return failure(case, error, peak_memory_mb=peak, measured_s=time.perf_counter() - begin)


def measure(case: Case, inputs: CaseInputs, stages: Stages, memory: PeakMemory) -> Result:
    """Load the backbone, embed all images, time the forward pass, find neighbours and score them.

    Whenever memory runs out, the batch is halved. The timing rounds run even if kept embeddings are used, because an
    old duration is no measurement. A download comes first and is not part of ``measured_s``. Exceptions propagate;
    `attempt` turns them into a result.
    """
    interleaving = Interleaving(*case.fifos) if case.fifos else None
    if interleaving is not None:
        interleaving.wait()
    started = time.time()
    located, download_s = fetched_weights(case, inputs, stages)
    begin = time.perf_counter()
    stages("loading", 0, 0)
    device = use_device(case.where)
    model = case.own_model or case.model
    other_content = content_under_another_seed(case.own_model)  # first, so that there is never more than one module
    backbone = load_backbone(model, weights=located or case.weights, point=case.point, seed=case.seed)
    if other_content not in ("", backbone.weights.id):
        backbone.weights = replace(backbone.weights, source="random")
    set_arithmetic()  # a factory may have changed it
    check_size(case.max_params, backbone.params_m)
    if inputs.receive_pixels is not None:  # loading took place beside the case before
        store, beside = inputs.receive_pixels()
        inputs = replace(inputs, pixels=store, distractors=beside)
        started, begin = time.time(), time.perf_counter()
    place(backbone.module, device)
    pixels = inputs.pixels
    assert pixels is not None
    wanted = auto_batch_size(case.batch_size, device, len(pixels))
    reference = reference_on(device) if interleaving is None else None
    memory.excluded_bytes = 0 if reference is None else reference.nbytes
    memory.restart(device)
    trial, settings, batch_size = tried(case, inputs, backbone, device, wanted)
    forward_pass = forward_pass_of(case, inputs, backbone, settings)

    def time_rounds(size: int) -> tuple[Timed, float]:
        batch = first_batch(backbone, pixels, size, settings)
        report = functools.partial(stages, "timing")
        warmed = functools.partial(memory.restart, device)
        # Interleaved processes already take turns.
        alone = device_lock(device) if interleaving is None else contextlib.nullcontext()
        with alone:
            timed = time_forward(forward_pass, batch, case.rounds, interleaving, report, warmed, reference)
            return timed, memory.mb

    timed: Timed | None = None
    peak = memory.mb
    progress = functools.partial(stages, "embedding")
    with settings.context(backbone):  # around both, so that half precision casts the weights once
        if case.throughput:  # before embedding, whose first batch would otherwise wait for cuDNN to try its algorithms
            (timed, peak), batch_size = halving(batch_size, device, time_rounds)
        embeddings, key, rate, fitted, note = _embeddings(case, inputs, forward_pass, settings, batch_size, progress)
        if timed is None:
            batch_size = fitted
        elif fitted < batch_size:
            (timed, peak), batch_size = halving(fitted, device, time_rounds)
    pinned = None
    if timed is not None and reference is not None and case.processes > 1:
        small = first_batch(backbone, pixels, images_of_round(trial.gmacs, batch_size), settings)
        with device_lock(device):
            pinned = time_pinned(forward_pass, small, settings, case.rounds, reference)
    latency = {}
    if case.latency:
        with device_lock(device), settings.context(backbone):
            seconds_each = latencies(forward_pass, first_batch(backbone, pixels, 1, settings))
        latency = {name: float(np.quantile(seconds_each, q)) * 1e3 for name, q in (("p50", 0.5), ("p99", 0.99))}
    speeds = {} if timed is None else _speeds(timed, batch_size, process_of(started, timed, pinned, device))
    if rate is not None:
        speeds.setdefault("images_per_s", {})["end_to_end"] = rate
    if timed is None or device.type != "cuda":  # a process's memory never shrinks enough to tell passes apart
        peak = memory.mb
    # Last, so that time and memory are those of the labelled images.
    distractors, of_distractors = _distractors(case, inputs, forward_pass, settings, batch_size, progress)
    stages("scoring", 0, 0)
    scored, notes = _scored(case, inputs, embeddings, device, distractors)
    return Result.make(
        case.model,
        **_provenance(case, backbone.weights),
        status="ok",
        detail="\n".join(filter(None, (trial.note, changed_arithmetic(), note, of_distractors, notes))),
        params_m=backbone.params_m,
        gmacs=trial.gmacs,
        input_size=backbone.data_config.input_size,
        dim=embeddings.shape[1],
        point=backbone.point,
        token_mean=backbone.token_mean,
        engine=settings.engine,
        compile_s=forward_pass.compile_s,
        weights_mb=forward_pass.weights_mb(),
        precision=settings.precision,
        batch_size=batch_size,
        batch_decayed=batch_size < wanted,
        device=str(device),
        channels_last=settings.channels_last,
        transform=transform_of(backbone.data_config, case.protocol),
        **scored,
        embeddings=key,
        **speeds,
        latency_ms=latency,
        peak_memory_mb=peak,
        download_s=download_s,
        measured_s=time.perf_counter() - begin,
    )


def _speeds(timed: Timed, batch_size: int, process: TimingProcess) -> dict[str, Any]:
    """Return the result's fields about the timing of the forward pass."""
    return {
        "images_per_s": {"forward": batch_size / statistics.median(timed.durations)},
        "warmup_rounds": timed.warmups,
        "crowded": timed.contention,
        "stolen": timed.stolen,
        "durations": tuple(timed.durations),
        "processes": [msgspec.to_builtins(process)],
    }


def score_precomputed(case: Case, own_model: OwnModel, inputs: CaseInputs) -> Result:
    """Return the result of precomputed embeddings: scores, and no figure of a model. Raises as `measure` does."""
    begin = time.perf_counter()
    device = use_device(case.device)
    embeddings, weights = read_precomputed(own_model, len(inputs.truth))
    facts = {"model": case.model, "file": weights.id, "dataset": inputs.truth.fingerprint, "embedcore": VERSION}
    key, note = _keep(inputs.embeddings_folder, facts, embeddings)
    distractors, of_distractors = inputs.distractors, ""
    if isinstance(distractors, CaseInputs):
        distractors, of_distractors = None, "no distractors: they are images, and this model only has embeddings"
    scored, notes = _scored(case, inputs, embeddings, device, distractors)
    return Result.make(
        case.model,
        **_provenance(case, weights),
        status="ok",
        detail="\n".join(filter(None, (note, of_distractors, notes))),
        dim=embeddings.shape[1],
        **scored,
        embeddings=key,
        measured_s=time.perf_counter() - begin,
    )


def _scored(
    case: Case, inputs: CaseInputs, embeddings: NDArray[np.float32], device: torch.device, distractors: Any
) -> tuple[dict[str, Any], str]:
    """Return the result's fields about scores, and notes on what was left out or could not be kept.

    ``distractors``: their embeddings, in an array or files; None without.
    """
    sides = _sides(embeddings, inputs.truth)
    # Neighbours are found in fp32 or better also where the forward pass is not: see retrieval/search.py.
    search = str(device) if device.type == "cuda" else "cpu"
    if inputs.truth.unlabelled:
        by_views = _scored_by_views(sides[0], sides[2], search, case.seed)
        note = "probes left out: they need labels" if case.probe else ""
        return by_views | {"sketch": pack_sketch(sketch_of(embeddings))}, note
    scores = score(*sides, device=search, seed=case.seed)
    verdicts, sketch = pack_verdicts(scores.hits5, scores.rank1), pack_sketch(sketch_of(embeddings))
    fields: dict[str, Any] = {"scores": scores.values, "ci95": scores.ci95, "verdicts": verdicts, "sketch": sketch}
    notes: list[str] = []
    if distractors is not None:
        try:
            found_beside = score_distractors(sides, scores, distractors, seed=case.seed)
            fields["distractors"] = msgspec.to_builtins(found_beside)
        except UsageError as error:  # such as embeddings of another model
            notes.append(f"no distractors: {error}")
    if case.probe:
        probes = probe(*sides, seed=case.seed)
        fields["scores"], fields["ci95"] = scores.values | probes.values, scores.ci95 | probes.ci95
        fields["probe_verdicts"] = {name: pack_outcomes(found) for name, found in probes.outcomes.items()}
        notes += probes.notes
    if inputs.neighbours is not None:
        found = KeptNeighbours.make(scores.neighbours.indices, scores.neighbours.similarities)
        try:
            inputs.neighbours.keep(key_of(case.model, inputs.truth.fingerprint, verdicts, sketch), found)
        except OSError as error:  # a full disk costs the pictures of the report, not the measurement
            notes.append(f"neighbours could not be kept in {inputs.neighbours.folder}: {error}")
    return fields, "\n".join(notes)


def _scored_by_views(views: NDArray[np.float32], images: NDArray[np.float32], search: str, seed: int) -> dict[str, Any]:
    """Return the result's fields about images without labels. `search`: the device of the search."""
    found = found_by_views(views, images, device=search)
    per_query = {name: hits.astype(np.float64) for name, hits in zip(UNLABELLED, found, strict=True)}
    values, ci95 = summary(per_query, np.arange(len(images)), seed=seed)
    rank = effective_rank(images)
    return {
        "scores": {name: values[name] for name in UNLABELLED},
        "ci95": {name: ci95[name] for name in UNLABELLED},
        "verdicts": pack_verdicts(found.among_five.astype(np.uint8), found.first),
        "unlabelled": {"near_duplicates": near_duplicates(images, device=search), "effective_rank": rank},
    }


def _sides(embeddings: NDArray[np.float32], truth: GroundTruth) -> tuple[Any, ...]:
    """Return embeddings and labels of the queries, and of the references unless it is leave-one-out."""
    queries = embeddings[truth.is_query], truth.query_labels
    return queries if truth.leave_one_out else (*queries, embeddings[truth.is_reference], truth.reference_labels)


def _embeddings(
    case: Case,
    inputs: CaseInputs,
    forward_pass: ForwardPass,
    settings: ForwardSettings,
    batch_size: int,
    progress: Progress,
) -> tuple[NDArray[np.float32], str | None, float | None, int, str]:
    """Return the embeddings of all images, float32 [n, dim], all finite: kept ones if there are any, else new ones.

    Also their key if they are kept, the images per second from the first read to the last embedding (None for kept
    ones), the batch size that fitted, and a note about kept embeddings. Raises NotFiniteError, and the memory error of
    a batch of one image.
    """
    pixels, backbone = inputs.pixels, forward_pass.backbone
    assert pixels is not None
    folder, total = inputs.embeddings_folder, len(pixels)
    facts = facts_of(case, backbone, inputs.truth, settings)
    if folder is not None and (embeddings := KeptEmbeddings(folder).read(embeddings_key(facts), total)) is not None:
        progress(total, total)
        note = f"embeddings were taken from {folder}: reading and embedding all images were not timed"
        return embeddings, embeddings_key(facts), None, batch_size, note
    known, missing = [], np.arange(total)
    if isinstance(pixels, StoredPixels | SelectedPixels) and (known := _known_parts(inputs.parts, facts)):
        missing = np.setdiff1d(missing, np.concatenate([images for images, _ in known]))
        pixels = SelectedPixels(pixels, missing)
    embedded = embed_pixels(
        backbone, pixels, settings, batch_size=batch_size, forward_pass=forward_pass, progress=progress
    )
    if not embedded.finite:
        raise NotFiniteError(f"embeddings in {settings.precision} contain NaN, infinity or zero vectors")
    embeddings = embedded.embeddings
    if known:
        embeddings = np.empty((total, embeddings.shape[1]), np.float32)
        for images, rows in (*known, (missing, embedded.embeddings)):
            embeddings[images] = rows
    key, note = _keep(folder, facts, embeddings)
    return embeddings, key, len(missing) / embedded.seconds, embedded.batch_size, note


def _known_parts(
    parts: EmbeddedParts | None, facts: Mapping[str, Any]
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return indices [m] and embeddings, float32 [m, dim], of the images of each part that is kept."""
    if parts is None:
        return []
    kept = KeptEmbeddings(parts.folder)
    keys = {part: embeddings_key({**facts, "dataset": part}) for part in parts.images}
    read = ((images, kept.read(keys[part], len(images))) for part, images in parts.images.items())
    return [(images, rows) for images, rows in read if rows is not None]


def _distractors(
    case: Case,
    inputs: CaseInputs,
    forward_pass: ForwardPass,
    settings: ForwardSettings,
    batch_size: int,
    progress: Progress,
) -> tuple[NDArray[np.float32] | Path | None, str]:
    """Return the embeddings of the distractors, or where they are; None without; and a note on what went wrong."""
    if not isinstance(inputs.distractors, CaseInputs):
        return inputs.distractors, ""
    try:
        found = _embeddings(case, inputs.distractors, forward_pass, settings, batch_size, progress)
    except NotFiniteError as error:
        return None, f"no distractors: {error}"
    return found[0], f"distractors: {found[-1]}" if found[-1] else ""


def _keep(folder: Path | None, facts: Mapping[str, Any], embeddings: NDArray[np.float32]) -> tuple[str | None, str]:
    """Keep embeddings in a folder; return their key (None if they are not kept), and a note if this failed."""
    if folder is None:
        return None, ""
    try:
        KeptEmbeddings(folder).save(facts, embeddings)
    except OSError as error:  # a full disk costs the copy, not the measurement
        return None, f"embeddings could not be kept in {folder}: {error}"
    return embeddings_key(facts), ""


def transform_of(config: DataConfig, protocol: str) -> dict[str, Any]:
    """Return the preprocessing of an image; ``square`` is the edge that the protocol `square224` scales it to first."""
    geometry = geometry_of(config, protocol)
    done: dict[str, Any] = {name: getattr(geometry, name) for name in ("crop_pct", "crop_mode", "interpolation")}
    done |= {"mean": config.mean, "std": config.std}
    return done if geometry.square is None else done | {"square": geometry.square}


def _provenance(case: Case, weights: Weights) -> dict[str, Any]:
    """Return the fields about the model's origin: weights, and licence and pretraining if they are known."""
    facts = facts_of_case(case)
    origin = {**facts.get("weights", {}), "source": weights.source, "id": weights.id}
    loaded = {name: getattr(weights, name) for name in ("classifier", "part", "resampled")}
    origin |= {name: value for name, value in loaded.items() if value}
    if case.own_model is not None:
        return facts | {
            "weights": origin,
            "pretraining": case.own_model.pretraining,
            "licence": case.own_model.licence,
        }
    random, timms = weights.source == "random", is_timms(weights)
    if not timms and weights.path is not None:
        origin["file"] = weights.path.name
    address = "" if random else address_of(pretrained_cfg(case.model))
    return facts | {
        "weights": origin | ({"address": address} if address else {}),
        "pretraining": pretraining_data(case.model) if timms and not random else None,
        "licence": licence(case.model) if timms else None,
        "default_tag": split_tag(default_tag(split_tag(case.model)[0]))[1] or None,
    }
