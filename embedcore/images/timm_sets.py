"""Datasets of pairs (image, class): timm's schemes, such as ``hfds/user/name,split=train``, and dataset objects."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedcore.errors import UsageError
from embedcore.files import user_path
from embedcore.images.decode import DAMAGE, reason_of, to_rgb
from embedcore.images.labels import class_names, notes_on
from embedcore.images.sources import ImageSource, LabelledImages, as_image

SCHEMES = ("hfds", "hfids", "tfds", "wds", "torch")
_OPTIONS = ("root", "split", "download")
_DEFAULT_SPLIT = "validation"  # timm's own

# Classes whose ``__getitem__`` is known: labels and files are read without calling it.
_ITERABLE, _SUBSET = "torch.utils.data.dataset.Dataset", "torch.utils.data.dataset.Subset"  # the first raises
_TIMM, _TIMM_FOLDER = "timm.data.dataset.ImageDataset", "timm.data.readers.reader_image_folder.ReaderImageFolder"
_FOLDER = "torchvision.datasets.folder.DatasetFolder"
_WITH_TARGETS = tuple(
    f"torchvision.datasets.{name}" for name in ("mnist.MNIST", "cifar.CIFAR10", "places365.Places365")
)
_TRIED = 4  # images loaded twice to detect random transforms


def timm_images(spec: str) -> LabelledImages:
    """Return the images of one of timm's datasets, always leave-one-out.

    ``spec`` is timm's name with options: ``,root=FOLDER`` ``,split=NAME`` (default ``validation``) ``,download=true``.
    Iterable datasets are read once and kept, uncompressed, in a temporary file.
    """
    from embedcore.zoo.datasets import open_timm_dataset  # takes seconds to import

    name, options = parse_timm_spec(spec)
    split = options.get("split", _DEFAULT_SPLIT)
    download = options.get("download", "false").lower() in ("1", "true", "yes")
    root = str(user_path(options["root"])) if "root" in options else None
    dataset = open_timm_dataset(name, root=root, split=split, download=download)
    return pairs_images(dataset, name, f"{name},split={split}", f"dataset {name}, split {split}")


def pairs_images(dataset: Any, name: str, title: str, where: str, *, portable: bool = True) -> LabelledImages:
    """Return the images of a dataset object whose items are pairs of an image and its class, always leave-one-out.

    The images are those of ``dataset[i]``, transforms included. If it is known to return an unchanged image file, that
    file is read as in a folder: upright (EXIF), transparency on white.

    ``name``: prefix of the images' names. ``title`` and ``where``: the dataset's name and location. ``portable``:
    whether other processes can unpickle the object. Raises UsageError with the index for an item that raises, is not a
    pair, has a label that is not a class, or is a different image each time.
    """
    source: ImageSource
    if _kind(dataset) in ("", _ITERABLE):
        source, targets = _spool(name, dataset)
    else:
        targets = _targets(dataset, name)
        source = IndexedSource(tuple(range(len(targets))), name, dataset, portable=portable)
        expect_stable(source)
    if not targets:
        raise UsageError(f"{where} contains no images")
    names = class_names(targets, lambda index: f"{name}#{index}")
    titles = _class_titles(dataset)
    if titles.keys() >= set(names):
        names = [titles[target] for target in names]
    return LabelledImages(title, where, source, names, notes=notes_on(names))


def parse_timm_spec(spec: str) -> tuple[str, Mapping[str, str]]:
    """Return name and options of a spec. Raises UsageError."""
    name, *settings = spec.split(",")
    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in _OPTIONS or not equals:
            raise UsageError(
                f"dataset {spec}: {setting!r} is not one of its options {', '.join(f'{key}=…' for key in _OPTIONS)}"
            )
        options[key] = value
    return name, options


@dataclass(frozen=True)
class IndexedSource(ImageSource):
    """An indexable dataset object of timm, torchvision or the user."""

    title: str
    dataset: Any

    def name(self, index: int) -> str:
        return f"{self.title}#{self.items[index]}"

    def content(self, index: int) -> bytes | Image.Image:
        """Return the encoded file if ``dataset[i]`` only decodes it, else the image of ``dataset[i]``.

        Raises UsageError for an item without an image, which is an error of the whole dataset.
        """
        number = self.items[index]
        encoded = _encoded(self.dataset, number)
        if encoded is not None:
            return encoded
        image = _pair(self.dataset, number)[0]
        try:
            return as_image(image)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.name(index)}: {error}") from error


@dataclass(frozen=True)
class SpooledSource(ImageSource):
    """RGB images in a temporary file; items are (number, offset in bytes, width, height)."""

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
    """A temporary file, removed with the object that created it but not with copies in other processes."""

    path: Path


def _kind(dataset: Any) -> str:
    """Return the qualified name of the class that defines ``__getitem__``; ``""`` if there is none."""
    getitem = getattr(type(dataset), "__getitem__", None)
    module = getattr(getitem, "__module__", "")  # a function of C has none
    return f"{module}.{getitem.__qualname__}".removesuffix(".__getitem__") if getitem else ""


def _base(dataset: Any) -> tuple[Any, Iterable[int]]:
    """Return the dataset behind torch's Subsets, and the index there of each item of ``dataset``."""
    numbers: Iterable[int] = range(len(dataset))
    while _kind(dataset) == _SUBSET:
        numbers = [dataset.indices[number] for number in numbers]
        dataset = dataset.dataset
    return dataset, numbers


