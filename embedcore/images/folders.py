"""Image folders: the class of an image is the folder that contains it."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedcore.errors import UsageError, option
from embedcore.images.labels import canonical, lookalike_notes
from embedcore.images.plugins import PLUGINS, installed
from embedcore.images.retries import retried
from embedcore.images.sources import ROLE_WORDS, FileSource, LabelledImages, Role
from embedcore.images.splits import HELD_OUT, SPLITS, TRAINING, named_sides, sides_note, training_sides
from embedcore.plain import counted, listed

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
"""Common picture formats that cannot be read here; such files are counted in a note."""

IGNORED_FOLDERS = frozenset(
    name.lower()
    for name in (
        *("@eaDir", "#recycle", "#snapshot", "@tmp"),  # Synology
        *("@Recycle", "@Recently-Snapshot", "@Transcode"),  # QNAP
        *("$RECYCLE.BIN", "RECYCLER", "System Volume Information"),  # Windows
        *("__MACOSX", "lost+found", "~snapshot"),  # archives from macOS, Linux, NetApp
        *("Thumbnails", "__pycache__"),
    )
)
"""Folders, besides hidden ones, that systems and programs create: not classes, at any depth."""


def read_extensions() -> frozenset[str]:
    """Return the file name extensions of images that can be read here, lower case."""
    return EXTENSIONS | installed().keys()


def scan_folder(root: Path, *, split: str, labelled: bool = True) -> LabelledImages:
    """Return all images under a folder, in an order that does not depend on the file system.

    A class is named by its folder's path relative to the root ("." for images in the root itself), so two folders with
    the same last name are two classes. With split ``auto`` the subfolders ``query`` and ``reference`` (or ``gallery``),
    or ``val`` (or ``test``) and ``train``, are the two sides, and classes are relative to them; ``loo`` makes the
    latter one set. ``REFERENCES:QUERIES`` names the folders of the two sides, several joined by ``+``. Hidden files
    and folders and IGNORED_FOLDERS are ignored; links are followed. Names are compared in Unicode's composed form.
    Unless ``labelled``, classes do not matter: all images are used, whatever their folders are called.

    Raises UsageError for a folder that is missing, cannot be listed, has no images, or whose sides are undecided.
    """
    if not root.is_dir():
        raise UsageError(f"no such folder: {root.absolute()}")
    left_out = _LeftOut()
    # Twice, since a key of both orders would take much memory: equal keys keep the order of the paths.
    paths = sorted(sorted(_image_paths(root, left_out)), key=_order)
    if not paths:
        looked = " ".join(sorted(read_extensions()))
        raise UsageError(
            f"no images under {root.absolute()}: looked for {looked} in it and its subfolders"
            + "".join(f"; {note}" for note in left_out.notes())
        )
    layout = _layout(root, paths, split) if labelled else _Layout()
    inside = [path for path in paths if not layout.folders or _top(path) in layout.folders]
    outside = len(paths) - len(inside)
    named = "/ and ".join(sorted(layout.folders, key=str.lower))
    classes = [_class_of(path.partition("/")[2] if layout.folders else path) for path in inside]
    loose = classes.count(".") if labelled and not layout.folders and set(classes) != {"."} else 0
    notes = (
        *layout.notes,
        *([f"left out: {counted(outside, 'image')} outside {named}/"] if outside else ()),
        *([f"images in the folder itself ({loose}) are a class of their own"] if loose else ()),
        *left_out.notes(),
        *(lookalike_notes(classes) if labelled else ()),
    )
    return LabelledImages(
        name=root.resolve().name,
        where=f"folder {root.absolute()}",
        source=FileSource(tuple(inside), str(root)),
        class_names=classes,
        roles=[layout.roles[_top(path)] for path in inside] if layout.roles else None,
        notes=notes,
    )


def has_images(root: Path) -> bool:
    """Return whether there is an image in a folder or its subfolders. Raises UsageError if it cannot be listed."""
    return next(_image_paths(root, _LeftOut()), None) is not None


def has_classes(root: Path) -> bool:
    """Return whether images are in folders of two or more classes, with or without folders of sides or splits.

    Raises UsageError for a folder that cannot be listed.
    """
    classes = set()
    for path in _image_paths(root, _LeftOut()):
        folder = path.rpartition("/")[0]
        top, _, below = folder.partition("/")
        classes.add(below if top.lower() in SPLITS else folder)
    return len(classes - {""}) > 1


@dataclass
class _LeftOut:
    """Files and folders that a walk has left out."""

    unread: Counter[str] = field(default_factory=Counter)
    """Pictures that cannot be read here, by extension."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Folders, by name."""
    hidden: int = 0
    """Hidden files with names of images."""

    def notes(self) -> Iterator[str]:
        folders = [f"{name}/{f' ({count})' if count > 1 else ''}" for name, count in sorted(self.ignored.items())]
        hidden = [counted(self.hidden, "hidden file")] if self.hidden else []
        if folders or hidden:
            yield f"ignored: {', '.join([*folders, *hidden])}"
        for suffix, count in sorted(self.unread.items()):
            package = PLUGINS[suffix].package if suffix in PLUGINS else ""
            remedy = f"pip install {package}" if package else "convert them to another format"
            yield f"{counted(count, f'{suffix} file')} not read ({remedy})"


