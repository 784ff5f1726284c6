"""Image sources: a fixed sequence of images, each with a name, a content digest and a way to load it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import PIL
from PIL import Image, features

from embedcore.errors import UsageError
from embedcore.images.decode import load_rgb

Role = Literal["query", "reference"]
ROLES: tuple[Role, Role] = ("query", "reference")

_NAMED_AT_MOST = 5  # bad images spelled out in one error line


class ImageSource(Protocol):
    """A sequence of images. Implementations are picklable, since worker processes load from them."""

    @property
    def decoder(self) -> str:
        """What turns the content into pixels, with its version: equal content and decoder give equal pixels."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What the image is called in messages; independent of where the dataset lies.

        Bytes of a file name that are not UTF-8 are surrogate escapes, as in ``os.fsdecode``.
        """
        ...

    def load(self, index: int) -> Image.Image:
        """The image, mode RGB. Raises BadImageError."""
        ...

    def digest(self, index: int) -> str:
        """SHA-256 (hex) of the image's content. Raises OSError where the content cannot be had."""
        ...


@dataclass(frozen=True)
class LabelledImages:
    """What a dataset spec stands for, before any subset is taken; images in their final order."""

    name: str
    where: str
    """The place that was looked at, for messages."""
    source: ImageSource
    class_names: Sequence[str]
    """Class of each image, [n]."""
    roles: Sequence[Role] | None
    """Role of each image, [n]; None: leave-one-out."""
    credits: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileSource:
    """Image files under one folder."""

    root: str
    paths: tuple[str, ...]
    """Relative to root (or absolute, for csv files that say so), with ``/`` between the parts."""

    @property
    def decoder(self) -> str:
        return pillow_decoder()

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def load(self, index: int) -> Image.Image:
        return load_rgb(self._path(index), self.name(index))

    def digest(self, index: int) -> str:
        return hashlib.sha256(self._path(index).read_bytes()).hexdigest()

    def _path(self, index: int) -> Path:
        return Path(self.root, self.paths[index])


@dataclass(frozen=True)
class Selection:
    """Some images of another source, in the order given."""

    source: ImageSource
    indices: tuple[int, ...]

    @property
    def decoder(self) -> str:
        return self.source.decoder

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def load(self, index: int) -> Image.Image:
        return self.source.load(self.indices[index])

    def digest(self, index: int) -> str:
        return self.source.digest(self.indices[index])


def pillow_decoder() -> str:
    """Pillow with the versions of the codecs whose output may change by a grey level."""
    codecs = " ".join(f"{codec} {features.version(codec)}" for codec in ("jpg", "webp", "jpg_2000"))
    return f"Pillow {PIL.__version__} {codecs}"


def select(source: ImageSource, indices: Sequence[int]) -> ImageSource:
    """The source itself where all its images are wanted in order, else a :class:`Selection`."""
    if len(indices) == len(source) and all(index == position for position, index in enumerate(indices)):
        return source
    return Selection(source, tuple(indices))


def digests_of(source: ImageSource) -> tuple[str, ...]:
    """Digest of every image, each file read once, several at a time.

    Raises UsageError with all images that could not be read.
    """

    def digest_or_reason(index: int) -> tuple[str, str]:
        try:
            return source.digest(index), ""
        except OSError as error:
            return "", error.strerror or str(error)

    with ThreadPoolExecutor(max_workers=min(32, 4 + (os.cpu_count() or 1))) as pool:
        answers = list(pool.map(digest_or_reason, range(len(source))))
    bad = [(source.name(index), reason) for index, (_, reason) in enumerate(answers) if reason]
    if bad:
        raise UsageError(describe_bad_images(bad, len(source)))
    return tuple(digest for digest, _ in answers)


def describe_bad_images(bad: Sequence[tuple[str, str]], total: int) -> str:
    """One line for (name, reason) pairs.

    >>> describe_bad_images([("a/1.jpg", "truncated")], 40)
    "1 of 40 images cannot be read: 'a/1.jpg' (truncated); repair or remove them"
    """
    named = ", ".join(f"{name!r} ({reason})" for name, reason in bad[:_NAMED_AT_MOST])
    rest = f" and {len(bad) - _NAMED_AT_MOST} more" if len(bad) > _NAMED_AT_MOST else ""
    return f"{len(bad)} of {total} images cannot be read: {named}{rest}; repair or remove them"
