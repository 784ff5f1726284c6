"""Audit and decode a large image set as a folder, as Parquet and as tar shards. Prints a Markdown table.

    python benchmarks/harness/huge_set.py [--images 20000] [--folder DIR]

The images are small generated JPEGs. Each form is loaded and decoded in a fresh process, then loaded again in another.
Memory is the largest sum of the anonymous memory of the process and its workers, above that of their imports; pages of
files are not counted, since the kernel drops them when it needs the room. All forms must have the same fingerprint and
the same pixels. Decoding is compared with a loop over Pillow that has the same number of processes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow
from PIL import Image
from pyarrow import parquet
from tabulate import tabulate

from embedcore.images.geometry import Geometry
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import StoredPixels, open_pixel_store
from embedcore.images.workers import usable_cpus

GEOMETRY = Geometry(64, 64, "bicubic", 0.9, "center")
EDGE, CLASSES = 96, 100
FORMS = ("folder", "parquet", "tar")
ROW_GROUP, SHARD = 1000, 10_000  # images
_SAMPLE_S = 0.25


def jpeg(number: int) -> bytes:
    """A JPEG of smooth noise."""
    coarse = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((EDGE, EDGE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def images(total: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield class, name and content of each image, in the order in which a folder of them is read."""
    numbers = [(number % CLASSES, number) for number in range(total)]
    with multiprocessing.Pool(usable_cpus()) as pool:
        contents = pool.imap(jpeg, [number for _, number in sorted(numbers)], chunksize=64)
        for (label, number), content in zip(sorted(numbers), contents, strict=True):
            yield f"{label:03}", f"{number:08}", content


def write_forms(root: Path, total: int) -> None:
    """Write the images in each form."""
    for form in FORMS:
        (root / form).mkdir(parents=True)
    features = {
        "image": {"_type": "Image"},
        "label": {"names": [f"{n:03}" for n in range(CLASSES)], "_type": "ClassLabel"},
    }
    kinds = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", kinds), ("label", pyarrow.int64())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    rows: list[tuple[str, str, bytes]] = []
    tar = tarfile.open(root / "tar" / "none.tar", "w")  # noqa: SIM115
    with parquet.ParquetWriter(root / "parquet" / "images.parquet", schema) as table:
        for place, (label, name, content) in enumerate(images(total)):
            if place % SHARD == 0:
                tar.close()
                tar = tarfile.open(root / "tar" / f"{place // SHARD:05}.tar", "w")  # noqa: SIM115
            for ending, part in (("jpg", content), ("cls", label.encode())):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))
            (root / "folder" / label).mkdir(exist_ok=True)
            (root / "folder" / label / f"{name}.jpg").write_bytes(content)
            rows.append((label, name, content))
            if len(rows) == ROW_GROUP or place == total - 1:
                cells = [{"bytes": content, "path": f"{name}.jpg"} for _, name, content in rows]
                columns = [pyarrow.array(cells, kinds), pyarrow.array([int(label) for label, *_ in rows])]
                table.write_table(pyarrow.table(columns, schema=schema), row_group_size=ROW_GROUP)
                rows = []
    tar.close()
    (root / "tar" / "none.tar").unlink()


class Memory:
    """The anonymous memory of this process and its workers, sampled by a thread."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.peak = 0
        threading.Thread(target=self._sample, daemon=True).start()

    def now(self) -> int:
        """Return bytes. Our children are multiprocessing's servers, with imports alone; theirs are the workers."""
        servers = self.process.children()
        memory = self.process.memory_info()
        total: int = memory.rss - memory.shared
        for worker in self.process.children(recursive=True):
            if worker not in servers:
                with contextlib.suppress(psutil.Error):
                    total += worker.memory_full_info().uss
        self.peak = max(self.peak, total)
        return total

    def _sample(self) -> None:
        while True:
            self.now()
            time.sleep(_SAMPLE_S)


