"""Image sets in files that hold many images: Parquet, Arrow and tar."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import ipc, parquet


@dataclass(frozen=True)
class Sample:
    """An image file, its name and its class."""

    name: str
    content: bytes
    label: Any


def samples_of(root: Path) -> list[Sample]:
    """The images of a folder of class folders, in the order in which it is read."""
    files = sorted(root.rglob("*.png"), key=lambda path: path.parts)
    return [Sample(f"{file.parent.name}-{file.stem}", file.read_bytes(), file.parent.name) for file in files]


def table_of(
    samples: Sequence[Sample], *, classes: Sequence[str] = (), plain: bool = False, **more: Sequence[Any]
) -> pyarrow.Table:
    """A table with the columns image and label. ``classes``: labels are numbers of a ``ClassLabel``. ``plain``: the
    image is binary, not a struct."""
    contents = [sample.content for sample in samples]
    cells = contents if plain else [{"bytes": content, "path": "../../etc/passwd"} for content in contents]
    labels = [classes.index(sample.label) if classes else sample.label for sample in samples]
    table = pyarrow.table({"image": cells, "label": labels, **more})
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    facts = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": facts}) if classes else table


def write_table(path: Path, table: pyarrow.Table, rows: int = 3) -> Path:
    """Write a table, ``rows`` of it in each row group. The suffix .stream gives an Arrow file of the other format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=rows)
        return path
    new = ipc.new_stream if path.suffix == ".stream" else ipc.new_file
    path = path.with_suffix(".arrow")
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", errors="surrogateescape") as opened:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


def members_of(samples: Sequence[Sample], label: str = "cls") -> dict[str, bytes]:
    """The members of a WebDataset shard, with the class in ``KEY.cls``, ``KEY.json`` or ``KEY.txt``."""
    members = {}
    for sample in samples:
        text = json.dumps({"caption": "x", "label": sample.label}) if label == "json" else f"{sample.label}\n"
        members[f"{sample.name}.{label}"] = text.encode()
        members[f"{sample.name}.png"] = sample.content
    return members
