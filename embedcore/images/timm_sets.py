"""Datasets behind timm's schemes: ``torch/mnist,root=/data,split=test``, ``hfds/user/name,split=train``, …"""

from __future__ import annotations

import hashlib
import io
import tempfile
import weakref
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from embedcore.errors import UsageError
from embedcore.images.decode import DAMAGE, BadImageError, Preview, load_preview, load_rgb, reason_of, to_rgb
from embedcore.images.sources import ImageSource, LabelledImages, expect_digest, pillow_decoder

SCHEMES = ("hfds", "hfids", "tfds", "wds", "torch")
_OPTIONS = ("root", "split", "download")
_DEFAULT_SPLIT = "validation"  # timm's own


def timm_images(spec: str) -> LabelledImages:
    """The images of one of timm's datasets, always leave-one-out.

    ``spec`` is timm's name, then options: ``,root=FOLDER`` ``,split=NAME`` (``validation``) ``,download=true``.
    Datasets that can only be read from front to end are read once and kept, uncompressed, in a temporary file.
    """
    from embedcore.zoo.datasets import open_timm_dataset  # seconds: for those only who use such a dataset

    name, options = parse_timm_spec(spec)
    split = options.get("split", _DEFAULT_SPLIT)
    download = options.get("download", "false").lower() in ("1", "true", "yes")
    dataset = open_timm_dataset(name, root=options.get("root"), split=split, download=download)
    source: ImageSource
    if hasattr(dataset, "__getitem__") and _has_random_access(dataset):
        targets = _targets(dataset)
        source = IndexedSource(name, dataset, len(targets))
    else:
        source, targets = _spool(name, dataset)
    if not targets:
        raise UsageError(f"dataset {name}, split {split}, holds no images")
    titles = _class_titles(dataset)
    return LabelledImages(
        name=f"{name},split={split}",
        where=f"dataset {name}, split {split}",
        source=source,
        class_names=[titles.get(target, str(target)) for target in targets],
        roles=None,
    )


def parse_timm_spec(spec: str) -> tuple[str, Mapping[str, str]]:
    """Name and options.

    >>> parse_timm_spec("torch/mnist,root=/data,split=test")
    ('torch/mnist', {'root': '/data', 'split': 'test'})
    """
    name, *settings = spec.split(",")
    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in _OPTIONS or not equals:
            raise UsageError(
                f"dataset {spec}: {setting!r} is none of its options {', '.join(f'{key}=…' for key in _OPTIONS)}"
            )
        options[key] = value
    return name, options


class IndexedSource:
    """A dataset object of timm or torchvision that gives any image by its number."""

    def __init__(self, name: str, dataset: Any, count: int) -> None:
        self._name = name
        self._dataset = dataset
        self._count = count

    @property
    def decoder(self) -> str:
        return pillow_decoder()

    @property
    def trusted(self) -> bool:
        return False

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"{self._name}#{index}"

    def file(self, index: int) -> None:
        return None

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        name, content = self.name(index), self._readable_content(index)
        if isinstance(content, bytes):
            expect_digest(content, digest, name)
            return load_rgb(io.BytesIO(content), name)
        rgb = to_rgb(content)
        expect_digest(_raw(rgb), digest, name)
        return rgb

    def preview(self, index: int) -> Preview:
        content = self._readable_content(index)
        if isinstance(content, bytes):
            return load_preview(io.BytesIO(content), self.name(index))
        rgb = to_rgb(content)
        return Preview(rgb, *rgb.size, content.mode, content.format or "decoded")

    def _readable_content(self, index: int) -> bytes | Image.Image:
        try:
            return self._content(index)
        except DAMAGE as error:
            raise BadImageError(self.name(index), reason_of(error)) from error

    def digest(self, index: int) -> str:
        content = self._content(index)
        return hashlib.sha256(content if isinstance(content, bytes) else _raw(to_rgb(content))).hexdigest()

    def _content(self, index: int) -> bytes | Image.Image:
        """The encoded file where there is one; timm's own ``dataset[i]`` would decode it, and pass over a bad image."""
        reader = getattr(self._dataset, "reader", None)
        if reader is not None:
            with reader[index][0] as stream:
                return bytes(stream.read())
        samples = getattr(self._dataset, "samples", None)
        if samples is not None:
            return Path(samples[index][0]).read_bytes()
        image = self._dataset[index][0]
        assert isinstance(image, Image.Image), f"{self._name} gives {type(image).__name__}, not PIL images"
        return image


