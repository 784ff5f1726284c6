"""Image folders: the class of an image is the folder that it lies in."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedcore.errors import UsageError
from embedcore.images.labels import canonical, lookalike_notes
from embedcore.images.plugins import PLUGINS, installed
from embedcore.images.retries import retried
from embedcore.images.sources import ROLE_WORDS, FileSource, LabelledImages, Role

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "avif", "bmp", "dib", "gif"),
        *("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "tga", "pcx"),
    )
)

OTHER_PICTURES = frozenset(
    f".{name}"
    for name in "raw cr2 cr3 nef arw dng orf rw2 raf psd svg eps exr hdr jxr wdp ico icns dcm".split()  # noqa: SIM905
)
"""Pictures that people have beside those, and that nothing here reads."""

PASSED_OVER = frozenset(
    name.lower()
    for name in (
        *("@eaDir", "#recycle", "#snapshot", "@tmp"),  # Synology
        *("@Recycle", "@Recently-Snapshot", "@Transcode"),  # QNAP
        *("$RECYCLE.BIN", "RECYCLER", "System Volume Information"),  # Windows
        *("__MACOSX", "lost+found", "~snapshot"),  # archives from macOS, Linux, NetApp
        *("Thumbnails", "__pycache__"),
    )
)
"""Folders, besides hidden ones, that systems and programs make beside a user's: not classes, at any depth."""

TRAINING, HELD_OUT = ("train", "training"), ("val", "valid", "validation", "test", "testing")
"""How the folders of a training split are called."""


def read_extensions() -> frozenset[str]:
    """How the names of images end that can be read here."""
    return EXTENSIONS | installed().keys()


def scan_folder(root: Path, *, split: str) -> LabelledImages:
    """All images under a folder, in an order that does not depend on the file system.

    A class is named by its folder's path relative to the root ("." for images in the root itself), so that two folders
    of the same last name are two classes. With split ``auto`` and subfolders ``query`` and ``reference`` (or
    ``gallery``) these are the two sides, and classes are relative to them; so are ``val`` (or ``test``) and ``train``,
    which are one set under ``loo``. ``REFERENCES:QUERIES`` names the folders of the two sides, several with ``+``
    between them. Hidden files and folders and those of PASSED_OVER are passed over, links are followed. Names are
    compared in Unicode's composed form, so that a class or a side is one whatever system has written its name.

    Raises UsageError where the folder is missing, cannot be listed, holds no images or leaves open what is asked.
    """
    if not root.is_dir():
        raise UsageError(f"no such folder: {root.absolute()}")
    left_out = _LeftOut()
    paths = sorted(_image_paths(root, left_out), key=_order)
    if not paths:
        looked = " ".join(sorted(read_extensions()))
        raise UsageError(
            f"no images under {root.absolute()}: looked for {looked} in it and its subfolders"
            + "".join(f"; {note}" for note in left_out.notes())
        )
    layout = _layout(root, paths, split)
    inside = [path for path in paths if not layout.folders or _top(path) in layout.folders]
    outside = len(paths) - len(inside)
    named = "/ and ".join(sorted(layout.folders, key=str.lower))
    classes = [_class_of(path.partition("/")[2] if layout.folders else path) for path in inside]
    loose = classes.count(".") if not layout.folders and set(classes) != {"."} else 0
    notes = (
        *layout.notes,
        *([f"{outside} images outside {named}/ were left out"] if outside else ()),
        *([f"images that lie in the folder itself ({loose}) are taken for a class of their own"] if loose else ()),
        *left_out.notes(),
        *lookalike_notes(classes),
    )
    return LabelledImages(
        name=root.resolve().name,
        where=f"folder {root.absolute()}",
        source=FileSource(tuple(inside), str(root)),
        class_names=classes,
        roles=[layout.roles[_top(path)] for path in inside] if layout.roles else None,
        notes=notes,
    )


@dataclass
class _LeftOut:
    """What a walk through the folders has left out."""

    unread: Counter[str] = field(default_factory=Counter)
    """Pictures that cannot be read here, by the ends of their names."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Folders, by name."""
    hidden: int = 0
    """Hidden files with names of images."""

    def notes(self) -> Iterator[str]:
        """Lines for the report."""
        folders = [f"{name}/{f' ({count})' if count > 1 else ''}" for name, count in sorted(self.passed_over.items())]
        hidden = [f"{self.hidden} hidden file{'' if self.hidden == 1 else 's'}"] if self.hidden else []
        if folders or hidden:
            yield f"passed over: {', '.join([*folders, *hidden])}"
        for suffix, count in sorted(self.unread.items()):
            package = PLUGINS[suffix].package if suffix in PLUGINS else ""
            remedy = f"pip install {package}" if package else "no reader is known here; save them as another format"
            yield f"{count} {suffix} file{'' if count == 1 else 's'} not read ({remedy})"