def stage(source: Path, cache: Path) -> dict[str, Any]:
    """Load a form and open its pixel store; return seconds, bytes, fingerprint and checksum of the pixels."""
    memory = Memory()
    before = memory.now()
    begin = time.perf_counter()
    dataset = load_dataset(source, cache_dir=cache)
    fingerprint = dataset.fingerprint
    loaded = time.perf_counter()
    memory.now()
    load_peak, memory.peak = memory.peak - before, 0
    store = open_pixel_store(dataset, GEOMETRY, cache)
    stored = time.perf_counter()
    assert isinstance(store, StoredPixels)
    store_peak = memory.peak - before
    digest = hashlib.sha256()
    for start in range(0, len(store), 4096):
        digest.update(store.read(start, start + 4096).data)
    return {
        **{"load_s": loaded - begin, "store_s": stored - loaded, "load_bytes": load_peak, "store_bytes": store_peak},
        **{"fingerprint": fingerprint, "pixels": digest.hexdigest(), "images": len(dataset)},
    }


def in_fresh_process(source: Path, cache: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--stage", str(source), "--cache", str(cache)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def decode_share(files: list[str], target: Path, total: int, start: int) -> None:
    """A loop over Pillow: read, decode, scale and write some images."""
    transform = GEOMETRY.transform()
    rows = np.memmap(target, np.uint8, "r+", shape=(total, GEOMETRY.height, GEOMETRY.width, 3))
    for row, file in enumerate(files, start):
        with Image.open(file) as image:
            rows[row] = transform(image.convert("RGB"))
    rows.flush()


def plain_seconds(folder: Path, scratch: Path) -> float:
    """Return the seconds in which as many processes as CPUs decode a folder without embedcore's store."""
    files = sorted(map(str, folder.rglob("*.jpg")))
    target = scratch / "plain.rgb"
    with target.open("wb") as file:
        file.truncate(len(files) * GEOMETRY.height * GEOMETRY.width * 3)
    share = -(-len(files) // usable_cpus())
    shares = [(files[start : start + share], target, len(files), start) for start in range(0, len(files), share)]
    with multiprocessing.Pool(usable_cpus()) as pool:
        pool.starmap(decode_share, [(files[:8], target, len(files), 0)] * usable_cpus())  # imports
        begin = time.perf_counter()
        pool.starmap(decode_share, shares, chunksize=1)
        return time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000, help="number of images (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to write the images and caches (default: a temporary one)")
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(stage(arguments.stage, arguments.cache)))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        root = Path(name)
        write_forms(root, arguments.images)
        time.sleep(4)  # until the ledger trusts the stamps of the files
        plain = [plain_seconds(root / "folder", root)]
        rows, found = [], []
        for form in FORMS:
            first, second = (in_fresh_process(root / form, root / f"cache-{form}") for _ in range(2))
            found += [first, second]
            again = second["load_s"] + second["store_s"]
            memory = [f"{first[key] / 1e6:.0f}" for key in ("load_bytes", "store_bytes")]
            rows.append([form, f"{first['load_s']:.1f}", f"{first['store_s']:.1f}", f"{again:.1f}", *memory])
            if form == "folder":
                plain.append(plain_seconds(root / "folder", root))
        ratio = sum(plain) / 2 / found[0]["store_s"]
        print(f"{arguments.images:,} images, {usable_cpus()} processes\n")
        headers = ("form", "load s", "store s", "second start s", "load MB", "store MB")
        print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
        print(f"\nplain loops: {plain[0]:.1f} and {plain[1]:.1f} s; the folder's store has {ratio:.2f} of their speed")
    alike = {(each["fingerprint"], each["pixels"], each["images"]) for each in found}
    print("the forms have equal fingerprints and pixels" if len(alike) == 1 else "THE FORMS DIFFER")
    return int(len(alike) != 1)


if __name__ == "__main__":
    sys.exit(main())
