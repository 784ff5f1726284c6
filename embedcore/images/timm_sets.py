"""Datasets of pairs (image, class): those behind timm's schemes, ``hfds/user/name,split=train``, and the user's own."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedcore.errors import UsageError
from embedcore.files import user_path
from embedcore.images.decode import to_rgb
from embedcore.images.sources import ImageSource, LabelledImages, as_image

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
    root = str(user_path(options["root"])) if "root" in options else None
    dataset = open_timm_dataset(name, root=root, split=split, download=download)
    return pairs_images(dataset, name, f"{name},split={split}", f"dataset {name}, split {split}")


def pairs_images(dataset: Any, name: str, title: str, where: str, *, portable: bool = True) -> LabelledImages:
    """The images of a dataset object that gives pairs of an image and its class, always leave-one-out.

    ``name``: what its images are called by. ``title`` and ``where``: name and place of the dataset. ``portable``:
    whether other processes can unpickle the object.
    """
    source: ImageSource
    if hasattr(dataset, "__getitem__") and hasattr(getattr(dataset, "reader", dataset), "__getitem__"):
        targets = _targets(dataset)
        source = IndexedSource(tuple(range(len(targets))), name, dataset, portable=portable)
    else:
        source, targets = _spool(name, dataset)
    if not targets:
        raise UsageError(f"{where} holds no images")
    titles = _class_titles(dataset)
    return LabelledImages(title, where, source, [titles.get(target, str(target)) for target in targets])


def parse_timm_spec(spec: str) -> tuple[str, Mapping[str, str]]:
    """Name and options."""
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


@dataclass(frozen=True)
class IndexedSource(ImageSource):
    """A dataset object of timm, torchvision or the user that gives any image by its number."""

    title: str
    dataset: Any

    def name(self, index: int) -> str:
        return f"{self.title}#{self.items[index]}"

    def content(self, index: int) -> bytes | Image.Image:
        """The encoded file where there is one; ``dataset[i]`` would decode it, and timm's pass over a bad image."""
        number = self.items[index]
        reader = getattr(self.dataset, "reader", None)
        if reader is not None:
            with reader[number][0] as stream:
                return bytes(stream.read())
        samples = _samples(self.dataset)
        if samples is not None:
            return Path(samples[number][0]).read_bytes()
        return as_image(_pair(self.dataset, number)[0])


@dataclass(frozen=True)
class SpooledSource(ImageSource):
    """RGB images, each (number, offset in bytes, width, height), one after another in a temporary file."""

    title: str
    spool: _Spool

    @property
    def decoder(self) -> str:
        return "raw"

    def name(self, index: int) -> str:
        return f"{self.title}#{self.items[index][0]}"

    def content(self, index: int) -> Image.Image:
        _, offset, width, height = self.items[index]
        with self.spool.path.open("rb") as file:
            file.seek(offset)
            return Image.frombytes("RGB", (width, height), file.read(3 * width * height))


@dataclass(frozen=True, eq=False)
class _Spool:
    """The temporary file, which goes when the object that made it does, not with a copy in another process."""

    path: Path


def _samples(holder: Any) -> Any:
    """The list of pairs of a file and its class, where the dataset has one."""
    samples = getattr(holder, "samples", None)
    if not isinstance(samples, list | tuple) or not samples or not isinstance(samples[0], list | tuple):
        return None
    return samples if isinstance(samples[0][0], str | Path) else None


def _pair(pairs: Any, index: int) -> Sequence[Any]:
    pair = pairs[index]
    if not isinstance(pair, tuple | list) or len(pair) < 2:
        raise UsageError(f"{type(pairs).__name__} gives {type(pair).__name__}, not pairs of an image and its class")
    return pair


def _targets(dataset: Any) -> list[Any]:
    """The target of each image, without decoding where the dataset lists them."""
    reader = getattr(dataset, "reader", None)
    samples = _samples(reader) or _samples(dataset)
    listed = getattr(dataset, "targets", None)
    if samples is not None:
        listed = [sample[1] for sample in samples]
    elif listed is None and reader is not None and hasattr(reader, "iter_targets"):
        listed = reader.iter_targets()
    elif listed is None:
        pairs = dataset if reader is None else reader
        listed = (_pair(pairs, index)[1] for index in range(len(pairs)))
    return [_plain(target) for target in listed]


def _plain(target: Any) -> Any:
    """A number of numpy or torch as Python's own."""
    return target.item() if hasattr(target, "item") else target


def _class_titles(dataset: Any) -> dict[Any, str]:
    """Name of each target where the dataset has them all different, else nothing."""
    for holder in (getattr(dataset, "reader", None), dataset):
        index = getattr(holder, "class_to_idx", None)
        if isinstance(index, Mapping) and index:
            return {target: str(title) for title, target in index.items()}
    return {}


def _spool(name: str, dataset: Any) -> tuple[SpooledSource, list[Any]]:
    with tempfile.NamedTemporaryFile(prefix="embedcore-", suffix=".rgb", delete=False) as file:
        spool = _Spool(Path(file.name))
        remove = weakref.finalize(spool, spool.path.unlink, missing_ok=True)
        items: list[tuple[int, int, int, int]] = []
        targets = []
        try:
            for image, target in dataset:
                rgb = to_rgb(image)
                items.append((len(items), file.tell(), *rgb.size))
                targets.append(_plain(target))
                file.write(rgb.tobytes())
            file.flush()
        except OSError as error:
            remove()
            place = spool.path.parent
            raise UsageError(f"cannot keep the images of {name} in {place}: {error.strerror or error}") from error
    expected = len(dataset)
    if expected and expected != len(targets):
        remove()
        raise UsageError(
            f"dataset {name} gave {len(targets)} images of the {expected} that it lists: some cannot be read"
        )
    return SpooledSource(tuple(items), name, spool), targets