@dataclass(frozen=True)
class _Layout:
    """What the folders at the top stand for: nothing but parts of classes' names, where there are none here."""

    folders: frozenset[str] = frozenset()
    """Those below which the classes are."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _layout(root: Path, paths: Sequence[str], split: str) -> _Layout:
    """Raises UsageError."""
    below: dict[str, set[str]] = {}
    """The classes below each folder at the top."""
    for path in paths:
        if "/" in path:
            below.setdefault(_top(path), set()).add(_class_of(path.partition("/")[2]))
    if ":" in split:
        return _named_sides(root, below, split)
    named = {folder: ROLE_WORDS[folder.lower()] for folder in below if folder.lower() in ROLE_WORDS}
    if split == "auto" and named:
        for entry in root.iterdir():  # a side may be empty
            if entry.name.lower() in ROLE_WORDS and entry.is_dir():
                named.setdefault(entry.name, ROLE_WORDS[entry.name.lower()])
        if len(set(named.values())) == 2:
            return _Layout(frozenset(named), named)
        for folder, role in named.items():  # the other one may be called by another name
            if below.get(folder, {"."}) != {"."}:  # else it is a class
                other = "reference/ or gallery/" if role == "query" else "query/"
                raise UsageError(
                    f"{root.absolute()} has classes in {folder}/ but no folder {other} beside it for the other side; "
                    "for leave-one-out over all folders give --embed-split loo"
                )
    parts = sorted(folder for folder in below if folder.lower() in (*TRAINING, *HELD_OUT))
    if len(parts) > 1:
        return _training_split(root, {folder: below[folder] for folder in parts}, split)
    return _Layout(notes=tuple(_repeated(below)))


def _named_sides(root: Path, below: Mapping[str, set[str]], split: str) -> _Layout:
    references, _, queries = split.partition(":")
    sides: dict[str, Role] = {}
    for role, names in (("reference", references), ("query", queries)):
        for name in names.split("+"):
            wanted = name.strip().strip("/")
            found = [folder for folder in below if canonical(folder) == canonical(wanted)]
            if not found:
                there = ", ".join(f"{each}/" for each in sorted(below)[:10]) or "none"
                raise UsageError(f"split {split!r}: no images in {root.absolute()}/{wanted}; folders there: {there}")
            if sides.keys() & set(found):
                raise UsageError(f"split {split!r}: {wanted} cannot be on both sides")
            sides |= dict.fromkeys(found, "query" if role == "query" else "reference")
    return _Layout(frozenset(sides), sides)


def _training_split(root: Path, below: Mapping[str, set[str]], split: str) -> _Layout:
    """``train`` and ``val`` or ``test``, whichever of their names are there."""
    listed = " and ".join(", ".join(f"{folder}/" for folder in below).rsplit(", ", 1))
    if all(names == {"."} for names in below.values()):
        if split == "loo":
            return _Layout()
        raise UsageError(
            f"{root.absolute()}: the images of {listed} are in no folders of classes: one folder a class is wanted in "
            "each, or a csv with path,label (csv:FILE); --embed-split loo takes these folders themselves for classes"
        )
    folders = frozenset(below)
    if split == "loo":
        return _Layout(folders, notes=(f"{listed} are put together, the same class in each being one",))
    training = [folder for folder in below if folder.lower() in TRAINING]
    held_out = [folder for folder in below if folder.lower() in HELD_OUT]
    if len(training) != 1 or len(held_out) != 1:
        first, second = (*training, *held_out)[:2]
        raise UsageError(
            f"{root.absolute()} has {listed}: say which are references and which queries, such as --embed-split "
            f"{first}:{second}; or --embed-split loo, which takes all of them as one set"
        )
    roles: dict[str, Role] = {training[0]: "reference", held_out[0]: "query"}
    said = f"{held_out[0]}/ is looked for in {training[0]}/ (--embed-split loo takes both as one set)"
    return _Layout(folders, roles, (said,))


def _repeated(below: Mapping[str, set[str]]) -> Iterator[str]:
    """What to say where the same names are below every folder at the top: perhaps these are no part of the class."""
    several = {folder: names - {"."} for folder, names in below.items() if names != {"."}}
    common = set.intersection(*several.values()) if len(several) > 1 else set()
    if len(several) < len(below) or len(common) < 2 or 2 * len(common) < max(map(len, several.values())):
        return
    first, second, *others = sorted(several)
    name = min(common)
    yield (
        f"{len(common)} class folders repeat below each of {first}/, {second}/{', …' if others else ''} and are taken "
        f"for different classes, such as {first}/{name} and {second}/{name}; if they are the same, --embed-split "
        f"{first}:{second} looks for the one in the other"
    )


def _top(path: str) -> str:
    return path.partition("/")[0]


def _image_paths(root: Path, left_out: _LeftOut) -> Iterator[str]:
    """Paths relative to the root; each folder on the way down once, so that a link to a parent ends the walk.

    Counts in ``left_out`` what it does not give.
    """
    extensions = read_extensions()
    stack: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while stack:
        prefix, parents = stack.pop()
        folder = Path(root, prefix)
        try:
            status = retried(folder.stat)
            here = (status.st_dev, status.st_ino)
            if here in parents:
                continue
            entries = retried(functools.partial(_listed, folder))
        except OSError as error:
            raise UsageError(f"cannot list folder {folder.absolute()}: {error.strerror}") from error
        for entry in entries:
            is_folder, suffix = _is_folder(entry), os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (many times)
            if entry.name.startswith(".") or (is_folder and entry.name.lower() in PASSED_OVER):
                if is_folder:
                    left_out.passed_over[entry.name] += 1
                elif suffix in extensions:
                    left_out.hidden += 1
            elif is_folder:
                stack.append((f"{prefix}{entry.name}/", (*parents, here)))
            elif suffix in extensions:
                yield prefix + entry.name
            elif suffix in PLUGINS or suffix in OTHER_PICTURES:
                left_out.unread[suffix] += 1


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: the audit names it if it is called like an image
        return False


def _order(path: str) -> tuple[tuple[bytes, ...], str]:
    """The same on every system, whichever form of Unicode it writes names in."""
    return tuple(os.fsencode(part) for part in canonical(path).split("/")), path


def _class_of(path: str) -> str:
    return canonical(path.rpartition("/")[0]) or "."
