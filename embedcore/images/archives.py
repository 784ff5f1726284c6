"""Zip and tar files of folders of images, unpacked once into the cache folder.

A compressed tar file can only be read from its beginning. Unpacked files also support everything that folders do: notes
on ignored files, ``metadata.csv``, worker processes, thumbnails.
"""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import filelock

from embedcore.errors import UsageError, option
from embedcore.files import PARTIAL, SPARE_BYTES, free_bytes
from embedcore.images.folders import IGNORED_FOLDERS
from embedcore.images.ledger import Ledger
from embedcore.images.store_files import hold
from embedcore.plain import bytes_text, one_line

FOLDER = "archives"
"""Within the cache folder; each of its folders is named by an archive's content and name."""

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LONGEST_NAME = 80
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(RuntimeError, NotImplementedError),  # zipfile's, for a password and an unknown compression
    *(KeyError, ValueError),  # links to missing members, invalid names
)
_held: dict[Path, int] = {}
"""Descriptors that mark unpacked folders as in use, until this process ends."""


def is_archive(path: Path) -> bool:
    """Return whether this is a file with the name of an archive."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def stem_of(archive: Path) -> str:
    """Return the name of an archive without its suffix.

    >>> stem_of(Path("Photos.2024.tar.gz"))
    'Photos.2024'
    """
    suffix = max((suffix for suffix in SUFFIXES if archive.name.lower().endswith(suffix)), key=len)
    return archive.name[: -len(suffix)]


def unpacked(archive: Path, cache: Path) -> Path:
    """Return the folder in the cache folder with an archive's files, or the folder that is its only entry.

    Raises UsageError for an archive that is damaged or encrypted, has members outside of its folder, or does not fit on
    the disk.
    """
    try:
        digest = Ledger(cache).sha256(archive)
        folder = cache / FOLDER / f"{digest[:16]}-{archive.name[-_LONGEST_NAME:]}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                partial = Path(f"{folder}{PARTIAL}")
                shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
                try:
                    _unpack(archive, partial)
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
            if folder not in _held:
                _held[folder] = hold(folder)
            os.utime(folder)
    except _DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(str(error))[:200]
        raise UsageError(f"{archive} cannot be unpacked: {reason or type(error).__name__}") from error
    return _without_wrapper(folder)


def _unpack(archive: Path, folder: Path) -> None:
    free = free_bytes(folder.parent)
    room = float("inf") if free is None else free - SPARE_BYTES
    total = 0
    folder.mkdir()
    members = _unzip(archive, folder) if archive.name.lower().endswith(".zip") else _untar(archive, folder)
    for size in members:
        total += size
        if total > room:
            raise UsageError(
                f"{archive} cannot be unpacked: its files take more than the {bytes_text(max(room, 0))} that may be "
                f"used in {folder.parent} ({option('cache', argument='cache_dir')} names another folder)"
            )


def _unzip(archive: Path, folder: Path) -> Iterator[int]:
    """Unpack a zip file; yield the size of each member before it is written. A member never exceeds its size."""
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            path = PurePosixPath(member.filename)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{member.filename!r} would be outside of its folder")
            yield member.file_size
            opened.extract(member, folder)


def _untar(archive: Path, folder: Path) -> Iterator[int]:
    """Unpack a tar file and yield sizes as :func:`_unzip` does. Devices and links out of the folder are refused."""
    if not hasattr(tarfile, "data_filter"):
        raise ValueError("a tar file needs Python 3.10.12, 3.11.4 or later")
    with tarfile.open(archive) as opened:
        for member in opened:
            yield member.size
            opened.extract(member, folder, filter="data")
        assert opened.fileobj is not None
        if opened.fileobj.tell() < opened.offset + tarfile.BLOCKSIZE:  # which tarfile does not check
            raise ValueError("it is cut off: it has no end mark")


def _without_wrapper(folder: Path) -> Path:
    """Return the folder; if its only entry is a folder, that one, and so on."""
    names = (entry.name for entry in folder.iterdir())
    visible = [folder / name for name in names if name[0] != "." and name.lower() not in IGNORED_FOLDERS]
    is_wrapper = len(visible) == 1 and visible[0].is_dir() and not visible[0].is_symlink()
    return _without_wrapper(visible[0]) if is_wrapper else folder
