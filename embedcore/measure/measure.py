"""measure(case, images) -> result. Knows nothing of pytest."""

from __future__ import annotations

import functools
import hashlib
import statistics
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedcore.embed.cost import count_gmacs
from embedcore.embed.device import device_name, place, set_arithmetic, use_device
from embedcore.embed.embedder import ForwardSettings, auto_batch_size, choose_settings, embed_pixels, first_batch
from embedcore.embed.interleaving import Interleaving
from embedcore.embed.kept import KeptEmbeddings
from embedcore.embed.memory import PeakMemory, halving, release_memory
from embedcore.embed.precision import autocast
from embedcore.embed.sketch import sketch_of
from embedcore.embed.timing import Timed, time_forward
from embedcore.images.geometry import geometry_of
from embedcore.measure.given import read_given
from embedcore.measure.outcome import NotFiniteError, check_size, facts_of_case, failure, reason_of, status_of
from embedcore.measure.truth import GroundTruth
from embedcore.progress import Progress, Stages
from embedcore.results.neighbours import Found, Shelf, key_of
from embedcore.results.result import Result
from embedcore.results.verdicts import pack_sketch, pack_verdicts
from embedcore.retrieval.metrics import Scores, score
from embedcore.version import VERSION
from embedcore.zoo.backbone import load_backbone
from embedcore.zoo.configurations import address_of
from embedcore.zoo.hub import Hub
from embedcore.zoo.provenance import licence, pretraining_data
from embedcore.zoo.registry import default_tag, pretrained_cfg, split_tag
from embedcore.zoo.weights import Weights, is_timms, locate_weights

if TYPE_CHECKING:
    from embedcore.images.dataset import Dataset
    from embedcore.images.pixel_store import PixelStore
    from embedcore.measure.case import Case
    from embedcore.zoo.backbone import Backbone
    from embedcore.zoo.own_models import OwnModel
    from embedcore.zoo.transforms import DataConfig


@dataclass(frozen=True)
class Images:
    """What a case is measured on: a dataset and its pixels in the case's geometry."""

    dataset: Dataset | GroundTruth
    pixels: PixelStore | None
    """None for embeddings that were made elsewhere."""
    hub: Hub | None = None
    """What is already known of the hub, so that a child need not find out again."""
    embeddings_folder: Path | None = None
    """Where embeddings are kept, and taken from if they are there; None not to keep any."""
    shelf: Shelf | None = None
    """Where the neighbours of each query are kept; None not to keep them."""

    @functools.cached_property
    def truth(self) -> GroundTruth:
        """What measuring needs of the dataset besides the pixels."""
        return GroundTruth.of(self.dataset)

    def to_send(self) -> Images:
        """Return the same without the dataset's images, for another process."""
        return replace(self, dataset=self.truth)


def attempt(case: Case, images: Images, stages: Stages | None = None) -> Result:
    """``measure``, with every failure turned into a result with a status and a reason."""
    begin = time.perf_counter()
    memory = PeakMemory()
    try:
        with memory:
            if case.own is not None and case.own.embeddings:
                return score_given(case, case.own, images)
            return measure(case, images, stages or (lambda stage, done, total: None), memory)
    except Exception as error:  # whatever a model, its weights or its kernels raise ends this case, not the run
        peak = memory.mb if status_of(error) == "oom" else None
        return failure(case, error, peak_memory_mb=peak, measured_s=time.perf_counter() - begin)