def _encoded(dataset: Any, number: int) -> bytes | None:
    """Return the image file that ``dataset[number]`` would decode to RGB without other changes, else None.

    timm's own ``dataset[number]`` replaces a bad image by another one.
    """
    while _kind(dataset) == _SUBSET:
        dataset, number = dataset.dataset, dataset.indices[number]
    if getattr(dataset, "transform", None) is not None:
        return None
    if _kind(dataset) == _FOLDER:
        loader = dataset.loader
        is_default = (loader.__module__, loader.__name__) == ("torchvision.datasets.folder", "default_loader")
        return Path(dataset.samples[number][0]).read_bytes() if is_default else None
    if _kind(dataset) == _TIMM and getattr(dataset, "input_img_mode", "RGB") in ("RGB", "", None):
        with dataset.reader[number][0] as stream:
            return bytes(stream.read())
    return None


def _pair(dataset: Any, number: int) -> Sequence[Any]:
    """Return ``dataset[number]``. Raises UsageError if it is not a pair, and errors of :data:`DAMAGE`."""
    try:
        pair = dataset[number]
    except DAMAGE:
        raise
    except Exception as error:  # code of the user
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    if not isinstance(pair, tuple | list) or len(pair) < 2:
        raise UsageError(f"{type(dataset).__name__} returns {type(pair).__name__}, not pairs of an image and its class")
    return pair


def _targets(dataset: Any, name: str) -> list[Any]:
    """Return the target of each ``dataset[i]``, without loading images if they are known otherwise."""
    base, numbers = _base(dataset)
    kind, listed = _kind(base), None
    if getattr(base, "target_transform", None) is None:
        if kind == _FOLDER:
            listed = [sample[1] for sample in base.samples]
        elif kind in _WITH_TARGETS:
            listed = base.targets
        elif kind == _TIMM:
            base = base.reader
            if _kind(base) == _TIMM_FOLDER:
                listed = [sample[1] for sample in base.samples]
            elif _kind(base).startswith("timm.") and hasattr(base, "iter_targets"):
                listed = list(base.iter_targets())
    if listed is not None:
        return [listed[number] for number in numbers]
    targets = []
    for number in numbers:
        try:
            targets.append(_pair(base, number)[1])
        except DAMAGE as error:
            raise UsageError(f"{name}#{len(targets)} cannot be loaded: {reason_of(error)}") from error
    return targets


def expect_stable(source: ImageSource) -> None:
    """Raise UsageError if ``dataset[i]`` is a different image each time."""
    for index in range(min(_TRIED, len(source))):
        with suppress(*DAMAGE):  # the audit names all bad images
            if source.digest(index) != source.digest(index):
                raise UsageError(
                    f"{source.name(index)} is a different image each time it is loaded: remove random transforms"
                )


def _class_titles(dataset: Any) -> dict[str, str]:
    """Return the title of each class by the name of its target, if the dataset has titles."""
    base = _base(dataset)[0] if _kind(dataset) == _SUBSET else dataset
    if getattr(base, "target_transform", None) is not None:
        return {}
    for holder in (getattr(base, "reader", None), base):
        index = getattr(holder, "class_to_idx", None)
        if isinstance(index, Mapping) and index:
            return {str(target): str(title) for title, target in index.items()}
    return {}


def _spool(name: str, dataset: Any) -> tuple[SpooledSource, list[Any]]:
    with tempfile.NamedTemporaryFile(prefix="embedcore-", suffix=".rgb", delete=False) as file:
        spool = _Spool(Path(file.name))
        remove = weakref.finalize(spool, spool.path.unlink, missing_ok=True)
        items: list[tuple[int, int, int, int]] = []
        targets = []
        try:
            for rgb, target in _read_through(name, dataset):
                items.append((len(items), file.tell(), *rgb.size))
                targets.append(target)
                file.write(rgb.tobytes())
            file.flush()
            if len(dataset) not in (0, len(targets)):
                found = f"{len(targets)} of its {len(dataset)} images"
                raise UsageError(f"dataset {name} returned {found}: some cannot be read")
        except BaseException as error:
            remove()
            if not isinstance(error, OSError):
                raise
            where = f"cannot keep the images of {name} in {spool.path.parent}"
            raise UsageError(f"{where}: {error.strerror or error}") from error
    return SpooledSource(tuple(items), name, spool), targets


def _read_through(name: str, dataset: Iterable[Any]) -> Iterator[tuple[Image.Image, Any]]:
    """Yield images, mode RGB, and targets of an iterable dataset. Raises UsageError."""
    number, pairs = 0, iter(dataset)
    while True:
        try:
            image, target = next(pairs)
            rgb = to_rgb(as_image(image))
        except StopIteration:
            return
        except Exception as error:  # code of the dataset's library
            raise UsageError(f"{name}#{number} cannot be loaded: {reason_of(error)}") from error
        yield rgb, target
        number += 1
