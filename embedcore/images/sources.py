"""Image sources: a fixed sequence of images, each with a name, a content digest and a way to load it."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import PIL
from PIL import Image, features

from embedcore.errors import UsageError
from embedcore.files import sha256_of
from embedcore.images import plugins
from embedcore.images.decode import (
    DAMAGE,
    MAX_MEGAPIXELS,
    BadImageError,
    ImageFacts,
    ImageUnavailable,
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
"""How the two sides are called in folders, tables and lists."""

_Source = TypeVar("_Source", bound="ImageSource")
_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ImageSource(ABC):
    """A sequence of images.

    The content of an image is its encoded file, or the image itself where it comes decoded.
    """

    items: tuple[Any, ...]
    """What each image is found by."""
    trusted: bool = field(default=False, kw_only=True)
    """Whether whoever has put the images there has seen to it that they can be read."""
    portable: bool = field(default=True, kw_only=True)
    """Whether other processes can load the images too: not if they are in memory, or code of the user gives them."""
    max_megapixels: float = field(default=MAX_MEGAPIXELS, kw_only=True)
    """Larger images are refused before they are decoded."""

    @property
    def decoder(self) -> str:
        """What turns the content into pixels, with its version: equal content and decoder give equal pixels."""
        return pillow_decoder()

    def __len__(self) -> int:
        return len(self.items)

    def select(self: _Source, indices: Sequence[int]) -> _Source:
        """Some of the images, in the order given; the source itself where that is all of them in order."""
        if len(indices) == len(self) and all(index == position for position, index in enumerate(indices)):
            return self
        return replace(self, items=tuple(self.items[index] for index in indices))

    @abstractmethod
    def name(self, index: int) -> str:
        """What the image is called in messages; independent of where the dataset lies.

        Bytes of a file name that are not UTF-8 are surrogate escapes, as in ``os.fsdecode``.
        """

    def file(self, index: int) -> Path | None:
        """The file whose bytes are the image's content; None where it is not one file of its own."""
        return None

    def content(self, index: int) -> bytes | Image.Image:
        """Raises whatever stands in the way, such as OSError; also for a pipe or a device, which might never end."""
        file = self.file(index)
        assert file is not None
        return _regular(file).read_bytes()

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        """The image, mode RGB.

        With ``digest`` it has to be that of the content. It is computed from the very bytes that are decoded: read a
        second time, they might be others.

        Raises BadImageError for an image that cannot be read or has another digest, ImageUnavailable where several
        tries have met errors that may pass.
        """

        def load() -> Image.Image:
            content = self._readable(index)
            if not isinstance(content, bytes):
                content = self._sound(index, to_rgb, content)
            if digest is not None and _digest(content) != digest:
                raise BadImageError(self.name(index), "its content has changed since the dataset was loaded")
            return self._decoded(content, self.name(index)) if isinstance(content, bytes) else content

        return self._tried(index, load)

    def preview(self, index: int) -> tuple[Image.Image, ImageFacts]:
        """The image, decoded whole but perhaps smaller than it is, with the facts of its file.

        Raises BadImageError and ImageUnavailable as :meth:`load` does.
        """

        def preview() -> tuple[Image.Image, ImageFacts]:
            content = self._readable(index)
            if isinstance(content, bytes):
                return load_preview(io.BytesIO(content), self.name(index), self.max_megapixels)
            rgb = self._sound(index, to_rgb, content)
            return rgb, ImageFacts(*rgb.size, content.mode, content.format or "decoded")

        return self._tried(index, preview)

    def digest(self, index: int) -> str:
        """SHA-256 (hex) of the content. Raises OSError and others where it cannot be had, and ImageUnavailable."""

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
        return load_rgb(io.BytesIO(content), name, self.max_megapixels)

    def _readable(self, index: int) -> bytes | Image.Image:
        return self._sound(index, self.content, index)

    def _sound(self, index: int, action: Callable[[_Argument], _Result], argument: _Argument) -> _Result:
        """``action(argument)``; what it raises is that the image is bad, unless it may pass."""
        try:
            return action(argument)
        except DAMAGE as error:
            if is_transient(error):
                raise
            raise BadImageError(self.name(index), reason_of(error)) from error


