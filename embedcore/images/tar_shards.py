"""Images in tar files of WebDataset, read in place: samples KEY.jpg with KEY.cls, KEY.json or KEY.txt.

A member's name only names its image in messages: no file is opened or written by that name.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from embedcore.errors import UsageError, option
from embedcore.images.columns import NAMES, Columns
from embedcore.images.folders import read_extensions
from embedcore.images.ledger import Ledger, stamp_of
from embedcore.images.sources import ImageSource, ShardedImages
from embedcore.plain import counted, one_line

_DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError)
# Key and extension, which begins at the first dot of the file's name.
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)
_LABELS = ("cls", "json", "txt")
_MOST_LABEL_BYTES = 2**20


@dataclass(frozen=True)
class TarSource(ImageSource):
    """Members of tar files. Items are ``SHARD:OFFSET:SIZE:NAME``: one text takes half the memory of a tuple."""

    root: str
    shards: tuple[str, ...]
    """Relative to the root."""

    def _member(self, index: int) -> tuple[str, int, int, str]:
        shard, offset, size, name = self.items[index].split(":", 3)
        return self.shards[int(shard)], int(offset), int(size), name

    def name(self, index: int) -> str:
        shard, _, _, name = self._member(index)
        return f"{shard}/{name}"

    def place(self, index: int) -> tuple[Path, str]:
        shard, offset, size, _ = self._member(index)
        return Path(self.root, shard), f"{offset}:{size}"

    def content(self, index: int) -> bytes:
        shard, offset, size, _ = self._member(index)
        with Path(self.root, shard).open("rb", buffering=0) as file:
            return _read(file, offset, size)


def read_tars(root: str, names: Sequence[str], chosen: Mapping[str, str], cache: Path | None) -> ShardedImages:
    """Return the images of tar files, in the order of the names and members.

    The class is the text of ``KEY.cls``, the ``label`` of ``KEY.json`` (or another usual key, or the one ``chosen``
    for label), or the text of ``KEY.txt``. The index of each file is kept in the ledger while the file does not change.

    Raises UsageError for a file that is damaged or cut off, several images of one key, and an image without a class.
    """
    ledger = Ledger(cache)
    items: list[str] = []
    labels: list[Any] = []
    counts: list[int] = []
    without = 0
    for number, name in enumerate(names):
        shard = Path(root, name)
        try:
            stamp, now_ns = stamp_of(shard), time.time_ns()
            options = f"{chosen.get('label', '')} {' '.join(sorted(read_extensions()))}"
            key = f"tar {options} {os.fsencode(shard.absolute()).hex()}"
            kept = ledger.trial(key)
            if kept is None or kept[0] != [*stamp]:
                kept = [[*stamp], *_index(shard, chosen.get("label"))]
                if stamp.is_settled(now_ns):
                    ledger.keep_trial(key, kept)
        except _DAMAGE as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(str(error))[:200]
            raise UsageError(f"{shard} cannot be read as tar file: {reason}") from error
        _, samples, others = kept
        items += [f"{number}:{offset}:{size}:{member}" for member, offset, size, _ in samples]
        labels += [label for *_, label in samples]
        counts.append(len(samples))
        without += others
    notes = (f"left out: {counted(without, 'sample')} without an image that can be read",) if without else ()
    source = TarSource(tuple(items), root, tuple(names))
    return ShardedImages(source, counts, Columns({"label": labels}, {"label": "label"}), notes)


def _index(shard: Path, chosen: str | None) -> tuple[list[list[Any]], int]:
    """Return name, offset, size and label of each image, and the number of samples without an image.

    Raises UsageError, and errors of `_DAMAGE`.
    """
    samples: dict[str, dict[str, tuple[str, int, int]]] = defaultdict(dict)
    with tarfile.open(shard, "r:") as opened, shard.open("rb", buffering=0) as file:
        while (member := opened.next()) is not None:
            opened.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
            parts = _MEMBER.fullmatch(member.name)
            if parts and member.isreg() and not member.issparse():
                samples[parts[1]][parts[2].lower()] = member.name, member.offset_data, member.size
        if _read(file, opened.offset, tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile ends at any invalid header
            raise tarfile.ReadError(f"it is damaged at byte {opened.offset}")
        found = []
        for key, members in samples.items():
            image = _image_of(f"{shard}/{key}", members)
            if image is not None:
                found.append([*image, _label_of(shard, key, members, file, chosen)])
    return found, len(samples) - len(found)


def _image_of(key: str, members: Mapping[str, tuple[str, int, int]]) -> tuple[str, int, int] | None:
    """Return the image of a sample; None if it has none. Raises UsageError for several."""
    endings = [ending for ending in members if f".{ending.rpartition('.')[2]}" in read_extensions()]
    found = [ending for ending in endings if "." not in ending] or endings  # before KEY.mask.png
    if len(found) > 1:
        raise UsageError(f"{key}: one image of each key is needed, not {', '.join(found[:5])}")
    return members[found[0]] if found else None


def _label_of(
    shard: Path, key: str, members: Mapping[str, tuple[str, int, int]], file: IO[bytes], chosen: str | None
) -> Any:
    for ending in ("json",) if chosen else _LABELS:
        if ending not in members:
            continue
        name, offset, size = members[ending]
        try:
            if size > _MOST_LABEL_BYTES:
                raise ValueError(f"{size:,} bytes are too long for a class")
            text = _read(file, offset, size).decode()
            if ending != "json":
                return text.strip()
            facts = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{shard}/{name}: {one_line(str(error))[:200]}") from error
        known = [chosen] if chosen else NAMES["label"]
        label = next((facts[name] for name in known if name in facts), None) if isinstance(facts, dict) else None
        if label is not None:
            return label
    wanted = f"{key}.json with {chosen!r}" if chosen else f"{key}.cls, {key}.json with 'label' or {key}.txt"
    other = "" if chosen else f" ({option('columns', 'label=NAME')} names another key)"
    raise UsageError(f"{shard}/{key}: no class: {wanted} is needed{other}")


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    """Return a part of a file. Raises ValueError if the file ends before."""
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise ValueError("it is cut off")
    return content