def measure(case: Case, images: Images, stages: Stages, memory: PeakMemory) -> Result:
    """Load the backbone, embed all images, time the forward pass, find neighbours and score them.

    Raises what goes wrong; ``attempt`` is the call that does not. Whenever memory runs out it goes on with half the
    batch. Timing rounds are run also where embeddings were kept: a duration of another day is no measurement. A
    download comes first and is not part of ``measured_s``.
    """
    interleaving = Interleaving(*case.fifos) if case.fifos else None
    if interleaving is not None:
        interleaving.wait()
    download_s = _download(case, images, stages)
    begin = time.perf_counter()
    stages("loading", 0, 0)
    device = use_device(case.device)
    model = case.own or case.model
    backbone = load_backbone(model, weights=case.weights, point=case.point, seed=case.seed, hub=images.hub)
    set_arithmetic()  # a factory may have changed it
    check_size(case.max_params, backbone.params_m)
    place(backbone.module, device)
    # First, since the heap that larger batches leave behind may have no room for one image more.
    gmacs, uncounted = _gmacs(backbone, device)
    memory.restart(device)
    pixels = images.pixels
    assert pixels is not None
    wanted = auto_batch_size(case.batch_size, device, len(pixels))
    settings, batch_size = choose_settings(backbone, pixels, device, case.precision, wanted, case.channels_last)

    def time_rounds(size: int) -> tuple[Timed, float]:
        batch = first_batch(backbone, pixels, size, settings)
        told = functools.partial(stages, "timing")
        warmed = functools.partial(memory.restart, device)
        with autocast(settings.precision, device, backbone.module):
            return time_forward(backbone.embed, batch, case.rounds, interleaving, told, warmed), memory.mb

    # Before embedding, whose first batch would otherwise wait for cuDNN to try its algorithms.
    (timed, peak), batch_size = halving(batch_size, device, time_rounds)
    progress = functools.partial(stages, "embedding")
    embeddings, seconds, fitted, note = _embeddings(case, images, pixels, backbone, settings, batch_size, progress)
    if fitted < batch_size:
        (timed, peak), batch_size = halving(fitted, device, time_rounds)
    if device.type != "cuda":  # a process's memory never shrinks enough to tell one pass from another
        peak = memory.mb
    rates = {"forward": batch_size / statistics.median(timed.durations)}
    if seconds is not None:
        rates["end_to_end"] = len(embeddings) / seconds
    stages("scoring", 0, 0)
    scored, unkept = _scored(case, images, embeddings, device)
    return Result.make(
        case.model,
        **_provenance(case, backbone.weights),
        status="ok",
        detail="\n".join(filter(None, (uncounted, note, unkept))),
        params_m=backbone.params_m,
        gmacs=gmacs,
        input_size=backbone.data_config.input_size,
        dim=embeddings.shape[1],
        point=backbone.point,
        token_mean=backbone.token_mean,
        precision=settings.precision,
        batch_size=batch_size,
        batch_decayed=batch_size < wanted,
        device=str(device),
        channels_last=settings.channels_last,
        warmup_rounds=timed.warmups,
        transform=transform_of(backbone.data_config, case.protocol),
        **scored,
        images_per_s=rates,
        peak_memory_mb=peak,
        crowded=timed.contention,
        durations=tuple(timed.durations),
        download_s=download_s,
        measured_s=time.perf_counter() - begin,
    )


def _gmacs(backbone: Backbone, device: torch.device) -> tuple[float | None, str]:
    """Return the GMACs, None where they cannot be counted, and why not; what is wrong with the model shows later."""
    try:
        return count_gmacs(backbone), ""
    except Exception as error:  # of the model, or of what it does under the counter
        why = reason_of(error)
    release_memory(device)  # out here, where the error's frames are gone
    return None, f"GMACs could not be counted: {why}"


def _download(case: Case, images: Images, stages: Stages) -> float | None:
    """Download the weights of one of timm's models; return the seconds that took, None where they are here."""
    hub = images.hub or Hub()
    if case.own is not None:
        return None
    located = locate_weights(case.model, case.weights, seed=case.seed, hub=hub)
    if located.path is not None or located.source == "random":
        return None
    begin = time.perf_counter()
    stages("downloading", 0, 0)
    hub.download(located.model, located.remote, progress=functools.partial(stages, "downloading"))
    return time.perf_counter() - begin


def score_given(case: Case, own: OwnModel, images: Images) -> Result:
    """The result of embeddings that were made elsewhere: scores, without any figure of a model. Raises as `measure`."""
    begin = time.perf_counter()
    device = use_device(case.device)
    embeddings, weights = read_given(own, len(images.truth))
    scored, unkept = _scored(case, images, embeddings, device)
    return Result.make(
        case.model,
        **_provenance(case, weights),
        status="ok",
        detail=unkept,
        dim=embeddings.shape[1],
        **scored,
        measured_s=time.perf_counter() - begin,
    )


def _scored(
    case: Case, images: Images, embeddings: NDArray[np.float32], device: torch.device
) -> tuple[dict[str, Any], str]:
    """What the result says of the scores; and what is to be said where the neighbours could not be kept."""
    scores = _score(embeddings, images.truth, device, case.seed)
    verdicts, sketch = pack_verdicts(scores.hits5, scores.rank1), pack_sketch(sketch_of(embeddings))
    fields = {"scores": scores.values, "ci95": scores.ci95, "verdicts": verdicts, "sketch": sketch}
    if images.shelf is not None:
        found = Found.make(scores.neighbours.indices, scores.neighbours.similarities)
        try:
            images.shelf.keep(key_of(case.model, images.truth.fingerprint, verdicts, sketch), found)
        except OSError as error:  # a full disk costs the pictures of the report, not the measurement
            return fields, f"neighbours could not be kept in {images.shelf.folder}: {error}"
    return fields, ""


