"""Image sources: a fixed sequence of images, each with a name, a content digest and a way to load it."""

from __future__ import annotations

import errno
import hashlib
import io
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import PIL
from PIL import Image, features

from embedcore.images.decode import DAMAGE, BadImageError, Preview, load_preview, load_rgb, reason_of

Role = Literal["query", "reference"]
ROLES: tuple[Role, Role] = ("query", "reference")

_PIECE = 2**20  # bytes


class ImageSource(Protocol):
    """A sequence of images. Implementations are picklable, since worker processes load from them."""

    @property
    def decoder(self) -> str:
        """What turns the content into pixels, with its version: equal content and decoder give equal pixels."""
        ...

    @property
    def trusted(self) -> bool:
        """Whether whoever has put the images there has seen to it that they can be read."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What the image is called in messages; independent of where the dataset lies.

        Bytes of a file name that are not UTF-8 are surrogate escapes, as in ``os.fsdecode``.
        """
        ...

    def file(self, index: int) -> Path | None:
        """The file whose bytes are the image's content; None where it is not one file of its own."""
        ...

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        """The image, mode RGB. Raises BadImageError.

        With ``digest`` also where the content is of another digest. It is asked of the very bytes that are decoded:
        read a second time, they might be others.
        """
        ...

    def preview(self, index: int) -> Preview:
        """The image, decoded whole but perhaps smaller than it is, with the facts of its file. Raises BadImageError."""
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
    notes: tuple[str, ...] = ()
    """Lines that every report has to show."""


@dataclass(frozen=True)
class FileSource:
    """Image files under one folder."""

    root: str
    paths: tuple[str, ...]
    """Relative to root (or absolute, for csv files that say so), with ``/`` between the parts."""

    @property
    def decoder(self) -> str:
        return pillow_decoder()

    @property
    def trusted(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def file(self, index: int) -> Path:
        return Path(self.root, self.paths[index])

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        name = self.name(index)
        content = read_content(self.file(index), name)
        expect_digest(content, digest, name)
        return load_rgb(io.BytesIO(content), name)

    def preview(self, index: int) -> Preview:
        return load_preview(self.file(index), self.name(index))

    def digest(self, index: int) -> str:
        return file_digest(self.file(index))


@dataclass(frozen=True)
class Selection:
    """Some images of another source, in the order given."""

    source: ImageSource
    indices: tuple[int, ...]

    @property
    def decoder(self) -> str:
        return self.source.decoder

    @property
    def trusted(self) -> bool:
        return self.source.trusted

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def file(self, index: int) -> Path | None:
        return self.source.file(self.indices[index])

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        return self.source.load(self.indices[index], digest)

    def preview(self, index: int) -> Preview:
        return self.source.preview(self.indices[index])

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


def file_digest(file: Path) -> str:
    """SHA-256 (hex) of a file, read in pieces. Raises OSError, also for a pipe or a device, which might never end."""
    _require_regular(file)
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def read_content(file: Path, name: str) -> bytes:
    """All bytes of an image's file. Raises BadImageError."""
    try:
        _require_regular(file)
        return file.read_bytes()
    except DAMAGE as error:
        raise BadImageError(name, reason_of(error)) from error


def expect_digest(content: bytes, digest: str | None, name: str) -> None:
    """Raise BadImageError unless the content is that of the digest; None: any content will do."""
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise BadImageError(name, "its content has changed since the dataset was loaded")


def _require_regular(file: Path) -> None:
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def describe_bad_images(bad: Sequence[tuple[str, str]], total: int, where: str = "") -> str:
    """A head line, then a line for each of the (name, reason) pairs.

    >>> print(describe_bad_images([("a/1.jpg", "truncated")], 40, "folder /shop"))
    1 of 40 images of folder /shop cannot be read:
      'a/1.jpg': truncated
    """
    lines = [f"{len(bad)} of {total} images{f' of {where}' if where else ''} cannot be read:"]
    lines += [f"  {name!r}: {reason}" for name, reason in bad]
    return "\n".join(lines)
