"""Image sources: sequences of images with names, contents and digests."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import PIL
from PIL import Image, features

from embedcore.errors import UsageError
from embedcore.files import sha256_of
from embedcore.images import plugins
from embedcore.images.columns import Columns
from embedcore.images.decode import (
    DAMAGE,
    MAX_MEGAPIXELS,
    BadImageError,
    ImageFacts,
    ImageUnavailable,
    damage_reported,
    load_preview,
    load_rgb,
    reason_of,
    to_rgb,
)
from embedcore.images.labels import canonical
from embedcore.images.retries import is_transient, retried

Role = Literal["query", "reference"]
ROLES: tuple[Role, Role] = ("query", "reference")

ROLE_WORDS: dict[str, Role] = {"query": "query", "reference": "reference", "gallery": "reference"}
"""Names of the two sides in folders, tables and lists."""

_Source = TypeVar("_Source", bound="ImageSource")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ImageSource(ABC):
    """A sequence of images.

    The content of an image is its encoded file, or the image itself where it comes decoded.
    """

    items: Sequence[Any]
    """Items of the source, each identifying an image."""
    trusted: bool = field(default=False, kw_only=True)
    """Whether the images are known to be readable, such as those of an installed package."""
    portable: bool = field(default=True, kw_only=True)
    """Whether other processes can load the images: not those in memory or from code of the user."""
    max_megapixels: float = field(default=MAX_MEGAPIXELS, kw_only=True)
    """Larger images are refused before they are decoded."""

    @property
    def decoder(self) -> str:
        """Name and version of the decoder: equal content and decoder give equal pixels."""
        return pillow_decoder()

    def __len__(self) -> int:
        return len(self.items)

    def select(self: _Source, indices: Sequence[int]) -> _Source:
        """Return a source of these images; the source itself for all of them in order."""
        if len(indices) == len(self) and all(index == position for position, index in enumerate(indices)):
            return self
        return replace(self, items=tuple(self.items[index] for index in indices))

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the image's name in messages, which does not depend on the dataset's location.

        Bytes of a file name that are not UTF-8 are surrogate escapes, as in ``os.fsdecode``.
        """

    def file(self, index: int) -> Path | None:
        """Return the file whose bytes are the image's content; None if it is not a single file."""
        return None

    def place(self, index: int) -> tuple[Path, str] | None:
        """Return the file that the image is read from, and its place in it, "" for the whole file; None without a file.

        The ledger keeps digests by these while the file does not change.
        """
        file = self.file(index)
        return None if file is None else (file, "")

    def content(self, index: int) -> bytes | Image.Image:
        """Return the content. Raises OSError and others; also for a pipe or a device, which might never end."""
        file = self.file(index)
        assert file is not None
        return _regular(file).read_bytes()

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        """Return the image, mode RGB.

        ``digest``, if given, is compared with that of the very bytes that are decoded.

        Raises BadImageError for an image that cannot be read or has another digest, and ImageUnavailable after
        several tries with transient errors.
        """

        def load() -> Image.Image:
            with damage_reported(self.name(index)):
                content = self.content(index)
                content = content if isinstance(content, bytes) else to_rgb(content)
            if digest is not None and _digest(content) != digest:
                raise BadImageError(self.name(index), "its content has changed since the dataset was loaded")
            return self._decoded(content, self.name(index)) if isinstance(content, bytes) else content

        return self._tried(index, load)

    def preview(self, index: int) -> tuple[Image.Image, ImageFacts]:
        """Return the image, decoded whole but perhaps at a smaller size, and its facts.

        Raises BadImageError and ImageUnavailable as :meth:`load` does.
        """

        def preview() -> tuple[Image.Image, ImageFacts]:
            with damage_reported(self.name(index)):
                content = self.content(index)
                if isinstance(content, bytes):
                    return load_preview(content, self.name(index), self.max_megapixels)
                rgb = to_rgb(content)
                return rgb, ImageFacts(*rgb.size, content.mode, content.format or "decoded")

        return self._tried(index, preview)

    def digest(self, index: int) -> str:
        """Return the SHA-256 (hex) of the content. Raises ImageUnavailable, OSError and others."""

        def digest() -> str:
            file = self.file(index)
            if file is not None:
                return sha256_of(_regular(file))
            content = self.content(index)
            return _digest(content if isinstance(content, bytes) else to_rgb(content))

        return self._tried(index, digest)

    def _tried(self, index: int, action: Callable[[], _Result]) -> _Result:
        try:
            return retried(action)
        except (OSError, MemoryError) as error:
            if not is_transient(error):
                raise
            raise ImageUnavailable(self.name(index), reason_of(error)) from error

    def _decoded(self, content: bytes, name: str) -> Image.Image:
        return load_rgb(content, name, self.max_megapixels)


@dataclass(frozen=True)
class FileSource(ImageSource):
    """Image files by path, relative to a folder or absolute, separated by ``/``."""

    root: str

    def name(self, index: int) -> str:
        return str(self.items[index])

    def file(self, index: int) -> Path:
        return Path(self.root, self.items[index])


@dataclass(frozen=True)
class MemorySource(ImageSource):
    """Names and images (PIL images or uint8 arrays) in memory."""

    def name(self, index: int) -> str:
        return str(self.items[index][0])

    def content(self, index: int) -> Image.Image:
        return as_image(self.items[index][1])


