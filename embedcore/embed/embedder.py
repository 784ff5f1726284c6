"""Pixels and a backbone in, embeddings out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from embedcore.embed.halving import halving
from embedcore.embed.normalise import Normaliser, as_tensor
from embedcore.embed.precision import autocast
from embedcore.embed.transfer import pinned_batches

if TYPE_CHECKING:
    from embedcore.zoo.backbone import Backbone

# On the CPU the batch size hardly matters once glibc keeps large blocks (see forkserver.py), and 16 is also the
# best of 16, 32, 64 where it does not.
AUTO_BATCH_SIZE = {"cpu": 16, "mps": 64, "cuda": 256}

Progress = Callable[[int, int], None]


class Pixels(Protocol):
    """What the embedder reads: ``len()`` images, ``read(start, stop)`` giving uint8 [stop - start, h, w, 3]."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a set of images and how they were made.

    ``embeddings``: float32 [n, dim], rows of length 1 (a row which is not finite stays so, see ``finite``);
    ``seconds``: wall time from the first read to the last embedding; ``batch_size``: images a forward pass, after any
    halving; ``batch_decayed``: whether memory forced it down.
    """

    embeddings: NDArray[np.float32]
    seconds: float
    batch_size: int
    batch_decayed: bool

    @property
    def finite(self) -> bool:
        """Whether every number is finite and no embedding is zero."""
        norms = np.linalg.norm(self.embeddings, axis=1)
        return bool(np.isfinite(norms).all() and (norms > 0.5).all())


def auto_batch_size(spec: str | int, device: torch.device, n_images: int) -> int:
    """The batch size that ``auto`` or a number means on this device, at most the number of images."""
    wanted = AUTO_BATCH_SIZE[device.type] if spec == "auto" else int(spec)
    return max(1, min(wanted, n_images))


def _batches(pixels: Pixels, start: int, batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    """uint8 [b, h, w, 3] batches on the device, from image ``start`` on."""
    total = len(pixels)
    if device.type == "cuda":
        first = pixels.read(start, start + 1)
        yield from pinned_batches(
            lambda a, b: pixels.read(start + a, start + b), total - start, batch_size, first.shape[1:], device
        )
        return
    for begin in range(start, total, batch_size):
        yield as_tensor(pixels.read(begin, min(begin + batch_size, total))).to(device)


def first_batch(backbone: Backbone, pixels: Pixels, batch_size: int, device: torch.device) -> torch.Tensor:
    """The first images as the backbone's input, float32 [b, 3, h, w] on the device, channels-last."""
    normalise = Normaliser(backbone.data_config.mean, backbone.data_config.std, device)
    return normalise(as_tensor(pixels.read(0, min(batch_size, len(pixels)))).to(device))


def embed_pixels(
    backbone: Backbone,
    pixels: Pixels,
    *,
    device: torch.device,
    precision: str = "fp32",
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Embedded:
    """Embed all images of a pixel store with a backbone that is already on ``device``.

    When memory runs out, the batch is halved and the same images are tried again, down to one image; with one image
    the error is raised.
    """
    way = _Pass(backbone, pixels, device, precision, progress)
    begin = time.perf_counter()
    _, fitted = halving(batch_size, device, way.go_on)
    if way.out is None:
        raise ValueError("there are no images to embed")
    return Embedded(way.out, time.perf_counter() - begin, fitted, batch_decayed=fitted < batch_size)


class _Pass:
    """One pass over all images, which can be taken up where it broke off."""

    def __init__(
        self, backbone: Backbone, pixels: Pixels, device: torch.device, precision: str, progress: Progress | None
    ) -> None:
        self.out: NDArray[np.float32] | None = None
        self._backbone, self._pixels, self._device = backbone, pixels, device
        self._precision, self._progress = precision, progress
        self._normalise = Normaliser(backbone.data_config.mean, backbone.data_config.std, device)
        self._done = 0

    @torch.inference_mode()
    def go_on(self, batch_size: int) -> None:
        total = len(self._pixels)
        for batch in _batches(self._pixels, self._done, batch_size, self._device) if self._done < total else ():
            with autocast(self._precision, self._device):
                features = self._backbone.embed(self._normalise(batch))
            embeddings = F.normalize(features.float(), dim=1).cpu().numpy()
            if self.out is None:
                self.out = np.empty((total, embeddings.shape[1]), dtype=np.float32)
            self.out[self._done : self._done + len(embeddings)] = embeddings
            self._done += len(embeddings)
            if self._progress is not None:
                self._progress(self._done, total)