def _embeddings(
    case: Case,
    images: Images,
    pixels: PixelStore,
    backbone: Backbone,
    settings: ForwardSettings,
    batch_size: int,
    progress: Progress,
) -> tuple[NDArray[np.float32], float | None, int, str]:
    """The embeddings of all images, float32 [n, dim], all finite: kept ones where they are there, else made and kept.

    Also the seconds from the first read to the last embedding (None for kept ones), the batch size that fitted, and
    what is to be said of the keeping. Raises NotFiniteError, and the memory error of a batch of one image.
    """
    kept, facts, total = None, {}, len(pixels)
    if images.embeddings_folder is not None:
        kept, facts = KeptEmbeddings(images.embeddings_folder), facts_of(case, backbone, images.truth, settings)
        embeddings = kept.load(facts, total)
        if embeddings is not None:
            progress(total, total)
            note = f"embeddings were taken from {kept.folder}: reading and embedding all images was not timed"
            return embeddings, None, batch_size, note
    embedded = embed_pixels(backbone, pixels, settings, batch_size=batch_size, progress=progress)
    if not embedded.finite:
        raise NotFiniteError(f"embeddings in {settings.precision} hold NaN, infinity or zero vectors")
    note = ""
    if kept is not None:
        try:
            kept.save(facts, embedded.embeddings)
        except OSError as error:  # a full disk costs the copy, not the measurement
            note = f"embeddings could not be kept in {kept.folder}: {error}"
    return embedded.embeddings, embedded.seconds, embedded.batch_size, note


def facts_of(case: Case, backbone: Backbone, truth: GroundTruth, settings: ForwardSettings) -> dict[str, Any]:
    """Everything that decides a case's embeddings but for the rounding that comes with the batch size."""
    config = backbone.data_config
    geometry = geometry_of(config, case.protocol)
    return {
        "model": backbone.name,
        "weights": backbone.weights.id,
        "dataset": truth.fingerprint,
        "geometry": geometry.key,
        # Another decoder or another version of what resizes may make other pixels of the same geometry.
        "pixels": hashlib.sha256(f"{geometry.behaviour()}\n{truth.decoder}".encode()).hexdigest(),
        "mean": list(config.mean),
        "std": list(config.std),
        "point": case.point,
        "precision": settings.precision,
        "device": device_name(settings.device) if settings.device.type == "cuda" else settings.device.type,
        "torch": torch.__version__,
        "timm": version("timm"),
        "embedcore": VERSION,
        # The code of a factory counts too.
        **({"entry": case.own.state(case.own.content())} if case.own else {}),
    }


def transform_of(config: DataConfig, protocol: str) -> dict[str, Any]:
    """What is done to an image before the model sees it; ``square`` is the edge that `square224` scales it to first."""
    geometry = geometry_of(config, protocol)
    done: dict[str, Any] = {name: getattr(geometry, name) for name in ("crop_pct", "crop_mode", "interpolation")}
    done |= {"mean": config.mean, "std": config.std}
    return done if geometry.square is None else done | {"square": geometry.square}


def _provenance(case: Case, weights: Weights) -> dict[str, Any]:
    """Whose model a result is of, and where its weights are from; licence and pretraining as far as they are known."""
    facts = facts_of_case(case)
    said = {**facts.get("weights", {}), "source": weights.source, "id": weights.id}
    loaded = {name: getattr(weights, name) for name in ("classifier", "part", "resampled")}
    said |= {name: value for name, value in loaded.items() if value}
    if case.own is not None:
        return facts | {"weights": said, "pretraining": case.own.pretraining, "licence": case.own.licence}
    random, timms = weights.source == "random", is_timms(weights)
    if not timms and weights.path is not None:
        said["file"] = weights.path.name
    address = "" if random else address_of(pretrained_cfg(case.model))
    return facts | {
        "weights": said | ({"address": address} if address else {}),
        "pretraining": pretraining_data(case.model) if timms and not random else None,
        "licence": licence(case.model) if timms else None,
        "default_tag": split_tag(default_tag(split_tag(case.model)[0]))[1] or None,
    }


def _score(embeddings: NDArray[np.float32], truth: GroundTruth, device: torch.device, seed: int) -> Scores:
    # Neighbours are found in fp32 or better also where the forward pass is not: see retrieval/search.py.
    where = str(device) if device.type == "cuda" else "cpu"
    references = () if truth.leave_one_out else (embeddings[truth.is_reference], truth.reference_labels)
    return score(embeddings[truth.is_query], truth.query_labels, *references, device=where, seed=seed)