@dataclass(frozen=True)
class _Layout:
    """The folders directly below the root that are sides or splits; others are parts of class names."""

    folders: frozenset[str] = frozenset()
    """Folders that contain the classes."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _layout(root: Path, paths: Sequence[str], split: str) -> _Layout:
    """Return the layout of a folder with these image paths. Raises UsageError."""
    below: dict[str, set[str]] = {}  # classes below each folder of the root
    for path in paths:
        if "/" in path:
            below.setdefault(_top(path), set()).add(_class_of(path.partition("/")[2]))
    if ":" in split:

        def missing(name: str) -> str:
            there = ", ".join(f"{each}/" for each in sorted(below)[:10]) or "none"
            return f"no images in {root.absolute()}/{name.strip().strip('/')}; folders there: {there}"

        sides = named_sides(split, below, lambda name: canonical(name.strip().strip("/")), missing)
        return _Layout(frozenset(sides), sides)
    named = {folder: ROLE_WORDS[folder.lower()] for folder in below if folder.lower() in ROLE_WORDS}
    if split == "auto" and named:
        for entry in root.iterdir():  # a side may be empty
            if entry.name.lower() in ROLE_WORDS and entry.is_dir():
                named.setdefault(entry.name, ROLE_WORDS[entry.name.lower()])
        if len(set(named.values())) == 2:
            return _Layout(frozenset(named), named)
        for folder, role in named.items():  # the other side may have another name
            if below.get(folder, {"."}) != {"."}:  # else it is a class
                other = "reference/ or gallery/" if role == "query" else "query/"
                raise UsageError(
                    f"{root.absolute()} has classes in {folder}/ but no folder {other} beside it for the other side; "
                    f"for leave-one-out over all folders use {option('split', 'loo')}"
                )
    parts = sorted(folder for folder in below if folder.lower() in (*TRAINING, *HELD_OUT))
    return _training_split(root, {folder: below[folder] for folder in parts}, split) if len(parts) > 1 else _Layout()


def _training_split(root: Path, below: Mapping[str, set[str]], split: str) -> _Layout:
    """Return the layout of folders named like ``train``, ``val`` and ``test``. Raises UsageError."""
    folders = listed([f"{folder}/" for folder in below])
    if all(names == {"."} for names in below.values()):
        if split == "loo":
            return _Layout()
        raise UsageError(
            f"{root.absolute()}: the images of {folders} are not in class folders: use one folder per class in each, "
            f"or a csv with path,label (csv:FILE); with {option('split', 'loo')} these folders are the classes"
        )
    if split == "loo":
        return _Layout(frozenset(below), notes=(f"{folders} are merged: a class is the same in each",))
    sides = training_sides([*below], f"{root.absolute()} has {folders}")
    return _Layout(frozenset(below), sides, (sides_note(sides, suffix="/"),))


def _top(path: str) -> str:
    return path.partition("/")[0]


def _image_paths(root: Path, left_out: _LeftOut) -> Iterator[str]:
    """Yield image paths relative to the root and count the others in ``left_out``.

    A folder that is its own ancestor is not entered again, so a link to a parent ends the walk.
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
            if entry.name.startswith(".") or (is_folder and entry.name.lower() in IGNORED_FOLDERS):
                if is_folder:
                    left_out.ignored[entry.name] += 1
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
    except OSError:  # a link to itself: the audit names it if it has the name of an image
        return False


def _order(path: str) -> bytes:
    """Return a sort key that does not depend on the Unicode form in which a system writes names."""
    return os.fsencode(canonical(path).replace("/", "\0"))  # a folder before names that continue its own


def _class_of(path: str) -> str:
    return _class_name(path.rpartition("/")[0])


@functools.lru_cache(maxsize=2**16)  # the images of a class share one text
def _class_name(folder: str) -> str:
    return canonical(folder) or "."