@dataclass(frozen=True)
class LabelledImages:
    """All images of a dataset, in their final order, before a subset is chosen."""

    name: str
    where: str
    """The dataset's location, for messages."""
    source: ImageSource
    class_names: Sequence[str]
    """Class of each image, [n]."""
    roles: Sequence[Role] | None = None
    """Role of each image, [n]; None: leave-one-out."""
    classless: bool = False
    """Whether all images have one nominal class: they can be embedded but not scored."""
    credits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Lines that every report shows."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """Name in reports of each class for which it is not the class name. Not part of the fingerprint."""


@dataclass(frozen=True)
class ShardedImages:
    """The images of several files, in order."""

    source: ImageSource
    counts: Sequence[int]
    """Number of images in each file."""
    columns: Columns
    """Labels, and roles and splits if there are any."""
    notes: tuple[str, ...] = ()


def choose(images: LabelledImages, *, max_classes: int, max_per_class: int, seed: int) -> list[int]:
    """Return the indices of a seeded subset, ascending.

    Classes and images are ordered by a hash of the seed and their name alone. The choice of classes therefore does not
    depend on their numbers of images, changes little when classes are added, and is the same on every machine.

    ``max_classes``: 0 for all; classes with both a query and a reference come first. ``max_per_class``: 0 for all; a
    limit for queries and references each.
    """
    if not max_classes and not max_per_class:
        return list(range(len(images.source)))
    kept = _first_classes(images, max_classes, seed)
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, class_name in enumerate(images.class_names):
        if class_name in kept:
            groups[class_name, images.roles[index] if images.roles else ""].append(index)
    chosen: list[int] = []
    for members in groups.values():
        if max_per_class and len(members) > max_per_class:
            members = sorted(members, key=lambda index: (_draw(seed, images.source.name(index)), index))[:max_per_class]
        chosen += members
    return sorted(chosen)


def _first_classes(images: LabelledImages, max_classes: int, seed: int) -> set[str]:
    classes = set(images.class_names)
    if not max_classes or len(classes) <= max_classes:
        return classes
    pairs = set(zip(images.class_names, images.roles, strict=True)) if images.roles else set()
    one_sided = {name for name in classes if pairs and any((name, role) not in pairs for role in ROLES)}
    return set(sorted(classes, key=lambda name: (name in one_sided, _draw(seed, name), name))[:max_classes])


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n".encode() + canonical(name).encode("utf-8", "surrogateescape")).digest()


def source_of(images: Sequence[Any]) -> FileSource | MemorySource:
    """Return the source of a list of paths, or of PIL images and arrays as :func:`as_image` takes them.

    Raises UsageError for anything else.
    """
    if all(isinstance(image, str | os.PathLike) for image in images):
        return FileSource(tuple(os.fspath(image) for image in images), ".")
    for index, image in enumerate(images):
        try:
            as_image(image).load()  # now, since several threads must not load one image at the same time
        except (TypeError, *DAMAGE) as error:
            raise UsageError(f"image {index} of the list cannot be used: {reason_of(error)}") from error
    return MemorySource(tuple((f"#{index}", image) for index, image in enumerate(images)), portable=False)


def as_image(image: Any) -> Image.Image:
    """Return a PIL image as it is, or the image in an array or tensor.

    Arrays are [h, w], [h, w, c] or [c, h, w] with 1, 3 or 4 channels, uint8 or floats from 0 to 1. Raises TypeError and
    ValueError for anything else.
    """
    if isinstance(image, Image.Image):
        return image
    if not hasattr(image, "__array__"):
        raise TypeError(f"a {type(image).__name__} is not a PIL image, array or path")
    if hasattr(image, "detach"):  # NumPy has no bfloat16
        image = image.detach().cpu().float() if image.is_floating_point() else image.detach().cpu()
    levels = np.asarray(image)
    if levels.ndim == 3 and levels.shape[2] not in (1, 3, 4):
        levels = np.moveaxis(levels, 0, 2)
    if levels.ndim == 3 and levels.shape[2] == 1:
        levels = levels[..., 0]
    if levels.ndim != 2 and not (levels.ndim == 3 and levels.shape[2] in (3, 4)):
        raise ValueError(f"an array of shape {list(image.shape)} is not [h, w, channels]")
    if levels.dtype.kind == "f" and levels.size and levels.min() >= 0 and levels.max() <= 1:
        levels = np.rint(levels * 255).astype(np.uint8)
    if levels.dtype != np.uint8:
        span = f" from {levels.min():.4g} to {levels.max():.4g}" if levels.dtype.kind in "fiu" and levels.size else ""
        hint = " (give images before they are normalised)" if levels.dtype.kind == "f" else ""
        raise ValueError(f"levels of {levels.dtype}{span} are neither uint8 nor floats from 0 to 1{hint}")
    return Image.fromarray(np.ascontiguousarray(levels))


_RULES = 2  # version of decode.to_rgb: a change decodes everything again


def pillow_decoder() -> str:
    """Return the versions of our rules, Pillow and the codecs whose output may change by a grey level."""
    codecs = " ".join(f"{codec} {features.version(codec)}" for codec in ("jpg", "webp", "jpg_2000"))
    return f"rules {_RULES} Pillow {PIL.__version__} {codecs}{plugins.versions()}"


def _digest(content: bytes | Image.Image) -> str:
    """Return the SHA-256 (hex) of a content; for a decoded image, of its size and RGB pixels."""
    if isinstance(content, Image.Image):
        content = b"RGB %d %d\n" % content.size + content.tobytes()
    return hashlib.sha256(content).hexdigest()


def _regular(file: Path) -> Path:
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def describe_bad_images(bad: Sequence[tuple[str, str]], total: int, where: str = "") -> str:
    """Return a heading and a line for each (name, reason) pair."""
    lines = [f"{len(bad)} of {total} images{f' of {where}' if where else ''} cannot be read:"]
    lines += [f"  {name!r}: {reason}" for name, reason in bad]
    return "\n".join(lines)
