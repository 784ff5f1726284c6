"""Embed the images of a pixel store with a backbone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from embedcore.embed.device import choose_channels_last, place, untuned
from embedcore.embed.engines.exported import CALIBRATION_IMAGES
from embedcore.embed.engines.forward_pass import ForwardPass
from embedcore.embed.engines.names import EAGER, PRECISIONS, in_torch, kind_of
from embedcore.embed.memory import halving
from embedcore.embed.normalise import Normaliser, as_tensor
from embedcore.embed.pipeline import Forward, Lane, Normalise, Read, Span, lane_of, run, spans_of
from embedcore.embed.precision import CANARY_IMAGES, CANARY_ROUNDS, autocast, choose_precision
from embedcore.embed.timing import time_forward
from embedcore.images.pixel_store import PixelStore
from embedcore.progress import Progress
from embedcore.zoo.backbone import Backbone

# On the CPU the size hardly matters if glibc keeps large blocks (see forkserver.py); else 16 is best.
AUTO_BATCH_SIZE = {"cpu": 16, "mps": 64, "cuda": 256}


@dataclass(frozen=True)
class ForwardSettings:
    """Settings of a forward pass."""

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = True
    engine: str = EAGER
    why_fp32: str = ""
    """Why ``auto`` did not choose bf16, if a canary batch has decided that."""

    def context(self, backbone: Backbone) -> contextlib.AbstractContextManager[None]:
        """Return the context of its forward passes: torch's autocast, or none if another library computes."""
        precision = self.precision if in_torch(self.engine) else "fp32"
        return autocast(precision, self.device, backbone.module)


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a set of images and how they were made.

    ``embeddings``: float32 [n, dim], rows of length 1 (rows that are not finite stay so, see ``finite``); ``seconds``:
    wall time from the first read to the last embedding; ``batch_size``: images per forward pass, after any halving.
    """

    embeddings: NDArray[np.float32]
    seconds: float
    batch_size: int

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite and no embedding is zero."""
        norms = np.linalg.norm(self.embeddings, axis=1)
        return bool(np.isfinite(norms).all() and (norms > 0.5).all())


def auto_batch_size(spec: str | int, device: torch.device, n_images: int) -> int:
    """Return the batch size for ``auto`` or a number on this device, at most the number of images."""
    wanted = AUTO_BATCH_SIZE[device.type] if spec == "auto" else int(spec)
    return max(1, min(wanted, n_images))


def first_batch(backbone: Backbone, pixels: PixelStore, batch_size: int, settings: ForwardSettings) -> torch.Tensor:
    """Return the first images as the backbone's input: float32 [b, 3, h, w] on the device."""
    first = as_tensor(pixels.read(0, min(batch_size, len(pixels))))
    return _normaliser(backbone, settings)(first.to(settings.device))


def _normaliser(backbone: Backbone, settings: ForwardSettings) -> Normaliser:
    config = backbone.data_config
    return Normaliser(config.mean, config.std, settings.device, channels_last=settings.channels_last)


def calibration_batches(
    backbone: Backbone, pixels: PixelStore, settings: ForwardSettings, images: NDArray[np.intp], batch_size: int
) -> Iterator[torch.Tensor]:
    """Yield up to `CALIBRATION_IMAGES` of these images, evenly spread, in batches like those of `first_batch`."""
    batches = max(1, min(len(images), CALIBRATION_IMAGES) // batch_size)
    spread = images[np.linspace(0, len(images) - 1, batches * batch_size).round().astype(int)]
    normalise = _normaliser(backbone, settings)
    for chosen in spread.reshape(batches, batch_size):
        read = np.concatenate([pixels.read(image, image + 1) for image in chosen.tolist()])
        yield normalise(as_tensor(read).to(settings.device))


def choose_settings(
    backbone: Backbone,
    pixels: PixelStore,
    device: torch.device,
    precision: str,
    batch_size: int,
    channels_last: bool | None = None,
    engine: str = EAGER,
) -> tuple[ForwardSettings, int]:
    """Move a backbone to a device and choose precision and memory layout by a canary batch, in eager mode.

    ``channels_last``: the memory layout; None to choose it. Other libraries than torch have their own layout, and
    ``auto`` is fp32. Returns the settings and the batch size, which is reduced if the canary batch did not fit in
    memory.
    """
    if not in_torch(engine):
        place(backbone.module, device, channels_last=False)
        chosen = PRECISIONS[kind_of(engine)][0] if precision == "auto" else precision
        return ForwardSettings(device, chosen, channels_last=False, engine=engine), batch_size
    canary = min(batch_size, CANARY_IMAGES[device.type])

    def placed(images: int, channels_last: bool) -> torch.Tensor:
        place(backbone.module, device, channels_last=channels_last)
        return first_batch(backbone, pixels, images, ForwardSettings(device, channels_last=channels_last))

    def choose(images: int) -> ForwardSettings:
        # Placed again each time: a batch that did not fit may have left the weights in the other layout.
        chosen, why_fp32 = choose_precision(precision, backbone, placed(images, device.type != "cuda"))

        def seconds(channels_last: bool) -> float:
            batch = placed(images, channels_last)
            with untuned(), autocast(chosen, device, backbone.module):
                return float(np.median(time_forward(backbone.embed, batch, CANARY_ROUNDS).durations))

        layout = choose_channels_last(device, chosen, seconds) if channels_last is None else channels_last
        settings = ForwardSettings(device, chosen, layout, engine, why_fp32)
        place(backbone.module, device, channels_last=settings.channels_last)
        return settings

    settings, fitted = halving(canary, device, choose)
    return settings, batch_size if fitted == canary else fitted


def embed_pixels(
    backbone: Backbone,
    pixels: PixelStore,
    settings: ForwardSettings,
    *,
    batch_size: int = 16,
    forward_pass: ForwardPass | None = None,
    progress: Progress | None = None,
    lane_of: Callable[[torch.device, Read, Normalise, Forward, int], Lane] = lane_of,
) -> Embedded:
    """Embed all images of a pixel store with a backbone that is already on the device of ``settings``.

    If memory runs out, the batch is halved and the images without embeddings are tried again; with one image the error
    is raised. ``forward_pass``: the backbone on the engine of ``settings``; None for eager. ``lane_of`` returns the
    device's lane of the pipeline.
    """
    total = len(pixels)
    if total == 0:
        raise ValueError("there are no images to embed")
    normalise = _normaliser(backbone, settings)
    embed = forward_pass or ForwardPass(backbone)
    out: list[NDArray[np.float32]] = []
    done = 0

    def forward(batch: torch.Tensor) -> torch.Tensor:
        return F.normalize(embed(batch).float(), dim=1)

    def deliver(span: Span, rows: NDArray[np.float32]) -> None:
        nonlocal done
        if not out:
            out.append(np.empty((total, rows.shape[1]), dtype=np.float32))
        out[0][slice(*span)] = rows
        done = span[1]
        if progress is not None:
            progress(done, total)

    def continue_with(size: int) -> None:
        lane = lane_of(settings.device, pixels.read, normalise, forward, size)
        run(lane, list(spans_of(done, total, size, equal=lane.equal or embed.equal)), deliver)

    begin = time.perf_counter()
    with settings.context(backbone):
        _, fitted = halving(batch_size, settings.device, continue_with)
    return Embedded(out[0], time.perf_counter() - begin, fitted)