@dataclass(frozen=True)
class FileSource(ImageSource):
    """Image files by their paths relative to a folder (or absolute), with ``/`` between the parts."""

    root: str

    def name(self, index: int) -> str:
        return str(self.items[index])

    def file(self, index: int) -> Path:
        return Path(self.root, self.items[index])


@dataclass(frozen=True)
class MemorySource(ImageSource):
    """Names and images (PIL images or uint8 arrays) that are in memory already."""

    def name(self, index: int) -> str:
        return str(self.items[index][0])

    def content(self, index: int) -> Image.Image:
        return as_image(self.items[index][1])


@dataclass(frozen=True)
class LabelledImages:
    """What a dataset spec stands for, before any subset is taken; images in their final order."""

    name: str
    where: str
    """The place that was looked at, for messages."""
    source: ImageSource
    class_names: Sequence[str]
    """Class of each image, [n]."""
    roles: Sequence[Role] | None = None
    """Role of each image, [n]; None: leave-one-out."""
    classless: bool = False
    """Whether there are no classes (all images are of one), so that they can be embedded but not scored."""
    credits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Lines that every report has to show."""


def choose(images: LabelledImages, *, max_classes: int, max_per_class: int, seed: int) -> list[int]:
    """Indices of the images kept, ascending.

    Which class or image goes first is decided by a hash of the seed and its name alone. So the choice of classes does
    not depend on how many images they have or are kept, a class more or less elsewhere changes little, and every
    machine chooses alike.

    ``max_classes``: 0 for all; classes with both a query and a reference are preferred to others. ``max_per_class``: 0
    for all; with queries and references it bounds each of the two.
    """
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
    """The source of a list of paths, or of PIL images and arrays as :func:`as_image` takes them.

    Raises UsageError for anything else.
    """
    if all(isinstance(image, str | os.PathLike) for image in images):
        return FileSource(tuple(os.fspath(image) for image in images), ".")
    for index, image in enumerate(images):
        try:
            as_image(image).load()  # here and now, since threads that load one image at the same time would not share
        except (TypeError, *DAMAGE) as error:
            raise UsageError(f"image {index} of the list cannot be taken: {reason_of(error)}") from error
    return MemorySource(tuple((f"#{index}", image) for index, image in enumerate(images)), portable=False)


def as_image(image: Any) -> Image.Image:
    """Return a PIL image as it is, or the image in an array or tensor: [h, w], [h, w, c] or [c, h, w] with 1, 3 or 4
    channels, uint8 or floats from 0 to 1. Raises TypeError and ValueError for anything else."""
    if isinstance(image, Image.Image):
        return image
    if not hasattr(image, "__array__"):
        raise TypeError(f"a {type(image).__name__} is no PIL image, array or path")
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


_RULES = 2  # of decode.to_rgb: what was decoded by others is decoded again


def pillow_decoder() -> str:
    """Our rules and Pillow, with the versions of the codecs whose output may change by a grey level."""
    codecs = " ".join(f"{codec} {features.version(codec)}" for codec in ("jpg", "webp", "jpg_2000"))
    return f"rules {_RULES} Pillow {PIL.__version__} {codecs}{plugins.versions()}"


def _digest(content: bytes | Image.Image) -> str:
    """Of a decoded image that of its size and RGB pixels."""
    if isinstance(content, Image.Image):
        content = b"RGB %d %d\n" % content.size + content.tobytes()
    return hashlib.sha256(content).hexdigest()


def _regular(file: Path) -> Path:
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def describe_bad_images(bad: Sequence[tuple[str, str]], total: int, where: str = "") -> str:
    """A head line, then a line for each of the (name, reason) pairs."""
    lines = [f"{len(bad)} of {total} images{f' of {where}' if where else ''} cannot be read:"]
    lines += [f"  {name!r}: {reason}" for name, reason in bad]
    return "\n".join(lines)