class SpooledSource:
    """RGB images one after another in a temporary file, which goes when the object that made it does."""

    def __init__(self, name: str, path: Path, offsets: array[int], sizes: Sequence[tuple[int, int]]) -> None:
        self._name = name
        self._path = path
        self._offsets = offsets
        self._sizes = sizes

    @property
    def decoder(self) -> str:
        return "raw"

    @property
    def trusted(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._sizes)

    def name(self, index: int) -> str:
        return f"{self._name}#{index}"

    def file(self, index: int) -> None:
        return None

    def load(self, index: int, digest: str | None = None) -> Image.Image:
        size, content = self._sizes[index], self._bytes(index)
        expect_digest(_raw_header(size) + content, digest, self.name(index))
        return Image.frombytes("RGB", size, content)

    def preview(self, index: int) -> Preview:
        return Preview(self.load(index), *self._sizes[index], "RGB", "decoded")

    def digest(self, index: int) -> str:
        return hashlib.sha256(_raw_header(self._sizes[index]) + self._bytes(index)).hexdigest()

    def _bytes(self, index: int) -> bytes:
        width, height = self._sizes[index]
        with self._path.open("rb") as file:
            file.seek(self._offsets[index])
            return file.read(3 * width * height)


def _has_random_access(dataset: Any) -> bool:
    reader = getattr(dataset, "reader", dataset)
    return hasattr(reader, "__getitem__")


def _targets(dataset: Any) -> list[Any]:
    """The target of each image, without decoding where the dataset lists them."""
    for holder, attribute in ((getattr(dataset, "reader", None), "samples"), (dataset, "samples")):
        samples = getattr(holder, attribute, None)
        if samples is not None:
            return [target for _, target in samples]
    listed = getattr(dataset, "targets", None)
    if listed is not None:
        return [target.item() if hasattr(target, "item") else target for target in listed]
    reader = getattr(dataset, "reader", None)
    if reader is not None and hasattr(reader, "iter_targets"):
        return list(reader.iter_targets())
    pairs = dataset if reader is None else reader
    return [pairs[index][1] for index in range(len(pairs))]


def _class_titles(dataset: Any) -> dict[Any, str]:
    """Name of each target where the dataset has them all different, else nothing."""
    reader = getattr(dataset, "reader", None)
    for holder in (reader, dataset):
        index = getattr(holder, "class_to_idx", None)
        if isinstance(index, Mapping) and index:
            return {target: str(title) for title, target in index.items()}
    return {}


def _spool(name: str, dataset: Any) -> tuple[ImageSource, list[Any]]:
    with tempfile.NamedTemporaryFile(prefix="embedcore-", suffix=".rgb", delete=False) as file:
        path = Path(file.name)
        offsets, sizes, targets = array("q"), [], []
        try:
            for image, target in dataset:
                rgb = to_rgb(image)
                offsets.append(file.tell())
                sizes.append(rgb.size)
                targets.append(target.item() if hasattr(target, "item") else target)
                file.write(rgb.tobytes())
        except OSError as error:
            path.unlink()
            raise UsageError(f"cannot keep the images of {name} in {path.parent}: {error.strerror or error}") from error
        except BaseException:
            path.unlink()
            raise
    expected = len(dataset)
    if expected and expected != len(targets):
        path.unlink()
        raise UsageError(
            f"dataset {name} gave {len(targets)} images of the {expected} that it lists: some cannot be read"
        )
    source = SpooledSource(name, path, offsets, sizes)
    weakref.finalize(source, path.unlink, missing_ok=True)
    return source, targets


def _raw(image: Image.Image) -> bytes:
    return _raw_header(image.size) + image.tobytes()


def _raw_header(size: tuple[int, int]) -> bytes:
    return f"RGB {size[0]} {size[1]}\n".encode()
